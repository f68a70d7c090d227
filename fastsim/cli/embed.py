"""`fastsim forecast embed`."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path

import tyro
from rich.console import Console

from fastsim.cli.files import require_place
from fastsim.config import configuration, require_between
from fastsim.data.dates import show_span
from fastsim.data.source import DataConfig, load_bars
from fastsim.forecast.projection import SUFFIX, fit_projection, write_projection
from fastsim.forecast.registry import load_forecaster
from fastsim.market.tape import make_tape


@configuration(slots=False)
class EmbedCommand:
    """Fit the few directions along which a forecaster's hidden state varies, for columns of a run.

    Give training bars alone (--data.end). `fastsim train --forecast.embedding FILE` shows an agent
    the state along them, beside the forecasts of that forecaster.
    """

    forecaster: tyro.conf.Positional[str]
    """A name that `fastsim models` lists, or fit:FOLDER."""
    components: int = 4
    """Columns."""
    context: int = 512
    """Bars to look back on."""
    out: Path = Path("embedding.safetensors")
    data: DataConfig = field(default_factory=DataConfig)

    def __post_init__(self) -> None:
        for name in ("components", "context"):
            require_between(self, name, 1)

    def __call__(self, console: Console) -> None:
        """Fit it and write it."""
        require_place("--out", self.out, SUFFIX)
        bars = load_bars(self.data)
        projection = fit_projection(
            load_forecaster(self.forecaster),
            make_tape(bars),
            self.components,
            context_length=self.context,
        )
        write_projection(projection, self.out)
        console.print(
            f"Wrote {self.out}: {self.components} directions of {self.forecaster}, fitted on "
            f"{show_span(bars.timestamps)}; name it by --forecast.embedding {self.out}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
