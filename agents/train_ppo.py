"""Train fastsim's own PPO from Python: what `fastsim train` does, with choices of your own.

python agents/train_ppo.py --total-steps 300000
"""

from fastsim.cli.ending import one_line_errors, read_options
from fastsim.config import configuration
from fastsim.env.config import EnvConfig
from fastsim.env.episode import EpisodeConfig
from fastsim.env.reward import RewardConfig
from fastsim.experiment.config import TrainConfig
from fastsim.experiment.evaluate import Evaluation, evaluate, headline
from fastsim.experiment.train import train
from fastsim.learn.rollout import CollectConfig
from fastsim.market.costs import CostConfig


@configuration(slots=False)
class Options:
    """Train fastsim's PPO on 20 US stocks, and print what it comes to on years it never saw."""

    total_steps: int = 300_000
    """Environment steps to train for."""
    seed: int = 0
    """Of everything: same seed, same run."""
    name: str | None = None
    """Folder of the run; by default the data's name and the time."""
    runs_dir: str = "runs"
    """Where the folders of runs are kept."""


def config_of(options: Options) -> TrainConfig:
    """The options, and choices of our own."""
    return TrainConfig(
        total_steps=options.total_steps,
        seed=options.seed,
        name=options.name,
        runs_dir=options.runs_dir,
        evaluations=5,
        env=EnvConfig(
            action="logits",
            reward=RewardConfig(kind="excess_log_growth"),
            episode=EpisodeConfig(horizon=126, staggered=True),
            costs=CostConfig(fee_bps=1.0, half_spread_bps=2.0),
        ),
        collect=CollectConfig(num_envs=512, rollout_steps=16),
    )


def show(evaluation: Evaluation) -> None:
    """Print one line for the agent and for everyone beside it."""
    summary, names = headline(evaluation)
    for name, growth, sharpe in zip(
        names, summary.total_return.tolist(), summary.sharpe_ratio.tolist(), strict=True
    ):
        print(f"{name:20} {growth:8.1%} total return, Sharpe ratio {sharpe:5.2f}")
    print(f"Report: {evaluation.report}")


def main() -> None:
    """Train, evaluate on the test bars, and print what came of it."""
    with one_line_errors("train_ppo", Options, "`fastsim train --resume RUN` goes on"):
        show(evaluate(train(config_of(read_options(Options)))))


if __name__ == "__main__":
    main()
