"""A law of one's own: the catalogue's answer for the catalogue's equation; what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdlaws.errors import InputError
from kdlaws.laws import LAWS, find, fit
from kdlaws.laws.dual import Dual, FloatArray
from kdlaws.laws.estimate import Loss
from kdlaws.laws.law import D, N

COUNT = "n_params_non_embedding"
Array = FloatArray

FILE = '''
"""Laws of mine."""
import numpy as np


def mine(N, n_tokens, *, E, A, B, alpha, beta):
    """L = E + A/N^alpha + B/D^beta

    A second paragraph.
    """
    return E + A / N**alpha + B / n_tokens**beta


constant = 3.0
'''


def chinchilla(
    N: Array, n_tokens: Array, *, E: float, A: float, B: float, alpha: float, beta: float
) -> Array:
    return E + A / N**alpha + B / n_tokens**beta


def noisy_runs() -> dict[str, Array]:
    """5 x 5 runs, 1 % noise."""
    n, d = (a.ravel() for a in np.meshgrid(np.geomspace(6e3, 8e5, 5), np.geomspace(1e5, 8e6, 5)))
    noise = np.exp(0.01 * np.random.default_rng(2).standard_normal(25))
    return {COUNT: n, D: d, "cross_entropy": (1.5 + 40 / n**0.3 + 300 / d**0.4) * noise}


def values(law: Any, columns: dict[str, Array], **options: Any) -> dict[str, float]:
    result = fit(columns, law, bootstrap=0, **options)
    assert result.converged
    return {name: parameter.value for name, parameter in result.parameters.items()}


@pytest.mark.parametrize("loss", ["huber", "squares"])
def test_the_catalogues_equation_gives_the_catalogues_optimum(loss: Loss) -> None:
    """Without the catalogue's starts, derivatives and centring."""
    runs = noisy_runs()
    own, known = (fit(runs, law, bootstrap=0, loss=loss) for law in (chinchilla, "chinchilla"))
    assert own.objective == pytest.approx(known.objective, rel=1e-5)
    for name, parameter in known.parameters.items():
        assert own.parameters[name].value == pytest.approx(parameter.value, rel=2e-3)
    new = {COUNT: 3e6, D: 2e7}
    assert own.predict(new) == pytest.approx(known.predict(new), rel=1e-4)


def test_slopes_are_those_of_the_exact_form() -> None:
    own, known = find(chinchilla), LAWS["chinchilla"]
    rng = np.random.default_rng(1)
    x = {N: rng.uniform(0, 2, 7), D: rng.uniform(0, 2, 7)}
    u = {
        name: Dual(rng.uniform(0.1, 0.9, (3, 1)), {3 * k: 2.0})
        for k, name in enumerate(known.parameters)
    }
    found, expected = own.form(u, x), known.form(u, x)
    np.testing.assert_allclose(found.value, expected.value, rtol=1e-13)
    for k in expected.slopes:
        np.testing.assert_allclose(found.slopes[k], expected.slopes[k], rtol=1e-7)


def test_two_parameters_may_move_together() -> None:
    """alpha tied to beta: the slopes along the shared coordinate add up."""
    runs = noisy_runs()
    tied = values(chinchilla, runs, fixed={"alpha": "beta"})
    known = values("chinchilla", runs, fixed={"alpha": "beta"})
    assert tied["alpha"] == tied["beta"]
    assert tied == pytest.approx(known, rel=2e-3)


def test_a_parameter_in_small_letters_may_be_negative() -> None:
    """L = A + b ln(D/1e6), exactly: numpy's straight line."""

    def line(n_tokens: Array, *, A: float, b: float) -> Array:
        return A + b * np.log(n_tokens / 1e6)

    d = np.geomspace(1e5, 1e8, 12)
    columns = {COUNT: d, D: d, "cross_entropy": 4.0 - 0.25 * np.log(d / 1e6)}
    b, a = np.polyfit(np.log(d / 1e6), columns["cross_entropy"], 1)
    assert values(line, columns) == pytest.approx({"A": a, "b": b}, rel=1e-6)


def test_a_default_is_where_the_search_begins() -> None:
    """|k| alone matters, so that k and -k fit alike: the one near the default is found."""

    def even(n_tokens: Array, *, A: float, k: float) -> Array:
        return A + np.cosh(k * np.log(n_tokens / 1e6))

    def from_below(n_tokens: Array, *, A: float = 2.0, k: float = -0.4) -> Array:
        return even(n_tokens, A=A, k=k)

    def from_above(n_tokens: Array, *, A: float = 2.0, k: float = 0.4) -> Array:
        return even(n_tokens, A=A, k=k)

    d = np.geomspace(1e5, 1e8, 12)
    columns = {COUNT: d, D: d, "cross_entropy": 2.5 + np.cosh(0.5 * np.log(d / 1e6))}
    assert values(from_below, columns)["k"] == pytest.approx(-0.5, rel=1e-5)
    assert values(from_above, columns)["k"] == pytest.approx(0.5, rel=1e-5)


def test_a_law_may_be_undefined_far_from_its_optimum() -> None:
    """log of a negative number in half of the search: neither a warning nor another answer."""

    def shifted(n_tokens: Array, *, A: float, b: float) -> Array:
        return A / np.log(n_tokens / 1e4 - 10 * b)

    d = np.geomspace(1e5, 1e8, 12)
    columns = {COUNT: d, D: d, "cross_entropy": 30 / np.log(d / 1e4 - 5)}
    assert values(shifted, columns) == pytest.approx({"A": 30.0, "b": 0.5}, rel=1e-5)


def test_its_own_columns_are_read_by_their_names() -> None:
    """Any column of the table, and N for the parameter count in use."""

    def by_depth(N: Array, n_layers: Array, *, A: float, b: float) -> Array:
        return A * n_layers**b / N**0.1

    law = find(by_depth)
    assert law.columns("n_params") == ("n_params", "n_layers")
    n, layers = np.geomspace(1e5, 1e8, 12), np.tile([2.0, 4.0, 8.0], 4)
    columns = {COUNT: n, D: n, "n_layers": layers, "cross_entropy": 9 * layers**-0.2 / n**0.1}
    assert values(by_depth, columns) == pytest.approx({"A": 9.0, "b": -0.2}, rel=1e-6)


# --- signatures ---------------------------------------------------------------------------------


def no_parameters(N: Array) -> Array:
    return N


def no_columns(*, E: float) -> float:
    return E


def any_columns(*columns: Array, E: float) -> float:
    return E


def any_parameters(N: Array, **parameters: float) -> Array:
    return N


def positional_only(N: Array, /, n_tokens: Array, *, E: float) -> Array:
    return N


@pytest.mark.parametrize(
    "function", [no_parameters, no_columns, any_columns, any_parameters, positional_only]
)
def test_a_signature_that_is_none_of_a_laws_is_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match="columns, then keyword-only parameters") as caught:
        find(function)
    assert caught.value.where == f"law {function.__name__}"
    assert "def law(" in caught.value.remedy


# --- files --------------------------------------------------------------------------------------


def test_a_law_in_a_file_is_fitted_by_its_path_and_name(tmp_path: Path) -> None:
    path = tmp_path / "laws_of_mine.py"
    path.write_text(FILE)
    reference = f"{path}:mine"
    law = find(reference)
    assert law.name == reference
    assert law.equation == "L = E + A/N^alpha + B/D^beta"
    result = fit(noisy_runs(), reference, bootstrap=0)
    assert result.law == reference
    found = {name: parameter.value for name, parameter in result.parameters.items()}
    assert found == pytest.approx(values("chinchilla", noisy_runs()), rel=2e-3)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("laws_of_mine.py:other", "no function 'other'"),
        ("laws_of_mine.py:constant", "no function 'constant'"),
        ("laws_of_mine.py:", "no function ''"),
        ("nowhere.py:mine", "no such Python file"),
    ],
)
def test_a_file_or_a_function_that_is_not_there_is_refused(
    tmp_path: Path, name: str, says: str
) -> None:
    (tmp_path / "laws_of_mine.py").write_text(FILE)
    with pytest.raises(InputError, match=says) as caught:
        find(f"{tmp_path / name}")
    assert name in caught.value.where
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("text", "reason"),
    [("def mine(N, *, E:\n", "SyntaxError"), ("import no_such_module\n", "no_such_module")],
)
def test_a_file_that_python_cannot_run_is_refused_with_pythons_reason(
    tmp_path: Path, text: str, reason: str
) -> None:
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(InputError, match=reason) as caught:
        find(f"{path}:mine")
    assert caught.value.remedy


def test_a_column_of_two_values_may_determine_a_parameter() -> None:
    """An own law does not say which column determines what; its profiles do."""

    def warmer(
        N: Array, n_tokens: Array, heat: Array, *, E: float, A: float, B: float, tau: float = 0.1
    ) -> Array:
        return (E + A / N**0.3 + B / n_tokens**0.4) * heat**tau

    columns = noisy_runs()
    heat = np.where(np.arange(25) % 2, 1.0, 2.0)
    columns |= {"heat": heat, "cross_entropy": columns["cross_entropy"] * heat**0.2}
    tau = fit(columns, warmer, bootstrap=50, holdout=0).parameters["tau"]
    assert tau.identified
    assert tau.value == pytest.approx(0.2, abs=0.02)


def test_a_default_that_is_no_number_is_refused() -> None:
    def nowhere(N: Array, *, E: float, alpha: float = float("nan")) -> Array:
        return E + N**-alpha

    with pytest.raises(InputError, match="alpha=nan"):
        find(nowhere)


def test_a_default_that_cannot_be_a_scale_is_refused() -> None:
    def zero(N: Array, *, E: float = 0.0, alpha: float = 0.3) -> Array:
        return E + N**-alpha

    with pytest.raises(InputError, match="E=0") as caught:
        find(zero)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        (lambda n: n[:3], "ValueError"),
        (lambda n: -n, "positive"),
        (lambda n: n * np.nan, "positive"),
    ],
)
def test_a_function_that_gives_no_cross_entropy_is_refused(
    returned: Callable[[Array], Any], says: str
) -> None:
    def law(N: Array, n_tokens: Array, *, E: float) -> Any:
        return E * returned(N)

    n = np.geomspace(1e4, 1e6, 12)
    with pytest.raises(InputError, match=says) as caught:
        fit({COUNT: n, D: 20 * n, "cross_entropy": 1 + n**-0.3}, law, bootstrap=0)
    assert caught.value.where == "law law"
    assert caught.value.remedy


def test_an_error_of_the_function_is_told_with_the_law() -> None:
    def law(N: Array, n_tokens: Array, *, E: float) -> Array:
        raise KeyError("width")

    n = np.geomspace(1e4, 1e6, 12)
    with pytest.raises(InputError, match="KeyError: 'width'"):
        fit({COUNT: n, D: 20 * n, "cross_entropy": 1 + n**-0.3}, law, bootstrap=0)
