"""An existing checkpoint joins a table: its text is scored, its cost counted, its speed taken."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from transformers import CONFIG_MAPPING, MODEL_FOR_MASKED_LM_MAPPING, PreTrainedTokenizerFast

from kdlaws.config import Method
from kdlaws.errors import ConfigError, InputError
from kdlaws.lab import given, latency, scoring
from kdlaws.lab.headless import load_given
from kdlaws.lab.scoring import Ids, PlainText, Score
from kdlaws.lab.streams import Masks
from kdlaws.lab.tokens import framing, specials_of, tokenizer_label
from kdlaws.records import RECORD, read_json, read_record
from kdlaws.shapes import MASKED_SHARE, GivenModel, Objective, n_masked, run_flops
from kdlaws.tables import COLUMNS, TEXT_COLUMNS, read_table, write_table

WHERE = "--model"
MAX_CTX = 2048
"""Tokens in a window unless more are asked for: a prefill is timed with all its logits."""
IMPORTS = Path("runs") / "imports"
"""Where a GGUF file is converted to, as a study does below its own folder."""


@dataclass(frozen=True)
class Request:
    """A model, the text that it is scored on, and what only the user knows of it.

    ``n_ctx`` None: the longest sequence that the model reads, up to ``MAX_CTX``. ``max_windows``
    bounds pseudo-perplexity; None: it is not measured.
    """

    model: str
    text: Path
    revision: str | None = None
    gguf_file: str | None = None
    n_ctx: int | None = None
    max_windows: int | None = None
    n_tokens: float | None = None
    method: Method = "scratch"
    role: Literal["student", "teacher"] = "student"


@dataclass(frozen=True)
class Checkpoint:
    """A model in a folder, with what is known of it before its weights are read.

    ``longest`` is the longest sequence that it reads, None where it sets no limit.
    """

    label: str
    folder: Path
    revision: str | None
    objective: Objective
    tokenizer: PreTrainedTokenizerFast
    model: GivenModel

    @property
    def longest(self) -> int | None:
        return None if self.model.n_ctx == sys.maxsize else self.model.n_ctx

    def n_ctx(self, wanted: int | None) -> int:
        """``wanted``, or else the longest, but no more than ``MAX_CTX``.

        Raises ConfigError where the model cannot read it.
        """
        if wanted is None:
            return min(self.model.n_ctx, MAX_CTX)
        if self.longest is not None and wanted > self.longest:
            raise ConfigError(
                f"--n-ctx {wanted}: {self.label} reads {self.longest} tokens at once",
                remedy=f"give {self.longest} or less, or leave --n-ctx out",
            )
        return wanted

    def at(self, n_ctx: int) -> GivenModel:
        """What sequences of this length cost."""
        is_masked = self.objective == "masked"
        n_targets = n_masked(n_ctx, MASKED_SHARE) if is_masked else n_ctx
        return replace(self.model, n_ctx=n_ctx, n_targets=n_targets)


def find_model(model: str, revision: str | None = None, gguf_file: str | None = None) -> Checkpoint:
    """A local folder, a finished run's folder, or a model of the Hub, of either objective.

    Raises ConfigError where it is none that this lab reads.
    """
    is_run = (Path(model) / RECORD).exists()
    found = given.find(WHERE, f"{model}/model" if is_run else model, revision, gguf_file, IMPORTS)
    objective = objective_of(found.folder)
    tokenizer = given.tokenizer_of(found.folder)
    n_vocab = len(tokenizer)
    described = given.describe(WHERE, found, objective, n_vocab=n_vocab, n_targets=0)
    given.check_vocabulary(WHERE, tokenizer, tokenizer, described.n_rows)
    label = read_record(Path(model))["run_id"] if is_run else described.label
    facts = (found.folder, found.revision, objective, tokenizer, described.model)
    return Checkpoint(label, *facts)


def objective_of(folder: Path) -> Objective:
    """Masked of an architecture that predicts masked tokens, unless it is used as a decoder."""
    written = read_json(folder / "config.json")
    kind = written.get("model_type")
    sees_both_ways = kind in CONFIG_MAPPING and CONFIG_MAPPING[kind] in MODEL_FOR_MASKED_LM_MAPPING
    return "masked" if sees_both_ways and not written.get("is_decoder") else "causal"


# -- measuring ---------------------------------------------------------------------------------


def evaluate_model(request: Request) -> dict[str, Any]:
    """What is measured of the model on the text, in the contract's columns and some more.

    Nats per token, or per masked token. Raises ConfigError and InputError.
    """
    text = scoring.read_plain_text(request.text)
    found = find_model(request.model, request.revision, request.gguf_file)
    if request.max_windows is not None and found.objective == "causal":
        raise ConfigError("--pseudo-perplexity is of masked models", where=found.label)
    n_ctx = found.n_ctx(request.n_ctx)
    ids_t = np.array(found.tokenizer(text.text, add_special_tokens=False, verbose=False).input_ids)
    columns = _who(request, found, text) | _costs(request, found.at(n_ctx))
    columns |= _speed(found, n_ctx)
    columns |= _scores(found, ids_t, n_ctx, text, request.max_windows)
    return columns


def _who(request: Request, found: Checkpoint, text: PlainText) -> dict[str, Any]:
    return {
        "run_id": found.label,
        "study": "elsewhere",
        "role": request.role,
        "objective": found.objective,
        "method": request.method,
        "init": "given",
        "corpus": text.label,
        "text_sha256": text.sha256,
        "tokenizer": tokenizer_label(found.tokenizer, found.objective),
        "revision": found.revision,
        "status": "done",
    }


def _costs(request: Request, model: GivenModel) -> dict[str, Any]:
    """FLOPs of sequences as long as those that are scored; unknown what nobody said."""
    columns: dict[str, Any] = {
        "n_ctx": model.n_ctx,
        "n_params": model.n_params,
        "n_params_non_embedding": model.n_params_non_embedding,
        "n_params_head": model.n_params_head,
        "n_tokens": request.n_tokens,
        "forward_flops_per_token": model.forward_flops_per_token,
    }
    if request.n_tokens is None:
        return columns
    flops = run_flops(model, int(request.n_tokens), int(request.n_tokens))
    columns["student_flops"] = flops.student
    if request.method == "scratch":
        columns |= {"teacher_inference_flops": 0.0, "teacher_training_flops": 0.0}
    return columns


def _speed(found: Checkpoint, n_ctx: int) -> dict[str, Any]:
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        measured: dict[str, Any] = latency.measure(found.folder, found.objective, n_ctx)
    finally:
        torch.set_num_threads(n_threads)
    size = sum(file.stat().st_size for file in given.weights_of(found.folder))
    return measured | {"size_mb": size / 2**20}


def _scores(
    found: Checkpoint, ids_t: Ids, n_ctx: int, text: PlainText, max_windows: int | None
) -> dict[str, Any]:
    model = load_given(found.folder, found.objective, found.model.n_vocab)
    if found.objective == "causal":
        first_id = found.tokenizer.get_vocab()[specials_of(found.tokenizer, "causal")["eos_token"]]
        scored = scoring.score(model, scoring.rolling_batches(ids_t, first_id, n_ctx))
        return _columns(scored) | _of_the_text(scored, text)
    specials_of(found.tokenizer, "masked")  # all of them must be there
    tokenizer = found.tokenizer
    ids_wt = _sequences(ids_t, n_ctx, tokenizer)
    columns = _columns(scoring.score(model, scoring.masked_batches(ids_wt, masks_of(tokenizer))))
    if max_windows is not None:
        one_masked = scoring.one_masked_batches(ids_wt[:max_windows], tokenizer.mask_token_id)
        scored = scoring.score(model, one_masked)
        columns["pseudo_perplexity"] = float(np.exp(scored.cross_entropy))
        columns["n_pseudo_tokens"] = scored.n_tokens
    return columns


def _sequences(ids_t: Ids, n_ctx: int, tokenizer: PreTrainedTokenizerFast) -> Ids:
    ids_wt = scoring.framed(ids_t, n_ctx, tokenizer.cls_token_id, tokenizer.sep_token_id)
    if not len(ids_wt):
        raise InputError(
            f"the text has {len(ids_t)} tokens, too few for a sequence of {n_ctx}",
            remedy="give --n-ctx, or more text",
        )
    return ids_wt


def masks_of(tokenizer: PreTrainedTokenizerFast) -> Masks:
    """The same masks whenever a text is scored with this tokenizer."""
    return Masks(
        share=MASKED_SHARE,
        replicas=1,
        mask_id=tokenizer.mask_token_id,
        never=framing(tokenizer),
        n_vocab=len(tokenizer),
        seed=0,
    )


def _columns(scored: Score) -> dict[str, Any]:
    return {
        "cross_entropy": scored.cross_entropy,
        "cross_entropy_se": scored.cross_entropy_se,
        "perplexity": float(np.exp(scored.cross_entropy)),
        "n_windows": len(scored.nll_w),
        "n_test_tokens": scored.n_tokens,
    }


def _of_the_text(scored: Score, text: PlainText) -> dict[str, float]:
    """Per byte and per word of the text, whatever the tokens are."""
    return {
        "bits_per_byte": scored.nll / np.log(2) / text.n_bytes,
        "byte_perplexity": float(np.exp(scored.nll / text.n_bytes)),
        "word_perplexity": float(np.exp(scored.nll / text.n_words)),
    }


# -- the table ---------------------------------------------------------------------------------


def require_appendable(path: Path) -> None:
    """Raises ConfigError for what is no CSV file, TableError for one that cannot be read."""
    if path.suffix != ".csv" or path.is_dir():
        raise ConfigError(
            f"--append {path}: is not a .csv file", remedy="give the path of a table.csv"
        )
    if path.exists():
        read_table(path)


def append_row(measured: Mapping[str, Any], path: Path) -> None:
    """Add a row to a table, all or nothing; it takes the place of one of its run_id and corpus.

    Raises as ``require_appendable``, and then the file is as it was.
    """
    require_appendable(path)
    extra = ["pseudo_perplexity"] if "pseudo_perplexity" in measured else []
    row = {name: measured.get(name) for name in (*COLUMNS, *extra)}
    kept = read_table(path).frame if path.exists() else pd.DataFrame(columns=[*row])
    if {"run_id", "corpus"} <= set(kept):
        kept = kept[(kept["run_id"] != row["run_id"]) | (kept["corpus"] != row["corpus"])]
    names = dict.fromkeys([*kept, *row])
    write_table(pd.DataFrame({name: _extended(kept, name, row.get(name)) for name in names}), path)


def _extended(frame: pd.DataFrame, name: str, cell: Any) -> "pd.Series[Any]":
    """The column with one more cell, of the type that it had."""
    before = frame[name].tolist() if name in frame else [None] * len(frame)
    is_text = name in TEXT_COLUMNS or (len(frame) and name in frame and frame[name].dtype == object)
    return pd.Series([*before, cell], dtype=object if is_text else np.float64)
