"""The sweep of section `step`: which warps and registers its programs are fastest with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from importlib import import_module
from typing import Any

import torch
from common import Row
from gpu_sections.measuring import Bench, Case
from torch import Tensor

from fastsim.env.environment import PortfolioEnv
from fastsim.env.kernels.triton_launch import WARPS, Launch

TRITON = "fastsim.env.kernels.triton_step"
"""Imported when it is wanted: triton is for Linux, and the way through a CPU is not."""
THREADS = 32
"""Of a warp; more warps than lanes fill would do the same work again."""
REGISTERS = (None, 48, 64, 96, 128)
"""Most of them that a thread may have; None leaves it to the compiler."""
KINDS = ("index", "flat6", "players")
PLAYERS = 10
"""Environments that share a market in kind "players", whose observations are as in "index"."""
SHARED = 100
"""Most assets of kind "players": with more, several accounts fit into no program's registers."""
STEPS = 16
"""Of one graph, as the goals have it."""
SECONDS = 0.05
"""Most of a round: with so many settings, compiling takes longest."""

Make = Callable[[Bench, int, str], PortfolioEnv]
"""The environment of so many assets and a kind, on the device's fused step."""


def cases(bench: Bench, make: Make) -> Iterator[Case]:
    """A row for each setting; then, for each number of assets, which was best."""
    if not bench.on_gpu:
        yield Case(
            "sweep", lambda _: {"skipped": "a step on a CPU has no warps or registers to set"}
        )
        return
    for assets in bench.sizes.num_assets:
        name, found = f"sweep {bench.sizes.num_envs:,} x {assets}", list[Row]()
        for kind in KINDS:
            if kind == "players" and assets > SHARED:
                continue
            env = cache(partial(make, bench, assets, kind))
            for warps, registers in settings(assets, kind):
                limit = "" if registers is None else f", {registers} registers"
                measure = partial(setting, env, kind, warps, registers, found)
                yield Case(f"{name} {kind}, warps {warps}{limit}", measure)
        yield Case(f"{name}, best", lambda _, found=found: best(found), always=True)


def settings(assets: int, kind: str) -> Iterator[tuple[int, int | None]]:
    """Warps and registers that are tried, none of which leaves whole warps without a lane."""
    rows = 1 << (PLAYERS - 1).bit_length() if kind == "players" else 1
    lanes = rows * max(1 << (assets - 1).bit_length(), THREADS)
    for warps in WARPS:
        for registers in REGISTERS:
            if warps * THREADS <= lanes:
                yield warps, registers


def setting(
    env: Callable[[], PortfolioEnv],
    kind: str,
    warps: int,
    registers: int | None,
    found: list[Row],
    bench: Bench,
) -> Row:
    """Steps of one graph under this setting, which the row goes to `found` with."""
    triton = import_module(TRITON)
    made, launch = env(), Launch(warps=warps, registers=registers)
    stepper = triton.TritonStepper(made.params, made.state, launch=launch)
    shape = (STEPS, *stepper.action_shape)
    actions = torch.rand(shape, device=made.tape.device)
    replay = replaying(stepper, actions, flat=made.config.observation == "flat")
    brief = replace(bench.sizes, seconds=min(bench.sizes.seconds, SECONDS))
    timing = replace(bench, sizes=brief).time(replay)
    usual = triton.usual_launch(made.params)
    row = {
        "kind": kind,
        "num_envs": made.num_envs,
        "num_assets": made.tape.num_assets,
        "players": made.config.players,
        "graph_steps": STEPS,
        "launch": str(launch),
        "warps": warps,
        "registers": registers,
        "table": launch == usual,
        "registers_used": getattr(stepper.kernel, "n_regs", None),
        "spills": getattr(stepper.kernel, "n_spills", None),
        "env_steps_per_s": round(made.num_envs * STEPS / timing.seconds, 1),
        "step_us": round(1e6 * timing.seconds / STEPS, 3),
        "spread": timing.spread,
    }
    found.append(row)
    return row


def best(found: list[Row]) -> Row:
    """The fastest setting of each kind beside the one that the table has."""
    kinds = list(dict.fromkeys(row["kind"] for row in found))
    told = {kind: _compared([row for row in found if row["kind"] == kind]) for kind in kinds}
    words = [f"{kind}: {each['words']}" for kind, each in told.items()]
    summary = "; ".join(words) or "no setting was measured"
    return {"summary": summary, "best": {kind: told[kind] for kind in kinds}}


def _compared(rows: list[Row]) -> Row:
    """Of rows of one kind the fastest, and how it compares with the table's."""
    fastest = min(rows, key=lambda row: row["step_us"])
    usual = next((row for row in rows if row["table"]), None)
    words = f"{fastest['launch']}, {fastest['step_us']} us"
    told = {"launch": fastest["launch"], "step_us": fastest["step_us"]}
    if usual is None:
        return told | {"words": f"{words} (the table's was not measured)"}
    if usual is fastest:
        return told | {"words": f"{words} (the table's)", "over_table": 1.0}
    ratio = round(usual["step_us"] / fastest["step_us"], 3)
    table = f"the table's {usual['launch']}, {usual['step_us']} us"
    return told | {"words": f"{words}, {ratio} x as fast as {table}", "over_table": ratio}


def replaying(stepper: Any, actions: Tensor, *, flat: bool) -> Callable[[], object]:
    """One replay of `CapturedSteps` by these actions [K, N, W]."""
    steps = import_module(TRITON).CapturedSteps(stepper, len(actions), flat=flat)
    steps.actions.copy_(actions)
    return steps
