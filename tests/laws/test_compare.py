"""Comparison: a choice that never sees what it is tested on, against hand-made back-tests."""

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

import kdlaws
from kdlaws.errors import ArtefactError, InputError, TableError
from kdlaws.laws import Comparison, Fit, Mixture, Notice, combine, compare, fit
from kdlaws.laws.compare import candidates, weights_of

N, D = "n_params_non_embedding", "n_tokens"
L_T = "teacher_cross_entropy"

Columns = dict[str, np.ndarray]


def study(noise: float = 0.004) -> Columns:
    """36 runs of a law in N and D, no two of the same compute."""
    sizes, tokens = np.geomspace(1e4, 1e6, 6), np.geomspace(1e5, 3e7, 6)
    n, d = (axis.ravel() for axis in np.meshgrid(sizes, tokens))
    loss = 1.5 + 40 / n**0.3 + 300 / d**0.4
    return {N: n, D: d, "cross_entropy": loss * scatter(n.size, noise)}


def scatter(size: int, noise: float, seed: int = 0) -> np.ndarray:
    return np.exp(noise * np.random.default_rng(seed).standard_normal(size))


def by_compute(columns: Columns) -> np.ndarray:
    flops = columns["flops"] if "flops" in columns else columns[N] * columns[D]
    return np.argsort(flops, kind="stable")


def part(columns: Columns, rows: np.ndarray) -> Columns:
    return {name: values[rows] for name, values in columns.items()}


def held_out_error(columns: Columns, law: str, train: np.ndarray, test: np.ndarray) -> float:
    """Percent, of a fit to ``train`` that predicts ``test``."""
    result = fit(part(columns, train), law, bootstrap=0, holdout=0)
    measured = columns["cross_entropy"][test]
    return float(100 * np.mean(np.abs(result.predict(part(columns, test)) / measured - 1)))


def mape(result: Comparison, law: str) -> float:
    (found,) = (each for each in result.laws if each.law == law)
    assert found.holdout is not None
    assert found.holdout.mape is not None
    return found.holdout.mape


# --- two public tables --------------------------------------------------------------------------


def reference(name: str, columns: Sequence[str]) -> np.ndarray:
    """Columns of a public table ``[columns, rows]``."""
    if "KDLAWS_DATA" not in os.environ:
        pytest.skip("KDLAWS_DATA does not say where the reference data is")
    path = Path(os.environ["KDLAWS_DATA"], "reference", name)
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    with path.open(newline="") as lines:
        return np.array([[float(row[c]) for c in columns] for row in csv.DictReader(lines)]).T


@pytest.fixture(scope="module")
def chinchilla_points() -> Columns:
    """Hoffmann et al. 2022, digitised; without the 5 points of highest loss."""
    table = reference(
        "chinchilla_epoch/svg_extracted_data.csv", ["Model Size", "Training FLOP", "loss"]
    )
    n, flops, loss = table[:, np.argsort(table[2])[:-5]]
    return {"n_params": n, D: flops / (6 * n), "flops": flops, "cross_entropy": loss}


@pytest.fixture(scope="module")
def repeated_runs() -> Columns:
    """Muennighoff et al. 2023: 296 runs, most of them on repeated data."""
    n, d, u, loss = reference("datablations/c4_runs.csv", ["N", "D", "U", "val_loss"])
    return {"n_params": n, D: d, "n_unique_tokens": u, "cross_entropy": loss}


def test_the_choice_is_as_good_as_the_better_law_on_public_tables(
    chinchilla_points: Columns, repeated_runs: Columns
) -> None:
    """Within 1.1 of the better of the two usual laws on each, and below both in the mean."""
    chosen: list[float] = []
    usual: dict[str, list[float]] = {"chinchilla": [], "compute": []}
    for table in (chinchilla_points, repeated_runs):
        result = compare(table, n_column="n_params")
        assert result.chosen.holdout is not None
        assert result.chosen.holdout.mape is not None
        chosen.append(result.chosen.holdout.mape)
        for law, errors in usual.items():
            errors.append(mape(result, law))
        assert chosen[-1] <= 1.1 * min(errors[-1] for errors in usual.values())
    assert all(np.mean(chosen) < np.mean(errors) for errors in usual.values())


def test_the_held_out_errors_on_the_chinchilla_points_are_the_known_ones(
    chinchilla_points: Columns,
) -> None:
    """Largest 30 % by compute: power law in compute .94 %, law in N and D 1.06 %."""
    result = compare(chinchilla_points, ["chinchilla"], n_column="n_params")
    assert mape(result, "compute") == pytest.approx(0.94, abs=0.005)
    assert mape(result, "chinchilla") == pytest.approx(1.06, abs=0.005)
    assert result.baseline.holdout is not None
    assert result.baseline.holdout.n_test == 72


# --- back-tests ---------------------------------------------------------------------------------


def test_errors_are_those_of_fits_to_the_cheaper_runs() -> None:
    """36 runs: 25 to train on; rolling fits of the cheapest 70, 80 and 90 % of these."""
    columns = study()
    order = by_compute(columns)
    train, test = order[:25], order[25:]
    result = compare(columns, ["chinchilla", "kaplan"])
    for found in result.laws:
        assert mape(result, found.law) == pytest.approx(
            held_out_error(columns, found.law, train, test), rel=1e-4
        )
        rolling = [held_out_error(columns, found.law, train[:k], train[k:]) for k in (18, 20, 22)]
        assert found.rolling == pytest.approx(np.mean(rolling), rel=1e-4)


def test_criterion_and_parameters_are_those_of_the_likelihood() -> None:
    """AIC = 2 k - 2 log likelihood; k counts the noise too; normal residuals of log loss."""
    columns = study()
    result = compare(columns, ["chinchilla", "generalized"], loss="squares")
    known = {"chinchilla": 5, "generalized": 6, "compute": 3}
    assert {found.law: found.n_parameters for found in result.laws} == known
    expected = {}
    for law, k in known.items():
        fitted = fit(columns, law, loss="squares", bootstrap=0, holdout=0)
        residual = np.log(fitted.predict(columns) / columns["cross_entropy"])
        deviation = np.sqrt(np.mean(residual**2))
        expected[law] = 2 * (k + 1) - 2 * norm.logpdf(residual, scale=deviation).sum()
    found = {each.law: each.aic for each in result.laws}
    for law in known:
        assert found[law] is not None
        difference = found[law] - found["compute"]  # type: ignore[operator]
        assert difference == pytest.approx(expected[law] - expected["compute"], abs=1e-3)


def test_the_baseline_is_always_there_and_once() -> None:
    for laws in (["chinchilla"], ["compute", "chinchilla"], ["compute"]):
        result = compare(study(), laws)
        assert [found.law for found in result.laws].count("compute") == 1
        assert result.baseline.law == "compute"
        assert result.baseline in result.laws
        assert result.baseline.holdout is not None
        for found in result.laws:
            assert found.holdout is not None
            assert found.holdout.baseline_mape == result.baseline.holdout.mape


def test_each_group_is_predicted_from_the_others() -> None:
    columns = study()
    group = np.array(["ours", "theirs", "hers"])[np.arange(36) % 3]
    result = compare(columns, ["chinchilla"], group=list(group))
    (found, _) = result.laws
    assert {(each.group, each.n_test) for each in found.groups} == {
        ("hers", 12),
        ("ours", 12),
        ("theirs", 12),
    }
    rows = np.arange(36)
    for each in found.groups:
        test, train = rows[group == each.group], rows[group != each.group]
        expected = held_out_error(columns, "chinchilla", train, test)
        assert each.mape == pytest.approx(expected, rel=1e-4)
        assert f"chinchilla without {each.group}: {each.mape:.2f}%" in str(result)


def test_three_trunks_give_no_interval_and_so_no_coverage() -> None:
    columns = study()
    again = {name: np.concatenate([values, values]) for name, values in columns.items()}
    again[L_T] = np.repeat([np.nan, 1.2], 36)
    trunks = [f"trunk-{row % 3}" for row in range(72)]
    result = compare(again, ["chinchilla", "busbridge_limit"], trunk=trunks)
    held = [each.holdout for each in result.laws if each.holdout is not None]
    assert len(held) == 3
    assert all(each.coverage_90 is None for each in held)


def test_a_group_that_is_nearly_everything_has_no_error() -> None:
    group = ["most"] * 33 + ["few"] * 3
    (found, _) = compare(study(), ["chinchilla"], group=group).laws
    assert {each.group: each.mape is None for each in found.groups} == {"few": False, "most": True}


@pytest.fixture(scope="module")
def noisy() -> Columns:
    """Noise enough that no law is clearly the best."""
    return study(noise=0.05)


@pytest.fixture(scope="module")
def undecided(noisy: Columns) -> Comparison:
    return compare(noisy, ["chinchilla", "kaplan"])


# --- the choice ---------------------------------------------------------------------------------


def test_the_choice_does_not_see_the_held_out_losses(noisy: Columns, undecided: Comparison) -> None:
    held_out = by_compute(noisy)[-11:]
    changed = noisy["cross_entropy"].copy()
    changed[held_out] *= scatter(11, 0.3, seed=1)
    after = compare(noisy | {"cross_entropy": changed}, ["chinchilla", "kaplan"]).chosen
    assert after.weights == undecided.chosen.weights
    assert after.reasons == undecided.chosen.reasons
    assert after.holdout != undecided.chosen.holdout


def test_the_choice_does_see_the_other_losses(noisy: Columns, undecided: Comparison) -> None:
    trained = by_compute(noisy)[:-11]
    changed = noisy["cross_entropy"].copy()
    changed[trained] *= scatter(25, 0.05, seed=1)
    after = compare(noisy | {"cross_entropy": changed}, ["chinchilla", "kaplan"]).chosen
    assert after.weights != undecided.chosen.weights
    assert after.reasons != undecided.chosen.reasons


@pytest.mark.parametrize(
    ("errors", "weights"),
    [
        ({"a": 0.7}, {"a": 1.0}),
        ({"a": 1.0, "b": 2.0}, {"a": 0.8, "b": 0.2}),
        ({"a": 6.0, "b": 2.0}, {"a": 0.1, "b": 0.9}),
        ({"a": 2.0, "b": 6.1}, {"a": 1.0, "b": 0.0}),
        ({"a": 2.0, "b": 2.0, "c": 1.0, "d": 50.0}, {"a": 1 / 6, "b": 1 / 6, "c": 2 / 3, "d": 0.0}),
    ],
)
def test_weights_are_inverse_squares_without_what_is_three_times_worse(
    errors: dict[str, float], weights: dict[str, float]
) -> None:
    assert weights_of(errors) == pytest.approx(weights)


def test_weights_come_from_the_rolling_errors(undecided: Comparison) -> None:
    errors = {found.law: found.rolling for found in undecided.laws}
    best = min(error for error in errors.values() if error is not None)
    raw = {law: error**-2 for law, error in errors.items() if error and error <= 3 * best}
    expected = {law: raw.get(law, 0.0) / sum(raw.values()) for law in errors}
    assert max(expected.values()) < 0.9
    assert undecided.chosen.law is None
    assert undecided.chosen.weights == pytest.approx(expected)


@pytest.mark.parametrize("noise", [0.0, 0.004])
def test_a_law_that_is_clearly_best_is_chosen_alone(noise: float) -> None:
    result = compare(study(noise), ["kaplan", "chinchilla"])
    assert result.chosen.law == "chinchilla"
    assert result.chosen.weights == {"kaplan": 0.0, "chinchilla": 1.0, "compute": 0.0}
    (chinchilla,) = (found for found in result.laws if found.law == "chinchilla")
    assert result.chosen.holdout is not None
    assert chinchilla.holdout is not None
    assert result.chosen.holdout.mape == pytest.approx(chinchilla.holdout.mape)
    assert "left out: kaplan, compute" in " ".join(result.chosen.reasons)


def test_a_combination_predicts_the_weighted_mean_of_logarithms(
    noisy: Columns, undecided: Comparison
) -> None:
    order = by_compute(noisy)
    train, test = part(noisy, order[:25]), part(noisy, order[25:])
    chosen = undecided.chosen
    logs = np.zeros(11)
    for law, weight in chosen.weights.items():
        logs += weight * np.log(fit(train, law, bootstrap=0, holdout=0).predict(test))
    expected = 100 * np.mean(np.abs(np.exp(logs) / test["cross_entropy"] - 1))
    assert chosen.holdout is not None
    assert chosen.holdout.mape == pytest.approx(expected, rel=1e-4)


# --- what is fitted in the end ------------------------------------------------------------------


def test_what_was_chosen_is_fitted_to_all_runs(noisy: Columns, undecided: Comparison) -> None:
    chosen = undecided.chosen
    arguments = {"bootstrap": 50, "holdout": 0, "level": 0.8}
    found = combine(noisy, chosen, **arguments)
    assert isinstance(found, Mixture)
    used = {law: weight for law, weight in chosen.weights.items() if weight}
    assert dict(zip((each.law for each in found.fits), found.weights, strict=True)) == used
    for each in found.fits:
        assert each == fit(noisy, each.law, **arguments)  # type: ignore[arg-type]
        assert each.n_runs == 36


def test_a_law_chosen_alone_is_a_plain_fit() -> None:
    columns = study()
    found = combine(columns, compare(columns, ["chinchilla"]).chosen, bootstrap=50)
    assert isinstance(found, Fit)
    assert found == fit(columns, "chinchilla", bootstrap=50)


OWN = """
def mine(N, n_tokens, *, E, A, alpha=0.3, B, beta=0.3):
    "L = E + A/N^alpha + B/D^beta"
    return E + A / N**alpha + B / n_tokens**beta
"""


def test_a_law_of_ones_own_is_compared_and_fitted(tmp_path: Path) -> None:
    path = tmp_path / "laws.py"
    path.write_text(OWN)
    columns = study()
    result = compare(columns, [f"{path}:mine"])
    assert result.chosen.law == f"{path}:mine"
    order = by_compute(columns)
    same_equation = held_out_error(columns, "chinchilla", order[:25], order[25:])
    assert mape(result, f"{path}:mine") == pytest.approx(same_equation, rel=1e-3)
    found = combine(columns, result.chosen, bootstrap=0, holdout=0)
    assert isinstance(found, Fit)
    assert found.law == f"{path}:mine"


# --- which laws, and which runs -----------------------------------------------------------------

TAUGHT = np.where(np.arange(36) % 2, 3.0, np.nan)
METHODS = np.where(np.arange(36) % 2, "token", "scratch")


@pytest.mark.parametrize(
    ("given", "more"),
    [
        ({}, set()),
        ({"teacher_cross_entropy": np.full(36, np.nan)}, set()),
        ({"teacher_cross_entropy": TAUGHT}, {"busbridge_limit"}),
        ({"method": np.full(36, "token")}, set()),
        ({"method": METHODS}, set()),
        ({"method": METHODS, f"teacher_{N}": TAUGHT}, {"spec", "spec_additive"}),
        ({"n_unique_tokens": study()[D]}, set()),
        ({"n_unique_tokens": study()[D] / 4}, {"data_constrained"}),
    ],
)
def test_the_columns_say_which_laws_are_candidates(given: Columns, more: set[str]) -> None:
    usual = {"chinchilla", "generalized", "kaplan", "compute"}
    assert set(candidates(study() | given)) == usual | more


def test_without_tokens_only_compute_is_left() -> None:
    flops = np.geomspace(1e9, 1e14, 20)
    columns = {"flops": flops, "cross_entropy": (1.2 + 50 * flops**-0.15) * scatter(20, 0.003)}
    result = compare(columns)
    assert [found.law for found in result.laws] == ["compute"]
    assert result.chosen.law == "compute"


def test_too_few_runs_are_refused() -> None:
    few = part(study(), np.arange(4))
    with pytest.raises(TableError, match="4 runs are too few") as caught:
        compare(few)
    assert caught.value.where == "holdout"
    assert caught.value.remedy


def test_without_held_out_runs_nobody_says_that_a_law_cannot_be_chosen() -> None:
    result = compare(study(), ["chinchilla"], holdout=0.0)
    assert result.chosen.weights["chinchilla"] > 0
    (notice,) = result.laws[0].warnings
    assert notice.code == "no_holdout"
    assert "cannot be chosen" not in notice.message


def test_a_law_with_too_many_parameters_for_the_runs_is_not_chosen() -> None:
    """8 runs: 6 to train on, of which a rolling test fits 4, enough for 3 parameters only."""
    result = compare(part(study(), np.arange(0, 32, 4)), ["chinchilla"])
    (chinchilla, _) = result.laws
    assert chinchilla.rolling is None
    assert result.chosen.weights == {"compute": 1.0}


@pytest.mark.parametrize(
    ("argument", "value", "where"),
    [
        ("laws", ["chincilla"], "law"),
        ("n_column", "N", "n_column"),
        ("loss", "absolute", "loss"),
        ("holdout", 1.5, "holdout"),
        ("seed", -1, "seed"),
        ("trunk", ["a"] * 3, "trunk"),
        ("group", ["a"] * 3, "group"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(argument: str, value: Any, where: str) -> None:
    arguments = {"laws": ["chinchilla"], argument: value}
    with pytest.raises(InputError) as caught:
        compare(study(), **arguments)
    assert caught.value.where == where


# --- the result ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def result() -> Comparison:
    notice = Notice("pooled_seeds", "two seeds are pooled", "split them")
    return compare(
        study(),
        ["chinchilla"],
        source={"file": "runs.csv", "sha256": "0" * 64},
        n_dropped=2,
        notices=[notice],
    )


def test_the_dictionary_is_the_contract(result: Comparison) -> None:
    document = result.to_dict()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert list(document)[:2] == ["schema", "kdlaws"]
    assert (document["schema"], document["kdlaws"]) == (1, kdlaws.__version__)
    assert {"laws", "chosen", "baseline", "warnings"} <= set(document)
    holdout = {"mape", "baseline_mape", "coverage_90", "n_test"}
    for law in (*document["laws"], document["baseline"]):
        assert {"law", "n_parameters", "aic", "holdout", "warnings"} <= set(law)
        assert set(law["holdout"]) == holdout
    assert set(document["chosen"]) == {"law", "weights", "holdout", "reasons"}
    assert set(document["chosen"]["holdout"]) == holdout
    assert (document["n_column"], document["n_runs"], document["n_dropped"]) == (N, 36, 2)
    assert document["inputs"] == {"file": "runs.csv", "sha256": "0" * 64}
    assert document["warnings"][0]["code"] == "pooled_seeds"


def test_the_text_tells_the_errors_the_choice_and_the_warnings(result: Comparison) -> None:
    text = str(result)
    assert "chosen: chinchilla" in text
    assert f"{mape(result, 'compute'):.2f}%" in text
    assert "pooled_seeds: two seeds are pooled" in text
    assert all(reason in text for reason in result.chosen.reasons)


def test_a_comparison_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    labels = [f"n{n:.0f}" for n in study()[N]]
    found = compare(study(), group=labels)
    found.save(tmp_path / "comparison.json")
    assert Comparison.load(tmp_path / "comparison.json") == found
    (tmp_path / "other.json").write_text('{"schema": 1, "laws": []}')
    with pytest.raises(ArtefactError, match="not a comparison"):
        Comparison.load(tmp_path / "other.json")
