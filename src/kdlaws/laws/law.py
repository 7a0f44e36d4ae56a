"""What a law is: its parameters, the columns that it reads, its equation, where a fit begins."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kdlaws.laws.dual import Dual, FloatArray

Parameters = Mapping[str, Dual]
Columns = Mapping[str, NDArray[Any]]
Form = Callable[[Parameters, Columns], Dual]
Starts = Callable[[Columns, FloatArray], FloatArray]

N = "N"  # stands for whichever parameter count a fit reads, its ``n_column``
TEACHER_N = "teacher_N"  # the teacher's count by the same convention
D = "n_tokens"
U = "n_unique_tokens"
C = "flops"
L_T = "teacher_cross_entropy"
METHOD = "method"
SCRATCH = "scratch"  # the method of a run without a teacher
D_MID, N_MID = "D_mid", "N_mid"  # about which the alpha of the spec's law may turn with D
RATIO = "ratio"  # of teacher N to N; derived

# Bounds, far outside anything published, so that an estimate which touches one was not determined
# by the runs. Of a term: times the median cross-entropy, at the middle of the runs. Of a place on
# an axis: times the middle of the runs.
TERM = (1e-4, 1e2)
PLACE = (1e-6, 1e6)
EXPONENT = (0.01, 3.0)

MIDDLE = "middle"  # of a place on an axis: pinned at the middle of the runs


def column_of(role: str, n_column: str) -> str:
    """The table's column for a law's ``role``, where N is ``n_column``."""
    return {N: n_column, TEACHER_N: f"teacher_{n_column}"}.get(role, role)


@dataclass(frozen=True)
class Unknown:
    """A parameter of a law.

    ``kind``: a ``scale`` is positive and moves by its logarithm; an ``exponent`` and a ``real``
    move as they are. ``column`` is the one whose variation determines it, if any. ``centre``
    (exponent, column) is set for a scale that stands before column^-exponent, (1, column) for a
    place on the column's axis. ``bounds`` are of the centred parameter, a term's (``per_loss``) in
    units of the median cross-entropy. A parameter that ``needs`` another means nothing without it.
    """

    name: str
    kind: Literal["scale", "exponent", "real"]
    bounds: tuple[float, float]
    column: str | None = None
    centre: tuple[str | float, str] | None = None
    per_loss: bool = False
    needs: str | None = None

    def box(self, median: float) -> tuple[float, float]:
        """Lower and upper end of the centred coordinate."""
        lo, hi = self.bounds
        if self.kind != "scale":
            return lo, hi
        unit = median if self.per_loss else 1.0
        return float(np.log(lo * unit)), float(np.log(hi * unit))


def floor(name: str) -> Unknown:
    """What remains, in nats per token, when nothing else limits."""
    return Unknown(name, "scale", TERM, per_loss=True)


def term(name: str, power: str, column: str) -> Unknown:
    """The scale before column^-power."""
    return Unknown(name, "scale", TERM, column, (power, column), per_loss=True)


def place(name: str, column: str, bounds: tuple[float, float] = PLACE) -> Unknown:
    """Where on the axis of ``column`` something happens."""
    return Unknown(name, "scale", bounds, column, (1.0, column))


def scale(
    name: str, bounds: tuple[float, float], column: str | None, needs: str | None = None
) -> Unknown:
    """A positive parameter that is neither a term nor a place."""
    return Unknown(name, "scale", bounds, column, needs=needs)


def exponent(name: str, column: str | None) -> Unknown:
    """A power of ``column``; None for a power of the sum of terms."""
    return Unknown(name, "exponent", EXPONENT, column)


def real(
    name: str, bounds: tuple[float, float], column: str | None, needs: str | None = None
) -> Unknown:
    """A number of either sign."""
    return Unknown(name, "real", bounds, column, needs=needs)


@dataclass(frozen=True)
class Law:
    """A law, and what fitting it needs.

    ``reads`` are the columns that every run must have, ``optional`` those that are read where they
    are known. ``form`` is the equation; ``starts`` gives centred coordinates
    ``[starts, unknowns]`` for the columns' logarithms and the cross-entropies. ``fixed`` are
    parameters that are pinned (a number) or tied (another's name) unless freed. A law in two
    ``stages`` fits the first's parameters to the runs without a teacher, then freezes them.
    ``tried`` are other values of pinned parameters whose effect a fit reports, ``nested`` pinned
    parameters that it frees one at a time, to see whether they matter. ``by_method`` makes the law
    for the methods among the runs, and ``efficiency`` gives log g of a law that has one.
    """

    name: str
    equation: str
    source: str
    unknowns: tuple[Unknown, ...]
    reads: tuple[str, ...]
    form: Form
    starts: Starts
    optional: tuple[str, ...] = ()
    fixed: Mapping[str, float | str] = field(default_factory=dict)
    stages: tuple[tuple[str, ...], ...] = ()
    tried: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    nested: tuple[str, ...] = ()
    by_method: Callable[[Sequence[str]], "Law"] | None = None
    efficiency: Form | None = None

    @property
    def parameters(self) -> tuple[str, ...]:
        return tuple(unknown.name for unknown in self.unknowns)

    def columns(self, n_column: str) -> tuple[str, ...]:
        """The table columns that every run must have when N is ``n_column``."""
        return tuple(column_of(name, n_column) for name in self.reads)
