"""What every section of `gpu.py` has: sizes, clocks, the device's load and kernel times."""

from __future__ import annotations

import re
import resource
import statistics
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from common import Row, copy_bandwidth, matrix_rate, seconds_of, spread

PROFILED = 3
"""Calls under the profiler."""
WATCHED = 0.05
"""Seconds between two looks at the device's load."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is measured, by default all that there is a goal for."""

    num_envs: int = 4096
    num_assets: tuple[int, ...] = (30, 100, 500)
    bars: int = 2500
    hidden: int = 256
    """Width of the two layers of policies."""
    graph_steps: tuple[int, ...] = (1, 16)
    """Environment steps that are captured as one graph."""
    rounds: int = 5
    seconds: float = 0.5
    """Least length of a round."""
    megabytes: int = 1024
    """Of the block whose copying is the card's bandwidth."""
    matrix: int = 8192
    """Side of the square products that are the card's matrix rate."""
    train_envs: int = 4096
    train_frames: int = 100_000_000
    evaluations: int = 20
    """Of a run on its validation bars."""
    start: str | None = None
    """First day of `us20` in a run; None for all of it."""
    end: str | None = None
    train_assets: int | None = None
    """First assets of `us20` in a run; None for all of them."""
    brief_envs: int = 1024
    brief_assets: int = 100
    brief_frames: int = 10_000_000
    batches: tuple[int, ...] = (256, 1024)
    context: int = 512
    horizon: int = 21
    full_models: bool = True
    """Whether forecasters are of full size."""
    tape_assets: int = 20
    """First assets of `us20` whose table of forecasts is made."""
    tape_bars: int = 0
    """Last bars of `us20` that are forecast; 0 for all."""
    replay_bars: int = 0
    """Likewise of a replay."""


FULL = Sizes()
QUICK = Sizes(
    rounds=3,
    seconds=0.05,
    megabytes=512,
    train_frames=8_000_000,
    brief_frames=1_000_000,
    tape_bars=128,
    replay_bars=1000,
)
"""The goals' sizes where they take seconds; what takes longer is shortened, and named so."""
TINY = Sizes(
    num_envs=32,
    num_assets=(3,),
    bars=700,
    hidden=8,
    rounds=1,
    seconds=0.001,
    megabytes=8,
    matrix=128,
    train_envs=64,
    train_frames=2048,
    evaluations=1,
    start="2012-06-01",
    end="2017-06-01",
    train_assets=3,
    brief_envs=16,
    brief_assets=4,
    brief_frames=512,
    batches=(4,),
    context=64,
    horizon=5,
    full_models=False,
    tape_assets=2,
    tape_bars=90,
    replay_bars=100,
)
"""For the way through a CPU: nothing of it is a measurement."""


class Timing(NamedTuple):
    """What calls took."""

    seconds: float  # of a call, in the median round
    spread: float  # slowest round over the fastest
    warm_up: float  # seconds of the first call
    load: Row  # utilisation and power of the device during the rounds


@dataclass
class Bench:
    """The device, how much is measured on it, and what its memory and its products can do."""

    device: str
    sizes: Sizes
    folder: Path
    """Where sections leave what they need only themselves."""
    profiles: Path | None = None
    """Where tables of kernel times go, if they are wanted."""
    case: str = ""
    """What is measured now."""
    _rates: dict[str, float] = field(default_factory=dict)

    @property
    def on_gpu(self) -> bool:
        """Whether there are graphs, streams and the device's own memory."""
        return torch.device(self.device).type == "cuda"

    @property
    def bandwidth(self) -> float:
        """Bytes a second, read and written, of large copies; measured once."""
        if "copy" not in self._rates:
            self._rates["copy"] = copy_bandwidth(self.device, self.sizes.megabytes)
        return self._rates["copy"]

    def matrix_rate(self, precision: str) -> float:
        """FLOP/s of large products in this precision; measured once."""
        if precision not in self._rates:
            self._rates[precision] = matrix_rate(self.device, precision, self.sizes.matrix)
        return self._rates[precision]

    def time(self, call: Callable[[], object]) -> Timing:
        """Warm up, then rounds of as many calls as fill one; kernel times too if wanted."""
        warm_up = seconds_of(call, self.device)
        estimate = seconds_of(call, self.device)
        count = max(1, round(self.sizes.seconds / estimate))

        def calls() -> None:
            for _ in range(count):
                call()

        with watching(self.device) as load:
            rounds = [seconds_of(calls, self.device) / count for _ in range(self.sizes.rounds)]
        if self.profiles is not None:
            profile(call, self.profiles / f"{re.sub('[^0-9a-z]+', '-', self.case.lower())}.txt")
        return Timing(statistics.median(rounds), spread(rounds), warm_up, load.figures)

    def forget_peak(self) -> None:
        """Let `peak_memory_gb` begin anew."""
        if self.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak_memory_gb(self) -> float:
        """Most memory since then, of the device; on a CPU that of the process since it began."""
        if self.on_gpu:
            return round(torch.cuda.max_memory_allocated(self.device) / 1e9, 4)
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 4)


class Case(NamedTuple):
    """One row: its name, and what measures it."""

    name: str
    measure: Callable[[Bench], Row]
    always: bool = False
    """It takes no time, and is made though none may be left."""


Section = Callable[[Bench], Iterator[Case]]
"""The cases of a section, one after the other; each is measured before the next is made."""


def profile(call: Callable[[], object], path: Path) -> None:
    """Write the times of all kernels that a call launches, the longest first."""
    on_gpu = torch.cuda.is_available()
    activities = [torch.profiler.ProfilerActivity.CPU]
    if on_gpu:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(PROFILED):
            call()
        if on_gpu:
            torch.cuda.synchronize()
    order = "self_cuda_time_total" if on_gpu else "self_cpu_time_total"
    path.parent.mkdir(parents=True, exist_ok=True)
    averages = profiler.key_averages()
    path.write_text(averages.table(sort_by=order, row_limit=40, max_name_column_width=90) + "\n")


class Load:
    """Utilisation (per cent) and power (watts) of a device while something runs, by NVML."""

    def __init__(self, device: str) -> None:
        self._device, self._seen, self._done = device, list[tuple[float, float]](), False
        self.reason = "" if torch.device(device).type == "cuda" else "NVML knows GPUs only"

    def _look(self) -> None:
        try:
            busy = torch.cuda.utilization(self._device)
            self._seen.append((busy, torch.cuda.power_draw(self._device) / 1e3))
        except Exception as error:  # NVML's own errors, or its package is missing
            self.reason = " ".join(f"{type(error).__name__}: {error}".split())[:160]

    def _watch(self, over: threading.Event) -> None:
        while not self.reason and not over.is_set():
            self._look()
            over.wait(WATCHED)

    @property
    def figures(self) -> Row:
        """Means over all looks; null with the reason where there is none."""
        if not self._seen:
            return {"utilisation": None, "power_w": None, "no_load": self.reason or "too short"}
        means = [statistics.fmean(column) for column in zip(*self._seen, strict=True)]
        return {"utilisation": round(means[0] / 100, 3), "power_w": round(means[1], 1)}


@contextmanager
def watching(device: str) -> Iterator[Load]:
    """Watch the device's load while the block runs."""
    load, over = Load(device), threading.Event()
    watcher = threading.Thread(target=load._watch, args=(over,), daemon=True)
    watcher.start()
    try:
        yield load
    finally:
        over.set()
        watcher.join()
