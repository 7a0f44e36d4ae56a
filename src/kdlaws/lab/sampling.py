"""How a teacher's next-token distributions are stored and read back: three forms.

``Draws`` is a sample, unbiased for whatever is linear in the distribution; ``Whole`` is all of it,
for vocabularies so small that this takes less room; ``Likeliest`` is its k most likely ids, biased.

Legend: n positions, w windows, b windows of a batch, t positions of a window, v vocabulary,
m slices, d draws of a slice, k ids.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from kdlaws.lab.targets import Dense, Sampled, Targets, TopK

Arrays = Mapping[str, np.ndarray]

Place = tuple[Arrays, int, int]
"""The arrays of a shard, a window's row in them, and the epoch that reads it."""


class Form(Protocol):
    """One way to store distributions."""

    @property
    def name(self) -> str: ...

    def of_positions(self, p_nv: Tensor, log_p_nv: Tensor, uniform_n: Tensor) -> dict[str, Tensor]:
        """What is kept of each position, its first dimension n; ``uniform_n`` is in [0, 1)."""

    def of_windows(self, kept: Arrays) -> dict[str, np.ndarray]:
        """What is stored of windows, given what was kept of their positions: [w, t, ...]."""

    def read(self, places: Sequence[Place]) -> Targets:
        """The targets of windows, one after the other."""


def form_of(
    outputs: Literal["sampled", "top_k"], *, n_vocab: int, draws: int, slices: int, k: int
) -> Form:
    """The form for a vocabulary: of a sample and the whole distribution the smaller one."""
    if outputs == "top_k":
        return Likeliest(n_vocab, min(k, n_vocab))
    sample = Draws(n_vocab, draws, slices)
    whole = Whole()
    return whole if whole.bytes_per_position(n_vocab) <= sample.bytes_per_position else sample


def id_type(n_vocab: int) -> type[np.unsignedinteger]:
    return np.uint16 if n_vocab <= 2**16 else np.uint32


# -- a sample -------------------------------------------------------------------------------


def systematic(p_nv: Tensor, uniform_n: Tensor, draws: int, slices: int) -> Tensor:
    """Ids drawn from each distribution, ascending within a slice: [n, m, d].

    Systematic sampling (Madow and Madow 1944, Annals of Mathematical Statistics 15, 1): the
    inverse distribution function at (i + U) / d, i = 0 ... d - 1. An id's count is d p on average,
    as with independent draws, and is always d p rounded down or up. Slice m shifts U by m / slices,
    modulo 1, so that all draws of a position are one systematic sample, too.
    """
    u_nm = (uniform_n[:, None] + torch.arange(slices, device=p_nv.device) / slices) % 1
    points_nmd = (torch.arange(draws, device=p_nv.device) + u_nm[..., None]) / draws
    cdf_nv = p_nv.double().cumsum(dim=-1)
    drawn = torch.searchsorted(cdf_nv, points_nmd.flatten(1) * cdf_nv[:, -1:], right=True)
    return drawn.clamp_(max=p_nv.shape[-1] - 1).view(points_nmd.shape)


@dataclass(frozen=True)
class Draws:
    """Distinct ids and their counts (Anshumann et al. 2025, 2503.16870), drawn systematically.

    Those of a window's slice lie together: ``start`` is where, and ``distinct`` how many each
    position has. Epoch e reads slice e modulo ``slices``.
    """

    n_vocab: int
    draws: int
    slices: int
    name = "sampled"

    @property
    def bytes_per_position(self) -> int:
        """At most: every draw another id."""
        count = self._count_type.itemsize
        id_ = np.dtype(id_type(self.n_vocab)).itemsize
        return self.slices * (self.draws * (id_ + count) + count)

    @property
    def _count_type(self) -> np.dtype:
        return np.min_scalar_type(self.draws)

    def of_positions(self, p_nv: Tensor, log_p_nv: Tensor, uniform_n: Tensor) -> dict[str, Tensor]:
        return {"drawn": systematic(p_nv, uniform_n, self.draws, self.slices).int()}

    def of_windows(self, kept: Arrays) -> dict[str, np.ndarray]:
        drawn_wmtd = kept["drawn"].swapaxes(1, 2)
        is_new = np.ones(drawn_wmtd.shape, dtype=bool)
        is_new[..., 1:] = drawn_wmtd[..., 1:] != drawn_wmtd[..., :-1]
        firsts = np.flatnonzero(is_new)
        distinct_wmt = is_new.sum(axis=-1)
        return {
            "ids": drawn_wmtd[is_new].astype(id_type(self.n_vocab)),
            "counts": np.diff(firsts, append=drawn_wmtd.size).astype(self._count_type),
            "distinct": distinct_wmt.astype(self._count_type),
            "start": np.append(0, distinct_wmt.sum(axis=-1).cumsum()),
            "entropy": kept["entropy"],
        }

    def read(self, places: Sequence[Place]) -> Sampled:
        slots = [(arrays, row, epoch % self.slices) for arrays, row, epoch in places]
        distinct_n = np.concatenate([arrays["distinct"][row, m] for arrays, row, m in slots])
        is_used = np.arange(distinct_n.max()) < distinct_n[:, None]
        ids_nk = np.zeros(is_used.shape, dtype=np.int64)
        p_nk = np.zeros(is_used.shape, dtype=np.float32)
        spans = [(arrays, self._span(arrays, row, m)) for arrays, row, m in slots]
        ids_nk[is_used] = np.concatenate([arrays["ids"][span] for arrays, span in spans])
        p_nk[is_used] = np.concatenate([arrays["counts"][span] for arrays, span in spans])
        p_nk /= self.draws
        return Sampled(torch.from_numpy(ids_nk), torch.from_numpy(p_nk), _rows(places, "entropy"))

    def _span(self, arrays: Arrays, row: int, m: int) -> slice:
        return slice(*arrays["start"][row * self.slices + m :][:2])


# -- the whole distribution -----------------------------------------------------------------


@dataclass(frozen=True)
class Whole:
    """Every probability, in half precision."""

    name = "dense"

    @staticmethod
    def bytes_per_position(n_vocab: int) -> int:
        return 2 * n_vocab

    def of_positions(self, p_nv: Tensor, log_p_nv: Tensor, uniform_n: Tensor) -> dict[str, Tensor]:
        return {"p": p_nv.half()}

    def of_windows(self, kept: Arrays) -> dict[str, np.ndarray]:
        return dict(kept)

    def read(self, places: Sequence[Place]) -> Dense:
        p_nv = _rows(places, "p").float()
        return Dense(p_nv / p_nv.sum(dim=-1, keepdim=True), _rows(places, "entropy"))


# -- the most likely ids --------------------------------------------------------------------


@dataclass(frozen=True)
class Likeliest:
    """The k most likely ids, likeliest first, with their probabilities in half precision.

    ``kept`` is the mass of the k. ``hidden_divergence`` is what the one bucket of all other ids
    hides if a student is uniform within it: rest x KL(teacher within the rest || uniform), nats.
    """

    n_vocab: int
    k: int
    name = "top_k"

    def of_positions(self, p_nv: Tensor, log_p_nv: Tensor, uniform_n: Tensor) -> dict[str, Tensor]:
        p_nk, ids_nk = p_nv.topk(self.k, dim=-1)
        kept_n = p_nk.sum(dim=-1)
        rest_n = (1 - kept_n).clamp_min(0)
        plogp_nk = p_nk * log_p_nv.gather(-1, ids_nk)
        within_n = (p_nv * log_p_nv).sum(dim=-1) - plogp_nk.sum(dim=-1)
        log_others = math.log(max(1, self.n_vocab - self.k))
        hidden_n = within_n - torch.xlogy(rest_n, rest_n) + rest_n * log_others
        half = {"ids": ids_nk.int(), "p": p_nk.half()}
        return {**half, "kept": kept_n, "hidden_divergence": hidden_n.clamp_min(0)}

    def of_windows(self, kept: Arrays) -> dict[str, np.ndarray]:
        return {**kept, "ids": kept["ids"].astype(id_type(self.n_vocab))}

    def read(self, places: Sequence[Place]) -> TopK:
        p_nk = _rows(places, "p").float()
        # Halves do not add up: the mass of the bucket is to be the teacher's.
        p_nk *= (_rows(places, "kept") / p_nk.sum(dim=-1))[:, None]
        return TopK(_rows(places, "ids").long(), p_nk)


def _rows(places: Sequence[Place], name: str) -> Tensor:
    """The array's windows, positions one after the other: [n, ...]."""
    return torch.from_numpy(np.concatenate([arrays[name][row] for arrays, row, _ in places]))


def as_whole(targets: Targets, n_vocab: int) -> Tensor:
    """What is stored of each distribution, by id; 0 where nothing is: [n, v]."""
    if isinstance(targets, Dense):
        return targets.p_nv
    assert isinstance(targets, Sampled | TopK)
    whole_nv = torch.zeros(len(targets.ids_nk), n_vocab)
    return whole_nv.scatter_add_(1, targets.ids_nk, targets.p_nk)
