"""The eight findings that were expected of this project, each a test on a study's artefacts.

Nobody had measured them: they are hypotheses, H1 to H8. A verdict is supported, contradicted or
undetermined by the rule of ``verdicts``, from 90 % intervals and never by extrapolation; each
claim's module says how its readings combine.
"""

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kdlaws.advice.captions import counted, listed
from kdlaws.advice.evidence import Evidence, load, measured
from kdlaws.advice.findings import seed_noise
from kdlaws.advice.judging.best_ratio import best_ratio
from kdlaws.advice.judging.cheapness import cheapness
from kdlaws.advice.judging.collapse import collapse
from kdlaws.advice.judging.curated_exponent import curated_exponent
from kdlaws.advice.judging.exponents import exponents
from kdlaws.advice.judging.grounds import Grounds
from kdlaws.advice.judging.joint import Joint
from kdlaws.advice.judging.known import LEVEL, sentence
from kdlaws.advice.judging.parity import parity
from kdlaws.advice.judging.teacher_share import teacher_share
from kdlaws.advice.judging.thrift import thrift
from kdlaws.advice.judging.verdicts import N_NAMES, SEEDS, Verdict
from kdlaws.advice.limits import heldout_warning
from kdlaws.laws import Notice
from kdlaws.laws.artefact import Document
from kdlaws.quantities import human

if TYPE_CHECKING:
    from pandas import Series

TESTS = (
    *(exponents, cheapness, best_ratio, thrift),
    *(curated_exponent, collapse, teacher_share, parity),
)
WIDTH = 100
CARRIED = ("not_converged", "few_trunks", "outliers")
"""Warnings of a joint fit that weaken every claim that rests on it."""


@dataclass(frozen=True)
class Scope:
    """What the runs are, beyond which nothing is claimed; N without embeddings."""

    study: str
    objective: str
    corpus: str
    n_runs: int
    methods: tuple[str, ...]
    n_params_non_embedding: tuple[float, float] | None
    n_tokens: tuple[float, float] | None
    teachers: tuple[str, ...]

    def __str__(self) -> str:
        parts = [counted(self.n_runs, "run")]
        if self.n_params_non_embedding:
            parts.append(
                "N {} to {} without embeddings".format(*map(human, self.n_params_non_embedding))
            )
        if self.n_tokens:
            parts.append("{} to {} tokens".format(*map(human, self.n_tokens)))
        if self.corpus:
            parts.append(f"corpus {self.corpus}")
        parts.append(listed(self.teachers) or "no teacher")
        return f"{self.study}: {', '.join(parts)}"


@dataclass(frozen=True)
class Claims(Document):
    """Eight verdicts, H1 to H8, their intervals at ``level``, and what weakens them."""

    scope: Scope
    level: float
    verdicts: tuple[Verdict, ...]
    warnings: tuple[Notice, ...]

    def __str__(self) -> str:
        parts = [str(self.scope), *map(_told, self.verdicts)]
        parts += [f"{each.code}: {each.message}. {sentence(each.remedy)}" for each in self.warnings]
        return "\n\n".join(_wrapped(each) for each in parts)


def claims(folder: Path) -> Claims:
    """The verdicts of a study's ``table.csv``. Raises what ``evidence.load`` raises.

    Two laws are fitted for each way to count N, which takes seconds.
    """
    return judge(Grounds.of(load(folder, fits={})))


def judge(grounds: Grounds) -> Claims:
    """The same on grounds that are known already."""
    return Claims(
        scope=_scope(grounds.evidence),
        level=LEVEL,
        verdicts=tuple(test(grounds) for test in TESTS),
        warnings=tuple(_warnings(grounds)),
    )


def _scope(evidence: Evidence) -> Scope:
    rows = measured(evidence.students)
    corpora = sorted(map(str, rows["corpus"].dropna().unique()))
    objectives = sorted(map(str, rows["objective"].dropna().unique()))
    return Scope(
        study=evidence.name,
        objective=listed(objectives),
        corpus=listed(corpora),
        n_runs=len(rows),
        methods=evidence.methods,
        n_params_non_embedding=_ends(rows["n_params_non_embedding"]),
        n_tokens=_ends(rows["n_tokens"]),
        teachers=tuple(each.label for each in evidence.teachers),
    )


def _ends(values: "Series[float]") -> tuple[float, float] | None:
    known = values.dropna()
    return (float(known.min()), float(known.max())) if len(known) else None


def _warnings(grounds: Grounds) -> Iterator[Notice]:
    doubt = heldout_warning(grounds.evidence)
    if doubt:
        remedy = "take a teacher that has not read the test text"
        yield Notice("not_held_out", f"{doubt[0]}: {doubt[1]}".rstrip("."), remedy)
    if grounds.evidence.distilled and seed_noise(grounds.evidence) is None:
        yield Notice("no_seeds", "no run was repeated with another seed", SEEDS)
    shared: dict[Notice, list[str]] = {}
    for n_column, joint in grounds.joints.items():
        for notice in _of_law(joint):
            shared.setdefault(notice, []).append(N_NAMES[n_column])
    for notice, names in shared.items():
        yield replace(notice, message=f"joint law by {listed(names)}: {notice.message}")


def _of_law(joint: Joint) -> Iterator[Notice]:
    if joint.fit is None:
        yield Notice("no_joint_fit", joint.reason, "what rests on it is undetermined")
        return
    yield from (each for each in joint.fit.warnings if each.code in CARRIED)


# --- words --------------------------------------------------------------------------------------


def _told(verdict: Verdict) -> str:
    lines = [f"{verdict.id} {verdict.verdict}: {verdict.claim}", verdict.reason]
    if verdict.would_settle:
        lines.append(f"Would settle it: {verdict.would_settle}")
    return "\n".join(lines)


def _wrapped(text: str) -> str:
    """Each line at most ``WIDTH`` wide; all but the first set in."""
    first, *rest = text.splitlines()
    lines = [textwrap.fill(first, WIDTH, subsequent_indent="   ")]
    lines += [textwrap.indent(textwrap.fill(line, WIDTH - 3), "   ") for line in rest]
    return "\n".join(lines)
