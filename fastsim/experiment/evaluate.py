"""What a trained agent is worth on bars it never saw, beside what needs no agent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fastsim.backtest.files import save_history
from fastsim.backtest.history import History
from fastsim.backtest.replay import benchmark_schedule, join, replay_schedule
from fastsim.backtest.report import write_report
from fastsim.backtest.summary import Summary, summarize
from fastsim.config import changes
from fastsim.data.sample import SAMPLES
from fastsim.env.core import EnvConfig
from fastsim.env.nested import transform
from fastsim.experiment.run import TrainConfig, load_policy, play
from fastsim.market.tape import MarketTape
from fastsim.policy.network import Policy
from fastsim.stats.bootstrap import Interval, sharpe_difference
from fastsim.stats.metrics import periods_per_year

AGENT, BENCHMARK = "agent", "equal weight"
Part = Literal["train", "validation", "test"]


class Evaluation(NamedTuple):
    """The agent and its benchmarks on one part of the data."""

    part: Part
    history: History
    summary: Summary
    interval: Interval  # of the agent's Sharpe ratio less the benchmark's
    notes: tuple[str, ...]
    report: Path  # the HTML page


def headline(evaluation: Evaluation) -> tuple[Summary, tuple[str, ...]]:
    """The agent, equal weight, buy and hold, and the mean of every figure over single assets."""
    count = len(evaluation.history.names) - len(evaluation.history.symbols)

    def shorten(figure: Tensor) -> Tensor:
        return torch.cat([figure[:count], figure[count:].mean(0, keepdim=True)])

    names = (*evaluation.history.names[:count], "single asset, mean")
    return transform(shorten, evaluation.summary), names


def compare(policy: Policy, tape: MarketTape, env: EnvConfig) -> History:
    """Replay the agent, equal weight, buy and hold and every asset alone, at the same costs."""
    names, schedule = benchmark_schedule(tape)
    rules = replace(env, action="weights", max_gross=1.0)
    return join(play(policy, tape, env, AGENT), replay_schedule(tape, schedule, names, rules))


def evaluate(
    folder: Path, part: Part = "test", checkpoint: Literal["best", "latest"] = "best"
) -> Evaluation:
    """Evaluate a run and leave curves, weights and an HTML report in its folder."""
    config, markets, policy = load_policy(folder, checkpoint)
    tape: MarketTape = getattr(markets, part)
    history = compare(policy, tape, config.env)
    bars_per_year = periods_per_year(history.timestamps)
    returns = history.simple_returns
    evaluation = Evaluation(
        part=part,
        history=history,
        summary=summarize(history, periods_per_year=bars_per_year),
        interval=sharpe_difference(returns[:, 0], returns[:, 1], periods_per_year=bars_per_year),
        notes=tuple(_notes(config, tape, part)),
        report=folder / f"report{_suffix(part)}.html",
    )
    _write(folder, config, evaluation)
    return evaluation


def _write(folder: Path, config: TrainConfig, evaluation: Evaluation) -> None:
    history = evaluation.history
    save_history(history, folder / f"curves{_suffix(evaluation.part)}")
    first, last = (str(stamp)[:10] for stamp in history.timestamps[[0, -1]])
    write_report(
        history,
        evaluation.report,
        title=f"{folder.name}: PPO on {Path(config.data.source).name}",
        subtitle=f"{evaluation.part} bars, {first} to {last}, {len(history.symbols)} assets",
        focus=AGENT,
        benchmark=BENCHMARK,
        interval=evaluation.interval,
        notes=evaluation.notes,
        settings=run_settings(config),
    )


def run_settings(config: TrainConfig) -> dict[str, str]:
    """What a report says a run was made with: the main settings, then every changed rule.

    A rule is a field of the environment or of the tape, and is changed where a run without options
    has it otherwise.
    """
    costs, usual = config.env.costs, TrainConfig()
    rules = changes(config.env, usual.env) | changes(config.tape, usual.tape)
    return {
        "environment steps": f"{config.total_steps:,}",
        "seed": str(config.seed),
        "learned from": _learned_from(config),
        "reward": config.env.reward.kind,
        "forecasts": config.forecaster,
        "commission": f"{costs.fee_bps:g} bp",
        "half spread": f"{costs.half_spread_bps:g} bp",
        "initial cash": f"{config.env.initial_cash:,.0f}",
        **{name: str(value) for name, value in rules.items()},
    }


def _learned_from(config: TrainConfig) -> str:
    model = config.worlds.model
    return "training bars" if model == "none" else f"{model} worlds fitted to the training bars"


def _suffix(part: Part) -> str:
    return "" if part == "test" else f"-{part}"


def _notes(config: TrainConfig, tape: MarketTape, part: Part) -> Sequence[str]:
    notes = [
        f"Trades are filled at the {'next open' if tape.fill == 'next_open' else 'same close'}. "
        f"Every strategy pays the same costs."
    ]
    if not tape.has_volume:
        notes.append("The data has no volume: market impact and participation limits are off.")
    if part != "test":
        notes.append(f"These are {part} bars: the agent or its selection has seen them.")
    if config.data.source in SAMPLES:
        notes.append(SAMPLES[config.data.source])
    return notes
