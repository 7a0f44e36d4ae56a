"""The columns that the report reads of a study's table, each with its type."""

import math
from typing import TYPE_CHECKING

from kdlaws.errors import TableError

if TYPE_CHECKING:
    from pandas import DataFrame

N = "n_params_non_embedding"

# What the report reads; a table that lacks one of these has it empty, and the report says so.
_TEXT_SETTINGS = ("divergence", "teacher_outputs")
_NUMBER_SETTINGS = (
    *("jsd_beta", "kd_weight", "temperature", "embedding_weight", "learning_rate", "batch_tokens"),
)
SETTINGS = (*_TEXT_SETTINGS, *_NUMBER_SETTINGS)
_TEXTS = (
    *("run_id", "study", "role", "method", "trunk", "teacher", "status", "device", "corpus"),
    *("objective", "init", "quality", "teacher_heldout"),
    *_TEXT_SETTINGS,
)
_NUMBERS = (
    *(N, "n_tokens", "n_unique_tokens", "fraction", "epochs", "seed", "noise", *_NUMBER_SETTINGS),
    *("teacher_n_params_non_embedding", "teacher_cross_entropy", "teacher_overlap"),
    *("teacher_stream_cross_entropy", "n_targets", "kept"),
    *("cross_entropy", "cross_entropy_se", "perplexity"),
    *("forward_flops_per_token", "prefill_ms_p50", "decode_ms_p50", "wall_s"),
)


def whole(frame: "DataFrame") -> "DataFrame":
    """Every column that the report reads, with its type.

    Raises TableError where one that it cannot do without is lacking.
    """
    import pandas as pd

    lacking = [name for name in ("method", N, "n_tokens", "cross_entropy") if name not in frame]
    if lacking:
        raise TableError(
            f"the table has no column {', '.join(lacking)}",
            where="table.csv",
            remedy="a study's report reads the table that `kdlaws evaluate` writes",
        )
    columns = dict.fromkeys([*frame.columns, *_TEXTS, *_NUMBERS, "selected"])
    all_of_them = frame.reindex(columns=list(columns))
    for column in _TEXTS:
        all_of_them[column] = all_of_them[column].astype(object)
    for column in _NUMBERS:
        numbers = pd.to_numeric(all_of_them[column], errors="coerce")
        all_of_them[column] = numbers.astype(float)
    computed = all_of_them["cross_entropy"].map(math.exp)
    all_of_them["perplexity"] = all_of_them["perplexity"].fillna(computed)
    all_of_them["selected"] = all_of_them["selected"].eq(True)
    all_of_them["status"] = all_of_them["status"].fillna("done")
    return all_of_them.copy()  # in one piece again after the columns that were set
