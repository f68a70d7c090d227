"""Windows of past bars: which columns they show by name, and how these are laid out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastsim.data.bars import BAR_FIELDS, CLOSE, VOLUME
from fastsim.env.slots import View, look_up
from fastsim.errors import ConfigError
from fastsim.market.tape import MarketTape

BAR_COLUMNS = BAR_FIELDS[: VOLUME + 1]
"""Prices are log ratios to the last bar's close; volume is that to its mean in the window."""
LOG_RETURN = "log_return"
"""Log return from the close before, the last one known where bars have none."""


def check_names(names: object) -> None:
    """Raise ConfigError unless these are distinct names of columns, at least one."""
    texts = isinstance(names, tuple) and all(isinstance(name, str) for name in names)
    if not (isinstance(names, tuple) and names and texts and len(set(names)) == len(names)):
        raise ConfigError(
            f'EnvConfig.window_columns must be names, each of them once, such as ("close",), '
            f"got {names!r}"
        )


def check_columns(tape: MarketTape, names: Sequence[str]) -> None:
    """Raise ConfigError where a name is neither of a bar nor of a feature of this market."""
    known = (*BAR_COLUMNS, LOG_RETURN, *tape.feature_names)
    for name in names:
        if name not in known:
            raise ConfigError(
                f"EnvConfig.window_columns: there is no column {name!r} here; "
                f"there are {', '.join(known)}"
            )


def window_names(tape: MarketTape, length: int, names: Sequence[str]) -> tuple[str, ...]:
    """Names of the columns of a window, bar by bar, asset by asset; `-3` is three bars ago."""
    return tuple(
        f"{symbol}.{name}.{-age}"
        for age in range(length - 1, -1, -1)
        for symbol in tape.symbols
        for name in names
    )


def window_at(
    tape: MarketTape, bar: Tensor, view: View | None, length: int, names: Sequence[str]
) -> Tensor:
    """Columns [N, L, A, C] of the last `length` bars up to `bar` [N], as `view` shows them.

    A feature is what was known at each bar. What is missing, and all before the first bar of a
    world, is 0.
    """
    rows = bar[:, None] - torch.arange(length - 1, -1, -1, device=tape.device)  # [N, L]
    begun = bar[:, None] // tape.bars_per_world * tape.bars_per_world  # [N, 1]  of its world
    bars = [name for name in names if name in BAR_COLUMNS]
    features = [name for name in names if name not in (*BAR_COLUMNS, LOG_RETURN)]
    shown: dict[str, Tensor] = {}
    if bars:
        shown |= _bars(tape, rows, begun, view, bars)
    if LOG_RETURN in names:
        shown[LOG_RETURN] = _log_returns(tape, rows, begun, view)
    if features:
        shown |= _features(tape, rows, begun, view, features)
    return torch.stack([shown[name] for name in names], dim=-1)


def _bars(
    tape: MarketTape, rows: Tensor, begun: Tensor, view: View | None, names: Sequence[str]
) -> dict[str, Tensor]:
    """Columns [N, L, A] of bars, relative to the window's last close or its mean volume."""
    places = {name: BAR_COLUMNS.index(name) for name in (*names, "close")}
    first, table = _gathered(tape.known.bars, list(places.values()), rows, view)
    table = torch.where((rows >= begun)[:, :, None, None], table, torch.nan)  # [N, L, A, span]
    shown = {}
    for name in names:
        values = table[..., places[name] - first]
        if places[name] == VOLUME:
            shown[name] = torch.log(values / values.nanmean(1, keepdim=True))
            continue
        shown[name] = (values / table[:, -1:, :, CLOSE - first]).log()
        if view is not None:
            shown[name] = shown[name] * view.volatility[:, None, None]
    return {name: values.nan_to_num(nan=0.0) for name, values in shown.items()}


def _log_returns(tape: MarketTape, rows: Tensor, begun: Tensor, view: View | None) -> Tensor:
    """Log returns [N, L, A]: of closes that are known, from the last before that is."""
    rows = torch.cat([rows[:, :1] - 1, rows], dim=1)  # [N, L + 1]
    _, table = _gathered(tape.known.bars, [CLOSE], rows, view)
    close = torch.where((rows >= begun)[:, :, None], table[..., 0], torch.nan)  # [N, L + 1, A]
    known = close > 0
    place = torch.arange(rows.shape[1], device=tape.device)[:, None]
    latest = torch.where(known, place, -1).cummax(1).values
    before = close.gather(1, latest[:, :-1].clamp_min(0))  # [N, L, A]
    returns = (close[:, 1:] / before).log()
    if view is not None:
        returns = returns * view.volatility[:, None, None]
    return torch.where(known[:, 1:] & (latest[:, :-1] >= 0), returns, 0.0)


def _features(
    tape: MarketTape, rows: Tensor, begun: Tensor, view: View | None, names: Sequence[str]
) -> dict[str, Tensor]:
    """Features [N, L, A] as they were known at each bar, at the episode's volatility."""
    places = {name: tape.feature_names.index(name) for name in names}
    first, table = _gathered(tape.known.features, list(places.values()), rows, view)
    inside = (rows >= begun)[:, :, None]  # [N, L, 1]
    shown = {name: table[..., place - first] for name, place in places.items()}
    if view is not None and set(names) & set(tape.rising):
        sigma = look_up(tape.known.sigma, rows.clamp_min(0), view.slots[:, None])
        rise = torch.where(sigma > 0, view.volatility.log()[:, None, None], 0.0)
        shown |= {name: shown[name] + rise for name in names if name in tape.rising}
    shown = {name: values.nan_to_num(nan=0.0) for name, values in shown.items()}
    return {name: torch.where(inside, values, 0.0) for name, values in shown.items()}


def _gathered(
    table: Tensor, places: Sequence[int], rows: Tensor, view: View | None
) -> tuple[int, Tensor]:
    """The span [N, L, A, span] of a table [T, A, C] that holds these columns, and its first."""
    first, last = min(places), max(places)
    slots = rows[:, :0] if view is None else view.slots
    return first, look_up(table[..., first : last + 1], rows.clamp_min(0), slots[:, None])
