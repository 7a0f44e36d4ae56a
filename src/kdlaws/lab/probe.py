"""How long a training token takes here: two timed steps of each shape, before anything is spent.

Small shapes run at a quarter of the GEMM rate, so FLOPs alone would mislead.
"""

import time
from collections.abc import Iterable, Mapping

import torch

from kdlaws.lab import students
from kdlaws.lab.kernels import hidden_states
from kdlaws.lab.memory import part_windows
from kdlaws.lab.objectives import linear_loss
from kdlaws.shapes import Shape

_TIMED_STEPS = 2

Rates = Mapping[tuple[Shape, int], float]
"""Seconds a token by shape and tokens of a batch."""


def seconds_per_token(batches: Iterable[tuple[Shape, int]]) -> Rates:
    """Seconds a token on one thread, forward, backward and update, for each shape and batch."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {each: _probe(*each) for each in dict.fromkeys(batches)}
    finally:
        torch.set_num_threads(n_threads)


def _probe(shape: Shape, batch_tokens: int) -> float:
    model = students.build(shape, seed=0).train()
    optimiser = torch.optim.AdamW(model.parameters(), fused=True)
    windows = part_windows(shape, batch_tokens // shape.n_ctx, "float32")
    ids = torch.zeros(windows, shape.n_ctx, dtype=torch.long)
    weight_vd, logits_scaling = students.head(model)
    seconds = []
    for _ in range(1 + _TIMED_STEPS):
        start = time.perf_counter()
        hidden_nd = hidden_states(model, ids).flatten(0, 1)
        optimiser.zero_grad()
        linear_loss(hidden_nd, weight_vd, ids.flatten(), logits_scaling=logits_scaling).backward()
        optimiser.step()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:]) / ids.numel()
