"""IsoFLOP profiles: the best size of each compute budget, and how it grows with compute.

Approach 2 of Hoffmann et al. 2022 (arXiv:2203.15556, section 3.2): at each budget a parabola of
cross-entropy in log N gives N_opt, and over the budgets N_opt ~ C^a, D_opt ~ C^b. No law of loss
is assumed. The conventional check: under a Chinchilla law with C = 6*N*D, a = beta/(alpha + beta).

N parameters, D tokens, C training FLOPs, cross-entropy in nats per token; log is natural.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, isfinite, log, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdlaws.errors import InputError, TableError
from kdlaws.laws.columns import check_lengths, read_column
from kdlaws.laws.dual import FloatArray
from kdlaws.laws.fit import check_arguments
from kdlaws.laws.isoflop_result import (
    FEWEST_BUDGETS,
    FEWEST_SIZES,
    Budget,
    Exponent,
    IsoFlops,
    warnings_of,
)
from kdlaws.laws.result import Notice

__all__ = ["IsoFlops", "isoflop"]

ALPHA, BETA = 0.3478, 0.3658  # Besiroglu et al. 2024 (arXiv:2404.10102)

WIDTH = log(1.2)  # runs of one budget lie within 10 % of its middle
SAME_SIZE = log(1.01)  # sizes nearer than this are one size, counted or read twice
LARGEST_LOG = 700.0  # beyond it a float overflows
ROUNDING = 1e-12  # a cross-entropy is no more exact than this share of it

IntArray = NDArray[np.int64]


def isoflop(
    columns: Mapping[str, ArrayLike],
    *,
    n_column: str = "n_params_non_embedding",
    level: float = 0.9,
    alpha: float = ALPHA,
    beta: float = BETA,
    source: Mapping[str, str | None] | None = None,
    n_dropped: int = 0,
    notices: Sequence[Notice] = (),
) -> IsoFlops:
    """Find the best size at each compute budget, one value of each column per run.

    ``columns`` holds ``n_column``, ``cross_entropy`` (nats per token) and ``flops`` (6*N*D where
    it is absent, with a warning); with ``n_tokens`` the tokens at the optimum follow the runs' own
    C = k*N*D, else k = 6. ``source`` (file, sha256), ``n_dropped`` (rows left out before) and
    ``notices`` are only carried along.

    Budgets: the window of 20 % in FLOPs that holds the most runs is a budget, then the same among
    the runs farther than 20 % from it, until none holds four. Gaps alone would chain budgets
    together over stray runs.

    ``alpha`` and ``beta`` say how far a parabola may be trusted: at fixed C the valley of
    E + A/N^alpha + B/D^beta is asymmetric in x = log N, F + P exp(-alpha x) + Q exp(beta x), and a
    wide or off-centre sweep moves the parabola's minimum. F, P, Q are fitted beside it. This takes
    k as constant over a sweep.

    Raises InputError for an argument, TableError for columns that hold no budget. A budget without
    a trustworthy optimum is refused in the result.
    """
    check_arguments(n_column=n_column, level=level)
    _check_exponents(alpha=alpha, beta=beta)
    runs = _read(columns, n_column)
    groups = _group(np.log(runs.flops))
    budgets = tuple(_budget(runs.only(rows), level, alpha, beta) for rows in groups)
    exponents = _exponents([budget for budget in budgets if budget.status == "ok"], level)
    dropped = np.setdiff1d(np.arange(len(runs.n)), np.concatenate(groups)).tolist()
    return IsoFlops(
        n_column=n_column,
        level=level,
        alpha=alpha,
        beta=beta,
        budgets=budgets,
        exponents=exponents,
        n_runs=len(runs.n) - len(dropped),
        dropped=tuple(dropped),
        n_dropped=n_dropped + len(dropped),
        inputs={"file": None, "sha256": None, **(source or {})},
        warnings=(*notices, *warnings_of(budgets, dropped, "flops" in columns, n_column)),
    )


class _Runs(NamedTuple):
    """Checked columns ``[runs]``; ``cost`` is k = C/(N*D)."""

    n: FloatArray
    cross_entropy: FloatArray
    flops: FloatArray
    cost: FloatArray

    def only(self, rows: IntArray) -> "_Runs":
        return _Runs(*(values[rows] for values in self))


def _check_exponents(**given: float) -> None:
    for where, value in given.items():
        if not (isfinite(value) and value > 0):
            remedy = "give a Chinchilla law's exponent, a positive number"
            raise InputError(f"{value!r} cannot be used", where=where, remedy=remedy)


def _read(columns: Mapping[str, ArrayLike], n_column: str) -> _Runs:
    cross_entropy = read_column(columns, "cross_entropy", n_column)
    names = (n_column, "cross_entropy", "flops", "n_tokens")
    check_lengths(cross_entropy.size, {name: columns[name] for name in names if name in columns})
    n = read_column(columns, n_column, n_column)
    flops = read_column(columns, "flops", n_column)
    cost = np.full_like(n, 6.0)
    if "n_tokens" in columns:
        cost = flops / (n * read_column(columns, "n_tokens", n_column))
    return _Runs(n, cross_entropy, flops, cost)


def _group(log_flops: FloatArray) -> list[IntArray]:
    """The rows of each budget, in order of FLOPs; the rule is in ``isoflop``."""
    left = np.argsort(log_flops, kind="stable")
    groups: list[IntArray] = []
    while (window := _densest(log_flops[left])) is not None:
        inside = left[window]
        lowest, highest = log_flops[inside[0]], log_flops[inside[-1]]
        groups.append(inside)
        # A budget's stragglers are not another budget.
        left = left[(log_flops[left] < lowest - WIDTH) | (log_flops[left] > highest + WIDTH)]
    if not groups:
        raise TableError(
            f"there is no budget: no {FEWEST_SIZES} runs lie within 20 % of each other",
            where="flops",
            remedy="give runs of several sizes at equal FLOPs, or fit the law chinchilla instead",
        )
    return sorted(groups, key=lambda rows: float(log_flops[rows[0]]))


def _densest(ordered: FloatArray) -> slice | None:
    """The window that holds the most values, the first of these; None where that is few."""
    counts = np.searchsorted(ordered, ordered + WIDTH, side="right") - np.arange(len(ordered))
    if not len(ordered) or counts.max() < FEWEST_SIZES:
        return None
    start = int(counts.argmax())
    return slice(start, start + int(counts[start]))


def _budget(runs: _Runs, level: float, alpha: float, beta: float) -> Budget:
    log_n = np.log(runs.n)
    budget = Budget(
        flops=float(np.exp(np.log(runs.flops).mean())),
        n_runs=len(log_n),
        status="refused",
        half_width_decades=float(np.ptp(log_n) / 2 / log(10)),
    )
    n_sizes = 1 + int((np.diff(np.sort(log_n)) > SAME_SIZE).sum())
    if n_sizes < FEWEST_SIZES:
        reason = f"{n_sizes} distinct N do not show a minimum and its scatter"
        return budget.refused(reason, f"give {FEWEST_SIZES} sizes or more at this budget")
    curve = _parabola(log_n, runs.cross_entropy, level)
    if (why := _refusal(curve, runs.n)) is not None:
        return budget.refused(*why)
    valley = _valley(log_n, runs.cross_entropy, alpha, beta)
    return _accept(budget, curve, valley, runs)


@dataclass(frozen=True)
class _Parabola:
    """Least squares of cross-entropy on 1, z, z^2, where z = (log N - middle)/half_width.

    ``t`` is Student's quantile for the two-sided level and the runs' degrees of freedom.
    """

    middle: float
    half_width: float
    coefficients: FloatArray
    covariance: FloatArray
    t: float

    @property
    def minimum(self) -> float:
        """The minimum's z; -1 and 1 are the smallest and the largest N."""
        _, slope, curvature = self.coefficients
        return float(-slope / (2 * curvature))

    def log_n(self, z: float) -> float:
        return self.middle + self.half_width * z

    def interval(self) -> tuple[float, float] | None:
        """Fieller's set of z at which a zero slope is not rejected; None where it has no end.

        Exact for a ratio of coefficients (Fieller 1954): (c1 + 2 c2 z)^2 <= t^2 var(c1 + 2 c2 z).
        """
        (_, c1, c2), v, t2 = self.coefficients, self.covariance, self.t**2
        square, half_linear = 4 * (c2**2 - t2 * v[2, 2]), 2 * (c1 * c2 - t2 * v[1, 2])
        if square <= 0:
            return None
        root = sqrt(max(0.0, half_linear**2 - square * (c1**2 - t2 * v[1, 1])))
        lo, hi = (-half_linear - root) / square, (-half_linear + root) / square
        if max(-self.log_n(lo), self.log_n(hi)) > LARGEST_LOG:
            return None
        return float(lo), float(hi)

    def standard_error(self) -> float:
        """Of the minimum's log N, to first order."""
        slope_of_slope = np.array([0.0, 1.0, 2 * self.minimum])
        variance = float(slope_of_slope @ self.covariance @ slope_of_slope)
        return self.half_width * sqrt(variance) / abs(2 * float(self.coefficients[2]))

    def depth(self) -> tuple[float, float, float]:
        """The minimum's cross-entropy and its interval.

        To first order the curve's own interval there: at a minimum its place does not matter.
        """
        at = np.array([1.0, self.minimum, self.minimum**2])
        value = float(at @ self.coefficients)
        margin = self.t * sqrt(float(at @ self.covariance @ at))
        return value, value - margin, value + margin


def _parabola(log_n: FloatArray, cross_entropy: FloatArray, level: float) -> _Parabola:
    from scipy.special import stdtrit

    middle, half_width = float(log_n.min() + log_n.max()) / 2, float(np.ptp(log_n)) / 2
    design = np.vander((log_n - middle) / half_width, 3, increasing=True)
    coefficients = np.asarray(np.linalg.lstsq(design, cross_entropy)[0], dtype=np.float64)
    residuals = cross_entropy - design @ coefficients
    freedom = len(log_n) - 3
    noise = max(residuals @ residuals / freedom, (ROUNDING * cross_entropy.max()) ** 2)
    covariance = noise * np.linalg.inv(design.T @ design)
    t = float(stdtrit(freedom, (1 + level) / 2))
    return _Parabola(middle, half_width, coefficients, covariance, t)


def _refusal(curve: _Parabola, n: FloatArray) -> tuple[str, str] | None:
    """Why the minimum of ``curve`` may not be used, and what to do; None where it may."""
    both = "add smaller and larger models at this budget, until the loss rises on both sides"
    if curve.coefficients[2] <= 0:
        return "the parabola has no minimum: it bends downwards", both
    if curve.interval() is None:
        reason = "the interval of N_opt has no end: the curvature may be zero"
        return reason, f"{both}, or add seeds"
    if abs(z := curve.minimum) <= 1:
        return None
    side, end = ("below the smallest", n.min()) if z < -1 else ("above the largest", n.max())
    others = "smaller" if z < -1 else "larger"
    return f"the minimum lies {side} N, {end:.4g}", f"add {others} models at this budget"


def _accept(budget: Budget, curve: _Parabola, valley: float | None, runs: _Runs) -> Budget:
    """The budget with its optimum, from a ``curve`` that is not refused and the valley's log N."""
    interval = curve.interval()
    assert interval is not None, "an unbounded interval is refused"
    log_n = np.array([curve.log_n(z) for z in (curve.minimum, *interval)])
    n_opt, lo, hi = np.exp(log_n).tolist()
    n_tokens_opt, *ends = _tokens(log_n, budget.flops, runs).tolist()
    cross_entropy, cross_entropy_lo, cross_entropy_hi = curve.depth()
    return replace(
        budget,
        status="ok",
        n_opt=n_opt,
        lo=lo,
        hi=hi,
        n_opt_error=curve.standard_error(),
        n_tokens_opt=n_tokens_opt,
        n_tokens_lo=min(ends),
        n_tokens_hi=max(ends),
        cross_entropy=cross_entropy,
        cross_entropy_lo=cross_entropy_lo,
        cross_entropy_hi=cross_entropy_hi,
        off_centre_decades=curve.half_width * curve.minimum / log(10),
        n_opt_valley=None if valley is None else exp(valley),
        parabola_bias=None if valley is None else n_opt / exp(valley) - 1,
    )


def _tokens(log_n: FloatArray, flops: float, runs: _Runs) -> FloatArray:
    """D = C/(k*N), with the runs' own k at ``log_n``.

    Interpolated: with the head and attention, k falls by factors over a sweep of small models.
    """
    order = np.argsort(runs.n, kind="stable")
    log_cost = np.interp(log_n, np.log(runs.n[order]), np.log(runs.cost[order]))
    tokens: FloatArray = np.exp(np.log(flops) - log_cost - log_n)
    return tokens


def _valley(
    log_n: FloatArray, cross_entropy: FloatArray, alpha: float, beta: float
) -> float | None:
    """log N at the minimum of F + P exp(-alpha x) + Q exp(beta x); None where it has none.

    Linear least squares in F, P, Q; the minimum is x = log(alpha P/(beta Q))/(alpha + beta).
    """
    x = log_n - log_n.mean()
    design = np.stack([np.ones_like(x), np.exp(-alpha * x), np.exp(beta * x)], axis=1)
    _, p, q = np.linalg.lstsq(design, cross_entropy)[0]
    if not (p > 0 and q > 0):
        return None
    minimum = float(log_n.mean() + np.log(alpha * p / (beta * q)) / (alpha + beta))
    return minimum if abs(minimum) < LARGEST_LOG else None


def _exponents(accepted: Sequence[Budget], level: float) -> dict[str, Exponent | None]:
    if len(accepted) < FEWEST_BUDGETS:
        return {"a": None, "b": None}
    flops, n_opt, n_tokens_opt, error = np.array(
        [(b.flops, b.n_opt, b.n_tokens_opt, b.n_opt_error) for b in accepted], dtype=np.float64
    ).T
    # log D_opt has the error of log N_opt: at fixed C a size leaves no choice of tokens.
    optima = {"a": n_opt, "b": n_tokens_opt}
    return {name: _slope(np.log(flops), np.log(y), error, level) for name, y in optima.items()}


def _slope(x: FloatArray, y: FloatArray, error: FloatArray, level: float) -> Exponent:
    """Weighted least squares, Student's interval on len(x) - 2 degrees of freedom.

    Weights 1/(error^2 + scatter), the variance ``scatter`` common to all budgets and such that
    the residuals are as large as they should be (Paule & Mandel 1982). The budgets' own errors
    alone would let one that looks precise by luck carry the line.
    """
    from scipy.optimize import brentq
    from scipy.special import stdtrit

    freedom = len(x) - 2

    def excess(scatter: float) -> float:
        return _line(x, y, error**2 + scatter)[2] - freedom

    scatter = 0.0
    if excess(0.0) > 0:
        # There even the unweighted line's squares are half of what they should be.
        most = 2 * _line(x, y, np.ones_like(x))[2] / freedom
        scatter = float(brentq(excess, 0.0, most, xtol=1e-9 * most))
    slope, variance, _ = _line(x, y, error**2 + scatter)
    margin = float(stdtrit(freedom, (1 + level) / 2)) * sqrt(variance)
    return Exponent(slope, slope - margin, slope + margin)


def _line(x: FloatArray, y: FloatArray, variance: FloatArray) -> tuple[float, float, float]:
    """The slope, its variance, and the weighted sum of squared residuals."""
    weight = 1 / variance
    dx, dy = x - np.average(x, weights=weight), y - np.average(y, weights=weight)
    information = float(weight @ dx**2)
    slope = float(weight * dx @ dy) / information
    return slope, 1 / information, float(weight @ (dy - slope * dx) ** 2)
