"""A teacher beside its student: it reads every batch that the student reads, and stores nothing."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from kdlaws.lab.components import BASIS_WINDOWS, Components, principal_components
from kdlaws.lab.heads import head, states
from kdlaws.lab.streams import TokenStream
from kdlaws.lab.targets import Online
from kdlaws.lab.teachers import load_teacher
from kdlaws.study import TeacherFacts

_BATCH_WINDOWS = 32


@dataclass(frozen=True)
class OnlineSpec:
    """Which teacher reads which streams; ``hidden_variance`` is None where no state is wanted."""

    teacher: TeacherFacts
    stream: TokenStream
    validation: TokenStream
    n_ctx: int
    hidden_variance: float | None


class OnlineTeacher:
    """Says what ``TeacherCache`` says, without a cache and without sampling."""

    def __init__(self, spec: OnlineSpec, device: torch.device) -> None:
        self.spec, self.device = spec, device
        self.model = load_teacher(spec.teacher)
        nn.Module.to(self.model, device)  # transformers' own is a wrapper that has no types
        self.components = self._components() if spec.hidden_variance else None

    def token(self, temperature: float, windows: np.ndarray, epochs: np.ndarray) -> Online:
        """The teacher's states and head: its distribution at any temperature, in any epoch."""
        _, given_bme = self._states(self.spec.stream, windows, epochs)
        return Online(given_bme.flatten(0, 1), *head(self.model))

    def hidden(self, windows: np.ndarray, epochs: np.ndarray) -> Tensor:
        """Principal components of the hidden states: [b, m, n_components]."""
        assert self.components is not None
        return self.components.of(self._states(self.spec.stream, windows, epochs)[0])

    def validation_hidden(self, windows: np.ndarray) -> Tensor:
        """The same of the validation windows."""
        assert self.components is not None
        return self.components.of(self._states(self.spec.validation, windows)[0])

    def cross_entropy(self, n_windows: int) -> None:
        """Not known: each student reads other windows."""

    @property
    def n_components(self) -> int:
        assert self.components is not None
        return self.components.n

    @property
    def hidden_dropped(self) -> float:
        assert self.components is not None
        return self.components.dropped

    def rank_floor(self, d_student: int) -> float:
        assert self.components is not None
        return self.components.rank_floor(d_student)

    def _components(self) -> Components:
        assert self.spec.hidden_variance is not None
        return principal_components(self._first_states(), self.spec.hidden_variance)

    def _first_states(self) -> Iterator[np.ndarray]:
        n_windows = min(BASIS_WINDOWS, self.spec.stream.n_windows(self.spec.n_ctx))
        for first in range(0, n_windows, _BATCH_WINDOWS):
            rows = np.arange(first, min(first + _BATCH_WINDOWS, n_windows))
            hidden_bmd, _ = self._states(self.spec.stream, rows)
            yield hidden_bmd.flatten(0, 1).double().cpu().numpy()

    @torch.no_grad()
    def _states(
        self, stream: TokenStream, windows: np.ndarray, epochs: np.ndarray | None = None
    ) -> tuple[Tensor, Tensor]:
        return states(self.model, stream.batch(windows, self.spec.n_ctx, epochs).to(self.device))
