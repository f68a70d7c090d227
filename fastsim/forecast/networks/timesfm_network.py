"""The network of TimesFM 2.5: a causal transformer over patches, with a head of 1,024 bars.

Das et al. 2024, "A decoder-only foundation model for time-series forecasting" (arXiv 2310.10688);
what 2.5 changed stands in its makers' package alone: rotated and normalised queries and keys, norms
before and after every branch, a learned factor for every dimension of a query, and a second head
that gives the quantiles of all bars at once.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from fastsim.config import configuration, require_between
from fastsim.errors import ForecastError

EPSILON = 1e-6
OUTPUTS = 10
"""The mean, then nine deciles."""
ROTATION_BASE = 10000.0


@configuration(slots=False)
class TimesFMConfig:
    """Sizes; the defaults are those of the release, whose files name none."""

    patch: int = 32
    output_patch: int = 128
    """Bars that the first head gives, and that are fed back to it for those beyond."""
    furthest: int = 1024
    """Bars that the second head gives."""
    width: int = 1280
    hidden: int = 1280
    layers: int = 20
    heads: int = 16
    context: int = 15_360
    """The longest past; with the furthest bar 16,384, which is the official limit."""

    def __post_init__(self) -> None:
        for name in ("patch", "output_patch", "furthest", "width", "hidden", "layers", "heads"):
            require_between(self, name, 1)
        require_between(self, "context", self.patch)
        if self.output_patch % self.patch or self.width % (2 * self.heads):
            raise ForecastError(
                f"timesfm: output_patch must be a multiple of patch and width of 2 * heads, got "
                f"{self.output_patch}, {self.patch}, {self.width} and {self.heads}"
            )

    @property
    def tokens(self) -> int:
        """Patches of the longest past and of what is fed back."""
        return -(-self.context // self.patch) + -(-self.furthest // self.patch)


class Cache(NamedTuple):
    """Keys and values of one layer for the patches so far."""

    key: Tensor  # [B, heads, S, head_dim]
    value: Tensor  # likewise


class ResidualBlock(nn.Module):
    """Two layers with a linear shortcut."""

    def __init__(self, width: int, hidden: int, out: int, *, bias: bool) -> None:
        super().__init__()
        self.hidden_layer = nn.Linear(width, hidden, bias=bias)
        self.output_layer = nn.Linear(hidden, out, bias=bias)
        self.residual_layer = nn.Linear(width, out, bias=bias)

    def forward(self, state: Tensor) -> Tensor:
        """Map [..., width] to [..., out]."""
        out: Tensor = self.output_layer(F.silu(self.hidden_layer(state)))
        shortcut: Tensor = self.residual_layer(state)
        return out + shortcut


class Norm(nn.Module):
    """Division by the root mean square, in float32, and a factor for every dimension."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, state: Tensor) -> Tensor:
        """Map [..., width] to the same."""
        scaled = F.rms_norm(state.float(), (state.shape[-1],), eps=EPSILON)
        return scaled.to(self.scale.dtype) * self.scale


class PerDimScale(nn.Module):
    """A positive learned factor for every dimension, 1 / root of their number where it is 0."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.per_dim_scale = nn.Parameter(torch.zeros(width))

    def forward(self, query: Tensor) -> Tensor:
        """Scale [..., width]."""
        root = math.log(2.0) * math.sqrt(query.shape[-1])
        return query * (F.softplus(self.per_dim_scale) / root)


class Rotation(nn.Module):
    """Positions as rotations of the pairs (i, i + width / 2), from tables (Su et al. 2021)."""

    cos: Tensor
    sin: Tensor

    def __init__(self, width: int, positions: int) -> None:
        super().__init__()
        rate = ROTATION_BASE ** (-torch.arange(0, width, 2).double() / width)
        angle = torch.arange(positions).double()[:, None] * rate  # [positions, width / 2]
        self.register_buffer("cos", angle.cos().float(), persistent=False)
        self.register_buffer("sin", angle.sin().float(), persistent=False)

    def forward(self, state: Tensor, place: Tensor) -> Tensor:
        """Rotate [B, heads, S, width] by the positions [B, S]."""
        cos, sin = self.cos[place][:, None], self.sin[place][:, None]  # [B, 1, S, width / 2]
        low, high = state.chunk(2, -1)
        return torch.cat((low * cos - high * sin, high * cos + low * sin), -1)


class Attention(nn.Module):
    """Causal attention along the patches; positions count from the first that is not hidden."""

    def __init__(self, config: TimesFMConfig) -> None:
        super().__init__()
        self.heads, width = config.heads, config.width // config.heads
        self.qkv_proj = nn.Linear(config.width, 3 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)
        self.query_ln, self.key_ln = Norm(width), Norm(width)
        self.per_dim_scale = PerDimScale(width)

    def forward(
        self,
        state: Tensor,
        place: Tensor,
        mask: Tensor,
        rotation: Rotation,
        past: Cache | None,
        keep: int | None,
    ) -> tuple[Tensor, Cache]:
        """Answers for the last `keep` of the patches [B, S, D], for all if None, and the cache."""
        query, key, value = (
            torch.unflatten(part, -1, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv_proj(state).chunk(3, -1)
        )  # [B, heads, S, head_dim]
        query = self.per_dim_scale(self.query_ln(rotation(query, place)))
        key = self.key_ln(rotation(key, place))
        if past is not None:
            key, value = torch.cat((past.key, key), 2), torch.cat((past.value, value), 2)
        if keep is not None:
            query, mask = query[:, :, -keep:], mask[:, :, -keep:]
        mixed = F.scaled_dot_product_attention(query, key, value, mask, scale=1.0)
        answer: Tensor = self.out(mixed.transpose(1, 2).flatten(-2))
        return answer, Cache(key, value)


class Layer(nn.Module):
    """Attention and feed-forward network, with norms before and after each."""

    def __init__(self, config: TimesFMConfig) -> None:
        super().__init__()
        self.pre_attn_ln, self.post_attn_ln = Norm(config.width), Norm(config.width)
        self.attn = Attention(config)
        self.pre_ff_ln, self.post_ff_ln = Norm(config.width), Norm(config.width)
        self.ff0 = nn.Linear(config.width, config.hidden, bias=False)
        self.ff1 = nn.Linear(config.hidden, config.width, bias=False)

    def forward(
        self,
        state: Tensor,
        place: Tensor,
        mask: Tensor,
        rotation: Rotation,
        past: Cache | None,
        keep: int | None,
    ) -> tuple[Tensor, Cache]:
        """Map [B, S, D] to its last `keep` patches, or to all if None."""
        mixed, cache = self.attn(self.pre_attn_ln(state), place, mask, rotation, past, keep)
        trunk = state if keep is None else state[:, -keep:]
        state = self.post_attn_ln(mixed) + trunk
        branch = self.ff1(F.silu(self.ff0(self.pre_ff_ln(state))))
        out: Tensor = self.post_ff_ln(branch) + state
        return out, cache


class TimesFMNetwork(nn.Module):
    """Patches to what follows the last of them; weights by their official names."""

    def __init__(self, config: TimesFMConfig) -> None:
        super().__init__()
        width = config.width
        self.tokenizer = ResidualBlock(2 * config.patch, config.hidden, width, bias=True)
        self.stacked_xf = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.output_projection_point = ResidualBlock(
            width, config.hidden, config.output_patch * OUTPUTS, bias=False
        )
        self.output_projection_quantiles = ResidualBlock(
            width, config.hidden, config.furthest * OUTPUTS, bias=False
        )
        self.rotation = Rotation(width // config.heads, config.tokens)

    def forward(
        self, patches: Tensor, hidden: Tensor, past: list[Cache] | None
    ) -> tuple[Tensor, list[Cache]]:
        """The state [B, D] of the last patch, and the caches.

        Parameters
        ----------
        patches
            [B, S, 2 P]: scaled values, and which of them are hidden.
        hidden
            [B]: how many patches of the past hide at its beginning.
        past
            Of the patches before these; None where there are none.
        """
        state: Tensor = self.tokenizer(patches)
        before = 0 if past is None else past[0].key.shape[2]
        index = torch.ones_like(patches[..., 0], dtype=torch.int64).cumsum(1) - 1 + before  # [B, S]
        place = (index - hidden[:, None]).clamp_min(0)
        mask = self.mask(index, hidden, before)
        last, caches = len(self.stacked_xf) - 1, []
        for number, layer in enumerate(self.stacked_xf):
            own = None if past is None else past[number]
            keep = 1 if number == last else None
            state, cache = layer(state, place, mask, self.rotation, own, keep)
            caches.append(cache)
        return state[:, -1], caches

    def mask(self, index: Tensor, hidden: Tensor, before: int) -> Tensor:
        """Who looks at whom [B, 1, S, before + S]: at itself and what is before and not hidden."""
        seen = torch.ones_like(F.pad(index, (before, 0))).cumsum(1) - 1  # [B, before + S]
        past = (seen[:, None] <= index[..., None]) & (seen >= hidden[:, None])[:, None]
        return (past | (seen[:, None] == index[..., None]))[:, None]
