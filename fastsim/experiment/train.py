"""Training: one folder that holds a run's configuration, checkpoints, curves and report."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from fastsim.agent.artifact import POLICY, save_spec
from fastsim.config import load_yaml, save_yaml
from fastsim.errors import CheckpointError, ConfigError
from fastsim.experiment.config import TrainConfig, read_run
from fastsim.experiment.events import events
from fastsim.experiment.folder import agent_folder, start_name, start_run
from fastsim.experiment.markets import Markets, load_markets
from fastsim.experiment.replays import REPLAY_SECONDS, REPLAYS, validate
from fastsim.learn.trainer import Trainer
from fastsim.policy.folder import save_policy
from fastsim.policy.policy import Policy
from fastsim.policy.spec import make_spec
from fastsim.progress import ON_STDERR, Progress, Whole, whole

logger = logging.getLogger(__name__)

ITERATION_SECONDS = 0.2
"""What an iteration takes, before any has been done."""


def train(config: TrainConfig, *, progress: Progress = ON_STDERR) -> Path:
    """Train from the beginning; returns the run's folder."""
    with whole(progress, "training") as run:
        markets = load_markets(config, progress=run)
        config = markets.config
        tested = replace(markets.validation, last=markets.test.last)
        for beware in markets.seen.doubts(tested, bars="validation and test bars"):
            logger.warning(beware)
        trainer = make_trainer(config, markets)
        folder = start_run(config, Path(config.runs_dir) / start_name(config))
        _expect(run, config, markets, trainer, evaluated=run is progress)
        return _train(config, markets, trainer, folder, run, best=float("-inf"))


def resume(folder: Path, *, total_steps: int | None = None, progress: Progress = ON_STDERR) -> Path:
    """Go on with a run from its latest checkpoint, exactly as if it had never stopped.

    With `total_steps` it goes on to that many environment steps in all, finished or not: what falls
    over a run falls from there over what is left, and its `config.yaml` says so.

    Raises
    ------
    ConfigError
        The run has done more steps than `total_steps`.
    CheckpointError
        Its checkpoint is damaged or of another configuration.
    """
    config = read_run(folder)
    if total_steps is not None:
        config = replace(config, total_steps=total_steps)
    with whole(progress, "training") as run:
        markets = load_markets(config, progress=run)
        trainer = make_trainer(config, markets)
        latest = folder / "checkpoints" / "latest.pt"
        best = float("-inf")
        if latest.exists():
            best = float(trainer.load(latest)["best"])
        if total_steps is not None:
            _extend(folder, config, trainer.iteration)
        _expect(run, config, markets, trainer, evaluated=run is progress)
        return _train(config, markets, trainer, folder, run, best=best)


def _extend(folder: Path, config: TrainConfig, iteration: int) -> None:
    """Let the run's configuration have the new number of steps, if it has not done more."""
    done = iteration * config.collect.frames
    if config.iterations < iteration:
        raise ConfigError(
            f"TrainConfig.total_steps = {config.total_steps} is less than the {done} steps that "
            f"{folder} has done: it is the new total, so give more"
        )
    path = folder / "config.yaml"
    save_yaml(replace(load_yaml(TrainConfig, path), total_steps=config.total_steps), path)


def make_trainer(config: TrainConfig, markets: Markets) -> Trainer:
    """Put the parts of a run together; its policy is for history, whatever it learns from."""
    trainer = Trainer(
        markets.worlds or markets.train,
        config.env,
        config.settings,
        config.policy,
        config.collect,
        algorithm=config.algorithm,
        iterations=config.iterations,
        seed=config.seed,
    )
    trainer.policy.spec = make_spec(
        markets.train, config.env, config.policy, forecaster=config.forecaster
    )
    return trainer


def _expect(
    run: Whole, config: TrainConfig, markets: Markets, trainer: Trainer, *, evaluated: bool
) -> None:
    """Say what is to come; whoever has begun the whole goes on to evaluate."""
    left = config.iterations - trainer.iteration
    replays = -(-left // _every(config)) * (markets.validation.last - markets.validation.first)
    if evaluated:
        replays += REPLAYS * (markets.test.last - markets.test.first)
    run.expect("training", left, seconds_each=ITERATION_SECONDS)
    run.expect("replay", replays, seconds_each=REPLAY_SECONDS)


def _every(config: TrainConfig) -> int:
    """Iterations from one validation to the next."""
    return max(1, config.iterations // config.evaluations)


def _train(
    config: TrainConfig,
    markets: Markets,
    trainer: Trainer,
    folder: Path,
    progress: Whole,
    *,
    best: float,
) -> Path:
    checkpoints, every = folder / "checkpoints", _every(config)
    training = progress.task(
        "training", config.iterations, unit="iterations", done=trainer.iteration
    )
    with events(folder / "tensorboard", config, trainer.iteration) as log, training as task:
        while trainer.iteration < config.iterations:
            figures = trainer.iterate()
            last = trainer.iteration == config.iterations
            if last or trainer.iteration % every == 0:
                validation = validate(
                    trainer.policy, markets.validation, config.env, progress=progress
                )
                figures |= validation
                score = validation["validation/log_growth"]
                if score > best:
                    best = score
                    _save_agent(trainer.policy, markets, agent_folder(folder))
                    trainer.save(checkpoints / "best.pt", best=best)
                _save_agent(trainer.policy, markets, agent_folder(folder, "latest"))
                trainer.save(checkpoints / "latest.pt", best=best)
            log.log(figures, trainer.iteration)
            task.advance(**_shown(figures))
    if not (checkpoints / "best.pt").exists():
        raise CheckpointError(f"{folder}: no policy had a finite growth on the validation bars")
    return folder


def _save_agent(policy: Policy, markets: Markets, folder: Path) -> None:
    """Write the policy as it is now into an agent's folder, and what else that needs."""
    save_policy(policy, folder / POLICY)
    save_spec(folder, markets.agent)


def _shown(figures: Mapping[str, float]) -> dict[str, str]:
    """What is said of an iteration beside the bar."""
    shown = {"rate": f"{figures['time/steps_per_second']:,.0f} steps/s"}
    if "validation/sharpe_ratio" in figures:
        shown["validation"] = f"validation Sharpe {figures['validation/sharpe_ratio']:.2f}"
    return shown
