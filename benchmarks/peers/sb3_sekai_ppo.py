"""Stable-Baselines3's PPO on sekai: sb3_sekai_ppo.py PRICES.npz EPOCHS BATCH_SIZE ITERATIONS.

Eight environments of 256 steps an iteration and two hidden layers of 64. An EPOCHS of 0 takes its
own defaults, 10 epochs of minibatches of 64. The first iteration warms up and is not counted.
"""

import json
import sys
import time

import numpy as np
import sekai
import stable_baselines3
from sekai.compat import to_gymnasium
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

NUM_ENVS, STEPS, HIDDEN, LOOKBACK = 8, 256, 64, 20


class RolloutClock(BaseCallback):
    """Seconds spent in rollouts."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = self.started = 0.0

    def _on_rollout_start(self) -> None:
        self.started = time.perf_counter()

    def _on_rollout_end(self) -> None:
        self.seconds += time.perf_counter() - self.started

    def _on_step(self) -> bool:
        return True


def main(path: str, epochs: int, batch_size: int, iterations: int) -> None:
    """Measure and print one JSON object."""
    prices = np.load(path)["close"]
    settings = {"n_epochs": epochs, "batch_size": batch_size} if epochs else {}
    env = make_vec_env(
        lambda: to_gymnasium(sekai.make("Portfolio-v0", prices=prices, lookback=LOOKBACK)), NUM_ENVS
    )
    layers = {"net_arch": [HIDDEN, HIDDEN]}
    model = PPO(
        "MultiInputPolicy",
        env,
        n_steps=STEPS,
        policy_kwargs=layers,
        device="cpu",
        seed=0,
        **settings,
    )
    frames = NUM_ENVS * STEPS
    model.learn(frames)
    clock = RolloutClock()
    started = time.perf_counter()
    model.learn(iterations * frames, callback=clock)
    elapsed = time.perf_counter() - started
    answer = {
        "peer": "Stable-Baselines3 on sekai",
        "version": f"{stable_baselines3.__version__} on {sekai.__version__}",
        "num_envs": NUM_ENVS,
        "rollout_steps": STEPS,
        "num_assets": prices.shape[1],
        "observation_width": (LOOKBACK + 1) * prices.shape[1] + 1,
        "hidden": HIDDEN,
        "epochs": model.n_epochs,
        "batch_size": model.batch_size,
        "precision": "float32",
        "rollout_steps_per_s": round(iterations * frames / clock.seconds, 1),
        "train_frames_per_s": round(iterations * frames / elapsed, 1),
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
