"""A policy of the kind that its spec names: new, or with weights that were learned."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fastsim.market.tape import MarketTape
from fastsim.policy.assets import AssetPolicy
from fastsim.policy.flat import FlatPolicy
from fastsim.policy.policy import Policy
from fastsim.policy.spec import PolicySpec


def policy_of(spec: PolicySpec) -> Policy:
    """A policy whose weights are PyTorch's to draw; ConfigError if its encoder is unknown."""
    return AssetPolicy(spec) if spec.by_asset else FlatPolicy(spec)


def new_policy(spec: PolicySpec, tape: MarketTape, *, seed: int) -> Policy:
    """A policy that has learned nothing, on the tape's device, with weights of this seed.

    PyTorch's own random numbers stay as they were.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy = policy_of(spec)
    policy.to(tape.device).fit_moments(tape)
    return policy


def policy_with(spec: PolicySpec, weights: Mapping[str, Tensor]) -> Policy:
    """A policy with these weights and moments, a `state_dict`, where they lie; RuntimeError if not.

    No random number is drawn, and no time is spent on weights that would be overwritten.
    """
    with torch.device("meta"):
        policy = policy_of(spec)
    policy.load_state_dict(weights, assign=True)
    return policy
