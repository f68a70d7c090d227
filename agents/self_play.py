"""PPO among its past selves and scripted players, in markets whose prices they all move.

    python agents/self_play.py --players 8
    python agents/self_play.py --resume runs/self-play-20250101-120000

The folder of a run holds its options and its latest checkpoint: a run that was stopped goes on from
there, exactly as if it had not been, and one that is over goes on to a new number of --iterations.
Prints the mean log growth of everyone in years that the learner has not seen, when the learner
begins and when it has learnt.
"""

import sys
from dataclasses import field, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from fastsim.adapters.build import build_env
from fastsim.cli.ending import one_line_errors, read_options, value_of
from fastsim.config import changes, configuration, load_yaml, require_between, save_yaml
from fastsim.data.dates import iso_date
from fastsim.env.config import EnvConfig
from fastsim.env.decide import Decider
from fastsim.env.episode import EpisodeConfig
from fastsim.env.impact import ImpactConfig
from fastsim.env.players import SCRIPTED
from fastsim.env.reward import RewardConfig
from fastsim.errors import ConfigError
from fastsim.experiment.folder import start_run
from fastsim.learn.league import LeagueConfig, LeagueEnv, play_match, train_league
from fastsim.learn.ppo.config import PPOConfig
from fastsim.learn.rollout import CollectConfig
from fastsim.learn.snapshot import Snapshot
from fastsim.learn.trainer import Trainer
from fastsim.market.costs import CostConfig
from fastsim.market.tape import MarketTape
from fastsim.policy.spec import PolicyConfig


@configuration(slots=False)
class Options:
    """How long to train, in which markets, and where to keep it."""

    iterations: int = 100
    markets: int = 64
    players: int = 6
    initial_cash: float = 1e9
    """Of each player: what an order moves grows with it."""
    split: str = "2012-01-01"
    """ISO date: bars before it are learned from, those after it are for the match."""
    seed: int = 0
    name: str | None = None
    """Folder of the run; by default the time."""
    runs_dir: str = "runs"
    """Where the folders of runs are kept."""
    save_every: int = 10
    """Iterations between checkpoints."""

    def __post_init__(self) -> None:
        for name in ("iterations", "save_every"):
            require_between(self, name, 1)


@configuration(slots=False)
class Command:
    """Train one policy in shared markets, and let it play against scripted players."""

    resume: Path | None = None
    """Folder of a run to go on with from its latest checkpoint; --iterations, its new total, lets
    it go further than it was to."""
    run: Annotated[Options, tyro.conf.arg(name="")] = field(default_factory=Options)


def rules_of(options: Options) -> EnvConfig:
    """Players with logits for actions, paid their growth beyond that of equal weights."""
    return EnvConfig(
        action="logits",
        players=options.players,
        impact=ImpactConfig(transient=5.0, permanent=0.1, half_life=3.0),
        costs=CostConfig(impact=0.0, participation=0.2),  # orders pay for what they move
        episode=EpisodeConfig(horizon=126, staggered=True),
        reward=RewardConfig(kind="excess_log_growth"),
        initial_cash=options.initial_cash,
    )


def match(learner: Decider, tape: MarketTape, options: Options) -> torch.Tensor:
    """Mean log growth per bar [P] of the learner and the scripted players."""
    rules = rules_of(options)
    rules = replace(rules, episode=replace(rules.episode, staggered=False))
    return play_match(tape, [learner, *SCRIPTED.values()], rules, markets=256, seed=options.seed)


def results_table(before: torch.Tensor, after: torch.Tensor) -> Table:
    """One row per player."""
    table = Table(title="mean log growth, basis points a bar", box=SIMPLE_HEAD)
    for name in ("player", "learner untrained", "learner trained"):
        table.add_column(name, justify="left" if name == "player" else "right")
    for name, *growth in zip(["learner", *SCRIPTED], before.tolist(), after.tolist(), strict=True):
        table.add_row(name, *(f"{1e4 * value:+.2f}" for value in growth))
    return table


def usual_command() -> Command:
    """What options change: the usual ones, or those of the run to go on with."""
    resumed = value_of("--resume", sys.argv[1:])
    if resumed is None:
        return Command()
    return Command(run=load_yaml(Options, Path(resumed) / "config.yaml"))


def options_of(command: Command) -> Options:
    """Those that were given; ConfigError if a run that goes on is given others than it has."""
    if command.resume is not None:
        own = load_yaml(Options, command.resume / "config.yaml")
        others = set(changes(command.run, own)) - {"iterations"}
        if others:
            raise ConfigError(
                f"--resume goes on with the run's own options, but for --iterations: "
                f"drop {', '.join(sorted(others))}"
            )
    return command.run


def make_run(options: Options) -> tuple[Trainer, LeagueEnv, MarketTape]:
    """The learner, its league, and the years that it does not see."""
    iso_date(options.split, "--split")
    rules = rules_of(options)
    rows = options.markets * options.players
    training = build_env(rows, "tech4", end=options.split, config=rules)
    unseen = build_env(options.players, "tech4", start=options.split, config=rules).tape
    league = LeagueEnv(training, list(SCRIPTED.values()), LeagueConfig(), seed=options.seed)
    trainer = Trainer(
        training.tape,
        league,
        PPOConfig(),
        PolicyConfig(),
        CollectConfig(num_envs=options.markets, rollout_steps=32),
        iterations=options.iterations,
        seed=options.seed,
    )
    return trainer, league, unseen


def latest_of(folder: Path) -> Path:
    """Where a run keeps its latest checkpoint."""
    return folder / "checkpoints" / "latest.pt"


def train(trainer: Trainer, league: LeagueEnv, options: Options, folder: Path) -> None:
    """Train to the end of the run in this folder, from its latest checkpoint if it has one."""
    latest = latest_of(folder)
    if latest.exists():
        trainer.load(latest)
    if trainer.iteration > options.iterations:
        raise ConfigError(
            f"Options.iterations = {options.iterations} is less than the {trainer.iteration} that "
            f"{folder} has done: it is the new total, so give more"
        )
    save_yaml(options, folder / "config.yaml")
    while trainer.iteration < options.iterations:
        left = options.iterations - trainer.iteration
        train_league(trainer, league, min(options.save_every, left))
        trainer.save(latest)


def train_and_play(command: Command) -> Table:
    """The match before training and after it; a KeyboardInterrupt says how to go on."""
    options = options_of(command)
    trainer, league, unseen = make_run(options)
    name = options.name or f"self-play-{datetime.now():%Y%m%d-%H%M%S}"
    folder = command.resume or start_run(options, Path(options.runs_dir) / name)
    try:
        before = match(Snapshot(trainer.policy), unseen, options)
        train(trainer, league, options, folder)
        after = match(Snapshot(trainer.policy), unseen, options)
    except KeyboardInterrupt:
        if latest_of(folder).exists():
            raise KeyboardInterrupt(f"--resume {folder} goes on") from None
        raise
    return results_table(before, after)


def main() -> None:
    """Train, play and print."""
    with one_line_errors("self_play", Command):
        Console().print(train_and_play(read_options(Command, usual_command())))


if __name__ == "__main__":
    main()
