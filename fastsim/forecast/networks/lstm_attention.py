"""A recurrent network on scaled returns that looks back at all of its states.

An LSTM (Hochreiter and Schmidhuber 1997) reads a few bars at a step; its last state asks, and every
state answers by how well it fits (Luong, Pham and Manning 2015, the general score of equation 8),
so that a shock long ago is found again however many bars lie between.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastsim.config import configuration, require_between
from fastsim.forecast.networks.return_network import (
    KNOTS,
    OUTPUTS,
    ReturnNetwork,
    begin_quietly,
    network_card,
    patches_of,
    return_channels,
)
from fastsim.forecast.returns import GapReturns


@configuration(slots=False)
class LstmConfig:
    """Sizes of the network."""

    patch: int = 4
    """Bars that are read at a step."""
    hidden: int = 64
    layers: int = 1
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("patch", "hidden", "layers"):
            require_between(self, name, 1)
        require_between(self, "dropout", 0.0, 0.9)


class LstmModel(ReturnNetwork):
    """An LSTM with attention over its states, and the prior's head."""

    fit_modes = ("scratch", "full", "head")
    head_names = ("head",)

    def __init__(self, config: LstmConfig | None = None) -> None:
        super().__init__()
        self.config = LstmConfig() if config is None else config
        channels = return_channels() * self.config.patch
        between = self.config.dropout if self.config.layers > 1 else 0.0
        self.recurrent = nn.LSTM(
            channels, self.config.hidden, self.config.layers, batch_first=True, dropout=between
        )
        self.question = nn.Linear(self.config.hidden, self.config.hidden, bias=False)
        self.joined = nn.Linear(2 * self.config.hidden, self.config.hidden)
        self.drop = nn.Dropout(self.config.dropout)
        self.head = nn.Linear(self.config.hidden, KNOTS * OUTPUTS)
        begin_quietly(self.head)
        self.card = network_card("lstm", self)

    def features(self, gaps: GapReturns, scale: Tensor) -> Tensor:
        """Patches of scaled returns [B, S, C * P]."""
        return patches_of(gaps, scale, self.config.patch)

    def hidden(self, features: Tensor) -> Tensor:
        """The last state and what it has found [B, D], joined."""
        states, _ = self.recurrent(features.to(self.head.bias.dtype))  # [B, S, D]
        last = states[:, -1]
        scores = (states @ self.question(last)[..., None]) / self.config.hidden**0.5
        found = (scores.float().softmax(1).to(states.dtype) * states).sum(1)  # [B, D]
        return torch.tanh(self.joined(torch.cat([last, found], 1)))

    def raw(self, features: Tensor) -> Tensor:
        """Free numbers [B, KNOTS * OUTPUTS]."""
        raw: Tensor = self.head(self.drop(self.hidden(features)))
        return raw
