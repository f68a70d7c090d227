"""`fastsim forecast`."""

from __future__ import annotations

from typing import Annotated

import tyro
from rich.console import Console

from fastsim.cli.embed import EmbedCommand
from fastsim.cli.evaluate import ScoreCommand
from fastsim.cli.fit import FitCommand
from fastsim.cli.show import ShowCommand
from fastsim.cli.skill import SkillCommand
from fastsim.cli.tune import TuneCommand
from fastsim.config import configuration

ForecastAction = (
    Annotated[ShowCommand, tyro.conf.subcommand("show", prefix_name=False)]
    | Annotated[ScoreCommand, tyro.conf.subcommand("evaluate", prefix_name=False)]
    | Annotated[SkillCommand, tyro.conf.subcommand("skill", prefix_name=False)]
    | Annotated[FitCommand, tyro.conf.subcommand("fit", prefix_name=False)]
    | Annotated[TuneCommand, tyro.conf.subcommand("tune", prefix_name=False)]
    | Annotated[EmbedCommand, tyro.conf.subcommand("embed", prefix_name=False)]
)


@configuration(slots=False)
class ForecastCommand:
    """Forecast an asset, score forecasters, measure their skill, fit one, or search for how to."""

    action: Annotated[ForecastAction, tyro.conf.arg(name="")]

    def __call__(self, console: Console) -> None:
        """Run the action."""
        self.action(console)
