"""A fitted law as a surface over many models at once, for whatever searches it."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from kdlaws.laws.coordinates import log_curve, plain_coordinates
from kdlaws.laws.dual import FloatArray
from kdlaws.laws.law import L_T, D
from kdlaws.laws.result import Fit


def log_surface(
    fit: Fit, columns: Mapping[str, ArrayLike], u: FloatArray, *, each_its_own: bool = False
) -> FloatArray:
    """log cross-entropy ``[fits, models]`` of parameters ``u [fits, unknowns]``.

    ``columns`` are as of ``Fit.predict``, one value a model or for all; with ``each_its_own`` the
    first part of the models is the first fit's, and so on. NaN where the law has no value. A
    teacher that is told by its N and tokens has the cross-entropy that each u gives it.
    """
    x, _ = fit.read(columns)
    if each_its_own:
        x = {name: values.reshape(len(u), -1) for name, values in x.items()}
    teacher = (f"teacher_{fit.n_column}", f"teacher_{D}")
    if fit.form.stages and L_T not in columns and set(teacher) <= set(columns):
        alone = dict(zip((fit.n_column, D), (columns[name] for name in teacher), strict=True))
        x = {**x, L_T: log_surface(fit, alone, u, each_its_own=each_its_own)}
    return log_curve(fit.form, u, x)


def parameter_slopes(fit: Fit, columns: Mapping[str, ArrayLike]) -> FloatArray:
    """Derivative of log cross-entropy by u, ``[models, unknowns]``, at the fit's own parameters."""
    x, _ = fit.read(columns)
    slopes: FloatArray = plain_coordinates(fit.form).linearise(fit.u[None], x)[1][0].T
    return slopes


def samples(fit: Fit) -> FloatArray | None:
    """u of the refits behind a fit's intervals ``[refits, unknowns]``, None without any."""
    drawn = getattr(fit.uncertainty, "samples", None)
    return None if drawn is None else np.asarray(drawn)
