"""Forecasts per second of one model: a table for people, then one JSON object.

    python benchmarks/benchmark_forecaster.py --model fastsim-prior
    python benchmarks/benchmark_forecaster.py --model toto2-4m --random-weights --batch-size 32
    python benchmarks/benchmark_forecaster.py --model toto --random-weights --format torchscript \
        --precision int8
    python benchmarks/benchmark_forecaster.py --artifact tirex-float16.pt --device cuda
    python benchmarks/benchmark_forecaster.py --model fastsim-prior,random-walk-60 --batch-size 1

Latency is that of one call on distinct series, measured after a warm-up and synchronised; cold, of
loading and the first call in processes that have met neither. Several models are an ensemble. The
matrix rate is the best of square float products in the same run; FLOPs are counted by PyTorch's own
counter on the eager model, for matrix products and convolutions; int8 is held against float32
products. Look-ups are what the cache of tabulated forecasts serves, reported apart: they are not
forecasts.
"""

from __future__ import annotations

import json
import resource
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import torch
from common import header, matrix_rate
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from fastsim.cli.ending import one_line_errors, read_options
from fastsim.data.sample import sample_bars
from fastsim.errors import ConfigError
from fastsim.forecast.artifacts.export import export, load_artifact
from fastsim.forecast.artifacts.formats import SUFFIX, ArtifactPrecision
from fastsim.forecast.cache import MarketForecasts
from fastsim.forecast.ensemble import Ensemble
from fastsim.forecast.interface import (
    Context,
    Forecaster,
    ModuleForecaster,
)
from fastsim.forecast.known import FORECASTERS
from fastsim.forecast.latency import Benchmarked, Spread, benchmark_forecaster
from fastsim.forecast.registry import (
    load_forecaster,
    load_network,
    parse_names,
    random_model,
)
from fastsim.forecast.windows import context_at
from fastsim.market.tape import MarketTape, make_tape


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What to measure."""

    model: str = "fastsim-prior"
    """A name that `fastsim models` lists, or several with commas, which are one ensemble."""
    artifact: Path | None = None
    """An exported file, instead of a model."""
    path: Path | None = None
    """Local weights, instead of the hub's."""
    batch_size: int = 32
    num_iterations: int = 20
    cold_runs: int = 3
    """Processes in which it is loaded and asked once."""
    context: int = 512
    horizon: int = 64
    precision: ArtifactPrecision = "float32"
    """int8 is for the format torchscript; of an artefact it is what the file says."""
    device: str = "cpu"
    format: Literal["eager", "torchscript", "aoti", "onnx"] = "eager"
    random_weights: bool = False
    """The real architecture with random weights: its speed is real, its forecasts are not."""
    json: Path | None = None
    """Also write the result to this file."""


def made(case: Benchmark, path: Path | None) -> Forecaster:
    """What is to be measured: the artefact at a path, or models in Python."""
    if path is not None:
        return load_artifact(path, case.device)
    if case.precision == "int8":
        raise ConfigError("eager models have no int8: add --format torchscript")
    members = [_member(case, name) for name in parse_names(case.model)]
    return members[0] if len(members) == 1 else Ensemble(members)


def _member(case: Benchmark, name: str) -> Forecaster:
    if not case.random_weights:
        return load_forecaster(name, path=case.path, precision=case.precision, device=case.device)
    return ModuleForecaster(random_model(name), precision=case.precision, device=case.device)


def weights_of(case: Benchmark) -> str:
    """Whose weights it has."""
    if case.artifact is not None:
        return "artifact"
    if case.random_weights:
        return "random"
    cards = [FORECASTERS.find(name).card for name in parse_names(case.model)]
    return "official" if any(card is not None and card.hub_id for card in cards) else "shipped"


def measure(case: Benchmark) -> dict[str, object]:
    """Latencies, rates and memory of one case."""
    tape = make_tape(sample_bars("us20"), device="cpu")
    windows = _windows(tape, max(case.batch_size, 33), case.context)
    batch = Context(windows.bars[: case.batch_size], windows.timestamps[: case.batch_size])
    with TemporaryDirectory() as folder:
        path = case.artifact
        if path is None and case.format != "eager":
            path = Path(folder) / f"model{SUFFIX[case.format]}"
            _export(case, path, windows)
        times = benchmark_forecaster(
            partial(made, case, path),
            Context(*(column.to(case.device) for column in batch)),
            case.horizon,
            calls=case.num_iterations,
            processes=case.cold_runs,
        )
        return _record(case, times, made(case, path), tape, batch)


def _export(case: Benchmark, path: Path, windows: Context) -> None:
    if len(parse_names(case.model)) > 1:
        raise ConfigError("an ensemble is no artefact: leave out --format, or name one model")
    export(
        random_model(case.model) if case.random_weights else load_network(case.model, case.path),
        path,
        windows=windows,
        horizon=case.horizon,
        precision=case.precision,
        format=case.format,
    )


def _record(
    case: Benchmark, times: Benchmarked, found: Forecaster, tape: MarketTape, batch: Context
) -> dict[str, object]:
    precision = found.metadata["precision"] if case.artifact else case.precision
    flops = _flops(case, batch)
    matrix = matrix_rate(case.device, precision)
    per_second = flops / times.warm.p50 if flops else None
    return header("forecaster", case.device) | {
        "model": found.card.name,
        "weights": weights_of(case),
        "format": "artifact" if case.artifact else case.format,
        "precision": precision,
        "batch_size": case.batch_size,
        "context": case.context,
        "horizon": case.horizon,
        "latency_ms": _milliseconds(times.warm),
        "cold_ms": None if times.cold is None else _milliseconds(times.cold),
        "forecasts_per_s": round(times.forecasts_per_s, 1),
        "look_ups_per_s": round(look_up_rate(tape, found, case), 1),
        "peak_memory_mb": round(_peak_memory(case.device), 1),
        "flop_per_forecast": round(flops / case.batch_size) if flops else None,
        "flop_per_s": round(per_second) if per_second else None,
        "matrix_flop_per_s": round(matrix),
        "matrix_rate_share": round(per_second / matrix, 4) if per_second else None,
    }


def look_up_rate(tape: MarketTape, found: Forecaster, case: Benchmark) -> float:
    """Forecasts a second served from the cache, one bar of every asset at a time."""
    forecasts = MarketForecasts(tape, found, context_length=case.context, horizon=case.horizon)
    bar = case.context + 10
    forecasts.at(bar)
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < 0.5:
        forecasts.at(bar)
        count += tape.num_assets
    elapsed = time.perf_counter() - started
    forecasts.close()
    return count / elapsed


def main(case: Benchmark) -> None:
    """Measure and print."""
    if min(case.batch_size, case.num_iterations) < 1:
        raise ConfigError("batch_size and num_iterations must be >= 1")
    result = measure(case)
    table = Table("Figure", "Value")
    for name, value in result.items():
        table.add_row(name, f"{value:,}" if isinstance(value, int | float) else str(value))
    console = Console(width=100)
    console.print(table)
    if result["weights"] == "random":
        console.print("Random weights: the speed is real, the forecasts are not.")
    print(json.dumps(result))
    if case.json is not None:
        case.json.parent.mkdir(parents=True, exist_ok=True)
        case.json.write_text(json.dumps(result) + "\n")


def _windows(tape: MarketTape, count: int, length: int) -> Context:
    bars = -(-count // tape.num_assets)
    rows = context_at(tape, slice(length + 1, length + 1 + bars), length)
    return Context(rows.bars[:count], rows.timestamps[:count])


def _flops(case: Benchmark, batch: Context) -> int | None:
    """FLOPs of one eager call; None for an artefact, whose code is not Python's to count."""
    if case.artifact is not None:
        return None
    eager = made(replace(case, precision="float32"), None)
    with FlopCounterMode(display=False) as counter:
        eager.forecast(Context(*(column.to(case.device) for column in batch)), case.horizon)
    total: int = counter.get_total_flops()
    return total or None


def _milliseconds(times: Spread) -> dict[str, float]:
    return {name: round(1e3 * seconds, 3) for name, seconds in times._asdict().items()}


def _peak_memory(device: str) -> float:
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    with one_line_errors("benchmark_forecaster", Benchmark):
        main(read_options(Benchmark))
