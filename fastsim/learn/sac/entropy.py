"""How freely a Gaussian policy explores: the entropy of what it asks for, not of what it says.

Logits that run off to infinity ask for the same weights whatever noise is on them, so their own
entropy would cost nothing. That of the weights does.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from fastsim.env.actions import action_bounds
from fastsim.env.config import EnvConfig
from fastsim.env.observe import Observation
from fastsim.env.slots import masked
from fastsim.policy.policy import PolicyOutput

_OF_NORMAL = 0.5 * math.log(2.0 * math.pi * math.e)
"""Entropy of a standard normal number."""


class Entropy(NamedTuple):
    """Of actions, in nats, where 0 is that of all admissible ones being as likely as any other."""

    total: Tensor  # [M]
    numbers: Tensor  # [M]  that can be chosen

    @property
    def each(self) -> Tensor:
        """Mean [] over actions and their numbers."""
        return (self.total / self.numbers).mean()


def entropy_of(
    output: PolicyOutput, action: Tensor, seen: Observation, rules: EnvConfig
) -> Entropy:
    """Estimate it from one action [M, W] each, drawn from the policy by what it differentiates."""
    shown = torch.ones_like(action, dtype=torch.bool)
    hidden = None if seen.view is None else masked(seen.view.slots)
    if hidden is not None:
        shown[:, : hidden.shape[1]] = ~hidden
    if rules.action == "logits":
        return _of_weights(output, action, shown)
    return _within_bounds(output, action, shown, action_bounds(rules.action))


def _of_weights(output: PolicyOutput, action: Tensor, shown: Tensor) -> Entropy:
    """Of the softmax of Gaussian logits, a logistic normal (Aitchison and Shen 1980).

    The differences of n + 1 logits to one of them are normal in n dimensions, with covariance
    diag(s_1^2, ..., s_n^2) + s_0^2; weights have the density of these over the product of all n + 1
    weights. Of n assets and cash, all alike, the entropy is -log n!.
    """
    assets = shown.sum(-1).to(action.dtype) - 1.0
    log_std = torch.where(shown, output.log_std, 0.0).sum(-1)
    precision = torch.where(shown, torch.exp(-2.0 * output.log_std), 0.0).sum(-1)
    log_weights = torch.log_softmax(action.masked_fill(~shown, -torch.inf), dim=-1)
    volume = torch.where(shown, log_weights, 0.0).sum(-1)
    total = assets * _OF_NORMAL + log_std + 0.5 * precision.log() + volume
    return Entropy(total + torch.lgamma(assets + 1.0), assets)


def _within_bounds(
    output: PolicyOutput, action: Tensor, shown: Tensor, bounds: tuple[float, float]
) -> Entropy:
    """Of the Gaussian itself, less how far it strays beyond the bounds, in halves of their width.

    What is beyond is cut off, and noise on it costs nothing either.
    """
    low, high = bounds
    beyond = (action - action.clamp(low, high)).abs() * (2.0 / (high - low))
    each = output.log_std + _OF_NORMAL - math.log(high - low) - beyond
    return Entropy(torch.where(shown, each, 0.0).sum(-1), shown.sum(-1).to(action.dtype))
