"""What a trained agent is worth on bars it never saw, beside what needs no agent."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from fastsim.backtest.files import save_history
from fastsim.backtest.history import History
from fastsim.backtest.report import write_report
from fastsim.backtest.summary import Summary, mean_of_rest, summarize
from fastsim.data.dates import show_span
from fastsim.experiment.config import Part, TrainConfig, read_run
from fastsim.experiment.folder import policy_folder
from fastsim.experiment.markets import load_markets
from fastsim.experiment.notes import algorithm_of, notes_on, run_settings
from fastsim.experiment.replays import AGENT, BENCHMARK, REPLAY_SECONDS, REPLAYS, compare
from fastsim.policy.folder import load_policy
from fastsim.progress import ON_STDERR, Progress, whole
from fastsim.stats.bootstrap import Interval, sharpe_difference


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
    names = (*evaluation.history.names[:count], "single asset, mean")
    return mean_of_rest(evaluation.summary, count), names


def evaluate(
    folder: Path,
    part: Part = "test",
    checkpoint: Literal["best", "latest"] = "best",
    *,
    progress: Progress = ON_STDERR,
) -> Evaluation:
    """Evaluate the policy in a run's folder; leaves curves, weights and an HTML report there."""
    config = read_run(folder)
    policy = load_policy(policy_folder(folder, checkpoint))
    with whole(progress, "evaluation") as run:
        markets = load_markets(config, progress=run)
        tape = markets.part(part)
        run.expect("replay", REPLAYS * (tape.last - tape.first), seconds_each=REPLAY_SECONDS)
        history = compare(policy.to(tape.device), tape, config.env, progress=run)
    bars_per_year = history.steps_per_year
    returns = history.simple_returns
    evaluation = Evaluation(
        part=part,
        history=history,
        summary=summarize(history, periods_per_year=bars_per_year),
        interval=sharpe_difference(returns[:, 0], returns[:, 1], periods_per_year=bars_per_year),
        notes=tuple(notes_on(config, tape, part, history, markets.seen)),
        report=folder / f"report{_suffix(part)}.html",
    )
    _write(folder, config, evaluation)
    return evaluation


def _write(folder: Path, config: TrainConfig, evaluation: Evaluation) -> None:
    history = evaluation.history
    span = show_span(history.timestamps)
    save_history(history, folder / f"curves{_suffix(evaluation.part)}")
    write_report(
        history,
        evaluation.report,
        title=f"{folder.name}: {algorithm_of(config)} on {Path(config.data.source).name}",
        subtitle=f"{evaluation.part} bars, {span}, {len(history.symbols)} assets",
        focus=AGENT,
        benchmark=BENCHMARK,
        interval=evaluation.interval,
        notes=evaluation.notes,
        settings=run_settings(config),
    )


def _suffix(part: Part) -> str:
    return "" if part == "test" else f"-{part}"
