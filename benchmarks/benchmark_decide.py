"""How long a decision of a trained agent takes: a line, then one JSON object.

    OMP_NUM_THREADS=1 python benchmarks/benchmark_decide.py \
        --json benchmarks/results/decide-cpu.json

An agent learns for a moment on random bars of 30 assets, with forecasts of `fastsim-prior` among
what it sees. Then it is loaded from its folder, forecaster included, and decides by its last bars
again and again: all of its window is laid out anew each time, as with bars that have just come.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from common import header, market_bars, write

from fastsim.agent.agent import Agent
from fastsim.agent.state import BrokerAccount
from fastsim.cli.ending import one_line_errors, read_options
from fastsim.config import from_mapping
from fastsim.data.read import write_bars
from fastsim.experiment.config import TrainConfig
from fastsim.experiment.train import train

SMALL = {
    "total_steps": 4096,
    "evaluations": 1,
    "collect": {"num_envs": 64, "rollout_steps": 16},
    "forecaster": "fastsim-prior",
}


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What to measure."""

    num_assets: int = 30
    bars: int = 2000
    decisions: int = 300
    json: Path | None = None
    """Also write the results to this file."""


def main(case: Benchmark) -> None:
    """Train, load, decide, tell."""
    bars = market_bars(case.bars, case.num_assets)
    with TemporaryDirectory() as folder:
        write_bars(bars, Path(folder) / "bars.parquet")
        data = {"source": str(Path(folder) / "bars.parquet")}
        run = train(from_mapping(TrainConfig, SMALL | {"data": data, "runs_dir": folder}))
        loads = [seconds_to_load(run) for _ in range(5)]
        agent = Agent.load(run)
    window = bars.take(slice(-agent.bars_needed, None))
    now = window.timestamps[-1] + np.timedelta64(24, "h")
    account, taken = BrokerAccount(cash=1e6), []
    for _ in range(case.decisions):
        started = time.perf_counter()
        agent.decide(window, account, now=now)
        taken.append(time.perf_counter() - started)
    row = header("decide", "cpu") | {
        "num_assets": case.num_assets,
        "bars_needed": agent.bars_needed,
        "forecaster": SMALL["forecaster"],
        "load_s": round(min(loads), 4),
        "median_ms": round(1e3 * float(np.median(taken)), 2),
        "p99_ms": round(1e3 * float(np.quantile(taken, 0.99)), 2),
    }
    print(f"{row['median_ms']} ms a decision ({row['p99_ms']} at the 99th percentile)")
    write([row], case.json)


def seconds_to_load(run: Path) -> float:
    """What it takes to have an agent ready."""
    started = time.perf_counter()
    Agent.load(run)
    return time.perf_counter() - started


if __name__ == "__main__":
    with one_line_errors("benchmark_decide.py", Benchmark):
        main(read_options(Benchmark))
