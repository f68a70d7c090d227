"""What each rule of orders costs a fused step: steps per second beside the plain step and torch.

    python benchmarks/benchmark_rules.py --json benchmarks/results/rules-cpu.json

4,096 environments of 30 assets that buy and sell short, by the same actions throughout: with no
further rule, with each by itself, with all of them, and with all of them where every third row of
actions asks for nothing new (NaN), which keeps its open orders. Fused step, plain step and
reference take turns; medians count.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from common import Row, header, market_bars, median, seconds_of, spread, take_turns, write
from torch import Tensor

from fastsim.cli.ending import one_line_errors, read_options
from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.kernels.choose import Backend
from fastsim.env.orders import OrderConfig
from fastsim.market.costs import CostConfig
from fastsim.market.tape import TapeConfig, make_tape

LEVERAGE, MARGIN = 1.5, 0.25
LEVELS = {"stop": 0.01, "target": 0.015, "trailing": 0.0125}
BRACKETS, ASKED = "stops and targets", "stops and targets that actions ask for"
PLAIN, ALL, KEPT = "none", "all of them", "all of them, a third kept open"
ORDERS = {
    "carried orders": OrderConfig(unfilled="carry"),
    "whole shares": OrderConfig(whole_shares=True),
    "maintenance margin": OrderConfig(maintenance_margin=MARGIN),
    BRACKETS: OrderConfig(**LEVELS),
    ASKED: OrderConfig(**LEVELS),
    ALL: OrderConfig(unfilled="carry", whole_shares=True, maintenance_margin=MARGIN),
}
COMMISSIONS = {"commissions by share and order": CostConfig(fee_per_share=0.005, minimum_fee=1.0)}
LENDS = ("lending by asset", ALL, KEPT)
RULES = (
    *(PLAIN, "carried orders", "whole shares", "maintenance margin", BRACKETS, ASKED),
    *(*COMMISSIONS, *LENDS),
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure."""

    device: str = "cpu"
    num_envs: int = 4096
    num_assets: int = 30
    bars: int = 2500
    rounds: int = 5
    seconds: float = 1.0
    """Least length of a round."""
    json: Path | None = None
    """Also write the results to this file."""


def make_env(options: Options, rules: str, backend: Backend) -> PortfolioEnv:
    """An environment under one of `RULES`."""
    bars = market_bars(options.bars, options.num_assets)
    lending = {}
    if rules in LENDS:
        rates = {symbol: 30.0 * place for place, symbol in enumerate(bars.symbols)}
        lending = {"borrow_bps_per_year": rates, "hard_to_borrow": bars.symbols[-1:]}
    config = EnvConfig(
        action="bracketed" if rules == ASKED else "signed",
        max_gross=LEVERAGE,
        observation="index",
        episode=EpisodeConfig(staggered=True),
        orders=ORDERS[ALL] if rules == KEPT else ORDERS.get(rules, OrderConfig()),
        costs=COMMISSIONS.get(rules, CostConfig()),
    )
    tape = make_tape(bars, TapeConfig(**lending), device=options.device)
    return PortfolioEnv(tape, options.num_envs, config, backend=backend)


def actions_of(options: Options, rules: str) -> list[Tensor]:
    """Signed weights [N, A], which differ from step to step; NaN where orders are kept.

    Where actions ask for them, distances of a few hundredths follow.
    """
    generator = torch.Generator().manual_seed(0)
    shape = options.num_envs, options.num_assets
    asked = [torch.randn(shape, generator=generator) / options.num_assets for _ in range(8)]
    if rules == ASKED:
        away = [0.05 * torch.rand(shape[0], 2 * shape[1], generator=generator) for _ in asked]
        asked = [torch.cat(both, dim=-1) for both in zip(asked, away, strict=True)]
    if rules == KEPT:
        for step, action in enumerate(asked):
            action[step % 3 :: 3] = torch.nan
    return [action.to(options.device) for action in asked]


def rate_of(options: Options, rules: str, backend: Backend) -> Callable[[], float]:
    """Rounds that return environment steps per second."""
    env, actions = make_env(options, rules, backend), actions_of(options, rules)
    env.reset(0)

    def run(count: int) -> None:
        for step in range(count):
            env.step(actions[step % len(actions)])

    run(8)
    count = max(8, round(8 * options.seconds / seconds_of(lambda: run(8), options.device)))
    return lambda: count * env.num_envs / seconds_of(lambda: run(count), options.device)


def measure(options: Options) -> list[Row]:
    """A row for each of `RULES`."""
    rows = []
    for rules in RULES:
        sides = {
            "fused": rate_of(options, rules, "auto"),
            "plain": rate_of(options, PLAIN, "auto"),
            "torch": rate_of(options, rules, "torch"),
        }
        measured = take_turns(sides, options.rounds)
        rates = {name: median(found) for name, found in measured.items()}
        rows.append(
            header("rules", options.device)
            | {
                "rules": rules,
                "backend": make_env(options, rules, "auto").stepper.name,
                "num_envs": options.num_envs,
                "num_assets": options.num_assets,
                "env_steps_per_s": rates["fused"],
                "spread": spread(measured["fused"]),
                "torch_env_steps_per_s": rates["torch"],
                "over_torch": round(rates["fused"] / rates["torch"], 2),
                "slower_than_plain": round(rates["plain"] / rates["fused"], 2),
            }
        )
        row = rows[-1]
        print(f"{rules}: {row['over_torch']} x torch, {row['slower_than_plain']} x the plain time")
    return rows


def main(options: Options) -> None:
    """Measure, and write the results."""
    write(measure(options), options.json)


if __name__ == "__main__":
    with one_line_errors("benchmark_rules", Options):
        main(read_options(Options))
