"""Environment steps per second: a table for people, then one JSON object a line.

    python benchmarks/benchmark_env.py --num-assets 30 --num-envs 4096
    python benchmarks/benchmark_env.py --backend numba torch --peers \
        --json benchmarks/results/env-cpu.json
    python benchmarks/benchmark_env.py --device cuda --json benchmarks/results/env-h100.json
    python benchmarks/benchmark_env.py --players 10 --num-envs 10000 --growth-envs 10000 \
        --num-assets 30 --observations index --backend numba torch

An environment step is one portfolio going from one close to the next, its observation laid out.
Each case is built, warmed up, and measured in rounds of equal length in which the backends take
turns; the median round counts. With a policy, two layers decide on every observation; with `index`
observations, the layer that sees the market is tabulated once. Compilation is timed once for each
backend, with empty caches. On a GPU every case is measured as graphs of 1 and of 16 steps, too: one
launch each, without the time that Python takes.

The floor is the least traffic with memory that a step can do with: state read and written, action
read, observation and results written, and of the shared tables every row once, however many
environments stand on it. Its bandwidth is that of a large copy in the same run.

`--peers` adds other simulators, each in an environment of its own that is made on first use, on the
same 2,500 bars of 30 assets. They and we take turns.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import gymnasium
import numba
import numpy as np
import torch
from common import (
    Agent,
    Rate,
    Row,
    copy_bandwidth,
    header,
    market,
    market_bars,
    median,
    replaying,
    seconds_of,
    spread,
    stepping,
    take_turns,
    write,
)
from peers.environments import FINRL, GYM_TRADING_ENV, SEKAI, TORCHTRADE, Peer, PeerError, ask
from rich.console import Console
from rich.table import Table
from torch import nn

import fastsim
from fastsim.cli.ending import one_line_errors, read_options
from fastsim.data.bars import Bars
from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.impact import ImpactConfig
from fastsim.env.kernels.choose import Backend
from fastsim.env.kernels.columns import NUM_FIGURES
from fastsim.env.window import BAR_COLUMNS
from fastsim.market.tape import MarketTape

Kind = Literal["index", "flat", "window"]
LARGEST = 2**28
"""Cases whose observation takes more bytes than this are left out."""
IMPACT = ImpactConfig(transient=1.0, permanent=0.1)
"""How players who share a market move its prices."""
PEER_ASSETS, EXTRA_FEATURES = 30, 11
"""With 11 features beside the 9 of its own, a flat observation has 633 numbers; the peers' 631."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What to measure."""

    device: str = "cpu"
    backend: tuple[Backend, ...] = ("auto",)
    """Several take turns."""
    num_envs: tuple[int, ...] = (1, 64, 1024, 4096, 16384)
    num_assets: tuple[int, ...] = (30, 100, 500)
    players: int = 1
    """Environments that share a market; several move its prices. Numbers of environments must be
    multiples of it."""
    observations: tuple[Kind, ...] = ("index", "flat", "window")
    window_length: int = 20
    bars: int = 2500
    hidden: int = 64
    """Width of the policy's two layers."""
    rounds: int = 5
    seconds: float = 0.3
    """Least length of a round."""
    graph_steps: tuple[int, ...] = (1, 16)
    """Steps that one graph holds, in rows of their own where there are graphs."""
    compilation: bool = True
    """Time it, with empty caches: half a minute for numba."""
    growth: tuple[int, int] = (100, 500)
    """Numbers of assets between which the growth of a step's time is measured."""
    growth_envs: int = 4096
    peers: bool = False
    action: str = "weights"
    """As the peers': long-only weights, scaled down to the simplex; logits cost a softmax."""
    peer_envs: int = 4096
    peer_seconds: float = 2.0
    """Length of a round of theirs and of ours beside it."""
    json: Path | None = None
    """Also write the results to this file."""


def make_env(
    case: Benchmark, tape: MarketTape, num_envs: int, kind: Kind, backend: Backend
) -> PortfolioEnv:
    """The environment that is measured."""
    config = EnvConfig(
        action=case.action,
        observation=kind,
        window_length=case.window_length,
        episode=EpisodeConfig(staggered=True),
        players=case.players,
        impact=IMPACT if case.players > 1 else ImpactConfig(),
    )
    return PortfolioEnv(tape, num_envs, config, backend=backend)


def make_agent(env: PortfolioEnv, hidden: int) -> Agent:
    """Two layers of random weights; the market's part of the first is a table for `index`."""
    tape, width = env.tape, len(env.observation_names)
    if env.config.observation != "index":
        layers = nn.Sequential(
            nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, env.action_width)
        ).to(tape.device)
        return lambda _, columns: layers(columns)
    features = tape.known.features.flatten(1)
    market_layer = nn.Linear(features.shape[1], hidden, device=tape.device)
    own = nn.Linear(width, hidden, device=tape.device)
    last = nn.Linear(hidden, env.action_width, device=tape.device)
    with torch.no_grad():
        known = market_layer(features)  # [T, hidden]
    return lambda bar, columns: last(torch.tanh(known[bar] + own(columns)))


def floor_bytes(env: PortfolioEnv) -> float:
    """Least traffic of one environment step with memory, in bytes."""
    tape, config, envs = env.tape, env.config, env.num_envs
    number, assets, bars = tape.dtype.itemsize, tape.num_assets, tape.last - tape.first
    state = 2 * (assets + 4) * number + (2 + 1 + 2) * 8 + 2  # holdings, money, counters, done
    results = NUM_FIGURES * number + 8 + 4  # figures, bar, flags
    if config.impact.moves_prices:
        state += 2 * 2 * assets * number / config.players  # displacement and its rate
    moved = state + results + (env.action_width + len(env.observation_names)) * number
    met = (4 * assets + 3) * number  # returns, volume and impact of a bar, and its scalars
    shared = min(envs, bars) * met
    if config.observation == "flat":
        shared += min(envs, bars) * assets * len(tape.feature_names) * number
    elif config.observation == "window":
        shared += min(envs * config.window_length, bars) * assets * 5 * number
    return moved + shared / envs


def forget_compiled(folder: str) -> None:
    """Let this process compile into an empty folder."""
    numba.config.CACHE_DIR = os.environ["TRITON_CACHE_DIR"] = folder


def compile_seconds(case: Benchmark, tape: MarketTape, backend: Backend) -> float:
    """Seconds from nothing to the end of the first step."""

    def first_step() -> None:
        env = make_env(case, tape, case.players, "index", backend)
        env.step(torch.zeros(case.players, env.action_width, device=tape.device))

    return round(seconds_of(first_step, case.device), 3)


def measure(case: Benchmark, tape: MarketTape, num_envs: int, kind: Kind) -> list[Row]:
    """One row for each backend: environment alone, and with a policy."""
    envs, warm_up, rates = {}, {}, {}
    for backend in case.backend:
        started = time.perf_counter()
        envs[backend] = make_env(case, tape, num_envs, kind, backend)
        rates[backend] = stepping(envs[backend], case.seconds)
        warm_up[backend] = time.perf_counter() - started
        agent = make_agent(envs[backend], case.hidden)
        rates[backend, "policy"] = stepping(envs[backend], case.seconds, agent)
    measured = take_turns(rates, case.rounds)
    rows = []
    for backend, env in envs.items():
        rows.append(
            header("env", case.device)
            | described(case, env)
            | {
                "env_steps_per_s": median(measured[backend]),
                "spread": spread(measured[backend]),
                "env_policy_steps_per_s": median(measured[backend, "policy"]),
                "warm_up_s": round(warm_up[backend], 3),
            }
        )
    return rows


def measure_graphs(case: Benchmark, tape: MarketTape, num_envs: int, kind: Kind) -> list[Row]:
    """A row for each backend that can be recorded and each number of steps in one graph."""
    rows = []
    for backend in case.backend:
        env = make_env(case, tape, num_envs, kind, backend)
        if not env.capturable:
            continue
        agent = make_agent(env, case.hidden)
        for steps in case.graph_steps:
            rates = {
                "alone": replaying(env, case.seconds, steps),
                "policy": replaying(env, case.seconds, steps, agent),
            }
            measured = take_turns(rates, case.rounds)
            rows.append(
                header("env_graph", case.device)
                | described(case, env)
                | {
                    "graph_steps": steps,
                    "env_steps_per_s": median(measured["alone"]),
                    "spread": spread(measured["alone"]),
                    "env_policy_steps_per_s": median(measured["policy"]),
                }
            )
    return rows


def described(case: Benchmark, env: PortfolioEnv) -> Row:
    """What is measured."""
    return {
        "backend": env.stepper.name,
        "num_envs": env.num_envs,
        "num_assets": env.tape.num_assets,
        "players": case.players,
        "observation": env.config.observation,
        "action": case.action,
        "observation_width": len(env.observation_names),
        "hidden": case.hidden,
        "floor_bytes_per_step": round(floor_bytes(env), 1),
    }


def measure_grid(case: Benchmark) -> list[Row]:
    """Every combination, with the share of the floor that each reaches."""
    rows = []
    tape = market(market_bars(case.bars, case.num_assets[0]), case.device)
    compiled = {name: compile_seconds(case, tape, name) for name in case.backend}
    print("seconds to the first step:", compiled)
    for assets in case.num_assets:
        tape = market(market_bars(case.bars, assets), case.device)
        for kind in case.observations:
            for num_envs in case.num_envs:
                width = len(make_env(case, tape, case.players, kind, "torch").observation_names)
                if num_envs * width * tape.dtype.itemsize > LARGEST:
                    print(f"left out: {num_envs:,} observations of {width:,} numbers")
                    continue
                found = measure(case, tape, num_envs, kind)
                for row, seconds in zip(found, compiled.values(), strict=True):
                    row["compile_s"] = seconds if case.compilation else None
                rows += [*found, *measure_graphs(case, tape, num_envs, kind)]
    bandwidth = copy_bandwidth(case.device)
    for row in rows:
        reached = row["env_steps_per_s"] * row["floor_bytes_per_step"]
        row["copy_gb_per_s"] = round(bandwidth / 1e9, 2)
        row["share_of_floor"] = round(reached / bandwidth, 4)
    return rows


def measure_growth(case: Benchmark) -> list[Row]:
    """Time of a step with many assets over that with few."""
    few, many = case.growth
    tapes = [market(market_bars(case.bars, assets), case.device) for assets in case.growth]
    rows = []
    for backend in case.backend:
        envs = [make_env(case, tape, case.growth_envs, "index", backend) for tape in tapes]
        cases = {str(env.tape.num_assets): stepping(env, case.seconds) for env in envs}
        rates = take_turns(cases, case.rounds)
        row = header("env_growth", case.device) | {
            "backend": envs[0].stepper.name,
            "num_envs": case.growth_envs,
            "observation": "index",
            "num_assets": [few, many],
            "env_steps_per_s": [median(rates[str(few)]), median(rates[str(many)])],
        }
        row["time_ratio"] = round(row["env_steps_per_s"][0] / row["env_steps_per_s"][1], 2)
        rows.append(row)
    return rows


def single(bars: Bars, seconds: float) -> Rate:
    """Steps per second of one environment from `gymnasium.make`, NumPy in and out."""
    tape = market(bars, "cpu", extra_features=EXTRA_FEATURES)
    env = gymnasium.make(fastsim.ENV_ID, market=tape, action="weights", observation="flat")
    actions = np.random.default_rng(0).random((8, *env.action_space.shape), dtype=np.float32)
    env.reset(seed=0)

    def run(seconds: float) -> float:
        count, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            _, _, terminated, truncated, _ = env.step(actions[count % 8])
            count += 1
            if terminated or truncated:
                env.reset()
        return count / (time.perf_counter() - started)

    run(0.1)
    return lambda: run(seconds)


def our_side(case: Benchmark, bars: Bars) -> dict[str, tuple[Row, Rate]]:
    """What the peers are held against."""
    backend = case.backend[0]
    index = make_env(case, market(bars, case.device), case.peer_envs, "index", backend)
    wide_tape = market(bars, case.device, extra_features=EXTRA_FEATURES)
    wide = make_env(case, wide_tape, case.peer_envs, "flat", backend)
    sides = {}
    for env in (index, wide):
        described = {
            "ours": f"{env.stepper.name}, {env.config.observation}",
            "ours_num_envs": env.num_envs,
            "ours_observation_width": len(env.observation_names),
        }
        sides[env.config.observation] = described, stepping(env, case.peer_seconds)
    one = {
        "ours": "gymnasium.make, flat",
        "ours_num_envs": 1,
        "ours_observation_width": len(wide.observation_names),
    }
    first = bars.take(slice(None), [0])
    returns = case.window_length, ("log_return",), time.perf_counter
    return sides | {
        "single": (one, single(bars, case.peer_seconds)),
        "returns": window_side(case, bars, *returns),
        "narrow": on_one_thread(window_side(case, first, 10, BAR_COLUMNS, time.process_time)),
    }


def window_side(
    case: Benchmark, bars: Bars, length: int, columns: tuple[str, ...], clock: Callable[[], float]
) -> tuple[Row, Rate]:
    """Windows of these columns, to hold a peer's against, by this clock."""
    config = EnvConfig(
        action=case.action,
        observation="window",
        window_length=length,
        window_columns=columns,
        episode=EpisodeConfig(staggered=True),
    )
    tape = market(bars, case.device)
    env = PortfolioEnv(tape, case.peer_envs, config, backend=case.backend[0])
    shown = ", ".join(columns) if len(columns) == 1 else f"{len(columns)} columns"
    described = {
        "ours": f"{env.stepper.name}, windows of {length} bars, {shown}",
        "ours_num_envs": env.num_envs,
        "ours_observation_width": len(env.observation_names),
        "ours_clock": clock.__name__,
    }
    return described, stepping(env, case.peer_seconds, clock=clock)


def on_one_thread(side: tuple[Row, Rate]) -> tuple[Row, Rate]:
    """The same where the peer has one thread, too, and CPU seconds count."""
    described, rate = side

    def run() -> float:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return rate()
        finally:
            torch.set_num_threads(before)

    return described | {"ours_threads": 1}, run


def measure_peers(case: Benchmark) -> list[Row]:
    """Every peer beside what is comparable of ours, in turns."""
    bars = market_bars(case.bars, PEER_ASSETS)
    sides = our_side(case, bars)
    pairs = (
        (SEKAI, case.peer_envs, ("index", "flat", "returns")),
        (TORCHTRADE, case.peer_envs, ("narrow",)),
        (SEKAI, 0, ("single",)),
        (FINRL, 1, ("flat", "single")),
        (GYM_TRADING_ENV, 1, ("flat", "single")),
    )
    rows = []
    with TemporaryDirectory() as folder:
        path = Path(folder) / "prices.npz"
        np.savez(path, close=bars.close)
        for peer, count, names in pairs:
            try:
                rows += _against(case, peer, (path, count), {name: sides[name] for name in names})
            except PeerError as error:
                failed = {"peer": peer.name, "version": peer.version, "error": str(error)}
                rows.append(header("env_peers", case.device) | failed)
    return rows


def _against(
    case: Benchmark, peer: Peer, arguments: tuple[Path, int], sides: dict[str, tuple[Row, Rate]]
) -> list[Row]:
    answers: list[Row] = []

    def theirs() -> float:
        answers.append(ask(peer, *arguments, case.peer_seconds))
        return float(answers[-1]["env_steps_per_s"])

    rates = {"peer": theirs} | {name: rate for name, (_, rate) in sides.items()}
    measured = take_turns(rates, case.rounds)
    rate, rows = median(measured["peer"]), []
    for name, (ours, _) in sides.items():
        own = median(measured[name])
        row = header("env_peers", case.device) | {"fastsim": fastsim.__version__} | answers[-1]
        row |= {"env_steps_per_s": rate, "spread": spread(measured["peer"])}
        row |= ours | {"ours_env_steps_per_s": own, "ours_spread": spread(measured[name])}
        row["ratio"] = round(own / rate, 2)
        if "without_resets_steps_per_s" in row:
            bare = median([answer["without_resets_steps_per_s"] for answer in answers])
            row["without_resets_steps_per_s"] = bare
            row["ratio_without_resets"] = round(own / bare, 2)
        rows.append(row)
    return rows


def print_table(rows: list[Row]) -> None:
    """The grid for people."""
    heads = ("assets", "observation", "environments", "backend", "steps/s", "with policy", "floor")
    table = Table(*heads)
    for row in rows:
        table.add_row(
            str(row["num_assets"]),
            f"{row['observation']}, {row['observation_width']} wide",
            f"{row['num_envs']:,}",
            row["backend"] + (f", graph of {row['graph_steps']}" if "graph_steps" in row else ""),
            f"{row['env_steps_per_s']:,.0f}",
            f"{row['env_policy_steps_per_s']:,.0f}",
            f"{row['share_of_floor']:.1%}",
        )
    Console(width=110).print(table)


def main(case: Benchmark) -> None:
    """Measure everything that was asked for."""
    with TemporaryDirectory() as folder:
        if case.compilation:
            forget_compiled(folder)
        measure_all(case)


def measure_all(case: Benchmark) -> None:
    """The peers, before large cases have left the memory in pieces; the grid, and the growth."""
    compared = measure_peers(case) if case.peers else []
    for row in compared:
        print(f"{row['peer']}: {row.get('error') or _ratio(row)}")
    rows = measure_grid(case)
    print_table(rows)
    write([*rows, *measure_growth(case), *compared], case.json)


def _ratio(row: Row) -> str:
    """Ours over theirs, for people."""
    bare = row.get("ratio_without_resets")
    resets = f", {bare} x without its resets" if bare else ""
    return f"{row['ratio']} x{resets}: {row['ours']} in {row['ours_num_envs']:,} environments"


if __name__ == "__main__":
    with one_line_errors("benchmark_env", Benchmark):
        main(read_options(Benchmark))
