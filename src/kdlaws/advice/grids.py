"""The page's tables, as plain data: laws, gains, slopes, seeds, runs."""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdlaws.advice.captions import counted, listed, percent
from kdlaws.advice.columns import N
from kdlaws.advice.curation import curation_effects
from kdlaws.advice.evidence import Evidence
from kdlaws.advice.findings import (
    data_slopes,
    gain,
    paired_noise,
    seed_noise,
    size_exponent,
    size_slope,
)
from kdlaws.advice.story import bracketed
from kdlaws.laws import LAWS, Fit, Parameter
from kdlaws.quantities import human

N_NAMES = {N: "non-embedding parameters", "n_params": "all parameters"}

Cell = str | tuple[str, str]
"""Text, or text with its CSS class."""


@dataclass(frozen=True)
class Table:
    title: str
    note: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def gain_table(evidence: Evidence) -> Table:
    """Scratch minus distilled, a column a method and amount of data."""
    found = {
        (method, fraction): g
        for method in evidence.distilled
        for fraction in evidence.fractions
        if (g := gain(evidence, method, fraction))
    }
    head = ["N", *(f"{method}, {percent(fraction)}" for method, fraction in found)]
    rows: list[list[Cell]] = [
        [human(n), *(str(g.by_size.get(n, "–")) for g in found.values())] for n in evidence.sizes
    ]
    rows.append(["mean", *(str(g.mean) for g in found.values())])
    repeats = [percent(f) for f in evidence.fractions if f not in evidence.single_passes]
    where = "below 100 %" if 1.0 in evidence.single_passes else f"at {listed(repeats)}"
    note = (
        f"scratch minus distilled, nats {evidence.per_token}, at equal size, text and seed; ± one "
        f"paired standard error over test sequences and seeds; {where} each at its best epochs"
    )
    return Table("Ahead of scratch", note, head, rows if found else [])


def slope_table(evidence: Evidence) -> Table:
    """Per doubling: of N at each amount of data, of D at each N."""
    rows: list[list[Cell]] = []
    for fraction in evidence.fractions:
        slopes = [size_slope(evidence, m, fraction) for m in evidence.methods]
        if any(slopes):
            label = f"of N, at {percent(fraction)} of the data"
            rows.append([label, *(bracketed(each) if each else "–" for each in slopes)])
    exponents = [size_exponent(evidence, m) for m in evidence.methods]
    if any(exponents):
        row = [bracketed(each, 4) if each else "–" for each in exponents]
        rows.append([f"effective exponent of N at {percent(evidence.largest_fraction)}", *row])
    by_method = [data_slopes(evidence, m) for m in evidence.methods]
    for n in evidence.sizes:
        found = [each.get(n) for each in by_method]
        if any(found):
            label = f"of D in one pass, at N = {human(n)}"
            rows.append([label, *(bracketed(each) if each else "–" for each in found)])
    note = (
        f"least-squares slope of cross-entropy on log2, nats {evidence.per_token}, with 95 % "
        "intervals; those of N over the sizes that all methods share at that amount of data; the "
        "effective exponent is minus the slope of log cross-entropy on log N, no offset taken off"
    )
    return Table("Each doubling", note, ["", *evidence.methods], rows)


def seed_table(evidence: Evidence) -> Table:
    """Standard deviations over seeds, of runs and of paired differences."""
    rows: list[list[Cell]] = []
    for fraction in evidence.fractions:
        for what, noise in (
            ("one run", seed_noise(evidence, fraction)),
            ("scratch minus distilled", paired_noise(evidence, fraction)),
        ):
            if noise:
                low, high = noise.interval()
                interval = f"{noise.sigma:.4f} [{low:.4f}, {high:.4f}]"
                rows.append([f"{what}, at {percent(fraction)}", interval, f"{noise.df}"])
    note = (
        f"standard deviation in nats {evidence.per_token}, pooled over what was repeated; "
        "90 % intervals"
    )
    return Table("Over seeds", note, ["", "sigma", "degrees of freedom"], rows)


def curation_table(evidence: Evidence) -> Table:
    """Raw minus curated, at each N, method, teacher and amount of data."""
    rows: list[list[Cell]] = [
        [
            effect.label,
            percent(effect.fraction),
            "–" if math.isnan(effect.kept) else percent(effect.kept),
            human(n),
            *(human(tokens) for tokens in effect.n_tokens[n]),
            str(each),
        ]
        for effect in curation_effects(evidence)
        for n, each in effect.ahead.items()
    ]
    note = (
        f"raw minus curated, nats {evidence.per_token}, at equal size, method, settings, fraction "
        "and seed, each after as many tokens as it was trained on; positive: curated is ahead; ± "
        "one standard error over test sequences and seeds"
    )
    head = ["", "data", "kept", "N", "curated tokens", "raw tokens", "curated ahead of raw"]
    return Table("Curated against raw text", note, head, rows)


def law_table(evidence: Evidence, law: str) -> Table:
    """Methods side by side: the parameters with their intervals, then how well the law holds."""
    fits = {method: evidence.fit(law, method) for method in evidence.methods}
    found = [each for each in fits.values() if each]
    levels = listed(sorted({percent(each.level) for each in found})) or "no"
    reads = listed(sorted({N_NAMES[each.n_column] for each in found})) or "not fitted"
    parameters = LAWS[law].parameters if found else ()
    rows: list[list[Cell]] = [
        [name, *(_estimate(each.parameters[name]) if each else "–" for each in fits.values())]
        for name in parameters
    ]
    rows += [
        [label, *(value(each) if each else "–" for each in fits.values())]
        for label, value in _QUALITIES.items()
    ]
    note = f"{LAWS[law].equation}; N: {reads}; {levels} intervals in brackets"
    return Table(law, note, ["", *fits], rows)


def _estimate(parameter: Parameter) -> Cell:
    lo, hi = ("open" if end is None else f"{end:.3g}" for end in (parameter.lo, parameter.hi))
    text = f"{parameter.value:.3g} [{lo}, {hi}]"
    return text if parameter.identified else (f"{text} not identified", "vague")


def _held_out(fit: Fit, name: str) -> str:
    value = getattr(fit.holdout, name, None)
    return "–" if value is None else f"{value:.2f} %"


def _coverage(fit: Fit) -> str:
    held = fit.holdout
    if held is None or held.coverage_90 is None:
        return "–"
    return f"{percent(held.coverage_90)} of {held.n_test}"


_QUALITIES: dict[str, Callable[[Fit], Cell]] = {
    "runs": lambda fit: str(fit.n_runs),
    "held-out error": lambda fit: _held_out(fit, "mape"),
    "same, power law in compute": lambda fit: _held_out(fit, "baseline_mape"),
    "held-out runs inside 90 %": _coverage,
    "starts that agree": lambda fit: percent(fit.starts_agree or 0.0),
    "converged": lambda fit: "yes" if fit.converged else ("no", "vague"),
}


def run_table(evidence: Evidence) -> Table:
    head = [
        *("method", "N", "data", "noise", "tokens", "epochs", "seed", "teacher N"),
        *("cross-entropy", "± se", "perplexity", "status"),
    ]
    runs = evidence.runs.sort_values(["role", "method", N, "fraction", "n_tokens", "seed"])
    rows = [_run_row(each) for each in runs.to_dict("records")]
    note = (
        f"cross-entropy on the test split, nats {evidence.per_token}; N without embeddings; "
        "• best epochs"
    )
    return Table(counted(len(rows), "run"), note, head, rows)


def _run_row(run: Mapping[Hashable, Any]) -> list[Cell]:
    is_teacher = run["role"] == "teacher"
    chosen = " •" if run["selected"] and run["epochs"] > 1 else ""
    return [
        "teacher" if is_teacher else str(run["method"]),
        _known(run[N], human),
        _known(run["fraction"], percent),
        _known(run["noise"] or float("nan"), percent),
        _known(run["n_tokens"], human),
        _known(run["epochs"], lambda value: f"{value:.3g}{chosen}"),
        _known(run["seed"], lambda value: f"{value:.0f}"),
        _known(run["teacher_n_params_non_embedding"], human),
        _known(run["cross_entropy"], lambda value: f"{value:.3f}"),
        _known(run["cross_entropy_se"], lambda value: f"{value:.3f}"),
        _known(run["perplexity"], lambda value: f"{value:.1f}"),
        str(run["status"]) if run["status"] == "done" else (str(run["status"]), "vague"),
    ]


def _known(value: float, written: Callable[[float], str]) -> str:
    return "–" if value != value else written(value)
