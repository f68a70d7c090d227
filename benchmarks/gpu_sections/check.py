"""Section `check`: whether what runs on the device is right.

The tests marked `gpu`, each module in a process of its own; a captured run against an eager one;
and the fused step of the device against the reference on the same tensors.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from benchmark_ppo import Benchmark, make_trainer
from common import Row, market, market_bars
from gpu_sections.measuring import Bench, Case

from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig

ROOT = Path(__file__).parents[2]
AT_ONCE = 4
"""Modules of tests that run side by side."""
LONGEST = 300.0
"""Seconds after which a module of tests is given up."""
ITERATIONS, STEPS = 4, 100
SAME = 1e-4
"""Difference of parameters after `ITERATIONS`: libraries may choose other kernels in a graph."""
CLOSE = 1e-5
"""Relative difference of wealth between two float32 steppers after `STEPS` steps."""
FAILED, NO_TESTS = 1, 5
"""Exit status of pytest where a test failed, and where none was chosen."""


def cases(bench: Bench, files: tuple[Path, ...] = ()) -> Iterator[Case]:
    """A row for each module of tests, then what is compared here."""
    files = files or gpu_modules()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        running = {path: pool.submit(run_tests, path) for path in files}
        for path, answer in running.items():
            yield Case(f"tests {path.name}", lambda _, answer=answer: answer.result())
    yield Case("captured against eager", captured_against_eager)
    for action in ("weights", "logits"):
        yield Case(f"fused against reference, {action}", partial(fused_against_torch, action))


def gpu_modules() -> tuple[Path, ...]:
    """The files that hold a test marked `gpu`."""
    marked = re.compile(r"mark\.gpu\b")
    tests = sorted((ROOT / "tests").rglob("test_*.py"))
    return tuple(path for path in tests if marked.search(path.read_text()))


def run_tests(path: Path) -> Row:
    """What became of the `gpu` tests of one module.

    One whose imports need a package that is not there is skipped, and says which.
    """
    places = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))}
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "--no-header", "-rfEs"]
    try:
        found = subprocess.run(
            [*command, str(path)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=LONGEST,
        )
    except subprocess.TimeoutExpired:
        return {"passed": False, "error": f"not done after {LONGEST:.0f} s"}
    return outcome(found.returncode, found.stdout + found.stderr)


def outcome(status: int, output: str) -> Row:
    """Counts of pytest's last line; why nothing ran, where nothing did."""
    if output.strip().endswith("No module named pytest"):
        return {"skipped": "needs the package pytest"}
    missing = re.search(r"ModuleNotFoundError: No module named '([\w.]+)'", output)
    if missing is not None and status != FAILED:
        return {"skipped": f"needs the package {missing[1]}"}
    counts = dict.fromkeys(("passed", "skipped"), 0)
    for number, word in re.findall(r"(\d+) (passed|skipped)\b", output):
        counts[word] = int(number)
    if status in (0, NO_TESTS) and not counts["passed"]:
        return {"skipped": "no test of it ran", "tests_skipped": counts["skipped"]}
    row: Row = {"passed": status == 0, "tests_passed": counts["passed"]}
    if status:
        lines = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR", "E "))]
        row["error"] = " | ".join(lines[:8])[:1500] or output.strip()[-500:]
    return row


def captured_against_eager(bench: Bench) -> Row:
    """Parameters after some iterations of PPO, replayed as graphs and not."""
    sizes = bench.sizes
    tape = market(market_bars(sizes.bars, sizes.num_assets[0]), bench.device)
    case = Benchmark(device=bench.device, hidden=sizes.hidden, rollout_steps=8)
    runs = []
    for capture in (True, False):
        trainer = make_trainer(case, tape, min(256, sizes.num_envs), capture=capture)
        for _ in range(ITERATIONS):
            trainer.advance()
        runs.append([parameter.detach().clone() for parameter in trainer.policy.parameters()])
    off = max(float((left - right).abs().max()) for left, right in zip(*runs, strict=True))
    return {"captured": bench.on_gpu, "largest_difference": off, "passed": off <= SAME}


def fused_against_torch(action: str, bench: Bench) -> Row:
    """Wealth after a hundred random steps on the device's fused step and on the reference."""
    sizes = bench.sizes
    tape = market(market_bars(sizes.bars, sizes.num_assets[-1]), bench.device)
    rules = EnvConfig(action=action, observation="index", episode=EpisodeConfig(staggered=True))
    fused = "triton" if bench.on_gpu else "numba"
    envs = [PortfolioEnv(tape, sizes.num_envs, rules, backend=name) for name in (fused, "torch")]
    for env in envs:
        env.reset(0)
    generator = torch.Generator(bench.device).manual_seed(0)
    off = 0.0
    for _ in range(STEPS):
        shape = (sizes.num_envs, envs[0].action_width)
        asked = torch.rand(shape, device=bench.device, generator=generator)
        one, other = (env.step(asked).outcome.wealth for env in envs)
        off = max(off, float(((one - other) / other).abs().max()))
    return {
        "backend": fused,
        "steps": STEPS,
        "largest_relative_difference": off,
        "passed": off <= CLOSE,
    }
