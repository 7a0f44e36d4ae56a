"""A branch against a run scheduled for its token count alone, once a method.

    python benchmarks/branches.py [config.yaml] [size]

Trains the study's one-pass branches of one size, then each token count as a trunk of its own, and
prints the difference in test cross-entropy.
"""

import subprocess
import sys
from pathlib import Path

import pandas as pd

from kdlaws.config import load_study

KEYS = ["method", "n_tokens", "seed"]


def measured(path: str, name: str, levels: list[float], size: str, teacher: str) -> pd.DataFrame:
    """The table of the three methods at one size, its one-pass branches at these levels."""
    block = f"[{{sizes: {size}, methods: [scratch, token, embedding], teachers: {teacher}}}]"
    overrides = [f"name={name}", f"epochs={{1.0: {levels}}}", f"students={block}"]
    for command in ("train", "evaluate"):
        subprocess.run([sys.executable, "-m", "kdlaws", command, path, *overrides], check=True)
    return pd.read_csv(Path("runs") / name / "table.csv").query("role == 'student'")


def main(path: str = "config.yaml", size: str = "96/3") -> None:
    study = load_study(Path(path))
    levels, teacher = list(study.epochs[1.0]), next(iter(study.teachers))
    branches = measured(path, "branches", levels, size, teacher)
    alone = pd.concat(
        measured(path, f"branches-alone-{level:g}", [level], size, teacher) for level in levels
    )
    both = branches.merge(alone, on=KEYS, suffixes=("", "_alone"))
    both["difference"] = both["cross_entropy"] - both["cross_entropy_alone"]
    print(both[[*KEYS, "cross_entropy", "cross_entropy_alone", "difference"]].to_string())


if __name__ == "__main__":
    main(*sys.argv[1:])
