"""NautilusTrader: agents as its strategies, bars as its data. Needs `fastsim-rl[nautilus]`."""

from importlib.metadata import version

from fastsim.errors import ConfigError

try:
    import nautilus_trader  # noqa: F401
except ImportError:
    raise ConfigError(
        "nautilus_trader is not installed: pip install 'fastsim-rl[nautilus]'"
    ) from None

if version("nautilus_trader").split(".")[0] != "1":
    raise ConfigError(
        f"nautilus_trader {version('nautilus_trader')} has other modules than those that agents "
        f"are strategies of: pip install 'nautilus_trader<2'"
    )

from fastsim.adapters.nautilus.config import AgentStrategyConfig
from fastsim.adapters.nautilus.data import write_catalog
from fastsim.adapters.nautilus.instruments import VenueRules
from fastsim.adapters.nautilus.runs import backtest, node_config, run_node
from fastsim.adapters.nautilus.strategy import AgentStrategy

__all__ = [
    "AgentStrategy",
    "AgentStrategyConfig",
    "VenueRules",
    "backtest",
    "node_config",
    "run_node",
    "write_catalog",
]
