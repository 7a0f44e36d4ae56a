"""Sampled teacher outputs against the whole distribution: one size, several seeds.

    python benchmarks/dense.py [config.yaml] [size] [seeds]

The dense student reads the teacher itself, beside it, at every step; the sampled one reads the
stored draws of the study. Same initial weights, same batches. Prints the test cross-entropy of
each, their differences, and the standard error of the mean difference.
"""

import statistics
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from kdlaws.config import Students, Study, load_study
from kdlaws.lab import cache, students, trainer
from kdlaws.lab.measures import EvaluationSet
from kdlaws.lab.sweep import Tasks, plan_study
from kdlaws.lab.teachers import load_model, load_teacher
from kdlaws.lab.tokens import Text


class _DenseTrunk(trainer._Trunk):
    """The same loop, its loss KL(p_T || p_S) over the whole vocabulary."""

    def _loss(self, step: int) -> Tensor:
        windows, n_ctx = self.sampler.indices(step), self.job.first.shape.n_ctx
        inputs_bt = torch.from_numpy(self.job.stream.windows(windows, n_ctx)[0])
        with torch.inference_mode():
            teacher_btv = students.forward(self.teacher, inputs_bt)[1]
        _, logits_btv = students.forward(self.model, inputs_bt)
        log_p_teacher_btv = F.log_softmax(teacher_btv, dim=-1).clone()
        log_p_btv = F.log_softmax(logits_btv, dim=-1)
        kl_btv = log_p_teacher_btv.exp() * (log_p_teacher_btv - log_p_btv)
        return kl_btv.sum(dim=-1).mean()


def one_size(study: Study, size: str, seeds: range) -> Study:
    teacher = next(iter(study.teachers))
    block = Students(sizes=size, methods="token", teachers=teacher, seeds=tuple(seeds))
    folder = Path(f"{study.folder}-dense")
    return study.model_copy(
        update={"students": (block,), "epochs": {1.0: (1.0,)}, "folder": folder}
    )


def cross_entropy(folder: Path, test: EvaluationSet) -> float:
    model, losses = load_model(folder), []
    for inputs_bt, targets_bt in test.batches():
        with torch.inference_mode():
            _, logits_btv = students.forward(model, inputs_bt)
            losses.append(F.cross_entropy(logits_btv.flatten(0, 1), targets_bt.flatten()))
    return float(torch.stack(losses).mean())


def main(path: str = "config.yaml", size: str = "96/3", n_seeds: str = "3") -> None:
    torch.set_num_threads(1)
    study = one_size(load_study(Path(path)), size, range(int(n_seeds)))
    text = Text(study)
    planned = plan_study(study, text)
    tasks = Tasks(planned, text, {run.shape: 1.0 for run in planned.runs})
    stream = text.stream("test")
    test = EvaluationSet(
        stream, stream.n_windows(study.n_ctx, study.corpus.test_tokens), study.n_ctx
    )
    differences = []
    for [branch] in planned.trunks().values():
        job = tasks.job([branch])
        assert job.cache is not None
        cache.build(job.cache, study.folder / "cache", lambda _: None)
        found = {}
        for kind, trunk_class in (("sampled", trainer._Trunk), ("dense", _DenseTrunk)):
            trunk = trunk_class(job, lambda _: None)
            trunk.teacher = load_teacher(job.cache.teacher)
            trunk.train_branch(branch)
            found[kind] = cross_entropy(study.folder / branch.run_id, test)
        differences.append(found["sampled"] - found["dense"])
        print(f"seed {branch.run.seed}: {found}, difference {differences[-1]:+.4f}", flush=True)
    se = statistics.stdev(differences) / len(differences) ** 0.5
    print(f"sampled minus dense: {np.mean(differences):+.4f} ± {se:.4f} nats")


if __name__ == "__main__":
    main(*sys.argv[1:])
