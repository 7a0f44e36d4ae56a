"""The commands that use laws: plans, designs, recommendations, claims; ``cli`` registers them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdlaws.cli_common import Json, pairs, show
from kdlaws.errors import InputError
from kdlaws.quantities import parse_number

if TYPE_CHECKING:
    from kdlaws.advice.costs import Rate
    from kdlaws.advice.space import TeacherOption

FitFile = Annotated[str, typer.Argument(metavar="FIT", help="A file, or published:NAME.")]
Scratch = Annotated[str | None, typer.Option(help="A fit of runs without a teacher.")]
Extrapolate = Annotated[
    bool, typer.Option("--extrapolate", help="Leave the range of a published law.")
]

SIZES = ("n_params", "n_params_non_embedding")
BUDGETS = ("flops", "hours", "money")
RATES = ("flops_per_second", "price_per_hour", "price_per_gigabyte")
COSTS = ("serve_tokens", "n_students", "n_unique_tokens", "cache_bytes_per_token")
TEACHERS = {  # keys that take one value for each teacher, and what they are of an option
    "teacher_n_params": "n_params",
    "teacher_n_params_non_embedding": "n_params",
    "teacher_n_tokens": "n_tokens",
    "teacher_cross_entropy": "cross_entropy",
    "teacher_forward_flops_per_token": "forward",
}
WORDS = ("scenario", "method", "teacher", "teacher_outputs")
NUMBERS = ("teacher_tokens_per_param", "tolerance")


def plan(
    fit: FitFile,
    asked: Annotated[list[str], typer.Argument(metavar="KEY=VALUE...", help="What to plan for.")],
    scratch: Scratch = None,
    extrapolate: Extrapolate = False,
    as_json: Json = False,
) -> None:
    """The best student that a budget buys: its size, tokens and teacher, and how sure that is."""
    from kdlaws import laws
    from kdlaws.advice.plan import plan as best_plan

    law = laws.load_fit(fit)
    found = best_plan(
        law,
        scratch=None if scratch is None else laws.load_fit(scratch),
        extrapolate=extrapolate,
        **plan_settings(pairs(asked, "plan"), law.n_column),
    )
    show(found, as_json)


def plan_settings(given: Mapping[str, str], n_column: str) -> dict[str, Any]:
    """What ``kdlaws.advice.plan.plan`` takes, from texts by key. InputError for what is none."""
    known = (*BUDGETS, *RATES, *COSTS, *NUMBERS, *WORDS, *SIZES, *TEACHERS)
    _refuse_unknown(given, known)
    _refuse_other_n(given, n_column)
    from kdlaws.advice.costs import budget_flops

    rate = _rate(given)
    budget = {name: _number(given, name) for name in BUDGETS if name in given}
    settings = {name: _number(given, name) for name in (*COSTS, *NUMBERS) if name in given}
    settings |= {name: given[name] for name in ("scenario", "method") if name in given}
    if n_column in given:
        settings["n_params"] = _number(given, n_column)
    return settings | {
        "budget": budget_flops(rate, **budget),
        "rate": rate,
        "teachers": _teachers(given),
        "is_online": _is_online(given.get("teacher_outputs", "stored")),
    }


def _refuse_unknown(given: Mapping[str, str], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            raise InputError(
                "there is no such key", where=name, remedy=f"the keys are {', '.join(known)}"
            )


def _refuse_other_n(given: Mapping[str, str], n_column: str) -> None:
    """Parameters counted otherwise than the fit counts them."""
    [other] = set(SIZES) - {n_column}
    for wrong, right in ((other, n_column), (f"teacher_{other}", f"teacher_{n_column}")):
        if wrong in given:
            raise InputError(
                f"the fit reads {n_column}, and {other} is another count",
                where=wrong,
                remedy=f"give {right}=...",
            )


def _number(given: Mapping[str, str], name: str) -> float:
    return _parsed(given[name], name)


def _parsed(text: str, name: str) -> float:
    try:
        return parse_number(text)
    except ValueError as error:
        raise InputError(str(error), where=name) from None


def _is_online(outputs: str) -> bool:
    if outputs not in ("stored", "online"):
        raise InputError(
            f"no teacher outputs {outputs!r}", where="teacher_outputs", remedy="stored or online"
        )
    return outputs == "online"


def _rate(given: Mapping[str, str]) -> "Rate":
    """``flops_per_second`` is a number, or a study's folder or table in which it was measured."""
    from kdlaws.advice.costs import Rate, measured_rate

    rates = {name: given[name] for name in RATES if name in given}
    source = Path(rates.get("flops_per_second", ""))
    if rates.get("flops_per_second") and source.exists():
        speed: float | None = measured_rate(source)
    else:
        speed = _number(rates, "flops_per_second") if "flops_per_second" in rates else None
    prices = {name: _number(rates, name) for name in RATES[1:] if name in rates}
    return replace(Rate(flops_per_second=speed), **prices)


def _teachers(given: Mapping[str, str]) -> "list[TeacherOption]":
    """One option for each place of the lists, ``teacher_n_params=1B,3B teacher_n_tokens=...``."""
    from kdlaws.advice.space import TeacherOption

    lists = {name: given[name].split(",") for name in TEACHERS if name in given}
    names = given["teacher"].split(",") if "teacher" in given else []
    lengths = {name: len(each) for name, each in lists.items()}
    if len(set(lengths.values()) | ({len(names)} if names else set())) > 1:
        told = ", ".join(f"{name} has {n}" for name, n in lengths.items())
        raise InputError(
            f"{told}{f', teacher has {len(names)}' if names else ''}",
            where="teachers",
            remedy="give one value for each teacher, joined by commas",
        )
    rows = zip(*lists.values(), strict=True)
    return [
        TeacherOption(
            name=label or "",
            **{
                TEACHERS[name]: _parsed(text, name)
                for name, text in zip(lists, row or (), strict=True)
            },
        )
        for row, label in zip_longest(rows, names)
    ]


def recommend(
    runs: Annotated[Path, typer.Argument(metavar="TABLE|RUNS", help="Measured models.")],
    rest: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FIT] KEY=VALUE...", help="A fit, then constraints."),
    ] = None,
    where: Annotated[str, typer.Option("--where", help="Rows: method=token,n_tokens>=1e6.")] = "",
    columns: Annotated[str, typer.Option("--columns", help="Renames: n_params=N.")] = "",
    as_json: Json = False,
) -> None:
    """The best models under constraints, measured and, with a fit, predicted."""
    from kdlaws import laws
    from kdlaws.advice.candidates import load_models
    from kdlaws.advice.constraints import Constraints
    from kdlaws.advice.recommend import recommend as recommended
    from kdlaws.selection import select

    given = list(rest or [])
    law = laws.load_fit(given.pop(0)) if given and "=" not in given[0] else None
    table = load_models(runs, columns=columns)
    chosen = select(table, where) if where else table
    constraints = Constraints.of(pairs(given, "recommend"))
    show(recommended(chosen, law, constraints=constraints), as_json)
