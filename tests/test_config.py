"""The study file: what it accepts, and one message for each mistake."""

from pathlib import Path

import pytest
import yaml

from kdlaws.config import load_study
from kdlaws.errors import ConfigError

MINIMAL = {"name": "x", "students": [{"sizes": "32/1", "methods": "scratch"}]}
REPOSITORY = Path(__file__).parent.parent


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    return path


def test_defaults_file_and_overrides_in_that_order(file: Path) -> None:
    assert load_study(file).workers is None
    file.write_text(yaml.safe_dump({**MINIMAL, "workers": 3}))
    assert load_study(file).workers == 3
    assert load_study(file, ["workers=4"]).workers == 4


@pytest.mark.parametrize(
    ("written", "value"), [("1e6", 1e6), ("2M", 2e6), ("0.1B", 1e8), ("2.01B", 2.01e9)]
)
def test_numbers_as_people_write_them(file: Path, written: str, value: float) -> None:
    assert load_study(file, [f"corpus.slice_tokens={written}"]).corpus.slice_tokens == value


def test_small_numbers_that_yaml_reads_as_text(file: Path) -> None:
    assert load_study(file, ["optimiser.weight_decay=3e-4"]).optimiser.weight_decay == 3e-4


def test_one_rate_stands_for_all_methods(file: Path) -> None:
    rates = load_study(file, ["optimiser.learning_rate=0.5"]).optimiser.learning_rate
    assert set(rates.values()) == {0.5}
    one = load_study(file, ["optimiser.learning_rate.token=0.5"]).optimiser.learning_rate
    assert one["token"] == 0.5 != one["scratch"]


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("corpus.slise_tokens=3", ["corpus.slise_tokens", "did you mean slice_tokens"]),
        ("students.0.sizes=[33/1]", ["students.0.sizes.0", "33/1", "nearest is 32/1"]),
        ("students.0.methods=tokens", ["students.0.methods.0", "did you mean 'token'", "'tokens'"]),
        ("workers=1.5", ["workers", "whole number", "1.5"]),
        ("workers=many", ["workers", "'many'", "not a number"]),
        ("corpus.test_share=2", ["corpus.test_share", "less than or equal to 1", "2"]),
        ("corpus.test_share=0.99", ["corpus", "leave nothing for students"]),
        ("students.0.methods=token", ["students.0.teachers", "need a teacher"]),
        ("students.0.teachers=[big]", ["students.0.teachers", "'big'", "none is defined"]),
        ("students.0.fractions=0.5", ["students.0.fractions", "0.5", "allowed: 1.0"]),
        ("epochs={1.0: [2, 1]}", ["epochs.1", "must increase"]),
        ("n_ctx=100", ["optimiser.batch_tokens", "256", "n_ctx = 100"]),
        ("students.0.batch_tokens=200", ["students.0.batch_tokens", "200", "n_ctx = 128"]),
        ("students.0.learning_rate=0", ["students.0.learning_rate", "greater than 0"]),
        ("teachers={a: {size: 32/1}}", ["teachers.a", "n_tokens"]),
        ("teachers={a: {}}", ["teachers.a", "give one of run"]),
        ("name=a b", ["name"]),
        ("optimiser.clip=.inf", ["optimiser.clip", "finite"]),
        ("workers=.inf", ["workers", "whole number"]),
        ("epochs={1: []}", ["epochs", "at least 1 item"]),
        ("students.0.sizes=[]", ["students.0.sizes", "at least 1 item"]),
        ("corpus.test_share=0", ["corpus.test_share", "greater than 0"]),
        ("corpus.test_tokens=64", ["corpus.test_tokens", "less than one sequence of 128"]),
        ("teachers={a: {size: 32/1, n_tokens: 1k}}", ["corpus.teacher_share", "teachers.a"]),
        ("students.0.divergence=reversed_kl", ["students.0.divergence.0", "mean 'reverse_kl'"]),
        ("students.0.jsd_beta=1", ["students.0.jsd_beta.0", "less than 1"]),
        ("cache.draws=256", ["cache.draws", "less than or equal to 255"]),
        ("cache.slices=0", ["cache.slices", "greater than 0"]),
        ("cache.hidden_variance=0", ["cache.hidden_variance", "greater than 0"]),
        ("cache.outputs=offline", ["cache.outputs", "did you mean 'online'"]),
        ("cache.drawn=3", ["cache.drawn", "unknown key", "did you mean draws"]),
        ("memory_mb=0", ["memory_mb", "greater than 0"]),
        ("keep_checkpoints=0", ["keep_checkpoints", "greater than 0"]),
        ("precision=float16", ["precision", "'float32' or 'bfloat16'"]),
        ("students.3.sizes=32/1", ["students.3.sizes", "no such key"]),
        ("workers", ["'workers'", "key=value"]),
    ],
)
def test_each_mistake_has_its_message(file: Path, override: str, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_study(file, [override])
    assert caught.value.exit_code == 2
    for part in parts:
        assert part in str(caught.value)


TOKEN = ["students.0.methods=token", "students.0.teachers=t", "teachers={t: {run: trained}}"]


@pytest.mark.parametrize("divergence", ["reverse_kl", "jensen_shannon"])
@pytest.mark.parametrize("outputs", ["sampled", "top_k"])
def test_stored_outputs_are_refused_where_they_would_be_biased(
    file: Path, divergence: str, outputs: str
) -> None:
    both = f"students.0.divergence=[forward_kl, {divergence}]"
    with pytest.raises(ConfigError) as caught:
        load_study(file, [*TOKEN, both, f"cache.outputs={outputs}"])
    parts = ["students.0.divergence", f"{divergence} is not linear", outputs]
    assert all(part in str(caught.value) for part in [*parts, "set cache.outputs to online"])


@pytest.mark.parametrize(
    "overrides",
    [
        [*TOKEN, "students.0.divergence=reverse_kl", "cache.outputs=online"],
        [*TOKEN, "students.0.divergence=forward_kl", "cache.outputs=top_k"],
        # Embedding-level students read no distribution.
        [*TOKEN, "students.0.divergence=reverse_kl", "students.0.methods=embedding"],
    ],
)
def test_what_their_outputs_do_not_bias_is_accepted(file: Path, overrides: list[str]) -> None:
    load_study(file, overrides)


@pytest.mark.parametrize(
    ("overrides", "precision"),
    [
        ([], "float32"),
        (["device=cuda"], "bfloat16"),
        (["device=cuda", "precision=float32"], "float32"),
        (["precision=bfloat16"], "bfloat16"),
    ],
)
def test_precision_is_the_devices_unless_it_is_said(
    file: Path, overrides: list[str], precision: str
) -> None:
    assert load_study(file, overrides).matmul_precision == precision


@pytest.mark.parametrize("content", ["just text", "a: [", "- 1\n- 2"])
def test_what_is_no_mapping_is_refused(file: Path, content: str) -> None:
    file.write_text(content)
    with pytest.raises(ConfigError, match=r"study\.yaml"):
        load_study(file)


def test_absent_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such study file"):
        load_study(tmp_path / "none.yaml")


def test_paths_in_the_file_are_relative_to_it(file: Path) -> None:
    study = load_study(file, ["corpus.source=texts", "teachers={t: {run: trained}}"])
    assert study.corpus.source == str(file.parent / "texts")
    assert study.teachers["t"].run == file.parent / "trained"


def test_what_is_saved_loads_as_the_same_study(file: Path, tmp_path: Path) -> None:
    study = load_study(file, ["epochs={0.1: [1, 2], 1.0: [1]}", "students.0.fractions=[0.1, 1]"])
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(study.model_dump(mode="json")))
    assert load_study(again) == study


@pytest.mark.parametrize("path", [*REPOSITORY.glob("configs/*.yaml"), REPOSITORY / "config.yaml"])
def test_shipped_studies_are_valid(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KDLAWS_DATA", "SMOLLM2"):  # places that a study leaves to the environment
        monkeypatch.setenv(name, "somewhere")
    assert load_study(path).name


def test_paths_may_name_a_variable_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(
        "name: a\ncorpus: {source: $TEXTS/all, teacher_share: 0.1}\n"
        "teachers: {t: {size: 32/1, n_tokens: 1k}}\n"
    )
    monkeypatch.setenv("TEXTS", str(tmp_path / "texts"))
    assert load_study(file).corpus.source == str(tmp_path / "texts" / "all")
    monkeypatch.delenv("TEXTS")
    with pytest.raises(
        ConfigError, match=r"corpus.source: the environment variable TEXTS is not set"
    ):
        load_study(file)


def test_an_unknown_key_of_a_nested_section_names_that_sections_keys(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("name: a\ncorpus: {curation: {reference: t, kep: 0.5}}\n")
    with pytest.raises(ConfigError, match=r"corpus.curation.kep: unknown key; did you mean keep"):
        load_study(file)
