"""Folders of what is built on another forecaster: its name, its key, weights that come along."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

from fastsim.errors import ConfigError, FastsimError, ForecastError, one_line
from fastsim.forecast.around import Around
from fastsim.forecast.interface import Forecaster
from fastsim.forecast.training.folder import carry_base
from fastsim.forecast.weights import read_json, read_safetensors

BASE = "base"
"""Where in the folder weights of the other one are, where they came from a path."""
Built = TypeVar("Built", bound=Around)
Make = Callable[[dict[str, Any], dict[str, Tensor], Forecaster], Built]
"""From what is told of it, its tensors, and the other forecaster."""


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


class Kind(NamedTuple):
    """A kind of folder of what is built on another forecaster."""

    name: str
    """Before the colon of its forecasters' names."""
    what: str
    """It is called."""
    does: str
    """What it does to the other forecaster, for errors: "corrects"."""
    mode: str
    """Of `fastsim forecast fit`, which makes it."""
    format: int
    about: str
    """File that says what it is."""
    weights: str
    """File of its tensors."""

    def read(
        self, path: Path | None, make: Make[Built], load: Callable[[str], Forecaster]
    ) -> Built:
        """What `make` makes of the two files and of the other forecaster.

        Raises
        ------
        ForecastError
            No folder is named, it holds no whole one, or the other forecaster is no longer what it
            was.
        """
        if path is None:
            raise ForecastError(
                f"forecaster {self.name!r} is of a folder: name it, as in {self.name}:fits/mine "
                f"(`fastsim forecast fit --mode {self.mode}` makes it)"
            )
        if not (path / self.about).is_file():
            raise ForecastError(
                f"{path}: no {self.about} here: name a folder that holds a {self.what}"
            )
        about = read_json(self.name, path / self.about)
        if about.get("format") != self.format:
            raise ForecastError(f"{path / self.about}: no {self.what} of format {self.format}")
        state = read_safetensors(self.name, path / self.weights)
        try:
            made = make(about, state, load_base(about, path, load))
        except FastsimError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            reason = one_line(f"{type(error).__name__}: {error}", 200)
            raise ForecastError(f"{path}: damaged ({reason})") from None
        require_key(made.forecaster, about, path, self.does)
        return made
