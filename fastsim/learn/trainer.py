"""One run: its iterations, its random numbers, and its state on disk. Who learns is an algorithm.

All randomness of an iteration comes from (seed, iteration), so a run that was killed and resumed
from a checkpoint goes on exactly as if nothing had happened.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fastsim.config import to_mapping
from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.errors import CheckpointError, ConfigError
from fastsim.learn.algorithm import AlgorithmRecord, Course
from fastsim.learn.algorithms import ALGORITHMS
from fastsim.learn.checkpoint import load_checkpoint, load_into, save_checkpoint
from fastsim.learn.figures import Figures, read
from fastsim.learn.rollout import CollectConfig, Environment, require_next_step
from fastsim.market.tape import MarketTape
from fastsim.policy.policy import Policy
from fastsim.policy.spec import PolicyConfig, read_spec
from fastsim.synthetic.fresh import FreshWorlds


class Trainer:
    """An algorithm at work on one market.

    Parameters
    ----------
    tape
        The market to learn on, or a source of worlds, renewed after every iteration.
    env
        Rules, or an environment made elsewhere with `collect.num_envs` rows.
    settings
        Of the algorithm: hyper-parameters, of its record's class.
    policy, collect
        The network, and how much experience an iteration begins with.
    algorithm
        Name of a record in `ALGORITHMS`, "package.module:object", or the record itself.
    iterations
        Length of the run, over which a learning rate may fall.
    seed
        Of everything: weights, environments, exploration and minibatches.
    capture
        On a GPU, let procedures be replayed as CUDA graphs; the same numbers, sooner.

    Raises
    ------
    ConfigError
        There is no such algorithm, or settings are another's or contradict each other.
    """

    def __init__(
        self,
        tape: MarketTape | FreshWorlds,
        env: EnvConfig | Environment,
        settings: Any,
        policy: PolicyConfig,
        collect: CollectConfig | None = None,
        *,
        algorithm: str | AlgorithmRecord = "ppo",
        iterations: int,
        seed: int = 0,
        capture: bool = True,
    ) -> None:
        record = ALGORITHMS.find(algorithm) if isinstance(algorithm, str) else algorithm
        if not isinstance(settings, record.config):
            raise ConfigError(
                f"the settings of algorithm {record.name!r} are a {record.config.__name__}, "
                f"got a {type(settings).__name__}"
            )
        self.record, self.collect = record, collect or CollectConfig()
        count = self.collect.num_envs
        if isinstance(env, EnvConfig):
            env = PortfolioEnv(tape, count, env, seed=seed, backend=record.backend)
        if env.num_envs != count:
            raise ConfigError(
                f"CollectConfig.num_envs = {count} must be the environment's {env.num_envs} rows"
            )
        require_next_step(env.config)
        self.env = env
        self.course = Course(
            seed=seed,
            iterations=iterations,
            generator=torch.Generator(env.tape.device),
            capture=capture,
        )
        self.algorithm = record.make(env, policy, settings, self.collect, self.course)
        self._figures: Figures = {}

    @property
    def policy(self) -> Policy:
        """What is being learned."""
        return self.algorithm.policy

    @property
    def iteration(self) -> int:
        """Iterations done."""
        return self.course.iteration

    @property
    def iterations(self) -> int:
        """Iterations in the whole run."""
        return self.course.iterations

    @property
    def frames_per_iteration(self) -> int:
        """Environment steps in one iteration."""
        return self.collect.frames

    def iterate(self) -> dict[str, float]:
        """Collect experience and learn from it; returns named figures of the iteration."""
        started = time.perf_counter()
        self.advance()
        figures = self.figures()
        elapsed = time.perf_counter() - started
        return figures | {"time/steps_per_second": self.frames_per_iteration / elapsed}

    def advance(self) -> None:
        """Do one iteration; on a GPU nothing is read back to the host but what renews worlds."""
        self.course.begin()
        self.algorithm.collect(self.env)
        self._figures = self.algorithm.update()
        self.algorithm.renewed(self.env.renew())
        self.course.iteration += 1

    def figures(self) -> dict[str, float]:
        """Named figures of the last iteration, read from the device at once."""
        return read(self._figures)

    def save(self, path: Path, **extra: Any) -> None:
        """Write a checkpoint, with `extra` plain values beside the run's own."""
        content = {
            "iteration": self.iteration,
            "spec": to_mapping(self.policy.spec),
            "algorithm": self.record.name,
            "policy": self.policy.state_dict(),
            "learner": self.algorithm.state_dict(),
            "env": self.env.state_dict(),
            "extra": extra,
        }
        save_checkpoint(path, content)

    def load(self, path: Path) -> Mapping[str, Any]:
        """Go on from a checkpoint of this same configuration; returns its `extra` values."""
        content = load_checkpoint(path, self.env.tape.device)
        read_spec(content["spec"], path).check(self.env.tape, self.env.config)
        if content["algorithm"] != self.record.name:
            raise CheckpointError(
                f"{path}: a run of algorithm {content['algorithm']!r}; this one is of "
                f"{self.record.name!r}"
            )
        load_into(self.policy, content["policy"], path)
        load_into(self.env, content["env"], path)
        if self.env.tape.worlds_per_market:  # it may hold other worlds than before
            self.algorithm.renewed(torch.arange(self.env.tape.worlds, device=self.env.tape.device))
        load_into(self.algorithm, content["learner"], path)
        self.course.iteration = content["iteration"]
        extra: Mapping[str, Any] = content["extra"]
        return extra
