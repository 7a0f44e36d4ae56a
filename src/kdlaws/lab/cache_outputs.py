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
from kdlaws.lab.kernels import hidden_states, matmul_nt
from kdlaws.lab.sampling import Arrays, id_type
from kdlaws.lab.students import head
from kdlaws.lab.teachers import load_teacher
from kdlaws.lab.tokens import TokenStream
from kdlaws.records import WEIGHTS, digest, file_digest

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
        self.weights_sha256 = file_digest(spec.teacher.folder / WEIGHTS)

    @cached_property
    def components(self) -> Components:
        return read_components(self.folder)

    def states(self, n_windows: int) -> Iterator[np.ndarray]:
        """Hidden states of the stream's first windows, a batch at a time: [n, d], fp64."""
        for first in range(0, n_windows, BATCH_WINDOWS):
            states_btd, _ = self._read(self.spec.stream, first)
            yield states_btd[: n_windows - first].flatten(0, 1).double().cpu().numpy()

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
        states_btd, _ = self._read(self.spec.validation, first)
        return {"hidden": self._hidden(states_btd)}

    def _of_stream(self, first: int) -> dict[str, np.ndarray]:
        """What is kept of each position of a batch of windows: [b, t, ...]."""
        states_btd, labels_bt = self._read(self.spec.stream, first)
        uniform = {t: _uniform(self.spec, t, first) for t in self.spec.temperatures}
        starts = range(0, labels_bt.numel(), _HEAD_POSITIONS)
        parts = [
            self._of_positions(
                states_btd.flatten(0, 1)[rows],
                labels_bt.flatten()[rows],
                {t: uniform_bt.flatten()[rows] for t, uniform_bt in uniform.items()},
            )
            for rows in (slice(start, start + _HEAD_POSITIONS) for start in starts)
        ]
        kept = {
            name: torch.cat([part[name] for part in parts]).unflatten(0, labels_bt.shape).numpy()
            for name in parts[0]
        }
        return kept | ({"hidden": self._hidden(states_btd)} if self.spec.with_hidden else {})

    def _of_positions(
        self, states_nd: Tensor, labels_n: Tensor, uniform: Mapping[float, Tensor]
    ) -> dict[str, Tensor]:
        """On the CPU, by group and name."""
        weight_vd, scaling = head(self.model)
        logits_nv = matmul_nt(states_nd / scaling, weight_vd)
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
    def _read(self, stream: TokenStream, first: int) -> tuple[Tensor, Tensor]:
        """Last hidden states [b, t, d] and labels [b, t] of a whole batch; the last is repeated."""
        last = stream.n_windows(self.spec.n_ctx) - 1
        rows = np.minimum(np.arange(first, first + BATCH_WINDOWS), last)
        inputs_bt, labels_bt = (
            torch.from_numpy(ids).to(self.device) for ids in stream.windows(rows, self.spec.n_ctx)
        )
        return hidden_states(self.model, inputs_bt), labels_bt

    def _hidden(self, states_btd: Tensor) -> np.ndarray:
        return self.components.of(states_btd).half().cpu().numpy()


def _uniform(spec: CacheSpec, temperature: float, first: int) -> Tensor:
    """A uniform number for each position of a batch, whatever else the cache holds: [b, t].

    They may depend only on what is in a run's identity, so neither on how many windows the cache
    has nor on what other runs need of it.
    """
    teacher, stream = spec.teacher.identity, spec.stream.sha256
    place = [SEED, teacher, stream, spec.n_ctx, temperature, spec.draws, spec.slices, first]
    generator = torch.Generator().manual_seed(int(digest(place)[:15], 16))
    return torch.rand((BATCH_WINDOWS, spec.n_ctx), dtype=torch.float64, generator=generator)
