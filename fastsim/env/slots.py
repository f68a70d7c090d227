"""Slots: which assets an agent is shown in an episode, and in which order.

An agent has as many slots as the market has assets. Where a subset is drawn, slot j shows the asset
`slots[j]`; -1 masks it: its numbers are 0, and what is asked of it is ignored. Without columns,
every slot shows its own asset. The books stay in the order of the assets.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastsim.env.random import draw_integers

COUNT_STREAM = 64
ORDER_STREAM = 1024
"""The first of as many streams as there are assets."""
RESOLUTION = 1 << 31


class View(NamedTuple):
    """In what the market of an episode differs from the tape: its assets and its volatility."""

    slots: Tensor  # [N, A]  int64, the asset that each slot shows
    volatility: Tensor  # [N]  factor on log returns


def draw_slots(bounds: tuple[int, ...], assets: int, key: Tensor, episode: Tensor) -> Tensor:
    """Slots [N, A] of `episode` [N] of environments `key` [N]: a random permutation, cut short.

    As many are left as `bounds`, the fewest and the most, allow, all counts alike; without bounds
    there are no columns. The permutation sorts the assets by a hash of each.
    """
    if not bounds:
        return key.new_empty(len(key), 0)
    fewest, most = bounds
    numbers = torch.arange(assets, device=key.device)
    count = fewest + draw_integers(key, episode, COUNT_STREAM, most - fewest + 1)  # [N]
    hashes = draw_integers(key[:, None], episode[:, None], ORDER_STREAM + numbers, RESOLUTION)
    order = hashes.argsort(dim=-1, stable=True)
    return torch.where(numbers < count[:, None], order, -1)


def masked(slots: Tensor) -> Tensor | None:
    """Which slots [N, A] show nothing; None where each shows its own asset."""
    return slots < 0 if slots.shape[-1] else None


def look_up(table: Tensor, rows: Tensor, slots: Tensor) -> Tensor:
    """What `slots` [..., A] show of `rows` [...] of a table [R, A, ...]; 0 where masked."""
    if not slots.shape[-1]:
        return table[rows]
    place = rows[..., None] * slots.shape[-1] + slots.clamp_min(0)  # [..., A]
    shown = table.flatten(0, 1).index_select(0, place.flatten())  # quicker than two indices
    hidden = (slots < 0).expand_as(place).reshape(-1, *(1,) * (table.dim() - 2))
    return shown.masked_fill(hidden, 0).view(*place.shape, *table.shape[2:])


def to_slots(values: Tensor, slots: Tensor) -> Tensor:
    """Values [N, A] of the assets in the order of the slots; 0 where masked."""
    if not slots.shape[-1]:
        return values
    return look_up(values, torch.arange(len(values), device=values.device), slots)


def to_assets(values: Tensor, slots: Tensor) -> Tensor:
    """Values [N, A] of slots in the order of the assets; 0 for assets that no slot shows."""
    if not slots.shape[-1]:
        return values
    assets = slots.shape[-1]
    place = torch.where(slots < 0, assets, slots)  # the masked go past the end, which is cut off
    return values.new_zeros(len(values), assets + 1).scatter(1, place, values)[:, :assets]


def drawn_assets(slots: Tensor, assets: int) -> Tensor:
    """Which assets [N, A] are in the episode."""
    return to_assets(filled(slots, assets), slots)


def filled(slots: Tensor, assets: int) -> Tensor:
    """Which of the slots [N, A] show an asset."""
    return slots >= 0 if slots.shape[-1] else slots.new_ones(len(slots), assets, dtype=torch.bool)
