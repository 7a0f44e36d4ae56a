"""From the columns that a caller gives to the checked numbers that a law reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdlaws.errors import TableError
from kdlaws.laws.forms import FloatArray, Law

N_COLUMNS = ("n_params_non_embedding", "n_params")


@dataclass(frozen=True)
class Runs:
    """Checked runs: positive columns and cross-entropy, each ``[runs]``, and their clusters.

    ``cluster [runs]`` numbers the trunk of each run from 0, or the runs where none is given.
    """

    columns: Mapping[str, FloatArray]
    cross_entropy: FloatArray
    cluster: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.cross_entropy)

    def __getitem__(self, rows: NDArray[np.int64]) -> "Runs":
        columns = {name: values[rows] for name, values in self.columns.items()}
        cluster = np.unique(self.cluster[rows], return_inverse=True)[1]
        return Runs(columns, self.cross_entropy[rows], cluster)


def read_runs(
    columns: Mapping[str, ArrayLike], law: Law, n_column: str, trunk: Sequence[str] | None
) -> Runs:
    """What ``law`` and the compute-only baseline read, checked; TableError says what is wrong."""
    cross_entropy = _positive(columns, "cross_entropy")
    if cross_entropy.ndim != 1:
        raise TableError("runs are one row each", where="cross_entropy", remedy="give a column")
    wanted = dict.fromkeys((*law.reads(n_column), "flops"))
    parts = {name: columns[name] for name in (*wanted, n_column, "n_tokens") if name in columns}
    _check_lengths(len(cross_entropy), parts if trunk is None else {**parts, "trunk": trunk})
    read = {name: read_column(columns, name, n_column) for name in wanted}
    labels = np.arange(len(cross_entropy)) if trunk is None else np.asarray(trunk, dtype=str)
    return Runs(read, cross_entropy, np.unique(labels, return_inverse=True)[1])


def _check_lengths(n_runs: int, columns: Mapping[str, ArrayLike]) -> None:
    for name, values in columns.items():
        if np.shape(values) != (n_runs,):
            raise TableError(
                f"{np.size(values)} values for {n_runs} values of cross_entropy",
                where=name,
                remedy="give one value for each run",
            )


def read_column(
    columns: Mapping[str, ArrayLike], name: str, n_column: str, *, derive_flops: bool = True
) -> FloatArray:
    """A law's column as positive float64; an absent ``flops`` is 6*N*D if it may be derived."""
    if name == "flops" and name not in columns and derive_flops:
        # float64 first: 6*N*D silently overflows int64.
        return 6.0 * _positive(columns, n_column) * _positive(columns, "n_tokens")
    return _positive(columns, name)


def _positive(columns: Mapping[str, ArrayLike], name: str) -> FloatArray:
    if name not in columns:
        raise TableError("the column is missing", where=name, remedy=_missing(columns, name))
    try:
        values = np.asarray(columns[name], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TableError(f"not numbers ({error})", where=name, remedy="give numbers") from error
    wrong = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
    if len(wrong):
        raise TableError(
            f"{len(wrong)} of {values.size} values are not finite and positive: "
            + ", ".join(f"{values.flat[row]:g} in row {row}" for row in wrong[:5]),
            where=name,
            remedy="leave these runs out, or correct them (rows count from 0)",
        )
    return values


def _missing(columns: Mapping[str, ArrayLike], name: str) -> str:
    other = [n for n in N_COLUMNS if n in columns]
    if name in N_COLUMNS and other:
        return f"{other[0]} is another parameter count, and no substitute: ask for it by n_column"
    return f"there are: {', '.join(columns) or 'no columns'}"
