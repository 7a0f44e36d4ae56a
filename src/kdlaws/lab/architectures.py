"""Which architectures a teacher may have: told from its configuration, no weights are read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import transformers
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    PreTrainedConfig,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_PRETRAINING_MAPPING_NAMES,
)

from kdlaws.errors import ConfigError
from kdlaws.records import read_json
from kdlaws.shapes import Objective

AUTO_CLASSES: Mapping[Objective, Any] = {
    "causal": AutoModelForCausalLM,
    "masked": AutoModelForMaskedLM,
}

_WITH_HEAD: Mapping[Objective, Mapping[str, Any]] = {
    "causal": MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    "masked": {
        **MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        **{f"pretrained {k}": v for k, v in MODEL_FOR_PRETRAINING_MAPPING_NAMES.items()},
    },
}


def config_of(where: str, folder: Path, objective: Objective) -> PreTrainedConfig:
    """The model's configuration. Raises ConfigError where it is not of what this lab reads.

    Whether the weights are all there is known when they are loaded.
    """
    written = read_json(folder / "config.json")
    model_type = written.get("model_type")
    if model_type not in CONFIG_MAPPING:
        raise _unknown_type(where, model_type, "auto_map" in written)
    if written.get("quantization_config"):
        method = written["quantization_config"].get("quant_method", "an unnamed method")
        raise ConfigError(
            f"its weights are quantised ({method}), and this lab reads a teacher in fp32",
            where=where,
            remedy="give the model that it was made from, or a GGUF file of it with gguf_file",
        )
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    _require_objective(where, config, objective)
    _require_head(where, written.get("architectures") or [], objective)
    return config


def _require_head(where: str, saved_as: Sequence[str], objective: Objective) -> None:
    """By the class that was saved, where the configuration names it."""
    has_head = {name for each in _WITH_HEAD[objective].values() for name in _names(each)}
    if saved_as and has_head.isdisjoint(saved_as):
        raise ConfigError(
            f"it was saved as {', '.join(saved_as)}, without a language-modelling head",
            where=where,
            remedy="give a model that was saved with its head, such as "
            + ("BertForMaskedLM" if objective == "masked" else "LlamaForCausalLM"),
        )


def _names(each: str | tuple[str, ...]) -> tuple[str, ...]:
    return (each,) if isinstance(each, str) else each


def _unknown_type(where: str, model_type: object, wants_code: bool) -> ConfigError:
    version = transformers.__version__
    if wants_code:
        return ConfigError(
            f"its architecture ({model_type}) is code of its own (auto_map), which is never run",
            where=where,
            remedy=f"give a model of an architecture that transformers {version} has, or a newer "
            "transformers, if it has this one",
        )
    return ConfigError(
        f"transformers {version} knows no model_type {model_type}",
        where=where,
        remedy="install a newer transformers, if it does, or give another model",
    )


def _require_objective(where: str, config: PreTrainedConfig, objective: Objective) -> None:
    """Which way it attends: decided by architecture here, tested when weights are loaded."""
    kind = config.model_type
    sees_both_ways = type(config) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(
        config, "is_decoder", False
    )
    if config.is_encoder_decoder:
        what = f"{kind} is an encoder with a decoder; a teacher is one of the two"
        remedy = "give a model of one stack, such as a Llama, GPT-2 or BERT"
    elif config.get_text_config() is not config:
        what, remedy = f"{kind} reads more than text", "give a language model"
    elif objective == "causal" and sees_both_ways:
        what = f"{kind} predicts masked tokens, and the study's objective is causal"
        remedy = "set objective: masked, or give a causal model"
    elif objective == "masked" and not sees_both_ways:
        what = f"{kind} does not predict masked tokens, and the study's objective is masked"
        remedy = "set objective: causal, or give a model such as a BERT"
    elif objective == "causal" and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        what, remedy = f"{kind} is no language model", "give a language model"
    else:
        return
    raise ConfigError(what, where=where, remedy=remedy)
