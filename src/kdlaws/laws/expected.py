"""The fit that runs would give, before any of them is made: from a guess of the law and the noise.

The runs are put exactly on the law at the guess, and the variances of trunks and runs are taken as
known. What a fit of these says of its parameters is what it says, at the median, of real runs that
scatter so (Cowan et al. 2011, arXiv:1007.1727, call them the Asimov data set). How well a fit knows
its variances is counted as of real runs: few trunks give wide intervals.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kdlaws.errors import InputError, TableError
from kdlaws.laws.catalogue import find
from kdlaws.laws.columns import Runs, read_runs
from kdlaws.laws.coordinates import Coordinates, coordinates
from kdlaws.laws.cost import ForwardFlops
from kdlaws.laws.dual import FloatArray
from kdlaws.laws.estimate import Estimate, Fixed, Stage
from kdlaws.laws.fit import check_arguments, methods_of, of_methods
from kdlaws.laws.gaps import undetermined_by_design
from kdlaws.laws.intervals import cluster_notices, identification_notices, parameters
from kdlaws.laws.law import METHOD, C, Law, column_of
from kdlaws.laws.mixed import Variances
from kdlaws.laws.outlook import new_run
from kdlaws.laws.resample import FEWEST_CLUSTERS
from kdlaws.laws.result import Fit, Notice
from kdlaws.laws.solve import Problem, Solution
from kdlaws.laws.uncertainty import linear
from kdlaws.laws.whiten import Whitening

AT_BOUND = 1e-6  # from a bound: where a fit stands that touches it
BEYOND_BOUND = 1.0  # of the coordinate: a fit of other runs had another box


@dataclass(frozen=True)
class Noise:
    """Standard deviations of log cross-entropy: of a trunk, and of a run within its trunk.

    By default those of this project's coverage campaign, benchmarks/coverage.md.
    """

    trunk: float = 0.004
    run: float = 0.002

    def __post_init__(self) -> None:
        if not (self.trunk >= 0 and self.run > 0 and np.isfinite(self.trunk + self.run)):
            raise InputError(
                f"trunk={self.trunk:g}, run={self.run:g} are no standard deviations",
                where="noise",
                remedy="give trunk=0 or more, and run above 0, of log cross-entropy: .002 is .2 %",
            )

    @property
    def variances(self) -> Variances:
        return Variances(self.trunk**2, self.run**2)


def expected_fit(
    columns: Mapping[str, ArrayLike],
    law: str | Callable[..., Any],
    guess: Mapping[str, float],
    noise: Noise | None = None,
    *,
    n_column: str = "n_params_non_embedding",
    trunk: Sequence[str] | None = None,
    fixed: Fixed | None = None,
    level: float = 0.9,
    forward: ForwardFlops | None = None,
) -> Fit:
    """The fit of ``law`` that one would get from runs of these columns, were ``guess`` the truth.

    ``columns`` are as of ``kdlaws.laws.fit``, without ``cross_entropy``; ``guess`` has a value for
    each free parameter; ``fixed`` are all pins and ties, the law's own unless given. Parameters
    have the guess as value, and the interval that they would have.

    Raises InputError for a law in two stages, an incomplete guess or one where the law has no
    value, TableError for columns that cannot be fitted or fewer runs than parameters.
    """
    check_arguments(n_column=n_column, level=level)
    form = of_methods(find(law), columns)
    found = expected(columns, form, guess, noise or Noise(), n_column, trunk, fixed)
    stage, runs = found.stages[0], found.runs
    uncertainty = linear(stage) if runs.n_clusters >= FEWEST_CLUSTERS else None
    gaps = undetermined_by_design(found, n_column)
    estimates = parameters(found, uncertainty, level, gaps)
    return Fit(
        law=law if isinstance(law, str) else form.name,
        n_column=n_column,
        parameters=estimates,
        level=level,
        objective=0.0,
        objective_name="half the sum of squares, of runs that are exactly on the law",
        n_runs=len(runs),
        n_dropped=0,
        converged=True,
        starts_agree=1.0,
        domain=_domain(form, runs, n_column),
        holdout=None,
        seed=0,
        inputs={"file": None, "sha256": None},
        warnings=(
            _NOT_MADE,
            *cluster_notices(runs.n_clusters, trunk is not None),
            *identification_notices(found, estimates, gaps, level, n_column, uncertainty),
        ),
        intervals="none" if uncertainty is None else f"expected, of {runs.n_clusters} trunks",
        fixed=found.fixed,
        methods=methods_of(columns) if form.by_method else (),
        new_run=new_run(found, None),
        forward_flops=forward,
        form=form,
        uncertainty=uncertainty,
    )


_NOT_MADE = Notice(
    "expected",
    "none of these runs has been made: the values are a guess, the intervals what to expect of it",
    "make the runs, and fit them",
)


def expected(
    columns: Mapping[str, ArrayLike],
    law: Law,
    guess: Mapping[str, float],
    noise: Noise,
    n_column: str,
    trunk: Sequence[str] | None = None,
    fixed: Fixed | None = None,
) -> Estimate:
    """The optimum, at the guess, of runs exactly on the law; raises as ``expected_fit``."""
    if law.stages:
        raise InputError(
            f"{law.name} is fitted in two stages, of which no expected fit is known",
            where="law",
            remedy="design the runs for spec_additive: what determines that determines this one",
        )
    pins = dict(law.fixed if fixed is None else fixed)
    rows = np.size(columns.get(n_column, ()))
    runs = read_runs({**columns, "cross_entropy": np.ones(rows)}, law, n_column, trunk)
    _check_enough(law, runs, pins)
    at = coordinates(law, runs.x, 1.0, pins)
    v = at.of(_u(law, guess, pins))
    runs = replace(runs, cross_entropy=_on_the_law(at, v, runs))
    at = coordinates(law, runs.x, float(np.median(runs.cross_entropy)), pins)
    v = _inside(at, v)
    variances = noise.variances
    problem = Problem(at, runs.x, runs.log_y, np.inf, Whitening(runs.cluster, variances.ratio))
    exact = Solution(v[None], np.zeros(1), np.zeros(1))
    every = np.ones(len(runs), dtype=bool)
    stage = Stage(runs, every, pins, problem, v[None], exact, variances)
    return Estimate(law, pins, runs, (stage,))


def _check_enough(law: Law, runs: Runs, pins: Fixed) -> None:
    n_free = len(set(law.parameters) - set(pins))
    if len(runs) <= n_free:
        raise TableError(
            f"{len(runs)} runs cannot determine {n_free} parameters",
            where=f"law {law.name}",
            remedy=f"propose {n_free + 1} runs or more, or a law with fewer parameters",
        )


def _u(law: Law, guess: Mapping[str, float], pins: Fixed) -> FloatArray:
    """u ``[unknowns]`` of the guess, NaN for what is pinned or tied."""
    free = [unknown for unknown in law.unknowns if unknown.name not in pins]
    wrong = [x.name for x in free if not _is_value(guess.get(x.name), x.kind == "scale")]
    if wrong:
        raise InputError(
            f"there is no usable guess of {', '.join(wrong)}",
            where=f"law {law.name}",
            remedy="give a number for each, above 0 for a scale",
        )
    plain = {x.name: np.log(guess[x.name]) if x.kind == "scale" else guess[x.name] for x in free}
    return np.array([plain.get(name, np.nan) for name in law.parameters])


def _is_value(value: float | None, is_scale: bool) -> bool:
    return value is not None and bool(np.isfinite(value)) and (value > 0 or not is_scale)


def _on_the_law(at: Coordinates, v: FloatArray, runs: Runs) -> FloatArray:
    """Cross-entropies ``[runs]``."""
    log_loss = at.value(v[None], runs.x)[0]
    if not np.isfinite(log_loss).all():
        raise InputError(
            f"{at.law.name} has no value at the guess for {(~np.isfinite(log_loss)).sum()} runs",
            where="guess",
            remedy="give another; a teacher's cross-entropy must be above the law's floor",
        )
    cross_entropy: FloatArray = np.exp(log_loss)
    return cross_entropy


def _inside(at: Coordinates, v: FloatArray) -> FloatArray:
    """What a fit ends at where the guess is at its bound; InputError for one that is far beyond."""
    inside = np.clip(v, at.lower + AT_BOUND, at.upper - AT_BOUND)
    out = np.flatnonzero(np.abs(inside - v) > BEYOND_BOUND)
    if len(out):
        names = ", ".join(at.law.parameters[at.free[k]] for k in out)
        raise InputError(
            f"the guess of {names} is outside what a fit searches",
            where=f"law {at.law.name}",
            remedy="give values of the size that runs like these have",
        )
    return inside


def _domain(law: Law, runs: Runs, n_column: str) -> dict[str, tuple[float, float]]:
    """The range of each column that the law reads, and of FLOPs."""
    ranges = {}
    for role in (name for name in (*law.reads, *law.optional, C) if name != METHOD):
        known = np.exp(runs.x[role][np.isfinite(runs.x[role])])
        if len(known):
            ranges[column_of(role, n_column)] = (float(known.min()), float(known.max()))
    return ranges
