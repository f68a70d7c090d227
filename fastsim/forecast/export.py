"""Models as artefacts: one file that forecasts without the model's code or the hub.

TorchScript (`.pt`) is the product's format. `torch.jit` is deprecated in favour of `torch.export`,
whose AOTInductor package (`.pt2`) stands beside it; all that knows either is in this file.
An artefact is written only if it agrees with the eager model: the parity gate.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

import fastsim
from fastsim.config import write_whole
from fastsim.errors import ForecastError
from fastsim.forecast.interface import (
    DTYPES,
    Context,
    Forecast,
    ForecastModel,
    Looping,
    ModelCard,
    Precision,
    check_request,
    model_inputs,
)

Format = Literal["torchscript", "aoti"]
SUFFIX: dict[Format, str] = {"torchscript": ".pt", "aoti": ".pt2"}
GATE_BATCHES = (1, 2, 7, 33)
SAME_PRECISION_BOUND = {"float32": 1e-5, "float16": 1e-2, "bfloat16": 5e-2}
"""Largest difference between artefact and eager model, in deviations of the series."""
ROUNDING_BOUND = {"float32": 1e-5, "float16": 0.05, "bfloat16": 0.15}
"""Largest difference between the artefact and the eager model in float32, likewise."""
_METADATA = "fastsim.json"


class Parity(NamedTuple):
    """What the gate measured, in deviations of the series."""

    against_same_precision: float
    against_float32: float


class Program(nn.Module):
    """A model over a fixed horizon, positional inputs only: what is traced or exported."""

    def __init__(self, model: ForecastModel, horizon: int) -> None:
        super().__init__()
        self.model, self.horizon = model, horizon

    def forward(self, *inputs: Tensor) -> Tensor:
        """Quantiles [B, horizon, Q]."""
        quantiles: Tensor = self.model(*inputs, horizon=self.horizon)
        return quantiles


class ArtifactForecaster:
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
    precision: Precision = "float16",
    revision: str = "",
    format: Format = "torchscript",
) -> Parity:
    """Export a model in a precision, hold it against the eager model, and only then write it.

    Parameters
    ----------
    path
        The artefact, `.pt` or `.pt2`; the gate's figures go to `<path>.json`.
    windows
        Real contexts [>= 33, L, 6], of the length that the artefact will take.
    horizon
        Bars ahead; shorter horizons can be asked of the artefact.

    Raises
    ------
    ForecastError
        The artefact disagrees with the model beyond the bounds of this file, or the format cannot
        hold this model. Nothing is written then.
    """
    if path.suffix != SUFFIX[format]:
        raise ForecastError(f"{path}: a {format} artefact must end in {SUFFIX[format]}")
    card, length = model.card, windows.bars.shape[1]
    if len(windows.bars) < max(GATE_BATCHES):
        raise ForecastError(f"the parity gate needs {max(GATE_BATCHES)} contexts")
    contexts = [windows, _random_windows(windows)]
    inputs = [model_inputs(card, context, length, torch.device("cpu")) for context in contexts]
    exact = Program(model.to(device="cpu", dtype=torch.float32).eval(), horizon)
    with torch.no_grad():
        wanted = [exact(*columns) for columns in inputs]
    program = Program(model.to(DTYPES[precision]).eval().requires_grad_(False), horizon)
    metadata = {
        "model": asdict(card),
        "revision": revision or card.revision or "",
        "precision": precision,
        "context_length": length,
        "horizon": horizon,
        "fastsim": fastsim.__version__,
    }
    content = _pack(program, inputs[0], metadata, format)
    artifact = _unpack(content, format, path, torch.device("cpu"))[0]
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
        The file is missing, damaged, or no artefact of fastsim.
    """
    if not path.is_file():
        raise ForecastError(f"{path}: no such artefact; make it with `fastsim export`")
    formats: dict[str, Format] = {".pt": "torchscript", ".pt2": "aoti"}
    if path.suffix not in formats:
        raise ForecastError(f"{path}: an artefact ends in {' or '.join(formats)}")
    place = torch.device(device)
    content = path.read_bytes()
    program, metadata = _unpack(content, formats[path.suffix], path, place)
    metadata["fingerprint"] = hashlib.sha256(content).hexdigest()
    fields = metadata["model"] | {
        "levels": tuple(metadata["model"]["levels"]),
        "max_horizon": metadata["horizon"],
    }
    return ArtifactForecaster(program, ModelCard(**fields), metadata, place)


def _pack(
    program: Program, inputs: tuple[Tensor, ...], metadata: dict[str, Any], format: Format
) -> bytes:
    label = metadata["model"]["name"]
    buffer = io.BytesIO()
    try:
        with torch.no_grad(), _quiet():
            if format == "torchscript":
                program = copy.deepcopy(program)
                for name, part in program.model.named_children():
                    if isinstance(part, Looping):
                        setattr(program.model, name, torch.jit.script(part))
                traced = torch.jit.trace(program, inputs, check_trace=False)  # type: ignore[no-untyped-call]
                extra = {_METADATA: json.dumps(metadata)}
                torch.jit.save(traced, buffer, _extra_files=extra)
                return buffer.getvalue()
        return _compile(program, inputs, metadata)
    except (RuntimeError, torch.jit.Error) as error:
        reason = " ".join(str(error).split())[:200]
        raise ForecastError(f"{label} cannot be exported as {format}: {reason}") from error


def _compile(program: Program, inputs: tuple[Tensor, ...], metadata: dict[str, Any]) -> bytes:
    batch = torch.export.Dim("batch", min=1, max=65536)
    with _quiet(), torch.no_grad():
        exported = torch.export.export(
            program, inputs, dynamic_shapes={"inputs": tuple({0: batch} for _ in inputs)}
        )
        buffer = io.BytesIO()
        settings = {"aot_inductor.metadata": {_METADATA: json.dumps(metadata)}}
        torch._inductor.aoti_compile_and_package(
            exported, package_path=buffer, inductor_configs=settings
        )
    return buffer.getvalue()


def _unpack(
    content: bytes, format: Format, path: Path, device: torch.device
) -> tuple[Any, dict[str, Any]]:
    try:
        with _quiet():
            if format == "torchscript":
                extra = {_METADATA: ""}
                loaded: Any = torch.jit.load(io.BytesIO(content), device, _extra_files=extra)  # type: ignore[no-untyped-call]
                found = extra[_METADATA]
            else:
                loaded = torch._inductor.aoti_load_package(io.BytesIO(content))
                found = loaded.get_metadata()[_METADATA]
        return loaded, json.loads(found)
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise ForecastError(f"{path}: damaged, or no artefact of fastsim ({reason})") from None


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
                same = max(same, float(((found - eager).abs() / scale).max()))
                rounding = max(rounding, float(((found - exact[:size]).abs() / scale).max()))
    return Parity(same, rounding)


def _gate(card: ModelCard, parity: Parity, precision: Precision) -> None:
    for found, bound in zip(parity, _bounds(precision), strict=True):
        if not found <= bound:
            raise ForecastError(
                f"{card.name} in {precision}: the artefact is off by {found:.2g} deviations of the "
                f"series, more than {bound:g}; it was not written"
            )


def _bounds(precision: Precision) -> tuple[float, float]:
    return SAME_PRECISION_BOUND[precision], ROUNDING_BOUND[precision]


def _deviation(series: Tensor) -> Tensor:
    closes = series if series.dim() == 2 else series[..., 3]
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


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch's own deprecations (jit's; export's of its tree types) and tracer remarks."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*LeafSpec.*", category=FutureWarning)
        warnings.filterwarnings("ignore", message=r".*torch\.jit\..*", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
        yield
