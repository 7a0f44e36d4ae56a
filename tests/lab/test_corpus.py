"""Documents, splits, blocks and noise."""

import hashlib
import re
from collections import Counter
from dataclasses import replace
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
    return documents(Corpus())


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


def test_the_digest_of_undivided_text_never_changes() -> None:
    """Run ids hold it: these are the values that the runs on record were made with."""
    tiny = [Document("a", "one"), Document("b", "two")]
    assert corpus_digest(tiny, Corpus()).startswith("628019377213511673aba4f86ba2e95b")
    assert corpus_digest(tiny, SHARES).startswith("ed7b02ad023aa031c2fe357b690c04e8")


def test_the_embedded_corpus_and_its_blocks_never_change(addresses: list[Document]) -> None:
    assert corpus_digest(addresses, Corpus()).startswith("bcb0a0bed9b53f05c21d201206376355")
    divided = split_documents(addresses, Corpus())
    for split, sha256 in {"student": "86d2837b4f6982b4", "test": "d5917a700843202b"}.items():
        blocks = shuffled_blocks(divided[split], Corpus())  # type: ignore[index]
        assert hashlib.sha256("\0".join(blocks).encode()).hexdigest()[:16] == sha256


def divided_articles(n: int) -> list[Document]:
    training = [Document(f"t{i}", "word " * (50 + i % 7), split="student") for i in range(n)]
    held_out = [Document("v", "valid", split="validation"), Document("e", "test", split="test")]
    return [*training, *held_out]


def test_documents_that_come_with_a_split_go_there() -> None:
    found = divided_articles(100)
    divided = split_documents(found, Corpus(validation_share=0.3, test_share=0.3))
    assert {document.name for document in divided["student"]} == {f"t{i}" for i in range(100)}
    assert [document.name for document in divided["validation"]] == ["v"]
    assert [document.name for document in divided["test"]] == ["e"]
    assert divided["teacher"] == []


def test_teachers_take_their_share_of_the_training_articles_alone() -> None:
    found = divided_articles(100)
    divided = split_documents(found, SHARES)
    training = sum(document.n_bytes for document in found[:100])
    teachers = sum(document.n_bytes for document in divided["teacher"])
    assert teachers / training == pytest.approx(SHARES.teacher_share, abs=0.01)
    held_out = {document.name for split in ("validation", "test") for document in divided[split]}  # type: ignore[index]
    assert held_out == {"v", "e"}
    assert sum(len(divided[split]) for split in SPLITS) == len(found)


def test_identity_holds_the_given_splits_and_not_the_shares_that_do_not_apply() -> None:
    found = divided_articles(3)
    swapped = [*found[:3], replace(found[3], split="test"), replace(found[4], split="validation")]
    undivided = [replace(document, split=None) for document in found]
    digests = {corpus_digest(each, Corpus()) for each in (found, swapped, undivided)}
    assert len(digests) == 3
    assert corpus_digest(found, Corpus(test_share=0.2)) == corpus_digest(found, Corpus())
    assert corpus_digest(found, Corpus(teacher_share=0.2)) != corpus_digest(found, Corpus())


def test_a_folder_gives_its_text_files_and_a_file_is_cut(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / "sub" / "b.txt").write_text("second")
    (tmp_path / "c.json").write_text("{}")
    assert [d.text for d in documents(Corpus(source=str(tmp_path)))] == ["first", "second"]
    long = tmp_path / "long.txt"
    long.write_text("\n\n".join(f"Paragraph {i}. " + "word " * 200 for i in range(100)))
    pieces = documents(Corpus(source=str(long)))
    assert len(pieces) == pytest.approx(long.stat().st_size / 16_384, abs=1)


@pytest.mark.parametrize("case", ["absent", "empty", "binary"])
def test_sources_without_text_are_refused(tmp_path: Path, case: str) -> None:
    if case == "binary":
        (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    source = tmp_path / "none" if case == "absent" else tmp_path
    with pytest.raises(ConfigError, match=r"corpus\.source"):
        documents(Corpus(source=str(source)))
