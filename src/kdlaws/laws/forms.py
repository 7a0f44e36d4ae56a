"""Scaling laws, each one function of its equation.

Legend
    L, L_T         cross-entropy of a run and of its teacher, nats per token
    N, D, C, U     parameters, training tokens, training FLOPs, unique tokens
    r              N_teacher / N
    E, L0, A, B    scales: the floor (nats per token), and what N, D or C still cost
    alpha, beta    exponents of N and of D
    u              parameters as a fit moves them: the logarithm of each scale, others as they are
    x              logarithms of the columns

A law's function takes u and x by name and returns log L. Both sides of an equation are positive, so
it is written in logarithms: a product is a sum, and a sum is ``log_sum``.
"""

from collections.abc import Callable

import numpy as np

from kdlaws.laws.dual import Dual, exp, expm1, log, log_sum, where
from kdlaws.laws.law import (
    D_MID,
    L_T,
    METHOD,
    N_MID,
    RATIO,
    SCRATCH,
    C,
    Columns,
    D,
    Form,
    N,
    Parameters,
    U,
)

# --- in compute, in N, in D ---------------------------------------------------------------------


def compute(u: Parameters, x: Columns) -> Dual:
    """L = E + A*C^-a. Henighan et al. 2020, arXiv:2010.14701, equation 1.1, x = training FLOPs."""
    return log_sum(u["E"], u["A"] - u["a"] * x[C])


def kaplan(u: Parameters, x: Columns) -> Dual:
    """L = [(N_c/N)^(alpha_N/alpha_D) + D_c/D]^alpha_D. Kaplan et al. 2020, 2001.08361, eq. 1.5."""
    size = u["alpha_N"] / u["alpha_D"] * (u["N_c"] - x[N])
    return u["alpha_D"] * log_sum(size, u["D_c"] - x[D])


def chinchilla(u: Parameters, x: Columns) -> Dual:
    """L = E + A/N^alpha + B/D^beta. Hoffmann et al. 2022, arXiv:2203.15556, equation 2."""
    return log_sum(u["E"], u["A"] - u["alpha"] * x[N], u["B"] - u["beta"] * x[D])


def generalized(u: Parameters, x: Columns) -> Dual:
    """L = E + (A/N^alpha + B/D^beta)^gamma. Busbridge et al. 2025, arXiv:2502.08606, eq. 1.

    Videau et al. 2026 (Skaling, arXiv:2608.07222) write k for gamma.
    """
    terms = log_sum(u["A"] - u["alpha"] * x[N], u["B"] - u["beta"] * x[D])
    return log_sum(u["E"], u["gamma"] * terms)


def broken(u: Parameters, x: Columns) -> Dual:
    """L = E + A*C^-c0 * (1 + (C/d1)^(1/f1))^(-c1*f1). Caballero et al. 2022, arXiv:2210.14891.

    One break (n = 1), at d1; the exponent is c0 before it and c0 + c1 after it.
    """
    f1 = exp(u["f1"])
    bend = u["c1"] * f1 * log_sum(0.0, (x[C] - u["d1"]) / f1)
    return log_sum(u["E"], u["A"] - u["c0"] * x[C] - bend)


def data_constrained(u: Parameters, x: Columns) -> Dual:
    """L = E + A/N'^alpha + B/D'^beta. Muennighoff et al. 2023, arXiv:2305.16264, eqs. 5, 6 and 14.

    D' and N' are the effective tokens and parameters: of R repeats of U, U + U R* (1 - e^(-R/R*)).
    U_N is the optimal N for U tokens, N itself where that is smaller.
    """
    alpha, beta = u["alpha"], u["beta"]
    unique = np.minimum(x[U], x[D])  # of a larger corpus only what was read counts
    log_g = (log(alpha) + u["A"] - log(beta) - u["B"]) / (alpha + beta)
    best_n = log_g + (unique + log_g) * (beta / alpha)
    excess = x[N] - best_n
    excess = where(excess.value > 0, excess, 0.0)
    n = x[N] - excess + _log_repeated(excess, u["R_N_star"])
    d = unique + _log_repeated(Dual(x[D] - unique), u["R_D_star"])
    return log_sum(u["E"], u["A"] - alpha * n, u["B"] - beta * d)


def _log_repeated(log_passes: Dual, log_r_star: Dual) -> Dual:
    """log of what ``passes`` over the same are worth, in passes."""
    r_star = exp(log_r_star)
    return log(1.0 - r_star * expm1(-(expm1(log_passes) / r_star)))


# --- of distillation ----------------------------------------------------------------------------


def busbridge(u: Parameters, x: Columns) -> Dual:
    """L = L_T + L_T^-c0 (1 + (L_T/(Ls d1))^(1/f1))^(-c1 f1) (A'/N^alpha' + B'/D^beta')^gamma'.

    Busbridge et al. 2025, arXiv:2502.08606, equation 8; Ls, the ``generalized`` law of the same
    student without a teacher, is also what this law says of a run that has none.
    """
    f1 = exp(u["f1"])
    return _distilled(
        u, x, lambda quality: -exp(u["c1"]) * f1 * log_sum(0.0, (quality - u["d1"]) / f1)
    )


def busbridge_limit(u: Parameters, x: Columns) -> Dual:
    """``busbridge`` for c1 to infinity: its bracket becomes exp(-(L_T/(Ls u0))^(1/f1))."""
    return _distilled(u, x, lambda quality: -exp((quality - u["u0"]) / exp(u["f1"])))


def _distilled(u: Parameters, x: Columns, log_transfer: Callable[[Dual], Dual]) -> Dual:
    supervised = generalized(u, x)
    distilled = np.isfinite(x[L_T])
    log_teacher = np.where(distilled, x[L_T], 0.0)
    terms = log_sum(u["A_prime"] - u["alpha_prime"] * x[N], u["B_prime"] - u["beta_prime"] * x[D])
    gap = log_transfer(log_teacher - supervised) - u["c0"] * log_teacher + u["gamma_prime"] * terms
    return where(distilled, log_sum(log_teacher, gap), supervised)


def spec(methods: tuple[str, ...], ratio: Form) -> Form:
    """L = L0 + A/N^alpha * g(r) * (1 + (D_m/D)^beta), jointly over the methods m of the runs.

    g(r) = c [((r/r_c)^(-eta/w) + (r/r_c)^(kappa/w)) / 2]^w is the distillation efficiency function,
    the loss above L0 relative to scratch at equal N; 1 for scratch. The equation that the spec of
    this project leaves open, completed. ``ratio`` gives log r.
    """
    log_g = efficiency(methods, ratio)

    def form(u: Parameters, x: Columns) -> Dual:
        data = _by_method(methods, x, lambda m: u["beta"] * (u[f"D_{m}"] - x[D]))
        size = _size(u, x) + log_g(u, x)
        return log_sum(u["L0"], size + log_sum(0.0, data))

    return form


def spec_additive(methods: tuple[str, ...], ratio: Form) -> Form:
    """L = L0 + A/N^alpha * g(r) + B_m/D^beta: ``spec`` with a data term that N does not shrink."""
    log_g = efficiency(methods, ratio)

    def form(u: Parameters, x: Columns) -> Dual:
        data = _by_method(methods, x, lambda m: u[f"B_{m}"] - u["beta"] * x[D])
        return log_sum(u["L0"], _size(u, x) + log_g(u, x), data)

    return form


def _size(u: Parameters, x: Columns) -> Dual:
    """A/N^alpha, where alpha may change with D by a_D ln(D/D_mid), turning about N_mid."""
    from_d: Dual = x[D] - u[D_MID]
    from_n: Dual = x[N] - u[N_MID]
    return u["A"] - u["alpha"] * x[N] - u["a_D"] * from_d * from_n


def log_ratio(u: Parameters, x: Columns) -> Dual:
    """log of N_teacher / N."""
    return Dual(x[RATIO])


def log_effective_ratio(u: Parameters, x: Columns) -> Dual:
    """The same of N_eff = (A/(L_T - L0))^(1/alpha), the size by quality; NaN for L_T <= L0."""
    above = log(np.exp(x[L_T]) - exp(u["L0"]))
    return (u["A"] - above) / u["alpha"] - x[N]


def efficiency(methods: tuple[str, ...], ratio: Form) -> Form:
    """log g of each run: the distillation efficiency function of ``spec`` on its own."""

    def form(u: Parameters, x: Columns) -> Dual:
        w, log_r = exp(u["w"]), ratio(u, x)

        def log_g(m: str) -> Dual:
            if m == SCRATCH:
                return Dual(np.zeros(()))
            z = (log_r - u[f"r_c_{m}"]) / w
            bend = log_sum(-u[f"eta_{m}"] * z, u[f"kappa_{m}"] * z) - float(np.log(2.0))
            return u[f"c_{m}"] + w * bend

        return _by_method(methods, x, log_g)

    return form


def _by_method(methods: tuple[str, ...], x: Columns, of: Callable[[str], Dual]) -> Dual:
    """To each run what ``of`` says of its method."""
    *others, last = methods
    result = of(last)
    for method in others:
        result = where(x[METHOD] == method, of(method), result)
    return result
