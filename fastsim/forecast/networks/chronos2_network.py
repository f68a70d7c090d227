"""The network of Chronos-2: an encoder that attends along time and across a group of series.

Ansari et al. 2025, "Chronos-2: From Univariate to Universal Forecasting" (arXiv 2510.15821),
sections 3.2 and 3.3. Every patch of a series is a token, followed by a learned token that stands
between past and future and by a token for each patch to come; each layer attends along the time of
a series, then across the series of a group at each patch. Scores are not divided by the root of
the width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from fastsim.config import configuration, require_between
from fastsim.errors import ForecastError

QUANTILES = (0.01, *(step / 20 for step in range(1, 20)), 0.99)
"""Levels of the released weights."""
INPUTS = 3
"""What a token reads of each bar: its time, its value, and whether that is known."""


@configuration(slots=False)
class Chronos2Config:
    """Sizes, named as in the official config.json; the defaults are those of the release."""

    d_model: int = 768
    d_kv: int = 64
    d_ff: int = 3072
    num_layers: int = 12
    num_heads: int = 12
    layer_norm_epsilon: float = 1e-6
    rope_theta: float = 10000.0
    context_length: int = 8192
    input_patch_size: int = 16
    max_output_patches: int = 64
    time_encoding_scale: int = 8192
    quantiles: tuple[float, ...] = QUANTILES

    def __post_init__(self) -> None:
        counts = ("d_model", "d_kv", "d_ff", "num_layers", "num_heads", "input_patch_size")
        for name in (*counts, "max_output_patches", "time_encoding_scale"):
            require_between(self, name, 1)
        require_between(self, "context_length", self.input_patch_size)
        if self.d_kv % 2:
            raise ForecastError(f"chronos2: d_kv must be even, got {self.d_kv}")

    @property
    def tokens(self) -> int:
        """Tokens of the longest past and the furthest future."""
        return -(-self.context_length // self.input_patch_size) + 1 + self.max_output_patches


class ResidualBlock(nn.Module):
    """Two layers with a linear shortcut."""

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.hidden_layer = nn.Linear(width, hidden)
        self.output_layer = nn.Linear(hidden, out)
        self.residual_layer = nn.Linear(width, out)

    def forward(self, state: Tensor) -> Tensor:
        """Map [..., width] to [..., out]."""
        out: Tensor = self.output_layer(F.relu(self.hidden_layer(state)))
        shortcut: Tensor = self.residual_layer(state)
        return out + shortcut


class Norm(nn.Module):
    """Division by the root mean square, in float32, and a factor for every dimension."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, state: Tensor) -> Tensor:
        """Map [..., width] to the same."""
        scaled = F.rms_norm(state.float(), (state.shape[-1],), eps=self.eps)
        return self.weight * scaled.to(self.weight.dtype)


class Rotation(nn.Module):
    """Positions as rotations of the pairs (i, i + width / 2), from tables (Su et al. 2021)."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: Chronos2Config) -> None:
        super().__init__()
        pair = torch.arange(0, config.d_kv, 2).float()
        rate = 1.0 / config.rope_theta ** (pair / config.d_kv)  # [d_kv / 2]
        angle = torch.arange(config.tokens).float()[:, None] * rate
        self.register_buffer("cos", angle.cos().repeat(1, 2), persistent=False)  # [S, d_kv]
        self.register_buffer("sin", angle.sin().repeat(1, 2), persistent=False)

    def forward(self, state: Tensor) -> Tensor:
        """Rotate [B, heads, S, d_kv] by the first S positions."""
        length = state.shape[-2]
        low, high = state.chunk(2, -1)
        turned = torch.cat((-high, low), -1)
        return state * self.cos[:length] + turned * self.sin[:length]


class Attention(nn.Module):
    """Heads that mix the second last dimension of [..., S, D]."""

    def __init__(self, config: Chronos2Config) -> None:
        super().__init__()
        inner = config.num_heads * config.d_kv
        self.heads = config.num_heads
        self.q = nn.Linear(config.d_model, inner, bias=False)
        self.k = nn.Linear(config.d_model, inner, bias=False)
        self.v = nn.Linear(config.d_model, inner, bias=False)
        self.o = nn.Linear(inner, config.d_model, bias=False)

    def forward(
        self, state: Tensor, mask: Tensor, rotation: Rotation | None, keep: int | None
    ) -> Tensor:
        """The answers [B, S, D] for the last `keep` positions, for all if None."""
        query, key, value = (
            torch.unflatten(project(state), -1, (self.heads, -1)).transpose(-3, -2)
            for project in (self.q, self.k, self.v)
        )  # [B, heads, S, d_kv]
        if rotation is not None:
            query, key = rotation(query), rotation(key)
        if keep is not None:
            query = query[..., -keep:, :]
        mixed = F.scaled_dot_product_attention(query, key, value, mask, scale=1.0)
        answer: Tensor = self.o(mixed.transpose(-3, -2).flatten(-2))
        return answer

    def alone(self, state: Tensor) -> Tensor:
        """What attention comes to for whoever sees itself alone: its value."""
        answer: Tensor = self.o(self.v(state))
        return answer


class TimeAttention(nn.Module):
    """Attention along the patches of each series."""

    def __init__(self, config: Chronos2Config) -> None:
        super().__init__()
        self.self_attention = Attention(config)
        self.layer_norm = Norm(config.d_model, config.layer_norm_epsilon)

    def forward(self, state: Tensor, mask: Tensor, rotation: Rotation, keep: int | None) -> Tensor:
        """Map [B, S, D] to its last `keep` patches, or to all if None."""
        trunk = state if keep is None else state[:, -keep:]
        out: Tensor = self.self_attention(self.layer_norm(state), mask, rotation, keep)
        return trunk + out


class GroupAttention(nn.Module):
    """Attention across the series of a group, at each patch."""

    def __init__(self, config: Chronos2Config) -> None:
        super().__init__()
        self.self_attention = Attention(config)
        self.layer_norm = Norm(config.d_model, config.layer_norm_epsilon)

    def forward(self, state: Tensor, mask: Tensor | None) -> Tensor:
        """Map [B, S, D] to the same; `mask` [S, 1, B, B] is None where every series is alone."""
        normal = self.layer_norm(state)
        if mask is None:
            own: Tensor = self.self_attention.alone(normal)
            return state + own
        mixed: Tensor = self.self_attention(normal.transpose(0, 1), mask, None, None)  # [S, B, D]
        return state + mixed.transpose(0, 1)


class FeedForward(nn.Module):
    """Two layers at each patch."""

    def __init__(self, config: Chronos2Config) -> None:
        super().__init__()
        layers = {
            "wi": nn.Linear(config.d_model, config.d_ff, bias=False),
            "wo": nn.Linear(config.d_ff, config.d_model, bias=False),
        }
        self.mlp = nn.ModuleDict(layers)
        self.layer_norm = Norm(config.d_model, config.layer_norm_epsilon)

    def forward(self, state: Tensor) -> Tensor:
        """Map [B, S, D] to the same."""
        hidden = F.relu(self.mlp["wi"](self.layer_norm(state)))
        out: Tensor = self.mlp["wo"](hidden)
        return state + out


class Layer(nn.Module):
    """Along time, across the group, and forward."""

    def __init__(self, config: Chronos2Config) -> None:
        super().__init__()
        parts = (TimeAttention(config), GroupAttention(config), FeedForward(config))
        self.layer = nn.ModuleList(parts)

    def forward(
        self,
        state: Tensor,
        seen: Tensor,
        group: Tensor | None,
        rotation: Rotation,
        keep: int | None,
    ) -> Tensor:
        """Map [B, S, D] to its last `keep` patches, or to all if None."""
        state = self.layer[0](state, seen, rotation, keep)
        if group is not None and keep is not None:
            group = group[-keep:]
        out: Tensor = self.layer[2](self.layer[1](state, group))
        return out


class Encoder(nn.Module):
    """The stack of layers."""

    def __init__(self, config: Chronos2Config) -> None:
        super().__init__()
        self.block = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        self.final_layer_norm = Norm(config.d_model, config.layer_norm_epsilon)
        self.rotation = Rotation(config)

    def forward(
        self, state: Tensor, known: Tensor, group: Tensor | None, keep: int | None
    ) -> Tensor:
        """Map tokens [B, S, D] to the last `keep` of them, all if None; `known` are looked at."""
        seen = known[:, None, None]  # [B, 1, 1, S]
        mask = None if group is None else group_mask(group, known)
        last = len(self.block) - 1
        for index, layer in enumerate(self.block):
            state = layer(state, seen, mask, self.rotation, keep if index == last else None)
        out: Tensor = self.final_layer_norm(state)
        return out


def group_mask(group: Tensor, known: Tensor) -> Tensor:
    """Which series [S, 1, B, B] look at which at a patch: itself, and known ones of its group."""
    together = group[:, None] == group
    alone = torch.eye(len(group), dtype=torch.bool, device=group.device)
    return (together & (known.T[:, None] | alone))[:, None]


class Chronos2Network(nn.Module):
    """Patches of series to quantiles of their patches to come; weights by their official names."""

    def __init__(self, config: Chronos2Config) -> None:
        super().__init__()
        patch, width = config.input_patch_size, config.d_model
        self.shape = (len(config.quantiles), patch)
        self.shared = nn.Embedding(2, width)  # what pads, which nothing reads, and the divider
        self.input_patch_embedding = ResidualBlock(INPUTS * patch, config.d_ff, width)
        self.encoder = Encoder(config)
        self.output_patch_embedding = ResidualBlock(width, config.d_ff, patch * self.shape[0])

    def forward(self, past: Tensor, known: Tensor, future: Tensor, group: Tensor | None) -> Tensor:
        """Scaled quantiles [B, F * P, Q] of the F patches to come.

        Parameters
        ----------
        past
            [B, S, 3 P]: times, values and whether they are known, of every patch.
        known
            [B, S]: whether any value of a patch is.
        future
            [B, F, 3 P], likewise.
        group
            [B], series with the same number read each other; None for each alone.
        """
        state = self.states(past, known, future, group, future.shape[1])
        quantiles = torch.unflatten(self.output_patch_embedding(state), -1, self.shape)
        out: Tensor = quantiles.transpose(-1, -2).flatten(1, 2)
        return out

    def states(
        self,
        past: Tensor,
        known: Tensor,
        future: Tensor,
        group: Tensor | None,
        keep: int | None,
    ) -> Tensor:
        """The last `keep` of the tokens [B, S + 1 + F, D] after all layers; all if None."""
        divider = self.shared.weight[1].expand(past.shape[0], 1, -1)
        tokens = (self.input_patch_embedding(past), divider, self.input_patch_embedding(future))
        seen = F.pad(known, (0, 1 + future.shape[1]), value=True)
        out: Tensor = self.encoder(torch.cat(tokens, 1), seen, group, keep)
        return out


def read_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """The official config.json in one piece, with what it leaves out where it has a default."""
    inner = dict(given.get("chronos_config", {}))
    inner.setdefault("time_encoding_scale", inner.get("context_length"))
    return {**given, **inner, "quantiles": tuple(inner.get("quantiles", ()))}
