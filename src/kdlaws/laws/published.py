"""Coefficients from papers, as fits: with source, N convention, cost function and range.

A paper gives intervals of single parameters at most, never how they move together, so these fits
have no interval of a curve (``no_joint_uncertainty``), and none is invented. Outside its range a
law is nonsense; every prediction says how far outside it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import exp

from kdlaws.errors import InputError
from kdlaws.laws.catalogue import find
from kdlaws.laws.cost import TWO_N, ForwardFlops
from kdlaws.laws.result import Fit, Notice, Parameter

Ends = tuple[float, float]
Range = tuple[float, float]


@dataclass(frozen=True)
class Published:
    """A paper's fit: ``values`` and, where it gives them, ``ends`` at ``level``."""

    law: str
    source: str
    n_column: str
    cost: str
    values: Mapping[str, float]
    domain: Mapping[str, Range]
    n_runs: int | None
    objective: str
    ends: Mapping[str, Ends] = field(default_factory=dict)
    level: float = 0.9
    fixed: Mapping[str, float | str] = field(default_factory=dict)
    forward: ForwardFlops = TWO_N
    unidentified: tuple[str, ...] = ()


TOTAL, NON_EMBEDDING = "n_params", "n_params_non_embedding"
SIX_ND = "6*N per token"
LOG_HUBER = "sum of log-Huber(1e-3)"

PUBLISHED: Mapping[str, Published] = {
    # Table 2, the joint fit of L(N, D). The constants of the one-variable laws, equations 1.1 and
    # 1.2 (8.8e13, 5.4e13, .095), are others. D is the size of the data set, training stopped early.
    "kaplan2020": Published(
        law="kaplan",
        source="Kaplan et al. 2020, arXiv:2001.08361, equation 1.5 and table 2; WebText2",
        n_column=NON_EMBEDDING,
        cost="6*N per token, embedding and attention left out",
        values={"N_c": 6.4e13, "D_c": 1.8e13, "alpha_N": 0.076, "alpha_D": 0.103},
        domain={NON_EMBEDDING: (768, 1.5e9), "n_tokens": (2.2e7, 2.3e10)},
        n_runs=None,
        objective="not stated",
    ),
    "hoffmann2022": Published(
        law="chinchilla",
        source="Hoffmann et al. 2022, arXiv:2203.15556, approach 3; MassiveText",
        n_column=TOTAL,
        cost=SIX_ND,
        values={"E": 1.6934, "A": 406.4, "B": 410.7, "alpha": 0.3392, "beta": 0.2849},
        domain={TOTAL: (7e7, 1.6e10), "n_tokens": (5e9, 5e11)},
        n_runs=None,
        objective=LOG_HUBER,
    ),
    # The range is that of the 240 digitised points.
    "besiroglu2024": Published(
        law="chinchilla",
        source="Besiroglu et al. 2024, arXiv:2404.10102; Hoffmann et al.'s runs, refitted",
        n_column=TOTAL,
        cost=SIX_ND,
        values={"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658},
        ends={
            "E": (1.769, 1.871),
            "A": (285.0, 744.0),
            "B": (1042.0, 5810.0),
            "alpha": (0.317, 0.373),
            "beta": (0.331, 0.415),
        },
        level=0.95,
        domain={TOTAL: (5.73e7, 1.62e10), "n_tokens": (8.19e8, 3.18e11)},
        n_runs=240,
        objective=LOG_HUBER,
    ),
    "muennighoff2023": Published(
        law="data_constrained",
        source="Muennighoff et al. 2023, arXiv:2305.16264; C4",
        n_column=TOTAL,
        cost=SIX_ND,
        values={
            "E": exp(0.6254804),
            "A": exp(6.255414),
            "B": exp(7.3049974),
            "alpha": 0.3526596,
            "beta": 0.3526596,
            "R_D_star": 15.387756,
            "R_N_star": 5.309743,
        },
        fixed={"alpha": "beta"},
        domain={TOTAL: (7.1e6, 8.7e9), "n_tokens": (1e8, 9e11), "n_unique_tokens": (1e8, 1.78e11)},
        n_runs=182,
        objective=LOG_HUBER,
        unidentified=("R_D_star", "R_N_star"),
    ),
    # The law's c1, whose interval has no width, was never identified: see busbridge_limit.
    "busbridge2025": Published(
        law="busbridge",
        source="Busbridge et al. 2025, arXiv:2502.08606, equation 8 and table 6; C4",
        n_column=NON_EMBEDDING,
        cost="2*N*(1 + .03786*4096/N^(1/3) + 2.2013*32168/N^(2/3)) per token forward, times 3",
        values={
            "E": 1.220,
            "A": 3355.0,
            "B": 18186.0,
            "alpha": 0.408,
            "beta": 0.431,
            "gamma": 0.452,
            "A_prime": 2243.0,
            "B_prime": 24181.0,
            "alpha_prime": 0.321,
            "beta_prime": 0.637,
            "gamma_prime": 0.764,
            "c0": 2.549,
            "c1": 522.6,
            "d1": 1.315,
            "f1": 0.090,
        },
        ends={
            "E": (1.190, 1.247),
            "A": (3346.0, 3360.0),
            "B": (18157.0, 18236.0),
            "alpha": (0.405, 0.411),
            "beta": (0.428, 0.433),
            "gamma": (0.442, 0.461),
            "A_prime": (2227.0, 2255.0),
            "B_prime": (24084.0, 24266.0),
            "alpha_prime": (0.319, 0.324),
            "beta_prime": (0.634, 0.640),
            "gamma_prime": (0.732, 0.788),
            "c0": (2.425, 2.615),
            "d1": (1.302, 1.327),
            "f1": (0.088, 0.093),
        },
        domain={
            NON_EMBEDDING: (1.43e8, 7.75e9),
            "n_tokens": (2.5e9, 5.12e11),
            "teacher_n_params_non_embedding": (1.98e8, 1.26e10),
            "teacher_cross_entropy": (1.8, 2.8),  # the axis of figure 1
        },
        n_runs=770,
        objective="sum of log-Huber(1e-4)",
        # Appendix H; context 4096, 32,168 words.
        forward=ForwardFlops(2.0, 2 * 0.03786 * 4096, 2 * 2.2013 * 32168),
        unidentified=("c1",),
    ),
}

NAMES = tuple(PUBLISHED)


def published(name: str) -> Fit:
    """The published fit of that name; InputError where there is none."""
    if name not in PUBLISHED:
        remedy = f"one of {', '.join(NAMES)}"
        raise InputError(f"no published fit {name!r}", where="published", remedy=remedy)
    paper = PUBLISHED[name]
    form = find(paper.law)
    parameters = {each: _parameter(paper, each) for each in form.parameters}
    notice = Notice(
        "no_joint_uncertainty",
        "a published law comes without the joint uncertainty of its parameters: no interval",
        "fit runs of your own for one",
    )
    return Fit(
        law=paper.law,
        n_column=paper.n_column,
        parameters=parameters,
        level=paper.level,
        objective=None,
        objective_name=paper.objective,
        n_runs=paper.n_runs,
        n_dropped=0,
        converged=True,
        starts_agree=None,
        domain=paper.domain,
        holdout=None,
        seed=0,
        inputs={"file": None, "sha256": None, "source": paper.source, "cost": paper.cost},
        warnings=(notice,),
        intervals="as published",
        fixed=paper.fixed,
        methods=(),
        new_run=None,
        forward_flops=paper.forward,
        form=form,
        uncertainty=None,
    )


def _parameter(paper: Published, name: str) -> Parameter:
    lo, hi = paper.ends.get(name, (None, None))
    return Parameter(paper.values[name], lo, hi, name not in paper.unidentified)
