"""What a study found, in ten lines of plain text."""

import math
import re
from collections.abc import Mapping
from pathlib import Path

from kdlaws.advice.captions import counted, nothing_done, percent
from kdlaws.advice.contrasts import Estimate
from kdlaws.advice.crossings import data_needed
from kdlaws.advice.evidence import Evidence, done, load, one_pass
from kdlaws.advice.findings import Gain, data_slope, gain, judged_steps, size_slope
from kdlaws.advice.limits import heldout_warning, margin_needed, n_trunks, teacher_margin
from kdlaws.advice.story import shares_needed
from kdlaws.laws.result import Parameter
from kdlaws.quantities import human

WIDTH = 100


def summary(folder: Path) -> str:
    """Exactly ten lines of at most 100 characters, each with its numbers from the artefacts.

    ``±`` is one paired standard error (test sequences and seeds). Wins and inversions are by more
    than two of them. A line whose quantity is not in the study says so. Raises what
    ``evidence.load`` raises.
    """
    return "\n".join(ten_lines(load(folder)))


def ten_lines(evidence: Evidence) -> list[str]:
    lines = [
        _what_was_run(evidence),
        _teacher(evidence),
        _per_doubling_of_n(evidence),
        _per_doubling_of_d(evidence),
        _alphas(evidence),
        _ahead(evidence),
        _on_repeated_data(evidence, "token"),
        _saving(evidence),
        _caution(evidence),
        _where(evidence),
    ]
    return [line if len(line) <= WIDTH else line[: WIDTH - 1] + "…" for line in lines]


def _what_was_run(evidence: Evidence) -> str:
    runs, sizes = evidence.students, evidence.sizes
    tokens = runs["n_tokens"].dropna()
    if not (len(sizes) and len(tokens)):
        return (
            f"{evidence.name}: {counted(len(evidence.runs), 'run')}, 0 students with a known size"
        )
    ratio, unit = f"x{sizes[-1] / sizes[0]:.3g}", " input tokens" * evidence.is_masked
    n_kind = "" if evidence.is_masked else "non-embedding "  # there is no room for both
    return (
        f"{evidence.name}: {counted(len(evidence.runs), 'run')}, "
        f"{counted(len(evidence.methods), 'method')}, {counted(len(sizes), 'size')}, "
        f"N {human(sizes[0])} to {human(sizes[-1])} {n_kind}({ratio}), "
        f"D {human(tokens.min())} to {human(tokens.max())}{unit}"
    )


def _teacher(evidence: Evidence) -> str:
    teacher, margin = evidence.main_teacher, teacher_margin(evidence)
    if teacher is None:
        return f"Teacher: none in these {counted(len(evidence.runs), 'run')}"
    name, n_scratch = (
        f"Teacher{teacher.label.removeprefix('teacher')}",
        len(done(evidence.of("scratch"))),
    )
    unit = " per masked token" if evidence.is_masked else ""
    known = f"{name}: {teacher.cross_entropy:.3f} nats{unit}"
    if teacher.may_know_test:
        known += ", not held out"
    if math.isnan(teacher.cross_entropy):
        return f"{name}: cross-entropy unknown, {counted(n_scratch, 'scratch run')}"
    if margin is None:
        return f"{known}, margin unknown: {counted(n_scratch, 'scratch run')}"
    if teacher.may_know_test:
        return f"{known}, {margin:.3f} below the best scratch student"
    needed = margin_needed(evidence)
    if evidence.is_masked:
        return f"{known}, {margin:.3f} below the best scratch student ({needed:.2f} needed)"
    verdict = f"{'at least' if margin >= needed else 'less than'} the {needed:.2f} needed"
    return f"{known}, {margin:.3f} below the best scratch student, {verdict}"


def _per_doubling_of_n(evidence: Evidence) -> str:
    slopes = {method: size_slope(evidence, method) for method in evidence.methods}
    return _per_doubling(evidence, "N", slopes)


def _at(evidence: Evidence) -> str:
    """The most data of the study, where that is not all of it."""
    most = evidence.largest_fraction
    return "" if most == 1 else f" at {percent(most)}"


def _per_doubling(evidence: Evidence, of: str, slopes: Mapping[str, Estimate | None]) -> str:
    """A masked study's nats are per masked token, which is said where the line has room for it."""
    parts = [f"{method} {slope}" for method, slope in slopes.items() if slope]
    line = f"Doubling {of}{_at(evidence)}: "
    if not parts:
        return f"{line}0 methods to tell"
    line += f"{', '.join(parts)} nats"
    per = "/masked token" if evidence.is_masked else ""
    return line + per if len(line + per) <= WIDTH else line


def _per_doubling_of_d(evidence: Evidence) -> str:
    """The mean over sizes; each size has its own on the page."""
    slopes = {method: data_slope(evidence, method) for method in evidence.methods}
    return _per_doubling(evidence, "D", slopes)


def _alphas(evidence: Evidence) -> str:
    fits = {m: fit for m in evidence.methods if (fit := evidence.fit("chinchilla", m))}
    if not fits:
        rows = one_pass(evidence.comparable)
        number = len(rows if nothing_done(evidence) else done(rows))
        why = ", none trained enough" if nothing_done(evidence) else ""
        return f"alpha of L(N, D): not fitted, {counted(number, 'one-pass run')}{why}"
    levels = "/".join(sorted({percent(fit.level) for fit in fits.values()}))
    values = ", ".join(f"{m} {_parameter(fit.parameters['alpha'])}" for m, fit in fits.items())
    return f"alpha ({levels}): {values}"


def _parameter(parameter: Parameter) -> str:
    lo, hi = ("open" if end is None else f"{end:.2f}" for end in (parameter.lo, parameter.hi))
    mark = "" if parameter.identified else "*"
    return f"{parameter.value:.2f} [{lo}, {hi}]{mark}"


def _ahead(evidence: Evidence) -> str:
    most = evidence.largest_fraction
    found = {m: g for m in evidence.distilled if (g := gain(evidence, m, most))}
    parts = [f"{method} {_nats(each)}" for method, each in found.items()]
    return f"Ahead of scratch at {percent(most)}: {_once(parts) or '0 pairs of runs to compare'}"


def _on_repeated_data(evidence: Evidence, method: str) -> str:
    shares = evidence.fractions[1:][-2:]
    found = {share: g for share in shares if (g := gain(evidence, method, share))}
    parts = [_nats(each, f" at {percent(share)}") for share, each in found.items()]
    what = _once(parts) or "0 pairs of runs on repeated data to compare"
    return f"{method.capitalize()} ahead of scratch: {what}"


def _nats(found: Gain, where: str = "") -> str:
    if math.isnan(found.mean.se):
        return f"{found.mean} nats{where} ({counted(found.n_sizes, 'size')}, no SE)"
    return f"{found.mean} nats{where} ({found.n_wins}/{found.n_sizes} sizes)"


def _once(parts: list[str]) -> str:
    """The later parts in the first one's words, so that all fit in the line."""
    later = [re.sub(" nats| sizes(?=[,)])", "", part) for part in parts[1:]]
    return ", ".join([*parts[:1], *later])


def _saving(evidence: Evidence) -> str:
    needed = data_needed(evidence, "token")
    if not needed:
        return "Token equals scratch with fewer tokens: 0 sizes to compare"
    shares = shares_needed(needed, name_sizes=False)
    return f"Token's D at scratch's loss: {shares}"


def _caution(evidence: Evidence) -> str:
    warning = heldout_warning(evidence)
    if warning:
        return (
            "Caution: the teacher may have read the test text: not held out; laws with L_T as a "
            "floor need care"
        )
    every = judged_steps(evidence)
    n_inverted = sum(step.is_inverted for step in every)
    inverted = f"{n_inverted} of {counted(len(every), 'step')} inverted"
    fits = [fit for name, fit in evidence.fits.items() if name.startswith("chinchilla-")]
    if not fits:
        return (
            f"Caution: no law of N and D is fitted to these {len(evidence.runs)} runs; {inverted}"
        )
    parameters = [each for fit in fits for each in fit.parameters.values()]
    vague = sum(not each.identified for each in parameters)
    return (
        f"Caution: {vague} of {len(parameters)} law parameters not identified (*), "
        f"{_trunks(evidence)} a law; {inverted}"
    )


def _trunks(evidence: Evidence) -> str:
    """``6 trunks`` or ``2 to 6 trunks``, over the methods."""
    numbers = {n_trunks(evidence, method) for method in evidence.methods} or {0}
    low, high = min(numbers), max(numbers)
    return counted(high, "trunk") if low == high else f"{low} to {counted(high, 'trunk')}"


def _where(evidence: Evidence) -> str:
    path, made = str(evidence.folder / "report" / "index.html"), counted(len(evidence.fits), "fit")
    room = WIDTH - len(f"Report:  ({made})")
    return f"Report: {path if len(path) <= room else '…' + path[1 - room :]} ({made})"
