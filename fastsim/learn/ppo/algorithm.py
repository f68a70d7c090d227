"""PPO as an algorithm: a rollout on the device where the market lies, then its updates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fastsim.capture import captured, records
from fastsim.env.nested import flatten, unflatten
from fastsim.learn.algorithm import AlgorithmRecord, Course
from fastsim.learn.figures import Episodes, Figures, explained_variance, rollout_figures, units_of
from fastsim.learn.optimizer import set_rate
from fastsim.learn.ppo.config import PPOConfig, check_minibatches, learning_rate
from fastsim.learn.ppo.steps import Steps
from fastsim.learn.ppo.update import (
    Losses,
    empty_batch,
    empty_tally,
    make_batch,
    make_optimizer,
    matmul_precision,
    minibatches,
)
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
from fastsim.policy.spec import PolicyConfig


class PPO:
    """On-policy learning from rollouts; see `AlgorithmRecord.make` for what it is given.

    On a GPU the rollout and the update are replayed as CUDA graphs; the same numbers, sooner. An
    environment that moves things about steps as it is, and the update is still a graph.
    """

    def __init__(
        self,
        env: Environment,
        policy: PolicyConfig,
        config: PPOConfig,
        collect: CollectConfig,
        course: Course,
    ) -> None:
        check_minibatches(config, collect)
        self.config, self.course = config, course
        self._units = units_of(env)
        device = env.tape.device
        self.policy = begin_policy(env, policy, course.seed)
        self.table = self.policy.standardize(env.tape)
        self.optimizer = make_optimizer(self.policy, config)
        self.reward_scale = RewardScale(collect.num_envs, device)
        self.episodes = Episodes(collect.num_envs, device)
        self.rollout = empty_rollout(env, collect.rollout_steps)
        begin_rollout(self.rollout, env.reset(course.seed))
        self.batch = empty_batch(self.rollout)
        self.tally = empty_tally(device)
        self._rows = torch.zeros(
            len(self.batch.bar) // config.minibatches, dtype=torch.int64, device=device
        )
        self._steps, self._kept = Steps(config), Kept()
        self._update_recorded: object = None
        self._forget()

    def collect(self, env: Environment) -> None:
        """Fill the rollout, and the batch with its samples."""
        self._env = env
        if self.course.capture and env.capturable and not self._rollout_recorded:
            self._record_rollout()
        self._experience()

    def update(self) -> Figures:
        """Learn in minibatches until the policy has moved far enough; reads nothing on a GPU."""
        set_rate(self.optimizer, learning_rate(self.config, self.course.done))
        for total in self.tally:
            total.zero_()
        who = self._steps.begin(self.policy, self.optimizer, self.table, self.batch)
        if self.course.capture and records(self.course.generator.device):
            self._record_update(who)
        rows = minibatches(len(self.batch.bar), self.config, self.course.generator)
        self._steps.take(rows, self.tally, self._learn_in_place)
        self.policy.portfolio_moments.update(self.batch.portfolio, self.batch.valid)
        return self._figures()

    def renewed(self, worlds: Tensor) -> None:
        """Standardise anew what the policy knows of these worlds [K]; no experience is kept."""
        self.policy.restandardize(self.table, worlds)

    def state_dict(self) -> dict[str, Any]:
        """The optimiser, the unit of rewards, episodes so far, and what the agents see."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "reward_scale": self.reward_scale.state_dict(),
            "episodes": self.episodes.state_dict(),
            "observation": [leaf.clone() for leaf in flatten(self.rollout.seen(-1))],
        }

    def load_state_dict(self, saved: Mapping[str, Any], /) -> None:
        """Go on from there."""
        self.reward_scale.load_state_dict(saved["reward_scale"])
        self.episodes.load_state_dict(saved["episodes"])
        self.optimizer.load_state_dict(saved["optimizer"])
        begin_rollout(self.rollout, unflatten(self.rollout.seen(-1), saved["observation"]))
        self._forget()  # what was recorded knows the old tensors

    def _forget(self) -> None:
        self._rollout_recorded, self._update_recorded = False, None
        self._experience, self._learn = self._gather_experience, self._learn_from_rows

    def _figures(self) -> Figures:
        batch = self.batch
        means = dict(zip(Losses._fields, self.tally.means, strict=True))
        explained = explained_variance(batch.value, batch.value_target, batch.valid)
        figures = rollout_figures(self.rollout, self._units) | self.episodes.update(self.rollout)
        return figures | {
            "value/explained_variance": explained,
            **{f"loss/{name}": means[name] for name in ("policy", "value")},
            **{f"policy/{name}": means[name] for name in ("kl", "clip_fraction", "entropy")},
            "policy/std": self.policy.log_std.detach().exp().mean(),
            "policy/learning_rate": self.optimizer.param_groups[0]["lr"].clone(),
        }

    def _gather_experience(self) -> None:
        generator = self.course.generator
        with matmul_precision(self.config, generator.device):
            collect(self._env, self.policy, self.table, self.rollout, generator, self._kept)
        reward = self.reward_scale.update(self.rollout, self.config.discount)
        columns = flatten(make_batch(self.rollout, reward, self.config))
        for room, column in zip(flatten(self.batch), columns, strict=True):
            room.copy_(column)

    def _learn_in_place(self, rows: Tensor) -> None:
        self._rows.copy_(rows)
        self._learn()

    def _learn_from_rows(self) -> None:
        self._steps.learn(self._rows, self.tally)

    def _record_rollout(self) -> None:
        """Record the rollout as a CUDA graph: the environment leaves everything in its place."""
        self._rollout_recorded = True
        generator, env = self.course.generator, flatten(self._env.stepper.state)
        filled = [*flatten(self.rollout), *flatten(self.batch)]
        kept = [*env, *filled, *self.reward_scale.buffers()]
        self._experience = captured(self._gather_experience, kept, generator.device, generator)

    def _record_update(self, who: object) -> None:
        """Record a minibatch as a CUDA graph, unless it was by whoever takes the steps now."""
        if self._update_recorded is who:
            return
        self._update_recorded = who
        moments = [value for state in self.optimizer.state.values() for value in state.values()]
        kept = [*self.policy.parameters(), *moments, *self.tally, *self._steps.changed()]
        self._learn = captured(self._learn_from_rows, kept, self.course.generator.device)


RECORD = AlgorithmRecord(name="ppo", config=PPOConfig, make=PPO, check=check_minibatches)
