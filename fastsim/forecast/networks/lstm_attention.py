"""A recurrent network on scaled returns that looks back at all of its states.

An LSTM (Hochreiter and Schmidhuber 1997) reads a few bars at a step; its last state asks, and every
state answers by how well it fits (Luong, Pham and Manning 2015, the general score of equation 8),
so that a shock long ago is found again however many bars lie between.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fastsim.config import configuration, require_between, to_mapping
from fastsim.forecast.covariates.channels import check_covariates
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
    covariates: tuple[str, ...] = ()
    """What it reads beside returns; see `fastsim.forecast.covariates.channels`."""
    zone: str = "UTC"
    """Of the clock that hours and days are told by."""

    def __post_init__(self) -> None:
        for name in ("patch", "hidden", "layers"):
            require_between(self, name, 1)
        require_between(self, "dropout", 0.0, 0.9)
        check_covariates(self.covariates, self.zone, "LstmConfig.covariates")


class LstmModel(ReturnNetwork):
    """An LSTM with attention over its states, and the prior's head."""

    fit_modes = ("scratch", "full", "head")
    head_names = ("head",)

    def __init__(self, config: LstmConfig | None = None) -> None:
        config = LstmConfig() if config is None else config
        super().__init__(config.covariates, config.zone)
        self.config = config
        channels = (return_channels() + self.past_width) * config.patch
        between = config.dropout if config.layers > 1 else 0.0
        self.recurrent = nn.LSTM(
            channels, config.hidden, config.layers, batch_first=True, dropout=between
        )
        self.question = nn.Linear(config.hidden, config.hidden, bias=False)
        self.joined = nn.Linear(2 * config.hidden + KNOTS * self.ahead_width, config.hidden)
        self.drop = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.hidden, KNOTS * OUTPUTS)
        begin_quietly(self.head)
        self.card = network_card("lstm", self)

    def settings(self) -> dict[str, Any]:
        """Sizes and covariates."""
        return to_mapping(self.config)

    def features(self, gaps: GapReturns, scale: Tensor, past: Tensor | None) -> Tensor:
        """Patches of scaled returns [B, S, C * P]."""
        return patches_of(gaps, scale, self.config.patch, past)

    def hidden(self, features: Tensor, ahead: Tensor | None = None) -> Tensor:
        """The last state, what it has found and covariates to come [B, D], joined."""
        states, _ = self.recurrent(features.to(self.head.bias.dtype))  # [B, S, D]
        last = states[:, -1]
        scores = (states @ self.question(last)[..., None]) / self.config.hidden**0.5
        found = (scores.float().softmax(1).to(states.dtype) * states).sum(1)  # [B, D]
        parts = [last, found]
        if ahead is not None:
            parts.append(ahead.flatten(1).to(last))
        return torch.tanh(self.joined(torch.cat(parts, 1)))

    def raw(self, features: Tensor, ahead: Tensor | None = None) -> Tensor:
        """Free numbers [B, KNOTS * OUTPUTS]."""
        raw: Tensor = self.head(self.drop(self.hidden(features, ahead)))
        return raw
