"""The command line, `fastsim`: one command a class, one line an error."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from fastsim.cli.data import DataCommand
from fastsim.cli.ending import one_line_errors, parsed
from fastsim.cli.forecast import ExportCommand, ForecastCommand
from fastsim.cli.models import ModelsCommand
from fastsim.cli.train import AblateCommand, EvaluateCommand, TrainCommand
from fastsim.config import load_yaml
from fastsim.errors import ConfigError
from fastsim.experiment.config import TrainConfig
from fastsim.experiment.spellings import respelled_flags

OF_A_RUN = ("train", "ablate")
"""Commands whose options are the fields of `TrainConfig`."""


def parse(arguments: Sequence[str]) -> Any:
    """Turn command-line arguments into a command; `--config` gives the defaults of `train`."""
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
    )
    return parsed(lambda: tyro.cli(commands, prog="fastsim", args=arguments))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; bad input is one line and exit status 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if "" not in sys.path:
        sys.path.append("")  # modules of the current folder, where a user's own are
    console = Console(width=None if sys.stdout.isatty() else 120)
    with one_line_errors("fastsim", "`fastsim train --resume RUN` goes on"):
        parse(arguments)(console)


def _configured(arguments: Sequence[str]) -> TrainConfig:
    for position, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        if name == "--config":
            given = value or next(iter(arguments[position + 1 :]), "")
            if not given:
                raise ConfigError("--config needs the path of a YAML file")
            return load_yaml(TrainConfig, Path(given))
    return TrainConfig()
