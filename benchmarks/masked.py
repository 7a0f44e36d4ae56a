"""How a masked student learns: validation loss along a constant rate, by size and rate.

    python benchmarks/masked.py [size ...] [--rates .001,.002] [--tokens 8M] [--random-positions]

Reads the text of configs/sotu-bert.yaml and prints a line for each size and rate: validation
cross-entropy per masked token at every eighth of the way, the last one after a cooldown, and the
tokens per CPU second.
"""

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch

from kdlaws.config import load_study
from kdlaws.lab import heads, students
from kdlaws.lab.streams import Sampler, TokenStream
from kdlaws.lab.tokens import Text
from kdlaws.quantities import parse_number
from kdlaws.shapes import Shape, shape

CONFIG = Path(__file__).parents[1] / "configs" / "sotu-bert.yaml"
BATCH_TOKENS, WEIGHT_DECAY, COOLDOWN, WARMUP_STEPS = 1024, 0.02, 0.2, 100


def model_of(size: Shape, *, random_positions: bool) -> torch.nn.Module:
    model = students.build(size, seed=0)
    if random_positions:
        positions = model.bert.embeddings.position_embeddings.weight
        torch.nn.init.normal_(positions, 0.0, students.EMBEDDING_STD)
    return model


@torch.no_grad()
def validation(model: torch.nn.Module, stream: TokenStream, n_ctx: int) -> float:
    n_windows, losses = stream.n_windows(n_ctx, 2**15), []
    for start in range(0, n_windows, 64):
        batch = stream.batch(np.arange(start, min(start + 64, n_windows)), n_ctx)
        _, given = heads.states(model, batch)
        losses.append(heads.loss(heads.head(model), given, batch.labels_bm).item())
    return float(np.mean(losses))


def rate_factor(step: int, n_steps: int) -> float:
    done = (step / n_steps - (1 - COOLDOWN)) / COOLDOWN
    return 1 - math.sqrt(done) if done > 0 else min(1.0, (step + 1) / WARMUP_STEPS)


def curve(size: Shape, text: Text, rate: float, n_tokens: float, *, random_positions: bool) -> str:
    model = model_of(size, random_positions=random_positions)
    groups = students.parameter_groups(model.named_parameters(), size, rate, WEIGHT_DECAY)
    optimiser = torch.optim.AdamW(groups, betas=students.BETAS, eps=students.EPS, fused=True)
    stream, n_steps = text.stream("student"), int(n_tokens) // BATCH_TOKENS
    sampler = Sampler(stream.n_windows(size.n_ctx), BATCH_TOKENS // size.n_ctx, seed=0)
    losses, cpu_s = [], 0.0
    for step in range(n_steps):
        started = time.process_time()
        batch = stream.batch(sampler.indices(step), size.n_ctx, sampler.epochs(step))
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * rate_factor(step, n_steps)
        optimiser.zero_grad()
        _, given = heads.states(model, batch)
        heads.loss(heads.head(model), given, batch.labels_bm).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        cpu_s += time.process_time() - started
        if (step + 1) % (n_steps // 8) == 0:
            losses.append(validation(model, text.stream("validation"), size.n_ctx))
    told = " ".join(f"{loss:.3f}" for loss in losses)
    return f"{size.name} rate {rate:g}: {told}  ({n_steps * BATCH_TOKENS / cpu_s:,.0f} tokens/s)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", nargs="*", default=["32/1", "64/2", "96/3", "128/4"])
    parser.add_argument("--rates", default=".0005,.001,.002,.004")
    parser.add_argument("--tokens", type=parse_number, default=8e6)
    parser.add_argument("--random-positions", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    study = load_study(CONFIG, ["folder=runs/masked-rates"])
    text = Text(study)
    for name in asked.sizes:
        size = shape(
            name, n_vocab=len(text.tokenizer), n_ctx=study.n_ctx, objective=study.objective
        )
        for rate in map(float, asked.rates.split(",")):
            options = {"random_positions": asked.random_positions}
            print(curve(size, text, rate, asked.tokens, **options), flush=True)


if __name__ == "__main__":
    main()
