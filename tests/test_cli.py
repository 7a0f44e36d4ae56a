"""The command line: documents, messages, exit codes. Training is in test_path.py."""

import json
from pathlib import Path

import pytest

from kdlaws import cli, shapes
from kdlaws.records import PLAN, RECORD, write_json


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    out, err = capsys.readouterr()
    code = ended.value.code
    return (code if isinstance(code, int) else 0), out, err


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Runs of L = 1.5 + 20 / N^.4 + 60 / D^.4, on a grid, under other people's names."""
    rows = ["N,D,loss,kind"]
    for n in (1e5, 4e5, 1.6e6, 6.4e6):
        for d in (1e6, 4e6, 1.6e7):
            rows.append(f"{n:.0f},{d / 1e6:g}M,{1.5 + 20 / n**0.4 + 60 / d**0.4},a")
    path = tmp_path / "runs.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


RENAMED = ("--columns", "n_params=N,n_tokens=D,cross_entropy=loss")


def test_models_are_one_document_with_every_n(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "models", "--json")
    document = json.loads(out)
    assert (code, err) == (0, "")
    assert list(document)[:2] == ["schema", "kdlaws"]
    assert len(document["models"]) == len(shapes.ladder())
    keys = {"name", "objective", "n_layers", "d_model", "n_params", "n_params_non_embedding"}
    assert keys | {"n_params_head", "forward_flops_per_token"} <= set(document["models"][0])


def test_fit_recovers_a_known_law(capsys: pytest.CaptureFixture[str], table: Path) -> None:
    code, out, _ = run(capsys, "fit", str(table), *RENAMED, "--json", "--bootstrap", "50")
    document = json.loads(out)
    assert code == 0
    truth = {"E": 1.5, "A": 20, "B": 60, "alpha": 0.4, "beta": 0.4}
    found = {name: each["value"] for name, each in document["parameters"].items()}
    assert found == pytest.approx(truth, rel=1e-3)
    assert document["n_column"] == "n_params"
    assert document["n_runs"] == 12
    assert len(document["inputs"]["sha256"]) == 64


def test_a_saved_fit_is_the_printed_one(
    capsys: pytest.CaptureFixture[str], table: Path, tmp_path: Path
) -> None:
    out_file = tmp_path / "fit.json"
    arguments = ("--json", "--bootstrap", "50", "--out", str(out_file))
    _, out, _ = run(capsys, "fit", str(table), *RENAMED, *arguments)
    saved = json.loads(out_file.read_text())
    printed = json.loads(out)
    assert {key: saved[key] for key in printed} == printed


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--law", "chinchila"], ["chinchila", "one of"]),
        (["--where", "king=a"], ["king", "kind"]),
        (["--where", "kind=b"], ["no row is left", "kind"]),
        (["--columns", "n_params=M"], ["M"]),
        (["--n", "some"], ["total or non_embedding"]),
    ],
)
def test_wrong_arguments_end_with_2_and_one_message(
    capsys: pytest.CaptureFixture[str], table: Path, arguments: list[str], parts: list[str]
) -> None:
    given = arguments if "--columns" in arguments else [*RENAMED, *arguments]
    code, out, err = run(capsys, "fit", str(table), *given)
    assert (code, out) == (2, "")
    assert err.count("error:") == 1
    assert all(part in err for part in parts)


def test_an_absent_table(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "fit", "nowhere.csv")
    assert code == 2
    assert "nowhere.csv" in err


def test_unknown_commands_and_options_end_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "predikt")[0] == 2
    assert run(capsys, "models", "--jason")[0] == 2


@pytest.mark.parametrize("command", ["train", "report", "evaluate"])
def test_an_absent_study_file(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, _, err = run(capsys, command, "none.yaml")
    assert code == 2
    assert "none.yaml: there is no such study file" in err


def test_report_before_evaluation_says_what_is_missing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    study = tmp_path / "s.yaml"
    study.write_text("{name: s, students: [{sizes: 32/1, methods: scratch}]}")
    code, _, err = run(capsys, "report", str(study), f"folder={tmp_path / 'runs'}")
    assert code == 2
    assert "table.csv" in err


def planned(folder: Path) -> Path:
    """A study of one trunk with three branches, of which the last is not needed, and a lone run."""
    rows = []
    for steps, validation in ((100, 5.0), (200, 5.2), (400, None)):
        row = {"run_id": f"r{steps}", "trunk": "t", "n_steps": steps, "epochs": 4.0, "seconds": 1}
        rows.append(row)
        if validation:
            done = {**row, "status": "done", "validation_cross_entropy": validation}
            write_json(folder / f"r{steps}" / RECORD, done)
    rows.append({"run_id": "alone", "trunk": "u", "n_steps": 9, "epochs": 1.0, "seconds": 7})
    write_json(folder / PLAN, rows)
    return folder


def test_runs_tells_what_is_there_and_what_is_missing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, out, _ = run(capsys, "runs", str(planned(tmp_path)), "--json")
    document = json.loads(out)
    assert code == 0
    states = {each["run_id"]: each["state"] for each in document["runs"]}
    assert states == {"r100": "done", "r200": "done", "r400": "not needed", "alone": "missing"}
    assert document["counts"] == {"done": 2, "not needed": 1, "missing": 1}


def test_status_in_words(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_json(tmp_path / "trunks" / "u" / "checkpoint" / "progress.json", {"step": 5})
    _, out, _ = run(capsys, "status", str(planned(tmp_path)))
    assert "4 runs: 2 done, 1 not needed, 1 missing" in out
    assert "u: saved at step 5" in out


def test_status_of_a_folder_that_is_no_study(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, _, err = run(capsys, "status", str(tmp_path))
    assert code == 2
    assert "no study was started there" in err
