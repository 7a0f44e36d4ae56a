"""What runs would teach of a law: how a covariance of its parameters shrinks with each trunk.

A trunk whose branches have the slopes J ``[branches, state]`` and the covariance V takes the
covariance S of the state to S - S J' (J S J' + V)^-1 J S. With J whitened, so that V is 1, rows of
several trunks add by standing below one another. The state is the law's u. Of a fit that is known
by refits it is how much each refit counts: S is 1, and a slope is what the refit differs by, so
that what is far from linear in u keeps its own variance and its covariance with each run. The
search is Fedorov's exchange (1972, Theory of Optimal Experiments) after a greedy start.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdlaws.advice.designing.proposal import Proposal
from kdlaws.advice.planning.certainty import MOST
from kdlaws.advice.planning.costs import Floats
from kdlaws.errors import InputError
from kdlaws.laws import Fit
from kdlaws.laws.expected import Noise
from kdlaws.laws.surface import log_surface, parameter_slopes, samples
from kdlaws.laws.uncertainty import Linear
from kdlaws.laws.whiten import Whitening

Chosen = list[int]  # places among the candidates; one that stands there twice is run twice
Rule = Callable[[Sequence[int]], bool]  # whether these may be a design

PASSES = 6  # over a design, each trunk exchanged in turn
WORTH_IT = 1e-3  # share of the variance that an exchange must take away


@dataclass(frozen=True)
class Lessons:
    """Of candidate trunks: ``rows [trunks, branches, state]``, whitened slopes, and ``flops``.

    A trunk with fewer branches than another has rows of zeros, which teach nothing.
    """

    rows: Floats
    flops: Floats

    def of(self, chosen: Sequence[int]) -> Floats:
        """The rows of these trunks, one below another ``[branches, state]``."""
        return self.rows[list(chosen)].reshape(-1, self.rows.shape[-1])

    def cost(self, chosen: Sequence[int]) -> float:
        return float(self.flops[list(chosen)].sum())


def lessons(fit: Fit, candidates: Proposal, noise: Noise) -> Lessons:
    """What the candidates would teach of the law of ``fit``, at its parameters."""
    columns, drawn = candidates.columns(), refits(fit)
    slopes = (
        parameter_slopes(fit, columns)
        if drawn is None
        else deviations(log_surface(fit, columns, drawn).T)
    )
    white = Whitening(candidates.index, noise.variances.ratio)(slopes.T).T / noise.run
    counts = [len(trunk.n_tokens) for trunk in candidates.trunks]
    rows = np.zeros((len(counts), max(counts), slopes.shape[1]))
    for k, n in enumerate(counts):
        rows[k, :n] = white[candidates.index == k]
    return Lessons(rows, candidates.flops)


def deviations(values: Floats) -> Floats:
    """Of refits' ``values [..., refits]``, so that their products add up to covariances."""
    n_refits = values.shape[-1]
    result: Floats = (values - values.mean(axis=-1, keepdims=True)) / np.sqrt(n_refits - 1)
    return result


def refits(fit: Fit) -> Floats | None:
    """u of the refits behind a fit ``[refits, unknowns]``, as many as a plan follows."""
    drawn = samples(fit)
    return None if drawn is None else drawn[:MOST]


def known(fit: Fit) -> Floats:
    """Covariance of the state of a fit ``[state, state]``; InputError where it has none."""
    if fit.uncertainty is None:
        raise InputError(
            f"{fit.law} says nothing of how sure its parameters are together",
            where="fit",
            remedy="fit more runs of your own; as a guess it serves with --runs, a proposed study",
        )
    if isinstance(fit.uncertainty, Linear):
        return fit.uncertainty.covariance
    return np.eye(min(len(fit.uncertainty.samples), MOST))


def learnt(covariance: Floats, rows: Floats) -> Floats:
    """The covariance of the state after runs of these whitened slopes ``[branches, state]``."""
    shared = covariance @ rows.T
    shrunk = covariance - shared @ np.linalg.solve(np.eye(len(rows)) + rows @ shared, shared.T)
    result: Floats = (shrunk + shrunk.T) / 2
    return result


def total(covariance: Floats, aims: Floats) -> float:
    """Sum of the variances of the aims, ``[aims, state]`` slopes."""
    return float(np.einsum("qi,ij,qj->", aims, covariance, aims))


def gains(covariance: Floats, found: Lessons, aims: Floats) -> Floats:
    """By how much each candidate alone shrinks that sum ``[trunks]``."""
    shared = found.rows @ covariance
    inner = np.eye(found.rows.shape[1]) + shared @ found.rows.transpose(0, 2, 1)
    towards = shared @ aims.T
    result: Floats = np.sum(towards * np.linalg.solve(inner, towards), axis=(1, 2))
    return result


def anything(chosen: Sequence[int]) -> bool:
    """The rule that allows every design."""
    return True


@dataclass(frozen=True)
class Search:
    """For at most ``most`` of the trunks ``found``, of ``budget`` FLOPs, that ``rule`` allows.

    ``prior`` is the covariance of the state that they begin from, ``aims`` what they are to narrow.
    """

    found: Lessons
    prior: Floats
    aims: Floats
    budget: float
    most: int
    rule: Rule

    def after(self, chosen: Sequence[int]) -> Floats:
        """The covariance of the state ``[state, state]``."""
        return learnt(self.prior, self.found.of(chosen)) if len(chosen) else self.prior

    def greedy(self, groups: Sequence[NDArray[np.bool_]] = (), begin: Sequence[int] = ()) -> Chosen:
        """Trunk after trunk the one that teaches most per FLOP, while the budget lasts.

        After those that it is to ``begin`` with, the first ones are of these ``groups [trunks]``,
        one of each.
        """
        chosen: Chosen = list(begin)
        while len(chosen) < self.most:
            per_flop = gains(self.after(chosen), self.found, self.aims) / self.found.flops
            per_flop[self.found.flops > self.budget - self.found.cost(chosen)] = 0.0
            if len(chosen) < len(groups):
                per_flop[~groups[len(chosen)]] = 0.0
            best = int(per_flop.argmax())
            if not per_flop[best] > 0:
                break
            chosen.append(best)
        return chosen

    def best(self, starts: Sequence[Chosen]) -> Chosen:
        """Each start exchanged until nothing improves; of these the one that narrows most."""
        return min(map(self._exchanged, starts), key=self._left)

    def _left(self, chosen: Chosen) -> tuple[bool, float]:
        return not self.rule(chosen), total(self.after(chosen), self.aims)

    def _exchanged(self, start: Chosen) -> Chosen:
        """Each trunk in turn replaced by the one that teaches most beside the others."""
        chosen = list(start)
        for _ in range(PASSES):
            before = list(chosen)
            for place in range(len(chosen)):
                chosen[place] = self._replacement(chosen, place)
            if chosen == before:
                break
        return chosen

    def _replacement(self, chosen: Chosen, place: int) -> int:
        own, others = chosen[place], chosen[:place] + chosen[place + 1 :]
        covariance = self.after(others)
        left = total(covariance, self.aims) - gains(covariance, self.found, self.aims)
        left[self.found.flops > self.budget - self.found.cost(others)] = np.inf
        for candidate in np.argsort(left):
            if not left[candidate] < left[own] * (1 - WORTH_IT):
                return own
            if self.rule([*others, int(candidate)]):
                return int(candidate)
        return own
