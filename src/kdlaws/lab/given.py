"""A model from elsewhere: where it is, whether it can be read, and what is known of it.

A local folder in Hugging Face's layout, a model on the Hub, or a GGUF file, which is converted
once. Weights are read from safetensors only, and no code of a model is ever run. Counts are taken
from the model itself, built on the meta device: no weights are read for them.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import (
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from kdlaws.errors import ConfigError
from kdlaws.lab import fetch
from kdlaws.lab.architectures import AUTO_CLASSES, config_of
from kdlaws.records import digest, file_digest, read_json
from kdlaws.shapes import GivenModel, Objective

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True)
class Found:
    """A folder that ``from_pretrained`` reads: config, tokenizer, safetensors.

    ``revision`` is the commit that was found of a model on the Hub, None of any other.
    """

    folder: Path
    name: str
    revision: str | None


def find(
    where: str, model: str, revision: str | None, gguf_file: str | None, imports: Path
) -> Found:
    """The model, brought here if need be.

    ``model`` is a local folder or an id on the Hub, ``where`` the key that names it, for messages.
    A GGUF file is converted once, to a folder below ``imports``. Raises ConfigError where there is
    no such model or it holds nothing that is read, MissingExtraError for GGUF without its extra.
    """
    folder = Path(model)
    if not folder.is_dir():
        folder = fetch.download(where, model, revision, gguf_file)
    gguf = _gguf_of(where, folder, gguf_file)
    if gguf is not None:
        name, read = gguf.stem, fetch.converted(where, gguf, imports)
    else:
        _require_safetensors(where, folder)
        name, read = model, folder
    return Found(read, fetch.slug(Path(name).resolve().name), fetch.revision_of(folder))


def _gguf_of(where: str, folder: Path, gguf_file: str | None) -> Path | None:
    """The GGUF file to read: the given one, or the only one of a folder without other weights."""
    found = sorted(folder.glob("*.gguf"))
    if gguf_file is not None:
        if not (folder / gguf_file).is_file():
            raise ConfigError(
                f"{folder} has no file {gguf_file}",
                where=where,
                remedy=f"gguf_file may be {_listed(found) or 'left out: there is none here'}",
            )
        return folder / gguf_file
    if not found or weights_of(folder):
        return None
    if len(found) > 1:
        raise ConfigError(
            f"{folder} holds several GGUF files",
            where=where,
            remedy=f"set gguf_file to one of {_listed(found)}",
        )
    return found[0]


def weights_of(folder: Path) -> list[Path]:
    """The safetensors files that ``from_pretrained`` reads: one, or the shards of an index."""
    whole, index = folder / fetch.WEIGHTS_FILE, folder / fetch.WEIGHTS_INDEX
    if whole.exists():
        return [whole]
    if not index.exists():
        return []
    return [folder / name for name in sorted(set(read_json(index)["weight_map"].values()))]


def _require_safetensors(where: str, folder: Path) -> None:
    if not (folder / "config.json").exists():
        raise ConfigError(
            f"{folder} has no config.json",
            where=where,
            remedy="give a folder in Hugging Face's layout, as save_pretrained writes it",
        )
    weights = weights_of(folder)
    absent = [path for path in weights if not path.exists()]
    if absent:
        raise ConfigError(f"{folder} lacks {_listed(absent)}", where=where, remedy="fetch it again")
    if weights:
        return
    pickles = sorted(path for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise ConfigError(
            f"{folder} holds its weights as pickles only ({_listed(pickles)}), which can run code "
            "when read",
            where=where,
            remedy="on a machine that you trust them on, load the model with "
            "AutoModel....from_pretrained, save it with save_pretrained, and give that folder",
        )
    raise ConfigError(
        f"{folder} has no weights as safetensors ({fetch.WEIGHTS_FILE})",
        where=where,
        remedy="give a model that was saved as safetensors, or as GGUF with gguf_file",
    )


def _listed(paths: Iterable[Path]) -> str:
    return ", ".join(path.name for path in paths)


# -- what is known of it -------------------------------------------------------------------------


@dataclass(frozen=True)
class GivenFacts:
    """What is known of a model from elsewhere before its weights are read.

    ``label`` is readable and ends in eight digits of ``identity``, which is of its contents alone;
    ``n_rows`` are those of its embedding, ``n_ctx`` the longest sequence that it reads.
    """

    label: str
    identity: str
    n_rows: int
    model: GivenModel

    @property
    def n_ctx(self) -> int:
        return self.model.n_ctx


def describe(
    where: str, found: Found, objective: Objective, *, n_vocab: int, n_targets: int
) -> GivenFacts:
    """Facts of a model, ``n_vocab`` being the entries that have logits, ``n_targets`` the labels
    of a sequence. Raises ConfigError as ``config_of`` does.
    """
    config = config_of(where, found.folder, objective)
    with torch.device("meta"):
        model = AUTO_CLASSES[objective].from_config(config)
    identity = identity_of(found.folder)
    label = f"{found.name}-{identity[:8]}"
    n_rows, d_head = model.get_output_embeddings().weight.shape
    counted = GivenModel(
        name=label,
        objective=objective,
        # A causal head is given the last hidden state itself, which some models project first.
        d_model=d_head if objective == "causal" else config.hidden_size,
        n_layers=config.num_hidden_layers,
        d_attention=_d_attention(config),
        n_vocab=n_vocab,
        n_ctx=_max_ctx(model),
        n_targets=n_targets,
        **_counts(model),
    )
    return GivenFacts(label, identity, n_rows, counted)


def identity_of(folder: Path) -> str:
    """SHA-256 over the names and contents of the weights and the configuration; never of a path.

    Of a converted GGUF file, as long as its conversion is what it was, that of the file: another
    version of the library converts it to other bytes.
    """
    sums = {path.name: file_digest(path) for path in weights_of(folder)}
    if (folder / fetch.ORIGIN).exists():
        origin = read_json(folder / fetch.ORIGIN)
        if list(sums.values()) == [origin["weights_sha256"]]:
            return str(origin["gguf_sha256"])
    return digest(sums | {"config.json": file_digest(folder / "config.json")})


def _counts(model: PreTrainedModel) -> dict[str, int]:
    """Parameters, a tied matrix counted once in the total, and once in the head.

    FLOPs that are told from them are too few where layers share weights (ALBERT), and too many
    where experts take turns.
    """
    backbone = {id(p) for p in model.base_model.parameters()}
    tied = model.get_output_embeddings().weight
    embeddings = {
        id(p)
        for module in model.base_model.modules()
        if isinstance(module, nn.Embedding)
        for p in module.parameters()
    }
    sizes = {id(p): p.numel() for p in model.parameters()}
    return {
        "n_params": sum(sizes.values()),
        "n_params_non_embedding": sum(sizes[p] for p in backbone - embeddings),
        "n_params_head": sum(n for p, n in sizes.items() if p not in backbone or p == id(tied)),
    }


def _d_attention(config: PreTrainedConfig) -> int:
    """Width of all heads together; 0 of a model without attention."""
    n_heads: int = getattr(config, "num_attention_heads", None) or 0
    head_dim: int | None = getattr(config, "head_dim", None)
    return n_heads * head_dim if head_dim else config.hidden_size * (n_heads > 0)


def _max_ctx(model: PreTrainedModel) -> int:
    """RoBERTa's positions begin after that of padding; some models state no limit."""
    stated: int = getattr(model.config, "max_position_embeddings", None) or sys.maxsize
    skipped = [
        module.padding_idx + 1
        for name, module in model.base_model.named_modules()
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None
    ]
    return stated - max(skipped, default=0)


# -- its tokenizer -------------------------------------------------------------------------------


def tokenizer_of(folder: Path) -> PreTrainedTokenizerFast:
    """Raises ConfigError where the folder has none, or only one of Python's."""
    if not any((folder / name).exists() for name in fetch.TOKENIZER_FILES):
        # The library would make up an empty one.
        raise ConfigError(
            "there is no tokenizer",
            where=str(folder),
            remedy="put the model's tokenizer.json there",
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the tokenizers library raises a bare Exception
        raise ConfigError(
            f"its tokenizer cannot be read: {str(error).splitlines()[0]}",
            where=str(folder),
            remedy="put its tokenizer.json there",
        ) from None
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ConfigError(
            f"{type(tokenizer).__name__} is a tokenizer without a tokenizer.json",
            where=str(folder),
            remedy="give a model with a fast tokenizer",
        )
    # What a tokenizer.json says of length is for batches, not for a stream.
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def check_vocabulary(
    where: str,
    teacher_tokenizer: PreTrainedTokenizerFast,
    study_tokenizer: PreTrainedTokenizerFast,
    n_rows: int,
) -> None:
    """Raises ConfigError unless the teacher's ids mean what the study's do, and have rows.

    ``n_rows`` are those of the teacher's embedding; those beyond the entries are padding.
    """
    theirs, ours = _by_id(teacher_tokenizer), _by_id(study_tokenizer)
    if theirs != ours:
        differ = sorted(i for i in theirs.keys() | ours.keys() if theirs.get(i) != ours.get(i))
        shown = ", ".join(f"{i} ({theirs.get(i)!r}, {ours.get(i)!r})" for i in differ[:3])
        raise ConfigError(
            f"its tokenizer has {len(theirs)} entries and the study's {len(ours)}; {len(differ)} "
            f"ids differ, first {shown}",
            where=where,
            remedy="leave tokenizer.path out, so that students read the teacher's tokens; "
            "teachers of one study share one tokenizer",
        )
    if max(theirs) >= len(theirs):
        raise ConfigError(
            f"the ids of its tokenizer have gaps: {len(theirs)} entries, up to {max(theirs)}",
            where=where,
            remedy="give a model whose tokenizer uses every id",
        )
    if n_rows < len(theirs):
        raise ConfigError(
            f"its embedding has {n_rows} rows, fewer than the {len(theirs)} entries of its "
            "tokenizer",
            where=where,
            remedy="give the tokenizer that it was trained with",
        )


def _by_id(tokenizer: PreTrainedTokenizerFast) -> dict[int, str]:
    return {index: token for token, index in tokenizer.get_vocab().items()}
