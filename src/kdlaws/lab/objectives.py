"""The losses, in nats per token.

Legend: b sequences, t positions, v vocabulary, k draws, d width of a hidden state; p_T and p_S
are the teacher's and the student's next-token distributions; T is the softmax temperature.
"""

from torch import Tensor
from torch.nn import functional as F


def cross_entropy(logits_btv: Tensor, targets_bt: Tensor) -> Tensor:
    """Mean negative log-likelihood of the text: the loss of ``scratch``."""
    return F.cross_entropy(logits_btv.flatten(0, 1), targets_bt.flatten())


def sampled_kl(
    logits_btv: Tensor, draws_btk: Tensor, entropy_bt: Tensor, temperature: float
) -> Tensor:
    """Unbiased estimate of mean KL(p_T(.;T) || p_S(.;T)) from ids drawn from p_T(.;T).

    The draws' counts over k estimate p_T (Anshumann et al. 2025, 2503.16870, section 3.4): the
    cross-entropy of p_S under them is linear in p_T, so unbiased; the teacher's entropy is exact.
    """
    log_p_btv = F.log_softmax(logits_btv / temperature, dim=-1)
    cross_bt = -log_p_btv.gather(-1, draws_btk).mean(dim=-1)
    return (cross_bt - entropy_bt).mean()


def token_loss(
    logits_btv: Tensor,
    targets_bt: Tensor,
    draws_btk: Tensor,
    entropy_bt: Tensor,
    *,
    kd_weight: float,
    temperature: float,
) -> Tensor:
    """kd_weight T^2 KL(p_T || p_S) + (1 - kd_weight) CE (Hinton et al. 2015, 1503.02531, sec. 2).

    T^2 keeps the teacher term's gradient at the scale of the text's as T changes.
    """
    kl = temperature**2 * sampled_kl(logits_btv, draws_btk, entropy_bt, temperature)
    if kd_weight == 1:
        return kl
    return kd_weight * kl + (1 - kd_weight) * cross_entropy(logits_btv, targets_bt)


def unexplained(mapped_btd: Tensor, standardised_btd: Tensor) -> Tensor:
    """1 - R^2 of the teacher's hidden state: mean over positions of |P h_S - z_T|^2 / d_T.

    z_T is centred and divided by one scalar, so that its mean square in a dimension is 1.
    """
    return F.mse_loss(mapped_btd, standardised_btd)


def embedding_loss(
    logits_btv: Tensor,
    targets_bt: Tensor,
    mapped_btd: Tensor,
    standardised_btd: Tensor,
    *,
    embedding_weight: float,
) -> Tensor:
    """CE + embedding_weight (1 - R^2)."""
    hidden = unexplained(mapped_btd, standardised_btd)
    return cross_entropy(logits_btv, targets_bt) + embedding_weight * hidden
