"""The command line, `fastsim`: one command a class, one line an error."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import reduce
from operator import or_
from pathlib import Path
from pkgutil import resolve_name
from typing import Annotated, Any

import tyro
from rich.console import Console

from fastsim.cli.ending import one_line_errors, parsed, value_of
from fastsim.config import load_yaml
from fastsim.errors import ConfigError
from fastsim.experiment.config import TrainConfig
from fastsim.experiment.spellings import respelled_flags

COMMANDS = {
    ("train",): "train:TrainCommand",
    ("evaluate",): "train:EvaluateCommand",
    ("ablate",): "train:AblateCommand",
    ("decide",): "decide:DecideCommand",
    ("agent",): "agent:AgentCommand",
    ("agent", "make"): "agent:MakeCommand",
    ("agent", "show"): "agent:ShowCommand",
    ("backtest",): "backtest:BacktestCommand",
    ("backtest", "quick-test"): "backtest:QuickTestCommand",
    ("backtest", "run"): "backtest:RunCommand",
    ("backtest", "list-symbols"): "backtest:SymbolsCommand",
    ("backtest", "report"): "backtest:ReportCommand",
    ("data",): "data:DataCommand",
    ("data", "list"): "data:ListCommand",
    ("data", "check"): "data:CheckCommand",
    ("data", "fetch"): "data:FetchCommand",
    ("data", "update"): "data:UpdateCommand",
    ("data", "facts"): "data:FactsCommand",
    ("models",): "models:ModelsCommand",
    ("forecast",): "forecast:ForecastCommand",
    ("forecast", "show"): "forecast:ShowCommand",
    ("forecast", "evaluate"): "forecast:ScoreCommand",
    ("forecast", "skill"): "skill:SkillCommand",
    ("forecast", "fit"): "fit:FitCommand",
    ("forecast", "tune"): "tune:TuneCommand",
    ("forecast", "embed"): "embed:EmbedCommand",
    ("paper",): "paper:PaperCommand",
    ("paper", "run"): "paper:RunCommand",
    ("paper", "status"): "paper:StatusCommand",
    ("export",): "export:ExportCommand",
    ("doctor",): "doctor:DoctorCommand",
}
"""Where each command is to be found in this room, which is imported when it is asked for."""
OF_A_RUN = ("train", "ablate")
"""Commands whose options are the fields of `TrainConfig`."""


def command_of(words: tuple[str, ...]) -> type[Any]:
    """The class of a command, whose module is imported."""
    found: type[Any] = resolve_name(f"fastsim.cli.{COMMANDS[words]}")
    return found


def parse(arguments: Sequence[str]) -> Any:
    """Turn command-line arguments into a command; `--config` gives the defaults of `train`."""
    name, rest = tuple(arguments[:1]), list(arguments[1:])
    if name not in COMMANDS:
        return parsed(lambda: tyro.cli(_any_command(), prog="fastsim", args=arguments))
    if tuple(arguments[:2]) == ("agent", "make"):
        return _made(arguments[2:])
    command, usual = command_of(name), {}
    if name[0] in OF_A_RUN:
        rest = respelled_flags(rest)
    if rest[:1] == ["update"] and name == ("data",):
        rest = resolve_name("fastsim.cli.store").gathered(rest)
    if name == ("train",):
        usual["default"] = command(run=_configured(rest))
    return parsed(lambda: tyro.cli(command, prog=f"fastsim {name[0]}", args=rest, **usual))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; bad input is one line and exit status 2."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if "" not in sys.path:
        sys.path.append("")  # modules of the current folder, where a user's own are
    console = Console(width=None if sys.stdout.isatty() else 120)
    words = (tuple(arguments[:2]), tuple(arguments[:1]), ("train",))
    command = command_of(next(name for name in words if name in COMMANDS))
    with one_line_errors("fastsim", command, "`fastsim train --resume RUN` goes on"):
        parse(arguments)(console)


def _made(arguments: Sequence[str]) -> Any:
    """`fastsim agent make`, whose options change what a file says."""
    command = command_of(("agent", "make"))
    usual = command.usual(arguments)
    return parsed(
        lambda: tyro.cli(command, prog="fastsim agent make", args=arguments, default=usual)
    )


def _any_command() -> Any:
    """All commands as one, for help and for names that are none of them."""
    named = (
        Annotated[command_of(words), tyro.conf.subcommand(words[0], prefix_name=False)]
        for words in COMMANDS
        if len(words) == 1
    )
    return reduce(or_, named)


def _configured(arguments: Sequence[str]) -> TrainConfig:
    """What options change: the settings of a file, of a run to go on with, or the usual ones."""
    resumed = value_of("--resume", arguments)
    if resumed is not None:
        try:
            return load_yaml(TrainConfig, Path(resumed) / "config.yaml")
        except ConfigError as error:
            raise ConfigError(f"--resume {resumed}: {error}") from None
    given = value_of("--config", arguments)
    return TrainConfig() if given is None else load_yaml(TrainConfig, Path(given))
