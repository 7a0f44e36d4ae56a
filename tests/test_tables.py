"""Run tables: read exactly, by whatever names, and written so that they read back the same."""

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
