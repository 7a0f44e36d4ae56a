"""Designs: what proposed runs cost and would tell, against formulas and simulated studies."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kdlaws.advice.designing.design import design
from kdlaws.advice.designing.design_result import Design
from kdlaws.advice.designing.guess import guessed
from kdlaws.advice.designing.proposal import Proposal, ProposedTrunk, proposal_of
from kdlaws.errors import InputError, TableError
from kdlaws.laws import Parameter, find, fit
from kdlaws.laws.cost import ForwardFlops
from kdlaws.laws.expected import expected_fit

N = "n_params_non_embedding"
TEACHER_N = f"teacher_{N}"
DEFAULT = Path(__file__).parents[2] / "results" / "default"

Array = NDArray[Any]


def ladder(
    sizes: Sequence[float], tokens: Sequence[float], teachers: Sequence[float] = ()
) -> Proposal:
    """Every size from scratch, and with each teacher."""
    kinds = [("scratch", None), *(("token", teacher) for teacher in teachers)]
    return Proposal(
        tuple(ProposedTrunk(m, float(n), tuple(tokens), t) for m, t in kinds for n in sizes)
    )


SIZES, TOKENS = np.geomspace(1e6, 1e8, 5), tuple(np.geomspace(1e8, 1.6e9, 4))
PLAIN = ladder(SIZES, TOKENS)
ONE, THREE = ladder(SIZES, TOKENS, (3e7,)), ladder(SIZES, TOKENS, (1e7, 5e7, 2e8))


@cache
def of_one() -> Design:
    return design(ONE, plan_budget=1e20)


# --- cost ---------------------------------------------------------------------------------------


def test_a_trunk_costs_its_longest_branch_and_the_cooldowns_of_the_others() -> None:
    """3 * 2N * (400 + .2 * (100 + 200)) tokens; the teacher reads 400 once, at 2 N_T each."""
    alone = ProposedTrunk("scratch", 1000.0, (100.0, 200.0, 400.0))
    taught = replace(alone, method="token", teacher_n_params=7000.0)
    assert Proposal((alone, taught)).flops.tolist() == [2760e3, 2760e3 + 14e3 * 400]


def test_a_token_costs_what_the_models_take() -> None:
    """At N = 1e6: 2 N, 3 N^(2/3) = 3e4 of attention, 5 N^(1/3) = 500 of the head."""
    trunk = ProposedTrunk("scratch", 1e6, (10.0,))
    forward = ForwardFlops(2.0, 3.0, 5.0)
    assert Proposal((trunk,), forward=forward).flops == pytest.approx([30 * 2030500])


# --- reading ------------------------------------------------------------------------------------


def rows() -> list[dict[str, Any]]:
    """A plan of one teacher, two trunks, one of noisy text and one run that repeats its text."""
    common = {"n_params": 2e4, N: 1e4, "epochs": 1.0, "noise": 0.0, "role": "student"}
    taught = {"method": "token", "teacher": "t", TEACHER_N: 5e4, "teacher_n_params": 6e4}
    return [
        {**common, "role": "teacher", "method": "scratch", "trunk": "t", "n_tokens": 9e6},
        *({**common, "method": "scratch", "trunk": "a", "n_tokens": d} for d in (2e6, 1e6)),
        *({**common, **taught, "trunk": "b", "n_tokens": d} for d in (1e6, 2e6)),
        {**common, "method": "scratch", "trunk": "c", "n_tokens": 1e6, "noise": 0.3},
        {**common, "method": "scratch", "trunk": "d", "n_tokens": 4e6, "epochs": 4.0},
    ]


EXPECTED = (
    ProposedTrunk("scratch", 1e4, (1e6, 2e6)),
    ProposedTrunk("token", 1e4, (1e6, 2e6), 5e4),
)


@pytest.mark.parametrize(
    ("name", "document"),
    [("plan.json", rows()), ("dry-run.json", {"runs": rows()})],
    ids=["a study's plan", "a dry run"],
)
def test_a_plan_is_a_proposal(tmp_path: Path, name: str, document: object) -> None:
    """Students on clean text that is read once; nothing is measured yet."""
    (tmp_path / name).write_text(json.dumps(document))
    assert proposal_of(tmp_path / name).trunks == EXPECTED
    total = proposal_of(tmp_path / name, n="total")
    assert [t.n_params for t in total.trunks] == [2e4, 2e4]
    assert (total.n_column, total.trunks[1].teacher_n_params) == ("n_params", 6e4)


def test_a_folder_is_read_by_its_table_and_else_by_its_plan(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(json.dumps(rows()))
    assert len(proposal_of(tmp_path).trunks) == 2
    (tmp_path / "table.csv").write_text("n_params,n_tokens\n1e4,1e6\n")
    assert proposal_of(tmp_path).trunks == (ProposedTrunk("scratch", 1e4, (1e6,)),)


def test_a_foreign_table_without_trunks_or_losses_is_a_proposal(tmp_path: Path) -> None:
    """Each run alone; the same run again is another seed."""
    table = tmp_path / "runs.csv"
    table.write_text("n_params,n_tokens\n1B,20B\n1B,20B\n3B,20B\n")
    found = proposal_of(table)
    assert found.n_column == "n_params"
    assert [(t.n_params, t.n_tokens, t.seed) for t in found.trunks] == [
        (1e9, (2e10,), 0),
        (1e9, (2e10,), 1),
        (3e9, (2e10,), 0),
    ]


def test_what_a_fit_leaves_out_is_listed() -> None:
    """Undertrained runs, and those that repeat their text; counted in the table itself."""
    found = proposal_of(DEFAULT)
    assert (len(found.trunks), found.n_runs) == (17, 50)
    assert sum("undertrained" in line for line in found.dropped) > 0
    # The models of the study, at 2 N a token, without attention and head: less than half.
    n = found.trunks[0].n_params
    assert found.forward(n) > 2 * n


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "holds no list of runs"),
        ('{"schema": 1}', "holds no list of runs"),
        ('[{"n_params": 1, "n_tokens": 2, "role": "teacher"}]', "no student on clean text"),
        ('[{"n_params": 1, "n_tokens": 2, "trunk": "a"}, '
         '{"n_params": 3, "n_tokens": 2, "trunk": "a"}]', "trunk 'a' has runs of 2"),
    ],
)  # fmt: skip
def test_what_is_no_proposal_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(TableError, match=message):
        proposal_of(tmp_path / "plan.json")


def test_what_lies_nowhere_is_refused(tmp_path: Path) -> None:
    for name in ("none.json", "none.csv"):
        with pytest.raises(TableError, match="no such file"):
            proposal_of(tmp_path / name)


# --- the guess ----------------------------------------------------------------------------------


def test_the_usual_guess_has_four_nats_at_the_middle_half_of_them_floor() -> None:
    """At N and D of the middle the terms of both are 1 nat each."""
    values = guessed(find("chinchilla"), PLAIN)
    n, d = 1e7, 4e8
    assert values["E"] == 2.0
    assert values["A"] / n ** values["alpha"] == pytest.approx(1.0)
    assert values["B"] / d ** values["beta"] == pytest.approx(1.0)


def test_what_is_known_replaces_the_guess_and_the_terms_follow() -> None:
    values = guessed(find("chinchilla"), PLAIN, {"alpha": 0.5})
    assert values["A"] == pytest.approx(1e7**0.5)


def test_what_nobody_knows_must_be_given() -> None:
    with pytest.raises(InputError, match="N_c, D_c, alpha_N, alpha_D may be"):
        guessed(find("kaplan"), PLAIN)
    with pytest.raises(InputError, match="no parameter kappa"):
        guessed(find("chinchilla"), PLAIN, {"kappa": 0.1})


def test_a_fit_is_a_guess() -> None:
    """What it says takes the place of the usual values, and what it pins stays pinned."""
    truth = {"E": 1.7, "A": 400.0, "B": 2000.0, "alpha": 0.34, "beta": 0.37}
    known = expected_fit(PLAIN.columns(), "chinchilla", truth, trunk=PLAIN.labels, fixed={"E": 1.7})
    found = design(PLAIN, plan_budget=1e20, law="chinchilla", guess=known)
    assert set(found.parameters) == {"A", "B", "alpha", "beta"}
    assert found.parameters["A"].value == pytest.approx(400.0)
    with pytest.raises(InputError, match="the guess is of chinchilla"):
        design(THREE, plan_budget=1e20, guess=known)
    with pytest.raises(InputError, match=f"it counts {N}"):
        design(replace(PLAIN, n_column="n_params"), plan_budget=1e20, law="chinchilla", guess=known)


# --- what a design tells ------------------------------------------------------------------------


def test_the_default_study_cannot_tell_the_best_ratio() -> None:
    """It has two teachers of its token runs, a factor of 8 apart, and one of the others."""
    found = design(proposal_of(DEFAULT), plan_budget=1e15, method="token")
    reasons = {each.what: each.reason for each in found.cannot}
    assert "2 teachers only" in reasons["c_token, kappa_token, r_c_token"]
    assert "one teacher only" in reasons["c_embedding, kappa_embedding, r_c_embedding"]
    assert {"the best ratio of token", "the best ratio of embedding"} <= set(reasons)
    assert found.plan.interval is not None
    assert found.plan.interval["ratio"] == (None, None)
    assert found.plan.interval["n_params"] != (None, None)
    assert found.warnings[0].code == "left_out"


def test_one_teacher_is_better_replaced_by_three() -> None:
    """Which makes the ratio known, for the same FLOPs and trunks."""
    found = of_one()
    better = found.better
    assert better is not None
    assert better.flops <= found.flops == pytest.approx(ONE.flops.sum())
    assert better.flops == pytest.approx(Proposal(better.trunks).flops.sum())
    assert len(better.trunks) <= len(ONE.trunks)
    teachers = {t.teacher_n_params for t in better.trunks if t.method == "token"}
    assert len(teachers) >= 3
    assert max(teachers) >= 8 * min(teachers)
    assert not found.parameters["kappa_token"].identified
    assert better.parameters["kappa_token"].identified
    assert better.plan.interval is not None
    assert None not in better.plan.interval["ratio"]


@pytest.mark.parametrize("law", ["busbridge", "spec_effective", "compute", "data_constrained"])
def test_a_law_that_reads_more_than_a_proposal_says_is_refused(law: str) -> None:
    with pytest.raises(InputError, match=f"no design is known for {law}"):
        design(THREE, plan_budget=1e20, law=law)


def test_a_corner_has_no_interval_and_says_so() -> None:
    """With alpha = beta the product form gains by ever fewer tokens: N^-alpha + (N D)^-alpha."""
    found = design(ONE, plan_budget=1e20, law="spec")
    assert found.plan.corner is not None
    assert found.better is None
    asked = design(ONE, plan_budget=1e20, law="spec", about=("alpha",))
    assert width(asked, "alpha") < span(asked.parameters["alpha"])
    assert any("no optimum between two ends" in each.reason for each in found.cannot)


def test_a_gap_that_may_not_exist_leaves_no_best_ratio() -> None:
    """Where kappa may be 0, larger teachers may always be better."""
    found = design(THREE, plan_budget=1e20, guess={"kappa_token": 0.003})
    [lost] = [each for each in found.cannot if each.what == "the best ratio of token"]
    assert "may be 0 or less" in lost.reason


def test_what_is_asked_for_is_narrowed() -> None:
    """With c in view, c is known better than where only the plan is."""
    asked = design(ONE, plan_budget=1e20, about=("c_token",))
    assert width(asked, "c_token") < width(of_one(), "c_token")
    with pytest.raises(InputError, match="no parameter E"):
        design(ONE, plan_budget=1e20, about=("E",))


def width(found: Design, name: str) -> float:
    assert found.better is not None
    return span(found.better.parameters[name])


def span(parameter: Parameter) -> float:
    assert parameter.lo is not None
    assert parameter.hi is not None
    return parameter.hi - parameter.lo


def test_runs_of_another_method_stay() -> None:
    """The plan is of token runs, which are most; the others are there for another reason."""
    others = tuple(ProposedTrunk("embedding", float(n), TOKENS, 5e7) for n in SIZES)
    proposal = replace(ONE, trunks=(*ONE.trunks, *others[1:]))
    found = design(proposal, plan_budget=1e20).better
    assert found is not None
    assert [t for t in found.trunks if t.method == "embedding"] == list(others[1:])
    with pytest.raises(InputError, match="no runs of method hidden"):
        design(proposal, plan_budget=1e20, method="hidden")


# --- a better design ----------------------------------------------------------------------------


def deviations(proposal: Proposal, truth: dict[str, float], budget: float) -> float:
    """Standard deviation of log N* over fits to simulated studies.

    N* = (alpha A / (beta B))^(1/(alpha + beta)) (C/6)^(beta/(alpha + beta)): Hoffmann et al. 2022,
    equation 4.
    """
    rng, runs, t = np.random.default_rng(5), proposal.columns(), truth
    n, d = runs[N], runs["n_tokens"]
    loss = t["E"] + t["A"] / n ** t["alpha"] + t["B"] / d ** t["beta"]
    best = []
    for _ in range(50):
        scatter = 0.004 * rng.standard_normal(len(proposal.trunks))[proposal.index]
        scatter += 0.002 * rng.standard_normal(len(n))
        columns = {N: n, "n_tokens": d, "cross_entropy": loss * np.exp(scatter)}
        found = fit(
            columns, "chinchilla", trunk=proposal.labels, loss="squares", bootstrap=0, holdout=0
        )
        p = {name: each.value for name, each in found.parameters.items()}
        both = p["alpha"] + p["beta"]
        ratio = p["alpha"] * p["A"] / (p["beta"] * p["B"])
        best.append(np.log(ratio) / both + p["beta"] / both * np.log(budget / 6))
    return float(np.std(best, ddof=1))


def test_a_better_design_is_better_in_simulated_studies() -> None:
    """By as much as was said; 50 studies know a standard deviation to 10 %."""
    proposal = ladder(np.tile(np.geomspace(1e6, 1e8, 5), 2), TOKENS)
    found = design(proposal, plan_budget=1e20, law="chinchilla")
    better = found.better
    assert better is not None
    truth = {name: p.value for name, p in found.parameters.items()}
    proposed, other = (
        deviations(each, truth, 1e20) for each in (proposal, Proposal(better.trunks))
    )
    said = [
        np.log(ends[1] / ends[0])
        for ends in ((plan.interval or {})["n_params"] for plan in (found.plan, better.plan))
    ]
    assert other / proposed == pytest.approx(said[1] / said[0], rel=0.25)
    assert other < 0.75 * proposed


# --- for people and programs --------------------------------------------------------------------


def test_it_reads_as_what_it_costs_tells_cannot_tell_and_what_is_better() -> None:
    found = of_one()
    text = str(found)
    assert text.startswith(f"10 trunks, 40 runs, {ONE.flops.sum():.3g} FLOPs; spec_additive")
    parts = ("would tell", "the plan for 1e+20", "cannot tell", "better: 10 trunks")
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert "identifies c_token, kappa_token, r_c_token, too" in text
    assert max(map(len, text.splitlines())) < 200


def test_it_is_a_document(tmp_path: Path) -> None:
    found = of_one()
    found.save(tmp_path / "design.json")
    document = json.loads((tmp_path / "design.json").read_text())
    assert (document["schema"], document["law"]) == (1, "spec_additive")
    assert document["parameters"]["kappa_token"]["lo"] is None
    assert document["plan"]["interval"]["ratio"] == [None, None]
    trunk = document["better"]["trunks"][0]
    assert set(trunk) >= {"method", "n_params", "n_tokens", "teacher_n_params", "seed"}
    assert [n["code"] for n in document["warnings"]] == ["expected"]
