"""What carries N environments from one close to the next: one signature for every backend."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from fastsim.env.core import Transition, step
from fastsim.env.kernels.buffers import Results
from fastsim.env.state import EnvParams, EnvState


class Stepper(Protocol):
    """Keeps the state of N environments and steps them."""

    name: str
    capturable: bool
    """Whether a step can be recorded as a graph: it writes where it wrote before."""

    @property
    def state(self) -> EnvState:
        """The state now. A fused backend's next step writes into these tensors."""
        ...

    @property
    def invalid_actions(self) -> Tensor:
        """Actions [N] that were not finite, since the last reset; updated in place if fused."""
        ...

    def load(self, state: EnvState) -> None:
        """Go on from this state, which is copied."""
        ...

    def refresh(self, bars: Tensor) -> None:
        """Take note that the tape has changed at these bars [B]."""
        ...

    def room(self, steps: int) -> Results | None:
        """Blocks [steps, N, ...] that so many steps can write into; None if they bring their own.

        Observations in it leave out the market's features, which are those of their bars.
        """
        ...

    def step(self, action: Tensor, into: Results | None = None) -> Transition:
        """Step every environment once; the tensors returned are the caller's to keep.

        They lie in the blocks `into`, one step of a `room`, if there are any.
        """
        ...


class TorchStepper:
    """The reference: any device, any floating-point type, a new state at every step."""

    name = "torch"
    capturable = False

    def __init__(self, params: EnvParams, state: EnvState) -> None:
        self.params, self.state = params, state

    @property
    def invalid_actions(self) -> Tensor:
        """Actions [N] that were not finite, since the last reset."""
        return self.state.invalid_actions

    def load(self, state: EnvState) -> None:
        """Go on from this state."""
        self.state = state

    def refresh(self, bars: Tensor) -> None:
        """Nothing to do: steps read the tape itself."""

    def room(self, steps: int) -> None:
        """None: every step makes new tensors."""

    @torch.no_grad()
    def step(self, action: Tensor, into: Results | None = None) -> Transition:
        """Step every environment once."""
        assert into is None, "there is no room"
        self.state, transition = step(self.params, self.state, action)
        return transition
