"""Our own networks, fitted in a process of their own as `neuralforecast_fit.py` fits its.

python fastsim_fit.py DATA OUT NAME STEPS BATCH
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from fastsim.data.bars import Bars
from fastsim.forecast.interface import Context, ModuleForecaster
from fastsim.forecast.training.architectures import ARCHITECTURES
from fastsim.forecast.training.config import FitConfig
from fastsim.forecast.training.fit import fit
from fastsim.progress import SILENT

CONTEXT, HORIZON = 512, 21


def peak_mb() -> float:
    """Most memory that this process has had, of which `getrusage` would know its parent's, too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def fitted(data: str, out: str, name: str, steps: int, batch: int) -> dict[str, object]:
    """Fit one network, and forecast from every origin: quantiles of log prices."""
    held, imported = np.load(data), peak_mb()
    closes, stamps, stop = np.exp(held["prices"]), held["stamps"], int(held["stop"])
    bars = Bars(
        symbols=tuple(map(str, range(closes.shape[1]))),
        timestamps=stamps[:stop].astype("datetime64[s]").astype("datetime64[ns]"),
        close=closes[:stop],
    )
    config = FitConfig(
        mode="scratch",
        steps=steps,
        batch_size=batch,
        evaluate_every=steps,
        validation_windows=512,  # the peer has none
        sure=False,
    )
    network = ARCHITECTURES[name].make({})
    began = time.process_time()
    result = fit(network, bars, config, progress=SILENT)
    seconds, most = time.process_time() - began, peak_mb()
    forecaster, told = ModuleForecaster(result.model), []
    for row in held["origins"]:
        past = slice(row + 1 - CONTEXT, row + 1)
        table = torch.full((closes.shape[1], CONTEXT, 6), torch.nan, dtype=torch.float64)
        table[..., 3] = torch.from_numpy(closes[past].T.copy())
        seconds_of = torch.from_numpy(stamps[past]).expand(len(table), -1)
        told.append(forecaster.forecast(Context(table, seconds_of), HORIZON).quantiles.log())
    np.savez(out, quantiles=torch.stack(told).numpy(), levels=forecaster.card.levels)
    return {
        "cpu_s": seconds,
        "peak_mb": most,
        "imported_mb": imported,
        "weights": network.card.parameters,
        "learned": not result.report.keeps_start,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for argument in ("data", "out", "name"):
        parser.add_argument(argument)
    for argument in ("steps", "batch"):
        parser.add_argument(argument, type=int)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps(fitted(asked.data, asked.out, asked.name, asked.steps, asked.batch)))
