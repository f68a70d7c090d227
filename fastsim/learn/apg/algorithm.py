"""Short-horizon actor-critic (Xu et al. 2022): wealth is differentiated through the books.

What an account earns is a smooth function of what it trades, and the market moves whatever it does,
so the slope of a rollout's rewards by the policy's parameters is had in one pass back through the
steps, at the variance of the market's draws alone. A value at the end of the rollout stands for all
that comes after it, and its slope by the portfolio is part of the gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fastsim.env.environment import PortfolioEnv
from fastsim.env.nested import flatten, unflatten
from fastsim.errors import ConfigError
from fastsim.learn.advantage import fused_gae
from fastsim.learn.algorithm import AlgorithmRecord, Course
from fastsim.learn.apg.config import APGConfig
from fastsim.learn.apg.path import earnings, roll_out
from fastsim.learn.figures import (
    Episodes,
    Figures,
    explained_variance,
    mean_where,
    rollout_figures,
    units_of,
)
from fastsim.learn.optimizer import adam, descend, falling, follow, set_rate
from fastsim.learn.reward_scale import RewardScale
from fastsim.learn.rollout import (
    CollectConfig,
    Environment,
    begin_policy,
    begin_rollout,
    empty_rollout,
)
from fastsim.policy.policy import Policy, PolicyOutput
from fastsim.policy.spec import PolicyConfig

BETAS = (0.7, 0.95)
"""Of Adam, as in the paper: gradients are exact but for the market's draws, and change quickly."""


class APG:
    """Learning by the gradient of wealth; see `AlgorithmRecord.make` for what it is given.

    The reference steps the environment, whatever its backend. Values are a network of their own, of
    the policy's size; those at the end of a rollout are its slow average.
    """

    def __init__(
        self,
        env: Environment,
        policy: PolicyConfig,
        config: APGConfig,
        collect: CollectConfig,
        course: Course,
    ) -> None:
        differentiable(env)
        self.config, self.course = config, course
        self._units = units_of(env)
        self.policy = begin_policy(env, policy, course.seed)
        self.table = self.policy.standardize(env.tape)
        self.critic, self.target = (begin_policy(env, policy, course.seed + 1) for _ in range(2))
        for values in (self.critic, self.target):
            values.portfolio_moments = self.policy.portfolio_moments
        self.target.requires_grad_(False)
        self.optimizer = adam(self.policy.parameters(), config.learning_rate, betas=BETAS)
        self.critic_optimizer = adam(self.critic.parameters(), config.critic_rate, betas=BETAS)
        self.reward_scale = RewardScale(collect.num_envs, env.tape.device)
        self.episodes = Episodes(collect.num_envs, env.tape.device)
        self.rollout = empty_rollout(env, collect.rollout_steps)
        begin_rollout(self.rollout, env.reset(course.seed))

    def collect(self, env: Environment) -> None:
        """Step the books from where the environment stands, and leave it where they end."""
        env = differentiable(env)
        state, self._path = roll_out(
            env.params, env.state, self.policy, self.table, self.rollout, self.course.generator
        )
        env.state = unflatten(state, [leaf.detach() for leaf in flatten(state)])

    def update(self) -> Figures:
        """Climb, then fit the values to what the rollout earned; reads nothing on a GPU."""
        config, rollout, done = self.config, self.rollout, self.course.done
        set_rate(self.optimizer, falling(config.learning_rate, config.schedule, done))
        set_rate(self.critic_optimizer, falling(config.critic_rate, config.schedule, done))
        reward = self.reward_scale.update(rollout, config.discount)
        path = self._path._replace(reward=self.reward_scale(self._path.reward))
        value = self._values(self.target, path.portfolio)
        earned = earnings(path, value, rollout, config.discount).mean()
        norm = descend(self.optimizer, -earned, config.max_grad_norm)
        del self._path  # and with it the way back through the steps
        figures = self._fit(reward, value.detach())
        follow(self.target, self.critic, config.target_rate)
        seen = rollout.samples(len(rollout.reward))
        self.policy.portfolio_moments.update(seen.portfolio, rollout.valid.flatten())
        figures |= {
            "policy/objective": earned.detach(),
            "policy/gradient": norm,
            "policy/std": self.policy.log_std.detach().exp().mean(),
            "policy/learning_rate": self.optimizer.param_groups[0]["lr"].clone(),
        }
        return rollout_figures(rollout, self._units) | self.episodes.update(rollout) | figures

    def renewed(self, worlds: Tensor) -> None:
        """Standardise anew what is known of these worlds [K]; no experience is kept."""
        self.policy.restandardize(self.table, worlds)

    def state_dict(self) -> dict[str, Any]:
        """Values, optimisers, the unit of rewards, episodes so far, and what the agents see."""
        parts = {name: part.state_dict() for name, part in self._parts.items()}
        return parts | {"observation": [leaf.clone() for leaf in flatten(self.rollout.seen(-1))]}

    def load_state_dict(self, saved: Mapping[str, Any], /) -> None:
        """Go on from there."""
        for name, part in self._parts.items():
            part.load_state_dict(saved[name])
        begin_rollout(self.rollout, unflatten(self.rollout.seen(-1), saved["observation"]))

    @property
    def _parts(self) -> dict[str, Any]:
        return {
            "critic": self.critic,
            "target": self.target,
            "optimizer": self.optimizer,
            "critic_optimizer": self.critic_optimizer,
            "reward_scale": self.reward_scale,
            "episodes": self.episodes,
        }

    def _values(self, critic: Policy, portfolio: Tensor) -> Tensor:
        """Values [S, N] of the rollout's first states, with these portfolios [S, N, P]."""
        seen = self.rollout.samples(len(portfolio))
        market = critic.look_up(self.table, seen.bar, seen.view)
        output: PolicyOutput = critic(market, portfolio.flatten(0, 1))
        return output.value.view(portfolio.shape[:2])

    def _fit(self, reward: Tensor, value: Tensor) -> Figures:
        """Fit the values to returns of scaled rewards [T, N] and slow values [T + 1, N]."""
        config, rollout = self.config, self.rollout
        advantage = fused_gae(
            reward,
            value,
            rollout.terminated,
            rollout.truncated,
            discount=config.discount,
            trace=config.trace,
        )
        target, valid = advantage + value[:-1], rollout.valid.to(value.dtype)
        for _ in range(config.critic_steps):
            now = self._values(self.critic, rollout.portfolio[:-1])
            loss = mean_where((now - target).square(), valid)
            descend(self.critic_optimizer, loss, config.max_grad_norm)
        return {
            "loss/value": loss.detach(),
            "value/explained_variance": explained_variance(value[:-1], target, valid),
        }


def differentiable(env: Environment) -> PortfolioEnv:
    """The environment, if wealth in it is a smooth function of what each of its rows does.

    Raises
    ------
    ConfigError
        It is not, or its steps are not to be had: what stands in the way is named.
    """
    if not isinstance(env, PortfolioEnv):
        raise ConfigError(
            f"apg steps the books itself: give it a PortfolioEnv or its rules, "
            f"not a {type(env).__name__}"
        )
    if env.config.players > 1:
        raise ConfigError(
            f"apg follows all wealth there is, and EnvConfig.players = {env.config.players} share "
            f"their markets: each would work for the others; use players=1 or another algorithm"
        )
    if env.config.orders.whole_shares:
        raise ConfigError(
            "orders.whole_shares rounds trades, and wealth has no slope by what is rounded: leave "
            "it out for apg, or use another algorithm"
        )
    return env


RECORD = AlgorithmRecord(name="apg", config=APGConfig, make=APG, backend="torch")
