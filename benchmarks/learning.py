"""Frames that learning takes in a second of CPU time, over those of another checkout and of SB3.

    git worktree add ../before 0ea6907
    git worktree add ../before-sac 25d3c30    # the other has no SAC
    OMP_NUM_THREADS=1 python benchmarks/learning.py --before ../before --before-sac ../before-sac \
        --peers --train --json benchmarks/results/learning-cpu.json

Each checkout learns by its own code in a process of its own, in turns with this one, and the median
of the ratios of their pairs is reported. A frame is one step of one environment, rollout and all
epochs included; time is that of the process (`time.process_time`), so that what else runs on the
machine counts less, but run it with one thread on a machine that does nothing else.

`--peers` adds Stable-Baselines3's PPO on fastsim's own environments, with two layers of 64, epochs
and minibatches as ours: on `SB3VecEnv` of 1,024, and on a `DummyVecEnv` of 8 that `gymnasium.make`
has made. Needs `fastsim-rl[sb3]`. Its network is its own, actor and critic apart, and sees flat
rows; the results have both counts of weights.

`--train` adds what `fastsim train` costs from beginning to end, in CPU seconds.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import tyro
from before_after import Checkout

HERE = Path(__file__).parent
SERVE = "--serve"
Row = dict[str, Any]
PPO_ENVS = (64, 256, 1024, 4096)
MARKETS, PLAYERS, SAC_ENVS, PEER_ENVS, SINGLE_ENVS, FRAMES = 256, 4, 256, 1024, 8, 16_384
RUN = "from pkgutil import resolve_name; resolve_name({!r})()"
TRAINING = ("train", "--forecaster", "none", "--total-steps", "500000", "--evaluations", "5")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to compare."""

    before: Path
    """Folder of the other checkout."""
    before_sac: Path | None = None
    """Folder of one that has SAC, to compare that with."""
    num_envs: tuple[int, ...] = PPO_ENVS
    algorithms: tuple[str, ...] = ("ppo", "sac", "league")
    num_assets: int = 30
    bars: int = 2500
    pairs: int = 5
    seconds: float = 2.0
    """Least CPU time of a round."""
    peers: bool = False
    peer_iterations: int = 3
    train: bool = False
    train_pairs: int = 3
    json: Path | None = None
    """Also write the results to this file."""


def serve(folder: Path) -> None:
    """Answer questions, a line each, by the code in this folder."""
    sys.path[:0] = [str(folder / "benchmarks"), str(folder)]
    import benchmark_ppo as theirs  # noqa: PLC0415
    import common  # noqa: PLC0415

    advance: Callable[[], object] | None = None
    frames = 0
    for line in sys.stdin:
        question = json.loads(line)
        answer: Any = None
        if "algorithm" in question:
            bars = common.market_bars(question["bars"], question["num_assets"])
            tape = common.market(bars, "cpu")
            made = make(theirs, question["algorithm"], tape, question["num_envs"])
            if made is not None:
                advance, frames = made
                advance()
                advance()  # compiled and warmed up
            answer = made is not None
        else:
            assert advance is not None
            answer = frames_a_cpu_second(advance, frames, question["seconds"])
        print("answer " + json.dumps(answer), flush=True)


def make(theirs: Any, algorithm: str, tape: Any, num_envs: int) -> Any:
    """One iteration of this algorithm as a checkout has it, and its frames; None if it has none."""
    case = theirs.Benchmark()
    if algorithm == "league":
        return league(theirs, case, tape, num_envs)
    if algorithm == "sac":
        try:
            from fastsim.learn.sac.config import SACConfig  # noqa: PLC0415
        except ImportError:
            return None
        collect = theirs.CollectConfig(num_envs=num_envs, rollout_steps=case.rollout_steps)
        size, rules = theirs.PolicyConfig(hidden=case.hidden), rules_of(theirs)
        given = {"algorithm": "sac", "iterations": 1_000_000}
        trainer = theirs.Trainer(tape, rules, SACConfig(), size, collect, **given)
    else:
        trainer = theirs.make_trainer(case, tape, num_envs)
    return trainer.advance, num_envs * case.rollout_steps


def rules_of(theirs: Any, **changes: Any) -> Any:
    """Those of the benchmark of PPO."""
    episode = theirs.EpisodeConfig(staggered=True)
    return theirs.EnvConfig(action="logits", observation="index", episode=episode, **changes)


def league(theirs: Any, case: Any, tape: Any, markets: int) -> Any:
    """One iteration of a learner among past selves and scripted players, and its own frames."""
    from fastsim.env.players import Momentum, Noise  # noqa: PLC0415
    from fastsim.learn.league import LeagueConfig, LeagueEnv, train_league  # noqa: PLC0415

    rules = rules_of(theirs, players=PLAYERS)
    env = theirs.PortfolioEnv(tape, markets * PLAYERS, rules)
    found = LeagueEnv(env, [Momentum(), Noise()], LeagueConfig(snapshot_every=2, keep=2))
    sizes = {"num_envs": markets, "rollout_steps": case.rollout_steps}
    settings = {"epochs": case.epochs, "minibatches": case.minibatches, "target_kl": None}
    size = theirs.PolicyConfig(hidden=case.hidden)
    if hasattr(theirs, "CollectConfig"):
        given = (theirs.PPOConfig(**settings), size, theirs.CollectConfig(**sizes))
    else:  # what belongs to collection was PPO's once
        given = (theirs.PPOConfig(**settings, **sizes), size)
    trainer = theirs.Trainer(tape, found, *given, iterations=1_000_000)
    return lambda: train_league(trainer, found, 1), markets * case.rollout_steps


def frames_a_cpu_second(call: Callable[[], object], frames: int, seconds: float) -> float:
    """Of calls that take so many frames each, for at least so long."""
    started, count = time.process_time(), 0
    while not count or time.process_time() - started < seconds:
        call()
        count += 1
    return count * frames / (time.process_time() - started)


def compare(algorithm: str, num_envs: int, before: Path, options: Options) -> Row | None:
    """Medians of pairs, each side with everything made anew; None where `before` has not got it."""
    sides = [Checkout(folder, __file__) for folder in (before.resolve(), HERE.parent)]
    question = {"algorithm": algorithm, "num_envs": num_envs}
    question |= {"num_assets": options.num_assets, "bars": options.bars}
    try:
        if not all(side.ask(question) for side in sides):
            return None
        pairs = []
        for number in range(options.pairs):
            order = (0, 1) if number % 2 == 0 else (1, 0)
            rates = {each: sides[each].ask({"seconds": options.seconds}) for each in order}
            pairs.append((rates[0], rates[1]))
    finally:
        for side in sides:
            side.close()
    return {
        "algorithm": algorithm,
        "num_envs": num_envs,
        "num_assets": options.num_assets,
        "before": round(median(one for one, _ in pairs), 1),
        "after": round(median(other for _, other in pairs), 1),
        "ratio": round(median(other / one for one, other in pairs), 3),
        "pairs": options.pairs,
    }


def compare_all(options: Options) -> list[Row]:
    """PPO by size, SAC, and the league."""
    cases = [("ppo", num_envs, options.before) for num_envs in options.num_envs]
    cases += [("sac", SAC_ENVS, options.before_sac or options.before)]
    cases += [("league", MARKETS, options.before)]
    rows = []
    for algorithm, num_envs, before in cases:
        if algorithm not in options.algorithms:
            continue
        row = compare(algorithm, num_envs, before, options)
        print(algorithm, num_envs, row and row["ratio"], flush=True)
        if row is not None:
            rows.append({"benchmark": "learning"} | row)
    return rows


def compare_peers(options: Options) -> list[Row]:
    """Stable-Baselines3's PPO on our environments, beside ours."""
    import benchmark_ppo as ours  # noqa: PLC0415
    from common import market, market_bars  # noqa: PLC0415

    tape = market(market_bars(options.bars, options.num_assets), "cpu")
    case = ours.Benchmark()
    trainer = ours.make_trainer(case, tape, PEER_ENVS)
    trainer.advance()
    weights = sum(each.numel() for each in trainer.policy.parameters())
    rows = []
    for kind, num_envs in (("SB3VecEnv", PEER_ENVS), ("DummyVecEnv", SINGLE_ENVS)):
        model = sb3_model(kind, num_envs, tape, case)
        model.learn(FRAMES)
        pairs = []
        for _ in range(options.peer_iterations):
            theirs = frames_a_cpu_second(lambda model=model: model.learn(FRAMES), FRAMES, 0.0)
            own = frames_a_cpu_second(trainer.advance, FRAMES, options.seconds)
            pairs.append((theirs, own))
        rows.append(
            {
                "benchmark": "learning_peers",
                "peer": f"Stable-Baselines3 on {kind}",
                "num_envs": num_envs,
                "weights": sum(each.numel() for each in model.policy.parameters()),
                "frames_per_cpu_s": round(median(one for one, _ in pairs), 1),
                "ours_num_envs": PEER_ENVS,
                "ours_weights": weights,
                "ours_frames_per_cpu_s": round(median(other for _, other in pairs), 1),
                "ratio": round(median(other / one for one, other in pairs), 2),
            }
        )
        print(rows[-1]["peer"], rows[-1]["ratio"], flush=True)
    return rows


def sb3_model(kind: str, num_envs: int, tape: Any, case: Any) -> Any:
    """Its PPO with our widths, epochs, minibatches, and frames an iteration."""
    import gymnasium as gym  # noqa: PLC0415
    from stable_baselines3 import PPO  # noqa: PLC0415
    from stable_baselines3.common.vec_env import DummyVecEnv  # noqa: PLC0415

    import fastsim  # noqa: PLC0415
    from fastsim.adapters.sb3 import SB3VecEnv  # noqa: PLC0415

    rules = {"market": tape, "action": "logits", "episode": {"staggered": True}}
    if kind == "SB3VecEnv":
        env: Any = SB3VecEnv(num_envs, **rules)
    else:
        env = DummyVecEnv([lambda: gym.make(fastsim.ENV_ID, **rules) for _ in range(num_envs)])
    return PPO(
        "MlpPolicy",
        env,
        n_steps=FRAMES // num_envs,
        batch_size=FRAMES // case.minibatches,
        n_epochs=case.epochs,
        policy_kwargs={"net_arch": [case.hidden, case.hidden]},
        device="cpu",
        seed=0,
    )


def compare_training(options: Options) -> Row:
    """CPU seconds of `fastsim train` from beginning to end, checkouts in turns."""
    folders = options.before.resolve(), HERE.parent
    pairs: list[tuple[float, float]] = []
    for number in range(options.train_pairs):
        order = (0, 1) if number % 2 == 0 else (1, 0)
        seconds = {each: cpu_seconds_of_training(folders[each]) for each in order}
        pairs.append((seconds[0], seconds[1]))
    return {
        "benchmark": "learning_train",
        "command": " ".join(("fastsim", *TRAINING)),
        "before_cpu_s": round(median(one for one, _ in pairs), 2),
        "after_cpu_s": round(median(other for _, other in pairs), 2),
        "ratio": round(median(one / other for one, other in pairs), 2),
    }


def cpu_seconds_of_training(folder: Path) -> float:
    """User and system time of one run of the program `fastsim` that this folder has."""
    scripts = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["scripts"]
    with TemporaryDirectory() as runs:
        command = [sys.executable, "-c", RUN.format(scripts["fastsim"]), *TRAINING]
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            command, cwd=runs, env=environment, capture_output=True, text=True, check=False
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{folder}: {done.stderr.strip()}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(options: Options) -> None:
    """Measure what was asked for."""
    from common import header, write  # noqa: PLC0415

    rows = compare_all(options)
    if options.peers:
        rows += compare_peers(options)
    if options.train:
        rows.append(compare_training(options))
    write([header(row["benchmark"], "cpu") | row for row in rows], options.json)


if __name__ == "__main__":
    if sys.argv[1:2] == [SERVE]:
        serve(Path(sys.argv[2]))
    else:
        main(tyro.cli(Options))
