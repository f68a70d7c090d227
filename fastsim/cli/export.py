"""`fastsim export`."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path

import tyro
from rich.console import Console

from fastsim.agent.agent import Agent
from fastsim.agent.export import export_policy
from fastsim.cli.files import HowToRead, Reading, require_place
from fastsim.config import configuration
from fastsim.devices import resolve_device
from fastsim.errors import ConfigError, ForecastError
from fastsim.forecast.artifacts.export import export
from fastsim.forecast.artifacts.formats import SUFFIX, ArtifactPrecision, Format
from fastsim.forecast.interface import Context, check_horizon
from fastsim.forecast.registry import load_network
from fastsim.forecast.season.network import SeasonalModel
from fastsim.forecast.season.setting import NONE, check_season, season_of
from fastsim.forecast.windows import context_at
from fastsim.market.tape import make_tape

GATE_WINDOWS = 64
"""Real contexts that an export is held against."""


@configuration(slots=False)
class ExportCommand:
    """Write a model, or a run's policy, as an artefact that needs neither its code nor the hub."""

    model: tyro.conf.Positional[str]
    """Its name; `fastsim models` lists them. NAME@REVISION takes another revision of the hub. Or
    the folder of a run, whose policy becomes a file from observations to weights."""
    path: Path | None = None
    """Local weights, instead of the hub's; the same as NAME:PATH."""
    out: Path | None = None
    """The artefact; by default MODEL-PRECISION and the format's ending, here."""
    precision: ArtifactPrecision | None = None
    """By default float16, and float32 of a policy. int8 is for torchscript; onnx has float32 and
    float16."""
    format: Format = "torchscript"
    """Ends in .pt, .pt2 or .onnx; the last needs `pip install 'fastsim-rl[onnx]'`."""
    horizon: int | None = None
    """Bars ahead; by default 64, or as many as the model forecasts."""
    context: int | None = None
    """Bars to look back on; by default 512, or as many as the model reads."""
    device: str = "cpu"
    """Where the parity gate runs: "cuda" where the artefact will. It can be loaded anywhere."""
    season: str = NONE
    """Of volatility, as part of the artefact: a time zone or the .json file of a fitted profile."""
    source: str = "us20"
    """Whose bars are the real windows of the parity gate."""
    reading: HowToRead = field(default_factory=Reading)

    def __post_init__(self) -> None:
        check_season(self.season, "--season")

    def __call__(self, console: Console) -> None:
        """Export through the gate."""
        if Path(self.model).is_dir():
            self._export_policy(console)
            return
        precision = self.precision or "float16"
        device = resolve_device(self.device)
        require_place("--out", self.out, SUFFIX[self.format])
        model = load_network(self.model, self.path)
        season = season_of(self.season)
        if season is not None and not hasattr(model, "season"):
            model = SeasonalModel(model, season)
        card = model.card
        out = self.out or Path(f"{card.name.replace(', ', '-')}-{precision}{SUFFIX[self.format]}")
        horizon = min(64, card.max_horizon) if self.horizon is None else self.horizon
        length = min(512, card.max_context) if self.context is None else self.context
        check_horizon(card, horizon)
        if not card.min_context <= length <= card.max_context:
            raise ForecastError(
                f"{card.name} reads {card.min_context} to {card.max_context} bars, not {length}"
            )
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
            precision=precision,
            format=self.format,
            device=device,
        )
        console.print(
            f"Wrote {out}: {parity}, on {device}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )

    def _export_policy(self, console: Console) -> None:
        """Export the policy of a run's agent."""
        if self.precision not in (None, "float32"):
            raise ConfigError(
                f"a policy is exported in float32, got precision {self.precision!r}: leave it out"
            )
        require_place("--out", self.out, SUFFIX[self.format])
        policy = Agent.load(self.model).policy
        name = Path(self.model).resolve().name
        out = self.out or Path(f"{name}-policy{SUFFIX[self.format]}")
        apart = export_policy(policy, out, format=self.format)
        console.print(
            f"Wrote {out}: weights off by {apart:.2g} from the policy's",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
