"""Environment steps per second of two checkouts, row by row, in turns.

    git worktree add ../before 0ea6907
    python benchmarks/before_after.py --before ../before --json benchmarks/results/before-after.json

Each checkout has a process of its own, which keeps one environment at a time and measures it by
the checkout's own `benchmarks/`. For every row of `benchmark_env.py` the two take turns, each with
an environment made anew, and the median of the ratios of their pairs is reported: what slows the
machine for a while slows both, and no row hangs on where its memory happened to lie.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import tyro

HERE = Path(__file__).parent
SERVE = "--serve"
SINGLE = "gymnasium.make, unwrapped"
"""A backend that is one environment, whichever steps it."""
GRID = [
    (assets, kind, num_envs)
    for assets in (30, 100, 500)
    for kind in ("index", "flat", "window")
    for num_envs in (1, 64, 1024, 4096, 16384)
]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to compare."""

    before: Path
    """Folder of the other checkout."""
    backend: tuple[str, ...] = ("numba", "torch")
    pairs: int = 5
    seconds: float = 0.2
    """Least length of a round."""
    rates: tuple[str, ...] = ("env",)
    """Of the environment alone, "env", or with a policy of two layers, "policy"."""
    assets: tuple[int, ...] = (30, 100, 500)
    num_envs: tuple[int, ...] = (1, 64, 1024, 4096, 16384)
    json: Path | None = None
    """Also write the results to this file."""
    again: float | None = None
    """Measure only the rows of that file whose ratio is below this, anew, and put them in place."""


class Checkout:
    """A process that measures what it is asked for, by the code in a folder.

    It runs this script, or another, which is given "--serve" and the folder.
    """

    def __init__(self, folder: Path, script: str = __file__) -> None:
        command = [sys.executable, script, SERVE, str(folder)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, question: dict[str, Any]) -> Any:
        """Its answer, once it has one."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        while not (line := self._process.stdout.readline()).startswith("answer "):
            if not line:
                raise SystemExit(f"{self._process.args}: ended")
        return json.loads(line.removeprefix("answer "))

    def close(self) -> None:
        """Let it end."""
        self._process.communicate()


def serve(folder: Path) -> None:
    """Answer questions, a line each, by the code in this folder."""
    sys.path[:0] = [str(folder / "benchmarks"), str(folder)]
    import benchmark_env as theirs  # noqa: PLC0415
    import common  # noqa: PLC0415

    tapes: dict[int, Any] = {}
    rates: dict[str, Any] = {}
    for line in sys.stdin:
        question = json.loads(line)
        if "assets" in question:
            assets, kind, backend = question["assets"], question["kind"], question["backend"]
            case = theirs.Benchmark(seconds=question["seconds"])
            if assets not in tapes:
                tapes.clear()
                tapes[assets] = common.market(common.market_bars(case.bars, assets), "cpu")
            rates.clear()
            if backend == SINGLE:
                rates["env"] = single(tapes[assets], kind, case.seconds)
                print("answer {}", flush=True)
                continue
            env = theirs.make_env(case, tapes[assets], question["num_envs"], kind, backend)
            width = len(env.observation_names)
            answer: Any = {"width": width}
            if question["num_envs"] * width * 4 <= theirs.LARGEST:
                if "env" in question["rates"]:
                    rates["env"] = common.stepping(env, case.seconds)
                if "policy" in question["rates"]:
                    agent = theirs.make_agent(env, case.hidden)
                    rates["policy"] = common.stepping(env, case.seconds, agent)
            else:
                answer["left_out"] = True
        else:
            answer = rates[question["rate"]]()
        print("answer " + json.dumps(answer), flush=True)


def single(tape: Any, kind: str, seconds: float) -> Callable[[], float]:
    """Rounds of steps of one environment as agents of one's own have it, NumPy in and out."""
    import gymnasium  # noqa: PLC0415

    import fastsim  # noqa: PLC0415

    made = gymnasium.make(fastsim.ENV_ID, market=tape, action="weights", observation=kind)
    env = made.unwrapped
    actions = np.random.default_rng(0).random((8, *env.action_space.shape), dtype=np.float32)
    env.reset(seed=0)

    def run() -> float:
        count, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            _, _, terminated, truncated, _ = env.step(actions[count % 8])
            count += 1
            if terminated or truncated:
                env.reset()
        return count / (time.perf_counter() - started)

    run()
    return run


def measure(
    sides: tuple[Checkout, Checkout], question: dict[str, Any], options: Options
) -> dict[str, float] | None:
    """Medians of pairs, each on environments made anew; None where an observation is too large."""
    pairs: dict[str, list[tuple[float, float]]] = {rate: [] for rate in options.rates}
    for number in range(options.pairs):
        found: dict[Checkout, dict[str, float]] = {}
        for side in sides if number % 2 == 0 else sides[::-1]:
            if side.ask(question).get("left_out"):
                return None
            found[side] = {rate: side.ask({"rate": rate}) for rate in options.rates}
        for rate, list_of_pairs in pairs.items():
            list_of_pairs.append((found[sides[0]][rate], found[sides[1]][rate]))
    row = {}
    for rate, measured in pairs.items():
        row[f"{rate}_before"] = round(median(before for before, _ in measured), 1)
        row[f"{rate}_after"] = round(median(after for _, after in measured), 1)
        row[f"{rate}_ratio"] = round(median(after / before for before, after in measured), 3)
    return row


def known_rows(options: Options) -> dict[tuple[int, str, int, str], dict[str, Any]]:
    """Rows of an earlier comparison, where some are measured again."""
    if options.again is None or options.json is None:
        return {}
    rows = [json.loads(line) for line in options.json.read_text().splitlines()]
    names = ("num_assets", "observation", "num_envs", "backend")
    return {tuple(row[name] for name in names): row for row in rows}  # type: ignore[misc]


def main(options: Options) -> None:
    """Measure every row in pairs."""
    sides = Checkout(options.before.resolve()), Checkout(HERE.parent)
    kept = known_rows(options)
    rows = []
    for assets, kind, num_envs in GRID:
        if assets not in options.assets or num_envs not in options.num_envs:
            continue
        alone = [SINGLE] if num_envs == 1 and options.rates == ("env",) else []
        for backend in (*options.backend, *alone):
            row: dict[str, Any] = {"num_assets": assets, "observation": kind}
            row |= {"num_envs": num_envs, "benchmark": "before_after", "backend": backend}
            if options.again is not None:
                old = kept.get((assets, kind, num_envs, backend))
                if old is None:
                    continue
                if all(old[f"{rate}_ratio"] >= options.again for rate in options.rates):
                    rows.append(old)
                    continue
            question = {"assets": assets, "kind": kind, "num_envs": num_envs, "backend": backend}
            question |= {"seconds": options.seconds, "rates": options.rates}
            ratios = measure(sides, question, options)
            if ratios is None:
                continue
            row |= ratios | {"pairs": options.pairs}
            rows.append(row)
            told = ", ".join(f"{name} {row[f'{name}_ratio']:.3f}" for name in options.rates)
            print(f"{assets:4} {kind:6} {num_envs:6} {backend:6} {told}", flush=True)
    for side in sides:
        side.close()
    for rate in options.rates:
        ratios = [row[f"{rate}_ratio"] for row in rows]
        print(f"{rate}: least {min(ratios):.3f}, median {median(ratios):.3f} of {len(ratios)} rows")
    if options.json is not None:
        options.json.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    if sys.argv[1:2] == [SERVE]:
        serve(Path(sys.argv[2]))
    else:
        main(tyro.cli(Options))
