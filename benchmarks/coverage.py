"""How often nominal 90 % intervals hold the truth: simulated studies with trunk effects.

    OPENBLAS_NUM_THREADS=1 python benchmarks/coverage.py [chinchilla] [spec] [busbridge] [flags]

Every run deviates with its trunk (.4 % of cross-entropy) and on its own (.2 %). For each identified
parameter, and for a new run at ten times the largest compute, the share of studies whose interval
holds the truth is printed with its 99 % binomial interval, which must meet [.85, .95] (up to .98 is
no defect). A parameter that a study calls not identified is not counted there, and how often it was
identified is printed. The output is Markdown for benchmarks/coverage.md.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from kdlaws.laws import fit, published

TRUNK, RUN = 0.004, 0.002  # standard deviations of log cross-entropy
N, D, L_T = "n_params_non_embedding", "n_tokens", "teacher_cross_entropy"
TEACHER_N = f"teacher_{N}"
NEW_RUN = "new run at 10 C"
LEAST, MOST = 0.85, 0.98

Floats = NDArray[Any]
Columns = dict[str, Floats]
Truth = dict[str, float]


@dataclass(frozen=True)
class Study:
    """Runs, the trunk of each, the truth, and a new run at ten times the largest compute."""

    columns: Columns
    trunk: list[str]
    truth: Truth
    new: dict[str, float | str]
    new_cross_entropy: float


def disturbed(loss: Floats, trunk: Floats, rng: np.random.Generator) -> Floats:
    deviation = TRUNK * rng.standard_normal(trunk.max() + 1)[trunk]
    disturbance: Floats = np.exp(deviation + RUN * rng.standard_normal(len(loss)))
    return loss * disturbance


def one_run(loss: float, rng: np.random.Generator) -> float:
    return float(disturbed(np.array([loss]), np.array([0]), rng)[0])


# --- designs ------------------------------------------------------------------------------------

CHINCHILLA = {"E": 1.5, "A": 40.0, "B": 300.0, "alpha": 0.3, "beta": 0.4}


def chinchilla_loss(n: Floats, d: Floats) -> Floats:
    t = CHINCHILLA
    return t["E"] + t["A"] / n ** t["alpha"] + t["B"] / d ** t["beta"]


def chinchilla_study(n_trunks: int, seed: int) -> Study:
    """Five sizes in turn, five branches at each trunk's token counts."""
    rng = np.random.default_rng([n_trunks, seed])
    sizes, tokens = np.geomspace(6e3, 8e5, 5), np.geomspace(1e5, 8e5, 5)
    trunk = np.repeat(np.arange(n_trunks), 5)
    n, d = sizes[trunk % 5], np.tile(tokens, n_trunks)
    columns = {N: n, D: d, "cross_entropy": disturbed(chinchilla_loss(n, d), trunk, rng)}
    new = {N: 8e5 * np.sqrt(10), D: 8e5 * np.sqrt(10)}
    truth = float(chinchilla_loss(np.array(new[N]), np.array(new[D])))
    return Study(columns, [f"{t}" for t in trunk], CHINCHILLA, new, one_run(truth, rng))


SPEC = {"L0": 1.5, "A": 40.0, "alpha": 0.3, "beta": 0.4, "D_scratch": 2e5, "D_token": 8e4}
SPEC |= {"c_token": 0.8, "kappa_token": 0.1, "r_c_token": 8.0}


def spec_loss(n: Floats, d: Floats, teacher: Floats) -> Floats:
    """``teacher`` is NaN for scratch; w = 1/2 and eta = alpha, as the law pins them."""
    t, taught = SPEC, np.isfinite(teacher)
    z = np.where(taught, teacher / n, 1.0) / t["r_c_token"]
    gain = t["c_token"] * np.sqrt((z ** (-2 * t["alpha"]) + z ** (2 * t["kappa_token"])) / 2)
    d_m = np.where(taught, t["D_token"], t["D_scratch"])
    size = t["A"] / n ** t["alpha"] * np.where(taught, gain, 1.0)
    return t["L0"] + size * (1 + (d_m / d) ** t["beta"])


ONE, THREE = (2e6,), (2e5, 2e6, 2e7)  # teachers


def spec_study(sizes: int, seeds: int, teachers: tuple[float, ...], seed: int) -> Study:
    """Sizes, each from scratch and with every teacher, ``seeds`` times; five branches."""
    rng = np.random.default_rng([sizes, seeds, seed, len(teachers)])
    n, t, d = (
        axis.ravel()
        for axis in np.meshgrid(
            np.tile(np.geomspace(1e4, 1e6, sizes), seeds),
            np.array([np.nan, *teachers]),
            np.geomspace(1e5, 1.6e6, 5),
            indexing="ij",
        )
    )
    trunk = np.arange(len(n)) // 5
    method = np.where(np.isfinite(t), "token", "scratch")
    loss = disturbed(spec_loss(n, d, t), trunk, rng)
    columns = {N: n, D: d, "method": method, TEACHER_N: t, "cross_entropy": loss}
    new = {N: 1e6 * np.sqrt(10), D: 1.6e6 * np.sqrt(10), "method": "token", TEACHER_N: teachers[-1]}
    truth = spec_loss(*(np.array([new[name]]) for name in (N, D, TEACHER_N)))[0]
    return Study(columns, [f"{t}" for t in trunk], SPEC, new, one_run(float(truth), rng))


PAPER = published("busbridge2025")


def busbridge_study(design: str, seed: int) -> Study:
    """Parts of Busbridge et al. 2025, figures 2 to 4, with supervised runs beside them.

    a: teachers trained on 20 tokens per parameter, students on isoFLOP profiles. b: teachers on
    isoFLOP profiles, students on multiples of their size. c: both on multiples of their size.
    """
    rng = np.random.default_rng([ord(design), seed])
    supervised = _grid(np.geomspace(1.43e8, 7.75e9, 6), np.geomspace(3e9, 5e11, 8))
    teachers, students = _parts(design)
    n, d, t = (np.concatenate(axis) for axis in zip(*_pairs(teachers, students), strict=True))
    n, d = np.concatenate([supervised[0], n]), np.concatenate([supervised[1], d])
    l_t = np.concatenate([np.full(len(supervised[0]), np.nan), t])
    _, trunk = np.unique(np.stack([n, np.nan_to_num(l_t)]), axis=1, return_inverse=True)
    loss = disturbed(PAPER.predict({N: n, D: d, L_T: l_t}), trunk, rng)
    columns = {N: n, D: d, L_T: l_t, "cross_entropy": loss}
    top = int(np.nanargmax(np.where(np.isfinite(l_t), n * d, np.nan)))
    new = {N: n[top] * np.sqrt(10), D: d[top] * np.sqrt(10), L_T: l_t[top]}
    truth = {name: p.value for name, p in PAPER.parameters.items()}
    truth["u0"] = truth["d1"] * (truth["c1"] * truth["f1"]) ** -truth["f1"]
    expected = one_run(float(PAPER.predict(new)), rng)
    return Study(columns, [f"{t}" for t in trunk], truth, new, expected)


def _grid(n: Floats, d: Floats) -> tuple[Floats, Floats]:
    sizes, tokens = np.meshgrid(n, d, indexing="ij")
    return sizes.ravel(), tokens.ravel()


def _parts(design: str) -> tuple[Floats, tuple[Floats, Floats]]:
    """The teachers' cross-entropies, and the students' (N, D)."""
    sizes = np.geomspace(1.98e8, 1.26e10, 6)
    students = np.geomspace(1.43e8, 7.75e9, 6)
    fixed = _grid(students, np.array([20.0, 40.0, 80.0, 160.0]))
    fixed = fixed[0], fixed[0] * fixed[1]
    if design == "b":
        budget = np.repeat([3e20, 1e21], 6)
        sizes = np.tile(np.geomspace(3e8, 5e9, 6), 2)
        return PAPER.predict({N: sizes, D: budget / (6 * sizes)}), fixed
    teachers = PAPER.predict({N: sizes, D: 20 * sizes})
    if design == "c":
        return teachers, fixed
    n, flops = _grid(students, np.array([3e19, 1e20, 3e20, 1e21]))
    return teachers, (n, flops / (6 * n))


def _pairs(
    teachers: Floats, students: tuple[Floats, Floats]
) -> Iterator[tuple[Floats, Floats, Floats]]:
    for teacher in teachers:
        yield *students, np.full(len(students[0]), teacher)


# --- counting -----------------------------------------------------------------------------------


def held(law: str, bootstrap: int, make: Callable[[int], Study], seed: int) -> dict[str, bool]:
    """For each identified parameter, and the new run, whether the interval holds the truth."""
    study = make(seed)
    result = fit(study.columns, law, trunk=study.trunk, bootstrap=bootstrap, seed=seed)
    found = {
        name: bool(p.lo <= study.truth[name] <= p.hi)
        for name, p in result.parameters.items()
        if p.identified and name in study.truth and p.lo is not None and p.hi is not None
    }
    lo, hi = (float(end) for end in result.new_runs(study.new))
    return found | {NEW_RUN: lo <= study.new_cross_entropy <= hi}


def flagged(case: str, seed: int) -> dict[str, bool]:
    """Whether a design that cannot determine parameters is said to be one."""
    if case == "constant D/N":
        rng = np.random.default_rng(seed)
        trunk = np.repeat(np.arange(10), 2)
        n = np.geomspace(1e4, 1e6, 20)
        loss = disturbed(chinchilla_loss(n, 20 * n), trunk, rng)
        columns, law = {N: n, D: 20 * n, "cross_entropy": loss}, "chinchilla"
        labels, wanted = [f"{t}" for t in trunk], set(CHINCHILLA)
    else:
        study = spec_study(5, 1, ONE, seed)
        columns, labels, law = study.columns, study.trunk, "spec"
        wanted = {"c_token", "kappa_token", "r_c_token"}
    result = fit(columns, law, trunk=labels)
    return {case: not any(result.parameters[name].identified for name in wanted)}


def count(trial: Callable[[int], dict[str, bool]], studies: int, workers: int, what: str) -> None:
    began, hits, total = time.perf_counter(), Counter[str](), Counter[str]()
    with ProcessPoolExecutor(workers) as pool:
        for done, found in enumerate(pool.map(trial, range(studies), chunksize=4), start=1):
            hits.update(name for name, hit in found.items() if hit)
            total.update(found.keys())
            if done % max(1, studies // 10) == 0:
                print(f"{what}: {done}/{studies}", file=sys.stderr, flush=True)
    seconds = time.perf_counter() - began
    for name in total:
        ends = binomtest(hits[name], total[name]).proportion_ci(0.99, method="exact")
        share = hits[name] / total[name]
        good = ends.high >= LEAST and ends.low <= MOST
        print(
            f"| {what} | {name} | {total[name]} of {studies} | {share:.3f} "
            f"| {ends.low:.3f} to {ends.high:.3f} | {'yes' if good else 'NO'} |",
            flush=True,
        )
    print(f"{what}: {seconds:.0f} s", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=["chinchilla", "spec", "busbridge", "flags"])
    parser.add_argument("--studies", type=int, help="instead of 2000, 400, 100 and 200")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    print("| study | what | identified | holds the truth | 99 % binomial | meets |")
    print("|---|---|---|---|---|---|")
    for part in given.parts:
        for what, trial, studies in plan(part):
            count(trial, given.studies or studies, given.workers, what)


def plan(part: str) -> Iterator[tuple[str, Callable[[int], dict[str, bool]], int]]:
    if part == "chinchilla":
        for n in (5, 10, 16):
            make = partial(chinchilla_study, n)
            yield f"chinchilla, {n} trunks", partial(held, "chinchilla", 400, make), 2000
    elif part == "spec":
        for sizes, seeds, teachers in ((5, 1, ONE), (4, 1, THREE), (5, 2, THREE)):
            make = partial(spec_study, sizes, seeds, teachers)
            n_trunks = sizes * seeds * (1 + len(teachers))
            yield f"spec, {n_trunks} trunks", partial(held, "spec", 400, make), 400
    elif part == "busbridge":
        for design in "abc":
            make = partial(busbridge_study, design)
            yield f"busbridge ({design})", partial(held, "busbridge_limit", 200, make), 100
    else:
        for case in ("constant D/N", "one teacher"):
            yield f"flags: {case}", partial(flagged, case), 200


if __name__ == "__main__":
    main()
