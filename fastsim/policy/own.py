"""The columns of a portfolio, of each asset and of the account, whatever the number of assets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fastsim.policy.normalize import RunningMoments, batch_moments

CASH = "cash"
SHARES = ("weight", "order")
"""Columns in units of wealth: times the number of assets, 1 is an equal share."""


class Block(NamedTuple):
    """One column of the registry in an observation."""

    name: str
    of_assets: bool
    with_cash: bool = False

    def width(self, assets: int) -> int:
        """How many numbers it is."""
        return assets + self.with_cash if self.of_assets else 1


class OwnColumns(NamedTuple):
    """How blocks follow one another in a row [P]."""

    blocks: tuple[Block, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the blocks."""
        return tuple(block.name for block in self.blocks)

    @property
    def of_assets(self) -> tuple[Block, ...]:
        """Those with a number of each asset."""
        return tuple(block for block in self.blocks if block.of_assets)

    def place(self, assets: int) -> list[int]:
        """Which of the K numbers that are standardised alike each of the P is.

        First those of the assets, block by block, then those of cash, then those of the account.
        """
        each = len(self.of_assets)
        cash, alone = each, each + sum(block.with_cash for block in self.blocks)
        found, place = [], 0
        for block in self.blocks:
            if not block.of_assets:
                found.append(alone)
                alone += 1
                continue
            found += [place] * assets
            if block.with_cash:
                found.append(cash)
                cash += 1
            place += 1
        return found

    @property
    def width(self) -> int:
        """K."""
        return len(self.blocks) + sum(block.with_cash for block in self.blocks)

    def assets_in(self, width: int) -> int:
        """A, of rows that are `width` numbers wide."""
        cash = sum(block.with_cash for block in self.blocks)
        alone = len(self.blocks) - len(self.of_assets)
        return (width - alone - cash) // len(self.of_assets)

    def split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Of rows [M, P]: what is of each asset [M, A, C], and the rest [M, S], cash first."""
        assets = self.assets_in(rows.shape[-1])
        parts = torch.split(rows, [block.width(assets) for block in self.blocks], dim=-1)
        pairs = list(zip(self.blocks, parts, strict=True))
        own = torch.stack([part[..., :assets] for block, part in pairs if block.of_assets], -1)
        cash = [part[..., assets:] for block, part in pairs if block.with_cash]
        alone = [part for block, part in pairs if not block.of_assets]
        return own, torch.cat([*cash, *alone], -1)


def own_columns(names: Sequence[str], first: str, assets: int) -> OwnColumns:
    """What follows what in columns of these names, where `first` is the first asset's."""
    blocks, at = [], 0
    while at < len(names):
        base = names[at].removesuffix(f".{first}")
        of_assets = base != names[at]
        with_cash = of_assets and f"{base}.{CASH}" in names[at + assets : at + assets + 1]
        block = Block(base, of_assets, with_cash)
        blocks.append(block)
        at += block.width(assets)
    return OwnColumns(tuple(blocks))


class OwnMoments(RunningMoments):
    """Moments of a portfolio's columns, those of assets over all assets, of any number of them.

    What is in units of wealth is first multiplied by the number of assets, so that a number means
    the same in a market of few and of many.
    """

    def __init__(self, columns: OwnColumns) -> None:
        super().__init__(columns.width)
        self.columns = columns
        self._spreads: dict[int, tuple[Tensor, Tensor]] = {}

    def moments_of(self, values: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and squared deviations [K] of a batch [M, P]: those of assets as means over them."""
        place, unit = self._spread(values.shape[-1])
        mean, square_sum, count = batch_moments(values * unit.to(values), valid)
        share = torch.zeros(self.columns.width, dtype=mean.dtype, device=mean.device)
        share.index_add_(0, place, torch.ones_like(mean))

        def pooled(each: Tensor) -> Tensor:
            return torch.zeros_like(share).index_add_(0, place, each) / share

        together = pooled(mean)
        between = (mean - together[place]).square() * count
        return together, pooled(square_sum + between), count

    def forward(self, values: Tensor) -> Tensor:
        """Standardise `values` [..., P] and clip them."""
        place, unit = self._spread(values.shape[-1])
        scale = self.scale(values.dtype)
        chosen = scale._replace(mean=scale.mean[place], std=scale.std[place])
        return chosen(values * unit.to(values))

    def _spread(self, width: int) -> tuple[Tensor, Tensor]:
        """Which of the K each of the P columns is, and what it is multiplied by."""
        known = self._spreads.get(width)
        if known is not None and known[0].device == self.mean.device:
            return known
        columns, assets = self.columns, self.columns.assets_in(width)
        place = columns.place(assets)
        shares = {at for at, block in enumerate(columns.of_assets) if block.name in SHARES}
        unit = [float(assets) if at in shares else 1.0 for at in place]
        device = self.mean.device
        made = torch.tensor(place, device=device), torch.tensor(unit, device=device)
        self._spreads[width] = made
        return made
