"""One model's prediction: its contract, whose curve it is, and what it must not load."""

import json
import subprocess
import sys
from math import exp
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kdlaws
from kdlaws.errors import ArtefactError, InputError, TableError
from kdlaws.laws import Fit, Mixture, Prediction, fit, load_fit, predict, published

N, D = "n_params_non_embedding", "n_tokens"
MODEL = {N: 1e5, D: 1e6}
TEACHER = {f"teacher_{N}": 3e6}


def study() -> dict[str, np.ndarray]:
    """20 runs without a teacher."""
    sizes, tokens = np.geomspace(1e4, 1e6, 5), np.geomspace(1e5, 3e6, 4)
    n, d = (axis.ravel() for axis in np.meshgrid(sizes, tokens))
    return {N: n, D: d, "cross_entropy": loss(n, d) * scatter(n.size)}


def loss(n: np.ndarray, d: np.ndarray) -> np.ndarray:
    return np.asarray(1.5 + 40 / n**0.3 * (1 + (2e5 / d) ** 0.5))


def scatter(size: int) -> np.ndarray:
    return np.exp(0.005 * np.random.default_rng(4).standard_normal(size))


@pytest.fixture(scope="module")
def own() -> Fit:
    return fit(study(), "chinchilla", bootstrap=50, holdout=0)


@pytest.fixture(scope="module")
def taught() -> Fit:
    """The spec's law: runs alone, and with teachers of three sizes, who leave .7 of the excess."""
    sizes, tokens, teachers = np.geomspace(1e4, 1e6, 3), [1e5, 1e6], [np.nan, 3e5, 3e6, 3e7]
    n, d, teacher = (axis.ravel() for axis in np.meshgrid(sizes, tokens, teachers))
    alone = np.isnan(teacher)
    r = np.where(alone, 1.0, teacher / n)
    gain = np.where(alone, 1.0, 0.7 * (((r / 10) ** -0.6 + (r / 10) ** 0.4) / 2) ** 0.5)
    columns = {
        N: n,
        D: d,
        f"teacher_{N}": teacher,
        "method": np.where(alone, "scratch", "token"),
        "cross_entropy": 1.5 + (loss(n, d) - 1.5) * gain,
    }
    return fit(columns, "spec", bootstrap=0, holdout=0)


# --- the contract -------------------------------------------------------------------------------

CONTRACT = ["cross_entropy", "lo", "hi", "new_run_lo", "new_run_hi", "level", "perplexity"]
CONTRACT += ["extrapolates", "warnings"]


def test_the_dictionary_is_the_contract_in_its_order(own: Fit) -> None:
    document = predict(own, MODEL).to_dict()
    assert list(document)[:2] == ["schema", "kdlaws"]
    assert (document["schema"], document["kdlaws"]) == (1, kdlaws.__version__)
    assert [name for name in document if name in CONTRACT] == CONTRACT
    assert set(document) == {*CONTRACT, "schema", "kdlaws", "beyond", "supervised_cross_entropy"}
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_it_is_the_fits_curve_and_intervals(own: Fit) -> None:
    prediction = predict(own, MODEL)
    e, a, b, alpha, beta = (parameter.value for parameter in own.parameters.values())
    assert prediction.cross_entropy == pytest.approx(e + a / 1e5**alpha + b / 1e6**beta)
    assert prediction.perplexity == pytest.approx(exp(prediction.cross_entropy))
    assert [prediction.lo, prediction.hi] == [float(end) for end in own.band(MODEL)]
    new_run = [float(end) for end in own.new_runs(MODEL)]
    assert [prediction.new_run_lo, prediction.new_run_hi] == new_run
    assert prediction.level == 0.9
    assert not prediction.extrapolates
    assert prediction.beyond == {}


def test_a_model_outside_the_runs_is_said_to_be_and_by_how_much(own: Fit) -> None:
    """10 times the largest N, a fifth of the fewest tokens; FLOPs are within."""
    prediction = predict(own, {N: 1e7, D: 2e4})
    assert prediction.extrapolates
    assert prediction.beyond == pytest.approx({N: 10.0, D: 5.0})
    notice = next(n for n in prediction.warnings if n.code == "extrapolates")
    assert f"{N} by a factor 10, {D} by a factor 5" in notice.message


def test_what_the_fit_warns_of_its_predictions_comes_along() -> None:
    trunks = [f"trunk-{row % 5}" for row in range(20)]
    few = fit(study(), "compute", trunk=trunks, holdout=0.01)
    codes = [notice.code for notice in few.warnings]
    assert {"flops_6nd", "few_trunks", "no_holdout"} <= set(codes)
    carried = {notice.code for notice in predict(few, MODEL).warnings}
    assert carried == {"flops_6nd", "few_trunks"}


@pytest.mark.parametrize("which", ["own", "published"])
def test_it_survives_its_file(which: str, own: Fit, tmp_path: Path) -> None:
    prediction = predict(own if which == "own" else published("kaplan2020"), MODEL)
    path = tmp_path / "answers" / "one.json"
    prediction.save(path)
    assert Prediction.load(path) == prediction
    assert json.loads(path.read_text()) == prediction.to_dict()
    assert [entry.name for entry in path.parent.iterdir()] == ["one.json"]


@pytest.mark.parametrize("content", ["", "[]", '{"schema": 1}', '{"schema": 1, "warnings": [3]}'])
def test_a_file_that_is_no_prediction_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text(content)
    with pytest.raises(ArtefactError, match="not a prediction") as caught:
        Prediction.load(path)
    assert caught.value.where == str(path)
    assert caught.value.remedy


def test_the_text_tells_the_curve_the_new_run_and_what_is_unknown(own: Fit) -> None:
    prediction = predict(own, MODEL, scratch=own)
    text = str(prediction)
    assert f"{prediction.cross_entropy:.4f} nats per token" in text
    assert f"90% interval of the curve: {prediction.lo:.4f} to {prediction.hi:.4f}" in text
    assert f"of a new run: {prediction.new_run_lo:.4f} to {prediction.new_run_hi:.4f}" in text
    assert f"without a teacher: {prediction.cross_entropy:.4f} (+0.0000 nats gained)" in text
    text = str(predict(published("besiroglu2024"), {"n_params": 1e9, D: 2e10}))
    assert "95% interval of the curve: unknown" in text
    assert "no_joint_uncertainty: " in text
    assert "without a teacher" not in text


# --- with and without a teacher -----------------------------------------------------------------


def test_a_joint_law_says_itself_what_scratch_would_give(taught: Fit) -> None:
    """The truth of the simulated runs: .7 of the excess, times the bend at a ratio of 30."""
    prediction = predict(taught, MODEL | TEACHER | {"method": "token"})
    alone = float(loss(np.array(1e5), np.array(1e6)))
    gain = 0.7 * ((3**-0.6 + 3**0.4) / 2) ** 0.5
    assert prediction.supervised_cross_entropy == pytest.approx(alone, rel=1e-3)
    assert prediction.cross_entropy == pytest.approx(1.5 + (alone - 1.5) * gain, rel=1e-3)


def test_without_a_teacher_there_is_nothing_to_compare_with(own: Fit, taught: Fit) -> None:
    assert predict(own, MODEL).supervised_cross_entropy is None
    assert predict(taught, MODEL | {"method": "scratch"}).supervised_cross_entropy is None


def test_another_fit_says_what_scratch_would_give(own: Fit, taught: Fit) -> None:
    """It is believed over the law itself, and reads nothing of the teacher."""
    prediction = predict(taught, MODEL | TEACHER | {"method": "token"}, scratch=own)
    assert prediction.supervised_cross_entropy == float(own.predict(MODEL))
    assert prediction.cross_entropy == float(taught.predict(MODEL | TEACHER | {"method": "token"}))


def test_a_joint_law_as_the_other_fit_is_asked_for_scratch(own: Fit, taught: Fit) -> None:
    prediction = predict(own, MODEL | TEACHER | {"method": "token"}, scratch=taught)
    expected = float(taught.predict(MODEL | {"method": "scratch"}))
    assert prediction.supervised_cross_entropy == expected
    assert prediction.cross_entropy == float(own.predict(MODEL))


def test_a_published_law_of_distillation_takes_another_for_scratch() -> None:
    """Kaplan's law counts N as Busbridge's does; Hoffmann's does not, and needs its own count."""
    student = {N: 1e9, D: 2e10, "teacher_cross_entropy": 2.2}
    busbridge = published("busbridge2025")
    prediction = predict(busbridge, student, scratch=published("kaplan2020"))
    kaplan = ((6.4e13 / 1e9) ** (0.076 / 0.103) + 1.8e13 / 2e10) ** 0.103
    assert prediction.supervised_cross_entropy == pytest.approx(kaplan, rel=1e-12)
    hoffmann = published("hoffmann2022")
    with pytest.raises(InputError, match="the fit reads n_params") as caught:
        predict(busbridge, student, scratch=hoffmann)
    assert caught.value.where == N
    both = predict(busbridge, student | {"n_params": 1.1e9}, scratch=hoffmann)
    expected = 1.6934 + 406.4 / 1.1e9**0.3392 + 410.7 / 2e10**0.2849
    assert both.supervised_cross_entropy == pytest.approx(expected, rel=1e-12)


def test_a_mixture_predicts_and_may_be_the_other_fit(own: Fit) -> None:
    mixture = Mixture((own, fit(study(), "kaplan", bootstrap=50, holdout=0)), (0.6, 0.4))
    prediction = predict(mixture, MODEL)
    assert prediction.cross_entropy == float(mixture.predict(MODEL))
    assert [prediction.lo, prediction.hi] == [float(end) for end in mixture.band(MODEL)]
    assert prediction.supervised_cross_entropy is None
    student = MODEL | {"teacher_cross_entropy": 2.2}
    other = predict(published("busbridge2025"), student, scratch=mixture)
    assert other.supervised_cross_entropy == float(mixture.predict(MODEL))


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "kind", "where"),
    [
        ({N: [1e5, 2e5], D: 1e6}, InputError, "predict"),
        ({N: 1e5}, TableError, D),
        ({N: -1.0, D: 1e6}, TableError, N),
        ({N: "1e5 tokens", D: 1e6}, TableError, N),
        ({N: float("nan"), D: 1e6}, TableError, N),
        ({"n_params": 1e5, D: 1e6}, InputError, "n_params"),
    ],
)
def test_columns_that_are_not_one_model_are_refused(
    own: Fit, columns: dict[str, Any], kind: type[InputError], where: str
) -> None:
    with pytest.raises(kind) as caught:
        predict(own, columns)
    assert caught.value.where == where
    assert caught.value.remedy


def test_a_method_of_no_run_is_refused(taught: Fit) -> None:
    with pytest.raises(InputError, match="no runs of method embedding") as caught:
        predict(taught, MODEL | TEACHER | {"method": "embedding"})
    assert caught.value.remedy == "one of scratch, token"


def test_a_teacher_without_a_method_is_refused_and_not_taken_for_scratch(taught: Fit) -> None:
    with pytest.raises(InputError, match="no method") as caught:
        predict(taught, MODEL | TEACHER)
    assert "token" in caught.value.remedy


def test_a_cross_entropy_without_a_perplexity_is_refused_with_the_units() -> None:
    """N = 70 and D = 1.4 for 70B and 1.4T: 1.8172 + 482.01/70^.3478 + 2085.43/1.4^.3658."""
    with pytest.raises(InputError, match="1956 nats") as caught:
        predict(load_fit("published:besiroglu2024"), {"n_params": 70.0, D: 1.4})
    assert "70B" in caught.value.remedy


def test_a_teacher_of_unknown_size_gives_no_number(taught: Fit) -> None:
    with pytest.raises(InputError):
        predict(taught, MODEL | {"method": "token"})


# --- fits by name -------------------------------------------------------------------------------


def test_a_fit_is_loaded_by_its_file_or_its_paper(own: Fit, tmp_path: Path) -> None:
    own.save(tmp_path / "fit.json")
    assert load_fit(str(tmp_path / "fit.json")) == own
    assert load_fit("published:besiroglu2024") == published("besiroglu2024")


def test_no_such_fit_is_refused_with_what_there_is(own: Fit, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such fit") as caught:
        load_fit(str(tmp_path / "fit.json"))
    assert "published:NAME: kaplan2020, hoffmann2022" in caught.value.remedy
    with pytest.raises(InputError, match="no published fit 'busbridge'"):
        load_fit("published:busbridge")
    predict(own, MODEL).save(tmp_path / "prediction.json")
    with pytest.raises(ArtefactError, match="not a fit"):
        load_fit(str(tmp_path / "prediction.json"))


# --- what it loads ------------------------------------------------------------------------------

PREDICT = """
import sys
from kdlaws import laws
busbridge = {"n_params_non_embedding": 1e9, "n_tokens": 2e10, "teacher_cross_entropy": 2.2}
print(laws.predict(laws.load_fit("published:busbridge2025"), busbridge).cross_entropy)
for path in sys.argv[1:]:
    print(laws.predict(laws.load_fit(path), {"n_params_non_embedding": 1e5, "n_tokens": 1e6}).hi)
print(*sys.modules)
"""


def test_a_prediction_needs_neither_scipy_nor_pandas(own: Fit, tmp_path: Path) -> None:
    """Of a paper, of resampled runs, of trunks (Student's intervals), of several laws."""
    trunks = fit(study(), "kaplan", trunk=[f"trunk-{row % 5}" for row in range(20)], holdout=0)
    fits: list[Fit | Mixture] = [own, trunks, Mixture((own, trunks), (0.5, 0.5))]
    paths = [str(tmp_path / f"{i}.json") for i in range(3)]
    for each, path in zip(fits, paths, strict=True):
        each.save(path)
    command = [sys.executable, "-c", PREDICT, *paths]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *numbers, modules = done.stdout.splitlines()
    assert [float(number) for number in numbers[1:]] == [predict(f, MODEL).hi for f in fits]
    assert not {"scipy", "pandas", "torch", "pydantic", "matplotlib"} & set(modules.split())
