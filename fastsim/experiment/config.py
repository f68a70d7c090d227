"""What a run depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import Any, Literal

from fastsim.config import configuration, from_mapping, load_yaml, require_between, require_choice
from fastsim.data.dates import iso_stamp
from fastsim.data.source import DataConfig
from fastsim.env.config import EnvConfig
from fastsim.errors import ConfigError, DataError
from fastsim.experiment.spellings import respelled_settings
from fastsim.forecast.features import ForecastConfig
from fastsim.forecast.registry import parse_names
from fastsim.learn.config import LearningConfig
from fastsim.learn.rollout import require_next_step
from fastsim.market.tape import TapeConfig
from fastsim.policy.spec import PolicyConfig
from fastsim.synthetic.config import NO_MODEL, WorldsConfig

Part = Literal["train", "validation", "test"]


def _default_env() -> EnvConfig:
    rules = {"reward": {"kind": "excess_log_growth"}, "episode": {"staggered": True}}
    return from_mapping(EnvConfig, {"action": "logits", **rules})


@configuration
class TrainConfig(LearningConfig):
    """Everything a training run depends on; `config.yaml` in its folder repeats it."""

    name: str | None = None
    """Folder of the run; by default the data's name and the time."""
    runs_dir: str = "runs"
    """Where the folders of runs are kept."""
    seed: int = 0
    """Of weights, episodes, exploration and minibatches; same seed, same run."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where everything lies and runs; "auto" takes a GPU where there is one."""
    total_steps: int = 2_000_000
    """Environment steps to train for, over all environments."""
    evaluations: int = 20
    """How often the policy is tried on the validation bars; the best one is kept."""
    validation_start: str | None = None
    """Day (or moment, 2021-03-01T09:30) from which bars choose the best policy instead of training
    it; by default that after 60 % of the bars, and 2014-01-01 of us20."""
    test_start: str | None = None
    """Day from which bars are kept for the final evaluation; by default that after 80 % of the
    bars, and 2017-01-01 of us20."""
    forecaster: str = "fastsim-prior"
    """Whose forecasts are observed: names or artefacts, separated by commas, or "none"."""
    forecast: ForecastConfig = field(default_factory=ForecastConfig)
    strict: bool = False
    """Refuse a forecaster that may have learned from the validation or test bars, instead of
    warning."""
    data: DataConfig = field(default_factory=DataConfig)
    calendar: str | None = None
    """Exchange whose own calendar tells the run's agent when bars are due, such as XNYS; None for
    the rule that the training bars kept."""
    tape: TapeConfig = field(default_factory=TapeConfig)
    worlds: WorldsConfig = field(default_factory=WorldsConfig)
    env: EnvConfig = field(default_factory=_default_env)
    policy: PolicyConfig = field(default_factory=PolicyConfig)

    def __post_init__(self) -> None:
        LearningConfig.__post_init__(self)
        require_choice(self, "device")
        require_between(self, "total_steps", self.collect.frames)
        require_between(self, "evaluations", 1)
        require_between(self, "seed", 0, 2**53)
        for name in ("validation_start", "test_start"):
            if getattr(self, name) is not None:
                _require_stamp(name, getattr(self, name))
        require_next_step(self.env)
        if parse_names(self.forecaster) and self.worlds.model != NO_MODEL:
            raise ConfigError(
                "forecasts are tabulated for one history, not for worlds drawn on the way: "
                'use TrainConfig.forecaster = "none" or WorldsConfig.model = "none"'
            )
        if self.name is not None and (Path(self.name).name != self.name or self.name in ("", "..")):
            raise ConfigError(f"TrainConfig.name must be a plain folder name, got {self.name!r}")

    @classmethod
    def respelled(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings under other names, as YAML may give them, under those of the fields."""
        return respelled_settings(settings)

    @property
    def iterations(self) -> int:
        """Rollouts and updates in the run."""
        return self.total_steps // self.collect.frames


def _require_stamp(name: str, text: str) -> None:
    try:
        iso_stamp(text, f"TrainConfig.{name}")
    except DataError as error:
        raise ConfigError(str(error)) from None


def read_run(folder: Path) -> TrainConfig:
    """Configuration of a run, wherever its folder is now: forecasts are looked up beside it."""
    config = load_yaml(TrainConfig, folder / "config.yaml")
    return replace(config, runs_dir=str(folder.resolve().parent))
