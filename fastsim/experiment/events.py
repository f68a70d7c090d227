"""What TensorBoard shows of a run: figures by environment steps, and what it was made with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from fastsim.config import to_mapping
from fastsim.experiment.config import TrainConfig

JUDGED_BY = ("validation/log_growth", "validation/sharpe_ratio", "episode/return")
"""Figures that stand beside the hyper-parameters, where runs are compared."""
ELSEWHERE = ("name", "runs_dir")
"""Settings that are not of the experiment."""


class Events:
    """The events of a run; `log` counts environment steps, so that runs of any size overlay."""

    def __init__(self, writer: SummaryWriter, config: TrainConfig) -> None:
        self._writer, self._frames = writer, config.collect.frames

    def log(self, figures: Mapping[str, float], iteration: int) -> None:
        """Write the figures of an iteration."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, iteration * self._frames)


@contextmanager
def events(folder: Path, config: TrainConfig, iteration: int) -> Iterator[Events]:
    """Write a run's events until the block ends; those after this iteration are written anew."""
    steps = iteration * config.collect.frames
    writer = SummaryWriter(str(folder), purge_step=steps + 1)
    try:
        text = yaml.safe_dump(to_mapping(config), sort_keys=False)
        writer.add_text("configuration", "    " + text.replace("\n", "\n    "), steps)
        judged_by = dict.fromkeys(JUDGED_BY, 0.0)
        for part in hparams(hyperparameters(config), judged_by):  # type: ignore[no-untyped-call]
            writer.file_writer.add_summary(part)  # type: ignore[attr-defined]
        yield Events(writer, config)
    finally:
        writer.close()


def hyperparameters(config: TrainConfig) -> dict[str, bool | int | float | str]:
    """Settings by dotted name, without those of algorithms that do not learn."""
    settings = to_mapping(config)
    for name in ("ppo", "sac", "apg"):
        if name != config.algorithm:
            del settings[name]
    for name in ELSEWHERE:
        del settings[name]
    return dict(_leaves(settings))


def _leaves(settings: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}{name}.")
        else:
            plain = isinstance(value, bool | int | float | str)
            yield f"{path}{name}", value if plain else str(value)
