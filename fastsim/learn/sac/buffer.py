"""Steps that were taken, kept on the device to be learned from again.

The market is not copied: a step is the bars before and after it, which find their features on the
tape, and what was the agent's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastsim.env.nested import flatten, take
from fastsim.env.observe import Observation
from fastsim.env.slots import View
from fastsim.errors import CheckpointError
from fastsim.learn.rollout import Rollout


class Steps(NamedTuple):
    """M steps that counted."""

    bar: Tensor  # [M]  int32
    portfolio: Tensor  # [M, P]
    action: Tensor  # [M, W]
    reward: Tensor  # [M]  as it was paid
    next_bar: Tensor  # [M]  int32
    next_portfolio: Tensor  # [M, P]  of an episode's true last state where it ended
    terminated: Tensor  # [M]  bool; an episode that was only cut goes on from the next state
    view: View | None = None  # [M, ...]  of episodes that draw what their agents see

    @property
    def before(self) -> Observation:
        """What the agents saw."""
        return Observation(self.bar.long(), self.portfolio, view=self.view)

    @property
    def after(self) -> Observation:
        """What they saw next."""
        return Observation(self.next_bar.long(), self.next_portfolio, view=self.view)


def steps_of(rollout: Rollout) -> Steps:
    """All steps [T N] of a rollout, those whose action was ignored among them."""
    count = len(rollout.reward)
    before = rollout.samples(count)
    return Steps(
        bar=before.bar.int(),
        portfolio=before.portfolio,
        action=rollout.action.flatten(0, 1),
        reward=rollout.reward.flatten(),
        next_bar=rollout.bar[1:].flatten().int(),
        next_portfolio=rollout.portfolio[1:].flatten(0, 1),
        terminated=rollout.terminated.flatten(),
        view=before.view,
    )


class ReplayBuffer:
    """The last steps that counted, at most `capacity` of them; nothing is read back to the host.

    Row `capacity` is spare: what is not to be kept is written there.
    """

    def __init__(self, rollout: Rollout, capacity: int) -> None:
        like = steps_of(rollout)
        self.capacity = capacity
        self.rows = Steps(*(_room(column, capacity + 1) for column in like))
        self.size = torch.zeros((), dtype=torch.int64, device=like.bar.device)
        self.head = torch.zeros_like(self.size)  # where the next step goes

    def add(self, rollout: Rollout) -> None:
        """Keep the steps of a rollout that counted."""
        steps, valid = steps_of(rollout), rollout.valid.flatten()
        place = (self.head + valid.cumsum(0) - 1) % self.capacity
        place = torch.where(valid, place, self.capacity)
        for room, column in zip(flatten(self.rows), flatten(steps), strict=True):
            room[place] = column
        count = valid.sum()
        self.head.copy_((self.head + count) % self.capacity)
        self.size.copy_((self.size + count).clamp_max(self.capacity))

    def sample(self, count: int, generator: torch.Generator) -> Steps:
        """Draw so many of the steps kept, each as likely as any other."""
        share = torch.rand(count, generator=generator, device=self.size.device)
        row = (share * self.size).long().minimum(self.size - 1)  # a product may be rounded up
        return take(self.rows, row)

    def drop(self, worlds: Tensor, bars_per_world: int) -> None:
        """Forget the steps of these worlds [K]: their bars show something else now."""
        if not len(worlds):
            return
        place = torch.arange(self.capacity + 1, device=self.size.device)
        gone = place >= self.size
        for bar in (self.rows.bar, self.rows.next_bar):
            gone = gone | torch.isin(bar.long() // bars_per_world, worlds)
        age = (place - self.head) % self.capacity  # the oldest first
        order = torch.where(gone, self.capacity, age).argsort(stable=True)
        for column in flatten(self.rows):
            column.copy_(column[order])
        self.size.copy_((~gone).sum())
        self.head.copy_(self.size % self.capacity)

    def state_dict(self) -> dict[str, Any]:
        """What is kept, and where the next step goes."""
        kept = take(self.rows, slice(0, int(self.size)))
        return {"rows": [column.clone() for column in flatten(kept)], "head": self.head.clone()}

    def load_state_dict(self, saved: Mapping[str, Any], /) -> None:
        """Go on from what `state_dict` of a buffer made alike returned.

        Raises
        ------
        CheckpointError
            It kept other columns, or more than there is room for.
        """
        columns = saved["rows"]
        wanted, given = (
            [(tuple(column.shape[1:]), column.dtype) for column in group]
            for group in (flatten(self.rows), columns)
        )
        count = len(columns[0])
        if given != wanted or count > self.capacity:
            raise CheckpointError(
                f"the saved steps, {count} of {given}, do not fit a buffer for {self.capacity} of "
                f"{wanted}"
            )
        for room, column in zip(flatten(self.rows), columns, strict=True):
            room[:count] = column
        self.head.copy_(saved["head"])
        self.size.fill_(count)


def _room(column: Any, rows: int) -> Any:
    """Room for so many rows like those of a column; None stays so."""
    if column is None:
        return None
    if isinstance(column, Tensor):
        return column.new_zeros(rows, *column.shape[1:])
    return type(column)(*(_room(part, rows) for part in column))
