"""Environment steps per second: a table for people, then one JSON object a line.

    python benchmarks/benchmark_env.py
    python benchmarks/benchmark_env.py --device cuda --json benchmarks/results/env-h100.json

Each case warms up, then runs rounds of equal length and reports the median round. An environment
step is one portfolio going from one close to the next, its observation included.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table

import fastsim
from fastsim.env.core import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.market.bars import Bars
from fastsim.market.tape import MarketTape, make_tape

Kind = Literal["index", "flat", "window"]


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What to measure."""

    device: str = "cpu"
    num_envs: tuple[int, ...] = (1, 64, 1024, 4096)
    num_assets: tuple[int, ...] = (30, 100)
    observations: tuple[Kind, ...] = ("index", "flat")
    bars: int = 2500
    rounds: int = 5
    seconds: float = 0.5
    """Least length of a round."""
    json: Path | None = None
    """Also write the results to this file."""


def market(bars: int, assets: int, device: str) -> MarketTape:
    """Geometric Brownian motion with opens, ranges and volume: speed does not depend on it."""
    generator = np.random.default_rng(0)
    close = 100.0 * np.exp(np.cumsum(generator.normal(0.0, 0.01, (bars, assets)), axis=0))
    opened = close * np.exp(generator.normal(0.0, 0.003, close.shape))
    return make_tape(
        Bars(
            symbols=tuple(f"A{number}" for number in range(assets)),
            timestamps=np.datetime64("2010-01-01", "ns")
            + np.arange(bars) * np.timedelta64(24, "h"),
            open=opened,
            high=np.maximum(close, opened) * 1.002,
            low=np.minimum(close, opened) * 0.998,
            close=close,
            volume=generator.uniform(1e5, 1e6, close.shape),
        ),
        device=device,
    )


def measure(
    tape: MarketTape, num_envs: int, observation: Kind, case: Benchmark
) -> dict[str, object]:
    """Median environment steps per second of one case."""
    config = EnvConfig(
        action="logits", observation=observation, episode=EpisodeConfig(staggered=True)
    )
    env = PortfolioEnv(tape, num_envs, config)
    env.reset(0)
    action = torch.randn(num_envs, env.action_width, device=tape.device)

    def steps(count: int) -> float:
        _synchronize(tape)
        started = time.perf_counter()
        for _ in range(count):
            env.columns(env.step(action).observation)
        _synchronize(tape)
        return time.perf_counter() - started

    count = max(1, int(case.seconds / (steps(5) / 5)))
    seconds = [steps(count) for _ in range(case.rounds)]
    return {
        "benchmark": "env",
        "version": fastsim.__version__,
        "date": date.today().isoformat(),
        "device": _device_name(case.device),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "backend": "torch",
        "num_envs": num_envs,
        "num_assets": tape.num_assets,
        "observation": observation,
        "observation_width": len(env.observation_names),
        "env_steps_per_s": round(count * num_envs / statistics.median(seconds), 1),
        "spread": round(max(seconds) / min(seconds), 3),
    }


def main(case: Benchmark) -> None:
    """Measure every combination."""
    results = []
    for assets in case.num_assets:
        tape = market(case.bars, assets, case.device)
        for observation in case.observations:
            for num_envs in case.num_envs:
                results.append(measure(tape, num_envs, observation, case))
    table = Table("assets", "observation", "width", "environments", "steps/s", "µs/step of all")
    for result in results:
        rate, count = float(str(result["env_steps_per_s"])), int(str(result["num_envs"]))
        table.add_row(
            str(result["num_assets"]),
            str(result["observation"]),
            str(result["observation_width"]),
            f"{count:,}",
            f"{rate:,.0f}",
            f"{1e6 * count / rate:,.0f}",
        )
    Console(width=100).print(table)
    lines = "\n".join(json.dumps(result) for result in results)
    print(lines)
    if case.json is not None:
        case.json.parent.mkdir(parents=True, exist_ok=True)
        case.json.write_text(lines + "\n")


def _device_name(device: str) -> str:
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def _synchronize(tape: MarketTape) -> None:
    if tape.device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
