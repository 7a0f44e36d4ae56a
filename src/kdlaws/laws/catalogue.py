"""The laws by name: ``LAWS``, ``find``; of each its parameters, their bounds and where to begin."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from kdlaws.errors import InputError
from kdlaws.laws import forms
from kdlaws.laws.dual import FloatArray
from kdlaws.laws.law import (
    D_MID,
    L_T,
    METHOD,
    MIDDLE,
    N_MID,
    RATIO,
    SCRATCH,
    TEACHER_N,
    C,
    Columns,
    D,
    Form,
    Law,
    N,
    Starts,
    U,
    Unknown,
    exponent,
    floor,
    place,
    real,
    scale,
    term,
)
from kdlaws.laws.own import law_of, load_law

# Floors as shares of the lowest cross-entropy, and exponents that span the published ones.
FLOORS = (0.3, 0.6, 0.9)
EXPONENTS = (0.1, 0.3, 0.6)


def _grid(*choices: Sequence[float]) -> FloatArray:
    """Every combination ``[combinations, choices]``."""
    return np.array(list(product(*choices)), dtype=np.float64)


def _floors(loss: FloatArray) -> tuple[float, ...]:
    return tuple(share * float(loss.min()) for share in FLOORS)


def _rest(loss: FloatArray, floors: FloatArray) -> FloatArray:
    """What the median run has above each floor."""
    return np.median(loss) - floors


# --- in compute, in N, in D ---------------------------------------------------------------------


def _compute_starts(x: Columns, loss: FloatArray) -> FloatArray:
    e, a = _grid(_floors(loss), EXPONENTS).T
    return np.stack([np.log(e), np.log(_rest(loss, e)), a], axis=1)


def _kaplan_starts(x: Columns, loss: FloatArray) -> FloatArray:
    """Both terms equal at the median run."""
    alpha_n, alpha_d = _grid(*[(0.05, 0.1, 0.3)] * 2).T
    level = np.log(np.median(loss))
    d_c = level / alpha_d - np.log(2)
    return np.stack([d_c * alpha_d / alpha_n, d_c, alpha_n, alpha_d], axis=1)


def _chinchilla_starts(x: Columns, loss: FloatArray) -> FloatArray:
    e, alpha, beta = _grid(_floors(loss), EXPONENTS, EXPONENTS).T
    share = np.log(_rest(loss, e) / 2)
    return np.stack([np.log(e), share, share, alpha, beta], axis=1)


def _generalized_starts(x: Columns, loss: FloatArray) -> FloatArray:
    e, alpha, beta, gamma = _grid(_floors(loss), (0.2, 0.5), (0.2, 0.5), (0.5, 1.0)).T
    share = np.log(_rest(loss, e)) / gamma - np.log(2)
    return np.stack([np.log(e), share, share, alpha, beta, gamma], axis=1)


def _broken_starts(x: Columns, loss: FloatArray) -> FloatArray:
    e, c0, c1, f1 = _grid(_floors(loss), (0.05, 0.2), (-0.05, 0.1), (0.1, 0.5)).T
    return np.stack([np.log(e), np.log(_rest(loss, e)), c0, c1, 0 * e, np.log(f1)], axis=1)


def _data_constrained_starts(x: Columns, loss: FloatArray) -> FloatArray:
    plain = _chinchilla_starts(x, loss)
    repeats = np.log(_grid((5.0, 30.0), (5.0, 30.0)))
    return np.hstack([np.repeat(plain, len(repeats), axis=0), np.tile(repeats, (len(plain), 1))])


# --- of distillation ----------------------------------------------------------------------------

_WIDE_TERM = (1e-8, 1e8)  # under an exponent gamma of its own
_U0 = 0.93  # L_T/Ls at which distillation stops helping, in Busbridge et al. 2025


def _supervised(gamma: str, mark: str = "") -> tuple[Unknown, ...]:
    powers = (f"alpha{mark}", f"beta{mark}")
    terms = (term(f"A{mark}", powers[0], N), term(f"B{mark}", powers[1], D))
    wide = tuple(
        Unknown(t.name, "scale", _WIDE_TERM, t.column, t.centre, per_loss=True) for t in terms
    )
    return (*wide, exponent(powers[0], N), exponent(powers[1], D), exponent(gamma, None))


def _stage_two(x: Columns, loss: FloatArray) -> dict[str, FloatArray]:
    """Both terms equal at the median distilled run."""
    taught = np.isfinite(x[L_T])
    # No run with a teacher: these starts are not used, and must only be numbers.
    level, gap = (1.0, 1.0) if not taught.any() else _gap(loss[taught], np.exp(x[L_T][taught]))
    c0, f1, beta, gamma = _grid((0.0, 2.5), (0.05, 0.2), (0.3, 0.6), (0.5, 1.0)).T
    share = (np.log(gap) + c0 * np.log(level)) / gamma - np.log(2)
    return {"c0": c0, "f1": f1, "beta": beta, "gamma": gamma, "share": share}


def _gap(loss: FloatArray, teacher: FloatArray) -> tuple[float, float]:
    """The teachers' median cross-entropy, and what students have above it, at least .01 nats."""
    return float(np.median(teacher)), max(float(np.median(loss - teacher)), 0.01)


def _distilled_starts(transition: str) -> Starts:
    def starts(x: Columns, loss: FloatArray) -> FloatArray:
        s = _stage_two(x, loss)
        alone = np.isnan(x[L_T])
        supervised = _generalized_starts(x, loss[alone] if alone.any() else loss)
        ones = np.ones_like(s["f1"])
        c1 = 100.0 * ones
        d1 = _U0 * (c1 * s["f1"]) ** s["f1"]  # where the bracket of c1 has its transition
        bracket = (
            [np.log(c1), np.log(d1), np.log(s["f1"])]
            if transition == "d1"
            else [np.log(_U0) * ones, np.log(s["f1"])]
        )
        second = [s["share"], s["share"], 0.3 * ones, s["beta"], s["gamma"], s["c0"], *bracket]
        distilled = np.stack(second, axis=1)
        return np.hstack([np.resize(supervised, (len(distilled), 6)), distilled])

    return starts


_FIRST = (floor("E"), *_supervised("gamma"))
_SECOND = (*_supervised("gamma_prime", "_prime"), real("c0", (-5.0, 15.0), L_T))
_F1 = scale("f1", (1e-3, 3.0), L_T)
_SOURCE = "Busbridge et al. 2025, arXiv:2502.08606"


def _busbridge(name: str, equation: str, note: str, form: Form, *bracket: Unknown) -> Law:
    unknowns = (*_FIRST, *_SECOND, *bracket, _F1)
    second = tuple(unknown.name for unknown in unknowns[len(_FIRST) :])
    return Law(
        name=name,
        equation=equation,
        source=f"{_SOURCE}, {note}",
        unknowns=unknowns,
        reads=(N, D),
        optional=(L_T,),
        form=form,
        starts=_distilled_starts(bracket[-1].name),
        stages=(tuple(unknown.name for unknown in _FIRST), second),
    )


def _spec(name: str, methods: Sequence[str]) -> Law:
    """The spec's law ``name`` for runs of these methods."""
    additive, effective = name == "spec_additive", name == "spec_effective"
    methods = tuple(sorted(methods, key=lambda m: (m != SCRATCH, m)))
    taught = [m for m in methods if m != SCRATCH]
    form = forms.spec_additive if additive else forms.spec
    ratio = forms.log_effective_ratio if effective else forms.log_ratio
    by_data = "g_m(r) + B_m/D^beta" if additive else "g_m(r)*(1 + (D_m/D)^beta)"
    by_quality = ", r = (A/(L_T - L0))^(1/alpha)/N" if effective else ""
    return Law(
        name=name,
        equation=f"L = L0 + A/N^alpha * {by_data}{by_quality}",
        source="the spec's L0 + A/N^alpha * f(r, D), completed; docs/laws.md",
        unknowns=_spec_unknowns(additive, methods, taught),
        reads=(N, D),
        optional=(METHOD, TEACHER_N, L_T) if effective else (METHOD, TEACHER_N),
        form=form(methods, ratio),
        starts=_spec_starts(additive, len(methods), len(taught)),
        fixed={
            "w": 0.5,
            "a_D": 0.0,
            D_MID: MIDDLE,
            N_MID: MIDDLE,
            **{f"eta_{m}": "alpha" for m in taught},
        },
        tried={"w": (0.25, 1.0)} if taught else {},
        nested=("a_D",),
        by_method=partial(_spec, name),
        efficiency=forms.efficiency(methods, ratio),
    )


def _spec_unknowns(
    additive: bool, methods: Sequence[str], taught: Sequence[str]
) -> tuple[Unknown, ...]:
    data = [
        term(f"B_{m}", "beta", D) if additive else place(f"D_{m}", D, (1e-6, 1e4)) for m in methods
    ]
    gains = [unknown for m in taught for unknown in _gain(m)]
    return (
        *(floor("L0"), term("A", "alpha", N), exponent("alpha", N), exponent("beta", D)),
        *data,
        *gains,
        *(scale("w", (0.05, 5.0), TEACHER_N), real("a_D", (-0.5, 0.5), D)),
        *(place(D_MID, D), place(N_MID, N)),
    )


def _gain(method: str) -> tuple[Unknown, ...]:
    return (
        scale(f"c_{method}", (1e-2, 1e2), TEACHER_N),
        real(f"kappa_{method}", (-2.0, 3.0), TEACHER_N),
        place(f"r_c_{method}", RATIO, (1e-4, 1e4)),
        exponent(f"eta_{method}", N),
    )


def _spec_starts(additive: bool, n_methods: int, n_taught: int) -> Starts:
    """Gains of four fifths at the middle ratio; a data term of half the term of N there."""

    def starts(x: Columns, loss: FloatArray) -> FloatArray:
        e, alpha, beta, kappa = _grid(_floors(loss), (0.2, 0.5), (0.3, 0.6), (0.05, 0.3)).T
        size = np.log(_rest(loss, e) / 1.5)
        data = size - np.log(2) if additive else -np.log(2) / beta
        gain = [np.full_like(e, np.log(0.8)), kappa, 0 * e, alpha]
        rest = [np.full_like(e, np.log(0.5)), 0 * e, 0 * e, 0 * e]
        columns = [np.log(e), size, alpha, beta, *[data] * n_methods, *gain * n_taught, *rest]
        return np.stack(columns, axis=1)

    return starts


# --- the registry -------------------------------------------------------------------------------

LAWS: Mapping[str, Law] = {
    law.name: law
    for law in (
        Law(
            name="compute",
            equation="L = E + A*C^-a",
            source="Henighan et al. 2020, arXiv:2010.14701, equation 1.1, x = training FLOPs",
            unknowns=(floor("E"), term("A", "a", C), exponent("a", C)),
            reads=(C,),
            form=forms.compute,
            starts=_compute_starts,
        ),
        Law(
            name="kaplan",
            equation="L = [(N_c/N)^(alpha_N/alpha_D) + D_c/D]^alpha_D",
            source="Kaplan et al. 2020, arXiv:2001.08361, equation 1.5",
            unknowns=(
                place("N_c", N, (1e-100, 1e100)),
                place("D_c", D, (1e-100, 1e100)),
                exponent("alpha_N", N),
                exponent("alpha_D", D),
            ),
            reads=(N, D),
            form=forms.kaplan,
            starts=_kaplan_starts,
        ),
        Law(
            name="chinchilla",
            equation="L = E + A/N^alpha + B/D^beta",
            source="Hoffmann et al. 2022, arXiv:2203.15556, approach 3, equation 2",
            unknowns=(
                *(floor("E"), term("A", "alpha", N), term("B", "beta", D)),
                *(exponent("alpha", N), exponent("beta", D)),
            ),
            reads=(N, D),
            form=forms.chinchilla,
            starts=_chinchilla_starts,
        ),
        Law(
            name="generalized",
            equation="L = E + (A/N^alpha + B/D^beta)^gamma",
            source=f"{_SOURCE}, equation 1",
            unknowns=_FIRST,
            reads=(N, D),
            form=forms.generalized,
            starts=_generalized_starts,
        ),
        _busbridge(
            "busbridge",
            "L = L_T + L_T^-c0 * (1 + (L_T/(Ls*d1))^(1/f1))^(-c1*f1)"
            " * (A'/N^alpha' + B'/D^beta')^gamma'",
            "equation 8",
            forms.busbridge,
            scale("c1", (1e-2, 1e4), L_T),
            scale("d1", (0.1, 10.0), L_T),
        ),
        _busbridge(
            "busbridge_limit",
            "L = L_T + L_T^-c0 * exp(-(L_T/(Ls*u0))^(1/f1)) * (A'/N^alpha' + B'/D^beta')^gamma'",
            "equation 8 for c1 to infinity",
            forms.busbridge_limit,
            scale("u0", (0.1, 10.0), L_T),
        ),
        *(_spec(n, [SCRATCH]) for n in ("spec", "spec_additive", "spec_effective")),
        Law(
            name="data_constrained",
            equation="L = E + A/N'^alpha + B/D'^beta, N' and D' effective under repeats",
            source="Muennighoff et al. 2023, arXiv:2305.16264",
            unknowns=(
                *(floor("E"), term("A", "alpha", N), term("B", "beta", D)),
                *(exponent("alpha", N), exponent("beta", D)),
                *(scale("R_D_star", (1e-2, 1e4), U), scale("R_N_star", (1e-2, 1e4), N)),
            ),
            reads=(N, D, U),
            form=forms.data_constrained,
            starts=_data_constrained_starts,
        ),
        Law(
            name="broken",
            equation="L = E + A*C^-c0 * (1 + (C/d1)^(1/f1))^(-c1*f1)",
            source="Caballero et al. 2022, arXiv:2210.14891, one break",
            unknowns=(
                *(
                    floor("E"),
                    term("A", "c0", C),
                    exponent("c0", C),
                    real("c1", (-2.0, 3.0), C, "d1"),
                ),
                *(place("d1", C), scale("f1", (1e-2, 10.0), C, "d1")),
            ),
            reads=(C,),
            form=forms.broken,
            starts=_broken_starts,
        ),
    )
}


# Equal to another law, under the name that a later paper gave it.
ALSO = {"skaling": "generalized"}


def find(law: str | Callable[..., Any], methods: Sequence[str] = ()) -> Law:
    """The law of that name, for runs of these methods where it is joint over methods.

    A law of one's own is a function, or its ``path.py:name``. InputError where there is none.
    """
    if callable(law):
        return law_of(law)
    if law.rpartition(":")[0].endswith(".py"):
        return load_law(law)
    name = ALSO.get(law, law)
    if name not in LAWS:
        names = ", ".join((*LAWS, *ALSO))
        raise InputError(f"no law {law!r}", where="law", remedy=f"one of {names}, or path.py:name")
    found = LAWS[name]
    return found if found.by_method is None or not methods else found.by_method(methods)
