"""Teacher outputs, computed once a study and read by every student.

A cache holds, for each position of a token stream that has a label, the teacher's distribution in
one of the forms of ``sampling``, its entropy, the log-probability of the label and the most likely
id; where students need it, also the last hidden state, there and on the validation windows, reduced
to its top principal components.

Window i of the cache is window i of the stream: position t of it is token i * n_ctx + t. A masked
stream is read with other masks in other epochs, each replica of them with a cache of its own.
Shards hold ``SHARD_WINDOWS`` windows each and are always whole, so a study that reads more windows
only adds some. The manifest names the teacher, the streams and every file; a cache of anything else
is refused. ``cache_build`` writes a cache, ``cache_verify`` checks it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from kdlaws.errors import ArtefactError, ConfigError
from kdlaws.lab.components import Components
from kdlaws.lab.sampling import Arrays, Form, Place, form_of
from kdlaws.lab.streams import TokenStream
from kdlaws.lab.targets import Targets
from kdlaws.records import digest, read_json
from kdlaws.study import TeacherFacts

CACHE_RECIPE = 2
"""Raised whenever the numbers in a cache change for the same teacher and stream."""

SHARD_WINDOWS = 128
MANIFEST = "manifest.json"
BASIS = "hidden-basis.safetensors"

Kind = Literal["shard", "validation"]


@dataclass(frozen=True)
class Shard:
    """Consecutive windows of a stream, in one file."""

    kind: Kind
    index: int
    n_windows: int

    @property
    def file(self) -> str:
        return f"{self.kind}-{self.index:05}.safetensors"

    @property
    def first(self) -> int:
        return self.index * SHARD_WINDOWS


@dataclass(frozen=True)
class CacheSpec:
    """Which outputs of which teacher on which stream, and how many of its windows are read."""

    teacher: TeacherFacts
    stream: TokenStream
    validation: TokenStream
    tokenizer_sha256: str
    n_windows: int
    n_validation_windows: int
    n_ctx: int
    temperatures: tuple[float, ...]
    with_hidden: bool
    outputs: Literal["sampled", "top_k"]
    draws: int
    slices: int
    k: int
    hidden_variance: float

    @property
    def identity(self) -> dict[str, Any]:
        """All that changes the stored numbers, so not how many windows are stored."""
        reads = ("draws", "slices") if self.outputs == "sampled" else ("k",)
        of_tokens = ("outputs", *reads) if self.temperatures else ()
        return {
            "recipe": CACHE_RECIPE,
            "teacher": self.teacher.identity,
            "stream": self.stream.identity,
            "tokenizer": self.tokenizer_sha256,
            "n_ctx": self.n_ctx,
            "temperatures": list(self.temperatures),
            **{name: getattr(self, name) for name in of_tokens},
            "validation": self.validation.identity if self.with_hidden else None,
            "hidden_variance": self.hidden_variance if self.with_hidden else None,
        }

    @property
    def name(self) -> str:
        return f"{self.teacher.run_id}-{digest(self.identity)[:8]}"

    @property
    def n_tokens(self) -> int:
        """Tokens that ``build`` tells of: those of all its shards."""
        return sum(shard.n_windows for shard in self.shards) * self.n_ctx

    @cached_property
    def form(self) -> Form:
        return form_of(
            self.outputs,
            n_vocab=self.teacher.shape.n_vocab,
            draws=self.draws,
            slices=self.slices,
            k=self.k,
        )

    @property
    def shards(self) -> list[Shard]:
        """Those that hold the windows: of the stream, then, with hidden states, of validation."""
        n_validation = self.n_validation_windows if self.with_hidden else 0
        of_stream = _shards("shard", self.stream.n_windows(self.n_ctx), self.n_windows)
        available = self.validation.n_windows(self.n_ctx)
        return [*of_stream, *_shards("validation", available, n_validation)]


def _shards(kind: Kind, available: int, n_windows: int) -> list[Shard]:
    starts = range(0, n_windows, SHARD_WINDOWS)
    return [
        Shard(kind, index, min(SHARD_WINDOWS, available - start))
        for index, start in enumerate(starts)
    ]


class TeacherCache:
    """Reads a cache, memory-mapped.

    Raises ArtefactError if it is not the one that ``spec`` describes, or windows are missing.
    """

    def __init__(self, parent: Path, spec: CacheSpec) -> None:
        self.folder, self.spec = parent / spec.name, spec
        self.manifest = read_manifest(self.folder, spec)
        require_teachers_weights(self.folder, self.manifest, spec)
        self._opened: dict[str, dict[str, dict[str, np.ndarray]]] = {}
        basis = [BASIS] if spec.with_hidden else []
        for file in (*basis, *(shard.file for shard in spec.shards)):
            if file not in self.manifest["shards"] or not (self.folder / file).exists():
                raise ArtefactError(
                    "these teacher outputs are not stored, or their file is gone",
                    where=str(self.folder / file),
                    remedy="`kdlaws cache build`, or the study's training, adds it",
                )

    def token(self, temperature: float, windows: np.ndarray, epochs: np.ndarray) -> Targets:
        """The teacher's distribution at each position of the windows, one after the other.

        Raises ConfigError for a temperature that is not stored.
        """
        pairs = zip(windows.tolist(), epochs.tolist(), strict=True)
        return self.spec.form.read([self.place(temperature, *pair) for pair in pairs])

    def place(self, temperature: float, window: int, epoch: int) -> Place:
        """Where the distributions of a window lie."""
        if temperature not in self.spec.temperatures:
            held = ", ".join(f"{each:g}" for each in self.spec.temperatures) or "none"
            raise ConfigError(
                f"temperature: {temperature:g} is not among those of the stored outputs: {held}",
                where=str(self.folder),
            )
        arrays = self.shard("shard", window)[group_name(temperature)]
        return arrays, window % SHARD_WINDOWS, epoch

    def hidden(self, kind: Kind, window: int) -> np.ndarray:
        """Principal components of the hidden states of a window: [m, n_components], fp16.

        Centred, and divided by one scalar such that the whole state's mean square in a dimension
        is 1, on the stream's first windows.
        """
        states_mc: np.ndarray = self.shard(kind, window)[""]["hidden"][window % SHARD_WINDOWS]
        return states_mc

    @cached_property
    def components(self) -> Components:
        return read_components(self.folder)

    def cross_entropy(self, n_windows: int) -> float:
        """The teacher's own on the stream's first windows, nats per token."""
        total = 0.0
        for first in range(0, n_windows, SHARD_WINDOWS):
            log_p_wt = self.shard("shard", first)[""]["label_log_p"][: n_windows - first]
            total += float(log_p_wt.sum(dtype=np.float64))
        return -total / (n_windows * self.spec.stream.n_labels(self.spec.n_ctx))

    def shard(self, kind: Kind, window: int) -> dict[str, dict[str, np.ndarray]]:
        """By temperature and name, what the shard of a window holds; opened once."""
        file = Shard(kind, window // SHARD_WINDOWS, SHARD_WINDOWS).file
        if file not in self._opened:
            self._opened[file] = grouped(read_arrays(self.folder / file))
        return self._opened[file]


class ReplicaCaches:
    """The caches of a stream's replicas, read as one: epoch e reads replica e mod K.

    ``specs`` are those of the first replicas, as many as are read. A stream for next-token
    prediction has one.
    """

    def __init__(self, parent: Path, specs: Sequence[CacheSpec]) -> None:
        self.first, *others = (TeacherCache(parent, spec) for spec in specs)
        self._parts = [self.first, *others]
        self._n_replicas = self.first.spec.stream.n_replicas
        bases = {
            part.manifest["shards"][BASIS]["sha256"]
            for part in self._parts
            if part.spec.with_hidden
        }
        if len(bases) > 1:
            raise ArtefactError(
                "the replicas' hidden states have different bases: made on different machines",
                where=str(parent),
                remedy="remove the caches of this teacher; they will be made again",
            )

    def token(self, temperature: float, windows: np.ndarray, epochs: np.ndarray) -> Targets:
        """The teacher's distribution at each label of the windows, one after the other."""
        places = [
            self._parts[epoch % self._n_replicas].place(
                temperature, window, epoch // self._n_replicas
            )
            for window, epoch in zip(windows.tolist(), epochs.tolist(), strict=True)
        ]
        return self.first.spec.form.read(places)

    def hidden(self, windows: np.ndarray, epochs: np.ndarray) -> Tensor:
        """Principal components of the hidden states: [b, m, n_components]."""
        pairs = zip(windows.tolist(), epochs.tolist(), strict=True)
        return _stacked(self._parts[e % self._n_replicas].hidden("shard", w) for w, e in pairs)

    def validation_hidden(self, windows: np.ndarray) -> Tensor:
        """The same of the validation windows."""
        return _stacked(self.first.hidden("validation", w) for w in windows.tolist())

    def cross_entropy(self, n_windows: int) -> float:
        """The teacher's own on the stream's first windows, in their first epoch."""
        return self.first.cross_entropy(n_windows)

    @property
    def n_components(self) -> int:
        return self.first.components.n

    @property
    def hidden_dropped(self) -> float:
        """Share of the hidden states' variance that is not stored."""
        return self.first.components.dropped

    def rank_floor(self, d_student: int) -> float:
        """Share of the hidden states' variance that no linear map from ``d_student`` can give."""
        return self.first.components.rank_floor(d_student)


def _stacked(states_mc: Iterable[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(list(states_mc))).float()


def group_name(temperature: float) -> str:
    return str(float(temperature))


def grouped(arrays: Arrays) -> dict[str, dict[str, np.ndarray]]:
    """Arrays named ``group/name``, and those without a group under ``""``."""
    groups: dict[str, dict[str, np.ndarray]] = {}
    for path, array in arrays.items():
        group, _, name = path.rpartition("/")
        groups.setdefault(group, {})[name] = array
    return groups


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """A file's arrays, memory-mapped. Raises ArtefactError where it is damaged."""
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name).numpy() for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ArtefactError(
            f"cannot be read ({error})",
            where=str(path),
            remedy="remove it, and `kdlaws cache build` makes it again",
        ) from None


def read_components(folder: Path) -> Components:
    arrays = read_arrays(folder / BASIS)
    return Components(
        mean_d=arrays["mean"],
        basis_dc=arrays["basis"],
        scale=float(arrays["scale"][0]),
        variance_shares=arrays["variance_shares"],
    )


def require_teachers_weights(folder: Path, manifest: dict[str, Any], spec: CacheSpec) -> None:
    """A teacher that was trained again has its name, but not to the last bit its numbers."""
    if manifest["teacher_weights_sha256"] != spec.teacher.weights_sha256():
        raise ArtefactError(
            "what is stored are outputs of other weights of the same teacher",
            where=str(folder),
            remedy="remove the folder; it will be made again",
        )


def read_manifest(folder: Path, spec: CacheSpec) -> dict[str, Any]:
    """Raises ArtefactError if there is none, or it is not of the cache that ``spec`` describes."""
    manifest: dict[str, Any] = read_json(folder / MANIFEST)
    stored = manifest.get("identity", {})
    for key, expected in spec.identity.items():
        if stored.get(key) != expected:
            raise ArtefactError(
                f"the stored teacher outputs have {key} {stored.get(key)!r}; "
                f"the study needs {expected!r}",
                where=str(folder),
                remedy="remove the folder; it will be made again",
            )
    return manifest


def is_complete(spec: CacheSpec, parent: Path) -> bool:
    """Whether ``build`` has nothing to do."""
    entries = stored_entries(parent / spec.name, spec)
    return all(shard.file in entries for shard in spec.shards)


def stored_entries(folder: Path, spec: CacheSpec) -> dict[str, dict[str, Any]]:
    """What the manifest says of each file that is there."""
    if not (folder / MANIFEST).exists():
        return {}
    files = read_manifest(folder, spec)["shards"].items()
    entries = {file: entry for file, entry in files if (folder / file).exists()}
    # Stored components mean nothing without the basis that they were made with.
    return entries if BASIS in entries or not spec.with_hidden else {}
