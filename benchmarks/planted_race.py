"""Seconds of training until an agent earns 80 % of what a market with a known best policy holds.

The market is that of `tests/planted.py`: one asset, whose next return a feature reveals, at half a
per cent a trade. After every iteration the agent trades all 2,000 bars without exploration; that
time does not count, and neither do compilation and building the networks. Stable-Baselines3 learns
on the same environment, through `fastsim.adapters.sb3.SB3VecEnv`, with our settings and with its
defaults for everything but what belongs to the task (discount and first exploration).

    python benchmarks/planted_race.py --seeds 5

compares fastsim's own algorithms instead, by the frames that each needs. PPO's settings are those
of the race against the clock: with 64 frames an iteration it takes some 1,500 of them.
"""

from __future__ import annotations

import runpy
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from common import Row, header, seconds_of, write
from torch import Tensor

import fastsim
from fastsim.cli.ending import one_line_errors, read_options
from fastsim.config import require_count
from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.observe import Observation
from fastsim.learn.apg.config import APGConfig
from fastsim.learn.ppo.config import PPOConfig
from fastsim.learn.rollout import CollectConfig
from fastsim.learn.sac.config import SACConfig
from fastsim.learn.trainer import Trainer
from fastsim.policy.spec import PolicyConfig

PLANTED = Path(__file__).parents[1] / "tests" / "planted.py"
Decide = Callable[[Observation], Tensor]
"""From what one portfolio sees to its action [1, width]."""

SHARE, DISCOUNT, TRACE, INITIAL_STD = 0.8, 0.9, 0.9, 1.0
ITERATIONS = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What ours and theirs can have in common."""

    num_envs: int
    rollout_steps: int
    epochs: int
    batch_size: int
    learning_rate: float
    linear: bool
    """The learning rate falls to zero over `ITERATIONS` iterations."""


OURS = Settings(
    num_envs=512, rollout_steps=4, epochs=4, batch_size=512, learning_rate=5e-3, linear=True
)
THEIRS = Settings(
    num_envs=8, rollout_steps=256, epochs=10, batch_size=64, learning_rate=3e-4, linear=False
)


CONTESTANTS: dict[str, tuple[Any, CollectConfig]] = {
    "ppo": (
        PPOConfig(
            epochs=OURS.epochs,
            minibatches=OURS.num_envs * OURS.rollout_steps // OURS.batch_size,
            learning_rate=OURS.learning_rate,
            discount=DISCOUNT,
            trace=TRACE,
        ),
        CollectConfig(num_envs=OURS.num_envs, rollout_steps=OURS.rollout_steps),
    ),
    "sac": (SACConfig(discount=DISCOUNT), CollectConfig(num_envs=64, rollout_steps=4)),
    "apg": (
        APGConfig(discount=DISCOUNT, learning_rate=3e-2),
        CollectConfig(num_envs=8, rollout_steps=4),
    ),
}
"""Settings of fastsim's algorithms, and how much experience an iteration of each begins with."""


class Market:
    """The planted market, and the share of its best log growth that an agent reaches."""

    def __init__(self, device: str = "cpu") -> None:
        planted = runpy.run_path(str(PLANTED))  # the tests' own
        self.rules: EnvConfig = planted["RULES"]
        tape, self.best = planted["planted_tape"](revealing=True)
        self.device, self.tape = device, tape.to(device)

    def share(self, decide: Decide) -> float:
        """Log growth over the whole tape, over the best there is."""
        rules = replace(self.rules, episode=EpisodeConfig(horizon=None, random_start=False))
        env = PortfolioEnv(self.tape, 1, rules)
        seen = env.reset(0)
        for _ in range(self.tape.last - self.tape.first):
            transition = env.step(decide(seen))
            seen = transition.observation
        wealth = transition.outcome.wealth
        return float(torch.log(wealth / env.config.initial_cash)) / self.best


def our_seconds(
    market: Market, seed: int, hidden: int, limit: float, algorithm: str = "ppo"
) -> tuple[float, int]:
    """Seconds and frames until fastsim's agent is there; infinite if it does not get there."""
    trainer = make_trainer(market, seed, hidden, algorithm)
    seconds = 0.0
    while seconds < limit and trainer.iteration < trainer.iterations:
        seconds += seconds_of(trainer.iterate, market.device)
        if market.share(lambda seen: trainer.policy.act(market.tape, seen)) >= SHARE:
            return seconds, trainer.iteration * trainer.frames_per_iteration
    return float("inf"), trainer.iteration * trainer.frames_per_iteration


def make_trainer(market: Market, seed: int, hidden: int, algorithm: str = "ppo") -> Trainer:
    """PPO with the settings `OURS`, or another algorithm with its own."""
    settings, collect = CONTESTANTS[algorithm]
    return Trainer(
        market.tape,
        market.rules,
        settings,
        PolicyConfig(hidden=hidden, initial_std=INITIAL_STD),
        collect,
        algorithm=algorithm,
        iterations=ITERATIONS,
        seed=seed,
    )


def sb3_seconds(
    market: Market, settings: Settings, seed: int, hidden: int, limit: float
) -> tuple[float, int]:
    """Seconds and frames until Stable-Baselines3's PPO is there; infinite if it does not."""
    from stable_baselines3 import PPO  # noqa: PLC0415 - optional
    from stable_baselines3.common.callbacks import BaseCallback  # noqa: PLC0415

    from fastsim.adapters.sb3 import SB3VecEnv  # noqa: PLC0415

    env = SB3VecEnv(
        settings.num_envs, market.tape, config=replace(market.rules, autoreset="same_step")
    )
    model = PPO(
        "MlpPolicy",
        env,
        n_steps=settings.rollout_steps,
        batch_size=settings.batch_size,
        n_epochs=settings.epochs,
        learning_rate=(lambda left: settings.learning_rate * left)
        if settings.linear
        else settings.learning_rate,
        gamma=DISCOUNT,
        gae_lambda=TRACE,
        policy_kwargs={"net_arch": [hidden, hidden], "log_std_init": 0.0},
        device=market.device,
        seed=seed,
    )

    def decide(seen: Observation) -> Tensor:
        action, _ = model.predict(env.env.columns(seen).numpy(force=True), deterministic=True)
        return torch.from_numpy(action).to(market.device)

    class Clock(BaseCallback):
        """Stops between iterations to look whether the agent is there."""

        def __init__(self) -> None:
            super().__init__()
            self.seconds, self.there, self.started = 0.0, False, None

        def _on_rollout_start(self) -> None:
            if self.started is not None:
                self.seconds += time.perf_counter() - self.started
                self.there = market.share(decide) >= SHARE
            self.started = time.perf_counter()

        def _on_step(self) -> bool:
            return not self.there and self.seconds < limit

    clock = Clock()
    frames = settings.num_envs * settings.rollout_steps
    iterations = ITERATIONS if settings.linear else 10 * ITERATIONS
    model.learn(iterations * frames, callback=clock)
    used = model.num_timesteps // frames * frames
    return clock.seconds if clock.there else float("inf"), used


def race(seeds: Iterable[int], *, hidden: int, limit: float, device: str = "cpu") -> list[Row]:
    """Medians over seeds: one row for Stable-Baselines3 as we set it, one as it comes."""
    import stable_baselines3  # noqa: PLC0415 - optional

    market = Market(device)
    make_trainer(market, 0, hidden).iterate()  # compiles
    peers = {"our settings": OURS, "its defaults": THEIRS}
    ours, theirs = [], {name: [] for name in peers}
    for seed in seeds:
        ours.append(our_seconds(market, seed, hidden, limit))
        for name, settings in peers.items():
            theirs[name].append(sb3_seconds(market, settings, seed, hidden, limit))
    seconds, frames = _medians(ours)
    rows = []
    for name, settings in peers.items():
        taken, used = _medians(theirs[name])
        row: dict[str, Any] = {
            "peer": f"Stable-Baselines3, {name}",
            "version": stable_baselines3.__version__,
            "fastsim": fastsim.__version__,
            "hidden": hidden,
            "num_envs": settings.num_envs,
            "rollout_steps": settings.rollout_steps,
            "epochs": settings.epochs,
            "batch_size": settings.batch_size,
            "share_of_best": SHARE,
            "seeds": len(ours),
            "limit_s": limit,
            "seconds": taken,
            "frames": used,
            "ours_seconds": seconds,
            "ours_frames": frames,
            "ratio": None if taken is None or seconds is None else round(taken / seconds, 2),
        }
        rows.append(row)
    return rows


def compare(seeds: Iterable[int], *, hidden: int, limit: float, device: str = "cpu") -> list[Row]:
    """Medians over seeds of fastsim's own algorithms: a row for each."""
    market = Market(device)
    seeds, medians = list(seeds), {}
    for name in CONTESTANTS:
        make_trainer(market, 0, hidden, name).iterate()  # compiles
        medians[name] = _medians([our_seconds(market, seed, hidden, limit, name) for seed in seeds])
    return [
        {
            "algorithm": name,
            "fastsim": fastsim.__version__,
            "hidden": hidden,
            "num_envs": CONTESTANTS[name][1].num_envs,
            "rollout_steps": CONTESTANTS[name][1].rollout_steps,
            "share_of_best": SHARE,
            "seeds": len(seeds),
            "seconds": seconds,
            "frames": frames,
            "ppo_frames": medians["ppo"][1],
        }
        for name, (seconds, frames) in medians.items()
    ]


def _medians(runs: list[tuple[float, int]]) -> tuple[float | None, int]:
    """Medians of seconds and frames; no seconds if half of the runs or more did not get there."""
    seconds = statistics.median(seconds for seconds, _ in runs)
    frames = int(statistics.median(frames for _, frames in runs))
    return None if seconds == float("inf") else round(seconds, 3), frames


@dataclass(frozen=True, kw_only=True)
class Race:
    """How the algorithms are compared."""

    device: str = "cpu"
    seeds: int = 5
    hidden: int = 64
    limit: float = 60.0
    """Seconds of training after which an agent has failed."""
    json: Path | None = None
    """Also write the results to this file."""


def main(case: Race) -> None:
    """Compare, and say how many frames each took."""
    require_count("--seeds", case.seeds)
    rows = compare(range(case.seeds), hidden=case.hidden, limit=case.limit, device=case.device)
    for row in rows:
        print(f"{row['algorithm']:4} {row['frames']:>8,} frames  {row['seconds']} s")
    write([header("planted_algorithms", case.device) | row for row in rows], case.json)


if __name__ == "__main__":
    with one_line_errors("planted_race", Race):
        main(read_options(Race))
