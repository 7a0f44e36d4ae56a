"""A model as an ONNX file, from token ids to logits, checked against the model itself."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from kdlaws.errors import ConfigError, KdlawsError, MissingExtraError
from kdlaws.lab import given, joining, latency
from kdlaws.lab.headless import load_stock_given

LARGEST_DIFFERENCE = 1e-4
"""Of a logit, under onnxruntime and under torch, both fp32."""

MOST_BYTES = 2**31 - 2**20
"""A protocol buffer holds no more than 2 GiB."""

_WARM_UP, _PREFILLS = 3, 30

Run = Callable[[Tensor], NDArray[np.float32]]


@dataclass(frozen=True)
class Exported:
    """What was written: sizes in MiB, milliseconds of a full prefill at batch 1, one thread."""

    inputs: tuple[str, ...]
    n_ctx: int
    size_mb: float
    model_size_mb: float
    largest_difference: float
    onnx_ms_p50: float
    onnx_ms_p95: float
    torch_ms_p50: float
    torch_ms_p95: float


class _Logits(nn.Module):
    """Without a key-value cache, every logit; an attention mask of a masked model only."""

    def __init__(self, stock: PreTrainedModel, is_causal: bool) -> None:
        super().__init__()
        self.stock, self.options = stock, {"use_cache": False} if is_causal else {}

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        options = self.options | (
            {} if attention_mask is None else {"attention_mask": attention_mask}
        )
        logits_btv: Tensor = self.stock(input_ids=input_ids, **options).logits
        return logits_btv


def export(model: str, file: Path, n_ctx: int | None = None) -> Exported:
    """Write ``file``, for any batch of up to ``n_ctx`` tokens (None: all that the model reads).

    The file appears only if its logits of random ids are those of the stock model; else
    KdlawsError. Raises ConfigError as ``joining.find_model``, and MissingExtraError.
    """
    _require_onnx()
    found = joining.find_model(model)
    length = found.n_ctx(n_ctx)
    model_bytes = sum(each.stat().st_size for each in given.weights_of(found.folder))
    stock = _Logits(load_stock_given(found.folder, found.objective), found.objective == "causal")
    _require_small(4 * found.model.n_params, model)
    partial = file.with_name(f".{file.name}.partial")
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        inputs = _write(stock, partial, length, found.objective == "masked")
        run = _session(partial, inputs)
        difference = _difference(stock, run, length, found.model.n_vocab)
        times = _times_of(run, length), _times_of(_in_torch(stock), length)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    return Exported(
        inputs,
        length,
        file.stat().st_size / 2**20,
        model_bytes / 2**20,
        difference,
        *sum(times, ()),
    )


def _require_onnx() -> None:
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"exporting to ONNX needs {', '.join(missing)}", remedy="pip install 'kdlaws[onnx]'"
        )


def _require_small(n_bytes: int, model: str) -> None:
    if n_bytes > MOST_BYTES:
        raise ConfigError(
            f"{model} takes {n_bytes / 2**30:.1f} GiB in fp32, and one ONNX file holds 2",
            remedy="export a smaller model",
        )


def _write(stock: _Logits, file: Path, n_ctx: int, is_masked: bool) -> tuple[str, ...]:
    """Sizes of batch and length stay open. Names of what the file is given."""
    inputs = ("input_ids", "attention_mask") if is_masked else ("input_ids",)
    ids_bt = torch.zeros(2, n_ctx, dtype=torch.long)
    tensors = (ids_bt, torch.ones_like(ids_bt))[: len(inputs)]
    open_sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=n_ctx)}
    with torch.inference_mode(), _quietly():
        torch.onnx.export(
            stock.eval(),
            tensors,
            file,
            dynamo=True,
            verbose=False,
            external_data=False,
            input_names=list(inputs),
            output_names=["logits"],
            dynamic_shapes=dict.fromkeys(inputs, open_sizes),
        )
    return inputs


@contextmanager
def _quietly() -> Iterator[None]:
    """The exporter tells of packages that no language model needs, and of its own future."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _session(file: Path, inputs: tuple[str, ...]) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def run(ids_bt: Tensor) -> NDArray[np.float32]:
        arrays = (ids_bt.numpy(), np.ones(ids_bt.shape, dtype=np.int64))
        logits_btv: NDArray[np.float32]
        (logits_btv,) = session.run(["logits"], dict(zip(inputs, arrays, strict=False)))
        return logits_btv

    return run


def _in_torch(stock: _Logits) -> Run:
    def run(ids_bt: Tensor) -> Any:
        with torch.inference_mode():
            return stock(ids_bt).numpy()

    return run


def _difference(stock: _Logits, run: Run, n_ctx: int, n_vocab: int) -> float:
    """Of the logits of random ids, whole sequences and shorter ones. Raises KdlawsError."""
    generator = torch.Generator().manual_seed(0)
    in_torch, difference = _in_torch(stock), 0.0
    for shape in ((1, n_ctx), (3, n_ctx // 2)):
        ids_bt = torch.randint(n_vocab, shape, generator=generator)
        difference = max(difference, float(np.abs(run(ids_bt) - in_torch(ids_bt)).max()))
    if not difference < LARGEST_DIFFERENCE:
        raise KdlawsError(
            f"the ONNX file's logits are up to {difference:.2g} off the model's, so it was not "
            "kept",
            remedy="try other versions of torch, onnxscript and onnxruntime",
        )
    return difference


def _times_of(run: Run, n_ctx: int) -> tuple[float, float]:
    """Median and 95th percentile of a prefill, milliseconds."""
    ids_bt = torch.zeros(1, n_ctx, dtype=torch.long)
    with _one_thread():
        seconds = latency._times(lambda: run(ids_bt), _WARM_UP + _PREFILLS)[_WARM_UP:]
    return latency._percentile(seconds, 50), latency._percentile(seconds, 95)


@contextmanager
def _one_thread() -> Iterator[None]:
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)
