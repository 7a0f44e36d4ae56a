"""Curated text against raw: the same run on the better part of its text."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdlaws.advice.captions import listed, percent
from kdlaws.advice.columns import SETTINGS, N
from kdlaws.advice.contrasts import Estimate, contrast, independent
from kdlaws.advice.evidence import Evidence, by_size, final
from kdlaws.advice.findings import gain_terms, seed_noise
from kdlaws.advice.teachers import Teacher
from kdlaws.quantities import human

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class CurationEffect:
    """What a method gains from curated text: raw minus curated cross-entropy by N, nats.

    ``kept`` is the share of the text that curation leaves, NaN where it is not recorded.
    ``n_tokens`` are those of the curated and of the raw run, by N: an equal fraction of less text
    is fewer tokens.
    """

    method: str
    teacher: Teacher | None
    fraction: float
    kept: float
    ahead: Mapping[float, Estimate]
    n_tokens: Mapping[float, tuple[float, float]]

    @property
    def label(self) -> str:
        return f"{self.method}, {self.teacher.label}" if self.teacher else self.method


def curation_effects(evidence: Evidence) -> list[CurationEffect]:
    """Every curated run beside the raw run of its size, method, settings, fraction and seed."""
    return [effect for fraction in evidence.fractions for effect in _effects(evidence, fraction)]


def _effects(evidence: Evidence, fraction: float) -> Iterator[CurationEffect]:
    curated, raw = (
        final(evidence, rows, fraction) for rows in (evidence.curated, evidence.comparable)
    )
    keys = ["method", "teacher", N, "seed", *SETTINGS]
    pairs = raw.merge(curated.dropna(subset=["seed"]), on=keys, suffixes=("_scratch", ""))
    for _, rows in pairs.groupby(["method", "teacher", "kept"], dropna=False):
        first, by_n = rows.iloc[0], by_size(rows)
        yield CurationEffect(
            method=str(first["method"]),
            teacher=next(
                (each for each in evidence.teachers if each.run_id == first["teacher"]), None
            ),
            fraction=fraction,
            kept=float(first["kept"]),
            ahead={n: _ahead(evidence, each, fraction) for n, each in by_n.items()},
            n_tokens={n: _tokens(each) for n, each in by_n.items()},
        )


def _ahead(evidence: Evidence, pairs: "DataFrame", fraction: float) -> Estimate:
    """The runs read different text, so a shared seed does not make their noise common."""
    terms = gain_terms(pairs)
    return contrast(evidence, terms, seed_noise(evidence, fraction), independent(terms))


def _tokens(pairs: "DataFrame") -> tuple[float, float]:
    return float(pairs["n_tokens"].mean()), float(pairs["n_tokens_scratch"].mean())


def curation_sentence(effect: CurationEffect) -> str:
    """What curated text brought, at each N."""
    part = "a part" if math.isnan(effect.kept) else f"the {percent(effect.kept)}"
    ahead = [f"{each} nats (N = {human(n)})" for n, each in effect.ahead.items()]
    curated, raw = map(_range, zip(*effect.n_tokens.values(), strict=True))
    return (
        f"At {percent(effect.fraction)} of the data, {effect.label} on {part} of its text that "
        f"curation kept is ahead of raw text by {listed(ahead)}, after {curated} tokens "
        f"instead of {raw}."
    )


def _range(amounts: tuple[float, ...]) -> str:
    return " to ".join(dict.fromkeys([human(min(amounts)), human(max(amounts))]))
