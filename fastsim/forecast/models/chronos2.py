"""Chronos-2 by Amazon: an encoder over patches, alone or in groups of series, 21 quantiles.

Ansari et al. 2025, "Chronos-2: From Univariate to Universal Forecasting" (arXiv 2510.15821). All
horizons come from one pass, in which every patch to come reads the others: a forecast depends on
how many there are, 16 bars each. As a forecaster it reads each series alone;
`Chronos2Model.quantiles` reads groups of them, and covariates, whose coming values may be known.
"""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from fastsim.errors import ForecastError
from fastsim.forecast.interface import ForecastModel, ModelCard
from fastsim.forecast.networks.chronos2_network import (
    QUANTILES,
    Chronos2Config,
    Chronos2Network,
    Norm,
    read_settings,
)
from fastsim.forecast.networks.pooling import pooled
from fastsim.forecast.weights import (
    find_checkpoint,
    load_exactly,
    pick_settings,
    read_json,
    read_safetensors,
    require_parameters,
)

CARD = ModelCard(
    name="chronos-2",
    licence="Apache-2.0",
    attribution="Chronos-2 by Amazon, Ansari et al. 2025, arXiv 2510.15821",
    hub_id="amazon/chronos-2",
    revision=None,  # the official package names none
    parameters=119_477_664,
    max_context=8192,
    max_horizon=1024,
    levels=QUANTILES,
    known_source="its authors name the data sets (table 6 of arXiv 2510.15821) and no last day",
)
OPTIONS: dict[str, tuple[Any, Any]] = {
    "use_reg_token": (False, True),
    "use_arcsinh": (False, True),
    "feed_forward_proj": ("relu", "relu"),
}
"""Options of the official configuration: what a missing one means, and what this code is for."""
STILL = 1e-5
"""The scale of a series that does not move, absolute from price 1 up, relative to it below."""
LARGEST_QUANTILE = 20.0
"""Bound of the quantiles before sinh: 2e8 standard deviations, where float32 is still finite."""
INITIAL = 0.05
"""The official factor of random weights: with 1 the quantiles overflow."""


class Scale(NamedTuple):
    """What a series is standardised by."""

    mean: Tensor  # [B, 1]  float64
    deviation: Tensor  # [B, 1]  float64

    def down(self, values: Tensor) -> Tensor:
        """The inverse hyperbolic sine of values [B, T] in deviations from the mean."""
        return ((values.double() - self.mean) / self.deviation).asinh()

    def up(self, scaled: Tensor) -> Tensor:
        """Values [B, H, Q] float32 of what the network says."""
        bounded = scaled.double().clamp(-LARGEST_QUANTILE, LARGEST_QUANTILE)
        return (bounded.sinh() * self.deviation[..., None] + self.mean[..., None]).float()


class Chronos2Model(ForecastModel):
    """Chronos-2, each series alone.

    The constructor leaves random weights, for tests and benchmarks; `load_chronos2` gives the
    official ones, and the card of their size.
    """

    card = CARD
    fit_modes = ("full", "head", "lora")
    head_names = ("network.output_patch_embedding",)
    layer_names = ("network.encoder.block",)
    clock: Tensor

    def __init__(self, config: Chronos2Config) -> None:
        super().__init__()
        self.config = config
        self.card = replace(
            CARD,
            max_context=config.context_length,
            max_horizon=config.max_output_patches * config.input_patch_size,
            levels=config.quantiles,
        )
        self.network = Chronos2Network(config)
        self.apply(_initialise)
        patch = config.input_patch_size
        most = patch * -(-config.context_length // patch)
        clock = torch.arange(-most, patch * config.max_output_patches).float()
        self.register_buffer("clock", clock / config.time_encoding_scale, persistent=False)
        self.most = most

    def settings(self) -> dict[str, Any]:
        """Sizes and constants of the network, not all of which show in its weights."""
        return asdict(self.config)

    def forward(self, *inputs: Tensor, horizon: int) -> Tensor:
        """Quantiles [B, horizon, Q] in float32, of closes [B, L]."""
        (close,) = inputs
        return self.quantiles(close, horizon)

    def quantiles(
        self,
        series: Tensor,
        horizon: int,
        *,
        group: Tensor | None = None,
        future: Tensor | None = None,
    ) -> Tensor:
        """Quantiles [B, horizon, Q] in float32, in the unit of each series.

        Parameters
        ----------
        series
            [B, L], NaN where missing: what is to be forecast, and covariates.
        group
            [B] whole numbers: series with the same one inform each other, such as the assets of a
            bar, or a price and its covariates. None reads each series alone.
        future
            [B, horizon] of what is known of the bars to come, NaN where nothing is; None: nothing.
        """
        patch, dtype = self.config.input_patch_size, self.clock.dtype
        ahead = -(-horizon // patch)
        scale = scale_of(series)
        values = F.pad(scale.down(series), (-series.shape[-1] % patch, 0), value=math.nan)
        past = self.tokens(values.to(dtype), self.most - values.shape[-1])
        nothing = (math.nan * series[:, :1]).expand(-1, horizon)
        told = nothing if future is None else future
        coming = F.pad(scale.down(told), (0, ahead * patch - horizon), value=math.nan)
        known = torch.unflatten(values.isfinite(), -1, (-1, patch)).any(-1)  # [B, S]
        scaled = self.network(past, known, self.tokens(coming.to(dtype), self.most), group)
        return scale.up(scaled[:, :horizon])

    def hidden_state(self, *inputs: Tensor) -> Tensor:
        """Mean state [B, D] of the patches that hold a known close, one patch ahead unknown."""
        (close,) = inputs
        patch, dtype = self.config.input_patch_size, self.clock.dtype
        values = F.pad(scale_of(close).down(close), (-close.shape[-1] % patch, 0), value=math.nan)
        known = torch.unflatten(values.isfinite(), -1, (-1, patch)).any(-1)  # [B, S]
        past = self.tokens(values.to(dtype), self.most - values.shape[-1])
        coming = self.tokens(math.nan * values[:, :patch].to(dtype), self.most)
        states = self.network.states(past, known, coming, None, None)
        return pooled(states[:, : known.shape[1]], known)

    def tokens(self, values: Tensor, start: int) -> Tensor:
        """What the network reads [B, S, 3 P] of values [B, S P]: times, values, what is known."""
        length = values.shape[-1]
        clock = self.clock[start : start + length].expand_as(values)
        parts = (clock, values.nan_to_num(nan=0.0), values.isfinite().to(values.dtype))
        cut = [torch.unflatten(part, -1, (-1, self.config.input_patch_size)) for part in parts]
        return torch.cat(cut, -1)


def scale_of(series: Tensor) -> Scale:
    """Mean and standard deviation of all that is known of series [B, L].

    Moments are taken about a value of the series, so that none is lost to the level of prices.
    """
    values, known = series.double(), series.isfinite()
    count = known.sum(-1, keepdim=True).clamp_min(1)
    first = known.int().argmax(-1, keepdim=True)
    near = values.gather(-1, first).nan_to_num(nan=0.0)
    centred = torch.where(known, values - near, 0.0)
    mean = centred.sum(-1, keepdim=True) / count
    square = torch.where(known, centred - mean, 0.0).square().sum(-1, keepdim=True)
    deviation = (square / count).sqrt()
    level = near.abs().clamp(torch.finfo(torch.float32).tiny, 1.0)
    return Scale(mean + near, torch.where(deviation == 0.0, STILL * level, deviation))


def _initialise(module: nn.Module) -> None:
    """Draw weights as they are drawn officially before training, but for the norms' ones."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=INITIAL * module.in_features**-0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=INITIAL)
    elif isinstance(module, Norm):
        nn.init.ones_(module.weight)


def random_chronos2() -> Chronos2Model:
    """The released sizes with random weights."""
    return Chronos2Model(Chronos2Config())


def load_chronos2(path: str | Path | None = None, revision: str | None = None) -> Chronos2Model:
    """Load Chronos-2 with official weights: `amazon/chronos-2`, or another size by its path.

    Parameters
    ----------
    path
        Folder that holds model.safetensors and config.json, or the former with the latter beside
        it; None asks the hub's cache, then the hub.
    revision
        Revision on the hub; None takes the one met first.

    Raises
    ------
    ForecastError
        The files cannot be had, are damaged, or are not this architecture.
    """
    weights, settings = find_checkpoint(CARD, path, revision)
    model = Chronos2Model(read_config(settings))
    load_exactly(CARD.name, model.network, read_safetensors(CARD.name, weights), weights)
    if path is None:
        require_parameters(CARD.name, model, CARD.parameters)
    model.card = card_of(model)
    return model.eval()


def card_of(model: Chronos2Model) -> ModelCard:
    """The card of a size; other sizes are on other pages of the hub, and come by their path."""
    config, count = model.config, sum(weight.numel() for weight in model.parameters())
    if count == CARD.parameters and config == Chronos2Config():
        return CARD
    return replace(
        CARD,
        name=f"chronos-2-{count / 1e6:.0f}m",
        hub_id=None,
        parameters=count,
        max_context=config.context_length,
        max_horizon=config.max_output_patches * config.input_patch_size,
        levels=config.quantiles,
    )


def read_config(path: Path) -> Chronos2Config:
    """Read the official config.json; ForecastError unless it describes this architecture."""
    given = read_settings(read_json(CARD.name, path))
    for name, (default, ours) in OPTIONS.items():
        theirs = given.get(name, default)
        if theirs != ours:
            raise ForecastError(
                f"{CARD.name}: {name} is {theirs!r} in {path}, this architecture has {ours!r}"
            )
    patch = given.get("input_patch_size")
    for name in ("input_patch_stride", "output_patch_size"):
        if given.get(name) != patch:
            raise ForecastError(
                f"{CARD.name}: {name} is {given.get(name)!r} in {path}, this architecture has that "
                f"of input_patch_size, {patch!r}"
            )
    return pick_settings(CARD.name, Chronos2Config, given, path)
