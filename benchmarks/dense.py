"""Stored teacher outputs against the teacher itself beside the student: one size, paired seeds.

    python benchmarks/dense.py [config.yaml] [size] [seeds] [key=value ...]

Trains the same token-level students, with the same initial weights and batches, on the online
teacher's whole distributions and on stored ones; prints the test cross-entropy of each, the mean
difference, and its 90 % interval by Student's t over seeds.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from kdlaws.config import load_study

WAYS = {
    "online": ["cache.outputs=online"],
    "sampled, 32 draws": ["cache.draws=32"],
    "sampled, 64 draws": ["cache.draws=64"],
    "sampled, 128 draws": ["cache.draws=128"],
    "top 64": ["cache.outputs=top_k", "cache.k=64"],
}


def measured(path: str, name: str, overrides: list[str]) -> pd.Series:
    """Test cross-entropy by seed."""
    arguments = [path, f"name={name}", *overrides]
    for command in ("train", "evaluate"):
        subprocess.run(
            [sys.executable, "-m", "kdlaws", command, *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    table = pd.read_csv(Path("runs") / name / "table.csv").query("role == 'student'")
    return table.set_index("seed")["cross_entropy"].sort_index()


def interval(differences: np.ndarray) -> tuple[float, float, float]:
    """Mean and its 90 % interval."""
    n = len(differences)
    mean, se = float(differences.mean()), float(differences.std(ddof=1)) / n**0.5
    half = float(stats.t.ppf(0.95, n - 1)) * se
    return mean, mean - half, mean + half


def main(path: str = "config.yaml", size: str = "96/3", seeds: str = "4", *given: str) -> None:
    teacher = next(iter(load_study(Path(path), given).teachers))
    block = f"[{{sizes: {size}, methods: token, teachers: {teacher}"
    block += f", seeds: {list(range(int(seeds)))}}}]"
    shared = ["epochs={1.0: [1]}", f"students={block}", *given]
    found = {
        way: measured(path, f"dense-{way.replace(', ', '-').replace(' ', '-')}", [*shared, *more])
        for way, more in WAYS.items()
    }
    print(pd.DataFrame(found).to_string(float_format="%.4f"))
    for way in list(WAYS)[1:]:
        mean, low, high = interval((found[way] - found["online"]).to_numpy())
        print(f"{way} minus online: {mean:+.4f} [{low:+.4f}, {high:+.4f}] nats")


if __name__ == "__main__":
    main(*sys.argv[1:])
