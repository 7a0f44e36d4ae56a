"""Counts against published formulas and, where torch is at hand, in tests/lab/test_students.py."""

import math

import pytest

from kdlaws.errors import ConfigError
from kdlaws.shapes import MICRO_SIZES, NAMED_SIZES, Shape, ladder, run_flops, shape


def test_micro_counts_are_those_of_the_pilot() -> None:
    """Non-embedding parameters published with the pilot of the default study, to the thousand."""
    published = {"32/1": 12.6, "64/2": 98, "96/3": 332, "128/4": 792}
    for size, thousands in published.items():
        assert shape(size).n_params_non_embedding / 1e3 == pytest.approx(thousands, rel=0.005)


@pytest.mark.parametrize("size", [*MICRO_SIZES, *NAMED_SIZES])
def test_aspect_ratio_is_constant_over_the_ladder(size: str) -> None:
    each = shape(size)
    assert each.d_model / each.n_layers == 32
    assert each.d_model % each.head_dim == 0


@pytest.mark.parametrize("size", NAMED_SIZES)
def test_named_sizes_are_within_an_eighth_of_their_name(size: str) -> None:
    assert shape(size).n_params == pytest.approx(float(size[:-1]) * 1e6, rel=0.125)


def test_forward_flops_approach_kaplans_two_n_for_wide_models() -> None:
    """Kaplan et al. 2020: C_forward ~ 2 N once d_model >> n_ctx / 12 and the head is small."""
    wide = Shape("wide", d_model=16_384, n_layers=96, head_dim=128, n_vocab=1_000, n_ctx=128)
    assert wide.forward_flops_per_token == pytest.approx(2 * wide.n_params_non_embedding, rel=0.01)


def test_small_students_are_mostly_head() -> None:
    """With a 30k vocabulary a 2-layer student's forward pass costs ten times 2 N and more."""
    small = Shape("small", d_model=128, n_layers=2, head_dim=64, n_vocab=30_522, n_ctx=128)
    assert small.forward_flops_per_token / (2 * small.n_params_non_embedding) > 10


def test_buckets_of_one_run() -> None:
    student, teacher = shape("32/1"), shape("64/2")
    flops = run_flops(student, 1000, 250, teacher=teacher, teacher_n_tokens=5000, map_params=2048)
    assert flops.student == 3 * (student.forward_flops_per_token + 2 * 2048) * 1000
    assert flops.teacher_inference == teacher.forward_flops_per_token * 250
    assert flops.teacher_inference + flops.cache_saved == teacher.forward_flops_per_token * 1000
    assert flops.teacher_training == 3 * teacher.forward_flops_per_token * 5000


def test_an_online_teacher_reads_every_token_and_saves_none() -> None:
    student, teacher = shape("32/1"), shape("64/2")
    flops = run_flops(student, 1000, 250, teacher=teacher, teacher_n_tokens=5000, is_online=True)
    assert flops.teacher_inference == teacher.forward_flops_per_token * 1000
    assert flops.cache_saved == 0


def test_a_masked_teacher_reads_once_for_each_replica_of_its_masks() -> None:
    """Four epochs of 250 tokens under three sets of masks: 750 are read, the fourth is stored."""
    sizes = [shape(size, objective="masked") for size in ("32/1", "64/2")]
    flops = run_flops(sizes[0], 1000, 250, teacher=sizes[1], n_replicas=3)
    assert flops.teacher_inference == sizes[1].forward_flops_per_token * 750
    assert flops.cache_saved == sizes[1].forward_flops_per_token * 250
    one_pass = run_flops(sizes[0], 200, 200, teacher=sizes[1], n_replicas=3)
    assert one_pass.teacher_inference == sizes[1].forward_flops_per_token * 200


def test_what_nobody_knows_of_a_teachers_training_is_not_a_number() -> None:
    flops = run_flops(shape("32/1"), 10, 10, teacher=shape("64/2"), teacher_n_tokens=None)
    assert math.isnan(flops.teacher_training)


def test_flops_of_large_runs_do_not_overflow() -> None:
    assert run_flops(shape("100M"), 10**12, 10**12).student > 2**63


@pytest.mark.parametrize("size", ["33/1", "64", "64/0", "huge", "2m"])
def test_unknown_sizes_are_refused_with_what_is_allowed(size: str) -> None:
    with pytest.raises(ConfigError, match=r"32/1|nearest"):
        shape(size)


def test_ladder_is_sorted_within_its_groups() -> None:
    counts = [each.n_params for each in ladder()]
    micro = len(MICRO_SIZES)
    assert counts[:micro] == sorted(counts[:micro])
    assert counts[micro:] == sorted(counts[micro:])
