"""The training loop, readable from top to bottom.

A *trunk* runs at a constant rate. Each of its *branches* leaves it for a cooldown to zero, and is
a run of its own, with a record; the trunk then goes on from where the branch left. Trunk state is
saved where a branch leaves, and every minute, so an interrupted trunk goes on bit for bit.

A batch is read in parts that fit in memory, each part's gradient normalised by the whole batch.
"""

import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from kdlaws.config import Optimiser, Precision
from kdlaws.gates import trunk_is_over
from kdlaws.lab import checkpoints, heads, objectives, students
from kdlaws.lab.cache import CacheSpec, ReplicaCaches
from kdlaws.lab.export import save_model
from kdlaws.lab.hooks import OnMetrics, metrics_hook
from kdlaws.lab.memory import part_windows
from kdlaws.lab.objectives import CROSS_ENTROPY, TokenLoss
from kdlaws.lab.online import OnlineSpec, OnlineTeacher
from kdlaws.lab.streams import Sampler, TokenStream
from kdlaws.lab.targets import Targets
from kdlaws.lab.tokens import load_tokenizer
from kdlaws.records import (
    RECORD,
    WEIGHTS,
    file_digest,
    finite,
    read_record,
    write_json,
    write_text,
)
from kdlaws.study import PlannedRun

CHECKPOINT_SECONDS = 60
METRICS_EVERY = 20
VALIDATION_BATCH = 32


@dataclass(frozen=True)
class TrunkJob:
    """All that a worker needs to train one trunk and its branches; it can be pickled."""

    branches: tuple[PlannedRun, ...]
    columns: dict[str, dict[str, Any]]  # by run_id: what the record starts from
    folder: Path
    stream: TokenStream
    validation: TokenStream
    validation_tokens: int
    tokenizer: Path
    optimiser: Optimiser
    teacher: tuple[CacheSpec, ...] | OnlineSpec
    dtype: str
    device: str
    precision: Precision
    keep_checkpoints: int
    tensorboard: Path | None

    @property
    def first(self) -> PlannedRun:
        return self.branches[0]

    @property
    def caches(self) -> tuple[CacheSpec, ...]:
        """What it reads of stored outputs."""
        return () if isinstance(self.teacher, OnlineSpec) else self.teacher

    @property
    def trunk_folder(self) -> Path:
        return self.folder / "trunks" / self.first.trunk

    def is_done(self, branch: PlannedRun) -> bool:
        return (self.folder / branch.run_id / RECORD).exists()

    def is_over(self) -> bool:
        """Whether no branch is left to run: see ``gates.trunk_is_over``."""
        done = [read_record(self.folder / b.run_id) for b in self.branches if self.is_done(b)]
        return trunk_is_over(done, len(self.branches))


@dataclass
class Progress:
    """Where a trunk stands, apart from its weights."""

    step: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    metrics: list[dict[str, float]] = field(default_factory=list)


def train_trunk(job: TrunkJob, on_tokens: Callable[[int], None]) -> None:
    """Train what is missing of a trunk. ``on_tokens`` is told of tokens as they are trained on."""
    pending = [branch for branch in job.branches if not job.is_done(branch)]
    if pending and not job.is_over():
        with metrics_hook(job.tensorboard, job.first.trunk) as on_metrics:
            _train_branches(job, pending, on_tokens, on_metrics)
    shutil.rmtree(job.trunk_folder, ignore_errors=True)


def _train_branches(
    job: TrunkJob,
    pending: Sequence[PlannedRun],
    on_tokens: Callable[[int], None],
    on_metrics: OnMetrics,
) -> None:
    trunk = _Trunk(job, on_tokens, on_metrics)
    trunk.resume(latest=_cooldown_start(job, pending[0]))
    try:
        for branch in pending:
            trunk.train_branch(branch)
            if job.is_over():
                return
    except BaseException:
        trunk.save_if_on_trunk()
        raise


def _cooldown_start(job: TrunkJob, branch: PlannedRun) -> int:
    return branch.n_steps - max(1, round(job.optimiser.cooldown_share * branch.n_steps))


class _Trunk:
    def __init__(
        self, job: TrunkJob, on_tokens: Callable[[int], None], on_metrics: OnMetrics
    ) -> None:
        self.job, self.on_tokens, self.on_metrics = job, on_tokens, on_metrics
        run, shape = job.first.run, job.first.shape
        self.device = torch.device(job.device)
        torch.manual_seed(run.seed)
        self.model = students.build(shape, run.seed).train().to(device=self.device)
        self.teacher = self._new_teacher()
        self.map = self._new_map()
        self.optimiser = self._new_optimiser()
        batch_windows = run.batch_tokens // shape.n_ctx
        self.part_windows = part_windows(shape, batch_windows, job.precision)
        self.sampler = Sampler(job.first.n_windows, batch_windows, run.seed)
        self.progress = Progress()
        self.diverged = False
        self._cooling = False
        self._saved_at = time.monotonic()

    def _new_teacher(self) -> ReplicaCaches | OnlineTeacher | None:
        if isinstance(self.job.teacher, OnlineSpec):
            return OnlineTeacher(self.job.teacher, self.device)
        specs = self.job.caches
        return ReplicaCaches(self.job.folder / "cache", specs) if specs else None

    def _new_map(self) -> nn.Linear | None:
        if self.job.first.run.method != "embedding":
            return None
        assert self.teacher is not None
        n_components = self.teacher.n_components
        return students.new_map(self.job.first.shape, n_components).to(self.device)

    def _new_optimiser(self) -> torch.optim.AdamW:
        shape, rate = self.job.first.shape, self.job.first.run.learning_rate
        groups = students.parameter_groups(
            self.model.named_parameters(), shape, rate, self.job.optimiser.weight_decay
        )
        if self.map is not None:
            groups.append(students.map_group(self.map, shape, rate))
        return torch.optim.AdamW(groups, betas=students.BETAS, eps=students.EPS, fused=True)

    # -- the loop ---------------------------------------------------------------------------

    def train_branch(self, branch: PlannedRun) -> None:
        """Bring the trunk to the branch's cooldown, cool down, record, and return."""
        start = _cooldown_start(self.job, branch)
        while self.progress.step < start and not self.diverged:
            self._step(min(1.0, (self.progress.step + 1) / branch.warmup_steps))
            if time.monotonic() - self._saved_at > CHECKPOINT_SECONDS:
                self._save(self._capture())
        at_start = self._capture()
        if branch is not self.job.branches[-1] and not self.diverged:
            self._save(at_start)
        trunk_progress = self._copy_progress()
        self._cool_down(branch, start)
        self._finish(branch)
        self._restore(at_start)
        self.progress, self._cooling = trunk_progress, False

    def _cool_down(self, branch: PlannedRun, start: int) -> None:
        of_trunk, self._cooling = self.on_metrics, True
        with metrics_hook(self.job.tensorboard, branch.run_id) as self.on_metrics:
            while self.progress.step < branch.n_steps and not self.diverged:
                done = (self.progress.step - start) / (branch.n_steps - start)
                self._step(1.0 - math.sqrt(done))
        self.on_metrics = of_trunk

    def _step(self, rate_factor: float) -> None:
        wall, cpu = time.monotonic(), time.process_time()
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * rate_factor
        loss = self._gradients(self.progress.step)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.job.optimiser.clip)
        if self.map is not None:
            nn.utils.clip_grad_norm_(self.map.parameters(), self.job.optimiser.clip)
        self.optimiser.step()
        self.progress.step += 1
        self._note(loss, float(norm), rate_factor)
        self.progress.wall_s += time.monotonic() - wall
        self.progress.cpu_s += time.process_time() - cpu
        self.on_tokens(self.job.first.run.batch_tokens)

    def _gradients(self, step: int) -> float:
        """Those of the batch's loss, which is returned; a part of the batch at a time."""
        windows, epochs = self.sampler.indices(step), self.sampler.epochs(step)
        self.optimiser.zero_grad(set_to_none=True)
        total = 0.0
        for start in range(0, len(windows), self.part_windows):
            part = slice(start, start + self.part_windows)
            loss = self._loss(windows[part], epochs[part])
            loss.backward()
            total += loss.item()
        return total

    def _loss(self, windows: np.ndarray, epochs: np.ndarray) -> Tensor:
        """What these windows add to the batch's mean loss over labels."""
        run, n_ctx = self.job.first.run, self.job.first.shape.n_ctx
        batch = self.job.stream.batch(windows, n_ctx, epochs).to(self.device)
        n_labels = run.batch_tokens // n_ctx * batch.labels_bm.shape[1]  # of the whole batch
        with self._precision():
            hidden_bmd, given_bme = heads.states(self.model, batch)
            targets, loss = self._targets(windows, epochs)
            value = heads.loss(
                *(heads.head(self.model), given_bme, batch.labels_bm),
                *(targets, loss),
                n_tokens=n_labels,
            )
            if run.embedding_weight is not None:
                assert self.teacher is not None
                components_bmc = self.teacher.hidden(windows, epochs)
                share = batch.labels_bm.numel() / n_labels
                value = value + run.embedding_weight * share * self._unexplained(
                    hidden_bmd, components_bmc
                )
        return value

    def _targets(self, windows: np.ndarray, epochs: np.ndarray) -> tuple[Targets | None, TokenLoss]:
        run = self.job.first.run
        if run.method != "token":
            return None, CROSS_ENTROPY
        assert self.teacher is not None
        assert run.kd_weight is not None
        assert run.temperature is not None
        assert run.divergence is not None
        beta = {} if run.jsd_beta is None else {"beta": run.jsd_beta}
        loss = TokenLoss(run.kd_weight, run.temperature, run.divergence, **beta)
        targets = self.teacher.token(run.temperature, windows, epochs)
        return targets.to(self.device), loss

    def _unexplained(self, hidden_bmd: Tensor, components_bmc: Tensor) -> Tensor:
        assert self.map is not None
        facts = self.job.first.teacher
        assert facts is not None
        components_bmc = components_bmc.to(self.device)
        return objectives.unexplained(self.map(hidden_bmd), components_bmc, facts.shape.d_model)

    def _precision(self) -> torch.autocast:
        is_half = self.job.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=is_half)

    def _note(self, loss: float, norm: float, rate_factor: float) -> None:
        """Keep the metrics, and notice divergence.

        That is no loss, or twice the first one and twice that of a uniform guess.
        """
        step, metrics = self.progress.step, self.progress.metrics
        first = metrics[0]["loss"] if metrics else loss
        uniform = math.log(self.job.first.shape.n_vocab)
        limit = 2 * max(first, uniform) + (self.job.first.run.embedding_weight or 0.0)
        self.diverged = not math.isfinite(loss) or loss > limit
        if step % METRICS_EVERY == 0 or step == 1 or self.diverged:
            n_tokens = step * self.job.first.run.batch_tokens
            values = {"n_tokens": n_tokens, "loss": loss, "grad_norm": norm, "rate": rate_factor}
            self.progress.metrics.append({"step": step} | values)
            self.on_metrics(step, values)

    # -- what a branch leaves behind --------------------------------------------------------

    def _finish(self, branch: PlannedRun) -> None:
        folder = self.job.folder / branch.run_id
        folder.mkdir(parents=True, exist_ok=True)
        columns = self.job.columns[branch.run_id]
        measured = {"validation_cross_entropy": None} if self.diverged else self._validate()
        record = columns | {
            "status": "diverged" if self.diverged else "done",
            **measured,
            "device": self.job.device,
            "wall_s": self.progress.wall_s,
            "cpu_s": self.progress.cpu_s,
            "versions": {name: version(name) for name in ("kdlaws", "torch", "transformers")},
        }
        if self.teacher is not None:
            cross_entropy = self.teacher.cross_entropy(self.job.first.n_windows)
            record["teacher_stream_cross_entropy"] = cross_entropy
        if self.map is not None:
            record["student_flops"] = branch.flops_with_map(self.map.out_features).student
        lines = (json.dumps(finite(row)) for row in self.progress.metrics)
        write_text(folder / "metrics.jsonl", "\n".join(lines) + "\n")
        write_text(folder / "run.yaml", self._describe(branch))
        if not self.diverged:
            tokenizer = load_tokenizer(self.job.tokenizer)
            save_model(self.model, tokenizer, folder / "model", record, self.job.dtype)
            record["weights_sha256"] = file_digest(folder / WEIGHTS)
        write_json(folder / RECORD, record)

    def _describe(self, branch: PlannedRun) -> str:
        """The run's settings, for people."""
        settings = {
            "run_id": branch.run_id,
            **asdict(branch.run),
            "n_steps": branch.n_steps,
            "warmup_steps": branch.warmup_steps,
            "cooldown_from_step": _cooldown_start(self.job, branch),
            **{name: self.job.columns[branch.run_id][name] for name in ("cache", "precision")},
            "optimiser": self.job.optimiser.model_dump(exclude={"learning_rate", "batch_tokens"}),
        }
        return yaml.safe_dump(settings, sort_keys=False)

    def _validate(self) -> dict[str, float]:
        """Cross-entropy; of embedding-level students also 1 - R^2 of the teacher's hidden state.

        ``rank_floor`` is the least 1 - R^2 on the training stream that the student's width allows.
        """
        self.model.eval()
        stream, n_ctx = self.job.validation, self.job.first.shape.n_ctx
        n_windows = stream.n_windows(n_ctx, self.job.validation_tokens)
        to_head = heads.head(self.model)
        nll = unexplained = 0.0
        for start in range(0, n_windows, VALIDATION_BATCH):
            rows = np.arange(start, min(start + VALIDATION_BATCH, n_windows))
            batch = stream.batch(rows, n_ctx).to(self.device)
            with torch.no_grad(), self._precision():
                hidden_bmd, given_bme = heads.states(self.model, batch)
                nll += heads.loss(to_head, given_bme, batch.labels_bm).item() * len(rows)
                if self.map is not None:
                    assert self.teacher is not None
                    components_bmc = self.teacher.validation_hidden(rows)
                    unexplained += self._unexplained(hidden_bmd, components_bmc).item() * len(rows)
        self.model.train()
        measured = {"validation_cross_entropy": nll / n_windows}
        if self.map is not None:
            assert self.teacher is not None
            dropped = self.teacher.hidden_dropped
            measured["validation_unexplained"] = unexplained / n_windows + dropped
            measured["rank_floor"] = self.teacher.rank_floor(self.job.first.shape.d_model)
        return measured

    # -- checkpoints ------------------------------------------------------------------------

    def _capture(self) -> dict[str, Tensor]:
        """Every tensor that training changes, copied; the state of random numbers among them."""
        tensors = {f"model.{name}": w for name, w in self.model.named_parameters()}
        if self.map is not None:
            tensors["map"] = self.map.weight
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{key}": value for key, value in state.items()}
        tensors["random.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.device)
        return {name: tensor.detach().clone() for name, tensor in tensors.items()}

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, weight in self.model.named_parameters():
                weight.copy_(tensors[f"model.{name}"])
            if self.map is not None:
                self.map.weight.copy_(tensors["map"])
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("adam."):
                _, index, key = name.split(".")
                state.setdefault(int(index), {})[key] = tensor
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})
        torch.set_rng_state(tensors["random.cpu"])
        # The device is no part of a run's identity: a trunk may go on where it did not begin.
        if self.device.type == "cuda" and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"].cpu(), self.device)

    @property
    def _checkpoints(self) -> Path:
        return self.job.trunk_folder / "checkpoint"

    def _save(self, tensors: dict[str, Tensor]) -> None:
        checkpoints.save(
            self._checkpoints,
            self.progress.step,
            tensors,
            asdict(self.progress),
            keep=self.job.keep_checkpoints,
        )
        self._saved_at = time.monotonic()

    def save_if_on_trunk(self) -> None:
        """Called when training is stopped; a cooldown is done again from its start."""
        if not self._cooling:
            self._save(self._capture())

    def resume(self, latest: int) -> None:
        """Go on from the last sound checkpoint of no later than step ``latest``, if any."""
        found = checkpoints.load(self._checkpoints, latest)
        if found is not None:
            tensors, progress = found
            self._restore(tensors)
            self.progress = Progress(**progress)
            self.on_tokens(self.progress.step * self.job.first.run.batch_tokens)

    def _copy_progress(self) -> Progress:
        return replace(self.progress, metrics=list(self.progress.metrics))
