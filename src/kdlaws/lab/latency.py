"""How fast a shape answers: prefill and decode at batch 1 on one thread, and its peak memory.

Weights do not change the time, so each shape is measured once, while nothing else runs.
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from kdlaws.lab.teachers import load_stock_model
from kdlaws.records import write_json
from kdlaws.shapes import Objective

_WARM_UP = 3
_PREFILLS = 30
_LEAST, _MOST_S = 5, 20.0  # timed calls of a slow model: that many, and for that long


def measure_shapes(
    models: Mapping[str, Path], objective: Objective, n_ctx: int, file: Path, _: object
) -> None:
    """Measure one model's folder for each key and write {key: measurements} to ``file``."""
    torch.set_num_threads(1)
    write_json(file, {key: measure(folder, objective, n_ctx) for key, folder in models.items()})


def measure(folder: Path, objective: Objective, n_ctx: int) -> dict[str, float | None]:
    """Milliseconds (median and 95th percentile) of a full prefill and of one decoded token.

    A masked model decodes nothing, and a recurrent one has no key-value cache.
    """
    _reset_peak_memory()
    model = load_stock_model(folder, objective)
    ids = torch.zeros(1, n_ctx, dtype=torch.long)
    is_causal = objective == "causal"
    options = {"use_cache": True} if is_causal else {}
    with torch.inference_mode():
        prefill = _times(lambda: model(ids, **options), _WARM_UP + _PREFILLS)[_WARM_UP:]
        decode = _decode_times(model, n_ctx)[_WARM_UP:] if is_causal else []
    return {
        "prefill_ms_p50": _percentile(prefill, 50),
        "prefill_ms_p95": _percentile(prefill, 95),
        "decode_ms_p50": _percentile(decode, 50) if decode else None,
        "decode_ms_p95": _percentile(decode, 95) if decode else None,
        "peak_memory_mb": _peak_memory_mb(),
    }


def _times(call: Callable[[], Any], repeats: int) -> list[float]:
    """Seconds of each call; fewer calls than asked for where they take ``_MOST_S`` together."""
    seconds: list[float] = []
    while len(seconds) < repeats:
        if len(seconds) >= _WARM_UP + _LEAST and sum(seconds) > _MOST_S:
            break
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds


def _decode_times(model: PreTrainedModel, n_ctx: int) -> list[float]:
    """One token at a time after half a context, with the key-value cache; none without one."""
    prompt = torch.zeros(1, n_ctx // 2, dtype=torch.long)
    past = getattr(model(prompt, use_cache=True), "past_key_values", None)
    if past is None:
        return []
    token = prompt[:, :1]
    return _times(lambda: model(token, past_key_values=past, use_cache=True), n_ctx - n_ctx // 2)


def _percentile(seconds: Sequence[float], q: float) -> float:
    return float(np.percentile(seconds, q)) * 1e3


def _reset_peak_memory() -> None:
    """Linux forgets a process's peak when 5 is written here; elsewhere there is no such file."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _peak_memory_mb() -> float | None:
    """Peak resident memory of this process, libraries included; None where it is not known."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    match = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(match[1]) / 1024 if match else None
