"""What a command reads its bars from, and where it is to write."""

from __future__ import annotations

import os
from dataclasses import field, replace
from pathlib import Path
from typing import Annotated

import tyro

from fastsim.config import configuration
from fastsim.data.bars import Bars
from fastsim.data.source import DataConfig, load_bars
from fastsim.errors import ConfigError


@configuration(slots=False)
class Reading:
    """How the source of a command is read."""

    data: DataConfig = field(default_factory=DataConfig)

    def of(self, source: str) -> DataConfig:
        """How to read this source; ConfigError if another is named beside it."""
        if self.data.source not in (source, DataConfig().source):
            raise ConfigError(
                f"DataConfig.source = {self.data.source!r} is another than {source!r}: name one"
            )
        return replace(self.data, source=source)

    def bars(self, source: str) -> Bars:
        """The bars of this source."""
        return load_bars(self.of(source))


HowToRead = Annotated[Reading, tyro.conf.arg(name="")]


def require_place(flag: str, path: Path | None, suffix: str = "") -> None:
    """Raise ConfigError unless a file can be written there; nothing is written yet."""
    if path is None:
        return
    if path.is_dir():
        raise ConfigError(f"{flag} must be a file to write, {path} is a folder")
    if not path.name.lower().endswith(suffix):
        raise ConfigError(f"{flag} must end in {suffix}, got {path}")
    folder = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
    if not folder.is_dir():
        raise ConfigError(f"{flag} cannot be written: {path} lies in {folder}, which is no folder")
    if not os.access(folder, os.W_OK):
        raise ConfigError(f"{flag} cannot be written: {folder} is closed to you (of {path})")
