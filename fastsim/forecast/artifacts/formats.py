"""The files that artefacts are: TorchScript, AOTInductor packages and ONNX.

TorchScript (`.pt`) is the product's format: every model, every precision, any device. `torch.jit`
is deprecated in favour of `torch.export`, whose AOTInductor package (`.pt2`) and ONNX model
(`.onnx`, run by ONNX Runtime) stand beside it, for CPUs. All that knows any of them is here.
"""

from __future__ import annotations

import copy
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from fastsim.devices import memory_shortage
from fastsim.errors import ForecastError, one_line
from fastsim.forecast.interface import ForecastModel, Looping

Format = Literal["torchscript", "aoti", "onnx"]
ArtifactPrecision = Literal["float32", "float16", "bfloat16", "int8"]
"""What an artefact computes in. int8 is no dtype of a model: see `int8.py`."""
SUFFIX: dict[Format, str] = {"torchscript": ".pt", "aoti": ".pt2", "onnx": ".onnx"}
REFUSED: dict[tuple[Format, ArtifactPrecision], str] = {
    ("aoti", "int8"): "int8 is for torchscript alone",
    ("onnx", "int8"): "int8 is for torchscript alone",
    ("onnx", "bfloat16"): "ONNX Runtime has no bfloat16 on a CPU",
}
"""Precisions that a format does not have, and why."""
FORMAT = 2
"""Of the metadata; an artefact of another is refused."""
_NEEDED = (
    "model",
    "revision",
    "precision",
    "context_length",
    "horizon",
    "takes_padding",
    "fastsim",
)
LARGEST_BATCH = 65536
_METADATA = "fastsim.json"
_NEED_ONNX = "ONNX needs its packages: pip install 'fastsim-rl[onnx]'"


class Program(nn.Module):
    """A model over a fixed horizon, positional inputs only: what is traced or exported."""

    def __init__(self, model: ForecastModel, horizon: int) -> None:
        super().__init__()
        self.model, self.horizon = model, horizon

    def forward(self, *inputs: Tensor) -> Tensor:
        """Quantiles [B, horizon, Q]."""
        quantiles: Tensor = self.model(*inputs, horizon=self.horizon)
        return quantiles


class Unpacked(NamedTuple):
    """An artefact's program, from inputs to quantiles [B, horizon, Q], and its metadata."""

    program: Callable[..., Tensor]
    metadata: dict[str, Any]


def check_format(model: ForecastModel, format: Format, precision: ArtifactPrecision) -> None:
    """Raise ForecastError if the format does not have this precision or cannot hold the model."""
    if (format, precision) in REFUSED:
        raise _impossible(model.card.name, format, REFUSED[format, precision])
    loops = any(isinstance(part, Looping) for part in model.modules())
    if loops and format != "torchscript":
        reason = "it loops over data, which torch.export cannot hold"
        raise _impossible(model.card.name, format, reason)


def check_device(
    name: str, format: Format, precision: ArtifactPrecision, device: torch.device
) -> None:
    """Raise ForecastError unless such artefacts run on this device."""
    bound = format if format != "torchscript" else "int8" if precision == "int8" else None
    if bound is not None and device.type != "cpu":
        raise ForecastError(f"{name}: {bound} artefacts run on a CPU, not on {device}")


def pack(
    program: nn.Module, inputs: tuple[Tensor, ...], metadata: dict[str, Any], format: Format
) -> bytes:
    """The artefact's bytes, for any batch; `inputs`, closes [B, L] or bars and times, set L.

    Raises
    ------
    ForecastError
        The format cannot hold this model, or its packages are not installed.
    """
    label, note = metadata["model"]["name"], json.dumps(metadata)
    try:
        with torch.no_grad(), _quiet():
            return _PACK[format](program, inputs, note)
    except ImportError as error:
        raise ForecastError(_NEED_ONNX) from error
    except (RuntimeError, ValueError, torch.jit.Error) as error:
        if memory_shortage(error) is not None:
            raise
        reason = one_line(error, 200)
        raise _impossible(label, format, reason) from error


def unpack(content: bytes, format: Format, path: Path, device: torch.device) -> Unpacked:
    """Program and metadata of an artefact's bytes; `path` is for errors.

    Raises
    ------
    ForecastError
        It is damaged, not fastsim's, does not run on the device, or its runtime is not installed.
    """
    program, metadata = open_program(content, format, path, device)
    _check_metadata(metadata, path)
    check_device(str(path), format, metadata["precision"], device)
    return Unpacked(program, metadata)


def open_program(content: bytes, format: Format, path: Path, device: torch.device) -> Unpacked:
    """Program and metadata of any file that `pack` wrote; errors as `unpack`."""
    check_device(str(path), format, "float32", device)
    try:
        with _quiet():
            program, note = _UNPACK[format](content, device)
        metadata = json.loads(note)
    except ImportError as error:
        raise ForecastError(_NEED_ONNX) from error
    except Exception as error:  # what the runtimes raise depends on the damage
        if memory_shortage(error) is not None:
            raise
        reason = one_line(error, 160) or type(error).__name__
        raise ForecastError(f"{path}: damaged, or no artefact of fastsim ({reason})") from None
    return Unpacked(program, metadata)


def _check_metadata(metadata: Any, path: Path) -> None:
    """Raise ForecastError unless this version of fastsim knows what the metadata mean."""
    known = metadata if isinstance(metadata, dict) else {}
    lacking = [name for name in _NEEDED if name not in known]
    if known.get("format") != FORMAT or lacking:
        maker = known.get("fastsim", "something else")
        raise ForecastError(
            f"{path} was made by fastsim {maker}, as format {known.get('format', 1)} of artefacts, "
            f"not {FORMAT}: export the model again"
        )


def _pack_torchscript(program: nn.Module, inputs: tuple[Tensor, ...], note: str) -> bytes:
    program = copy.deepcopy(program)
    model = program.get_submodule("model")
    for name, part in model.named_children():
        if isinstance(part, Looping):
            setattr(model, name, torch.jit.script(part))
    traced = torch.jit.trace(program, inputs, check_trace=False)  # type: ignore[no-untyped-call]
    buffer = io.BytesIO()
    torch.jit.save(traced, buffer, _extra_files={_METADATA: note})
    return buffer.getvalue()


def _unpack_torchscript(content: bytes, device: torch.device) -> tuple[Any, str]:
    extra = {_METADATA: ""}
    loaded = torch.jit.load(io.BytesIO(content), device, _extra_files=extra)  # type: ignore[no-untyped-call]
    return loaded, extra[_METADATA]


def _pack_aoti(program: nn.Module, inputs: tuple[Tensor, ...], note: str) -> bytes:
    buffer = io.BytesIO()
    torch._inductor.aoti_compile_and_package(
        _exported(program, inputs),
        package_path=buffer,
        inductor_configs={"aot_inductor.metadata": {_METADATA: note}},
    )
    return buffer.getvalue()


def _unpack_aoti(content: bytes, _device: torch.device) -> tuple[Any, str]:
    loaded = torch._inductor.aoti_load_package(io.BytesIO(content))
    return loaded, loaded.get_metadata()[_METADATA]


def _pack_onnx(program: nn.Module, inputs: tuple[Tensor, ...], note: str) -> bytes:
    for package in ("onnxscript", "onnxruntime"):  # what torch.onnx needs, and the gate
        import_module(package)
    exported = _exported(program, inputs).run_decompositions(_FOR_ONNX)
    # ONNX Runtime optimises when it loads; doing it here too takes twice the time.
    written = torch.onnx.export(exported, dynamo=True, verbose=False, optimize=False)
    assert written is not None
    for node in written.model.graph.all_nodes():
        node.metadata_props.clear()  # stack traces, with the paths of this machine
    written.model.metadata_props[_METADATA] = note
    content: bytes = written.model_proto.SerializeToString()
    return content


def _unpack_onnx(content: bytes, _device: torch.device) -> tuple[Any, str]:
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]

    def program(*inputs: Tensor) -> Tensor:
        feed = {name: column.numpy() for name, column in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run(None, feed)[0])

    return program, session.get_modelmeta().custom_metadata_map[_METADATA]


_PACK = {"torchscript": _pack_torchscript, "aoti": _pack_aoti, "onnx": _pack_onnx}
_UNPACK = {"torchscript": _unpack_torchscript, "aoti": _unpack_aoti, "onnx": _unpack_onnx}


def _exported(program: nn.Module, inputs: tuple[Tensor, ...]) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1, max=LARGEST_BATCH)
    shapes = {"inputs": tuple({0: batch} for _ in inputs)}
    return torch.export.export(program, inputs, dynamic_shapes=shapes)


def _running_maximum(values: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """The values of cummax, by doubling the window; no model here reads its indices."""
    length, step = values.shape[dim], 1
    while step < length:
        earlier = (values.narrow(dim, 0, step), values.narrow(dim, 0, length - step))
        values, step = torch.maximum(values, torch.cat(earlier, dim)), 2 * step
    return values, torch.zeros_like(values, dtype=torch.int64)


def _log1p(x: Tensor) -> Tensor:
    """log(1 + x) without the rounding of 1 + x (Goldberg 1991, theorem 4)."""
    above = 1.0 + x
    small = above == 1.0
    return torch.where(small, x, above.log() * x / torch.where(small, 1.0, above - 1.0))


def _asinh(x: Tensor) -> Any:
    if x.dtype != torch.float64:
        return NotImplemented
    return x.sign() * (x.abs() + (x.square() + 1.0).sqrt()).log()


def _sinh(x: Tensor) -> Any:
    return NotImplemented if x.dtype != torch.float64 else 0.5 * (x.exp() - (-x).exp())


def _median(values: Tensor, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """The lower median, by sorting; no model here reads its indices."""
    middle = (values.shape[dim] - 1) // 2
    found = values.sort(dim).values.narrow(dim, middle, 1)
    found = found if keepdim else found.squeeze(dim)
    return found, torch.zeros_like(found, dtype=torch.int64)


_FOR_ONNX: dict[Any, Any] = {
    torch.ops.aten.median.dim: _median,
    torch.ops.aten.cummax.default: _running_maximum,
    torch.ops.aten.log1p.default: _log1p,
    torch.ops.aten.asinh.default: _asinh,
    torch.ops.aten.sinh.default: _sinh,
}
"""What ONNX lacks, takes for log(1 + x), or its runtime has for float32 alone."""


def _impossible(name: str, format: Format, reason: str) -> ForecastError:
    advice = "" if format == "torchscript" else "; use torchscript"
    return ForecastError(f"{name} cannot be exported as {format}: {reason}{advice}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch's own deprecations (jit's; export's of its tree types) and tracer remarks."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r".*LeafSpec.*", category=FutureWarning)
            # What an LSTM keeps of its weights, which an export makes anew.
            warnings.filterwarnings("ignore", message=r".*_flat_weights.*", category=UserWarning)
            warnings.filterwarnings(
                "ignore", message=r".*torch\.jit\..*", category=DeprecationWarning
            )
            warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
            yield
    finally:
        logger.setLevel(level)
