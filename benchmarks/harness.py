"""A student scored by lm-evaluation-harness, and by kdlaws, on the same text.

    KDLAWS_DATA=FOLDER python benchmarks/harness.py MODEL [N_WORDS]

Writes a local task, ``loglikelihood_rolling`` on WikiText-2's raw test text as one document (its
first N_WORDS words, if given), runs ``lm_eval.simple_evaluate`` on the model's folder, scores the
file with ``kdlaws.lab.joining``, and prints both as Markdown; exits with 1 where they do not agree
within 0.5 %. Needs ``pip install lm-eval datasets``; downloads nothing.
"""

import json
import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the library is imported
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TQDM_DISABLE"] = "1"  # a bar for each window

TEXT = Path("data/wikitext-2/wiki.test.raw")
TASK = "wikitext_2_raw_as_one_document"
METRICS = ("word_perplexity", "byte_perplexity", "bits_per_byte")
BAR = 0.005
PACKAGES = ("kdlaws", "lm_eval", "torch", "transformers")


def write_task(folder: Path, text: str) -> None:
    """A task as lm-evaluation-harness reads it from a folder, and its data."""
    (folder / "data.jsonl").write_text(json.dumps({"page": text}) + "\n")
    task = {
        "task": TASK,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "data.jsonl")}},
        "test_split": "test",
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{page}}",
        "metric_list": [{"metric": name} for name in METRICS],
        "metadata": {"version": 1.0},
    }
    (folder / f"{TASK}.yaml").write_text(yaml.safe_dump(task))


def by_the_harness(model: str, folder: Path, n_ctx: int) -> dict[str, float]:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    done = simple_evaluate(
        model="hf",
        model_args={"pretrained": model, "max_length": n_ctx, "dtype": "float32"},
        tasks=[TASK],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        batch_size=1,
        device="cpu",
        bootstrap_iters=0,
    )
    results = done["results"][TASK]
    return {name: results[f"{name},none"] for name in METRICS}


def by_kdlaws(model: str, file: Path) -> dict[str, Any]:
    from kdlaws.lab.joining import Request, evaluate_model

    return evaluate_model(Request(model=model, text=file))


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    return call(), time.perf_counter() - start


def first_words(text: str, n_words: int) -> str:
    """As it stands, up to the white space after word ``n_words``."""
    pieces = re.split(r"(\s+)", text)
    return "".join(pieces[: 2 * n_words])


def main(model: str, n_words: int | None) -> bool:
    """Print the comparison; whether it holds."""
    text = (Path(os.environ["KDLAWS_DATA"]) / TEXT).read_bytes().decode("utf-8")
    text = text if n_words is None else first_words(text, n_words)
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "text.txt"
        file.write_bytes(text.encode())
        write_task(Path(name), text)
        ours, our_seconds = timed(lambda: by_kdlaws(model, file))
        theirs, their_seconds = timed(lambda: by_the_harness(model, Path(name), ours["n_ctx"]))
    print_comparison(ours, theirs)
    print(f"\nSeconds: harness {their_seconds:.0f}, kdlaws {our_seconds:.0f}, latency included.")
    versions = ", ".join(f"{each} {version(each)}" for each in PACKAGES)
    print(f"{date.today()}, Python {platform.python_version()}, {versions}.")
    return all(abs(theirs[each] / ours[each] - 1) < BAR for each in METRICS)


def print_comparison(ours: dict[str, Any], theirs: dict[str, float]) -> None:
    print(
        f"\n`{ours['run_id']}`, windows of {ours['n_ctx']}, {ours['n_test_tokens']:,} tokens, text "
        f"with SHA-256 {ours['text_sha256'][:16]}:\n"
    )
    print("| | lm-evaluation-harness | kdlaws | ratio |")
    print("|---|---|---|---|")
    for each in METRICS:
        ratio = theirs[each] / ours[each]
        print(f"| `{each}` | {theirs[each]:.10g} | {ours[each]:.10g} | {ratio:.9f} |")


if __name__ == "__main__":
    folder, *words = sys.argv[1:]
    sys.exit(0 if main(folder, int(words[0]) if words else None) else 1)
