"""Steps per second of gym-trading-env: gym_trading_env_env.py PRICES.npz NUM_ENVS SECONDS.

It steps one environment and trades one asset, here the first; 629 features and its own two make an
observation of 631 numbers.
"""

import json
import sys
import time
from importlib.metadata import version

import numpy as np
import pandas as pd

FEATURES, WARM_UP = 629, 50


def frame(closes: np.ndarray) -> pd.DataFrame:
    """Closes [T] and random features."""
    features = np.random.default_rng(0).normal(size=(len(closes), FEATURES))
    return pd.DataFrame(
        np.column_stack([closes, features]),
        columns=["close", *(f"feature_{number}" for number in range(FEATURES))],
        index=pd.date_range("2010-01-01", periods=len(closes)),
    )


def main(path: str, seconds: float) -> None:
    """Measure and print one JSON object."""
    from gym_trading_env.environments import TradingEnv  # noqa: PLC0415 - it makes warnings errors

    env = TradingEnv(
        df=frame(np.load(path)["close"][:, 0]),
        positions=[0, 0.5, 1],
        trading_fees=1e-3,
        verbose=0,
    )
    actions = np.random.default_rng(0).integers(3, size=64).tolist()
    observation, _ = env.reset(seed=0)
    for step in range(WARM_UP):
        env.step(actions[step % 64])
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        _, _, terminated, truncated, _ = env.step(actions[count % 64])
        count += 1
        if terminated or truncated:
            env.reset()
    elapsed = time.perf_counter() - started
    answer = {
        "peer": "gym-trading-env",
        "version": version("gym-trading-env"),
        "num_envs": 1,
        "num_assets": 1,
        "observation_width": len(observation),
        "env_steps_per_s": round(count / elapsed, 1),
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[3]))
