"""Whether a cache is what was written, of what it was made from, and what the teacher says now."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kdlaws.errors import ArtefactError
from kdlaws.lab.cache import CacheSpec, Shard, TeacherCache, grouped, read_manifest
from kdlaws.lab.cache_outputs import BATCH_WINDOWS, ReadingTeacher
from kdlaws.lab.sampling import Arrays, as_whole
from kdlaws.lab.teachers import current_weights_sha256
from kdlaws.lab.tokens import load_tokenizer, tokenizer_digest
from kdlaws.records import file_digest

_TOLERANCE = 1e-3  # mean difference, in nats, shares or the hidden states' units, when read again


@dataclass(frozen=True)
class Verification:
    """What was looked at of a cache, and what is wrong with it."""

    name: str
    n_files: int
    n_windows_read_again: int
    problems: tuple[str, ...]


def verify(folder: Path, spec: CacheSpec, device: str = "cpu") -> Verification:
    """Hash everything, and let the teacher read a batch of the first and of the last shard again.

    ``folder`` is the cache's own; what is no cache, or another one, is a problem, too.
    """
    n_files = n_read_again = 0
    problems: list[str] = []
    try:
        manifest = read_manifest(folder, spec)
        n_files = len(manifest["shards"])
        problems += [*_altered_files(folder, manifest, spec), *_altered_sources(manifest, spec)]
        if not problems:
            teacher, cache = ReadingTeacher(spec, folder, device), TeacherCache(folder.parent, spec)
            for shard in _ends(spec):
                n_read_again += shard.n_windows
                problems += _differences(cache, teacher, shard)
    except ArtefactError as error:
        problems.append(str(error))
    return Verification(spec.name, n_files, n_read_again, tuple(problems))


def _ends(spec: CacheSpec) -> list[Shard]:
    """The first and the last shard of the stream, cut to a batch."""
    of_stream = [shard for shard in spec.shards if shard.kind == "shard"]
    ends = dict.fromkeys((of_stream[0], of_stream[-1]))
    return [replace(shard, n_windows=min(BATCH_WINDOWS, shard.n_windows)) for shard in ends]


def _altered_files(folder: Path, manifest: Mapping[str, Any], spec: CacheSpec) -> Iterator[str]:
    for shard in spec.shards:
        if shard.file not in manifest["shards"]:
            yield f"{folder / shard.file}: is not stored yet; `kdlaws cache build` adds it"
    for file, entry in manifest["shards"].items():
        if not (folder / file).exists():
            yield f"{folder / file}: is missing"
        elif file_digest(folder / file) != entry["sha256"]:
            yield f"{folder / file}: is not what was written; remove it, and build the cache again"


def _altered_sources(manifest: Mapping[str, Any], spec: CacheSpec) -> Iterator[str]:
    weights = spec.teacher.model_folder
    if not any(weights.glob("*.safetensors")):
        yield f"{weights}: the weights are missing"
    elif current_weights_sha256(spec.teacher) != manifest["teacher_weights_sha256"]:
        yield f"{weights}: its weights are not what the cache was made from"
    expected = {spec.stream.path: spec.stream.sha256}
    if spec.with_hidden:
        expected[spec.validation.path] = spec.validation.sha256
    for path, sha256 in expected.items():
        if not path.exists():
            yield f"{path}: is missing"
        elif file_digest(path) != sha256:
            yield f"{path}: is not what the cache was made from"
    tokenizer = spec.stream.path.with_name("tokenizer.json")
    if not tokenizer.exists():
        yield f"{tokenizer}: is missing"
    elif _digest_of(tokenizer, spec) != spec.tokenizer_sha256:
        yield f"{tokenizer}: is not the tokenizer that the cache was made with"
    if spec.teacher.tokenizer_sha256 != spec.tokenizer_sha256:
        yield f"{weights}: the teacher was trained with another tokenizer"


def _digest_of(tokenizer: Path, spec: CacheSpec) -> str:
    return tokenizer_digest(load_tokenizer(tokenizer), spec.teacher.shape.objective)


def _differences(cache: TeacherCache, teacher: ReadingTeacher, shard: Shard) -> Iterator[str]:
    """Numbers that are further from those read again than another machine explains.

    Each is a mean: of absolute differences, or of distributions' total variation distance.
    """
    stored, n_windows = cache.shard(shard.kind, shard.first), shard.n_windows
    fresh = grouped(teacher.outputs(shard, lambda _: None)[0])
    for group, arrays in fresh.items():
        found: dict[str, float] = {
            name: float(np.abs(arrays[name] - stored[group][name][:n_windows]).mean())
            for name in ("label_log_p", "entropy", "hidden")
            if name in arrays
        }
        if group:
            found["distribution"] = _distance(cache.spec, arrays, stored[group], n_windows)
        for name, distance in found.items():
            if not distance <= _TOLERANCE:
                where = f"{cache.folder / shard.file}: {name}"
                at = f" at temperature {float(group):g}" if group else ""
                yield f"{where}{at} is {distance:.2g} from what the teacher says now"


def _distance(spec: CacheSpec, fresh: Arrays, stored: Arrays, n_windows: int) -> float:
    """Mean total variation distance of the distributions of two shards' first windows."""
    n_vocab, total = spec.teacher.shape.n_vocab, 0.0
    for row in range(n_windows):
        one, other = (
            as_whole(spec.form.read([(arrays, row, 0)]), n_vocab) for arrays in (fresh, stored)
        )
        total += float((one - other).abs().sum()) / 2
    return total / (n_windows * spec.stream.n_labels(spec.n_ctx))
