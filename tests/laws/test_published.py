"""Published fits against their papers' numbers, and our fits against what was published."""

import csv
import os
from math import log10
from pathlib import Path

import numpy as np
import pytest

from kdlaws.errors import InputError, TableError
from kdlaws.laws import PUBLISHED, Fit, fit, predict, published

FOLDER = "reference/chinchilla_epoch"
NON_EMBEDDING = "n_params_non_embedding"

Columns = dict[str, np.ndarray]
every_paper = pytest.mark.parametrize("name", PUBLISHED)


# --- the digitised runs of Hoffmann et al. 2022 -------------------------------------------------


@pytest.fixture(scope="module")
def every_point() -> Columns:
    """245 digitised points in order of loss."""
    if "KDLAWS_DATA" not in os.environ:
        pytest.skip("KDLAWS_DATA does not say where the reference data is")
    path = Path(os.environ["KDLAWS_DATA"], FOLDER, "svg_extracted_data.csv")
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    with path.open(newline="") as lines:
        rows = [(r["Model Size"], r["Training FLOP"], r["loss"]) for r in csv.DictReader(lines)]
    n, flops, loss = np.array(sorted(rows, key=lambda row: float(row[2])), dtype=float).T
    return {"n_params": n, "n_tokens": flops / (6 * n), "flops": flops, "cross_entropy": loss}


@pytest.fixture(scope="module")
def points(every_point: Columns) -> Columns:
    """Without the 5 of highest loss, as Besiroglu et al. 2024 take them."""
    return {name: values[:240] for name, values in every_point.items()}


@pytest.fixture(scope="module")
def chinchilla(points: Columns) -> Fit:
    return fit(points, "chinchilla", n_column="n_params", level=0.95, bootstrap=2000)


def values_of(result: Fit) -> dict[str, float]:
    return {name: parameter.value for name, parameter in result.parameters.items()}


def data_exponent(result: Fit) -> float:
    """a of N_opt ~ C^a: beta/(alpha + beta), Hoffmann et al. 2022, equation 4."""
    values = values_of(result)
    return values["beta"] / (values["alpha"] + values["beta"])


def test_the_optimum_is_the_published_one(chinchilla: Fit) -> None:
    assert chinchilla.objective is not None
    assert chinchilla.objective <= 0.0010182741
    known = {"E": 1.81722, "A": 477.826, "B": 2143.417, "alpha": 0.347310, "beta": 0.367172}
    assert values_of(chinchilla) == pytest.approx(known, rel=1e-3)
    assert data_exponent(chinchilla) == pytest.approx(0.514, abs=5e-4)
    assert chinchilla.n_runs == 240
    assert chinchilla.converged
    assert chinchilla.starts_agree == 1.0


def test_the_intervals_are_the_published_ones(chinchilla: Fit) -> None:
    """Bootstrap, 95 %. The published ends have a Monte Carlo error of their own."""
    paper = published("besiroglu2024").parameters
    for name, tolerance in {"E": 0.01, "alpha": 0.01, "beta": 0.01}.items():
        found, known = chinchilla.parameters[name], paper[name]
        assert (found.lo, found.hi) == pytest.approx((known.lo, known.hi), abs=tolerance)
        assert found.identified


def test_the_dropped_points_raise_beta(every_point: Columns) -> None:
    """All 245: beta .453, by the analysis that came with the points."""
    result = fit(every_point, "chinchilla", n_column="n_params", bootstrap=0)
    assert result.n_runs == 245
    assert values_of(result)["beta"] == pytest.approx(0.453, abs=5e-4)


def test_the_compute_only_baseline_wins_this_back_test(chinchilla: Fit) -> None:
    """Largest 30 % by compute: 0.94 % error against 1.06 % for the law in N and D."""
    assert chinchilla.holdout is not None
    assert chinchilla.holdout.baseline_mape == pytest.approx(0.94, abs=0.005)
    assert chinchilla.holdout.mape == pytest.approx(1.06, abs=0.005)
    assert chinchilla.holdout.n_test == 72


# --- every published fit ------------------------------------------------------------------------

# arXiv number, N that the paper counts, runs (None: not stated), FLOPs per token at N = 1e9.
PAPERS = {
    "kaplan2020": ("2001.08361", NON_EMBEDDING, None, 6e9),
    "hoffmann2022": ("2203.15556", "n_params", None, 6e9),
    "besiroglu2024": ("2404.10102", "n_params", 240, 6e9),
    "muennighoff2023": ("2305.16264", "n_params", 182, 6e9),
    "busbridge2025": ("2502.08606", NON_EMBEDDING, 73 + 697, None),
}


def test_the_papers_are_these() -> None:
    assert set(PUBLISHED) == set(PAPERS)


@every_paper
def test_a_published_fit_names_its_paper_its_count_and_its_cost(name: str) -> None:
    number, n_column, n_runs, flops = PAPERS[name]
    result = published(name)
    assert f"arXiv:{number}" in str(result.inputs["source"])
    assert (result.n_column, result.n_runs) == (n_column, n_runs)
    assert {n_column, "n_tokens"} <= set(result.domain)
    cost = result.inputs["cost"]
    assert cost is not None
    if flops is not None:
        assert cost_per_token(cost, 1e9) == flops
    assert str(result.inputs["source"]) in str(result)


def cost_per_token(cost: str, n: float) -> float:
    """What the formula that the cost begins with says at N parameters."""
    formula = cost.partition(" per token")[0].replace("^", "**")
    return float(eval(formula, {"N": n}))


@pytest.mark.parametrize(("n", "flops"), [(103e6, 0.340e9), (12.6e9, 27.23e9)])
def test_busbridges_forward_cost_is_that_of_table_13(n: float, flops: float) -> None:
    cost = str(published("busbridge2025").inputs["cost"])
    assert cost_per_token(cost, n) == pytest.approx(flops, rel=2e-3)


def model(result: Fit, **given: float) -> dict[str, float]:
    """A model in the middle of the range where nothing is given, on no more data than it reads."""
    middle = {column: float(np.sqrt(lo * hi)) for column, (lo, hi) in result.domain.items()}
    if "n_unique_tokens" in given:
        given["n_tokens"] = max(middle["n_tokens"], given["n_unique_tokens"])
    elif "n_unique_tokens" in middle and "n_tokens" in given:
        given["n_unique_tokens"] = min(middle["n_unique_tokens"], given["n_tokens"])
    return middle | given


@every_paper
def test_a_published_fit_has_no_interval_and_says_so(name: str) -> None:
    result = published(name)
    prediction = predict(result, model(result))
    ends = (prediction.lo, prediction.hi, prediction.new_run_lo, prediction.new_run_hi)
    assert ends == (None, None, None, None)
    assert [notice.code for notice in prediction.warnings] == ["no_joint_uncertainty"]
    assert not prediction.extrapolates


@every_paper
def test_outside_its_range_a_published_fit_warns(name: str) -> None:
    result = published(name)
    for column, (lo, hi) in result.domain.items():
        for value, factor in ((lo / 3, 3.0), (hi * 20, 20.0)):
            prediction = predict(result, model(result, **{column: value}))
            assert prediction.extrapolates
            assert prediction.beyond[column] == pytest.approx(factor)
            notice = next(n for n in prediction.warnings if n.code == "extrapolates")
            assert f"{column} by a factor {factor:.3g}" in notice.message


@every_paper
def test_the_other_count_of_parameters_is_refused(name: str) -> None:
    result = published(name)
    other = ({NON_EMBEDDING, "n_params"} - {result.n_column}).pop()
    with pytest.raises(InputError, match=f"reads {result.n_column}") as caught:
        predict(result, {other: 1e9, "n_tokens": 2e10, "n_unique_tokens": 2e10})
    assert caught.value.where == other
    with pytest.raises(TableError):
        result.predict({other: 1e9, "n_tokens": 2e10, "n_unique_tokens": 2e10})


def test_an_unknown_paper_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="no published fit 'kaplan'") as caught:
        published("kaplan")
    assert caught.value.remedy == f"one of {', '.join(PUBLISHED)}"


@every_paper
def test_a_published_fit_survives_its_file(name: str, tmp_path: Path) -> None:
    result = published(name)
    result.save(tmp_path / "fit.json")
    assert Fit.load(tmp_path / "fit.json") == result


# --- paper by paper -----------------------------------------------------------------------------


def kaplan_1_5(n: float, d: float, n_c: float, d_c: float, a_n: float, a_d: float) -> float:
    return float(((n_c / n) ** (a_n / a_d) + d_c / d) ** a_d)


@pytest.mark.parametrize(("n", "d"), [(1e9, 1e10), (1e6, 2e10), (1e9, 3e7)])
def test_kaplans_joint_law_has_the_constants_of_its_own_table(n: float, d: float) -> None:
    """Table 2 of the paper; with those of equations 1.1 and 1.2 it is another curve."""
    value = published("kaplan2020").predict({NON_EMBEDDING: n, "n_tokens": d})
    assert value == pytest.approx(kaplan_1_5(n, d, 6.4e13, 1.8e13, 0.076, 0.103), rel=1e-12)
    mixed_up = kaplan_1_5(n, d, 8.8e13, 5.4e13, 0.076, 0.095)
    assert abs(value - mixed_up) > 0.005


def test_kaplans_law_of_n_alone_is_the_limit_of_much_data() -> None:
    """L(N) = (N_c/N)^.076; at 1.5e9 parameters equation 1.1 says 2.30, this fit about .06 less."""
    value = published("kaplan2020").predict({NON_EMBEDDING: 1.5e9, "n_tokens": 1e30})
    assert value == pytest.approx((6.4e13 / 1.5e9) ** 0.076, rel=1e-12)
    assert value == pytest.approx((8.8e13 / 1.5e9) ** 0.076, abs=0.06)


def best_size(result: Fit, flops: float) -> float:
    """The N of smallest predicted loss at 6*N*D = ``flops``, on a grid of .1 %."""
    n = np.geomspace(1e8, 1e13, 11_513)
    loss = result.predict({"n_params": n, "n_tokens": flops / (6 * n)})
    return float(n[loss.argmin()])


def test_hoffmanns_optimum_is_the_papers() -> None:
    """Table 2: a = .46; figure 4: 40B parameters for Gopher's 5.76e23 FLOPs."""
    result = published("hoffmann2022")
    assert data_exponent(result) == pytest.approx(0.46, abs=0.005)
    gopher = best_size(result, 5.76e23)
    assert gopher == pytest.approx(40e9, rel=0.0125)
    ten_times = best_size(result, 5.76e24)
    assert log10(ten_times / gopher) == pytest.approx(0.46, abs=0.005)


def test_besiroglus_headline_is_the_papers() -> None:
    """a = .5126, standard error .018; about 20 tokens a parameter at Chinchilla's budget."""
    result = published("besiroglu2024")
    assert data_exponent(result) == pytest.approx(0.5126, abs=5e-5)
    assert result.level == 0.95
    alpha = result.parameters["alpha"]
    assert (alpha.lo, alpha.hi) == (0.317, 0.373)
    n = best_size(result, 5.76e23)
    assert 15 < 5.76e23 / (6 * n * n) < 25


@pytest.mark.parametrize(
    ("n", "d", "u", "loss"),
    [
        (6.34e9, 242e9, 25e9, 2.2256440889984477),
        (8.67e9, 178e9, 25e9, 2.2269634075087867),
    ],
)
def test_muennighoffs_predictions_are_the_papers(n: float, d: float, u: float, loss: float) -> None:
    result = published("muennighoff2023")
    value = result.predict({"n_params": n, "n_tokens": d, "n_unique_tokens": u})
    assert value == pytest.approx(loss, abs=1e-12)


def test_more_data_than_is_read_once_is_one_epoch() -> None:
    """The paper's U_D = min(D_C, D): unique tokens are at most the tokens."""
    result = published("muennighoff2023")
    once = result.predict({"n_params": 1e9, "n_tokens": 2e10, "n_unique_tokens": 2e10})
    for more in (4e10, 1e13):
        found = result.predict({"n_params": 1e9, "n_tokens": 2e10, "n_unique_tokens": more})
        assert found == pytest.approx(once, rel=1e-12)


def test_what_muennighoff_tied_and_could_not_determine() -> None:
    """alpha = beta by constraint; R_D* from 15 to 300 fits their runs within .2 %."""
    result = published("muennighoff2023")
    assert result.fixed == {"alpha": "beta"}
    assert result.parameters["alpha"] == result.parameters["beta"]
    assert not result.parameters["R_D_star"].identified


# Busbridge et al. 2025: 546M on 20 tokens a parameter, taught by 1.82B on 20 tokens a parameter.
STUDENT = {NON_EMBEDDING: 546e6, "n_tokens": 20 * 546e6}
TEACHER = {"teacher_n_params_non_embedding": 1.82e9, "teacher_n_tokens": 20 * 1.82e9}


def supervised(n: float, d: float) -> float:
    """Equation 1 with the coefficients of table 6."""
    return float(1.220 + (3355 / n**0.408 + 18186 / d**0.431) ** 0.452)


def distilled(n: float, d: float, l_t: float) -> float:
    """Equation 8 with the coefficients of table 6."""
    bracket = (1 + (l_t / (supervised(n, d) * 1.315)) ** (1 / 0.090)) ** (-522.6 * 0.090)
    return float(l_t + l_t**-2.549 * bracket * (2243 / n**0.321 + 24181 / d**0.637) ** 0.764)


def test_busbridges_student_is_the_papers() -> None:
    """The paper's own run has 2.42 nats (table 7, forward KL)."""
    prediction = predict(published("busbridge2025"), STUDENT | TEACHER)
    assert prediction.cross_entropy == pytest.approx(2.424, abs=5e-4)
    assert prediction.supervised_cross_entropy == pytest.approx(2.515, abs=5e-4)
    assert not prediction.extrapolates


@pytest.mark.parametrize("l_t", [1.8, 2.2, 2.6])
@pytest.mark.parametrize(("n", "d"), [(1.43e8, 3e9), (3e9, 1e11), (7.75e9, 5.12e11)])
def test_busbridges_law_is_equation_8(n: float, d: float, l_t: float) -> None:
    """Where the teacher is far worse than the student would be alone, too."""
    prediction = predict(
        published("busbridge2025"),
        {NON_EMBEDDING: n, "n_tokens": d, "teacher_cross_entropy": l_t},
    )
    assert prediction.cross_entropy == pytest.approx(distilled(n, d, l_t), rel=1e-12)
    assert prediction.supervised_cross_entropy == pytest.approx(supervised(n, d), rel=1e-12)


def test_a_teacher_is_said_by_its_size_and_tokens_or_by_its_cross_entropy() -> None:
    result = published("busbridge2025")
    l_t = supervised(1.82e9, 20 * 1.82e9)
    by_quality = predict(result, STUDENT | {"teacher_cross_entropy": l_t})
    by_size = predict(result, STUDENT | TEACHER)
    assert by_quality.cross_entropy == pytest.approx(by_size.cross_entropy, rel=1e-12)
    # A measured cross-entropy is believed over what the law says of such a teacher.
    measured = predict(result, STUDENT | TEACHER | {"teacher_cross_entropy": 2.1})
    assert measured.cross_entropy == pytest.approx(distilled(546e6, 20 * 546e6, 2.1), rel=1e-12)


def test_without_a_teacher_busbridges_law_is_the_supervised_one() -> None:
    prediction = predict(published("busbridge2025"), STUDENT)
    assert prediction.cross_entropy == pytest.approx(2.515, abs=5e-4)
    assert prediction.supervised_cross_entropy is None


def test_far_outside_busbridges_law_is_nonsense_and_says_so() -> None:
    """29M parameters on 1M tokens: 7.09 nats alone, and 3.17 from a teacher of 2.5 nats."""
    tiny = {NON_EMBEDDING: 29e6, "n_tokens": 1e6, "teacher_cross_entropy": 2.5}
    prediction = predict(published("busbridge2025"), tiny)
    assert prediction.cross_entropy == pytest.approx(3.17, abs=0.005)
    assert prediction.supervised_cross_entropy == pytest.approx(7.09, abs=0.005)
    assert prediction.beyond == pytest.approx({NON_EMBEDDING: 143 / 29, "n_tokens": 2500.0})
    assert prediction.warnings[0].code == "extrapolates"


def test_busbridges_intervals_are_those_of_table_6_without_that_of_c1() -> None:
    """Its c1 has an interval without width, (522.6, 522.6): it was never identified."""
    parameters = published("busbridge2025").parameters
    alpha, c0 = parameters["alpha"], parameters["c0"]
    assert (alpha.lo, alpha.hi, alpha.identified) == (0.405, 0.411, True)
    assert (c0.lo, c0.hi, c0.identified) == (2.425, 2.615, True)
    assert not parameters["c1"].identified
    for name, parameter in parameters.items():
        if name != "c1":
            assert parameter.lo is not None
            assert parameter.hi is not None
            assert parameter.lo < parameter.value < parameter.hi
