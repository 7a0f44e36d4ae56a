"""Losses against dense formulas, exact values and a simulation."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, kl_divergence

from kdlaws.lab import objectives
from kdlaws.lab.cache import draw

B, T, V = 2, 5, 12


def logits(seed: int) -> Tensor:
    return torch.randn(B, T, V, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


STUDENT, TEACHER = logits(0), logits(1)
TARGETS = torch.randint(0, V, (B, T), generator=torch.Generator().manual_seed(2))


def drawn(n_draws: int, temperature: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draws from the teacher at a temperature, and its entropy from torch's own Categorical."""
    p_btv = (TEACHER / temperature).softmax(dim=-1)
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(B, T, n_draws, dtype=torch.float64, generator=generator)
    return draw(p_btv, uniform), Categorical(probs=p_btv).entropy()


def dense_token_loss(student: Tensor, kd_weight: float, temperature: float) -> Tensor:
    teacher = Categorical(logits=TEACHER / temperature)
    kl = kl_divergence(teacher, Categorical(logits=student / temperature)).mean()
    ce = -Categorical(logits=student).log_prob(TARGETS).mean()
    return kd_weight * temperature**2 * kl + (1 - kd_weight) * ce


def test_cross_entropy_of_a_uniform_guess_is_log_v() -> None:
    assert float(objectives.cross_entropy(torch.zeros(B, T, V), TARGETS)) == pytest.approx(
        math.log(V)
    )


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("kd_weight", [1.0, 0.5])
def test_token_loss_and_gradient_converge_to_the_dense_ones(
    kd_weight: float, temperature: float
) -> None:
    """Unbiased: with n draws the error is of order 1/sqrt(n), in value and in gradient."""
    n_draws = 200_000
    draws, entropy = drawn(n_draws, temperature)
    student, reference = STUDENT.clone().requires_grad_(), STUDENT.clone().requires_grad_()
    sampled = objectives.token_loss(
        student, TARGETS, draws, entropy, kd_weight=kd_weight, temperature=temperature
    )
    dense = dense_token_loss(reference, kd_weight, temperature)
    sampled.backward()
    dense.backward()
    assert student.grad is not None
    assert reference.grad is not None
    tolerance = 5 * temperature**2 / math.sqrt(n_draws)
    assert sampled.item() == pytest.approx(dense.item(), abs=3 * tolerance)
    assert float((student.grad - reference.grad).abs().max()) < tolerance / (B * T)


def test_few_draws_are_right_on_average() -> None:
    """2,000 estimates of 8 draws each: their mean is the KL within four standard errors."""
    estimates = []
    for seed in range(2000):
        draws, entropy = drawn(8, 1.0, seed)
        estimates.append(float(objectives.sampled_kl(STUDENT, draws, entropy, 1.0)))
    mean, spread = torch.tensor(estimates).mean(), torch.tensor(estimates).std()
    expected = float(kl_divergence(Categorical(logits=TEACHER), Categorical(logits=STUDENT)).mean())
    assert float(mean) == pytest.approx(expected, abs=4 * float(spread) / math.sqrt(2000))


def test_temperature_keeps_the_gradients_scale() -> None:
    """Hinton et al. 2015, equation 4: at high T the gradient tends to (z_S - z_T) / V, centred."""
    temperature = 1e4
    student = STUDENT.clone().requires_grad_()
    dense_token_loss(student, kd_weight=1.0, temperature=temperature).backward()
    difference = STUDENT - TEACHER
    centred = difference - difference.mean(dim=-1, keepdim=True)
    assert student.grad is not None
    torch.testing.assert_close(student.grad * B * T, centred / V, atol=1e-3, rtol=1e-3)


def test_embedding_loss_at_its_two_ends() -> None:
    """A perfect map leaves the cross-entropy; the zero map leaves all of the mean square, 1."""
    z_btd = torch.randn(64, 128, 6, generator=torch.Generator().manual_seed(0))
    z_btd = (z_btd - z_btd.mean(dim=(0, 1))) / z_btd.std()
    assert float(objectives.unexplained(z_btd, z_btd)) == 0
    zero = objectives.unexplained(torch.zeros_like(z_btd), z_btd)
    assert float(zero) == pytest.approx(1, abs=0.01)
    ce = objectives.cross_entropy(STUDENT, TARGETS)
    mapped, target = torch.zeros(B, T, 3), torch.ones(B, T, 3)
    loss = objectives.embedding_loss(STUDENT, TARGETS, mapped, target, embedding_weight=0.3)
    assert float(loss) == pytest.approx(float(ce) + 0.3)


def test_unexplained_is_one_minus_r_squared() -> None:
    """Against the textbook definition with a least-squares map, on standardised targets."""
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(400, 3, dtype=torch.float64, generator=generator)
    z = h @ torch.randn(3, 4, dtype=torch.float64, generator=generator)
    z = z + torch.randn(400, 4, dtype=torch.float64, generator=generator)
    z = z - z.mean(dim=0)
    z = z / z.square().mean().sqrt()
    residual = z - h @ torch.linalg.lstsq(h, z).solution
    r_squared = 1 - residual.square().sum() / z.square().sum()
    mapped = (z - residual).view(20, 20, 4)
    value = objectives.unexplained(mapped, z.view(20, 20, 4))
    assert float(value) == pytest.approx(float(1 - r_squared))
