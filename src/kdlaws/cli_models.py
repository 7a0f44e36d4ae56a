"""The commands for models: measure finished runs or any checkpoint, and export one."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from kdlaws.cli_common import Arguments, Json, print_json, require_lab, study_of
from kdlaws.errors import ConfigError
from kdlaws.quantities import human, parse_number

NCtx = Annotated[
    int | None, typer.Option(min=8, help="Tokens in a sequence; without, as many as it reads.")
]
Method = Literal["scratch", "token", "embedding"]


def evaluate(
    arguments: Arguments = None,
    model: Annotated[
        str | None, typer.Option(help="Instead of a study: a folder, or an id on the Hub.")
    ] = None,
    text: Annotated[Path | None, typer.Option(help="The text file that it is scored on.")] = None,
    append: Annotated[Path | None, typer.Option(help="Add its row to this table.csv.")] = None,
    n_ctx: NCtx = None,
    n_tokens: Annotated[
        str | None, typer.Option(help="Tokens that it was trained on: 2T, 11e12.")
    ] = None,
    method: Annotated[Method, typer.Option(help="How it was trained.")] = "scratch",
    role: Annotated[Literal["student", "teacher"], typer.Option(help="In the table.")] = "student",
    pseudo_perplexity: Annotated[
        bool, typer.Option("--pseudo-perplexity", help="Of a masked model: slow.")
    ] = False,
    max_windows: Annotated[int, typer.Option(min=1, help="For pseudo-perplexity.")] = 8,
    revision: Annotated[str | None, typer.Option(help="Commit, tag or branch on the Hub.")] = None,
    gguf_file: Annotated[str | None, typer.Option(help="Read this file of the folder.")] = None,
    as_json: Json = False,
) -> None:
    """Measure every finished run on the test split, and write the study's table.csv.

    With --model and --text: score one checkpoint from anywhere on a text.
    """
    if model is None:
        _require_none(text=text, append=append, n_ctx=n_ctx, n_tokens=n_tokens)
        _require_none(revision=revision, gguf_file=gguf_file)
        _evaluate_study(arguments, as_json)
        return
    if arguments or text is None:
        raise ConfigError(
            "--model is scored on a text, not on a study", remedy="give --text FILE, and no study"
        )
    require_lab()
    from kdlaws.lab import joining

    if append is not None:
        joining.require_appendable(append)
    request = joining.Request(
        model=model,
        text=text,
        revision=revision,
        gguf_file=gguf_file,
        n_ctx=n_ctx,
        max_windows=max_windows if pseudo_perplexity else None,
        n_tokens=_number("--n-tokens", n_tokens),
        method=method,
        role=role,
    )
    measured = joining.evaluate_model(request)
    if append is not None:
        joining.append_row(measured, append)
    _show_measured(measured, append, as_json)


def _evaluate_study(arguments: list[str] | None, as_json: bool) -> None:
    study = study_of(arguments)
    require_lab()
    from kdlaws.lab import evaluate, progress

    table = evaluate.evaluate(study, progress.Reporter("evaluate"))
    if as_json:
        from kdlaws.tables import read_table

        print_json({"table": str(table), "n_runs": len(read_table(table).frame)})
        return
    print(f"measured runs are in {table}")


def _require_none(**options: object) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise ConfigError(
            f"--{given[0].replace('_', '-')} is of one model, not of a study",
            remedy="give --model FOLDER_OR_ID, too",
        )


def _number(option: str, text: str | None) -> float | None:
    try:
        return None if text is None else parse_number(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from None


def _show_measured(measured: dict[str, Any], append: Path | None, as_json: bool) -> None:
    table = None if append is None else str(append)
    if as_json:
        print_json(measured | {"device": "cpu", "table": table})
        return
    print(f"{measured['run_id']} on {measured['corpus']}")
    for line in _lines(measured):
        print(f"  {line}")
    if table:
        print(f"its row is in {table}")


def _lines(measured: dict[str, Any]) -> list[str]:
    is_masked = measured["objective"] == "masked"
    error = measured["cross_entropy_se"]
    spread = "" if error is None else f" (standard error over windows {error:.4f})"
    lines = [
        f"cross-entropy     {measured['cross_entropy']:.4f} nats per "
        f"{'masked ' if is_masked else ''}token{spread}",
        f"perplexity        {measured['perplexity']:.4g}",
    ]
    if not is_masked:
        lines += [
            f"bits per byte     {measured['bits_per_byte']:.4f}",
            f"word perplexity   {measured['word_perplexity']:.6g}",
            f"byte perplexity   {measured['byte_perplexity']:.6g}",
        ]
    if "pseudo_perplexity" in measured:
        lines.append(
            f"pseudo-perplexity {measured['pseudo_perplexity']:.4g} over "
            f"{measured['n_pseudo_tokens']:,} tokens, each masked in turn"
        )
    return [*lines, *_lines_of_costs(measured)]


def _lines_of_costs(measured: dict[str, Any]) -> list[str]:
    decode = measured["decode_ms_p50"]
    return [
        f"scored            {measured['n_test_tokens']:,} tokens in {measured['n_windows']:,} "
        f"windows of {measured['n_ctx']}",
        f"parameters        {measured['n_params']:,} in total, "
        f"{measured['n_params_non_embedding']:,} non-embedding, "
        f"{measured['n_params_head']:,} in the head",
        f"forward FLOPs     {human(measured['forward_flops_per_token'])} per token",
        f"prefill           {measured['prefill_ms_p50']:.1f} ms (p95 "
        f"{measured['prefill_ms_p95']:.1f}), cpu, one thread",
        *([] if decode is None else [f"decode            {decode:.2f} ms per token"]),
    ]


def export(
    model: Annotated[
        str, typer.Argument(metavar="MODEL_OR_RUN", help="A folder, a run's, or an id on the Hub.")
    ],
    onnx: Annotated[Path, typer.Option(help="The file to write.")],
    n_ctx: NCtx = None,
    as_json: Json = False,
) -> None:
    """Write a model as ONNX, input_ids to logits, and check the file under onnxruntime."""
    require_lab()
    from kdlaws.lab import onnx_export

    exported = asdict(onnx_export.export(model, onnx, n_ctx))
    if as_json:
        print_json({"file": str(onnx), **exported})
        return
    inputs = ", ".join(exported["inputs"])
    print(f"{onnx}: {inputs} to logits, any batch, up to {exported['n_ctx']} tokens")
    for line in _lines_of_export(exported):
        print(f"  {line}")


def _lines_of_export(exported: dict[str, Any]) -> list[str]:
    return [
        f"size        {exported['size_mb']:.2f} MB, the model's own "
        f"{exported['model_size_mb']:.2f}",
        f"difference  {exported['largest_difference']:.2g} at most, from torch's logits",
        f"prefill     {exported['onnx_ms_p50']:.2f} ms (p95 {exported['onnx_ms_p95']:.2f}) in "
        f"onnxruntime, {exported['torch_ms_p50']:.2f} ({exported['torch_ms_p95']:.2f}) in torch, "
        "one thread",
    ]
