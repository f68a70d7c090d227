"""Folders of what is built on another forecaster: its name, its key, weights that come along."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fastsim.errors import ConfigError, ForecastError
from fastsim.forecast.interface import Forecaster
from fastsim.forecast.training.folder import carry_base

BASE = "base"
"""Where in the folder weights of the other one are, where they came from a path."""


def require_empty(folder: Path, about: str, what: str) -> None:
    """Raise ConfigError if such a thing, whose file is `about`, is here, or what is no folder."""
    if (folder / about).exists():
        raise ConfigError(f"{folder} holds a {what} already: choose another folder")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file: choose a folder for the {what}")


def keep_base(folder: Path, base: str, path: Path | None) -> str:
    """The name by which the other one is found from the folder, into which weights are copied.

    Parameters
    ----------
    base
        The name that loads it; what comes before its path, the colon included, where it has one.
    path
        Of its weights.
    """
    if path is None:
        return base
    target = folder / BASE / path.name
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.copytree(path, target)
        carry_base(target)
    else:
        shutil.copy2(path, target)
    return f"{base}{BASE}/{path.name}"


def load_base(
    about: Mapping[str, Any], folder: Path, load: Callable[[str], Forecaster]
) -> Forecaster:
    """What `keep_base` named, as `about` has it."""
    head, inside, rest = about["base"].rpartition(f"{BASE}/")
    return load(f"{head}{folder / BASE / rest}" if inside else about["base"])


def require_key(found: Forecaster, about: Mapping[str, Any], folder: Path, does: str) -> None:
    """Raise ForecastError unless the other one is what it was when the folder was written."""
    if found.key != about["key"]:
        raise ForecastError(
            f"{folder} {does} {about['key']}, and {about['base']} is {found.key} here: "
            f"install the version that it was fitted with, or fit it anew"
        )
