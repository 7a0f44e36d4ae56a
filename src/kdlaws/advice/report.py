"""One self-contained HTML page from saved artefacts only, and the fits it shows."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kdlaws.advice import drawing, summary
from kdlaws.advice.captions import counted, percent
from kdlaws.advice.evidence import N, Evidence, done, load, one_pass
from kdlaws.advice.figures import describe
from kdlaws.errors import KdlawsError
from kdlaws.laws import LAWS, Fit, Parameter, fit
from kdlaws.quantities import human
from kdlaws.records import read_run, run_folders, write_text
from kdlaws.tables import law_columns

FITTED = ("chinchilla", "compute")


def fit_study(folder: Path, *, bootstrap: int = 400, seed: int = 0) -> dict[str, Fit]:
    """Fit each of ``FITTED`` to each method; write ``fits/<law>-<method>.json`` and return them.

    Fitted are runs on clean data, of one pass, with the main teacher. A method that cannot be
    fitted is left out, and its older file removed. Raises TableError for a table that cannot be
    read.
    """
    return _fit_all(load(folder), bootstrap, seed)[0]


def build_report(folder: Path, *, bootstrap: int = 400, seed: int = 0) -> Path:
    """Fit the laws, draw the figures, write the page; returns ``report/index.html``.

    The figures are also written as ``report/figures/<name>.svg`` and ``.png``. What the study
    lacks, the page says. Raises TableError for a table that cannot be read.
    """
    fits, failures = _fit_all(load(folder), bootstrap, seed)
    evidence = replace(load(folder), fits=fits)
    figures = describe(evidence)
    for figure in figures:
        drawing.save(figure, folder / "report" / "figures")
    page = folder / "report" / "index.html"
    write_text(page, "")  # there already when the last of the ten lines looks for it
    write_text(page, _rendered(_context(evidence, figures, failures)))
    return page


def _fit_all(
    evidence: Evidence, bootstrap: int, seed: int
) -> tuple[dict[str, Fit], dict[str, str]]:
    """The fits, and for each that failed the reason, by ``law-method``."""
    fits, failures = {}, {}
    for name, law, method in ((f"{a}-{b}", a, b) for a in FITTED for b in evidence.methods):
        path = evidence.folder / "fits" / f"{name}.json"
        try:
            fits[name] = _fit_one(evidence, law, method, bootstrap, seed)
            fits[name].save(path)
        except KdlawsError as error:
            failures[name] = str(error)
            path.unlink(missing_ok=True)
    return fits, failures


def _fit_one(evidence: Evidence, law: str, method: str, bootstrap: int, seed: int) -> Fit:
    rows = one_pass(evidence.of(method))
    wanted = (*LAWS[law].reads("n_params"), "n_params", "n_tokens", "flops")
    read = law_columns(replace(evidence.table, frame=rows), wanted)
    columns = {read.n_column if k == "n_params" else k: v for k, v in read.columns.items()}
    return fit(
        columns,
        law,
        n_column=read.n_column,
        trunk=read.trunk,
        bootstrap=bootstrap,
        seed=seed,
        source=evidence.table.source,
        n_dropped=len(read.dropped),
    )
