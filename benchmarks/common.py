"""What the benchmarks share: a market, clocks and output."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

import fastsim
from fastsim.capture import captured
from fastsim.data.bars import Bars
from fastsim.env.environment import PortfolioEnv
from fastsim.env.nested import flatten
from fastsim.forecast.interface import DTYPES
from fastsim.market.tape import MarketTape, make_tape

Row = dict[str, Any]
Rate = Callable[[], float]
"""Measures one round."""
Agent = Callable[[Tensor, Tensor], Tensor]
"""From bars [N] and observations [N, width] to actions."""


def market_bars(bars: int, assets: int) -> Bars:
    """Geometric Brownian motion with opens, ranges and volume: speed does not depend on it."""
    generator = np.random.default_rng(0)
    close = 100.0 * np.exp(np.cumsum(generator.normal(0.0, 0.01, (bars, assets)), axis=0))
    opened = close * np.exp(generator.normal(0.0, 0.003, close.shape))
    days = np.datetime64("2010-01-01", "ns") + np.arange(bars) * np.timedelta64(24, "h")
    return Bars(
        symbols=tuple(f"A{number}" for number in range(assets)),
        timestamps=days,
        open=opened,
        high=np.maximum(close, opened) * 1.002,
        low=np.minimum(close, opened) * 0.998,
        close=close,
        volume=generator.uniform(1e5, 1e6, close.shape),
    )


def market(bars: Bars, device: str, *, extra_features: int = 0) -> MarketTape:
    """The tape of these bars, with random features beside its own."""
    generator = np.random.default_rng(1)
    extra = {
        f"extra{number}": generator.normal(size=bars.close.shape)
        for number in range(extra_features)
    }
    return make_tape(bars, extra_features=extra, device=device)


def take_turns(cases: Mapping[str, Rate], rounds: int) -> dict[str, list[float]]:
    """Rates of every case, measured one after the other, round by round."""
    rates: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, rate in cases.items():
            rates[name].append(rate())
    return rates


def stepping(
    env: PortfolioEnv,
    seconds: float,
    agent: Agent | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Rate:
    """Rounds of at least `seconds`, warmed up; each returns environment steps per second."""
    device = str(env.tape.device)
    seen = env.reset(0)
    columns = env.columns(seen)
    fixed = torch.rand(env.num_envs, env.action_width, device=device)

    @torch.no_grad()
    def run(count: int) -> None:
        nonlocal seen, columns
        for _ in range(count):
            action = fixed if agent is None else agent(seen.bar, columns)
            seen = env.step(action).observation
            columns = env.columns(seen)

    run(2)
    count = max(1, round(2 * seconds / seconds_of(lambda: run(2), device)))
    return lambda: count * env.num_envs / seconds_of(lambda: run(count), device, clock)


def one_step(env: PortfolioEnv, agent: Agent | None = None) -> Callable[[], None]:
    """A step on from where the last one ended, by fixed actions or by an agent's.

    Observations are laid out; what is read and written lies where it lay before, so that the steps
    can be recorded.
    """
    fixed = torch.rand(env.num_envs, env.action_width, device=env.tape.device)
    first = env.reset(0)
    bar, columns = first.bar.clone(), env.columns(first).clone()

    @torch.no_grad()
    def step() -> None:
        seen = env.step(fixed if agent is None else agent(bar, columns)).observation
        laid_out = env.columns(seen)
        if agent is not None:
            bar.copy_(seen.bar)
            columns.copy_(laid_out)

    return step


def in_one_graph(env: PortfolioEnv, step: Callable[[], None], times: int) -> Callable[[], None]:
    """So many steps of an environment as one graph; as they are where none is recorded."""

    def steps() -> None:
        for _ in range(times):
            step()

    if not env.capturable:
        return steps
    return captured(steps, flatten(env.stepper.state), env.tape.device)


def replaying(env: PortfolioEnv, seconds: float, times: int, agent: Agent | None = None) -> Rate:
    """Rounds of at least `seconds`, warmed up, of graphs of so many steps; see `stepping`."""
    device, replay = str(env.tape.device), in_one_graph(env, one_step(env, agent), times)
    count = max(1, round(seconds / seconds_of(replay, device)))

    def run() -> None:
        for _ in range(count):
            replay()

    return lambda: count * times * env.num_envs / seconds_of(run, device)


def seconds_of(
    call: Callable[[], object], device: str, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Seconds of one call, to its end on the device."""
    synchronize(device)
    started = clock()
    call()
    synchronize(device)
    return clock() - started


def copy_bandwidth(device: str, megabytes: int = 256, rounds: int = 7) -> float:
    """Bytes a second, read and written, of copying a block too large for any cache."""
    source = torch.ones(megabytes * 2**20 // 4, device=device)
    target = torch.zeros_like(source)
    seconds = [seconds_of(lambda: target.copy_(source), device) for _ in range(rounds)]
    return 2.0 * 4 * len(source) / min(seconds)


def matrix_rate(device: str, precision: str, size: int = 0) -> float:
    """Best FLOP/s of square products of this side in this precision; int8 as float32.

    "tf32" is float32 whose products a GPU may round to its 19 bits. The side is 8,192 on a GPU and
    1,024 on a CPU, if none is given.
    """
    dtype = DTYPES.get(precision, torch.float32)
    size = size or (8192 if torch.device(device).type == "cuda" else 1024)
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))

    def product() -> None:
        torch.mm(left, right)

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        product()
        return 2.0 * size**3 / min(seconds_of(product, device) for _ in range(10))
    finally:
        torch.set_float32_matmul_precision(before)


def header(benchmark: str, device: str) -> Row:
    """How every line of results begins."""
    return {
        "benchmark": benchmark,
        "version": fastsim.__version__,
        "date": date.today().isoformat(),
        "device": device_name(device),
        "torch": torch.__version__,
        "numba": numba.__version__,
        "threads": torch.get_num_threads(),
    }


def device_name(device: str) -> str:
    """Make and model."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {torch.get_num_threads()} threads, {os.cpu_count()} cores"


def spread(rates: list[float]) -> float:
    """Fastest round over the slowest."""
    return round(max(rates) / min(rates), 3)


def median(rates: list[float]) -> float:
    """Median of rounds, to a tenth."""
    return round(statistics.median(rates), 1)


def write(rows: list[Row], path: Path | None) -> None:
    """Print results, one JSON object a line, and keep them in a file if there is to be one."""
    lines = "\n".join(json.dumps(row) for row in rows)
    print(lines)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(lines + "\n")


def synchronize(device: str) -> None:
    """Wait for the device."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    if described.exists():
        for line in described.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
