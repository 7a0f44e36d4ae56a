"""Tokens per CPU second and peak memory of distillation, ours and others'.

    pip install -r benchmarks/requirements-peers.txt       (and see there for Liger)
    python benchmarks/training.py [--json FILE] [--rounds N] [--only hf gkd ...]
    python benchmarks/training.py --shares [--json FILE]

Everybody trains the same student (4 layers x 256, a stock Granite) from the same weights on the
same random ids, 8 sequences of 256, in fp32 on one thread, by torch's fused AdamW with clipping;
the teacher has about four times its parameters. Each is measured in a process of its own, in
rounds, so that what slows the machine down slows everybody; one whose package is missing is left
out. The losses of those that distil from the same teacher must agree.

Seconds are of process CPU time, memory is in 10^6 bytes. Linux only.

``hf`` and ``gkd`` score 255 of 256 positions, the others all of them; tokens are counted as 256.
``--shares`` measures how much of the machine's matrix rate whole steps reach, and what the rest is.
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # read when torch is imported
os.environ |= {"HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}

import argparse
import datetime
import json
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.profiler_util import FunctionEvent
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile, record_function
from transformers import GraniteForCausalLM

import kdlaws
from kdlaws.lab import students
from kdlaws.lab.kernels import hidden_states
from kdlaws.lab.objectives import CROSS_ENTROPY, TokenLoss, linear_loss
from kdlaws.lab.sampling import Arrays, Draws
from kdlaws.lab.targets import Online, Targets
from kdlaws.shapes import Shape, shape

T = TypeVar("T")

TEACHERS = {8192: "448/7", 32_000: "576/7"}  # by vocabulary; 3.9 and 4.1 times the student's total
TEACHER_LOGITS_SCALING = (
    0.8  # gives untrained weights the entropy of a trained teacher, 1 to 3 nats
)
N_CTX, N_SEQUENCES = 256, 8
N_WARMUP, N_STEPS, N_ROUNDS = 2, 5, 3
RATE, CLIP = 1e-3, 1.0
N_DRAWS, ZIPF = 32, 1.4  # 32 draws from 1 / rank^1.4 have about 16 distinct ids
GEMM_SIZE = 1024
PACKAGES = ("torch", "transformers", "trl", "accelerate", "liger-kernel")


@dataclass(frozen=True)
class Batch:
    """Ids and the ids that follow them."""

    inputs_bt: Tensor
    labels_bt: Tensor


@dataclass(frozen=True)
class Job:
    """What is trained on what."""

    student: Shape
    teacher: Shape
    n_sequences: int
    n_warmup: int
    n_steps: int

    @property
    def batch_tokens(self) -> int:
        return self.n_sequences * self.student.n_ctx

    def ids_sbt(self) -> Tensor:
        """The ids of every step, and one more a sequence, as labels."""
        size = (self.n_warmup + self.n_steps, self.n_sequences, self.student.n_ctx + 1)
        generator = torch.Generator().manual_seed(0)
        return torch.randint(self.student.n_vocab, size, generator=generator)

    def batches(self) -> Iterator[Batch]:
        for ids_bt in self.ids_sbt():
            yield Batch(ids_bt[:, :-1], ids_bt[:, 1:])

    def new_student(self) -> GraniteForCausalLM:
        """With our kernels; ``stock`` takes them out."""
        student: GraniteForCausalLM = students.build(self.student, seed=0).train()
        return student

    def new_teacher(self) -> GraniteForCausalLM:
        teacher: GraniteForCausalLM = students.build(self.teacher, seed=1).train(False)
        teacher.requires_grad_(False).config.logits_scaling = TEACHER_LOGITS_SCALING
        return teacher


def stock(model: GraniteForCausalLM) -> GraniteForCausalLM:
    """The same weights in Hugging Face's own code, for all contestants but ours."""
    copy = GraniteForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    copy.train(model.training)
    for ours, theirs in zip(model.parameters(), copy.parameters(), strict=True):
        theirs.requires_grad_(ours.requires_grad)
    return copy


class Clock:
    """CPU seconds and resident memory when training begins, CPU seconds after each step."""

    def start(self) -> None:
        self.resident_mb = resident_mb()
        self.marks = [time.process_time()]

    def tick(self) -> None:
        self.marks.append(time.process_time())

    def step_s(self, n_warmup: int) -> float:
        """Median over the steps after ``n_warmup``."""
        after = self.marks[n_warmup:]
        return statistics.median(end - start for start, end in pairwise(after))


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


# The contestants. Each trains, tells the clock, and returns the mean loss in nats per token: those
# that distil from the teacher itself must agree on it.


@dataclass(frozen=True)
class Trainee:
    """A student and its loss; all but TRL's trainer, which has a loop of its own."""

    student: GraniteForCausalLM
    loss: Callable[[Batch], Tensor]


def train(make: Callable[[Job], Trainee], job: Job, clock: Clock) -> float:
    trainee = make(job)
    clock.start()
    losses = []
    for loss in steps(trainee, job):
        losses.append(loss)
        clock.tick()
    return statistics.mean(losses)


def steps(trainee: Trainee, job: Job) -> Iterator[float]:
    """Optimiser steps, one a batch; yields the loss of each."""
    optimiser = torch.optim.AdamW(trainee.student.parameters(), lr=RATE, fused=True)
    for batch in job.batches():
        loss = trainee.loss(batch)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        with record_function(OPTIMISER):
            nn.utils.clip_grad_norm_(trainee.student.parameters(), CLIP)
            optimiser.step()
        yield float(loss.detach())


def hf(job: Job) -> Trainee:
    """Cross-entropy as Hugging Face's model computes it, no teacher."""
    student = stock(job.new_student())

    def loss(batch: Batch) -> Tensor:
        value: Tensor = student(input_ids=batch.inputs_bt, labels=batch.inputs_bt).loss
        return value

    return Trainee(student, loss)


def dense(job: Job) -> Trainee:
    """KL of two log-softmaxes over the whole vocabulary, a teacher's forward pass at every step."""
    student, teacher = stock(job.new_student()), stock(job.new_teacher())

    def loss(batch: Batch) -> Tensor:
        with torch.no_grad():
            teacher_btv = teacher(input_ids=batch.inputs_bt).logits
            log_p_btv = F.log_softmax(teacher_btv, dim=-1)
        logits_btv = student(input_ids=batch.inputs_bt).logits
        log_q_btv = F.log_softmax(logits_btv, dim=-1)
        total = F.kl_div(log_q_btv, log_p_btv, reduction="sum", log_target=True)
        return total / batch.inputs_bt.numel()

    return Trainee(student, loss)


def liger(job: Job) -> Trainee:
    """Liger's chunked linear JSD with its own defaults (compiled), beta = 0 its forward KL."""
    from liger_kernel.chunked_loss import (  # type: ignore[import-not-found, unused-ignore]
        LigerFusedLinearJSDLoss,
    )

    student, teacher = stock(job.new_student()), stock(job.new_teacher())
    jsd = LigerFusedLinearJSDLoss(weight_hard_loss=0.0, weight_soft_loss=1.0, beta=0.0)

    def loss(batch: Batch) -> Tensor:
        with torch.no_grad():
            teacher_nd = stock_hidden(teacher, batch) / teacher.config.logits_scaling
        student_nd = stock_hidden(student, batch) / student.config.logits_scaling
        value: Tensor = jsd(
            student_nd,
            student.lm_head.weight,
            teacher_nd,
            teacher.lm_head.weight,
            batch.labels_bt.flatten(),
        )
        return value

    return Trainee(student, loss)


def stock_hidden(model: GraniteForCausalLM, batch: Batch) -> Tensor:
    """[n, d_model]"""
    hidden_btd: Tensor = model.model(input_ids=batch.inputs_bt, use_cache=False).last_hidden_state
    return hidden_btd.flatten(0, 1)


def kdlaws_scratch(job: Job) -> Trainee:
    return ours(job, lambda batch: None)


def kdlaws_cached(job: Job) -> Trainee:
    """A teacher that was read before; what it left is read back at every step, from memory."""
    form = Draws(job.student.n_vocab, N_DRAWS, slices=1)
    batches = iter(list(stored_draws(job, form)))

    def targets(batch: Batch) -> Targets:
        arrays = next(batches)
        return form.read([(arrays, row, 0) for row in range(job.n_sequences)])

    return ours(job, targets)


def kdlaws_online(job: Job) -> Trainee:
    """The teacher's forward pass at every step, its logits chunk by chunk."""
    teacher = job.new_teacher()

    def targets(batch: Batch) -> Targets:
        with torch.no_grad():
            hidden_nd = hidden_states(teacher, batch.inputs_bt).flatten(0, 1)
        return Online(hidden_nd, *students.head(teacher))

    return ours(job, targets)


def ours(job: Job, targets: Callable[[Batch], Targets | None]) -> Trainee:
    """A step of ``kdlaws.lab.trainer``, but for its parameter groups: nobody else has any."""
    student = job.new_student()

    def loss(batch: Batch) -> Tensor:
        weight_vd, logits_scaling = students.head(student)
        given = targets(batch)
        return linear_loss(
            hidden_states(student, batch.inputs_bt).flatten(0, 1),
            weight_vd,
            batch.labels_bt.flatten(),
            given,
            CROSS_ENTROPY if given is None else TokenLoss(),
            logits_scaling=logits_scaling,
        )

    return Trainee(student, loss)


def stored_draws(job: Job, form: Draws) -> Iterator[Arrays]:
    """What a cache holds for each step: draws from a Zipf law that starts at a random id."""
    generator = torch.Generator().manual_seed(2)
    n_vocab, size_bt = job.student.n_vocab, (job.n_sequences, job.student.n_ctx)
    weights_v = torch.arange(1, n_vocab + 1, dtype=torch.float64) ** -ZIPF
    n_draws = job.batch_tokens * N_DRAWS
    for _ in range(job.n_warmup + job.n_steps):
        ranks_n = torch.multinomial(weights_v, n_draws, replacement=True, generator=generator)
        first_bt11 = torch.randint(n_vocab, (*size_bt, 1, 1), generator=generator)
        drawn_bt1k = (first_bt11 + ranks_n.view(*size_bt, 1, N_DRAWS)) % n_vocab
        kept = {"drawn": drawn_bt1k.sort(dim=-1).values.numpy()}
        yield form.of_windows(kept | {"entropy": np.zeros(size_bt, dtype=np.float32)})


def gkd(job: Job, clock: Clock, *, checkpointing: bool) -> float:
    """TRL's GKDTrainer on the text alone (lmbda = 0), forward KL (beta = 0), by its own loop.

    Its defaults are gradient checkpointing, which is slower and leaner, and bf16. A first token of
    prompt is what its collator insists on, and costs no position of the loss.
    """
    from transformers import PrinterCallback, TrainerCallback
    from trl.experimental.gkd import (  # type: ignore[import-not-found, unused-ignore]
        GKDConfig,
        GKDTrainer,
    )

    class Tell(TrainerCallback):  # type: ignore[misc, unused-ignore]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            clock.start()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.tick()

    with tempfile.TemporaryDirectory() as folder:
        trainer = GKDTrainer(
            model=stock(job.new_student()),
            teacher_model=stock(job.new_teacher()),
            args=GKDConfig(
                output_dir=folder,
                lmbda=0.0,
                beta=0.0,
                temperature=1.0,
                max_length=job.student.n_ctx,
                max_steps=job.n_warmup + job.n_steps,
                per_device_train_batch_size=job.n_sequences,
                train_sampling_strategy="sequential",
                learning_rate=RATE,
                lr_scheduler_type="constant",
                max_grad_norm=CLIP,
                activation_checkpointing=checkpointing,
                bf16=False,
                use_cpu=True,
                logging_strategy="no",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=gkd_dataset(job),
            processing_class=gkd_tokenizer(),
            callbacks=[Tell()],
        )
        trainer.remove_callback(PrinterCallback)
        return float(trainer.train().training_loss)


def gkd_dataset(job: Job) -> Any:
    from datasets import Dataset  # type: ignore[import-not-found, unused-ignore]

    rows = job.ids_sbt()[:, :, :-1].flatten(0, 1).tolist()
    is_completion = [0] + [1] * (job.student.n_ctx - 1)
    return Dataset.from_list(
        [{"prompt": "", "input_ids": row, "completion_mask": is_completion} for row in rows]
    )


def gkd_tokenizer() -> Any:
    """For its padding id, which no batch needs."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<pad>"))
    make: Callable[..., Any] = PreTrainedTokenizerFast
    return make(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")


TRAINEES = {
    "hf": hf,
    "dense": dense,
    "liger": liger,
    "kdlaws-online": kdlaws_online,
    "kdlaws-cached": kdlaws_cached,
    "kdlaws-scratch": kdlaws_scratch,
}
CONTESTANTS: dict[str, Callable[[Job, Clock], float]] = {
    "gkd": partial(gkd, checkpointing=False),
    "gkd-checkpointing": partial(gkd, checkpointing=True),
    **{name: partial(train, make) for name, make in TRAINEES.items()},
}


# One contestant, one process.


@dataclass(frozen=True)
class Measured:
    """``training_mb`` is the peak less what was resident before the first step."""

    tokens_per_cpu_s: float
    peak_mb: float
    training_mb: float
    loss: float


def measure(name: str, job: Job) -> Measured:
    torch.set_num_threads(1)
    clock = Clock()
    loss = CONTESTANTS[name](job, clock)
    return Measured(
        job.batch_tokens / clock.step_s(job.n_warmup),
        peak_mb(),
        peak_mb() - clock.resident_mb,
        loss,
    )


def alone(function: Callable[..., T], *arguments: Any) -> T:
    """Its value, from a new process, so that its peak memory is its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def contest_job(n_vocab: int) -> Job:
    student = shape("256/4", n_vocab=n_vocab, n_ctx=N_CTX)
    teacher = shape(TEACHERS[n_vocab], n_vocab=n_vocab, n_ctx=N_CTX)
    return Job(student, teacher, N_SEQUENCES, N_WARMUP, N_STEPS)


def contest(job: Job, names: Sequence[str], n_rounds: int) -> dict[str, list[Measured]]:
    """Every contestant once a round; those that lack a package are named on stderr and left out."""
    found: dict[str, list[Measured]] = {name: [] for name in names}
    for n_done in range(n_rounds):
        for name in list(found):
            try:
                found[name].append(alone(measure, name, job))
            except ImportError as error:
                print(f"{name} is left out: {error}", file=sys.stderr, flush=True)
                del found[name]
        print(f"round {n_done + 1} of {n_rounds}", file=sys.stderr, flush=True)
    return found


# How much of the machine's matrix rate a whole step reaches, and what the rest is.

OPTIMISER = "optimiser and clip"
PARTS = ("GEMM", "attention", "loss", "elementwise", OPTIMISER)
GEMMS = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "mkldnn::_linear_pointwise"}
VIEWS = {
    "alias",
    "as_strided",
    "chunk",
    "contiguous",
    "detach",
    "empty",
    "empty_like",
    "empty_strided",
    "expand",
    "flatten",
    "linear",
    "lift_fresh",
    "matmul",
    "narrow",
    "permute",
    "reshape",
    "resize_",
    "result_type",
    "select",
    "slice",
    "split",
    "split_with_sizes",
    "squeeze",
    "t",
    "to",
    "transpose",
    "unbind",
    "unsqueeze",
    "view",
    "_to_copy",
    "_unsafe_view",
}


@dataclass(frozen=True)
class Shares:
    """A step's CPU seconds, the machine's GFLOP/s beside it, and each part's share of the step."""

    size: str
    contestant: str
    n_params_non_embedding: int
    batch_tokens: int
    step_s: float
    gflops: float
    gemm_gflops: dict[str, float]
    parts: dict[str, float]


def shares(name: str, job: Job) -> Shares:
    torch.set_num_threads(1)
    clock = Clock()
    train(TRAINEES[name], job, clock)
    step_s = clock.step_s(job.n_warmup)
    flops = job.student.training_flops_per_token * job.batch_tokens
    return Shares(
        job.student.name,
        name,
        job.student.n_params_non_embedding,
        job.batch_tokens,
        step_s,
        flops / step_s / 1e9,
        gemm_gflops(),
        profiled_parts(TRAINEES[name](job), job),
    )


def profiled_parts(trainee: Trainee, job: Job) -> dict[str, float]:
    """Shares of the profiled steps' wall time; ``python`` is the rest, the profiler's own included.

    An operator's time is of the wall, so on a busy machine only its share means something.
    """
    training = steps(trainee, job)
    for _ in range(job.n_warmup):
        next(training)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as prof:
        began = time.perf_counter()
        for _ in training:
            pass
        wall_s = time.perf_counter() - began
    shares_of = dict.fromkeys(PARTS, 0.0)
    for event in prof.events():
        part = part_of(event, job.student.n_vocab)
        if part is not None:
            shares_of[part] += event.self_cpu_time_total / 1e6 / wall_s
    return shares_of | {"python": 1 - sum(shares_of.values())}


def part_of(event: FunctionEvent, n_vocab: int) -> str | None:
    """None for what is neither an operator nor works on data: dispatch, views, Python."""
    name, within = event.name, " ".join([event.name, *ancestors(event)])
    if not name.startswith(("aten::", "mkldnn::")) or name.partition("::")[2] in VIEWS:
        return None
    if OPTIMISER in within:
        return OPTIMISER
    if "ttention" in within:  # of our kernels the products, too, as they are inside torch's
        return "attention"
    if name in GEMMS:
        return "GEMM"
    sizes: Any = event.input_shapes  # of each input, empty where it has none; typed as one
    over_vocabulary = any(size and size[-1] == n_vocab for size in sizes)
    return "loss" if over_vocabulary or "Loss" in within or "loss" in within else "elementwise"


def ancestors(event: FunctionEvent) -> Iterator[str]:
    parent = event.cpu_parent
    while parent is not None:
        yield parent.name
        parent = parent.cpu_parent


def gemm_gflops() -> dict[str, float]:
    """Of square fp32 matrices, by torch's BLAS and by oneDNN: median of 15."""
    torch.set_num_threads(1)
    a, b = torch.randn(2, GEMM_SIZE, GEMM_SIZE)
    onednn = torch.ops.mkldnn._linear_pointwise
    return {
        "torch.mm": gflops(lambda: torch.mm(a, b)),
        "oneDNN": gflops(lambda: onednn(a, b, None, "none", [], "")),
    }


def gflops(product: Callable[[], Tensor]) -> float:
    clock = Clock()
    clock.start()
    for _ in range(3 + 15):
        product()
        clock.tick()
    return 2 * GEMM_SIZE**3 / clock.step_s(n_warmup=3) / 1e9


def shares_jobs() -> Iterator[Job]:
    """A student of 5M parameters, and the micro sizes with steps of 256 tokens."""
    large = shape("256/6", n_vocab=8192, n_ctx=256)
    yield Job(large, large, n_sequences=8, n_warmup=2, n_steps=5)
    for size in ("32/1", "64/2", "96/3", "128/4", "160/5"):
        micro = shape(size, n_vocab=1024, n_ctx=128)
        yield Job(micro, micro, n_sequences=2, n_warmup=10, n_steps=60)


# What is printed and written.


def machine() -> str:
    """The processor, with the numbers that tell generations of one name apart."""
    lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
    facts = {key.strip(): value.strip() for key, _, value in lines}
    name = facts.get("model name", platform.machine())
    numbers = f"family {facts.get('cpu family', '?')}, model {facts.get('model', '?')}"
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{name}, {numbers}, {capability} ({os.cpu_count()} cores seen)"


def versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def header() -> dict[str, Any]:
    return {
        "schema": 1,
        "kdlaws": kdlaws.__version__,
        "date": str(datetime.datetime.now(datetime.UTC).date()),
        "machine": machine(),
        "versions": versions(),
        "gemm_gflops": alone(gemm_gflops),
    }


def header_lines(facts: dict[str, Any]) -> Iterator[str]:
    packages = ", ".join(f"{name} {number}" for name, number in facts["versions"].items() if number)
    rates = ", ".join(f"{name} {rate:.0f}" for name, rate in facts["gemm_gflops"].items())
    yield f"{facts['date']}, {facts['machine']}, kdlaws {facts['kdlaws']}, {packages}."
    yield f"GFLOP/s of {GEMM_SIZE}^3 in fp32 on one thread: {rates}."


def contest_lines(job: Job, found: dict[str, list[Measured]]) -> Iterator[str]:
    student, teacher = job.student, job.teacher
    yield (
        f"V = {student.n_vocab:,}: student {student.name}, {student.n_params:,} parameters; "
        f"teacher {teacher.name}, {teacher.n_params:,} "
        f"({teacher.n_params / student.n_params:.2f} times)."
    )
    yield ""
    yield (
        "| | tokens per CPU s (range) | / gkd | / hf "
        "| peak MB | / gkd | training MB | / gkd | loss |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for name, rounds in found.items():
        speeds = [each.tokens_per_cpu_s for each in rounds]
        cells = [
            f"{statistics.median(speeds):,.0f} ({min(speeds):,.0f} to {max(speeds):,.0f})",
            ratio(found, name, "gkd", "tokens_per_cpu_s"),
            ratio(found, name, "hf", "tokens_per_cpu_s"),
            f"{statistics.median(each.peak_mb for each in rounds):,.0f}",
            ratio(found, name, "gkd", "peak_mb"),
            f"{statistics.median(each.training_mb for each in rounds):,.0f}",
            ratio(found, name, "gkd", "training_mb"),
            f"{statistics.median(each.loss for each in rounds):.4f}",
        ]
        yield f"| {name} | {' | '.join(cells)} |"


def ratio(found: dict[str, list[Measured]], name: str, to: str, field: str) -> str:
    """Median over rounds of the ratio within a round; a dash where there is nothing to compare."""
    if to not in found:
        return "–"
    pairs = zip(found[name], found[to], strict=True)
    return f"{statistics.median(getattr(a, field) / getattr(b, field) for a, b in pairs):.2f}"


def shares_lines(found: Sequence[Shares]) -> Iterator[str]:
    parts = [*PARTS, "python"]
    yield (
        "| student | loop | N non-embedding | ms a step | GFLOP/s | of torch.mm | of oneDNN | "
        + " | ".join(parts)
        + " |"
    )
    yield "|---" * (7 + len(parts)) + "|"
    for each in found:
        cells = [
            each.size,
            each.contestant,
            f"{each.n_params_non_embedding:,}",
            f"{each.step_s * 1e3:,.1f}",
            f"{each.gflops:.1f}",
            *(f"{each.gflops / rate:.0%}" for rate in each.gemm_gflops.values()),
            *(f"{each.parts[part]:.0%}" for part in parts),
        ]
        yield f"| {' | '.join(cells)} |"


def run_contests(names: Sequence[str], n_rounds: int) -> list[dict[str, Any]]:
    results = []
    for n_vocab in TEACHERS:
        job = contest_job(n_vocab)
        found = contest(job, names, n_rounds)
        print("", *contest_lines(job, found), sep="\n", flush=True)
        rounds = {name: [asdict(each) for each in measured] for name, measured in found.items()}
        results.append({"job": asdict(job), "rounds": rounds})
    return results


def run_shares(names: Sequence[str]) -> list[dict[str, Any]]:
    found = []
    for job in shares_jobs():
        for name in names:
            try:
                found.append(alone(shares, name, job))
            except ImportError as error:
                print(f"{name} is left out: {error}", file=sys.stderr, flush=True)
    print("", *shares_lines(found), sep="\n")
    return [asdict(each) for each in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shares", action="store_true", help="what a step's time goes into")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers, too")
    parser.add_argument("--rounds", type=int, default=N_ROUNDS)
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    given = parser.parse_args()
    document = header()
    print(*header_lines(document), sep="\n", flush=True)
    if given.shares:
        document["shares"] = run_shares(("hf", "kdlaws-scratch"))
    else:
        document["contests"] = run_contests(given.only, given.rounds)
    if given.json:
        given.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
