"""A study's tokenizer, and its text as frozen, memory-mapped token streams."""

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from kdlaws.config import Corpus, Quality, Study
from kdlaws.errors import ConfigError
from kdlaws.lab import corpus as texts
from kdlaws.lab import tiers as curated_tier
from kdlaws.lab.corpus import Document, Split
from kdlaws.lab.sampling import id_type
from kdlaws.lab.streams import Masks, TokenStream, stream_of
from kdlaws.lab.teachers import given_tokenizer
from kdlaws.records import digest, file_digest, read_json, write_json, write_text
from kdlaws.shapes import Objective
from kdlaws.study import BYTES_PER_TOKEN, TextFacts

END_OF_TEXT = "<|endoftext|>"
_CAUSAL_SPECIALS = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT}
_MASKED_SPECIALS = {
    f"{name.lower()}_token": f"[{name}]" for name in ("PAD", "UNK", "CLS", "SEP", "MASK")
}
_SPECIALS = "specials.json"
_ENCODED_AT_ONCE = 1024  # blocks: the library's encodings take some hundred bytes a token
_SAMPLE_BLOCKS = 64  # whose tokens are counted where a dry run estimates


class Text:
    """A study's text: its documents, tokenizer and token streams, made once and then read."""

    def __init__(self, study: Study) -> None:
        self.study, self.corpus = study, study.corpus
        found = texts.documents(study.corpus)
        self.documents = texts.split_documents(found, study.corpus)
        self.corpus_sha256 = texts.corpus_digest(found, study.corpus)
        given = given_tokenizer(study)
        key = digest([self.corpus_sha256, _tokenizer_key(study, given), *_frame_key(study)])
        self.folder = study.folder / "tokens" / key[:8]
        self.tokenizer = self._tokenizer(study, given)
        self.tokenizer_sha256 = tokenizer_digest(self.tokenizer, study.objective)

    def _tokenizer(
        self, study: Study, given: PreTrainedTokenizerFast | None
    ) -> PreTrainedTokenizerFast:
        file = self.folder / "tokenizer.json"
        if not file.exists():
            if given is not None:
                made, specials = given.backend_tokenizer, specials_of(given, study.objective)
            elif study.tokenizer.path is not None:
                made = read_tokenizer(study.tokenizer.path)
                specials = _specials_beside(study.tokenizer.path, made, study.objective)
            else:
                training = [*self.documents["student"], *self.documents["teacher"]]
                made = train_tokenizer(training, study.tokenizer.n_vocab, study.objective)
                specials = _specials(study.objective)
            write_json(file.with_name(_SPECIALS), specials)
            write_text(file, made.to_str())
        return load_tokenizer(file)

    @cached_property
    def masks(self) -> Masks | None:
        """How the streams are masked; None where every next token is predicted."""
        if self.study.objective == "causal":
            return None
        mask_id = self.tokenizer.mask_token_id
        assert mask_id is not None
        return Masks(
            share=self.study.masking.share,
            replicas=self.study.masking.replicas,
            mask_id=mask_id,
            never=framing(self.tokenizer),
            n_vocab=len(self.tokenizer),
            seed=self.corpus.seed,
        )

    def stream(self, split: Split, noise: float = 0.0, quality: Quality = "raw") -> TokenStream:
        """The split's token stream, written on first use."""
        name = f"{split}-n{noise:g}" if noise else split
        name = name if quality == "raw" else f"{name}-{curated_tier.key(self.study)}"
        manifest = self.folder / f"{name}.json"
        if not manifest.exists():
            blocks, facts = self._blocks(split, quality)
            degraded = texts.degrade(blocks, noise, self.corpus.seed)
            write_stream(degraded, self.tokenizer, manifest, self._frame, facts)
        facts = read_json(manifest)
        facts.pop("kept", None)
        return stream_of(self.folder / facts.pop("file"), facts, self.masks)

    @property
    def _frame(self) -> int | None:
        return self.study.n_ctx if self.study.objective == "masked" else None

    def _blocks(self, split: Split, quality: Quality) -> tuple[list[str], dict[str, float]]:
        blocks = texts.shuffled_blocks(self.documents[split], self.corpus)
        if quality == "raw":
            return blocks, {}
        lengths = [len(ids) + 1 for ids in _encoded(blocks, self.tokenizer.backend_tokenizer)]
        n_vocab = len(self.tokenizer)
        kept, share = curated_tier.curated(self.study, self.stream(split), n_vocab, blocks, lengths)
        return kept, {"kept": share}

    def kept(self) -> float:
        """Share of the students' text, by bytes, that its curated tier holds."""
        self.stream("student", quality="curated")
        manifest = self.folder / f"student-{curated_tier.key(self.study)}.json"
        return float(read_json(manifest)["kept"])

    def facts(
        self, *, with_teachers: bool, tiers: Iterable[tuple[float, Quality]] = ()
    ) -> TextFacts:
        """What planning needs; ``with_teachers`` if the study trains any, and its tiers of text."""
        n_teacher_tokens = self.stream("teacher").n_inputs if with_teachers else 0
        n_tier_tokens = {tier: self.stream("student", *tier).n_inputs for tier in tiers}
        is_curated = any(quality == "curated" for _, quality in n_tier_tokens)
        return TextFacts(
            corpus=corpus_label(self.corpus, self.corpus_sha256),
            corpus_sha256=self.corpus_sha256,
            tokenizer=tokenizer_label(self.tokenizer, self.study.objective),
            tokenizer_sha256=self.tokenizer_sha256,
            n_vocab=len(self.tokenizer),
            n_student_tokens=self.stream("student").n_inputs,
            n_teacher_tokens=n_teacher_tokens,
            n_tier_tokens=n_tier_tokens,
            kept=self.kept() if is_curated else 1.0,
            curation=curated_tier.identity(self.study) if is_curated else "",
        )


def framing(tokenizer: PreTrainedTokenizerFast) -> tuple[int, ...]:
    """Ids that stand for no text. An unknown word is text: a window may be full of them."""
    names = ("pad", "cls", "sep", "mask")
    found = {getattr(tokenizer, f"{name}_token_id") for name in names}
    return tuple(sorted(found - {None}))


def estimated_facts(study: Study) -> TextFacts:
    """What planning needs before any token stream exists: estimated, and said to be so.

    Tokens are bytes over those of a token: 3.6, or of a given tokenizer on some blocks.
    """
    found = texts.documents(study.corpus)
    divided = texts.split_documents(found, study.corpus)
    tokenizer = _tokenizer_that_is_there(study)
    bytes_per_token = _bytes_per_token(tokenizer, divided["student"], study.corpus)

    def n_tokens(split: Split) -> int:
        n_bytes = sum(document.n_bytes for document in divided[split])
        return int(n_bytes / bytes_per_token)

    sha256 = texts.corpus_digest(found, study.corpus)
    return TextFacts(
        corpus=corpus_label(study.corpus, sha256),
        corpus_sha256=sha256,
        tokenizer="(not made yet)",
        tokenizer_sha256="",
        n_vocab=tokenizer.get_vocab_size() if tokenizer else study.tokenizer.n_vocab,
        n_student_tokens=n_tokens("student"),
        n_teacher_tokens=n_tokens("teacher"),
        bytes_per_token=bytes_per_token,
        kept=study.corpus.curation.keep if study.corpus.curation else 1.0,
    )


def _tokenizer_that_is_there(study: Study) -> FastTokenizer | None:
    given = given_tokenizer(study)
    if given is not None:
        return given.backend_tokenizer
    return read_tokenizer(study.tokenizer.path) if study.tokenizer.path else None


def _bytes_per_token(
    tokenizer: FastTokenizer | None, documents: Sequence[Document], corpus: Corpus
) -> float:
    if tokenizer is None:
        return BYTES_PER_TOKEN
    blocks = texts.shuffled_blocks(documents, corpus)[:_SAMPLE_BLOCKS]
    n_tokens = sum(len(ids) for ids in _encoded(blocks, tokenizer))
    return sum(len(block.encode()) for block in blocks) / n_tokens


def tokens_exist(study: Study) -> bool:
    """Whether the student's stream has been written for any text of this study's folder."""
    return any((study.folder / "tokens").glob("*/student.json"))


def corpus_label(corpus: Corpus, sha256: str) -> str:
    return f"{Path(corpus.source).name}-{sha256[:8]}"


def tokenizer_label(tokenizer: PreTrainedTokenizerFast, objective: Objective) -> str:
    """What the table's column ``tokenizer`` calls it."""
    kind = type(tokenizer.backend_tokenizer.model).__name__.lower()
    return f"{kind}-{len(tokenizer)}-{tokenizer_digest(tokenizer, objective)[:8]}"


def tokenizer_digest(tokenizer: PreTrainedTokenizerFast, objective: Objective) -> str:
    """Identity of what cuts the text, and of the special tokens where they are not our own."""
    text, specials = tokenizer.backend_tokenizer.to_str(), specials_of(tokenizer, objective)
    return digest(text if specials == _specials(objective) else [text, specials])


def _tokenizer_key(study: Study, given: PreTrainedTokenizerFast | None) -> object:
    if given is not None:
        return tokenizer_digest(given, study.objective)
    if study.tokenizer.path is None:
        return study.tokenizer.n_vocab
    return digest(read_tokenizer(study.tokenizer.path).to_str())


def _frame_key(study: Study) -> list[object]:
    return ["masked", study.n_ctx] if study.objective == "masked" else []


def train_tokenizer(
    training: Sequence[Document], n_vocab: int, objective: Objective = "causal"
) -> FastTokenizer:
    """Byte-level BPE of exactly ``n_vocab`` entries, of which the special tokens are the first.

    That is the end of text, or for masked models BERT's five.
    """
    specials = list(dict.fromkeys(_specials(objective).values()))
    tokenizer = FastTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=n_vocab,
        special_tokens=specials,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((document.text for document in training), trainer)
    if tokenizer.get_vocab_size() != n_vocab:
        raise ConfigError(
            f"tokenizer.n_vocab: the training text yields {tokenizer.get_vocab_size()} entries, "
            f"not {n_vocab}",
            remedy="ask for fewer entries, or take a larger corpus",
        )
    if objective == "masked":
        frame = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=frame
        )
    return tokenizer


def _specials(objective: Objective) -> dict[str, str]:
    return _MASKED_SPECIALS if objective == "masked" else _CAUSAL_SPECIALS


def read_tokenizer(path: Path) -> FastTokenizer:
    """A given tokenizer.json, or the one in a folder. Raises ConfigError if it is none."""
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.exists():
        raise ConfigError(f"tokenizer.path: there is no {file}")
    try:
        tokenizer = FastTokenizer.from_file(str(file))
    except Exception as error:  # the library raises a bare Exception
        raise ConfigError(f"tokenizer.path: {file} is not a tokenizer.json ({error})") from None
    # What it says of length is for batches, not for a stream.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _specials_beside(path: Path, tokenizer: FastTokenizer, objective: Objective) -> dict[str, str]:
    """Those of tokenizer_config.json, if there is one; else ours."""
    folder = path if path.is_dir() else path.parent
    if (folder / "tokenizer_config.json").exists():
        return specials_of(PreTrainedTokenizerFast.from_pretrained(folder), objective)
    specials = _specials(objective)
    for token in specials.values():
        if tokenizer.token_to_id(token) is None:
            raise ConfigError(f"tokenizer.path: {path} has no {token} token")
    return specials


def specials_of(tokenizer: PreTrainedTokenizerFast, objective: Objective) -> dict[str, str]:
    """The special tokens that a stream of the objective needs.

    Causal: what ends a block, the end-of-text token rather than that of a chat's turn. Raises
    ConfigError where one is missing.
    """
    if objective == "causal":
        known = tokenizer.get_vocab()
        candidates = (END_OF_TEXT, tokenizer.eos_token, tokenizer.bos_token)
        ends = next((token for token in candidates if token in known), None)
        found = {"bos_token": ends, "eos_token": ends}
    else:
        found = {name: getattr(tokenizer, name) for name in _MASKED_SPECIALS}
    missing = [name for name, token in found.items() if token is None]
    if missing:
        raise ConfigError(f"tokenizer: it has no {', '.join(missing)}, which {objective} needs")
    return {name: str(token) for name, token in found.items()}


def load_tokenizer(file: Path) -> PreTrainedTokenizerFast:
    """A tokenizer.json, with the special tokens named beside it, as transformers knows it."""
    beside = file.with_name(_SPECIALS)
    specials = read_json(beside) if beside.exists() else _CAUSAL_SPECIALS
    return PreTrainedTokenizerFast(tokenizer_file=str(file), **specials)


def write_stream(
    blocks: Sequence[str],
    tokenizer: PreTrainedTokenizerFast,
    manifest: Path,
    n_ctx: int | None = None,
    facts: dict[str, float] | None = None,
) -> None:
    """Encode blocks, write ``<manifest stem>.npy``, and last the manifest.

    With ``n_ctx`` the stream is whole sequences of that many tokens, framed as a masked model's.
    """
    end = tokenizer.eos_token_id if n_ctx is None else tokenizer.sep_token_id
    dtype = id_type(len(tokenizer))
    encoded = _encoded(blocks, tokenizer.backend_tokenizer)
    stream = np.concatenate([np.array([*ids, end], dtype=dtype) for ids in encoded])
    if n_ctx is not None:
        stream = _framed(stream, n_ctx, tokenizer.cls_token_id, tokenizer.sep_token_id)
    file = manifest.with_suffix(".npy")
    partial = manifest.with_suffix(f".{os.getpid()}.partial.npy")
    np.save(partial, stream)
    partial.replace(file)
    document: dict[str, Any] = {
        "file": file.name,
        "sha256": file_digest(file),
        "n_tokens": len(stream),
        "n_bytes": sum(len(block.encode()) for block in blocks),
        **(facts or {}),
    }
    write_json(manifest, document)


def _encoded(blocks: Iterable[str], tokenizer: FastTokenizer) -> Iterator[list[int]]:
    blocks = list(blocks)
    for start in range(0, len(blocks), _ENCODED_AT_ONCE):
        some = blocks[start : start + _ENCODED_AT_ONCE]
        for encoding in tokenizer.encode_batch(some, add_special_tokens=False):
            yield encoding.ids


def _framed(ids: np.ndarray, n_ctx: int, first: int, last: int) -> np.ndarray:
    """Whole sequences: ``first``, n_ctx - 2 ids, ``last``; what does not fill one is left out."""
    inside = n_ctx - 2
    n = len(ids) // inside
    frame = [np.full((n, 1), each, dtype=ids.dtype) for each in (first, last)]
    return np.hstack([frame[0], ids[: n * inside].reshape(n, inside), frame[1]]).ravel()
