"""Sections `step` and `policy`: environment steps, one call after another and as graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from benchmark_env import Benchmark, floor_bytes, make_agent, make_env
from benchmark_ppo import Benchmark as Learning
from benchmark_ppo import make_trainer, rolling_out
from common import Row, in_one_graph, market, market_bars, median, one_step, spread
from gpu_sections import sweep as sweeping
from gpu_sections.measuring import Bench, Case

from fastsim.env.environment import PortfolioEnv

KINDS = ("index", "flat", "flat6")
FEATURES = 6
"""Of an asset in flat6, as the goal has it; flat has all of the tape's own."""


def step_cases(bench: Bench, sweep: bool = False) -> Iterator[Case]:
    """The environment alone, with fixed actions; then the `sweep`, if it is asked for."""
    yield from _cases(bench, KINDS, acts=False)
    if sweep:
        yield from sweeping.cases(bench, made)


def policy_cases(bench: Bench) -> Iterator[Case]:
    """With a policy that decides on every observation; then rollouts as PPO has them."""
    yield from _cases(bench, KINDS[:2], acts=True)
    sizes = bench.sizes
    for assets in sizes.num_assets:
        steps = max(sizes.graph_steps)
        name = f"policy {sizes.num_envs:,} x {assets}, rollout of {steps}"
        yield Case(name, partial(rollout, assets, steps))


def _cases(bench: Bench, kinds: tuple[str, ...], acts: bool) -> Iterator[Case]:
    sizes, begins = bench.sizes, "policy" if acts else "step"
    for assets in sizes.num_assets:
        for kind in kinds:
            name = f"{begins} {sizes.num_envs:,} x {assets} {kind}"
            yield Case(f"{name}, eager", partial(eager, assets, kind, acts))
            for steps in sizes.graph_steps:
                measured = partial(graph, assets, kind, acts, steps)
                yield Case(f"{name}, graph of {steps}", measured)


def made(bench: Bench, assets: int, kind: str) -> PortfolioEnv:
    """The environment that is measured, on the device's fused step."""
    tape = market(market_bars(bench.sizes.bars, assets), bench.device)
    if kind == "flat6":
        names = tape.feature_names[:FEATURES]
        kept = tape.known.features[..., : len(names)].contiguous()
        known = tape.known._replace(features=kept)
        tape = replace(tape, known=known, feature_names=names, rising=())
    players = sweeping.PLAYERS if kind == "players" else 1
    case = Benchmark(device=bench.device, players=players)
    num_envs = bench.sizes.num_envs // players * players
    env = make_env(case, tape, num_envs, "flat" if kind.startswith("flat") else "index", "auto")
    env.reset(0)
    return env


def eager(assets: int, kind: str, acts: bool, bench: Bench) -> Row:
    """One call after another, each of them launched by the host."""
    env = made(bench, assets, kind)
    timing = bench.time(one_step(env, make_agent(env, bench.sizes.hidden) if acts else None))
    return described(bench, env, timing.seconds, timing.spread, timing.warm_up)


def graph(assets: int, kind: str, acts: bool, steps: int, bench: Bench) -> Row:
    """As many steps as one graph; one after another where nothing records them."""
    env = made(bench, assets, kind)
    if acts:
        step = one_step(env, make_agent(env, bench.sizes.hidden))
        timing = bench.time(in_one_graph(env, step, steps))
    else:
        timing = bench.time(captured_steps(env, steps))
    row = described(bench, env, timing.seconds / steps, timing.spread, timing.warm_up)
    return row | {"graph_steps": steps, "captured": env.capturable}


def captured_steps(env: PortfolioEnv, steps: int) -> Callable[[], object]:
    """K steps by actions of their own, their results kept apart: one replay of `CapturedSteps`."""
    actions = torch.rand(steps, env.num_envs, env.action_width, device=env.tape.device)
    if env.capturable:
        return sweeping.replaying(env.stepper, actions, flat=env.config.observation == "flat")

    def one_by_one() -> None:
        for action in actions:
            env.step(action)

    return one_by_one


def rollout(assets: int, steps: int, bench: Bench) -> Row:
    """Rollouts of PPO's policy, as they are in training: one graph, where there are graphs."""
    sizes = bench.sizes
    case = Learning(device=bench.device, hidden=sizes.hidden, rollout_steps=steps)
    tape = market(market_bars(sizes.bars, assets), bench.device)
    trainer = make_trainer(case, tape, sizes.num_envs)
    roll = rolling_out(trainer, sizes.seconds)
    rates = [roll() for _ in range(sizes.rounds)]
    return {
        "backend": trainer.env.stepper.name,
        "num_envs": sizes.num_envs,
        "num_assets": assets,
        "hidden": sizes.hidden,
        "rollout_steps": steps,
        "captured": trainer.course.capture and trainer.env.capturable,
        "env_steps_per_s": median(rates),
        "step_us": round(1e6 * sizes.num_envs / median(rates), 3),
        "spread": spread(rates),
    }


def described(bench: Bench, env: PortfolioEnv, seconds: float, apart: float, warm_up: float) -> Row:
    """A row of steps that took so many seconds each."""
    rate, bytes_moved = env.num_envs / seconds, floor_bytes(env)
    return {
        "backend": env.stepper.name,
        "num_envs": env.num_envs,
        "num_assets": env.tape.num_assets,
        "num_features": len(env.tape.feature_names),
        "observation": env.config.observation,
        "observation_width": len(env.observation_names),
        "env_steps_per_s": round(rate, 1),
        "step_us": round(1e6 * seconds, 3),
        "spread": apart,
        "warm_up_s": round(warm_up, 3),
        "floor_bytes_per_step": round(bytes_moved, 1),
        "share_of_bandwidth": round(rate * bytes_moved / bench.bandwidth, 4),
    }
