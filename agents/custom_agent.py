"""An agent of your own on Gymnasium's interface: inverse volatility, rebalanced once a month."""

import gymnasium
import numpy as np

import fastsim  # registers the environment


class InverseVolatility:
    """Weights each asset by one over its trailing volatility, and drifts in between."""

    def __init__(self, names: tuple[str, ...], num_assets: int, every: int = 21) -> None:
        """Find the columns to look at by their names."""
        self.volatility = [i for i, name in enumerate(names) if ".log_volatility_63" in name]
        self.weights = [i for i, name in enumerate(names) if name.startswith("weight.")]
        self.every, self.step = every, 0
        self.num_assets = num_assets

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Target weights; today's weights between the rebalancing days."""
        self.step += 1
        if self.step % self.every != 1:
            return observation[self.weights][: self.num_assets].clip(0.0, 1.0)
        inverse = np.exp(-observation[self.volatility])
        return (inverse / inverse.sum()).astype(np.float32)


def main() -> None:
    """Trade the years since 2017 once."""
    env = gymnasium.make(
        fastsim.ENV_ID, start="2017-01-01", episode={"horizon": None, "random_start": False}
    )
    observation, info = env.reset(seed=0)
    agent = InverseVolatility(env.unwrapped.observation_names, env.action_space.shape[0])
    start, done = info, False
    while not done:
        observation, _, terminated, truncated, info = env.step(agent.act(observation))
        done = terminated or truncated
    growth = info["wealth"] / start["wealth"] - 1.0
    print(f"{start['date'][:10]} to {info['date'][:10]}: {growth:+.1%} after costs")


if __name__ == "__main__":
    main()
