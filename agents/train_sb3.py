"""Train Stable-Baselines3's PPO on 1,024 portfolios at once. Needs `fastsim-rl[sb3]`."""

from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy

from fastsim.adapters.sb3 import SB3VecEnv

RULES = {"market": "us20", "action": "logits", "reward": {"kind": "excess_log_growth"}}
STEPS = 200_000


def main() -> None:
    """Train on the years before 2017, then compare with the untrained policy on those after."""
    env = SB3VecEnv(1024, end="2016-12-31", **RULES)
    years = {"start": "2017-01-01", "episode": {"horizon": 250, "staggered": False}}
    unseen = SB3VecEnv(16, **years, **RULES)
    model = PPO(
        "MlpPolicy",
        env,
        n_steps=16,
        batch_size=4096,
        n_epochs=4,
        gamma=0.95,
        learning_rate=1e-3,
        policy_kwargs={"log_std_init": -2.3},  # on logits; 0 would turn everything over each step
        device="cpu",
        seed=0,
    )

    def score() -> float:
        unseen.seed(0)
        mean, _ = evaluate_policy(model, unseen, n_eval_episodes=16)
        return float(mean)

    before = score()
    model.learn(STEPS)
    print(f"log growth over the equal-weighted market in a year, before training: {before:+.4f}")
    print(f"log growth over the equal-weighted market in a year, after training:  {score():+.4f}")


if __name__ == "__main__":
    main()
