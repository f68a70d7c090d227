"""Training: one folder that holds a run's configuration, checkpoints, curves and report."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from fastsim.backtest.history import History
from fastsim.backtest.replay import replay
from fastsim.backtest.summary import summarize
from fastsim.config import save_yaml
from fastsim.env.config import EnvConfig
from fastsim.errors import CheckpointError, ConfigError
from fastsim.experiment.config import TrainConfig, read_run
from fastsim.experiment.markets import Markets, load_markets
from fastsim.learn.trainer import Trainer
from fastsim.market.tape import MarketTape
from fastsim.policy.folder import save_policy
from fastsim.policy.network import Policy
from fastsim.policy.spec import make_spec
from fastsim.progress import ON_STDERR, Progress
from fastsim.stats.metrics import periods_per_year


def start_name(config: TrainConfig) -> str:
    """Name of the run's folder: its own, or the data's with the time."""
    return config.name or f"{Path(config.data.source).stem}-{datetime.now():%Y%m%d-%H%M%S}"


def start_run(config: object, folder: Path) -> Path:
    """Make the folder of a new run and write its configuration; ConfigError if it holds one."""
    if (folder / "config.yaml").exists():
        raise ConfigError(f"{folder} holds a run already; resume it, or choose another --name")
    save_yaml(config, folder / "config.yaml")
    return folder


def train(config: TrainConfig, *, progress: Progress = ON_STDERR) -> Path:
    """Train from the beginning; returns the run's folder."""
    markets = load_markets(config, progress=progress)
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
        config.ppo,
        config.policy,
        iterations=config.iterations,
        seed=config.seed,
    )
    trainer.policy.spec = make_spec(
        markets.train, config.env, config.policy, forecaster=config.forecaster
    )
    return trainer


def policy_folder(run: Path, checkpoint: str = "best") -> Path:
    """Where a run keeps its policy: the best on the validation bars, or the latest."""
    return run / ("policy" if checkpoint == "best" else f"policy-{checkpoint}")


def play(policy: Policy, tape: MarketTape, env: EnvConfig, name: str = "agent") -> History:
    """Let the policy trade the whole tape once, without exploration."""
    return replay(tape, policy, [name], env)


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
                    validation = _validate(trainer.policy, markets.validation, config.env)
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


def _shown(figures: Mapping[str, float]) -> dict[str, str]:
    """What is said of an iteration beside the bar."""
    shown = {"rate": f"{figures['time/steps_per_second']:,.0f} steps/s"}
    if "validation/sharpe_ratio" in figures:
        shown["validation"] = f"validation Sharpe {figures['validation/sharpe_ratio']:.2f}"
    return shown
