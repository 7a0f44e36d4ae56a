"""The command line: documents, messages, exit codes. Training is in test_path.py."""

import json
import subprocess
import sys
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
        (["--fix", "E=1.5,gamma=1"], ["gamma=1", "E, A, B, alpha, beta"]),
        (["--fix", "E"], ["--fix", "'E'", "E=1.6"]),
        (["--law", "mine.py:nothing"], ["mine.py:nothing", "no such Python file"]),
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


def test_parameters_are_pinned_and_tied(capsys: pytest.CaptureFixture[str], table: Path) -> None:
    arguments = ("--fix", "E=1.5,alpha=beta", "--json", "--bootstrap", "0")
    _, out, _ = run(capsys, "fit", str(table), *RENAMED, *arguments)
    found = {name: each["value"] for name, each in json.loads(out)["parameters"].items()}
    truth = {"E": 1.5, "A": 20, "B": 60, "alpha": 0.4, "beta": 0.4}
    assert found == pytest.approx(truth, rel=1e-4)
    assert found["E"] == 1.5
    assert found["alpha"] == found["beta"]


def test_a_wild_run_moves_squares_and_not_huber(
    capsys: pytest.CaptureFixture[str], table: Path
) -> None:
    with table.open("a") as file:
        file.write("1.6e6,4M,2.9,a\n")  # 1.70 by the law
    alphas = []
    for loss in ("huber", "squares"):
        arguments = ("--loss", loss, "--json", "--bootstrap", "0")
        _, out, _ = run(capsys, "fit", str(table), *RENAMED, *arguments)
        alphas.append(json.loads(out)["parameters"]["alpha"]["value"])
    assert alphas[0] == pytest.approx(0.4, abs=0.01)
    assert abs(alphas[1] - 0.4) > 0.05


def test_a_law_of_ones_own_is_fitted_and_predicts(
    capsys: pytest.CaptureFixture[str], table: Path, tmp_path: Path
) -> None:
    law, fit = tmp_path / "mine.py", str(tmp_path / "fit.json")
    law.write_text(
        "def same_power(N, n_tokens, *, E, A, B, p=0.3):\n"
        "    return E + A / N**p + B / n_tokens**p\n"
    )
    arguments = ("--law", f"{law}:same_power", "--bootstrap", "0", "--out", fit, "--json")
    _, out, _ = run(capsys, "fit", str(table), *RENAMED, *arguments)
    assert json.loads(out)["parameters"]["p"]["value"] == pytest.approx(0.4, rel=1e-3)
    _, out, _ = run(capsys, "predict", fit, "n_params=1M", "n_tokens=10M", "--json")
    expected = 1.5 + 20 / 1e6**0.4 + 60 / 1e7**0.4
    assert json.loads(out)["cross_entropy"] == pytest.approx(expected, rel=1e-4)


def test_a_law_of_flops_predicts_from_n_and_d_where_these_gave_them(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows = [
        f"{n},{d},{1.5 + 800 / (6 * n * d) ** 0.15!r}"
        for n in (1e6, 4e6, 1.6e7, 6.4e7)
        for d in (1e8, 3e8, 9e8)
    ]
    path, fit = tmp_path / "runs.csv", str(tmp_path / "fit.json")
    path.write_text("n_params,n_tokens,cross_entropy\n" + "\n".join(rows) + "\n")
    run(capsys, "fit", str(path), "--law", "compute", "--bootstrap", "50", "--out", fit)
    expected = 1.5 + 800 / 6e16**0.15
    for model in (("n_params=10M", "n_tokens=1B"), ("flops=6e16",)):
        _, out, _ = run(capsys, "predict", fit, *model, "--json")
        assert json.loads(out)["cross_entropy"] == pytest.approx(expected, rel=1e-4)


def test_repeats_enter_only_a_law_that_reads_unique_tokens(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """R_D* = 15 repeats; N stays below the best for the unique tokens, so that R_N* has no say."""
    rows = ["n_params,n_tokens,n_unique_tokens,epochs,cross_entropy"]
    for n in (1e5, 4e5, 1.6e6):
        for u in (1e8, 1e9, 1e10):
            for passes in (1, 2, 4, 8, 16):
                effective = u * (1 + 15 * (1 - 2.718281828459045 ** (-(passes - 1) / 15)))
                loss = 1.5 + 20 / n**0.4 + 60 / effective**0.4
                rows.append(f"{n},{u * passes},{u},{passes},{loss!r}")
    path = tmp_path / "repeats.csv"
    path.write_text("\n".join(rows) + "\n")
    arguments = ("--json", "--bootstrap", "0", "--fix", "alpha=beta,R_N_star=5.3")
    _, out, _ = run(capsys, "fit", str(path), "--law", "data_constrained", *arguments)
    document = json.loads(out)
    assert (document["n_runs"], document["n_dropped"]) == (45, 0)
    assert document["parameters"]["R_D_star"]["value"] == pytest.approx(15, rel=1e-3)
    _, out, err = run(capsys, "fit", str(path), "--json", "--bootstrap", "0")
    document = json.loads(out)
    assert (document["n_runs"], document["n_dropped"]) == (9, 36)
    assert "left out: 36 rows that repeat data" in err


@pytest.fixture
def large_table(tmp_path: Path) -> Path:
    """30 runs of the law of ``table``, by two people."""
    rows = ["N,D,loss,who"]
    for n in (1e5, 4e5, 1.6e6, 6.4e6, 2.56e7, 1.024e8):
        for d in (1e6, 4e6, 1.6e7, 6.4e7, 2.56e8):
            who = "ann" if n < 1e6 else "bob"
            rows.append(f"{n:.0f},{d:.0f},{1.5 + 20 / n**0.4 + 60 / d**0.4},{who}")
    path = tmp_path / "many.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def test_compare_chooses_the_law_that_made_the_runs_and_saves_it(
    capsys: pytest.CaptureFixture[str], large_table: Path, tmp_path: Path
) -> None:
    fit = str(tmp_path / "fit.json")
    arguments = ("--by", "who", "--out", fit, "--json")
    code, out, err = run(capsys, "compare", str(large_table), *RENAMED, *arguments)
    document = json.loads(out)
    assert (code, err) == (0, "")
    assert [each["law"] for each in document["laws"]] == [
        *("chinchilla", "generalized", "kaplan", "compute")
    ]
    chosen = document["chosen"]
    assert chosen["weights"]["compute"] == chosen["weights"]["kaplan"] == 0
    assert chosen["holdout"]["mape"] < 0.01 < document["baseline"]["holdout"]["mape"]
    groups = {each["group"]: each["n_test"] for each in document["laws"][0]["groups"]}
    assert groups == {"who=ann": 10, "who=bob": 20}
    _, out, _ = run(capsys, "predict", fit, "n_params=1G", "n_tokens=1G", "--json")
    prediction = json.loads(out)
    assert prediction["cross_entropy"] == pytest.approx(1.5 + 20 / 1e9**0.4 + 60 / 1e9**0.4, 1e-3)
    assert prediction["extrapolates"]


def test_compare_takes_the_laws_that_are_named(
    capsys: pytest.CaptureFixture[str], large_table: Path
) -> None:
    arguments = ("--laws", "chinchilla,kaplan", "--holdout", "0.2", "--json")
    _, out, _ = run(capsys, "compare", str(large_table), *RENAMED, *arguments)
    document = json.loads(out)
    assert [each["law"] for each in document["laws"]] == ["chinchilla", "kaplan", "compute"]
    assert document["chosen"]["law"] == "chinchilla"
    assert document["chosen"]["holdout"]["n_test"] == 6
    assert document["n_column"] == "n_params"


def test_a_table_of_flops_alone_is_compared_by_compute(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "flops.csv"
    rows = [f"{c},{1.5 + 800 / c**0.15!r}" for c in (1e15 * 2.0**k for k in range(20))]
    path.write_text("flops,cross_entropy\n" + "\n".join(rows) + "\n")
    code, out, _ = run(capsys, "compare", str(path), "--json")
    document = json.loads(out)
    assert code == 0
    assert document["chosen"]["law"] == "compute"
    assert document["chosen"]["holdout"]["mape"] < 0.01


def test_compare_by_an_unknown_column(
    capsys: pytest.CaptureFixture[str], large_table: Path
) -> None:
    code, out, err = run(capsys, "compare", str(large_table), *RENAMED, "--by", "whom")
    assert (code, out) == (2, "")
    assert err.count("error:") == 1
    assert "whom" in err
    assert "who" in err.splitlines()[-1]


def test_isoflop_finds_the_optimum_of_each_budget(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Parabolas in log N around C^.5, seven sizes each, and a run that diverged."""
    rows = ["size,compute,loss,status", "1e9,1e18,9.9,diverged"]
    for flops in (1e18, 1e19, 1e20, 1e21):
        for power in (-0.6, -0.4, -0.2, 0, 0.2, 0.4, 0.6):
            loss = 2.5 + 0.3 * power**2
            rows.append(f"{flops**0.5 * 10**power!r},{flops},{loss!r},done")
    path, out_file = tmp_path / "iso.csv", tmp_path / "iso.json"
    path.write_text("\n".join(rows) + "\n")
    renamed = ("--columns", "n_params=size,flops=compute,cross_entropy=loss")
    arguments = (*renamed, "--json", "--out", str(out_file))
    code, out, err = run(capsys, "isoflop", str(path), *arguments)
    document = json.loads(out)
    assert code == 0
    assert [each["n_opt"] for each in document["budgets"]] == pytest.approx(
        [1e9, 10**9.5, 1e10, 10**10.5], rel=1e-6
    )
    assert document["exponents"]["a"]["value"] == pytest.approx(0.5, abs=1e-6)
    assert (document["n_runs"], document["n_dropped"]) == (28, 1)
    assert json.loads(out_file.read_text()) == document
    assert "left out: row 1: diverged" in err


# Busbridge et al. 2025: the paper's own run of this student gave 2.42 nats.
STUDENT = ("n_params_non_embedding=546M", "n_tokens=10.92B")
TEACHER = ("teacher_n_params_non_embedding=1.82B", "teacher_n_tokens=36.4B")


def test_a_published_fit_predicts_its_papers_run(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "predict", "published:busbridge2025", *STUDENT, *TEACHER, "--json")
    document = json.loads(out)
    assert (code, err) == (0, "")
    assert document["cross_entropy"] == pytest.approx(2.424, abs=5e-4)
    assert document["supervised_cross_entropy"] == pytest.approx(2.515, abs=5e-4)
    assert document["lo"] is document["hi"] is document["new_run_lo"] is None
    assert [each["code"] for each in document["warnings"]] == ["no_joint_uncertainty"]


def test_scratch_is_another_fits_word(capsys: pytest.CaptureFixture[str]) -> None:
    """E + A/N^alpha + B/D^beta of Hoffmann et al., at 1e9 parameters and 2e10 tokens."""
    model = ("n_params=1B", "n_tokens=20B")
    others = ("--scratch", "published:hoffmann2022", "--json")
    _, out, _ = run(capsys, "predict", "published:besiroglu2024", *model, *others)
    expected = 1.6934 + 406.4 / 1e9**0.3392 + 410.7 / 2e10**0.2849
    assert json.loads(out)["supervised_cross_entropy"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["published:hoffmann", "n_params=1B"], ["'hoffmann'", "hoffmann2022"]),
        (["nowhere.json", "n_params=1B"], ["nowhere.json", "published:NAME"]),
        (["published:hoffmann2022", "n_param=1B"], ["n_param", "n_params, n_tokens"]),
        (["published:hoffmann2022", "n_params=1B"], ["n_tokens", "missing"]),
        (["published:hoffmann2022", "n_params=big", "n_tokens=1B"], ["n_params", "'big'"]),
        (["published:hoffmann2022", "1B"], ["'1B' is no name=value"]),
        (
            ["published:hoffmann2022", "n_params_non_embedding=1B", "n_tokens=1B"],
            ["does not read n_params_non_embedding", "it reads n_params"],
        ),
    ],
)
def test_a_model_that_cannot_be_predicted_ends_with_2_and_one_message(
    capsys: pytest.CaptureFixture[str], arguments: list[str], parts: list[str]
) -> None:
    code, out, err = run(capsys, "predict", *arguments)
    assert (code, out) == (2, "")
    assert err.count("error:") == 1
    assert all(part in err for part in parts)


def test_predicting_loads_neither_pandas_nor_scipy() -> None:
    code = (
        "import sys\nfrom kdlaws.cli import main\n"
        "try:\n    main(sys.argv[1:])\nfinally:\n    print(*sys.modules)"
    )
    arguments = ["predict", "published:busbridge2025", *STUDENT, *TEACHER]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2.4238 nats per token" in done.stdout
    assert not {"pandas", "scipy", "matplotlib"} & set(done.stdout.split())


def test_laws_are_listed_with_columns_sources_and_published_fits(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, _ = run(capsys, "laws", "--json")
    document = json.loads(out)
    assert code == 0
    reads = {each["name"]: each["reads"] for each in document["laws"]}
    assert reads["compute"] == ["flops"]
    assert reads["data_constrained"] == ["N", "n_tokens", "n_unique_tokens"]
    assert all("arXiv" in each["source"] or "spec" in each["name"] for each in document["laws"])
    assert document["also"] == {"skaling": "generalized"}
    papers = {each["name"]: each for each in document["published"]}
    assert set(papers) == {
        *("kaplan2020", "hoffmann2022", "besiroglu2024", "muennighoff2023", "busbridge2025")
    }
    assert papers["hoffmann2022"]["domain"]["n_tokens"] == [5e9, 5e11]
    _, text, _ = run(capsys, "laws")
    assert all(f"\n{name} " in f"\n{text}" for name in reads)
    assert "arXiv:2608.07222" in text


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
    for step in (3, 5):
        write_json(tmp_path / "trunks" / "u" / "checkpoint" / f"{step}.json", {})
    _, out, _ = run(capsys, "status", str(planned(tmp_path)))
    assert "4 runs: 2 done, 1 not needed, 1 missing" in out
    assert "u: saved at step 5" in out


def test_status_of_a_folder_that_is_no_study(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, _, err = run(capsys, "status", str(tmp_path))
    assert code == 2
    assert "no study was started there" in err
