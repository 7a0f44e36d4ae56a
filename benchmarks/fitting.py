"""Fitting the Chinchilla points by kdlaws and by plain scipy; a simulated Busbridge study.

    KDLAWS_DATA=FOLDER python benchmarks/fitting.py
    python benchmarks/fitting.py --busbridge

The first reads ``reference/chinchilla_epoch`` below the folder, and takes the usual road of scipy,
too: the 4,500 starts of Hoffmann et al. 2022 (arXiv:2203.15556, approach 3) by L-BFGS-B, then 4,000
resamples of the runs, each warm-started at the optimum, by BFGS; both on the log-sum-exp form with
its analytic gradient and scipy's own tolerances. The second needs no data. Both print Markdown. One
process, one BLAS thread; seconds are the median of three of ours and one run of scipy.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read when numpy is imported
os.environ["OMP_NUM_THREADS"] = "1"

import csv
import datetime
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TypeVar

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy.optimize import minimize

import kdlaws
from kdlaws.laws import Fit, find, fit
from kdlaws.laws.columns import read_runs
from kdlaws.laws.estimate import estimate
from kdlaws.laws.solve import minimise

FloatArray = NDArray[np.float64]
Columns = dict[str, FloatArray]
T = TypeVar("T")

POINTS = Path("reference/chinchilla_epoch/svg_extracted_data.csv")
N_OUTLIERS = 5  # of the highest losses, left out as by Besiroglu et al. 2024, arXiv:2404.10102
DELTA = 1e-3  # of the Huber loss, in log cross-entropy
SAME_OPTIMUM = 1e-6  # relative difference of objectives
STATIONARY = 1e-6  # relative gradient, which is 1 where every run pulls the same way
N_RESAMPLES = 4000
N_BUSBRIDGE_RESAMPLES = 400
TAILS = (0.025, 0.975)
REPEATS = 3


@dataclass(frozen=True)
class Seconds:
    cpu: float
    wall: float

    def __str__(self) -> str:
        return f"{self.cpu:.3f} | {self.wall:.3f}"


@dataclass(frozen=True)
class PointFit:
    """``at_optimum`` is the share of starts that reached the best objective of the same fit."""

    seconds: Seconds
    objective: float
    at_optimum: float


@dataclass(frozen=True)
class Bootstrap:
    """``exponents [refits, 2]`` are alpha and beta; gradients are relative, ``[refits]``."""

    seconds: Seconds
    gradients: FloatArray
    objectives: FloatArray
    exponents: FloatArray


def timed(function: Callable[[], T]) -> tuple[T, Seconds]:
    cpu, wall = time.process_time(), time.perf_counter()
    value = function()
    return value, Seconds(time.process_time() - cpu, time.perf_counter() - wall)


def median_of_repeats(function: Callable[[], T]) -> tuple[T, Seconds]:
    runs = [timed(function) for _ in range(REPEATS)]
    cpu = statistics.median(seconds.cpu for _, seconds in runs)
    wall = statistics.median(seconds.wall for _, seconds in runs)
    return runs[0][0], Seconds(cpu, wall)


def chinchilla_points() -> Columns:
    """The 240 digitised points; exits where they are not there."""
    if "KDLAWS_DATA" not in os.environ:
        sys.exit(f"KDLAWS_DATA is not set: give the folder that holds {POINTS}")
    path = Path(os.environ["KDLAWS_DATA"]) / POINTS
    if not path.is_file():
        sys.exit(f"{path} is not there: set KDLAWS_DATA to the folder that holds {POINTS}")
    with path.open(newline="") as lines:
        rows = [(r["Model Size"], r["Training FLOP"], r["loss"]) for r in csv.DictReader(lines)]
    n, flops, loss = np.array(rows, dtype=float).T
    kept = np.argsort(loss)[:-N_OUTLIERS]
    columns = {"n_params": n, "n_tokens": flops / (6 * n), "flops": flops, "cross_entropy": loss}
    return {name: values[kept] for name, values in columns.items()}


# The references, in plain scipy. theta is log A, log B, log E, alpha, beta throughout; log_n,
# log_d and log_loss are [runs].


Terms = tuple[FloatArray, FloatArray, FloatArray]  # of N, of D and E, each [runs]


def weigh(
    theta: FloatArray, log_n: FloatArray, log_d: FloatArray, log_loss: FloatArray
) -> tuple[float, FloatArray, Terms]:
    """The sum of log-Huber, and what its derivative is made of: weights ``[runs]`` and terms."""
    log_a, log_b, log_e, alpha, beta = theta
    log_by_n, log_by_d = log_a - alpha * log_n, log_b - beta * log_d
    highest = np.maximum(np.maximum(log_by_n, log_by_d), log_e)
    terms = np.exp(log_by_n - highest), np.exp(log_by_d - highest), np.exp(log_e - highest)
    total = terms[0] + terms[1] + terms[2]
    residual = highest + np.log(total) - log_loss
    pull = np.minimum(np.maximum(residual, -DELTA), DELTA)
    return float(pull @ (residual - pull / 2)), pull / total, terms


def by_theta(weights: FloatArray, terms: Terms, log_n: FloatArray, log_d: FloatArray) -> FloatArray:
    by_n, by_d = weights * terms[0], weights * terms[1]
    return np.array([by_n.sum(), by_d.sum(), weights @ terms[2], -(by_n @ log_n), -(by_d @ log_d)])


def objective(theta: FloatArray, *runs: FloatArray) -> tuple[float, FloatArray]:
    value, weights, terms = weigh(theta, *runs)
    return value, by_theta(weights, terms, *runs[:2])


def relative_gradient(theta: FloatArray, *runs: FloatArray) -> float:
    """The largest component over the sum of its runs' magnitudes: log N and log D are positive."""
    _, weights, terms = weigh(theta, *runs)
    gradient, total = (by_theta(w, terms, *runs[:2]) for w in (weights, np.abs(weights)))
    return float(np.max(np.abs(gradient / total)))


def usual_starts() -> FloatArray:
    """The grid of Hoffmann et al. 2022 ``[4500, 5]``."""
    scale, floor, exponent = range(0, 26, 5), np.arange(-1, 1.1, 0.5), np.arange(0, 2.1, 0.5)
    return np.array(list(product(scale, scale, floor, exponent, exponent)), dtype=float)


def logarithms(columns: Columns) -> tuple[FloatArray, ...]:
    return tuple(np.log(columns[name]) for name in ("n_params", "n_tokens", "cross_entropy"))


def scipy_point(columns: Columns) -> tuple[PointFit, FloatArray]:
    """The fit and its optimum, theta."""
    runs = logarithms(columns)

    def every_start() -> list[scipy.optimize.OptimizeResult]:
        starts = usual_starts()
        return [minimize(objective, u, args=runs, jac=True, method="L-BFGS-B") for u in starts]

    results, seconds = timed(every_start)
    best = min(results, key=lambda result: float(result.fun))
    same = [result.fun <= best.fun * (1 + SAME_OPTIMUM) for result in results]
    return PointFit(seconds, float(best.fun), float(np.mean(same))), best.x


def resamples(n_runs: int) -> NDArray[np.int64]:
    """Rows ``[resamples, runs]``, the same for both."""
    return np.random.default_rng(0).integers(n_runs, size=(N_RESAMPLES, n_runs))


def scipy_bootstrap(columns: Columns, optimum: FloatArray) -> Bootstrap:
    runs = logarithms(columns)
    resampled = [tuple(values[rows] for values in runs) for rows in resamples(len(runs[0]))]

    def every_resample() -> list[scipy.optimize.OptimizeResult]:
        return [minimize(objective, optimum, args=r, jac=True, method="BFGS") for r in resampled]

    results, seconds = timed(every_resample)
    gradients = np.array(
        [relative_gradient(found.x, *runs) for found, runs in zip(results, resampled, strict=True)]
    )
    return Bootstrap(
        seconds,
        gradients,
        np.array([found.fun for found in results]),
        np.array([found.x[3:] for found in results]),
    )


def ours_point(columns: Columns) -> PointFit:
    """``fit`` without intervals: the fit, and the back-test on the largest runs."""
    found, seconds = median_of_repeats(
        lambda: fit(columns, "chinchilla", n_column="n_params", bootstrap=0)
    )
    return PointFit(seconds, float(found.objective or 0.0), float(found.starts_agree or 0.0))


def ours_bootstrap(columns: Columns) -> Bootstrap:
    """The refits of ``fit(..., bootstrap=4000)``, to the resamples that scipy gets."""
    law = find("chinchilla")
    runs = read_runs(columns, law, "n_params", None)
    [stage] = estimate(law, runs, {}, "huber").stages
    rows = resamples(len(runs))
    weights = np.array([np.bincount(each, minlength=len(runs)) for each in rows], dtype=float)
    starts = np.repeat(stage.v[None], len(weights), axis=0)
    found, seconds = median_of_repeats(lambda: minimise(stage.problem, weights, starts))
    at = [law.parameters.index(name) for name in ("alpha", "beta")]
    exponents = stage.coordinates.parameters(found.v)[:, at]
    return Bootstrap(seconds, found.gradient, found.objective, exponents)


# A study like that of Busbridge et al. 2025 (arXiv:2502.08606), from its published coefficients.

TRUTH = {  # table 6: the supervised law (equation 1), then the distillation law (equation 8)
    "E": 1.220,
    "A": 3355.0,
    "B": 18186.0,
    "alpha": 0.408,
    "beta": 0.431,
    "gamma": 0.452,
    "A_prime": 2243.0,
    "B_prime": 24181.0,
    "alpha_prime": 0.321,
    "beta_prime": 0.637,
    "gamma_prime": 0.764,
    "c0": 2.549,
    "c1": 522.6,
    "f1": 0.090,
    "d1": 1.315,
}
N_RANGE = (143e6, 7.75e9)  # non-embedding parameters of students
D_RANGE = (2.5e9, 512e9)  # tokens
TEACHER_SIZES = (198e6, 546e6, 1.82e9, 4.82e9, 12.6e9)
TEACHER_TOKENS = (8e9, 32e9, 128e9, 512e9)
N_SUPERVISED, N_DISTILLED = 73, 627  # every teacher is one of the supervised
NOISE = 0.005  # standard deviation of log cross-entropy from run to run


def supervised_cross_entropy(n: FloatArray, d: FloatArray) -> FloatArray:
    """Nats per token after ``d`` tokens without a teacher, equation 1."""
    t = TRUTH
    loss: FloatArray = t["E"] + (t["A"] / n ** t["alpha"] + t["B"] / d ** t["beta"]) ** t["gamma"]
    return loss


def distilled_cross_entropy(n: FloatArray, d: FloatArray, teacher: FloatArray) -> FloatArray:
    """Nats per token of a student whose teacher has ``teacher`` nats per token, equation 8."""
    t = TRUTH
    ratio = teacher / (supervised_cross_entropy(n, d) * t["d1"])
    bracket = (1 + ratio ** (1 / t["f1"])) ** (-t["c1"] * t["f1"])
    student = (t["A_prime"] / n ** t["alpha_prime"] + t["B_prime"] / d ** t["beta_prime"]) ** t[
        "gamma_prime"
    ]
    loss: FloatArray = teacher + teacher ** -t["c0"] * bracket * student
    return loss


def check_busbridge() -> None:
    """The paper's own student: 546M parameters, 20 tokens each, a teacher of 1.82B trained so."""
    n, teacher_n = np.array(546e6), np.array(1.82e9)
    teacher = supervised_cross_entropy(teacher_n, 20 * teacher_n)
    assert round(float(distilled_cross_entropy(n, 20 * n, teacher)), 3) == 2.424
    assert round(float(supervised_cross_entropy(n, 20 * n)), 3) == 2.515


def log_uniform(rng: np.random.Generator, ends: tuple[float, float], n_values: int) -> FloatArray:
    lo, hi = np.log(ends)
    return np.exp(rng.uniform(float(lo), float(hi), n_values))


def busbridge_runs(seed: int) -> Columns:
    """700 runs, the supervised first, whose ``teacher_cross_entropy`` is NaN.

    Sizes and tokens of students are log-uniform over the paper's ranges. A student sees the teacher
    that was trained, noise included, not the one that the law expects.
    """
    rng = np.random.default_rng(seed)
    teacher_n, teacher_d = np.array(list(product(TEACHER_SIZES, TEACHER_TOKENS))).T
    n_others = N_SUPERVISED + N_DISTILLED - len(teacher_n)
    n = np.append(teacher_n, log_uniform(rng, N_RANGE, n_others))
    d = np.append(teacher_d, log_uniform(rng, D_RANGE, n_others))
    noise = np.exp(NOISE * rng.standard_normal(len(n)))
    loss = supervised_cross_entropy(n, d) * noise
    teacher = np.full(len(n), np.nan)
    teacher[N_SUPERVISED:] = rng.choice(loss[: len(teacher_n)], N_DISTILLED)
    distilled = distilled_cross_entropy(n, d, teacher) * noise
    return {
        "n_params_non_embedding": n,
        "n_tokens": d,
        "teacher_cross_entropy": teacher,
        "cross_entropy": np.where(np.isnan(teacher), loss, distilled),
    }


def machine() -> str:
    today = datetime.datetime.now(datetime.UTC).date()
    return (
        f"{today}, {cpu_model()} ({os.cpu_count()} cores seen), {platform.system()}, Python "
        f"{platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}, kdlaws "
        f"{kdlaws.__version__}. One process, one BLAS thread; kdlaws: median of {REPEATS}."
    )


def cpu_model() -> str:
    """The processor, with the numbers that tell generations of one name apart where they are."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return platform.processor() or platform.machine()
    lines = [line.partition(":") for line in path.read_text().splitlines()]
    facts = {key.strip(): value.strip() for key, _, value in lines}
    name = facts.get("model name", platform.machine())
    return f"{name}, family {facts.get('cpu family', '?')}, model {facts.get('model', '?')}"


def point_table(reference: PointFit, ours: PointFit) -> Iterator[str]:
    yield "| point fit | CPU s | wall s | objective | starts that reach it |"
    yield "|---|---|---|---|---|"
    for name, found in ((f"scipy, {len(usual_starts())} starts", reference), ("kdlaws", ours)):
        yield f"| {name} | {found.seconds} | {found.objective:.12f} | {found.at_optimum:.1%} |"
    yield f"| scipy / kdlaws | {ratios(reference.seconds, ours.seconds)} | | |"


def bootstrap_table(reference: Bootstrap, ours: Bootstrap) -> Iterator[str]:
    yield (
        f"| {N_RESAMPLES} refits | CPU s | wall s | alpha, 95 % | beta, 95 % "
        f"| gradient at most {STATIONARY:g} | largest gradient |"
    )
    yield "|---|---|---|---|---|---|---|"
    for name, found in (("scipy", reference), ("kdlaws", ours)):
        quantiles = np.quantile(found.exponents, TAILS, axis=0).T
        alpha, beta = (f"{lo:.4f} to {hi:.4f}" for lo, hi in quantiles)
        share = np.mean(found.gradients <= STATIONARY)
        ends = f"{alpha} | {beta} | {share:.1%} | {found.gradients.max():.1e}"
        yield f"| {name} | {found.seconds} | {ends} |"
    yield f"| scipy / kdlaws | {ratios(reference.seconds, ours.seconds)} | | | | |"
    yield ""
    higher = np.mean(ours.objectives > reference.objectives * (1 + SAME_OPTIMUM))
    lower = np.mean(ours.objectives < reference.objectives * (1 - SAME_OPTIMUM))
    yield f"Of the same resamples kdlaws ends higher in {higher:.1%} and lower in {lower:.1%}."


def ratios(reference: Seconds, ours: Seconds) -> str:
    return f"{reference.cpu / ours.cpu:.1f} | {reference.wall / ours.wall:.1f}"


def chinchilla() -> Iterator[str]:
    columns = chinchilla_points()
    our_point = ours_point(columns)
    our_bootstrap = ours_bootstrap(columns)
    reference_point, optimum = scipy_point(columns)
    reference_bootstrap = scipy_bootstrap(columns, optimum)
    yield f"## The Chinchilla points, {len(columns['n_tokens'])} runs\n"
    yield f"{machine()} scipy: one run.\n"
    yield from point_table(reference_point, our_point)
    yield ""
    yield from bootstrap_table(reference_bootstrap, our_bootstrap)


def busbridge() -> Iterator[str]:
    check_busbridge()
    columns = busbridge_runs(seed=0)
    found, seconds = median_of_repeats(
        lambda: fit(columns, "busbridge", bootstrap=N_BUSBRIDGE_RESAMPLES)
    )
    yield f"## A simulated Busbridge study, {found.n_runs} runs\n"
    yield f"{machine()}\n"
    yield "| | CPU s | wall s | objective |\n|---|---|---|---|"
    yield f"| fit and {N_BUSBRIDGE_RESAMPLES} refits | {seconds} | {found.objective:.6g} |\n"
    yield from recovery(found)


def recovery(found: Fit) -> Iterator[str]:
    yield f"| | truth | estimate | {found.level:.0%} interval | identified |\n|---|---|---|---|---|"
    for name, parameter in found.parameters.items():
        lo, hi = ("open" if end is None else f"{end:.4g}" for end in (parameter.lo, parameter.hi))
        truth = f"{TRUTH[name]:g}" if name in TRUTH else ""
        known = "yes" if parameter.identified else "no"
        yield f"| {name} | {truth} | {parameter.value:.4g} | {lo} to {hi} | {known} |"


def main(arguments: list[str]) -> None:
    if arguments not in ([], ["--busbridge"]):
        sys.exit(f"only --busbridge is understood, not {' '.join(arguments)}")
    print(*(busbridge() if arguments else chinchilla()), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
