"""Training: one folder that holds a run's configuration, checkpoints, curves and report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from fastsim.errors import CheckpointError
from fastsim.experiment.config import TrainConfig, read_run
from fastsim.experiment.folder import policy_folder, start_name, start_run
from fastsim.experiment.markets import Markets, load_markets
from fastsim.experiment.replays import validate
from fastsim.learn.trainer import Trainer
from fastsim.policy.folder import save_policy
from fastsim.policy.spec import make_spec
from fastsim.progress import ON_STDERR, Progress


def train(config: TrainConfig, *, progress: Progress = ON_STDERR) -> Path:
    """Train from the beginning; returns the run's folder."""
    markets = load_markets(config, progress=progress)
    config = markets.config
    trainer = make_trainer(config, markets)
    folder = start_run(config, Path(config.runs_dir) / start_name(config))
    return _train(config, markets, trainer, folder, progress, best=float("-inf"))


def resume(folder: Path, *, progress: Progress = ON_STDERR) -> Path:
    """Go on with a run from its latest checkpoint, exactly as if it had never stopped."""
    config = read_run(folder)
    markets = load_markets(config, progress=progress)
    trainer = make_trainer(config, markets)
    latest = folder / "checkpoints" / "latest.pt"
    best = float("-inf")
    if latest.exists():
        best = float(trainer.load(latest)["best"])
    return _train(config, markets, trainer, folder, progress, best=best)


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


def _train(
    config: TrainConfig,
    markets: Markets,
    trainer: Trainer,
    folder: Path,
    progress: Progress,
    *,
    best: float,
) -> Path:
    checkpoints = folder / "checkpoints"
    every = max(1, config.iterations // config.evaluations)
    writer = SummaryWriter(str(folder / "tensorboard"), purge_step=trainer.iteration)
    try:
        with progress.task(
            "training", config.iterations, unit="iterations", done=trainer.iteration
        ) as task:
            while trainer.iteration < config.iterations:
                figures = trainer.iterate()
                last = trainer.iteration == config.iterations
                if last or trainer.iteration % every == 0:
                    validation = validate(trainer.policy, markets.validation, config.env)
                    figures |= validation
                    score = validation["validation/log_growth"]
                    if score > best:
                        best = score
                        save_policy(trainer.policy, policy_folder(folder))
                        trainer.save(checkpoints / "best.pt", best=best)
                    save_policy(trainer.policy, policy_folder(folder, "latest"))
                    trainer.save(checkpoints / "latest.pt", best=best)
                for name, value in figures.items():
                    writer.add_scalar(name, value, trainer.iteration)
                task.advance(**_shown(figures))
    finally:
        writer.close()
    if not (checkpoints / "best.pt").exists():
        raise CheckpointError(f"{folder}: no policy had a finite growth on the validation bars")
    return folder


def _shown(figures: Mapping[str, float]) -> dict[str, str]:
    """What is said of an iteration beside the bar."""
    shown = {"rate": f"{figures['time/steps_per_second']:,.0f} steps/s"}
    if "validation/sharpe_ratio" in figures:
        shown["validation"] = f"validation Sharpe {figures['validation/sharpe_ratio']:.2f}"
    return shown
