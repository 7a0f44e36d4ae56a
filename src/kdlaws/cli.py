"""The command line. Each command parses, imports its wing, calls one function and prints."""

import math
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import kdlaws
from kdlaws import cli_advice, cli_cache, cli_laws, cli_models, shapes
from kdlaws.cli_common import (
    Arguments,
    Json,
    new_table,
    print_json,
    print_table,
    require_lab,
    study_of,
)
from kdlaws.errors import InputError, KdlawsError, StoppedError
from kdlaws.quantities import human
from kdlaws.records import PLAN

if TYPE_CHECKING:
    from kdlaws.study import Plan

app = typer.Typer(
    name="kdlaws",
    help="Scaling laws for knowledge distillation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Runs = Annotated[Path, typer.Argument(metavar="RUNS", help="The folder of a study.")]


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command; errors of ours print their message and set the exit code."""
    signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGTERM, _stop)
    try:
        app(args=None if argv is None else list(argv))
    except KdlawsError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        sys.exit(InputError.exit_code)


def _stop(*_: object) -> None:
    raise StoppedError("stopped", remedy="the same command goes on from here; finished runs stay")


def version(value: bool) -> None:
    if value:
        print(f"kdlaws {kdlaws.__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    pass


@app.command()
def models(
    objective: Annotated[
        Literal["causal", "masked"], typer.Option(help="Of Granite or of BERT students.")
    ] = "causal",
    as_json: Json = False,
) -> None:
    """The ladder: every size, its parameters by each convention, its FLOPs per token."""
    ladder = shapes.ladder(objective)
    rows = [_model_row(shape) for shape in ladder]
    if as_json:
        print_json({"models": rows})
        return
    table = new_table(
        "size", "layers", "width", "vocabulary", "N total", "N non-embedding", "N head"
    )
    table.add_column("forward FLOPs per token", justify="right")
    for row, shape in zip(rows, ladder, strict=True):
        counts = (row["n_params"], row["n_params_non_embedding"], row["n_params_head"])
        flops = row["forward_flops_per_token"]
        cells = (shape.n_layers, shape.d_model, shape.n_vocab, *counts, flops)
        table.add_row(shape.name, *(f"{cell:,}" for cell in cells))
    print_table(table)


def _model_row(shape: shapes.Shape) -> dict[str, Any]:
    return {
        "name": shape.name,
        "objective": shape.objective,
        "n_layers": shape.n_layers,
        "d_model": shape.d_model,
        "n_vocab": shape.n_vocab,
        "n_ctx": shape.n_ctx,
        "n_params": shape.n_params,
        "n_params_non_embedding": shape.n_params_non_embedding,
        "n_params_head": shape.n_params_head,
        "forward_flops_per_token": shape.forward_flops_per_token,
    }


@app.command()
def train(
    arguments: Arguments = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print every run and its cost; train nothing.")
    ] = False,
    workers: Annotated[int | None, typer.Option(help="Worker processes.")] = None,
    as_json: Json = False,
) -> None:
    """Train every run of a study that is not there yet. Interrupted, it goes on where it was."""
    study = study_of(arguments, *([] if workers is None else [f"workers={workers}"]))
    require_lab()
    from kdlaws.lab import executors, progress, sweep

    if dry_run:
        planned, rates = sweep.dry_run(study)
        rows, workers = sweep.plan_rows(planned, rates), executors.n_workers(study)
        print_json({"runs": rows}) if as_json else _print_plan(planned, rows, workers)
        return
    sweep.train(study, progress.Reporter("train"))
    _print_inventory(study.folder, as_json)


def _print_plan(planned: "Plan", rows: list[dict[str, Any]], workers: int) -> None:
    from kdlaws.inventory import seconds_by_trunk

    table = new_table("run", "N", "N non-emb.", "N head", "tokens", "unique", right_from=1)
    for heading in ("student", "teacher inf.", "teacher train.", "saved", "s"):
        table.add_column(heading, justify="right", no_wrap=True)
    buckets = ("student", "teacher_inference", "teacher_training", "cache_saved")
    for row in rows:
        counts = ("n_params", "n_params_non_embedding", "n_params_head", "n_tokens")
        cells = [human(row[name]) for name in (*counts, "n_unique_tokens")]
        flops = [_amount(row[f"{bucket}_flops"]) for bucket in buckets]
        table.add_row(row["run_id"], *cells, *flops, f"{row['seconds']:.0f}")
    print_table(table)
    seconds = sum(seconds_by_trunk(rows, planned.study.optimiser.cooldown_share).values())
    print(f"{len(rows)} runs in {len(planned.trunks())} trunks; FLOPs of each run alone.")
    print(
        f"About {seconds:,.0f} CPU seconds of training (two timed steps of each shape), "
        f"{seconds / workers / 60:.0f} minutes with {workers} workers; the teachers' reading, "
        "evaluation and the report come on top."
    )
    if not planned.text.exact:
        print(
            f"Tokens are estimated as bytes / {planned.text.bytes_per_token:.2g}: no token stream "
            "has been made yet, so the last eight digits of the names will differ."
        )


def _amount(flops: float) -> str:
    """Nobody knows what every teacher's training took."""
    return "?" if math.isnan(flops) else f"{flops:.2g}"


@app.command()
def runs(
    folder: Runs,
    csv: Annotated[Path | None, typer.Option(help="Write the table of finished runs.")] = None,
    as_json: Json = False,
) -> None:
    """What is there and what is missing."""
    from kdlaws import tables

    if csv is not None:
        tables.write_table(tables.study_table(folder), csv)
    if not as_json and csv is not None and not (folder / PLAN).exists():
        print(f"wrote {csv}")
        return
    _print_inventory(folder, as_json, every_run=True)


@app.command()
def status(
    folder: Runs,
    watch: Annotated[bool, typer.Option("--watch", help="Print again every ten seconds.")] = False,
    as_json: Json = False,
) -> None:
    """How far a study is, also while it runs."""
    _print_inventory(folder, as_json)
    while watch:
        time.sleep(10)
        _print_inventory(folder, as_json)


def _print_inventory(folder: Path, as_json: bool, *, every_run: bool = False) -> None:
    from kdlaws.inventory import take_inventory, trunk_steps

    inventory = take_inventory(folder)
    if as_json:
        runs = [
            {"run_id": entry.run_id, "state": entry.state, "evaluated": entry.is_evaluated}
            for entry in inventory.entries
        ]
        counts = dict(inventory.counts)
        print_json({"folder": str(folder), "counts": counts, "runs": runs})
        return
    if every_run:
        table = new_table("run", "state", "evaluated")
        for entry in inventory.entries:
            table.add_row(entry.run_id, entry.state, "yes" if entry.is_evaluated else "no")
        print_table(table)
    counts_text = ", ".join(f"{count} {state}" for state, count in inventory.counts.items())
    print(f"{folder}: {len(inventory.entries)} runs: {counts_text}")
    for trunk, step in trunk_steps(folder).items():
        print(f"  {trunk}: saved at step {step}")


app.command()(cli_models.evaluate)
app.command()(cli_models.export)
app.command()(cli_laws.fit)
app.command()(cli_laws.compare)
app.command()(cli_laws.isoflop)
app.command()(cli_laws.predict)
app.command()(cli_advice.plan)
app.command()(cli_advice.design)
app.command()(cli_advice.recommend)
app.command()(cli_advice.claims)
app.command("laws")(cli_laws.list_laws)
app.add_typer(cli_cache.app, name="cache")


@app.command()
def report(
    arguments: Arguments = None,
    open_page: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
    as_json: Json = False,
) -> None:
    """Fit the laws, draw the figures, write report/index.html, and sum up in ten lines."""
    study = study_of(arguments)
    from kdlaws import advice

    page = advice.build_report(study.folder)
    if as_json:
        lines = advice.summary(study.folder).splitlines()
        findings = advice.story(study.folder)
        print_json({"report": str(page), "summary": lines, "findings": findings})
    else:
        print(advice.summary(study.folder))
    if open_page:
        typer.launch(page.resolve().as_uri())
