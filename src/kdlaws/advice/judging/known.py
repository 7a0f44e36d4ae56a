"""Estimates with 90 % intervals whose ends may be unknown, and how people read them."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from kdlaws.advice.contrasts import Estimate
from kdlaws.quantities import human

LEVEL = 0.9


@dataclass(frozen=True)
class Known:
    """An estimate and its 90 % interval; None is not known, of an end: not bounded by the runs."""

    value: float | None = None
    lo: float | None = None
    hi: float | None = None

    @classmethod
    def of(cls, estimate: Estimate | None) -> "Known":
        """Without an interval where seeds are unknown, which move runs more than test texts do."""
        if estimate is None:
            return cls()
        if math.isnan(estimate.se_seeds):
            return cls(estimate.value)
        lo, hi = (_finite(end) for end in estimate.interval(LEVEL))
        return cls(estimate.value, lo, hi)

    def mapped(self, rising: Callable[[float], float]) -> "Known":
        """Of a rising function of it."""
        ends = (None if x is None else _finite(rising(x)) for x in (self.value, self.lo, self.hi))
        return Known(*ends)

    def over(self, other: "Known") -> "Known":
        """Of it over another one, both positive; exact where either has no width."""
        pairs = ((self.value, other.value), (self.lo, other.hi), (self.hi, other.lo))
        return Known(*(None if x is None or y is None else x / y for x, y in pairs))

    def negated(self) -> "Known":
        return Known(*(None if x is None else -x for x in (self.value, self.hi, self.lo)))

    def clipped(self, lo: float, hi: float) -> "Known":
        """Without what lies outside the measured range: nothing is told there.

        An estimate outside it leaves a bound, if its whole interval lies there, too.
        """
        if self.hi is not None and self.hi < lo:
            return Known(None, None, lo)
        if self.lo is not None and self.lo > hi:
            return Known(None, hi, None)
        ends = (x if x is not None and lo <= x <= hi else None for x in (self.lo, self.hi))
        return Known(self.value, *ends)

    @property
    def is_open(self) -> bool:
        """Neither end is bounded."""
        return self.lo is None and self.hi is None

    def sign(self) -> int:
        """1 or -1 where the whole interval is on one side of zero, else 0."""
        if self.lo is not None and self.lo > 0:
            return 1
        return -1 if self.hi is not None and self.hi < 0 else 0


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


# --- words --------------------------------------------------------------------------------------


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


_LARGE = ("tokens", "FLOPs", "N")


def shown(known: Known, unit: str = "") -> str:
    """``6.2 [5.8, 6.7]``; of an end that is not bounded ``open``; of a bound ``more than 3.1``.

    >>> shown(Known(0.352, 0.3, 0.401), "share"), shown(Known(None, 3.14, None))
    ('35.2 % [30.0, 40.1]', 'more than 3.14')
    """
    if known.value is None:
        return _bound(known, unit)
    value = number(known.value, unit)
    if known.is_open:
        return f"{value} (no interval)"
    decimals = _decimals(known.value, unit)
    ends = ("open" if x is None else _bare(x, unit, decimals) for x in (known.lo, known.hi))
    return f"{value} [{', '.join(ends)}]"


def _bound(known: Known, unit: str) -> str:
    for word, end in (("more than", known.lo), ("less than", known.hi)):
        if end is not None:
            return f"{word} {number(end, unit)}"
    return "unknown"


def number(value: float, unit: str = "") -> str:
    """Three significant digits; a share in percent, amounts with a suffix."""
    bare = _bare(value, unit, _decimals(value, unit))
    return f"{bare} %" if unit == "share" else bare


def _decimals(value: float, unit: str) -> int:
    """After the point, for three significant digits."""
    size = abs(100 * value if unit == "share" else value)
    return max(0, 2 - math.floor(math.log10(size))) if size else 2


def _bare(value: float, unit: str, decimals: int) -> str:
    if unit in _LARGE:
        return human(value)
    return f"{100 * value if unit == 'share' else value:.{decimals}f}"
