"""Which law to trust: back-tests of several, and a choice that never sees the held-out runs.

The runs of largest compute are held out. Inside the others, rolling back-tests fit the first part
and predict the rest; each law weighs 1/error^2 there (Bates and Granger 1969), and those much worse
than the best weigh nothing. What is predicted is the weighted mean of log cross-entropy: laws that
bend differently beyond the runs err on different sides of the truth, so their mean errs less.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdlaws.errors import InputError, TableError
from kdlaws.laws.backtest import HELD_OUT_SHARE, LEVEL, coverage, interval, mape, split
from kdlaws.laws.catalogue import find
from kdlaws.laws.columns import N_COLUMNS, Runs, read_runs
from kdlaws.laws.comparison import Chosen, Compared, Comparison, Group
from kdlaws.laws.dual import FloatArray
from kdlaws.laws.estimate import Estimate, Loss, estimate
from kdlaws.laws.fit import check_arguments, fit, flops_notices, methods_of, of_methods
from kdlaws.laws.law import L_T, METHOD, SCRATCH, TEACHER_N, C, D, Law, U, column_of
from kdlaws.laws.mixture import Mixture, mixed_interval
from kdlaws.laws.repeats import huber_delta
from kdlaws.laws.result import Fit, Holdout, Notice
from kdlaws.laws.uncertainty import Interval

BASELINE = "compute"
ORIGINS = (0.7, 0.8, 0.9)  # shares of the training part, in order of compute: nearly all of it
HOPELESS = 3.0  # times the smallest rolling error; such a law weighs nothing
EXACT = 1e-9  # percent; a rolling error below it is rounding, and its inverse square no weight
REPEATS = 1.01  # passes over the data, on the way to which repeats cannot show


def compare(
    columns: Mapping[str, ArrayLike],
    laws: Sequence[str | Callable[..., Any]] | None = None,
    *,
    n_column: str = "n_params_non_embedding",
    trunk: Sequence[str] | None = None,
    group: Sequence[str] | None = None,
    loss: Loss = "huber",
    holdout: float = HELD_OUT_SHARE,
    seed: int = 0,
    source: Mapping[str, str | None] | None = None,
    n_dropped: int = 0,
    notices: Sequence[Notice] = (),
) -> Comparison:
    """Back-test ``laws`` (by default those that the columns allow) and choose among them.

    Arguments as of ``fit``; ``holdout`` is the share of largest compute that the choice never sees,
    ``group`` a label for each run: every law is then also tested on each group in turn. Raises
    InputError for an unknown law or argument, TableError where the runs are too few to compare.
    """
    check_arguments(n_column=n_column, loss=loss, holdout=holdout, seed=seed)
    names = list(dict.fromkeys((*(laws or candidates(columns)), BASELINE)))
    trials = [_Trial(name, columns, n_column, trunk, loss, holdout, seed) for name in names]
    usable = [t for t in trials if t.rolling is not None and np.isfinite(t.rolling)]
    if not usable:
        raise TableError(
            f"{len(trials[0].runs)} runs are too few to back-test a law inside the training part",
            where="holdout",
            remedy="give more runs, or hold out a smaller share",
        )
    baseline = next(trial for trial in trials if trial.name == BASELINE)
    compared = tuple(trial.compared(baseline, group) for trial in trials)
    return Comparison(
        laws=compared,
        chosen=_choose(usable, baseline),
        baseline=compared[trials.index(baseline)],
        n_column=n_column,
        n_runs=len(baseline.runs),
        n_dropped=n_dropped,
        inputs={"file": None, "sha256": None, **(source or {})},
        warnings=(
            *notices,
            *_pooled(trials, columns),
            *flops_notices(C in columns, baseline.law, n_column),
        ),
    )


def _pooled(trials: Sequence["_Trial"], columns: Mapping[str, ArrayLike]) -> list[Notice]:
    """That a law which knows no methods is fitted to several."""
    methods = methods_of(columns)
    blind = [t.name for t in trials if METHOD not in t.law.optional]
    if len(methods) < 2 or not blind:
        return []
    message = f"{', '.join(blind)}: one law is fitted to several methods ({', '.join(methods)})"
    return [Notice("pooled_methods", message, "compare the runs of one method")]


def candidates(columns: Mapping[str, ArrayLike]) -> list[str]:
    """The laws that these columns can tell apart.

    A broken law must be asked for: no back-test can show a break before it comes.
    """
    names = ["chinchilla", "generalized", "kaplan"] if D in columns else []
    if L_T in columns and np.isfinite(np.asarray(columns[L_T], dtype=np.float64)).any():
        names.append("busbridge_limit")  # busbridge is the same curve with one parameter more
    if METHOD in columns and len(methods_of(columns)) > 1 and _teachers_known(columns):
        names += ["spec", "spec_additive"]
    if U in columns and np.any(_passes(columns) > REPEATS) and np.isfinite(_passes(columns)).all():
        names.append("data_constrained")
    return [*names, BASELINE]


def _teachers_known(columns: Mapping[str, ArrayLike]) -> bool:
    taught = np.asarray(columns[METHOD], dtype=str) != SCRATCH
    names = [column_of(TEACHER_N, n_column) for n_column in N_COLUMNS]
    sizes = [columns[name] for name in names if name in columns]
    return any(np.isfinite(np.asarray(size, dtype=np.float64)[taught]).all() for size in sizes)


def _passes(columns: Mapping[str, ArrayLike]) -> FloatArray:
    tokens, unique = (np.asarray(columns[name], dtype=np.float64) for name in (D, U))
    return np.asarray(tokens / unique, dtype=np.float64)


class _Trial:
    """One law under test."""

    def __init__(
        self,
        name: str | Callable[..., Any],
        columns: Mapping[str, ArrayLike],
        n_column: str,
        trunk: Sequence[str] | None,
        loss: Loss,
        holdout: float,
        seed: int,
    ) -> None:
        self.law: Law = of_methods(find(name), columns)
        self.name = name if isinstance(name, str) else self.law.name
        self.loss, self.seed = loss, seed
        self.runs = read_runs(columns, self.law, n_column, trunk)
        rows, held_out = split(self.runs, holdout)
        self.train, self.test = self.runs[rows], self.runs[held_out]
        self.fitted = self._fit(self.train, self.test)
        self.rolling = None if self.fitted is None else self._rolling()

    def _fit(self, runs: Runs, test: Runs) -> Estimate | None:
        """None where the runs are too few for the law, or know nothing of a method of ``test``."""
        if len(runs) <= self.n_parameters or not runs.knows_methods_of(test):
            return None
        try:
            return estimate(self.law, runs, self.law.fixed, self.loss, huber_delta(runs))
        except TableError:
            return None

    def _rolling(self) -> float | None:
        """Mean absolute error in percent, over origins, of what each leaves of the training."""
        order = self.train.by_compute
        errors = []
        for share in ORIGINS:
            cut = round(share * len(order))
            test = self.train[order[cut:]]
            fitted = self._fit(self.train[order[:cut]], test)
            if fitted is None or not len(test):
                return None
            errors.append(mape(fitted.log_prediction(test), test))
        return float(np.mean(errors))

    @property
    def n_parameters(self) -> int:
        """How many are free."""
        return len(self.law.unknowns) - len(self.law.fixed)

    def prediction(self) -> FloatArray:
        """log cross-entropy of the held-out runs."""
        assert self.fitted is not None
        return self.fitted.log_prediction(self.test)

    def interval(self) -> Interval | None:
        """New-run interval of log cross-entropy of the held-out runs; None for few trunks."""
        assert self.fitted is not None
        return interval(self.fitted, self.test, self.loss, np.random.default_rng(self.seed))

    def compared(self, baseline: "_Trial", group: Sequence[str] | None) -> Compared:
        tested = self.fitted is not None and len(self.test) > 0
        return Compared(
            law=self.name,
            n_parameters=self.n_parameters,
            aic=_aic(self._fit(self.runs, self.runs)),
            rolling=self.rolling,
            holdout=_tested(self.prediction(), self.interval(), baseline) if tested else None,
            groups=() if group is None else tuple(self._groups(np.asarray(group, dtype=str))),
            warnings=self._notices(tested),
        )

    def _notices(self, tested: bool) -> tuple[Notice, ...]:
        if self.rolling is None:
            return (_too_few(self.name),)
        return () if tested else (_no_test(self.name),)

    def _groups(self, group: NDArray[Any]) -> list[Group]:
        if len(group) != len(self.runs):
            raise InputError(f"{len(group)} labels for {len(self.runs)} runs", where="group")
        found = []
        for name in np.unique(group):
            held = np.flatnonzero(group == name)
            rest, test = self.runs[np.flatnonzero(group != name)], self.runs[held]
            fitted = self._fit(rest, test)
            error = None if fitted is None else mape(fitted.log_prediction(test), test)
            found.append(Group(str(name), len(held), error))
        return found


def _too_few(name: str) -> Notice:
    message = f"{name}: too few of the cheaper runs, or none of a method, so it cannot be chosen"
    return Notice("no_holdout", message, "give more runs, or leave this law out")


def _no_test(name: str) -> Notice:
    message = f"{name}: no runs of largest compute are held out to test it"
    return Notice("no_holdout", message, "hold out a larger share")


def _aic(fitted: Estimate | None) -> float | None:
    """Akaike's criterion for normal noise of log cross-entropy; only differences mean anything.

    Runs of one trunk count as independent here, so it exaggerates where trunks are shared.
    """
    if fitted is None:
        return None
    residual = fitted.residual()
    n = len(residual)
    variance = max(float(residual @ residual) / n, 1e-300)
    return float(n * np.log(variance) + 2 * (fitted.n_free + 1))


def _tested(log_prediction: FloatArray, ends: Interval | None, baseline: _Trial) -> Holdout:
    test = baseline.test
    return Holdout(
        mape=mape(log_prediction, test),
        baseline_mape=None if baseline.fitted is None else mape(baseline.prediction(), test),
        coverage_90=coverage(ends, test),
        n_test=len(test),
    )


def _choose(trials: Sequence[_Trial], baseline: _Trial) -> Chosen:
    rolling = {trial.name: max(float(trial.rolling or 0.0), EXACT) for trial in trials}
    weights = weights_of(rolling)
    used = [trial for trial in trials if weights[trial.name]]
    holdout = None
    if baseline.fitted is not None and len(baseline.test):
        holdout = _mixed(used, [weights[trial.name] for trial in used], baseline)
    alone = used[0].name if len(used) == 1 else None
    return Chosen(alone, weights, holdout, tuple(_reasons(rolling, weights)))


def _mixed(trials: Sequence[_Trial], weights: Sequence[float], baseline: _Trial) -> Holdout:
    """The back-test of the combination on the held-out runs."""
    w = np.array(weights)
    curves = np.stack([trial.prediction() for trial in trials])
    found = [ends for trial in trials if (ends := trial.interval()) is not None]
    if len(found) < len(trials):
        return _tested(w @ curves, None, baseline)
    lo, hi = (np.stack(end) for end in zip(*found, strict=True))
    return _tested(w @ curves, mixed_interval(w, curves, lo, hi, LEVEL), baseline)


def weights_of(rolling: Mapping[str, float]) -> dict[str, float]:
    """1/error^2, scaled to a sum of one; nothing for what is ``HOPELESS`` times worse."""
    best = min(rolling.values())
    raw = {
        n: (error / best) ** -2 if error <= HOPELESS * best else 0.0 for n, error in rolling.items()
    }
    total = sum(raw.values())
    return {name: value / total for name, value in raw.items()}


def _reasons(rolling: Mapping[str, float], weights: Mapping[str, float]) -> list[str]:
    ordered = sorted(rolling, key=lambda name: rolling[name])
    errors = ", ".join(f"{name} {rolling[name]:.2f}%" for name in ordered)
    reasons = [f"rolling back-tests inside the training part: {errors}"]
    out = [name for name in ordered if not weights[name]]
    used = [name for name in ordered if weights[name]]
    if len(used) > 1:
        reasons.append(f"laws within a factor {HOPELESS:g} of the best are weighted by 1/error^2")
    if out:
        reasons.append(f"far worse there, and left out: {', '.join(out)}")
    return reasons


def combine(
    columns: Mapping[str, ArrayLike],
    chosen: Chosen,
    laws: Sequence[str | Callable[..., Any]] = (),
    **arguments: Any,
) -> Fit | Mixture:
    """What ``compare`` chose, fitted to all runs; ``arguments`` as of ``fit``.

    ``laws`` are those that were compared, where functions were among them.
    """
    own = {law.__name__: law for law in laws if callable(law)}
    used = {name: weight for name, weight in chosen.weights.items() if weight}
    fits = tuple(fit(columns, own.get(name, name), **arguments) for name in used)
    return fits[0] if len(fits) == 1 else Mixture(fits, tuple(used.values()))
