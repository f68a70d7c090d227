"""neuralforecast's networks, as its users run them: fitted to log prices, in its own environment.

    python neuralforecast_fit.py fit DATA OUT NAME STEPS BATCH
    python neuralforecast_fit.py trace OUT

`fit` reads log prices [T, A], the row up to which is fitted and the origins from DATA, and writes
quantiles of log prices at every origin to OUT. `trace` writes the weights of a small NHITS with
what it makes of a few inputs. The last line printed is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
import warnings
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""
warnings.filterwarnings("ignore")
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)

import neuralforecast  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402
from neuralforecast import NeuralForecast  # noqa: E402
from neuralforecast.losses.pytorch import MQLoss  # noqa: E402
from neuralforecast.models import LSTM, NHITS, PatchTST  # noqa: E402

CONTEXT, HORIZON = 512, 21
DECILES = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
NETWORKS = {"NHITS": NHITS, "LSTM": LSTM, "PatchTST": PatchTST}
QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
IDENTITY = ("unique_id", "ds")


def peak_mb() -> float:
    """Most memory that this process has had, of which `getrusage` would know its parent's, too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def frame(prices: np.ndarray, first: int, stop: int) -> pd.DataFrame:
    """Rows `first` to `stop` of log prices [T, A] as the package wants them."""
    assets = prices.shape[1]
    rows = np.arange(first, stop)
    return pd.DataFrame(
        {
            "unique_id": np.repeat(np.arange(assets), len(rows)),
            "ds": np.tile(rows, assets),
            "y": prices[first:stop].T.reshape(-1),
        }
    )


def fit(data: str, out: str, name: str, steps: int, batch: int) -> dict[str, object]:
    """Fit one network, and forecast from every origin."""
    held, imported = np.load(data), peak_mb()
    prices = held["prices"]
    model = NETWORKS[name](
        h=HORIZON,
        input_size=CONTEXT,
        loss=MQLoss(quantiles=DECILES),
        max_steps=steps,
        val_check_steps=steps,
        windows_batch_size=batch,
        **QUIET,
    )
    package = NeuralForecast([model], freq=1)
    began = time.process_time()
    package.fit(frame(prices, 0, int(held["stop"])))
    seconds, most = time.process_time() - began, peak_mb()
    told = []
    for row in held["origins"]:
        answer = package.predict(frame(prices, row + 1 - CONTEXT, row + 1)).reset_index()
        columns = [column for column in answer.columns if column.startswith(name)]
        assert len(columns) == len(DECILES)
        told.append(answer[columns].to_numpy().reshape(prices.shape[1], HORIZON, -1))
    np.savez(out, quantiles=np.sort(np.stack(told), -1))  # [R, A, H, Q]
    return {
        "cpu_s": seconds,
        "peak_mb": most,
        "imported_mb": imported,
        "weights": sum(each.numel() for each in package.models[0].parameters()),
    }


def trace(out: str) -> dict[str, object]:
    """Weights of a small NHITS, and what it makes of inputs of which some are unknown."""
    length, horizon, rows = 24, 6, 5
    model = NHITS(
        h=horizon,
        input_size=length,
        loss=MQLoss(quantiles=[0.1, 0.5, 0.9]),
        mlp_units=3 * [[8, 8]],
        n_pool_kernel_size=[4, 2, 1],
        n_freq_downsample=[3, 2, 1],
        **QUIET,
    ).eval()
    generator = torch.Generator().manual_seed(1)
    series = torch.randn(rows, length, generator=generator)
    known = (torch.rand(rows, length, generator=generator) < 0.9).float()
    known[:, -1] = 1.0
    inputs = {"insample_y": (series * known)[..., None], "insample_mask": known[..., None]}
    absent = {"futr_exog": None, "hist_exog": None, "stat_exog": None}
    with torch.no_grad():
        told = model.forward({**inputs, **absent})
    state = {f"weights.{name}": each.numpy() for name, each in model.state_dict().items()}
    np.savez(out, series=series * known, known=known, told=told, **state)
    return {"version": neuralforecast.__version__, "torch": torch.__version__}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("fit", "trace"))
    parser.add_argument("arguments", nargs="*")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.what == "fit":
        data, out, name, steps, batch = asked.arguments
        print(json.dumps(fit(data, out, name, int(steps), int(batch))))
    else:
        print(json.dumps(trace(*asked.arguments)))
