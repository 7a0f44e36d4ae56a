"""What a study found, in ten lines, and what its design lets it show."""

from collections.abc import Callable, Sequence
from pathlib import Path

from kdlaws.advice.captions import counted, listed, nats, percent
from kdlaws.advice.evidence import (
    N,
    Evidence,
    done,
    full_pass,
    gain,
    load,
    one_pass,
    paired,
    repeated,
)
from kdlaws.laws import Fit
from kdlaws.laws.result import Parameter
from kdlaws.quantities import human

WIDTH = 100
TEACHER_MARGIN = 0.10
"""Nats by which a teacher has to lead the best scratch student for a study to show anything."""
FEW_TRUNKS = 10
"""Below it, intervals resampled by trunk do not have their nominal coverage."""


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
        return f"{evidence.name}: {counted(len(evidence.runs), 'run')}, 0 students with a known size"
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
    known = f"Teacher: N {human(teacher.n_params_non_embedding)}, {teacher.cross_entropy:.3f} nats"
    if margin is None:
        return f"{known}; its margin is unknown, 0 scratch runs to compare with"
    verdict = "" if margin >= TEACHER_MARGIN else f", less than the {TEACHER_MARGIN:.2f} needed"
    return f"{known}, {margin:.3f} below the best scratch student{verdict}"


def teacher_margin(evidence: Evidence) -> float | None:
    """Nats from the main teacher up to the best scratch student on clean data."""
    scratch = done(evidence.of("scratch"))["cross_entropy"]
    teacher = evidence.main_teacher
    return float(scratch.min() - teacher.cross_entropy) if teacher and len(scratch) else None


def _law(evidence: Evidence, method: str) -> str:
    fit = evidence.fit("chinchilla", method)
    if fit is None:
        number = len(one_pass(done(evidence.of(method))))
        return f"Law, {method}: not fitted, {counted(number, 'one-pass run')}"
    exponents = ", ".join(
        f"{name} {_parameter(fit.parameters[name])}" for name in ("alpha", "beta")
    )
    return f"Law, {method}: {exponents} ({percent(fit.level)}), {fit.n_runs} runs{_error(fit)}"


def _parameter(parameter: Parameter) -> str:
    if not parameter.identified:
        return f"{parameter.value:.2f} not identified"
    lo, hi = ("open" if end is None else f"{end:.2f}" for end in (parameter.lo, parameter.hi))
    return f"{parameter.value:.2f} [{lo}, {hi}]"


def _error(fit: Fit) -> str:
    held = fit.holdout
    if held is None or held.mape is None or held.baseline_mape is None:
        return ""
    return f", error {held.mape:.1f} % (compute law {held.baseline_mape:.1f} %)"


def _against_scratch(evidence: Evidence, method: str) -> str:
    name = f"{method.capitalize()} against scratch at 100 %"
    found = gain(paired(evidence, method, 1.0))
    if found is None:
        return f"{name}: 0 pairs of runs to compare"
    error = "over sizes" if found.n_sizes > 1 else "no standard error from one size"
    return f"{name}: {nats(found)} ({error}), ahead at {found.n_wins} of {found.n_sizes} sizes"


def _on_repeated_data(evidence: Evidence, method: str) -> str:
    shares = [fraction for fraction in evidence.fractions if fraction < 1][-2:]
    found = {share: gain(paired(evidence, method, share)) for share in shares}
    parts = [
        f"at {percent(share)} {nats(each)}, {each.n_wins} of {each.n_sizes} sizes"
        for share, each in found.items()
        if each
    ]
    name = f"{method.capitalize()} against scratch, repeated data"
    return f"{name}: {'; '.join(parts) or '0 pairs of runs to compare'}"


def _caution(evidence: Evidence) -> str:
    fits = [fit for name, fit in evidence.fits.items() if name.startswith("chinchilla-")]
    if not fits:
        return f"Caution: no law of N and D is fitted to these {len(evidence.runs)} runs"
    parameters = [each for fit in fits for each in fit.parameters.values()]
    vague = sum(not each.identified for each in parameters)
    return (
        f"Caution: {trunks_text(evidence)} a law, {counted(len(evidence.teachers), 'teacher')}; "
        f"{vague} of {len(parameters)} parameters of L(N, D) are not identified"
    )


def trunks_text(evidence: Evidence) -> str:
    """``6 trunks`` or ``2 to 6 trunks``, over the methods."""
    numbers = {n_trunks(evidence, method) for method in evidence.methods} or {0}
    low, high = min(numbers), max(numbers)
    return counted(high, "trunk") if low == high else f"{low} to {counted(high, 'trunk')}"


def n_trunks(evidence: Evidence, method: str) -> int:
    """Independent trainings behind a method's one-pass law; rows without a trunk stand alone."""
    rows = one_pass(done(evidence.of(method)))
    return int(rows["trunk"].nunique() + rows["trunk"].isna().sum())


def _where(evidence: Evidence) -> str:
    path = evidence.folder / "report" / "index.html"
    made = f"{counted(len(evidence.fits), 'fit')}" + ("" if path.exists() else ", not made yet")
    shown = str(path)
    room = WIDTH - len(f"Report:  ({made})")
    return f"Report: {shown if len(shown) <= room else '…' + shown[1 - room :]} ({made})"


# --- what the design allows ---------------------------------------------------------------------


def can_show(evidence: Evidence) -> list[str]:
    return _said(evidence, (_range, _comparisons, _seeds))


def cannot_show(evidence: Evidence) -> list[str]:
    return _said(
        evidence, (_beyond, _trunks, _token_levels, _margin, _ratios, _repeats, _noise, _left_out)
    )


def _said(evidence: Evidence, rules: Sequence[Callable[[Evidence], str]]) -> list[str]:
    return list(filter(None, (rule(evidence) for rule in rules)))


def _range(evidence: Evidence) -> str:
    if not evidence.sizes:
        return ""
    low, high = evidence.sizes[0], evidence.sizes[-1]
    return (
        f"How cross-entropy falls over {counted(len(evidence.sizes), 'size')} between "
        f"{human(low)} and {human(high)} non-embedding parameters, a factor of {high / low:.3g}."
    )


def _comparisons(evidence: Evidence) -> str:
    found = {m: gain(paired(evidence, m, 1.0)) for m in evidence.methods if m != "scratch"}
    parts = [f"{method} at {counted(g.n_sizes, 'size')}" for method, g in found.items() if g]
    return f"Which method is ahead where runs pair with scratch: {listed(parts)}." if parts else ""


def _seeds(evidence: Evidence) -> str:
    seeds = full_pass(done(evidence.of("scratch"))).groupby(N)["seed"].nunique()
    several = seeds[seeds > 1]
    if several.empty:
        return ""
    each = listed([f"{number} at N = {human(n)}" for n, number in several.items()])
    return f"How much a result moves with the seed, from scratch runs of several seeds: {each}."


def _beyond(evidence: Evidence) -> str:
    if not evidence.sizes:
        return ""
    corpora = evidence.students["corpus"].dropna().unique() if "corpus" in evidence.runs else []
    text = f" or for other text than {listed(list(map(str, corpora)))}" if len(corpora) else ""
    return f"What happens beyond N = {human(evidence.sizes[-1])}{text}: that is extrapolation."


def _trunks(evidence: Evidence) -> str:
    numbers = {method: n_trunks(evidence, method) for method in evidence.methods}
    few = [f"{method} {number}" for method, number in numbers.items() if number < FEW_TRUNKS]
    if not few:
        return ""
    return (
        f"Sharp intervals: token counts branch off a common trunk and are not independent, and "
        f"there are few trunks ({listed(few)}); below {FEW_TRUNKS} the intervals are rough."
    )


def _token_levels(evidence: Evidence) -> str:
    levels = one_pass(done(evidence.comparable)).groupby([evidence.students["method"], N])
    fewest = levels["n_tokens"].nunique().min() if len(levels) else 0
    if fewest >= 3:
        return ""
    return f"The exponent of D: some sizes have only {counted(int(fewest), 'token count')} in one pass."


def _margin(evidence: Evidence) -> str:
    margin = teacher_margin(evidence)
    if margin is None or margin >= TEACHER_MARGIN:
        return ""
    return (
        f"What a good teacher brings: this one leads the best scratch student by {margin:.3f} "
        f"nats, less than the {TEACHER_MARGIN:.2f} that such a study needs."
    )


def _ratios(evidence: Evidence) -> str:
    number = len(evidence.teachers)
    if number == 0:
        return "Anything about distillation: the study has no teacher."
    if number < 3:
        return (
            f"The best ratio of teacher to student: with {counted(number, 'teacher')}, size and "
            f"ratio cannot be told apart. It takes at least three, a factor of 8 apart."
        )
    return ""


def _repeats(evidence: Evidence) -> str:
    rows = repeated(done(evidence.comparable))
    if rows.empty:
        return "What repeating data costs: no run repeats its data."
    unique = rows["n_unique_tokens"].nunique()
    return (
        f"A law of repeated data: {counted(int(unique), 'amount')} of unique tokens are compared, "
        f"and the one-pass laws say nothing about repeats."
    )


def _noise(evidence: Evidence) -> str:
    noisy = int((evidence.students["noise"] > 0).sum())
    if not noisy:
        return ""
    return f"A law of noise: the {counted(noisy, 'noisy run')} appear in the table of runs only."


def _left_out(evidence: Evidence) -> str:
    statuses = evidence.students["status"].value_counts()
    parts = [f"{number} {status}" for status, number in statuses.items() if status != "done"]
    return f"Anything about runs that no law reads: {listed(parts)}." if parts else ""

