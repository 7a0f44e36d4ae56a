"""What compares with what: checked against the generator's known design."""

import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from kdlaws.advice.evidence import Evidence, gain, load, one_pass, paired, pareto
from kdlaws.errors import ArtefactError, TableError


def test_the_design_is_read_from_the_table(evidence: Evidence) -> None:
    assert evidence.name == "synthetic"
    assert evidence.methods == ("scratch", "token", "embedding")
    assert evidence.sizes == (12_576, 98_112, 332_448, 791_680, 1_532_160)
    assert evidence.fractions == (1.0, 0.1, 0.01)
    assert [teacher.run_id for teacher in evidence.teachers] == ["teacher-192x6", "teacher-96x3"]


def test_the_teacher_may_be_known_only_by_its_own_row(make_study: Callable[..., Path]) -> None:
    folder = make_study(without=["teacher_cross_entropy", "teacher_n_params_non_embedding"])
    with (folder / "table.csv").open() as file:
        header = file.readline().strip().split(",")
    own = {"run_id": "teacher-192x6", "role": "teacher", "method": "scratch"}
    own |= {"n_params_non_embedding": "2654208", "cross_entropy": "2.35", "n_tokens": "5000000"}
    with (folder / "table.csv").open("a") as file:
        file.write(",".join(own.get(name, "") for name in header) + "\n")
    teacher = load(folder).main_teacher
    assert teacher is not None
    assert (teacher.n_params_non_embedding, teacher.cross_entropy) == (2_654_208, 2.35)


def test_noise_other_weights_and_other_teachers_are_kept_apart(evidence: Evidence) -> None:
    token = evidence.of("token")
    assert set(token["kd_weight"]) == {1.0}
    assert set(token["teacher"]) == {"teacher-192x6"}
    assert set(evidence.of("token", teacher=evidence.teachers[1])["teacher"]) == {"teacher-96x3"}
    assert (evidence.comparable["noise"] == 0).all()


@pytest.mark.parametrize(
    ("method", "fraction", "known"),
    [
        ("token", 1.0, [0.10, 0.10, 0.15, 0.20, 0.25, 0.30]),
        ("embedding", 1.0, [0.06, 0.06, 0.04, 0.02, 0.01, -0.03]),
        ("token", 0.1, [0.35] * 6),
        ("embedding", 0.01, [0.45] * 6),
    ],
)
def test_pairs_share_size_and_seed_and_give_the_known_gains(
    evidence: Evidence, method: str, fraction: float, known: list[float]
) -> None:
    pairs = paired(evidence, method, fraction)
    assert pairs["gain"].tolist() == pytest.approx(known, abs=1e-12)


def test_one_pass_pairs_are_the_longest_common_branches(evidence: Evidence) -> None:
    assert set(paired(evidence, "token", 1.0)["n_tokens"]) == {700_000}


def test_a_second_teacher_pairs_with_the_same_scratch_runs(evidence: Evidence) -> None:
    pairs = paired(evidence, "token", 1.0, evidence.teachers[1])
    assert pairs["gain"].tolist() == pytest.approx([0.06, 0.11], abs=1e-12)


def test_the_mean_gain_weighs_sizes_equally_whatever_their_seeds(evidence: Evidence) -> None:
    found = gain(paired(evidence, "token", 1.0))
    assert found is not None
    # Gains of .10 to .30 in steps of .05: mean .2, standard deviation .0790569, over 5 sizes.
    assert found.mean == pytest.approx(0.2)
    assert found.se == pytest.approx(0.0790569415 / math.sqrt(5))
    assert (found.n_sizes, found.n_wins) == (5, 5)
    embedding = gain(paired(evidence, "embedding", 1.0))
    assert embedding is not None
    assert embedding.n_wins == 4


def test_one_size_has_a_gain_but_no_standard_error(make_study: Callable[..., Path]) -> None:
    found = gain(paired(load(make_study(sizes=1, unusual=False)), "token", 1.0))
    assert found is not None
    assert math.isnan(found.se)
    assert str(found) == "+0.100"


def test_repeated_data_is_no_part_of_one_pass(evidence: Evidence) -> None:
    rows = one_pass(evidence.comparable)
    assert set(rows["fraction"]) == {1.0}


def test_pareto_agrees_with_the_definition_on_random_points() -> None:
    rng = random.Random(0)
    for _ in range(50):
        # A coarse grid, so that ties and duplicates happen.
        x = [float(rng.randint(0, 6)) for _ in range(25)]
        y = [float(rng.randint(0, 6)) for _ in range(25)]
        points = list(zip(x, y, strict=True))
        optimal = {
            (a, b)
            for a, b in points
            if not any(c <= a and d <= b and (c, d) != (a, b) for c, d in points)
        }
        chosen = [points[index] for index in pareto(x, y)]
        assert sorted(optimal) == chosen


def test_a_table_without_what_a_report_needs_is_refused(make_study: Callable[..., Path]) -> None:
    folder = make_study(without=["n_params_non_embedding"])
    with pytest.raises(TableError, match="n_params_non_embedding"):
        load(folder)


def test_a_broken_reference_file_is_named(make_study: Callable[..., Path]) -> None:
    folder = make_study()
    (folder / "reference.json").write_text("{")
    with pytest.raises(ArtefactError, match=r"reference\.json"):
        load(folder)
