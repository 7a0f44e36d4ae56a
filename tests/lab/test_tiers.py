"""The curated tier: which blocks a reference ranks best, against a plain loop over the stream."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from kdlaws.config import Study, load_study
from kdlaws.errors import ConfigError
from kdlaws.lab import corpus as texts
from kdlaws.lab import tiers
from kdlaws.lab.corpus import Document
from kdlaws.lab.progress import Reporter
from kdlaws.lab.sweep import plan_study, train
from kdlaws.lab.tokens import Text, train_tokenizer

N_CTX = 32


def study_with_curation(folder: Path, corpus_folder: Path, objective: str) -> Study:
    """A teacher is trained first; then a study of its own takes it as the reference."""
    common = f"""
objective: {objective}
n_ctx: {N_CTX}
optimiser: {{batch_tokens: 64}}
corpus: {{source: {corpus_folder}, teacher_share: 0.4, validation_share: 0.1, test_share: 0.1}}
"""
    first = folder / "first.yaml"
    first.write_text(
        f"name: first\nfolder: {folder / 'first'}\ntokenizer: {{n_vocab: 300}}\n"
        f"teachers: {{small: {{size: 32/1, n_tokens: 2k}}}}\n{common}"
    )
    made = load_study(first)
    train(made, Reporter("train"))
    [run] = folder.glob("first/teacher-*")
    file = folder / "second.yaml"
    file.write_text(
        f"name: second\nfolder: {folder / 'second'}\n"
        f"tokenizer: {{path: {run / 'model'}}}\nteachers: {{small: {{run: {run}}}}}\n"
        "students: [{sizes: 32/1, methods: [scratch, token], teachers: small, "
        f"quality: [raw, curated]}}]\n{common}"
    )
    curation = "corpus.curation={reference: small, keep: 0.25, near_duplicates: null}"
    return load_study(file, [curation])


@pytest.fixture(params=["causal", "masked"])
def study(request: pytest.FixtureRequest, tmp_path: Path, corpus_folder: Path) -> Study:
    return study_with_curation(tmp_path, corpus_folder, request.param)


def mean_losses(study: Study, text: Text, blocks: list[str]) -> list[float]:
    """Of each block, by the library's model and a walk along the stream, token by token."""
    auto = AutoModelForCausalLM if study.objective == "causal" else AutoModelForMaskedLM
    run = study.teachers["small"].run
    assert run is not None
    model, stream = auto.from_pretrained(run / "model").eval(), text.stream("student")
    sums: dict[int, list[float]] = {index: [] for index in range(len(blocks))}
    owner = blocks_along(study, text, blocks)
    for window in range(stream.n_windows(N_CTX)):
        batch = stream.batch(np.array([window]), N_CTX)
        with torch.no_grad():
            logits = batch.of(model(input_ids=batch.inputs_bt).logits)[0]
        losses = F.cross_entropy(logits, batch.labels_bm[0], reduction="none").tolist()
        if batch.places_bm is None:
            places = [window * N_CTX + 1 + t for t in range(N_CTX)]
        else:
            places = [window * N_CTX + t for t in batch.places_bm[0].tolist()]
        for place, loss in zip(places, losses, strict=True):
            if owner[place] is not None:
                sums[owner[place]].append(loss)
    return [float(np.mean(each)) if each else np.inf for each in sums.values()]


def blocks_along(study: Study, text: Text, blocks: list[str]) -> list[int | None]:
    """The block of each token of the stream, None for a frame's two."""
    plain: list[int] = []
    for index, block in enumerate(blocks):
        ids = text.tokenizer(block, add_special_tokens=False)["input_ids"]
        plain += [index] * (len(ids) + 1)
    if study.objective == "causal":
        return list(plain)
    framed: list[int | None] = []
    for start in range(0, len(plain) - (N_CTX - 2) + 1, N_CTX - 2):
        framed += [None, *plain[start : start + N_CTX - 2], None]
    return framed


def test_the_blocks_of_lowest_loss_are_kept_in_their_order(study: Study) -> None:
    text = Text(study)
    blocks = texts.shuffled_blocks(text.documents["student"], study.corpus)
    losses = mean_losses(study, text, blocks)
    n_kept = round(0.25 * len(blocks))
    best = sorted(sorted(range(len(blocks)), key=losses.__getitem__)[:n_kept])
    kept = "".join(blocks[index] for index in best)
    stream = text.stream("student", quality="curated")
    decoded = text.tokenizer.decode(np.array(stream.ids).tolist(), skip_special_tokens=True)
    n = int(0.9 * len(decoded))  # a masked stream's last sequence is not filled
    assert n > 100
    assert kept.startswith(decoded[:n])
    n_bytes = [len(block.encode()) for block in blocks]
    assert text.kept() == pytest.approx(sum(n_bytes[i] for i in best) / sum(n_bytes))


def test_curated_runs_are_runs_of_their_own(study: Study) -> None:
    planned = plan_study(study, Text(study))
    rows = [planned.columns(run) for run in planned.runs]
    raw, curated = ([r for r in rows if r["quality"] == quality] for quality in ("raw", "curated"))
    assert len(raw) == len(curated)
    assert {row["kept"] for row in raw} == {1.0}
    assert all(0.15 < row["kept"] < 0.35 for row in curated)
    assert all("curated" in row["run_id"] for row in curated)
    longest = [max(row["n_unique_tokens"] for row in group) for group in (raw, curated)]
    assert longest[1] == pytest.approx(curated[0]["kept"] * longest[0], rel=0.1)


def test_a_reference_that_is_still_to_be_trained_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(
        "name: a\ncorpus: {teacher_share: 0.5, curation: {reference: big}}\n"
        "teachers: {big: {size: 32/1, n_tokens: 1k}}\n"
    )
    with pytest.raises(ConfigError, match=r"corpus.curation.reference.*is to be trained"):
        load_study(file)


def test_what_decides_the_tier_is_in_its_identity(study: Study) -> None:
    """The share, the length of the reference's windows, and how it is asked; not its name."""
    curation = study.corpus.curation
    assert curation is not None

    def with_corpus(**changes: object) -> Study:
        changed = curation.model_copy(update=changes)
        corpus = study.corpus.model_copy(update={"curation": changed})
        return study.model_copy(update={"corpus": corpus})

    others = [
        with_corpus(keep=0.5),
        with_corpus(near_duplicates=0.9),
        study.model_copy(update={"n_ctx": 16}),
    ]
    keys = {tiers.key(each) for each in [study, *others]}
    assert len(keys) == 4
    assert tiers.key(with_corpus(keep=0.25)) in keys
    larger = Text(with_corpus(keep=0.5)).stream("student", quality="curated")
    assert larger.n_tokens > 1.5 * Text(study).stream("student", quality="curated").n_tokens


def test_a_reference_with_another_vocabulary_is_refused(
    study: Study, tmp_path: Path, corpus_folder: Path
) -> None:
    made = train_tokenizer([Document("other", "quite another text " * 50)], 270, study.objective)
    made.save(str(tmp_path / "tokenizer.json"))
    tokenizer = study.tokenizer.model_copy(update={"path": tmp_path / "tokenizer.json"})
    other = study.model_copy(update={"tokenizer": tokenizer})
    with pytest.raises(ConfigError, match=r"reference: it knows 300 entries.*has 270"):
        Text(other).stream("student", quality="curated")
