"""Cells of studies whose losses lie on a known law, for tests that need every number."""

import math
from collections.abc import Callable, Iterable
from typing import Any

from kdlaws.advice.evidence import Evidence

SIZES = (12_576, 98_112, 332_448, 791_680, 1_532_160)
TOKENS = (231_000, 406_000, 700_000)
OWN_SE = 0.002
"""Standard error over sequences of what a run has alone; a difference of two has root 2 of it."""

Cell = dict[str, Any]
StudyOf = Callable[..., Evidence]
Loss = Callable[[float, float], float]


def ladder(method: str, loss: Loss, sizes: Iterable[int] = range(5), **columns: Any) -> list[Cell]:
    """One clean pass at every size and token count."""
    return [
        {
            "method": method,
            "size": size,
            "n_tokens": tokens,
            "cross_entropy": loss(SIZES[size], tokens),
            **columns,
        }
        for size in sizes
        for tokens in TOKENS
    ]


def straight(n_params: float, n_tokens: float) -> float:
    """Exactly .15 nats less with each doubling of N and .25 with each of D."""
    return 8 - 0.15 * math.log2(n_params) - 0.25 * math.log2(n_tokens / 231_000)
