"""Who takes an iteration's steps: the passes by hand where they know all of it, else autograd."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any, Literal

import torch
from torch import Tensor

from fastsim.capture import records
from fastsim.env.nested import take
from fastsim.learn.fused.coverage import has_own_encoder, on_device, uncovered
from fastsim.learn.fused.layout import shapes_of
from fastsim.learn.fused.threads import one_thread_each
from fastsim.learn.ppo.config import PPOConfig
from fastsim.learn.ppo.update import Batch, Tally, learn
from fastsim.policy.policy import Policy, Table

log = logging.getLogger(__name__)

Means = Literal["by_hand", "on_device", "by_autograd"]


class Steps:
    """Takes a step on each of an iteration's minibatches, and says once in the log by what means.

    What is worked in is made when it is first wanted, and anew if the policy has become another.
    """

    def __init__(self, config: PPOConfig) -> None:
        self.config = config
        self._told: str | None = None
        self._parts: Any = None
        self._means: Means = "by_autograd"
        self._hand: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """A copy makes rooms of its own: tensors and arrays here share memory."""
        return vars(self) | {"_hand": None, "_parts": None}

    def begin(
        self, policy: Policy, optimizer: torch.optim.Adam, table: Table, batch: Batch
    ) -> object:
        """Choose who takes an iteration's steps on minibatches of this batch.

        Returns who it is: if it is another, what was recorded of a minibatch is out of date.
        """
        self._parts = (policy, optimizer, table, batch)
        missing = uncovered(policy, optimizer, table)
        if self.config.precision != "float32":
            missing.append(f'PPOConfig.precision = "{self.config.precision}"')
        self._means = "by_autograd"
        if not missing:
            self._means = "on_device" if on_device(table) else "by_hand"
        self._tell(missing)
        if self._means == "by_autograd":
            return self._means
        hand = self._made()
        if self._means == "on_device":
            hand.begin()
        return hand

    def changed(self) -> list[Tensor]:
        """What `learn` changes beside the policy, its optimiser and the tally."""
        changed: list[Tensor] = self._hand.changed() if self._means == "on_device" else []
        return changed

    def learn(self, rows: Tensor, tally: Tally) -> None:
        """Take a step on rows [M] of the batch, on a GPU without a word to the host."""
        if self._means == "by_autograd":
            policy, optimizer, table, batch = self._parts
            learn(policy, optimizer, table, take(batch, rows), self.config, tally)
        else:
            self._hand.learn(rows, tally)

    def take(
        self, minibatches: Iterable[Tensor], tally: Tally, learn: Callable[[Tensor], None]
    ) -> None:
        """Learn from rows [M] of the batch, minibatch by minibatch, until `tally` says stop.

        `learn` does what that of the steps does, perhaps by what was recorded of it.
        """
        if self._means != "by_hand":
            _each(minibatches, tally, learn)
            return
        with torch.no_grad(), one_thread_each() as threads:
            self._hand.begin(threads)
            _each(minibatches, tally, lambda rows: self.learn(rows, tally))

    def _made(self) -> Any:
        """The passes over these parts."""
        parts, policy = self._parts, self._parts[0]
        own = has_own_encoder(policy)
        shapes = shapes_of(policy)
        name, kind = ("by_hand", "ByHand") if self._means == "by_hand" else _ON_DEVICE
        # Imported when it is wanted, as kernels are: numba alone takes half a second.
        make = getattr(import_module(f"fastsim.learn.ppo.{name}"), kind)
        if type(self._hand) is not make or not self._hand.fits(*parts, own, shapes):
            self._hand = make(*parts, self.config, own_encoder=own)
        return self._hand

    def _tell(self, missing: list[str]) -> None:
        told = _TOLD.get(self._means, "through autograd")
        if missing:
            told += f": by hand nothing is known of {', '.join(missing)}"
        if told != self._told:
            log.info("minibatches are learned %s", told)
        self._told = told


_ON_DEVICE = ("on_device", "OnDevice")
_TOLD = {"by_hand": "by hand", "on_device": "by hand on the device"}


def _each(minibatches: Iterable[Tensor], tally: Tally, learn: Callable[[Tensor], None]) -> None:
    for rows in minibatches:
        if not records(rows.device) and bool(tally.stopped):
            break  # the rest would change nothing
        learn(rows)
