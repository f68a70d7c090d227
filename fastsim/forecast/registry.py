"""Forecasters by name: how their weights are loaded, and ensembles of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from fastsim.errors import ConfigError, FastsimError, ForecastError, one_line
from fastsim.forecast.artifacts.export import load_artifact
from fastsim.forecast.artifacts.network import network_of
from fastsim.forecast.ensemble import Ensemble, normalized
from fastsim.forecast.foreign import ForeignForecaster, source_digest
from fastsim.forecast.interface import (
    DTYPES,
    Forecaster,
    ForecastModel,
    ModelCard,
    ModuleForecaster,
    Precision,
)
from fastsim.forecast.known import FORECASTERS, OWN
from fastsim.forecast.naming import Named, read_name
from fastsim.forecast.record import Implementation
from fastsim.forecast.season.setting import NONE, season_of, with_season
from fastsim.forecast.seen import of_a_path

NO_FORECASTER = "none"
FITTED = "fit"
"""In place of weights: those that minimise the CRPS on bars that neither train nor test."""
_announced: set[str] = set()


def load_forecaster(
    name: str,
    *,
    path: Path | None = None,
    precision: Precision = "float32",
    device: torch.device | str = "cpu",
    implementation: Implementation = "fastsim",
) -> Forecaster:
    """Load a forecaster by its name, or an artefact by its path.

    A user's own, registered or "package.module:object", is held to what forecasters promise, and
    its key changes with the file that it is written in.

    Parameters
    ----------
    name
        As `fastsim.forecast.naming` spells it, with a revision or a path of weights if wanted.
    path
        Of the weights; the same as a path in the name.
    implementation
        "official" runs the package of those who published the model, where it is installed.

    Raises
    ------
    ConfigError
        There is no forecaster of this name, precision or implementation.
    ForecastError
        Its weights cannot be had or do not fit.
    """
    if precision not in DTYPES:
        raise ConfigError(f"precision must be one of {', '.join(DTYPES)}, got {precision!r}")
    named = _with_path(read_name(name), name, path)
    if named.record is None:
        assert named.path is not None
        return load_artifact(named.path, device)
    loaded = _load(named, name, implementation)
    if isinstance(loaded, ForecastModel):
        _announce(named.record.card or loaded.card)
        forecaster: Forecaster = ModuleForecaster(
            loaded, precision=precision, device=device, revision=named.revision or ""
        )
    else:
        forecaster = loaded
    if named.record in OWN:
        return forecaster
    return ForeignForecaster(forecaster, name, source_digest(named.record.load, type(loaded)))


def load_network(name: str, path: Path | None = None) -> ForecastModel:
    """The network behind a forecaster's name, to export; ForecastError if it is none."""
    named = _with_path(read_name(name), name, path)
    loaded = None if named.record is None else _load(named, name)
    if loaded is None:
        raise ForecastError(f"{name} is no network: there is nothing to export")
    return loaded if isinstance(loaded, ForecastModel) else network_of(loaded)


def load_ensemble(
    names: Sequence[str],
    weights: Sequence[float] | None = None,
    *,
    precision: Precision = "float32",
    device: torch.device | str = "cpu",
    implementation: Implementation = "fastsim",
    season: str = NONE,
) -> Forecaster:
    """Load one forecaster, or several as an ensemble; weights are checked before anything loads.

    The official implementation is that of the members that have one. The season, as
    `fastsim.forecast.season.setting` resolves it, is around each member that has none of its own.

    Raises
    ------
    ConfigError
        Weights do not fit the names, or no member has an official implementation.
    ForecastError
        As `load_forecaster`.
    """
    normalized(weights, len(names))
    around = season_of(season)
    has_official = [_has_official(name) for name in names]
    if implementation == "official" and not any(has_official):
        raise _no_official(", ".join(names))
    members = [
        with_season(
            load_forecaster(
                name,
                precision=precision,
                device=device,
                implementation="fastsim"
                if implementation == "official" and not has
                else implementation,
            ),
            around,
        )
        for name, has in zip(names, has_official, strict=True)
    ]
    return members[0] if len(members) == 1 else Ensemble(members, weights)


def parse_names(text: str) -> tuple[str, ...]:
    """Names from `tirex,toto,kronos`; none for "none"."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if names == (NO_FORECASTER,):
        return ()
    for name in names:
        read_name(name)
    if not names:
        raise ConfigError('forecaster must name at least one model, or be "none"')
    return names


def parse_weights(text: str) -> tuple[float, ...] | None:
    """Weights from `0.4,0.4,0.2`; None, for equal ones, from an empty text."""
    if not text.strip():
        return None
    try:
        weights = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f'weights must be numbers such as 0.4,0.4,0.2, or "{FITTED}", got {text!r}'
        ) from None
    normalized(weights, len(weights))
    return weights


def random_model(name: str) -> ForecastModel:
    """The full architecture with random weights: its speed is real, its forecasts are not."""
    record = FORECASTERS.find(name)
    if record.random is None:
        raise ForecastError(f"{name} ships with its weights: there is no need for random ones")
    return record.random()


def _with_path(named: Named, name: str, path: Path | None) -> Named:
    """The same with a path of weights that was given apart from the name."""
    if path is None:
        return named
    if named.path is not None or named.revision is not None:
        raise ConfigError(
            f"forecaster {name!r} says where its weights come from, and so does path {path}: "
            f"give one of them"
        )
    return named._replace(path=Path(path).expanduser())


def _load(
    named: Named, name: str, implementation: Implementation = "fastsim"
) -> ForecastModel | Forecaster:
    record = named.record
    assert record is not None
    load = partial(record.load, load=load_forecaster) if record.builds_on_another else record.load
    if implementation == "official":
        if record.official is None:
            raise _no_official(name)
        load = record.official
    elif implementation != "fastsim":
        raise ConfigError(f"implementation must be fastsim or official, got {implementation!r}")
    try:
        if named.revision:
            return load(named.path, named.revision)
        loaded = load(named.path)
        if named.path is not None and isinstance(loaded, ForecastModel):
            loaded.card = of_a_path(loaded.card, record.card)
        return loaded
    except FastsimError:
        raise
    except Exception as error:
        if record in OWN:
            raise
        reason = one_line(f"{type(error).__name__}: {error}")
        raise ForecastError(f"forecaster {name!r} cannot be loaded: {reason}") from error


def _has_official(name: str) -> bool:
    record = read_name(name).record
    return record is not None and record.official is not None


def _no_official(names: str) -> ConfigError:
    having = ", ".join(record.name for record in FORECASTERS.values() if record.official)
    return ConfigError(
        f"there is no official implementation of {names}, only of {having}: leave it out"
    )


def _announce(card: ModelCard) -> None:
    if card.attribution and card.hub_id is not None and card.name not in _announced:
        _announced.add(card.name)
        print(card.attribution, file=sys.stderr)
