"""Which model to take under limits on what it costs: of those measured, and those a law predicts.

Every limit is an upper bound. Models that meet them all are ranked by cross-entropy; a model that
lacks a value which is limited is left out and counted. Where none meets them all, the nearest one
says by how much it misses each, and where each limit alone would have to be.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdlaws.advice.choosing.candidates import Row, measured, not_held_out, read_models
from kdlaws.advice.choosing.constraints import (
    LIMITED,
    Constraints,
    Nearest,
    check,
    meets,
    nearest,
    values,
)
from kdlaws.advice.choosing.untrained import methods_of, parts_of, predicted
from kdlaws.advice.serving import pareto
from kdlaws.errors import InputError
from kdlaws.laws import Fit, Mixture, Notice
from kdlaws.laws.artefact import Document
from kdlaws.quantities import human
from kdlaws.tables import LoadedTable

if TYPE_CHECKING:
    from pandas import DataFrame

LEVEL = 0.9  # of intervals where there is no fit, which has its own
SHOWN = 12  # rows that are printed

_SERVING = ("latency_ms", "forward_flops_per_token", "n_params", "n_params_non_embedding")
_TITLES = {  # of the numbers that are printed
    "n_params_non_embedding": "N non-emb.",
    "n_params": "N",
    "n_tokens": "D",
    "n_seeds": "seeds",
    "perplexity": "perplexity",
    "latency_ms": "latency ms",
    "prefill_ms": "prefill ms",
    "memory_mb": "peak MiB",
    "size_mb": "size MiB",
    "forward_flops_per_token": "FLOPs/token",
    "flops": "FLOPs",
}
_IF_LIMITED = {"n_params", "prefill_ms", "memory_mb", "size_mb", "flops"}


@dataclass(frozen=True)
class Recommendation(Document):
    """The models that meet all constraints, best first; ``nearest`` where none does.

    ``cost`` is the field of a row that ``pareto`` weighs against cross-entropy, ``n_models`` how
    many were looked at, ``level`` that of all intervals.
    """

    constraints: Constraints
    rows: tuple[Row, ...]
    nearest: Nearest | None
    cost: str | None
    n_models: int
    level: float
    warnings: tuple[Notice, ...]

    def __str__(self) -> str:
        limits = str(self.constraints) or "no constraint"
        lines = [f"{len(self.rows)} of {self.n_models} models meet {limits}"]
        if self.rows:
            lines += self._table()
        elif self.nearest is not None:
            lines.append(str(self.nearest))
        lines += [f"{each.code}: {each.message}\n    {each.remedy}" for each in self.warnings]
        return "\n".join(lines)

    def _table(self) -> Iterator[str]:
        limited = {LIMITED[name] for name in self.constraints.limits}
        fields = [name for name in _TITLES if name not in _IF_LIMITED - limited]
        rows = self.rows[:SHOWN]
        if len({row.teacher for row in rows} - {None}) > 1:
            fields.append("teacher")
        yield from _aligned([_cells(row, fields, self.level) for row in rows])
        if len(self.rows) > SHOWN:
            yield f"and {len(self.rows) - SHOWN} more"
        if self.cost:
            yield f"* Pareto-optimal in cross-entropy and {_TITLES[self.cost]}"


def recommend(
    runs: str | Path | LoadedTable,
    fit: Fit | Mixture | None = None,
    *,
    constraints: Constraints,
) -> Recommendation:
    """The models of ``runs`` that meet the constraints and, by ``fit``, those that would.

    ``runs`` is a study's folder, a table's file or a table. Raises TableError where no model can be
    ranked, or none has what a constraint limits, and InputError for a method that is not there or a
    law that does not predict a model from N and ``n_tokens``.
    """
    models = read_models(runs)
    _check_method(models, fit, constraints.method)
    level = LEVEL if fit is None else fit.level
    rows = measured(models, level)
    notices: list[Notice] = []
    if fit is not None:
        untrained, notices = predicted(models, fit, constraints.method, constraints.max_flops)
        rows += untrained
        notices += _of_other_text(fit)
    if constraints.method is not None:  # a teacher's own training is nobody's method
        rows = [r for r in rows if r.method == constraints.method and r.role != "teacher"]
    check(rows, constraints.limits)
    known = [row for row in rows if None not in values(row, constraints.limits)]
    best, cost = _ranked([row for row in known if meets(row, constraints.limits)])
    seen = _not_held_out({row.name for row in best} & set(not_held_out(models)))
    return Recommendation(
        constraints=constraints,
        rows=best,
        nearest=None if best else nearest(known, constraints.limits),
        cost=cost,
        n_models=len(rows),
        level=level,
        warnings=(*_missing(rows, constraints.limits), *_unsure(best, level), *seen, *notices),
    )


def _check_method(models: "DataFrame", fit: Fit | Mixture | None, method: str | None) -> None:
    known = {*models["method"].dropna(), *(methods_of(fit) if fit else ())}
    if method not in (None, *known):
        raise InputError(
            f"no model of method {method!r}",
            where="method",
            remedy=f"there are {', '.join(sorted(known))}",
        )


def _ranked(rows: Iterable[Row]) -> tuple[tuple[Row, ...], str | None]:
    """Best first, with rank and ``pareto``; and the cost that ``pareto`` weighs."""
    order = sorted(rows, key=_by_quality)
    has_all = (name for name in _SERVING if order and None not in _field(order, name))
    cost = next(has_all, None)
    costs = _field(order, cost) if cost else [0.0] * len(order)
    kept = set(pareto(costs, [row.cross_entropy for row in order]))
    ranks = enumerate(order, start=1)
    return tuple(replace(row, rank=rank, pareto=rank - 1 in kept) for rank, row in ranks), cost


def _by_quality(row: Row) -> tuple[float, float, float]:
    costs = (row.latency_ms, row.forward_flops_per_token)
    latency_ms, flops = (math.inf if cost is None else cost for cost in costs)
    return row.cross_entropy, latency_ms, flops


def _field(rows: Iterable[Row], name: str) -> list[Any]:
    return [getattr(row, name) for row in rows]


# --- warnings -----------------------------------------------------------------------------------


def _missing(rows: Sequence[Row], limits: Iterable[str]) -> Iterator[Notice]:
    for name in limits:
        n_missing = sum(values(row, [name]) == [None] for row in rows)
        if n_missing:
            what = f"{n_missing} models are left out: their {LIMITED[name]} is not known"
            yield Notice("missing_values", what, f"measure it, or recommend without {name}")


def _unsure(best: Sequence[Row], level: float) -> Iterator[Notice]:
    """Predictions before what was measured, and measured models that are too near to rank."""
    trained = [row for row in best if row.kind == "measured"]
    if best and best[0].kind != "measured":
        what = "none of these models was trained"
        if trained:
            known = f"{trained[0].name}, rank {trained[0].rank}"
            what = f"the first was not trained; the best that was is {known}"
        yield Notice("predicted_first", what, "train it before you rely on it")
    if len(trained) > 1:
        yield from _near(trained[0], trained[1], level)


def _near(first: Row, second: Row, level: float) -> Iterator[Notice]:
    difference = second.cross_entropy - first.cross_entropy
    half = [row.hi - row.cross_entropy for row in (first, second) if row.hi is not None]
    names = f"{first.name} and {second.name}, the best that were trained,"
    if len(half) < 2:
        what = f"{names} differ by {difference:.3g} nats; how surely is not known"
        yield Notice("no_interval", what, "give cross_entropy_se, or train more seeds")
    elif difference < math.hypot(*half):
        what = (
            f"{names} differ by {difference:.3g} nats, less than their {level:.0%} intervals "
            f"(±{half[0]:.2g} and ±{half[1]:.2g})"
        )
        remedy = "train more seeds, or compare them on each test sequence, whose error they share"
        yield Notice("uncertain_ranking", what, remedy)


def _not_held_out(names: Iterable[str]) -> Iterator[Notice]:
    for name in sorted(names):
        what = f"{name} comes from elsewhere and may have seen the test text"
        yield Notice("not_held_out", what, "compare it on text that is newer than the model")


def _of_other_text(fit: Fit | Mixture) -> Iterator[Notice]:
    """Of a law that was not fitted here, but published: it has no objective."""
    for part in parts_of(fit):
        if part.objective is None:
            what = f"{part.law} as published is of other text and tokens than the table's models"
            yield Notice("published_law", what, "fit runs of your own")


# --- words --------------------------------------------------------------------------------------


def _cells(row: Row, fields: Sequence[str], level: float) -> dict[str, str]:
    kind = f"{row.kind}, undertrained" if row.status == "undertrained" else row.kind
    known = row.lo is not None and row.hi is not None
    return {
        "": f"{row.rank}{'*' if row.pareto else ' '}",
        "kind": kind,
        "model": row.name,
        "method": "teacher" if row.role == "teacher" else row.method or "",
        "nats": f"{row.cross_entropy:.3f}",
        f"{level:.0%} interval": f"{row.lo:.3f} to {row.hi:.3f}" if known else "",
        **{_TITLES.get(name, name): _text(getattr(row, name)) for name in fields},
    }


def _text(value: float | str | None) -> str:
    return value or "" if isinstance(value, str | None) else human(value)


def _aligned(rows: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """Columns as wide as they need to be, without those that are empty."""
    titles = [title for title in rows[0] if any(row[title] for row in rows)]
    for row in ({title: title for title in titles}, *rows):
        cells = []
        for title in titles:
            width = max(len(title), *(len(each[title]) for each in rows))
            is_text = title in ("kind", "model", "method", "teacher")
            cells.append(row[title].ljust(width) if is_text else row[title].rjust(width))
        yield "  ".join(cells).rstrip()
