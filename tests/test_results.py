"""What is committed under results/ is what it says it is."""

from pathlib import Path

import pytest

from kdlaws.records import WEIGHTS, file_digest, read_json

RESULTS = Path(__file__).parent.parent / "results"
TEACHERS = sorted((RESULTS / "teachers" / "runs").glob("teacher-*"))


def test_the_shipped_teachers_are_under_ten_megabytes() -> None:
    assert len(TEACHERS) == 3
    files = [file for folder in TEACHERS for file in folder.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 10e6


@pytest.mark.parametrize("folder", TEACHERS, ids=lambda folder: folder.name)
def test_a_shipped_teacher_has_its_record_and_hash(folder: Path) -> None:
    record = read_json(folder / "record.json")
    assert record["run_id"] == folder.name
    assert record["weights_sha256"] == file_digest(folder / WEIGHTS)


def test_the_smallest_teacher_still_measures_what_its_record_says(tmp_path: Path) -> None:
    """On the test split of the study that trained it, from its half-precision weights."""
    import numpy as np
    import torch
    from torch.nn import functional as F

    from kdlaws.config import load_study
    from kdlaws.lab import heads
    from kdlaws.lab.teachers import load_model
    from kdlaws.lab.tokens import Text

    study = load_study(RESULTS.parent / "configs" / "teachers.yaml", [f"folder={tmp_path}"])
    folder = min(TEACHERS, key=lambda each: read_json(each / "record.json")["n_params"])
    stream = Text(study).stream("test")
    rows = np.arange(stream.n_windows(study.n_ctx, study.corpus.test_tokens))
    batch = stream.batch(rows, study.n_ctx)
    with torch.inference_mode():
        logits_nv = heads.logits(load_model(folder / "model"), batch).flatten(0, 1)
        found = F.cross_entropy(logits_nv, batch.labels_bm.flatten())
    recorded = read_json(folder / "evaluation.json")["cross_entropy"]
    assert float(found) == pytest.approx(recorded, abs=1e-4)


DEFAULT = RESULTS / "default"


def test_the_readme_tells_the_committed_study() -> None:
    """Its ten lines, but for the last, which says where the report lies."""
    from kdlaws.advice import summary

    readme = (RESULTS.parent / "README.md").read_text(encoding="utf-8")
    for line in summary(DEFAULT).splitlines()[:-1]:
        assert line in readme


def test_every_finding_in_the_readme_is_made_from_the_committed_study() -> None:
    """The list of findings is what ``story`` tells, sentence by sentence, and nothing else."""
    from kdlaws.advice import story

    readme = (RESULTS.parent / "README.md").read_text(encoding="utf-8")
    section = readme.split("## What the default study says")[1].split("\n## ")[0]
    told = [" ".join(bullet.split()) for bullet in section.split("\n- ")[1:]]
    assert told == story(DEFAULT)


def test_every_verdict_in_the_readme_is_that_of_the_committed_study() -> None:
    """In order, with the reason; that these are today's verdicts, test_cli_advice says."""
    verdicts = read_json(DEFAULT / "claims.json")["verdicts"]
    readme = (RESULTS.parent / "README.md").read_text(encoding="utf-8")
    section = readme.split("## What was expected of distillation")[1].split("\n## ")[0]
    told = [" ".join(bullet.split()) for bullet in section.split("\n- ")[1:]]
    assert told == [
        f"**{each['claim'].removesuffix('.')}: {each['verdict']}.** {each['reason']}"
        for each in verdicts
    ]


def test_the_committed_study_scales() -> None:
    """Slopes in N and D below zero with 95 % intervals; more is nowhere significantly worse."""
    from kdlaws.advice import findings
    from kdlaws.advice.evidence import by_size, load

    evidence = load(DEFAULT)
    for method in evidence.methods:
        in_n = findings.size_slope(evidence, method)
        in_d = findings.data_slopes(evidence, method)
        assert in_n is not None
        assert set(in_d) == set(by_size(evidence.of(method)))
        assert len(in_d) >= 4
        for slope in (in_n, *in_d.values()):
            assert slope.interval(0.95)[1] < 0
    steps = findings.steps(evidence)
    assert len(steps) > 90
    assert not any(step.is_inverted for step in steps)


def test_token_level_beats_scratch_on_little_data_at_every_size() -> None:
    from kdlaws.advice import findings
    from kdlaws.advice.evidence import load

    evidence = load(DEFAULT)
    for fraction in (0.01, 0.1):
        gain = findings.gain(evidence, "token", fraction)
        assert gain is not None
        assert gain.n_wins == gain.n_sizes >= 4


def test_no_undertrained_run_is_in_a_fit_of_the_committed_study() -> None:
    """Each fit's number of runs is that of the one-pass rows which are done."""
    from kdlaws.advice.evidence import done, load, one_pass

    evidence = load(DEFAULT)
    assert len(evidence.fits) >= 5
    for name, fitted in evidence.fits.items():
        rows = one_pass(evidence.of(name.split("-")[1]))
        assert fitted.n_runs == len(done(rows)) < len(rows)


def test_the_laws_of_the_committed_study_pass_near_their_runs() -> None:
    """A trunk effect must not stand in for a law that bends otherwise than the runs."""
    from kdlaws.advice.evidence import done, load, one_pass

    evidence = load(DEFAULT)
    for method in evidence.methods:
        law = evidence.fit("chinchilla", method)
        assert law is not None
        runs = done(one_pass(evidence.of(method)))
        columns = {name: runs[name].to_numpy() for name in (law.n_column, "n_tokens")}
        error = law.predict(columns) / runs["cross_entropy"].to_numpy() - 1
        assert abs(error).max() < 0.03
