"""Our networks beside those of neuralforecast, on the same daily stocks and as many steps.

    OMP_NUM_THREADS=1 python benchmarks/neural_peers.py \
        --json benchmarks/results/neural-peers-cpu.json

NHITS, an LSTM and a Transformer on patches are fitted to `us20` up to the day before `--test-start`
in a process of their own each, in turns with their peers, which have an environment of their own
(`.venv-peers/`) and are run as their users run them: on log prices, sizes and scalers as they come,
by the pinball loss of deciles. Both see 512 closes and as many windows a step. CPU seconds are of
the fit on one thread, peak memory is that of the process until its end. What both forecast from the
same later bars is scored in the same way, over the random walk.

Before that a small NHITS of the peer's is asked and its weights are put into our blocks
(`official_blocks`), which must say the same.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import tyro
from common import header, write
from numpy.typing import NDArray
from peers.environments import NEURALFORECAST, ask, told_by
from torch import Tensor, nn

from fastsim.data.bars import Bars
from fastsim.data.dates import iso_date
from fastsim.data.sample import sample_bars
from fastsim.forecast.evaluate import (
    DECILES,
    Scores,
    common_windows,
    relative,
    rolling_origins,
    score,
)
from fastsim.forecast.interface import Forecast
from fastsim.forecast.models.baselines import trailing_random_walk
from fastsim.forecast.networks.nhits import NhitsBlock, NhitsConfig, sums_of_blocks
from fastsim.forecast.training.config import HORIZONS

PAIRS = {"nhits": "NHITS", "lstm": "LSTM", "patch-transformer": "PatchTST"}
CONTEXT, EVERY = 512, 21
PARITY = 1e-5
OURS = "fastsim_fit.py"
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is fitted, and for how long."""

    networks: tuple[str, ...] = ("nhits", "lstm", "patch-transformer")
    steps: int = 150
    batch: int = 128
    """Windows a step."""
    test_start: str = "2017-01-01"
    pairs: int = 1
    """How often each is fitted; times and memory are medians."""
    json: Path | None = None


def main(options: Options) -> None:
    """Compare each network with its peer."""
    torch.set_num_threads(1)
    bars = sample_bars("us20")
    start = int(np.searchsorted(bars.timestamps, iso_date(options.test_start, "--test-start")))
    origins = np.arange(start, len(bars) - HORIZONS[-1], EVERY)
    rows = []
    with TemporaryDirectory() as folder:
        off = parity(Path(folder) / "trace.npz")
        write_data(bars, start, origins, Path(folder) / "data.npz")
        for name in options.networks:
            row = compare(name, bars, origins, Path(folder), options)
            rows.append(header("neural_peers", "cpu") | {"nhits_off_by": off} | row)
            print(json.dumps(rows[-1]), flush=True)
    write(rows, options.json)


def parity(path: Path) -> float:
    """How far our blocks are from the peer's NHITS with its weights; an error if beyond PARITY."""
    ask(NEURALFORECAST, "trace", path)
    off = distance_from_official(path)
    assert off <= PARITY, f"our NHITS is off by {off:g} with the weights of neuralforecast's"
    return off


def distance_from_official(path: Path) -> float:
    """Largest difference between what the peer wrote down that it says and what our blocks say."""
    held = {name: torch.from_numpy(each) for name, each in np.load(path).items()}
    state = {
        name.removeprefix("weights."): each
        for name, each in held.items()
        if name.startswith("weights.")
    }
    series, known, told = held["series"], held["known"], held["told"]
    blocks = official_blocks(state, series.shape[1], told.shape[1:])
    past, seen = (each.flip(-1)[:, None] for each in (series, known.bool()))
    with torch.no_grad():
        ours = series[:, -1:, None] + sums_of_blocks(blocks, past, seen)[-1]
    return float((ours - told).abs().max())


def official_blocks(
    state: Mapping[str, Tensor], length: int, shape: tuple[int, int]
) -> list[NhitsBlock]:
    """Our blocks with the weights of neuralforecast's NHITS, of one block a stack.

    Its first layer has no activation after it, so that it and the second are one layer of ours;
    its last gives backcast and coefficients at once, where ours has a layer for each.

    Parameters
    ----------
    state
        Its state dict.
    length
        Bars that it sees.
    shape
        Bars and quantiles that it forecasts.
    """
    count = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
    each = [_layers(state, f"blocks.{stack}.layers.") for stack in range(count)]
    config = NhitsConfig(
        pools=tuple(round(length / layers[0].in_features) for layers in each),
        points=tuple((layers[-1].out_features - length) // shape[1] for layers in each),
        hidden=each[0][0].out_features,
        layers=len(each[0]) - 1,
    )
    blocks = []
    for stack, layers in enumerate(each):
        block = NhitsBlock((1, length), (shape[0], shape[1]), config, stack)
        hidden = [layer for layer in block.layers if isinstance(layer, nn.Linear)]
        for ours, theirs in zip(hidden, layers[:-1], strict=True):
            ours.load_state_dict(theirs.state_dict())
        for ours, rows in (
            (block.backcast, slice(0, length)),
            (block.forecast, slice(length, None)),
        ):
            ours.load_state_dict({"weight": layers[-1].weight[rows], "bias": layers[-1].bias[rows]})
        blocks.append(block)
    return blocks


def _layers(state: Mapping[str, Tensor], prefix: str) -> list[nn.Linear]:
    """The linear layers of a block, the first two as one."""
    places = sorted({int(name.split(".")[3]) for name in state if name.startswith(prefix)})
    pairs = [(state[f"{prefix}{place}.weight"], state[f"{prefix}{place}.bias"]) for place in places]
    (first, shift), (second, bias), *rest = [(w.double(), b.double()) for w, b in pairs]
    joined = [(second @ first, second @ shift + bias), *rest]
    layers = []
    for weight, offset in joined:
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        layer.load_state_dict({"weight": weight.float(), "bias": offset.float()})
        layers.append(layer)
    return layers


def write_data(bars: Bars, stop: int, origins: NDArray[np.int64], path: Path) -> None:
    """What both are given: log prices [T, A], seconds, the first row that is not fitted to."""
    closes = bars.adjusted("close")
    assert closes is not None
    stamps = bars.timestamps.astype("datetime64[s]").astype(np.int64)
    np.savez(path, prices=np.log(closes), stamps=stamps, stop=stop, origins=origins)


def compare(
    name: str, bars: Bars, origins: NDArray[np.int64], folder: Path, options: Options
) -> Row:
    """Fit both, in turns, and score what they say."""
    told: dict[str, list[Row]] = {"ours": [], "theirs": []}
    given, steps = folder / "data.npz", (options.steps, options.batch)
    ours, theirs = folder / "ours.npz", folder / "theirs.npz"
    for _ in range(options.pairs):
        told["ours"].append(told_by(Path(sys.executable), OURS, given, ours, name, *steps))
        told["theirs"].append(ask(NEURALFORECAST, "fit", given, theirs, PAIRS[name], *steps))
    walk = trailing_random_walk()
    windows = common_windows(bars, [walk], HORIZONS, origins, CONTEXT)
    by_walk = rolling_origins(bars, walk, HORIZONS, origins, CONTEXT, windows=windows)
    assert bool(windows.usable.all()), "every asset has all bars"
    scores = {"ours": scored(ours, bars, origins), "theirs": scored(theirs, bars, origins)}
    row: Row = {
        "network": name,
        "peer": f"{PAIRS[name]} of neuralforecast {NEURALFORECAST.version}",
        "steps": options.steps,
        "batch": options.batch,
        "windows": windows.scored,
        "over_peer": list(relative(scores["ours"], scores["theirs"]))[:3],
    }
    for who, runs in told.items():
        row[who] = {
            key: round(statistics.median(run[key] for run in runs), 1)
            for key in ("cpu_s", "peak_mb", "imported_mb")
        } | {
            "weights": runs[0]["weights"],
            "over_walk": list(relative(scores[who], by_walk))[:3],
        }
    row["cpu_ratio"] = round(row["ours"]["cpu_s"] / row["theirs"]["cpu_s"], 3)
    row["memory_ratio"] = round(row["ours"]["peak_mb"] / row["theirs"]["peak_mb"], 3)
    return row


def scored(path: Path, bars: Bars, origins: NDArray[np.int64]) -> Scores:
    """Scores of quantiles of log prices [R, A, H, Q] that a process has written down."""
    held = np.load(path)
    levels = tuple(map(float, held["levels"])) if "levels" in held else DECILES
    quantiles = torch.from_numpy(held["quantiles"]).double().exp()
    closes = bars.adjusted("close")
    assert closes is not None
    closes_of, ahead = torch.from_numpy(closes.T.copy()), torch.tensor(HORIZONS)
    scores = []
    for row, each in zip(origins.tolist(), quantiles, strict=True):
        past = closes_of[:, row + 1 - CONTEXT : row + 1]
        chosen = Forecast(each[:, ahead - 1], levels)
        scores.append(score(chosen, past, closes_of[:, row + ahead]))
    return Scores(*(torch.stack(column) for column in zip(*scores, strict=True)))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(tyro.cli(Options, description=__doc__))
