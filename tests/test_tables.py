"""Run tables: read exactly, renamed, selected; nothing is guessed and nothing pooled silently."""

import hashlib
import json
import math
import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdlaws.errors import MissingExtraError, TableError
from kdlaws.tables import (
    COLUMNS,
    Comparison,
    LoadedTable,
    apply_where,
    choose_n_column,
    law_columns,
    parse_number,
    parse_where,
    read_table,
    rename_columns,
    study_table,
    write_table,
)

ROOT = Path(__file__).parents[1]
CHINCHILLA = ("N", "n_tokens")


def make_run(folder: Path, run_id: str, *, evaluation: Any = None, **record: Any) -> Path:
    run = folder / run_id
    run.mkdir(parents=True)
    (run / "record.json").write_text(json.dumps({"schema": 1, "run_id": run_id, **record}))
    if evaluation is not None:
        (run / "evaluation.json").write_text(json.dumps(evaluation))
    return run


def table_of(path: Path, text: str, **options: str) -> LoadedTable:
    path.write_text(text, encoding="utf-8")
    return read_table(path, **options)


def loaded(**columns: Any) -> LoadedTable:
    """A table as another program might have made it, with whatever types it has."""
    return LoadedTable(pd.DataFrame(columns), {"file": "runs.csv", "sha256": None}, ())


def points(n_rows: int = 3, **columns: Any) -> LoadedTable:
    """A table with all that ``chinchilla`` reads."""
    sizes = {"n_params": [1e6 * (i + 1) for i in range(n_rows)], "n_tokens": [2e7] * n_rows}
    return loaded(**{**sizes, "cross_entropy": [3.0 - 0.1 * i for i in range(n_rows)], **columns})


# --- the contract -------------------------------------------------------------------------------


def test_every_column_is_documented_in_order() -> None:
    page = (ROOT / "docs" / "table.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", page, re.MULTILINE)
    assert [name for name, _ in rows] == list(COLUMNS)
    cells = {name: re.split(r"(?<!\\)\|", rest) for name, rest in rows}
    assert {name for name, row in cells.items() if len(row) != 4} == set()
    assert {row[3].strip() for row in cells.values()} == {"plan", "train", "evaluate"}


# --- a folder of runs ---------------------------------------------------------------------------


def test_a_row_is_the_record_with_its_evaluation_in_the_contracts_columns(tmp_path: Path) -> None:
    make_run(
        tmp_path,
        "a",
        evaluation={"cross_entropy": 3.25, "agreement": None, "n_test_tokens": 9},
        cross_entropy=None,
        n_params=332_448,
        status="done",
        selected=True,
        recipe=1,
        versions={"kdlaws": "0.1.0"},
    )
    frame = study_table(tmp_path)
    assert tuple(frame.columns) == COLUMNS
    row = frame.iloc[0]
    assert (row["cross_entropy"], row["n_params"], row["selected"]) == (3.25, 332_448, True)
    assert math.isnan(row["agreement"])
    assert row["teacher"] is None


def test_rows_come_in_the_order_of_role_size_method_and_length(tmp_path: Path) -> None:
    make_run(tmp_path, "1", role="teacher", n_params=9, method="scratch", n_tokens=1)
    make_run(tmp_path, "2", role="student", n_params=10, method="scratch", n_tokens=1)
    make_run(tmp_path, "3", role="student", n_params=9, method="token", n_tokens=1)
    make_run(tmp_path, "4", role="student", n_params=9, method="scratch", n_tokens=10, seed=1)
    make_run(tmp_path, "5", role="student", n_params=9, method="scratch", n_tokens=10, seed=0)
    make_run(tmp_path, "6", role="student", n_params=9, method="scratch", n_tokens=9, seed=2)
    make_run(tmp_path, "7")
    assert list(study_table(tmp_path)["run_id"]) == ["6", "5", "4", "3", "2", "1", "7"]


def test_unfinished_runs_and_other_folders_are_not_rows(tmp_path: Path) -> None:
    make_run(tmp_path, "a")
    for name in ("b", "cache", "tokens"):
        (tmp_path / name).mkdir()
    assert list(study_table(tmp_path)["run_id"]) == ["a"]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"run_id": null}'])
def test_a_broken_record_is_named(tmp_path: Path, text: str) -> None:
    record = make_run(tmp_path, "a") / "record.json"
    record.write_text(text)
    with pytest.raises(TableError) as caught:
        study_table(tmp_path)
    assert caught.value.where == str(record)


def test_a_broken_evaluation_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path, "a")
    (run / "evaluation.json").write_text('{"cross_entropy": 3.')
    with pytest.raises(TableError, match=r"evaluation\.json"):
        study_table(tmp_path)


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="finished run"):
        study_table(tmp_path)


def test_a_folder_and_its_table_say_the_same(tmp_path: Path) -> None:
    for index, run_id in enumerate("ba"):
        make_run(tmp_path / "study", run_id, n_params=10**index, cross_entropy=3 + 0.1 * index)
    of_folder = read_table(tmp_path / "study", where="n_params>=1")
    write_table(study_table(tmp_path / "study"), tmp_path / "table.csv")
    of_file = read_table(tmp_path / "table.csv")
    pd.testing.assert_frame_equal(of_folder.frame, of_file.frame, check_exact=True)
    assert of_folder.source["file"] == "study"


def test_a_folders_digest_follows_its_measurements(tmp_path: Path) -> None:
    run = make_run(tmp_path, "a", evaluation={"cross_entropy": 3.0})
    before = read_table(tmp_path).source["sha256"]
    assert read_table(tmp_path).source["sha256"] == before
    (run / "evaluation.json").write_text('{"cross_entropy": 3.1}')
    assert read_table(tmp_path).source["sha256"] != before


# --- files --------------------------------------------------------------------------------------


def bits(values: Any) -> list[bytes]:
    """What a float64 is, sign of zero included; every NaN is one."""
    array = np.asarray(values, dtype=np.float64)
    return [np.float64(math.nan if math.isnan(x) else x).tobytes() for x in array]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.floats(), st.integers(-(2**53), 2**53).map(float)),
            st.text("aA0,\"'; é|1e", max_size=6).map(str.strip),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_what_is_written_reads_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float, str]]
) -> None:
    numbers, words = zip(*rows, strict=True)
    run_ids = [f"{word}-{i}" for i, word in enumerate(words)]
    frame = pd.DataFrame({"run_id": run_ids, "cross_entropy": numbers, "theirs": numbers})
    path = tmp_path_factory.getbasetemp() / "round-trip.csv"
    write_table(frame, path)
    back = read_table(path).frame
    assert list(back["run_id"]) == run_ids
    assert bits(back["cross_entropy"]) == bits(numbers)
    assert bits(back["theirs"]) == bits(numbers)


def test_counts_are_written_whole(tmp_path: Path) -> None:
    write_table(
        pd.DataFrame({"n_params": [12640.0, math.nan], "seed": [0.0, 1e300]}), tmp_path / "t"
    )
    assert (tmp_path / "t").read_text() == "n_params,seed\n12640,0\n,1e+300\n"


def test_a_write_that_fails_leaves_the_old_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "table.csv"
    write_table(pd.DataFrame({"n_tokens": [1.0]}), path)

    def full(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_table(pd.DataFrame({"n_tokens": [2.0]}), path)
    assert path.read_text() == "n_tokens\n1\n"


def test_a_spreadsheets_export_is_read(tmp_path: Path) -> None:
    text = '\ufeffN, D ,loss,optimizer,run_id\n2.8B,1e9,3.25,"a, b",007\n400k,0.1M,NA,,\n,,,,\n'
    table = table_of(
        tmp_path / "theirs.csv", text, columns="n_params=N, n_tokens=D, cross_entropy=loss"
    )
    frame = table.frame
    assert list(frame["n_params"]) == [2.8e9, 4e5]
    assert list(frame["n_tokens"]) == [1e9, 1e5]
    assert bits(frame["cross_entropy"]) == bits([3.25, math.nan])
    assert list(frame["optimizer"]) == ["a, b", None]
    assert list(frame["run_id"]) == ["007", None]
    assert table.dropped == ("row 3: is empty",)
    assert table.source == {
        "file": "theirs.csv",
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
    }


def test_json_lines_are_read(tmp_path: Path) -> None:
    text = '{"n_params": "1M", "selected": true}\n\n{"n_params": 100000000000000000000}\n'
    frame = table_of(tmp_path / "t.jsonl", text).frame
    assert list(frame["n_params"]) == [1e6, 1e20]
    assert list(frame["selected"]) == [True, None]


def test_parquet_without_pyarrow_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install kdlaws\[parquet\]"):
        table_of(tmp_path / "t.parquet", "PAR1")


def test_parquet_is_read(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    frame = pd.DataFrame({"N": [10**12, 2], "n_tokens": ["1k", None], "selected": [True, False]})
    frame.to_parquet(tmp_path / "t.parquet")
    back = read_table(tmp_path / "t.parquet", columns="n_params=N").frame
    assert bits(back["n_params"]) == bits([1e12, 2])
    assert bits(back["n_tokens"]) == bits([1000, math.nan])
    assert list(back["selected"]) == [True, False]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", "cannot be read"),
        ("t.csv", b"N,loss\n", "has no rows"),
        ("t.csv", b"N,loss\n,\n", "has no rows"),
        ("t.csv", b"N,loss\n1,2,3\n", "more cells than the header"),
        ("t.csv", b"N,loss\n1,2\n1,2,3\n", "line 3"),
        ("t.csv", b"N,loss\n\xff\xfe,1\n", "utf-8"),
        ("t.jsonl", b"[1, 2]\n", "row 1 is not a JSON object"),
        ("t.jsonl", b"{\n", "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_one_message(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TableError, match=message) as caught:
        read_table(tmp_path / name)
    assert caught.value.where == str(tmp_path / name)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"absent\.csv: there is no such file"):
        read_table(tmp_path / "absent.csv")


# --- numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number"),
    [("2.8B", 2.8e9), ("1e9", 1e9), ("400k", 4e5), ("0.1M", 1e5), ("1T", 1e12), (" 7b ", 7e9)],
)
def test_numbers_as_people_write_them(text: str, number: float) -> None:
    assert parse_number(text) == number


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_is_itself(number: float) -> None:
    assert parse_number(repr(number)) == number


@pytest.mark.parametrize("text", ["", "B", "1,5", "1e", "2.8BB", "--1", "1 2", "abc", "0x10"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(TableError, match="not a number"):
        parse_number(text)


# --- renaming and selecting ---------------------------------------------------------------------


def test_renaming_may_swap_and_replace() -> None:
    frame = pd.DataFrame({"n_params": [1.0], "n_tokens": [2.0], "loss": [3.0], "rest": [4.0]})
    renamed = rename_columns(frame, "n_params=n_tokens,n_tokens=n_params,cross_entropy=loss")
    assert renamed.to_dict("records") == [
        {"rest": 4.0, "n_params": 2.0, "n_tokens": 1.0, "cross_entropy": 3.0}
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n_params=Nn", "no column 'Nn'.*\n.*did you mean 'N_n'"),
        ("n_param=N_n", "no column 'n_param'.*\n.*did you mean 'n_params'"),
        ("N_n=n_params", "contract has no column 'N_n'"),
        ("n_params", "not a pair"),
    ],
)
def test_a_wrong_rename_is_explained(text: str, message: str) -> None:
    with pytest.raises(TableError, match=message):
        rename_columns(pd.DataFrame({"N_n": [1.0]}), text)


RUNS = pd.DataFrame(
    {
        "run_id": list("abcd"),
        "method": ["token", "scratch", None, "token"],
        "noise": [0.0, 0.1, 0.0, math.nan],
        "n_tokens": [10**6, 2 * 10**5, 10**6, 999_999],
        "selected": pd.Series([True, False, None, True], dtype=object),
    }
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
        ("method=mixed", ""),
    ],
)
def test_where_keeps_the_rows_for_which_all_holds(where: str, run_ids: str) -> None:
    assert "".join(apply_where(RUNS, where)["run_id"]) == run_ids


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
        apply_where(RUNS, where)


@given(
    column=st.sampled_from(COLUMNS),
    operator=st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
    value=st.text("abcAZ019.-+_/ ", min_size=1).map(str.strip).filter(bool),
    space=st.sampled_from(["", " "]),
)
def test_a_comparison_reads_back(column: str, operator: str, value: str, space: str) -> None:
    text = f"{column}{space}{operator}{space}{value}"
    assert parse_where(f"{text},{text}") == [Comparison(column, operator, value)] * 2


def test_a_where_that_leaves_nothing_shows_what_there_is(tmp_path: Path) -> None:
    text = "method,n_params\nscratch,1\ntoken,2\n"
    with pytest.raises(TableError, match=r"no row is left.*\n.*method holds scratch, token"):
        table_of(tmp_path / "t.csv", text, where="method=embedding")


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
    assert len(law_columns(table, (*CHINCHILLA, "n_unique_tokens")).columns["n_params"]) == 4


@pytest.mark.parametrize("column", ["objective", "corpus", "tokenizer", "quality", "init"])
def test_rows_of_different_kinds_are_never_pooled(column: str) -> None:
    table = points(**{column: ["x", "y", "y"]})
    with pytest.raises(TableError, match=rf'{column} \(x: 1 rows, y: 2 rows.*\n.*"{column}=y"'):
        law_columns(table, CHINCHILLA)
    split = LoadedTable(apply_where(table.frame, f"{column}=y"), table.source, ())
    assert len(law_columns(split, CHINCHILLA).columns["n_params"]) == 2


def test_an_unknown_kind_is_not_pooled_with_a_known_one() -> None:
    with pytest.raises(TableError, match=r"corpus \(x: 2 rows, unknown: 1 rows"):
        law_columns(points(corpus=["x", "x", None]), CHINCHILLA)
    law_columns(points(corpus=[None, None, None]), CHINCHILLA)


def test_teachers_stay_and_rows_left_out_do_not_count_as_mixed() -> None:
    table = points(role=["student", "teacher", "student"], corpus=["x", "x", "y"])
    table.frame.loc[2, "cross_entropy"] = math.nan
    assert len(law_columns(table, CHINCHILLA).columns["n_params"]) == 2


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
    table = table_of(tmp_path / "t.csv", "Model Size,D,val_loss,x\n1,2,3,4\n")
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
    text = "n_params,n_tokens,cross_entropy\n1,2,3\n1,2,OOM\n"
    with pytest.raises(TableError, match="row 2: cross_entropy is 'OOM'"):
        law_columns(table_of(tmp_path / "t.csv", text), CHINCHILLA)


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
