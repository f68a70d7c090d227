"""Windows as copies: what depends on bar and asset alone is tabulated once, as logarithms.

A ratio is a difference of logarithms, so a window is its rows of one table less a row of another.
Tables are float64, in which that difference loses nothing that a float32 ratio would have kept.
`fastsim.env.window` is the law that every number here is held to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from fastsim.data.bars import CLOSE, VOLUME
from fastsim.env.config import EnvConfig
from fastsim.env.observe import Observation
from fastsim.env.slots import View, look_up
from fastsim.env.window import BAR_COLUMNS, LOG_RETURN
from fastsim.market.features import FEATURE_LIMIT
from fastsim.market.tape import MarketTape


class WindowTables(NamedTuple):
    """What windows of a market are copied from: 16 bytes for each bar, asset and column.

    NaN is what is missing, and shown as 0.
    """

    values: Tensor  # [T, A, C]  float64: log of price and of volume, log return, feature
    last: Tensor  # [T, A, C]  float64: what a window that ends at this bar takes off of them
    wait: Tensor  # [T, A]  int32: bars to the first known close; -1 if that before is known
    present: Tensor  # [T, A]  bool: the volatility is known


class Kinds(NamedTuple):
    """How columns behave in an episode of another volatility."""

    scaled: tuple[bool, ...]  # [C]  a log return: multiplied
    rising: tuple[bool, ...]  # [C]  a log volatility: raised by the logarithm


class Windows(Protocol):
    """Lays observations out as windows."""

    def show(self, observation: Observation) -> Tensor:
        """The window and the portfolio [N, L A C + P]."""
        ...

    def refresh(self, bars: Tensor) -> None:
        """Take note that the tape has changed at these bars [B], all of each of their worlds."""
        ...


def make_tables(tape: MarketTape, length: int, names: Sequence[str]) -> WindowTables:
    """Tabulate these columns for windows of `length` bars."""
    columns = [_column(tape, name, length) for name in names]
    return WindowTables(
        values=torch.stack([values for values, _ in columns], dim=-1),
        last=torch.stack([last for _, last in columns], dim=-1),
        wait=_wait(_by_world(tape, tape.known.bars[..., CLOSE])).flatten(0, 1),
        present=tape.known.sigma > 0,
    )


def retabulate(
    tables: WindowTables, tape: MarketTape, length: int, names: Sequence[str], bars: Tensor
) -> None:
    """Tabulate again, in place, these bars [B], all of each of their worlds."""
    if len(bars) == 0:
        return
    part = replace(tape.take(bars), worlds=len(bars) // tape.bars_per_world)
    for table, changed in zip(tables, make_tables(part, length, names), strict=True):
        table[bars] = changed


def kinds_of(tape: MarketTape, names: Sequence[str]) -> Kinds:
    """How these columns behave."""
    prices = (*BAR_COLUMNS[:VOLUME], LOG_RETURN)
    return Kinds(
        tuple(name in prices for name in names), tuple(name in tape.rising for name in names)
    )


class TorchWindows:
    """Windows from tables on any device."""

    def __init__(self, tape: MarketTape, config: EnvConfig) -> None:
        self._tape, self._asked = tape, (config.window_length, config.window_columns)
        self._tables = make_tables(tape, *self._asked)
        self._kinds = kinds_of(tape, config.window_columns)

    def show(self, observation: Observation) -> Tensor:
        """The window and the portfolio [N, L A C + P]."""
        length, names = self._asked
        bar, view = observation.bar, observation.view
        begun = bar // self._tape.bars_per_world * self._tape.bars_per_world
        rows = bar[:, None] - torch.arange(length - 1, -1, -1, device=bar.device)  # [N, L]
        shown = _gather(self._tables, self._kinds, rows, view)
        outside = (rows < begun[:, None])[:, :, None, None]
        shown = shown.masked_fill_(shown.isnan() | outside, 0.0)
        if LOG_RETURN in names:
            withheld = _begun_before(self._tables, rows, begun, view)
            shown[..., names.index(LOG_RETURN)].masked_fill_(withheld, 0.0)
        shown = shown.to(observation.portfolio.dtype).flatten(1)
        return torch.cat([shown, observation.portfolio], 1).clamp(-FEATURE_LIMIT, FEATURE_LIMIT)

    def refresh(self, bars: Tensor) -> None:
        """Take note that the tape has changed at these bars [B], all of each of their worlds."""
        retabulate(self._tables, self._tape, *self._asked, bars)


def _gather(tables: WindowTables, kinds: Kinds, rows: Tensor, view: View | None) -> Tensor:
    """Columns [N, L, A, C] at these rows [N, L], of which the last are the windows' ends."""
    slots, known = rows[:, :0] if view is None else view.slots, rows.clamp_min(0)
    values = look_up(tables.values, known, slots[:, None])
    shown = values - look_up(tables.last, known[:, -1], slots)[:, None]
    if view is None:
        return shown
    scaled, rising = (torch.tensor(kind, device=rows.device) for kind in kinds)
    factor = view.volatility.double()[:, None, None, None]
    present = look_up(tables.present, known, slots[:, None])[..., None]
    return torch.where(scaled, factor, 1.0) * shown + torch.where(
        rising & present, factor.log(), 0.0
    )


def _begun_before(tables: WindowTables, rows: Tensor, begun: Tensor, view: View | None) -> Tensor:
    """Where [N, L, A] the return is from a close before the one that precedes the window."""
    slots, first = rows[:, :0] if view is None else view.slots, rows[:, 0]
    wait = look_up(tables.wait, first.clamp_min(0), slots)  # [N, A]
    place = torch.arange(rows.shape[1], device=rows.device)[:, None]
    return (wait[:, None] == place) & (first >= begun)[:, None, None]


def _column(tape: MarketTape, name: str, length: int) -> tuple[Tensor, Tensor]:
    """Values [T, A] of a column, and what windows take off of them by their last bar."""
    if name not in (*BAR_COLUMNS, LOG_RETURN):
        values = tape.known.features[..., tape.feature_names.index(name)].double()
        return values, torch.zeros_like(values)
    bars = tape.known.bars.double()
    if name == LOG_RETURN:
        values = _log_returns(_by_world(tape, bars[..., CLOSE])).flatten(0, 1)
        return values, torch.zeros_like(values)
    values = bars[..., BAR_COLUMNS.index(name)]
    if name != BAR_COLUMNS[VOLUME]:
        return values.log(), bars[..., CLOSE].log()
    known = ~values.isnan()
    total, count = (
        _trailing_sum(_by_world(tape, each), length).flatten(0, 1)
        for each in (values.nan_to_num(nan=0.0), known.double())
    )
    return values.log(), (total / count).log()


def _by_world(tape: MarketTape, table: Tensor) -> Tensor:
    """A table [T, A] as [M, S, A], world by world."""
    return table.reshape(tape.worlds, tape.bars_per_world, -1)


def _trailing_sum(values: Tensor, window: int) -> Tensor:
    """Sums of the last `window` rows of values [M, S, A].

    Each is the end of one block and the beginning of the next, so that nothing is taken off again
    and what is 0 all along stays 0 (see `fastsim.stats.moments`).
    """
    bars = values.shape[1]
    window = min(window, bars)
    padded = torch.nn.functional.pad(values, (0, 0, 0, -bars % window))
    cut = padded.reshape(len(values), -1, window, values.shape[2])  # [M, B, W, A]
    begun, left = cut.cumsum(2), cut.flip(2).cumsum(2).flip(2)
    before = torch.zeros_like(left)
    before[:, 1:, :-1] = left[:, :-1, 1:]
    return (begun + before).flatten(1, 2)[:, :bars]


def _log_returns(close: Tensor) -> Tensor:
    """Log returns of closes [M, S, A], each from the last that was known; 0 where there is none."""
    known, place = _known(close)
    latest = torch.where(known, place, -1).cummax(1).values
    before = torch.cat([torch.full_like(latest[:, :1], -1), latest[:, :-1]], dim=1)
    returns = (close / close.gather(1, before.clamp_min(0))).log()
    return torch.where(known & (before >= 0), returns, 0.0)


def _wait(close: Tensor) -> Tensor:
    """See `WindowTables.wait`, for closes [M, S, A]."""
    known, place = _known(close)
    coming = torch.where(known, place, close.shape[1]).flip(1).cummin(1).values.flip(1)
    before = torch.cat([torch.ones_like(known[:, :1]), known[:, :-1]], dim=1)
    return torch.where(before, -1, coming - place).int()


def _known(close: Tensor) -> tuple[Tensor, Tensor]:
    """Which closes [M, S, A] are known, and the place of each [S, 1] in its world."""
    return close > 0, torch.arange(close.shape[1], device=close.device)[:, None]
