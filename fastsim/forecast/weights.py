"""Getting official weights: from a local path, or from the hub by id and pinned revision."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fastsim.errors import ForecastError, one_line
from fastsim.forecast.hub import HubFile, cached, obtain
from fastsim.forecast.interface import ModelCard

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Settings = TypeVar("Settings", bound="DataclassInstance")


def find_weights(
    name: str, filename: str, *, hub_id: str | None, revision: str | None, path: str | Path | None
) -> Path:
    """Find a file of `name`'s weights on disk, or fetch it.

    Parameters
    ----------
    revision
        Commit of the hub's repository; None holds to the one met first.
    path
        A file, or a folder that holds `filename`, as the hub would give it; None asks the hub's
        cache, then the hub. HF_HUB_OFFLINE=1 keeps to the cache.

    Raises
    ------
    ForecastError
        The file cannot be had; says how to get it.
    """
    return find_first(name, (filename,), hub_id=hub_id, revision=revision, path=path)


def find_first(
    name: str,
    filenames: Sequence[str],
    *,
    hub_id: str | None,
    revision: str | None,
    path: str | Path | None,
) -> Path:
    """The first of these files that there is, as `find_weights` does: one file, published twice."""
    if path is not None:
        given = Path(path).expanduser()
        places = [given / filename for filename in filenames] if given.is_dir() else [given]
        for place in places:
            if place.is_file():
                return place
        raise ForecastError(
            f"{name}: no weights at {places[0]}; expected {' or '.join(filenames)}"
            f"{f' of {hub_id}' if hub_id else ''}"
        )
    if hub_id is None:
        raise ForecastError(f"{name} is on no hub: give the path of its weights")
    files = [HubFile(hub_id=hub_id, filename=filename, revision=revision) for filename in filenames]
    for file in files:
        if cached(file) is not None:
            return obtain(name, file)
    for file in files:
        with suppress(FileNotFoundError):
            return obtain(name, file)
    raise ForecastError(
        f"{name}: {hub_id} has no {' or '.join(filenames)}"
        f"{f' at revision {revision}' if revision else ''}: name another revision"
    )


def find_checkpoint(
    card: ModelCard, path: str | Path | None, revision: str | None
) -> tuple[Path, Path]:
    """Find `model.safetensors` and the `config.json` beside it, as `find_weights` does."""
    source = {"hub_id": card.hub_id, "revision": revision or card.revision}
    weights = find_weights(card.name, "model.safetensors", path=path, **source)
    folder = None if path is None else weights.parent
    return weights, find_weights(card.name, "config.json", path=folder, **source)


def read_json(name: str, path: Path) -> dict[str, Any]:
    """Read a JSON object; ForecastError if the file holds none."""
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise ForecastError(f"{name}: {path} is no JSON object ({error})") from None


def pick_settings(name: str, cls: type[Settings], given: Mapping[str, Any], path: Path) -> Settings:
    """Build the dataclass `cls` from the official settings that it names; none may lack."""
    names = [field.name for field in fields(cls)]
    missing = [wanted for wanted in names if wanted not in given]
    if missing:
        raise ForecastError(f"{name}: {path} lacks {missing[0]}: it is not this architecture")
    try:
        return cls(**{wanted: given[wanted] for wanted in names})
    except (ArithmeticError, TypeError, ValueError) as error:  # ours are ValueErrors too
        reason = one_line(error, 200)
        raise ForecastError(f"{name}: {path} is not this architecture ({reason})") from None


def read_safetensors(name: str, path: Path) -> dict[str, Tensor]:
    """Read a state dict; ForecastError if the file is damaged or no safetensors at all."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        reason = one_line(error, 160)
        raise ForecastError(
            f"{name}: {path} is damaged or no safetensors file ({reason})"
        ) from None


def load_exactly(name: str, module: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load every weight and nothing else; ForecastError naming the first that does not fit."""
    wanted = module.state_dict()
    for key, tensor in wanted.items():
        if key not in state:
            raise ForecastError(f"{name}: {path} lacks {key}: it is not this architecture")
        if state[key].shape != tensor.shape:
            raise ForecastError(
                f"{name}: {key} in {path} is {tuple(state[key].shape)}, not {tuple(tensor.shape)}: "
                f"it is not this architecture"
            )
    extra = sorted(set(state) - set(wanted))
    if extra:
        raise ForecastError(
            f"{name}: {path} has weights this architecture lacks, such as {extra[0]}"
        )
    module.load_state_dict(state)


def require_parameters(name: str, module: nn.Module, count: int) -> None:
    """Raise ForecastError unless `module` has exactly `count` parameters."""
    found = sum(parameter.numel() for parameter in module.parameters())
    if found != count:
        raise ForecastError(f"{name} has {count:,} parameters, these weights have {found:,}")
