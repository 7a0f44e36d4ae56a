"""How often a plan's nominal 90 % interval holds the true optimum: simulated studies.

    OPENBLAS_NUM_THREADS=1 python benchmarks/planning.py [--studies N] [--workers N]

The studies are those of benchmarks/coverage.py: runs deviate with their trunk (.4 % of
cross-entropy) and on their own (.2 %). Each is fitted, a budget is planned, and the true optimum,
by the same law with its true parameters, is looked for in the plan's intervals. Plans at an edge of
their range have no interval and are counted apart. The 99 % binomial interval of the coverage must
meet [.85, .95]. The output is Markdown for benchmarks/planning.md.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
from coverage import (
    SPEC,
    TEACHER_N,
    THREE,
    D,
    N,
    Study,
    chinchilla_loss,
    chinchilla_study,
    disturbed,
    spec_study,
)
from scipy.stats import binomtest

from kdlaws.advice.planning.plan import plan
from kdlaws.laws import Fit, fit

LEAST, MOST = 0.85, 0.95
EDGE, OPEN = "at an edge", "an end is open"


def alone(seed: int) -> Study:
    """Forty runs that share no trunk, a size and a length each: intervals by resampling."""
    study, rng = chinchilla_study(8, seed), np.random.default_rng([8, seed, 1])
    loss = chinchilla_loss(study.columns[N], study.columns[D])
    noisy = loss * np.exp(0.0045 * rng.standard_normal(len(loss)))
    labels = [f"{row}" for row in range(len(loss))]
    return replace(study, columns={**study.columns, "cross_entropy": noisy}, trunk=labels)


ADDITIVE = {name: SPEC[name] for name in ("L0", "A", "alpha", "beta")} | {
    name: SPEC[name] for name in ("c_token", "kappa_token", "r_c_token")
}
ADDITIVE |= {"B_scratch": 300.0, "B_token": 200.0}


def additive(seed: int) -> Study:
    """L0 + A g/N^alpha + B_m/D^beta: five sizes, scratch and three teachers, twice."""
    study, t = spec_study(5, 2, THREE, seed), ADDITIVE
    n, d, teacher = (study.columns[name] for name in (N, D, TEACHER_N))
    taught = np.isfinite(teacher)
    z = np.where(taught, teacher / n, 1.0) / t["r_c_token"]
    gain = t["c_token"] * np.sqrt((z ** (-2 * t["alpha"]) + z ** (2 * t["kappa_token"])) / 2)
    size = t["A"] / n ** t["alpha"] * np.where(taught, gain, 1.0)
    data = np.where(taught, t["B_token"], t["B_scratch"]) / d ** t["beta"]
    rng, trunk = np.random.default_rng([5, seed]), np.arange(len(n)) // 5
    loss = disturbed(t["L0"] + size + data, trunk, rng)
    return replace(study, columns={**study.columns, "cross_entropy": loss}, truth=t)


def with_truth(fitted: Fit, study: Study) -> Fit:
    """The fit with the true parameters; what the law pins or ties stays so."""
    values = {name: study.truth.get(name, p.value) for name, p in fitted.parameters.items()}
    ties = {name: other for name, other in fitted.fixed.items() if isinstance(other, str)}
    values |= {name: values[other] for name, other in ties.items() if other in values}
    parameters = {n: replace(p, value=values[n]) for n, p in fitted.parameters.items()}
    return replace(fitted, parameters=parameters, uncertainty=None)


def held(law: str, make: Callable[[int], Study], budgets: tuple[float, ...], seed: int) -> Counter:
    """Counts of (budget, what, outcome)."""
    study, counts = make(seed), Counter()
    trunk = study.trunk if len(set(study.trunk)) < len(study.trunk) else None
    fitted = fit(study.columns, law, trunk=trunk, bootstrap=400, holdout=0, seed=seed)
    for budget in budgets:
        asked = {"scenario": "inference"} if fitted.methods else {}
        found, true = (plan(each, budget, **asked) for each in (fitted, with_truth(fitted, study)))
        if found.corner or found.interval is None:
            counts[budget, EDGE, True] += 1
            continue
        for name, ends in found.interval.items():
            if None in ends:
                counts[budget, OPEN, True] += 1
            lo, hi = (end or inf for end, inf in zip(ends, (0.0, np.inf), strict=True))
            counts[budget, name, bool(lo <= of_plan(true, name) <= hi)] += 1
    return counts


def of_plan(true, name: str) -> float:
    best = true.best
    values = {
        "n_params": best.n_params_non_embedding,
        "n_tokens": best.n_tokens,
        "teacher_n_params": best.teacher_n_params_non_embedding,
        "teacher_inference_share": true.allocation["teacher_inference"],
    }
    if best.teacher_n_params_non_embedding:
        values["ratio"] = best.teacher_n_params_non_embedding / best.n_params_non_embedding
    return values[name]


def count(trial: Callable[[int], Counter], studies: int, workers: int, what: str) -> None:
    began, counts = time.perf_counter(), Counter()
    with ProcessPoolExecutor(workers) as pool:
        for done, found in enumerate(pool.map(trial, range(studies), chunksize=4), start=1):
            counts.update(found)
            if done % max(1, studies // 10) == 0:
                print(f"{what}: {done}/{studies}", file=sys.stderr, flush=True)
    for budget in sorted({key[0] for key in counts}):
        at_edge, n_open = (counts[budget, each, True] for each in (EDGE, OPEN))
        for name in dict.fromkeys(k[1] for k in counts if k[0] == budget):
            if name in (EDGE, OPEN):
                continue
            hits = counts[budget, name, True]
            total = hits + counts[budget, name, False]
            ends = binomtest(hits, total).proportion_ci(0.99, method="exact")
            good = ends.high >= LEAST and ends.low <= MOST
            print(
                f"| {what} | {budget:.1e} | {name} | {total} | {at_edge} | {n_open} "
                f"| {hits / total:.3f} | {ends.low:.3f} to {ends.high:.3f} "
                f"| {'yes' if good else 'NO'} |",
                flush=True,
            )
    print(f"{what}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)


PARTS = (
    ("chinchilla, 10 trunks", "chinchilla", partial(chinchilla_study, 10), (1.2e11, 1e13), 1000),
    ("chinchilla, 16 trunks", "chinchilla", partial(chinchilla_study, 16), (1.2e11, 1e13), 1000),
    ("chinchilla, 40 runs alone", "chinchilla", alone, (1.2e11, 1e13), 1000),
    (
        "spec_additive, 40 trunks, teacher free",
        "spec_additive",
        additive,
        (1e12, 1e13),
        1000,
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, help="instead of 1000")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    print("| study | FLOPs | what | plans | at an edge | open | holds | 99 % binomial | meets |")
    print("|---|---|---|---|---|---|---|---|---|")
    for what, law, make, budgets, studies in PARTS:
        trial = partial(held, law, make, budgets)
        count(trial, given.studies or studies, given.workers, what)


if __name__ == "__main__":
    main()
