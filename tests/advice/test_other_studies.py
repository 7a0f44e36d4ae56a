"""Masked studies, teachers from elsewhere, curated text, and studies that lack what most have."""

import html
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdlaws.advice import build_report, drawing, figures, findings, limits, story, summary
from kdlaws.advice.curation import curation_effects, curation_sentence
from kdlaws.advice.evidence import Evidence, load, paired
from kdlaws.advice.grids import curation_table

from .conftest import given_teacher, law, masked
from .ladders import OWN_SE, SIZES, Cell, StudyOf, ladder, straight

Row = dict[str, Any]
MakeStudy = Callable[..., Path]
SMALL = {"sizes": 2, "unusual": False}


def text_of(page: Path) -> str:
    """What a reader sees, tags and style away."""
    source = re.sub(r"<style>.*?</style>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", source)).split())


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without their pictures: drawing takes seconds, and most tests read the words."""
    monkeypatch.setattr(drawing, "save", lambda figure, folder: "<svg></svg>")


def below_all(row: Row) -> Row | None:
    return None if row["fraction"] == 1.0 else row


def only(fraction: float, called: float) -> Callable[[Row], Row | None]:
    """One amount of data only, under another name."""
    return lambda row: {**row, "fraction": called} if row["fraction"] == fraction else None


def undertrained(row: Row) -> Row:
    return {**row, "status": "undertrained"}


# --- masked -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def masked_study(tmp_path_factory: pytest.TempPathFactory, write_study: MakeStudy) -> Path:
    folder = write_study(tmp_path_factory.mktemp("masked") / "synthetic", change=masked)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "save", lambda figure, folder: "<svg></svg>")
        build_report(folder, bootstrap=0)
    return folder


def test_a_masked_study_says_what_its_nats_are_per(masked_study: Path) -> None:
    """Every unit of a loss is per masked token, every unit of a cost per input token."""
    page = text_of(masked_study / "report" / "index.html")
    assert not re.search(r"(?<!FLOPs )per token", page)
    assert "FLOPs per token" not in page
    assert "FLOPs per input token" in page
    assert page.count("nats per masked token") >= 5
    # The generator's share of tokens that have a loss.
    told = "D is in input tokens; about 15 % of them have a loss."
    assert any(told in sentence for sentence in story(masked_study))
    assert told in page


def test_a_masked_studys_axes_have_its_units(masked_study: Path) -> None:
    panels = {panel for figure in figures(masked_study) for panel in figure.panels}
    labels = {panel.y.label for panel in panels} | {panel.x.label for panel in panels}
    assert {
        "test cross-entropy (nats per masked token)",
        "test cross-entropy at the best epochs (nats per masked token)",
        "student minus teacher (nats per masked token)",
        "test perplexity (per masked token)",
        "D, input tokens trained on",
        "U, unique input tokens",
    } <= labels
    assert not any(label.endswith("per token)") for label in labels)


def test_a_masked_studys_latency_is_that_of_a_prefill(masked_study: Path) -> None:
    [frontier] = [figure for figure in figures(masked_study) if figure.name == "frontier"]
    flops, latency = frontier.panels
    assert flops.x.label == "forward FLOPs per input token"
    assert latency.x.label == "prefill latency, p50 (ms, batch 1)"
    [optimal] = [each for each in latency.series if each.join == "steps"]
    # 1.4 ms and a millisecond per million parameters, in the generator.
    assert optimal.x == pytest.approx([1.4 + n / 1e6 for n in SIZES])


def test_a_masked_studys_bigram_sees_both_neighbours(masked_study: Path, study: Path) -> None:
    told = "a bigram table that sees both neighbours"
    captions = {figure.name: figure.caption for figure in figures(masked_study)}
    assert told in captions["scaling"]
    assert told in captions["data"]
    assert not any(told in figure.caption for figure in figures(study))


def test_a_masked_studys_ten_lines_fit_and_have_units(masked_study: Path) -> None:
    lines = summary(masked_study).split("\n")
    assert len(lines) == 10
    assert all(len(line) <= 100 and not line.endswith("…") for line in lines)
    assert lines[0].endswith("D 56k to 700k input tokens")
    assert lines[1].startswith("Teacher 2.65M: 2.350 nats per masked token, 0.291 below")
    assert all(line.endswith(" nats/masked token") for line in lines[2:4])


def test_ten_lines_of_a_part_of_the_data_fit_too(make_study: MakeStudy) -> None:
    """With its share named and three methods told, a line has no room for the longer unit."""
    more = [given_teacher("no")]
    lines = summary(make_study(change=lambda row: below_all(masked(row)), more=more)).split("\n")
    assert lines[1].startswith("Teacher 2.65M: 2.350 nats per masked token, not held out")
    assert re.fullmatch(r"Doubling N at 10 %: scratch .* nats", lines[2])
    assert all(len(line) <= 100 and not line.endswith("…") for line in lines)


# --- a teacher from elsewhere -------------------------------------------------------------------


def taught_by(make_study: MakeStudy, heldout: str, **parts: Any) -> Path:
    """Two sizes on 1 % and 10 % of the text, with a teacher that others trained."""
    return make_study(**SMALL, change=below_all, more=[given_teacher(heldout)], **parts)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("heldout", ["no", "unknown"])
def test_a_teacher_that_may_know_the_test_text_is_warned_of(
    make_study: MakeStudy, heldout: str
) -> None:
    folder = taught_by(make_study, heldout)
    page = text_of(build_report(folder, bootstrap=0))
    warned = f"may have read the test text (held out: {heldout}), so its cross-entropy is not held"
    assert page.count(warned) == 1
    lines = summary(folder).split("\n")
    assert len(lines) == 10
    assert lines[1].startswith("Teacher 2.65M: 2.350 nats, not held out, ")
    assert "may have read the test text: not held out; laws with L_T as a floor" in lines[8]
    assert max(map(len, lines)) <= 100


def test_a_teacher_that_is_held_out_is_not_warned_of(make_study: MakeStudy, study: Path) -> None:
    for evidence in (load(taught_by(make_study, "yes")), load(study)):
        assert limits.heldout_warning(evidence) is None
        assert "held out" not in summary(evidence.folder)


def test_a_teacher_of_a_study_is_not_doubted_for_what_its_students_say(
    make_study: MakeStudy,
) -> None:
    """Its split keeps the test text from it: only a model from elsewhere may have read it."""
    own = given_teacher("unknown") | {"init": "random", "teacher_heldout": None}
    unsaid = {"change": lambda row: {**row, "teacher_heldout": "unknown"}}
    assert limits.heldout_warning(load(make_study(**SMALL, more=[own], **unsaid))) is None


def test_students_alone_may_tell_of_their_teacher(make_study: MakeStudy) -> None:
    told = {"change": lambda row: {**row, "teacher_heldout": row["teacher"] and "no"}}
    warning = limits.heldout_warning(load(make_study(**SMALL, **told)))
    assert warning is not None
    assert warning[0] == "teacher 2.65M"


def test_without_all_of_the_data_the_most_data_is_told(make_study: MakeStudy) -> None:
    """The planted gain at a tenth is .35 nats, its standard error .002 nats a run."""
    folder = taught_by(make_study, "yes")
    evidence = load(folder)
    lines = summary(folder).split("\n")
    assert lines[5].startswith("Ahead of scratch at 10 %: token +0.350 ± 0.002 nats (2/2 sizes)")
    assert lines[6].startswith("Token ahead of scratch: +0.450 ± 0.002 nats at 1 % (2/2 sizes)")
    low, high = (law(n, 3 * 70_000) for n in SIZES[:2])
    slope = findings.size_slope(evidence, "scratch")
    assert slope is not None
    assert slope.value == pytest.approx((high - low) / math.log2(SIZES[1] / SIZES[0]), abs=0.002)
    assert lines[2].startswith(f"Doubling N at 10 %: scratch {slope.value:+.3f} ±")
    [size, *_] = story(folder)
    assert "after the best number of epochs of 10 % of the data" in size
    scaling = figures(folder)[0]
    assert {x for series in scaling.panels[0].series for x in series.x} == set(SIZES[:2])
    assert scaling.caption.startswith("After the best number of epochs of 70k tokens, scratch")


def test_an_unknown_overlap_is_called_not_recorded(make_study: MakeStudy, study: Path) -> None:
    folder = make_study(**SMALL, without=["teacher_overlap"])
    told = [each for each in limits.cannot_show(load(folder)) if "overlap is not recorded" in each]
    assert len(told) == 1
    assert not any("not recorded" in each for each in limits.cannot_show(load(study)))


# --- curated text -------------------------------------------------------------------------------


def curated(size: int, gain: float, **columns: Any) -> Cell:
    """The longest run's text curated to 58 %, better than the raw run by ``gain`` nats."""
    return {
        "method": "scratch",
        "size": size,
        "n_tokens": 406_000,
        "quality": "curated",
        "kept": 0.58,
        "run_id": f"curated-{size}",
        "cross_entropy": straight(SIZES[size], 700_000) - gain,
        **columns,
    }


@pytest.fixture
def with_curated(study_of: StudyOf) -> Evidence:
    return study_of([*ladder("scratch", straight, range(3)), curated(0, 0.05), curated(1, -0.02)])


def test_curated_runs_are_never_among_raw_ones(with_curated: Evidence) -> None:
    assert set(with_curated.comparable["quality"]) == {"raw"}
    assert len(with_curated.of("scratch")) == 9
    assert len(with_curated.curated) == 2
    slope = findings.size_slope(with_curated, "scratch")
    assert slope is not None
    assert slope.value == pytest.approx(-0.15)


def test_curated_text_has_the_planted_gain_and_its_standard_error(with_curated: Evidence) -> None:
    [effect] = curation_effects(with_curated)
    assert (effect.method, effect.fraction, effect.kept) == ("scratch", 1.0, 0.58)
    assert [each.value for each in effect.ahead.values()] == pytest.approx([0.05, -0.02])
    # Two runs' own parts over sequences; the part that all share cancels.
    for each in effect.ahead.values():
        assert each.se == pytest.approx(OWN_SE * math.sqrt(2), rel=0.01)
    assert set(effect.n_tokens.values()) == {(406_000.0, 700_000.0)}


@pytest.mark.usefixtures("undrawn")
def test_what_curation_brings_is_told_with_what_was_kept(with_curated: Evidence) -> None:
    sentence = curation_sentence(*curation_effects(with_curated))
    assert sentence == (
        "At 100 % of the data, scratch on the 58 % of its text that curation kept is ahead of raw "
        "text by +0.050 ± 0.003 nats (N = 12.6k) and -0.020 ± 0.003 nats (N = 98.1k), after 406k "
        "tokens instead of 700k."
    )
    rows = curation_table(with_curated).rows
    assert rows[0] == ["scratch", "100 %", "58 %", "12.6k", "406k", "700k", "+0.050 ± 0.003"]
    page = text_of(build_report(with_curated.folder, bootstrap=0))
    assert sentence in page
    assert "Curated against raw text" in page


def test_other_settings_and_seeds_do_not_pair(study_of: StudyOf) -> None:
    cells = [curated(0, 0.05, seed=3), curated(1, 0.05, learning_rate=0.5)]
    assert not curation_effects(study_of([*ladder("scratch", straight, range(2)), *cells]))


def test_a_study_of_curated_text_alone_is_read_as_any(study_of: StudyOf) -> None:
    evidence = study_of(ladder("scratch", straight, range(3), quality="curated", kept=0.58))
    assert len(evidence.of("scratch")) == 9
    assert not curation_effects(evidence)


# --- studies that lack what most have -----------------------------------------------------------


@pytest.mark.usefixtures("undrawn")
def test_undertrained_runs_are_shown_and_not_fitted(make_study: MakeStudy) -> None:
    folder = make_study(**SMALL, change=undertrained)
    page = text_of(build_report(folder, bootstrap=0))
    assert not list((folder / "fits").glob("*.json"))
    for figure in figures(folder)[:2]:
        drawn = [series for panel in figure.panels for series in panel.series]
        assert drawn
        assert all(series.hollow for series in drawn)
        assert "undertrained run" in figure.caption
        assert figure.caption in page
    told = "No law is fitted, for no student has trained enough (81 undertrained)"
    assert told in story(folder)[0]
    assert told in page
    assert "fewer than 300 optimiser steps" in page
    assert ", ." not in page
    assert "no frontier, for no model is fully trained. Hollow: 45 undertrained runs" in page


@pytest.mark.parametrize(
    "parts",
    [
        {"change": undertrained},
        {"change": lambda row: masked(undertrained(row)), "reference": False},
        {"change": only(1.0, 1.0)},
        {"change": only(0.1, 0.1)},
        {"change": only(0.1, 1.0)},
        {"change": only(1.0, 0.1)},
        {"change": below_all, "seeds": 1, "losses": False},
        {"change": below_all, "methods": ["token"], "more": [given_teacher("no")]},
        {"change": lambda row: below_all(masked(row)), "sizes": 1},
    ],
)
@pytest.mark.usefixtures("undrawn")
def test_any_study_gives_a_page(make_study: MakeStudy, parts: dict[str, Any]) -> None:
    folder = make_study(**({"methods": ["scratch", "token"]} | SMALL | parts))
    page = text_of(build_report(folder, bootstrap=0))
    assert not re.search(r"(?<!-)\b(nan|inf|None)\b", page)
    assert ", ." not in page
    lines = summary(folder).split("\n")
    assert len(lines) == 10
    assert max(map(len, lines)) <= 100
    assert {figure.name for figure in figures(folder)} >= {"scaling", "data", "frontier"}
    assert all(sentence.endswith(".") for sentence in story(folder))


@pytest.mark.parametrize(
    "parts",
    [
        {"change": undertrained, "more": [given_teacher("unknown")]},
        {"change": lambda row: {**row, "status": "diverged", "cross_entropy": None}},
        # A head of 49k words by 576: all sizes cost nearly the same.
        {"change": lambda row: {**row, "forward_flops_per_token": 56.6e6 + row["n_params"]}},
    ],
)
def test_any_study_can_be_drawn(make_study: MakeStudy, parts: dict[str, Any]) -> None:
    folder = make_study(**(SMALL | parts))
    drawn = figures(folder)
    for figure in drawn:
        drawing.inline(figure, drawing.save(figure, folder))
        assert figure.caption.endswith(".")


def test_repeats_of_all_the_data_compare_at_their_best_epochs(make_study: MakeStudy) -> None:
    """No run passes once over it: the planted gain is that of the repeated trunks."""
    evidence = load(make_study(**SMALL, change=only(0.1, 1.0)))
    assert set(paired(evidence, "token", 1.0)["epochs"]) == {4.0}
    found = findings.gain(evidence, "token", 1.0)
    assert found is not None
    assert found.mean.value == pytest.approx(0.35)


def test_single_passes_of_a_part_compare_at_their_longest(make_study: MakeStudy) -> None:
    """Gains of .10 and .15 nats, at the longest of three passes of 10 % of the data."""
    folder = make_study(**SMALL, change=only(1.0, 0.1))
    evidence = load(folder)
    assert set(paired(evidence, "token", 0.1)["n_tokens"]) == {700_000}
    assert "token +0.125 ± 0.002 nats" in summary(folder)
    assert "after one pass over 10 % of the data" in story(folder)[0]
    assert len(findings.data_slopes(evidence, "scratch")) == 2
