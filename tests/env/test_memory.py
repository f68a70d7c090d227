"""How much memory a large market takes, and that it takes no more as time goes by."""

import gc
import subprocess
import sys

import pytest
import torch
from worlds import SHORT_FEATURES, random_bars

from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.impact import ImpactConfig
from fastsim.market.tape import TapeConfig, make_tape

CODE = """
import os, re
import numpy as np
import torch
from fastsim.adapters.build import build_env
from fastsim.env.config import EnvConfig
from fastsim.forecast.windows import context_at
from fastsim.data.bars import Bars

def resident():
    with open("/proc/self/status") as status:
        return int(re.search(r"VmRSS:\\s+(\\d+) kB", status.read())[1]) / 1024

def bars(length, assets):
    close = 50.0 * np.exp(np.cumsum(np.random.default_rng(0).normal(0, 0.01, (length, assets)), 0))
    days = np.busday_offset("2010-01-01", np.arange(length), roll="forward")
    return Bars(
        symbols=tuple(f"S{number}" for number in range(assets)),
        timestamps=days.astype("datetime64[ns]"),
        close=close, open=close, high=close, low=close, volume=np.full_like(close, 1e6),
    )

torch.set_num_threads(1)
start = resident()
env = build_env(4096, bars(2500, 100), autoreset="{autoreset}", backend="numba")
env.reset(0)
action, early = torch.rand(4096, 100), 0.0
for step in range(250):
    transition = env.step(action)
    assert env.columns(transition.observation).shape == (4096, len(env.observation_names))
    if 50 <= step < 60:  # the allocator may give back the memory of every other step
        early = max(early, resident())
assert bool(torch.isfinite(transition.reward).all())
late = resident()
context = context_at(env.tape, slice(1000, 1001), 512)
assert context.bars.shape == (100, 512, 6)
print(max(early, late, resident()) - start, late - early)
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("autoreset", ["next_step", "same_step"])
def test_thousands_of_environments_fit_in_a_gigabyte_and_stay_there(autoreset):
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", CODE.replace("{autoreset}", autoreset)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    taken, grown = map(float, result.stdout.split())
    assert taken < 1000, f"{taken:.0f} MB resident"
    assert grown < 5, f"{grown:.1f} MB more after a million steps"


@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("impact", [0.0, 1.0])
def test_a_step_leaves_nothing_for_the_garbage_collector(backend, impact):
    """What refers to itself would keep its tensors until the collector comes by."""
    tape = make_tape(random_bars(60, 3), TapeConfig(features=SHORT_FEATURES))
    rules = EnvConfig(
        players=2, impact=ImpactConfig(transient=impact), episode=EpisodeConfig(horizon=4)
    )
    env = PortfolioEnv(tape, 4, rules, backend=backend)
    env.reset(0)
    action = torch.full((4, 3), 0.2)
    env.step(action)
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            env.step(action)
        assert gc.collect() == 0
    finally:
        gc.enable()
