"""Who plays a backtest, and on which market: an agent, a strategy's settings, or a benchmark."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastsim.agent.agent import Agent
from fastsim.agent.config import StrategyConfig
from fastsim.agent.make import agent_of
from fastsim.backtest.strategies import Strategy, strategy_named
from fastsim.config import configuration, load_yaml, require_between
from fastsim.data.bars import Bars
from fastsim.data.dates import check_range, rows_between, show_span
from fastsim.data.source import DataConfig, load_bars
from fastsim.data.symbols import symbols_meant
from fastsim.env.config import EnvConfig
from fastsim.env.decide import Decider
from fastsim.errors import ConfigError, DataError
from fastsim.market.tape import MarketTape, make_tape
from fastsim.progress import Progress

SIGNALS, AGENT = "signals", "agent"
"""What strategies are called in tables and on pages."""
YAML = (".yaml", ".yml")


@configuration
class BacktestConfig:
    """What is played, on which bars, at which costs."""

    strategy: str
    """Folder of a run or of an agent, a strategy's .yaml, or a benchmark: equal-weight,
    buy-and-hold, EG, PAMR, OLMAR, inverse-volatility and so on."""
    source: str | None = None
    """A built-in set, a CSV or Parquet file, or package.module:function; by default the run's own
    bars, what the .yaml names, or us20."""
    symbol: tuple[str, ...] = ()
    """What to trade, as people write it (BTCUSDT, btc-usd), several by commas or by saying this
    several times; by default all."""
    start: str | None = None
    """Day of the first decision; by default a run's first test bar, else the first that can be."""
    end: str | None = None
    """Last day, inclusive."""
    funding: str | None = None
    """File of the funding of perpetual futures over bars that are named; by default that which the
    agent learned by."""
    fee_bps: float | None = None
    """Commission; by default that of the strategy, or 1 bp."""
    half_spread_bps: float | None = None
    """Likewise; 2 bp."""
    initial_cash: float | None = None
    """Likewise; 1,000,000."""
    strict: bool = False
    """Refuse a forecaster that may have learned from the bars that are played, instead of saying
    so."""

    def __post_init__(self) -> None:
        try:
            check_range(self.start, self.end)
        except DataError as error:
            raise ConfigError(f"BacktestConfig: {error}") from None
        for name in ("fee_bps", "half_spread_bps", "initial_cash"):
            if getattr(self, name) is not None:
                high = 1e12 if name == "initial_cash" else 1000.0
                require_between(self, name, 0.0, high, open_low=name == "initial_cash")

    def rules(self, usual: EnvConfig) -> EnvConfig:
        """The usual rules at the costs that were asked for."""
        asked = {name: getattr(self, name) for name in ("fee_bps", "half_spread_bps")}
        costs = replace(usual.costs, **{n: each for n, each in asked.items() if each is not None})
        cash = usual.initial_cash if self.initial_cash is None else self.initial_cash
        return replace(usual, costs=costs, initial_cash=cash)


class Stage(NamedTuple):
    """A backtest that is ready to be played."""

    who: Decider | None  # None of a benchmark that is played beside every other
    name: str
    tape: MarketTape  # from the first decision to the last close
    rules: EnvConfig
    source: str
    notes: tuple[str, ...] = ()
    agent: Agent | None = None  # None of a benchmark, and of a run on its own bars
    bars: Bars | None = None  # of the agent: all that are known up to the last close


def is_strategy_file(strategy: str) -> bool:
    """Whether it is named as settings are."""
    return strategy.lower().endswith(YAML)


def benchmark_stage(config: BacktestConfig) -> Stage:
    """Equal weight, buy and hold, or another classic strategy, by its name."""
    if config.funding is not None:
        raise ConfigError(
            f"BacktestConfig.funding is of perpetual futures, and {config.strategy} trades spot: "
            f"leave it out"
        )
    chosen = strategy_named(config.strategy)
    data = _data(config, DataConfig())
    tape = between(make_tape(load_bars(data)), config)
    who = chosen if isinstance(chosen, Strategy) else None
    name = chosen.name if isinstance(chosen, Strategy) else chosen
    return Stage(who, name, tape, config.rules(EnvConfig()), data.source)


def strategy_stage(config: BacktestConfig, folder: Path, progress: Progress) -> Stage:
    """A strategy's settings; forecasts are tabulated in `folder`."""
    settings = load_yaml(StrategyConfig, Path(config.strategy))
    data = _data(config, settings.data)
    bars = load_bars(data)
    return _agent_stage(agent_of(settings, bars), bars, data.source, config, folder, progress)


def quick_stage(folder: Path, progress: Progress) -> Stage:
    """A strategy on forecasts by its usual settings, on built-in bars that have volume."""
    settings = StrategyConfig(data=DataConfig(source="tech4"))
    config = BacktestConfig(strategy="usual settings")
    bars = load_bars(settings.data)
    return _agent_stage(agent_of(settings, bars), bars, "tech4", config, folder, progress)


def agent_stage(config: BacktestConfig, folder: Path, progress: Progress) -> Stage:
    """An agent's folder, or a run's, on bars that are named: it knows of none by itself."""
    if config.source is None:
        raise ConfigError(
            f"{config.strategy} is an agent and has no bars of its own: name some by "
            f"BacktestConfig.source"
        )
    agent = Agent.load(config.strategy)
    data = _data(config, DataConfig(symbols=agent.symbols))
    return _agent_stage(agent, load_bars(data), data.source, config, folder, progress)


def _agent_stage(
    agent: Agent,
    bars: Bars,
    source: str,
    config: BacktestConfig,
    folder: Path,
    progress: Progress,
) -> Stage:
    if config.funding is not None:
        agent = agent.with_funding(config.funding)
    if config.start is not None:  # bars that no decision looks back on need no forecasts
        begin = _rows(bars.timestamps, config).start
        bars = bars.take(slice(max(0, begin - agent.bars_needed - 1), None))
    tape = agent.market_of(bars, folder, progress=progress)
    if config.start is None:
        tape = _from_enough(tape, agent.bars_needed)
    tape = between(tape, config)
    short = tape.first + 1 < agent.bars_needed
    note = (
        f"The first decisions look back on fewer than the {agent.bars_needed} bars that the "
        f"strategy is made for."
    )
    return Stage(
        agent.decider,
        SIGNALS if hasattr(agent.decider, "signals") else AGENT,
        tape,
        config.rules(agent.rules),
        source,
        (note,) if short else (),
        agent,
        bars,
    )


def _from_enough(tape: MarketTape, needed: int) -> MarketTape:
    """The tape from the first bar up to which there are so many; DataError if there is none."""
    if len(tape) <= needed:
        raise DataError(
            f"{len(tape)} bars are too few: the strategy looks back on {needed}, and plays from "
            f"there on; give more, or a BacktestConfig.start at which fewer are to do"
        )
    return replace(tape, first=max(tape.first, needed - 1))


def between(tape: MarketTape, config: BacktestConfig) -> MarketTape:
    """The tape from the first day that was asked for to the last.

    Raises
    ------
    DataError
        There is no step between them.
    """
    rows = _rows(tape.timestamps, config)
    if min(tape.last, rows.stop - 1) - max(tape.first, rows.start) < 1:
        raise DataError(
            f"BacktestConfig.start = {config.start!r} and BacktestConfig.end = {config.end!r} "
            f"leave no step: these bars can be played from "
            f"{show_span(tape.timestamps[[tape.first, tape.last]])}"
        )
    return tape.between(rows)


def _rows(timestamps: NDArray[np.datetime64], config: BacktestConfig) -> slice:
    return rows_between(timestamps, config.start, config.end)


def _data(config: BacktestConfig, usual: DataConfig) -> DataConfig:
    """Which bars to read: up to the last day, from as early as there are."""
    data = usual if config.source is None else replace(usual, source=config.source)
    if config.symbol:
        names = [name.strip() for text in config.symbol for name in text.split(",")]
        meant = symbols_meant([name for name in names if name], data.source)
        data = replace(data, symbols=meant, num_assets=None)
    return data if config.end is None else replace(data, end=config.end)
