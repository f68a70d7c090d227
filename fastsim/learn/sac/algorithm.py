"""SAC as an algorithm: off-policy learning from a replay buffer on the device.

The policy is the Gaussian that all algorithms share, of one deviation for all states. Critics see
the weights that its actions ask for, and entropy is that of the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from fastsim.env.nested import flatten, unflatten
from fastsim.env.observe import Observation
from fastsim.learn.algorithm import AlgorithmRecord, Course
from fastsim.learn.figures import Episodes, Figures, rollout_figures, units_of
from fastsim.learn.optimizer import adam, descend, falling, follow, set_rate
from fastsim.learn.reward_scale import RewardScale
from fastsim.learn.rollout import (
    CollectConfig,
    Environment,
    Kept,
    begin_policy,
    begin_rollout,
    collect,
    empty_rollout,
)
from fastsim.learn.sac.buffer import ReplayBuffer, Steps
from fastsim.learn.sac.config import SACConfig, check_action, check_capacity
from fastsim.learn.sac.entropy import Entropy, entropy_of
from fastsim.learn.sac.networks import Critics, asked, require_flat
from fastsim.policy.policy import Policy, PolicyOutput
from fastsim.policy.spec import PolicyConfig


class SAC:
    """Learning from what is remembered; see `AlgorithmRecord.make` for what it is given."""

    def __init__(
        self,
        env: Environment,
        policy: PolicyConfig,
        config: SACConfig,
        collect: CollectConfig,
        course: Course,
    ) -> None:
        check_capacity(config, collect)
        check_action(env.config)
        self.config, self.course, self.rules = config, course, env.config
        tape = env.tape
        self._units = units_of(env)
        made = require_flat(begin_policy(env, policy, course.seed))
        self.policy: Policy = made
        self.table = made.standardize(tape)
        own = env.portfolio_width + tape.num_assets
        features = self.table.rows.shape[1]
        self.critics = Critics(features, own, policy.hidden, course.seed).to(tape.device)
        self.targets = deepcopy(self.critics).requires_grad_(False)
        self.log_temperature = nn.Parameter(torch.tensor(config.temperature).log().to(tape.device))
        self.optimizer = adam(self.policy.parameters(), config.learning_rate)
        self.critic_optimizer = adam(self.critics.parameters(), config.critic_rate)
        self.temperature_optimizer = adam([self.log_temperature], config.learning_rate)
        self.reward_scale = RewardScale(collect.num_envs, tape.device)
        self.episodes = Episodes(collect.num_envs, tape.device)
        self.rollout, self._kept = empty_rollout(env, collect.rollout_steps), Kept()
        self.buffer = ReplayBuffer(self.rollout, config.capacity)
        begin_rollout(self.rollout, env.reset(course.seed))

    def collect(self, env: Environment) -> None:
        """Act for one rollout, and keep every step that counted."""
        collect(env, self.policy, self.table, self.rollout, self.course.generator, self._kept)
        self.reward_scale.update(self.rollout, self.config.discount)
        self.buffer.add(self.rollout)

    def update(self) -> Figures:
        """Learn from steps drawn anew for each update; reads nothing on a GPU."""
        config = self.config
        for optimizer, rate in (
            (self.optimizer, config.learning_rate),
            (self.critic_optimizer, config.critic_rate),
            (self.temperature_optimizer, config.learning_rate),
        ):
            set_rate(optimizer, falling(rate, config.schedule, self.course.done))
        figures = [
            self._learn(self.buffer.sample(config.batch_size, self.course.generator))
            for _ in range(config.updates)
        ]
        seen = self.rollout.samples(len(self.rollout.reward))
        self.policy.portfolio_moments.update(seen.portfolio, self.rollout.valid.flatten())
        means = {name: torch.stack([each[name] for each in figures]).mean() for name in figures[0]}
        return (
            rollout_figures(self.rollout, self._units)
            | self.episodes.update(self.rollout)
            | means
            | {
                "policy/std": self.policy.log_std.detach().exp().mean(),
                "policy/temperature": self.log_temperature.detach().exp(),
                "policy/learning_rate": self.optimizer.param_groups[0]["lr"].clone(),
                "replay/steps": self.buffer.size.to(self.table.rows.dtype),
            }
        )

    def renewed(self, worlds: Tensor) -> None:
        """Standardise anew what is known of these worlds [K], and forget what was done there."""
        self.policy.restandardize(self.table, worlds)
        self.buffer.drop(worlds, self.table.tape.bars_per_world)

    def state_dict(self) -> dict[str, Any]:
        """All that changes but the policy; what is remembered too."""
        parts = {name: part.state_dict() for name, part in self._parts.items()}
        return parts | {
            "log_temperature": self.log_temperature.detach().clone(),
            "observation": [leaf.clone() for leaf in flatten(self.rollout.seen(-1))],
        }

    @torch.no_grad()
    def load_state_dict(self, saved: Mapping[str, Any], /) -> None:
        """Go on from there."""
        for name, part in self._parts.items():
            part.load_state_dict(saved[name])
        self.log_temperature.copy_(saved["log_temperature"])
        begin_rollout(self.rollout, unflatten(self.rollout.seen(-1), saved["observation"]))

    @property
    def _parts(self) -> dict[str, Any]:
        return {
            "critics": self.critics,
            "targets": self.targets,
            "optimizer": self.optimizer,
            "critic_optimizer": self.critic_optimizer,
            "temperature_optimizer": self.temperature_optimizer,
            "reward_scale": self.reward_scale,
            "episodes": self.episodes,
            "buffer": self.buffer,
        }

    def _learn(self, steps: Steps) -> Figures:
        """One step of critics, actor and temperature, and of the slow averages."""
        norm = self.config.max_grad_norm
        target = self._target(steps)
        weights = asked(steps.action, steps.before, self.rules)
        values = self.critics(self.policy, self.table, steps.before, weights)
        loss = (values - target).square().mean(1).sum()
        descend(self.critic_optimizer, loss, norm)
        worth, entropy = self._worth(self.critics, steps.before)
        temperature = self.log_temperature.exp()
        descend(self.optimizer, -(worth + temperature.detach() * entropy.total).mean(), norm)
        surplus = entropy.each.detach() - self.config.target_entropy
        descend(self.temperature_optimizer, self.log_temperature * surplus)
        follow(self.targets, self.critics, self.config.target_rate)
        return {
            "loss/value": loss.detach(),
            "value/mean": worth.detach().mean(),
            "policy/entropy": entropy.each.detach(),
        }

    @torch.no_grad()
    def _target(self, steps: Steps) -> Tensor:
        """What the critics should say [M]: the reward, and what the state after it is worth."""
        worth, entropy = self._worth(self.targets, steps.after)
        ahead = (worth + self.log_temperature.exp() * entropy.total) * ~steps.terminated
        target: Tensor = self.reward_scale(steps.reward) + self.config.discount * ahead
        return target

    def _worth(self, critics: Critics, seen: Observation) -> tuple[Tensor, Entropy]:
        """Value [M] of what the policy would do now, by the more cautious critic; its entropy."""
        market = self.policy.look_up(self.table, seen.bar, seen.view)
        output: PolicyOutput = self.policy(market, seen.portfolio)
        noise = torch.empty_like(output.mean).normal_(generator=self.course.generator)
        action = torch.addcmul(output.mean, output.log_std.exp(), noise)
        values: Tensor = critics(self.policy, self.table, seen, asked(action, seen, self.rules))
        return values.amin(0), entropy_of(output, action, seen, self.rules)


RECORD = AlgorithmRecord(name="sac", config=SACConfig, make=SAC, check=check_capacity)
