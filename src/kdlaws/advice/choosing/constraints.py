"""Limits on what a model costs: which models meet them, and how far the nearest one is from it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from kdlaws.advice.choosing.candidates import Row
from kdlaws.errors import InputError, TableError
from kdlaws.quantities import human, parse_number

ROUNDING = 1 + 1e-9  # a value this far above its limit is at it
LIMITED = {  # the field of a row that each constraint limits
    "max_latency_ms": "latency_ms",
    "max_prefill_ms": "prefill_ms",
    "max_params": "n_params",
    "max_params_non_embedding": "n_params_non_embedding",
    "max_memory_mb": "memory_mb",
    "max_size_mb": "size_mb",
    "max_perplexity": "perplexity",
    "max_flops_per_token": "forward_flops_per_token",
    "max_flops": "flops",
}
_COLUMNS = {  # of the table, where they have other names
    "max_latency_ms": "decode_ms_p50 (of masked models: prefill_ms_p50)",
    "max_prefill_ms": "prefill_ms_p50",
    "max_memory_mb": "peak_memory_mb",
    "max_flops": "student_flops with its teacher_inference_flops",
}


@dataclass(frozen=True)
class Constraints:
    """Upper bounds; None is no bound. ``method`` leaves the models of that method only.

    Latency is of decoding a token, or of reading a whole prompt by a masked model, which decodes
    nothing. ``max_flops`` is the training budget of one student, its teacher's outputs included.
    InputError for a bound that is not positive.
    """

    max_latency_ms: float | None = None
    max_prefill_ms: float | None = None
    max_params: float | None = None
    max_params_non_embedding: float | None = None
    max_memory_mb: float | None = None
    max_size_mb: float | None = None
    max_perplexity: float | None = None
    max_flops_per_token: float | None = None
    max_flops: float | None = None
    method: str | None = None

    def __post_init__(self) -> None:
        for name, limit in self.limits.items():
            if not (math.isfinite(limit) and limit > 0):
                raise InputError(f"{limit:g} is no limit", where=name, remedy="give more than 0")

    @classmethod
    def of(cls, given: Mapping[str, str | float]) -> "Constraints":
        """From names and values as people write them, such as ``max_params=2M``.

        InputError for a name that is no constraint, or a value that is no number.
        """
        names = [entry.name for entry in fields(cls)]
        for name in given:
            if name not in names:
                remedy = f"the constraints are {', '.join(names)}"
                raise InputError("there is no such constraint", where=name, remedy=remedy)
        return cls(**{name: _value(name, value) for name, value in given.items()})

    @property
    def limits(self) -> dict[str, float]:
        """The bounds that are given, by name."""
        given = {name: getattr(self, name) for name in LIMITED}
        return {name: limit for name, limit in given.items() if limit is not None}

    def __str__(self) -> str:
        limits = [f"{name}={human(limit)}" for name, limit in self.limits.items()]
        return ", ".join([*limits, *([f"method={self.method}"] if self.method else [])])


def _value(name: str, value: str | float) -> Any:
    if name == "method":
        return value
    try:
        return parse_number(value)
    except ValueError as error:
        raise InputError(str(error), where=name, remedy="give a number") from None


@dataclass(frozen=True)
class Miss:
    """A constraint and the nearest model: ``factor`` is value / limit.

    With the other constraints as they are, ``relaxed`` is the least limit that a model would meet,
    and ``admits`` that model; None where there is none.
    """

    value: float
    limit: float
    factor: float
    relaxed: float | None
    admits: str | None

    def __str__(self) -> str:
        is_met = self.factor <= ROUNDING
        amount = "within" if is_met else f"{self.factor:.3g} times"
        text = f"{human(self.value)} is {amount} the limit of {human(self.limit)}"
        if self.relaxed is None:
            return f"{text}; relaxed alone, it admits no model"
        return f"{text}; relaxed alone to {human(self.relaxed)}, it admits {self.admits}"


@dataclass(frozen=True)
class Nearest:
    """The model whose worst factor beyond a limit is the smallest."""

    row: Row
    constraints: Mapping[str, Miss]

    def __str__(self) -> str:
        row = self.row
        lines = [f"the nearest is {row.name} ({row.kind}), {row.cross_entropy:.3f} nats"]
        for name, miss in self.constraints.items():
            lines.append(f"  {name}: {miss}")
        return "\n".join(lines)


def check(rows: Sequence[Row], limits: Mapping[str, float]) -> None:
    """TableError where nothing can be ranked, or a limit is on what no model has."""
    if not rows:
        raise TableError(
            "there is no model to recommend",
            where="cross_entropy",
            remedy="a model is a run that is done or undertrained, on clean text, and evaluated",
        )
    has = [name for name in LIMITED if any(values(row, [name]) != [None] for row in rows)]
    for name in limits:
        if name not in has:
            raise TableError(
                f"no model has {_COLUMNS.get(name, LIMITED[name])}, which it limits",
                where=name,
                remedy=f"what there is can be limited by {', '.join(has)}",
            )


def values(row: Row, names: Iterable[str]) -> list[Any]:
    """What the constraints limit, None where it is not known."""
    return [getattr(row, LIMITED[name]) for name in names]


def meets(row: Row, limits: Mapping[str, float]) -> bool:
    pairs = zip(values(row, limits), limits.values(), strict=True)
    return all(value <= limit * ROUNDING for value, limit in pairs)


def nearest(rows: Sequence[Row], limits: Mapping[str, float]) -> Nearest | None:
    """None where every model lacks a value that is limited."""
    if not rows:
        return None

    def distance(row: Row) -> tuple[float, float]:
        pairs = zip(values(row, limits), limits.values(), strict=True)
        return max(value / limit for value, limit in pairs), row.cross_entropy

    row = min(rows, key=distance)
    return Nearest(row, {name: _miss(row, rows, limits, name) for name in limits})


def _miss(row: Row, rows: Iterable[Row], limits: Mapping[str, float], name: str) -> Miss:
    others = {other: limit for other, limit in limits.items() if other != name}
    [value], limit = values(row, [name]), limits[name]
    admitted = [
        (*values(each, [name]), each.cross_entropy, each.name)
        for each in rows
        if meets(each, others)
    ]
    relaxed, _, admits = min(admitted, default=(None, None, None))
    return Miss(value, limit, value / limit, relaxed, admits)
