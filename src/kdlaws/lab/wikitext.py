"""WikiText (Merity et al. 2016, 1609.07843): its files or the Hub's copy, as natural text.

Both formats are split into words by spaces: ``raw`` has every word, in ``tokens`` the rare ones
are ``<unk>``. A line is a paragraph or a heading; `` = Title = `` begins an article.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from kdlaws.errors import ConfigError, MissingExtraError
from kdlaws.lab.sources import Named, not_text

PARTS = ("train", "valid", "test")
FORMATS = ("raw", "tokens")
HUB = {"wikitext-2": "wikitext-2-raw-v1", "wikitext-103": "wikitext-103-raw-v1"}
"""Names of corpora, and of their configurations on the Hub."""

_HUB_DATASET = "Salesforce/wikitext"
_HUB_REVISION = "b08601e04326c79dfdd32d625aee71d232d685c3"
_HUB_PARTS = {"train": "train", "valid": "validation", "test": "test"}
_ROWS_AT_ONCE = 1024

_TITLE = re.compile(r"= (?!= )(.+)(?<! =) =")


class Rule(NamedTuple):
    """What one step of the detokeniser rewrites, everywhere in a text."""

    name: str
    pattern: re.Pattern[str]
    replacement: str


def _rule(name: str, pattern: str, replacement: str) -> Rule:
    return Rule(name, re.compile(pattern), replacement)


RULES = (
    _rule("split word or number", r" @([-,.])@ ?", r"\1"),
    _rule("apostrophe in a word", r" '(?:(?<=[\w>] ')(?=\w)|(?=s\b))", "'"),
    _rule("curly apostrophe", r" ’ (?<=[\w>] ’ )(?=(?:s|t|re|ve|ll|d|m)\b)", "’"),
    _rule("possessive of a plural", r" '(?<=s ')(?!\S)", "'"),
    _rule("decade", r" ' (?=\d0s\b)", " '"),
    _rule("time or ratio", r" : (?<=\d : )(?=\d)", ":"),
    _rule("punctuation", r" ([.,;:!?])(?![^\s\"')\]}])", r"\1"),
    _rule("opening bracket", r"([(\[{]) ", r"\1"),
    _rule("closing bracket", r" ([)\]}])", r"\1"),
    _rule("double quotes", r'" ?([^"\n]*?) ?"', r'"\1"'),
    _rule("single quotes", r"' (?<![\w>]' )([^\n]+?) ?'(?!\w)", r"'\1'"),
    _rule("currency", r"([$£€₹¥]) (?=[\d<])", r"\1"),
    _rule("per cent", r" %(?<=[\d>] %)", "%"),
    _rule("degrees", r" °(?<=[\d>] °)(?: (?=[CFNSEW]\b))?", "°"),
    _rule("heading", r" =(?<== =)", "="),
)
# A pattern that begins with fixed characters is searched for several times faster, so what must
# stand before them is asked for after them.
"""In order. They start from the detokeniser that Megatron-LM and lm-evaluation-harness use for
perplexity per word, so headings become ``== Career ==``. Beyond it: every apostrophe within a word
and not only 's, decades, times, currency, per cent, ends of lines. Left out: `` N `` for a number,
which belongs to the Penn Treebank. Slashes and dashes keep their spaces, as there: nothing tells
whether there were any."""


def detokenise(text: str) -> str:
    """Text as people write it, from words and punctuation split by spaces; ``<unk>`` stays."""
    for rule in RULES:
        text = rule.pattern.sub(rule.replacement, text)
    return text


def articles(lines: Iterable[str]) -> Iterator[Named]:
    """The title and the text of each article, its paragraphs parted by blank lines.

    What comes before the first title is an article without one.
    """
    open_title, paragraphs = "", list[str]()
    for title, paragraph in _paragraphs(lines):
        if title and paragraphs:
            yield open_title, detokenise("\n\n".join(paragraphs))
            paragraphs = []
        open_title = title or open_title
        paragraphs.append(paragraph)
    if paragraphs:
        yield open_title, detokenise("\n\n".join(paragraphs))


def _paragraphs(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Every line that is not blank, after its title if it begins an article, else after "".

    Formulas leave lines that only look like titles, but not between blank lines. Some copies have
    lost all blank lines, as their first title shows; there, looks must do.
    """
    before, spaced = "", None
    for line, after in pairwise(chain((line.strip() for line in lines), [""])):
        found = _TITLE.fullmatch(line)
        if found and spaced is None:
            spaced = not after
        if line:
            begins = found if not (spaced and (before or after)) else None
            yield detokenise(begins[1]) if begins else "", line
        before = line


def is_wikitext(folder: Path) -> bool:
    """Whether the folder holds any of WikiText's own files."""
    return any((folder / _file_name(part, form)).is_file() for part in PARTS for form in FORMATS)


def from_folder(folder: Path) -> dict[str, list[Named]]:
    """The articles of ``wiki.train``, ``wiki.valid`` and ``wiki.test``; raw rather than tokens.

    Raises ConfigError where neither format is complete: the two are never mixed.
    """
    form = _complete_format(folder)
    files = {part: folder / _file_name(part, form) for part in PARTS}
    return {part: _not_empty(articles(_lines(file)), str(file)) for part, file in files.items()}


def _file_name(part: str, form: str) -> str:
    return f"wiki.{part}.{form}"


def _complete_format(folder: Path) -> str:
    missing = {}
    for form in FORMATS:
        names = [_file_name(part, form) for part in PARTS]
        missing[form] = [name for name in names if not (folder / name).is_file()]
        if not missing[form]:
            return form
    raise ConfigError(
        f"corpus.source: the WikiText in {folder} is not complete, and its two formats are never "
        f"mixed; missing: {' or '.join(', '.join(names) for names in missing.values())}",
        remedy="put the missing files of one format there",
    )


def _lines(file: Path) -> Iterator[str]:
    with file.open(encoding="utf-8") as lines:
        try:
            yield from lines
        except UnicodeDecodeError as error:
            raise not_text(file, error.reason) from None


def _not_empty(found: Iterator[Named], where: str) -> list[Named]:
    listed = list(found)
    if not listed:
        raise ConfigError(f"corpus.source: there is no article in {where}")
    return listed


def from_hub(name: str) -> dict[str, list[Named]]:
    """The articles of ``wikitext-2`` or ``wikitext-103``, raw, through the library datasets.

    The revision is pinned, and holds data and no code. Raises MissingExtraError without the
    library, ConfigError where the Hub cannot be reached and has not been before.
    """
    try:
        import datasets
    except ImportError:
        raise MissingExtraError(
            f"corpus.source: {name} is read through the library datasets",
            remedy="pip install 'kdlaws[hub]'; or set corpus.source to a folder that holds "
            "WikiText's own files",
        ) from None
    try:
        loaded = datasets.load_dataset(_HUB_DATASET, HUB[name], revision=_HUB_REVISION)
    except (OSError, ValueError) as error:  # no connection, offline, or not in the cache
        raise ConfigError(
            f"corpus.source: {name} could not be read from the Hub ({error})",
            remedy="set corpus.source to a folder that holds wiki.train.raw, wiki.valid.raw and "
            "wiki.test.raw, or the three .tokens",
        ) from None
    parts = {part: loaded[split] for part, split in _HUB_PARTS.items()}
    return {part: _not_empty(articles(_rows(rows)), name) for part, rows in parts.items()}


def _rows(rows: Any) -> Iterator[str]:
    """The lines of a part; read by many, which is far faster than by one."""
    for batch in rows.iter(batch_size=_ROWS_AT_ONCE):
        yield from batch["text"]
