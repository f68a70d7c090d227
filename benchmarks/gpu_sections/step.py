"""Sections `step` and `policy`: environment steps, one call after another and as graphs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from benchmark_env import Benchmark, floor_bytes, make_agent, make_env
from common import Row, in_one_graph, market, market_bars, one_step
from gpu_sections.measuring import Bench, Case

from fastsim.env.environment import PortfolioEnv

KINDS = ("index", "flat", "flat6")
FEATURES = 6
"""Of an asset in flat6, as the goal has it; flat has all of the tape's own."""


def step_cases(bench: Bench) -> Iterator[Case]:
    """The environment alone, with fixed actions."""
    yield from _cases(bench, KINDS, acts=False)


def policy_cases(bench: Bench) -> Iterator[Case]:
    """With a policy that decides on every observation."""
    yield from _cases(bench, KINDS[:2], acts=True)


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
    case = Benchmark(device=bench.device)
    env = make_env(case, tape, bench.sizes.num_envs, "index" if kind == "index" else "flat", "auto")
    env.reset(0)
    return env


def eager(assets: int, kind: str, acts: bool, bench: Bench) -> Row:
    """One call after another, each of them launched by the host."""
    env = made(bench, assets, kind)
    timing = bench.time(one_step(env, make_agent(env, bench.sizes.hidden) if acts else None))
    return _row(bench, env, timing.seconds, timing.spread, timing.warm_up)


def graph(assets: int, kind: str, acts: bool, steps: int, bench: Bench) -> Row:
    """As many steps as one CUDA graph; a row that says why not, where there are none."""
    if not bench.on_gpu:
        return {"skipped": "CUDA graphs need a GPU"}
    env = made(bench, assets, kind)
    step = one_step(env, make_agent(env, bench.sizes.hidden) if acts else None)
    timing = bench.time(in_one_graph(env, step, steps))
    return _row(bench, env, timing.seconds / steps, timing.spread, timing.warm_up)


def _row(bench: Bench, env: PortfolioEnv, seconds: float, apart: float, warm_up: float) -> Row:
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
