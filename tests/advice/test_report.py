"""From a study folder to fits and one page that stands alone."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from kdlaws.advice import build_report, figures, fit_study, story
from kdlaws.advice.evidence import Evidence
from kdlaws.laws import Fit

METHODS = ("scratch", "token", "embedding")
FIGURES = ("scaling", "data", "frontier", "compression")
NOISY = (*FIGURES, "noise")
MEASURED = ("Ahead of scratch", "Each doubling", "Over seeds")


class Page(HTMLParser):
    """Text, ids, and every attribute that could fetch something."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.words: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "data", "srcset"):
                self.links.append(value or "")

    def handle_data(self, data: str) -> None:
        self.words += data.split()

    @property
    def text(self) -> str:
        return " ".join(self.words)


@pytest.fixture(scope="module")
def page(study: Path) -> Page:
    return Page(study / "report" / "index.html")


def test_the_fits_recover_the_known_law(evidence: Evidence) -> None:
    fit = evidence.fits["chinchilla-scratch"]
    # Exponents of the generator, .30 and .35; its jitter is .1 %.
    assert fit.parameters["alpha"].value == pytest.approx(0.30, abs=0.02)
    assert fit.parameters["beta"].value == pytest.approx(0.35, abs=0.05)
    assert fit.parameters["E"].value == pytest.approx(1.8, abs=0.1)
    assert fit.n_column == "n_params_non_embedding"


def test_only_clean_one_pass_runs_of_the_main_teacher_are_fitted(evidence: Evidence) -> None:
    fits = evidence.fits
    assert set(fits) == {f"{a}-{b}" for a in ("chinchilla", "compute") for b in METHODS}
    # Five sizes and one further seed, three token counts each; the undertrained run is dropped.
    assert {fit.n_runs for fit in fits.values()} == {18}
    assert fits["chinchilla-scratch"].n_dropped == 1
    assert fits["chinchilla-token"].domain["n_tokens"] == (231_000, 700_000)


def test_fit_study_writes_what_it_returns(make_study: Callable[..., Path]) -> None:
    folder = make_study(methods=["scratch"], unusual=False)
    stale = folder / "fits" / "compute-scratch.json"
    stale.parent.mkdir()
    stale.write_text("of another version")
    fits = fit_study(folder, bootstrap=0)
    assert set(fits) == {"chinchilla-scratch", "compute-scratch"}
    for name, fit in fits.items():
        assert Fit.load(folder / "fits" / f"{name}.json").parameters == fit.parameters


def test_a_law_that_cannot_be_fitted_is_said_and_leaves_no_old_file(
    make_study: Callable[..., Path],
) -> None:
    folder = make_study(methods=["scratch"], unusual=False)
    fit_study(folder, bootstrap=0)
    table = (folder / "table.csv").read_text().splitlines()
    (folder / "table.csv").write_text("\n".join(table[:3]) + "\n")
    page = Page(build_report(folder, bootstrap=0))
    assert not list((folder / "fits").iterdir())
    assert "chinchilla-scratch not fitted" in page.text
    assert "scratch: no law" in page.text


def test_the_page_holds_every_figure_and_nothing_from_outside(study: Path, page: Page) -> None:
    drawn = figures(study)
    assert [figure.name for figure in drawn] == list(NOISY)
    assert set(NOISY) <= set(page.ids)
    assert page.source.count("<svg ") == len(NOISY)
    assert len(page.ids) == len(set(page.ids))
    assert all(link.startswith("#") for link in page.links)
    assert not re.search(r"https?:|@import|<script|<link", page.source)
    for figure in drawn:
        assert figure.caption in page.text
        for kind in ("svg", "png"):
            assert (study / "report" / "figures" / f"{figure.name}.{kind}").stat().st_size > 5_000


def test_the_page_carries_the_ten_lines_and_the_laws(evidence: Evidence, page: Page) -> None:
    assert "at 100 % token +0.200 ± 0.001 nats (5/5 sizes)" in page.text
    for fit in evidence.fits.values():
        for parameter in fit.parameters.values():
            assert f"{parameter.value:.3g} [" in page.text
        assert fit.holdout is not None
        assert f"{fit.holdout.mape:.2f} %" in page.text
        assert f"{fit.holdout.baseline_mape:.2f} %" in page.text


def test_the_page_says_what_the_runs_say(study: Path, page: Page) -> None:
    sentences = story(study)
    assert all(sentence in page.text for sentence in sentences)
    # Three of N, D and steps; three of each of two methods; teachers, noise, the teacher, seeds.
    assert len(sentences) == 3 + 2 * 3 + 4
    assert page.source.count('<ul class="findings">') == 1
    assert "+0.350 ± 0.001 nats at 10 % of the data" in page.text


def test_the_page_has_tables_of_measured_differences(page: Page) -> None:
    assert [f"<h3>{title}</h3>" in page.source for title in MEASURED] == [True] * 3
    # The planted gain at the largest size, and what all sizes have in the mean.
    assert "1.53M +0.300 ± 0.003" in page.text
    assert "mean +0.200 ± 0.001" in page.text


def test_the_page_has_the_verdicts_and_the_guidelines(study: Path, page: Page) -> None:
    verdicts = json.loads((study / "report" / "claims.json").read_text())["verdicts"]
    assert [verdict["id"] for verdict in verdicts] == [f"H{k}" for k in range(1, 9)]
    for verdict in verdicts:
        assert f"{verdict['verdict']} {verdict['id']}. {verdict['claim']}" in page.text
        assert verdict["reason"] in page.text
    guidelines = (study / "report" / "guidelines.md").read_text()
    told = [line.removeprefix("- ") for line in guidelines.splitlines() if line.startswith("- ")]
    assert len(told) > 4
    assert all(sentence in page.text for sentence in told)


def advice_rows(study: Path) -> int:
    """A head and a row for each reading of a claim; and for each plan: a tenth, and all, of the
    dearest run's FLOPs, for scratch and, with a free and a paid teacher, for two methods."""
    verdicts = json.loads((study / "report" / "claims.json").read_text())["verdicts"]
    readings = [len(verdict["readings"]) for verdict in verdicts]
    return sum(1 + number for number in readings if number) + 1 + 2 * (1 + 2 * 2)


def test_the_page_lists_every_run_and_names_those_not_fitted(study: Path, page: Page) -> None:
    assert "172 runs" in page.text
    runs, laws = 172 + 1, 2 + 2 * 6 + (5 + 3)
    # Five sizes and their mean; N at three amounts of data, its exponent, D at five sizes; seeds
    # of runs and of pairs at three amounts; each under its head.
    gains, slopes, seeds = 1 + 5 + 1, 1 + 3 + 1 + 5, 1 + 2 * 3
    advised = advice_rows(study)
    assert page.source.count("<tr>") == runs + laws + gains + slopes + seeds + advised
    assert "token-3-1-7-teacher-192x6-700000-0" in page.text
    assert "scratch-4-1-0-None-100000-0" in page.text


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, write_study: Callable[..., Path]) -> Page:
    """The page of a small study with a hostile name, and records of three runs."""
    folder = tmp_path_factory.mktemp("recorded") / "study"
    write_study(folder, methods=["scratch"], sizes=2, seeds=1, unusual=False)
    table = folder / "table.csv"
    table.write_text(table.read_text().replace("synthetic", "<b>x</b>"))
    for name, torch in (("a", "2.13.0"), ("b", "2.13.0"), ("c", "2.12.1")):
        (folder / name).mkdir()
        record = {"run_id": name, "versions": {"kdlaws": "0.1.0", "torch": torch}}
        (folder / name / "record.json").write_text(json.dumps(record))
    return Page(build_report(folder, bootstrap=0))


def test_provenance_is_read_from_the_records(recorded: Page) -> None:
    assert "kdlaws 0.1.0, torch 2.13.0 (2 runs), torch 2.12.1 (1 run)" in recorded.text
    # Two sizes, three trunks each (100 %, 10 %, 1 %), 20 s to each trunk's longest branch.
    assert f"{6 * 20 / 3600:.2f} hours" in recorded.text


def test_a_table_without_rows_is_left_out(recorded: Page) -> None:
    """Without distilled runs and second seeds there are slopes only."""
    assert [title for title in MEASURED if f"<h3>{title}</h3>" in recorded.source] == [
        "Each doubling"
    ]


def test_text_from_the_study_cannot_become_markup(recorded: Page) -> None:
    assert "<b>x</b>" not in recorded.source
    assert "<b>x</b>" in recorded.text


@pytest.mark.parametrize(
    "parts",
    [
        {"methods": ["scratch"], "unusual": False, "reference": False, "seeds": 1},
        {"methods": ["token"], "sizes": 1, "unusual": False},
        {
            "sizes": 2,
            "without": [
                *("decode_ms_p50", "forward_flops_per_token", "cross_entropy_se", "trunk"),
                *("teacher_cross_entropy", "study", "status", "device", "wall_s", "selected"),
            ],
        },
        {"sizes": 1, "without": ["epochs", "seed", "noise", "role", "fraction"]},
    ],
)
def test_a_report_of_less_is_still_a_report(make_study: Callable[..., Path], parts: dict) -> None:
    page = Page(build_report(make_study(**parts), bootstrap=0))
    assert set(FIGURES) <= set(page.ids)
    assert not re.search(r"\bnan\b", page.text)


def test_importing_advice_loads_neither_torch_nor_what_draws() -> None:
    code = (
        "import sys, kdlaws.advice;"
        "heavy = ('torch', 'pandas', 'matplotlib', 'jinja2', 'scipy');"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
