"""Fused losses against float64 autograd on the dense formulas, exact values and simulations."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Categorical, kl_divergence

from kdlaws.lab import objectives
from kdlaws.lab.objectives import IGNORED, TokenLoss, linear_loss
from kdlaws.lab.sampling import systematic
from kdlaws.lab.targets import Dense, Online, Sampled, Targets, TopK

N, V, D, D_T = 37, 23, 8, 11
SCALING, TEACHER_SCALING = 3.0, 1.7


def normal(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


HIDDEN, WEIGHT = normal(N, D, seed=0) * 2, normal(V, D, seed=1)
TEACHER = Online(normal(N, D_T, seed=2), normal(V, D_T, seed=3), TEACHER_SCALING)
TEACHER_LOGITS = TEACHER.hidden_nd @ TEACHER.weight_vd.T / TEACHER_SCALING
LABELS = torch.randint(0, V, (N,), generator=torch.Generator().manual_seed(4))
MASKED = LABELS.clone()
MASKED[::3] = IGNORED


def jensen_shannon(p: Categorical, q: Categorical, beta: float) -> Tensor:
    mixture = Categorical(probs=beta * p.probs + (1 - beta) * q.probs)
    return beta * kl_divergence(p, mixture) + (1 - beta) * kl_divergence(q, mixture)


DIVERGENCES: dict[str, Callable[[Categorical, Categorical, float], Tensor]] = {
    "forward_kl": lambda p, q, _: kl_divergence(p, q),
    "reverse_kl": lambda p, q, _: kl_divergence(q, p),
    "jensen_shannon": jensen_shannon,
}


def reference(hidden: Tensor, weight: Tensor, labels: Tensor, loss: TokenLoss) -> Tensor:
    """The dense formula, from torch's own distributions, for autograd to differentiate."""
    counted = labels != IGNORED
    logits = (hidden @ weight.T / SCALING)[counted]
    p = Categorical(logits=TEACHER_LOGITS[counted] / loss.temperature)
    q = Categorical(logits=logits / loss.temperature)
    divergence = DIVERGENCES[loss.divergence](p, q, loss.beta).mean()
    ce = -Categorical(logits=logits).log_prob(labels[counted]).mean()
    return loss.kd_weight * loss.temperature**2 * divergence + (1 - loss.kd_weight) * ce


def value_and_gradients(loss_of: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, ...]:
    hidden, weight = HIDDEN.clone().requires_grad_(), WEIGHT.clone().requires_grad_()
    value = loss_of(hidden, weight)
    return (value.detach(), *torch.autograd.grad(value, (hidden, weight)))


def assert_same(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


@pytest.fixture(params=[V * 8 * 5, 2**24], ids=["chunks of 5", "one chunk"])
def chunked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objectives, "CHUNK_BYTES", request.param)


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("labels", [LABELS, MASKED], ids=["every token", "masked"])
@pytest.mark.parametrize("kd_weight", [1.0, 0.3])
@pytest.mark.parametrize("temperature", [1.0, 2.5, 0.7])
@pytest.mark.parametrize(
    ("divergence", "beta"),
    [("forward_kl", 0.5), ("reverse_kl", 0.5), ("jensen_shannon", 0.5), ("jensen_shannon", 0.1)],
)
def test_online_losses_are_the_dense_formula(
    divergence: str, beta: float, temperature: float, kd_weight: float, labels: Tensor
) -> None:
    loss = TokenLoss(kd_weight, temperature, divergence, beta)  # type: ignore[arg-type]
    found = value_and_gradients(
        lambda h, w: linear_loss(h, w, labels, TEACHER, loss, logits_scaling=SCALING)
    )
    assert_same(found, value_and_gradients(lambda h, w: reference(h, w, labels, loss)))


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("labels", [LABELS, MASKED], ids=["every token", "masked"])
def test_cross_entropy_is_torchs(labels: Tensor) -> None:
    found = value_and_gradients(lambda h, w: linear_loss(h, w, labels, logits_scaling=SCALING))
    expected = value_and_gradients(
        lambda h, w: torch.nn.functional.cross_entropy(h @ w.T / SCALING, labels)
    )
    assert_same(found, expected)


def stored(temperature: float) -> dict[str, Targets]:
    """The whole distribution in the forms that a cache stores."""
    p = (TEACHER_LOGITS / temperature).softmax(dim=-1)
    entropy = Categorical(probs=p).entropy()
    every = torch.arange(V).expand(N, V)
    return {"sampled": Sampled(every, p, entropy), "dense": Dense(p, entropy)}


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("labels", [LABELS, MASKED], ids=["every token", "masked"])
@pytest.mark.parametrize("form", ["sampled", "dense"])
@pytest.mark.parametrize("kd_weight", [1.0, 0.3])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_stored_distributions_give_the_dense_forward_kl(
    temperature: float, kd_weight: float, form: str, labels: Tensor
) -> None:
    loss, targets = TokenLoss(kd_weight, temperature), stored(temperature)[form]
    found = value_and_gradients(
        lambda h, w: linear_loss(h, w, labels, targets, loss, logits_scaling=SCALING)
    )
    assert_same(found, value_and_gradients(lambda h, w: reference(h, w, labels, loss)))


@pytest.mark.parametrize("k", [1, 4, V - 1])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_top_k_is_the_kl_over_k_ids_and_one_bucket(k: int, temperature: float) -> None:
    p_nk, ids_nk = (TEACHER_LOGITS / temperature).softmax(dim=-1).topk(k)
    loss = TokenLoss(1.0, temperature)

    def bucketed(probs: Tensor) -> Categorical:
        kept = probs.gather(-1, ids_nk)
        rest = 1 - kept.sum(dim=-1, keepdim=True)
        return Categorical(probs=torch.cat([kept, rest], dim=-1))

    def expected(hidden: Tensor, weight: Tensor) -> Tensor:
        q = (hidden @ weight.T / SCALING / temperature).softmax(dim=-1)
        p = (TEACHER_LOGITS / temperature).softmax(dim=-1)
        return temperature**2 * kl_divergence(bucketed(p), bucketed(q)).mean()

    def found(hidden: Tensor, weight: Tensor) -> Tensor:
        targets = TopK(ids_nk, p_nk)
        return linear_loss(hidden, weight, LABELS, targets, loss, logits_scaling=SCALING)

    assert_same(value_and_gradients(found), value_and_gradients(expected))
    whole = reference(HIDDEN, WEIGHT, LABELS, loss)
    assert float(found(HIDDEN, WEIGHT)) <= float(whole) + 1e-12


def test_accumulated_gradients_are_those_of_the_whole_batch() -> None:
    """Parts with unequal numbers of counted tokens, each divided by the whole batch's."""
    loss, n_counted = TokenLoss(0.4, 2.0), int((MASKED != IGNORED).sum())

    def in_parts(hidden: Tensor, weight: Tensor) -> Tensor:
        parts = [slice(0, 5), slice(5, 20), slice(20, N)]
        losses = [
            linear_loss(
                *(hidden[part], weight, MASKED[part], TEACHER.rows(part), loss),
                logits_scaling=SCALING,
                n_tokens=n_counted,
            )
            for part in parts
        ]
        return torch.stack(losses).sum()

    whole = value_and_gradients(lambda h, w: reference(h, w, MASKED, loss))
    assert_same(value_and_gradients(in_parts), whole)


@pytest.mark.parametrize("divergence", list(DIVERGENCES))
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_a_student_equal_to_its_teacher_has_no_loss_and_no_gradient(
    divergence: str, temperature: float
) -> None:
    itself = Online(HIDDEN, WEIGHT, SCALING)
    loss = TokenLoss(1.0, temperature, divergence)  # type: ignore[arg-type]
    found = value_and_gradients(
        lambda h, w: linear_loss(h, w, LABELS, itself, loss, logits_scaling=SCALING)
    )
    assert_same(found, tuple(torch.zeros_like(each) for each in found))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), spread=st.floats(0.01, 30))
def test_forward_and_reverse_kl_are_never_negative(seed: int, spread: float) -> None:
    hidden = normal(5, D, seed=seed) * spread
    teacher = Online(normal(5, D_T, seed=seed + 1) * spread, TEACHER.weight_vd, 1.0)
    for divergence in DIVERGENCES:
        loss = TokenLoss(1.0, 1.0, divergence)  # type: ignore[arg-type]
        assert float(linear_loss(hidden, WEIGHT, LABELS[:5], teacher, loss)) > -1e-12


def test_cross_entropy_of_a_uniform_guess_is_log_v() -> None:
    value = linear_loss(torch.zeros(3, D), torch.zeros(V, D), LABELS[:3])
    assert float(value) == pytest.approx(math.log(V))


def test_temperature_keeps_the_gradients_scale() -> None:
    """Hinton et al. 2015, equation 4: at high T the gradient tends to (z_S - z_T) / V, centred."""
    loss = TokenLoss(1.0, 1e4)
    eye = torch.eye(V, dtype=torch.float64)
    logits = normal(N, V, seed=7).requires_grad_()
    linear_loss(logits, eye, LABELS, TEACHER, loss).backward()
    difference = logits.detach() - TEACHER_LOGITS
    centred = difference - difference.mean(dim=-1, keepdim=True)
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad * N, centred / V, atol=1e-3, rtol=1e-3)


def gradient_of_a_cache(n_draws: int, seed: int) -> Tensor:
    p = TEACHER_LOGITS.softmax(dim=-1)
    uniform = torch.rand(N, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    ids = systematic(p, uniform, n_draws, slices=1)[:, 0]
    shares = torch.full(ids.shape, 1 / n_draws, dtype=torch.float64)
    targets = Sampled(ids, shares, Categorical(probs=p).entropy())
    return value_and_gradients(
        lambda h, w: linear_loss(h, w, LABELS, targets, TokenLoss(), logits_scaling=SCALING)
    )[2]


def test_the_mean_gradient_over_caches_converges_to_the_dense_one() -> None:
    """At the Monte-Carlo rate: sixteen times the caches, a quarter of the distance."""
    dense = value_and_gradients(lambda h, w: reference(h, w, LABELS, TokenLoss()))[2]
    every = torch.stack([gradient_of_a_cache(4, seed) for seed in range(3200)])
    error_of_one = float((every - dense).square().sum(dim=(1, 2)).mean().sqrt())
    for n_caches in (50, 200, 800, 3200):
        means = every.view(-1, n_caches, *dense.shape).mean(dim=1)
        distance = float((means - dense).square().sum(dim=(1, 2)).mean().sqrt())
        expected = error_of_one / math.sqrt(n_caches)
        assert distance == pytest.approx(expected, rel=0.5 if n_caches == 3200 else 0.2)


@pytest.mark.parametrize("divergence", ["reverse_kl", "jensen_shannon"])
@pytest.mark.parametrize("form", ["sampled", "dense"])
def test_stored_outputs_are_refused_where_they_would_be_biased(divergence: str, form: str) -> None:
    loss = TokenLoss(1.0, 1.0, divergence)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs the whole distribution"):
        linear_loss(HIDDEN, WEIGHT, LABELS, stored(1.0)[form], loss)


def test_no_gradient_is_made_where_none_is_wanted() -> None:
    with torch.no_grad():
        value = linear_loss(HIDDEN, WEIGHT, LABELS, TEACHER, TokenLoss(), logits_scaling=SCALING)
    expected = reference(HIDDEN, WEIGHT, LABELS, TokenLoss())
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-12)


def test_half_precision_keeps_the_weights_gradient_in_full() -> None:
    """Under autocast: products in bfloat16, the gradient of a float32 weight in float32."""
    hidden, weight = HIDDEN.float().requires_grad_(), WEIGHT.float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        value = linear_loss(hidden, weight, LABELS, logits_scaling=SCALING)
    value.backward()
    exact = value_and_gradients(lambda h, w: linear_loss(h, w, LABELS, logits_scaling=SCALING))
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
    for found, expected in zip((value, hidden.grad, weight.grad), exact, strict=True):
        assert found is not None
        torch.testing.assert_close(found.double(), expected, rtol=0.05, atol=0.05)


def test_half_precision_sums_over_many_chunks_without_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sum of 512 parts in bfloat16 is off by percents; a product's own rounding is 0.4 %."""
    hidden_nd, weight_vd = normal(512, 16, seed=8).float(), normal(64, 16, seed=9).float()
    labels_n = torch.arange(512) % 64
    monkeypatch.setattr(objectives, "CHUNK_BYTES", 1)
    weight_vd.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        linear_loss(hidden_nd, weight_vd, labels_n).backward()
    assert weight_vd.grad is not None
    dense_vd = weight_vd.detach().requires_grad_()
    torch.nn.functional.cross_entropy(hidden_nd @ dense_vd.T, labels_n).backward()
    assert dense_vd.grad is not None
    assert float((weight_vd.grad - dense_vd.grad).norm() / dense_vd.grad.norm()) < 0.01


def test_unexplained_at_its_two_ends() -> None:
    """A perfect map leaves nothing, the zero map all of the mean square, which is 1."""
    z_btd = normal(64, 128, 6, seed=0)
    z_btd = (z_btd - z_btd.mean(dim=(0, 1))) / z_btd.std()
    assert float(objectives.unexplained(z_btd, z_btd, 6)) == 0
    zero = objectives.unexplained(torch.zeros_like(z_btd), z_btd, 6)
    assert float(zero) == pytest.approx(1, abs=0.01)


def test_unexplained_is_one_minus_r_squared() -> None:
    """Against the textbook definition with a least-squares map, on standardised targets."""
    h = normal(400, 3, seed=0)
    z = h @ normal(3, 4, seed=1) + normal(400, 4, seed=2)
    z = z - z.mean(dim=0)
    z = z / z.square().mean().sqrt()
    residual = z - h @ torch.linalg.lstsq(h, z).solution
    r_squared = 1 - residual.square().sum() / z.square().sum()
    mapped = (z - residual).view(20, 20, 4)
    value = objectives.unexplained(mapped, z.view(20, 20, 4), 4)
    assert float(value) == pytest.approx(float(1 - r_squared))


def test_unexplained_by_leading_components_adds_up_to_the_whole() -> None:
    """What a map leaves of the stored components, and what was dropped, make 1 - R^2."""
    z = normal(500, 6, seed=0) @ normal(6, 6, seed=1)
    z = (z - z.mean(dim=0)) / (z - z.mean(dim=0)).square().mean().sqrt()
    basis = torch.linalg.svd(z, full_matrices=False).Vh.T
    components = z @ basis
    mapped = torch.cat([components[:, :2] * 0.7, torch.zeros(500, 4).double()], dim=1)
    whole = objectives.unexplained(mapped[None], components[None], 6)
    kept = objectives.unexplained(mapped[None, :, :2], components[None, :, :2], 6)
    dropped = components[:, 2:].square().sum(dim=1).mean() / 6
    assert float(kept + dropped) == pytest.approx(float(whole))
