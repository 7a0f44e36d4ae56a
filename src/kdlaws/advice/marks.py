"""From runs to the points and curves of a figure."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kdlaws.advice.columns import N
from kdlaws.advice.evidence import done, undertrained
from kdlaws.advice.picture import COLOURS, MARKERS, Curve, Series
from kdlaws.laws import Fit

if TYPE_CHECKING:
    from pandas import DataFrame


def points(
    rows: "DataFrame",
    x: str,
    kind: str,
    *,
    y: str = "cross_entropy",
    label: str = "",
    size: float = 5.5,
) -> Iterator[Series]:
    """The rows that laws read as solid points, then those that are undertrained as hollow ones."""
    known = rows[rows[x].notna() & rows[y].notna()].sort_values(x)
    for each, hollow in ((done(known), False), (undertrained(known), True)):
        if len(each):
            yield Series(
                f"{label}, undertrained" if label and hollow else label,
                floats(each[x]),
                floats(each[y]),
                error=floats(each["cross_entropy_se"]) if y == "cross_entropy" else (),
                colour=colour(kind),
                marker=MARKERS.get(kind, "o"),
                hollow=hollow,
                size=size,
            )


def curve(
    fit: Fit | None,
    rows: "DataFrame",
    along: str,
    fixed: Mapping[str, float],
    label: str,
    method: str,
) -> Curve:
    """The law with its band where its runs are; without a law or its runs, the means joined."""
    read = done(rows)
    if fit is None or fit.n_column != N or read.empty:
        means = rows.groupby(along)["cross_entropy"].mean()
        return Curve(label, floats(means.index), floats(means), colour=colour(method))
    x: NDArray[np.float64] = np.geomspace(read[along].min(), read[along].max(), 60)
    columns = {along: x} | {name: np.full_like(x, value) for name, value in fixed.items()}
    band = [floats(end) for end in fit.band(columns) if np.isfinite(end).all()]
    lo, hi = band if len(band) == 2 else ((), ())
    y = floats(fit.predict(columns))
    return Curve(label, floats(x), y, lo, hi, colour=colour(method))


def colour(kind: str) -> str:
    return kind if kind in COLOURS else "other"


def floats(values: Iterable[Any]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
