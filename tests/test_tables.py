"""Run tables: read exactly, by whatever names, and written so that they read back the same."""

import hashlib
import io
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
    LoadedTable,
    read_table,
    rename_columns,
    study_table,
    write_table,
)

ROOT = Path(__file__).parents[1]


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


# --- the contract -------------------------------------------------------------------------------


def test_every_column_is_documented_in_order() -> None:
    page = (ROOT / "docs" / "table.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", page, re.MULTILINE)
    assert [name for name, _ in rows] == list(COLUMNS)
    cells = {name: re.split(r"(?<!\\)\|", rest) for name, rest in rows}
    assert {name for name, row in cells.items() if len(row) != 4} == set()
    assert {row[3].strip() for row in cells.values()} == {"plan", "train", "evaluate", "table"}


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
    of_folder = read_table(tmp_path / "study")
    write_table(study_table(tmp_path / "study"), tmp_path / "table.csv")
    of_file = read_table(tmp_path / "table.csv")
    pd.testing.assert_frame_equal(of_folder.frame, of_file.frame, check_exact=True)
    assert of_folder.source["file"] == "study"


def test_a_folders_runs_go_through_the_gates(tmp_path: Path) -> None:
    read = {"trunk": "t", "status": "done", "n_unique_tokens": 10, "cross_entropy": 5.0}
    make_run(tmp_path, "a", n_steps=300, epochs=2, validation_cross_entropy=4.0, **read)
    make_run(tmp_path, "b", n_steps=600, epochs=4, validation_cross_entropy=4.5, **read)
    assert list(study_table(tmp_path)["selected"]) == [True, False]
    assert set(study_table(tmp_path)["status"]) == {"done"}
    line = {"n_unique_tokens": 10, "cross_entropy": 4.9}
    (tmp_path / "reference.json").write_text(json.dumps({"bigram": [line]}))
    assert set(study_table(tmp_path)["status"]) == {"undertrained"}


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


# --- exports of other programs ------------------------------------------------------------------

# The header of a W&B runs table as its page exports it, here with four columns of the run's own.
WANDB_PAGE = (
    '"Name","Agent","State","Notes","User","Tags","Created","Runtime","Sweep",'
    '"n_params","optimizer.lr","n_tokens","eval/loss"\n'
)


def wandb_row(name: str, state: str, *own: str) -> str:
    created = "2025-11-13T09:48:11.000Z"
    return ",".join(
        f'"{c}"' for c in (name, "", state, "-", "", "", created, "9910", "1wfhjnkh", *own)
    )


def test_a_runs_table_from_the_page_of_wandb(tmp_path: Path) -> None:
    rows = [
        wandb_row("big", "finished", "2.8B", "0.001", "1e9", "2.5"),
        wandb_row("twin", "finished", "124M", "0.001", "10k", "NaN"),
        wandb_row("twin", "crashed", "124M", "", "", "9"),
        wandb_row("killed one", "killed", "1_000", "", "", ""),
        wandb_row("new", "uploading", "1", "", "", "1"),
    ]
    table = table_of(
        tmp_path / "w.csv", WANDB_PAGE + "\n".join(rows), columns="cross_entropy=eval/loss"
    )
    frame = table.frame
    names = ["big", "twin (row 2)", "twin (row 3)", "killed one", "new"]
    assert list(frame["run_id"]) == names
    assert list(frame["status"]) == ["done", "done", "crashed", "killed", "failed"]
    assert list(frame["n_params"]) == [2.8e9, 1.24e8, 1.24e8, 1e3, 1]
    assert bits(frame["cross_entropy"]) == bits([2.5, math.nan, 9, math.nan, 1])
    assert bits(frame["optimizer.lr"]) == bits([1e-3, 1e-3, math.nan, math.nan, math.nan])


WANDB_RUNS = [
    {
        "id": "a1",
        "name": "one",
        "state": "finished",
        "config": {"n_params": "2.8B", "optimizer": {"lr": 1e-3}, "note": "it's, nan"},
        "summary": {"cross_entropy": 2.5, "n_tokens": 10**20, "_wandb": {"runtime": 9}},
    },
    {"id": "a2", "name": "two", "state": "finished", "config": {}, "summary": {"loss": "NaN"}},
    {
        "id": "a3",
        "name": "two",
        "state": "failed",
        "config": {"n_params": 7, "status": "diverged"},
        "summary": {"cross_entropy": math.inf},
    },
    {
        "id": "a4",
        "name": "four",
        "state": "finished",
        "config": {"n_params": 7, "status": "diverged"},
        "summary": {"cross_entropy": math.nan},
    },
]


def check_wandb_runs(frame: pd.DataFrame) -> None:
    assert list(frame["run_id"]) == ["one", "a2", "a3", "four"]
    # a run that finished may say of itself that it is no point of a law
    assert list(frame["status"]) == ["done", "done", "failed", "diverged"]
    assert bits(frame["n_params"]) == bits([2.8e9, math.nan, 7, 7])
    assert bits(frame["n_tokens"]) == bits([1e20, math.nan, math.nan, math.nan])
    assert bits(frame["cross_entropy"]) == bits([2.5, math.nan, math.inf, math.nan])
    assert bits(frame["config.optimizer.lr"])[0] == bits([1e-3])[0]
    assert frame["config.note"][0] == "it's, nan"
    assert frame["summary.loss"].isna().all()


def test_runs_from_the_api_of_wandb_as_json_lines(tmp_path: Path) -> None:
    check_wandb_runs(table_of(tmp_path / "w.jsonl", "\n".join(map(json.dumps, WANDB_RUNS))).frame)


def test_runs_from_the_api_of_wandb_as_its_documented_script_writes_them(tmp_path: Path) -> None:
    pd.DataFrame(WANDB_RUNS).to_csv(tmp_path / "project.csv")
    check_wandb_runs(read_table(tmp_path / "project.csv").frame)
    pd.DataFrame(WANDB_RUNS)[["summary", "config", "name"]].to_csv(tmp_path / "no-state.csv")
    frame = read_table(tmp_path / "no-state.csv").frame
    assert list(frame["run_id"]) == ["one", "two (row 2)", "two (row 3)", "four"]
    assert list(frame["status"]) == [None, None, "diverged", "diverged"]


def test_a_configuration_that_is_none_is_refused(tmp_path: Path) -> None:
    text = "name,config,summary\na,\"{'lr': 1}\",{}\nb,{'lr': open('x')},\n"
    with pytest.raises(TableError, match="row 2: config is neither"):
        table_of(tmp_path / "w.csv", text)


# What ``mlflow.search_runs().to_csv()`` wrote with mlflow-skinny 3.17 and an SQLite store; IDs and
# folders are shortened, and four tags that were the same in all rows left out. What was logged as
# the loss of the two runs "b" is infinite and NaN.
MLFLOW_RUNS = """\
,run_id,experiment_id,status,artifact_uri,start_time,end_time,metrics.loss,metrics.eval/loss,\
params.n_params,params.n_tokens,params.optimizer.lr,params.method,tags.mlflow.runName,tags.seed
0,9ca4,1,RUNNING,mlruns/1/9ca4,2026-11-24 13:52:08.603+00:00,,,,1,,,,d,
1,682d,1,KILLED,mlruns/1/682d,2026-11-24 13:52:08.591+00:00,2026-11-24 13:52:08.600+00:00,3.0,,\
124000000,,,,c,1
2,5ca7,1,FAILED,mlruns/1/5ca7,2026-11-24 13:52:08.582+00:00,2026-11-24 13:52:08.589+00:00,\
1.7976931348623157e+308,,124000000,,,,b,
3,fb09,1,FINISHED,mlruns/1/fb09,2026-11-24 13:52:08.572+00:00,2026-11-24 13:52:08.579+00:00,,,\
124000000,10000000000000,,,b,
4,2164,1,FINISHED,mlruns/1/2164,2026-11-24 13:52:08.552+00:00,2026-11-24 13:52:08.568+00:00,2.5,\
2.6,2.8B,10000000000,0.001,scratch,a,
"""


def check_mlflow_runs(frame: pd.DataFrame) -> None:
    assert list(frame["run_id"]) == ["d", "c", "5ca7", "fb09", "a"]
    assert list(frame["status"]) == ["running", "killed", "failed", "done", "done"]
    assert list(frame["n_params"]) == [1, 1.24e8, 1.24e8, 1.24e8, 2.8e9]
    assert bits(frame["n_tokens"]) == bits([math.nan, math.nan, math.nan, 1e13, 1e10])
    assert bits(frame["cross_entropy"]) == bits([math.nan, 3, math.inf, math.nan, 2.5])
    assert list(frame["method"]) == [None, None, None, None, "scratch"]


@pytest.mark.parametrize("loss", ["metrics.loss", "loss"])
def test_runs_found_by_mlflow(tmp_path: Path, loss: str) -> None:
    columns = f"n_params=params.n_params,cross_entropy={loss}"
    check_mlflow_runs(table_of(tmp_path / "m.csv", MLFLOW_RUNS, columns=columns).frame)


def test_runs_found_by_mlflow_as_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    text = dict.fromkeys(("params.n_params", "params.n_tokens", "experiment_id"), str)
    found = pd.read_csv(io.StringIO(MLFLOW_RUNS), index_col=0, dtype=text)
    found["start_time"] = pd.to_datetime(found["start_time"])
    found.to_parquet(tmp_path / "m.parquet")
    check_mlflow_runs(read_table(tmp_path / "m.parquet", columns="cross_entropy=loss").frame)


def test_the_csv_of_the_page_of_mlflow(tmp_path: Path) -> None:
    text = (
        '"Start Time","Duration","Run ID","Name","Source Type","Source Name","User","Status",'
        '"n_params","n_tokens","loss","n_params"\n'
        '"2026-11-24 13:52:08","16ms","2164","a","LOCAL","t.py","me","FINISHED",'
        '"124000000","10000","2.5","124000000"\n'
        '"2026-11-24 13:52:09","16ms","2165","b","LOCAL","t.py","me","FINISHED",'
        '"7","","\'-Infinity","7"\n'
        '"2026-11-24 13:52:09","","2166","c","LOCAL","t.py","me","SCHEDULED","","","",""\n'
    )
    frame = table_of(tmp_path / "m.csv", text, columns="cross_entropy=loss").frame
    assert list(frame["run_id"]) == ["a", "b", "c"]
    assert list(frame["status"]) == ["done", "done", "scheduled"]
    # a parameter and a metric of one name are no question where they say the same
    assert bits(frame["n_params"]) == bits([1.24e8, 7, math.nan])
    assert bits(frame["cross_entropy"]) == bits([2.5, -math.inf, math.nan])


def test_a_table_of_someones_own_is_no_export(tmp_path: Path) -> None:
    text = "Name,State,n_params,method\nx,Ohio,1,token\n"
    frame = table_of(tmp_path / "t.csv", text).frame
    assert list(frame) == ["Name", "State", "n_params", "method"]


@pytest.mark.parametrize(
    ("header", "columns", "message"),
    [
        (
            "params.n_params,metrics.n_params",
            "",
            r"n_params: may be params.n_params or metrics.n_p",
        ),
        ("config.flops,summary.flops", "", r'\n  say which: --columns "flops=config.flops"'),
        ("n_params,n_params", "", r"may be n_params \(column 1\) or n_params \(column 2\)"),
        ("params.loss,metrics.loss", "cross_entropy=loss", "params.loss or metrics.loss"),
        ("params.loss,x", "cross_entropy=los", "no column 'los'"),
    ],
)
def test_a_name_that_could_be_two_columns_is_not_guessed(
    tmp_path: Path, header: str, columns: str, message: str
) -> None:
    with pytest.raises(TableError, match=message):
        table_of(tmp_path / "t.csv", f"{header}\n1,2\n", columns=columns)


def test_a_name_that_could_be_two_columns_may_be_told(tmp_path: Path) -> None:
    text = "params.n_params,metrics.n_params,loss,loss\n1,2,3,4\n"
    columns = "n_params=metrics.n_params,cross_entropy=loss (column 4)"
    frame = table_of(tmp_path / "t.csv", text, columns=columns).frame
    assert frame[["n_params", "cross_entropy"]].to_numpy().tolist() == [[2, 4]]


# --- cells --------------------------------------------------------------------------------------


def test_numbers_as_people_write_them(tmp_path: Path) -> None:
    text = 'a,b,c\n2.8B,"1,000,000",Infinity\n124 M,"500,000",-inf\n10k,"1,234.5",NaN\n1_000,7,\n'
    frame = table_of(tmp_path / "t.csv", text).frame
    assert list(frame["a"]) == [2.8e9, 1.24e8, 1e4, 1e3]
    assert list(frame["b"]) == [1e6, 5e5, 1234.5, 7]
    assert bits(frame["c"]) == bits([math.inf, -math.inf, math.nan, math.nan])


def test_a_comma_that_may_be_a_decimal_comma_is_left_as_text(tmp_path: Path) -> None:
    frame = table_of(tmp_path / "t.csv", 'cross_entropy\n"2,850"\n"3,125"\n').frame
    assert list(frame["cross_entropy"]) == ["2,850", "3,125"]


def test_words_for_what_is_missing_are_missing_in_text_too(tmp_path: Path) -> None:
    text = "teacher,selected,n_params\nNone,true,1\n-,-,2\nbig,NA,3\n"
    frame = table_of(tmp_path / "t.csv", text).frame
    assert list(frame["teacher"]) == [None, None, "big"]
    assert list(frame["selected"]) == [True, None, None]


# --- renaming -----------------------------------------------------------------------------------


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
