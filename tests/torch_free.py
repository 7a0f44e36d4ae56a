"""Runs the installed commands that need no torch, in an environment that must not have it.

Not a test for pytest: `.ci/run` calls it with the Python of such an environment. A small study is
made up from a known law; the commands must find its runs, fit the law and write the report.
"""

import contextlib
import json
import math
import random
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from kdlaws.config import Study, load_study
from kdlaws.records import EVALUATION, PLAN, RECORD, REFERENCE, write_json
from kdlaws.study import Plan, PlannedRun, TextFacts, plan

STUDY = """
name: tiny
corpus: {teacher_share: 0.5}
teachers:
  big: {size: 256/8, n_tokens: 4M}
students:
  - {sizes: [32/1, 64/2, 96/3, 128/4], methods: [scratch, token], teachers: [big], seeds: [0, 1]}
"""
TEXT = TextFacts("made-up", "0" * 64, "bpe-1024", "1" * 64, 1024, 1_500_000, 4_000_000)
ALPHA = 0.35


def cross_entropy(planned: PlannedRun, noise: float) -> float:
    """A law of the Chinchilla form; a distilled student has nine tenths of what can be gained."""
    n, d = planned.shape.n_params_non_embedding, planned.n_tokens
    reducible = 30 / n**ALPHA + 100 / d**0.35
    return (2.0 + (0.9 if planned.teacher else 1.0) * reducible) * (1 + noise)


def write_study(study: Study) -> Plan:
    """Records and evaluations as `train` and `evaluate` would leave them."""
    resolved, rng = plan(study, TEXT), random.Random(0)
    for planned in resolved.runs:
        folder = study.folder / planned.run_id
        loss = cross_entropy(planned, rng.gauss(0, 0.002))
        done = {"status": "done", "device": "cpu", "wall_s": 10.0, "selected": True}
        write_json(folder / RECORD, resolved.columns(planned) | done)
        measured = {"cross_entropy": loss, "cross_entropy_se": 0.01, "perplexity": math.exp(loss)}
        write_json(folder / EVALUATION, measured | {"bits_per_byte": loss / 3.6 / math.log(2)})
    read = sorted({planned.n_unique_tokens for planned in resolved.runs})
    bigram = [{"n_unique_tokens": n_tokens, "cross_entropy": 5.0} for n_tokens in read]
    write_json(study.folder / REFERENCE, {"unigram": 6.0, "bigram": bigram})
    write_json(study.folder / PLAN, [resolved.columns(planned) for planned in resolved.runs])
    (study.folder / "study.yaml").write_text(STUDY)
    return resolved


def kdlaws(*arguments: str) -> str:
    """What the installed command prints; it must succeed."""
    command = [str(Path(sys.executable).with_name("kdlaws")), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"kdlaws {' '.join(arguments)}: {done.returncode}\n{done.stderr}"
    return done.stdout


def check_commands(resolved: Plan) -> None:
    runs, table = str(resolved.study.folder), str(resolved.study.folder / "table.csv")
    assert "32/1" in kdlaws("models")
    ladder = json.loads(kdlaws("models", "--json"))["models"]
    assert ladder[0]["n_params_non_embedding"] == 12_640
    assert kdlaws("runs", runs, "--csv", table)
    assert kdlaws("status", runs)
    chosen = ("--where", "role=student,method=scratch")
    fit = json.loads(kdlaws("fit", table, "--law", "chinchilla", *chosen, "--json"))
    assert fit["n_runs"] == 4 * 3 * 2
    assert abs(fit["parameters"]["alpha"]["value"] - ALPHA) < 0.1
    check_laws(table, *chosen)
    check_advice(runs, table)
    assert kdlaws("report", "tiny.yaml")
    page = (resolved.study.folder / "report" / "index.html").read_text(encoding="utf-8")
    assert "tiny" in page


def check_laws(table: str, *chosen: str) -> None:
    """A law alone, several compared, and predictions by what was chosen and by a paper."""
    compared = json.loads(kdlaws("compare", table, *chosen, "--out", "best.json", "--json"))
    assert compared["chosen"]["holdout"]["mape"] < 2
    model = ("n_params_non_embedding=500k", "n_tokens=4M", "flops=2e13")
    assert json.loads(kdlaws("predict", "best.json", *model, "--json"))["cross_entropy"] > 2
    isoflop = json.loads(kdlaws("isoflop", table, *chosen, "--json"))
    assert {budget["status"] for budget in isoflop["budgets"]} <= {"ok", "refused"}
    assert "busbridge2025" in kdlaws("laws")
    teacher = ("teacher_n_params_non_embedding=1.82B", "teacher_n_tokens=36.4B")
    student = ("n_params_non_embedding=546M", "n_tokens=10.92B")
    said = json.loads(kdlaws("predict", "published:busbridge2025", *student, *teacher, "--json"))
    assert round(said["cross_entropy"], 3) == 2.424


def check_advice(runs: str, table: str) -> None:
    """A plan, a design before and after pilots, a recommendation, the claims."""
    where = ("--where", "role=student,method=scratch")
    kdlaws("fit", table, "--law", "chinchilla", *where, "--out", "pilots.json")
    plan = json.loads(kdlaws("plan", "pilots.json", "flops=1e14", "--json"))
    assert plan["best"]["n_tokens"] > 0
    assert plan["break_even"]["reason"] == "the plan has no teacher"
    design = json.loads(kdlaws("design", "--runs", runs, "--json"))
    assert any("one teacher only" in each["reason"] for each in design["cannot"])
    added = json.loads(kdlaws("design", "pilots.json", "flops=1e13", "--json"))
    assert added["flops"] <= 1e13
    best = json.loads(kdlaws("recommend", table, "pilots.json", "max_params=200k", "--json"))
    assert all(row["n_params"] <= 200_000 for row in best["rows"])
    verdicts = json.loads(kdlaws("claims", runs, "--json"))["verdicts"]
    assert [each["id"] for each in verdicts] == [f"H{k}" for k in range(1, 9)]


def main() -> None:
    present = [name for name in ("torch", "transformers", "tokenizers") if find_spec(name)]
    assert not present, f"this environment is to be without {', '.join(present)}"
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("tiny.yaml").write_text(STUDY)
        check_commands(write_study(load_study(Path("tiny.yaml"))))
    print("the commands that need no torch work without it")


if __name__ == "__main__":
    main()
