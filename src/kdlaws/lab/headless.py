"""A model from elsewhere as the lab reads one: its states, and its head apart.

Any ``AutoModelForCausalLM`` or ``AutoModelForMaskedLM`` whose logits are a linear map of what its
output embedding is given. That module is taken out of the tree, so that no logits are made where
there is no label; what it would have been given, and the backbone's last hidden state, are caught
on the way. Whether this is the stock model is tested on every load, never assumed.

Legend: b sequences, t positions, d width of the last hidden state, e of what the head is given,
v vocabulary.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from kdlaws.errors import ConfigError
from kdlaws.lab.architectures import AUTO_CLASSES, config_of
from kdlaws.lab.heads import Head
from kdlaws.lab.kernels import accelerate
from kdlaws.shapes import Objective

TOLERANCE = 1e-4
"""Of the stock model's largest logit: rounding of fp32 products that are summed in another order.
From experience, no bound."""


class Headless(nn.Module):
    """A stock model without its output embedding; the logits of its states are ``head``'s.

    For whole sequences without padding, in evaluation mode, without gradients or a key-value
    cache. The stock model is changed in place.
    """

    def __init__(self, stock: PreTrainedModel, n_vocab: int) -> None:
        super().__init__()
        self.stock = stock.eval().requires_grad_(False)
        self.stock.config.use_cache = False
        # Still a module: a matrix that is tied to the input embedding moves along with it.
        self.output: Any = stock.get_output_embeddings()
        self.n_vocab = n_vocab
        self._seen: dict[str, Tensor] = {}
        place = next(name for name, module in stock.named_modules() if module is self.output)
        stock.set_submodule(place, nn.Identity())
        stock.get_submodule(place).register_forward_hook(self._see_given)
        stock.base_model.register_forward_hook(self._see_hidden)

    @property
    def head(self) -> Head:
        """From what it is given to the logits of ``n_vocab`` entries: padding rows are cut."""
        bias_v = self.output.bias
        return Head(
            self.output.weight[: self.n_vocab],
            _logits_scaling(self.stock.config),
            None if bias_v is None else bias_v[: self.n_vocab],
        )

    def forward(self, inputs_bt: Tensor) -> tuple[Tensor, Tensor]:
        """Last hidden state, after the final norm, [b, t, d]; what the head is given, [b, t, e]."""
        self.stock(input_ids=inputs_bt)
        given_bte = self._seen.pop("given")
        # Some models run their backbone's parts themselves; their heads have no transform.
        return self._seen.pop("hidden", given_bte), given_bte

    def _see_given(self, module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        self._seen["given"] = output

    def _see_hidden(self, module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        self._seen["hidden"] = output.last_hidden_state


def _logits_scaling(config: PreTrainedConfig) -> float:
    """What the logits are divided by: Granite's key; Cohere's and Falcon-H1's, which multiply."""
    factor = getattr(config, "logit_scale", None) or getattr(config, "lm_head_multiplier", None)
    return float(getattr(config, "logits_scaling", None) or 1.0) / float(factor or 1.0)


@torch.no_grad()
def load_given(folder: Path, objective: Objective, n_vocab: int) -> Headless:
    """The model of a folder in fp32 for inference, its logits cut to ``n_vocab`` entries.

    Raises ConfigError where the weights do not make up a model of that objective, or where its
    logits are not those of its states and a linear head.
    """
    stock = load_stock_given(folder, objective)
    if stock.get_output_embeddings() is None:
        raise ConfigError(f"{type(stock).__name__} has no output embedding", where=str(folder))
    # Spread over the vocabulary; few models have a padding token, and none is met.
    ids_bt = (torch.arange(1, 17) * n_vocab // 17).view(2, 8)
    stock_btv = stock(input_ids=ids_bt).logits[..., :n_vocab]
    accelerate(stock)
    model = Headless(stock, n_vocab)
    _require_linear_head(model, ids_bt, stock_btv, folder)
    _require_direction(model, ids_bt, objective, folder)
    return model


def load_stock_given(folder: Path, objective: Objective) -> PreTrainedModel:
    """As everybody loads it, in fp32, for inference. Raises ConfigError where weights are absent.

    The library would draw missing ones at random: of an encoder that was saved without its head.
    """
    config = config_of(str(folder), folder, objective)
    try:
        with _without_load_reports():
            stock, found = AUTO_CLASSES[objective].from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
    except (SafetensorError, OSError) as error:
        raise ConfigError(
            f"its weights cannot be read ({error})", where=str(folder), remedy="fetch them again"
        ) from None
    missing = sorted(found["missing_keys"] | {name for name, *_ in found["mismatched_keys"]})
    if missing:
        raise ConfigError(
            f"its files hold no weights for {len(missing)} of the parameters of "
            f"{type(stock).__name__}, such as {missing[0]}",
            where=str(folder),
            remedy="give a model that was saved with its language-modelling head",
        )
    return stock.eval().requires_grad_(False)


@contextmanager
def _without_load_reports() -> Iterator[None]:
    """The library warns of every key that a checkpoint has beside the model, such as a pooler."""
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)


def _require_linear_head(model: Headless, ids_bt: Tensor, stock_btv: Tensor, folder: Path) -> None:
    _, given_bte = model(ids_bt)
    logits_btv = model.head.logits(given_bte.flatten(0, 1)).view_as(stock_btv)
    is_capped = getattr(model.stock.config, "final_logit_softcapping", None) is not None
    if is_capped or not _agree(logits_btv, stock_btv):
        error = float((logits_btv - stock_btv).abs().max())
        raise ConfigError(
            f"the logits of {type(model.stock).__name__} are not a linear map of its states "
            + ("(final_logit_softcapping)" if is_capped else f"(they differ by up to {error:.2g})"),
            where=str(folder),
            remedy="take a model without capped or otherwise changed logits, such as a Llama, "
            "Qwen2, GPT-2, Granite or BERT",
        )


def _require_direction(model: Headless, ids_bt: Tensor, objective: Objective, folder: Path) -> None:
    """A causal model must not see what follows, a masked one must."""
    other_bt = ids_bt.clone()
    other_bt[:, -1] = ids_bt[:, 0]
    before_bte, other_bte = model(ids_bt)[1][:, :-1], model(other_bt)[1][:, :-1]
    is_causal = _agree(other_bte, before_bte)
    if is_causal != (objective == "causal"):
        raise ConfigError(
            f"{type(model.stock).__name__} {'does not see' if is_causal else 'sees'} the tokens "
            f"after a position, so it is no model of objective: {objective}",
            where=str(folder),
            remedy=f"set objective: {'causal' if is_causal else 'masked'}, or give another model",
        )


def _agree(a: Tensor, b: Tensor) -> bool:
    return bool(((a - b).abs().max() <= TOLERANCE * b.abs().max()).item())
