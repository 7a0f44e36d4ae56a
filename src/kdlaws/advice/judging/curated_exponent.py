"""H5: does curated text change how fast loss falls with N, or only how low it is?"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import e as EULER
from typing import TYPE_CHECKING, Any

import numpy as np

from kdlaws.advice.captions import listed
from kdlaws.advice.columns import SETTINGS
from kdlaws.advice.crossings import noise_effects
from kdlaws.advice.evidence import Evidence, done, one_pass
from kdlaws.advice.judging.grounds import Grounds
from kdlaws.advice.judging.joint import N_COLUMNS, not_identified, parameter
from kdlaws.advice.judging.known import LEVEL, Known
from kdlaws.advice.judging.verdicts import (
    BOTH_WAYS,
    LARGER,
    Claimed,
    Reading,
    Side,
    Verdict,
    by_convention,
    depends_on_n,
    reading,
    sides,
    unanimous,
    unopposed,
)
from kdlaws.errors import InputError
from kdlaws.laws import Fit, fit
from kdlaws.selection import law_columns

if TYPE_CHECKING:
    from pandas import DataFrame

BETTER = Claimed(0.1, 0.2)
FEWEST_SIZES = 3
CURATED = "curated"
"""The column of the law: e for a run on curated text and 1 for one on raw text, whose logarithms
are 1 and 0."""


@dataclass(frozen=True)
class Tiers:
    """Runs of one method on raw and on curated text, by one way to count N, and the law of both.

    ``offset`` is the law in which curation moves the size term and not its exponent; by the usual
    way to count N only.
    """

    method: str
    n_column: str
    rows: "DataFrame"
    exponent: Fit | None
    offset: Fit | None
    why: str = ""


def curated_exponent(grounds: Grounds) -> Verdict:
    """L = E + A e^(a q)/N^(alpha + d q) + B/D^beta, q = 1 on curated text: d is the improvement.

    None (a = d = 0), offset (d = 0) and exponent are nested; the interval of d says whether the
    last is needed. At least three sizes of each tier. Both ways to count N must agree; another
    method may only object. Degraded text is no curation: it is told beside, and never judged.
    """
    evidence = grounds.evidence
    order = [*evidence.distilled, *(m for m in evidence.methods if m == "scratch")]
    tiers = {m: _tiers(evidence, m) for m in order}
    found = {m: [_improvement(each) for each in both] for m, both in tiers.items() if both}
    said = [unanimous(sides(each)) for each in found.values()]
    verdict: Side = unopposed(said[0], said[1:]) if said else "undetermined"
    beside = [_offset(each) for both in tiers.values() for each in both if each.offset]
    return Verdict(
        id="H5",
        claim="Curated text improves the exponent of N by 0.1 to 0.2.",
        claimed="an exponent larger by 0.1 to 0.2 on curated than on raw text",
        verdict=verdict,
        reason=_reason(found, beside),
        would_settle="" if verdict != "undetermined" else _would_settle(found),
        readings=(*(one for each in found.values() for one in each), *beside, *_noise(evidence)),
    )


# --- the law of both tiers ----------------------------------------------------------------------


def _tiers(evidence: Evidence, method: str) -> list[Tiers]:
    """By N column; empty where the method has no curated run."""
    raw, curated = (
        _readable(evidence, rows, method) for rows in (evidence.comparable, evidence.curated)
    )
    for setting in SETTINGS:  # curated runs at the usual settings of raw ones
        usual = curated[setting].isin(set(raw[setting])) | curated[setting].isna()
        curated = curated[usual]
    return [_fitted(evidence, method, n, raw, curated) for n in N_COLUMNS] if len(curated) else []


def _readable(evidence: Evidence, rows: "DataFrame", method: str) -> "DataFrame":
    """Done runs of one pass, with the main teacher."""
    rows = done(one_pass(rows[rows["method"] == method]))
    teacher = evidence.main_teacher
    return rows if method == "scratch" or not teacher else rows[rows["teacher"] == teacher.run_id]


def _fitted(
    evidence: Evidence, method: str, n_column: str, raw: "DataFrame", curated: "DataFrame"
) -> Tiers:
    import pandas as pd

    marked = [each.assign(**{CURATED: q}) for each, q in ((raw, 1.0), (curated, EULER))]
    rows = pd.concat(marked).assign(quality="raw")  # one law describes both
    n_sizes = min(each[n_column].nunique() if n_column in each else 0 for each in (raw, curated))
    if n_sizes < FEWEST_SIZES:
        why = f"{n_sizes} sizes with runs on both curated and raw text that laws may read"
        return Tiers(method, n_column, rows, None, None, why)
    try:
        exponent, offset = _laws(evidence, n_column, rows)
    except InputError as error:
        return Tiers(method, n_column, rows, None, None, error.what)
    if not exponent.converged:
        return Tiers(method, n_column, rows, None, None, "the law of both has not converged")
    return Tiers(method, n_column, rows, exponent, offset)


def _laws(evidence: Evidence, n_column: str, rows: "DataFrame") -> tuple[Fit, Fit | None]:
    table = replace(evidence.table, frame=rows)
    read = law_columns(table, ("N", "n_tokens", CURATED), n=N_COLUMNS[n_column])
    law = _law(*(float(np.exp(np.log(read.columns[c]).mean())) for c in (n_column, "n_tokens")))
    same: dict[str, Any] = {"holdout": 0.0, "level": LEVEL, **read.arguments()}
    is_usual = n_column == next(iter(N_COLUMNS))
    offset = fit(read.columns, law, fixed={"d": 0.0}, **same) if is_usual else None
    return fit(read.columns, law, **same), offset


def _law(middle_n: float, middle_d: float) -> Callable[..., Any]:
    """The law with its terms in nats at the middle of the runs, where a is the offset."""

    def curated(  # type: ignore[no-untyped-def]
        N, n_tokens, curated, *, E=1.5, A=1.0, alpha=0.3, B=1.0, beta=0.3, a=0.0, d=0.0
    ):
        "L = E + A e^(a q)/N^(alpha + d q) + B/D^beta, q = log curated"
        q, size = np.log(curated), np.log(N / middle_n)
        term = A * np.exp(a * q - (alpha + d * q) * size)
        return E + term + B * (n_tokens / middle_d) ** -beta

    return curated


def _improvement(tiers: Tiers) -> Reading:
    known, why = _identified(tiers)
    return reading(
        f"improvement of {tiers.method}'s exponent of N by curation",
        known,
        BETTER,
        quantity="exponent_improvement",
        method=tiers.method,
        n_column=tiers.n_column,
        runs=tiers.rows["run_id"],
        note=why,
    )


def _identified(tiers: Tiers) -> tuple[Known, str]:
    """d, and why it is not known: exponents mean nothing where the floor is not known."""
    fitted = tiers.exponent
    if fitted is None:
        return Known(), tiers.why
    why, _ = not_identified(fitted, "E", "alpha", "d")
    known = parameter(fitted, "d")
    return (Known(known.value) if why else known), why


def _offset(tiers: Tiers) -> Reading:
    assert tiers.offset is not None
    found = tiers.offset.parameters["a"]
    return reading(
        f"offset of {tiers.method}'s size term by curation",
        Known(found.value, found.lo, found.hi).mapped(lambda a: float(np.expm1(a))),
        quantity="size_offset",
        unit="share",
        method=tiers.method,
        n_column=tiers.n_column,
        runs=tiers.rows["run_id"],
        note="with the exponent held: what curation takes off A/N^alpha, or adds",
    )


def _noise(evidence: Evidence) -> Iterator[Reading]:
    """Degraded text, told beside."""
    for effect in noise_effects(evidence):
        if effect.nu:
            yield reading(
                f"nu of {effect.method} with {effect.noise:.0%} of its blocks degraded",
                Known(effect.nu.x),
                quantity="noise_nu",
                method=effect.method,
                note="degrading is no curation; 1 is wasted text, more is harmful",
            )


# --- words --------------------------------------------------------------------------------------


def _reason(found: Mapping[str, list[Reading]], beside: list[Reading]) -> str:
    if not found:
        return "The study has no runs on curated text."
    parts = [f"{by_convention(each)} ({m})" for m, each in found.items()]
    offsets = {each.method: each for each in reversed(beside)}
    moved = [f"{each.known_text} ({m})" for m, each in offsets.items()]
    held = f" With the exponent held, the size term moves by {listed(moved)}." if moved else ""
    return f"What curation adds to the exponent of N is {listed(parts)}.{held}"


def _is_one_way(readings: list[Reading]) -> bool:
    """Determined by one way to count N, and not fitted by the other."""
    is_open = {each.known.is_open for each in readings}
    return is_open == {True, False} and any(each.estimate is None for each in readings)


def _would_settle(found: Mapping[str, list[Reading]]) -> str:
    if any(map(depends_on_n, found.values())):
        return LARGER
    if any(map(_is_one_way, found.values())):
        return BOTH_WAYS
    if any(each.estimate is not None for both in found.values() for each in both):
        return "More sizes, further apart, and more seeds on both raw and curated text."
    return (
        f"Runs of one method on raw and on curated text at {FEWEST_SIZES} or more sizes and token "
        "counts, trained enough for laws."
    )
