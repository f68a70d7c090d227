"""What a learning algorithm is to a trainer, and by what record it is found.

An algorithm collects experience from an environment and learns from it, over and over. All else
that a run is made of, its iterations, seeds and checkpoints, is its trainer's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from fastsim.config import require_count
from fastsim.env.kernels.choose import Backend
from fastsim.learn.figures import Figures
from fastsim.learn.rollout import CollectConfig, Environment
from fastsim.policy.policy import Policy
from fastsim.policy.spec import PolicyConfig

_SEED_STRIDE = 1_000_003


class Course:
    """How far a run has come, and the random numbers of its present iteration.

    Parameters
    ----------
    seed
        Of everything.
    iterations
        In the whole run.
    generator
        Begins anew at every iteration, so that what an algorithm draws follows from the seed and
        the iteration alone. It is the only source of randomness that a resumed run repeats.
    capture
        Whether procedures may be recorded as CUDA graphs where everything stays in its place.

    Raises
    ------
    ConfigError
        The number of iterations is not a whole number of at least one.
    """

    def __init__(
        self, *, seed: int, iterations: int, generator: torch.Generator, capture: bool = True
    ) -> None:
        require_count("iterations", iterations)
        self.seed, self.iterations, self.generator = seed, iterations, generator
        self.capture, self.iteration = capture, 0

    @property
    def done(self) -> float:
        """Share of the run that is over."""
        return self.iteration / self.iterations

    def begin(self) -> None:
        """Let the numbers of this iteration follow."""
        self.generator.manual_seed(self.seed * _SEED_STRIDE + self.iteration)


class Algorithm(Protocol):
    """What a trainer asks of who learns."""

    policy: Policy
    """What is being learned; the trainer saves it and puts it back."""

    def collect(self, env: Environment) -> None:
        """Step the environment for one iteration, from where it stands.

        It restarts episodes at the next step: what is seen after a step is always the true last
        state of an episode, and a row that `Transition.ignored` names did nothing.
        """
        ...

    def update(self) -> Figures:
        """Learn from what was collected; returns the iteration's figures, left on the device."""
        ...

    def renewed(self, worlds: Tensor) -> None:
        """Take note that these worlds [K] of the tape are others now.

        What was standardised of their bars is to be made anew, and what was kept of them is lost.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that changes but the policy, in tensors and plain values.

        What the agents see where the next iteration begins is part of it.
        """
        ...

    def load_state_dict(self, saved: Mapping[str, Any], /) -> None:
        """Go on from what `state_dict` of an algorithm made alike returned."""
        ...


Make = Callable[[Environment, PolicyConfig, Any, CollectConfig, Course], Algorithm]


def _nothing(config: Any, collect: CollectConfig) -> None:
    """All settings go together."""


@dataclass(frozen=True, kw_only=True)
class AlgorithmRecord:
    """An algorithm by name: `--algorithm`, `TrainConfig.algorithm`, `Trainer(algorithm=...)`."""

    name: str
    config: type[Any]
    """Class of its settings, a dataclass whose fields all have defaults."""
    make: Make
    """Begins it on an environment, which it resets to the course's seed; it is given the policy's
    settings, its own, those of collection, and the course of the run."""
    check: Callable[[Any, CollectConfig], None] = _nothing
    """Raises ConfigError where its settings and those of collection contradict each other."""
    backend: Backend = "auto"
    """Who steps the environment that a trainer makes for it."""
