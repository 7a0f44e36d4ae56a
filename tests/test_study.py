"""Expansion and identity of runs: arithmetic that can be done by hand."""

from pathlib import Path

import pytest
import yaml

from kdlaws.config import Study, load_study
from kdlaws.errors import ConfigError
from kdlaws.shapes import shape
from kdlaws.study import Plan, TextFacts, plan, runs_of

TEXT = TextFacts("made-up", "0" * 64, "bpe", "1" * 64, 1024, 128_000, 512_000)
STUDY = """
name: x
corpus: {slice_tokens: 64k, teacher_share: 0.5}
teachers: {a: {size: 64/2, n_tokens: 100k}, b: {size: 96/3, n_tokens: 100k}}
epochs: {0.1: [2, 4], 1.0: [0.5, 1]}
optimiser: {batch_tokens: 256}
students:
  - {sizes: [32/1, 64/2], methods: [scratch, token, embedding], teachers: a, fractions: [0.1, 1]}
  - {sizes: 32/1, methods: [scratch, token], teachers: [a, b], kd_weight: [1, 0.5]}
"""


def study(tmp_path: Path, *overrides: str) -> Study:
    file = tmp_path / "study.yaml"
    file.write_text(STUDY)
    return load_study(file, overrides)


@pytest.fixture
def planned(tmp_path: Path) -> Plan:
    return plan(study(tmp_path), TEXT)


def test_blocks_are_products_and_overlaps_count_once(tmp_path: Path) -> None:
    runs = runs_of(study(tmp_path))
    first = 2 * 3 * 2 * 2  # sizes, methods, fractions, branches
    second = 2 * 2 * 2 - 1 * 2  # token: teachers, weights, branches, less those of the first block
    assert len(runs) == len(set(runs)) == first + second


def test_steps_tokens_and_epochs(planned: Plan) -> None:
    by = {(r.run.size, r.run.method, r.run.fraction, r.run.passes): r for r in planned.runs[2:]}
    whole = by["32/1", "scratch", 1.0, 1.0]
    assert (whole.n_windows, whole.n_steps, whole.n_tokens) == (500, 250, 64_000)
    half = by["32/1", "scratch", 1.0, 0.5]
    assert (half.n_tokens, half.n_unique_tokens, half.epochs) == (32_000, 32_000, 1.0)
    repeated = by["32/1", "scratch", 0.1, 4]
    assert (repeated.n_unique_tokens, repeated.n_tokens) == (50 * 128, 100 * 256)
    assert repeated.epochs == 4.0


def test_branches_share_a_trunk_and_methods_do_not(planned: Plan) -> None:
    trunks = planned.trunks()
    assert {len(branches) for branches in trunks.values()} == {1, 2}  # teachers have one
    for branches in trunks.values():
        assert len({(r.run.method, r.run.fraction, r.run.size) for r in branches}) == 1
        assert [r.n_steps for r in branches] == sorted(r.n_steps for r in branches)


def identities(tmp_path: Path, *overrides: str, text: TextFacts = TEXT) -> set[str]:
    return {r.run_id.rsplit("-", 1)[1] for r in plan(study(tmp_path, *overrides), text).runs}


@pytest.mark.parametrize(
    "overrides",
    [
        *("workers=7", "name=other", "folder=elsewhere", "corpus.test_tokens=9k"),
        *("memory_mb=9k", "keep_checkpoints=5", "tensorboard=true", "precision=float32"),
        "device=cuda precision=float32",
    ],
)
def test_what_does_not_change_the_numbers_does_not_change_identity(
    tmp_path: Path, overrides: str
) -> None:
    assert identities(tmp_path, *overrides.split()) == identities(tmp_path)


@pytest.mark.parametrize(
    "override",
    [
        "optimiser.learning_rate=0.5",
        "optimiser.clip=2",
        "optimiser.cooldown_share=0.3",
        "corpus.slice_tokens=32k",
        "n_ctx=64",
        "corpus.validation_tokens=9k",
        "teachers.a.seed=1",
        "precision=bfloat16",
        "device=cuda",  # whose matrix products are bfloat16's
    ],
)
def test_what_changes_the_numbers_changes_identity(tmp_path: Path, override: str) -> None:
    assert identities(tmp_path, override) != identities(tmp_path)


def test_a_rate_is_part_only_of_its_own_methods_identity(tmp_path: Path) -> None:
    changed = identities(tmp_path, "optimiser.learning_rate.embedding=0.5")
    common = changed & identities(tmp_path)
    embedding = 2 * 2 * 2
    assert len(common) == len(changed) - embedding


def students_by_method(tmp_path: Path, *overrides: str) -> dict[str, set[str]]:
    by_method: dict[str, set[str]] = {}
    for each in plan(study(tmp_path, *overrides), TEXT).runs:
        if each.run.role == "student":
            by_method.setdefault(each.run.method, set()).add(each.run_id)
    return by_method


@pytest.mark.parametrize(
    ("outputs", "override", "changed"),
    [
        ("sampled", "cache.draws=16", {"token"}),
        ("sampled", "cache.slices=1", {"token"}),
        ("sampled", "cache.k=8", set()),
        ("sampled", "cache.hidden_variance=0.9", {"embedding"}),
        ("sampled", "cache.outputs=top_k", {"token"}),
        ("sampled", "cache.outputs=online", {"token", "embedding"}),
        ("top_k", "cache.draws=16", set()),
        ("top_k", "cache.k=8", {"token"}),
        ("top_k", "cache.hidden_variance=0.9", {"embedding"}),
        ("online", "cache.draws=16", set()),
        ("online", "cache.k=8", set()),
        ("online", "cache.hidden_variance=0.9", {"embedding"}),
    ],
)
def test_a_setting_of_the_outputs_is_part_of_identity_where_it_is_read(
    tmp_path: Path, outputs: str, override: str, changed: set[str]
) -> None:
    before = students_by_method(tmp_path, f"cache.outputs={outputs}")
    after = students_by_method(tmp_path, f"cache.outputs={outputs}", override)
    assert {method for method in before if before[method] != after[method]} == changed
    assert all(not before[method] & after[method] for method in changed)


def test_beta_belongs_to_jensen_shannon_alone(tmp_path: Path) -> None:
    every = "[forward_kl, reverse_kl, jensen_shannon]"
    settings = ["cache.outputs=online", f"students.1.divergence={every}"]
    ours = study(tmp_path, *settings, "students.1.jsd_beta=[0.1, 0.5]")
    token = [r for r in runs_of(ours) if r.method == "token" and r.divergence != "forward_kl"]
    assert len(token) == (1 + 2) * 2 * 2 * 2  # beta in one of two; teachers, weights, branches
    assert {(r.divergence, r.jsd_beta) for r in runs_of(ours)} == {
        *((None, None), ("forward_kl", None), ("reverse_kl", None)),
        *(("jensen_shannon", 0.1), ("jensen_shannon", 0.5)),
    }


def test_divergence_and_its_beta_are_part_of_identity(tmp_path: Path) -> None:
    betas = "students.1.jsd_beta=[0.1, 0.5]"
    divergences = "students.1.divergence=[reverse_kl, jensen_shannon]"
    runs = plan(study(tmp_path, "cache.outputs=online", divergences, betas), TEXT).runs
    assert len({r.run_id for r in runs}) == len(runs)


def test_a_block_may_have_its_own_rates_and_batches(tmp_path: Path) -> None:
    ours = study(
        tmp_path, "students.1.learning_rate=[0.01, 0.03]", "students.1.batch_tokens=[128, 512]"
    )
    blocks = [r for r in plan(ours, TEXT).runs if r.run.batch_tokens != 256]
    assert {(r.run.learning_rate, r.run.batch_tokens) for r in blocks} == {
        (rate, batch) for rate in (0.01, 0.03) for batch in (128, 512)
    }
    for each in blocks:
        assert each.n_steps == 64_000 * each.run.passes // each.run.batch_tokens


def test_a_blocks_rate_and_the_optimisers_are_the_same_run(tmp_path: Path) -> None:
    """A run is what was done, wherever the file said so."""
    said = ["optimiser.learning_rate=0.03", "optimiser.batch_tokens=128"]
    keys = ("learning_rate=0.03", "batch_tokens=128")
    block = [f"students.{index}.{key}" for index in (0, 1) for key in keys]

    def students(*overrides: str) -> set[str]:
        runs = plan(study(tmp_path, *overrides), TEXT).runs
        return {r.run_id for r in runs if r.run.method == "scratch" and r.run.role == "student"}

    assert students(*said) == students(*block)


def test_text_and_tokenizer_are_part_of_identity(tmp_path: Path) -> None:
    from dataclasses import replace

    other_text = replace(TEXT, corpus_sha256="2" * 64)
    other_tokenizer = replace(TEXT, tokenizer_sha256="2" * 64)
    for text in (other_text, other_tokenizer):
        assert not identities(tmp_path, text=text) & identities(tmp_path)


def test_a_run_is_charged_its_own_teacher_pass(planned: Plan) -> None:
    token = next(r for r in planned.runs if r.run.method == "token" and r.run.fraction == 0.1)
    assert token.teacher is not None
    forward = token.teacher.shape.forward_flops_per_token
    assert token.flops.teacher_inference == forward * token.n_unique_tokens
    assert token.flops.teacher_training == 3 * forward * token.teacher.n_tokens


def test_beside_an_online_teacher_every_token_is_charged(tmp_path: Path) -> None:
    """Four passes over a tenth: the teacher reads each of them, and nothing is saved."""
    ours = plan(study(tmp_path, "cache.outputs=online"), TEXT)
    token = next(r for r in ours.runs if r.run.method == "token" and r.run.passes == 4)
    columns = ours.columns(token)
    forward = shape("64/2", n_vocab=1024, n_ctx=128).forward_flops_per_token
    assert columns["teacher_inference_flops"] == forward * columns["n_tokens"]
    assert columns["n_tokens"] == 4 * columns["n_unique_tokens"]
    assert columns["cache_saved_flops"] == 0


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ("sampled", {"scratch": None, "token": "sampled", "embedding": "stored"}),
        ("top_k", {"scratch": None, "token": "top_k", "embedding": "stored"}),
        ("online", {"scratch": None, "token": "online", "embedding": "online"}),
    ],
)
def test_columns_say_what_was_read_of_the_teacher(
    tmp_path: Path, outputs: str, expected: dict[str, str | None]
) -> None:
    ours = plan(study(tmp_path, f"cache.outputs={outputs}"), TEXT)
    columns = [ours.columns(each) for each in ours.runs]
    assert {row["method"]: row["teacher_outputs"] for row in columns} == expected


def test_too_little_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"fraction 0\.1 of 2000 tokens is less than one batch"):
        plan(study(tmp_path, "corpus.slice_tokens=2k"), TEXT)


def test_a_teacher_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"teachers\.a\.run: .* is not the folder of a finished"):
        plan(study(tmp_path, "teachers.a={run: nowhere}"), TEXT)


def test_the_readable_label_says_what_it_is(planned: Plan) -> None:
    labels = {r.run_id.rsplit("-", 1)[0] for r in planned.runs}
    assert "scratch-32x1-f0.1-s0-e4" in labels
    assert "teacher-64x2-s0-99k" in labels


def test_columns_can_be_written_as_yaml_and_name_every_n(planned: Plan) -> None:
    columns = planned.columns(planned.runs[-1])
    assert yaml.safe_load(yaml.safe_dump(columns)) == columns
    parts = columns["n_params_non_embedding"] + columns["n_params_head"]
    assert columns["n_params"] == parts
