"""Steps per second of sekai's Portfolio-v0: sekai_env.py PRICES.npz NUM_ENVS SECONDS.

NUM_ENVS = 0 is `sekai.make`, one environment; otherwise `sekai.make_vec`. Twenty bars of 30 assets
and 31 weights: 631 numbers are observed. Whole episodes of 252 steps are counted, with the reset of
all environments at their end, and once more without it.
"""

import json
import sys
import time

import numpy as np
import sekai

LOOKBACK, WARM_UP, EPISODE = 20, 10, 252


def main(path: str, num_envs: int, seconds: float) -> None:
    """Measure and print one JSON object."""
    prices = np.load(path)["close"]
    if num_envs:
        env = sekai.make_vec("Portfolio-v0", num_envs=num_envs, prices=prices, lookback=LOOKBACK)
    else:
        env = sekai.make("Portfolio-v0", prices=prices, lookback=LOOKBACK)
    shape = (num_envs, prices.shape[1] + 1) if num_envs else (prices.shape[1] + 1,)
    actions = np.random.default_rng(0).random((8, *shape), dtype=np.float32)
    env.reset(seed=0)
    for step in range(WARM_UP):
        env.step(actions[step % 8])
    env.reset(seed=0)
    episodes, elapsed, resetting = 0, 0.0, 0.0
    while elapsed < seconds:
        started = time.perf_counter()
        for step in range(EPISODE - 1):
            env.step(actions[step % 8])
        before_last = time.perf_counter()
        env.step(actions[0])  # many environments reset themselves in this step
        if not num_envs:
            env.reset()
        ended = time.perf_counter()
        episodes += 1
        elapsed += ended - started
        resetting += ended - before_last
    steps = episodes * max(num_envs, 1)
    answer = {
        "peer": "sekai",
        "version": sekai.__version__,
        "num_envs": max(num_envs, 1),
        "num_assets": prices.shape[1],
        "observation_width": (LOOKBACK + 1) * prices.shape[1] + 1,
        "env_steps_per_s": round(steps * EPISODE / elapsed, 1),
        "without_resets_steps_per_s": round(steps * (EPISODE - 1) / (elapsed - resetting), 1),
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
