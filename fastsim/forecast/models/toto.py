"""Toto Open Base 1.0 by Datadog: a causal transformer over patches, a mixture of Student's t.

Cohen et al. 2025, "This Time is Different: An Observability Perspective on Time Series Foundation
Models" (arXiv 2505.14766). The architecture for one variate, where attention across variates is
the identity on values.

The official code samples paths. Here the quantiles of the mixture are solved for, and a horizon of
more than one patch feeds the mean back, as the official mean forecast does. The spread beyond the
first patch is then what it would be if the mean came true, which is less than the sampled paths';
`TotoModel.sample_paths` draws those.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from fastsim.config import configuration, require_between
from fastsim.errors import ForecastError
from fastsim.forecast.interface import ForecastModel, ModelCard
from fastsim.forecast.networks.toto2_patches import running_moments
from fastsim.forecast.networks.toto_mixture import Mixture
from fastsim.forecast.weights import (
    find_checkpoint,
    load_exactly,
    pick_settings,
    read_json,
    read_safetensors,
    require_parameters,
)

CARD = ModelCard(
    name="Toto-Open-Base-1.0",
    licence="Apache-2.0",
    attribution="Toto by Datadog",
    hub_id="Datadog/Toto-Open-Base-1.0",
    revision="0411ceb27bdf7fc3e4892e99edc8ad08192dc3c5",
    parameters=151_306_080,
    max_context=4096,
    max_horizon=256,
    levels=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    known_source="its card names no last day",
)

SCALER, DISTRIBUTION = "CausalPatchStdMeanScaler", "MixtureOfStudentTsOutput"
"""Classes that the official configuration must name."""

RENAMED = {".mlp.0.w12.": ".mlp.0.", ".mlp.0.w3.": ".mlp.2."}
"""Names of the feed-forward weights under the fused kernel, and here."""

NOT_LOADED = "rotary_emb.freqs"
"""Suffix of what some checkpoints hold although it is computed, as in the official code."""

ADDED_VARIANCE = 0.1
"""What the model adds to the variance of a series, in the square of its unit."""

LARGEST_INPUT = 3e4
"""Bound of a standardised value, for float16: padding is 0, far from a price that hardly moves."""

LEAST_DEVIATION = 10.0
"""Series of a smaller standard deviation are enlarged to it, lest the added variance drown them.

The official code does not, and flattens every price far below 1."""

RESOLUTION = 1e-6
"""Least deviation, in units of the price, that a series is taken to have."""

PATHS = 256
"""Drawn where no number is asked for, as officially."""


@configuration(slots=False)
class TotoConfig:
    """Sizes of the network, named as in the official config.json, by default of Open Base 1.0."""

    patch_size: int = 64
    embed_dim: int = 768
    num_layers: int = 12
    num_heads: int = 12
    mlp_hidden_dim: int = 3072
    spacewise_every_n_layers: int = 12
    spacewise_first: bool = False
    k_components: int = 24

    def __post_init__(self) -> None:
        for name in ("patch_size", "embed_dim", "num_layers", "num_heads", "mlp_hidden_dim"):
            require_between(self, name, 1)
        require_between(self, "k_components", 1)
        if self.embed_dim % (2 * self.num_heads):
            raise ForecastError(
                f"{CARD.name}: embed_dim must be a multiple of 2 * num_heads = "
                f"{2 * self.num_heads}, got {self.embed_dim}"
            )
        every = self.spacewise_every_n_layers
        if every != -1 and (every < 1 or self.num_layers % every):
            raise ForecastError(
                f"{CARD.name}: spacewise_every_n_layers must divide num_layers = "
                f"{self.num_layers} or be -1, got {every}"
            )

    def is_spacewise(self, index: int) -> bool:
        """Whether a layer attends across variates instead of across time."""
        every = self.spacewise_every_n_layers
        return every != -1 and index % every == (0 if self.spacewise_first else every - 1)


class Series(NamedTuple):
    """A context [B, L] in float64, ready for the model."""

    values: Tensor  # [B, L]  enlarged; gaps hold the value before them, 0 before the first
    known: Tensor  # [B, L]  bool
    near: Tensor  # [B, 1]  mean of the known values, enlarged
    lift: Tensor  # [B, 1]  what the prices were multiplied by


class RMSNorm(nn.Module):
    """Division by the root mean square, times a learned scale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, state: Tensor) -> Tensor:
        """Normalise [..., width]."""
        return F.rms_norm(state, (state.shape[-1],), self.scale, eps=1e-8)


class Rotation(nn.Module):
    """Positions as rotations that decay with distance (xPos, Sun et al. 2022), from tables.

    The model was trained with decays that run through the dimensions twice while angles run
    through them once, pair by pair. Only differences of positions matter, so the tables are
    centred once and for all.
    """

    query_cos: Tensor
    query_sin: Tensor
    key_cos: Tensor
    key_sin: Tensor

    def __init__(self, width: int, positions: int) -> None:
        super().__init__()
        pair = torch.arange(0, width, 2, dtype=torch.float64)
        position = torch.arange(positions, dtype=torch.float64)[:, None]
        angle = (position * 10000.0 ** (-pair / width)).repeat_interleave(2, -1)
        base = (pair + 0.4 * width) / (1.4 * width)
        decay = (base ** ((position - positions // 2) / 512.0)).repeat(1, 2)
        for name, factor in (("query", decay), ("key", 1.0 / decay)):
            self.register_buffer(f"{name}_cos", (angle.cos() * factor).float(), persistent=False)
            self.register_buffer(f"{name}_sin", (angle.sin() * factor).float(), persistent=False)

    def forward(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Rotate [B, heads, S, head_dim], the same positions in both."""
        length = query.shape[-2]
        return (
            query * self.query_cos[:length] + _quarter_turn(query) * self.query_sin[:length],
            key * self.key_cos[:length] + _quarter_turn(key) * self.key_sin[:length],
        )


def _quarter_turn(state: Tensor) -> Tensor:
    """Turn every pair of neighbouring dimensions by a right angle."""
    return torch.stack((-state[..., 1::2], state[..., 0::2]), -1).flatten(-2)


class Attention(nn.Module):
    """Causal attention across the patches of a series; across its one variate, the values."""

    def __init__(self, config: TotoConfig, *, across_time: bool) -> None:
        super().__init__()
        self.heads, self.across_time = config.num_heads, across_time
        self.wQKV = nn.Linear(config.embed_dim, 3 * config.embed_dim)
        self.wO = nn.Linear(config.embed_dim, config.embed_dim)

    def forward(self, state: Tensor, rotation: Rotation, last: bool) -> Tensor:
        """Attend over [B, S, D]; the answer of the `last` patch alone, or of all."""
        parts = torch.unflatten(self.wQKV(state), -1, (3, -1, self.heads))
        query, key, value = parts.permute(2, 0, 4, 1, 3).unbind()  # [B, heads, S, head_dim]
        if self.across_time:
            query, key = rotation(query, key)
            query = query[:, :, -1:] if last else query
            value = F.scaled_dot_product_attention(query, key, value, is_causal=not last)
        elif last:
            value = value[:, :, -1:]
        answer: Tensor = self.wO(value.transpose(1, 2).flatten(-2))
        return answer


class SwiGLU(nn.Module):
    """The first half of the dimensions gates the second."""

    def forward(self, state: Tensor) -> Tensor:
        """Map [..., 2 D] to [..., D]."""
        gate, value = state.chunk(2, -1)
        return F.silu(gate) * value


class Layer(nn.Module):
    """Attention and feed-forward network, each on a normalised branch beside the trunk."""

    def __init__(self, config: TotoConfig, index: int) -> None:
        super().__init__()
        width, hidden = config.embed_dim, config.mlp_hidden_dim
        self.norm1, self.norm2 = RMSNorm(width), RMSNorm(width)
        self.attention = Attention(config, across_time=not config.is_spacewise(index))
        self.mlp = nn.Sequential(nn.Linear(width, 2 * hidden), SwiGLU(), nn.Linear(hidden, width))

    def forward(self, state: Tensor, rotation: Rotation, last: bool) -> Tensor:
        """Map [B, S, D] to its last patch, or to all."""
        branch = self.attention(self.norm1(state), rotation, last)
        state = (state[:, -1:] if last else state) + branch
        out: Tensor = state + self.mlp(self.norm2(state))
        return out


class Transformer(nn.Module):
    """The stack of layers."""

    def __init__(self, config: TotoConfig) -> None:
        super().__init__()
        count = config.num_layers
        self.layers = nn.ModuleList(Layer(config, index) for index in range(count))
        self.last_time_layer = max(
            (index for index in range(count) if not config.is_spacewise(index)), default=-1
        )
        positions = (CARD.max_context + CARD.max_horizon) // config.patch_size + 1
        self.rotation = Rotation(config.embed_dim // config.num_heads, positions)

    def forward(self, state: Tensor) -> Tensor:
        """Map patches [B, S, D] to the last of them [B, 1, D]."""
        for index, layer in enumerate(self.layers):
            state = layer(state, self.rotation, index == self.last_time_layer)
        return state[:, -1:]


class PatchEmbedding(nn.Module):
    """From the values of a patch to its state."""

    def __init__(self, config: TotoConfig) -> None:
        super().__init__()
        self.projection = nn.Linear(config.patch_size, config.embed_dim)

    def forward(self, scaled: Tensor) -> Tensor:
        """Map [B, S, P] to [B, S, D]."""
        state: Tensor = self.projection(scaled)
        return state


class MixtureHead(nn.Module):
    """From the state of a bar to the distribution of its value."""

    def __init__(self, config: TotoConfig) -> None:
        super().__init__()
        width, count = config.embed_dim, config.k_components
        self.df, self.loc_proj = nn.Linear(width, count), nn.Linear(width, count)
        self.scale_proj, self.mixture_weights = nn.Linear(width, count), nn.Linear(width, count)

    def forward(self, state: Tensor) -> Mixture:
        """Map [B, P, D] to a mixture in float32."""
        least = torch.finfo(torch.float32).eps
        return Mixture(
            weight=self.mixture_weights(state).float().softmax(-1),
            freedom=2.0 + F.softplus(self.df(state).float()).clamp_min(least),
            place=self.loc_proj(state).float(),
            width=F.softplus(self.scale_proj(state).float()).clamp_min(least),
        )


class Backbone(nn.Module):
    """From scaled patches to the distribution of the next patch."""

    def __init__(self, config: TotoConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        self.patch_embed = PatchEmbedding(config)
        self.transformer = Transformer(config)
        self.unembed = nn.Linear(config.embed_dim, config.embed_dim * config.patch_size)
        self.output_distribution = MixtureHead(config)

    def forward(self, scaled: Tensor) -> Mixture:
        """Map [B, S, P] to the mixture of the next P bars."""
        last = self.transformer(self.patch_embed(scaled))  # [B, 1, D]
        bars = torch.unflatten(self.unembed(last).squeeze(1), -1, (self.patch_size, -1))
        mixture: Mixture = self.output_distribution(bars)
        return mixture


class TotoModel(ForecastModel):
    """Toto Open Base 1.0 for one series at a time.

    The constructor leaves random weights, for tests; `load_toto` gives the official ones.
    """

    card = CARD
    tenths: Tensor

    def __init__(self, config: TotoConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Backbone(config)
        self.register_buffer("tenths", torch.arange(1, 10), persistent=False)

    def settings(self) -> dict[str, Any]:
        """Sizes and constants of the network, not all of which show in its weights."""
        return asdict(self.config)

    def forward(self, *inputs: Tensor, horizon: int) -> Tensor:
        """Quantiles [B, horizon, Q] in float32, increasing in Q, of closes [B, L]."""
        (close,) = inputs
        patch = self.config.patch_size
        series = enlarge(F.pad(close.double(), (-close.shape[-1] % patch, 0), value=math.nan))
        values, known = series.values, series.known
        dtype, levels = self.model.unembed.bias.dtype, self.tenths / 10.0
        pieces, ahead = [], -(-horizon // patch)
        for piece in range(ahead):
            scaled, mean, scale = standardise(values, known, series.near, patch)
            mixture = self.model(scaled.to(dtype))
            pieces.append(mixture.quantiles(levels) * scale[..., None] + mean[..., None])
            if piece + 1 < ahead:
                following = mixture.mean() * scale + mean  # [B, P]
                values = torch.cat((values, following), 1)
                known = torch.cat((known, torch.ones_like(following, dtype=torch.bool)), 1)
        prices: Tensor = torch.cat(pieces, 1)[:, :horizon] / series.lift[..., None]
        return prices.float()

    def sample_paths(self, *inputs: Tensor, horizon: int, paths: int | None) -> Tensor:
        """Closes [B, S, horizon] of paths, drawn patch by patch, all rows by the same numbers."""
        (close,) = inputs
        count, patch = PATHS if paths is None else paths, self.config.patch_size
        series = enlarge(F.pad(close.double(), (-close.shape[-1] % patch, 0), value=math.nan))
        values, known, near, lift = series
        ahead, generator = -(-horizon // patch), torch.Generator().manual_seed(0)
        noise = torch.rand(count, ahead * patch, 3, generator=generator).to(close.device)
        noise = noise.repeat(len(close), 1, 1)  # [B S, bars, 3]
        pieces: list[Tensor] = []
        for piece in range(ahead):
            scaled, mean, scale = standardise(values, known, near, patch)
            mixture = self.model(scaled.to(self.model.unembed.bias.dtype))
            if piece == 0:  # paths part from here on
                parts = (*mixture, mean, scale, values, known, near, lift)
                parts = tuple(part.repeat_interleave(count, 0) for part in parts)
                mixture, (mean, scale, values, known, near, lift) = Mixture(*parts[:4]), parts[4:]
            drawn = mixture.sample(noise[:, piece * patch : (piece + 1) * patch]) * scale + mean
            pieces.append(drawn)
            values = torch.cat((values, drawn), 1)
            known = torch.cat((known, torch.ones_like(drawn, dtype=torch.bool)), 1)
        prices = torch.cat(pieces, 1)[:, :horizon] / lift
        return torch.unflatten(prices, 0, (-1, count)).float()


def enlarge(padded: Tensor) -> Series:
    """Multiply closes [B, L], NaN where missing, so that they deviate by `LEAST_DEVIATION`."""
    known = padded.isfinite()
    count = known.sum(-1, keepdim=True)
    mean = torch.where(known, padded, 0.0).sum(-1, keepdim=True) / count.clamp_min(1)
    squares = torch.where(known, padded - mean, 0.0).square().sum(-1, keepdim=True)
    least = RESOLUTION * mean.abs().clamp_min(torch.finfo(torch.float32).tiny)
    deviation = torch.maximum((squares / (count - 1).clamp_min(1)).sqrt(), least)
    lift = (LEAST_DEVIATION / deviation).clamp_min(1.0)
    place = torch.ones_like(known, dtype=torch.int64).cumsum(-1) - 1
    last = torch.where(known, place, 0).cummax(-1).values
    filled = torch.where(known.cumsum(-1) > 0, padded.gather(-1, last), 0.0)
    return Series(filled * lift, known, mean * lift, lift)


def standardise(
    values: Tensor, known: Tensor, near: Tensor, patch: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Cut [B, L] into patches [B, S, P] in deviations from the mean of all known by their ends.

    Also returns mean and deviation [B, 1] at the end of the last patch.
    """
    values, known = (torch.unflatten(part, -1, (-1, patch)) for part in (values, known))
    count, mean, variance = running_moments(values, known, near[..., None])
    mean = torch.where(count > 0, mean, 0.0)
    scale = (variance + ADDED_VARIANCE).sqrt()
    scaled = ((values - mean) / scale).clamp(-LARGEST_INPUT, LARGEST_INPUT)
    return scaled, mean[:, -1], scale[:, -1]


def load_toto(path: str | Path | None = None, revision: str | None = None) -> TotoModel:
    """Load Toto Open Base 1.0 with its official weights.

    Parameters
    ----------
    path
        Folder that holds model.safetensors and config.json, or the former with the latter beside
        it; None asks the hub's cache, then the hub.
    revision
        Revision on the hub; None takes the pinned one.

    Raises
    ------
    ForecastError
        The files cannot be had, are damaged, or are not this architecture.
    """
    weights, settings = find_checkpoint(CARD, path, revision)
    config = read_config(settings)
    state = rename(read_safetensors(CARD.name, weights))
    model = TotoModel(config)
    load_exactly(CARD.name, model, state, weights)
    require_parameters(CARD.name, model, CARD.parameters)
    return model.eval()


def rename(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Bring the names of a checkpoint, from either feed-forward kernel, to this architecture's."""
    renamed = {}
    for name, tensor in state.items():
        if name.endswith(NOT_LOADED):
            continue
        for theirs, ours in RENAMED.items():
            name = name.replace(theirs, ours)  # noqa: PLW2901
        renamed[name] = tensor
    return renamed


def read_config(path: Path) -> TotoConfig:
    """Read the official config.json; ForecastError unless it describes this architecture."""
    given = read_json(CARD.name, path)
    given |= given.get("output_distribution_kwargs") or {}
    for name, wanted in (("scaler_cls", SCALER), ("output_distribution_classes", DISTRIBUTION)):
        if wanted not in str(given.get(name)):
            raise ForecastError(
                f"{CARD.name}: {name} is {given.get(name)!r} in {path}, "
                f"this architecture has {wanted}"
            )
    config = pick_settings(CARD.name, TotoConfig, given, path)
    if given.get("stride", given["patch_size"]) != given["patch_size"]:
        raise ForecastError(
            f"{CARD.name}: stride is {given['stride']!r} in {path}, "
            f"this architecture has the patch size, {given['patch_size']!r}"
        )
    return config
