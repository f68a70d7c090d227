"""A market with a known best policy: one asset whose next return a feature reveals.

Each return is large or small, up or down, and trading costs half a per cent, so that it pays to
follow the large ones, and to sit still through the small ones.
"""

import numpy as np

from fastsim.data.bars import Bars
from fastsim.env.config import EnvConfig
from fastsim.env.episode import EpisodeConfig
from fastsim.env.reward import RewardConfig
from fastsim.market.costs import CostConfig
from fastsim.market.features import FeatureConfig
from fastsim.market.tape import MarketTape, TapeConfig, make_tape

FEE = 0.005
RULES = EnvConfig(
    action="logits",
    costs=CostConfig(fee_bps=FEE * 1e4, half_spread_bps=0.0, impact=0.0),
    reward=RewardConfig(kind="excess_log_growth"),
    episode=EpisodeConfig(horizon=64, staggered=True),
)


def planted_tape(
    *, revealing: bool, seed: int = 0, bars: int = 2000, ahead: int = 1
) -> tuple[MarketTape, float]:
    """The market and the log growth of its best all-or-nothing policy after costs.

    The feature is known so many bars ahead, and shown at no bar after that.
    """
    generator = np.random.default_rng(seed)
    log_return = generator.choice([-0.02, -0.002, 0.002, 0.02], (bars, 1))
    signal = np.append(log_return[ahead:], np.zeros((ahead, 1)), axis=0) * 100.0
    if not revealing:
        signal = generator.permutation(signal)
    days = np.datetime64("2000-01-03", "ns") + np.arange(bars) * np.timedelta64(24, "h")
    prices = Bars(symbols=("X",), timestamps=days, close=100.0 * np.exp(np.cumsum(log_return, 0)))
    features = FeatureConfig(
        return_windows=(1,),
        momentum_window=3,
        momentum_skip=2,
        short_window=2,
        volatility_window=10,
    )
    tape = make_tape(prices, TapeConfig(features=features), extra_features={"signal": signal})
    return tape, best_log_growth(log_return[tape.first + 1 :, 0])


def best_log_growth(log_returns: np.ndarray) -> float:
    """Dynamic programme over {all cash, all in}.

    With every return known, final wealth is linear in what is traded at each step, so no partial
    position can do better.
    """
    out, inside = 0.0, -np.inf
    for gain in log_returns:
        leave, enter = inside + np.log(1.0 - FEE), out - np.log(1.0 + FEE)
        out, inside = max(out, leave), max(inside, enter) + gain
    return max(out, inside)
