"""Steps of Adam on a policy's weights and their padded copy, from gradients in one flat block."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from fastsim.learn.fused import numba_kernels as kernels
from fastsim.learn.fused.layout import Array
from fastsim.learn.fused.passes import Weights
from fastsim.policy.flat import FlatPolicy


class _Moved(NamedTuple):
    """All that a step touches of one parameter, as blocks of rows [g, r, c]; padded where noted."""

    weight: Array
    copy: Array  # padded
    gradient: Array  # padded
    mean: Array
    square: Array
    step: Array  # [1]


class Descent:
    """Takes the steps of a `torch.optim.Adam`, whose moments stay where they are, in its form."""

    def __init__(self, policy: FlatPolicy, optimizer: torch.optim.Adam, weights: Weights) -> None:
        self.policy, self.optimizer, self.weights = policy, optimizer, weights
        self.gradient = torch.zeros(weights.layout.size)
        places = weights.layout.places
        self.blocks = {name: place.of(self.gradient) for name, place in places.items()}
        self._flat = self.gradient.numpy()
        self._moved: list[_Moved] = []
        self._frozen: list[str] = []

    def begin(self) -> None:
        """Take over weights, moments and rate as they are now: they may have been loaded anew."""
        self.weights.read(self.policy)
        named = dict(self.policy.named_parameters())
        self._moved = [self._moving(name) for name in named]
        self._frozen = [name for name, each in named.items() if not each.requires_grad]
        group = self.optimizer.param_groups[0]
        rate, (slow, slower) = float(group["lr"]), group["betas"]
        self._how = np.array([rate, slow, slower, group["eps"], 1.0])

    def step(self, max_norm: float) -> None:
        """Take one along the gradient, cut to a norm as `torch.nn.utils.clip_grad_norm_` does."""
        for name in self._frozen:
            self.blocks[name].zero_()
        share = max_norm / (np.sqrt(kernels.square_sum(self._flat)) + 1e-6)
        self._how[4] = 1.0 if share > 1.0 else share  # NaN stays
        for moved in self._moved:
            kernels.adam(*moved, self._how)

    def _moving(self, name: str) -> _Moved:
        parameter, place = self.policy.get_parameter(name), self.weights.layout.places[name]
        state = self.optimizer.state[parameter]
        own = (each.detach().view(place.shape) for each in (parameter, *map(state.get, _MOMENTS)))
        weight, mean, square = (each.numpy() for each in own)
        copy, gradient = (blocks[name].numpy() for blocks in (self.weights.blocks, self.blocks))
        return _Moved(weight, copy, gradient, mean, square, state["step"].view(1).numpy())


_MOMENTS = ("exp_avg", "exp_avg_sq")
