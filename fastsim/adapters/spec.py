"""Gymnasium's specifications of our environments: those whose arguments JSON can hold, in JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec

from fastsim.config import to_mapping
from fastsim.data.bars import Bars
from fastsim.errors import ConfigError
from fastsim.market.tape import MarketTape
from fastsim.synthetic.fresh import FreshWorlds


class Specified:
    """An environment whose specification JSON can hold."""

    _spec: EnvSpec | None = None

    @property
    def spec(self) -> EnvSpec | None:
        """What Gymnasium made it of."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        self._spec = None if spec is None else PortfolioSpec.of(spec)


class PortfolioSpec(EnvSpec):
    """A specification that `to_json` writes with configurations as mappings and paths as text."""

    @classmethod
    def of(cls, spec: EnvSpec) -> PortfolioSpec:
        """The same specification."""
        given = {entry.name: getattr(spec, entry.name) for entry in fields(spec) if entry.init}
        return cls(**given)

    def to_json(self) -> str:
        """The specification as JSON, which `EnvSpec.from_json` and `gymnasium.make` take.

        Raises
        ------
        ConfigError
            An argument is bars, a tape, worlds, a tensor or anything else that JSON cannot hold.
        """
        given = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.init}
        given["kwargs"] = {name: _plain(name, value) for name, value in self.kwargs.items()}
        return EnvSpec(**given).to_json()


def _plain(name: str, value: Any) -> Any:
    """An argument in text, numbers, lists and mappings."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Enum | np.generic):
        return value.value if isinstance(value, Enum) else value.item()
    if isinstance(value, Path | torch.device):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(f"{name}.{key}", item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(name, item) for item in value]
    data = isinstance(value, Bars | MarketTape | FreshWorlds)
    if is_dataclass(value) and not isinstance(value, type) and not data:
        return _plain(name, to_mapping(value))
    raise ConfigError(
        f"{name} is a {type(value).__name__}, which JSON cannot hold: "
        + ("give the path of a file of bars instead" if data else "give text, numbers or lists")
    )
