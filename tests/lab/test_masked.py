"""Masked students and teachers: counts, FLOPs, losses, caches, and a study from end to end."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertForMaskedLM, pipeline

from kdlaws.config import Study, load_study
from kdlaws.errors import ConfigError
from kdlaws.lab import heads, students
from kdlaws.lab.cache import CacheSpec, ReplicaCaches
from kdlaws.lab.cache_verify import verify
from kdlaws.lab.evaluate import evaluate
from kdlaws.lab.objectives import TokenLoss, linear_loss
from kdlaws.lab.progress import Reporter
from kdlaws.lab.sampling import as_whole
from kdlaws.lab.streams import Batch, MaskedStream
from kdlaws.lab.sweep import Tasks, plan_study, train
from kdlaws.lab.targets import Dense, Online, Sampled, Targets
from kdlaws.lab.teachers import load_teacher
from kdlaws.lab.tokens import Text
from kdlaws.records import read_run, run_folders
from kdlaws.shapes import MICRO_SIZES, NAMED_SIZES, Shape, shape
from kdlaws.study import load_teacher_facts
from kdlaws.tables import read_table

BERT_WORDS = 30_522


# -- counts and FLOPs -------------------------------------------------------------------------


@pytest.mark.parametrize("size", [*MICRO_SIZES, *NAMED_SIZES])
def test_counts_are_those_of_the_built_model(size: str) -> None:
    each = shape(size, objective="masked")
    with torch.device("meta"):
        model = BertForMaskedLM(students.bert_config(each))
    embeddings = model.bert.embeddings
    tables = (embeddings.word_embeddings, embeddings.position_embeddings)
    looked_up = sum(table.weight.numel() for table in (*tables, embeddings.token_type_embeddings))
    backbone = sum(weight.numel() for weight in model.bert.parameters())
    assert sum(weight.numel() for weight in model.parameters()) == each.n_params
    assert backbone - looked_up == each.n_params_non_embedding
    transform = sum(w.numel() for w in model.cls.predictions.transform.parameters())
    assert each.n_params_head == model.cls.predictions.decoder.weight.numel() + transform + (
        model.cls.predictions.bias.numel()
    )


def test_a_tiny_bert_is_nearly_all_embedding() -> None:
    """Two layers of 128 at BERT's vocabulary: 4.4M in total, .40M without (Turc et al. 2019)."""
    tiny = Shape("2/128", 128, 2, 64, BERT_WORDS, 128, objective="masked")
    assert tiny.n_params == pytest.approx(4.4e6, rel=0.01)
    assert tiny.n_params_non_embedding == pytest.approx(0.40e6, rel=0.01)
    everywhere = replace(tiny, masked_share=1.0)
    assert everywhere.forward_flops_per_token / (2 * tiny.n_params_non_embedding) == pytest.approx(
        11, rel=0.02
    )


@pytest.mark.parametrize("size", ["32/1", "96/3", "2M"])
def test_forward_flops_are_those_that_torch_counts(
    size: str, new_flop_counter: Callable[[], FlopCounterMode]
) -> None:
    """The counter sees matrix products only, so neither biases nor gains; the head's at labels."""
    each = shape(size, n_vocab=512, n_ctx=64, objective="masked")
    model = students.build(each, seed=0)
    batch = random_batch(each, 2)
    with sdpa_kernel(SDPBackend.MATH), new_flop_counter() as counter:
        heads.logits(model, batch)
    vectors = 2 * each.n_params_vectors * batch.inputs_bt.numel()
    of_head = each.n_params_head - each.n_vocab * each.d_model - each.d_model**2
    vectors += 2 * of_head * batch.labels_bm.numel()
    stated = each.forward_flops_per_token * batch.inputs_bt.numel()
    assert counter.get_total_flops() == pytest.approx(stated - vectors, abs=64 * 2)  # floored


def random_batch(size: Shape, n_windows: int) -> Batch:
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(5, size.n_vocab, (n_windows, size.n_ctx), generator=generator)
    places = torch.rand(n_windows, size.n_ctx, generator=generator).argsort(dim=1)
    places_bm = places[:, : size.n_targets].sort(dim=1).values
    return Batch(ids, ids.gather(1, places_bm), places_bm)


# -- model and loss ---------------------------------------------------------------------------


def test_logits_at_the_labels_are_the_librarys() -> None:
    size = shape("64/2", n_vocab=300, n_ctx=32, objective="masked")
    model, batch = students.build(size, seed=0), random_batch(size, 4)
    with torch.no_grad():
        for weight in model.parameters():  # biases and gains too
            weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    stock = BertForMaskedLM(students.bert_config(size)).eval()
    stock.load_state_dict(model.state_dict())
    with torch.inference_mode():
        assert batch.places_bm is not None
        everywhere_btv = stock(input_ids=batch.inputs_bt).logits
        index = batch.places_bm[..., None].expand(-1, -1, size.n_vocab)
        expected_bmv = everywhere_btv.gather(1, index)
        torch.testing.assert_close(heads.logits(model, batch), expected_bmv, rtol=1e-4, atol=1e-4)
        of_stock = F.cross_entropy(expected_bmv.flatten(0, 1), batch.labels_bm.flatten())
        _, given = heads.states(model, batch)
        ours = heads.loss(heads.head(model), given, batch.labels_bm)
    assert float(ours) == pytest.approx(float(of_stock), rel=1e-5)


def test_initial_weights_are_a_function_of_the_seed_and_of_berts_range() -> None:
    size = shape("64/2", objective="masked")
    first, again, other = (dict(students.build(size, s).named_parameters()) for s in (0, 0, 1))
    for name, weight in first.items():
        assert torch.equal(weight, again[name])
        if name.endswith("position_embeddings.weight"):
            at_zero = torch.tensor([0.0, 0.05]).repeat(32)
            torch.testing.assert_close(weight[0], at_zero)
            torch.testing.assert_close(weight.norm(dim=1), torch.full((128,), 0.05 * 32**0.5))
        elif weight.ndim == 1:
            assert torch.unique(weight).tolist() == ([0.0] if name.endswith("bias") else [1.0])
        else:
            assert float(weight.detach().std()) == pytest.approx(0.02, rel=0.15)
            assert not torch.equal(weight, other[name])


N, D, V = 24, 6, 11
GENERATOR = torch.Generator().manual_seed(5)
HIDDEN = torch.randn(N, D, dtype=torch.float64, generator=GENERATOR)
WEIGHT = torch.randn(V, D, dtype=torch.float64, generator=GENERATOR)
BIAS = torch.randn(V, dtype=torch.float64, generator=GENERATOR)
LABELS = torch.randint(V, (N,), generator=GENERATOR)
TEACHER = torch.randn(N, V, dtype=torch.float64, generator=GENERATOR).softmax(dim=-1)
ENTROPY = -(TEACHER * TEACHER.log()).sum(dim=-1)


def dense_loss(hidden: Tensor, weight: Tensor, bias: Tensor, kd_weight: float) -> Tensor:
    log_q = F.log_softmax(hidden @ weight.T + bias, dim=-1)
    kl = (TEACHER * (TEACHER.log() - log_q)).sum(dim=-1).mean()
    return kd_weight * kl + (1 - kd_weight) * F.nll_loss(log_q, LABELS)


TARGETS: dict[str, tuple[Targets | None, float]] = {
    "scratch": (None, 0.0),
    "dense": (Dense(TEACHER, ENTROPY), 0.7),
    "sampled": (Sampled(torch.arange(V).expand(N, -1), TEACHER, ENTROPY), 1.0),
    "online": (Online(TEACHER.log() - BIAS, torch.eye(V).double(), 1.0, BIAS), 0.7),
}


@pytest.mark.parametrize("form", TARGETS)
@pytest.mark.parametrize("chunk_bytes", [2**20, 7 * 8 * V])
def test_loss_and_gradients_with_a_bias_are_those_of_autograd(
    form: str, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdlaws.lab.objectives.CHUNK_BYTES", chunk_bytes)
    targets, kd_weight = TARGETS[form]
    leaves = [each.clone().requires_grad_() for each in (HIDDEN, WEIGHT, BIAS)]
    dense = dense_loss(*leaves, kd_weight)
    expected = torch.autograd.grad(dense, leaves)
    fused = linear_loss(*leaves[:2], LABELS, targets, TokenLoss(kd_weight), bias_v=leaves[2])
    assert fused.item() == pytest.approx(dense.item(), rel=1e-10)
    for one, other in zip(torch.autograd.grad(fused, leaves), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


# -- a study ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, corpus_folder: Path) -> Study:
    folder = tmp_path_factory.mktemp("masked")
    file = folder / "masked.yaml"
    file.write_text(
        f"""
name: masked
objective: masked
masking: {{replicas: 2}}
folder: {folder / "runs"}
n_ctx: 32
corpus:
  source: {corpus_folder}
  teacher_share: 0.4
  validation_share: 0.1
  test_share: 0.1
  slice_tokens: 4k
  validation_tokens: 512
  test_tokens: 1024
tokenizer: {{n_vocab: 300}}
teachers: {{small: {{size: 64/2, n_tokens: 4k, dtype: float16}}}}
epochs: {{0.25: [2, 4], 1.0: [0.5, 1]}}
optimiser: {{batch_tokens: 64}}
students:
  - {{sizes: 32/1, methods: [scratch, token, embedding], teachers: small, fractions: [0.25, 1]}}
"""
    )
    study = load_study(file)
    train(study, Reporter("train"))
    evaluate(study, Reporter("evaluate"))
    return study


@pytest.fixture(scope="module")
def text(study: Study) -> Text:
    return Text(study)


def test_the_stream_is_framed_sequences(text: Text) -> None:
    stream, tokenizer = text.stream("student"), text.tokenizer
    assert isinstance(stream, MaskedStream)
    rows = np.array(stream.ids).reshape(-1, 32)
    assert set(rows[:, 0].tolist()) == {tokenizer.cls_token_id}
    assert set(rows[:, -1].tolist()) == {tokenizer.sep_token_id}
    assert tokenizer.cls_token_id not in rows[:, 1:]
    inside = rows[:, 1:-1].ravel()
    [first, *_] = np.flatnonzero(inside == tokenizer.sep_token_id)
    block = tokenizer.decode(inside[:first].tolist())
    assert any(block in document.text for document in text.documents["student"])


def test_every_run_is_there_and_says_what_it_read(study: Study) -> None:
    table = read_table(study.folder / "table.csv").frame
    assert len(table) == 1 + 3 * 4
    assert set(table["objective"]) == {"masked"}
    assert (table["n_targets"] == table["n_tokens"] / 32 * round(0.15 * 30)).all()
    assert table["bits_per_byte"].isna().all()
    assert table["decode_ms_p50"].isna().all()
    assert (table["prefill_ms_p50"] > 0).all()
    np.testing.assert_allclose(table["perplexity"], np.exp(table["cross_entropy"]))


def test_a_cache_for_each_replica_that_is_read(study: Study, text: Text) -> None:
    specs = Tasks(plan_study(study, text), text, {}).cache_specs()
    read = [(spec.stream.only, spec.n_windows) for spec in specs]
    quarter, whole = (int(fraction * (4000 // 32)) for fraction in (0.25, 1))
    assert read == [(0, whole), (1, quarter)]
    assert [spec.n_validation_windows > 0 for spec in specs] == [True, False]


def test_caches_hold_what_the_teacher_says_of_each_replicas_masks(study: Study, text: Text) -> None:
    specs = Tasks(plan_study(study, text), text, {}).cache_specs()
    caches, model = ReplicaCaches(study.folder / "cache", specs), load_teacher(specs[0].teacher)
    stream, windows, epochs = text.stream("student"), np.array([7, 3, 7]), np.array([1, 0, 2])
    with torch.inference_mode():
        expected = heads.logits(model, stream.batch(windows, 32, epochs)).flatten(0, 1)
    p_nv = expected.softmax(dim=-1)
    stored_nv = as_whole(caches.token(1.0, windows, epochs), 300)
    # Systematic draws: a share is p rounded to a draw, up or down.
    assert float((stored_nv - p_nv).abs().max()) <= 1 / specs[0].draws + 1e-5
    check_hidden(caches, specs[0], windows, epochs)


def test_stored_outputs_of_each_replica_are_verified(study: Study, text: Text) -> None:
    for spec in Tasks(plan_study(study, text), text, {}).cache_specs():
        assert verify(study.folder / "cache" / spec.name, spec).problems == ()


def check_hidden(
    caches: ReplicaCaches, spec: CacheSpec, windows: np.ndarray, epochs: np.ndarray
) -> None:
    """One basis for all replicas: the same states have the same components."""
    model, stream = load_teacher(spec.teacher), replace(spec.stream, only=None)
    with torch.inference_mode():
        hidden_bmd, _ = heads.states(model, stream.batch(windows, 32, epochs))
    expected = caches.first.components.of(hidden_bmd)
    torch.testing.assert_close(caches.hidden(windows, epochs), expected, rtol=2e-3, atol=2e-3)


def test_students_load_in_plain_transformers_and_fill_masks(study: Study, text: Text) -> None:
    """Cross-entropy by a plain loop over the fixed masks equals the recorded one."""
    folder = next(f for f in run_folders(study.folder) if f.name.startswith("token"))
    model = AutoModelForMaskedLM.from_pretrained(folder / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    stream = text.stream("test")
    batch = stream.batch(np.arange(1024 // 32), 32)
    with torch.inference_mode():
        logits = batch.of(model(input_ids=batch.inputs_bt).logits)
        found = F.cross_entropy(logits.flatten(0, 1), batch.labels_bm.flatten())
    assert float(found) == pytest.approx(read_run(folder)["cross_entropy"], abs=1e-4)
    guesses = pipeline("fill-mask", model=model, tokenizer=tokenizer)("the [MASK] of peace")
    assert len({guess["token"] for guess in guesses}) == 5


def test_a_teachers_head_works_at_the_studys_share_of_labels(study: Study) -> None:
    folder = next(f for f in run_folders(study.folder) if f.name.startswith("teacher"))
    few, many = (load_teacher_facts("small", folder, "masked", share) for share in (0.15, 0.5))
    head = few.shape.n_params_head
    at = [2 * head * round(share * 30) // 32 for share in (0.15, 0.5)]
    assert many.shape.forward_flops_per_token - few.shape.forward_flops_per_token == at[1] - at[0]


def test_a_masked_teacher_is_refused_by_a_causal_study(study: Study) -> None:
    folder = next(f for f in run_folders(study.folder) if f.name.startswith("teacher"))
    with pytest.raises(ConfigError, match="is masked, the study causal"):
        load_teacher_facts("small", folder, "causal")
