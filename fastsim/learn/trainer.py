"""One run of PPO: its parts, one iteration of it, and its state on disk.

All randomness of an iteration comes from (seed, iteration), so a run that was killed and resumed
from a checkpoint goes on exactly as if nothing had happened.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fastsim.env.core import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.observe import Observation, observe_portfolio
from fastsim.learn.checkpoint import (
    flatten,
    load_checkpoint,
    load_into,
    save_checkpoint,
    unflatten,
)
from fastsim.learn.policy import Policy, PolicyConfig, check_tape
from fastsim.learn.ppo import (
    PPOConfig,
    RewardScale,
    explained_variance,
    learning_rate,
    make_batch,
    update,
)
from fastsim.learn.rollout import Rollout, collect, empty_rollout
from fastsim.market.tape import MarketTape

_SEED_STRIDE = 1_000_003


class Trainer:
    """PPO on one market.

    Parameters
    ----------
    tape
        The market to learn on.
    env, ppo, policy
        Rules, hyper-parameters and network.
    iterations
        Length of the run, over which the learning rate falls.
    seed
        Of everything: weights, environments, exploration and minibatches.
    """

    def __init__(
        self,
        tape: MarketTape,
        env: EnvConfig,
        ppo: PPOConfig,
        policy: PolicyConfig,
        *,
        iterations: int,
        seed: int = 0,
    ) -> None:
        self.config, self.iterations, self.seed = ppo, iterations, seed
        self.env = PortfolioEnv(tape, ppo.num_envs, env, seed=seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.policy = Policy(tape, self.env.action_width, policy)
        self.optimizer = torch.optim.Adam(self.policy.parameters(), lr=ppo.learning_rate, eps=1e-5)
        self.reward_scale = RewardScale(ppo.num_envs, tape.device)
        self.generator = torch.Generator(tape.device)
        self.rollout = empty_rollout(self.env, ppo.rollout_steps)
        self.observation: Observation = self.env.reset(seed)
        self.iteration = 0

    @property
    def frames_per_iteration(self) -> int:
        """Environment steps in one iteration."""
        return self.config.num_envs * self.config.rollout_steps

    def iterate(self) -> dict[str, float]:
        """Collect one rollout and learn from it; returns named figures of the iteration."""
        started = time.perf_counter()
        self.generator.manual_seed(self.seed * _SEED_STRIDE + self.iteration)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.iteration / self.iterations)
        self.observation = collect(
            self.env, self.policy, self.observation, self.rollout, self.generator
        )
        reward = self.reward_scale.update(self.rollout, self.config.discount)
        batch = make_batch(self.rollout, reward, self.config)
        losses = update(
            self.policy, self.optimizer, self.env.tape, batch, self.config, self.generator
        )
        figures = self._rollout_figures(self.rollout)
        figures["value/explained_variance"] = float(
            explained_variance(batch.value, batch.value_target, batch.valid)
        )
        figures |= {f"loss/{name}": losses[name] for name in ("policy", "value")}
        figures |= {f"policy/{name}": losses[name] for name in ("kl", "clip_fraction", "entropy")}
        figures["policy/std"] = float(self.policy.log_std.detach().exp().mean())
        figures["policy/learning_rate"] = self.optimizer.param_groups[0]["lr"]
        self.policy.portfolio_moments.update(batch.portfolio, batch.valid)
        self.iteration += 1
        elapsed = time.perf_counter() - started
        figures["time/steps_per_second"] = self.frames_per_iteration / elapsed
        return figures

    def save(self, path: Path, **extra: Any) -> None:
        """Write a checkpoint, with `extra` plain values beside the run's own."""
        tape = self.env.tape
        content = {
            "iteration": self.iteration,
            "symbols": list(tape.symbols),
            "feature_names": list(tape.feature_names),
            "policy": self.policy.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "reward_scale": self.reward_scale.state_dict(),
            "env": flatten(self.env.state),
            "extra": extra,
        }
        save_checkpoint(path, content)

    def load(self, path: Path) -> Mapping[str, Any]:
        """Go on from a checkpoint of this same configuration; returns its `extra` values."""
        content = load_checkpoint(path, self.env.tape.device)
        check_tape(self.env.tape, tuple(content["symbols"]), tuple(content["feature_names"]))
        load_into(self.policy, content["policy"], path)
        load_into(self.reward_scale, content["reward_scale"], path)
        self.optimizer.load_state_dict(content["optimizer"])
        self.env.state = unflatten(self.env.state, content["env"])
        self.iteration = content["iteration"]
        state = self.env.state
        self.observation = Observation(
            state.episode.bar,
            observe_portfolio(state.portfolio, state.peak, self.env.config.initial_cash),
        )
        extra: Mapping[str, Any] = content["extra"]
        return extra

    def _rollout_figures(self, rollout: Rollout) -> dict[str, float]:
        """Means over the rollout's valid steps; the Sharpe ratio pools all environments."""
        valid = rollout.valid
        growth = rollout.log_growth[valid]
        drawdown = rollout.portfolio[:-1, :, -2][valid]
        return {
            "rollout/reward": float(rollout.reward[valid].mean()),
            "rollout/sharpe_ratio": float(growth.mean() / growth.std() * 252**0.5),
            "rollout/drawdown": float(drawdown.mean()),
            "rollout/turnover": float(rollout.turnover[valid].mean()),
            "rollout/cost_bps": float(rollout.cost[valid].mean()) * 1e4,
        }
