"""What a study found, in ten lines of plain text."""

import math
from pathlib import Path

from kdlaws.advice.captions import counted, percent
from kdlaws.advice.evidence import Evidence, done, gain, load, one_pass, paired
from kdlaws.advice.limits import margin_needed, n_trunks, teacher_margin
from kdlaws.laws import Fit
from kdlaws.laws.result import Parameter
from kdlaws.quantities import human

WIDTH = 100


def summary(folder: Path) -> str:
    """Exactly ten lines of at most 100 characters, each with its numbers from the artefacts.

    Differences are scratch minus distilled, ``± `` one standard error over sizes; a line whose
    quantity is not in the study says so. Raises what ``evidence.load`` raises.
    """
    return "\n".join(ten_lines(load(folder)))


def ten_lines(evidence: Evidence) -> list[str]:
    lines = [
        _what_was_run(evidence),
        _teacher(evidence),
        *(_law(evidence, method) for method in ("scratch", "token", "embedding")),
        _against_scratch(evidence, "token"),
        _on_repeated_data(evidence, "token"),
        _against_scratch(evidence, "embedding"),
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
    return (
        f"{evidence.name}: {counted(len(evidence.runs), 'run')}, {counted(len(sizes), 'size')}, "
        f"N {human(sizes[0])} to {human(sizes[-1])} non-embedding (x{sizes[-1] / sizes[0]:.3g}), "
        f"{human(tokens.min())} to {human(tokens.max())} tokens, "
        f"{counted(len(evidence.methods), 'method')}"
    )


def _teacher(evidence: Evidence) -> str:
    teacher, margin = evidence.main_teacher, teacher_margin(evidence)
    if teacher is None:
        return f"Teacher: none in these {counted(len(evidence.runs), 'run')}"
    name, n_scratch = (
        f"Teacher{teacher.label.removeprefix('teacher')}",
        len(done(evidence.of("scratch"))),
    )
    known = f"{name}: {teacher.cross_entropy:.3f} nats"
    if math.isnan(teacher.cross_entropy):
        return f"{name}: cross-entropy unknown, {counted(n_scratch, 'scratch run')}"
    if margin is None:
        return f"{known}, margin unknown: {counted(n_scratch, 'scratch run')}"
    needed = margin_needed(evidence)
    verdict = f"{'at least' if margin >= needed else 'less than'} the {needed:.2f} needed"
    return f"{known}, {margin:.3f} below the best scratch student, {verdict}"


def _law(evidence: Evidence, method: str) -> str:
    fit = evidence.fit("chinchilla", method)
    if fit is None:
        number = len(one_pass(done(evidence.of(method))))
        return f"{method.capitalize()} law: not fitted, {counted(number, 'one-pass run')}"
    exponents = {name: fit.parameters[name] for name in ("alpha", "beta")}
    values = ", ".join(f"{name} {_parameter(each)}" for name, each in exponents.items())
    vague = not all(each.identified for each in exponents.values())
    level = f"{percent(fit.level)}; * not identified" if vague else percent(fit.level)
    return f"{method.capitalize()} law: {values} ({level}){'' if vague else _error(fit)}"


def _parameter(parameter: Parameter) -> str:
    lo, hi = ("open" if end is None else f"{end:.2f}" for end in (parameter.lo, parameter.hi))
    mark = "" if parameter.identified else "*"
    return f"{parameter.value:.2f} [{lo}, {hi}]{mark}"


def _error(fit: Fit) -> str:
    held = fit.holdout
    if held is None or held.mape is None or held.baseline_mape is None:
        return ""
    return f"; error {held.mape:.1f} %, compute {held.baseline_mape:.1f} %"


def _against_scratch(evidence: Evidence, method: str) -> str:
    name = f"{method.capitalize()} ahead of scratch at 100 %"
    found = gain(paired(evidence, method, 1.0))
    if found is None:
        return f"{name}: 0 pairs of runs to compare"
    error = "SE over sizes" if found.n_sizes > 1 else "1 size, no SE"
    return f"{name}: {found} nats ({error}), wins at {found.n_wins} of {found.n_sizes} sizes"


def _on_repeated_data(evidence: Evidence, method: str) -> str:
    shares = [fraction for fraction in evidence.fractions if fraction < 1][-2:]
    found = {share: gain(paired(evidence, method, share)) for share in shares}
    parts = [
        f"at {percent(share)}: {each} nats ({each.n_wins} of {each.n_sizes} sizes)"
        for share, each in found.items()
        if each
    ]
    # The second share in the first one's words, so that both fit in the line.
    parts[1:] = [part.replace(" nats", "").replace(" sizes", "") for part in parts[1:]]
    what = "; ".join(parts) or "on repeated data: 0 pairs of runs to compare"
    return f"{method.capitalize()} ahead of scratch {what}"


def _caution(evidence: Evidence) -> str:
    fits = [fit for name, fit in evidence.fits.items() if name.startswith("chinchilla-")]
    if not fits:
        return f"Caution: no law of N and D is fitted to these {len(evidence.runs)} runs"
    parameters = [each for fit in fits for each in fit.parameters.values()]
    vague = sum(not each.identified for each in parameters)
    return (
        f"Caution: {_trunks(evidence)} a law, {counted(len(evidence.teachers), 'teacher')}; "
        f"{vague} of {len(parameters)} parameters of L(N, D) are not identified"
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
