"""Steps per second of TorchTrade's vectorized environment: torchtrade_env.py PRICES.npz N SECONDS.

One asset, windows of ten bars of its five columns and six numbers of the account: 56 in all. One
thread; CPU seconds of the process count. Episodes of 252 steps begin at random bars and are reset
where they end, as TorchRL's collectors do; once more its own step is counted alone. Actions stay
the same, as ours do, which it takes for leave to hold.
"""

import importlib.util
import json
import sys
import time
import types
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import pandas as pd
import torch

WINDOW, WARM_UP, EPISODE = 10, 10, 252


def without_brokers(*names: str) -> None:
    """Let packages be found without what they import at once: exchanges and their clients."""
    for name in names:
        found = importlib.util.find_spec(name)
        package = types.ModuleType(name)
        package.__path__ = list(found.submodule_search_locations)
        sys.modules[name] = package


def frame(closes: np.ndarray) -> pd.DataFrame:
    """Hourly bars around closes [T]."""
    opens = np.concatenate([closes[:1], closes[:-1]])
    return pd.DataFrame(
        {
            "timestamp": pd.date_range("2010-01-01", periods=len(closes), freq="h"),
            "open": opens,
            "high": np.maximum(opens, closes) * 1.002,
            "low": np.minimum(opens, closes) * 0.998,
            "close": closes,
            "volume": np.random.default_rng(0).uniform(1e5, 1e6, len(closes)),
        }
    )


def main(path: str, num_envs: int, seconds: float) -> None:
    """Measure and print one JSON object."""
    torch.set_num_threads(1)
    without_brokers("torchtrade", "torchtrade.envs", "torchtrade.envs.offline")
    from torchtrade.envs.offline import vectorized_sequential as theirs  # noqa: PLC0415

    config = theirs.VectorizedSequentialTradingEnvConfig(
        num_envs=num_envs,
        window_sizes=WINDOW,
        transaction_fee=1e-4,
        max_traj_length=EPISODE,
        action_levels=[0, 0.5, 1],
    )
    env = theirs.VectorizedSequentialTradingEnv(frame(np.load(path)["close"][:, 0]), config)
    state = env.reset()
    width = sum(state[key][0].numel() for key in env.observation_spec)
    action = torch.randint(3, (num_envs,), generator=torch.Generator().manual_seed(0))

    def step() -> None:
        nonlocal state
        state["action"] = action
        _, state = env.step_and_maybe_reset(state)

    def bare_step() -> None:
        nonlocal state
        state = env._step(state.set("action", action))

    def rate(take: Callable[[], None]) -> float:
        for _ in range(WARM_UP):
            take()
        count, started = 0, time.process_time()
        while time.process_time() - started < seconds:
            take()
            count += 1
        return round(count * num_envs / (time.process_time() - started), 1)

    answer = {
        "peer": "TorchTrade",
        "version": version("torchtrade"),
        "num_envs": num_envs,
        "num_assets": 1,
        "observation_width": width,
        "env_steps_per_s": rate(step),
        "without_resets_steps_per_s": rate(bare_step),
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
