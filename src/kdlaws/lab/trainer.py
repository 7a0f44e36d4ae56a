"""The training loop, readable from top to bottom.

A *trunk* runs at a constant rate. Each of its *branches* leaves it for a cooldown to zero, and is
a run of its own, with a record; the trunk then goes on from where the branch left. Trunk state is
saved where a branch leaves, and every minute, so an interrupted trunk goes on bit for bit.
"""

import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kdlaws.config import Optimiser
from kdlaws.gates import trunk_is_over
from kdlaws.lab import objectives, students
from kdlaws.lab.cache import CacheSpec, TeacherCache
from kdlaws.lab.export import save_model
from kdlaws.lab.tokens import Sampler, TokenStream, load_tokenizer
from kdlaws.records import (
    RECORD,
    WEIGHTS,
    file_digest,
    finite,
    read_json,
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
    cache: CacheSpec | None
    dtype: str
    device: str

    @property
    def first(self) -> PlannedRun:
        return self.branches[0]

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
        trunk = _Trunk(job, on_tokens)
        trunk.resume(latest=_cooldown_start(job, pending[0]))
        try:
            for branch in pending:
                trunk.train_branch(branch)
                if job.is_over():
                    break
        except BaseException:
            trunk.save_if_on_trunk()
            raise
    shutil.rmtree(job.trunk_folder, ignore_errors=True)


def _cooldown_start(job: TrunkJob, branch: PlannedRun) -> int:
    return branch.n_steps - max(1, round(job.optimiser.cooldown_share * branch.n_steps))


class _Trunk:
    def __init__(self, job: TrunkJob, on_tokens: Callable[[int], None]) -> None:
        self.job, self.on_tokens = job, on_tokens
        shape, batch = job.first.shape, job.first.run.batch_tokens
        self.device = torch.device(job.device)
        self.model = students.build(shape, job.first.run.seed).train()
        self.model.to(device=self.device)
        self.cache = TeacherCache(job.folder / "cache", job.cache) if job.cache else None
        self.map = self._new_map()
        self.optimiser = self._new_optimiser()
        self.sampler = Sampler(job.first.n_windows, batch // shape.n_ctx, job.first.run.seed)
        self.progress = Progress()
        self.diverged = False
        self._cooling = False
        self._saved_at = time.monotonic()

    def _new_map(self) -> nn.Linear | None:
        if self.job.first.run.method != "embedding":
            return None
        assert self.cache is not None
        d_teacher = self.cache.spec.teacher.shape.d_model
        return students.new_map(self.job.first.shape, d_teacher).to(self.device)

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
                self._save()
        at_start = self._capture()
        if branch is not self.job.branches[-1] and not self.diverged:
            self._save()
        trunk_progress = self._copy_progress()
        self._cooling = True
        while self.progress.step < branch.n_steps and not self.diverged:
            done = (self.progress.step - start) / (branch.n_steps - start)
            self._step(1.0 - math.sqrt(done))
        self._finish(branch)
        self._restore(at_start)
        self.progress = trunk_progress
        self._cooling = False

    def _step(self, rate_factor: float) -> None:
        wall, cpu = time.monotonic(), time.process_time()
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * rate_factor
        loss = self._loss(self.progress.step)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.job.optimiser.clip)
        if self.map is not None:
            nn.utils.clip_grad_norm_(self.map.parameters(), self.job.optimiser.clip)
        self.optimiser.step()
        self.progress.step += 1
        self._note(float(loss.detach()), float(norm), rate_factor)
        self.progress.wall_s += time.monotonic() - wall
        self.progress.cpu_s += time.process_time() - cpu
        self.on_tokens(self.job.first.run.batch_tokens)

    def _loss(self, step: int) -> Tensor:
        run, shape = self.job.first.run, self.job.first.shape
        windows = self.sampler.indices(step)
        inputs_bt, targets_bt = (
            torch.from_numpy(ids).to(self.device)
            for ids in self.job.stream.windows(windows, shape.n_ctx)
        )
        hidden_btd, logits_btv = students.forward(self.model, inputs_bt)
        if run.method == "scratch":
            return objectives.cross_entropy(logits_btv, targets_bt)
        assert self.cache is not None
        if run.method == "token":
            assert run.kd_weight is not None
            assert run.temperature is not None
            epochs = self.sampler.epochs(step)
            return objectives.token_loss(
                logits_btv,
                targets_bt,
                self.cache.draws(run.temperature, windows, epochs).to(self.device),
                self.cache.entropy(run.temperature, windows).to(self.device),
                kd_weight=run.kd_weight,
                temperature=run.temperature,
            )
        assert self.map is not None
        assert run.embedding_weight is not None
        return objectives.embedding_loss(
            logits_btv,
            targets_bt,
            self.map(hidden_btd),
            self.cache.hidden(windows, self.job.first.n_windows).to(self.device),
            embedding_weight=run.embedding_weight,
        )

    def _note(self, loss: float, norm: float, rate_factor: float) -> None:
        """Keep the metrics, and notice divergence: no loss, or twice that of a uniform guess."""
        step = self.progress.step
        uniform = math.log(self.job.first.shape.n_vocab)
        limit = 2 * uniform + (self.job.first.run.embedding_weight or 0.0)
        self.diverged = not math.isfinite(loss) or loss > limit
        if step % METRICS_EVERY == 0 or step == 1 or self.diverged:
            n_tokens = step * self.job.first.run.batch_tokens
            self.progress.metrics.append(
                {"step": step, "n_tokens": n_tokens, "loss": loss, "grad_norm": norm}
                | {"rate": rate_factor}
            )

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
        if self.cache is not None:
            key = "teacher_stream_cross_entropy"
            record[key] = self.cache.manifest[key]
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
            "optimiser": self.job.optimiser.model_dump(exclude={"learning_rate", "batch_tokens"}),
        }
        return yaml.safe_dump(settings, sort_keys=False)

    def _validate(self) -> dict[str, float]:
        """Cross-entropy; of embedding-level students also 1 - R^2 of the teacher's hidden state.

        ``rank_floor`` is the least 1 - R^2 on the training stream that the student's width allows.
        """
        self.model.eval()
        stream, shape = self.job.validation, self.job.first.shape
        n_windows = stream.n_windows(shape.n_ctx, self.job.validation_tokens)
        nll = unexplained = 0.0
        for start in range(0, n_windows, VALIDATION_BATCH):
            rows = np.arange(start, min(start + VALIDATION_BATCH, n_windows))
            inputs_bt, targets_bt = (
                torch.from_numpy(ids).to(self.device) for ids in stream.windows(rows, shape.n_ctx)
            )
            with torch.inference_mode():
                hidden_btd, logits_btv = students.forward(self.model, inputs_bt)
                nll += objectives.cross_entropy(logits_btv, targets_bt).item() * len(rows)
                if self.map is not None and self.cache is not None:
                    z_btd = self.cache.hidden(rows, self.job.first.n_windows, validation=True)
                    left = objectives.unexplained(self.map(hidden_btd), z_btd.to(self.device))
                    unexplained += left.item() * len(rows)
        self.model.train()
        measured = {"validation_cross_entropy": nll / n_windows}
        if self.map is not None and self.cache is not None:
            measured["validation_unexplained"] = unexplained / n_windows
            measured["rank_floor"] = self.cache.rank_floor(shape.d_model, self.job.first.n_windows)
        return measured

    # -- checkpoints ------------------------------------------------------------------------

    def _capture(self) -> dict[str, Tensor]:
        """Every tensor that training changes, copied."""
        tensors = {f"model.{name}": w for name, w in self.model.named_parameters()}
        if self.map is not None:
            tensors["map"] = self.map.weight
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{key}": value for key, value in state.items()}
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

    def _save(self) -> None:
        """Weights first, then the small file that names them: a checkpoint is whole or absent."""
        folder = self.job.trunk_folder / "checkpoint"
        folder.mkdir(parents=True, exist_ok=True)
        weights = folder / f"{self.progress.step}.safetensors"
        save_file(self._capture(), weights.with_suffix(".partial"))
        weights.with_suffix(".partial").replace(weights)
        write_json(folder / "progress.json", asdict(self.progress))
        for old in folder.glob("*.safetensors"):
            if old != weights:
                old.unlink()
        self._saved_at = time.monotonic()

    def save_if_on_trunk(self) -> None:
        """Called when training is stopped; a cooldown is done again from its start."""
        if not self._cooling:
            self._save()

    def resume(self, latest: int) -> None:
        """Go on from the checkpoint, if there is one from no later than step ``latest``."""
        folder = self.job.trunk_folder / "checkpoint"
        if not (folder / "progress.json").exists():
            return
        progress = Progress(**read_json(folder / "progress.json"))
        weights = folder / f"{progress.step}.safetensors"
        if progress.step <= latest and weights.exists():
            self._restore(load_file(weights))
            self.progress = progress
            self.on_tokens(progress.step * self.job.first.run.batch_tokens)

    def _copy_progress(self) -> Progress:
        return replace(self.progress, metrics=list(self.progress.metrics))
