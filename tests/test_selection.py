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

from kdlaws import cli
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


def test_products_of_counts_do_not_overflow() -> None:
    table = points(n_params=[10**12] * 3, n_tokens=[10**13] * 3)
    columns = law_columns(table, CHINCHILLA).columns
    assert list(6 * columns["n_params"] * columns["n_tokens"]) == pytest.approx([6e25] * 3)


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
    cli.fit(tmp_path / "t.csv", law="compute", bootstrap=0, as_json=True)
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
