"""Bars, funding and tiers of two perpetual futures, in files as exchanges give them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from fastsim.data.bars import Bars
from fastsim.data.read import write_bars

DAYS, RATE = 500, 0.01


def write_futures(folder: Path) -> Bars:
    """bars.parquet, funding.json and tiers.json; the bars."""
    rng = np.random.default_rng(0)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.02, (DAYS, 2)), axis=0))
    start = close * np.exp(rng.normal(0, 0.01, close.shape))
    bars = Bars(
        symbols=("BTC/USDT", "ETH/USDT"),
        timestamps=np.datetime64("2022-01-01", "ns") + np.arange(DAYS) * np.timedelta64(1, "D"),
        close=close,
        open=start,
        high=np.maximum(start, close) * 1.01,
        low=np.minimum(start, close) * 0.99,
    )
    write_bars(bars, folder / "bars.parquet")
    first = int(bars.timestamps[0].astype("datetime64[ms]").astype(int))
    funding = [
        {"symbol": f"{symbol}:USDT", "timestamp": first + at * 28_800_000, "fundingRate": 3e-4}
        for symbol in bars.symbols
        for at in range(3 * DAYS + 1)
    ]
    tier = {"minNotional": 0, "maxNotional": 1e9, "maintenanceMarginRate": RATE, "maxLeverage": 50}
    (folder / "funding.json").write_text(json.dumps(funding))
    (folder / "tiers.json").write_text(json.dumps({key: [tier] for key in bars.symbols}))
    return bars


def settings_of(folder: Path, leverage: float) -> dict[str, Any]:
    """Settings of a run on these files, beside its rules, and these."""
    return {
        "data": {"source": str(folder / "bars.parquet")},
        "tape": {"funding": str(folder / "funding.json"), "tiers": str(folder / "tiers.json")},
        "env": {
            "action": "leveraged",
            "max_gross": 2.0,
            "episode": {"horizon": 60},
            "perpetual": {"leverage": leverage},
        },
    }
