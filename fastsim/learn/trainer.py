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
from torch import Tensor

from fastsim.config import to_mapping
from fastsim.env.core import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.nested import flatten, take, unflatten
from fastsim.errors import ConfigError
from fastsim.learn.capture import captured
from fastsim.learn.checkpoint import load_checkpoint, load_into, save_checkpoint
from fastsim.learn.ppo import (
    Losses,
    PPOConfig,
    RewardScale,
    empty_batch,
    empty_tally,
    explained_variance,
    learn,
    learning_rate,
    make_batch,
    make_optimizer,
    matmul_precision,
    mean_where,
    minibatches,
)
from fastsim.learn.rollout import (
    Environment,
    begin_policy,
    begin_rollout,
    collect,
    empty_rollout,
)
from fastsim.market.tape import MarketTape
from fastsim.policy.spec import PolicyConfig, read_spec
from fastsim.synthetic.fresh import FreshWorlds

_SEED_STRIDE = 1_000_003


class Trainer:
    """PPO on one market.

    Parameters
    ----------
    tape
        The market to learn on, or a source of worlds, renewed after every iteration.
    env
        Rules, or an environment made elsewhere with `ppo.num_envs` rows.
    ppo, policy
        Hyper-parameters and network.
    iterations
        Length of the run, over which the learning rate falls.
    seed
        Of everything: weights, environments, exploration and minibatches.
    capture
        On a GPU, replay the rollout and the update as CUDA graphs; the same numbers, sooner.
    """

    def __init__(
        self,
        tape: MarketTape | FreshWorlds,
        env: EnvConfig | Environment,
        ppo: PPOConfig,
        policy: PolicyConfig,
        *,
        iterations: int,
        seed: int = 0,
        capture: bool = True,
    ) -> None:
        self.config, self.iterations, self.seed = ppo, iterations, seed
        if isinstance(env, EnvConfig):
            env = PortfolioEnv(tape, ppo.num_envs, env, seed=seed)
        if env.num_envs != ppo.num_envs:
            raise ConfigError(
                f"PPOConfig.num_envs = {ppo.num_envs} must be the environment's {env.num_envs} rows"
            )
        self.env, tape = env, env.tape
        self.policy = begin_policy(env, policy, seed)
        self.table = self.policy.standardize(tape)
        self.optimizer = make_optimizer(self.policy, ppo)
        self.reward_scale = RewardScale(ppo.num_envs, tape.device)
        self.generator = torch.Generator(tape.device)
        self.rollout = empty_rollout(self.env, ppo.rollout_steps)
        begin_rollout(self.rollout, self.env.reset(seed))
        self.batch = empty_batch(self.rollout)
        self.tally = empty_tally(tape.device)
        self._rows = torch.zeros(
            len(self.batch.bar) // ppo.minibatches, dtype=torch.int64, device=tape.device
        )
        self._experience, self._learn = self._gather_experience, self._learn_from_rows
        self.iteration = 0
        self._capture = capture
        self._ready = not capture

    @property
    def frames_per_iteration(self) -> int:
        """Environment steps in one iteration."""
        return self.config.num_envs * self.config.rollout_steps

    def iterate(self) -> dict[str, float]:
        """Collect one rollout and learn from it; returns named figures of the iteration."""
        started = time.perf_counter()
        self.advance()
        figures = self.figures()
        elapsed = time.perf_counter() - started
        return figures | {"time/steps_per_second": self.frames_per_iteration / elapsed}

    def advance(self) -> None:
        """Do one iteration; on a GPU nothing is read back to the host but what renews worlds."""
        if not self._ready:
            self._prepare()
        self.generator.manual_seed(self.seed * _SEED_STRIDE + self.iteration)
        rate = learning_rate(self.config, self.iteration / self.iterations)
        for group in self.optimizer.param_groups:
            group["lr"].fill_(rate)
        for total in self.tally:
            total.zero_()
        self._experience()
        host = self.generator.device.type == "cpu"
        for rows in minibatches(len(self.batch.bar), self.config, self.generator):
            if host and bool(self.tally.stopped):
                break  # the rest would change nothing
            self._rows.copy_(rows)
            self._learn()
        self.policy.portfolio_moments.update(self.batch.portfolio, self.batch.valid)
        self.policy.restandardize(self.table, self.env.renew())
        self.iteration += 1

    def figures(self) -> dict[str, float]:
        """Named figures of the last iteration, read from the device at once."""
        means = dict(zip(Losses._fields, self.tally.means, strict=True))
        batch = self.batch
        named = self._rollout_figures() | {
            "value/explained_variance": explained_variance(
                batch.value, batch.value_target, batch.valid
            ),
            **{f"loss/{name}": means[name] for name in ("policy", "value")},
            **{f"policy/{name}": means[name] for name in ("kl", "clip_fraction", "entropy")},
            "policy/std": self.policy.log_std.detach().exp().mean(),
            "policy/learning_rate": self.optimizer.param_groups[0]["lr"],
        }
        return dict(zip(named, torch.stack(list(named.values())).tolist(), strict=True))

    def _gather_experience(self) -> None:
        with matmul_precision(self.config, self.generator.device):
            collect(self.env, self.policy, self.table, self.rollout, self.generator)
        reward = self.reward_scale.update(self.rollout, self.config.discount)
        columns = flatten(make_batch(self.rollout, reward, self.config))
        for room, column in zip(flatten(self.batch), columns, strict=True):
            room.copy_(column)

    def _learn_from_rows(self) -> None:
        minibatch = take(self.batch, self._rows)
        learn(self.policy, self.optimizer, self.table, minibatch, self.config, self.tally)

    def _prepare(self) -> None:
        """Record the rollout and the update as CUDA graphs where everything stays in its place."""
        self._ready = True
        if self.env.stepper.name != "triton" or self.generator.device.type != "cuda":
            return
        env = flatten(self.env.stepper.state)
        records = [*flatten(self.rollout), *flatten(self.batch)]
        kept = [*env, *records, *self.reward_scale.buffers()]
        self._experience = captured(self._gather_experience, kept, self.generator)
        moments = [value for state in self.optimizer.state.values() for value in state.values()]
        kept = [*self.policy.parameters(), *moments, *self.tally]
        self._learn = captured(self._learn_from_rows, kept, self.generator)

    def save(self, path: Path, **extra: Any) -> None:
        """Write a checkpoint, with `extra` plain values beside the run's own."""
        content = {
            "iteration": self.iteration,
            "spec": to_mapping(self.policy.spec),
            "policy": self.policy.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "reward_scale": self.reward_scale.state_dict(),
            "env": self.env.state_dict(),
            "observation": [leaf.clone() for leaf in flatten(self.rollout.seen(-1))],
            "extra": extra,
        }
        save_checkpoint(path, content)

    def load(self, path: Path) -> Mapping[str, Any]:
        """Go on from a checkpoint of this same configuration; returns its `extra` values."""
        content = load_checkpoint(path, self.env.tape.device)
        read_spec(content["spec"], path).check(self.env.tape, self.env.config)
        load_into(self.policy, content["policy"], path)
        load_into(self.reward_scale, content["reward_scale"], path)
        load_into(self.optimizer, content["optimizer"], path)
        load_into(self.env, content["env"], path)
        if self.env.tape.slots:  # it may hold other worlds than before
            every = torch.arange(self.env.tape.worlds, device=self.table.rows.device)
            self.policy.restandardize(self.table, every)
        self.iteration = content["iteration"]
        self._experience, self._learn = self._gather_experience, self._learn_from_rows
        self._ready = not self._capture  # what was recorded knows the old tensors
        begin_rollout(self.rollout, unflatten(self.rollout.seen(-1), content["observation"]))
        extra: Mapping[str, Any] = content["extra"]
        return extra

    def _rollout_figures(self) -> dict[str, Tensor]:
        """Means over the rollout's valid steps; the Sharpe ratio pools all environments."""
        rollout, drawdown = self.rollout, self.env.tape.num_assets + 1
        valid = rollout.valid.to(rollout.reward.dtype)
        growth = mean_where(rollout.log_growth, valid)
        deviation = mean_where((rollout.log_growth - growth).square(), valid).sqrt()
        return {
            "rollout/reward": mean_where(rollout.reward, valid),
            "rollout/sharpe_ratio": growth / deviation * 252**0.5,
            "rollout/drawdown": mean_where(rollout.portfolio[:-1, :, drawdown], valid),
            "rollout/turnover": mean_where(rollout.turnover, valid),
            "rollout/cost_bps": mean_where(rollout.cost, valid) * 1e4,
        }
