"""IsoFLOP profiles as a value: the budgets' optima, the exponents, and their warnings."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from kdlaws.laws import artefact
from kdlaws.laws.result import Notice

FEWEST_SIZES = 4  # a parabola has three coefficients, and its scatter needs a degree of freedom
FEWEST_BUDGETS = 3  # a line has two coefficients
LARGEST_BIAS = 0.05


@dataclass(frozen=True)
class Budget:
    """One isoFLOP profile; a refused one has a ``reason``, a ``remedy`` and no optimum.

    ``flops`` is the runs' geometric mean. ``n_opt`` is the parabola's minimum, ``lo`` and ``hi``
    its Fieller interval, ``n_opt_error`` the standard error of log N_opt; ``n_tokens_*`` are the
    tokens that the budget leaves at these sizes; ``cross_entropy*`` the parabola's minimum value
    and its interval to first order. ``n_opt_valley`` is the minimum of the asymmetric valley
    (see ``isoflop``), ``parabola_bias`` = n_opt/n_opt_valley - 1; both None where the valley has
    no minimum. ``half_width_decades`` is half the sweep's log10 N, ``off_centre_decades`` how far
    above its middle the optimum lies.
    """

    flops: float
    n_runs: int
    status: str
    half_width_decades: float
    reason: str | None = None
    remedy: str | None = None
    n_opt: float | None = None
    lo: float | None = None
    hi: float | None = None
    n_opt_error: float | None = None
    n_tokens_opt: float | None = None
    n_tokens_lo: float | None = None
    n_tokens_hi: float | None = None
    cross_entropy: float | None = None
    cross_entropy_lo: float | None = None
    cross_entropy_hi: float | None = None
    off_centre_decades: float | None = None
    n_opt_valley: float | None = None
    parabola_bias: float | None = None

    def refused(self, reason: str, remedy: str) -> "Budget":
        return replace(self, reason=reason, remedy=remedy)


@dataclass(frozen=True)
class Exponent:
    """A power of compute and its interval."""

    value: float
    lo: float
    hi: float


_KIND = "set of isoFLOP profiles"


@dataclass(frozen=True)
class IsoFlops(artefact.Document):
    """The budgets in order of FLOPs, and the exponents; made by ``isoflop``.

    ``exponents`` has ``a`` (N_opt ~ C^a) and ``b`` (D_opt ~ C^b), None where too few budgets have
    an optimum. ``n_runs`` counts the runs of all budgets; ``dropped`` are the rows, from 0, that
    belong to none, and ``n_dropped`` counts these and the rows that were left out before.
    ``alpha`` and ``beta`` are the valley's.
    """

    n_column: str
    level: float
    alpha: float
    beta: float
    budgets: tuple[Budget, ...]
    exponents: Mapping[str, Exponent | None]
    n_runs: int
    dropped: tuple[int, ...]
    n_dropped: int
    inputs: Mapping[str, str | None]
    warnings: tuple[Notice, ...]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "IsoFlops":
        """Read what ``save`` wrote; ArtefactError where the file is no isoFLOP analysis."""
        content = artefact.read(path, _KIND)
        try:
            values = {name: content[name] for name in cls.__dataclass_fields__}
            values["budgets"] = tuple(Budget(**budget) for budget in content["budgets"])
            values["exponents"] = {
                name: value and Exponent(**value) for name, value in content["exponents"].items()
            }
            values["dropped"] = tuple(content["dropped"])
            values["warnings"] = tuple(Notice(**notice) for notice in content["warnings"])
            return cls(**values)
        except (KeyError, TypeError, AttributeError) as error:
            raise artefact.foreign(path, _KIND, error) from error

    def __str__(self) -> str:
        accepted = sum(budget.status == "ok" for budget in self.budgets)
        lines = [f"isoFLOP profiles, N = {self.n_column}, {self.level:.0%} intervals", _HEAD]
        lines += [_row(budget) for budget in self.budgets]
        lines += [_power(name, value) for name, value in self.exponents.items()]
        lines.append(
            f"a Chinchilla law has a = beta/(alpha + beta): "
            f"{self.beta / (self.alpha + self.beta):.3f} at alpha {self.alpha:g}, "
            f"beta {self.beta:g}, the valley's"
        )
        lines.append(
            f"{self.n_runs} runs in {len(self.budgets)} budgets, {accepted} with an optimum "
            f"({self.n_dropped} runs dropped)"
        )
        lines += [f"{n.code}: {n.message}\n    {n.remedy}" for n in self.warnings]
        return "\n".join(lines)


# --- text ----------------------------------------------------------------------------------------

_COLUMNS = "  {:<10}{:<6}{:<11}{:<24}{:<11}{:<15}{:<10}{:<8}{}"
_HEAD = _COLUMNS.format(
    "flops", "runs", "N_opt", "interval", "D_opt", "cross-entropy", "valley", "bias", "off-centre"
)


def _row(budget: Budget) -> str:
    if budget.status == "refused":
        start = f"  {budget.flops:<10.3g}{budget.n_runs:<6}"
        return f"{start}refused: {budget.reason}\n    {budget.remedy}"
    bias = "unknown" if budget.parabola_bias is None else f"{budget.parabola_bias:+.1%}"
    valley = "unknown" if budget.n_opt_valley is None else f"{budget.n_opt_valley:.4g}"
    return _COLUMNS.format(
        f"{budget.flops:.3g}",
        budget.n_runs,
        f"{budget.n_opt:.4g}",
        f"{budget.lo:.4g} to {budget.hi:.4g}",
        f"{budget.n_tokens_opt:.4g}",
        f"{budget.cross_entropy:.4g}",
        valley,
        bias,
        f"{budget.off_centre_decades:+.2f} of {budget.half_width_decades:.2f} decades",
    )


def _power(name: str, exponent: Exponent | None) -> str:
    size = {"a": "N_opt", "b": "D_opt"}[name]
    if exponent is None:
        return f"{size} ~ C^{name}: unknown"
    return (
        f"{size} ~ C^{name}: {name} = {exponent.value:.4g} ({exponent.lo:.4g} to {exponent.hi:.4g})"
    )


# --- warnings ------------------------------------------------------------------------------------


def warnings_of(
    budgets: Sequence[Budget], dropped: Sequence[int], flops_given: bool, n_column: str
) -> tuple[Notice, ...]:
    """What an analysis warns of."""
    return (
        *_flops_notices(flops_given, n_column),
        *_dropped_notices(dropped),
        *_few_notices(budgets),
        *_bias_notices(budgets),
    )


def _flops_notices(given: bool, n_column: str) -> list[Notice]:
    if given:
        return []
    message = f"there is no column flops: budgets are of 6 * {n_column} * n_tokens"
    remedy = "give the training FLOPs of each run, with the head and attention, as column flops"
    return [Notice("flops_6nd", message, remedy)]


def _dropped_notices(dropped: Sequence[int]) -> list[Notice]:
    if not dropped:
        return []
    rows = ", ".join(map(str, dropped[:10])) + (", ..." if len(dropped) > 10 else "")
    message = f"{len(dropped)} runs belong to no budget of {FEWEST_SIZES} runs: rows {rows}"
    remedy = "none is needed; for more budgets, give runs of more sizes at their FLOPs"
    return [Notice("runs_without_budget", message, remedy)]


def _few_notices(budgets: Sequence[Budget]) -> list[Notice]:
    accepted = sum(budget.status == "ok" for budget in budgets)
    if accepted >= FEWEST_BUDGETS:
        return []
    message = f"{accepted} of {len(budgets)} budgets have an optimum, too few for an exponent"
    remedy = f"give {FEWEST_BUDGETS} budgets or more, decades apart, or repair those refused"
    return [Notice("few_budgets", message, remedy)]


def _bias_notices(budgets: Sequence[Budget]) -> list[Notice]:
    biases = [budget.parabola_bias for budget in budgets if budget.parabola_bias is not None]
    large = [bias for bias in biases if abs(bias) > LARGEST_BIAS]
    if not large:
        return []
    message = (
        f"the parabola misplaces N_opt by {max(large, key=abs):+.0%}, and by over "
        f"{LARGEST_BIAS:.0%} at {len(large)} budgets: a valley is not symmetric in log N"
    )
    remedy = "narrow these sweeps, centre them on the optimum, or fit the law chinchilla instead"
    return [Notice("parabola_bias", message, remedy)]
