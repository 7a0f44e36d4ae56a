"""WikiText: its articles and splits, the detokeniser rule by rule, and the copy on the Hub."""

import glob
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType

import pytest

from kdlaws.config import Corpus
from kdlaws.errors import ConfigError, MissingExtraError
from kdlaws.lab import wikitext
from kdlaws.lab.corpus import SPLITS, corpus_digest, documents, split_documents
from kdlaws.lab.wikitext import RULES, articles, detokenise

EXAMPLES = {
    "split word or number": ("a well @-@ known 1 @,@ 234 @.@ 5 m", "a well-known 1,234.5 m"),
    "apostrophe in a word": ("don 't , <unk> 's and O 'Brien", "don't , <unk>'s and O'Brien"),
    "curly apostrophe": ("You ’ re here ’ indeed", "You’re here ’ indeed"),
    "possessive of a plural": ("the players ' ratings", "the players' ratings"),
    "decade": ("in the ' 70s", "in the '70s"),
    "time or ratio": ("at 9 : 30 : see 2", "at 9:30 : see 2"),
    "punctuation": ("a , b ; c : d ! e ? f . ( g . ) h ... i", "a, b; c: d! e? f. ( g. ) h ... i"),
    "opening bracket": ("a ( b [ { c", "a (b [{c"),
    "closing bracket": ("a ) b ] } c", "a) b]} c"),
    "double quotes": ('a " b c " d " e " f', 'a "b c" d "e" f'),
    "single quotes": ("a ' b don't c ' d", "a 'b don't c' d"),
    "currency": ("US $ 5 and £ <unk> in $ terms", "US $5 and £<unk> in $ terms"),
    "per cent": ("5 % or <unk> % of a % sign", "5% or <unk>% of a % sign"),
    "degrees": ("at 28 ° C , turned 30 ° from", "at 28°C , turned 30° from"),
    "heading": ("= = = Career = = =", "=== Career ==="),
}

FILE = """
 = First = {x} =

 A well @-@ known {word} .
 Its second paragraph : E
 = mc2 and m =
 a mass .

 = = Section = =

 Text .

 = Second =

 The end .
"""


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_each_rule_has_its_effect_and_no_other(rule: wikitext.Rule) -> None:
    before, after = EXAMPLES[rule.name]
    assert rule.pattern.sub(rule.replacement, before) == after


def test_the_rules_together_make_text_that_they_leave_alone() -> None:
    given = (
        '" Kiss You " ( stylised ) is Kershaw \'s 2 @-@ part song , sold for $ 1 @,@ 000 '
        "( about 80 % ) ; it didn 't chart . N stays , as does <unk> ."
    )
    wanted = (
        '"Kiss You" (stylised) is Kershaw\'s 2-part song, sold for $1,000 '
        "(about 80%); it didn't chart. N stays, as does <unk>."
    )
    assert detokenise(given) == wanted
    assert detokenise(wanted) == wanted


def test_an_article_begins_at_a_title_between_blank_lines() -> None:
    found = dict(articles(FILE.format(x="a", word="word").splitlines()))
    assert list(found) == ["First = a", "Second"]
    assert found["Second"] == "= Second =\n\nThe end."
    assert found["First = a"].split("\n\n") == [
        "= First = a =",
        "A well-known word.",
        "Its second paragraph: E",
        "= mc2 and m =",
        "a mass.",
        "== Section ==",
        "Text.",
    ]


def test_copies_without_blank_lines_have_the_same_text() -> None:
    """Looks are all there is then, so a formula may begin an article."""
    lines = FILE.format(x="a", word="word").splitlines()
    dense = list(articles(line for line in lines if line.strip()))
    assert [title for title, _ in dense] == ["First = a", "mc2 and m", "Second"]
    assert "\n\n".join(text for _, text in dense) == "\n\n".join(t for _, t in articles(lines))


def written(folder: Path, *forms: str, parts: tuple[str, ...] = wikitext.PARTS) -> Path:
    for form in forms:
        word = {"raw": "rare", "tokens": "<unk>"}[form]
        for part in parts:
            text = FILE.format(x=part, word=word)
            (folder / f"wiki.{part}.{form}").write_text(text, encoding="utf-8")
    return folder


def test_a_folder_gives_the_official_splits(tmp_path: Path) -> None:
    corpus = Corpus(source=str(written(tmp_path, "raw")), teacher_share=0.5)
    divided = split_documents(documents(corpus), corpus)
    names = {split: {document.name for document in divided[split]} for split in SPLITS}
    assert names["student"] | names["teacher"] == {"First = train", "Second"}
    assert names["student"]
    assert names["teacher"]
    assert names["validation"] == {"First = valid", "Second"}
    assert names["test"] == {"First = test", "Second"}


def test_raw_is_taken_where_both_are_complete_and_the_format_is_in_the_digest(
    tmp_path: Path,
) -> None:
    corpus = Corpus(source=str(written(tmp_path, "raw", "tokens")))
    raw = documents(corpus)
    assert "well-known rare." in raw[0].text
    (tmp_path / "wiki.valid.raw").unlink()
    tokens = documents(corpus)
    assert not any("rare" in document.text for document in tokens)
    assert corpus_digest(raw, corpus) != corpus_digest(tokens, corpus)


def test_formats_are_never_mixed(tmp_path: Path) -> None:
    written(tmp_path, "raw", parts=("test",))
    written(tmp_path, "tokens", parts=("train", "valid"))
    with pytest.raises(ConfigError) as caught:
        documents(Corpus(source=str(tmp_path)))
    assert "wiki.train.raw, wiki.valid.raw or wiki.test.tokens" in str(caught.value)


def test_a_file_without_articles_or_of_other_bytes_is_named(tmp_path: Path) -> None:
    corpus = Corpus(source=str(written(tmp_path, "raw")))
    (tmp_path / "wiki.valid.raw").write_text(" \n \n")
    with pytest.raises(ConfigError, match=r"no article in .*wiki\.valid\.raw"):
        documents(corpus)
    (tmp_path / "wiki.valid.raw").write_bytes(b" = A = \n\n \xff\xfe")
    with pytest.raises(ConfigError, match=r"wiki\.valid\.raw is not UTF-8"):
        documents(corpus)


class FakeRows:
    """A datasets.Dataset: the lines of a part as rows, blank ones empty, as on the Hub."""

    def __init__(self, part: str) -> None:
        lines = FILE.format(x=part, word="rare").splitlines(keepends=True)
        self.rows = [line if line.strip() else "" for line in lines]

    def iter(
        self, batch_size: int, drop_last_batch: bool = False
    ) -> Iterator[dict[str, list[str]]]:
        assert batch_size > 1
        for start in range(0, len(self.rows), 4):
            yield {"text": self.rows[start : start + 4]}


def fake_datasets(monkeypatch: pytest.MonkeyPatch, fails: Exception | None = None) -> list[object]:
    asked: list[object] = []

    def load_dataset(
        path: str, name: str | None = None, *, revision: str | None = None
    ) -> dict[str, FakeRows]:
        asked.append((path, name, revision))
        if fails:
            raise fails
        parts = {"train": "train", "validation": "valid", "test": "test"}
        return {split: FakeRows(part) for split, part in parts.items()}

    module = ModuleType("datasets")
    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    return asked


@pytest.mark.parametrize("name", ["wikitext-2", "wikitext-103"])
def test_the_hubs_copy_is_that_of_the_files(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = fake_datasets(monkeypatch)
    found = documents(Corpus(source=name))
    revision = "b08601e04326c79dfdd32d625aee71d232d685c3"
    assert asked == [("Salesforce/wikitext", f"{name}-raw-v1", revision)]
    assert found == documents(Corpus(source=str(written(tmp_path, "raw"))))


@pytest.mark.parametrize(
    "fails",
    [
        ConnectionError("Couldn't reach 'Salesforce/wikitext' on the Hub (OfflineModeIsEnabled)"),
        ValueError("Couldn't find cache for Salesforce/wikitext"),
    ],
)
def test_without_the_hub_the_message_says_how_to_go_on(
    fails: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_datasets(monkeypatch, fails)
    with pytest.raises(ConfigError, match="wikitext-2 could not be read from the Hub") as caught:
        documents(Corpus(source="wikitext-2"))
    assert str(fails) in caught.value.what
    assert "corpus.source to a folder" in caught.value.remedy
    assert "wiki.train.raw" in caught.value.remedy
    assert ".tokens" in caught.value.remedy


def test_without_the_library_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError) as caught:
        documents(Corpus(source="wikitext-103"))
    assert "pip install 'kdlaws[hub]'" in caught.value.remedy


@pytest.fixture(scope="module")
def official() -> Path:
    if "KDLAWS_DATA" not in os.environ:
        pytest.skip("KDLAWS_DATA does not say where the reference data is")
    folder = Path(os.environ["KDLAWS_DATA"], "data/wikitext-2")
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    return folder


def lines_of(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").split("\n")


@pytest.mark.parametrize(("part", "n_articles"), [("train", 600), ("valid", 60), ("test", 60)])
def test_wikitext_2_has_as_many_articles_as_its_paper_says(
    official: Path, part: str, n_articles: int
) -> None:
    """Merity et al. 2016, table 1."""
    assert len(list(articles(lines_of(official / f"wiki.{part}.tokens")))) == n_articles


def agrees(tokens: str, raw: str) -> bool:
    """Whether ``<unk>``, which may stand for anything, is all that two paragraphs differ in."""
    return tokens == raw or fnmatchcase(raw, glob.escape(tokens).replace("<unk>", "?*"))


def n_characters_apart(tokens: str, raw: str) -> int:
    """Length of the words that only the tokens have, those with ``<unk>`` left out."""
    apart = Counter(tokens.split()) - Counter(raw.split())
    return sum(len(word) for word in apart.elements() if "<unk>" not in word)


def test_both_formats_agree_article_by_article_away_from_unknown_words(official: Path) -> None:
    """Down to every character but spaces, and to all but few of these.

    Where they differ a quote is next to an unknown word: plural or not, nothing tells.
    """
    raw = articles(lines_of(official / "wiki.test.raw"))
    paragraphs = [paragraph for _, text in raw for paragraph in text.split("\n\n")]
    n_read = n_apart = n_characters = 0
    for title, text in articles(lines_of(official / "wiki.test.tokens")):
        own = text.split("\n\n")
        pairs = list(zip(own, paragraphs[n_read : n_read + len(own)], strict=True))
        n_read, n_characters = n_read + len(own), n_characters + len(text)
        for pair in (pair for pair in pairs if not agrees(*pair)):
            n_apart += n_characters_apart(*pair)
            assert agrees(*(paragraph.replace(" ", "") for paragraph in pair)), title
    assert n_read == len(paragraphs) == 2891
    assert n_apart / n_characters < 5e-4


def test_no_trace_of_the_tokenisation_is_left(official: Path) -> None:
    """Ends of tokens that English never sets apart: under 1 in 10,000 words."""
    text = "\n".join(text for _, text in articles(lines_of(official / "wiki.valid.tokens")))
    traces = re.findall(r" @.@|\w '(?:s|t|re|ve|ll)\b|\w [.,;:!?)\]%](?!\S)|[(\[$£] \w", text)
    assert len(traces) < 1e-4 * len(text.split())
