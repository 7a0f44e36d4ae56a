"""What compares with what: checked against the generator's known design."""

import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from kdlaws.advice.evidence import Evidence, load, one_pass, paired
from kdlaws.advice.serving import pareto
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


def test_divergences_are_not_compared_with_each_other(study_of: Callable[..., Evidence]) -> None:
    """Nor stored outputs with a teacher beside its student; what is not said is no reason."""
    usual, others = ("forward_kl", "online", None), [("reverse_kl", "online", None)] * 2
    asked = [
        *[usual] * 3,
        *others,
        ("jensen_shannon", "online", 0.1),
        ("forward_kl", "sampled", None),
    ]
    cells = [
        {"method": "token", "size": 0, "fraction": 1.0, "n_tokens": 70_000 + place}
        | {"cross_entropy": 3.0, "divergence": name, "teacher_outputs": outputs, "jsd_beta": beta}
        for place, (name, outputs, beta) in enumerate(asked)
    ]
    assert list(study_of(cells).comparable["n_tokens"]) == [70_000, 70_001, 70_002]
    unsaid = [cell | {"divergence": None, "teacher_outputs": None} for cell in cells]
    assert len(study_of(unsaid).comparable) == len(cells)


def test_settings_are_usual_for_an_amount_of_data(study_of: Callable[..., Evidence]) -> None:
    """A tenth of the data has a batch of its own; of each batch one run is out of place."""
    cells = [
        {"method": method, "size": size, "fraction": fraction, "batch_tokens": batch}
        for method in ("scratch", "token")
        for fraction, usual in ((1.0, 512), (0.1, 128))
        for size, batch in ((0, usual), (1, usual), (2, usual), (0, 640 - usual))
    ]
    cells = [{**cell, "n_tokens": 70_000, "cross_entropy": 3.0} for cell in cells]
    rows = study_of(cells).comparable
    found = rows.groupby(["method", "fraction"])["batch_tokens"].agg(list).to_dict()
    assert found == {
        (method, fraction): [usual] * 3
        for method in ("scratch", "token")
        for fraction, usual in ((1.0, 512), (0.1, 128))
    }


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


def test_losses_belong_to_the_rows_and_are_as_noisy_as_they_say(evidence: Evidence) -> None:
    measured = evidence.runs[evidence.runs["cross_entropy"].notna()]
    assert set(evidence.losses) == set(measured["run_id"])
    for run_id, mean, error in measured[["run_id", "cross_entropy", "cross_entropy_se"]].itertuples(
        index=False
    ):
        losses = evidence.losses[run_id]
        assert losses.mean() == pytest.approx(mean, rel=1e-6)
        assert losses.std(ddof=1) / math.sqrt(len(losses)) == pytest.approx(error, rel=1e-4)


def test_a_study_without_losses_has_none(make_study: Callable[..., Path]) -> None:
    assert load(make_study(losses=False)).losses == {}


def test_a_teacher_is_known_on_its_students_text_too(
    evidence: Evidence, make_study: Callable[..., Path]
) -> None:
    assert [teacher.stream_cross_entropy for teacher in evidence.teachers] == [2.31, 2.50]
    [unknown, _] = load(make_study(without=["teacher_stream_cross_entropy"])).teachers
    assert math.isnan(unknown.stream_cross_entropy)
    assert unknown.cross_entropy == 2.35


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


def test_broken_losses_are_named(make_study: Callable[..., Path]) -> None:
    folder = make_study()
    (folder / "losses.npz").write_text("not an archive")
    with pytest.raises(ArtefactError, match=r"losses\.npz"):
        load(folder)
