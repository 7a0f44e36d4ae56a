"""A fit as a value and as a file: the JSON contract, curves and bands."""

import json
from pathlib import Path

import numpy as np
import pytest

import kdlaws
from kdlaws.errors import ArtefactError, TableError
from kdlaws.laws import Fit, fit

N = "n_params_non_embedding"
CONTRACT = ["schema", "kdlaws", "law", "n_column", "parameters", "level", "objective"]
CONTRACT += ["objective_name", "n_runs", "n_dropped", "converged", "starts_agree", "domain"]
CONTRACT += ["holdout", "seed", "inputs", "warnings"]


@pytest.fixture(scope="module")
def fitted() -> Fit:
    n, d = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e4, 1e6, 5), [1e5, 3e5, 1e6]))
    noise = np.exp(0.004 * np.random.default_rng(2).standard_normal(n.size))
    columns = {N: n, "n_tokens": d, "cross_entropy": (1.5 + 40 / n**0.3 + 300 / d**0.4) * noise}
    source = {"file": "runs.csv", "sha256": "0" * 64}
    return fit(columns, "chinchilla", bootstrap=100, source=source, n_dropped=2)


@pytest.fixture(scope="module")
def unbounded() -> Fit:
    """A fit that knows no interval, and has a back-test without a coverage."""
    flops = np.geomspace(1e9, 1e14, 12)
    columns = {"flops": flops, "cross_entropy": 1.2 + 50 * flops**-0.15}
    return fit(columns, "compute", trunk=["one"] * 12)


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


@pytest.mark.parametrize("name", ["fitted", "unbounded"])
def test_a_fit_survives_its_file(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    original: Fit = request.getfixturevalue(name)
    path = tmp_path / "fits" / "law.json"
    original.save(path)
    loaded = Fit.load(path)
    assert loaded == original
    np.testing.assert_array_equal(loaded.samples, original.samples)
    assert [entry.name for entry in path.parent.iterdir()] == ["law.json"]
    document = json.loads(path.read_text(), parse_constant=refuse)
    samples = document.pop("samples")
    assert document == original.to_dict() == json.loads(json.dumps(document))
    assert len(samples) == len(original.samples)


def test_the_dictionary_is_the_contract(fitted: Fit, unbounded: Fit) -> None:
    document = fitted.to_dict()
    assert list(document) == CONTRACT
    assert (document["schema"], document["kdlaws"]) == (1, kdlaws.__version__)
    assert list(document["parameters"]) == ["E", "A", "B", "alpha", "beta"]
    assert set(document["parameters"]["E"]) == {"value", "lo", "hi", "identified"}
    assert document["domain"]["n_tokens"] == [1e5, 1e6]
    assert set(document["holdout"]) == {"mape", "baseline_mape", "coverage_90", "n_test"}
    assert document["inputs"] == {"file": "runs.csv", "sha256": "0" * 64}
    assert (document["n_dropped"], document["objective_name"]) == (2, "sum of log-Huber(1e-3)")
    for notice in document["warnings"]:
        assert set(notice) == {"code", "message", "remedy"}
    unknown = unbounded.to_dict()
    assert unknown["parameters"]["a"]["lo"] is None
    assert unknown["holdout"]["coverage_90"] is None


def test_a_number_that_is_not_finite_becomes_null(fitted: Fit) -> None:
    broken = Fit(**{**vars(fitted), "objective": float("nan"), "starts_agree": float("inf")})
    assert broken.to_dict()["objective"] is None
    assert broken.to_dict()["starts_agree"] is None


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"schema": 2}', '{"schema": 1, "law": "kaplan"}', '{"schema": 1, "law": 3}'],
)
def test_a_file_that_is_not_a_fit_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "fit.json"
    path.write_text(content)
    with pytest.raises(ArtefactError, match="not a fit") as caught:
        Fit.load(path)
    assert caught.value.where == str(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="FileNotFoundError"):
        Fit.load(tmp_path / "nothing.json")


def test_predictions_follow_the_equation_in_the_shape_of_the_columns(fitted: Fit) -> None:
    e, a, b, alpha, beta = (parameter.value for parameter in fitted.parameters.values())
    n, d = np.array([[2e4], [3e5]]), np.array([1e5, 2e5, 9e5])
    expected = e + a / n**alpha + b / d**beta
    np.testing.assert_allclose(fitted.predict({N: n, "n_tokens": d}), expected, rtol=1e-10)
    assert fitted.predict({N: 2e4, "n_tokens": 1e5}).shape == ()


def test_the_band_holds_the_curve_and_widens_outside_the_runs(fitted: Fit) -> None:
    inside, outside = {N: [1e5], "n_tokens": [3e5]}, {N: [1e8], "n_tokens": [1e8]}
    widths = []
    for columns in (inside, outside):
        lo, hi = fitted.band(columns)
        assert lo < fitted.predict(columns) < hi
        widths.append(hi - lo)
    assert widths[1] > 3 * widths[0]


def test_another_parameter_count_is_refused(fitted: Fit) -> None:
    with pytest.raises(TableError, match="n_params is another parameter count"):
        fitted.predict({"n_params": [1e5], "n_tokens": [1e6]})


def test_a_law_of_counted_flops_is_not_asked_at_6nd(unbounded: Fit) -> None:
    with pytest.raises(TableError, match="flops: the column is missing"):
        unbounded.predict({N: [1e5], "n_tokens": [1e6]})


def test_the_text_tells_the_parameters_and_what_is_not_known(fitted: Fit, unbounded: Fit) -> None:
    text = str(fitted)
    for part in ("L = E + A/N^alpha + B/D^beta", N, "15 runs (2 dropped)", "held out the 4 runs"):
        assert part in text
    assert "not identified: unknown" in str(unbounded)
    assert "few_trunks: 1 trunks" in str(unbounded)
