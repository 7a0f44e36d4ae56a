"""A fit as a value and as a file: the JSON contract, curves and bands."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import kdlaws
from kdlaws.errors import ArtefactError, InputError, TableError
from kdlaws.laws import Fit, Notice, fit, published
from kdlaws.laws.uncertainty import Linear, Resampled

N = "n_params_non_embedding"
TEACHER_N = f"teacher_{N}"
CONTRACT = ["schema", "kdlaws", "law", "n_column", "parameters", "level", "objective"]
CONTRACT += ["objective_name", "n_runs", "n_dropped", "converged", "starts_agree", "domain"]
CONTRACT += ["holdout", "seed", "inputs", "warnings", "intervals", "fixed", "methods", "new_run"]
CONTRACT += ["forward_flops"]

MODEL = {N: np.array([[2e4], [3e5]]), "n_tokens": np.array([1e5, 2e5, 9e5])}


def runs() -> dict[str, NDArray[Any]]:
    """5 sizes x 4 token counts; .4 % noise."""
    n, d = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e4, 1e6, 5), [1e5, 2e5, 5e5, 1e6]))
    noise = np.exp(0.004 * np.random.default_rng(2).standard_normal(n.size))
    return {N: n, "n_tokens": d, "cross_entropy": (1.5 + 40 / n**0.3 + 300 / d**0.4) * noise}


@pytest.fixture(scope="module")
def fitted() -> Fit:
    source = {"file": "runs.csv", "sha256": "0" * 64}
    return fit(runs(), "chinchilla", bootstrap=100, source=source, n_dropped=2)


@pytest.fixture(scope="module")
def trunks() -> Fit:
    columns = runs()
    return fit(columns, "chinchilla", trunk=[f"{n:.0f}" for n in columns[N]], fixed={"alpha": 0.3})


@pytest.fixture(scope="module")
def unbounded() -> Fit:
    """A fit that knows no interval, and has a back-test without a coverage."""
    flops = np.geomspace(1e9, 1e14, 12)
    columns = {"flops": flops, "cross_entropy": 1.2 + 50 * flops**-0.15}
    return fit(columns, "compute", trunk=["one"] * 12)


@pytest.fixture(scope="module")
def taught() -> Fit:
    """The spec's law: students alone, and with three teachers."""
    n, d = np.tile([runs()[N], runs()["n_tokens"]], 4)
    teacher = np.repeat([np.nan, 1e5, 1e6, 1e7], 20)
    r = teacher / n / 4
    gain = np.where(np.isnan(r), 1.0, 0.8 * ((r**-0.6 + r**0.3) / 2) ** 0.5)
    noise = np.exp(0.004 * np.random.default_rng(3).standard_normal(n.size))
    loss = (1.5 + 40 / n**0.3 * gain * (1 + (3e4 / d) ** 0.4)) * noise
    method = np.where(np.isnan(teacher), "scratch", "token")
    columns = {N: n, "n_tokens": d, TEACHER_N: teacher, "method": method, "cross_entropy": loss}
    return fit(columns, "spec", bootstrap=60, holdout=0)


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


# --- the file -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [("fitted", Resampled), ("trunks", Linear), ("unbounded", type(None)), ("taught", Resampled)],
)
def test_a_fit_survives_its_file(
    name: str, kind: type, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    original: Fit = request.getfixturevalue(name)
    path = tmp_path / "fits" / "law.json"
    original.save(path)
    loaded = Fit.load(path)
    assert loaded == original
    assert isinstance(loaded.uncertainty, kind)
    assert loaded.content() == original.content()
    assert [entry.name for entry in path.parent.iterdir()] == ["law.json"]
    document = json.loads(path.read_text(), parse_constant=refuse)
    assert set(document) == {*CONTRACT, "uncertainty"}
    del document["uncertainty"]
    assert document == original.to_dict() == json.loads(json.dumps(document))


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("fitted", MODEL),
        ("trunks", MODEL),
        ("unbounded", {"flops": np.geomspace(1e9, 1e18, 5)}),
        ("taught", {**MODEL, TEACHER_N: 3e6, "method": "token"}),
    ],
)
def test_a_loaded_fit_says_the_same_to_the_last_bit(
    name: str, model: Mapping[str, Any], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    original: Fit = request.getfixturevalue(name)
    original.save(tmp_path / "law.json")
    loaded = Fit.load(tmp_path / "law.json")
    for ask in ("predict", "band", "new_runs", "beyond"):
        if ask == "beyond":
            assert loaded.beyond(model) == original.beyond(model)
        else:
            np.testing.assert_array_equal(
                getattr(loaded, ask)(model), getattr(original, ask)(model)
            )


def mine(N: Any, n_tokens: Any, *, E: float, A: float, alpha: float, B: float, beta: float) -> Any:
    "L = E + A/N^alpha + B/D^beta"
    return E + A / N**alpha + B / n_tokens**beta


def others(N: Any, *, E: float, Q: float) -> Any:
    "L = E + Q/N"
    return E + Q / N


def test_a_function_as_a_law_is_given_to_load_again(fitted: Fit, tmp_path: Path) -> None:
    """It is the catalogue's Chinchilla law, written out: the same optimum, the same prediction."""
    original, path = fit(runs(), mine, bootstrap=100, holdout=0), tmp_path / "law.json"
    original.save(path)
    loaded = Fit.load(path, law=mine)
    assert loaded == original
    np.testing.assert_array_equal(loaded.predict(MODEL), original.predict(MODEL))
    np.testing.assert_array_equal(loaded.band(MODEL), original.band(MODEL))
    np.testing.assert_allclose(loaded.predict(MODEL), fitted.predict(MODEL), rtol=1e-4)


def test_the_function_of_a_law_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "law.json"
    fit(runs(), mine, bootstrap=0, holdout=0).save(path)
    with pytest.raises(InputError, match="mine"):
        Fit.load(path)
    with pytest.raises(ArtefactError) as caught:
        Fit.load(path, law=others)
    assert caught.value.where == str(path)


def test_a_law_in_a_file_of_ones_own_is_found_by_its_name(tmp_path: Path) -> None:
    source = tmp_path / "mine.py"
    source.write_text(
        "def straight(N, n_tokens, *, A, alpha, beta):\n    return A / N**alpha / n_tokens**beta\n"
    )
    original = fit(runs(), f"{source}:straight", bootstrap=0, holdout=0)
    original.save(tmp_path / "law.json")
    loaded = Fit.load(tmp_path / "law.json")
    np.testing.assert_array_equal(loaded.predict(MODEL), original.predict(MODEL))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        "not JSON",
        '{"schema": 2}',
        '{"schema": 1, "law": "kaplan"}',
        '{"schema": 1, "law": 3}',
        '{"schema": 1, "fits": [], "weights": []}',
    ],
)
def test_a_file_that_is_not_a_fit_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "fit.json"
    path.write_text(content)
    with pytest.raises(ArtefactError, match="not a fit") as caught:
        Fit.load(path)
    assert caught.value.where == str(path)
    assert caught.value.remedy


def test_a_file_without_one_of_its_parts_is_refused(fitted: Fit, tmp_path: Path) -> None:
    path = tmp_path / "fit.json"
    for name in (*CONTRACT[2:-1], "uncertainty"):
        content = fitted.content()
        del content[name]
        path.write_text(json.dumps(content))
        with pytest.raises(ArtefactError, match=name):
            Fit.load(path)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00binary", None], ids=["binary", "missing"])
def test_a_file_that_cannot_be_read_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "fit.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ArtefactError, match=r"FileNotFoundError|UnicodeDecodeError"):
        Fit.load(path)


# --- the contract -------------------------------------------------------------------------------


def test_the_dictionary_is_the_contract(fitted: Fit, unbounded: Fit) -> None:
    document = fitted.to_dict()
    assert list(document) == CONTRACT
    assert (document["schema"], document["kdlaws"]) == (1, kdlaws.__version__)
    assert list(document["parameters"]) == ["E", "A", "B", "alpha", "beta"]
    assert set(document["parameters"]["E"]) == {"value", "lo", "hi", "identified"}
    assert document["domain"]["n_tokens"] == pytest.approx([1e5, 1e6])
    assert set(document["holdout"]) == {"mape", "baseline_mape", "coverage_90", "n_test"}
    assert document["inputs"] == {"file": "runs.csv", "sha256": "0" * 64}
    assert (document["n_dropped"], document["objective_name"]) == (2, "sum of log-Huber(1e-3)")
    assert (document["fixed"], document["methods"]) == ({}, [])
    assert document["intervals"] == "100 refits to resampled runs"
    for notice in document["warnings"]:
        assert set(notice) == {"code", "message", "remedy"}
    unknown = unbounded.to_dict()
    assert unknown["parameters"]["a"]["lo"] is None
    assert unknown["holdout"]["coverage_90"] is None
    assert (unknown["intervals"], unknown["new_run"]["drift"]) == ("none", None)


def test_the_dictionary_says_what_was_fixed_and_which_methods_were_there(
    trunks: Fit, taught: Fit
) -> None:
    assert trunks.to_dict()["fixed"] == {"alpha": 0.3}
    assert trunks.to_dict()["parameters"]["alpha"] == {
        "value": pytest.approx(0.3),
        "lo": None,
        "hi": None,
        "identified": False,
    }
    document = taught.to_dict()
    assert document["methods"] == ["scratch", "token"]
    assert document["fixed"]["eta_token"] == "alpha"
    assert document["parameters"]["eta_token"] == document["parameters"]["alpha"]


def test_a_number_that_is_not_finite_becomes_null(fitted: Fit) -> None:
    broken = replace(fitted, objective=float("nan"), starts_agree=float("inf"))
    assert broken.to_dict()["objective"] is None
    assert broken.to_dict()["starts_agree"] is None


# --- curves and bands ---------------------------------------------------------------------------


def test_predictions_follow_the_equation_in_the_shape_of_the_columns(fitted: Fit) -> None:
    e, a, b, alpha, beta = (parameter.value for parameter in fitted.parameters.values())
    expected = e + a / MODEL[N] ** alpha + b / MODEL["n_tokens"] ** beta
    np.testing.assert_allclose(fitted.predict(MODEL), expected, rtol=1e-10)
    assert fitted.predict({N: 2e4, "n_tokens": 1e5}).shape == ()
    for ends in (fitted.band(MODEL), fitted.new_runs(MODEL)):
        assert [end.shape for end in ends] == [(2, 3), (2, 3)]


@pytest.mark.parametrize("name", ["fitted", "trunks"])
def test_the_band_holds_the_curve_and_widens_outside_the_runs(
    name: str, request: pytest.FixtureRequest
) -> None:
    law: Fit = request.getfixturevalue(name)
    inside, outside = {N: [1e5], "n_tokens": [3e5]}, {N: [1e8], "n_tokens": [1e8]}
    widths = []
    for columns in (inside, outside):
        lo, hi = law.band(columns)
        assert lo < law.predict(columns) < hi
        widths.append(hi - lo)
    assert widths[1] > 3 * widths[0]


def test_how_far_a_model_is_beyond_the_runs(fitted: Fit) -> None:
    assert fitted.beyond({N: 1e5, "n_tokens": 3e5}) == {}
    assert fitted.beyond({N: 1.009e6, "n_tokens": 5e4}) == pytest.approx({"n_tokens": 2.0})
    far = fitted.beyond({N: 3e6, "n_tokens": 1e6})
    assert far == pytest.approx({N: 3.0, "flops": 3.0})


def test_another_parameter_count_is_refused(fitted: Fit) -> None:
    with pytest.raises(TableError, match="n_params is another parameter count"):
        fitted.predict({"n_params": [1e5], "n_tokens": [1e6]})


def test_a_law_of_counted_flops_is_not_asked_at_6nd(unbounded: Fit) -> None:
    with pytest.raises(TableError, match="flops: the column is missing"):
        unbounded.predict({N: [1e5], "n_tokens": [1e6]})


def test_a_method_without_runs_is_refused(taught: Fit) -> None:
    with pytest.raises(InputError, match="embedding") as caught:
        taught.predict({N: 1e5, "n_tokens": 1e6, TEACHER_N: 1e7, "method": "embedding"})
    assert caught.value.where == "method"
    assert "scratch, token" in caught.value.remedy


def test_a_teacher_is_known_by_its_size_or_by_its_cross_entropy() -> None:
    """Busbridge et al. 2025: the teacher enters by its loss, which the supervised law gives."""
    law, student = published("busbridge2025"), {N: 546e6, "n_tokens": 20 * 546e6}
    teacher = law.predict({N: 1.82e9, "n_tokens": 20 * 1.82e9})
    by_size = law.predict({**student, TEACHER_N: 1.82e9, "teacher_n_tokens": 20 * 1.82e9})
    by_loss = law.predict({**student, "teacher_cross_entropy": teacher})
    assert by_size == by_loss == pytest.approx(2.424, abs=5e-4)


# --- for people ---------------------------------------------------------------------------------


def test_the_text_tells_the_parameters_and_what_is_not_known(fitted: Fit, unbounded: Fit) -> None:
    text = str(fitted)
    for part in ("L = E + A/N^alpha + B/D^beta", N, "20 runs (2 dropped)", "held out the 6 runs"):
        assert part in text
    assert "no interval" in str(unbounded)
    assert "few_trunks: 1 trunks" in str(unbounded)


def test_the_text_tells_what_was_fixed(trunks: Fit, taught: Fit) -> None:
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in str(trunks).splitlines()}
    assert lines["alpha"] == "0.3 pinned"
    assert "profiles with trunk effects of 5 trunks" in str(trunks)
    lines = {line.split()[0]: line for line in str(taught).splitlines()}
    assert lines["eta_token"].endswith("= alpha")
    assert lines["D_mid"].endswith("the middle of the runs")


def test_the_warnings_of_the_table_come_first() -> None:
    first = Notice("dropped", "2 rows were dropped", "look at them")
    result = fit(runs(), "chinchilla", bootstrap=0, holdout=0, notices=[first])
    assert result.warnings[0] == first
    assert result.to_dict()["warnings"][0]["code"] == "dropped"
