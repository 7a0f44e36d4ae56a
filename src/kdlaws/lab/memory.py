"""How much memory a run takes, so that a sweep stays under its limit: estimates, measured once.

A batch is read in parts small enough for their activations; how small depends on the shape alone,
so a run's numbers do not depend on the machine's memory.
"""

import os
from functools import lru_cache

from kdlaws.config import Precision, Study
from kdlaws.errors import ConfigError
from kdlaws.lab.objectives import CHUNK_BYTES
from kdlaws.shapes import Costs, Shape

ACTIVATION_BYTES: dict[Precision, int] = {"float32": 2**30, "bfloat16": 2**33}
"""Of one part of a batch. In half precision there is a GPU's memory to use."""

PROCESS_MB = 450  # python, torch and transformers with no model (benchmarks/training.md)
READING_BYTES = 2**28  # outputs of a batch that a teacher reads, and its logits
_BYTES_PER_PARAM = 4 * (4 + 3)  # weight, gradient, AdamW's two moments; three copied at a branch
_CHUNKS = 4  # of logits that the loss and a dense teacher hold at once


def part_windows(shape: Shape, batch_windows: int, precision: Precision) -> int:
    """Windows read at a time: the largest divisor of the batch whose activations have room."""
    room = ACTIVATION_BYTES[precision] // (shape.n_ctx * activation_bytes(shape, precision))
    fitting = (n for n in range(1, batch_windows + 1) if batch_windows % n == 0 and n <= room)
    return max(fitting, default=1)


def activation_bytes(shape: Shape, precision: Precision) -> int:
    """Kept a token for the backward pass: about 16 widths and 4 MLP widths a layer."""
    width = 2 if precision == "bfloat16" else 4
    return width * shape.n_layers * (16 * shape.d_model + 4 * shape.d_intermediate)


def training_mb(shape: Shape, batch_tokens: int, precision: Precision) -> int:
    """Resident memory of a worker that trains this shape, MB."""
    windows = part_windows(shape, batch_tokens // shape.n_ctx, precision)
    activations = windows * shape.n_ctx * activation_bytes(shape, precision)
    weights = _BYTES_PER_PARAM * shape.n_params
    return PROCESS_MB + (weights + activations + _CHUNKS * CHUNK_BYTES) // 10**6


def reading_mb(shape: Costs) -> int:
    """Of a model that only reads, beside what its process holds anyway, MB."""
    return (4 * shape.n_params + READING_BYTES) // 10**6


def limit_mb(study: Study) -> int:
    """Of all the study's workers together, MB."""
    return study.memory_mb or int(0.8 * _physical_mb())


@lru_cache
def _physical_mb() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 10**6


def require_room(name: str, needed: int, limit: int) -> None:
    """Raises ConfigError for a task that does not fit even alone."""
    if needed > limit:
        raise ConfigError(
            f"memory_mb: {name} needs about {needed} MB, more than the limit of {limit}",
            remedy="raise memory_mb, or leave out the size",
        )
