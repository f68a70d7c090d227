"""A run: one folder that holds its configuration, checkpoints, curves and report."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from fastsim.backtest.history import History
from fastsim.backtest.replay import replay
from fastsim.backtest.summary import summarize
from fastsim.config import load_yaml, require_between, require_choice, save_yaml
from fastsim.data.source import DataConfig, load_bars
from fastsim.data.split import split_by_date
from fastsim.env.core import EnvConfig
from fastsim.env.episode import EpisodeConfig, check_room
from fastsim.env.reward import RewardConfig
from fastsim.errors import CheckpointError, ConfigError
from fastsim.forecast.ensemble import Ensemble, fit_on_market
from fastsim.forecast.interface import Forecaster, Precision
from fastsim.forecast.registry import FITTED, load_ensemble, parse_names, parse_weights
from fastsim.forecast.tape import build_forecast_tape
from fastsim.learn.ppo import PPOConfig
from fastsim.learn.trainer import Trainer
from fastsim.market.tape import MarketTape, TapeConfig, make_tape
from fastsim.policy.network import Policy, PolicyConfig
from fastsim.stats.metrics import periods_per_year
from fastsim.synthetic.config import WorldsConfig
from fastsim.synthetic.fresh import FreshWorlds

log = logging.getLogger(__name__)


def _default_env() -> EnvConfig:
    return EnvConfig(
        action="logits",
        reward=RewardConfig(kind="excess_log_growth"),
        episode=EpisodeConfig(staggered=True),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ForecastConfig:
    """How forecasts become observations."""

    horizons: tuple[int, ...] = (1, 5, 21)
    """Bars ahead; each gives an expected return, a dispersion and a probability of a rise."""
    context_length: int = 512
    """Bars that a forecast looks back on."""
    precision: Precision = "float32"
    batch_size: int = 256
    """Forecasts asked for at once; larger batches fall out of a CPU's cache."""

    def __post_init__(self) -> None:
        require_choice(self, "precision")
        require_between(self, "context_length", 1)
        require_between(self, "batch_size", 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Everything a training run depends on; `config.yaml` in its folder repeats it."""

    name: str | None = None
    """Folder of the run; by default the data's name and the time."""
    runs_dir: str = "runs"
    """Where the folders of runs are kept."""
    seed: int = 0
    """Of weights, episodes, exploration and minibatches; same seed, same run."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where everything lies and runs; "auto" takes a GPU where there is one."""
    total_steps: int = 2_000_000
    """Environment steps to train for, over all environments."""
    evaluations: int = 20
    """How often the policy is tried on the validation bars; the best one is kept."""
    validation_start: str = "2014-01-01"
    """Day from which bars choose the best policy instead of training it."""
    test_start: str = "2017-01-01"
    """Day from which bars are kept for the final evaluation."""
    forecaster: str = "fastsim-prior"
    """Whose forecasts are observed: names or artefacts, separated by commas, or "none"."""
    weights: str = ""
    """Weights of several forecasters, such as 0.4,0.4,0.2; equal if empty; "fit" finds those that
    forecast the validation bars best."""
    forecast: ForecastConfig = field(default_factory=ForecastConfig)
    data: DataConfig = field(default_factory=DataConfig)
    tape: TapeConfig = field(default_factory=TapeConfig)
    worlds: WorldsConfig = field(default_factory=WorldsConfig)
    env: EnvConfig = field(default_factory=_default_env)
    ppo: PPOConfig = field(default_factory=PPOConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)

    def __post_init__(self) -> None:
        require_choice(self, "device")
        require_between(self, "total_steps", self.ppo.num_envs * self.ppo.rollout_steps)
        require_between(self, "evaluations", 1)
        require_between(self, "seed", 0, 2**53)
        if self.env.autoreset != "next_step":
            raise ConfigError('training needs EnvConfig.autoreset = "next_step"')
        if parse_names(self.forecaster) and self.worlds.model != "none":
            raise ConfigError(
                "forecasts are tabulated for one history, not for worlds drawn on the way: "
                'use TrainConfig.forecaster = "none" or WorldsConfig.model = "none"'
            )
        if self.weights != FITTED:
            parse_weights(self.weights)
        if self.name is not None and Path(self.name).name != self.name:
            raise ConfigError(f"TrainConfig.name must be a plain folder name, got {self.name!r}")

    @property
    def iterations(self) -> int:
        """Rollouts and updates in the run."""
        return self.total_steps // (self.ppo.num_envs * self.ppo.rollout_steps)


class Markets(NamedTuple):
    """One tape, restricted to the bars of each part, and worlds to learn from in its place."""

    train: MarketTape
    validation: MarketTape
    test: MarketTape
    worlds: FreshWorlds | None = None


def load_markets(config: TrainConfig, *, console: Console | None = None) -> Markets:
    """Read the data, forecast it, and lay out the three parts on the run's device."""
    bars = load_bars(config.data)
    split = split_by_date(bars.timestamps, config.validation_start, config.test_start)
    tape = make_tape(bars, config.tape, device=resolve_device(config.device))
    parts = [tape.between(rows) for rows in split]
    check_room(parts[0], config.env.episode)
    features = forecast_features(config, tape, split.validation, console)
    worlds = config.worlds.fit(bars.take(split.train), tape, config.tape)
    train, validation, test = (part.with_features(features) for part in parts)
    return Markets(train, validation, test, worlds)


def forecast_features(
    config: TrainConfig, tape: MarketTape, validation: slice, console: Console | None
) -> dict[str, Tensor]:
    """Features [T, A] of the run's forecaster, tabulated once beside the runs; none for "none"."""
    names = parse_names(config.forecaster)
    if not names:
        return {}
    settings = config.forecast
    weights = None if config.weights == FITTED else parse_weights(config.weights)
    forecaster = load_ensemble(names, weights, precision=settings.precision, device=tape.device)
    if config.weights == FITTED:
        forecaster = _fitted(forecaster, config.forecast, tape, validation, console)
    table = build_forecast_tape(
        tape,
        forecaster,
        Path(config.runs_dir) / "forecasts",
        horizons=settings.horizons,
        context_length=min(settings.context_length, forecaster.card.max_context),
        batch_size=settings.batch_size,
        console=console,
    )
    return table.features(tape)


def _fitted(
    forecaster: Forecaster,
    settings: ForecastConfig,
    tape: MarketTape,
    validation: slice,
    console: Console | None,
) -> Forecaster:
    """The same members with the weights that forecast the validation bars best."""
    if not isinstance(forecaster, Ensemble):
        return forecaster
    weights = fit_on_market(
        forecaster.members,
        tape,
        validation,
        horizons=settings.horizons,
        context_length=settings.context_length,
    )
    shares = zip(weights, forecaster.members, strict=True)
    text = ", ".join(f"{weight:.3f} {member.card.name}" for weight, member in shares)
    (console or Console(stderr=True)).print(f"Fitted weights: {text}", highlight=False)
    return Ensemble(forecaster.members, weights, on_failure=forecaster.on_failure)


def resolve_device(device: str) -> torch.device:
    """The device that was asked for; ConfigError where CUDA is wanted and there is none."""
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ConfigError('device "cuda" was asked for, but PyTorch finds no GPU; use "cpu"')
    return torch.device("cuda" if available and device != "cpu" else "cpu")


def start_name(config: TrainConfig) -> str:
    """Name of the run's folder: its own, or the data's with the time."""
    return config.name or f"{Path(config.data.source).stem}-{datetime.now():%Y%m%d-%H%M%S}"


def start_run(config: object, folder: Path) -> Path:
    """Make the folder of a new run and write its configuration; ConfigError if it holds one."""
    if (folder / "config.yaml").exists():
        raise ConfigError(f"{folder} holds a run already; resume it, or choose another --name")
    save_yaml(config, folder / "config.yaml")
    return folder


def train(config: TrainConfig, *, console: Console | None = None) -> Path:
    """Train from the beginning; returns the run's folder."""
    markets = load_markets(config, console=console)
    trainer = make_trainer(config, markets)
    folder = start_run(config, Path(config.runs_dir) / start_name(config))
    return _train(config, markets, trainer, folder, console, best=float("-inf"))


def resume(folder: Path, *, console: Console | None = None) -> Path:
    """Go on with a run from its latest checkpoint, exactly as if it had never stopped."""
    config = read_run(folder)
    markets = load_markets(config, console=console)
    trainer = make_trainer(config, markets)
    latest = folder / "checkpoints" / "latest.pt"
    best = float("-inf")
    if latest.exists():
        best = float(trainer.load(latest)["best"])
    return _train(config, markets, trainer, folder, console, best=best)


def read_run(folder: Path) -> TrainConfig:
    """Configuration of a run, wherever its folder is now: forecasts are looked up beside it."""
    config = load_yaml(TrainConfig, folder / "config.yaml")
    return replace(config, runs_dir=str(folder.resolve().parent))


def make_trainer(config: TrainConfig, markets: Markets) -> Trainer:
    """Put the parts of a run together."""
    return Trainer(
        markets.worlds or markets.train,
        config.env,
        config.ppo,
        config.policy,
        iterations=config.iterations,
        seed=config.seed,
    )


def load_policy(folder: Path, checkpoint: str = "best") -> tuple[TrainConfig, Markets, Policy]:
    """Configuration, markets and trained policy of a run."""
    config = read_run(folder)
    markets = load_markets(config)
    trainer = make_trainer(config, markets._replace(worlds=None))  # it learns no more
    trainer.load(folder / "checkpoints" / f"{checkpoint}.pt")
    return config, markets, trainer.policy


def play(policy: Policy, tape: MarketTape, env: EnvConfig, name: str = "agent") -> History:
    """Let the policy trade the whole tape once, without exploration."""
    return replay(tape, lambda _, observation: policy.act(tape, observation), [name], env)


def _train(
    config: TrainConfig,
    markets: Markets,
    trainer: Trainer,
    folder: Path,
    console: Console | None,
    *,
    best: float,
) -> Path:
    checkpoints = folder / "checkpoints"
    every = max(1, config.iterations // config.evaluations)
    writer = SummaryWriter(str(folder / "tensorboard"), purge_step=trainer.iteration)
    try:
        with _progress(console, config.iterations, trainer.iteration) as report:
            while trainer.iteration < config.iterations:
                figures = trainer.iterate()
                last = trainer.iteration == config.iterations
                if last or trainer.iteration % every == 0:
                    validation = _validate(trainer.policy, markets.validation, config.env)
                    figures |= validation
                    score = validation["validation/log_growth"]
                    if score > best:
                        best = score
                        trainer.save(checkpoints / "best.pt", best=best)
                    trainer.save(checkpoints / "latest.pt", best=best)
                for name, value in figures.items():
                    writer.add_scalar(name, value, trainer.iteration)
                report(trainer.iteration, figures)
    finally:
        writer.close()
    if not (checkpoints / "best.pt").exists():
        raise CheckpointError(f"{folder}: no policy had a finite growth on the validation bars")
    return folder


def _validate(policy: Policy, tape: MarketTape, env: EnvConfig) -> dict[str, float]:
    history = play(policy, tape, env)
    summary = summarize(history, periods_per_year=periods_per_year(history.timestamps))
    growth = (history.wealth[-1, 0] / history.wealth[0, 0]).clamp_min(1e-9).log()
    return {
        "validation/log_growth": float(growth),
        "validation/sharpe_ratio": float(summary.sharpe_ratio[0]),
        "validation/max_drawdown": float(summary.max_drawdown[0]),
        "validation/turnover": float(summary.turnover[0]),
    }


@contextmanager
def _progress(console: Console | None, total: int, done: int) -> Iterator[Any]:
    columns = (
        TextColumn("training"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} iterations"),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[validation]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console or Console(stderr=True)) as progress:
        task = progress.add_task("training", total=total, completed=done, rate="", validation="")

        def report(iteration: int, figures: dict[str, float]) -> None:
            fields = {"rate": f"{figures['time/steps_per_second']:,.0f} steps/s"}
            if "validation/sharpe_ratio" in figures:
                sharpe = figures["validation/sharpe_ratio"]
                fields["validation"] = f"validation Sharpe {sharpe:.2f}"
            progress.update(task, completed=iteration, **fields)  # type: ignore[arg-type]

        yield report
