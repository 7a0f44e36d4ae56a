"""The commands that use laws: plans, designs, recommendations, claims; ``cli`` registers them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any

import typer

from kdlaws.cli_common import Json, pairs, print_json, show
from kdlaws.errors import InputError
from kdlaws.quantities import parse_number

Scratch = Annotated[str | None, typer.Option(help="A fit of runs without a teacher.")]
Extrapolate = Annotated[
    bool, typer.Option("--extrapolate", help="Leave the range of a published law.")
]
Columns = Annotated[str, typer.Option("--columns", help="Renames: n_params=N.")]
Where = Annotated[str, typer.Option("--where", help="Rows: method=token,n_tokens>=1e6.")]

SIZES = {"n_params": "total", "n_params_non_embedding": "non_embedding"}
BUDGETS = ("flops", "hours", "money")
RATES = ("flops_per_second", "price_per_hour", "price_per_gigabyte")
NUMBERS = (
    *("serve_tokens", "n_students", "n_unique_tokens", "cache_bytes_per_token"),
    *("teacher_tokens_per_param", "tolerance"),
)
WORDS = ("scenario", "method")
TEACHERS = {  # keys that take one value for each teacher, and what they are of an option
    "teacher_n_params": "n_params",
    "teacher_n_params_non_embedding": "n_params",
    "teacher_n_tokens": "n_tokens",
    "teacher_cross_entropy": "cross_entropy",
    "teacher_forward_flops_per_token": "forward",
}
PLAN_KEYS = (
    *(*BUDGETS, *RATES, *NUMBERS, *WORDS, *SIZES, *TEACHERS),
    *("teacher", "teacher_outputs"),
)
DESIGN_KEYS = ("plan_flops", "scenario", "method", "trunk_noise", "run_noise")
DEARER = 10.0  # times the dearest run: the budget that a design is for, unless it is told


# --- plan ---------------------------------------------------------------------------------------


def plan(
    fit: Annotated[str, typer.Argument(metavar="FIT", help="A file, or published:NAME.")],
    asked: Annotated[list[str], typer.Argument(metavar="KEY=VALUE...", help="What to plan for.")],
    scratch: Scratch = None,
    extrapolate: Extrapolate = False,
    as_json: Json = False,
) -> None:
    """The best student that a budget buys: its size, tokens and teacher, and how sure that is."""
    from kdlaws import advice, laws

    law, given = laws.load_fit(fit), pairs(asked, "plan")
    _refuse_unknown(given, PLAN_KEYS)
    _refuse_other_n(given, law.n_column)
    rate = _rate(given)
    numbers: dict[str, Any] = {x: _number(given, x) for x in NUMBERS if x in given}
    words: dict[str, Any] = {x: given[x] for x in WORDS if x in given}
    found = advice.plan(
        law,
        advice.budget_flops(rate, **{x: _number(given, x) for x in BUDGETS if x in given}),
        scratch=None if scratch is None else laws.load_fit(scratch),
        teachers=_teachers(given),
        n_params=_number(given, law.n_column) if law.n_column in given else None,
        is_online=_is_online(given.get("teacher_outputs", "stored")),
        rate=rate,
        extrapolate=extrapolate,
        **numbers,
        **words,
    )
    show(found, as_json)


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


def _rate(given: Mapping[str, str]) -> Any:
    """A ``Rate``; ``flops_per_second`` is a number, or a folder or table where it was measured."""
    from kdlaws.advice import Rate
    from kdlaws.advice.planning.costs import measured_rate

    rates: dict[str, Any] = {x: _number(given, x) for x in RATES[1:] if x in given}
    speed = given.get("flops_per_second")
    if speed is not None:
        is_measured = Path(speed).exists()
        rates["flops_per_second"] = (
            measured_rate(Path(speed)) if is_measured else _number(given, "flops_per_second")
        )
    return Rate(**rates)


def _teachers(given: Mapping[str, str]) -> list[Any]:
    """A ``TeacherOption`` for each place of the lists, such as ``teacher_n_params=1B,3B``."""
    from kdlaws.advice import TeacherOption

    lists = {name: given[name].split(",") for name in TEACHERS if name in given}
    names = given["teacher"].split(",") if "teacher" in given else []
    lengths = {name: len(each) for name, each in lists.items()}
    lengths |= {"teacher": len(names)} if names else {}
    if len(set(lengths.values())) > 1:
        raise InputError(
            ", ".join(f"{name} has {n}" for name, n in lengths.items()),
            where="teachers",
            remedy="give one value for each teacher, joined by commas",
        )
    rows = [
        {TEACHERS[name]: _parsed(text, name) for name, text in zip(lists, row, strict=True)}
        for row in zip(*lists.values(), strict=True)
    ]
    return [TeacherOption(name=x or "", **(row or {})) for row, x in zip_longest(rows, names)]


# --- design -------------------------------------------------------------------------------------


def design(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FIT] KEY=VALUE...", help="A fit of pilots; then settings."),
    ] = None,
    proposed: Annotated[
        Path | None,
        typer.Option("--runs", help="The proposed study: a folder, a table, a dry run's JSON."),
    ] = None,
    where: Where = "",
    n: Annotated[str | None, typer.Option("--n", help="total or non_embedding.")] = None,
    columns: Columns = "",
    as_json: Json = False,
) -> None:
    """Which runs to make: what a proposed study would tell, or which runs to add to pilots."""
    from kdlaws import advice, laws
    from kdlaws.advice.planning.asked import one_law

    given = list(arguments or [])
    fit = one_law(laws.load_fit(given.pop(0))) if given and "=" not in given[0] else None
    asked = pairs(given, "design")
    if proposed is not None:
        counted = n if n or fit is None else SIZES[fit.n_column]
        proposal = advice.proposal_of(proposed, n=counted, where=where, columns=columns)
        show(_proposed(proposal, asked, fit), as_json)
    elif fit is not None:
        show(_suggested(fit, asked), as_json)
    else:
        raise InputError(
            "neither pilots nor a proposed study are given",
            where="design",
            remedy="give a FIT of pilots, or --runs with the study that you propose",
        )


def _proposed(proposal: Any, asked: Mapping[str, str], fit: Any) -> Any:
    """What a proposed study would tell; without a fit, other keys are the guess of parameters."""
    from kdlaws import advice

    if fit is not None:
        _refuse_unknown(asked, (*DESIGN_KEYS, "law", "about"))
    settings = _design_settings(asked, dearest=float(proposal.flops.max()))
    if "law" in asked or fit is not None:
        settings["law"] = asked.get("law") or fit.law
    if "about" in asked:
        settings["about"] = asked["about"].split(",")
    guess = {x: _number(asked, x) for x in asked if x not in (*DESIGN_KEYS, "law", "about")}
    return advice.design(proposal, guess=fit or guess, **settings)


def _suggested(fit: Any, asked: Mapping[str, str]) -> Any:
    """The runs to add to pilots."""
    from kdlaws import advice

    _refuse_unknown(asked, ("flops", "most", *DESIGN_KEYS))
    if "flops" not in asked:
        raise InputError("what may the runs cost?", where="flops", remedy="give flops=...")
    budget = _number(asked, "flops")
    dearest = budget if fit.new_run is None else fit.new_run.largest_flops
    settings = _design_settings(asked, dearest)
    if "most" in asked:
        settings["most"] = int(_number(asked, "most"))
    return advice.suggest(fit, budget, **settings)


def _design_settings(asked: Mapping[str, str], dearest: float) -> dict[str, Any]:
    """What both kinds of design read."""
    from kdlaws.laws.expected import Noise

    settings: dict[str, Any] = {name: asked[name] for name in WORDS if name in asked}
    told = "plan_flops" in asked
    settings["plan_budget"] = _number(asked, "plan_flops") if told else DEARER * dearest
    noise = {x: f"{x}_noise" for x in ("trunk", "run") if f"{x}_noise" in asked}
    if noise:
        settings["noise"] = Noise(**{part: _number(asked, key) for part, key in noise.items()})
    return settings


# --- recommend, claims --------------------------------------------------------------------------


def recommend(
    runs: Annotated[Path, typer.Argument(metavar="TABLE|RUNS", help="Measured models.")],
    rest: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FIT] KEY=VALUE...", help="A fit, then constraints."),
    ] = None,
    where: Where = "",
    columns: Columns = "",
    as_json: Json = False,
) -> None:
    """The best models under constraints, measured and, with a fit, predicted."""
    from kdlaws import advice, laws
    from kdlaws.advice.choosing.candidates import load_models
    from kdlaws.selection import select

    given = list(rest or [])
    law = laws.load_fit(given.pop(0)) if given and "=" not in given[0] else None
    constraints = advice.Constraints.of(pairs(given, "recommend"))
    table = load_models(runs, columns=columns)
    chosen = select(table, where) if where else table
    show(advice.recommend(chosen, law, constraints=constraints), as_json)


def claims(
    runs: Annotated[Path, typer.Argument(metavar="RUNS", help="The folder of a study.")],
    as_guidelines: Annotated[
        bool, typer.Option("--guidelines", help="What to do, in plain words, instead.")
    ] = False,
    as_json: Json = False,
) -> None:
    """What the runs say of the eight findings that were expected: verdicts with intervals."""
    from kdlaws import advice
    from kdlaws.advice.judging.guidelines import to_markdown

    found = advice.claims(runs)
    if not as_guidelines:
        show(found, as_json)
        return
    told = advice.guidelines(found)
    if as_json:
        print_json({"guidelines": [asdict(each) for each in told]})
    else:
        print(to_markdown(told), end="")
