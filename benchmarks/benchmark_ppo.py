"""PPO, frames per second: a table for people, then one JSON object a line.

    python benchmarks/benchmark_ppo.py --num-assets 30 --num-envs 1024
    python benchmarks/benchmark_ppo.py --peers --planted --json benchmarks/results/ppo-cpu.json
    python benchmarks/benchmark_ppo.py --device cuda --json benchmarks/results/ppo-h100.json

A frame is one step of one environment. Apart from one another: the environment alone, with fixed
actions; the rollout, in which the policy acts and everything is kept for learning; and whole
iterations of training, rollout and all epochs included (no early end by `target_kl`). Each is
warmed up, which is reported on its own, and the median round counts. On a GPU rollouts and updates
are replayed as graphs; a line says whether they were.

`--peers` adds Stable-Baselines3's PPO on sekai, in an environment of its own, with its default 10
epochs of minibatches of 64 and again with as many epochs and minibatches as ours: same bars, same
width of what is observed (ours 633, theirs 631 numbers), same hidden layers, in turns with ours.

`--planted` measures seconds of training until the agent earns 80 % of what can be earned in the
market of `tests/planted.py`, where a feature reveals the next return, against Stable-Baselines3 on
the same environment: see `planted_race.py`. Needs `fastsim-rl[sb3]`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from common import (
    Rate,
    Row,
    header,
    market,
    market_bars,
    median,
    seconds_of,
    spread,
    stepping,
    take_turns,
    write,
)
from peers.environments import SB3_ON_SEKAI, PeerError, ask
from planted_race import race
from rich.console import Console
from rich.table import Table

import fastsim
from fastsim.capture import captured
from fastsim.cli.ending import one_line_errors, read_options
from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.kernels.choose import Backend
from fastsim.env.nested import flatten
from fastsim.learn.ppo.config import PPOConfig
from fastsim.learn.ppo.update import matmul_precision
from fastsim.learn.rollout import CollectConfig, collect
from fastsim.learn.trainer import Trainer
from fastsim.market.tape import MarketTape
from fastsim.policy.spec import PolicyConfig

PEER_ASSETS, EXTRA_FEATURES = 30, 11


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What to measure."""

    device: str = "cpu"
    backend: Backend = "auto"
    num_envs: tuple[int, ...] = (1, 64, 1024, 4096, 16384)
    num_assets: tuple[int, ...] = (30, 100, 500)
    rollout_steps: int = 16
    hidden: int = 64
    epochs: int = 4
    minibatches: int = 4
    precision: str = "float32"
    bars: int = 2500
    rounds: int = 3
    seconds: float = 1.0
    """Least length of a round."""
    peers: bool = False
    peer_envs: int = 1024
    """Of ours, beside the peer's 8."""
    peer_iterations: int = 3
    planted: bool = False
    planted_seeds: int = 3
    planted_limit: float = 120.0
    """Seconds of training after which an agent has failed."""
    json: Path | None = None
    """Also write the results to this file."""


def make_trainer(
    case: Benchmark, tape: MarketTape, num_envs: int, *, capture: bool = True
) -> Trainer:
    """PPO that never ends an iteration early."""
    rules = EnvConfig(action="logits", observation="index", episode=EpisodeConfig(staggered=True))
    settings = PPOConfig(
        epochs=case.epochs,
        minibatches=case.minibatches,
        precision=case.precision,
        target_kl=None,
    )
    return Trainer(
        tape,
        PortfolioEnv(tape, num_envs, rules, backend=case.backend),
        settings,
        PolicyConfig(hidden=case.hidden),
        CollectConfig(num_envs=num_envs, rollout_steps=case.rollout_steps),
        iterations=1_000_000,
        capture=capture,
    )


def training(trainer: Trainer, seconds: float) -> Rate:
    """Rounds of whole iterations; each returns frames per second."""
    return _repeated(trainer.iterate, trainer, seconds)


def rolling_out(trainer: Trainer, seconds: float) -> Rate:
    """Rounds of rollouts that nothing is learnt from; each returns steps per second.

    Where there are graphs each is one, as it is in training.
    """
    env, learner, generator = trainer.env, trainer.algorithm, trainer.course.generator

    def roll_out() -> None:
        with matmul_precision(learner.config, generator.device):
            collect(env, trainer.policy, learner.table, learner.rollout, generator)

    if trainer.course.capture and env.capturable:
        changed = [*flatten(env.stepper.state), *flatten(learner.rollout)]
        roll_out = captured(roll_out, changed, generator.device, generator)
    return _repeated(roll_out, trainer, seconds)


def _repeated(call: Callable[[], object], trainer: Trainer, seconds: float) -> Rate:
    device, frames = str(trainer.env.tape.device), trainer.frames_per_iteration
    count = max(1, round(seconds / seconds_of(call, device)))

    def calls() -> None:
        for _ in range(count):
            call()

    return lambda: count * frames / seconds_of(calls, device)


def measure(case: Benchmark, tape: MarketTape, num_envs: int) -> Row:
    """Environment, rollout and training of one size."""
    started = time.perf_counter()
    trainer = make_trainer(case, tape, num_envs)
    trainer.iterate()
    warm_up = time.perf_counter() - started
    env = PortfolioEnv(tape, num_envs, trainer.env.config, backend=case.backend)
    rates = {
        "env": stepping(env, case.seconds),
        "rollout": rolling_out(trainer, case.seconds),
        "train": training(trainer, case.seconds),
    }
    measured = take_turns(rates, case.rounds)
    return header("ppo", case.device) | {
        "backend": trainer.env.stepper.name,
        "num_envs": num_envs,
        "rollout_steps": case.rollout_steps,
        "num_assets": tape.num_assets,
        "num_features": len(tape.feature_names),
        "hidden": case.hidden,
        "epochs": case.epochs,
        "minibatches": case.minibatches,
        "precision": case.precision,
        "captured": trainer.course.capture and trainer.env.capturable,
        "env_steps_per_s": median(measured["env"]),
        "rollout_steps_per_s": median(measured["rollout"]),
        "train_frames_per_s": median(measured["train"]),
        "spread": spread(measured["train"]),
        "warm_up_s": round(warm_up, 3),
    }


def measure_grid(case: Benchmark) -> list[Row]:
    """Every combination; sizes with fewer samples than minibatches are left out."""
    rows = []
    for assets in case.num_assets:
        tape = market(market_bars(case.bars, assets), case.device)
        rows += [
            measure(case, tape, num_envs)
            for num_envs in case.num_envs
            if num_envs * case.rollout_steps >= case.minibatches
        ]
    return rows


def measure_peers(case: Benchmark) -> list[Row]:
    """Stable-Baselines3 on sekai, as it comes and with our epochs and minibatches."""
    bars = market_bars(case.bars, PEER_ASSETS)
    trainer = make_trainer(
        case, market(bars, case.device, extra_features=EXTRA_FEATURES), case.peer_envs
    )
    trainer.iterate()
    ours, rollout = training(trainer, case.seconds), rolling_out(trainer, case.seconds)
    batch_size = 8 * 256 // case.minibatches
    rows = []
    with TemporaryDirectory() as folder:
        path = Path(folder) / "prices.npz"
        np.savez(path, close=bars.close)
        for settings in ((0, 0), (case.epochs, batch_size)):
            answers: list[Row] = []

            def theirs(settings: tuple[int, int] = settings, answers: list[Row] = answers) -> float:
                answers.append(ask(SB3_ON_SEKAI, path, *settings, case.peer_iterations))
                return float(answers[-1]["train_frames_per_s"])

            try:
                rates = take_turns({"peer": theirs, "ours": ours, "rollout": rollout}, case.rounds)
            except PeerError as error:
                failed = {"peer": SB3_ON_SEKAI.name, "version": SB3_ON_SEKAI.version}
                rows.append(header("ppo_peers", case.device) | failed | {"error": str(error)})
                continue
            own, rate = median(rates["ours"]), median(rates["peer"])
            rows.append(
                header("ppo_peers", case.device)
                | {"fastsim": fastsim.__version__}
                | answers[-1]
                | {
                    "rollout_steps_per_s": median(
                        [answer["rollout_steps_per_s"] for answer in answers]
                    ),
                    "train_frames_per_s": rate,
                    "ours_num_envs": case.peer_envs,
                    "ours_epochs": case.epochs,
                    "ours_rollout_steps_per_s": median(rates["rollout"]),
                    "ours_train_frames_per_s": own,
                    "ours_spread": spread(rates["ours"]),
                    "ratio": round(own / rate, 2),
                }
            )
    return rows


def print_table(rows: list[Row]) -> None:
    """The grid for people."""
    table = Table("assets", "environments", "env, steps/s", "rollout, steps/s", "train, frames/s")
    for row in rows:
        names = ("env_steps_per_s", "rollout_steps_per_s", "train_frames_per_s")
        rates = [f"{row[name]:,.0f}" for name in names]
        table.add_row(str(row["num_assets"]), f"{row['num_envs']:,}", *rates)
    Console(width=100).print(table)


def main(case: Benchmark) -> None:
    """Measure everything that was asked for."""
    rows = measure_grid(case)
    print_table(rows)
    for wanted, compare in ((case.peers, measure_peers), (case.planted, measure_planted)):
        if wanted:
            compared = compare(case)
            for row in compared:
                print(row.get("peer"), row.get("error") or f"{row['ratio']} x")
            rows += compared
    write(rows, case.json)


def measure_planted(case: Benchmark) -> list[Row]:
    """Seconds to 80 % of what the planted market holds: a row for each peer."""
    seeds = range(case.planted_seeds)
    return [
        header("ppo_planted", case.device) | row
        for row in race(seeds, hidden=case.hidden, limit=case.planted_limit, device=case.device)
    ]


if __name__ == "__main__":
    with one_line_errors("benchmark_ppo", Benchmark):
        main(read_options(Benchmark))
