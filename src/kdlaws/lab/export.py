"""A trained model as a Hugging Face folder that loads without kdlaws, with its model card."""

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import GraniteForCausalLM, PreTrainedTokenizerFast

from kdlaws.quantities import human
from kdlaws.records import write_text


def save_model(
    model: GraniteForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    record: dict[str, Any],
    dtype: str,
) -> None:
    """Write weights (safetensors), config, tokenizer and card; the folder appears whole."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for config in (model.config, model.generation_config):
        config.bos_token_id = config.eos_token_id = tokenizer.eos_token_id
    if dtype == "float32":
        model.save_pretrained(partial)
    else:
        reduced = GraniteForCausalLM(model.config).to(getattr(torch, dtype))
        reduced.load_state_dict(model.state_dict())
        reduced.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    write_text(partial / "README.md", model_card(record))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def model_card(record: dict[str, Any]) -> str:
    """What the model is, what it read, from whom it learned."""
    taught = (
        f"distilled ({record['method']}) from `{record['teacher']}`"
        if record["teacher"]
        else "trained from scratch"
    )
    return "\n".join(
        [
            "---",
            "library_name: transformers",
            "pipeline_tag: text-generation",
            "tags: [kdlaws, scaling-laws, knowledge-distillation]",
            "---",
            f"# {record['run_id']}",
            "",
            f"A {record['role']} of the study `{record['study']}`, {taught}.",
            "",
            f"- parameters: {record['n_params']:,} in total, "
            f"{record['n_params_non_embedding']:,} non-embedding",
            f"- tokens: {record['n_tokens']:,} ({human(record['n_unique_tokens'])} unique), "
            f"sequences of {record['n_ctx']}",
            f"- text: `{record['corpus']}`, tokenizer `{record['tokenizer']}`",
            f"- validation cross-entropy: {record['validation_cross_entropy']:.4f} nats per token",
            f"- training: {record['student_flops']:.3g} FLOPs",
            "",
            "A research artefact for measuring scaling laws, not for use with people. The weights "
            "carry the licence of the text they were trained on.",
            "",
        ]
    )
