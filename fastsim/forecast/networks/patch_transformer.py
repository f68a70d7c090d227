"""A Transformer on patches of scaled returns.

The encoder of Vaswani et al. (2017) with norms before its layers, on patches of bars as tokens
(Nie, Nguyen, Sinthong and Kalagnanam, "A Time Series is Worth 64 Words", ICLR 2023), places
learned. The token of the latest patch and the mean of all make the head's numbers. With layers of a
decoder, each control point of the curves over horizons is a token that asks the others and the
past, and makes its own numbers; all horizons come at once, so none waits for another.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastsim.config import configuration, require_between, to_mapping
from fastsim.errors import ConfigError
from fastsim.forecast.covariates.channels import check_covariates
from fastsim.forecast.networks.return_network import (
    CONTEXT,
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
class PatchTransformerConfig:
    """Sizes of the network."""

    patch: int = 16
    """Bars in a token."""
    width: int = 64
    heads: int = 4
    layers: int = 3
    decoder: int = 0
    """Layers of a decoder; 0 has none."""
    hidden: int = 128
    """Width of the feed-forward layers."""
    dropout: float = 0.0
    covariates: tuple[str, ...] = ()
    """What it reads beside returns; see `fastsim.forecast.covariates.channels`."""
    zone: str = "UTC"
    """Of the clock that hours and days are told by."""

    def __post_init__(self) -> None:
        for name in ("patch", "width", "heads", "layers", "hidden"):
            require_between(self, name, 1)
        require_between(self, "decoder", 0)
        require_between(self, "dropout", 0.0, 0.9)
        check_covariates(self.covariates, self.zone, "PatchTransformerConfig.covariates")
        if self.width % self.heads:
            raise ConfigError(
                f"PatchTransformerConfig.width must be a multiple of heads {self.heads}, "
                f"got {self.width}"
            )


class Attention(nn.Module):
    """Tokens that ask others, in several heads."""

    def __init__(self, config: PatchTransformerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.asking = nn.Linear(config.width, config.width)
        self.asked = nn.Linear(config.width, 2 * config.width)
        self.answered = nn.Linear(config.width, config.width)

    def forward(self, tokens: Tensor, others: Tensor) -> Tensor:
        """What tokens [B, S, D] learn from others [B, R, D]."""
        query = torch.unflatten(self.asking(tokens), 2, (self.heads, -1)).transpose(1, 2)
        told = torch.unflatten(self.asked(others), 2, (2, self.heads, -1))
        key, value = told.permute(2, 0, 3, 1, 4).unbind(0)  # each [B, E, R, W]
        found = functional.scaled_dot_product_attention(query, key, value)
        answer: Tensor = self.answered(found.transpose(1, 2).flatten(2))
        return answer


class FeedForward(nn.Module):
    """A layer on each token."""

    def __init__(self, config: PatchTransformerConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.width, config.hidden)
        self.down = nn.Linear(config.hidden, config.width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [B, S, D]."""
        fed: Tensor = self.down(functional.gelu(self.up(tokens)))
        return fed


class EncoderLayer(nn.Module):
    """Attention of all tokens to all, then a layer on each, both beside a straight line."""

    def __init__(self, config: PatchTransformerConfig) -> None:
        super().__init__()
        self.before_attention, self.before_feed = (nn.LayerNorm(config.width) for _ in range(2))
        self.attention, self.feed = Attention(config), FeedForward(config)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [B, S, D]."""
        normal = self.before_attention(tokens)
        tokens = tokens + self.drop(self.attention(normal, normal))
        fed: Tensor = tokens + self.drop(self.feed(self.before_feed(tokens)))
        return fed


class DecoderLayer(nn.Module):
    """Tokens that ask the past, then each other, then a layer on each."""

    def __init__(self, config: PatchTransformerConfig) -> None:
        super().__init__()
        self.among = EncoderLayer(config)
        self.before_past, self.past = nn.LayerNorm(config.width), Attention(config)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, tokens: Tensor, past: Tensor) -> Tensor:
        """Tokens [B, KNOTS, D] that ask those of the past [B, S, D]."""
        tokens = tokens + self.drop(self.past(self.before_past(tokens), past))
        told: Tensor = self.among(tokens)
        return told


class PatchTransformerModel(ReturnNetwork):
    """An encoder of patches, a decoder if wanted, and the prior's head."""

    fit_modes = ("scratch", "full", "head")
    head_names = ("head",)
    layer_names = ("layers", "decoder")

    def __init__(self, config: PatchTransformerConfig | None = None) -> None:
        config = PatchTransformerConfig() if config is None else config
        super().__init__(config.covariates, config.zone)
        self.config = config
        width, tokens = config.width, -(-CONTEXT // config.patch)
        channels = (return_channels() + self.past_width) * config.patch
        self.embedding = nn.Linear(channels, width)
        self.places = nn.Parameter(torch.empty(tokens, width).normal_(std=0.02))
        if self.ahead_width:  # of bars to come: a token of each control point, or of all
            self.coming = nn.Linear(self.ahead_width * (1 if config.decoder else KNOTS), width)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder))
        if config.decoder:
            self.questions = nn.Parameter(torch.empty(KNOTS, width).normal_(std=0.02))
            self.norm, self.past_norm = nn.LayerNorm(width), nn.LayerNorm(width)
            self.head = nn.Linear(width, OUTPUTS)
        else:
            self.norm = nn.LayerNorm(2 * width)
            self.head = nn.Linear(2 * width, KNOTS * OUTPUTS)
        begin_quietly(self.head)
        self.card = network_card("patch-transformer", self)

    def settings(self) -> dict[str, Any]:
        """Sizes and covariates."""
        return to_mapping(self.config)

    def features(self, gaps: GapReturns, scale: Tensor, past: Tensor | None) -> Tensor:
        """Patches of scaled returns [B, S, C * P]."""
        return patches_of(gaps, scale, self.config.patch, past)

    def hidden(self, features: Tensor, ahead: Tensor | None = None) -> Tensor:
        """The token of the latest patch and the mean of all [B, 2 D], normalised.

        With a decoder its answers for all control points, side by side.
        """
        dtype = self.head.bias.dtype
        tokens = self.embedding(features.to(dtype)) + self.places
        coming = None if ahead is None else ahead.to(dtype)
        if self.config.decoder:
            return self._decoded(tokens, coming).flatten(1)
        patches = tokens.shape[1]
        if coming is not None:
            tokens = torch.cat([tokens, self.coming(coming.flatten(1))[:, None]], 1)
        for layer in self.layers:
            tokens = layer(tokens)
        pooled = torch.cat([tokens[:, patches - 1], tokens.mean(1)], 1)
        seen: Tensor = self.norm(pooled)
        return seen

    def raw(self, features: Tensor, ahead: Tensor | None = None) -> Tensor:
        """Free numbers [B, KNOTS * OUTPUTS]."""
        hidden = self.hidden(features, ahead)
        if self.config.decoder:
            hidden = torch.unflatten(hidden, 1, (KNOTS, -1))
        raw: Tensor = self.head(hidden)
        return raw.flatten(1)

    def _decoded(self, tokens: Tensor, coming: Tensor | None) -> Tensor:
        """The decoder's answers [B, KNOTS, D] of patches [B, S, D] and covariates to come."""
        for layer in self.layers:
            tokens = layer(tokens)
        past = self.past_norm(tokens)
        questions = self.questions.expand(past.shape[0], -1, -1)
        if coming is not None:
            questions = questions + self.coming(coming)
        for layer in self.decoder:
            questions = layer(questions, past)
        answers: Tensor = self.norm(questions)
        return answers
