"""Backtests: whoever decides, played once beside the benchmarks, and everything that came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fastsim.backtest.benchmarks import BUY_AND_HOLD, benchmark_rules, replay_benchmarks
from fastsim.backtest.history import History, join
from fastsim.backtest.results import About, Results, make_results
from fastsim.backtest.strategies import Strategy
from fastsim.data.dates import show_span
from fastsim.experiment.notes import Seen, notes_of, rules_in_words
from fastsim.experiment.replays import BENCHMARK, compare
from fastsim.experiment.run_stage import deployed, is_run, run_source, run_stage
from fastsim.experiment.stage import (
    BacktestConfig,
    Stage,
    agent_stage,
    benchmark_stage,
    is_strategy_file,
    quick_stage,
    strategy_stage,
)
from fastsim.experiment.tables import tables_of
from fastsim.progress import ON_STDERR, Progress, whole
from fastsim.signals.regimes import REGIMES
from fastsim.stats.bootstrap import sharpe_difference

FORECASTS = Path("runs") / "forecasts"
"""Where tables of forecasts are kept, as those of runs are."""


Engine = Callable[[Stage], History]
"""Who plays an agent in place of fastsim."""


def backtest(
    config: BacktestConfig,
    *,
    engine: Engine | None = None,
    forecasts: Path = FORECASTS,
    progress: Progress = ON_STDERR,
) -> Results:
    """Play a strategy through its bars, beside equal weight, buy and hold and every asset alone.

    A run on its own test bars comes to what `fastsim.experiment.evaluate.evaluate` finds.

    Parameters
    ----------
    engine
        Who plays the agent in place of fastsim, which still plays all beside it.
    forecasts
        Folder where tables of forecasts are kept, but for a run's, which has its own.

    Raises
    ------
    ConfigError, DataError, CheckpointError, ForecastError
        The strategy, its bars or its forecaster are not what they have to be.
    """
    with whole(progress, "backtest") as run:
        stage = make_stage(config, forecasts=forecasts, progress=run)
        if engine is None:
            return results_of(stage, play_stage(stage, progress=run), config.strategy)
        if stage.agent is None and stage.who is not None and is_run(Path(config.strategy)):
            stage = deployed(stage, Path(config.strategy))
        others = replay_benchmarks(stage.tape, stage.rules, others=(stage.name,), progress=run)
        return results_of(stage, join(engine(stage), others), config.strategy)


def make_stage(
    config: BacktestConfig, *, forecasts: Path = FORECASTS, progress: Progress = ON_STDERR
) -> Stage:
    """Everything that is played with, but nothing played.

    Raises
    ------
    ForecastError
        Under `config.strict`, the forecaster may have learned from the bars.
    """
    if is_strategy_file(config.strategy):
        return told_of(strategy_stage(config, forecasts, progress), strict=config.strict)
    folder = Path(config.strategy)
    if not folder.is_dir():
        return benchmark_stage(config)
    own = config.source is None and not config.symbol and config.funding is None
    if is_run(folder) and own:
        return run_stage(config, progress)
    if is_run(folder) and config.source is None:
        config = replace(config, source=run_source(folder))
    return told_of(agent_stage(config, forecasts, progress), strict=config.strict)


def told_of(stage: Stage, *, strict: bool = False) -> Stage:
    """A stage of an agent, with notes of what its forecaster has seen; ForecastError if strict."""
    forecaster = None if stage.agent is None else stage.agent.forecaster
    seen = Seen(None if forecaster is None else forecaster.card)
    seen.doubts(stage.tape, bars="tested bars", strict=strict)
    return stage._replace(notes=(*stage.notes, *seen.notes(stage.tape, bars="tested bars")))


def play_stage(stage: Stage, *, progress: Progress = ON_STDERR) -> History:
    """Everyone's history."""
    if stage.who is None:
        return replay_benchmarks(stage.tape, stage.rules, progress=progress)
    rules = benchmark_rules(stage.rules) if isinstance(stage.who, Strategy) else stage.rules
    return compare(stage.who, stage.tape, rules, stage.name, progress=progress)


def results_of(stage: Stage, history: History, strategy: str) -> Results:
    """Figures and tables of what was played."""
    focus = history.column(stage.name, "strategy")
    other = BENCHMARK if stage.name != BENCHMARK else BUY_AND_HOLD
    benchmark = history.column(other, "benchmark")
    returns, periods = history.simple_returns, history.steps_per_year
    interval = sharpe_difference(returns[:, focus], returns[:, benchmark], periods_per_year=periods)
    about = About(
        title=f"{stage.name} on {Path(stage.source).name}",
        subtitle=f"{show_span(history.timestamps)}, {len(history.symbols)} assets",
        strategy=strategy,
        source=stage.source,
        focus=stage.name,
        benchmark=other,
        regimes=REGIMES,
        settings={"strategy": strategy, "bars": stage.source, **rules_in_words(stage.rules)},
        notes=tuple(notes_of(stage.source, stage.tape, history, stage.notes)),
    )
    return make_results(history, about, tables_of(stage, history), interval)


def quick_test(*, forecasts: Path = FORECASTS, progress: Progress = ON_STDERR) -> Results:
    """A strategy on `fastsim-prior`'s forecasts, at its usual settings, on the built-in tech4."""
    with whole(progress, "backtest") as run:
        stage = told_of(quick_stage(forecasts, run))
        return results_of(stage, play_stage(stage, progress=run), "fastsim-prior")
