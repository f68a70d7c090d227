"""CPU time of one forecast of each of our own networks, on one core.

    OMP_NUM_THREADS=1 python benchmarks/own_networks.py \
        --json benchmarks/results/own-networks-cpu.json

A forecast is of 512 closes, 21 bars ahead, asked for as any forecaster is; the time of each is that
of the process (`time.process_time`), after a warm-up.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from common import header, write

from fastsim.data.sample import sample_bars
from fastsim.forecast.interface import Context, ForecastModel, ModuleForecaster
from fastsim.forecast.models.prior import load_prior
from fastsim.forecast.training.architectures import ARCHITECTURES
from fastsim.forecast.windows import context_at
from fastsim.market.tape import make_tape

CONTEXT, HORIZON, WARM_UP = 512, 21, 50
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured."""

    networks: tuple[str, ...] = ("fastsim-prior", "nhits", "lstm", "patch-transformer")
    forecasts: int = 3000
    json: Path | None = None


def main(options: Options) -> None:
    """Measure each, and write a row for it."""
    torch.set_num_threads(1)
    window = one_window()
    rows = [measure(name, window, options.forecasts) for name in options.networks]
    write([header("own_networks", "cpu") | row for row in rows], options.json)


def one_window() -> Context:
    """One asset's latest bars."""
    tape = make_tape(sample_bars("us20"), device="cpu")
    rows = context_at(tape, slice(CONTEXT + 1, CONTEXT + 2), CONTEXT)
    return Context(rows.bars[:1], rows.timestamps[:1])


def network(name: str) -> ForecastModel:
    """One by name; those that have no weights of their own with random ones, as fast as others."""
    return load_prior() if name == "fastsim-prior" else ARCHITECTURES[name].make({}).eval()


def measure(name: str, window: Context, count: int) -> Row:
    """Median and 99th percentile of so many forecasts."""
    forecaster = ModuleForecaster(network(name))
    taken = []
    for _ in range(WARM_UP + count):
        began = time.process_time()
        forecaster.forecast(window, HORIZON)
        taken.append(1e3 * (time.process_time() - began))
    measured = torch.tensor(taken[WARM_UP:], dtype=torch.float64)
    return {
        "network": name,
        "weights": forecaster.card.parameters,
        "forecasts": count,
        "median_ms": round(float(measured.quantile(0.5)), 3),
        "p99_ms": round(float(measured.quantile(0.99)), 3),
        "most_ms": round(float(measured.max()), 3),
    }


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(tyro.cli(Options, description=__doc__))
