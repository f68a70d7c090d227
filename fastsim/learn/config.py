"""Who learns, from how much, and by what settings."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from fastsim.config import configuration, from_mapping
from fastsim.errors import ConfigError
from fastsim.learn.algorithms import ALGORITHMS
from fastsim.learn.apg.config import APGConfig
from fastsim.learn.ppo.config import PPOConfig
from fastsim.learn.rollout import CollectConfig
from fastsim.learn.sac.config import SACConfig


@configuration
class LearningConfig:
    """An algorithm with its settings, which are checked if it is the one that learns."""

    algorithm: str = "ppo"
    """Who learns: "ppo", "sac", "apg" (the gradient of wealth itself, through the books), or your
    own as "package.module:object" (see docs/howto/algorithm.md)."""
    collect: CollectConfig = field(default_factory=CollectConfig)
    ppo: PPOConfig = field(default_factory=PPOConfig)
    sac: SACConfig = field(default_factory=SACConfig)
    apg: APGConfig = field(default_factory=APGConfig)
    custom: dict[str, int | float | bool | str] = field(default_factory=dict)
    """Settings of an algorithm of your own, by name."""

    def __post_init__(self) -> None:
        ALGORITHMS.find(self.algorithm).check(self.settings, self.collect)

    @property
    def settings(self) -> Any:
        """Settings of the algorithm that learns."""
        own = {"ppo": self.ppo, "sac": self.sac, "apg": self.apg}
        if self.algorithm not in own:
            return from_mapping(ALGORITHMS.find(self.algorithm).config, self.custom)
        if self.custom:
            raise ConfigError(
                f"{type(self).__name__}.custom is for an algorithm of your own, got "
                f"{self.custom!r}; settings of {self.algorithm!r} have a section of their own"
            )
        return own[self.algorithm]
