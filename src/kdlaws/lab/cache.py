"""Teacher outputs, computed once a study and read by every student.

A cache holds, for each position of a token stream that students read: ids drawn from the teacher's
next-token distribution, that distribution's entropy and, where students need it, the teacher's
last hidden state, there and on the validation windows. Window i of the cache belongs to window i of
the stream. The manifest names the teacher and the streams; a cache of anything else is refused.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import GraniteForCausalLM

from kdlaws.errors import ArtefactError
from kdlaws.lab.students import forward
from kdlaws.lab.teachers import load_teacher
from kdlaws.lab.tokens import TokenStream
from kdlaws.records import digest, read_json, write_json
from kdlaws.study import TeacherFacts

CACHE_RECIPE = 1
"""Raised whenever the numbers in a cache change for the same teacher and stream."""

_BATCH_WINDOWS, _MOMENT_WINDOWS = 32, 512


@dataclass(frozen=True)
class CacheSpec:
    """Which outputs of which teacher on which stream. Equal specs have equal caches.

    ``prefixes`` are the numbers of windows that the runs read, ascending: hidden states are
    standardised for each, since a run's numbers may not depend on the runs it shares a cache with.
    """

    teacher: TeacherFacts
    stream: TokenStream
    validation: TokenStream
    prefixes: tuple[int, ...]
    n_validation_windows: int
    n_ctx: int
    temperatures: tuple[float, ...]
    with_hidden: bool
    draws: int
    slices: int

    @property
    def identity(self) -> dict[str, Any]:
        return {
            "recipe": CACHE_RECIPE,
            "teacher": self.teacher.identity,
            "stream": self.stream.sha256,
            "prefixes": list(self.prefixes),
            "n_ctx": self.n_ctx,
            "temperatures": list(self.temperatures),
            "with_hidden": self.with_hidden,
            "validation": [self.validation.sha256, self.n_validation_windows],
            "draws": self.draws,
            "slices": self.slices,
        }

    @property
    def name(self) -> str:
        return f"{self.teacher.run_id}-{digest(self.identity)[:8]}"

    @property
    def n_windows(self) -> int:
        return self.prefixes[-1]

    @property
    def n_tokens(self) -> int:
        return self.n_windows * self.n_ctx


class TeacherCache:
    """Reads a cache. Raises ArtefactError if it is not the one that ``spec`` describes."""

    def __init__(self, parent: Path, spec: CacheSpec) -> None:
        self.folder, self.spec = parent / spec.name, spec
        self.manifest = read_json(self.folder / "manifest.json")
        for key, expected in spec.identity.items():
            if self.manifest.get(key) != expected:
                raise ArtefactError(
                    f"the stored teacher outputs have {key} {self.manifest.get(key)!r}; "
                    f"the study needs {expected!r}",
                    where=str(self.folder),
                    remedy="remove the folder; it will be made again",
                )

    @cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        return {file.stem: np.load(file, mmap_mode="r") for file in self.folder.glob("*.npy")}

    def draws(self, temperature: float, windows: np.ndarray, epochs: np.ndarray) -> Tensor:
        """Ids drawn at ``temperature``, fresh for each of ``slices`` epochs: [b, t, draws]."""
        stored = self._arrays[f"draws-{temperature:g}"]
        return torch.from_numpy(stored[windows, epochs % self.spec.slices].astype(np.int64))

    def entropy(self, temperature: float, windows: np.ndarray) -> Tensor:
        """Entropy of the teacher's distribution, nats: [b, t]."""
        return torch.from_numpy(self._arrays[f"entropy-{temperature:g}"][windows])

    def hidden(self, windows: np.ndarray, prefix: int, *, validation: bool = False) -> Tensor:
        """Hidden states, centred and divided by one scalar to mean square 1: [b, t, d_teacher].

        Centre and scalar are those of the stream's first ``prefix`` windows, also on validation.
        """
        stored = self._arrays["hidden-validation" if validation else "hidden"]
        raw = torch.from_numpy(stored[windows].astype(np.float32))
        mean = torch.from_numpy(np.array(self._arrays[f"hidden-mean-{prefix}"]))
        return (raw - mean) / self.manifest["hidden"][str(prefix)]["scale"]

    def rank_floor(self, d_student: int, prefix: int) -> float:
        """Share of the hidden states' variance that no linear map from ``d_student`` can give."""
        return float(sum(self.manifest["hidden"][str(prefix)]["variance_shares"][d_student:]))


def build(spec: CacheSpec, parent: Path, on_tokens: Callable[[int], None]) -> None:
    """Write the cache under ``parent`` unless it is there; it appears whole or not at all."""
    folder = parent / spec.name
    if folder.exists():
        return
    partial = parent / f".{spec.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    manifest = _write(spec, partial, on_tokens)
    write_json(partial / "manifest.json", spec.identity | manifest)
    partial.rename(folder)


def _write(spec: CacheSpec, folder: Path, on_tokens: Callable[[int], None]) -> dict[str, Any]:
    teacher = load_teacher(spec.teacher)
    arrays = _allocate(spec, folder)
    total_nll = 0.0
    for rows, hidden_btd, logits_btv, targets_bt in _pass(
        teacher, spec.stream, spec.n_windows, spec.n_ctx
    ):
        for temperature in spec.temperatures:
            _store_draws(spec, arrays, rows, logits_btv, temperature)
        if spec.with_hidden:
            arrays["hidden"][rows] = hidden_btd.numpy().astype(np.float16)
        nll = F.cross_entropy(logits_btv.flatten(0, 1), targets_bt.flatten(), reduction="sum")
        total_nll += float(nll)
        on_tokens(targets_bt.numel())
    facts: dict[str, Any] = {"teacher_stream_cross_entropy": total_nll / spec.n_tokens}
    if spec.with_hidden:
        facts["hidden"] = _store_moments(arrays["hidden"], spec.prefixes, folder)
        for rows, hidden_btd, *_ in _pass(
            teacher, spec.validation, spec.n_validation_windows, spec.n_ctx
        ):
            arrays["hidden-validation"][rows] = hidden_btd.numpy().astype(np.float16)
    for array in arrays.values():
        array.flush()
    return facts


def _allocate(spec: CacheSpec, folder: Path) -> dict[str, np.memmap]:
    positions = (spec.n_windows, spec.n_ctx)
    shapes: dict[str, tuple[type, tuple[int, ...]]] = {}
    for temperature in spec.temperatures:
        by_slice = (spec.n_windows, spec.slices, spec.n_ctx, spec.draws)
        shapes[f"draws-{temperature:g}"] = (np.uint16, by_slice)
        shapes[f"entropy-{temperature:g}"] = (np.float32, positions)
    if spec.with_hidden:
        width = spec.teacher.shape.d_model
        shapes["hidden"] = (np.float16, (*positions, width))
        on_validation = (spec.n_validation_windows, spec.n_ctx, width)
        shapes["hidden-validation"] = (np.float16, on_validation)
    return {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, dimensions)
        for name, (dtype, dimensions) in shapes.items()
    }


def _pass(
    teacher: GraniteForCausalLM, stream: TokenStream, n_windows: int, n_ctx: int
) -> Iterator[tuple[np.ndarray, Tensor, Tensor, Tensor]]:
    """Window indices, hidden states, logits and targets, batch by batch.

    The teacher always reads whole batches, so that its numbers for a window are the same to the
    last bit however many windows are wanted.
    """
    last = stream.n_windows(n_ctx) - 1
    for start in range(0, n_windows, _BATCH_WINDOWS):
        batch = np.minimum(np.arange(start, start + _BATCH_WINDOWS), last)
        n = min(_BATCH_WINDOWS, n_windows - start)
        inputs_bt, targets_bt = map(torch.from_numpy, stream.windows(batch, n_ctx))
        with torch.inference_mode():
            hidden_btd, logits_btv = forward(teacher, inputs_bt)
        yield batch[:n], hidden_btd[:n], logits_btv[:n], targets_bt[:n]


def _store_draws(
    spec: CacheSpec,
    arrays: dict[str, np.memmap],
    rows: np.ndarray,
    logits_btv: Tensor,
    temperature: float,
) -> None:
    log_p_btv = F.log_softmax(logits_btv / temperature, dim=-1)
    p_btv = log_p_btv.exp()
    drawn = draw(p_btv, _uniform(spec, temperature, rows))
    by_slice = drawn.view(*drawn.shape[:2], spec.slices, spec.draws).transpose(1, 2)
    arrays[f"draws-{temperature:g}"][rows] = by_slice.numpy().astype(np.uint16)
    arrays[f"entropy-{temperature:g}"][rows] = -(p_btv * log_p_btv).sum(dim=-1).numpy()


def _uniform(spec: CacheSpec, temperature: float, rows: np.ndarray) -> Tensor:
    """Uniform numbers for a batch, whatever else the cache holds: [b, t, slices * draws].

    They may depend only on what is in a run's identity, so neither on how many windows the cache
    has nor on what other runs need of it.
    """
    teacher, stream = spec.teacher.identity, spec.stream.sha256
    place = [teacher, stream, spec.n_ctx, temperature, spec.draws, spec.slices, int(rows[0])]
    generator = torch.Generator().manual_seed(int(digest(place)[:15], 16))
    whole_batch = (_BATCH_WINDOWS, spec.n_ctx, spec.slices * spec.draws)
    return torch.rand(whole_batch, dtype=torch.float64, generator=generator)[: len(rows)]


def draw(p_btv: Tensor, uniform_btn: Tensor) -> Tensor:
    """Independent draws with replacement, by inverting the distribution function: [b, t, n]."""
    cdf_btv = p_btv.double().cumsum(dim=-1)
    drawn = torch.searchsorted(cdf_btv, uniform_btn * cdf_btv[..., -1:], right=True)
    return drawn.clamp_(max=p_btv.shape[-1] - 1)


def _store_moments(
    hidden: np.ndarray, prefixes: tuple[int, ...], folder: Path
) -> dict[str, dict[str, Any]]:
    """Of each prefix: write the mean [d]; the scalar that makes the mean square 1, and variances.

    ``variance_shares`` are those of the principal components, largest first.
    """
    width = hidden.shape[-1]
    total, products, done = np.zeros(width), np.zeros((width, width)), 0
    moments = {}
    for prefix in prefixes:
        for start in range(done, prefix, _MOMENT_WINDOWS):
            chunk = hidden[start : min(start + _MOMENT_WINDOWS, prefix)].reshape(-1, width)
            chunk = chunk.astype(np.float64)
            total += chunk.sum(axis=0)
            products += chunk.T @ chunk
        done = prefix
        n = prefix * hidden.shape[1]
        covariance = products / n - np.outer(total / n, total / n)
        variances = np.linalg.eigvalsh(covariance)[::-1]
        np.save(folder / f"hidden-mean-{prefix}.npy", (total / n).astype(np.float32))
        moments[str(prefix)] = {
            "scale": float(np.sqrt(np.trace(covariance) / width)),
            "variance_shares": (variances / variances.sum()).tolist(),
        }
    return moments
