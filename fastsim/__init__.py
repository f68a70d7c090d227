"""fastsim: a vectorized reinforcement-learning market simulator.

Thousands of portfolios are stepped at once as tensors on one device. Shapes stand as comments, with
one legend for the whole package: N environments, A assets, T bars, L context length, F features,
P columns of a portfolio, W numbers of an action, M rows of a batch.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import gymnasium

__version__ = "0.1.0"

ENV_ID = "fastsim/Portfolio-v0"
SHARED_MARKET_ID = "fastsim/SharedMarket-v0"

gymnasium.register(
    id=ENV_ID,
    entry_point="fastsim.adapters.gym_env:PortfolioGymEnv",
    vector_entry_point="fastsim.adapters.gym_env:PortfolioVectorEnv",
)
gymnasium.register(
    id=SHARED_MARKET_ID,
    entry_point="fastsim.adapters.gym_env:shared_market",
    vector_entry_point="fastsim.adapters.gym_env:shared_markets",
)


def __getattr__(name: str) -> Any:
    """A room of the package, imported when it is first asked for: `fastsim.adapters`."""
    if name.startswith("_") or find_spec(f"{__name__}.{name}") is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.{name}")
