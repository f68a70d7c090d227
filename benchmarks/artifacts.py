"""Which model goes into which artefact, and what the parity gate measured: a table, then JSON.

    python benchmarks/artifacts.py --models chronos2 timesfm nhits --formats torchscript

Models are of full size with random weights where theirs are not at hand; a refusal is a row with
its reason. Figures are differences from the eager model in float32, in deviations of the series.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from common import header
from rich.console import Console
from rich.table import Table

from fastsim.cli.ending import one_line_errors, read_options
from fastsim.data.sample import sample_bars
from fastsim.errors import ForecastError
from fastsim.forecast.artifacts.export import export
from fastsim.forecast.artifacts.formats import REFUSED, SUFFIX, ArtifactPrecision, Format
from fastsim.forecast.interface import Context, ForecastModel
from fastsim.forecast.known import FORECASTERS
from fastsim.forecast.models.prior import load_prior
from fastsim.forecast.training.architectures import ARCHITECTURES
from fastsim.forecast.windows import context_at
from fastsim.market.tape import make_tape

WINDOWS = 40
PRECISIONS: tuple[ArtifactPrecision, ...] = ("float32", "float16", "bfloat16", "int8")


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What to export."""

    models: tuple[str, ...] = ("fastsim-prior", "nhits", "lstm", "patch-transformer")
    """Names that `fastsim models` lists, or networks that are fitted here."""
    formats: tuple[Format, ...] = ("torchscript", "onnx")
    precisions: tuple[ArtifactPrecision, ...] = PRECISIONS
    context: int = 512
    horizon: int = 64
    json: Path | None = None
    """Also write the lines to this file."""


def model_of(name: str) -> tuple[ForecastModel, str]:
    """A network of full size, and whose weights it has."""
    if name == "fastsim-prior":
        return load_prior(), "shipped"
    torch.manual_seed(0)
    record = FORECASTERS.find(name)
    if record.random is not None:
        return record.random(), "random"
    return ARCHITECTURES[name].make({}).eval(), "random"


def measure(case: Benchmark) -> list[dict[str, object]]:
    """A row for each model, format and precision that the format has."""
    tape = make_tape(sample_bars("us20"))
    rows = context_at(tape, slice(case.context, case.context + WINDOWS), case.context)
    found = []
    for name in case.models:
        model, weights = model_of(name)
        windows = Context(*(part[:: tape.num_assets + 1][:WINDOWS] for part in rows))
        for format in case.formats:
            for precision in case.precisions:
                if (format, precision) in REFUSED:
                    continue
                row = header("artifact", "cpu") | {"model": name, "weights": weights}
                row |= {"format": format, "precision": precision}
                found.append(row | _exported(model, windows, case.horizon, format, precision))
    return found


def _exported(
    model: ForecastModel,
    windows: Context,
    horizon: int,
    format: Format,
    precision: ArtifactPrecision,
) -> dict[str, object]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"model{SUFFIX[format]}"
        wish = {"horizon": horizon, "precision": precision, "format": format}
        try:
            parity = export(model, path, windows=windows, **wish)
        except ForecastError as error:
            return {"refused": str(error)}
        return {
            "against_float32": float(f"{parity.against_float32:.2g}"),
            "against_same_precision": float(f"{parity.against_same_precision:.2g}"),
            "megabytes": round(path.stat().st_size / 1e6, 1),
        }


def main(case: Benchmark) -> None:
    """Measure and print."""
    table = Table("Model", "Format", "Precision", "Off float32", "MB", "Refused")
    lines = []
    for row in measure(case):
        lines.append(json.dumps(row))
        names = ("model", "format", "precision", "against_float32", "megabytes", "refused")
        table.add_row(*(str(row.get(name, "")) for name in names))
    Console(width=140).print(table)
    print("\n".join(lines))
    if case.json is not None:
        case.json.parent.mkdir(parents=True, exist_ok=True)
        case.json.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    with one_line_errors("artifacts", Benchmark):
        main(read_options(Benchmark))
