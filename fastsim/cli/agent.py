"""`fastsim agent`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from fastsim.agent.agent import Agent
from fastsim.agent.config import StrategyConfig
from fastsim.agent.make import make_agent
from fastsim.config import configuration, load_yaml
from fastsim.errors import ConfigError


@configuration(slots=False)
class MakeCommand:
    """Make an agent of a strategy that trades on forecasts: the folder that a run leaves."""

    strategy: tyro.conf.Positional[Path]
    """YAML of the strategy; other options override it."""
    out: Path | None = None
    """The agent's folder; by default runs/NAME/agent, by the name of the file."""
    config: Annotated[StrategyConfig, tyro.conf.arg(name="")] = field(
        default_factory=StrategyConfig
    )

    @classmethod
    def usual(cls, arguments: Sequence[str]) -> MakeCommand:
        """What the file that is named in these arguments says."""
        before = ("", *arguments)  # a word after an option without = is its value
        words = [word for last, word in zip(before, arguments, strict=False) if last[:2] != "--"]
        named = next((Path(word) for word in words if word.endswith((".yaml", ".yml"))), None)
        if named is None:
            return cls(strategy=tyro.MISSING)
        return cls(strategy=named, config=load_yaml(StrategyConfig, named))

    def __call__(self, console: Console) -> None:
        """Make it, and say what it is."""
        if self.strategy.suffix not in (".yaml", ".yml"):
            raise ConfigError(f"the strategy must be a .yaml file, got {self.strategy}")
        out = self.out or Path("runs") / self.strategy.stem / "agent"
        if out.exists() and not out.is_dir():
            raise ConfigError(f"--out must be a folder, and {out} is a file")
        agent = make_agent(self.config, out)
        _say(console, f"Wrote {out}")
        show_agent(agent, console)


@configuration(slots=False)
class ShowCommand:
    """Say what an agent trades, by whose forecasts and when, and how far it looks back."""

    agent: tyro.conf.Positional[Path]
    """Folder of a run, or of its agent."""

    def __call__(self, console: Console) -> None:
        """Load and show."""
        show_agent(Agent.load(self.agent), console)


AgentAction = (
    Annotated[MakeCommand, tyro.conf.subcommand("make", prefix_name=False)]
    | Annotated[ShowCommand, tyro.conf.subcommand("show", prefix_name=False)]
)


@configuration(slots=False)
class AgentCommand:
    """Make an agent of a strategy, or show one."""

    action: Annotated[AgentAction, tyro.conf.arg(name="")]

    def __call__(self, console: Console) -> None:
        """Run the action."""
        self.action(console)


def show_agent(agent: Agent, console: Console) -> None:
    """A line for each thing that whoever feeds it has to know."""
    spec = agent.spec
    _say(console, f"- decides: {type(agent.decider).__name__}")
    _say(console, f"- trades: {', '.join(agent.symbols)}")
    _say(console, f"- by forecasts of: {', '.join(spec.forecasters) or 'nobody'}")
    _say(console, f"- looks back on: {agent.bars_needed} bars")
    calendar = spec.calendar.exchange or "the rule that its bars kept"
    _say(console, f"- expects bars by: {calendar}")
    _say(console, f"- fills at: {spec.tape.fill}")
    _say(console, f"- needs beside closes: {', '.join(spec.fields) or 'nothing'}")


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)
