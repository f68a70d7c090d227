"""Models as artefacts: one file that forecasts without the model's code or the hub.

An artefact is written only if it agrees with the eager model: the parity gate. What the file is,
`fastsim.forecast.artifacts.formats` knows.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import fastsim
from fastsim.config import write_whole
from fastsim.data.bars import CLOSE
from fastsim.errors import ForecastError
from fastsim.forecast.artifacts.formats import (
    SUFFIX,
    ArtifactPrecision,
    Format,
    Program,
    check_format,
    pack,
    unpack,
)
from fastsim.forecast.artifacts.int8 import quantised
from fastsim.forecast.interface import (
    DTYPES,
    Context,
    Forecast,
    ForecastModel,
    ModelCard,
    check_request,
    model_inputs,
)
from fastsim.forecast.statistics import Counted, counted

GATE_BATCHES = (1, 2, 7, 33)
SAME_PRECISION_BOUND = {"float32": 1e-5, "float16": 1e-2, "bfloat16": 5e-2, "int8": 0.1}
"""Largest difference between artefact and eager model, in deviations of the series.

A step of int8 is 1/127 of a row's largest number, twice a step of bfloat16 (1/256 of the number
itself) at best: its bounds are twice those of bfloat16, set before anything was measured."""
ROUNDING_BOUND = {"float32": 1e-5, "float16": 0.05, "bfloat16": 0.15, "int8": 0.3}
"""Largest difference between the artefact and the eager model in float32, likewise."""
ROUNDINGS = 4
"""Roundings of a price in float32 that are no difference: a calm series far from zero deviates by
so few of them that the bounds above would be finer than the prices themselves."""


class Parity(NamedTuple):
    """What the gate measured, in deviations of the series, beyond the rounding of prices."""

    against_same_precision: float
    against_float32: float


class ArtifactForecaster(Counted):
    """A forecaster read from an artefact."""

    def __init__(
        self, program: Any, card: ModelCard, metadata: dict[str, Any], device: torch.device
    ) -> None:
        self.program, self._card, self.metadata, self.device = program, card, metadata, device

    @property
    def card(self) -> ModelCard:
        """What the model is, its horizon that of the artefact."""
        return self._card

    @property
    def key(self) -> str:
        """Model and precision, and the fingerprint of the artefact itself."""
        mark = self.metadata["fingerprint"][:16]
        return f"{self.card.name}@{mark}/{self.metadata['precision']}/artifact"

    @counted
    @torch.inference_mode()
    def forecast(self, context: Context, horizon: int) -> Forecast:
        """Forecast the next `horizon` closes of every series; ForecastError if it does not fit."""
        check_request(self.card, context, horizon)
        inputs = model_inputs(self.card, context, self.metadata["context_length"], self.device)
        quantiles = self.program(*inputs)[:, :horizon]
        return Forecast(quantiles.float().sort(-1).values, self.card.levels)


def export(
    model: ForecastModel,
    path: Path,
    *,
    windows: Context,
    horizon: int = 64,
    precision: ArtifactPrecision = "float16",
    revision: str = "",
    format: Format = "torchscript",
) -> Parity:
    """Export a model in a precision, hold it against the eager model, and only then write it.

    Parameters
    ----------
    path
        The artefact, `.pt`, `.pt2` or `.onnx`; the gate's figures go to `<path>.json`.
    windows
        Real contexts [>= 33, L, 6], of the length that the artefact will take.
    horizon
        Bars ahead; shorter horizons can be asked of the artefact.
    precision
        Of the parameters; int8, of linear layers, is for torchscript on a CPU.

    Raises
    ------
    ForecastError
        The artefact disagrees with the model beyond the bounds of this file, or the format cannot
        hold this model in this precision. Nothing is written then.
    """
    if path.suffix != SUFFIX[format]:
        raise ForecastError(f"{path}: a {format} artefact must end in {SUFFIX[format]}")
    card, length = model.card, windows.bars.shape[1]
    check_format(model, format, precision)
    if len(windows.bars) < max(GATE_BATCHES):
        raise ForecastError(f"the parity gate needs {max(GATE_BATCHES)} contexts")
    contexts = [windows, _random_windows(windows)]
    inputs = [model_inputs(card, context, length, torch.device("cpu")) for context in contexts]
    exact = Program(model.to(device="cpu", dtype=torch.float32).eval(), horizon)
    with torch.no_grad():
        wanted = [exact(*columns) for columns in inputs]
    cast = quantised(model) if precision == "int8" else model.to(DTYPES[precision])
    program = Program(cast.eval().requires_grad_(False), horizon)
    metadata = {
        "model": asdict(card),
        "revision": revision or card.revision or "",
        "precision": precision,
        "context_length": length,
        "horizon": horizon,
        "fastsim": fastsim.__version__,
    }
    content = pack(program, inputs[0], metadata, format)
    artifact = unpack(content, format, path, torch.device("cpu")).program
    parity = _measure(program, artifact, inputs, wanted)
    _gate(card, parity, precision)
    write_whole(path, content)
    report = metadata | {"parity": parity._asdict(), "bounds": _bounds(precision)}
    write_whole(path.with_name(path.name + ".json"), json.dumps(report, indent=2).encode())
    return parity


def load_artifact(path: Path, device: torch.device | str = "cpu") -> ArtifactForecaster:
    """Read an artefact; needs neither the model's code nor the hub.

    Raises
    ------
    ForecastError
        The file is missing, damaged, or no artefact of fastsim; or it does not run on the device,
        where only torchscript in floating point runs on any.
    """
    if not path.is_file():
        raise ForecastError(f"{path}: no such artefact; make it with `fastsim export`")
    formats = {suffix: format for format, suffix in SUFFIX.items()}
    if path.suffix not in formats:
        raise ForecastError(f"{path}: an artefact ends in {' or '.join(formats)}")
    place = torch.device(device)
    content = path.read_bytes()
    program, metadata = unpack(content, formats[path.suffix], path, place)
    metadata["fingerprint"] = hashlib.sha256(content).hexdigest()
    fields = metadata["model"] | {
        "levels": tuple(metadata["model"]["levels"]),
        "max_horizon": metadata["horizon"],
    }
    return ArtifactForecaster(program, ModelCard(**fields), metadata, place)


def _measure(
    program: Program, artifact: Any, inputs: list[tuple[Tensor, ...]], wanted: list[Tensor]
) -> Parity:
    same = rounding = 0.0
    with torch.no_grad():
        for columns, exact in zip(inputs, wanted, strict=True):
            spread = _deviation(columns[0])[:, None, None]
            for size in GATE_BATCHES:
                rows = tuple(column[:size] for column in columns)
                found, scale = artifact(*rows), spread[:size]
                eager = program(*rows)
                same = max(same, _difference(found, eager, scale))
                rounding = max(rounding, _difference(found, exact[:size], scale))
    return Parity(same, rounding)


def _difference(found: Tensor, wanted: Tensor, scale: Tensor) -> float:
    """Largest difference in deviations, beyond `ROUNDINGS` of the price; NaN where one is NaN."""
    rounding = ROUNDINGS * torch.finfo(torch.float32).eps * wanted.abs()
    return float((((found - wanted).abs() - rounding).clamp_min(0.0) / scale).max())


def _gate(card: ModelCard, parity: Parity, precision: ArtifactPrecision) -> None:
    for found, bound in zip(parity, _bounds(precision), strict=True):
        if not found <= bound:
            raise ForecastError(
                f"{card.name} in {precision}: the artefact is off by {found:.2g} deviations of the "
                f"series, more than {bound:g}; it was not written"
            )


def _bounds(precision: ArtifactPrecision) -> tuple[float, float]:
    return SAME_PRECISION_BOUND[precision], ROUNDING_BOUND[precision]


def _deviation(series: Tensor) -> Tensor:
    closes = series if series.dim() == 2 else series[..., CLOSE]
    mean = closes.nanmean(1, keepdim=True)
    deviation: Tensor = (closes - mean).square().nanmean(1).sqrt()
    return deviation.clamp_min(1e-9)


def _random_windows(windows: Context) -> Context:
    """Geometric random walks in the place of real bars, with gaps and short pasts."""
    generator = torch.Generator().manual_seed(0)
    rows, length, _ = windows.bars.shape
    steps = torch.randn(rows, length, 1, generator=generator) * 0.02
    close = 100.0 * steps.cumsum(1).exp()
    bars = torch.cat([close, close * 1.01, close * 0.99, close, close * 1e4, close * 1e6], -1)
    bars[1::3, : length // 2] = torch.nan
    gaps = torch.rand(rows, length, generator=generator) < 0.05
    gaps[:, -1] = False
    bars[gaps] = torch.nan
    return Context(bars, windows.timestamps)
