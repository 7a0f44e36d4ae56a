"""What a design cannot determine is named, with the reason and the remedy, and has no interval."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kdlaws.laws import Fit, Notice, fit

N = "n_params_non_embedding"
TEACHER_N = f"teacher_{N}"
L_T = "teacher_cross_entropy"

Array = NDArray[Any]
Columns = dict[str, Array]


def mesh(*axes: Any) -> tuple[Array, ...]:
    return tuple(axis.ravel() for axis in np.meshgrid(*axes, indexing="ij"))


def noise(n: int, deviation: float, seed: int = 0) -> Array:
    return np.exp(deviation * np.random.default_rng(seed).standard_normal(n))


def lost(result: Fit) -> dict[str, Notice]:
    """The notices by parameter; they are of all free ones that are not identified, no others."""
    named = {
        n.message.split()[0]: n for n in result.warnings if n.code.startswith("not_identified")
    }
    unsure = {name for name, p in result.parameters.items() if not p.identified}
    assert set(named) == unsure - set(result.fixed)
    return named


def assert_gap(result: Fit, names: set[str], reason: str, remedy: str) -> None:
    """These parameters, for this reason, without an interval."""
    notices = lost(result)
    for name in names:
        assert reason in notices[name].message, name
        assert remedy in notices[name].remedy, name
        parameter = result.parameters[name]
        assert np.isfinite(parameter.value)
        assert (parameter.lo, parameter.hi, parameter.identified) == (None, None, False)
    others = set(notices) - names
    assert not any(reason in notices[name].message for name in others)


# --- N and D ------------------------------------------------------------------------------------

TRUTH = {"E": 1.5, "A": 40.0, "B": 300.0, "alpha": 0.3, "beta": 0.4}
SIZES, TOKENS = np.geomspace(1e4, 1e6, 12), np.geomspace(1e5, 1e7, 12)


def plain(n: Array, d: Array, deviation: float) -> Columns:
    loss = 1.5 + 40 / n**0.3 + 300 / d**0.4
    return {N: n, "n_tokens": d, "cross_entropy": loss * noise(n.size, deviation)}


@pytest.mark.parametrize("deviation", [0.0, 0.004])
@pytest.mark.parametrize(
    ("n", "d", "names", "reason", "remedy"),
    [
        (SIZES, 20 * SIZES, set(TRUTH), "rise together (constant D/N)", "vary on their own"),
        (np.full(12, 1e5), TOKENS, {"E", "A", "alpha"}, "only 1 distinct", f"values of {N}"),
        (SIZES, np.full(12, 1e6), {"E", "B", "beta"}, "only 1 distinct", "values of n_tokens"),
        (
            *(np.repeat([1e4, 1e6], 6), np.tile(np.geomspace(1e5, 1e7, 6), 2)),
            *({"E", "A", "alpha"}, "only 2 distinct", f"values of {N}"),
        ),
    ],
    ids=["constant D over N", "one N", "one D", "two N"],
)
def test_sizes_and_tokens_must_vary_on_their_own(
    n: Array, d: Array, names: set[str], reason: str, remedy: str, deviation: float
) -> None:
    result = fit(plain(n, d, deviation), "chinchilla", bootstrap=50, holdout=0)
    assert_gap(result, names, reason, remedy)
    # What is left is as good as ever.
    for name in set(TRUTH) - names if not deviation else ():
        assert result.parameters[name].value == pytest.approx(TRUTH[name], rel=1e-4)


@pytest.mark.parametrize("law", ["kaplan", "generalized", "spec"])
def test_a_constant_ratio_leaves_no_law_of_both_anything(law: str) -> None:
    result = fit(plain(SIZES, 20 * SIZES, 0.004), law, bootstrap=50, holdout=0)
    free = set(result.parameters) - set(result.fixed)
    assert_gap(result, free, "constant D/N", "vary on their own")


def test_a_nearly_constant_ratio_is_one_and_a_varied_ratio_is_none() -> None:
    near, far = (SIZES * 20 * np.tile([1 - s, 1 + s], 6) for s in (0.05, 0.6))
    assert_gap(
        fit(plain(SIZES, near, 0.002), "chinchilla", bootstrap=50, holdout=0),
        set(TRUTH),
        "constant D/N",
        "vary on their own",
    )
    result = fit(plain(SIZES, far, 0.002), "chinchilla", bootstrap=50, holdout=0)
    assert not any("constant D/N" in n.message for n in result.warnings)


def test_values_within_a_percent_are_one() -> None:
    """Two sizes measured three ways are two sizes."""
    n = np.repeat([1e5, 1.002e5, 9.99e4, 1e6, 1.003e6], 4)
    result = fit(
        plain(n, np.tile(np.geomspace(1e5, 1e7, 4), 5), 0.003),
        "chinchilla",
        bootstrap=50,
        holdout=0,
    )
    assert_gap(result, {"E", "A", "alpha"}, "only 2 distinct", f"values of {N}")


def test_a_compute_law_needs_three_budgets() -> None:
    flops = np.repeat([1e15, 1e17], 6)
    columns = {"flops": flops, "cross_entropy": (1.5 + 50 * flops**-0.1) * noise(12, 0.002)}
    result = fit(columns, "compute", bootstrap=50, holdout=0)
    assert_gap(result, {"E", "A", "a"}, "only 2 distinct flops", "3 or more values of flops")


def test_a_pin_closes_a_gap() -> None:
    """Two sizes determine a scale and an exponent once the floor is known."""
    n, d = mesh(np.geomspace(1e4, 1e6, 2), np.geomspace(1e5, 1e7, 10))
    columns = plain(n, d, 0.0)
    result = fit(columns, "chinchilla", bootstrap=50, holdout=0, fixed={"E": 1.5, "A": 40.0})
    assert "alpha" in lost(result)  # too cautious, and said so: the design has two sizes
    assert result.parameters["alpha"].value == pytest.approx(0.3)
    assert not {"E", "A"} & set(lost(result))


def test_what_the_noise_hides_is_not_identified() -> None:
    """The term of N is a tenth of the noise: its interval is wide or open, never narrow."""
    n, d = mesh(np.geomspace(6e3, 8e5, 4), np.geomspace(1e5, 8e5, 4))
    loss = (3 + 300 / d**0.4 + 0.1 / n**0.3) * noise(n.size, 0.02, 5)
    result = fit(
        {N: n, "n_tokens": d, "cross_entropy": loss}, "chinchilla", bootstrap=50, holdout=0
    )
    notices = lost(result)
    assert {"A", "alpha"} <= set(notices)
    assert "its 90% interval is" in notices["alpha"].message
    assert f"values of {N}" in notices["alpha"].remedy


# --- teachers -----------------------------------------------------------------------------------


def taught(teachers: Mapping[str, list[float]], deviation: float = 0.003) -> Columns:
    """5 sizes x 4 token counts: alone, and by each method with its teachers (by N)."""
    n, d = mesh(np.geomspace(1e5, 1e7, 5), np.geomspace(1e7, 1e9, 4))
    parts = [(n, d, np.full(20, np.nan), np.full(20, "scratch"))]
    parts += [
        (n, d, np.full(20, size), np.full(20, m)) for m, sizes in teachers.items() for size in sizes
    ]
    n, d, teacher, method = (np.concatenate(part) for part in zip(*parts, strict=True))
    r = teacher / n / 4
    gain = np.where(np.isnan(r), 1.0, 0.8 * ((r**-0.6 + r**0.3) / 2) ** 0.5)
    loss = 1.4 + 60 / n**0.3 * gain * (1 + (3e6 / d) ** 0.4)
    columns = {N: n, "n_tokens": d, TEACHER_N: teacher, "method": method}
    return columns | {"cross_entropy": loss * noise(n.size, deviation)}


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ([8e6], "one teacher only"),
        ([1e6, 6.4e7], "2 teachers"),
        ([4e6, 8e6, 1.6e7], "3 teachers too alike"),
    ],
    ids=["one", "two", "a factor 4"],
)
def test_the_gap_of_capacity_needs_teachers_that_differ(sizes: list[float], reason: str) -> None:
    columns = taught({"token": sizes, "embedding": [1e6, 8e6, 6.4e7]})
    result = fit(columns, "spec", bootstrap=50, holdout=0)
    remedy = f"add token runs with 3 or more teachers, a factor 8 apart in {TEACHER_N}"
    assert_gap(result, {"c_token", "kappa_token", "r_c_token"}, reason, remedy)
    # The other method, and what scratch runs say, are not touched.
    for name in ("alpha", "c_embedding", "kappa_embedding", "r_c_embedding"):
        assert result.parameters[name].identified


def busbridge(teachers: list[float], deviation: float = 0.001) -> Columns:
    """Busbridge et al. 2025, equation 8 for c1 to infinity, at table 6's coefficients."""
    l_t, n, d = mesh([np.nan, *teachers], np.geomspace(1e8, 8e9, 5), np.geomspace(3e9, 5e11, 4))
    alone = 1.22 + (3355 / n**0.408 + 18186 / d**0.431) ** 0.452
    gap = l_t**-2.549 * np.exp(-((l_t / alone / 0.93) ** (1 / 0.09)))
    student = l_t + gap * (2243 / n**0.321 + 24181 / d**0.637) ** 0.764
    loss = np.where(np.isnan(l_t), alone, student) * noise(n.size, deviation)
    return {N: n, "n_tokens": d, L_T: l_t, "cross_entropy": loss}


# Pinned: what 20 runs with a teacher leave open under any noise.
INNER = {"A_prime": 2243.0, "B_prime": 24181.0, "alpha_prime": 0.321, "beta_prime": 0.637}
INNER |= {"gamma_prime": 0.764}


@pytest.mark.parametrize("law", ["busbridge", "busbridge_limit"])
def test_one_teacher_by_its_loss_determines_no_transition(law: str) -> None:
    result = fit(busbridge([2.2]), law, bootstrap=50, holdout=0, fixed=INNER)
    names = {"c0", "f1", *({"c1", "d1"} if law == "busbridge" else {"u0"})}
    assert_gap(result, names, "one teacher only", f"teachers of other {L_T}")
    assert result.parameters["alpha"].identified


def test_two_teachers_are_enough_for_the_transition() -> None:
    result = fit(busbridge([2.0, 2.4]), "busbridge_limit", bootstrap=50, holdout=0, fixed=INNER)
    assert not lost(result)


@pytest.mark.parametrize(
    "keep", [lambda quality: quality < 0.85, lambda quality: quality > 1.0], ids=["better", "worse"]
)
def test_a_transition_needs_teachers_on_both_sides_of_it(keep: Any) -> None:
    """u0 is known to be .93 of the student's own loss: all teachers are better, or all worse."""
    columns = busbridge([1.6, 2.0, 2.4, 2.8])
    n, d, l_t = columns[N], columns["n_tokens"], columns[L_T]
    quality = l_t / (1.22 + (3355 / n**0.408 + 18186 / d**0.431) ** 0.452)
    rows = np.isnan(l_t) | keep(quality)
    columns = {name: column[rows] for name, column in columns.items()}
    result = fit(columns, "busbridge_limit", bootstrap=50, holdout=0, fixed=INNER | {"u0": 0.93})
    assert_gap(result, {"f1"}, "no point beyond the break", f"both sides of it, in {L_T}")


# --- repeats and breaks -------------------------------------------------------------------------


def repeated(epochs: list[float]) -> Columns:
    """Muennighoff et al. 2023, equations 5 and 6, at their coefficients; .2 % noise."""
    e, a, b, alpha = np.exp(0.6254804), np.exp(6.255414), np.exp(7.3049974), 0.3526596
    n, u, passes = mesh(np.geomspace(1e7, 8e9, 5), np.geomspace(1e8, 1e11, 4), epochs)
    u_n = np.minimum(n, u * (a / b) ** (1 / alpha))
    n_eff = u_n + u_n * 5.309743 * (1 - np.exp(-(n / u_n - 1) / 5.309743))
    d_eff = u + u * 15.387756 * (1 - np.exp(-(passes - 1) / 15.387756))
    loss = (e + a / n_eff**alpha + b / d_eff**alpha) * noise(n.size, 0.002)
    return {N: n, "n_tokens": u * passes, "n_unique_tokens": u, "cross_entropy": loss}


@pytest.mark.parametrize("epochs", [[1.0], [1.0, 3.0, 10.0]], ids=str)
def test_the_decay_of_repeats_needs_four_numbers_of_epochs(epochs: list[float]) -> None:
    result = fit(repeated(epochs), "data_constrained", bootstrap=50, holdout=0)
    reason = f"only {len(epochs)} distinct numbers of epochs"
    assert_gap(result, {"R_D_star"}, reason, "4 or more numbers of passes")


def test_four_numbers_of_epochs_are_enough_and_a_pin_needs_none() -> None:
    four = fit(repeated([1.0, 4.0, 16.0, 64.0]), "data_constrained", bootstrap=50, holdout=0)
    assert not lost(four)
    assert four.parameters["R_D_star"].value == pytest.approx(15.39, rel=0.1)
    pinned = fit(
        repeated([1.0]), "data_constrained", bootstrap=50, holdout=0, fixed={"R_D_star": 15.4}
    )
    assert not lost(pinned)


def bent(flops: Array) -> Columns:
    """Caballero et al. 2022, one break at 1e17."""
    bend = (1 + (flops / 1e17) ** (1 / 0.3)) ** (-0.1 * 0.3)
    loss = (1.5 + 150 * flops**-0.1 * bend) * noise(flops.size, 0.001)
    return {"flops": flops, "cross_entropy": loss}


@pytest.mark.parametrize(
    "flops", [np.geomspace(1e12, 1e16, 21), np.geomspace(1e18, 1e22, 21)], ids=["before", "after"]
)
def test_a_break_needs_runs_on_both_sides_of_it(flops: Array) -> None:
    result = fit(bent(flops), "broken", bootstrap=50, holdout=0, fixed={"d1": 1e17})
    notices = lost(result)
    for name in ("c1", "f1"):
        assert "no point beyond the break" in notices[name].message
        assert "both sides of it, in flops" in notices[name].remedy
        assert result.parameters[name].lo is None


def test_a_break_between_the_runs_is_found() -> None:
    result = fit(bent(np.geomspace(1e12, 1e22, 41)), "broken", bootstrap=50, holdout=0)
    assert not lost(result)
    assert result.parameters["d1"].value == pytest.approx(1e17, rel=0.1)


def test_a_law_without_a_break_has_no_place_of_one() -> None:
    """d1 and f1 stand beside c1 = 0: any value of them fits."""
    flops = np.geomspace(1e12, 1e22, 21)
    columns = {"flops": flops, "cross_entropy": (1.5 + 150 * flops**-0.1) * noise(21, 0.003)}
    notices = lost(fit(columns, "broken", bootstrap=50, holdout=0))
    assert {"d1", "f1"} <= set(notices)
