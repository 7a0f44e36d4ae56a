"""Where training metrics go beside metrics.jsonl: one callable, on_metrics(step, values)."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from kdlaws.errors import MissingExtraError

OnMetrics = Callable[[int, Mapping[str, float]], None]


@contextmanager
def metrics_hook(tensorboard: Path | None, run: str) -> Iterator[OnMetrics]:
    """The hook of one run; it writes event files to ``tensorboard``/``run``, or does nothing."""
    if tensorboard is None:
        yield lambda step, values: None
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tensorboard / run) as writer:

        def on_metrics(step: int, values: Mapping[str, float]) -> None:
            for name, value in values.items():
                writer.add_scalar(name, value, step)

        yield on_metrics


def require_tensorboard() -> None:
    if find_spec("tensorboard") is None:
        raise MissingExtraError(
            "tensorboard: its package is not installed",
            remedy="pip install 'kdlaws[tensorboard]', or set tensorboard=false",
        )
