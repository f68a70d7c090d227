"""Train Stable-Baselines3's PPO on 1,024 portfolios at once. Needs `fastsim-rl[sb3]`.

python agents/train_sb3.py --steps 200000
"""

from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy

from fastsim.adapters.sb3 import SB3VecEnv
from fastsim.cli.ending import one_line_errors, read_options
from fastsim.config import configuration, require_between

RULES = {"market": "us20", "action": "logits", "reward": {"kind": "excess_log_growth"}}


@configuration(slots=False)
class Options:
    """Train on the years before 2017, then compare with the untrained policy on those after."""

    steps: int = 200_000
    """Environment steps to train for."""
    num_envs: int = 1024
    """Portfolios side by side."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "num_envs"):
            require_between(self, name, 1)
        require_between(self, "seed", 0, 2**32 - 1)


def make_model(env: SB3VecEnv, options: Options) -> PPO:
    """PPO on these portfolios, not trained yet."""
    return PPO(
        "MlpPolicy",
        env,
        n_steps=16,
        batch_size=min(4096, 16 * options.num_envs),
        n_epochs=4,
        gamma=0.95,
        learning_rate=1e-3,
        policy_kwargs={"log_std_init": -2.3},  # on logits; 0 would turn everything over each step
        device="cpu",
        seed=options.seed,
    )


def score(model: PPO, unseen: SB3VecEnv) -> float:
    """Mean log growth over that of the equal-weighted market, in a year."""
    unseen.seed(0)
    mean, _ = evaluate_policy(model, unseen, n_eval_episodes=16)
    return float(mean)


def main() -> None:
    """Score, train, score."""
    with one_line_errors("train_sb3", Options):
        options = read_options(Options)
        # Staggered, so that the critic is not asked about all rows' last states in one step.
        env = SB3VecEnv(options.num_envs, end="2016-12-31", episode={"staggered": True}, **RULES)
        years = {"start": "2017-01-01", "episode": {"horizon": 250}}
        unseen = SB3VecEnv(16, **years, **RULES)
        model = make_model(env, options)
        before = score(model, unseen)
        model.learn(options.steps)
        after = score(model, unseen)
    print(f"log growth over the equal-weighted market in a year, before training: {before:+.4f}")
    print(f"log growth over the equal-weighted market in a year, after training:  {after:+.4f}")


if __name__ == "__main__":
    main()
