"""A fit as a value: what was estimated, how sure it is, where it is valid; saved as JSON."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kdlaws import __version__
from kdlaws.errors import ArtefactError
from kdlaws.laws.columns import read_column
from kdlaws.laws.forms import LAWS, FloatArray

SCHEMA = 1


@dataclass(frozen=True)
class Parameter:
    """An estimate and its interval; an end that the runs do not bound is None."""

    value: float
    lo: float | None
    hi: float | None
    identified: bool


@dataclass(frozen=True)
class Notice:
    """A warning: a stable code, what is the matter, and what to do."""

    code: str
    message: str
    remedy: str


@dataclass(frozen=True)
class Holdout:
    """Back-test on the runs of largest compute, predicted from the others.

    ``mape`` and ``baseline_mape`` (the power law in compute) are in percent of cross-entropy,
    ``coverage_90`` is the share of these runs inside their 90 % new-run interval.
    """

    mape: float | None
    baseline_mape: float | None
    coverage_90: float | None
    n_test: int


@dataclass(frozen=True)
class Fit:
    """A fitted law; made by ``kdlaws.laws.fit``.

    ``samples [n_resamples, n_parameters]`` are the bootstrap refits, parameters in the order of
    ``parameters``; empty where no interval could be given. ``starts_agree`` is the share of starts
    that reached the best objective, ``domain`` the range of each column that the law read.
    """

    law: str
    n_column: str
    parameters: Mapping[str, Parameter]
    level: float
    objective: float
    objective_name: str
    n_runs: int
    n_dropped: int
    converged: bool
    starts_agree: float
    domain: Mapping[str, tuple[float, float]]
    holdout: Holdout | None
    seed: int
    inputs: Mapping[str, str | None]
    warnings: tuple[Notice, ...]
    samples: FloatArray = field(repr=False, compare=False)

    def predict(self, columns: Mapping[str, ArrayLike]) -> FloatArray:
        """Cross-entropy in nats per token, in the shape that the columns broadcast to.

        ``columns`` holds what the law reads: ``n_column`` and ``n_tokens``, or ``flops`` (6*N*D
        only where the fit took that, too). TableError where one is missing or not positive.
        """
        values = np.array([parameter.value for parameter in self.parameters.values()])
        loss: FloatArray = self._curves(values[None], columns)[0]
        return loss

    def band(self, columns: Mapping[str, ArrayLike]) -> tuple[FloatArray, FloatArray]:
        """Both ends of the interval of the curve at ``level``; NaN where there is none.

        This is where the expected cross-entropy lies. A new run scatters around it.
        """
        if not len(self.samples):
            unknown = np.full_like(self.predict(columns), np.nan)
            return unknown, unknown.copy()
        tail = (1 - self.level) / 2
        lo, hi = np.quantile(self._curves(self.samples, columns), [tail, 1 - tail], axis=0)
        return lo, hi

    def _curves(self, values: FloatArray, columns: Mapping[str, ArrayLike]) -> FloatArray:
        law = LAWS[self.law]
        # FLOPs as in the fit: a law of counted FLOPs says nothing about 6*N*D.
        by_6nd = any(notice.code == "flops_6nd" for notice in self.warnings)
        read = [
            read_column(columns, name, self.n_column, derive_flops=by_6nd)
            for name in law.reads(self.n_column)
        ]
        x = np.log(np.stack(np.broadcast_arrays(*read)))
        flat = x.reshape(len(x), -1)
        loss: FloatArray = np.exp(law.log_form(law.coordinates(values), flat)[0])
        return loss.reshape(len(values), *x.shape[1:])

    def to_dict(self) -> dict[str, Any]:
        """The JSON contract: plain values, None for what is unknown, without the samples."""
        body = {name: getattr(self, name) for name in _CONTRACT}
        body["parameters"] = {name: asdict(value) for name, value in self.parameters.items()}
        body["holdout"] = self.holdout and asdict(self.holdout)
        body["warnings"] = [asdict(notice) for notice in self.warnings]
        plain: dict[str, Any] = _plain({"schema": SCHEMA, "kdlaws": __version__, **body})
        return plain

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the contract and the samples; the file appears whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        document = self.to_dict() | {"samples": _plain(self.samples.tolist())}
        unfinished.write_text(json.dumps(document, allow_nan=False) + "\n", encoding="utf-8")
        unfinished.replace(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Fit":
        """Read what ``save`` wrote; ArtefactError where the file is not a fit."""
        try:
            return _from_document(json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtefactError(
                f"not a fit that this version reads ({type(error).__name__}: {error})",
                where=str(path),
                remedy=f"give a file that `kdlaws fit` wrote with schema {SCHEMA}",
            ) from error

    def __str__(self) -> str:
        law = LAWS[self.law]
        lines = [f"{self.law}: {law.equation}, N = {self.n_column}"]
        lines += [f"  {name:<6}{_parameter(value)}" for name, value in self.parameters.items()]
        lines.append(
            f"{self.n_runs} runs ({self.n_dropped} dropped), {self.level:.0%} intervals; "
            f"{self.objective_name} = {self.objective:.6g}"
        )
        lines.append(
            f"{'converged' if self.converged else 'NOT converged'}, "
            f"{self.starts_agree:.0%} of the starts agree"
        )
        if self.holdout is not None:
            lines.append(_holdout(self.holdout))
        lines += [f"{n.code}: {n.message}\n    {n.remedy}" for n in self.warnings]
        return "\n".join(lines)


_CONTRACT = tuple(entry.name for entry in fields(Fit) if entry.name != "samples")


def _from_document(document: dict[str, Any]) -> Fit:
    if document["schema"] != SCHEMA:
        raise ValueError(f"schema {document['schema']}")
    law = LAWS[document["law"]]
    values = {name: document[name] for name in _CONTRACT}
    values["parameters"] = {n: Parameter(**document["parameters"][n]) for n in law.parameters}
    values["domain"] = {name: (lo, hi) for name, (lo, hi) in document["domain"].items()}
    values["holdout"] = document["holdout"] and Holdout(**document["holdout"])
    values["warnings"] = tuple(Notice(**notice) for notice in document["warnings"])
    samples = np.array(document["samples"], dtype=np.float64)
    return Fit(**values, samples=samples.reshape(-1, len(law.parameters)))


def _plain(value: Any) -> Any:
    """The same value in what JSON has; a number that is not finite becomes None."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if isfinite(value) else None
    return value


def interval_text(lo: float | None, hi: float | None) -> str:
    """An interval for people, open where it has no end."""
    if lo is None and hi is None:
        return "unknown"
    if lo is None:
        return f"up to {hi:.4g}"
    return f"{lo:.4g} or more" if hi is None else f"{lo:.4g} to {hi:.4g}"


def _parameter(parameter: Parameter) -> str:
    if parameter.identified:
        return f"{parameter.value:<10.4g} {interval_text(parameter.lo, parameter.hi)}"
    interval = interval_text(parameter.lo, parameter.hi)
    return f"{parameter.value:<10.4g} not identified: {interval}"


def _holdout(holdout: Holdout) -> str:
    covered = "unknown" if holdout.coverage_90 is None else f"{holdout.coverage_90:.0%}"
    return (
        f"held out the {holdout.n_test} runs of largest compute: error {holdout.mape:.2f}%, "
        f"power law in compute {holdout.baseline_mape:.2f}%, 90% interval covers {covered}"
    )
