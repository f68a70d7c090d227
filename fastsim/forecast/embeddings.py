"""What a network makes of a past before it forecasts: its pooled hidden state, a vector a series.

Two pasts that a network takes for alike have vectors that are near, whatever their prices are: for
regimes, for neighbours in history, or as what another model reads. Models that show none are
refused by name.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from fastsim.errors import ForecastError
from fastsim.forecast.interface import (
    Context,
    Forecaster,
    ForecastModel,
    ModuleForecaster,
    check_request,
    model_inputs,
)
from fastsim.forecast.models.fitted import FittedModel


@runtime_checkable
class Embeds(Protocol):
    """A network that shows its state."""

    def hidden_state(self, *inputs: Tensor) -> Tensor:
        """Its pooled hidden state [B, D], float32."""
        ...


@torch.inference_mode()
def embed(forecaster: Forecaster, context: Context) -> Tensor:
    """The pooled hidden state [B, D] of every series, float32.

    Of tokens over time it is the mean over those that hold a known close; of a network whose last
    layers see the whole past at once, what its head reads. A fitted model shows that of its
    spread.

    Raises
    ------
    ForecastError
        The forecaster has none, or the context does not fit it.
    """
    network = _network(forecaster)
    if not isinstance(network, Embeds):
        raise ForecastError(
            f"{forecaster.card.name} shows no hidden state: embeddings are of fastsim-prior, "
            f"tirex, toto2-4m, chronos2, the networks that are fitted here and fits of all of "
            f"them, on their own and without a season"
        )
    assert isinstance(forecaster, ModuleForecaster)
    check_request(forecaster.card, context, 1)
    inputs = model_inputs(forecaster.card, context, forecaster.card.max_context, forecaster.device)
    return network.hidden_state(*inputs).float()


def _network(forecaster: Forecaster) -> ForecastModel | None:
    model = forecaster.model if isinstance(forecaster, ModuleForecaster) else None
    return model.spread if isinstance(model, FittedModel) else model
