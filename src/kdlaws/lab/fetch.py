"""Bring a model here: from the Hub into its cache, and out of a GGUF file into safetensors."""

import re
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

import huggingface_hub
import torch
import transformers
from huggingface_hub import errors as hub
from transformers import AutoModelForCausalLM, AutoTokenizer

from kdlaws.errors import ConfigError, MissingExtraError
from kdlaws.records import file_digest, write_json

WEIGHTS_FILE = "model.safetensors"
WEIGHTS_INDEX = f"{WEIGHTS_FILE}.index.json"
WEIGHTS = (WEIGHTS_FILE, "model-*.safetensors")
ORIGIN = "gguf.json"
"""Beside a converted model: the SHA-256 of the GGUF file, and of the weights made from it."""

TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt"),
    *("spiece.model", "sentencepiece.bpe.model"),
)
_AND_WITH_THEM = (
    *("tokenizer_config.json", "merges.txt", "special_tokens_map.json", "added_tokens.json"),
)
_READ = ("config.json", *TOKENIZER_FILES, *_AND_WITH_THEM)


def download(where: str, model: str, revision: str | None, gguf_file: str | None) -> Path:
    """The snapshot of a model of the Hub in the library's cache: no pickles, no code.

    What is in the cache is not fetched again. Raises ConfigError where there is nothing to fetch.
    """
    wanted = [gguf_file] if gguf_file else [*WEIGHTS, WEIGHTS_INDEX]
    try:
        folder = huggingface_hub.snapshot_download(
            model,
            revision=revision,
            allow_patterns=[*_READ, *wanted],
            # Patterns match across folders, too: of other formats, of parts of training.
            ignore_patterns=None if gguf_file else ["*/*"],
        )
    except (hub.HFValidationError, hub.HfHubHTTPError, OSError) as error:
        raise _unavailable(where, model, revision, error) from None
    return Path(folder)


def _unavailable(where: str, model: str, revision: str | None, error: Exception) -> ConfigError:
    elsewhere = (
        "give a local folder instead; on a machine that reaches the Hub, "
        f"`hf download {model} --local-dir FOLDER` fills one"
    )
    match error:
        case hub.HFValidationError():
            what = f"{model} is neither a folder here nor the id of a model on the Hub"
            remedy = "give a folder that save_pretrained wrote, or an id such as owner/name"
        case hub.GatedRepoError():
            what = f"{model} is gated: its owner asks for an agreement first"
            remedy = f"accept it on the model's page and run `hf auth login`, or {elsewhere}"
        case hub.RepositoryNotFoundError():
            what = f"the Hub knows no model {model}, or it is private"
            remedy = "look at the spelling; for a private model run `hf auth login`"
        case hub.RevisionNotFoundError():
            what = f"{model} has no revision {revision}"
            remedy = "give a commit, tag or branch of it, or leave revision out"
        case _ if isinstance(error.__cause__, hub.OfflineModeIsEnabled):
            what = f"{model} is not in the cache, and the Hub's library is set offline"
            remedy = f"unset HF_HUB_OFFLINE, or {elsewhere}"
        case _:
            what = f"{model} cannot be fetched: {str(error).splitlines()[0]}"
            remedy = elsewhere
    return ConfigError(what, where=where, remedy=remedy)


def converted(where: str, gguf: Path, imports: Path) -> Path:
    """A GGUF file's model and tokenizer as a safetensors folder in fp32; made once, under its hash.

    Raises ConfigError where the library cannot read it, MissingExtraError without what it needs.
    """
    sha256 = file_digest(gguf)
    folder = imports / f"gguf-{sha256[:16]}" / slug(gguf.stem)
    if not folder.exists():
        _require_gguf()
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            _convert(gguf, partial)
            made = {"gguf_sha256": sha256, "weights_sha256": file_digest(partial / WEIGHTS_FILE)}
            write_json(partial / ORIGIN, made)
        except Exception as error:  # whatever the libraries meet in a file that is not as expected
            raise ConfigError(
                f"{gguf.name} cannot be read by transformers {transformers.__version__}: {error}",
                where=where,
                remedy="give the model's own safetensors folder",
            ) from None
        else:
            _move(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


def _convert(gguf: Path, folder: Path) -> None:
    read = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, local_files_only=True
    )
    config = read.config.__class__.from_dict(read.config.to_dict())
    del config.quantization_config
    # The library refuses to save what it read from GGUF, so another model lends its name.
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(config)
    plain.save_pretrained(folder, state_dict=read.state_dict())
    AutoTokenizer.from_pretrained(
        gguf.parent, gguf_file=gguf.name, local_files_only=True
    ).save_pretrained(folder)


def _move(partial: Path, folder: Path) -> None:
    """Another process may have been faster; its folder holds the same."""
    partial.chmod(0o755)
    try:
        partial.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _require_gguf() -> None:
    missing = [name for name in ("gguf", "accelerate") if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"reading GGUF: {' and '.join(missing)} not installed",
            remedy="pip install 'kdlaws[gguf]'",
        )


def revision_of(folder: Path) -> str | None:
    """The commit of a snapshot in the Hub's cache; None of any other folder."""
    return folder.name if folder.parent.name == "snapshots" else None


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9._]+", "-", name.lower()).strip("-")
