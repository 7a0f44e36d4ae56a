"""The commands that fit laws, compare them and predict by them; ``cli`` registers them."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from kdlaws.cli_common import Json, pairs, print_json, show
from kdlaws.errors import InputError
from kdlaws.quantities import human, parse_number

if TYPE_CHECKING:
    from kdlaws.selection import LawInput
    from kdlaws.tables import LoadedTable

TableFile = Annotated[Path, typer.Argument(metavar="TABLE|RUNS", help="A table, or a study.")]
Renames = Annotated[str, typer.Option("--columns", help="Renames: n_params=N,n_tokens=D.")]
Where = Annotated[str, typer.Option("--where", help="Rows: method=token,n_tokens>=1e6.")]
WhichN = Annotated[str | None, typer.Option("--n", help="total or non_embedding.")]
Level = Annotated[float, typer.Option("--level", min=0.01, max=0.999, help="Of the intervals.")]
Loss = Annotated[Literal["huber", "squares"], typer.Option("--loss", help="What is minimised.")]
Seed = Annotated[int, typer.Option("--seed", help="Of the resampling.")]
Out = Annotated[Path | None, typer.Option("--out", help="Save the result.")]


def fit(
    table: TableFile,
    law: Annotated[str, typer.Option(help="One of `kdlaws laws`, or path.py:name.")] = "chinchilla",
    columns: Renames = "",
    where: Where = "",
    n: WhichN = None,
    fix: Annotated[str, typer.Option(help="Pin, tie or free: E=1.6,alpha=beta,w=free.")] = "",
    loss: Loss = "huber",
    bootstrap: Annotated[int, typer.Option(min=0, help="Refits where no trunk is shared.")] = 1000,
    level: Level = 0.9,
    seed: Seed = 0,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Fit a law to a table of runs, with intervals."""
    from kdlaws import laws, tables

    known = laws.find(law)
    pins = pairs(tables.split_list(fix), "--fix")
    runs, notices = _runs(_rows(table, columns, where), known.reads, known.optional, n)
    fitted = laws.fit(
        runs.columns,
        law,
        fixed={name: _number_or_text(value) for name, value in pins.items()},
        loss=loss,
        level=level,
        bootstrap=bootstrap,
        seed=seed,
        notices=notices,
        **runs.arguments(),
    )
    if out is not None:
        fitted.save(out)
    show(fitted, as_json)


def compare(
    table: TableFile,
    names: Annotated[str, typer.Option("--laws", help="Compare these: chinchilla,broken.")] = "",
    holdout: Annotated[float, typer.Option(help="Share, of largest compute, held out.")] = 0.3,
    by: Annotated[str, typer.Option(help="A column whose values are left out in turn.")] = "",
    columns: Renames = "",
    where: Where = "",
    n: WhichN = None,
    loss: Loss = "huber",
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Save what was chosen, as a fit.")] = None,
    as_json: Json = False,
) -> None:
    """Back-test laws on the runs of largest compute, and choose one or a combination."""
    from kdlaws import laws, tables

    rows = _rows(table, columns, where)
    groups = _groups(rows, by) if by else []
    asked = tables.split_list(names)
    reads, optional = _read_by(asked) if asked else _existing(rows)
    if groups:  # as numbers, which any column may be turned into
        numbers = [float(groups.index(group)) for group in groups]
        rows = replace(rows, frame=rows.frame.assign(group=numbers))
    runs, notices = _runs(rows, reads, [*optional, *(["group"] if groups else [])], n)
    labels = [groups[int(number)] for number in runs.columns["group"]] if groups else None
    same: dict[str, Any] = {"loss": loss, "seed": seed, "notices": notices, **runs.arguments()}
    comparison = laws.compare(runs.columns, asked, group=labels, holdout=holdout, **same)
    if out is not None:
        laws.combine(runs.columns, comparison.chosen, **same).save(out)
    show(comparison, as_json)


def isoflop(
    table: TableFile,
    columns: Renames = "",
    where: Where = "",
    n: WhichN = None,
    level: Level = 0.9,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Find the best size at each compute budget, and how it grows with compute."""
    from kdlaws import laws

    rows = _rows(table, columns, where)
    reads = ["N", "flops", *(["n_tokens"] if "n_tokens" in rows.frame else [])]
    runs, notices = _runs(rows, reads, (), n)
    found = laws.isoflop(
        runs.columns,
        n_column=runs.n_column,
        level=level,
        source=runs.source,
        n_dropped=runs.n_dropped,
        notices=notices,
    )
    if out is not None:
        found.save(out)
    show(found, as_json)


def _rows(table: Path, columns: str, where: str) -> "LoadedTable":
    from kdlaws import selection, tables

    return selection.select(tables.read_table(table, columns=columns), where)


def _runs(
    rows: "LoadedTable", reads: Sequence[str], optional: Sequence[str], n: str | None
) -> "tuple[LawInput, list[Any]]":
    """What laws read of the rows, and its notices; these, and rows left out, go to stderr."""
    from kdlaws import laws, selection

    runs = selection.law_columns(rows, reads, optional=optional, n=n)
    notices = [laws.Notice(*notice) for notice in runs.notices]
    for line in runs.dropped:
        print(f"left out: {line}", file=sys.stderr)
    for notice in notices:
        print(f"{notice.code}: {notice.message}\n  {notice.remedy}", file=sys.stderr)
    return runs, notices


def _read_by(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The columns that laws of these names read, and those that they read where known."""
    from kdlaws import laws

    known = [laws.find(name) for name in names]
    return [x for law in known for x in law.reads], [x for law in known for x in law.optional]


def _existing(rows: "LoadedTable") -> tuple[list[str], list[str]]:
    """The same where no law is named: N and D, else FLOPs; and what else this table has.

    Not the methods without their teachers' size, on which gains depend; not ``n_unique_tokens``
    with a gap.
    """
    has = set(rows.frame)
    sizes = {"n_params", "n_params_non_embedding"}
    reads = ["N", "n_tokens"] if has & sizes and "n_tokens" in has else ["flops"]
    optional = ["teacher_cross_entropy"] if "teacher_cross_entropy" in has else []
    if "method" in has and has & {f"teacher_{name}" for name in sizes}:
        optional += ["method", "teacher_N"]
    if "n_unique_tokens" in has and rows.frame["n_unique_tokens"].notna().all():
        optional.append("n_unique_tokens")
    return reads, optional


def _groups(rows: "LoadedTable", by: str) -> list[str]:
    """Of each row, ``by=value``."""
    if by not in rows.frame:
        raise InputError(
            f"the table has no column {by!r}",
            where="--by",
            remedy=f"it has {', '.join(map(str, rows.frame))}",
        )
    cells = rows.frame[by].tolist()
    # 15 digits, all that a float has: sizes that differ in the seventh are two groups.
    return [f"{by}={cell:.15g}" if isinstance(cell, float) else f"{by}={cell}" for cell in cells]


def predict(
    fit: Annotated[str, typer.Argument(metavar="FIT", help="A file, or published:NAME.")],
    values: Annotated[list[str], typer.Argument(metavar="KEY=VALUE...", help="The model.")],
    scratch: Annotated[str | None, typer.Option(help="A fit of runs without a teacher.")] = None,
    as_json: Json = False,
) -> None:
    """What a fit says of one model: cross-entropy, the curve's interval and a new run's."""
    from kdlaws import laws

    fits = [laws.load_fit(reference) for reference in (fit, scratch) if reference is not None]
    model = pairs(values, "predict")
    readable = dict.fromkeys(name for each in fits for name in _keys(each))
    if unknown := [name for name in model if name not in readable]:
        what, remedy = f"does not read {', '.join(unknown)}", f"it reads {', '.join(readable)}"
        raise InputError(what, where=fit, remedy=remedy)
    columns = {name: _value(name, text) for name, text in model.items()}
    show(laws.predict(fits[0], columns, *fits[1:]), as_json)


def _keys(fit: Any) -> list[str]:
    """What a fit, or a combination of fits, reads of a model, by the names of a table's columns."""
    from kdlaws import laws
    from kdlaws.laws.law import column_of

    keys: list[str] = []
    for each in fit.fits if isinstance(fit, laws.Mixture) else (fit,):
        roles = (*each.form.reads, *each.form.optional)
        keys += [column_of(role, each.n_column) for role in roles]
        if "teacher_cross_entropy" in keys:  # which follows from the teacher's size and tokens
            keys += [f"teacher_{each.n_column}", "teacher_n_tokens"]
        if each.new_run is not None and each.new_run.flops_per_6nd:  # which give its flops
            keys += [each.n_column, "n_tokens"]
        keys += each.domain
    return list(dict.fromkeys(keys))


def _value(name: str, text: str) -> float | str:
    """A column's value: a number, unless it is the method."""
    if name == "method":
        return text
    try:
        return parse_number(text)
    except ValueError as error:
        raise InputError(str(error), where=name) from None


def _number_or_text(text: str) -> float | str:
    try:
        return parse_number(text)
    except ValueError:
        return text


def list_laws(as_json: Json = False) -> None:
    """The laws that can be fitted, and the fits that papers have published."""
    from kdlaws.laws import LAWS, PUBLISHED
    from kdlaws.laws.catalogue import ALSO

    of_law = ("name", "equation", "reads", "optional", "source")
    laws = [{key: getattr(law, key) for key in of_law} for law in LAWS.values()]
    of_fit = ("law", "source", "n_column", "cost", "domain")
    fits = [{"name": n, **{key: getattr(f, key) for key in of_fit}} for n, f in PUBLISHED.items()]
    if as_json:
        print_json({"laws": laws, "also": dict(ALSO), "published": fits})
        return
    for law in laws:
        where_known = f", where known {', '.join(law['optional'])}" if law["optional"] else ""
        print(f"{law['name']:<17}{law['equation']}")
        print(f"{'':<17}reads {', '.join(law['reads'])}{where_known}; {law['source']}")
    for other, name in ALSO.items():
        print(f"{other:<17}the same equation as {name} (Videau et al. 2026, arXiv:2608.07222)")
    for fit in fits:
        ends = ", ".join(f"{x} {human(lo)} to {human(hi)}" for x, (lo, hi) in fit["domain"].items())
        print(f"published:{fit['name']}\n{'':17}{fit['law']}; {fit['source']}")
        print(f"{'':17}FLOPs {fit['cost']}; range {ends}")
