"""Markets that show forecasts which were made up."""

import numpy as np
import torch
from worlds import SHORT_FEATURES, random_bars

from fastsim.market.tape import TapeConfig, make_tape
from fastsim.signals.config import SignalConfig
from fastsim.signals.plan import column_names
from fastsim.signals.prices import Prices

QUANTILES = {"10": -1.3, "90": 1.4, "5": -1.7}


def market(bars=None, seed=0, *, config=None, fill="auto", rise=None):
    """A tape in float64 that shows random probabilities of a rise, and quantiles."""
    config = config or SignalConfig()
    bars = bars or random_bars(400, 4, seed=seed)
    tape = make_tape(bars, TapeConfig(features=SHORT_FEATURES, fill=fill), dtype=torch.float64)
    columns = {}
    for name in column_names(config):
        draws = torch.from_numpy(np.random.default_rng(seed).uniform(-0.3, 0.3, bars.close.shape))
        if "quantile" in name:
            columns[name] = QUANTILES[name.split("_")[-2]] + 0.1 * draws
        else:
            columns[name] = draws if rise is None else rise
    return tape.with_features(columns)


def bars_of(*rows):
    """Prices [T, 1] of one asset from (open, high, low, close) of each bar."""
    columns = torch.tensor(rows, dtype=torch.float64).T
    return Prices(*(column[:, None] for column in columns))
