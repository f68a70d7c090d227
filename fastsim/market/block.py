"""What a step meets of the market: one block of named columns, and how each of them behaves.

A later table (dividends, costs by asset) is a further column: it is laid out, moved,
looked up and handed on with the others, and says itself what becomes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from fastsim.config import configuration
from fastsim.data.bars import Bars, FloatArray
from fastsim.errors import DataError
from fastsim.extensions import Registry


@configuration
class Column:
    """A number of each asset, or of all of them together, that a step meets between two closes."""

    name: str
    volatility: Literal["stays", "scales", "compounds", "averages"]
    """What it is where all log returns are f times as large: the same; f times as large; a simple
    return r, so (1 + r)^f - 1; or the mean return of what is tradable, which follows the others."""
    closing: Literal["stays", "zero", "endless", "next"]
    """What it is for who must trade at the close that a step leads to: the same; nothing; without
    limit; or what it is at that bar."""
    by_asset: bool = True
    """[T, A], or [T] of the whole market."""
    table: Callable[[Bars], FloatArray] | None = None
    """From bars to the column [T, A], known at each close for the step that follows; NaN is an
    error. None for what the tape itself makes."""


COLUMNS: Registry[Column] = Registry(
    "column of the market",
    Column,
    (
        Column(name="r_before", volatility="compounds", closing="zero"),
        Column(name="r_after", volatility="compounds", closing="zero"),
        Column(name="tradable", volatility="stays", closing="next"),
        Column(name="dollars", volatility="stays", closing="endless"),
        Column(name="impact_scale", volatility="scales", closing="next"),
        Column(name="price", volatility="stays", closing="next"),
        Column(name="years", volatility="stays", closing="stays", by_asset=False),
        Column(name="interest", volatility="stays", closing="stays", by_asset=False),
        Column(name="market_return", volatility="averages", closing="stays", by_asset=False),
        Column(name="borrow", volatility="stays", closing="stays"),
        Column(name="shortable", volatility="stays", closing="stays"),
        Column(name="delisted", volatility="stays", closing="stays"),
        Column(name="r_open", volatility="compounds", closing="zero"),
        Column(name="r_high", volatility="compounds", closing="zero"),
        Column(name="r_low", volatility="compounds", closing="zero"),
        Column(name="funding", volatility="stays", closing="zero"),
    ),
)
"""The columns that fastsim itself makes, and those that were added to them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """Columns of T bars under their names: [T, A] each, one after the other, or [T]."""

    columns: Mapping[str, Column]  # C of assets and D of bars, by name
    flags: frozenset[str]  # columns of truth values, kept as 0 and 1
    assets: Tensor  # [C, T, A]
    bars: Tensor  # [D, T]

    @classmethod
    def of(
        cls,
        tables: Mapping[str, Tensor],
        columns: Mapping[str, Column] = COLUMNS,
        dtype: torch.dtype | None = None,
    ) -> Block:
        """Lay out tables [T, A] and [T], of truth values or of numbers.

        Raises
        ------
        DataError
            A table that `columns` do not know, or whose column has another shape.
        """
        for name, table in tables.items():
            if name not in columns or columns[name].by_asset != (table.dim() == 2):
                raise DataError(
                    f"no column {name!r} of {table.dim()} dimensions is known: a "
                    f"fastsim.market.block.Column says what becomes of it"
                )
        flags = frozenset(name for name, table in tables.items() if table.dtype == torch.bool)
        dtype = dtype or next(table.dtype for table in tables.values() if table.dtype != torch.bool)
        known = {name: columns[name] for name in tables}

        def stack(by_asset: bool) -> Tensor:
            wanted = [name for name, column in known.items() if column.by_asset == by_asset]
            return torch.stack([tables[name].to(dtype) for name in wanted])

        return cls(columns=known, flags=flags, assets=stack(True), bars=stack(False))

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def __getitem__(self, name: str) -> Tensor:
        """One table [T, A] or [T]; of truth values, a copy."""
        table = self._tables[name]
        return table > 0 if name in self.flags else table

    def at(self, bar: Tensor) -> dict[str, Tensor]:
        """Every column at `bar` [N]: [N, A] or [N]."""
        flags, rows = self.flags, {}
        for name, table in self._tables.items():
            row = torch.embedding(table, bar) if table.dim() > 1 else table[bar]  # gathers rows
            rows[name] = row > 0 if name in flags else row
        return rows

    def take(self, bars: slice | Tensor) -> Block:
        """The same columns at these bars [B], in this order."""
        return replace(self, assets=self.assets[:, bars], bars=self.bars[:, bars])

    def put(self, bars: Tensor, other: Block) -> None:
        """Write the rows of `other`, of the same columns, in place at these bars [B]."""
        assert list(self) == list(other)
        self.assets[:, bars] = other.assets
        self.bars[:, bars] = other.bars

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Block:
        """The same columns on another device, or in another floating-point type."""
        assets, bars = (table.to(device, dtype) for table in (self.assets, self.bars))
        return replace(self, assets=assets, bars=bars)

    def each(self, function: Callable[[Tensor], Tensor]) -> Block:
        """What `function` makes of every table [T, A] and [T]."""
        tables = {name: function(self[name]) for name in self}
        return Block.of(tables, self.columns, self.assets.dtype)

    def changed(self, tables: Mapping[str, Tensor]) -> Block:
        """The same block with these tables in place of its own, or beside them."""
        every = {name: self[name] for name in self} | dict(tables)
        return Block.of(every, dict(COLUMNS) | dict(self.columns), self.assets.dtype)

    @cached_property
    def _tables(self) -> dict[str, Tensor]:
        assets, bars = iter(self.assets.unbind(0)), iter(self.bars.unbind(0))
        return {name: next(assets if c.by_asset else bars) for name, c in self.columns.items()}
