"""The frontier of perplexity against the cost of serving, of every model that a study made."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from kdlaws.advice import captions
from kdlaws.advice.columns import N
from kdlaws.advice.evidence import Evidence, done, measured, one_pass, repeated
from kdlaws.advice.marks import floats, points
from kdlaws.advice.picture import Axis, Figure, Panel, Series
from kdlaws.quantities import human

if TYPE_CHECKING:
    from pandas import DataFrame

FLOPS = "forward_flops_per_token"


def costs(evidence: Evidence) -> dict[str, str]:
    """The columns that the frontier is drawn against, named. A masked model decodes nothing."""
    if evidence.is_masked:
        return {
            FLOPS: "forward FLOPs per input token",
            "prefill_ms_p50": "prefill latency, p50 (ms, batch 1)",
        }
    return {
        FLOPS: "forward FLOPs per token",
        "decode_ms_p50": "decode latency, p50 (ms per token, batch 1)",
    }


def frontier(evidence: Evidence) -> Figure:
    models = _models(evidence)
    priced = measured(models[models[FLOPS].notna()])
    return Figure(
        name="frontier",
        title="Perplexity against the cost of serving",
        caption=captions.frontier(evidence, priced, cheapest(done(priced), FLOPS)),
        panels=tuple(_panel(evidence, models, *cost) for cost in costs(evidence).items()),
        columns=2,
        legend=True,
        panel_inches=(4.6, 3.9),
    )


def _models(evidence: Evidence) -> "DataFrame":
    """Students on clean data, trunks that repeat it at their best epochs, and the teachers."""
    runs, students = evidence.runs, evidence.comparable
    chosen = one_pass(students).index.union(repeated(students).index)
    return runs[runs.index.isin(chosen) | (runs["role"] == "teacher")]


def cheapest(models: "DataFrame", cost: str) -> "DataFrame":
    """The Pareto-optimal models in ``cost`` and perplexity, cheapest first."""
    return models.iloc[pareto(list(models[cost]), list(models["perplexity"]))]


def _panel(evidence: Evidence, models: "DataFrame", cost: str, label: str) -> Panel:
    models = models[models[cost].notna()]
    made_by = models["method"].where(models["role"] != "teacher", "teacher")
    series: list[Series] = []
    for kind in (*evidence.methods, "teacher"):
        rows = models[made_by == kind]
        series += points(rows, cost, kind, y="perplexity", label=kind, size=4.5)
    unit = f" ({evidence.per_token})" if evidence.is_masked else ""
    return Panel(
        title="",
        x=Axis(label, log=True),
        y=Axis(f"test perplexity{unit}", log=True),
        series=(*series, *_pareto_series(done(models), cost)),
        missing="" if series else f"the table has no {label}",
    )


def _pareto_series(models: "DataFrame", cost: str) -> Iterator[Series]:
    chosen = cheapest(models, cost)
    if len(chosen):
        yield Series(
            "Pareto-optimal, with its N",
            floats(chosen[cost]),
            floats(chosen["perplexity"]),
            hollow=True,
            size=10,
            join="steps",
            names=tuple(human(n) for n in chosen[N]),
        )


def pareto(x: Sequence[float], y: Sequence[float]) -> list[int]:
    """Indices, in ascending x, of the points that none other matches in x and y and beats in one.

    Both are costs. Of equal points the first is kept.
    """
    kept: list[int] = []
    for index in sorted(range(len(x)), key=lambda i: (x[i], y[i])):
        if not kept or y[index] < y[kept[-1]]:
            kept.append(index)
    return kept
