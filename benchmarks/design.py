"""Do designs keep their word? What was to be expected of runs, against simulated studies.

    OPENBLAS_NUM_THREADS=1 python benchmarks/design.py [errors] [guesses] [pilots] [--quick]

errors: what a proposed study was said to tell, against the scatter of fits to simulated studies,
with one, two and three teachers. guesses: how much narrower the plan of the better study is, where
the truth is not the guess. pilots: studies of ten trunks or more, which then make the suggested
runs, or as many others of the same cost, and are fitted again. The output is Markdown for
benchmarks/design.md.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from kdlaws.advice.designing.aim import aim_of
from kdlaws.advice.designing.design import design
from kdlaws.advice.designing.pilot_candidates import usual_candidates
from kdlaws.advice.designing.pilots import suggest
from kdlaws.advice.designing.proposal import Proposal, ProposedTrunk
from kdlaws.advice.planning.plan import plan
from kdlaws.laws import Fit, fit
from kdlaws.laws.columns import read_runs
from kdlaws.laws.estimate import estimate
from kdlaws.laws.expected import Noise, expected_fit
from kdlaws.laws.uncertainty import Linear, linear

Floats = NDArray[np.float64]
Truth = Mapping[str, float]

NOISE = Noise()
CHINCHILLA = {"E": 1.5, "A": 40.0, "B": 300.0, "alpha": 0.3, "beta": 0.4}
SPEC = {"L0": 1.5, "A": 40.0, "alpha": 0.3, "beta": 0.4, "D_scratch": 2e5, "D_token": 8e4}
SPEC |= {"c_token": 0.8, "kappa_token": 0.1, "r_c_token": 8.0}
ADDITIVE = {"L0": 1.5, "A": 40.0, "alpha": 0.3, "beta": 0.4, "B_scratch": 300.0, "B_token": 250.0}
ADDITIVE |= {"c_token": 0.8, "kappa_token": 0.15, "r_c_token": 5.0}


def ladder(
    sizes: Sequence[float], tokens: Sequence[float], teachers: Sequence[float], seeds: int
) -> Proposal:
    """Every size from scratch and with each teacher, ``seeds`` times."""
    kinds = [("scratch", None), *(("token", teacher) for teacher in teachers)]
    return Proposal(
        tuple(
            ProposedTrunk(method, float(n), tuple(tokens), teacher, seed=seed)
            for seed in range(seeds)
            for method, teacher in kinds
            for n in sizes
        )
    )


def disturbed(known: Fit, proposal: Proposal, rng: np.random.Generator) -> Floats:
    """Cross-entropies of runs that scatter about the law of ``known``."""
    scatter = NOISE.trunk * rng.standard_normal(len(proposal.trunks))[proposal.index]
    scatter += NOISE.run * rng.standard_normal(proposal.n_runs)
    loss: Floats = known.predict(proposal.columns()) * np.exp(scatter)
    return loss


def expect(proposal: Proposal, law: str, truth: Truth) -> Fit:
    return expected_fit(proposal.columns(), law, truth, NOISE, trunk=proposal.labels)


def row(*cells: object) -> None:
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def head(*names: str) -> None:
    print()
    row(*names)
    row(*["---"] * len(names))


# --- errors -------------------------------------------------------------------------------------

NAMES = ("alpha", "kappa_token", "r_c_token")


def errors(quick: bool) -> None:
    """Standard deviations of u, logarithms of scales."""
    n_studies = 40 if quick else 400
    head(
        *("teachers", "trunks", "parameter", "identified", "expected s.d.", "simulated s.d."),
        *("ratio", "interval: simulated over expected"),
    )
    for teachers in ((2e6,), (2e5, 2e7), (2e5, 2e6, 2e7)):
        sizes, tokens = np.geomspace(1e4, 1e6, 5), np.geomspace(1e5, 1.6e6, 5)
        proposal = ladder(sizes, tokens, teachers, 2)
        known = expect(proposal, "spec", SPEC)
        u, widths = studies(known, proposal, n_studies)
        assert isinstance(known.uncertainty, Linear)
        said = known.uncertainty.deviation(np.eye(u.shape[1]))
        for name in NAMES:
            k = known.form.parameters.index(name)
            found = float(u[:, k].std(ddof=1))
            relative = float(np.median(widths[:, k])) / said[k]
            row(
                *(len(teachers), len(proposal.trunks), name),
                "yes" if known.parameters[name].identified else "no, by design",
                *(f"{said[k]:.4f}", f"{found:.4f}", f"{found / said[k]:.2f}", f"{relative:.2f}"),
            )


def studies(known: Fit, proposal: Proposal, n: int) -> tuple[Floats, Floats]:
    """u and its standard errors of ``n`` fits ``[fits, unknowns]``, each from the truth."""
    rng, law, columns = np.random.default_rng(1), known.form, proposal.columns()
    u, widths = [], []
    for _ in range(n):
        loss = disturbed(known, proposal, rng)
        given = {**columns, "cross_entropy": loss}
        runs = read_runs(given, law, proposal.n_column, proposal.labels)
        found = estimate(law, runs, law.fixed, "squares", begin=known.u)
        u.append(found.u)
        widths.append(linear(found.stages[0]).deviation(np.eye(len(found.u))))
    return np.array(u), np.array(widths)


# --- guesses ------------------------------------------------------------------------------------


def guesses(quick: bool) -> None:
    n_truths = 10 if quick else 100
    head("law", "truths", "said", "median of the truths", "5 % to 95 %", "narrower")
    for law, teachers, seeds in (("chinchilla", (), 3), ("spec_additive", (1e7, 5e7, 2e8), 1)):
        sizes, tokens = np.geomspace(1e6, 1e8, 5), np.geomspace(1e8, 1.6e9, 4)
        proposal = ladder(sizes, tokens, teachers, seeds)
        found = design(proposal, plan_budget=1e20, law=law)
        assert found.better is not None
        other = Proposal(found.better.trunks)
        usual = {name: p.value for name, p in found.parameters.items()}
        rng = np.random.default_rng(2)
        ratios = np.array([compared(proposal, other, law, usual, rng) for _ in range(n_truths)])
        said = deviation(expect(other, law, usual)) / deviation(expect(proposal, law, usual))
        ends = np.quantile(ratios, [0.05, 0.95])
        row(
            *(law, n_truths, f"{said:.2f}", f"{np.median(ratios):.2f}"),
            *(f"{ends[0]:.2f} to {ends[1]:.2f}", f"{np.mean(ratios < 1):.0%}"),
        )


def compared(
    one: Proposal, other: Proposal, law: str, usual: Truth, rng: np.random.Generator
) -> float:
    """Deviation of what the plan chooses under a truth far from the guess: other over one."""
    truth = dict(usual)
    n, d = (
        float(np.exp(np.log(one.columns()[name]).mean())) for name in (one.n_column, "n_tokens")
    )
    truth |= {name: float(rng.uniform(0.2, 0.5)) for name in ("alpha", "beta")}
    for name in truth:
        middle = {"A": n ** truth["alpha"], "B": d ** truth["beta"]}.get(name[0])
        if middle is not None:
            truth[name] = float(rng.uniform(0.5, 1.5)) * middle
    truth |= {
        name: float(value * np.exp(rng.uniform(-0.7, 0.7)))
        for name, value in usual.items()
        if name.startswith(("r_c", "kappa"))
    }
    return deviation(expect(other, law, truth)) / deviation(expect(one, law, truth))


def deviation(known: Fit) -> float:
    """Of what the plan chooses, in logarithms: root of the sum of squares."""
    method = "token" if "token" in known.methods else None
    aim = aim_of(known, 1e20, "inference", method)
    assert aim is not None
    assert isinstance(known.uncertainty, Linear)
    choices = replace(aim, slopes=aim.choices)
    return float(np.linalg.norm(choices.deviations(known.uncertainty.covariance)))


# --- pilots -------------------------------------------------------------------------------------


def pilots(quick: bool) -> None:
    n_studies = 10 if quick else 100
    head("law", "studies", "runs made", "said", "median width", "10 % to 90 %", "FLOPs of budget")
    tokens = np.geomspace(1e5, 8e5, 5)
    plain = ladder(np.geomspace(6e3, 8e5, 5), tokens, (), 2)
    three = ladder(np.geomspace(6e3, 8e5, 5), tokens, (2e5, 2e6, 2e7), 1)
    for law, truth, proposal, most in (
        ("chinchilla", CHINCHILLA, plain, 5),
        ("spec_additive", ADDITIVE, three, 8),
    ):
        results = [one_study(law, truth, proposal, most, seed) for seed in range(n_studies)]
        for what in results[0]:
            said, width, cost = np.array([result[what] for result in results]).T
            ends = np.quantile(width, [0.1, 0.9])
            row(
                *(law, n_studies, what, "-" if np.isnan(said).any() else f"{np.median(said):.2f}"),
                f"{np.median(width):.2f}",
                *(f"{ends[0]:.2f} to {ends[1]:.2f}", f"{np.median(cost):.0%}"),
            )


def one_study(
    law: str, truth: Truth, proposal: Proposal, most: int, seed: int
) -> dict[str, tuple[float, float, float]]:
    """By kind of runs: the width that was said, the width after, the budget's share."""
    rng, known = np.random.default_rng([seed, most]), expect(proposal, law, truth)
    loss, budget, at = disturbed(known, proposal, rng), 1e14, 1e16
    before = refitted(law, proposal, loss)
    found = suggest(before, budget, plan_budget=at, most=most)
    pool, result = Proposal(tuple(usual_candidates(before))), {}
    for what, choose in KINDS.items():
        trunks = found.together if choose is None else choose(pool, found.flops, most, rng)
        made = Proposal(trunks)
        both = Proposal((*proposal.trunks, *trunks))
        after = refitted(law, both, np.concatenate([loss, disturbed(known, made, rng)]))
        expected = 1 - found.shrinks_by if choose is None else float("nan")
        width = plan_width(after, at) / plan_width(before, at)
        result[what] = (expected, width, float(made.flops.sum()) / budget)
    return result


def refitted(law: str, proposal: Proposal, loss: Floats) -> Fit:
    columns = {**proposal.columns(), "cross_entropy": loss}
    return fit(columns, law, trunk=proposal.labels, holdout=0)


def plan_width(known: Fit, budget: float) -> float:
    """Root of the sum of squared log widths of N and of the ratio; NaN where one is unknown."""
    interval = plan(known, budget).interval or {}
    ends = [interval[name] for name in ("n_params", "ratio") if name in interval]
    known_ends = [(lo, hi) for lo, hi in ends if lo is not None and hi is not None]
    if not ends or len(known_ends) < len(ends):
        return float("nan")
    return float(np.linalg.norm([np.log(hi / lo) for lo, hi in known_ends]))


def at_random(
    pool: Proposal, cost: float, most: int, rng: np.random.Generator
) -> tuple[ProposedTrunk, ...]:
    """Of 500 draws the one that is nearest in cost."""
    draws = rng.integers(len(pool.trunks), size=(500, most))
    nearest = np.abs(np.log(pool.flops[draws].sum(axis=1) / cost)).argmin()
    return tuple(pool.trunks[k] for k in draws[nearest])


def the_largest(
    pool: Proposal, cost: float, most: int, rng: np.random.Generator
) -> tuple[ProposedTrunk, ...]:
    """Each as expensive as what is left allows."""
    chosen: list[ProposedTrunk] = []
    for k in np.argsort(-pool.flops):
        if len(chosen) < most and pool.flops[k] <= cost:
            chosen.append(pool.trunks[k])
            cost -= float(pool.flops[k])
    return tuple(chosen)


Choice = Callable[[Proposal, float, int, np.random.Generator], tuple[ProposedTrunk, ...]]
KINDS: dict[str, Choice | None] = {
    "suggested": None,
    "at random": at_random,
    "the largest": the_largest,
}

# --- running ------------------------------------------------------------------------------------

PARTS = {"errors": errors, "guesses": guesses, "pilots": pilots}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="a tenth of the studies")
    given = parser.parse_args()
    for part in given.parts:
        began = time.perf_counter()
        PARTS[part](given.quick)
        print(f"{part}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
