"""Which runs are scaling points."""

from typing import Any

import pytest

from kdlaws.gates import apply_gates, trunk_is_over


def run(n_steps: int, validation: float | None, **more: Any) -> dict[str, Any]:
    columns = {
        "run_id": f"r{n_steps}",
        "trunk": "t",
        "n_steps": n_steps,
        "epochs": n_steps / 50,
        "n_unique_tokens": 1000,
        "status": "done",
        "validation_cross_entropy": validation,
        "cross_entropy": validation,
    }
    return columns | more


def statuses(*runs: dict[str, Any], reference: Any = None) -> list[str]:
    return [each["status"] for each in apply_gates(runs, reference)]


def test_a_repeated_trunk_is_over_once_validation_rises() -> None:
    assert not trunk_is_over([run(100, 5.0)], 3)
    assert not trunk_is_over([run(100, 5.0), run(200, 4.9)], 3)
    assert trunk_is_over([run(100, 5.0), run(200, 5.1)], 3)
    assert trunk_is_over([run(100, 5.0), run(200, 4.9), run(400, 4.8)], 3)


def test_a_one_pass_trunk_goes_on_whatever_validation_does() -> None:
    assert not trunk_is_over([run(100, 5.0, epochs=1), run(200, 5.1, epochs=1)], 3)


def test_a_diverged_trunk_is_over() -> None:
    assert trunk_is_over([run(100, None, status="diverged")], 3)


def test_the_best_validation_of_a_trunk_is_selected() -> None:
    gated = apply_gates([run(400, 5.2), run(100, 5.0), run(200, 4.8)], None)
    assert [each["selected"] for each in gated] == [False, False, True]


def test_one_pass_branches_are_all_selected() -> None:
    gated = apply_gates([run(400, 4.0, epochs=1), run(800, 3.9, epochs=1)], None)
    assert all(each["selected"] for each in gated)


def test_few_steps_need_a_validation_that_turned_up() -> None:
    assert statuses(run(100, 5.0), run(200, 4.9)) == ["undertrained", "undertrained"]
    assert statuses(run(100, 4.8), run(200, 4.9)) == ["done", "undertrained"]
    assert statuses(run(300, 4.9)) == ["done"]


def test_a_branch_that_diverged_later_is_no_validation_that_turned_up() -> None:
    later = run(200, None, status="diverged")
    assert statuses(run(100, 5.0), later) == ["undertrained", "diverged"]


def test_a_student_above_its_bigram_line_is_undertrained() -> None:
    lines = {"bigram": [{"n_unique_tokens": 1000, "cross_entropy": 4.5}]}
    assert statuses(run(400, 4.6), reference=lines) == ["undertrained"]
    assert statuses(run(400, 4.4), reference=lines) == ["done"]
    assert statuses(run(400, 4.6, n_unique_tokens=5), reference=lines) == ["done"]
    assert statuses(run(400, 4.6, cross_entropy=None), reference=lines) == ["done"]


def test_diverged_runs_stay_diverged() -> None:
    assert statuses(run(10, None, status="diverged")) == ["diverged"]


@pytest.mark.parametrize("column", ["trunk", "n_steps", "epochs", "n_unique_tokens", "status"])
@pytest.mark.parametrize("given", [{}, {"selected": False}])
def test_a_record_that_lacks_what_the_rules_read_stays_as_it_is(
    column: str, given: dict[str, Any]
) -> None:
    foreign = {name: value for name, value in run(100, 4.0).items() if name != column} | given
    gated = apply_gates([foreign, foreign | {column: None}, run(200, 4.9, trunk="u")], None)
    assert gated[:2] == [foreign, foreign | {column: None}]
    assert gated[2]["status"] == "undertrained"
