"""Whoever adds to the house itself, in its registry alone, gets right money or is told by name.

Each patch is made in a copy of the package, as somebody would who follows the how-to and forgets
the kernels; a fresh process then steps it on every backend.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "fastsim"
STEPS = """
import logging, sys
import torch
import numpy as np
from worlds import SHORT_FEATURES, random_bars
from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.reward import RewardConfig
from fastsim.errors import ConfigError
from fastsim.market.costs import CostConfig
from fastsim.market.tape import TapeConfig, make_tape
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
tape = make_tape(random_bars(60, 3, seed=1), TapeConfig(features=SHORT_FEATURES))
episode = EpisodeConfig(horizon=20, random_start=False)
config = RULES
for backend in ("torch", "auto", "numba", "triton"):
    try:
        env = PortfolioEnv(tape, 2, config, backend=backend)
    except ConfigError as error:
        print(error)
        continue
    env.reset(0)
    step = env.step(torch.full((2, 3), 0.3))
    traded = step.outcome.trade[0].abs().sum() if step.outcome.trade is not None else None
    print(env.stepper.name, *(f"{number:.6f}" for number in FOUND))
"""


class Patch:
    def __init__(self, edits, rules, found, wanted, named):
        self.edits, self.rules, self.found = edits, rules, found
        self.wanted, self.named = wanted, named


PATCHES = {
    # A cost beside the others, with a setting of its own.
    "cost": Patch(
        {
            "market/costs.py": [
                (
                    '        Cost(name="impact",',
                    '        Cost(name="stamp_duty", charge=lambda o: 50e-4 * o.notional),\n'
                    '        Cost(name="impact",',
                ),
            ]
        },
        "EnvConfig(episode=episode)",
        '[step.outcome.cost["stamp_duty"][0] / traded]',
        "0.005000",
        "cost stamp_duty",
    ),
    "setting": Patch(
        {
            "market/costs.py": [
                (
                    "    also: tuple[str, ...] = ()",
                    "    stamp_duty_bps: float = 0.0\n    also: tuple[str, ...] = ()",
                )
            ]
        },
        "EnvConfig(episode=episode)",
        '[step.outcome.cost["spread"][0] / traded]',
        "0.000200",
        "costs.stamp_duty_bps",
    ),
    "friction": Patch(
        {
            "market/costs.py": [
                (
                    "    per_share: Tensor | None = None",
                    "    duty: Tensor | None = None\n    per_share: Tensor | None = None",
                ),
                (
                    '        borrow=column("borrow_bps_per_year", BPS),',
                    '        borrow=column("borrow_bps_per_year", BPS),\n'
                    '        duty=column("fee_bps", BPS),',
                ),
            ]
        },
        "EnvConfig(episode=episode)",
        "[env.params.friction.duty[0] * 1e4]",
        "1.000000",
        "costs.duty",
    ),
    "reward": Patch(
        {
            "env/reward.py": [
                (
                    "REWARDS: Registry[Reward] = Registry(",
                    "def doubled(growth, memory, config):\n"
                    '    """Twice the growth."""\n'
                    "    return 2.0 * growth.log_growth, memory\n\n\n"
                    "REWARDS: Registry[Reward] = Registry(",
                ),
                ("            log_growth,\n", "            log_growth,\n            doubled,\n"),
            ]
        },
        'EnvConfig(episode=episode, reward=RewardConfig(kind="doubled"))',
        "[step.reward[0] / (step.outcome.wealth[0] / step.outcome.wealth_before[0]).log()]",
        "2.000000",
        "reward.kind = 'doubled'",
    ),
    "action mode": Patch(
        {
            "env/actions.py": [
                (
                    '        ActionMode(\n            name="logits",',
                    "        ActionMode(\n"
                    '            name="tenth",\n'
                    "            weights=lambda action, max_gross, masked: 0.1 * action,\n"
                    "        ),\n"
                    '        ActionMode(\n            name="logits",',
                )
            ]
        },
        'EnvConfig(episode=episode, action="tenth")',
        "[step.outcome.holdings[0, 0] / step.outcome.wealth_traded[0]]",
        "0.030000",
        "action = 'tenth'",
    ),
    "column": Patch(
        {
            "env/portfolio_columns.py": [
                (
                    '        PortfolioColumn(\n            name="log_growth",',
                    "        PortfolioColumn(\n"
                    '            name="cash_share",\n'
                    "            values=lambda now: now.account.portfolio.cash / now.wealth,\n"
                    "        ),\n"
                    '        PortfolioColumn(\n            name="log_growth",',
                )
            ]
        },
        "EnvConfig(episode=episode)",
        "[env.columns(step.observation)[0, env.observation_names.index(name)]"
        ' - env.columns(step.observation)[0, env.observation_names.index("weight.cash")]'
        ' for name in ("cash_share",)]',
        "0.000000",
        "portfolio column cash_share",
    ),
    "table": Patch(
        {
            "market/block.py": [
                (
                    '        Column(name="borrow",',
                    '        Column(name="dividend", volatility="stays", closing="stays"),\n'
                    '        Column(name="borrow",',
                )
            ],
            "market/tape.py": [
                (
                    '        "r_before": before,',
                    '        "r_before": before,\n        "dividend": np.full_like(close, 0.25),',
                )
            ],
        },
        "EnvConfig(episode=episode)",
        '[env.tape.next["dividend"][3, 0]]',
        "0.250000",
        "table dividend",
    ),
    "tape": Patch(
        {
            "market/tape.py": [
                ("    worlds: int = 1\n", "    lag: int = 3\n    worlds: int = 1\n"),
            ]
        },
        "EnvConfig(episode=episode)",
        "[env.tape.lag]",
        "3.000000",
        "tape.lag",
    ),
    # A part of an account, which settling, growing and ruin carry along.
    "account": Patch(
        {
            "env/accounting.py": [
                (
                    "    open_orders: Tensor  # [N, A]  account",
                    "    deposit: Tensor  # [N]\n    open_orders: Tensor  # [N, A]  account",
                ),
                (
                    '    "open_orders": "shares",\n',
                    '    "deposit": "money",\n    "open_orders": "shares",\n',
                ),
            ],
            "env/state.py": [
                (
                    "    open_orders: Tensor  # [N, A]",
                    "    deposit: Tensor\n    open_orders: Tensor  # [N, A]",
                ),
                (
                    "        portfolio=portfolio,",
                    "        portfolio=portfolio,\n        deposit=portfolio.cash / 4.0,",
                ),
            ],
        },
        "EnvConfig(episode=episode)",
        "[env.state.deposit[0] / 1e6]",
        "0.250000",
        "state.deposit",
    ),
    "state": Patch(
        {
            "env/state.py": [
                (
                    "    peak: Tensor  # [N]  highest",
                    "    streak: Tensor  # [N]\n    peak: Tensor  # [N]  highest",
                ),
                (
                    "        peak=portfolio.cash,",
                    "        peak=portfolio.cash,\n"
                    "        streak=torch.zeros_like(portfolio.cash),",
                ),
            ],
            "env/core.py": [
                ("        peak=peak,", "        peak=peak,\n        streak=state.streak + 1.0,")
            ],
        },
        "EnvConfig(episode=episode)",
        "[env.state.streak[0]]",
        "1.000000",
        "state.streak",
    ),
}


def test_a_part_of_an_account_without_a_kind_does_not_compile(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "fastsim", ignore=shutil.ignore_patterns("__pycache__"))
    file = tmp_path / "fastsim" / "env" / "accounting.py"
    old = "    open_orders: Tensor  # [N, A]  account"
    text = file.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, f"    deposit: Tensor\n{old}"))
    result = subprocess.run(
        [sys.executable, "-c", "import fastsim.env.accounting"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode != 0
    assert "every part of an account says what becomes of it" in result.stderr


@pytest.mark.parametrize("kind", PATCHES)
def test_what_is_added_to_the_house_is_right_or_refused_by_name(kind, tmp_path):
    patch = PATCHES[kind]
    shutil.copytree(PACKAGE, tmp_path / "fastsim", ignore=shutil.ignore_patterns("__pycache__"))
    for name, edits in patch.edits.items():
        file = tmp_path / "fastsim" / name
        text = file.read_text()
        for old, new in edits:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        file.write_text(text)
    script = STEPS.replace("RULES", patch.rules, 1).replace("FOUND", patch.found, 1)
    result = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[1]}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    torch, log, auto, numba, triton = result.stdout.splitlines()
    assert torch == auto == f"torch {patch.wanted}"
    assert patch.named in log and log.startswith("environment steps run on torch: ")
    assert numba.startswith('backend "numba" does not cover ') and patch.named in numba
    assert triton.startswith('backend "triton" does not cover ') and patch.named in triton
