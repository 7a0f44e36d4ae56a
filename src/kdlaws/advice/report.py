"""One self-contained HTML page from saved artefacts only, and the fits it shows."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kdlaws import __version__
from kdlaws.advice import drawing, grids, limits, summary, verdict_tables
from kdlaws.advice.captions import counted, listed
from kdlaws.advice.evidence import Evidence, load, one_pass
from kdlaws.advice.figures import describe
from kdlaws.advice.judging.claims import Claims, judge
from kdlaws.advice.judging.grounds import Grounds
from kdlaws.advice.judging.guidelines import Guideline, by_heading, guidelines, to_markdown
from kdlaws.advice.picture import COLOURS, Figure
from kdlaws.advice.story import sentences
from kdlaws.advice.study_plans import StudyPlan, plan_table, study_plans
from kdlaws.errors import InputError
from kdlaws.laws import LAWS, Fit, fit
from kdlaws.records import read_run, run_folders, write_text
from kdlaws.selection import law_columns

if TYPE_CHECKING:
    from pandas import DataFrame

FITTED = ("chinchilla", "compute")


def fit_study(folder: Path, *, bootstrap: int = 400, seed: int = 0) -> dict[str, Fit]:
    """Fit each of ``FITTED`` to each method; write ``fits/<law>-<method>.json`` and return them.

    Fitted are runs on clean data, of one pass, with the main teacher. A method that cannot be
    fitted is left out, and its older file removed. Raises TableError for a table that cannot be
    read.
    """
    return _fit_all(load(folder, fits={}), bootstrap, seed)[0]


def build_report(folder: Path, *, bootstrap: int = 400, seed: int = 0) -> Path:
    """Fit the laws, judge the claims, draw the figures, write the page; ``report/index.html``.

    The figures are also written as ``report/figures/<name>.svg`` and ``.png``, the verdicts as
    ``report/claims.json``, the guidelines as ``report/guidelines.md``. What the study lacks, the
    page says. Raises TableError for a table that cannot be read.
    """
    evidence = load(folder, fits={})
    fits, failures = _fit_all(evidence, bootstrap, seed)
    evidence = replace(evidence, fits=fits)
    figures = [
        (figure, drawing.inline(figure, drawing.save(figure, folder / "report" / "figures")))
        for figure in describe(evidence)
    ]
    plans, without = study_plans(evidence)
    advice = Advice(judge(Grounds.of(evidence)), plans)
    page = folder / "report" / "index.html"
    advice.claims.save(page.with_name("claims.json"))
    write_text(page.with_name("guidelines.md"), to_markdown(advice.guidelines))
    write_text(page, _page(evidence, figures, failures | without, advice))
    return page


@dataclass(frozen=True)
class Advice:
    """What a study's laws and runs amount to."""

    claims: Claims
    plans: Sequence[StudyPlan]

    @property
    def guidelines(self) -> list[Guideline]:
        """Plans that lie outside the runs are no guidelines."""
        inside = [each for each in self.plans if not each.plan.extrapolates]
        return guidelines(self.claims, inside)


def _fit_all(
    evidence: Evidence, bootstrap: int, seed: int
) -> tuple[dict[str, Fit], dict[str, str]]:
    """The fits, and for each that failed the reason, by ``law-method``."""
    fits: dict[str, Fit] = {}
    failures: dict[str, str] = {}
    for law, method in ((law, method) for law in FITTED for method in evidence.methods):
        name, path = f"{law}-{method}", evidence.folder / "fits" / f"{law}-{method}.json"
        try:
            fits[name] = _fit(evidence, law, method, bootstrap, seed)
            fits[name].save(path)
        except InputError as error:
            failures[f"{name} not fitted"] = str(error)
            path.unlink(missing_ok=True)
    return fits, failures


def _fit(evidence: Evidence, law: str, method: str, bootstrap: int, seed: int) -> Fit:
    rows = one_pass(evidence.of(method))
    read = law_columns(replace(evidence.table, frame=rows), LAWS[law].reads)
    return fit(read.columns, law, bootstrap=bootstrap, seed=seed, **read.arguments())


# --- the page -----------------------------------------------------------------------------------


def _page(
    evidence: Evidence,
    figures: Sequence[tuple[Figure, str]],
    failures: Mapping[str, str],
    advice: Advice,
) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = FileSystemLoader(Path(__file__).parent / "page")
    page = Environment(
        loader=templates,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("report.html.j2")
    study = evidence.folder / "study.yaml"
    return page.render(
        name=evidence.name,
        lines=[line.partition(": ") for line in summary.ten_lines(evidence)],
        figures=figures,
        findings=sentences(evidence),
        measured=[
            grids.gain_table(evidence),
            grids.slope_table(evidence),
            grids.curation_table(evidence),
            grids.seed_table(evidence),
        ],
        laws=[grids.law_table(evidence, law) for law in FITTED],
        verdicts=[(each, verdict_tables.readings(each)) for each in advice.claims.verdicts],
        guidelines=by_heading(advice.guidelines),
        scope=str(advice.claims.scope),
        plans=plan_table(advice.plans),
        runs=grids.run_table(evidence),
        warnings=list(_warnings(evidence, failures)),
        can_show=limits.can_show(evidence),
        cannot_show=limits.cannot_show(evidence),
        provenance=list(_provenance(evidence)),
        study_file=study.read_text(encoding="utf-8") if study.exists() else "",
        colours=COLOURS,
    )


def _warnings(evidence: Evidence, failures: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """(where, what): of teachers, laws that failed, what fits warn of, runs that are not done."""
    doubt = limits.heldout_warning(evidence)
    if doubt:
        yield doubt
    for name, reason in failures.items():
        yield name, reason
    shared: dict[tuple[str, str], list[str]] = {}
    for name, each in evidence.fits.items():
        for notice in each.warnings:
            shared.setdefault((notice.message, notice.remedy), []).append(name)
    for (message, remedy), names in shared.items():
        who = "every fit" if len(names) == len(evidence.fits) > 1 else listed(names)
        yield who, f"{message}. {remedy[:1].upper()}{remedy[1:]}."
    runs = evidence.runs
    for status in sorted(set(runs["status"]) - {"done"}):
        yield status, ", ".join(map(str, runs["run_id"][runs["status"] == status]))


def _provenance(evidence: Evidence) -> Iterator[tuple[str, str]]:
    runs, source = evidence.runs, evidence.table.source
    statuses = runs["status"].value_counts()
    yield "study", evidence.name
    yield "runs", listed([f"{number} {status}" for status, number in statuses.items()])
    for teacher in evidence.teachers:
        yield teacher.label, teacher.run_id
    yield "devices", listed(sorted(map(str, runs["device"].dropna().unique()))) or "not recorded"
    yield "training time of the students, summed", f"{_hours(evidence.students):.2f} hours"
    yield "runs were made with", _versions(evidence.folder) or "not recorded"
    yield "this page was made with", f"kdlaws {__version__}"
    yield f"sha256 of {source['file']}", str(source["sha256"])[:16]


def _hours(runs: "DataFrame") -> float:
    """A branch's time includes its trunk's, so a trunk counts once, by its longest branch."""
    trunks = runs["trunk"].fillna(runs["run_id"])
    return float(runs.groupby(trunks)["wall_s"].max().sum()) / 3600


def _versions(folder: Path) -> str:
    """Of the software that the records name, with the number of runs where they differ."""
    records = [read_run(each).get("versions") or {} for each in run_folders(folder)]
    counts = Counter(f"{name} {version}" for each in records for name, version in each.items())
    return ", ".join(
        text if number == len(records) else f"{text} ({counted(number, 'run')})"
        for text, number in counts.items()
    )
