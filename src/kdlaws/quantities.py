"""Numbers as people write them: 1e6, 2M, 0.1B."""

import re
from decimal import Decimal

_EXPONENTS = {"": 0, "k": 3, "m": 6, "b": 9, "g": 9, "t": 12}
_NUMBER = re.compile(
    r"\s*([+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*([kmbgt]?)\s*", re.IGNORECASE
)


def parse_number(text: object) -> float:
    """A number, or text such as ``"1e6"``, ``"2M"``, ``"0.1B"``. Raises ValueError otherwise.

    >>> parse_number("0.1B")
    100000000.0
    """
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        return float(text)
    match = _NUMBER.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"{text!r} is not a number; numbers are written 1000, 1e6, 2M or 0.1B")
    # Decimal, for 2.01B is a whole number and 2.01 * 1e9 in floating point is not.
    return float(Decimal(match[1].replace("_", "")).scaleb(_EXPONENTS[match[2].lower()]))


def human(value: float) -> str:
    """Three significant digits with a suffix.

    >>> human(332448), human(1.2e9), human(960)
    ('332k', '1.2B', '960')
    """
    for suffix, unit in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= unit:
            return f"{value / unit:.3g}{suffix}"
    return f"{value:.3g}"
