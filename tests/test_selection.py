"""Rows selected and read for a law; nothing is guessed and nothing pooled silently."""

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdlaws import cli_laws
from kdlaws.errors import TableError
from kdlaws.selection import Comparison, choose_n_column, law_columns, parse_where, select
from kdlaws.tables import COLUMNS, LoadedTable, read_table, write_table

CHINCHILLA = ("N", "n_tokens")


def loaded(**columns: Any) -> LoadedTable:
    """A table as another program might have made it, with whatever types it has."""
    return LoadedTable(pd.DataFrame(columns), {"file": "runs.csv", "sha256": None}, ())


def points(n_rows: int = 3, **columns: Any) -> LoadedTable:
    """A table with all that ``chinchilla`` reads."""
    sizes = {"n_params": [1e6 * (i + 1) for i in range(n_rows)], "n_tokens": [2e7] * n_rows}
    return loaded(**{**sizes, "cross_entropy": [3.0 - 0.1 * i for i in range(n_rows)], **columns})


# --- which rows: --where ------------------------------------------------------------------------


RUNS = loaded(
    run_id=list("abcd"),
    method=["token", "scratch", None, "token"],
    noise=[0.0, 0.1, 0.0, math.nan],
    n_tokens=[10**6, 2 * 10**5, 10**6, 999_999],
    selected=pd.Series([True, False, None, True], dtype=object),
)


@pytest.mark.parametrize(
    ("where", "run_ids"),
    [
        ("", "abcd"),
        ("method=token", "ad"),
        ("method!=token", "b"),
        ("noise=0", "ac"),
        ("noise!=0", "b"),
        ("noise<=0.1", "abc"),
        ("n_tokens>=1M", "ac"),
        ("n_tokens<1e6", "bd"),
        ("n_tokens > 200k", "acd"),
        ("selected=true", "ad"),
        ("selected=False", "b"),
        ("method=token, noise=0,n_tokens>=1e6", "a"),
    ],
)
def test_where_keeps_the_rows_for_which_all_holds(where: str, run_ids: str) -> None:
    assert "".join(select(RUNS, where).frame["run_id"]) == run_ids


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("n_token>=1", "no column 'n_token'.*\n.*did you mean 'n_tokens'"),
        ("method>token", "holds no numbers"),
        ("noise=clean", "'clean' is not a number"),
        ("selected=yes", "neither true nor false"),
        ("method==token", "not a comparison"),
        ("method", "not a comparison"),
        ("method=", "not a comparison"),
        ("method=token,", "not a comparison"),
        ("@__import__('os').system('true')", "not a comparison"),
    ],
)
def test_a_wrong_where_is_explained(where: str, message: str) -> None:
    with pytest.raises(TableError, match=message):
        select(RUNS, where)


@given(
    column=st.sampled_from(COLUMNS),
    operator=st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
    value=st.text("abcAZ019.-+_/ ", min_size=1).map(str.strip).filter(bool),
    space=st.sampled_from(["", " "]),
)
def test_a_comparison_reads_back(column: str, operator: str, value: str, space: str) -> None:
    text = f"{column}{space}{operator}{space}{value}"
    assert parse_where(f"{text},{text}") == [Comparison(column, operator, value)] * 2


def test_a_where_that_leaves_nothing_shows_what_there_is() -> None:
    with pytest.raises(TableError, match=r"no row is left.*\n.*method holds scratch, token"):
        select(RUNS, "method=embedding")


# --- what a law reads ---------------------------------------------------------------------------


def test_a_law_gets_float64_columns_and_trunks() -> None:
    table = points(trunk=["t", None, "t"], run_id=list("abc"))
    read = law_columns(table, CHINCHILLA)
    assert set(read.columns) == {"n_params", "n_tokens", "cross_entropy"}
    assert {cells.dtype for cells in read.columns.values()} == {np.dtype(np.float64)}
    assert (read.n_column, read.trunk, read.dropped) == ("n_params", ["t", "b", "t"], ())


@pytest.mark.parametrize("name", ["N", "n_params", "n_params_non_embedding"])
def test_whatever_n_the_law_names_the_n_in_use_is_read(name: str) -> None:
    table = points(n_params_non_embedding=[7.0, 8.0, 9.0])
    read = law_columns(table, (name, "n_tokens"))
    assert read.n_column == "n_params_non_embedding"
    assert "n_params" not in read.columns
    assert list(read.columns["n_params_non_embedding"]) == [7.0, 8.0, 9.0]
    total = law_columns(table, (name, "n_tokens"), n="total")
    assert (total.n_column, list(total.columns["n_params"])) == ("n_params", [1e6, 2e6, 3e6])


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint32", "uint64", "Int64", "object"])
def test_products_of_counts_do_not_overflow(dtype: str) -> None:
    """6 N D = 2.4e19 is beyond the largest int64, 9.2e18, and each count fits in 32 bits."""
    counts = pd.Series([2 * 10**9] * 3, dtype=dtype)
    table = select(points(n_params=counts, n_tokens=counts), "n_params>1e9,n_tokens=2B")
    columns = law_columns(table, CHINCHILLA).columns
    product = 6 * columns["n_params"] * columns["n_tokens"]
    assert product.dtype == np.float64
    assert list(product) == [2.4e19] * 3


def test_small_integers_and_costs_do_not_overflow() -> None:
    few = pd.Series([200] * 3, dtype="uint8")
    costs = pd.Series([2**62] * 3, dtype="int64")
    table = points(n_tokens=few, student_flops=costs, teacher_inference_flops=costs)
    columns = law_columns(table, CHINCHILLA).columns
    assert list(6 * columns["n_tokens"]) == [1200] * 3
    assert list(columns["flops"]) == [2.0**63] * 3


def test_integers_of_a_file_do_not_overflow(tmp_path: Path) -> None:
    run = {"n_params": 10**12, "n_tokens": 10**30, "cross_entropy": 2}
    (tmp_path / "t.jsonl").write_text(json.dumps(run))
    columns = law_columns(read_table(tmp_path / "t.jsonl"), CHINCHILLA).columns
    assert list(6 * columns["n_params"] * columns["n_tokens"]) == [6e42]


def test_integers_of_a_parquet_file_do_not_overflow(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    counts = {"n_params": [2 * 10**9], "n_tokens": [2 * 10**9], "cross_entropy": [2]}
    frame = pd.DataFrame(counts).astype({"n_params": "int32", "cross_entropy": "uint8"})
    frame.to_parquet(tmp_path / "t.parquet")
    columns = law_columns(read_table(tmp_path / "t.parquet"), CHINCHILLA).columns
    assert list(6 * columns["n_params"] * columns["n_tokens"]) == [2.4e19]


def test_rows_with_gaps_are_listed_and_left_out() -> None:
    table = points(4, cross_entropy=[3.0, math.nan, math.inf, 2.0], n_tokens=[1e6, None, 1e6, "2M"])
    read = law_columns(table, CHINCHILLA)
    assert list(read.columns["n_tokens"]) == [1e6, 2e6]
    assert read.dropped == (
        "row 2: n_tokens is missing, cross_entropy is missing",
        "row 3: cross_entropy is inf",
    )


def test_runs_that_are_no_points_of_a_law_are_listed_and_left_out() -> None:
    status = ["done", "diverged", "undertrained", "failed", None]
    read = law_columns(points(5, status=status, run_id=list("abcde")), CHINCHILLA)
    assert list(read.columns["n_params"]) == [1e6, 5e6]
    assert read.dropped == ("b: diverged", "c: undertrained", "d: failed")


def test_runs_of_an_export_that_did_not_finish_are_listed_and_left_out(tmp_path: Path) -> None:
    runs = [
        ("w", "finished", 1e6, 3.0),
        ("x", "crashed", 2e6, 2.9),
        ("y", "running", 3e6, 2.8),
        ("z", "finished", 4e6, math.nan),
        ("inf", "finished", 5e6, math.inf),
    ]
    rows = [
        {
            "name": name,
            "state": state,
            "config": {"n_params": n, "n_tokens": "10M"},
            "summary": {"eval/loss": loss},
        }
        for name, state, n, loss in runs
    ]
    (tmp_path / "w.jsonl").write_text("\n".join(map(json.dumps, rows)))
    table = read_table(tmp_path / "w.jsonl", columns="cross_entropy=eval/loss")
    read = law_columns(table, CHINCHILLA)
    assert list(read.columns["n_params"]) == [1e6]
    assert read.dropped == (
        *("x: crashed", "y: running", "z: cross_entropy is missing"),
        "inf: cross_entropy is inf",
    )
    assert read.n_dropped == 4


@pytest.mark.parametrize("status", ["FAILED", "KILLED", "RUNNING", "SCHEDULED"])
def test_the_states_of_mlflow_are_known_in_a_table_of_few_columns(status: str) -> None:
    read = law_columns(points(2, status=["FINISHED", status]), CHINCHILLA)
    assert read.dropped == (f"row 2: {status}",)


def test_a_likely_rename_names_the_column_of_an_export() -> None:
    table = loaded(**{"params.N": [1.0], "metrics.val_loss": [2.0], "n_tokens": [3.0]})
    with pytest.raises(TableError, match=r'"n_params=params.N,cross_entropy=metrics.val_loss"'):
        law_columns(table, CHINCHILLA)


# --- the unit of resampling ---------------------------------------------------------------------


def units(**columns: Any) -> list[list[int]] | None:
    """The rows of each unit, by their numbers from 0."""
    trunk = law_columns(points(len(next(iter(columns.values()))), **columns), ("N",)).trunk
    if trunk is None:
        return None
    return [
        [row for row, each in enumerate(trunk) if each == unit] for unit in dict.fromkeys(trunk)
    ]


SIZES = [1e6, 1e6, 2e6, 2e6, 2e6]


def test_runs_of_one_size_and_seed_are_one_unit_where_there_are_no_trunks() -> None:
    assert units(n_params=SIZES, seed=[0, 0, 0, 1, 1]) == [[0, 1], [2], [3, 4]]
    empty = [None] * 5
    assert units(n_params=SIZES, seed=[0, 0, 0, 1, 1], trunk=empty) == [[0, 1], [2], [3, 4]]


def test_method_and_teacher_part_a_unit_where_they_are_known() -> None:
    method = ["scratch", "token", "token", "token", "token"]
    seed = [0, 0, 1, 1, 1]
    assert units(n_params=SIZES, seed=seed, method=method) == [[0], [1], [2, 3, 4]]
    teacher = [None, "t", "t", "u", "u"]
    parts = units(n_params=SIZES, seed=seed, method=method, teacher=teacher)
    assert parts == [[0], [1], [2], [3, 4]]


def test_a_run_of_unknown_seed_stands_alone() -> None:
    assert units(n_params=SIZES, seed=[0, 0, None, None, None]) == [[0, 1], [2], [3], [4]]


def test_trunks_go_before_seeds() -> None:
    trunk = ["a", "b", "b", None, None]
    assert units(n_params=SIZES, seed=[0] * 5, trunk=trunk) == [[0], [1, 2], [3], [4]]


@pytest.mark.parametrize("seed", [[0, 1, 0, 1, 2], [None] * 5, ["x", None, "x", None, None]])
def test_runs_that_share_nothing_stand_alone(seed: list[Any]) -> None:
    assert units(n_params=SIZES, seed=seed) is None


def test_a_seed_without_a_size_is_no_unit() -> None:
    table = loaded(flops=[1e18, 2e18], cross_entropy=[3.0, 2.0], seed=[0, 0])
    assert law_columns(table, ("flops",)).trunk is None


# --- columns that need not be there -------------------------------------------------------------


def test_optional_columns_leave_no_row_out() -> None:
    table = points(teacher_cross_entropy=[math.nan, "2.5", math.inf], teacher=[None, "t", "t"])
    read = law_columns(
        table, CHINCHILLA, optional=("teacher_cross_entropy", "kd_weight", "teacher")
    )
    assert read.columns["teacher_cross_entropy"] == pytest.approx(
        [math.nan, 2.5, math.nan], nan_ok=True
    )
    assert np.isnan(read.columns["kd_weight"]).all()
    assert read.columns["kd_weight"].dtype == np.float64
    assert read.columns["teacher"].tolist() == ["", "t", "t"]
    assert (read.dropped, len(read.columns["n_params"])) == ((), 3)


def test_optional_columns_follow_the_rows_that_are_left() -> None:
    table = points(status=["failed", "done", "done"], kd_weight=[1.0, 0.5, None])
    weights = law_columns(table, CHINCHILLA, optional=("kd_weight",)).columns["kd_weight"]
    assert weights == pytest.approx([0.5, math.nan], nan_ok=True)


def test_an_optional_cell_that_is_no_number_is_refused() -> None:
    table = points(teacher_cross_entropy=["2.5", "low", None])
    with pytest.raises(TableError, match="row 2: teacher_cross_entropy is 'low'"):
        law_columns(table, CHINCHILLA, optional=("teacher_cross_entropy",))


@pytest.mark.parametrize("teacher", ["teacher", "teacher_n_params", "teacher_cross_entropy"])
def test_a_run_of_unknown_method_is_from_scratch_where_it_has_no_teacher(teacher: str) -> None:
    cells = ["big"] if teacher == "teacher" else [2.0]
    table = points(
        4, method=["token", None, None, "embedding"], **{teacher: cells * 2 + [None] * 2}
    )
    methods = law_columns(table, CHINCHILLA, optional=("method",)).columns["method"]
    assert methods.tolist() == ["token", "", "scratch", "embedding"]
    table = points(2, **{teacher: [*cells, None]})
    methods = law_columns(table, CHINCHILLA, optional=("method",)).columns["method"]
    assert (methods.dtype, methods.tolist()) == (np.dtype(object), ["", "scratch"])


def test_a_method_that_is_needed_and_unknown_is_a_gap() -> None:
    table = points(method=["token", None, None], teacher=["t", "t", None])
    read = law_columns(table, (*CHINCHILLA, "method"))
    assert read.columns["method"].tolist() == ["token", "scratch"]
    assert read.dropped == ("row 2: method is missing",)
    with pytest.raises(TableError, match="no column method"):
        law_columns(points(), (*CHINCHILLA, "method"))


@pytest.mark.parametrize("where", ["reads", "optional"])
def test_a_law_that_reads_the_method_is_not_warned_of_several(where: str) -> None:
    table = points(method=["token", "scratch", "scratch"])
    reads = (*CHINCHILLA, "method") if where == "reads" else CHINCHILLA
    optional = ("method",) if where == "optional" else ()
    assert law_columns(table, reads, optional=optional).notices == ()
    [(code, _, _)] = law_columns(table, CHINCHILLA).notices
    assert code == "pooled_methods"


@pytest.mark.parametrize(
    ("n", "column"),
    [
        (None, "teacher_n_params_non_embedding"),
        ("total", "teacher_n_params"),
        ("non_embedding", "teacher_n_params_non_embedding"),
    ],
)
def test_the_teachers_n_follows_the_students(n: str | None, column: str) -> None:
    sizes = {"teacher_n_params": [9.0] * 3, "teacher_n_params_non_embedding": [8.0, 8.0, None]}
    table = points(n_params_non_embedding=[7.0] * 3, **sizes)
    optional = law_columns(table, CHINCHILLA, n=n, optional=("teacher_N",)).columns
    expected = {"teacher_n_params": [9, 9, 9], "teacher_n_params_non_embedding": [8, 8, math.nan]}
    assert optional[column] == pytest.approx(expected[column], nan_ok=True)
    assert {name for name in optional if name.startswith("teacher")} == {column}
    needed = law_columns(table, (*CHINCHILLA, "teacher_N"), n=n).columns
    assert list(needed[column]) == [x for x in expected[column] if not math.isnan(x)]


# --- kinds of rows ------------------------------------------------------------------------------


def test_repeated_data_is_left_to_the_data_constrained_law() -> None:
    table = points(4, epochs=[0.5, 1.0 + 1e-12, 4.0, 2.0], n_unique_tokens=[1e7] * 4)
    one_pass = law_columns(table, CHINCHILLA)
    assert list(one_pass.columns["n_params"]) == [1e6, 2e6]
    assert one_pass.dropped[0].startswith("2 rows that repeat data")
    assert one_pass.n_dropped == 2
    assert len(law_columns(table, (*CHINCHILLA, "n_unique_tokens")).columns["n_params"]) == 4


@pytest.mark.parametrize("column", ["objective", "corpus", "tokenizer", "quality", "init"])
def test_rows_of_different_kinds_are_never_pooled(column: str) -> None:
    table = points(**{column: ["x", "y", "y"]})
    with pytest.raises(TableError, match=rf'{column} \(x: 1 rows, y: 2 rows.*\n.*"{column}=y"'):
        law_columns(table, CHINCHILLA)
    assert len(law_columns(select(table, f"{column}=y"), CHINCHILLA).columns["n_params"]) == 2


def test_an_unknown_kind_is_not_pooled_with_a_known_one() -> None:
    with pytest.raises(TableError, match=r"corpus \(x: 2 rows, unknown: 1 rows"):
        law_columns(points(corpus=["x", "x", None]), CHINCHILLA)
    law_columns(points(corpus=[None, None, None]), CHINCHILLA)


def test_teachers_stay_and_rows_left_out_do_not_count_as_mixed() -> None:
    table = points(role=["student", "teacher", "student"], corpus=["x", "x", "y"])
    table.frame.loc[2, "cross_entropy"] = math.nan
    assert len(law_columns(table, CHINCHILLA).columns["n_params"]) == 2


def test_rows_left_out_are_counted_once_however_they_are_listed(tmp_path: Path) -> None:
    rows = ["1,2,3,done,1", ",,,,", "1,2,3,diverged,1", "1,2,,done,4", "1,2,3,done,4", "1,,,done,1"]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["n_params,n_tokens,cross_entropy,status,epochs", *rows]))
    read = law_columns(read_table(path), CHINCHILLA)
    assert (len(read.columns["n_params"]), read.n_dropped) == (1, 5)
    assert [line.partition(":")[0] for line in read.dropped] == [
        *("row 2", "row 3", "2 rows that repeat data (epochs > 1)", "row 6")
    ]


def test_several_methods_in_one_fit_are_noticed_and_their_settings_are_not() -> None:
    one = points(method=["token"] * 3, kd_weight=[1.0, 0.5, 1.0], teacher=["a", "b", "b"])
    assert law_columns(one, CHINCHILLA).notices == ()
    assert law_columns(points(), CHINCHILLA).notices == ()
    several = points(4, method=["token", "scratch", "token", None])
    [(code, message, remedy)] = law_columns(several, CHINCHILLA).notices
    assert code == "pooled_methods"
    assert "token: 2 rows, scratch: 1 rows, unknown: 1 rows" in message
    assert "--where method=token or --where method=scratch" in remedy


def test_a_method_left_out_is_not_pooled() -> None:
    table = points(method=["token", "token", "scratch"], status=["done", "done", "failed"])
    assert law_columns(table, CHINCHILLA).notices == ()


def test_a_fit_says_what_was_left_out_and_pooled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flops = [1e12 * 2**i for i in range(12)]
    frame = pd.DataFrame({"flops": flops, "cross_entropy": [2 + 1e4 * c**-0.3 for c in flops]})
    frame["method"] = ["scratch", "token"] * 6
    frame.loc[0, "cross_entropy"] = math.nan
    write_table(frame, tmp_path / "t.csv")
    cli_laws.fit(tmp_path / "t.csv", law="compute", bootstrap=0, as_json=True)
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert (document["n_runs"], document["n_dropped"]) == (11, 1)
    assert document["warnings"][0]["code"] == "pooled_methods"
    assert "left out: row 1: cross_entropy is missing" in err
    assert "pooled_methods: one law is fitted to several methods" in err


def test_the_compute_of_a_run_is_the_students_and_its_teachers_inference() -> None:
    table = points(
        student_flops=[1e12, 2e12, 3e12],
        teacher_inference_flops=[5e11, math.nan, 0.0],
        teacher=["t", None, "t"],
        flops=[0.0] * 3,
    )
    for law in (("flops",), CHINCHILLA):
        assert list(law_columns(table, law).columns["flops"]) == [1.5e12, 2e12, 3e12]


def test_a_foreign_tables_flops_are_read() -> None:
    read = law_columns(loaded(flops=["1e18", "2e18"], cross_entropy=[3, 2]), ("flops",))
    assert list(read.columns["flops"]) == [1e18, 2e18]


def test_compute_that_is_not_known_everywhere() -> None:
    table = points(flops=[1e18, math.nan, 1e18])
    assert "flops" not in law_columns(table, CHINCHILLA).columns
    assert law_columns(table, ("flops",)).dropped == ("row 2: flops is missing",)
    assert set(law_columns(points(), ("flops",)).columns) == {
        *("n_params", "n_tokens", "cross_entropy")
    }


def test_n_is_without_embeddings_only_where_every_row_has_it() -> None:
    whole = pd.DataFrame({"n_params": [9.0, 8.0], "n_params_non_embedding": [2.0, 1.0]})
    holed = whole.assign(n_params_non_embedding=[2.0, math.nan])
    assert choose_n_column(whole, None) == "n_params_non_embedding"
    assert choose_n_column(whole, "total") == "n_params"
    assert choose_n_column(holed, None) == "n_params"
    assert choose_n_column(holed, "non_embedding") == "n_params_non_embedding"
    assert choose_n_column(holed[["n_params_non_embedding"]], None) == "n_params_non_embedding"
    with pytest.raises(TableError, match="total or non_embedding"):
        choose_n_column(whole, "all")


def test_a_missing_column_shows_the_likely_rename(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("Model Size,D,val_loss,x\n1,2,3,4\n")
    table = read_table(tmp_path / "t.csv")
    with pytest.raises(TableError) as caught:
        law_columns(table, CHINCHILLA)
    assert caught.value.where == "t.csv"
    assert (
        "n_params, n_tokens, cross_entropy; it has Model Size, D, val_loss, x" in caught.value.what
    )
    renames = "n_params=Model Size,n_tokens=D,cross_entropy=val_loss"
    assert renames in caught.value.remedy
    law_columns(read_table(tmp_path / "t.csv", columns=renames), CHINCHILLA)


def test_a_cell_that_is_no_number_is_shown(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("n_params,n_tokens,cross_entropy\n1,2,3\n1,2,OOM\n")
    with pytest.raises(TableError, match="row 2: cross_entropy is 'OOM'"):
        law_columns(read_table(tmp_path / "t.csv"), CHINCHILLA)


def test_a_table_without_a_usable_row_says_why() -> None:
    with pytest.raises(TableError, match=r"no row is left.*\n  row 1: diverged\n  row 2: failed"):
        law_columns(points(2, status=["diverged", "failed"]), CHINCHILLA)


def test_the_published_chinchilla_points_are_read() -> None:
    """Besiroglu et al. 2024 (2404.10102): 245 digitised runs."""
    if "KDLAWS_DATA" not in os.environ:
        pytest.skip("KDLAWS_DATA names no folder with the reference data")
    path = Path(os.environ["KDLAWS_DATA"]) / "reference/chinchilla_epoch/svg_extracted_data.csv"
    table = read_table(path, columns="n_params=Model Size,flops=Training FLOP,cross_entropy=loss")
    columns = law_columns(table, ("N", "flops")).columns
    assert len(columns["cross_entropy"]) == 245
    assert columns["n_params"][0] == 6795600349.289497
    assert columns["flops"][0] == 9.993852799709755e18
