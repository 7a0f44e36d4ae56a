"""Studies simulated from the spec's law, whose every parameter is known; on disk, as any study."""

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

W = 0.5
"""How sharp the bend of g is: the law's own pin."""

SIZES = tuple(2e4 * 2.0**k for k in range(5))
TOKENS = tuple(1e5 * 2.5**k for k in range(5))

Row = dict[str, Any]


@dataclass(frozen=True)
class Gain:
    """A method's g(r) = c [((r/r_c)^(-alpha/w) + (r/r_c)^(kappa/w))/2]^w, and its D_m in tokens."""

    c: float
    kappa: float
    r_c: float
    n_tokens: float

    def g(self, ratio: float, alpha: float) -> float:
        z = ratio / self.r_c
        return self.c * ((z ** (-alpha / W) + z ** (self.kappa / W)) / 2) ** W

    def slope(self, ratio: float, alpha: float) -> float:
        """dlog g/dlog r."""
        z = ratio / self.r_c
        falling, rising = z ** (-alpha / W), z ** (self.kappa / W)
        return (self.kappa * rising - alpha * falling) / (falling + rising)

    def best_ratio(self, alpha: float) -> float:
        return self.r_c * (alpha / self.kappa) ** (W / (alpha + self.kappa))


@dataclass(frozen=True)
class Simulation:
    """L = floor + size (N/middle)^-alpha g(r) (1 + (D_m/D)^beta), nats, and who was run.

    ``is_additive``: the data term, size (D_m/D)^beta, stands alone. ``teachers`` are N without
    embeddings, the first taught three seeds more. Total N has ``embedding`` parameters more: few
    beside the smallest N, so that both ways to count it obey nearly the same law, or many. Every
    run has noise of its own and its trunk's. Curated runs from scratch have the
    exponent alpha + ``curated_alpha``. ``price`` scales what the teacher costs. ``change`` makes
    of each row the rows that are written.
    """

    methods: Mapping[str, Gain]
    teachers: Sequence[float]
    sizes: Sequence[float] = SIZES
    tokens: Sequence[float] = TOKENS
    floor: float = 2.0
    size: float = 0.8
    alpha: float = 0.6
    beta: float = 0.9
    scratch_tokens: float = 1e6
    curated_alpha: float | None = None
    is_additive: bool = False
    embedding: float = 10.0
    price: float = 1.0
    teacher_tokens: float = 1e7
    noise: float = 0.0005
    seeds: int = 4
    change: Callable[[Row], list[Row]] = lambda row: [row]

    @property
    def middle(self) -> float:
        return math.exp(float(np.mean(np.log(self.sizes))))

    def loss(self, method: str, n: float, d: float, teacher: float, alpha: float) -> float:
        gain = self.methods.get(method)
        g = gain.g(teacher / n, self.alpha) if gain else 1.0
        data = ((gain.n_tokens if gain else self.scratch_tokens) / d) ** self.beta
        size = self.size * (n / self.middle) ** -alpha * g
        return self.floor + (size + self.size * data if self.is_additive else size * (1 + data))

    def n_params(self, n: float) -> float:
        return n + self.embedding

    # --- rows -----------------------------------------------------------------------------------

    def rows(self) -> Iterator[Row]:
        rng = np.random.default_rng(0)
        for method, teacher, quality, n, seed in self._trunks():
            trunk = f"{method}-{n:.0f}-{teacher:.0f}-{quality}-{seed}"
            shift = rng.normal(0, self.noise)
            alpha = self.alpha + (self.curated_alpha or 0.0) * (quality == "curated")
            for d in self.tokens:
                noise = math.exp(shift + rng.normal(0, self.noise))
                loss = self.loss(method, n, d, teacher, alpha) * noise
                yield from self.change(self._row(trunk, method, teacher, quality, n, d, seed, loss))

    def _trunks(self) -> Iterator[tuple[str, float, str, float, int]]:
        """``seeds`` at the smallest size, of scratch and of the first teacher's students."""
        for method in ("scratch", *self.methods):
            taught = enumerate(self.teachers if method in self.methods else [math.nan])
            for k, teacher in taught:
                for i, n in enumerate(self.sizes):
                    for seed in range(self.seeds if i == k == 0 else 1):
                        yield method, teacher, "raw", n, seed
        if self.curated_alpha is not None:
            yield from (("scratch", math.nan, "curated", n, 0) for n in self.sizes)

    def _row(
        self,
        trunk: str,
        method: str,
        teacher: float,
        quality: str,
        n: float,
        d: float,
        seed: int,
        loss: float,
    ) -> Row:
        is_taught, forward = method in self.methods, 2 * self.n_params(n)
        row = {
            "run_id": f"{trunk}-{d:.0f}",
            "study": "simulated",
            "role": "student",
            "objective": "causal",
            "method": method,
            "kd_weight": 1.0 if is_taught else None,
            "init": "random",
            "corpus": "made-up",
            "tokenizer": "bpe",
            "quality": quality,
            "noise": 0.0,
            "fraction": 1.0,
            "n_params": self.n_params(n),
            "n_params_non_embedding": n,
            "n_tokens": d,
            "n_unique_tokens": d,
            "epochs": 1.0,
            "selected": True,
            "seed": seed,
            "trunk": trunk,
            "cross_entropy": loss,
            "student_flops": 3 * forward * d,
            "teacher_inference_flops": 0.0,
            "teacher_training_flops": 0.0,
            "forward_flops_per_token": forward,
            "wall_s": forward * d / 1e9,
            "status": "done",
        }
        return row | (self._teacher(teacher, d) if is_taught else {})

    def _teacher(self, n: float, d: float) -> Row:
        forward = 2 * self.n_params(n) * self.price
        return {
            "teacher": f"teacher-{n:.0f}",
            "teacher_n_params": self.n_params(n),
            "teacher_n_params_non_embedding": n,
            "teacher_n_tokens": self.teacher_tokens,
            "teacher_inference_flops": forward * d,
            "teacher_training_flops": 3 * forward * self.teacher_tokens,
        }

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True)
        rows = list(self.rows())
        names = dict.fromkeys(name for row in rows for name in row)
        with (folder / "table.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(names))
            writer.writeheader()
            writer.writerows(rows)
        return folder
