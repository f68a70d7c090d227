"""Signals as observations: columns of a market that shows forecasts, and features of bars alone."""

from __future__ import annotations

import torch
from torch import Tensor

from fastsim.data.bars import Bars, FloatArray
from fastsim.market.features import Feature, FeatureConfig
from fastsim.market.tape import MarketTape
from fastsim.signals.config import SignalConfig
from fastsim.signals.levels import average_true_range
from fastsim.signals.plan import Plan, make_plan
from fastsim.signals.prices import prices_of_table
from fastsim.signals.regimes import (
    TRENDS,
    RegimeConfig,
    Regimes,
    efficiency_ratio,
    find_regimes,
    volatility_rank,
)

ATR_UNIT = 0.01
"""Of a logarithm that is 0 there: a range of a hundredth of the price."""


def signal_columns(
    tape: MarketTape, config: SignalConfig, plan: Plan | None = None
) -> dict[str, Tensor]:
    """What signals say [T, A], of order one, 0 where unknown; for `MarketTape.with_features`.

    `signal_direction`: 1, -1 or 0 for no trade. `signal_confidence`: 2 c - 1, from 0 to 1, whether
    it is traded on or not. `signal_position`: share of equity by itself, signed. `signal_risk`:
    what it loses at its stop, in units of `SizingConfig.risk`. `signal_regime_volatility`: -1, 0, 1
    for low, middle and high. `signal_regime_trend`: 1 trending, -1 ranging.

    Raises
    ------
    ConfigError
        The market does not show the forecasts that they are made of.
    DataError
        It holds several worlds.
    """
    plan = plan or make_plan(tape, config)
    known = plan.regime >= 0
    volatility, trend = plan.regime // len(TRENDS) - 1, 2 * (plan.regime % len(TRENDS)) - 1
    columns = {
        "signal_direction": plan.direction,
        "signal_confidence": (2.0 * plan.confidence - 1.0).nan_to_num(nan=0.0),
        "signal_position": plan.direction * plan.position,
        "signal_risk": plan.position * plan.distance / config.sizing.risk,
        "signal_regime_volatility": torch.where(known, volatility, 0).double(),
        "signal_regime_trend": torch.where(known, trend, 0).double(),
    }
    return {name: values.to(tape.dtype) for name, values in columns.items()}


def _closes(bars: Bars) -> Tensor:
    return torch.tensor(bars.adjusted("close"))


def _regimes(bars: Bars) -> Regimes:
    return find_regimes(_closes(bars), _USUAL)


def _rank(bars: Bars, config: FeatureConfig) -> FloatArray:
    found: FloatArray = (2.0 * volatility_rank(_closes(bars)) - 1.0).numpy()
    return found


def _efficiency(bars: Bars, config: FeatureConfig) -> FloatArray:
    found: FloatArray = efficiency_ratio(_closes(bars)).numpy()
    return found


def _regime_volatility(bars: Bars, config: FeatureConfig) -> FloatArray:
    regimes = _regimes(bars)
    third = regimes.volatility.double() - 1.0
    found: FloatArray = third.where(regimes.number >= 0, torch.nan).numpy()
    return found


def _regime_trend(bars: Bars, config: FeatureConfig) -> FloatArray:
    regimes = _regimes(bars)
    trend = regimes.trending.double() * 2.0 - 1.0
    found: FloatArray = trend.where(regimes.number >= 0, torch.nan).numpy()
    return found


def _log_range(bars: Bars, config: FeatureConfig) -> FloatArray:
    prices = prices_of_table(torch.tensor(bars.table()))
    share = average_true_range(prices) / prices.close
    found: FloatArray = (share.where(share > 0, torch.nan) / ATR_UNIT).log().numpy()
    return found


_USUAL = RegimeConfig()
volatility_rank_252 = Feature(name="volatility_rank_252", function=_rank, warmup=273)
efficiency_20 = Feature(name="efficiency_20", function=_efficiency, warmup=20)
regime_volatility = Feature(
    name="regime_volatility", function=_regime_volatility, warmup=_USUAL.bars_needed - 1
)
regime_trend = Feature(name="regime_trend", function=_regime_trend, warmup=_USUAL.bars_needed - 1)
log_atr_14 = Feature(name="log_atr_14", function=_log_range, warmup=14, rises_with_volatility=True)
"""For `FeatureConfig.extra`, as "fastsim.signals.columns:efficiency_20" and so on: what bars say
alone, by the usual settings."""
