"""The command line, `fastsim`: one command a class, one line an error."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from fastsim.cli.data import (
    CheckCommand,
    DataCommand,
    FactsCommand,
    FetchCommand,
    ListCommand,
)
from fastsim.cli.doctor import DoctorCommand
from fastsim.cli.ending import one_line_errors, parsed, value_of
from fastsim.cli.export import ExportCommand
from fastsim.cli.forecast import ForecastCommand, ScoreCommand, ShowCommand
from fastsim.cli.models import ModelsCommand
from fastsim.cli.train import AblateCommand, EvaluateCommand, TrainCommand
from fastsim.config import load_yaml
from fastsim.errors import ConfigError
from fastsim.experiment.config import TrainConfig
from fastsim.experiment.spellings import respelled_flags

COMMANDS: dict[tuple[str, ...], type[Any]] = {
    ("train",): TrainCommand,
    ("evaluate",): EvaluateCommand,
    ("ablate",): AblateCommand,
    ("data",): DataCommand,
    ("data", "list"): ListCommand,
    ("data", "check"): CheckCommand,
    ("data", "fetch"): FetchCommand,
    ("data", "facts"): FactsCommand,
    ("models",): ModelsCommand,
    ("forecast",): ForecastCommand,
    ("forecast", "show"): ShowCommand,
    ("forecast", "evaluate"): ScoreCommand,
    ("export",): ExportCommand,
    ("doctor",): DoctorCommand,
}
OF_A_RUN = ("train", "ablate")
"""Commands whose options are the fields of `TrainConfig`."""


def parse(arguments: Sequence[str]) -> Any:
    """Turn command-line arguments into a command; `--config` gives the defaults of `train`."""
    arguments = list(arguments)
    if arguments and arguments[0] in OF_A_RUN:
        arguments = respelled_flags(arguments)
    default = TrainCommand(run=_configured(arguments))
    train_command = tyro.conf.subcommand("train", default=default, prefix_name=False)
    commands = (
        Annotated[TrainCommand, train_command]
        | Annotated[EvaluateCommand, tyro.conf.subcommand("evaluate", prefix_name=False)]
        | Annotated[AblateCommand, tyro.conf.subcommand("ablate", prefix_name=False)]
        | Annotated[DataCommand, tyro.conf.subcommand("data", prefix_name=False)]
        | Annotated[ModelsCommand, tyro.conf.subcommand("models", prefix_name=False)]
        | Annotated[ForecastCommand, tyro.conf.subcommand("forecast", prefix_name=False)]
        | Annotated[ExportCommand, tyro.conf.subcommand("export", prefix_name=False)]
        | Annotated[DoctorCommand, tyro.conf.subcommand("doctor", prefix_name=False)]
    )
    return parsed(lambda: tyro.cli(commands, prog="fastsim", args=arguments))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; bad input is one line and exit status 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if "" not in sys.path:
        sys.path.append("")  # modules of the current folder, where a user's own are
    console = Console(width=None if sys.stdout.isatty() else 120)
    arguments = list(arguments)
    command = COMMANDS.get(tuple(arguments[:2])) or COMMANDS.get(tuple(arguments[:1]), TrainCommand)
    with one_line_errors("fastsim", command, "`fastsim train --resume RUN` goes on"):
        parse(arguments)(console)


def _configured(arguments: Sequence[str]) -> TrainConfig:
    """What options change: the settings of a file, of a run to go on with, or the usual ones."""
    if arguments[:1] != ["train"]:
        return TrainConfig()
    resumed = value_of("--resume", arguments)
    if resumed is not None:
        try:
            return load_yaml(TrainConfig, Path(resumed) / "config.yaml")
        except ConfigError as error:
            raise ConfigError(f"--resume {resumed}: {error}") from None
    given = value_of("--config", arguments)
    return TrainConfig() if given is None else load_yaml(TrainConfig, Path(given))
