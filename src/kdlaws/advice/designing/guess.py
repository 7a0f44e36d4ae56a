"""What a law's parameters may be before anything is known: values of the usual size.

They say how much a design can tell, and hardly depend on the level; on exponents they do, so a
guess that is worth more, such as a fit of other runs, should take their place.
"""

from collections.abc import Mapping

import numpy as np

from kdlaws.advice.designing.proposal import Proposal
from kdlaws.errors import InputError
from kdlaws.laws import Fit, Law
from kdlaws.laws.law import D

LEVEL = 4.0  # nats per token at the middle of the runs: small models of the pilot study have 3 to 5
FLOOR = 0.5  # of the level: Chinchilla's E is .5 to .9 of its runs' cross-entropy
EXPONENTS = {
    "alpha": 0.35,  # Besiroglu et al. 2024: .348; .076 (Kaplan) to .408 (Busbridge) are published
    "beta": 0.35,  # Besiroglu et al. 2024: .366
    "gamma": 0.45,  # Busbridge et al. 2025, table 6: .452
}
GAIN = {
    "c": 0.85,  # of the loss above the floor: .79 to .90 in the pilot of the default study
    "kappa": 0.15,  # nobody has published one; between none and alpha
    "r_c": 5.0,  # best ratios of 2.5 to 12 are published
}


def guessed(
    law: Law,
    proposal: Proposal,
    known: Mapping[str, float] | None = None,
    fixed: Mapping[str, float | str] | None = None,
) -> dict[str, float]:
    """A value for each free parameter of ``law``, at the middle of the proposed runs.

    The floor is half of 4 nats, and the terms of N and of D are equal parts of the rest there. What
    is ``known``, by the parameter's name, takes the place of these, and the others follow from it.
    ``fixed`` are all pins and ties, the law's own unless given.

    Raises InputError for a name that the law does not have, or a parameter that nobody can guess.
    """
    known = dict(known or {})
    _check_names(law, known)
    pins = law.fixed if fixed is None else fixed
    usual = _usual(law, proposal, EXPONENTS | known)
    free = [name for name in law.parameters if name not in pins]
    values = {name: known.get(name, usual.get(_family(name, proposal))) for name in free}
    missing = [name for name, value in values.items() if value is None]
    if missing:
        raise InputError(
            f"nobody knows what {', '.join(missing)} may be",
            where=f"law {law.name}",
            remedy=f"give a guess of {', '.join(missing)}, or a fit of other runs",
        )
    return {name: float(value) for name, value in values.items() if value is not None}


def _check_names(law: Law, known: Mapping[str, float]) -> None:
    strange = [name for name in known if name not in law.parameters]
    if strange:
        raise InputError(
            f"{law.name} has no parameter {', '.join(strange)}",
            where="guess",
            remedy=f"its parameters are {', '.join(law.parameters)}",
        )


def _usual(law: Law, proposal: Proposal, powers: Mapping[str, float]) -> dict[str, float]:
    """By family: both terms are half of what is above the floor, at the middle of the runs."""
    columns = proposal.columns()
    n, d = (float(np.exp(np.log(columns[name]).mean())) for name in (proposal.n_column, D))
    gamma = powers["gamma"] if "gamma" in law.parameters else 1.0
    term = (LEVEL * (1 - FLOOR)) ** (1 / gamma) / 2
    scales = {
        "E": LEVEL * FLOOR,
        "L0": LEVEL * FLOOR,
        "A": term * n ** powers["alpha"],
        "B": term * d ** powers["beta"],
        "D": d,
    }
    return {**EXPONENTS, **scales, **GAIN}


def _family(name: str, proposal: Proposal) -> str:
    """A parameter's name without the method that it is of."""
    for method in proposal.methods:
        name = name.removesuffix(f"_{method}")
    return name


def known_from(fit: Fit, law: Law) -> dict[str, float]:
    """What a fit of other runs says of the free parameters of the same law.

    Methods that it does not know are left to ``guessed``. InputError for a fit of another law.
    """
    if fit.form.name != law.name:
        raise InputError(
            f"the guess is of {fit.form.name}, the design of {law.name}",
            where="guess",
            remedy=f"design for law={fit.form.name}, or fit {law.name}",
        )
    shared = (name for name in fit.parameters if name not in fit.fixed and name in law.parameters)
    return {name: fit.parameters[name].value for name in shared}
