"""Writing a cache: what it lacks, a whole file at a time, each followed by the manifest."""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

import kdlaws
from kdlaws.lab.cache import (
    BASIS,
    MANIFEST,
    CacheSpec,
    Shard,
    read_arrays,
    read_components,
    read_manifest,
    require_teachers_weights,
    stored_entries,
)
from kdlaws.lab.cache_outputs import SAMPLER, SEED, ReadingTeacher
from kdlaws.lab.components import BASIS_WINDOWS, principal_components
from kdlaws.lab.sampling import Arrays
from kdlaws.records import SCHEMA, file_digest, write_json


def build(
    spec: CacheSpec, parent: Path, on_tokens: Callable[[int], None], device: str = "cpu"
) -> None:
    """Write what the cache under ``parent`` lacks; stopped at any moment, it keeps whole shards.

    ``on_tokens`` is told of the tokens of shards as the teacher reads them, and at once of those
    that are there. Raises ArtefactError where what is there is of another teacher or stream.
    """
    folder = parent / spec.name
    entries = stored_entries(folder, spec)
    missing = [shard for shard in spec.shards if shard.file not in entries]
    n_missing = sum(shard.n_windows for shard in missing)
    on_tokens(spec.n_tokens - n_missing * spec.n_ctx)
    if not missing:
        return
    teacher = ReadingTeacher(spec, folder, device)
    if entries:
        require_teachers_weights(folder, read_manifest(folder, spec), spec)
    folder.mkdir(parents=True, exist_ok=True)
    writer = _Writer(spec, folder, entries, teacher)
    if spec.with_hidden and BASIS not in entries:
        writer.write_basis()
    for shard in missing:
        writer.write_shard(shard, on_tokens)


class _Writer:
    """Writes the files of a cache, and after each one the manifest."""

    def __init__(
        self,
        spec: CacheSpec,
        folder: Path,
        entries: dict[str, dict[str, Any]],
        teacher: ReadingTeacher,
    ) -> None:
        self.spec, self.folder, self.entries, self.teacher = spec, folder, entries, teacher

    def write_basis(self) -> None:
        started = time.process_time()
        n_windows = min(BASIS_WINDOWS, self.spec.stream.n_windows(self.spec.n_ctx))
        found = principal_components(self.teacher.states(n_windows), self.spec.hidden_variance)
        arrays = {
            "mean": found.mean_d,
            "basis": found.basis_dc,
            "scale": np.array([found.scale]),
            "variance_shares": found.variance_shares,
        }
        self._write(BASIS, arrays, started, flops=self._flops(n_windows, head=False))

    def write_shard(self, shard: Shard, on_tokens: Callable[[int], None]) -> None:
        started = time.process_time()
        arrays, means = self.teacher.outputs(shard, on_tokens)
        flops = self._flops(shard.n_windows, head=shard.kind == "shard")
        facts = {"n_windows": shard.n_windows, "flops": flops, "means": means}
        self._write(shard.file, arrays, started, **facts)

    def _flops(self, n_windows: int, *, head: bool) -> int:
        shape = self.spec.teacher.shape.at(self.spec.n_ctx)
        of_head = 0 if head else 2 * shape.n_params_head * shape.n_targets // shape.n_ctx
        return (shape.forward_flops_per_token - of_head) * n_windows * self.spec.n_ctx

    def _write(self, name: str, arrays: Arrays, started: float, **facts: Any) -> None:
        path = self.folder / name
        partial = path.with_name(f".{name}.partial")
        # The library writes the memory of an array, whatever its strides.
        save_file({name: np.ascontiguousarray(each) for name, each in arrays.items()}, partial)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
        self.entries[name] = {
            "sha256": file_digest(path),
            "bytes": path.stat().st_size,
            "cpu_s": round(time.process_time() - started, 3),
            **facts,
        }
        write_json(self.folder / MANIFEST, self._manifest())

    def _manifest(self) -> dict[str, Any]:
        entries = dict(sorted(self.entries.items()))
        means = _pooled(entry for file, entry in entries.items() if file.startswith("shard"))
        return {
            **self._origin(),
            **self._totals(entries),
            "dtypes": self._dtypes(),
            "teacher_cross_entropy": -means["label_log_p"] if means else None,
            "means": means,
            "bias": _biases(means),
            "hidden": self._hidden(),
            "shards": entries,
        }

    def _origin(self) -> dict[str, Any]:
        """What was asked for, and what made it."""
        form = self.spec.form.name if self.spec.temperatures else None
        is_sampled = form == "sampled"
        names = ("kdlaws", "torch", "transformers", "numpy", "safetensors")
        return {
            "schema": SCHEMA,
            "kdlaws": kdlaws.__version__,
            "identity": self.spec.identity,
            "teacher": self.spec.teacher.run_id,
            "teacher_weights_sha256": self.teacher.weights_sha256,
            "teacher_dtype": "float32",
            "form": form,
            "sampler": SAMPLER if is_sampled else None,
            "seed": SEED if is_sampled else None,
            "device": self.teacher.device,
            "versions": {name: version(name) for name in names},
        }

    def _totals(self, entries: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Of the windows of the stream, and of all that was spent and stored."""
        of_stream = [entry for file, entry in entries.items() if file.startswith("shard")]
        of_validation = [entry for file, entry in entries.items() if file.startswith("validation")]
        n_windows = sum(entry["n_windows"] for entry in of_stream)
        n_tokens = n_windows * self.spec.n_ctx
        n_bytes = sum(entry["bytes"] for entry in of_stream)
        return {
            "n_windows": n_windows,
            "n_stream_windows": self.spec.stream.n_windows(self.spec.n_ctx),
            "n_validation_windows": sum(entry["n_windows"] for entry in of_validation),
            "n_tokens": n_tokens,
            "bytes": sum(entry["bytes"] for entry in entries.values()),
            "bytes_per_token": n_bytes / n_tokens if n_windows else None,
            "flops": sum(entry["flops"] for entry in entries.values()),
            "cpu_s": sum(entry["cpu_s"] for entry in entries.values()),
        }

    def _dtypes(self) -> dict[str, str]:
        """Of the arrays of a shard of the stream; empty before there is one."""
        file = next((file for file in sorted(self.entries) if file.startswith("shard")), None)
        arrays = read_arrays(self.folder / file) if file else {}
        return {name: str(array.dtype) for name, array in sorted(arrays.items())}

    def _hidden(self) -> dict[str, Any] | None:
        if not self.spec.with_hidden:
            return None
        components = read_components(self.folder)
        return {
            "n_components": components.n,
            "kept_variance": 1.0 - components.dropped,
            "scale": components.scale,
            "variance_shares": components.variance_shares.tolist(),
        }


def _pooled(entries: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Means over all positions of files, from the means of each."""
    entries = list(entries)
    n_windows = sum(entry["n_windows"] for entry in entries)
    totals: dict[str, float] = {}
    for entry in entries:
        for name, mean in entry["means"].items():
            totals[name] = totals.get(name, 0.0) + mean * entry["n_windows"]
    return {name: total / n_windows for name, total in totals.items()}


def _biases(means: Mapping[str, float]) -> list[dict[str, Any]]:
    """What a form with a bucket hides, for each temperature; none of the other forms."""
    biases = []
    for group in (name.removesuffix("/kept") for name in means if name.endswith("/kept")):
        kept, hidden = means[f"{group}/kept"], means[f"{group}/hidden_divergence"]
        meaning = (
            f"at temperature {float(group):g} the stored ids hold {kept:.1%} of the teacher's "
            "mass; how a student divides the rest is not in the loss, so one that is uniform there "
            f"has {hidden:.3g} nats a token of divergence that its loss counts as none, and one "
            "that is worse there has more"
        )
        numbers = {"kept_mass": kept, "hidden_divergence": hidden}
        biases.append({"temperature": float(group), **numbers, "meaning": meaning})
    return biases
