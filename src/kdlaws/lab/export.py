"""A trained model as a Hugging Face folder that loads without kdlaws, with its model card."""

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from kdlaws.quantities import human
from kdlaws.records import read_run, write_text
from kdlaws.shapes import Objective

_PIPELINES: dict[Objective, str] = {"causal": "text-generation", "masked": "fill-mask"}

_LICENCES = {
    "sotu": "public-domain text (State of the Union addresses, from the American Presidency "
    "Project, UC Santa Barbara)",
    "wikitext": "CC BY-SA 3.0 and GFDL (WikiText: Wikipedia's authors)",
}
"""By the beginning of a corpus's name."""

_LOADING: dict[Objective, str] = {
    "causal": """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(folder)  # where this card lies
tokenizer = AutoTokenizer.from_pretrained(folder)
inputs = tokenizer("The state of", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=20)[0]))
```""",
    "masked": """```python
from transformers import AutoModelForMaskedLM, AutoTokenizer

model = AutoModelForMaskedLM.from_pretrained(folder)  # where this card lies
tokenizer = AutoTokenizer.from_pretrained(folder)
inputs = tokenizer(f"The {tokenizer.mask_token} of the Union", return_tensors="pt")
place = inputs.input_ids[0].tolist().index(tokenizer.mask_token_id)
print(tokenizer.decode(model(**inputs).logits[0, place].argmax()))
```""",
}

CARD = Path("model") / "README.md"


def save_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    record: dict[str, Any],
    dtype: str,
) -> None:
    """Write weights (safetensors), config, tokenizer and card; the folder appears whole."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    _name_special_tokens(model, tokenizer)
    if dtype == "float32":
        model.save_pretrained(partial)
    else:
        reduced = type(model)(model.config).to(getattr(torch, dtype))
        reduced.load_state_dict(model.state_dict())
        reduced.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    write_text(partial / "README.md", model_card(record))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _name_special_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """What ends a text, where the model generates; what fills a batch, where it has a token."""
    if model.can_generate():
        for config in (model.config, model.generation_config):
            config.bos_token_id = config.eos_token_id = tokenizer.eos_token_id
    if tokenizer.pad_token_id is not None:
        model.config.pad_token_id = tokenizer.pad_token_id


# -- the card ----------------------------------------------------------------------------------


def rewrite_card(folder: Path) -> None:
    """The card of a run's folder again, from its record and its evaluation.

    Raises ArtefactError where there is no record.
    """
    write_text(folder / CARD, model_card(read_run(folder)))


def model_card(run: dict[str, Any]) -> str:
    """Who it is, from whom it learned, what it read, what it cost, how good it is, how it loads.

    ``run`` is a record, with its evaluation laid over it where there is one. In the Hub's format:
    a YAML head, then Markdown.
    """
    head = yaml.safe_dump(_head(run), sort_keys=False, allow_unicode=True)
    facts = "\n".join(f"- {line}" for line in (*_facts(run), *_costs(run), *_quality(run)))
    parts = [
        f"---\n{head}---\n# {run['run_id']}",
        _who(run),
        facts,
        f"## Loading\n\n{_LOADING[run['objective']]}",
        f"## Licence\n\n{_licence(run)}",
        "A research artefact for measuring scaling laws, not for use with people.",
    ]
    return "\n\n".join(parts) + "\n"


def _head(run: dict[str, Any]) -> dict[str, Any]:
    taught = ["knowledge-distillation"] if run["teacher"] else []
    head = {
        "library_name": "transformers",
        "pipeline_tag": _PIPELINES[run["objective"]],
        "tags": ["kdlaws", "scaling-laws", *taught],
    }
    if run.get("teacher_model"):
        head["base_model"] = run["teacher_model"]
    return head


def _who(run: dict[str, Any]) -> str:
    who = f"A {run['role']} of the study `{run['study']}`, made with kdlaws"
    if not run["teacher"]:
        return f"{who}: trained from scratch."
    teacher = f"`{run['teacher']}`"
    if run.get("teacher_model"):
        teacher += f" ({run['teacher_model']} on the Hub)"
    size = f"{run['teacher_n_params']:,} parameters"
    if run["teacher_n_params_non_embedding"] is not None:
        size += f", {run['teacher_n_params_non_embedding']:,} non-embedding"
    return f"{who}: distilled ({run['method']}) from {teacher}, {size}."


def _facts(run: dict[str, Any]) -> Iterator[str]:
    yield (
        f"parameters: {run['n_params']:,} in total, {run['n_params_non_embedding']:,} "
        f"non-embedding, {run['n_params_head']:,} in the head"
    )
    yield (
        f"read: {run['n_tokens']:,} tokens of `{run['corpus']}`, {run['n_unique_tokens']:,} of "
        f"them unique (epochs: {run['epochs']:.3g}), in sequences of {run['n_ctx']}"
    )
    yield f"tokenizer: `{run['tokenizer']}`"


def _costs(run: dict[str, Any]) -> Iterator[str]:
    names = ("student", "teacher_inference", "teacher_training", "cache_saved")
    amounts = {name: run[f"{name}_flops"] for name in names}
    shown = [
        f"{name.replace('_', ' ')} {'unknown' if _is_unknown(flops) else f'{flops:.3g}'}"
        for name, flops in amounts.items()
    ]
    yield f"FLOPs: {', '.join(shown)}; forward {human(run['forward_flops_per_token'])} per token"


def _is_unknown(value: float | None) -> bool:
    return value is None or math.isnan(value)


def _quality(run: dict[str, Any]) -> Iterator[str]:
    per = "masked token" if run["objective"] == "masked" else "token"
    if "cross_entropy" in run:
        cross_entropy, split = run["cross_entropy"], "test"
        spread = f" (standard error {run['cross_entropy_se']:.4f})"
    else:
        cross_entropy, split = run["validation_cross_entropy"], "validation"
        spread = "; the test split has not been read yet"
    yield f"cross-entropy on the {split} split: {cross_entropy:.4f} nats per {per}{spread}"
    yield f"perplexity per {per}: {math.exp(cross_entropy):.4g}"
    if run.get("teacher_cross_entropy") is not None:
        yield f"its teacher's, on the same text: {run['teacher_cross_entropy']:.4f} nats per {per}"


def _licence(run: dict[str, Any]) -> str:
    known = (text for name, text in _LICENCES.items() if run["corpus"].startswith(name))
    corpus = next(known, "not known to the program that wrote this card")
    sentence = f"The weights derive from the corpus's text, whose licence is: {corpus}."
    if not run["teacher"]:
        return sentence
    return f"{sentence} They derive from the teacher, too: see the teacher's card."
