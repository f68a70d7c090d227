"""Section `machine`: what the card is, and what copies and products do on it."""

from __future__ import annotations

import platform
import shutil
import subprocess
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import torch
from common import Row
from gpu_sections.measuring import Bench, Case

PRECISIONS = ("float16", "bfloat16", "tf32", "float32")
LAUNCHES = 200
"""Small kernels whose launches are timed together."""


def cases(bench: Bench) -> Iterator[Case]:
    """The machine, its bandwidth, its products, and what a launch costs."""
    yield Case("machine", machine)
    yield Case("copy", copy)
    for precision in PRECISIONS:
        yield Case(f"products in {precision}", lambda bench, name=precision: products(bench, name))
    yield Case("launches", launches)


def machine(bench: Bench) -> Row:
    """Driver, versions, memory and clocks; null where the machine does not say."""
    row: Row = {
        "python": platform.python_version(),
        "cuda": torch.version.cuda,
        "triton": _version("triton"),
        "driver": _asked("driver_version"),
        "clock_sm_mhz": _asked("clocks.sm"),
        "clock_memory_mhz": _asked("clocks.mem"),
        "clock_sm_most_mhz": _asked("clocks.max.sm"),
        "power_limit_w": _asked("power.limit"),
    }
    if not bench.on_gpu:
        return row
    found = torch.cuda.get_device_properties(bench.device)
    return row | {
        "memory_gb": round(found.total_memory / 1e9, 1),
        "multiprocessors": found.multi_processor_count,
        "capability": f"{found.major}.{found.minor}",
    }


def copy(bench: Bench) -> Row:
    """What copies of a large block move."""
    return {"copy_gb_per_s": round(bench.bandwidth / 1e9, 1), "megabytes": bench.sizes.megabytes}


def products(bench: Bench, precision: str) -> Row:
    """What large square products do."""
    rate = bench.matrix_rate(precision)
    return {"tflop_per_s": round(rate / 1e12, 3), "side": bench.sizes.matrix}


def launches(bench: Bench) -> Row:
    """Host time of launching one small kernel, and a kernel's time in a graph of many."""
    x = torch.zeros(32, device=bench.device)

    def many() -> None:
        for _ in range(LAUNCHES):
            x.add_(1.0)

    many()
    if bench.on_gpu:
        torch.cuda.synchronize(bench.device)
    started = time.perf_counter()
    many()
    row: Row = {"launch_us": round(1e6 * (time.perf_counter() - started) / LAUNCHES, 3)}
    if bench.on_gpu:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(bench.device), torch.cuda.graph(graph):
            many()
        each = bench.time(graph.replay).seconds / LAUNCHES
        row["kernel_in_graph_us"] = round(1e6 * each, 3)
    return row


def _version(package: str) -> str | None:

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _asked(name: str) -> str | float | None:
    """What nvidia-smi says of the first card; null where there is none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, f"--query-gpu={name}", "--format=csv,noheader,nounits", "--id=0"]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    text = found.stdout.strip()
    if found.returncode or not text:
        return None
    try:
        return float(text)
    except ValueError:
        return text
