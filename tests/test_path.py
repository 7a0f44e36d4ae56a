"""The whole path on configs/smoke.yaml, as a person runs it: train, evaluate, plot.

One undisturbed run serves the tests below; a second one is killed three times.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kdlaws.selection import select
from kdlaws.tables import COLUMNS, read_table

ROOT = Path(__file__).parent.parent
SMOKE = "configs/smoke.yaml"
NOT_REPEATABLE = [
    *("prefill_ms_p50", "prefill_ms_p95", "decode_ms_p50", "decode_ms_p95"),
    *("peak_memory_mb", "wall_s"),
]


def script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, name, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def start_training(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "train.py", SMOKE, f"folder={folder}"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smoke study's folder after train.py and evaluate.py."""
    folder = tmp_path_factory.mktemp("smoke") / "runs"
    script("train.py", SMOKE, f"folder={folder}")
    script("evaluate.py", SMOKE, f"folder={folder}")
    return folder


@pytest.fixture(scope="module")
def summary(smoke: Path) -> str:
    return script("plot.py", SMOKE, f"folder={smoke}").stdout


def test_the_table_is_the_contracts(smoke: Path) -> None:
    frame = read_table(smoke / "table.csv").frame
    assert tuple(frame.columns) == COLUMNS
    students = frame[frame["role"] == "student"]
    assert set(students["method"]) == {"scratch", "token", "embedding"}
    assert set(frame["status"]) <= {"done", "undertrained"}
    measured = ["cross_entropy", "cross_entropy_se", "perplexity", "bits_per_byte"]
    measured += ["calibration_error", "student_flops", "size_mb", *NOT_REPEATABLE]
    assert frame[measured].notna().all(axis=None)
    distilled = students[students["method"] != "scratch"]
    of_teacher = ["teacher", "teacher_cross_entropy", "kl_to_teacher", "agreement"]
    assert distilled[[*of_teacher, "teacher_inference_flops"]].notna().all(axis=None)
    assert (distilled["teacher_overlap"] == 0).all()


def test_training_learns_and_distilling_helps(smoke: Path) -> None:
    """At every size and length, in one pass, the teacher's tokens beat the text's."""
    frame = select(read_table(smoke / "table.csv"), "role=student,fraction=1").frame
    keys = ["n_params_non_embedding", "n_tokens", "seed"]
    wide = frame.pivot_table(index=keys, columns="method", values="cross_entropy")
    assert (wide["token"] < wide["scratch"]).all()
    unigram = json.loads((smoke / "reference.json").read_text())["unigram"]
    assert (frame["cross_entropy"] < unigram).all()
    by_length = wide["scratch"].unstack("n_tokens")
    assert (by_length.diff(axis=1).iloc[:, 1:] < 0).all(axis=None)


def test_what_is_finished_is_not_done_again(smoke: Path) -> None:
    records = sorted(smoke.glob("*/record.json"))
    before = [record.stat().st_mtime_ns for record in records]
    done = script("train.py", SMOKE, f"folder={smoke}", "--json")
    assert [record.stat().st_mtime_ns for record in records] == before
    counts = json.loads(done.stdout)["counts"]
    assert set(counts) == {"done"}


def test_laws_report_and_ten_lines(smoke: Path, summary: str) -> None:
    lines = summary.splitlines()
    assert len(lines) == 10
    assert lines[-1].startswith("Report: ")
    page = (smoke / "report" / "index.html").read_text(encoding="utf-8")
    assert "<svg" in page or "data:image" in page
    for method in ("scratch", "token"):
        fit = json.loads((smoke / "fits" / f"chinchilla-{method}.json").read_text())
        warned = {each["code"] for each in fit["warnings"]}
        assert fit["converged"] != ("not_converged" in warned)
        assert fit["n_column"] == "n_params_non_embedding"
        assert fit["inputs"]["sha256"]


def test_the_model_loads_without_us_and_gives_the_recorded_number(smoke: Path) -> None:
    """In a process without kdlaws, AutoModelForCausalLM reproduces cross-entropy to 1e-4."""
    frame = select(read_table(smoke / "table.csv"), "method=token,fraction=1").frame
    run = frame.iloc[-1]
    (stream,) = smoke.glob("tokens/*/test.npy")
    found = subprocess.run(
        [sys.executable, "-c", _PLAIN, str(smoke / run["run_id"] / "model"), str(stream)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(found.stdout) == pytest.approx(run["cross_entropy"], abs=1e-4)


_PLAIN = """
import sys
import numpy as np, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
assert AutoTokenizer.from_pretrained(sys.argv[1]).eos_token == "<|endoftext|>"
ids = torch.from_numpy(np.load(sys.argv[2]).astype(np.int64))
n_ctx = model.config.max_position_embeddings
starts = range(0, min(len(ids) - 1, 8000) // n_ctx * n_ctx, n_ctx)
with torch.no_grad():
    losses = [
        torch.nn.functional.cross_entropy(
            model(ids[None, i : i + n_ctx]).logits[0], ids[i + 1 : i + 1 + n_ctx]
        )
        for i in starts
    ]
assert "kdlaws" not in sys.modules
print(float(torch.stack(losses).double().mean()))
"""


def test_killed_three_times_the_table_is_the_same_bit_for_bit(smoke: Path, tmp_path: Path) -> None:
    """SIGKILL at random moments; the last start finishes what is missing."""
    folder, rng = tmp_path / "runs", random.Random()
    for _ in range(3):
        process = start_training(folder)
        time.sleep(rng.uniform(8, 16))
        process.send_signal(signal.SIGKILL)
        process.wait()
    script("train.py", SMOKE, f"folder={folder}")
    script("evaluate.py", SMOKE, f"folder={folder}")
    first, second = (
        pd.read_csv(each / "table.csv", dtype=str).drop(columns=NOT_REPEATABLE)
        for each in (smoke, folder)
    )
    pd.testing.assert_frame_equal(first, second)
    for run_id in first["run_id"]:
        losses = [np.load(each / run_id / "evaluation.npz")["nll"] for each in (smoke, folder)]
        np.testing.assert_array_equal(*losses)


def test_stopped_by_a_signal_it_says_that_it_can_go_on(tmp_path: Path) -> None:
    process = start_training(tmp_path / "runs")
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("runs/trunks/*")) and time.monotonic() < deadline:
        time.sleep(0.2)
        if list(tmp_path.glob("runs/*/record.json")):
            break
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 75


def test_a_second_sweep_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    import fcntl

    folder = tmp_path / "runs"
    folder.mkdir()
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = [sys.executable, "train.py", SMOKE, f"folder={folder}"]
        environment = {**os.environ, "TERM": "dumb"}
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert "another process is working on this study" in done.stderr
