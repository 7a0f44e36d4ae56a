"""Several fits as one: means and intervals by hand, a mixture as a file."""

import json
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest

import kdlaws
from kdlaws.errors import ArtefactError, TableError
from kdlaws.laws import Fit, Mixture, fit, load_fit
from kdlaws.laws.mixture import mixed_interval

N, D = "n_params_non_embedding", "n_tokens"
MODELS = {N: np.array([[2e4], [3e6]]), D: np.array([1e5, 4e5, 1e7])}


def study() -> dict[str, np.ndarray]:
    sizes, tokens = np.geomspace(1e4, 1e6, 5), np.geomspace(1e5, 3e6, 4)
    n, d = (axis.ravel() for axis in np.meshgrid(sizes, tokens))
    noise = np.exp(0.01 * np.random.default_rng(4).standard_normal(n.size))
    return {N: n, D: d, "cross_entropy": (1.5 + 40 / n**0.3 + 300 / d**0.4) * noise}


@pytest.fixture(scope="module")
def fits() -> tuple[Fit, Fit, Fit]:
    """Two by resampling, one with trunk effects."""
    trunks = [f"trunk-{row % 5}" for row in range(20)]
    return (
        fit(study(), "chinchilla", bootstrap=50, holdout=0),
        fit(study(), "compute", bootstrap=50, holdout=0),
        fit(study(), "kaplan", trunk=trunks, holdout=0),
    )


@pytest.fixture(scope="module")
def mixture(fits: tuple[Fit, Fit, Fit]) -> Mixture:
    return Mixture(fits, (0.5, 0.3, 0.2))


# --- the interval, by hand ----------------------------------------------------------------------


def ends(
    weights: list[float], curves: list[float], lo: list[float], hi: list[float]
) -> list[float]:
    """One run, at a level of 90 %."""
    laws, below, above = (np.array(values)[:, None] for values in (curves, lo, hi))
    return [float(end[0]) for end in mixed_interval(np.array(weights), laws, below, above, 0.9)]


def test_laws_that_agree_give_the_mean_curve_and_mean_square_width() -> None:
    assert ends([0.5, 0.5], [2, 2], [1.5, 1.5], [2.5, 2.5]) == pytest.approx([1.5, 2.5])
    # Half-widths of 3 and 4 below, of 1 and 7 above: sqrt(12.5) and sqrt(25).
    assert ends([0.5, 0.5], [2, 2], [-1, -2], [3, 9]) == pytest.approx([2 - 12.5**0.5, 7])
    # Weighted: .75 * 1 + .25 * 9 = 3.
    assert ends([0.75, 0.25], [0, 0], [-1, -3], [1, 3]) == pytest.approx([-(3**0.5), 3**0.5])


def test_laws_that_disagree_widen_it_as_the_variance_of_a_mixture() -> None:
    """Normal laws: variance within, 1, and between, .5 * 1 + .5 * 1, are 2 together."""
    z = NormalDist().inv_cdf(0.95)
    found = ends([0.5, 0.5], [0, 2], [-z, 2 - z], [z, 2 + z])
    assert found == pytest.approx([1 - z * 2**0.5, 1 + z * 2**0.5])
    # Sure laws at 0 and 4 that weigh 3 : 1 have mean 1 and variance .75 * 1 + .25 * 9 = 3.
    found = ends([0.75, 0.25], [0, 4], [0, 4], [0, 4])
    assert found == pytest.approx([1 - z * 3**0.5, 1 + z * 3**0.5])


def test_the_variance_is_that_of_draws_from_the_laws() -> None:
    rng = np.random.default_rng(0)
    weights, curves, sigma = [0.6, 0.3, 0.1], np.array([1.0, 1.4, 0.5]), np.array([0.1, 0.2, 0.4])
    law = rng.choice(3, size=200_000, p=weights)
    deviation = np.std(rng.normal(curves[law], sigma[law]))
    z = NormalDist().inv_cdf(0.95)
    lo, hi = ends(weights, [*curves], [*(curves - z * sigma)], [*(curves + z * sigma)])
    assert hi - lo == pytest.approx(2 * z * deviation, rel=0.01)


# --- curves of fits -----------------------------------------------------------------------------


def test_it_predicts_the_weighted_geometric_mean(mixture: Mixture, fits: tuple[Fit, ...]) -> None:
    a, b, c = (each.predict(MODELS) for each in fits)
    assert mixture.predict(MODELS) == pytest.approx(a**0.5 * b**0.3 * c**0.2, rel=1e-12)
    assert mixture.predict(MODELS).shape == (2, 3)
    assert mixture.predict({N: 1e5, D: 1e6}).shape == ()


@pytest.mark.parametrize("which", [0, 2])
def test_a_mixture_of_one_law_is_that_law(fits: tuple[Fit, ...], which: int) -> None:
    alone = fits[which]
    mixture = Mixture((alone,), (1.0,))
    assert mixture.predict(MODELS) == pytest.approx(alone.predict(MODELS), rel=1e-12)
    for found, known in (
        (mixture.band(MODELS), alone.band(MODELS)),
        (mixture.new_runs(MODELS), alone.new_runs(MODELS)),
    ):
        assert np.stack(found) == pytest.approx(np.stack(known), rel=1e-12)
    assert (mixture.n_column, mixture.level) == (alone.n_column, alone.level)
    assert mixture.warnings == alone.warnings
    far = {N: 1e8, D: 1e6}
    assert mixture.beyond(far) == alone.beyond(far)


def test_its_interval_holds_the_curve_and_a_new_run_is_less_sure(mixture: Mixture) -> None:
    curve, (lo, hi), (new_lo, new_hi) = (
        mixture.predict(MODELS),
        mixture.band(MODELS),
        mixture.new_runs(MODELS),
    )
    assert (new_lo < lo).all()
    assert (lo < curve).all()
    assert (curve < hi).all()
    assert (hi < new_hi).all()


def test_it_is_least_sure_where_its_laws_disagree(mixture: Mixture, fits: tuple[Fit, ...]) -> None:
    """Far outside the runs: at least z times the weighted deviation of the log curves."""
    far = {N: 1e9, D: 1e5}
    logs = np.log([each.predict(far) for each in fits])
    weights = np.array(mixture.weights)
    deviation = np.sqrt(weights @ (logs - weights @ logs) ** 2)
    assert deviation > 0.05
    lo, hi = np.log(mixture.band(far))
    assert hi - lo > 2 * NormalDist().inv_cdf(0.95) * deviation


def test_a_law_without_an_interval_leaves_none(fits: tuple[Fit, ...]) -> None:
    unsure = fit(study(), "generalized", bootstrap=0, holdout=0)
    mixture = Mixture((fits[0], unsure), (0.5, 0.5))
    assert np.isnan(mixture.band(MODELS)).all()
    assert np.isnan(mixture.new_runs(MODELS)).all()
    assert np.isfinite(mixture.predict(MODELS)).all()


def test_outside_is_outside_the_runs_of_any_law(mixture: Mixture) -> None:
    """Compute is read by one law, N and tokens by the others."""
    beyond = mixture.beyond({N: 4e6, D: 1e6})
    assert beyond == {N: pytest.approx(4.0), "flops": pytest.approx(4 / 3)}
    assert mixture.beyond({N: 1e5, D: 1e6}) == {}


def test_a_warning_of_several_laws_is_told_once(mixture: Mixture) -> None:
    codes = [notice.code for notice in mixture.warnings]
    assert len(mixture.warnings) == len(set(mixture.warnings))
    assert "flops_6nd" in codes
    assert "few_trunks" in codes


def test_another_count_of_parameters_is_refused(mixture: Mixture) -> None:
    with pytest.raises(TableError, match="n_params is another parameter count"):
        mixture.predict({"n_params": 1e5, D: 1e6})


# --- as a file ----------------------------------------------------------------------------------


def test_it_survives_its_file(mixture: Mixture, tmp_path: Path) -> None:
    path = tmp_path / "fits" / "both.json"
    mixture.save(path)
    loaded = Mixture.load(path)
    assert loaded == mixture
    assert load_fit(str(path)) == mixture
    assert [entry.name for entry in path.parent.iterdir()] == ["both.json"]
    np.testing.assert_array_equal(loaded.predict(MODELS), mixture.predict(MODELS))
    np.testing.assert_array_equal(loaded.band(MODELS), mixture.band(MODELS))
    np.testing.assert_array_equal(loaded.new_runs(MODELS), mixture.new_runs(MODELS))


def test_the_dictionary_has_the_weights_and_each_fits_contract(mixture: Mixture) -> None:
    document = mixture.to_dict()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert (document["schema"], document["kdlaws"]) == (1, kdlaws.__version__)
    assert document["weights"] == {"chinchilla": 0.5, "compute": 0.3, "kaplan": 0.2}
    assert document["fits"] == [each.to_dict() for each in mixture.fits]


def test_the_text_tells_each_law_and_its_weight(mixture: Mixture) -> None:
    text = str(mixture)
    for each, weight in zip(mixture.fits, ("0.50", "0.30", "0.20"), strict=True):
        assert f"weight {weight}\n{each}" in text


@pytest.mark.parametrize(
    "content", ["", "[]", '{"schema": 1}', '{"schema": 1, "weights": [1], "fits": [{}]}']
)
def test_a_file_that_is_no_combination_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "both.json"
    path.write_text(content)
    with pytest.raises(ArtefactError, match="not a combination of fits") as caught:
        Mixture.load(path)
    assert caught.value.where == str(path)
    assert caught.value.remedy


def test_a_single_fit_is_no_combination(fits: tuple[Fit, ...], tmp_path: Path) -> None:
    fits[0].save(tmp_path / "fit.json")
    with pytest.raises(ArtefactError, match="not a combination of fits"):
        Mixture.load(tmp_path / "fit.json")
