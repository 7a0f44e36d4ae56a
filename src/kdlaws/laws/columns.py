"""From the columns that a caller gives to the checked logarithms that a law reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdlaws.errors import TableError
from kdlaws.laws.dual import FloatArray
from kdlaws.laws.law import L_T, METHOD, RATIO, SCRATCH, TEACHER_N, C, D, Law, N, column_of

N_COLUMNS = ("n_params_non_embedding", "n_params")


@dataclass(frozen=True)
class Runs:
    """Checked runs: what a law reads, cross-entropy, and which runs share a trunk, each ``[runs]``.

    ``x`` holds logarithms under the names of ``law``, NaN where an optional column is unknown, and
    the methods as text. ``cluster`` numbers the trunks from 0; without trunks it numbers the runs.
    """

    x: Mapping[str, NDArray[Any]]
    cross_entropy: FloatArray
    cluster: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.cross_entropy)

    def knows_methods_of(self, other: "Runs") -> bool:
        """Whether a law that is joint over methods, fitted to these, knows those of ``other``."""
        return METHOD not in self.x or set(other.x[METHOD]) <= set(self.x[METHOD])

    def __getitem__(self, rows: NDArray[Any]) -> "Runs":
        x = {name: values[rows] for name, values in self.x.items()}
        cluster = np.unique(self.cluster[rows], return_inverse=True)[1]
        return Runs(x, self.cross_entropy[rows], cluster)

    @property
    def log_y(self) -> FloatArray:
        return np.log(self.cross_entropy)

    @property
    def by_compute(self) -> NDArray[np.int64]:
        """Rows in order of FLOPs; runs that differ by rounding alone keep their order."""
        return np.argsort(np.round(self.x[C], 9), kind="stable")

    @property
    def n_clusters(self) -> int:
        """Number of trunks, or of runs where they share none."""
        return int(self.cluster.max(initial=-1)) + 1

    @property
    def share_trunks(self) -> bool:
        """Whether some runs have a trunk in common."""
        return self.n_clusters < len(self)


def read_runs(
    columns: Mapping[str, ArrayLike], law: Law, n_column: str, trunk: Sequence[str] | None
) -> Runs:
    """What ``law`` and the compute-only baseline read, checked; TableError says what is wrong."""
    cross_entropy = positive(columns, "cross_entropy")
    if cross_entropy.ndim != 1:
        raise TableError("runs are one row each", where="cross_entropy", remedy="give a column")
    roles = (*law.reads, *law.optional, N, D, C)
    names = {column_of(role, n_column) for role in roles}
    parts = {name: columns[name] for name in columns if name in names}
    check_lengths(len(cross_entropy), parts if trunk is None else {**parts, "trunk": trunk})
    x = log_columns(columns, law, n_column, with_flops=True)
    for role in (N, D):  # how FLOPs were counted, where that can be seen
        if role not in x and _all_positive(columns, column_of(role, n_column)):
            x[role] = np.log(positive(columns, column_of(role, n_column)))
    _check_teachers(law, x)
    labels = np.arange(len(cross_entropy)) if trunk is None else np.asarray(trunk, dtype=str)
    return Runs(x, cross_entropy, np.unique(labels, return_inverse=True)[1])


def _all_positive(columns: Mapping[str, ArrayLike], name: str) -> bool:
    if name not in columns:
        return False
    values = _numbers(columns[name], name)
    return bool((np.isfinite(values) & (values > 0)).all())


def _check_teachers(law: Law, x: Mapping[str, NDArray[Any]]) -> None:
    """A run of another method than scratch is of a teacher, and a joint law reads which."""
    if METHOD not in x:
        return
    role = L_T if L_T in law.optional else TEACHER_N
    rows = np.flatnonzero((x[METHOD] != SCRATCH) & ~np.isfinite(x[role]))
    if len(rows):
        raise TableError(
            f"{len(rows)} runs do not say which teacher: row {', '.join(map(str, rows[:5]))}",
            where=f"law {law.name}",
            remedy=f"give their {role.replace('teacher_N', 'teacher N')}, or leave them out "
            "(rows count from 0, as fitted)",
        )


def log_columns(
    columns: Mapping[str, ArrayLike],
    law: Law,
    n_column: str,
    *,
    with_flops: bool = False,
    derive_flops: bool = True,
) -> dict[str, NDArray[Any]]:
    """The law's columns by its own names, logarithms broadcast to one shape."""
    wanted = dict.fromkeys((*law.reads, *([C] if with_flops else [])))
    x: dict[str, NDArray[Any]] = {}
    for name in wanted:
        column = column_of(name, n_column)
        x[name] = np.log(read_column(columns, column, n_column, derive_flops=derive_flops))
    for name in law.optional:
        column = column_of(name, n_column)
        x[name] = _method(columns) if name == METHOD else np.log(_known(columns, column))
    if TEACHER_N in x:
        x[RATIO] = x[TEACHER_N] - x[N]
    arrays = np.broadcast_arrays(*x.values())
    return dict(zip(x, arrays, strict=True))


def _method(columns: Mapping[str, ArrayLike]) -> NDArray[Any]:
    if METHOD not in columns:
        return np.array(SCRATCH)
    return np.asarray(columns[METHOD], dtype=str)


def _known(columns: Mapping[str, ArrayLike], name: str) -> FloatArray:
    """An optional column, NaN where it is unknown; what is known must be positive."""
    if name not in columns:
        return np.array(np.nan)
    values = _numbers(columns[name], name)
    known = np.isfinite(values)
    _refuse(values, known & (values <= 0), name)
    return np.where(known, values, np.nan)


def check_lengths(n_runs: int, columns: Mapping[str, ArrayLike]) -> None:
    """TableError for a column that has not one value for each run."""
    for name, values in columns.items():
        if np.shape(values) != (n_runs,):
            raise TableError(
                f"{np.size(values)} values for {n_runs} runs",
                where=name,
                remedy="give one value for each run",
            )


def read_column(
    columns: Mapping[str, ArrayLike], name: str, n_column: str, *, derive_flops: bool = True
) -> FloatArray:
    """A law's column as positive float64; an absent ``flops`` is 6*N*D if it may be derived."""
    if name == C and name not in columns and derive_flops:
        # float64 first: 6*N*D silently overflows int64.
        return 6.0 * positive(columns, n_column) * positive(columns, D)
    return positive(columns, name)


def positive(columns: Mapping[str, ArrayLike], name: str) -> FloatArray:
    """A column as float64; TableError where it is missing, not numbers, or not positive."""
    if name not in columns:
        raise TableError("the column is missing", where=name, remedy=_missing(columns, name))
    values = _numbers(columns[name], name)
    _refuse(values, ~(np.isfinite(values) & (values > 0)), name)
    return values


def _numbers(values: ArrayLike, name: str) -> FloatArray:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TableError(f"not numbers ({error})", where=name, remedy="give numbers") from error


def _refuse(values: FloatArray, wrong: NDArray[np.bool_], name: str) -> None:
    rows = np.flatnonzero(wrong)
    if len(rows):
        raise TableError(
            f"{len(rows)} of {values.size} values are not finite and positive: "
            + ", ".join(f"{values.flat[row]:g} in row {row}" for row in rows[:5]),
            where=name,
            remedy="leave these runs out, or correct them (rows count from 0)",
        )


def _missing(columns: Mapping[str, ArrayLike], name: str) -> str:
    other = [n for n in N_COLUMNS if n in columns]
    if name in N_COLUMNS and other:
        return f"{other[0]} is another parameter count, and no substitute: ask for it by n_column"
    return f"give {name}; there are: {', '.join(columns) or 'no columns'}"
