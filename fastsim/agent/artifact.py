"""An agent's folder: everything a decision needs and nothing else.

    agent.json            what it was made for: market, rules, forecaster, calendar
    policy/               the policy with its own spec, or else
    strategy.json         the settings of a strategy on signals, and what it trades
    forecaster/           weights of forecasters that neither the package nor a hub has
    season.json           the fitted profile of the season around them
    embedding.safetensors the projection of their hidden state
    tiers.json            leverage tiers of the perpetual futures that it trades

Files are JSON and safetensors, or a forecaster's own; loading runs no code of the first two.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastsim.config import configuration, from_mapping, to_mapping, write_whole
from fastsim.data.calendar import TradingCalendar
from fastsim.env.config import EnvConfig
from fastsim.env.perpetual import margin_by
from fastsim.errors import CheckpointError, ConfigError, one_line
from fastsim.forecast.features import ForecastConfig
from fastsim.forecast.naming import read_name
from fastsim.forecast.season.setting import SUFFIX as PROFILE
from fastsim.forecast.training.folder import carry_base
from fastsim.market.margin import Margin, market_tiers
from fastsim.market.tape import TapeConfig

FORMAT = 1
SPEC, POLICY, FORECASTER = "agent.json", "policy", "forecaster"
STRATEGY, TIERS, SEASON = "strategy.json", "tiers.json", "season.json"
EMBEDDING = "embedding.safetensors"


@configuration
class AgentSpec:
    """What an agent was made for, beside its policy."""

    tape: TapeConfig
    """How bars become what it sees; the fill is the one that it learned by."""
    env: EnvConfig
    """The rules that it learned under: actions, columns of its portfolio, costs."""
    calendar: TradingCalendar
    """When its bars are to be expected."""
    fields: tuple[str, ...]
    """What its bars had beside closes."""
    bars_needed: int
    """Bars that features and forecasts look back on, the last included."""
    forecasters: tuple[str, ...] = ()
    """Whose forecasts it sees; a path within `forecaster/` is one of the folder's."""
    forecast: ForecastConfig = ForecastConfig()
    """What it sees of them."""
    forecaster_weights: tuple[float, ...] = ()
    """Of several, as they were given or fitted."""
    forecaster_key: str = ""
    """Of all of them as one: others would say other things."""

    def check_forecaster(self, key: str) -> None:
        """Raise CheckpointError unless a forecaster with this key is the one it was made for."""
        if key != self.forecaster_key:
            raise CheckpointError(
                f"the agent learned by forecasts of {self.forecaster_key or 'nobody'}, and these "
                f"are of {key or 'nobody'}: install the version that it was made with, or make "
                f"it anew"
            )

    def with_funding(self, path: str) -> AgentSpec:
        """The same, with funding from this file; ConfigError where spot is traded."""
        if not self.env.perpetual.trades:
            raise ConfigError(f"funding {path} is of perpetual futures, and the agent trades spot")
        return replace(self, tape=replace(self.tape, funding=path))

    def margin_of(self, symbols: tuple[str, ...]) -> Margin | None:
        """On what margin these perpetual futures are held; None where spot is traded.

        Raises
        ------
        DataError
            Their tiers cannot be read.
        """
        tiers = None if self.tape.tiers is None else market_tiers(self.tape.tiers, symbols)
        return margin_by(tiers, symbols, self.env.perpetual)


def save_spec(folder: Path, spec: AgentSpec) -> None:
    """Write what an agent was made for into its folder, with weights and tiers that are only here.

    Raises
    ------
    CheckpointError
        They cannot be copied.
    """
    names = tuple(_kept(name, folder) for name in spec.forecasters)
    if spec.tape.tiers is not None:
        _copy(Path(spec.tape.tiers), folder / TIERS, "the leverage tiers")
        spec = replace(spec, tape=replace(spec.tape, tiers=TIERS))
    season = spec.forecast.season
    if season.endswith(PROFILE):
        _copy(Path(season), folder / SEASON, "the profile of the season")
        spec = replace(spec, forecast=replace(spec.forecast, season=SEASON))
    if spec.forecast.embedding:
        what = "the projection of the embedding"
        _copy(Path(spec.forecast.embedding), folder / EMBEDDING, what)
        spec = replace(spec, forecast=replace(spec.forecast, embedding=EMBEDDING))
    mapping = {"format": FORMAT, **to_mapping(spec), "forecasters": list(names)}
    write_whole(folder / SPEC, json.dumps(mapping, indent=2).encode())


def read_spec(folder: Path) -> AgentSpec:
    """What `save_spec` wrote, with paths of its weights as they are from here.

    Raises
    ------
    CheckpointError
        It is missing, damaged or of another format.
    """
    path = folder / SPEC
    mapping = read_json(path, "agent")
    try:
        return from_mapping(AgentSpec, _placed(mapping, folder))
    except (ConfigError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {one_line(error)}") from None


def read_json(path: Path, what: str) -> dict[str, Any]:
    """An object of this format in a file of an agent's; CheckpointError if it is not that."""
    try:
        mapping = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no {what} here; train first, or name its folder") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged, or no {what}'s ({one_line(error)})") from None
    found = mapping.pop("format", None) if isinstance(mapping, dict) else None
    if found != FORMAT:
        raise CheckpointError(f"{path}: no {what} of format {FORMAT}, but of {found!r}")
    assert isinstance(mapping, dict)
    return mapping


def _kept(name: str, folder: Path) -> str:
    """A forecaster's name, with weights from a path copied into the folder."""
    path = read_name(name).path
    if path is None:
        return name
    _copy(path, folder / FORECASTER / path.name, f"the weights of {name}")
    return f"{_head(name, path)}{FORECASTER}/{path.name}"


def _copy(path: Path, target: Path, what: str) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, target, dirs_exist_ok=True)
            carry_base(target)
        elif path.resolve() != target.resolve():
            shutil.copy2(path, target)
    except OSError as error:
        raise CheckpointError(
            f"{path}: {what} cannot be copied into {target.parent} ({error.strerror})"
        ) from None


def _head(name: str, path: Path) -> str:
    """What of a name comes before its path, the colon included; nothing for an artefact."""
    return "" if Path(name).expanduser() == path else name[: name.rindex(":") + 1]


def _placed(mapping: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    names: Sequence[str] = mapping.get("forecasters", ())
    prefix = f"{FORECASTER}/"
    placed = []
    for name in names:
        head, found, rest = str(name).rpartition(prefix)
        inside = found and (not head or head.endswith(":"))
        placed.append(f"{head}{folder / FORECASTER / rest}" if inside else name)
    tape, forecast = mapping.get("tape"), mapping.get("forecast")
    if isinstance(tape, Mapping) and tape.get("tiers") == TIERS:
        mapping = {**mapping, "tape": {**tape, "tiers": str(folder / TIERS)}}
    if isinstance(forecast, Mapping) and forecast.get("season") == SEASON:
        mapping = {**mapping, "forecast": {**forecast, "season": str(folder / SEASON)}}
        forecast = mapping["forecast"]
    if isinstance(forecast, Mapping) and forecast.get("embedding") == EMBEDDING:
        mapping = {**mapping, "forecast": {**forecast, "embedding": str(folder / EMBEDDING)}}
    return {**mapping, "forecasters": placed}
