"""Compile the kernel for a GPU that need not be there; run apart, because tests interpret it.

Prints where fastsim was found, and how many kernels there are that keep all they hold in registers.
"""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import triton
from parity import of_futures
from triton.backends.compiler import GPUTarget
from worlds import SHORT_FEATURES, random_bars

import fastsim
from fastsim.env.actions import action_width
from fastsim.env.config import EnvConfig
from fastsim.env.episode import EpisodeConfig
from fastsim.env.impact import ImpactConfig
from fastsim.env.kernels.buffers import (
    empty_results,
    empty_singles,
    empty_state,
    empty_views,
    pack_market,
    pack_rules,
)
from fastsim.env.kernels.triton_kernel import step_kernel
from fastsim.env.kernels.triton_step import SECTOR, VECTOR, constants, drawn_tables
from fastsim.env.orders import OrderConfig
from fastsim.env.perpetual import PerpetualConfig
from fastsim.env.randomize import RandomizeConfig
from fastsim.env.reward import RewardConfig
from fastsim.env.state import equipped, make_params
from fastsim.market.costs import CostConfig, make_friction
from fastsim.market.tape import TapeConfig, make_tape

HOPPER = SimpleNamespace(
    get_current_target=lambda: GPUTarget("cuda", 90, 32),
    get_current_device=lambda: 0,
    get_current_stream=lambda device: 0,
)
SPILL = re.compile(r"\bSTL\b")
"""How machine code stores what finds no register."""
MOVING = {"impact": ImpactConfig(transient=1.0, permanent=0.1)}
FURTHER = {
    "orders": OrderConfig(unfilled="carry", whole_shares=True, maintenance_margin=0.2),
    "costs": CostConfig(fee_per_share=0.01, minimum_fee=1.0),
}
DRAWN = {
    "randomize": RandomizeConfig(
        fee_bps=(1.0, 9.0), volatility=(0.5, 2.0), assets=(1, 4), spacing="log"
    )
}
FUTURES = {"perpetual": PerpetualConfig(leverage=20), "max_gross": 5.0}
LEVELS = {"orders": OrderConfig(stop=0.02, target=0.05, trailing=0.03)}
RULES = (
    (1, torch.float32, "weights", "log_growth", "next_step", "flat", 7, 1, {}),
    (100, torch.float32, "logits", "excess_log_growth", "same_step", "index", None, 2, {}),
    (100, torch.float32, "logits", "log_growth", "next_step", "flat", 7, 1, {}),
    (300, torch.float32, "signed", "simple_return", "next_step", "index", 1, 1, {}),
    (5, torch.float64, "signed", "differential_sharpe", "same_step", "flat", None, 1, {}),
    (1500, torch.float64, "logits", "drawdown_penalized_growth", "next_step", "flat", 7, 2, {}),
    (
        30,
        torch.float32,
        "weights",
        "log_growth",
        "next_step",
        "index",
        7,
        1,
        MOVING | {"players": 10},
    ),
    (5, torch.float64, "signed", "differential_sharpe", "same_step", "flat", None, 2, MOVING),
    (40, torch.float32, "logits", "simple_return", "next_step", "flat", 7, 1, {"players": 3}),
    (
        9,
        torch.float32,
        "weights",
        "log_growth",
        "same_step",
        "flat",
        7,
        1,
        {"initial_invested": 0.5},
    ),
    (30, torch.float32, "signed", "log_growth", "next_step", "index", 7, 1, FURTHER),
    (
        5,
        torch.float64,
        "logits",
        "log_growth",
        "same_step",
        "flat",
        7,
        1,
        FURTHER | MOVING | {"orders": OrderConfig(unfilled="carry", maintenance_margin=0.2)},
    ),
    (30, torch.float32, "logits", "excess_log_growth", "same_step", "flat", 7, 1, DRAWN),
    (
        5,
        torch.float64,
        "weights",
        "log_growth",
        "next_step",
        "index",
        7,
        2,
        DRAWN | MOVING | {"players": 3},
    ),
    (100, torch.float32, "bracketed", "log_growth", "next_step", "index", 7, 1, LEVELS),
    (
        5,
        torch.float64,
        "signed",
        "log_growth",
        "same_step",
        "flat",
        7,
        1,
        DRAWN
        | {"orders": OrderConfig(trailing=0.05, unfilled="carry", maintenance_margin=0.2)}
        | {"costs": CostConfig(minimum_fee=1.0), "players": 3},
    ),
    (100, torch.float32, "leveraged", "log_growth", "next_step", "index", 7, 1, FUTURES),
    (
        5,
        torch.float64,
        "bracketed",
        "log_growth",
        "same_step",
        "flat",
        7,
        1,
        FUTURES | LEVELS | DRAWN | {"max_gross": 2.0, "players": 3},
    ),
)


def machine_code(assets, dtype, action, reward, autoreset, observation, horizon, worlds, others):
    """The kernel for these rules, compiled from the arguments of a launch."""
    bars = random_bars(20, assets * worlds)
    lending = {}
    if "orders" in others:
        lending = {"borrow_rates": np.full_like(bars.close, 0.1), "shortable": bars.close > 50.0}
        for prices in (bars.open, bars.high, bars.low, bars.close, bars.volume):
            prices[15:, 0] = np.nan  # delisted
    config = TapeConfig(features=SHORT_FEATURES, delisting_haircut=0.3 if lending else None)
    tape = make_tape(bars, config, **lending, dtype=dtype).fold(worlds)
    config = EnvConfig(
        action=action,
        reward=RewardConfig(kind=reward),
        episode=EpisodeConfig(
            horizon=horizon,
            liquidate_at_end=bool(others),
            at_end="terminate" if others else "truncate",
        ),
        observation=observation,
        autoreset=autoreset,
        **others,
    )
    rows = 2 * config.players
    tape, config = of_futures(tape, config, seed=0)
    tape = equipped(tape, config)
    params = make_params(tape, make_friction(config.costs, rows, dtype=dtype), config)
    assert not lending or "delisted" in tape.next
    kernel = step_kernel.warmup(
        torch.zeros(rows, action_width(action, assets), dtype=dtype),
        empty_state(params, rows, VECTOR),
        pack_market(params, VECTOR),
        pack_rules(params).real,
        empty_results(params, rows, row_bytes=SECTOR),
        empty_singles(params, rows, asked=bool(others)),
        empty_views(params, rows),
        *drawn_tables(params, rows),
        grid=(2,),
        **constants(params, single_orders=bool(others)),
    )
    return kernel.asm["sass"]


if __name__ == "__main__":
    triton.runtime.driver.set_active(HOPPER)
    codes = [machine_code(*rules) for rules in RULES]
    spilled = [rules for rules, code in zip(RULES, codes, strict=True) if SPILL.search(code)]
    assert not spilled, spilled
    print(Path(fastsim.__file__).parents[1])
    print(f"{len(RULES)} kernels")
