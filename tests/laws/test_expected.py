"""The fit that runs would give: against textbooks, and against simulated runs of known truth."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import t

from kdlaws.errors import InputError, TableError
from kdlaws.laws import Fit, find
from kdlaws.laws.expected import Noise, expected, expected_fit
from kdlaws.laws.law import SCRATCH
from kdlaws.laws.solve import minimise
from kdlaws.laws.uncertainty import Linear, linear

from .textbook import MEAN, POWER

N = "n_params_non_embedding"
TEACHER_N = f"teacher_{N}"
Array = NDArray[Any]


def mesh(*axes: Any) -> tuple[Array, ...]:
    return tuple(axis.ravel() for axis in np.meshgrid(*axes, indexing="ij"))


# --- textbooks ----------------------------------------------------------------------------------


def test_a_straight_line_has_the_textbooks_interval() -> None:
    """sigma / sqrt(Sxx) with n - 2 degrees of freedom; sigma^2 is a trunk's and a run's."""

    def line(N: Any, *, A: float, alpha: float = 0.3) -> Any:
        return A / N**alpha

    log_n = np.linspace(9, 14, 12)
    runs = {N: np.exp(log_n), "n_tokens": np.ones(12)}
    guess = {"A": 20.0, "alpha": 0.2}
    found = expected_fit(runs, line, guess, Noise(0.004, 0.003)).parameters["alpha"]
    half = t.ppf(0.95, 10) * 0.005 / np.sqrt(np.sum((log_n - log_n.mean()) ** 2))
    assert found.value == 0.2
    assert (found.lo, found.hi) == pytest.approx((0.2 - half, 0.2 + half), rel=1e-4)


def test_the_level_of_a_balanced_layout_is_as_sure_as_its_trunks() -> None:
    """sqrt((trunk^2 + run^2/4) / 6) with 5 degrees of freedom: the mean of 6 trunks of 4 runs."""
    runs = {N: np.geomspace(1e4, 1e6, 24), "n_tokens": np.ones(24)}
    trunk = [f"{k}" for k in np.repeat(np.arange(6), 4)]
    (stage,) = expected(runs, MEAN, {"A": 3.0}, Noise(0.004, 0.002), N, trunk).stages
    sure = linear(stage)
    assert sure.deviation(np.ones(1)) == pytest.approx(np.sqrt((0.004**2 + 0.001**2) / 6))
    assert sure.degrees(np.ones(1)) == pytest.approx(5, rel=1e-6)


def test_runs_of_a_law_are_worth_what_they_are_made_of() -> None:
    """Twice the noise is twice the error; each run made four times halves it."""
    log_n = np.linspace(9, 14, 12)
    errors = [
        linear(expected(runs, POWER, {"A": 20.0, "alpha": 0.2}, noise, N).stages[0]).deviation(
            np.eye(2)
        )
        for runs, noise in (
            ({N: np.exp(log_n), "n_tokens": np.ones(12)}, Noise(0.0, 0.002)),
            ({N: np.exp(log_n), "n_tokens": np.ones(12)}, Noise(0.0, 0.004)),
            ({N: np.exp(np.tile(log_n, 4)), "n_tokens": np.ones(48)}, Noise(0.0, 0.004)),
        )
    ]
    np.testing.assert_allclose(errors[1], 2 * errors[0], rtol=1e-9)
    np.testing.assert_allclose(errors[2], errors[0], rtol=1e-9)


# --- simulated studies --------------------------------------------------------------------------

SPEC = {"L0": 1.5, "A": 40.0, "alpha": 0.3, "beta": 0.4, "D_scratch": 2e5, "D_token": 8e4}
SPEC |= {"c_token": 0.8, "kappa_token": 0.1, "r_c_token": 8.0}
NOISE = Noise(0.001, 0.0005)  # so little that the law is straight over it


def study(teachers: tuple[float, ...]) -> tuple[dict[str, Array], list[str]]:
    """Five sizes from scratch and with each teacher, twice; five branches a trunk."""
    n, teacher, d = mesh(
        np.tile(np.geomspace(1e4, 1e6, 5), 2), (np.nan, *teachers), np.geomspace(1e5, 1.6e6, 5)
    )
    method = np.where(np.isfinite(teacher), "token", SCRATCH)
    columns = {N: n, "n_tokens": d, "method": method, TEACHER_N: teacher}
    return columns, [f"{k}" for k in np.arange(len(n)) // 5]


def simulated(columns: dict[str, Array], trunk: list[str], n_studies: int) -> Array:
    """u of the fits to studies that scatter about the law ``[studies, unknowns]``.

    The law's equation is written out here, with w = 1/2 and eta = alpha, as the law pins them.
    """
    rng, s = np.random.default_rng(7), SPEC
    n, d, teacher = columns[N], columns["n_tokens"], columns[TEACHER_N]
    taught = np.isfinite(teacher)
    z = np.where(taught, teacher / n, 1.0) / s["r_c_token"]
    gain = s["c_token"] * np.sqrt((z ** (-2 * s["alpha"]) + z ** (2 * s["kappa_token"])) / 2)
    data = 1 + (np.where(taught, s["D_token"], s["D_scratch"]) / d) ** s["beta"]
    loss = s["L0"] + s["A"] / n ** s["alpha"] * np.where(taught, gain, 1.0) * data
    _, member = np.unique(trunk, return_inverse=True)
    scatter = NOISE.trunk * rng.standard_normal((n_studies, member.max() + 1))[:, member]
    scatter += NOISE.run * rng.standard_normal((n_studies, len(n)))
    (stage,) = expected(columns, find("spec", (SCRATCH, "token")), SPEC, NOISE, N, trunk).stages
    problem = replace(stage.problem, log_y=np.log(loss) + scatter)
    found = minimise(problem, None, np.repeat(stage.v[None], n_studies, axis=0))
    assert found.gradient.max() < 1e-5
    return stage.coordinates.parameters(found.v)


@pytest.mark.parametrize(
    ("teachers", "known"),
    [
        ((2e6,), ("alpha",)),
        ((2e5, 2e7), ("alpha",)),
        ((2e5, 2e6, 2e7), ("alpha", "kappa_token", "r_c_token")),
    ],
    ids=["one teacher", "two teachers", "three teachers"],
)
def test_errors_are_those_of_simulated_studies(
    teachers: tuple[float, ...], known: tuple[str, ...]
) -> None:
    """Within an eighth; 400 studies know a standard deviation to 3.5 %."""
    columns, trunk = study(teachers)
    fit = expected_fit(columns, "spec", SPEC, NOISE, trunk=trunk)
    spread = simulated(columns, trunk, 400).std(axis=0, ddof=1)
    assert isinstance(fit.uncertainty, Linear)
    errors = fit.uncertainty.deviation(np.eye(len(spread)))
    for name in ("alpha", "kappa_token", "r_c_token"):
        k = fit.form.parameters.index(name)
        found = fit.parameters[name]
        if name in known:
            assert errors[k] == pytest.approx(spread[k], rel=0.12)
            assert found.identified
        else:
            # Their scatter is small if the law holds to the letter, which such runs cannot show.
            assert (found.lo, found.hi, found.identified) == (None, None, False)
            assert "size and ratio are one number" in _reason(fit, name)


def _reason(fit: Fit, name: str) -> str:
    [message] = [n.message for n in fit.warnings if n.message.startswith(f"{name} = ")]
    return message


# --- what it is, and is not ---------------------------------------------------------------------

PLAIN = {"E": 1.5, "A": 40.0, "B": 300.0, "alpha": 0.3, "beta": 0.4}


def plain_runs(n_sizes: int = 5, n_lengths: int = 5) -> dict[str, Array]:
    n, d = mesh(np.geomspace(1e4, 1e6, n_sizes), np.geomspace(1e5, 1e7, n_lengths))
    return {N: n, "n_tokens": d}


def test_it_is_a_fit_like_any_other(tmp_path: Any) -> None:
    """It predicts the guess, has the ranges of the runs, and is written and read back."""
    fit = expected_fit(plain_runs(), "chinchilla", PLAIN, trunk=list("abcde" * 5))
    assert float(fit.predict({N: 1e5, "n_tokens": 1e6})) == pytest.approx(
        1.5 + 40 / 1e5**0.3 + 300 / 1e6**0.4
    )
    assert fit.domain[N] == pytest.approx((1e4, 1e6))
    assert fit.domain["flops"] == pytest.approx((6e9, 6e13))
    assert fit.new_run is not None
    assert fit.new_run.variance == pytest.approx(0.004**2 + 0.002**2)
    assert fit.new_run.trunk_variance == pytest.approx(0.004**2)
    fit.save(tmp_path / "fit.json")
    assert Fit.load(tmp_path / "fit.json").to_dict() == fit.to_dict()
    assert [n.code for n in fit.warnings] == ["expected", "few_trunks"]


def test_a_file_from_before_trunks_were_told_apart_is_read() -> None:
    """All of its variance is then the runs'."""
    content = expected_fit(plain_runs(), "chinchilla", PLAIN).content()
    del content["new_run"]["trunk_variance"]
    new_run = Fit.of_content(content).new_run
    assert new_run is not None
    assert new_run.trunk_variance == 0.0


def test_too_few_trunks_give_no_interval() -> None:
    fit = expected_fit(plain_runs(3, 5), "chinchilla", PLAIN, trunk=list("abc" * 5))
    assert fit.uncertainty is None
    assert not any(p.identified for p in fit.parameters.values())


def test_a_pinned_parameter_is_not_learnt() -> None:
    """With the floor known, the exponents are known better."""
    free = expected_fit(plain_runs(), "chinchilla", PLAIN)
    pinned = expected_fit(plain_runs(), "chinchilla", PLAIN, fixed={"E": 1.5})
    assert (pinned.parameters["E"].lo, pinned.parameters["E"].value) == (None, 1.5)
    assert pinned.parameters["alpha"].lo > free.parameters["alpha"].lo


@pytest.mark.parametrize(
    ("law", "guess", "message"),
    [
        ("busbridge", {}, "two stages"),
        ("chinchilla", {"E": 1.5, "A": 40.0}, "no usable guess of B, alpha, beta"),
        ("chinchilla", {**PLAIN, "A": -1.0}, "no usable guess of A"),
        ("chinchilla", {**PLAIN, "alpha": 5.0}, "alpha is outside"),
    ],
)
def test_what_cannot_be_expected_is_refused(
    law: str, guess: dict[str, float], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        expected_fit(plain_runs(), law, guess)


def test_fewer_runs_than_parameters_are_refused() -> None:
    with pytest.raises(TableError, match="5 runs cannot determine 5 parameters"):
        expected_fit(plain_runs(5, 1), "chinchilla", PLAIN)


@pytest.mark.parametrize(("trunk", "run"), [(0.004, 0.0), (-0.001, 0.002), (np.nan, 0.002)])
def test_no_noise_is_no_noise_to_expect(trunk: float, run: float) -> None:
    with pytest.raises(InputError, match="no standard deviations"):
        Noise(trunk, run)
