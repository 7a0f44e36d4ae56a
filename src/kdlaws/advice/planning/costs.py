"""What a student costs: its own training, its teacher's reading and training, and its serving.

Total = 3 F(N) D + F(N_T) (d_inference reads + d_pretraining 3 D_T) / k + F(N) served, in FLOPs
(Busbridge et al. 2025, arXiv:2502.08606, equation 9, with the students k that share a teacher, and
serving, as Sardana et al. 2024, arXiv:2401.00448, add it). F is the forward pass of a token.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdlaws.errors import InputError, TableError
from kdlaws.laws.cost import ForwardFlops

Floats = NDArray[np.float64]
Scenario = Literal["free", "inference", "pretraining", "both"]
SCENARIOS = get_args(Scenario)

TRAINING = 3.0  # forward passes that a step of training takes
CACHE_BYTES_PER_TOKEN = 113.0  # of stored outputs, 64 draws a token: benchmarks/training.md
BUCKETS = ("student_training", "teacher_inference", "teacher_training", "serving", "cache_storage")


@dataclass(frozen=True)
class Rate:
    """How FLOPs become hours and money; None is not known. ``price_per_gigabyte`` is of storage."""

    flops_per_second: float | None = None
    price_per_hour: float | None = None
    price_per_gigabyte: float | None = None

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if value is not None and not 0 < value < np.inf:
                raise InputError(
                    f"{value:g} cannot be used", where=entry.name, remedy="give more than 0"
                )

    def hours(self, flops: float) -> float | None:
        return None if self.flops_per_second is None else flops / self.flops_per_second / 3600

    def money(self, flops: float) -> float | None:
        hours = self.hours(flops)
        return None if hours is None or self.price_per_hour is None else hours * self.price_per_hour

    @property
    def flops_per_gigabyte(self) -> float:
        """FLOPs that cost as much as storing a gigabyte; 0 where storage has no price."""
        per_flop = self.money(1.0)
        if not self.price_per_gigabyte:
            return 0.0
        if not per_flop:
            raise InputError(
                "storage has a price, and FLOPs have none",
                where="price_per_gigabyte",
                remedy="give flops_per_second and price_per_hour, too",
            )
        return self.price_per_gigabyte / per_flop


def measured_rate(runs: Path) -> float:
    """FLOPs per second of the students of a study's folder or table: the median of the runs.

    Stored teacher outputs cost a student no FLOPs; runs whose teacher was online are left out.
    TableError where no run says its FLOPs and seconds.
    """
    from kdlaws.tables import read_table

    table = runs / "table.csv"
    frame = read_table(table if table.is_file() else runs).frame
    names = ("student_flops", "wall_s", "teacher_outputs")
    flops, seconds, outputs = (frame.get(name) for name in names)
    if flops is None or seconds is None:
        raise TableError(
            "the table does not say how fast its runs were",
            where=str(runs),
            remedy="give flops_per_second as a number, or a table with student_flops and wall_s",
        )
    rate = (flops / seconds)[seconds > 0]
    if outputs is not None:
        rate = rate[outputs.loc[rate.index] != "online"]
    median = float(rate.median())
    if not median > 0:
        raise TableError("no run says its FLOPs and seconds", where=str(runs))
    return median


def budget_flops(
    rate: Rate,
    flops: float | None = None,
    hours: float | None = None,
    money: float | None = None,
) -> float:
    """The one budget that is given, in FLOPs. InputError for none, for several, or no rate."""
    given = {"flops": flops, "hours": hours, "money": money}
    known = {name: value for name, value in given.items() if value is not None}
    if len(known) != 1:
        raise InputError(
            f"{len(known)} budgets are given",
            where="budget",
            remedy="give one of flops=, hours= or money=",
        )
    [(name, value)] = known.items()
    unit = {"flops": 1.0, "hours": rate.hours(1.0), "money": rate.money(1.0)}[name]
    if not unit:
        needs = "flops_per_second" + (" and price_per_hour" if name == "money" else "")
        raise InputError(f"{name} need a rate", where=name, remedy=f"give {needs}")
    if not 0 < value < np.inf:
        raise InputError(f"{value:g} is no budget", where=name, remedy="give more than nothing")
    return value / unit


@dataclass(frozen=True)
class Costs:
    """The cost model of one plan, FLOPs throughout.

    ``n_students`` share the teacher's training and what it reads once; with ``is_online`` the
    teacher reads every token of each student anew. ``serve_tokens`` are what the student will read
    and write once it is trained. ``n_unique_tokens`` is the size of the corpus.
    """

    forward: ForwardFlops
    scenario: Scenario = "inference"
    serve_tokens: float = 0.0
    n_students: float = 1.0
    n_unique_tokens: float = np.inf
    is_online: bool = False
    cache_bytes_per_token: float = CACHE_BYTES_PER_TOKEN
    flops_per_gigabyte: float = 0.0

    def __post_init__(self) -> None:
        if self.scenario not in SCENARIOS:
            raise InputError(
                f"no scenario {self.scenario!r}",
                where="scenario",
                remedy=f"one of {', '.join(SCENARIOS)}",
            )
        _check(0 <= self.serve_tokens < np.inf, "serve_tokens", self.serve_tokens, "0 or more")
        _check(1 <= self.n_students < np.inf, "n_students", self.n_students, "1 or more")
        _check(self.n_unique_tokens > 0, "n_unique_tokens", self.n_unique_tokens, "more than 0")
        size = self.cache_bytes_per_token
        _check(size >= 0, "cache_bytes_per_token", size, "0 or more")

    @property
    def may_use_less(self) -> bool:
        """Whether a student may do better on less text: its teacher need not read the rest."""
        return (
            bool(np.isfinite(self.n_unique_tokens))
            and not self.is_online
            and (self.pays_inference or self.flops_per_gigabyte > 0)
        )

    @property
    def pays_inference(self) -> bool:
        return self.scenario in ("inference", "both")

    @property
    def pays_training(self) -> bool:
        return self.scenario in ("pretraining", "both")

    def tokens(
        self,
        budget: ArrayLike,
        n: ArrayLike,
        teacher: "TeacherCost",
        unique: ArrayLike | None = None,
    ) -> Floats:
        """Training tokens that the budget leaves a student of ``n``; negative where it is short.

        Of the corpus only ``unique`` tokens are used, all of them if None.
        """
        forward = self.forward(n)
        corpus = np.asarray(self.n_unique_tokens if unique is None else unique)
        rest = np.asarray(budget) - self._teacher_training(teacher) - forward * self.serve_tokens
        per_token, reading = TRAINING * forward, self._reading(teacher)
        if self.is_online:
            return np.asarray(rest / (per_token + reading))
        # The teacher reads the corpus once; what is repeated costs the student alone.
        once = rest / (per_token + reading)
        again = (rest - reading * np.where(np.isfinite(corpus), corpus, 0.0)) / per_token
        return np.where(once <= corpus, once, again)

    def spent(
        self,
        n: ArrayLike,
        n_tokens: ArrayLike,
        teacher: "TeacherCost",
        unique: ArrayLike | None = None,
    ) -> dict[str, Floats]:
        """FLOPs by bucket; what a student pays of what it shares."""
        forward, tokens = self.forward(n), np.asarray(n_tokens, dtype=np.float64)
        corpus = np.asarray(self.n_unique_tokens if unique is None else unique)
        read = tokens if self.is_online else np.minimum(tokens, corpus)
        stored = self._storage if teacher.is_there else 0.0
        parts = (
            TRAINING * forward * tokens,
            (self._reading(teacher) - stored) * read,
            self._teacher_training(teacher),
            forward * self.serve_tokens,
            stored * read,
        )
        return dict(zip(BUCKETS, map(np.asarray, np.broadcast_arrays(*parts)), strict=True))

    def gigabytes(self, n_unique_tokens: float) -> float:
        """Stored teacher outputs for so many tokens of text."""
        return n_unique_tokens * self.cache_bytes_per_token / 1e9

    @property
    def _storage(self) -> float:
        """Per token that is stored, in FLOPs of the same price."""
        if self.is_online:
            return 0.0
        return self.cache_bytes_per_token / 1e9 * self.flops_per_gigabyte / self.n_students

    def _reading(self, teacher: "TeacherCost") -> Floats:
        """Per token that the teacher reads, with its storage."""
        if not teacher.is_there:
            return np.zeros(())
        share = 1.0 if self.is_online else self.n_students
        reads = np.asarray(teacher.forward) / share if self.pays_inference else 0.0
        return np.asarray(reads + self._storage)

    def _teacher_training(self, teacher: "TeacherCost") -> Floats:
        if not teacher.is_there or not self.pays_training:
            return np.zeros(())
        tokens = np.asarray(teacher.n_tokens, dtype=np.float64)
        return TRAINING * np.asarray(teacher.forward) * tokens / self.n_students


@dataclass(frozen=True)
class TeacherCost:
    """Forward FLOPs of a token, and tokens trained on; arrays where a search varies them."""

    forward: ArrayLike = 0.0
    n_tokens: ArrayLike = 0.0
    is_there: bool = True


NO_TEACHER = TeacherCost(is_there=False)


def shares(spent: Mapping[str, ArrayLike]) -> dict[str, float]:
    """Of the whole, by bucket."""
    amounts = {name: float(np.asarray(part)) for name, part in spent.items()}
    whole = sum(amounts.values())
    return {name: part / whole for name, part in amounts.items()}


def _check(is_good: bool, where: str, value: float, wanted: str) -> None:
    if not is_good:
        raise InputError(f"{value:g} cannot be used", where=where, remedy=f"give {wanted}")
