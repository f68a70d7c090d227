"""Fracast, a small model of another maker whose wheel brings its weights: a reference to hold to.

Needs the package `fracast` (Apache-2.0); its code runs unchanged, in float32, with its float32
weights: the quantised ones that it takes by default are off by more than a per cent of the span.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastsim.errors import ForecastError, one_line
from fastsim.forecast.digests import fingerprint
from fastsim.forecast.interface import ForecastModel, ModelCard

CARD = ModelCard(
    name="fracast",
    licence="Apache-2.0",
    revision="0.1.0",
    parameters=85_001,
    max_context=2048,
    max_horizon=48,
    levels=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    known_source="its package names public data sets and no last day",
)


class FracastModel(ForecastModel):
    """The package's model behind our interface."""

    card = CARD

    def __init__(self, path: Path | None) -> None:
        super().__init__()
        try:
            package = import_module("fracast")
        except ImportError:
            raise ForecastError(
                "fracast is not installed: pip install 'fastsim-rl[fracast]'"
            ) from None
        try:
            self._official = package.FracastModel.from_pretrained(path, weights="fp32")
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = one_line(error, 160)
            raise ForecastError(f"fracast: no usable weights at {path} ({reason})") from None

    @property
    def implementation(self) -> str:  # type: ignore[override]
        """The package and its version."""
        return f"fracast-{version('fracast')}"

    def settings(self) -> dict[str, Any]:
        """Its window, and the levels that it forecasts."""
        official = self._official
        return {
            name: getattr(official, name) for name in ("context_length", "horizon", "quantiles")
        }

    def digest(self) -> str:
        """Digest of the package's own modules, which are no parts of this one."""
        return fingerprint(nn.ModuleList([self._official.core, self._official.head]))

    def forward(self, *inputs: Tensor, horizon: int) -> Tensor:
        """Quantiles [B, horizon, 9] of closes [B, L], NaN where missing."""
        closes = inputs[0].float()
        forecast = self._official.forecast_batch(closes.numpy(force=True), horizon=horizon)
        return torch.from_numpy(forecast).to(closes.device, torch.float32)


def load_fracast(path: Path | None = None) -> FracastModel:
    """Fracast with the weights of its wheel, or of a folder; ForecastError without the package."""
    return FracastModel(path)
