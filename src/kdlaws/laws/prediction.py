"""One model's cross-entropy, before it is trained."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kdlaws.errors import ArtefactError, InputError
from kdlaws.laws import artefact
from kdlaws.laws.columns import N_COLUMNS
from kdlaws.laws.law import METHOD, SCRATCH
from kdlaws.laws.mixture import Mixture
from kdlaws.laws.published import NAMES, published
from kdlaws.laws.result import Fit, Notice

PREFIX = "published:"
NONSENSE = 700.0  # nats per token, whose perplexity is no float64


@dataclass(frozen=True)
class Prediction(artefact.Document):
    """Cross-entropy in nats per token; ends that are not known are None.

    ``lo`` and ``hi`` enclose the curve, ``new_run_lo`` and ``new_run_hi`` a run. ``beyond`` says by
    column how far outside the runs the model is, as a factor. ``supervised_cross_entropy`` is the
    same model's without a teacher, where a law of that is known.
    """

    cross_entropy: float
    lo: float | None
    hi: float | None
    new_run_lo: float | None
    new_run_hi: float | None
    level: float
    perplexity: float
    extrapolates: bool
    beyond: Mapping[str, float]
    supervised_cross_entropy: float | None
    warnings: tuple[Notice, ...]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Prediction":
        """Read what ``save`` wrote; ArtefactError where the file is no prediction."""
        content = artefact.read(path, "prediction")
        try:
            values = {name: content[name] for name in cls.__dataclass_fields__}
            values["warnings"] = tuple(Notice(**notice) for notice in content["warnings"])
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise artefact.foreign(path, "prediction", error) from error

    def __str__(self) -> str:
        lines = [f"{self.cross_entropy:.4f} nats per token (perplexity {self.perplexity:.4g})"]
        for what, lo, hi in (
            ("the curve", self.lo, self.hi),
            ("a new run", self.new_run_lo, self.new_run_hi),
        ):
            known = lo is not None and hi is not None
            lines.append(
                f"  {self.level:.0%} interval of {what}: "
                + (f"{lo:.4f} to {hi:.4f}" if known else "unknown")
            )
        if self.supervised_cross_entropy is not None:
            alone = self.supervised_cross_entropy
            gain = alone - self.cross_entropy
            lines.append(f"  without a teacher: {alone:.4f} ({gain:+.4f} nats gained)")
        lines += [f"{n.code}: {n.message}\n    {n.remedy}" for n in self.warnings]
        return "\n".join(lines)


def load_fit(reference: str) -> Fit | Mixture:
    """A saved fit or combination, or ``published:NAME``; ArtefactError, InputError where none."""
    if reference.startswith(PREFIX):
        return published(reference.removeprefix(PREFIX))
    if not Path(reference).is_file():
        raise InputError(
            "there is no such fit",
            where=reference,
            remedy=f"give what `kdlaws fit --out` wrote, or {PREFIX}NAME: {', '.join(NAMES)}",
        )
    content = artefact.read(reference, "fit")
    if not {"parameters", "weights"} & content.keys():
        raise ArtefactError(
            f"a document of kdlaws, and not a fit: it has {', '.join(list(content)[2:6])}",
            where=reference,
            remedy="give what `kdlaws fit --out` or `kdlaws compare --out` wrote",
        )
    return Mixture.load(reference) if "weights" in content else Fit.load(reference)


def predict(
    fit: Fit | Mixture, columns: Mapping[str, ArrayLike], scratch: Fit | Mixture | None = None
) -> Prediction:
    """What ``fit`` says of one model, and ``scratch`` of the same model without a teacher.

    ``columns`` are scalars, as of ``Fit.predict``. TableError where one is missing, InputError
    where N is counted by the other convention.
    """
    _check_convention(fit, columns)
    _check_method(fit, columns)
    value = _scalar(fit.predict(columns))
    _check_size(value)
    lo, hi, new_lo, new_hi = (_known(end) for end in (*fit.band(columns), *fit.new_runs(columns)))
    beyond = fit.beyond(columns)
    return Prediction(
        cross_entropy=value,
        lo=lo,
        hi=hi,
        new_run_lo=new_lo,
        new_run_hi=new_hi,
        level=fit.level,
        perplexity=exp(value),
        extrapolates=bool(beyond),
        beyond=beyond,
        supervised_cross_entropy=_supervised(fit, columns, scratch),
        warnings=(*beyond_notices(beyond), *carried_notices(fit)),
    )


def _scalar(value: Any) -> float:
    if np.size(value) != 1:
        raise InputError(
            "one model at a time", where="predict", remedy="Fit.predict takes arrays of models"
        )
    return float(np.reshape(value, ()))


def _known(end: Any) -> float | None:
    value = _scalar(end)
    return value if isfinite(value) else None


def _check_convention(fit: Fit | Mixture, columns: Mapping[str, ArrayLike]) -> None:
    [wrong] = set(N_COLUMNS) - {fit.n_column}
    if wrong in columns and fit.n_column not in columns:
        raise InputError(
            f"the fit reads {fit.n_column}, and {wrong} is another count",
            where=wrong,
            remedy=f"give {fit.n_column}=...",
        )


def _check_method(fit: Fit | Mixture, columns: Mapping[str, ArrayLike]) -> None:
    """A law that tells methods apart would read a teacher without one as none."""
    parts = fit.fits if isinstance(fit, Mixture) else (fit,)
    methods = sorted({name for each in parts for name in each.methods} - {SCRATCH})
    given = [name for name in columns if name.startswith("teacher")]
    if methods and given and METHOD not in columns:
        raise InputError(
            "a teacher is given, but no method",
            where=given[0],
            remedy=f"give method=..., one of {', '.join(methods)}",
        )


def _check_size(cross_entropy: float) -> None:
    if cross_entropy > NONSENSE:
        raise InputError(
            f"the law says {cross_entropy:.4g} nats per token there, far outside its range",
            where="predict",
            remedy="check the units: 70 billion is 70B or 7e10, not 70",
        )


def _supervised(
    fit: Fit | Mixture, columns: Mapping[str, ArrayLike], scratch: Fit | Mixture | None
) -> float | None:
    """By ``scratch``, else by the law itself where it knows runs without a teacher."""
    alone = {name: value for name, value in columns.items() if not name.startswith("teacher")}
    if scratch is not None:
        _check_convention(scratch, columns)
        return _scalar(scratch.predict({**alone, METHOD: SCRATCH}))
    if isinstance(fit, Fit) and len(alone) < len(columns):
        if fit.form.stages:
            return _scalar(fit.predict(alone))
        if SCRATCH in fit.methods:
            return _scalar(fit.predict({**alone, METHOD: SCRATCH}))
    return None


def beyond_notices(beyond: Mapping[str, float]) -> list[Notice]:
    """That a model is outside the runs, and how far."""
    if not beyond:
        return []
    far = ", ".join(f"{name} by a factor {factor:.3g}" for name, factor in beyond.items())
    message = f"outside the runs: {far}"
    return [Notice("extrapolates", message, "train a model nearer to it, and fit again")]


_OF_PREDICTIONS = ("no_joint_uncertainty", "flops_6nd", "not_converged", "few_trunks")


def carried_notices(fit: Fit | Mixture) -> list[Notice]:
    """What the fit warns of that concerns its predictions."""
    return [notice for notice in fit.warnings if notice.code in _OF_PREDICTIONS]
