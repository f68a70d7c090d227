"""Toto 2.0 (4m) by Datadog: a causal transformer over patches of one series, nine quantiles.

Khwaja et al. 2026, "Toto 2.0: Time Series Forecasting Enters the Scaling Era" (arXiv 2605.20119).
The architecture for one variate, where attention across variates is the identity on values. Every
linear map is unit-scaled (u-muP, Blake et al. 2024): divided by a power of its fan-in.

All horizons come from one pass: patches to be forecast enter as unknown, and the output at one
patch is the forecast of the next.
"""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from fastsim.config import configuration, require_between
from fastsim.errors import ForecastError
from fastsim.forecast.interface import ModelCard
from fastsim.forecast.networks.dense import AfterPatches, DenseModel
from fastsim.forecast.networks.pooling import pooled
from fastsim.forecast.networks.toto2_patches import Patches, scale_patches
from fastsim.forecast.weights import (
    find_checkpoint,
    load_exactly,
    pick_settings,
    read_json,
    read_safetensors,
    require_parameters,
)

CARD = ModelCard(
    name="Toto-2.0-4m",
    licence="Apache-2.0",
    attribution="Toto 2.0 by Datadog",
    hub_id="Datadog/Toto-2.0-4m",
    revision="8306a9801cf98c0f5ffe4b2dcc8f496e616d84d9",
    parameters=4_144_448,
    max_context=4096,
    max_horizon=768,
    levels=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    known_source="its authors name no last day",
)

OPTIONS = {
    "attn_bias": (False, True),
    "mlp_bias": (False, False),
    "num_output_patches": (1, 1),
    "pre_norm": (True, True),
    "qk_norm": (True, False),
    "norm_include_weight": (False, False),
    "per_dim_scale": (False, True),
    "use_xpos": (False, True),
}
"""Options of the official configuration: what a missing one means, and what this code is for."""

LARGEST_QUANTILE = 20.0
"""Bound of the quantiles before sinh: 2e8 standard deviations, where float32 is still finite."""

ROTATED = 0.5
"""Share of every head that carries the position."""

XPOS_BASE = 256.0
SILU_SCALE = 2.0**0.2 * (2.0 / (1.0 - 1.0 / math.pi)) ** 0.4
"""What keeps the variance of silu(normal) at one: 2^(1 - a) (2 / (1 - 1/pi))^(a/2), a = 0.8."""


@configuration(slots=False)
class Toto2Config:
    """Sizes of the network, named as in the official config.json; the defaults are the 4m model."""

    patch_size: int = 32
    d_model: int = 256
    d_ff: int = 688
    num_heads: int = 4
    num_layers: int = 4
    layer_group_size: int = 4
    num_variate_layers_per_group: int = 1
    variate_layer_first: bool = False
    norm_eps: float = 1e-4
    residual_mult: float = 0.75
    residual_attn_ratio: float = math.sqrt(128.0 / math.log(128.0))

    def __post_init__(self) -> None:
        for name in ("patch_size", "d_model", "d_ff", "num_heads", "num_layers"):
            require_between(self, name, 1)
        require_between(self, "layer_group_size", 1, self.num_layers)
        require_between(self, "num_variate_layers_per_group", 0, self.layer_group_size)
        if self.d_model % (4 * self.num_heads):
            raise ForecastError(
                f"{CARD.name}: d_model must be a multiple of 4 * num_heads = {4 * self.num_heads}, "
                f"got {self.d_model}"
            )
        if self.num_layers % self.layer_group_size:
            raise ForecastError(
                f"{CARD.name}: num_layers must be a multiple of layer_group_size = "
                f"{self.layer_group_size}, got {self.num_layers}"
            )

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.d_model // self.num_heads

    @property
    def max_patches(self) -> int:
        """Patches of the longest context and the longest horizon together."""
        return (CARD.max_context + CARD.max_horizon) // self.patch_size + 1

    def is_variate_layer(self, index: int) -> bool:
        """Whether a layer attends across variates instead of across time."""
        place, count = index % self.layer_group_size, self.num_variate_layers_per_group
        return place < count if self.variate_layer_first else place >= self.layer_group_size - count

    def residual_tau(self, branch: int) -> float:
        """Weight of a residual branch against its trunk; even ones attend, odd ones are MLPs.

        Blake et al. 2024, "u-muP: The Unit-Scaled Maximal Update Parametrization", appendix G.
        """
        mlp = self.residual_mult * math.sqrt(2.0 / (1.0 + self.residual_attn_ratio**2))
        attention = self.residual_attn_ratio * mlp
        earlier = (branch + 1) // 2 * attention**2 + branch // 2 * mlp**2
        return (mlp if branch % 2 else attention) / math.sqrt(self.num_layers + earlier)


class UnitLinear(nn.Linear):
    """A linear map divided by fan_in ** `power`, bias included."""

    def __init__(self, width: int, out: int, *, bias: bool = True, power: float = 0.5) -> None:
        super().__init__(width, out, bias=bias)
        self.factor = float(width) ** -power

    def reset_parameters(self) -> None:
        """Draw unit-variance weights and no bias, as unit scaling wants."""
        nn.init.normal_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, state: Tensor) -> Tensor:
        """Map [..., width] to [..., out]."""
        out: Tensor = F.linear(state, self.weight, self.bias) * self.factor
        return out


class ResidualMLP(nn.Module):
    """Two layers with a linear shortcut, averaged with equal variance."""

    def __init__(self, width: int, hidden: int, out: int, *, power: float) -> None:
        super().__init__()
        self.linear1 = UnitLinear(width, hidden)
        self.linear2 = UnitLinear(hidden, out, power=power)
        self.skip_proj = UnitLinear(width, out, power=power)

    def forward(self, state: Tensor) -> Tensor:
        """Map [..., width] to [..., out]."""
        hidden = F.silu(self.linear1(state)) * SILU_SCALE
        out: Tensor = self.linear2(hidden) + self.skip_proj(state)
        return out * math.sqrt(0.5)


class PerDimScale(nn.Module):
    """A positive learned factor for every dimension of a query, 1 when its parameter is 0."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.per_dim_scale = nn.Parameter(torch.zeros(width))

    def forward(self, query: Tensor) -> Tensor:
        """Scale [..., width]."""
        return query * (F.softplus(self.per_dim_scale) / math.log(2.0))


class Rotation(nn.Module):
    """Positions as rotations that decay with distance (xPos, Sun et al. 2022), from tables.

    Only differences of positions matter, so the tables are centred once and for all.
    """

    query_cos: Tensor
    query_sin: Tensor
    key_cos: Tensor
    key_sin: Tensor

    def __init__(self, width: int, positions: int) -> None:
        super().__init__()
        pair = torch.arange(0, width, 2, dtype=torch.float64)
        position = torch.arange(positions, dtype=torch.float64)[:, None]
        angle = position * 10000.0 ** (-pair / width)  # [positions, width / 2]
        decay = ((pair + 0.4 * width) / (1.4 * width)) ** ((position - positions // 2) / XPOS_BASE)
        for name, factor in (("query", decay), ("key", 1.0 / decay)):
            self.register_buffer(f"{name}_cos", (angle.cos() * factor).float(), persistent=False)
            self.register_buffer(f"{name}_sin", (angle.sin() * factor).float(), persistent=False)

    def forward(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Rotate the first dimensions of [B, heads, S, head_dim], the same positions in both."""
        length = query.shape[-2]
        return (
            _rotate(query, self.query_cos[:length], self.query_sin[:length]),
            _rotate(key, self.key_cos[:length], self.key_sin[:length]),
        )


def _rotate(state: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    width = 2 * cos.shape[-1]
    even, odd = state[..., 0:width:2], state[..., 1:width:2]
    turned = torch.stack((even * cos - odd * sin, odd * cos + even * sin), -1).flatten(-2)
    return torch.cat((turned, state[..., width:]), -1)


class Attention(nn.Module):
    """Causal attention across the patches of a series; across its one variate, the values."""

    def __init__(self, config: Toto2Config, *, across_time: bool) -> None:
        super().__init__()
        self.heads, self.scale = config.num_heads, 1.0 / config.head_dim
        self.across_time = across_time
        self.in_proj = UnitLinear(config.d_model, 3 * config.d_model)
        self.out_proj = UnitLinear(config.d_model, config.d_model)
        self._pds = PerDimScale(config.head_dim)

    def forward(self, state: Tensor, rotation: Rotation, mask: Tensor, keep: int | None) -> Tensor:
        """Attend over [B, S, D]; the answers of the last `keep` patches, of all if None."""
        value: Tensor
        query, key, value = self.in_proj(state).chunk(3, -1)
        if self.across_time:
            value = self.attend(query, key, value, rotation, mask, keep)
        elif keep is not None:
            value = value[:, -keep:]
        answer: Tensor = self.out_proj(value)
        return answer

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        rotation: Rotation,
        mask: Tensor,
        keep: int | None,
    ) -> Tensor:
        """Mix values [B, S, D] by the likeness of queries and keys, head by head."""
        query, key, value = (
            torch.unflatten(part, -1, (self.heads, -1)).transpose(1, 2)
            for part in (query, key, value)
        )  # [B, heads, S, head_dim]
        query, key = rotation(self._pds(query), key)
        if keep is not None:
            query, mask = query[:, :, -keep:], mask[:, :, -keep:]
        mixed = F.scaled_dot_product_attention(query, key, value, mask, scale=self.scale)
        return mixed.transpose(1, 2).flatten(-2)


class GatedMLP(nn.Module):
    """The SwiGLU feed-forward network."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = UnitLinear(width, 2 * hidden, bias=False)
        self.fc2 = UnitLinear(hidden, width, bias=False)

    def forward(self, state: Tensor) -> Tensor:
        """Map [..., width] to [..., width]."""
        value, gate = self.fc1(state).chunk(2, -1)
        out: Tensor = self.fc2(value * F.silu(gate))
        return out


class Layer(nn.Module):
    """Attention and feed-forward network, each on a normalised branch beside the trunk."""

    attn_tau: Tensor
    mlp_tau: Tensor

    def __init__(self, config: Toto2Config, index: int) -> None:
        super().__init__()
        self.eps = config.norm_eps
        self.attn = Attention(config, across_time=not config.is_variate_layer(index))
        self.ffn = GatedMLP(config.d_model, config.d_ff)
        self.register_buffer("attn_tau", torch.tensor(config.residual_tau(2 * index)))
        self.register_buffer("mlp_tau", torch.tensor(config.residual_tau(2 * index + 1)))

    def forward(self, state: Tensor, rotation: Rotation, mask: Tensor, keep: int | None) -> Tensor:
        """Map [B, S, D] to its last `keep` patches, or to all if None."""
        branch = self.attn(_rms_norm(state, self.eps), rotation, mask, keep)
        trunk = state if keep is None else state[:, -keep:]
        state = _residual(trunk, branch, self.attn_tau)
        return _residual(state, self.ffn(_rms_norm(state, self.eps)), self.mlp_tau)


def _rms_norm(state: Tensor, eps: float) -> Tensor:
    return F.rms_norm(state, (state.shape[-1],), eps=eps)


def _residual(trunk: Tensor, branch: Tensor, tau: Tensor) -> Tensor:
    return (trunk + tau * branch) * torch.rsqrt(1.0 + tau * tau)


class Transformer(nn.Module):
    """The stack of layers."""

    causal: Tensor

    def __init__(self, config: Toto2Config) -> None:
        super().__init__()
        self.eps, count = config.norm_eps, config.num_layers
        self.layers = nn.ModuleList(Layer(config, index) for index in range(count))
        self.last_time_layer = max(
            (index for index in range(count) if not config.is_variate_layer(index)), default=-1
        )
        self.rotation = Rotation(int(config.head_dim * ROTATED), config.max_patches)
        causal = torch.ones(config.max_patches, config.max_patches, dtype=torch.bool).tril()
        self.register_buffer("causal", causal, persistent=False)

    def forward(self, state: Tensor, present: Tensor, keep: int) -> Tensor:
        """Map patches [B, S, D] to the last `keep` of them.

        Patches without a known value (`present` [B, S] false) and the others do not see each other.
        """
        length = state.shape[1]
        mask = (present[:, :, None] == present[:, None, :]) & self.causal[:length, :length]
        for index, layer in enumerate(self.layers):
            cut = keep if index == self.last_time_layer else None
            state = layer(state, self.rotation, mask[:, None], cut)
        return _rms_norm(state[:, -keep:], self.eps)


class QuantileHead(nn.Module):
    """From a patch's state to the quantiles of the next patch."""

    def __init__(self, config: Toto2Config) -> None:
        super().__init__()
        self.shape = (config.patch_size, len(CARD.levels))
        self.param_projection = nn.ModuleDict(
            {
                "proj": ResidualMLP(
                    config.d_model, 4 * config.d_model, math.prod(self.shape), power=1.0
                )
            }
        )

    def forward(self, state: Tensor) -> Tensor:
        """Map [B, S, D] to [B, S, P, Q]."""
        quantiles: Tensor = self.param_projection["proj"](state)
        return torch.unflatten(quantiles, -1, self.shape)


class Toto2Model(DenseModel):
    """Toto 2.0 for one series at a time.

    The constructor leaves random weights, for tests; `load_toto2` gives the official ones, and the
    card of their size: the family shares architecture, context, horizon and levels.
    """

    card = CARD
    fit_modes = ("full", "head", "lora")
    head_names = ("output_head",)
    layer_names = ("transformer.layers",)
    unknown_patch: Tensor

    def __init__(self, config: Toto2Config) -> None:
        super().__init__()
        self.config = config
        patch, width = config.patch_size, config.d_model
        self.patch_proj = ResidualMLP(2 * patch, 4 * width, width, power=0.5)
        self.transformer = Transformer(config)
        self.output_head = QuantileHead(config)
        unknown = torch.cat((torch.zeros(patch), torch.ones(patch)))
        self.register_buffer("unknown_patch", unknown, persistent=False)

    def settings(self) -> dict[str, Any]:
        """Sizes and constants of the network, not all of which show in its weights."""
        return asdict(self.config)

    def forward(self, *inputs: Tensor, horizon: int) -> Tensor:
        """Quantiles [B, horizon, Q] in float32, increasing in Q, of closes [B, L]."""
        (close,) = inputs
        patches = scale_patches(close, self.config.patch_size)
        ahead = -(-horizon // self.config.patch_size)
        state = self._embedded(patches)
        present = patches.known.any(-1)  # [B, S]
        if ahead > 1:
            future = self.patch_proj(self.unknown_patch).expand(state.shape[0], ahead - 1, -1)
            state = torch.cat((state, future), 1)
            present = F.pad(present, (0, ahead - 1), value=True)
        quantiles = self.output_head(self.transformer(state, present, ahead)).flatten(1, 2)
        mean, scale = patches.mean[:, -1:], patches.scale[:, -1:]
        return _prices(quantiles[:, :horizon], mean, scale)

    def hidden_state(self, *inputs: Tensor) -> Tensor:
        """Mean state [B, D] of the patches that hold a known close, after all layers."""
        (close,) = inputs
        patches = scale_patches(close, self.config.patch_size)
        present = patches.known.any(-1)  # [B, S]
        states = self.transformer(self._embedded(patches), present, present.shape[1])
        return pooled(states, present)

    @property
    def patch(self) -> int:
        """Closes in a patch."""
        return self.config.patch_size

    def after_patches(self, closes: Tensor) -> AfterPatches:
        """Forecast after each patch of closes [B, L], scaled by what is known at its end."""
        patches = scale_patches(closes, self.config.patch_size)
        present = patches.known.any(-1)  # [B, S]
        state = self.transformer(self._embedded(patches), present, present.shape[1])
        quantiles = self.output_head(state)  # [B, S, P, Q]
        told = _prices(quantiles, patches.mean[..., None], patches.scale[..., None])
        return AfterPatches(told, patches.seen[..., 0] >= self.card.min_context)

    def _embedded(self, patches: Patches) -> Tensor:
        """Tokens [B, S, D]."""
        dtype = self.unknown_patch.dtype
        series = torch.cat((patches.scaled.to(dtype), (~patches.known).to(dtype)), -1)
        state: Tensor = self.patch_proj(series)
        return state


def _prices(quantiles: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Quantiles in the unit of closes, increasing, of what the network says."""
    bounded = quantiles.double().clamp(-LARGEST_QUANTILE, LARGEST_QUANTILE)
    return (bounded.sinh() * scale + mean).float().sort(-1).values


def load_toto2(path: str | Path | None = None, revision: str | None = None) -> Toto2Model:
    """Load Toto 2.0 with official weights: 4m, or any other size of the family by its path.

    Parameters
    ----------
    path
        Folder that holds model.safetensors and config.json, or the former with the latter beside
        it; None asks the hub's cache, then the hub, for 4m.
    revision
        Revision on the hub; None takes the pinned one.

    Raises
    ------
    ForecastError
        The files cannot be had, are damaged, or are not this architecture.
    """
    weights, settings = find_checkpoint(CARD, path, revision)
    config = read_config(settings)
    state = read_safetensors(CARD.name, weights)
    model = Toto2Model(config)
    load_exactly(CARD.name, model, state, weights)
    if path is None:
        require_parameters(CARD.name, model, CARD.parameters)
    model.card = card_of(sum(parameter.numel() for parameter in model.parameters()))
    return model.eval()


def card_of(parameters: int) -> ModelCard:
    """The card of a size; those but 4m are on other pages of the hub, and come by their path."""
    if parameters == CARD.parameters:
        return CARD
    size = f"{parameters / 1e6:.0f}m" if parameters < 1e9 else f"{parameters / 1e9:.3g}B"
    return replace(CARD, name=f"Toto-2.0-{size}", hub_id=None, revision=None, parameters=parameters)


def read_config(path: Path) -> Toto2Config:
    """Read the official config.json; ForecastError unless it describes this architecture."""
    given = read_json(CARD.name, path)
    for name, (default, ours) in OPTIONS.items():
        theirs = given.get(name, default)
        if theirs != ours:
            raise ForecastError(
                f"{CARD.name}: {name} is {theirs!r} in {path}, this architecture has {ours!r}"
            )
    return pick_settings(CARD.name, Toto2Config, given, path)
