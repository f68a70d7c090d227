"""Train fastsim's own PPO from Python: what `fastsim train` does, with choices of your own."""

from fastsim.env.config import EnvConfig
from fastsim.env.episode import EpisodeConfig
from fastsim.env.reward import RewardConfig
from fastsim.experiment.config import TrainConfig
from fastsim.experiment.evaluate import evaluate, headline
from fastsim.experiment.train import train
from fastsim.learn.rollout import CollectConfig
from fastsim.market.costs import CostConfig

CONFIG = TrainConfig(
    total_steps=300_000,
    evaluations=5,
    env=EnvConfig(
        action="logits",
        reward=RewardConfig(kind="excess_log_growth"),
        episode=EpisodeConfig(horizon=126, staggered=True),
        costs=CostConfig(fee_bps=1.0, half_spread_bps=2.0),
    ),
    collect=CollectConfig(num_envs=512, rollout_steps=16),
)


def main() -> None:
    """Train, evaluate on the test bars, and print what came of it."""
    folder = train(CONFIG)
    evaluation = evaluate(folder)
    summary, names = headline(evaluation)
    for name, growth, sharpe in zip(
        names, summary.total_return.tolist(), summary.sharpe_ratio.tolist(), strict=True
    ):
        print(f"{name:20} {growth:8.1%} total return, Sharpe ratio {sharpe:5.2f}")
    print(f"Report: {evaluation.report}")


if __name__ == "__main__":
    main()
