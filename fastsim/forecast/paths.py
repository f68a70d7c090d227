"""Sample paths of the close, of models that draw them: what quantiles at each bar do not say.

How a price gets from one bar to the next, whether it touches a level on the way, how deep it falls:
questions about several bars at once need paths. Models that give quantiles of each bar alone have
none, and are refused by name.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from fastsim.errors import ForecastError
from fastsim.forecast.interface import (
    Context,
    Forecaster,
    ModuleForecaster,
    check_request,
    model_inputs,
)


@runtime_checkable
class SamplesPaths(Protocol):
    """A model whose law is of whole paths."""

    def sample_paths(self, *inputs: Tensor, horizon: int, paths: int | None) -> Tensor:
        """Closes [B, S, horizon] of so many paths, float32; as many as it usually draws if None.

        A row's do not depend on the rows beside it, and more of them keep those of fewer.
        """
        ...


@torch.inference_mode()
def forecast_paths(
    forecaster: Forecaster, context: Context, horizon: int, *, paths: int | None = None
) -> Tensor:
    """Sample paths [B, S, horizon] of the next closes, each as likely as another.

    Of Kronos these are what its forecast's quantiles are taken of. Toto's quantiles are those of
    its mixture itself; its paths are drawn bar by bar within a patch, and the next patch follows on
    what was drawn, as its makers do it.

    Parameters
    ----------
    paths
        How many, S; by default as many as the model usually draws.

    Raises
    ------
    ForecastError
        The forecaster has no paths, the number is none, or the request does not fit it.
    """
    model = forecaster.model if isinstance(forecaster, ModuleForecaster) else None
    if not isinstance(model, SamplesPaths):
        raise ForecastError(
            f"{forecaster.card.name} forecasts each bar's quantiles and no paths: paths are drawn "
            f"by kronos, kronos-mini, kronos-base and toto, on their own and without a season"
        )
    assert isinstance(forecaster, ModuleForecaster)
    whole = isinstance(paths, int) and not isinstance(paths, bool) and paths >= 1
    if paths is not None and not whole:
        raise ForecastError(f"paths must be a whole number from 1 up, got {paths!r}")
    check_request(forecaster.card, context, horizon)
    inputs = model_inputs(forecaster.card, context, forecaster.card.max_context, forecaster.device)
    return model.sample_paths(*inputs, horizon=horizon, paths=paths)
