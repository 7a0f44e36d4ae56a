"""The commands that use laws, through main: what they print, and what they refuse."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdlaws.cli import main
from kdlaws.laws import fit
from kdlaws.tables import write_table

DEFAULT = str(Path(__file__).parent.parent / "results" / "default")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Exit code, stdout and stderr of a command."""

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            main(list(arguments))
        printed = capsys.readouterr()
        return int(stopped.value.code or 0), printed.out, printed.err

    return run


def document(run: Run, *arguments: str) -> dict[str, Any]:
    code, out, err = run(*arguments, "--json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    assert found["schema"] == 1
    return found


def grid() -> dict[str, Any]:
    n, d = (
        axis.ravel() for axis in np.meshgrid(np.geomspace(1e6, 1e8, 6), np.geomspace(1e8, 1e10, 5))
    )
    loss = 1.8 + 480 / n**0.35 + 2100 / d**0.37
    return {"n_params": n, "n_tokens": d, "cross_entropy": loss}


@pytest.fixture
def saved(tmp_path: Path) -> str:
    noisy = grid()
    noisy["cross_entropy"] *= np.exp(0.002 * np.random.default_rng(0).normal(size=30))
    path = tmp_path / "fit.json"
    fit(noisy, "chinchilla", n_column="n_params", bootstrap=60).save(path)
    return str(path)


# --- plan ---------------------------------------------------------------------------------------

PAPER = "published:busbridge2025"


def test_a_plan_of_the_papers_law_has_the_papers_split(run: Run) -> None:
    """science.md section 2: a share of .43 and a teacher 2.4 times the student's size."""
    found = document(
        run,
        *("plan", PAPER, "flops=1e22", "scenario=inference", "n_params_non_embedding=3B"),
        *("teacher_tokens_per_param=200", "--extrapolate"),
    )
    assert found["allocation"]["teacher_inference"] == pytest.approx(0.43, abs=0.02)
    ratio = found["best"]["teacher_n_params_non_embedding"] / 3e9
    assert ratio == pytest.approx(2.4, rel=0.05)
    assert found["interval"] is None


def test_hours_and_money_are_flops_at_a_rate(run: Run) -> None:
    rate = ("flops_per_second=1e15", "price_per_hour=2")
    by_flops = document(run, "plan", PAPER, "flops=3.6e21")
    by_hours = document(run, "plan", PAPER, "hours=1000", *rate)
    by_money = document(run, "plan", PAPER, "money=2000", *rate)
    assert by_hours["best"] == by_money["best"]
    assert by_hours["best"]["n_tokens"] == pytest.approx(by_flops["best"]["n_tokens"])
    assert by_money["budget"] == pytest.approx({"flops": 3.6e21, "hours": 1000, "money": 2000})


def test_the_rate_can_be_that_of_a_table(run: Run, tmp_path: Path) -> None:
    import pandas as pd

    columns = {"student_flops": [2e12, 6e12, 9e12], "wall_s": [1.0, 2.0, 3.0]}
    table = tmp_path / "table.csv"
    write_table(pd.DataFrame({"method": ["scratch"] * 3, **columns}), table)
    found = document(
        run, "plan", "published:hoffmann2022", "hours=1e9", f"flops_per_second={table}"
    )
    assert found["budget"]["flops"] == pytest.approx(3e12 * 3600e9)


def test_teachers_are_lists_of_one_value_each(run: Run) -> None:
    keys = ("teacher_n_params_non_embedding=1B,3B", "teacher_n_tokens=20B,60B", "teacher=one,three")
    found = document(run, "plan", PAPER, "flops=1e21", *keys)
    named = {each["teacher"] for each in (found["best"], *found["alternatives"])}
    assert {"one", "three", None} <= named
    alone = document(run, "plan", PAPER, "flops=1e21", "teacher_cross_entropy=2.1", "scenario=free")
    assert alone["best"]["teacher"] == "teacher"


def test_a_fit_of_ones_own_has_an_interval_and_scratch_is_compared(run: Run, saved: str) -> None:
    keys = ("flops=1e18", "teacher_n_params=1e9", "serve_tokens=1e9", "n_students=4")
    found = document(run, "plan", saved, *keys, "--scratch", saved)
    lo, hi = found["interval"]["n_params"]
    assert lo < found["best"]["n_params"] < hi
    # The same law taught and untaught: what the teacher costs is lost.
    assert found["comparison"]["times_cheaper"] < 1
    assert found["allocation"]["serving"] > 0
    assert "n_params_non_embedding" not in found["flat_valley"]


def test_a_plan_for_people_says_what_to_train(run: Run, saved: str) -> None:
    code, out, _ = run("plan", saved, "flops=1e18")
    assert code == 0
    assert "train      N = " in out
    assert "90%        N " in out
    assert "the plan has no teacher" in out


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (["flops=1e21", "teachr=3"], "teachr: there is no such key"),
        (["flops=1e21", "hours=3"], "2 budgets"),
        (["hours=3"], "give flops_per_second"),
        (["flops=lots"], "flops: 'lots' is not a number"),
        (["flops=1e21", "n_params=3B"], "give n_params_non_embedding"),
        (["flops=1e21", "teacher_n_params=3B"], "give teacher_n_params_non_embedding"),
        (["flops=1e21", "scenario=gratis"], "one of free, inference, pretraining, both"),
        (["flops=1e21", "teacher_outputs=maybe"], "stored or online"),
        (["flops=1e21", "teacher=a,b", "teacher_n_params_non_embedding=1B"], "one value for each"),
        (["flops"], "is no name=value"),
        (["flops=1e15"], "buy no student"),
        (["flops=1e21", "tolerance=-1"], "tolerance: -1 cannot be used"),
        (["flops=1e21", "flops=1e22"], "flops is given twice"),
        (["flops=1e400"], "is no budget"),
        (["hours=3", "flops_per_second=0"], "flops_per_second: 0 cannot be used"),
        (["flops=1e21", "price_per_hour=-4"], "price_per_hour: -4 cannot be used"),
        (["flops=1e21", "method=token"], "does not tell methods apart"),
        (["flops=1e21", "teacher_tokens_per_param=-3"], "tokens_per_param of a teacher"),
        (["flops=1e21", "teacher_n_params_non_embedding=-1e9"], "n_params of a teacher"),
        (["flops=1e21", "teacher_cross_entropy=0.5", "scenario=free"], "outside the range"),
        (
            ["flops=1e21", "teacher_n_params_non_embedding=1T", "teacher_n_tokens=20T"],
            "teacher_n_params_non_embedding: 1e+12 is outside the range",
        ),
        (
            [
                *("flops=1e21", "teacher_n_params_non_embedding=1B", "teacher_n_tokens=20B"),
                "teacher_tokens_per_param=500",
            ],
            "told by its N, or as they are",
        ),
        (
            [
                *("flops=1e21", "scenario=pretraining"),
                *("teacher_n_params_non_embedding=3B", "teacher_n_tokens=60B"),
            ],
            "the teacher's training and serving take",
        ),
    ],
)
def test_a_plan_that_cannot_be_is_told_so(run: Run, keys: list[str], told: str) -> None:
    code, out, err = run("plan", PAPER, *keys)
    assert (code, out) == (2, "")
    assert told in err


def test_another_document_is_no_fit(run: Run, saved: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(document(run, "plan", saved, "flops=1e18")))
    code, _, err = run("plan", str(path), "flops=1e18")
    assert code == 2
    assert "not a fit" in err


def test_a_fit_of_distilled_runs_asks_for_the_teacher(run: Run) -> None:
    fit = f"{DEFAULT}/fits/chinchilla-token.json"
    alone = document(run, "plan", fit, "flops=1e12")
    assert "no_teacher_named" in {notice["code"] for notice in alone["warnings"]}
    assert "not_identified" in {notice["code"] for notice in alone["warnings"]}
    named = document(run, "plan", fit, "flops=1e12", "teacher_n_params_non_embedding=2.66M")
    assert "no_teacher_named" not in {notice["code"] for notice in named["warnings"]}


def test_a_plan_needs_neither_scipy_nor_pandas(saved: str) -> None:
    program = (
        "import sys; from kdlaws.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('scipy', 'pandas', 'torch') if name in sys.modules])"
    )
    for reference in (PAPER, saved):
        flops = "1e21" if reference == PAPER else "1e18"
        command = [sys.executable, "-c", program, "plan", reference, f"flops={flops}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "[]"


# --- recommend ----------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path: Path) -> str:
    """Models on Chinchilla's form whose latency is N / 1e6 ms."""
    import pandas as pd

    frame = pd.DataFrame(grid())
    frame["decode_ms_p50"] = frame["n_params"] / 1e6
    frame["run_id"] = [f"run-{row}" for row in range(len(frame))]
    frame["method"] = "scratch"
    path = tmp_path / "models.csv"
    write_table(frame, path)
    return str(path)


def test_the_best_measured_model_within_limits_comes_first(run: Run, table: str) -> None:
    found = document(run, "recommend", table, "max_latency_ms=7")
    first = found["rows"][0]
    assert first["kind"] == "measured"
    assert first["n_params"] == pytest.approx(1e6 * 100 ** (2 / 5))  # the third of six sizes
    assert first["n_tokens"] == pytest.approx(1e10)
    code, out, _ = run("recommend", table, "max_latency_ms=7", "--where", "n_tokens<1e9")
    assert code == 0
    assert "models meet max_latency_ms=7" in out


def test_a_fit_adds_models_that_nobody_trained(run: Run, table: str, saved: str) -> None:
    found = document(run, "recommend", table, saved, "max_latency_ms=7")
    assert {"measured", "predicted"} <= {row["kind"] for row in found["rows"]}
    predicted = next(row for row in found["rows"] if row["kind"] == "predicted")
    assert predicted["latency_ms"] == pytest.approx(predicted["n_params"] / 1e6, rel=1e-3)


def test_limits_that_nothing_meets_name_the_nearest(run: Run, table: str) -> None:
    found = document(run, "recommend", table, "max_latency_ms=0.5")
    assert found["rows"] == []
    assert found["nearest"]["constraints"]["max_latency_ms"]["factor"] == pytest.approx(2)


def test_an_unknown_constraint_is_refused(run: Run, table: str) -> None:
    code, _, err = run("recommend", table, "max_speed=3")
    assert code == 2
    assert "max_latency_ms" in err


# --- design -------------------------------------------------------------------------------------


def test_the_default_study_cannot_tell_the_best_ratio(run: Run) -> None:
    found = document(run, "design", "--runs", DEFAULT, "--where", "method!=embedding")
    assert "the best ratio of token" in [each["what"] for each in found["cannot"]]
    assert found["parameters"]["kappa_token"]["identified"] is False
    assert found["better"]["parameters"]["kappa_token"]["identified"] is True
    assert found["better"]["flops"] <= found["flops"]


def test_a_guess_and_the_noise_move_what_is_expected(run: Run) -> None:
    asked = ("design", "--runs", DEFAULT, "--where", "method=scratch", "law=chinchilla")
    usual = document(run, *asked)["parameters"]["alpha"]
    other = document(run, *asked, "alpha=0.5")["parameters"]["alpha"]
    assert (usual["value"], other["value"]) == (0.35, 0.5)
    loud = document(run, *asked, "trunk_noise=0.008", "run_noise=0.004")["parameters"]["alpha"]
    widths = [each["hi"] - each["lo"] for each in (usual, loud)]
    assert widths[1] == pytest.approx(2 * widths[0], rel=0.1)


def test_a_dry_runs_document_is_a_proposal(run: Run, tmp_path: Path) -> None:
    rows = [
        {"run_id": f"{n}-{d}", "method": "scratch", "n_params": n, "n_tokens": d, "trunk": f"{n}"}
        for n in (10**6, 10**7, 10**8)
        for d in (10**8, 10**9, 10**10)
    ]
    path = tmp_path / "dry.json"
    path.write_text(json.dumps({"schema": 1, "kdlaws": "0", "runs": rows}))
    found = document(run, "design", "--runs", str(path), "law=chinchilla", "plan_flops=1e19")
    assert (found["n_trunks"], found["n_runs"]) == (3, 9)


def test_pilots_are_told_which_runs_to_add(run: Run, saved: str) -> None:
    found = document(run, "design", saved, "flops=1e18", "plan_flops=1e20", "most=3")
    assert 0 < found["shrinks_by"] < 1
    assert found["flops"] <= 1e18
    assert 0 < len(found["together"]) <= 3
    code, out, _ = run("design", saved, "flops=1e18", "plan_flops=1e20")
    assert code == 0
    assert "narrower" in out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "give a FIT of pilots, or --runs"),
        ([PAPER, "flops=1e20"], "as a guess it serves with --runs"),
        (["--runs", DEFAULT, "gamma=3"], "gamma"),
        (["--runs", "nowhere"], "nowhere"),
        (["--runs", DEFAULT, "law=busbridge"], "no design is known"),
    ],
)
def test_a_design_that_cannot_be_is_told_so(run: Run, arguments: list[str], told: str) -> None:
    code, out, err = run("design", *arguments)
    assert (code, out) == (2, "")
    assert told in err


def test_pilots_must_say_what_the_runs_may_cost(run: Run, saved: str) -> None:
    code, _, err = run("design", saved)
    assert code == 2
    assert "give flops=..." in err


# --- claims -------------------------------------------------------------------------------------


def test_the_claims_of_the_default_study(run: Run) -> None:
    found = document(run, "claims", DEFAULT)
    verdicts = {each["id"]: each for each in found["verdicts"]}
    assert list(verdicts) == [f"H{k}" for k in range(1, 9)]
    assert verdicts["H4"]["verdict"] == "contradicted"
    assert all(each["would_settle"] for each in verdicts.values() if each["verdict"][0] == "u")
    [ratio, *_] = [each for each in verdicts["H3"]["readings"] if each["method"] == "token"]
    assert (ratio["lo"], ratio["hi"]) == (None, None)
    committed = json.loads(Path(DEFAULT, "claims.json").read_text())
    assert found["verdicts"] == committed["verdicts"]


def test_guidelines_are_markdown(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("claims", str(tmp_path), "--guidelines")
    assert (code, out) == (2, "")
    rows = Path(DEFAULT, "table.csv").read_text().splitlines()
    few = [rows[0], *(row for row in rows if ",student,causal,scratch," in row)]
    (tmp_path / "table.csv").write_text("\n".join(few) + "\n")
    code, out, _ = run("claims", str(tmp_path), "--guidelines")
    assert code == 0
    assert "## What is not known" in out
