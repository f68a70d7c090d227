"""Replays, bars per second, and an evaluation of minute bars: a table, then one JSON object a line.

    python benchmarks/benchmark_replay.py --json benchmarks/results/replay-cpu.json
    python benchmarks/benchmark_replay.py --bars 300 --minutes 4000 --rounds 1    # a quick look

`us20`, the whole tape of the built-in data: a policy alone, and its 22 benchmarks side by side. The
reference of the same commit steps the last bars of it, as many as `--reference-bars` says, and the
wealth of both on those bars is compared. Each is played once to compile, and the best round counts.

The minute case goes through all that `fastsim evaluate` does, on random minute bars of three assets
with volume, in a CSV's place a Parquet file: reading, the tape with its features, the replays of an
agent and its five benchmarks, summary, bootstrap, curves and report. Each part has its seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
from common import Row, header, market_bars, seconds_of, write
from rich.console import Console
from rich.table import Table

from fastsim.backtest.benchmarks import Benchmarks, benchmark_names, benchmark_rules
from fastsim.backtest.files import save_history
from fastsim.backtest.history import History, join
from fastsim.backtest.replay import replay
from fastsim.backtest.report import write_report
from fastsim.backtest.summary import summarize
from fastsim.cli.ending import one_line_errors, read_options
from fastsim.data.sample import sample_bars
from fastsim.data.source import DataConfig, load_bars
from fastsim.env.config import EnvConfig
from fastsim.market.tape import MarketTape, make_tape
from fastsim.policy.make import new_policy
from fastsim.policy.policy import Policy
from fastsim.policy.spec import PolicyConfig, make_spec
from fastsim.stats.bootstrap import sharpe_difference

RULES = EnvConfig(action="logits")
AGENT = "agent"


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What to measure."""

    bars: int = 0
    """Last steps of `us20`; 0 is all of them."""
    reference_bars: int = 1000
    minutes: int = 525_600
    hidden: int = 64
    rounds: int = 5
    json: Path | None = None
    """Also write the results to this file."""


@dataclass
class Clock:
    """Seconds of each part."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Time what is done within."""
        began = time.perf_counter()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - began


def a_policy(tape: MarketTape, hidden: int) -> Policy:
    """One that has learnt nothing: its speed is that of any."""
    return new_policy(make_spec(tape, RULES, PolicyConfig(hidden=hidden)), tape, seed=0)


def last_bars(tape: MarketTape, count: int) -> MarketTape:
    """The tape restricted to its last bars, if so many are wanted."""
    return tape.between(slice(len(tape) - count - 1, len(tape))) if count else tape


def measure_us20(case: Benchmark) -> list[Row]:
    """An agent, and the benchmarks, each beside the reference."""
    tape = last_bars(make_tape(sample_bars("us20")), case.bars)
    policy, names = a_policy(tape, case.hidden), benchmark_names(tape.symbols)
    alone = range(tape.num_assets)

    def agent(part: MarketTape, backend: str) -> History:
        return replay(part, policy, [AGENT], RULES, backend=backend)  # type: ignore[arg-type]

    def benchmarks(part: MarketTape, backend: str) -> History:
        rules = benchmark_rules(RULES)
        return replay(part, Benchmarks(), names, rules, alone=alone, backend=backend)  # type: ignore[arg-type]

    cases = {"agent": agent, f"{len(names)} benchmarks": benchmarks}
    return [_us20_row(case, tape, name, play) for name, play in cases.items()]


def _us20_row(
    case: Benchmark, tape: MarketTape, name: str, play: Callable[[MarketTape, str], History]
) -> Row:
    bars, part = tape.last - tape.first, tape
    if case.reference_bars < bars:
        part = last_bars(tape, case.reference_bars)
    first = seconds_of(lambda: play(tape, "auto"), "cpu")
    best = min(seconds_of(lambda: play(tape, "auto"), "cpu") for _ in range(case.rounds))
    reference = seconds_of(lambda: play(part, "torch"), "cpu")
    ours, theirs = (play(part, backend).wealth for backend in ("auto", "torch"))
    rate, slow = bars / best, (part.last - part.first) / reference
    return header("replay", "cpu") | {
        "case": name,
        "bars": bars,
        "num_assets": tape.num_assets,
        "bars_per_s": round(rate, 1),
        "reference_bars_per_s": round(slow, 1),
        "ratio": round(rate / slow, 1),
        "wealth_off": float((ours / theirs - 1.0).abs().max()),
        "first_s": round(first, 3),
    }


def write_minutes(path: Path, minutes: int) -> None:
    """Random minute bars of three assets, in long form."""
    bars = market_bars(minutes, 3)
    calm = {
        name: 100.0 * np.exp(np.log(getattr(bars, name) / 100.0) / 30.0)
        for name in ("open", "high", "low", "close")
    }
    stamps = np.datetime64("2023-01-01", "ns") + np.arange(minutes) * np.timedelta64(60, "s")
    frames = [
        pl.DataFrame(
            {"date": stamps, "symbol": [symbol] * minutes}
            | {name: values[:, column] for name, values in calm.items()}
            | {"volume": bars.volume[:, column]}  # type: ignore[index]
        )
        for column, symbol in enumerate(bars.symbols)
    ]
    pl.concat(frames).write_parquet(path)


def measure_minutes(case: Benchmark) -> Row:
    """Seconds of each part of an evaluation, from the file to the report."""
    clock = Clock()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "minutes.parquet"
        write_minutes(path, case.minutes)
        compare(make_tape(load_bars(DataConfig(source=str(path))).take(slice(0, 2000))), case)
        with clock.of("read"):
            bars = load_bars(DataConfig(source=str(path)))
        with clock.of("tape"):
            tape = make_tape(bars)
        with clock.of("replay"):
            history = compare(tape, case)
        report(history, Path(folder), clock)
    total = sum(clock.seconds.values())
    return header("replay_minutes", "cpu") | {
        "bars": tape.last - tape.first,
        "num_assets": tape.num_assets,
        "seconds": round(total, 2),
        "parts": {name: round(seconds, 2) for name, seconds in clock.seconds.items()},
    }


def compare(tape: MarketTape, case: Benchmark) -> History:
    """An agent, equal weight, buy and hold, and each asset alone."""
    agent = replay(tape, a_policy(tape, case.hidden), [AGENT], RULES)
    names = benchmark_names(tape.symbols, (AGENT,))
    alone = range(tape.num_assets)
    return join(agent, replay(tape, Benchmarks(), names, benchmark_rules(RULES), alone=alone))


def report(history: History, folder: Path, clock: Clock) -> None:
    """Summary, bootstrap, curves and page, as `fastsim evaluate` makes them."""
    a_year, returns = history.steps_per_year, history.simple_returns
    with clock.of("summary"):
        summarize(history, periods_per_year=a_year)
    with clock.of("bootstrap"):
        interval = sharpe_difference(returns[:, 0], returns[:, 1], periods_per_year=a_year)
    with clock.of("curves"):
        save_history(history, folder / "curves")
    with clock.of("report"):
        path = folder / "report.html"
        write_report(history, path, title="minutes", subtitle="random", interval=interval)


def main(case: Benchmark) -> None:
    """Measure everything."""
    rows = measure_us20(case)
    shown = Table("case", "bars", "bars/s", "reference", "ratio", "wealth off by")
    for row in rows:
        figures = (f"{row[name]:,.0f}" for name in ("bars", "bars_per_s", "reference_bars_per_s"))
        shown.add_row(row["case"], *figures, f"{row['ratio']:.0f} x", f"{row['wealth_off']:.1e}")
    minutes = measure_minutes(case)
    Console().print(shown)
    print(f"{minutes['bars']:,} minute bars: {minutes['seconds']} s, {minutes['parts']}")
    write([*rows, minutes], case.json)


if __name__ == "__main__":
    with one_line_errors("benchmark_replay", Benchmark):
        main(read_options(Benchmark))
