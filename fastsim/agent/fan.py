"""What was forecast where an agent decided, for people to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from fastsim.agent.agent import Agent
from fastsim.agent.window import laid_out
from fastsim.data.bars import Bars
from fastsim.forecast.fan import fans_of
from fastsim.forecast.windows import context_at
from fastsim.market.tape import observed_tape

DIGITS = 7
"""Of prices in a fan."""
Fan = Mapping[str, Sequence[Sequence[float]]]
"""By symbol, for the last close and each bar ahead, prices at `fastsim.forecast.fan.FAN_LEVELS`."""


@torch.inference_mode()
def fan_at(agent: Agent, bars: Bars) -> Fan:
    """What the agent's forecaster says at the last of these bars, in prices as traded.

    Nothing of an agent that looks at no forecasts, and of symbols that nothing is said of.
    """
    forecaster, settings = agent.forecaster, agent.spec.forecast
    if forecaster is None:
        return {}
    window = laid_out(bars, agent.symbols, agent.spec).take(slice(-agent.bars_needed, None))
    tape = observed_tape(window, agent.spec.tape)
    length = min(settings.context_length, forecaster.card.max_context)
    context = context_at(tape, slice(len(tape) - 1, len(tape)), length)
    prices = fans_of(forecaster, context, max(settings.horizons)).double()  # [A, H + 1, levels]
    as_traded = torch.from_numpy(window.close[-1]) / prices[:, 0, 0]
    prices = prices * as_traded[:, None, None]
    return {
        symbol: [[float(f"{price:.{DIGITS}g}") for price in row] for row in fan.tolist()]
        for symbol, fan in zip(window.symbols, prices, strict=True)
        if bool(fan.isfinite().all())
    }
