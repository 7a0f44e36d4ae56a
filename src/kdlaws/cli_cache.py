"""The commands for stored teacher outputs; ``cli`` registers them as ``kdlaws cache``."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from kdlaws.cli_common import (
    Arguments,
    Json,
    new_table,
    print_json,
    print_table,
    require_lab,
    study_of,
)
from kdlaws.errors import InputError, KdlawsError
from kdlaws.quantities import human
from kdlaws.records import read_json

app = typer.Typer(
    help="What students read of their teachers: computed once, stored, read by all of them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def build(arguments: Arguments = None, as_json: Json = False) -> None:
    """Store the outputs that the study's students read; its teachers are trained if need be."""
    study = study_of(arguments)
    require_lab()
    from kdlaws.lab import progress, sweep

    sweep.build_caches(study, progress.Reporter("cache"))
    _show(study.folder, as_json)


@app.command()
def info(arguments: Arguments = None, as_json: Json = False) -> None:
    """What is stored, what it took, and what it leaves out. Needs no torch."""
    _show(study_of(arguments).folder, as_json)


@app.command()
def verify(arguments: Arguments = None, as_json: Json = False) -> None:
    """Hash all that is stored and what it was made from, and ask the teachers again."""
    study = study_of(arguments)
    require_lab()
    from kdlaws.lab import cache_verify, sweep

    folder = study.folder / "cache"
    specs = sweep.cache_specs(study)
    found = [cache_verify.verify(folder / spec.name, spec, study.device) for spec in specs]
    if as_json:
        print_json({"caches": [asdict(each) for each in found]})
    problems = [problem for each in found for problem in each.problems]
    for each in (each for each in found if not (each.problems or as_json)):
        print(
            f"{each.name}: {each.n_files} files are as they were written, and the teacher says of "
            f"{each.n_windows_read_again} windows what is stored"
        )
    if problems:
        raise KdlawsError("\n  ".join([f"{len(problems)} problems:", *problems]))


def _show(folder: Path, as_json: bool) -> None:
    rows = [_row(manifest) for manifest in sorted(folder.glob("cache/*/manifest.json"))]
    if not rows:
        raise InputError(
            "no teacher outputs are stored there",
            where=str(folder),
            remedy="`kdlaws cache build`, or training, stores them for students that read them: "
            "not for those without a teacher, or with cache.outputs=online",
        )
    if as_json:
        print_json({"folder": str(folder), "caches": rows})
    else:
        _print_rows(rows)


def _row(path: Path) -> dict[str, Any]:
    manifest = read_json(path)
    hidden = manifest["hidden"] or {}
    names = ("n_windows", "n_stream_windows", "n_tokens", "bytes", "bytes_per_token")
    costs = ("flops", "cpu_s", "teacher_cross_entropy", "bias")
    return {
        "name": path.parent.name,
        "teacher": manifest["teacher"],
        "form": manifest["form"],
        "temperatures": manifest["identity"]["temperatures"],
        **{name: manifest[name] for name in names},
        **{name: hidden.get(name) for name in ("n_components", "kept_variance")},
        **{name: manifest[name] for name in costs},
    }


def _print_rows(rows: list[dict[str, Any]]) -> None:
    table = new_table("cache", "form", "windows", "bytes", "bytes a token", right_from=2)
    for heading in ("kept variance", "kept mass", "FLOPs", "CPU s", "teacher's cross-entropy"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(row["name"], row["form"] or "hidden states only", *_cells(row))
    print_table(table)
    for row in rows:
        for bias in row["bias"]:
            print(f"{row['name']}: biased: {bias['meaning']}")


def _cells(row: dict[str, Any]) -> list[str]:
    kept_mass = ", ".join(f"{bias['kept_mass']:.3f}" for bias in row["bias"])
    kept_variance = row["kept_variance"]
    return [
        f"{row['n_windows']:,} of {row['n_stream_windows']:,}",
        human(row["bytes"]),
        _number(row["bytes_per_token"], ".1f"),
        _number(kept_variance, ".4f"),
        kept_mass or "-",
        f"{row['flops']:.2g}",
        f"{row['cpu_s']:.1f}",
        _number(row["teacher_cross_entropy"], ".4f"),
    ]


def _number(value: float | None, style: str) -> str:
    """A build that was stopped before its first shard has no means yet."""
    return "-" if value is None else format(value, style)
