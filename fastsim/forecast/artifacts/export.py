"""Models as artefacts: one file that forecasts without the model's code or the hub.

An artefact is written only if it agrees with the eager model: the parity gate. What the file is,
`fastsim.forecast.artifacts.formats` knows.
"""

from __future__ import annotations

import functools
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
from fastsim.devices import device_name, memory_shortage, resolve_device
from fastsim.errors import ConfigError, ForecastError, one_line
from fastsim.forecast.artifacts.formats import (
    FORMAT,
    SUFFIX,
    ArtifactPrecision,
    Format,
    Program,
    check_device,
    check_format,
    pack,
    unpack,
)
from fastsim.forecast.artifacts.int8 import quantised
from fastsim.forecast.artifacts.sampled import (
    QUANTILES_BOUND,
    TOKENS_BOUND,
    Agreement,
    agreement,
    draws_paths,
    require_agreement,
)
from fastsim.forecast.interface import (
    Context,
    Forecast,
    ForecastModel,
    Identity,
    ModelCard,
    check_request,
    copied,
    enough_known,
    model_inputs,
    no_forecasts,
)
from fastsim.forecast.statistics import Counted, counted

FLAT = 1e-6
"""Series that deviate by less of their mean are flat, to float32: their noise is no unit."""
GATE_BATCHES = (1, 2, 7, 33)
SAME_PRECISION_BOUND = {"float32": 1e-5, "float16": 1e-2, "bfloat16": 5e-2, "int8": 0.1}
"""Largest difference between artefact and eager model, in deviations of the series.

A step of int8 is 1/127 of a row's largest number, twice a step of bfloat16 (1/256 of the number
itself) at best: its bounds are twice those of bfloat16, set before anything was measured."""
ROUNDING_BOUND = {"float32": 1e-5, "float16": 0.05, "bfloat16": 0.15, "int8": 0.3}
"""Largest difference between the artefact and the eager model in float32, likewise."""
PADDING_BOUND = 1e-3
"""Largest difference that missing bars before a short context may make, in float32, likewise."""
ROUNDINGS = 4
"""Roundings of a price in float32 that are no difference: a calm series far from zero deviates by
so few of them that the bounds above would be finer than the prices themselves."""


class Parity(NamedTuple):
    """What the gate measured, in deviations of the series, beyond the rounding of prices."""

    against_same_precision: float
    against_float32: float
    """Not held of a model that draws paths, in half precision: there the next is."""
    agreement: Agreement | None = None

    def __str__(self) -> str:
        """What was measured, in words."""
        apart = f"{self.against_same_precision:.2g} deviations of a series"
        same = f"off by {apart} from the eager model"
        if self.agreement is None:
            return f"{same}, by {self.against_float32:.2g} from the eager model in float32"
        tokens, quantiles = self.agreement
        return (
            f"{same}; against float32 {tokens:.2g} of the next tokens are others, and quantiles of "
            f"paths {quantiles:.2g} standard errors off"
        )


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

    @functools.cached_property
    def identity(self) -> Identity:
        """Model and precision, and the digest of the artefact itself."""
        return Identity(
            card=self.card,
            revision=self.metadata["revision"],
            weights=self.metadata["fingerprint"],
            precision=self.metadata["precision"],
            implementation=f"artifact of fastsim-{self.metadata['fastsim']}",
            settings={"context_length": self.metadata["context_length"]},
        )

    @property
    def key(self) -> str:
        """Name, revision and precision in words, and the hash of its whole identity."""
        return self.identity.key

    @counted
    @torch.inference_mode()
    def forecast(self, context: Context, horizon: int) -> Forecast:
        """Forecast the next `horizon` closes of every series.

        A context shorter than the artefact's is padded on the left with missing bars, where the
        export has seen that the model takes them for a short context.

        Raises
        ------
        ForecastError
            The request does not fit, the context is too short and may not be padded, or the
            artefact's program fails, but for want of memory, which is raised as it is.
        """
        check_request(self.card, context, horizon)
        if not len(context.bars):
            return no_forecasts(self.card, horizon)
        length = self.metadata["context_length"]
        if context.bars.shape[1] < length:
            if not self.metadata["takes_padding"]:
                raise ForecastError(
                    f"this artefact of {self.card.name} reads {length} bars, the context has "
                    f"{context.bars.shape[1]}, and missing bars before it would change the "
                    f"forecast: give {length} bars, or export it with a shorter context"
                )
            context = padded(context, length)
        inputs = model_inputs(self.card, context, length, self.device)
        try:
            quantiles = self.program(*inputs)[:, :horizon]
        except Exception as error:  # whatever the runtime raises
            if memory_shortage(error) is not None:
                raise  # so that whoever asked may ask for less
            reason = one_line(f"{type(error).__name__}: {error}", 200)
            raise ForecastError(
                f"the artefact of {self.card.name} fails on {len(context.bars)} series: {reason}"
            ) from error
        return Forecast(quantiles.float().sort(-1).values, self.card.levels)


def padded(context: Context, length: int) -> Context:
    """The context with missing bars before it, `length` in all, one step of its time apart."""
    missing = length - context.bars.shape[1]
    bars = torch.nn.functional.pad(context.bars, (0, 0, missing, 0), value=torch.nan)
    stamps = context.timestamps
    step = stamps.diff(dim=1)[:, :1] if stamps.shape[1] > 1 else torch.ones_like(stamps[:, :1])
    before = stamps[:, :1] - step * torch.arange(missing, 0, -1, device=stamps.device)
    return Context(bars, torch.cat([before, stamps], 1))


def export(
    model: ForecastModel,
    path: Path,
    *,
    windows: Context,
    horizon: int = 64,
    precision: ArtifactPrecision = "float16",
    revision: str = "",
    format: Format = "torchscript",
    device: torch.device | str = "cpu",
) -> Parity:
    """Export a model in a precision, hold it against the eager model, and only then write it.

    The artefact is the same for every device: it is made on the CPU, and runs on the device for the
    gate alone.

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
    device
        Where the gate runs: artefact and model, in its precision and in float32, are on it.

    Raises
    ------
    ConfigError
        There is no such device, format or precision.
    ForecastError
        The artefact disagrees with the model beyond the bounds of this file, or the format cannot
        hold this model in this precision, or does not run on the device. Nothing is written then.
    """
    model = model.for_export()
    place = resolve_device(device)
    _check_wish(model, path, precision, format, place)
    card, length = model.card, windows.bars.shape[1]
    if len(windows.bars) < max(GATE_BATCHES):
        raise ForecastError(
            f"the parity gate needs {max(GATE_BATCHES)} contexts, got {len(windows.bars)}"
        )
    check_request(card, windows, horizon)
    contexts = [windows, _random_windows(windows)]
    inputs = [model_inputs(card, context, length, place) for context in contexts]
    exact = Program(copied(model, "float32").to(place), horizon)
    with torch.no_grad():
        wanted = [exact(*columns) for columns in inputs]
    cast = quantised(model) if precision == "int8" else copied(model, precision)
    program = Program(cast.requires_grad_(False), horizon)
    metadata = _metadata(exact, windows, precision, revision, place)
    example = model_inputs(card, windows, length, torch.device("cpu"))
    content = pack(program, example, metadata, format)
    artifact = unpack(content, format, path, place).program
    parity = _measure(program.to(place), artifact, inputs, wanted)
    if draws_paths(model, precision):
        met = agreement(program.model, exact.model, inputs, horizon)
        parity = parity._replace(agreement=met)
    _gate(card, parity, precision)
    write_whole(path, content)
    report = metadata | _report(parity, precision)
    write_whole(path.with_name(path.name + ".json"), json.dumps(report, indent=2).encode())
    return parity


def _metadata(
    exact: Program,
    windows: Context,
    precision: ArtifactPrecision,
    revision: str,
    place: torch.device,
) -> dict[str, Any]:
    """What an artefact says of itself."""
    card = exact.model.card
    return {
        "format": FORMAT,
        "model": asdict(card),
        "revision": revision or card.revision or "",
        "precision": precision,
        "context_length": windows.bars.shape[1],
        "horizon": exact.horizon,
        "takes_padding": _takes_padding(exact, windows, place),
        "gated_on": device_name(place),
        "fastsim": fastsim.__version__,
    }


def load_artifact(path: Path, device: torch.device | str = "cpu") -> ArtifactForecaster:
    """Read an artefact; needs neither the model's code nor the hub.

    Raises
    ------
    ConfigError
        There is no such device.
    ForecastError
        The file is missing, damaged, or no artefact of fastsim; or it does not run on the device,
        where only torchscript in floating point runs on any.
    """
    if not path.is_file():
        raise ForecastError(f"{path}: no such artefact; make it with `fastsim export`")
    formats = {suffix: format for format, suffix in SUFFIX.items()}
    if path.suffix not in formats:
        raise ForecastError(f"{path}: an artefact ends in {' or '.join(formats)}")
    format = formats[path.suffix]
    place = resolve_device(device) if format == "torchscript" else torch.device(device)
    content = path.read_bytes()
    program, metadata = unpack(content, format, path, place)
    metadata["fingerprint"] = hashlib.sha256(content).hexdigest()
    return ArtifactForecaster(program, _card_of(metadata, path), metadata, place)


def _card_of(metadata: dict[str, Any], path: Path) -> ModelCard:
    """The model's card, its context and horizon those of the artefact."""
    try:
        card = metadata["model"]
        return ModelCard(
            **card
            | {
                "levels": tuple(card["levels"]),
                "max_horizon": metadata["horizon"],
                "max_context": min(card["max_context"], metadata["context_length"]),
            }
        )
    except (ConfigError, KeyError, TypeError) as error:
        reason = one_line(f"{type(error).__name__}: {error}", 160)
        raise ForecastError(f"{path}: its card of the model is damaged ({reason})") from None


def _check_wish(
    model: ForecastModel,
    path: Path,
    precision: ArtifactPrecision,
    format: Format,
    place: torch.device,
) -> None:
    """Raise unless such an artefact of the model can be written to this path."""
    if format not in SUFFIX:
        raise ConfigError(f"format must be one of {', '.join(SUFFIX)}, got {format!r}")
    if precision not in ROUNDING_BOUND:
        known = ", ".join(ROUNDING_BOUND)
        raise ConfigError(f"precision must be one of {known}, got {precision!r}")
    if path.suffix != SUFFIX[format]:
        raise ForecastError(f"{path}: a {format} artefact must end in {SUFFIX[format]}")
    if path.is_dir():
        raise ForecastError(f"{path} is a folder: name a file that ends in {SUFFIX[format]}")
    check_format(model, format, precision)
    check_device(f"{model.card.name} as {format} in {precision}", format, precision, place)


def _takes_padding(exact: Program, windows: Context, place: torch.device) -> bool:
    """Whether missing bars on the left leave the model's forecasts as they are without them."""
    card, length = exact.model.card, windows.bars.shape[1]
    lengths = {length - 1, length // 2 + 1, length // 3, card.min_context + 1}
    for short in sorted(size for size in lengths if card.min_context <= size < length):
        cut = Context(*(part[:, -short:] for part in windows))
        rows = enough_known(card, cut).nonzero().squeeze(1)[: GATE_BATCHES[2]]
        if not len(rows):
            return False
        cut = Context(*(part[rows] for part in cut))
        with torch.no_grad():
            alone, together = (
                exact(*model_inputs(card, context, length, place))
                for context in (cut, padded(cut, length))
            )
        scale = _deviation(cut.close)[:, None, None].to(place)
        if not _difference(together, alone, scale) <= PADDING_BOUND:
            return False
    return True


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
    """Largest difference in deviations, beyond `ROUNDINGS` of the price.

    What is NaN in both is no difference, what is NaN in one of them an infinite one.
    """
    rounding = ROUNDINGS * torch.finfo(torch.float32).eps * wanted.abs()
    difference = ((found - wanted).abs() - rounding).clamp_min(0.0) / scale
    difference = difference.masked_fill(found.isnan() & wanted.isnan(), 0.0)
    return float(difference.nan_to_num(nan=torch.inf).max())


def _report(parity: Parity, precision: ArtifactPrecision) -> dict[str, Any]:
    """The gate's figures and bounds."""
    told = {"parity": parity._asdict(), "bounds": _bounds(precision)}
    if parity.agreement is None:
        return told
    figures = {**parity._asdict(), "agreement": parity.agreement._asdict()}
    bounds = (TOKENS_BOUND[precision], QUANTILES_BOUND)
    return told | {"parity": figures, "agreement_bounds": bounds}


def _gate(card: ModelCard, parity: Parity, precision: ArtifactPrecision) -> None:
    figures = [parity.against_same_precision, parity.against_float32]
    if parity.agreement is not None:
        require_agreement(f"{card.name} in {precision}", parity.agreement, precision)
        figures.pop()
    for found, bound in zip(figures, _bounds(precision), strict=False):
        if not found <= bound:
            raise ForecastError(
                f"{card.name} in {precision}: the artefact is off by {found:.2g} deviations of the "
                f"series, more than {bound:g}; it was not written"
            )


def _bounds(precision: ArtifactPrecision) -> tuple[float, float]:
    return SAME_PRECISION_BOUND[precision], ROUNDING_BOUND[precision]


def _deviation(series: Tensor) -> Tensor:
    """What differences are measured in [B]: a series' deviation, or its level where it is flat."""
    closes = series if series.dim() == 2 else series[..., CLOSE]
    mean = closes.nanmean(1, keepdim=True)
    deviation: Tensor = (closes - mean).square().nanmean(1).sqrt()
    level = mean.squeeze(1).abs()
    return torch.where(deviation > FLAT * level, deviation, level)


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
