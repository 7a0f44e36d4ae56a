"""What trunks, branches and stored teacher outputs save: the same points both ways.

    python benchmarks/study.py [lengths|fractions] [sizes]

``lengths``: token- and embedding-level students at five lengths of one pass. ``fractions``: these
and scratch on 1, 10 and 100 % of the text, at the default study's levels. Once as one study, whose
branches share trunks and whose students share stored teacher outputs; once each point alone, from
its own start and with the teacher beside it. Prints the CPU seconds of all processes (start-up,
validation and the teachers' reading included), their ratio, and how far the tables agree.
"""

import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd

from kdlaws.config import load_study

CONFIG = "config.yaml"
KEYS = ["method", "n_params_non_embedding", "n_unique_tokens", "n_tokens", "seed"]
LENGTHS = {1.0: [0.2, 0.4, 0.6, 0.8, 1.0]}


def points(part: str) -> tuple[str, dict[float, list[float]]]:
    """Methods, and for each fraction its lengths in passes."""
    if part == "lengths":
        return "[token, embedding]", LENGTHS
    levels = {each: list(passes) for each, passes in load_study(Path(CONFIG)).epochs.items()}
    return "[scratch, token, embedding]", levels


def train(name: str, *overrides: str) -> float:
    """CPU seconds of training a study anew, all its processes."""
    shutil.rmtree(Path("runs") / name, ignore_errors=True)
    before = _cpu_seconds()
    _kdlaws("train", name, *overrides)
    return _cpu_seconds() - before


def _kdlaws(command: str, name: str, *overrides: str) -> None:
    arguments = [sys.executable, "-m", "kdlaws", command, CONFIG, f"name={name}", *overrides]
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table(name: str, *overrides: str) -> pd.DataFrame:
    _kdlaws("evaluate", name, *overrides)
    frame = pd.read_csv(Path("runs") / name / "table.csv").query("role == 'student'")
    return frame.set_index(KEYS)["cross_entropy"]


def block(methods: str, sizes: str, teacher: str, fractions: list[float]) -> str:
    lists = f"sizes: [{sizes}], methods: {methods}, fractions: {fractions}"
    return f"students=[{{{lists}, teachers: {teacher}}}]"


def main(part: str = "lengths", sizes: str = "32/1,64/2,96/3,128/4") -> None:
    methods, levels = points(part)
    teacher = next(iter(load_study(Path(CONFIG)).teachers))
    shared = [block(methods, sizes, teacher, list(levels)), f"epochs={levels}"]
    ours = train(f"study-{part}", *shared)
    together = table(f"study-{part}", *shared)
    alone, tables = 0.0, []
    for fraction, passes in levels.items():
        for each in passes:
            name = f"study-{part}-{fraction:g}-{each:g}"
            one = [block(methods, sizes, teacher, [fraction]), f"epochs={{{fraction}: [{each}]}}"]
            alone += train(name, *one, "cache.outputs=online")
            tables.append(table(name, *one, "cache.outputs=online"))
    difference = (together - pd.concat(tables)).dropna()
    print(f"one study: {ours:.0f} CPU s; point by point: {alone:.0f}; ratio {ours / alone:.3f}")
    print("cross-entropy of one study minus point by point, nats:")
    print(difference.groupby("method").agg(["count", "mean", "std", "min", "max"]).to_string())


if __name__ == "__main__":
    main(*sys.argv[1:])
