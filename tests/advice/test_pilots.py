"""Which runs to make next: against fits of simulated runs that are then made."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kdlaws.advice.designing.learning import anything, deviations, learnt, lessons
from kdlaws.advice.designing.pilots import Suggestion, found_noise, suggest
from kdlaws.advice.designing.proposal import Proposal, ProposedTrunk
from kdlaws.advice.planning.plan import plan
from kdlaws.errors import InputError
from kdlaws.laws import Fit, fit, published
from kdlaws.laws.expected import Noise, expected_fit
from kdlaws.laws.uncertainty import Linear

N = "n_params_non_embedding"
TEACHER_N = f"teacher_{N}"
Array = NDArray[Any]

TRUTH = {"E": 1.5, "A": 40.0, "B": 300.0, "alpha": 0.3, "beta": 0.4}
SPEC = {"L0": 1.5, "A": 40.0, "alpha": 0.3, "beta": 0.4, "B_scratch": 300.0, "B_token": 250.0}
SPEC |= {"c_token": 0.8, "kappa_token": 0.15, "r_c_token": 5.0}
SIZES, TOKENS = np.geomspace(6e3, 8e5, 5), tuple(np.geomspace(1e5, 8e5, 5))
TEN = Proposal(tuple(ProposedTrunk("scratch", n, TOKENS, seed=s) for s in (0, 1) for n in SIZES))
BUDGET, PLAN = 1e14, 1e16


def losses(proposal: Proposal, rng: np.random.Generator) -> Array:
    """Cross-entropies under Chinchilla's law, .4 % of deviation a trunk and .2 % a run."""
    runs, t = proposal.columns(), TRUTH
    loss = t["E"] + t["A"] / runs[N] ** t["alpha"] + t["B"] / runs["n_tokens"] ** t["beta"]
    scatter = 0.004 * rng.standard_normal(len(proposal.trunks))[proposal.index]
    result: Array = loss * np.exp(scatter + 0.002 * rng.standard_normal(len(loss)))
    return result


def fitted(proposal: Proposal, cross_entropy: Array) -> Fit:
    columns = {**proposal.columns(), "cross_entropy": cross_entropy}
    return fit(columns, "chinchilla", trunk=proposal.labels, holdout=0)


def both(proposal: Proposal, trunks: tuple[ProposedTrunk, ...]) -> Proposal:
    return Proposal((*proposal.trunks, *trunks))


# --- what a run teaches -------------------------------------------------------------------------


def test_runs_teach_what_a_fit_of_all_of_them_knows() -> None:
    """The covariance of 10 trunks, taught 3 more, is that of the 13."""
    more = tuple(ProposedTrunk("scratch", n, TOKENS[:3]) for n in (2e3, 5e4, 4e6))
    before, after = (
        expected_fit(each.columns(), "chinchilla", TRUTH, trunk=each.labels).uncertainty
        for each in (TEN, both(TEN, more))
    )
    assert isinstance(before, Linear)
    assert isinstance(after, Linear)
    known = expected_fit(TEN.columns(), "chinchilla", TRUTH, trunk=TEN.labels)
    found = lessons(known, Proposal(more), Noise())
    assert anything([0, 1, 2])
    np.testing.assert_allclose(
        learnt(before.covariance, found.of([0, 1, 2])), after.covariance, rtol=1e-5
    )
    for one in (2, 0, 1):  # one after another, in any order
        before = Linear(learnt(before.covariance, found.of([one])), *[np.eye(5)] * 3)
    np.testing.assert_allclose(before.covariance, after.covariance, rtol=1e-5)


def test_refits_teach_as_their_covariance_does() -> None:
    """Of a law that is straight in its parameters: the sample covariance, updated."""
    rng = np.random.default_rng(3)
    u = rng.standard_normal((500, 3)) @ rng.standard_normal((3, 3))
    rows, aim = rng.standard_normal((4, 3)), rng.standard_normal((2, 3))
    expected = aim @ learnt(np.cov(u.T), rows) @ aim.T
    by_refit = deviations(aim @ u.T)
    found = by_refit @ learnt(np.eye(500), deviations(rows @ u.T)) @ by_refit.T
    np.testing.assert_allclose(found, expected, rtol=1e-9)


# --- runs that are then made --------------------------------------------------------------------


@cache
def pilots(seed: int) -> tuple[Array, Fit, Suggestion]:
    """A study of ten trunks, its fit, and what it is advised to do next."""
    cross_entropy = losses(TEN, np.random.default_rng(seed))
    known = fitted(TEN, cross_entropy)
    return cross_entropy, known, suggest(known, BUDGET, plan_budget=PLAN, most=5)


def width(fit: Fit) -> float:
    """Of the plan's interval of N, in logarithms."""
    interval = plan(fit, PLAN).interval
    assert interval is not None
    lo, hi = interval["n_params"]
    assert lo is not None
    assert hi is not None
    return float(np.log(hi / lo))


def test_the_suggested_runs_narrow_the_plan_as_was_said() -> None:
    """At the median of 8 studies; a made study also learns its noise anew."""
    ratios, said = [], []
    for seed in range(8):
        cross_entropy, known, found = pilots(seed)
        new = Proposal(found.together)
        made = losses(new, np.random.default_rng(100 + seed))
        after = fitted(both(TEN, found.together), np.concatenate([cross_entropy, made]))
        ratios.append(width(after) / width(known))
        said.append(1 - found.shrinks_by)
    assert np.median(ratios) == pytest.approx(np.median(said), rel=0.25)
    assert np.median(ratios) < 0.7


def test_they_narrow_it_more_than_the_proposed_runs_once_more() -> None:
    """Five trunks of the same sizes and tokens, which cost far less than the budget."""
    _, known, found = pilots(0)
    again = tuple(ProposedTrunk("scratch", n, TOKENS, seed=2) for n in SIZES)
    assert Proposal(again).flops.sum() < BUDGET
    same = suggest(known, BUDGET, plan_budget=PLAN, candidates=again, most=5)
    assert found.shrinks_by > same.shrinks_by + 0.1


def test_the_interval_before_is_the_plans() -> None:
    _, known, found = pilots(0)
    interval = plan(known, PLAN).interval
    assert interval is not None
    for name in ("n_params", "n_tokens"):
        assert found.interval_before[name] == pytest.approx(interval[name])
    best = plan(known, PLAN).best
    assert found.plan["n_params"] == pytest.approx(best.n_params_non_embedding)


def test_the_best_alone_narrows_more_than_any_other_alone() -> None:
    _, _, found = pilots(0)
    narrower = [each.shrinks_by for each in found.candidates]
    assert narrower == sorted(narrower, reverse=True)
    assert found.shrinks_by > narrower[0]
    best = found.candidates[0]
    lo, hi = best.interval_after["n_params"]
    before = found.interval_before["n_params"]
    assert lo is not None
    assert hi is not None
    assert before[0] is not None
    assert before[1] is not None
    ratio = np.log(hi / lo) / np.log(before[1] / before[0])
    assert ratio == pytest.approx(1 - best.shrinks_by)


def test_all_of_it_fits_in_the_budget() -> None:
    _, _, found = pilots(0)
    assert found.flops <= BUDGET
    assert found.flops == pytest.approx(Proposal(found.together).flops.sum())
    assert len(found.together) <= 5
    assert all(each.flops <= BUDGET for each in found.candidates)


def test_refits_know_it_too() -> None:
    """Runs without trunks are resampled; the plan's own percentiles shrink."""
    rng = np.random.default_rng(1)
    columns = {**TEN.columns(), "cross_entropy": losses(TEN, rng)}
    known = fit(columns, "chinchilla", holdout=0, bootstrap=100)
    found = suggest(known, BUDGET, plan_budget=PLAN)
    interval = plan(known, PLAN).interval
    assert interval is not None
    assert found.interval_before["n_params"] == pytest.approx(interval["n_params"])
    assert 0.2 < found.shrinks_by < 0.9


# --- teachers -----------------------------------------------------------------------------------


def taught(teachers: tuple[float, ...]) -> Fit:
    kinds = [("scratch", None), *(("token", teacher) for teacher in teachers)]
    runs = Proposal(tuple(ProposedTrunk(m, n, TOKENS, t) for m, t in kinds for n in SIZES))
    return expected_fit(runs.columns(), "spec_additive", SPEC, trunk=runs.labels)


def test_a_fit_of_one_teacher_is_advised_to_take_others() -> None:
    """Three of them, a factor of 8 apart, and then the ratio is known."""
    found = suggest(taught((1e6,)), 1e15, plan_budget=1e17)
    teachers = {t.teacher_n_params for t in found.together} - {None}
    assert len(teachers) >= 3
    assert max(teachers) >= 8 * min(teachers)
    assert found.interval_before["ratio"] == (None, None)
    assert None not in found.interval_after["ratio"]
    assert all(each.interval_after["ratio"] == (None, None) for each in found.candidates)


def test_a_fit_of_three_teachers_knows_its_ratio_before() -> None:
    found = suggest(taught((1e5, 1e6, 1e7)), 1e15, plan_budget=1e17)
    assert None not in found.interval_before["ratio"]
    assert {each.method for each in found.candidates} <= {"scratch", "token"}


def test_teachers_are_paid_for_what_they_read() -> None:
    """2 N_T for each token of the longest branch, once."""
    found = suggest(taught((1e5, 1e6, 1e7)), 1e15, plan_budget=1e17)
    for each in found.candidates:
        d = max(each.n_tokens)
        own = 6 * each.n_params * (d + 0.2 * (sum(each.n_tokens) - d))
        assert each.flops == pytest.approx(own + 2 * (each.teacher_n_params or 0) * d)


# --- what it refuses ----------------------------------------------------------------------------


def test_a_published_law_has_nothing_to_narrow() -> None:
    with pytest.raises(InputError, match="nothing of how sure"):
        suggest(published("besiroglu2024"), 1e19, plan_budget=1e21)


def test_a_budget_that_pays_for_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="pay for none of 27 candidates"):
        suggest(pilots(0)[1], 1.0, plan_budget=PLAN)


def test_the_noise_is_what_the_fit_found() -> None:
    """Of ten trunks; without trunks all of it is the runs'."""
    noise = found_noise(pilots(0)[1])
    assert noise.trunk == pytest.approx(0.004, rel=0.5)
    assert noise.run == pytest.approx(0.002, rel=0.2)
    exact = expected_fit(TEN.columns(), "chinchilla", TRUTH).predict(TEN.columns())
    loss = exact * np.exp(0.003 * np.random.default_rng(0).standard_normal(50))
    columns = {**TEN.columns(), "cross_entropy": loss}
    alone = found_noise(fit(columns, "chinchilla", holdout=0, bootstrap=0))
    assert (alone.trunk, alone.run) == (0, pytest.approx(0.003, rel=0.25))


# --- for people and programs --------------------------------------------------------------------


def test_it_reads_as_what_to_make_and_what_that_brings() -> None:
    _, _, found = pilots(0)
    text = str(found)
    assert "the plan for 1e+16 FLOPs" in text
    assert f"make {len(found.together)} trunks" in text
    assert f"{found.shrinks_by:.0%} narrower" in text
    assert text.count(" narrower for ") == 5


def test_it_is_a_document(tmp_path: Path) -> None:
    _, _, found = pilots(0)
    found.save(tmp_path / "pilots.json")
    document = json.loads((tmp_path / "pilots.json").read_text())
    assert document["schema"] == 1
    assert document["candidates"][0]["shrinks_by"] == found.candidates[0].shrinks_by
    assert len(document["together"]) == len(found.together)
