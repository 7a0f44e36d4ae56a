"""How long a training token takes here: two timed steps of each shape, before anything is spent.

Small shapes run at a quarter of the GEMM rate, so FLOPs alone would mislead.
"""

import statistics
import time
from collections.abc import Iterable

import torch

from kdlaws.lab import objectives, students
from kdlaws.shapes import Shape

_TIMED_STEPS = 2


def seconds_per_token(shapes: Iterable[Shape], batch_tokens: int) -> dict[Shape, float]:
    """Seconds a token on one thread, forward, backward and update, for each distinct shape."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {shape: _probe(shape, batch_tokens) for shape in dict.fromkeys(shapes)}
    finally:
        torch.set_num_threads(n_threads)


def _probe(shape: Shape, batch_tokens: int) -> float:
    model = students.build(shape, seed=0).train()
    optimiser = torch.optim.AdamW(model.parameters(), fused=True)
    ids = torch.zeros(batch_tokens // shape.n_ctx, shape.n_ctx, dtype=torch.long)
    seconds = []
    for _ in range(1 + _TIMED_STEPS):
        start = time.perf_counter()
        _, logits_btv = students.forward(model, ids)
        optimiser.zero_grad()
        objectives.cross_entropy(logits_btv, ids).backward()
        optimiser.step()
        seconds.append(time.perf_counter() - start)
    return statistics.mean(seconds[1:]) / batch_tokens
