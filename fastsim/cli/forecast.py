"""`fastsim models`, `forecast` and `export`."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Annotated

import numpy as np
import plotly.graph_objects as go
import torch
import tyro
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from fastsim.cli.files import HowToRead, Reading, require_place
from fastsim.cli.scores import WALK, score_all, score_tables, write_scores
from fastsim.config import configuration, require_between
from fastsim.data.bars import Bars
from fastsim.data.dates import rows_between, show_day
from fastsim.errors import DataError, ForecastError
from fastsim.forecast.artifacts.export import export
from fastsim.forecast.artifacts.formats import SUFFIX, ArtifactPrecision, Format
from fastsim.forecast.evaluate import Centred, spaced_origins
from fastsim.forecast.interface import Context, Forecast
from fastsim.forecast.known import MODELS
from fastsim.forecast.registry import (
    load_ensemble,
    load_forecaster,
    load_network,
    parse_names,
    parse_weights,
    where_weights_are,
)
from fastsim.forecast.windows import context_at
from fastsim.market.tape import MarketTape, make_tape

GATE_WINDOWS = 64
"""Real contexts that an export is held against."""


@configuration(slots=False)
class ModelsCommand:
    """List the forecasters: licence, size, context, horizon, and where their weights are."""

    def __call__(self, console: Console) -> None:
        """Show them."""
        table = Table("Name", "Licence", "Parameters", "Context", "Horizon", "Weights")
        cards = [record.card for record in MODELS if record.card is not None]
        for record, card in zip(MODELS, cards, strict=True):
            table.add_row(
                record.name,
                card.licence,
                f"{card.parameters:,}",
                f"{card.max_context:,}",
                f"{card.max_horizon:,}",
                where_weights_are(record),
            )
        console.print(table)
        for card in cards:
            if card.attribution:
                console.print(f"{card.name}: {card.attribution}", highlight=False)


@configuration(slots=False)
class ShowCommand:
    """Forecast one asset from one bar: a table, and a fan chart if asked for."""

    symbol: tyro.conf.Positional[str]
    source: str = "us20"
    """A sample's name, or a CSV or Parquet file."""
    forecaster: str = "fastsim-prior"
    """Names separated by commas."""
    weights: str = ""
    """Of several forecasters."""
    date: str | None = None
    """Forecast from this day's close; by default the last."""
    horizon: int = 21
    context: int = 512
    """Bars to look back on."""
    plot: Path | None = None
    """Write a fan chart to this HTML file."""
    reading: HowToRead = field(default_factory=Reading)

    def __post_init__(self) -> None:
        require_between(self, "context", 1)

    def __call__(self, console: Console) -> None:
        """Forecast and show."""
        require_place("--plot", self.plot)
        tape = make_tape(self.reading.bars(self.source))
        column, bar = self._place(tape)
        forecaster = load_ensemble(parse_names(self.forecaster), parse_weights(self.weights))
        rows = context_at(tape, slice(bar, bar + 1), self.context)
        context = Context(rows.bars[column : column + 1], rows.timestamps[column : column + 1])
        forecast = forecaster.forecast(context, self.horizon)
        day = show_day(tape.timestamps[bar])
        console.print(_fan_table(forecast, context, f"{self.symbol} from {day}"))
        if self.plot is not None:
            _fan_chart(
                forecast, context, f"{self.symbol}: {forecaster.card.name} from {day}"
            ).write_html(self.plot, include_plotlyjs=True)
            console.print(f"Wrote {self.plot}", highlight=False, soft_wrap=True)

    def _place(self, tape: MarketTape) -> tuple[int, int]:
        if self.symbol not in tape.symbols:
            raise DataError(f"no symbol {self.symbol!r}; there are {', '.join(tape.symbols)}")
        if self.date is None:
            return tape.symbols.index(self.symbol), len(tape) - 1
        bar = rows_between(tape.timestamps, None, self.date).stop - 1
        if bar < 0:
            raise DataError(
                f"{self.date} lies before the first bar, {show_day(tape.timestamps[0])}"
            )
        return tape.symbols.index(self.symbol), bar


@configuration(slots=False)
class ScoreCommand:
    """Score forecasters over rolling origins beside random walks and classical models."""

    forecaster: str = "fastsim-prior"
    """Names separated by commas; each is scored on its own."""
    baselines: str = "random-walk-60,random-walk-ewma-0.94"
    """What they are held against, separated by commas; also garch-t, garch-t-drift, auto-ets and
    theta, which are fitted to every window, slowly. The first random walk is always scored."""
    centred: bool = False
    """Score each forecaster once more with its median at the last close: its gain without drift."""
    source: str = "us20"
    """A sample's name, or a CSV or Parquet file."""
    horizons: tuple[int, ...] = (1, 2, 3, 5, 8, 13, 21)
    context: int = 512
    step: int = 21
    """Bars between origins."""
    json: Path | None = None
    """Write all figures, their intervals and the settings to this file, as one JSON object."""
    reading: HowToRead = field(default_factory=Reading)

    def __call__(self, console: Console) -> None:
        """Score and show."""
        require_place("--json", self.json)
        bars = self.reading.bars(self.source)
        origins = spaced_origins(
            bars, context=self.context, horizon=max(self.horizons), step=self.step
        )
        references = parse_names(f"{WALK},{self.baselines}")
        models = [load_forecaster(name) for name in dict.fromkeys(parse_names(self.forecaster))]
        forecasters = [load_forecaster(name) for name in dict.fromkeys(references)]
        forecasters += [model for model in models if model.card.name not in references]
        forecasters += [Centred(model) for model in models if self.centred]
        entries = score_all(bars, forecasters, self.horizons, origins, self.context, console)
        for table in score_tables(entries):
            console.print(table)
        console.print(
            f"{len(origins)} origins, horizons {', '.join(map(str, self.horizons))}; brackets are "
            f"95 % bootstrap intervals over origins. A ratio below 1 beats what it is held "
            f"against. PIT: share of outcomes in each tenth of the forecast, flat if calibrated.",
            highlight=False,
        )
        if self.json is not None:
            write_scores(entries, self._settings(bars, origins), self.json)
            console.print(f"Wrote {self.json}", highlight=False, soft_wrap=True)

    def _settings(self, bars: Bars, origins: NDArray[np.int64]) -> dict[str, object]:
        days = [show_day(stamp) for stamp in bars.timestamps[origins[[0, -1]]]]
        return {
            "source": self.source,
            "assets": len(bars.symbols),
            "first_origin": days[0],
            "last_origin": days[-1],
            "origins": len(origins),
            "step": self.step,
            "context": self.context,
            "horizons": list(self.horizons),
        }


ForecastAction = (
    Annotated[ShowCommand, tyro.conf.subcommand("show", prefix_name=False)]
    | Annotated[ScoreCommand, tyro.conf.subcommand("evaluate", prefix_name=False)]
)


@configuration(slots=False)
class ForecastCommand:
    """Forecast an asset, or score forecasters."""

    action: Annotated[ForecastAction, tyro.conf.arg(name="")]

    def __call__(self, console: Console) -> None:
        """Run the action."""
        self.action(console)


@configuration(slots=False)
class ExportCommand:
    """Write a model as an artefact that needs neither its code nor the hub."""

    model: tyro.conf.Positional[str]
    """Its name; `fastsim models` lists them."""
    path: Path | None = None
    """Local weights, instead of the hub's."""
    out: Path | None = None
    """The artefact; by default MODEL-PRECISION and the format's ending, here."""
    precision: ArtifactPrecision = "float16"
    """int8 is for torchscript; onnx has float32 and float16."""
    format: Format = "torchscript"
    """Ends in .pt, .pt2 or .onnx; the last needs `pip install 'fastsim-rl[onnx]'`."""
    horizon: int = 64
    context: int = 512
    source: str = "us20"
    """Whose bars are the real windows of the parity gate."""
    reading: HowToRead = field(default_factory=Reading)

    def __post_init__(self) -> None:
        for name in ("horizon", "context"):
            require_between(self, name, 1)

    def __call__(self, console: Console) -> None:
        """Export through the gate."""
        require_place("--out", self.out, SUFFIX[self.format])
        model = load_network(self.model, self.path)
        name = self.model.rpartition(":")[2]
        out = self.out or Path(f"{name}-{self.precision}{SUFFIX[self.format]}")
        horizon = min(self.horizon, model.card.max_horizon)
        length = min(self.context, model.card.max_context)
        tape = make_tape(self.reading.bars(self.source))
        origins = slice(length, length + -(-GATE_WINDOWS // tape.num_assets))
        if len(tape) < origins.stop:
            raise ForecastError(f"{self.source} has too few bars for contexts of {length}")
        rows = context_at(tape, origins, length)
        parity = export(
            model,
            out,
            windows=Context(rows.bars[:GATE_WINDOWS], rows.timestamps[:GATE_WINDOWS]),
            horizon=horizon,
            precision=self.precision,
            format=self.format,
        )
        console.print(
            f"Wrote {out}: off by {parity.against_same_precision:.2g} deviations of a series from "
            f"the eager model, by {parity.against_float32:.2g} from the eager model in float32",
            highlight=False,
            soft_wrap=True,
        )


def _fan_table(forecast: Forecast, context: Context, title: str) -> Table:
    table = Table("Bars ahead", "10 %", "Median", "90 %", "Probability of a rise", title=title)
    price = context.close[:, -1]
    rise = forecast.probability_of_rise(price)[0].tolist()
    bands = [forecast.at(level)[0].tolist() for level in (0.1, 0.5, 0.9)]
    steps = len(rise)
    for step in sorted({1, 2, 3, 5, 10, 21, 42, 64, steps} & set(range(1, steps + 1))):
        cells = [f"{band[step - 1]:,.2f}" for band in bands]
        table.add_row(str(step), *cells, f"{rise[step - 1]:.1%}")
    return table


def _fan_chart(forecast: Forecast, context: Context, title: str) -> go.Figure:
    past = context.close[0, -126:].tolist()
    ahead = list(range(0, forecast.quantiles.shape[1] + 1))
    figure = go.Figure(go.Scatter(x=list(range(1 - len(past), 1)), y=past, name="close"))
    last = torch.tensor([past[-1]])
    for low, high, shade in ((0.1, 0.9, 0.15), (0.25, 0.75, 0.3)):
        lower, upper = (
            torch.cat([last, forecast.at(level)[0].cpu()]).tolist() for level in (low, high)
        )
        figure.add_scatter(x=ahead, y=upper, line={"width": 0}, showlegend=False)
        figure.add_scatter(
            x=ahead,
            y=lower,
            fill="tonexty",
            fillcolor=f"rgba(31,119,180,{shade})",
            line={"width": 0},
            name=f"{low:.0%} to {high:.0%}",
        )
    median = torch.cat([last, forecast.median[0].cpu()]).tolist()
    figure.add_scatter(x=ahead, y=median, name="median", line={"dash": "dot"})
    return figure.update_layout(title=title, xaxis_title="bars", template="plotly_white")
