"""IsoFLOP analysis: exact parabolas and Chinchilla valleys, simulations, digitised runs."""

import csv
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom, f, linregress, t

import kdlaws
from kdlaws.errors import ArtefactError, InputError, TableError
from kdlaws.laws.isoflop import isoflop
from kdlaws.laws.isoflop_result import Budget, IsoFlops

N = "n_params_non_embedding"
E, A, B, ALPHA, BETA = 1.8172, 482.01, 2085.43, 0.3478, 0.3658  # Besiroglu et al. 2024
FLOPS = np.array([1e18, 1e19, 1e20, 1e21])

Columns = dict[str, np.ndarray]


def codes(result: IsoFlops) -> list[str]:
    return [notice.code for notice in result.warnings]


def best_size(flops: np.ndarray | float) -> np.ndarray | float:
    """The minimum over N of E + A/N^alpha + B/(C/6N)^beta, by its derivative."""
    return (ALPHA * A / (BETA * B) * (flops / 6) ** BETA) ** (1 / (ALPHA + BETA))


def chinchilla(flops: np.ndarray, half_decades: float, off_centre: float, size: int) -> Columns:
    """Sweeps whose middle lies ``off_centre`` decades below the best size."""
    sweep = 10 ** (np.linspace(-half_decades, half_decades, size) - off_centre)
    c, n = np.repeat(flops, size), np.outer(best_size(flops), sweep).ravel()
    loss = E + A / n**ALPHA + B / (c / 6 / n) ** BETA
    return {N: n, "flops": c, "cross_entropy": loss}


def parabolas(
    flops: np.ndarray, log_n_opt: np.ndarray, noise: float = 0.0, size: int = 7, seed: int = 0
) -> Columns:
    """2.5 nats at the optimum and .05 per squared e-fold, in sweeps around C^.5."""
    rng = np.random.default_rng(seed)
    log_n = 0.5 * np.log(flops)[:, None] + np.linspace(-1.2, 1.5, size)
    loss = 2.5 + 0.05 * (log_n - log_n_opt[:, None]) ** 2
    loss += noise * rng.standard_normal(loss.shape)
    c = np.repeat(flops, size)
    return {N: np.exp(log_n).ravel(), "flops": c, "cross_entropy": loss.ravel()}


def only(result: IsoFlops) -> Budget:
    (budget,) = result.budgets
    return budget


def one_budget(log_n: np.ndarray, loss: np.ndarray, level: float = 0.9) -> Budget:
    columns = {N: np.exp(log_n), "flops": np.full(len(log_n), 1e19), "cross_entropy": loss}
    return only(isoflop(columns, level=level))


# the optimum of a budget, and its interval


def test_a_parabola_gives_its_minimum_exactly() -> None:
    result = isoflop(parabolas(FLOPS, 0.46 * np.log(FLOPS) + 1.8))
    expected = np.exp(1.8) * FLOPS**0.46
    assert [budget.flops for budget in result.budgets] == pytest.approx(FLOPS)
    assert [budget.n_opt for budget in result.budgets] == pytest.approx(expected, rel=1e-6)
    assert [b.n_tokens_opt for b in result.budgets] == pytest.approx(FLOPS / 6 / expected, rel=1e-6)
    assert [b.cross_entropy for b in result.budgets] == pytest.approx([2.5] * 4, rel=1e-9)
    assert (result.n_runs, result.dropped, codes(result)) == (28, (), [])
    a, b = result.exponents["a"], result.exponents["b"]
    assert (a.value, b.value) == pytest.approx((0.46, 0.54), rel=1e-6)
    assert a.hi - a.lo < 1e-6


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_the_interval_ends_where_an_f_test_begins_to_reject(level: float) -> None:
    """Fixing the minimum at x leaves L on 1 and (log N - x)^2: a nested linear model."""
    x = np.array([20.5, 20.6, 20.8, 21.0, 21.3, 21.7, 22.2, 22.8, 23.5])
    scatter = 0.01 * np.random.default_rng(4).standard_normal(9)
    loss = 2.5 + 0.05 * (x - 22.2) ** 2 + scatter
    budget = one_budget(x, loss, level)
    free = np.polynomial.Polynomial.fit(x, loss, 2, full=True)[1][0][0]
    for end in (budget.lo, budget.hi):
        tied = np.polynomial.Polynomial.fit((x - np.log(end)) ** 2, loss, 1, full=True)[1][0][0]
        assert (tied - free) / (free / 6) == pytest.approx(f.ppf(level, 1, 6), rel=1e-6)
    assert budget.lo < budget.n_opt < budget.hi
    assert budget.n_tokens_lo == pytest.approx(1e19 / 6 / budget.hi)


@pytest.mark.parametrize("size", [4, 7])
def test_intervals_cover_at_their_level(size: int) -> None:
    """400 budgets in one table; misses or hits beyond chance (1 in 1000 each way) fail."""
    flops = 1e18 * 2.0 ** np.arange(400)
    rng = np.random.default_rng(7)
    truth = 0.5 * np.log(flops) + rng.uniform(-0.3, 0.6, 400)
    columns = parabolas(flops, truth, noise=0.001, size=size, seed=8)
    budgets = isoflop(columns).budgets
    assert {budget.status for budget in budgets} == {"ok"}
    within = sum(b.lo <= n <= b.hi for b, n in zip(budgets, np.exp(truth), strict=True))
    depth = sum(b.cross_entropy_lo <= 2.5 <= b.cross_entropy_hi for b in budgets)
    low, high = binom.ppf([0.001, 0.999], 400, 0.9)
    assert low <= within <= high
    assert low <= depth <= high


def test_the_standard_error_is_the_spread_of_the_optimum() -> None:
    flops = 1e18 * 2.0 ** np.arange(400)
    truth = 0.5 * np.log(flops) + 0.2
    budgets = isoflop(parabolas(flops, truth, noise=0.002, size=15)).budgets
    spread = np.std([np.log(b.n_opt) - x for b, x in zip(budgets, truth, strict=True)])
    claimed = np.sqrt(np.mean([b.n_opt_error**2 for b in budgets]))
    assert claimed == pytest.approx(spread, rel=0.12)  # 3.5 % is the standard error of a deviation


@pytest.mark.parametrize(
    ("log_n", "loss", "reason", "remedy"),
    [
        ([20, 21, 22, 22.001], [3, 2, 2, 3], "3 distinct N", "4 sizes or more"),
        ([20, 21, 22, 23], [2, 3, 3.1, 2], "no minimum", "smaller and larger"),
        ([20, 21, 22, 23, 24], [2.5, 2.4, 2.6, 2.4, 2.55], "has no end", "add seeds"),
        ([20, 21, 22, 23, 24], [5.001, 5.99, 7.001, 8, 9.002], "no end|no minimum", "smaller and"),
        ([20, 21, 22, 23, 24], [2, 5, 10, 17, 26.01], "below the smallest N, 4.852e", "smaller"),
        ([20, 21, 22, 23, 24], [26, 17, 10, 5, 2.01], "above the largest N, 2.649e", "larger"),
    ],
    ids=["sizes", "maximum", "unbounded", "line", "below", "above"],
)
def test_a_budget_without_an_optimum_is_refused_and_has_no_number(
    log_n: list[float], loss: list[float], reason: str, remedy: str
) -> None:
    budget = one_budget(np.array(log_n), np.array(loss))
    assert budget.status == "refused"
    assert re.search(reason, budget.reason)
    assert remedy in budget.remedy
    known = {"flops", "n_runs", "status", "half_width_decades", "reason", "remedy"}
    assert {name for name, value in vars(budget).items() if value is not None} == known


def test_rounding_is_not_taken_for_a_minimum() -> None:
    """2000 budgets whose sizes all reach the same loss: what bends is the arithmetic."""
    rng = np.random.default_rng(0)
    log_n, losses = rng.uniform(18, 23, (2000, 5)), rng.uniform(2, 4, 2000)
    flops = np.repeat(1e18 * 1.3 ** np.arange(2000.0), 5)
    columns = {N: np.exp(log_n).ravel(), "flops": flops, "cross_entropy": losses.repeat(5)}
    assert {budget.status for budget in isoflop(columns).budgets} == {"refused"}


def test_tokens_follow_the_runs_own_cost_and_not_6nd() -> None:
    """A head makes small models dear: C = (6N + 2e9) D."""
    columns = parabolas(FLOPS, 0.5 * np.log(FLOPS), size=41)
    columns["n_tokens"] = columns["flops"] / (6 * columns[N] + 2e9)
    shuffle = np.random.default_rng(0).permutation(len(columns[N]))
    result = isoflop({name: values[shuffle] for name, values in columns.items()})
    for budget in result.budgets:
        expected = budget.flops / (6 * budget.n_opt + 2e9)
        assert budget.n_tokens_opt == pytest.approx(expected, rel=1e-3)
    a, b = result.exponents["a"], result.exponents["b"]
    local = np.polyfit(np.log(FLOPS), np.log(FLOPS / (6 * FLOPS**0.5 + 2e9)), 1)[0]
    assert a.value == pytest.approx(0.5)
    assert local > 0.53  # the head's share falls
    assert b.value == pytest.approx(local, rel=1e-3)


# which runs make a budget


def test_budgets_are_found_among_stray_runs() -> None:
    """Noise of 2 % within a budget, and runs between them that chain any rule of gaps."""
    rng = np.random.default_rng(3)
    columns = parabolas(FLOPS[:3], 0.5 * np.log(FLOPS[:3]), size=9)
    columns["flops"] = columns["flops"] * np.exp(0.02 * rng.standard_normal(27))
    strays = np.geomspace(1.5e18, 7e19, 30)
    strays = strays[(strays < 7e18) | (strays > 1.4e19)]
    both = {
        N: np.append(columns[N], np.sqrt(strays)),
        "flops": np.append(columns["flops"], strays),
        "cross_entropy": np.append(columns["cross_entropy"], np.full(len(strays), 2.5)),
    }
    shuffle = rng.permutation(len(both[N]))
    result = isoflop({name: values[shuffle] for name, values in both.items()})
    assert [b.n_runs for b in result.budgets] == [9, 9, 9]
    assert [b.flops for b in result.budgets] == pytest.approx(FLOPS[:3], rel=0.03)
    assert set(result.dropped) == set(np.flatnonzero(shuffle >= 27))
    assert codes(result) == ["runs_without_budget"]
    assert f"{len(strays)} runs" in result.warnings[0].message


@pytest.mark.parametrize("side", [-1, 1])
def test_stragglers_of_a_budget_are_not_another_budget(side: int) -> None:
    columns = parabolas(FLOPS[:1], 0.5 * np.log(FLOPS[:1]), size=12)
    columns["flops"] = 1e18 * np.repeat([1, 1.1, 1.15, 1.33, 1.36], [2, 3, 3, 2, 2]) ** side
    result = isoflop(columns)
    assert only(result).n_runs == 8
    assert result.dropped == (8, 9, 10, 11)


def test_flops_fall_back_to_6nd_without_overflow() -> None:
    columns = parabolas(np.array([6e21]), np.array([25.4]))
    n = np.round(columns[N]).astype(np.int64)
    tokens = np.round(1e21 / n).astype(np.int64)
    result = isoflop({N: n, "n_tokens": tokens, "cross_entropy": columns["cross_entropy"]})
    assert only(result).flops == pytest.approx(6e21)
    assert codes(result) == ["flops_6nd", "few_budgets"]


# the exponents


def test_a_chinchilla_law_has_its_exponent() -> None:
    """beta/(alpha + beta), in narrow sweeps around the optimum."""
    result = isoflop(chinchilla(FLOPS, 0.15, 0.0, 5))
    a, b = result.exponents["a"], result.exponents["b"]
    assert a.value == pytest.approx(BETA / (ALPHA + BETA), abs=1e-4)
    assert a.value + b.value == pytest.approx(1.0)
    assert "a = beta/(alpha + beta): 0.513" in str(result)


def test_scatter_far_beyond_the_budgets_own_errors_leaves_the_unweighted_line() -> None:
    scatter = 0.1 * np.random.default_rng(2).standard_normal(7)
    flops = np.geomspace(1e18, 1e21, 7)
    truth = 0.5 * np.log(flops) + scatter
    a = isoflop(parabolas(flops, truth)).exponents["a"]
    line = linregress(np.log(flops), truth)
    margin = t.ppf(0.95, 5) * line.stderr
    expected = (line.slope, line.slope - margin, line.slope + margin)
    assert (a.value, a.lo, a.hi) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("scatter", [0.0, 0.1])
def test_exponents_cover_at_their_level(scatter: float) -> None:
    """200 studies of 6 budgets; without a common scatter the interval may be somewhat too wide."""
    rng = np.random.default_rng(5)
    flops = np.geomspace(1e18, 1e21, 6)
    within = 0
    for seed in range(200):
        truth = 0.5 * np.log(flops) + 0.15 + scatter * rng.standard_normal(6)
        a = isoflop(parabolas(flops, truth, 0.003, seed=seed)).exponents["a"]
        within += a.lo <= 0.5 <= a.hi
    assert binom.ppf(0.001, 200, 0.9) <= within <= binom.ppf(0.999, 200, 0.9 if scatter else 0.95)


def test_two_budgets_give_no_exponent() -> None:
    columns = parabolas(FLOPS, 0.5 * np.log(FLOPS))
    columns["cross_entropy"][14:] = np.tile(np.arange(7), 2) + 1.0
    result = isoflop(columns)
    assert [budget.status for budget in result.budgets] == ["ok", "ok", "refused", "refused"]
    assert result.exponents == {"a": None, "b": None}
    assert "2 of 4 budgets have an optimum" in result.warnings[0].message
    assert "N_opt ~ C^a: unknown" in str(result)


# the parabola's bias


@pytest.mark.parametrize(
    ("half_decades", "off_centre"), [(1.0, 0.8), (1.0, -0.8), (1.5, 0.5), (0.5, 0.0)]
)
def test_the_bias_is_that_of_the_parabola_on_the_exact_valley(
    half_decades: float, off_centre: float
) -> None:
    columns = chinchilla(FLOPS[:1], half_decades, off_centre, 9)
    budget = only(isoflop(columns))
    c2, c1, _ = np.polyfit(np.log(columns[N]), columns["cross_entropy"], 2)
    n_parabola, n_best = np.exp(-c1 / (2 * c2)), best_size(FLOPS[0])
    assert budget.n_opt == pytest.approx(n_parabola, rel=1e-6)
    assert budget.n_opt_valley == pytest.approx(n_best, rel=1e-6)
    assert budget.parabola_bias == pytest.approx(n_parabola / n_best - 1, abs=1e-6)
    assert budget.half_width_decades == pytest.approx(half_decades)
    expected = np.log10(n_parabola / n_best) + off_centre
    assert budget.off_centre_decades == pytest.approx(expected, abs=1e-6)


def test_the_bias_is_warned_of_where_it_is_large_and_vanishes_in_narrow_centred_sweeps() -> None:
    wide, narrow = (isoflop(chinchilla(FLOPS, *sweep, 9)) for sweep in ((1.0, 0.8), (0.1, 0.0)))
    assert all(abs(budget.parabola_bias) > 0.05 for budget in wide.budgets)
    assert all(abs(budget.parabola_bias) < 1e-3 for budget in narrow.budgets)
    assert codes(narrow) == []
    (notice,) = wide.warnings
    assert notice.code == "parabola_bias"
    assert "at 4 budgets" in notice.message
    assert "chinchilla" in notice.remedy


def test_the_valley_takes_other_exponents() -> None:
    n = np.geomspace(1e8, 1e10, 9)
    columns = {N: n, "flops": np.full(9, 6e20), "cross_entropy": 1 + 1e5 / n**0.6 + n**0.2 / 300}
    budget = only(isoflop(columns, alpha=0.6, beta=0.2))
    assert budget.n_opt_valley == pytest.approx((0.6 * 1e5 * 300 / 0.2) ** (1 / 0.8), rel=1e-6)


# published data


def test_the_digitised_chinchilla_runs_give_the_published_budgets_and_exponent() -> None:
    """Nine budgets; approach 2 of the paper's table 2: a = .49 (.462, .534)."""
    if "KDLAWS_DATA" not in os.environ:
        pytest.skip("KDLAWS_DATA does not say where the reference data is")
    path = Path(os.environ["KDLAWS_DATA"], "reference/chinchilla_epoch/svg_extracted_data.csv")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = {"n_params": "Model Size", "flops": "Training FLOP", "cross_entropy": "loss"}
    columns = {name: [float(row[theirs]) for row in rows] for name, theirs in names.items()}
    result = isoflop(columns, n_column="n_params")
    accepted = [budget for budget in result.budgets if budget.status == "ok"]
    for flops in (6e18, 1e19, 3e19, 6e19, 1e20, 3e20, 6e20, 1e21, 3e21):
        nearest = min(accepted, key=lambda budget: abs(np.log(budget.flops / flops)))
        assert nearest.flops == pytest.approx(flops, rel=0.1)
        assert nearest.n_runs >= 9
    a = result.exponents["a"]
    assert 0.462 < a.value < 0.534
    assert a.lo < 0.49 < a.hi
    assert result.n_runs + len(result.dropped) == 245


# wrong input


@pytest.mark.parametrize(
    ("argument", "where"),
    [
        ({"n_column": "n"}, "n_column"),
        ({"level": 1.0}, "level"),
        ({"alpha": 0.0}, "alpha"),
        ({"beta": float("nan")}, "beta"),
    ],
)
def test_a_wrong_argument_is_refused(argument: dict[str, object], where: str) -> None:
    with pytest.raises(InputError, match="cannot be used") as caught:
        isoflop(parabolas(FLOPS, 0.5 * np.log(FLOPS)), **argument)
    assert caught.value.where == where


@pytest.mark.parametrize(
    ("change", "where", "what"),
    [
        ({"cross_entropy": None}, "cross_entropy", "missing"),
        ({"flops": None}, "n_tokens", "missing"),
        ({"flops": [1e18] * 3}, "flops", "3 values for 28 runs"),
        ({"n_tokens": 1e9}, "n_tokens", "1 values for 28 runs"),
        ({"n_tokens": [0.0] * 28}, "n_tokens", "not finite and positive"),
        ({"flops": 1.3 ** np.arange(1, 29)}, "flops", "no budget"),
        ({N: [], "flops": [], "cross_entropy": []}, "flops", "no budget"),
    ],
)
def test_wrong_columns_are_refused(change: dict[str, object], where: str, what: str) -> None:
    columns = {**parabolas(FLOPS, 0.5 * np.log(FLOPS)), **change}
    with pytest.raises(TableError, match=what) as caught:
        isoflop({name: values for name, values in columns.items() if values is not None})
    assert caught.value.where == where
    assert caught.value.remedy


# the result as a value and a file


@pytest.fixture(scope="module")
def result() -> IsoFlops:
    """Optima, refusals, dropped runs, an unknown bias and warnings, all at once."""
    columns = chinchilla(FLOPS, 1.0, 0.8, 7)
    columns["cross_entropy"][:7] = 2 + np.arange(7.0)
    extra = {N: [1e8, 2e8], "flops": [1e23, 1e24], "cross_entropy": [2.0, 2.0]}
    columns = {name: np.append(values, extra[name]) for name, values in columns.items()}
    return isoflop(columns, source={"file": "runs.csv", "sha256": "0" * 64}, n_dropped=3)


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def test_a_result_survives_its_file(result: IsoFlops, tmp_path: Path) -> None:
    path = tmp_path / "fits" / "isoflop.json"
    result.save(path)
    assert IsoFlops.load(path) == result
    assert [entry.name for entry in path.parent.iterdir()] == ["isoflop.json"]
    assert json.loads(path.read_text(), parse_constant=refuse) == result.to_dict()


def test_two_budgets_survive_their_file(tmp_path: Path) -> None:
    without = isoflop(parabolas(FLOPS[:2], 0.5 * np.log(FLOPS[:2])))
    without.save(tmp_path / "isoflop.json")
    assert IsoFlops.load(tmp_path / "isoflop.json") == without


def test_the_dictionary_is_the_contract(result: IsoFlops) -> None:
    document = result.to_dict()
    assert list(document)[:4] == ["schema", "kdlaws", "n_column", "level"]
    assert (document["schema"], document["kdlaws"]) == (1, kdlaws.__version__)
    assert (document["n_column"], document["n_runs"], document["n_dropped"]) == (N, 28, 5)
    assert document["dropped"] == [28, 29]
    keys = list(document)
    assert keys[keys.index("n_dropped") :] == ["n_dropped", "inputs", "warnings"]
    assert [budget["status"] for budget in document["budgets"]] == ["refused", "ok", "ok", "ok"]
    refused, accepted = document["budgets"][:2]
    assert refused["n_opt"] is refused["lo"] is refused["cross_entropy"] is None
    assert accepted["reason"] is None
    assert accepted["lo"] < accepted["n_opt"] < accepted["hi"]
    assert set(document["exponents"]) == {"a", "b"}
    assert set(document["exponents"]["a"]) == {"value", "lo", "hi"}
    assert document["inputs"] == {"file": "runs.csv", "sha256": "0" * 64}
    for notice in document["warnings"]:
        assert set(notice) == {"code", "message", "remedy"}


def test_the_text_tells_optima_refusals_exponents_and_warnings_in_this_order(
    result: IsoFlops,
) -> None:
    text = str(result)
    budget = result.budgets[1]
    parts = [N, "refused: ", f"{budget.n_opt:.4g}", "N_opt ~ C^a: a = ", "(5 runs dropped)"]
    places = [text.index(part) for part in [*parts, "runs_without_budget: ", "parabola_bias: "]]
    assert places == sorted(places)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema": 2}', '{"schema": 1, "law": 3}'])
def test_a_file_that_is_no_analysis_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "isoflop.json"
    path.write_text(content)
    with pytest.raises(ArtefactError, match="not a set of isoFLOP profiles") as caught:
        IsoFlops.load(path)
    assert caught.value.where == str(path)
