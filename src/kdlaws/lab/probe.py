"""How long a training token takes here: two timed steps of each shape, before anything is spent.

Small shapes run at a quarter of the GEMM rate, so FLOPs alone would mislead.
"""

import time
from collections.abc import Iterable, Mapping
from functools import cache
from timeit import timeit

import torch

from kdlaws.lab import heads, students
from kdlaws.lab.kernels import matmul_nt
from kdlaws.lab.memory import part_windows
from kdlaws.lab.streams import Batch
from kdlaws.shapes import Costs, Shape

_TIMED_STEPS = 2
_PRODUCT_SIDE = 1024

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


def seconds_of_reading(size: Costs, batch_tokens: int) -> float:
    """Seconds a token of a forward pass: of a size of the ladder by its training step, measured;
    of any other model by its FLOPs and the rate of a large product."""
    if isinstance(size, Shape):
        forward_share = size.forward_flops_per_token / size.training_flops_per_token
        return seconds_per_token([(size, batch_tokens)])[size, batch_tokens] * forward_share
    return size.forward_flops_per_token / _product_flops_per_second()


@cache
def _product_flops_per_second() -> float:
    a_nn = torch.ones(_PRODUCT_SIDE, _PRODUCT_SIDE)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds = [timeit(lambda: matmul_nt(a_nn, a_nn), number=1) for _ in range(1 + _TIMED_STEPS)]
    finally:
        torch.set_num_threads(n_threads)
    return 2 * float(_PRODUCT_SIDE) ** 3 / min(seconds[1:])


def _probe(shape: Shape, batch_tokens: int) -> float:
    model = students.build(shape, seed=0).train()
    optimiser = torch.optim.AdamW(model.parameters(), fused=True)
    windows = part_windows(shape, batch_tokens // shape.n_ctx, "float32")
    to_head = heads.head(model)
    batch = _batch(shape, windows)
    seconds = []
    for _ in range(1 + _TIMED_STEPS):
        start = time.perf_counter()
        _, given_bme = heads.states(model, batch)
        optimiser.zero_grad()
        heads.loss(to_head, given_bme, batch.labels_bm).backward()
        optimiser.step()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:]) / batch.inputs_bt.numel()


def _batch(shape: Shape, windows: int) -> Batch:
    ids_bt = torch.zeros(windows, shape.n_ctx, dtype=torch.long)
    if shape.objective == "causal":
        return Batch(ids_bt, ids_bt)
    places_bm = torch.arange(shape.n_targets).expand(windows, -1)
    return Batch(ids_bt, ids_bt[:, : shape.n_targets], places_bm)
