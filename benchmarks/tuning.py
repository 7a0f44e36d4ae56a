"""Tables of the tuning study, as Markdown: what each setting gives, and what the common one costs.

    python train.py configs/tuning.yaml && python evaluate.py configs/tuning.yaml
    python benchmarks/tuning.py runs/tuning/table.csv

Text that repeats is taken at its best number of epochs. The cost of the common learning rate is its
cross-entropy minus the best of the grid, the mean over seeds of differences at equal seed.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from kdlaws.config import load_study
from kdlaws.quantities import human
from kdlaws.tables import read_table

N, TEACHER_N = "n_params_non_embedding", "teacher_n_params_non_embedding"
CELL = ["method", N, "fraction"]
DEFAULT = load_study(Path("config.yaml")).optimiser
COMMON = {
    0.01: {"scratch": 0.01, "token": 0.02, "embedding": 0.01},
    1.0: DEFAULT.learning_rate,
}
BATCH = {0.01: 128, 1.0: DEFAULT.batch_tokens}


def read(path: Path) -> pd.DataFrame:
    runs = read_table(path).frame
    runs = runs[(runs["role"] == "student") & runs["selected"].eq(True)]
    return runs[(runs["fraction"] == 1) | (runs["epochs"] > 1)]


def usual(runs: pd.DataFrame) -> pd.DataFrame:
    """Pure distillation at temperature 1 from the stronger teacher, and scratch."""
    strong = runs[TEACHER_N].isna() | (runs[TEACHER_N] == runs[TEACHER_N].max())
    return runs[strong & runs["kd_weight"].isin([1, float("nan")]) & (runs["temperature"] != 2)]


def grid(runs: pd.DataFrame, keys: list[str], across: str) -> Iterator[str]:
    """A Markdown table of mean cross-entropies, each row's best in bold."""
    means = runs.pivot_table(index=keys, columns=across, values="cross_entropy", dropna=False)
    means = means.dropna(how="all")
    yield f"| {' | '.join(keys)} | {' | '.join(f'{value:g}' for value in means.columns)} |"
    yield "|---" * (len(keys) + means.shape[1]) + "|"
    for key, row in means.iterrows():
        cells = ["" if v != v else f"**{v:.3f}**" if v == row.min() else f"{v:.3f}" for v in row]
        names = [human(k) if isinstance(k, float) and k > 5e3 else f"{k}" for k in key]
        yield f"| {' | '.join([*names, *cells])} |"


def costs(runs: pd.DataFrame) -> Iterator[str]:
    """What the common rate costs against the best of the grid {.005, .01, .02}, by seed."""
    yield "| method | N | fraction | common rate | best rate | cost | seeds |"
    yield "|---|---|---|---|---|---|---|"
    weights = runs["embedding_weight"].isin([3, float("nan")])
    for (method, n, fraction), cell in runs[weights].groupby(CELL):
        rows = cell[(cell["batch_tokens"] == BATCH[fraction]) & (cell["learning_rate"] < 0.03)]
        by_seed = rows.pivot_table(index="seed", columns="learning_rate", values="cross_entropy")
        if by_seed.shape[1] < 3 or n not in (runs[N].min(), runs[N].max()):
            continue
        common, best = COMMON[fraction][method], by_seed.dropna().mean().idxmin()
        difference = (by_seed[common] - by_seed[best]).dropna()
        error = f" ± {difference.sem():.3f}" if len(difference) > 1 and common != best else ""
        told = f"{difference.mean():.3f}{error} | {len(difference)}"
        yield f"| {method} | {human(n)} | {fraction:g} | {common:g} | {best:g} | {told} |"


def main(path: Path) -> None:
    runs = read(path)
    plain = usual(runs)
    once = plain["embedding_weight"].isin([1, float("nan")])
    chosen = plain["embedding_weight"] == 3
    print(
        "## Learning rate by batch\n",
        *grid(plain[once], [*CELL, "batch_tokens"], "learning_rate"),
        sep="\n",
    )
    print(
        "\nEmbedding-level at weight 3\n",
        *grid(plain[chosen], [*CELL, "batch_tokens"], "learning_rate"),
        sep="\n",
    )
    print("\n## What the common rate costs\n", *costs(plain), sep="\n")
    keys = [*CELL, "batch_tokens", "learning_rate"]
    embedding = runs[runs["method"] == "embedding"]
    several = embedding.groupby(keys)["embedding_weight"].transform("nunique") > 1
    embedding = embedding[several & (embedding["seed"] == 0)]
    print("\n## Weight of the hidden state\n", *grid(embedding, keys, "embedding_weight"), sep="\n")
    token = runs[(runs["method"] == "token") & (runs["batch_tokens"] == 512)]
    token = token[(token["learning_rate"] == 0.02) & (token["fraction"] == 1)]
    for title, column, fixed in (
        ("Weight", "kd_weight", token["temperature"]),
        ("Temperature", "temperature", token["kd_weight"]),
    ):
        rows = token[(fixed == 1) & (token[N] > runs[N].min())]
        table = grid(rows, ["method", N, TEACHER_N], column)
        print(f"\n## {title} of the teacher's distribution\n", *table, sep="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
