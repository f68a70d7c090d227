"""A policy as it was: what the learner's past selves are in a league."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from torch import Tensor

from fastsim.config import from_mapping, to_mapping
from fastsim.env.config import EnvConfig
from fastsim.env.decide import Decider
from fastsim.env.observe import Observation
from fastsim.market.tape import MarketTape
from fastsim.policy.make import policy_with
from fastsim.policy.policy import Encoded, Policy
from fastsim.policy.spec import PolicySpec


class Snapshot(Decider):
    """A policy as it was: it decides without exploration and learns no more."""

    def __init__(self, policy: Policy) -> None:
        self.policy = deepcopy(policy).requires_grad_(False)

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> Snapshot:
        """The one whose `saved` this is."""
        spec = from_mapping(PolicySpec, saved["spec"])
        return cls(policy_with(spec, saved["weights"]))

    @property
    def saved(self) -> dict[str, Any]:
        """Its spec and its weights, in tensors and plain values."""
        return {"spec": to_mapping(self.policy.spec), "weights": self.policy.state_dict()}

    @property
    def answers(self) -> str:
        """Actions of the mode that it was made for."""
        return self.policy.answers

    def study(self, tape: MarketTape, rules: EnvConfig, /) -> Encoded:
        """Encode every bar once; ConfigError if the policy was made for another market."""
        self.policy.spec.check(tape, rules)
        return self.policy.by_heart(tape)

    def decide(self, market: Encoded, seen: Observation, memory: Any, /) -> tuple[Tensor, Any]:
        """Most likely actions [n, W]."""
        return self.policy.recall(market, seen), memory
