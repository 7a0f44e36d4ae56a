"""The models that a recommendation chooses from, and what is known of those of a table.

Those that a law predicts are in ``untrained``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from kdlaws.advice.contrasts import SeedNoise
from kdlaws.errors import TableError
from kdlaws.exports import rename_hint
from kdlaws.laws.columns import N_COLUMNS
from kdlaws.laws.law import D, U
from kdlaws.laws.uncertainty import student
from kdlaws.tables import LoadedTable, read_table

if TYPE_CHECKING:
    from pandas import DataFrame, Series

Floats = NDArray[np.float64]
Kind = Literal["measured", "predicted", "extrapolated"]

COSTS: Mapping[str, str] = {  # of serving, and the table's column of each
    "latency_ms": "decode_ms_p50",
    "prefill_ms": "prefill_ms_p50",
    "memory_mb": "peak_memory_mb",
    "size_mb": "size_mb",
    "forward_flops_per_token": "forward_flops_per_token",
}

# What runs that differ in nothing but their seed have in common.
_TEXT_SETTINGS = (
    *("study", "role", "objective", "method", "init", "corpus", "tokenizer", "quality"),
    *("teacher", "divergence", "teacher_outputs"),
)
_NUMBER_SETTINGS = (
    *("kd_weight", "temperature", "jsd_beta", "embedding_weight", "learning_rate", "batch_tokens"),
    *("fraction", "kept", "masked_share", *N_COLUMNS, D, U),
)
_TEXTS = ("run_id", "status", "teacher_heldout", *_TEXT_SETTINGS)
_NUMBERS = (
    *("noise", "epochs", "seed", "cross_entropy", "cross_entropy_se", "teacher_cross_entropy"),
    *("student_flops", "teacher_inference_flops", "flops", *COSTS.values(), *_NUMBER_SETTINGS),
    *(f"teacher_{n}" for n in N_COLUMNS),
)
_ONE_TEST = ("objective", "masked_share", "corpus", "tokenizer")


@dataclass(frozen=True)
class Row:
    """A model; None is unknown.

    ``lo`` and ``hi`` enclose its expected cross-entropy: of a measured model over test texts and
    seeds, of a predicted one the law's curve, around which ``new_run_lo`` to ``new_run_hi`` is
    where one run lies. Its ``cross_entropy`` is the mean of ``n_seeds`` runs, ``name`` the first of
    them. ``latency_ms`` is of decoding a token, of a masked model that of a whole prompt. ``flops``
    are those of training it and of its teacher's outputs.
    """

    rank: int | None
    kind: Kind
    name: str
    role: str
    method: str | None
    teacher: str | None
    n_params: float | None
    n_params_non_embedding: float | None
    n_tokens: float | None
    cross_entropy: float
    lo: float | None
    hi: float | None
    new_run_lo: float | None
    new_run_hi: float | None
    perplexity: float
    latency_ms: float | None
    prefill_ms: float | None
    memory_mb: float | None
    size_mb: float | None
    forward_flops_per_token: float | None
    flops: float | None
    n_seeds: int | None
    status: str | None
    pareto: bool


def rows_of(frame: "DataFrame") -> list[Row]:
    """A frame that lacks a field of Row does not know it."""
    whole = frame.reindex(columns=[entry.name for entry in fields(Row)]).assign(pareto=False)
    records = whole.astype(object).to_dict("records")
    return [Row(**{str(k): _known(v) for k, v in each.items()}) for each in records]


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --- the table ----------------------------------------------------------------------------------


def read_models(runs: str | Path | LoadedTable) -> "DataFrame":
    """The runs of a study's folder or of a table, of any status, with the costs of serving them.

    A folder's table.csv is read where there is one, else its records. Raises TableError for what
    cannot be read, or has no cross-entropies, or has those of several tests.
    """
    table = runs if isinstance(runs, LoadedTable) else load_models(Path(runs))
    where = table.source["file"] or ""
    if "cross_entropy" not in table.frame:
        raise TableError(
            "the table has no column cross_entropy",
            where=where,
            remedy=f"{rename_hint(table.frame, ['cross_entropy'])}; of a study, run evaluate first",
        )
    frame = _typed(table.frame)
    _refuse_losses(table.frame["cross_entropy"], frame, where)
    _refuse_to_mix(frame[frame["role"] != "teacher"], where)
    return frame.assign(**_costs(frame), flops=_flops(frame))


def load_models(path: Path, *, columns: str = "") -> LoadedTable:
    """A folder's table.csv, or its records where it has none, or a table; see ``read_table``."""
    file = path / "table.csv"
    return read_table(file if file.is_file() else path, columns=columns)


def _typed(frame: "DataFrame") -> "DataFrame":
    import pandas as pd

    whole = frame.reindex(columns=list(dict.fromkeys((*_TEXTS, *_NUMBERS, "selected"))))
    texts = {name: whole[name].astype(object).where(whole[name].notna(), None) for name in _TEXTS}
    numbers = {name: pd.to_numeric(whole[name], errors="coerce") for name in _NUMBERS}
    typed = whole.assign(**texts, **{name: cells.astype(float) for name, cells in numbers.items()})
    return typed.assign(
        run_id=typed["run_id"].fillna(pd.Series(typed.index + 1, typed.index).map("row {}".format)),
        role=typed["role"].fillna("student"),
        status=typed["status"].fillna("done").str.lower(),
    )


def _costs(frame: "DataFrame") -> "dict[str, Series[float]]":
    """A masked model decodes nothing: what it takes is the time to read a prompt."""
    is_masked = frame["objective"].eq("masked").any()
    columns = {**COSTS, **({"latency_ms": "prefill_ms_p50"} if is_masked else {})}
    return {name: frame[column] for name, column in columns.items()}


def _flops(frame: "DataFrame") -> "Series[float]":
    """Of the student and of its teacher's outputs; else ``flops``, which foreign tables have."""
    inference = frame["teacher_inference_flops"]
    inference = inference.where(inference.notna() | frame["teacher"].notna(), 0.0)
    return (frame["student_flops"] + inference).fillna(frame["flops"])


def _refuse_losses(told: "Series[Any]", frame: "DataFrame", where: str) -> None:
    """Cells that are no cross-entropy: text, or numbers that no model has."""
    known = told.notna()
    wrong = frame.index[known & ~(frame["cross_entropy"] > 0)]
    if len(wrong):
        row = wrong[0]
        raise TableError(
            f"{frame.loc[row, 'run_id']}: cross_entropy is {told.loc[row]!r}, which no model has",
            where=where,
            remedy="correct it, or leave it empty",
        )


def _refuse_to_mix(students: "DataFrame", where: str) -> None:
    """Losses on other text, tokens or objective are other quantities, and do not rank."""
    for column in _ONE_TEST:
        values = list(map(str, students[column].dropna().unique()))
        if len(values) > 1:
            raise TableError(
                f"models that differ in {column} ({', '.join(values)}) do not rank together",
                where=where,
                remedy=f'choose, for example: --where "{column}={values[0]}"',
            )


def not_held_out(models: "DataFrame") -> list[str]:
    """The teachers from elsewhere that are not known to have never seen the test text."""
    is_given = (models["role"] == "teacher") & models["init"].eq("given")
    return list(models.loc[is_given & ~models["teacher_heldout"].eq("yes"), "run_id"])


# --- measured -----------------------------------------------------------------------------------


def measured(models: "DataFrame", level: float) -> list[Row]:
    """Students on clean text and teachers, one row for all seeds of a run.

    Of a trunk that repeats its text, the number of epochs that validation selected.
    """
    runs = models[models["cross_entropy"].notna() & models["status"].isin(["done", "undertrained"])]
    is_clean = (runs["noise"].fillna(0) == 0) & ~((runs["epochs"] > 1) & runs["selected"].eq(False))
    runs = runs[is_clean | (runs["role"] == "teacher")]
    cell = _cells(runs)
    means = runs.groupby(cell)[list(dict.fromkeys([*_NUMBERS, *COSTS]))].mean()
    is_undertrained = runs["status"].eq("undertrained").groupby(cell).any()
    rows = means.join(runs.groupby(cell)[list(_TEXTS)].first()).assign(
        kind="measured",
        n_seeds=runs["seed"].groupby(cell).nunique().clip(lower=1),
        status=np.where(is_undertrained, "undertrained", "done"),
        perplexity=np.exp(means["cross_entropy"]),
    )
    half = _half_widths(rows, _seed_noise(runs, cell), level)
    rows = rows.assign(lo=rows["cross_entropy"] - half, hi=rows["cross_entropy"] + half)
    return rows_of(rows.rename(columns={"run_id": "name"}))


def _cells(runs: "DataFrame") -> "Series[int]":
    """A number for each setting.

    A run of unknown seed has one of its own, and so have two of one seed: they differ in something.
    """
    settings = [*_TEXT_SETTINGS, *_NUMBER_SETTINGS]
    is_alone = runs["seed"].isna() | runs.duplicated([*settings, "seed"], keep=False)
    alone = np.where(is_alone, np.arange(len(runs)), -1)
    by = runs.assign(alone=alone).groupby([*settings, "alone"], dropna=False, sort=False)
    return by.ngroup()


def _seed_noise(runs: "DataFrame", cell: "Series[int]") -> SeedNoise | None:
    """How far a run's cross-entropy moves with its seed, pooled over all that were repeated."""
    n = runs[N_COLUMNS[0]].fillna(runs[N_COLUMNS[1]])
    repeats = {key: y.to_numpy() for key, y in runs["cross_entropy"].groupby(cell)}
    size = n.groupby(cell).first()
    return SeedNoise.pooled({(str(key), float(size[key])): y for key, y in repeats.items()})


def _half_widths(rows: "DataFrame", noise: SeedNoise | None, level: float) -> Floats:
    """Of the interval of a mean over seeds: test text and seeds; NaN where neither is known."""
    text = NormalDist().inv_cdf((1 + level) / 2) * rows["cross_entropy_se"].to_numpy()
    seeds = np.full(len(rows), np.nan)
    if noise is not None:
        seeds = float(student(noise.df, level)) * noise.sigma / np.sqrt(rows["n_seeds"].to_numpy())
    half = np.hypot(np.nan_to_num(text), np.nan_to_num(seeds))
    return np.where(np.isnan(text) & np.isnan(seeds), np.nan, half)
