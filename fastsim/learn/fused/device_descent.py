"""Steps of Adam on a GPU: weights, moments and rate stay where they are, and nothing is read."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from fastsim.learn.fused import launches
from fastsim.learn.fused.layout import ENCODER, Layout
from fastsim.policy.flat import FlatPolicy


class Weights(NamedTuple):
    """The policy's weights, or gradients of them, padded, in one flat block."""

    portfolio: Tensor  # [2 H, P+]
    market: Tensor  # [2 H, E+]
    market_bias: Tensor  # [2 H]
    actor: Tensor  # [W+, H]
    actor_bias: Tensor  # [W+]
    critic: Tensor  # [H]
    critic_bias: Tensor  # [1+]
    log_std: Tensor  # [W+]
    encoder: Tensor | None  # [E+, F+]; None where it is a foreign one
    encoder_bias: Tensor | None  # [E+]


def weights_in(layout: Layout, flat: Tensor) -> Weights:
    """Those in a flat block."""

    def room(name: str) -> Tensor:
        return layout.places[name].of(flat).flatten(0, 1)

    own = layout.own_encoder
    return Weights(
        portfolio=room("portfolio_hidden.weight"),
        market=room("market_hidden.weight"),
        market_bias=room("market_hidden.bias").view(-1),
        actor=room("actor.weight"),
        actor_bias=room("actor.bias").view(-1),
        critic=room("critic.weight")[0],
        critic_bias=room("critic.bias").view(-1),
        log_std=room("log_std").view(-1),
        encoder=room(f"{ENCODER}0.weight") if own else None,
        encoder_bias=room(f"{ENCODER}0.bias").view(-1) if own else None,
    )


class DeviceDescent:
    """Takes the steps of a `torch.optim.Adam`, whose moments stay where they are, in its form."""

    def __init__(
        self, policy: FlatPolicy, optimizer: torch.optim.Adam, layout: Layout, max_norm: float
    ) -> None:
        self.policy, self.optimizer, self.layout = policy, optimizer, layout
        device = policy.log_std.device
        self.copy, self.gradient = (torch.zeros(layout.size, device=device) for _ in range(2))
        self.weights, self.into = (weights_in(layout, x) for x in (self.copy, self.gradient))
        self._squares = launches.empty_squares(self.gradient)
        self.frozen = frozen(policy)
        self.numbers = numbers_of(optimizer)
        slow, slower, epsilon = self.numbers
        self._how = (slow, slower, epsilon, max_norm, *map(math.log, (slow, slower)))
        self._moved: list[launches.Moved] = []

    def block(self, name: str) -> Tensor:
        """The gradient of a parameter, padded, as blocks of rows [g, r, c]."""
        return self.layout.places[name].of(self.gradient)

    def begin(self) -> None:
        """Take over weights and moments as they are now: they may have been loaded anew."""
        names = [name for name, _ in self.policy.named_parameters()]
        size = launches.PARAMETERS
        self._moved = [
            self._moving(names[start : start + size]) for start in range(0, len(names), size)
        ]
        self._steps = tuple(step for moved in self._moved for step in moved.steps)
        for moved in self._moved:
            launches.read(moved, self.copy)

    def step(self, stop: Tensor) -> None:
        """Take one along the gradient, cut to a norm, unless `stop` [] says 1."""
        for name in self.frozen:
            self.block(name).zero_()
        rate = self.optimizer.param_groups[0]["lr"]
        launches.square_sums(self.gradient, self._squares, self._steps, stop)
        for moved in self._moved:
            flat = (self.gradient, self.copy)
            launches.adam(moved, *flat, rate, self._squares, stop, self._how)

    def _moving(self, names: list[str]) -> launches.Moved:
        parameters = [self.policy.get_parameter(name) for name in names]
        states = [self.optimizer.state[each] for each in parameters]
        places = [self.layout.places[name] for name in names]
        return launches.Moved(
            weights=tuple(each.detach() for each in parameters),
            means=tuple(state["exp_avg"] for state in states),
            squares=tuple(state["exp_avg_sq"] for state in states),
            steps=tuple(state["step"] for state in states),
            places=launches.places_of([(each.shape, each.room, each.start) for each in places]),
        )


def frozen(policy: FlatPolicy) -> list[str]:
    """Parameters that do not learn."""
    return [name for name, each in policy.named_parameters() if not each.requires_grad]


def numbers_of(optimizer: torch.optim.Adam) -> tuple[float, float, float]:
    """Both betas and epsilon, which kernels are compiled for."""
    group = optimizer.param_groups[0]
    slow, slower = group["betas"]
    return float(slow), float(slower), float(group["eps"])
