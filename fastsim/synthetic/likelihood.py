"""Maximum likelihood where moments will not do: GARCH, and mixtures by expectation maximisation."""

from __future__ import annotations

from math import pi
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastsim.synthetic.garch import GarchParameters
from fastsim.synthetic.shocks import draw_normal, linear_recurrence

Array = NDArray[np.float64]

CANDIDATES, ELITE, ROUNDS = 32, 8, 22
"""Of the cross-entropy search: draws a round, how many of them make the next, and rounds."""
SEARCH_START = ((-4.0, 1.0), (-2.6, 0.7), (0.5, 1.5), (1.4, 0.8))
"""Mean and standard deviation of log(1 - persistence), log of the news weight, the logit of its
asymmetric share and log(nu - 2): half-lives of 14 to 100 bars, 4 to 15 % news, 4 to 11 degrees."""


TOLERANCE = 1e-4
"""Change of a transition probability at which expectation maximisation of regimes stops."""


class GarchFit(NamedTuple):
    """Weights, degrees of freedom and shocks of variance one, per asset."""

    weights: GarchParameters  # [A]
    freedom: Tensor  # [A]
    shocks: Tensor  # [T, A]


def fit_garch(scaled: Tensor) -> GarchFit:
    """GJR-GARCH(1, 1)-t of returns [T, A] of mean 0 and variance 1, each asset on its own.

    The unconditional variance is the sample's (variance targeting: Engle and Mezrich 1996). The
    other four parameters maximise the likelihood by the cross-entropy method (Rubinstein 1999; de
    Boer et al. 2005) from one seed: all candidates of all assets are one recurrence, where a
    gradient would need a pass over time for every step of every asset.
    """
    generator = torch.Generator().manual_seed(0)
    start = torch.tensor(SEARCH_START, dtype=torch.float64)[..., None]  # [4, 2, 1]
    mean, spread = start[:, 0].repeat(1, scaled.shape[1]), start[:, 1].repeat(1, scaled.shape[1])
    for _ in range(ROUNDS):
        shape = (CANDIDATES, *mean.shape)
        tried = mean + spread * draw_normal(shape, generator)  # [C, 4, A]
        tried[0] = mean
        score = _garch_score(tried, scaled)  # [C, A]
        best = score.topk(ELITE, dim=0).indices[:, None].expand(-1, 4, -1)
        elite = tried.gather(0, best)
        mean, spread = elite.mean(0), elite.std(0)
    weights, freedom = _garch_parameters(mean)
    variance = _filtered(weights, scaled)
    return GarchFit(weights, freedom, scaled / variance.sqrt())


def _garch_parameters(free: Tensor) -> tuple[GarchParameters, Tensor]:
    """Admissible parameters from free numbers [..., 4, A], as `SEARCH_START` says."""
    distance, log_news, share, log_freedom = free.unbind(-2)
    persistence = 1.0 - distance.clamp(-9.0, -0.7).exp()
    news = torch.minimum(log_news.clamp_min(-9.0).exp(), persistence)
    asymmetric = share.sigmoid()
    weights = GarchParameters(
        news * (1.0 - asymmetric), 2.0 * news * asymmetric, persistence - news
    )
    return weights, 2.0 + log_freedom.clamp(-3.0, 6.0).exp()


def _filtered(weights: GarchParameters, scaled: Tensor) -> Tensor:
    """Variance of each bar [T, ..., A] given the returns [T, A] before it."""
    alpha, gamma, beta = weights
    wide = scaled.reshape(len(scaled), *(1,) * (alpha.dim() - 1), -1)
    news = torch.where(wide < 0, alpha + gamma, alpha) * wide.square()
    shift = 1.0 - alpha - 0.5 * gamma - beta + news
    return linear_recurrence(beta.expand_as(shift), shift, torch.ones_like(shift[0]))[0]


def _garch_score(free: Tensor, scaled: Tensor) -> Tensor:
    """Mean log-likelihood [C, A]."""
    weights, freedom = _garch_parameters(free)
    variance = _filtered(weights, scaled)  # [T, C, A]
    constant = (
        torch.lgamma(0.5 * (freedom + 1.0))
        - torch.lgamma(0.5 * freedom)
        - 0.5 * (pi * (freedom - 2.0)).log()
    )
    fit = (scaled.square()[:, None] / (variance * (freedom - 2.0))).log1p().mean(0)
    return constant - 0.5 * variance.log().mean(0) - 0.5 * (freedom + 1.0) * fit


class NormalMixture(NamedTuple):
    """Two normals per asset, the second the wider: a diffusion without and with a jump."""

    share: Tensor  # [A]  of the second
    mean: Tensor  # [2, A]
    variance: Tensor  # [2, A]


def fit_mixture(values: Tensor, rounds: int = 400) -> NormalMixture:
    """Mixture of two normals of values [T, A] by EM: Dempster, Laird and Rubin (1977)."""
    total = values.var(0)
    share = torch.full_like(total, 0.05)
    mean = values.mean(0).repeat(2, 1)
    variance = torch.stack([0.6 * total, 6.0 * total])
    for _ in range(rounds):
        distance = (values[:, None] - mean).square() / variance + variance.log()  # [T, 2, A]
        prior = torch.stack([1.0 - share, share]).log()
        weight = torch.softmax(prior - 0.5 * distance, dim=1)
        count = weight.sum(0)
        share = count[1] / len(values)
        mean = (weight * values[:, None]).sum(0) / count
        variance = (weight * (values[:, None] - mean).square()).sum(0) / count
        variance = variance.clamp_min(1e-12)
    return NormalMixture(share, mean, variance)


class HiddenRegimes(NamedTuple):
    """A two-state chain behind one series."""

    transitions: Array  # [2, 2]
    weight: Array  # [T, 2]  probability of each regime at each bar, given all of them


def fit_regimes(series: Array, rounds: int = 100) -> HiddenRegimes:
    """Two normal regimes of a series [T], the calm one first, by EM: Hamilton (1990)."""
    transitions = np.array([[0.98, 0.02], [0.05, 0.95]])
    share = np.array([0.7, 0.3])
    mean = np.full(2, series.mean())
    variance = series.var() * np.array([0.5, 2.0])
    weight = np.empty((len(series), 2))
    for _ in range(rounds):
        distance = (series[:, None] - mean) ** 2 / variance + np.log(variance)
        density = np.exp(-0.5 * (distance - distance.min(1, keepdims=True)))
        weight, moves = _smooth(density, transitions, share)
        share = weight[0]
        before, transitions = transitions, moves / moves.sum(1, keepdims=True)
        mean = (weight * series[:, None]).sum(0) / weight.sum(0)
        variance = (weight * (series[:, None] - mean) ** 2).sum(0) / weight.sum(0)
        if np.abs(transitions - before).max() < TOLERANCE:
            break
    order = np.argsort(variance)
    return HiddenRegimes(transitions[np.ix_(order, order)], weight[:, order])


def _smooth(density: Array, transitions: Array, share: Array) -> tuple[Array, Array]:
    """Probability of each state at each bar [T, 2], and expected moves between them [2, 2]."""
    forward, backward = np.empty_like(density), np.ones_like(density)
    state = share
    for bar, seen in enumerate(density):
        joint = state * seen
        forward[bar] = joint / joint.sum()
        state = forward[bar] @ transitions
    for bar in range(len(density) - 1, 0, -1):
        ahead = transitions @ (density[bar] * backward[bar])
        backward[bar - 1] = ahead / ahead.sum()
    weight = forward * backward
    weight /= weight.sum(1, keepdims=True)
    pairs = forward[:-1, :, None] * transitions * (density[1:] * backward[1:])[:, None]
    return weight, (pairs / pairs.sum((1, 2), keepdims=True)).sum(0)
