"""What a teacher says of the windows of a stream, in the arrays that a cache stores."""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdlaws.lab.cache import CacheSpec, Shard, group_name, grouped, read_components
from kdlaws.lab.components import Components
from kdlaws.lab.heads import head, states
from kdlaws.lab.sampling import Arrays, id_type
from kdlaws.lab.streams import TokenStream
from kdlaws.lab.teachers import load_teacher
from kdlaws.records import digest

SEED = 0
SAMPLER = "systematic: one uniform number a position; its slices interleave"
BATCH_WINDOWS = 32

_HEAD_POSITIONS = 512  # whose logits exist at a time


class ReadingTeacher:
    """Reads whole batches of fixed size, and makes logits for a fixed number of positions at once.

    So the numbers of a window are the same to the last bit, however many windows are wanted.
    """

    def __init__(self, spec: CacheSpec, folder: Path, device: str) -> None:
        self.spec, self.folder, self.device = spec, folder, device
        self.model = load_teacher(spec.teacher)
        nn.Module.to(self.model, device)  # transformers' own is a wrapper that has no types
        self.weights_sha256 = spec.teacher.weights_sha256()  # which loading has just confirmed

    @cached_property
    def components(self) -> Components:
        return read_components(self.folder)

    def states(self, n_windows: int) -> Iterator[np.ndarray]:
        """Hidden states of the stream's first windows, a batch at a time: [n, d], fp64.

        Of its first replica: the basis that they fix is that of all replicas.
        """
        stream = self.spec.stream.replica(0)
        for first in range(0, n_windows, BATCH_WINDOWS):
            hidden_bmd, _, _ = self._read(stream, first)
            yield hidden_bmd[: n_windows - first].flatten(0, 1).double().cpu().numpy()

    def outputs(
        self, shard: Shard, on_tokens: Callable[[int], None]
    ) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """The arrays of a shard, and means over its positions."""
        batches = []
        end = shard.first + shard.n_windows
        read = self._of_stream if shard.kind == "shard" else self._of_validation
        for first in range(shard.first, end, BATCH_WINDOWS):
            n = min(BATCH_WINDOWS, end - first)
            kept = read(first)
            batches.append({name: array[:n] for name, array in kept.items()})
            on_tokens(n * self.spec.n_ctx)
        return self._stored({name: np.concatenate([b[name] for b in batches]) for name in kept})

    def _stored(self, kept: Arrays) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        groups = grouped(kept)
        arrays = groups.pop("")
        if "argmax" in arrays:
            arrays["argmax"] = arrays["argmax"].astype(id_type(self.spec.teacher.shape.n_vocab))
        for group, of_positions in groups.items():
            of_windows = self.spec.form.of_windows(of_positions)
            arrays |= {f"{group}/{name}": array for name, array in of_windows.items()}
        averaged = ("label_log_p", "entropy", "kept", "hidden_divergence")
        means = {
            name: float(array.mean(dtype=np.float64))
            for name, array in arrays.items()
            if name.rpartition("/")[2] in averaged
        }
        return arrays, means

    def _of_validation(self, first: int) -> dict[str, np.ndarray]:
        hidden_bmd, _, _ = self._read(self.spec.validation, first)
        return {"hidden": self._hidden(hidden_bmd)}

    def _of_stream(self, first: int) -> dict[str, np.ndarray]:
        """What is kept of each position with a label of a batch of windows: [b, m, ...]."""
        hidden_bmd, given_bme, labels_bm = self._read(self.spec.stream, first)
        uniform = {t: _uniform(self.spec, t, first) for t in self.spec.temperatures}
        starts = range(0, labels_bm.numel(), _HEAD_POSITIONS)
        parts = [
            self._of_positions(
                given_bme.flatten(0, 1)[rows],
                labels_bm.flatten()[rows],
                {t: uniform_bm.flatten()[rows] for t, uniform_bm in uniform.items()},
            )
            for rows in (slice(start, start + _HEAD_POSITIONS) for start in starts)
        ]
        kept = {
            name: torch.cat([part[name] for part in parts]).unflatten(0, labels_bm.shape).numpy()
            for name in parts[0]
        }
        return kept | ({"hidden": self._hidden(hidden_bmd)} if self.spec.with_hidden else {})

    def _of_positions(
        self, given_ne: Tensor, labels_n: Tensor, uniform: Mapping[float, Tensor]
    ) -> dict[str, Tensor]:
        """On the CPU, by group and name."""
        logits_nv = head(self.model).logits(given_ne)
        log_p_nv = F.log_softmax(logits_nv, dim=-1)
        kept = {"label_log_p": log_p_nv.gather(-1, labels_n[:, None])[:, 0]}
        kept["argmax"] = logits_nv.argmax(dim=-1)
        for temperature, uniform_n in uniform.items():
            log_p_nv = F.log_softmax(logits_nv / temperature, dim=-1)
            p_nv = log_p_nv.exp()
            of_form = self.spec.form.of_positions(p_nv, log_p_nv, uniform_n.to(self.device))
            of_form["entropy"] = -(p_nv * log_p_nv).sum(dim=-1)
            kept |= {f"{group_name(temperature)}/{name}": each for name, each in of_form.items()}
        return {name: each.cpu() for name, each in kept.items()}

    @torch.inference_mode()
    def _read(self, stream: TokenStream, first: int) -> tuple[Tensor, Tensor, Tensor]:
        """Last hidden states [b, m, d], what the head is given [b, m, e], and labels [b, m].

        Of a whole batch; its last window is repeated.
        """
        last = stream.n_windows(self.spec.n_ctx) - 1
        rows = np.minimum(np.arange(first, first + BATCH_WINDOWS), last)
        batch = stream.batch(rows, self.spec.n_ctx).to(self.device)
        return *states(self.model, batch), batch.labels_bm

    def _hidden(self, hidden_bmd: Tensor) -> np.ndarray:
        return self.components.of(hidden_bmd).half().cpu().numpy()


def _uniform(spec: CacheSpec, temperature: float, first: int) -> Tensor:
    """A uniform number for each label of a batch, whatever else the cache holds: [b, m].

    They may depend only on what is in a run's identity, so neither on how many windows the cache
    has nor on what other runs need of it.
    """
    teacher, stream = spec.teacher.identity, spec.stream.identity
    place = [SEED, teacher, stream, spec.n_ctx, temperature, spec.draws, spec.slices, first]
    generator = torch.Generator().manual_seed(int(digest(place)[:15], 16))
    n_labels = spec.stream.n_labels(spec.n_ctx)
    return torch.rand((BATCH_WINDOWS, n_labels), dtype=torch.float64, generator=generator)
