"""Who takes an iteration's steps: the passes by hand where they know all of it, else autograd."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from fastsim.capture import records
from fastsim.learn.fused.coverage import has_own_encoder, uncovered
from fastsim.learn.fused.threads import one_thread_each
from fastsim.learn.ppo.config import PPOConfig
from fastsim.learn.ppo.update import Batch, Tally
from fastsim.policy.network import MarketTable, Policy

log = logging.getLogger(__name__)


class Steps:
    """Takes a step on each of an iteration's minibatches, and says once in the log by what means.

    What is worked in is made when it is first wanted, and anew if the policy has become another.
    """

    def __init__(self, config: PPOConfig) -> None:
        self.config = config
        self._told: str | None = None
        self._hand: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """A copy makes rooms of its own: tensors and arrays here share memory."""
        return vars(self) | {"_hand": None}

    def take(
        self,
        policy: Policy,
        optimizer: torch.optim.Adam,
        table: MarketTable,
        batch: Batch,
        minibatches: Iterable[Tensor],
        tally: Tally,
        by_autograd: Callable[[Tensor], None],
    ) -> None:
        """Learn from rows [M] of the batch, minibatch by minibatch, until `tally` says stop."""
        missing = uncovered(policy, optimizer, table)
        if self.config.precision != "float32":
            missing.append(f'PPOConfig.precision = "{self.config.precision}"')
        self._tell(missing)
        if missing:
            for rows in minibatches:
                if not records(batch.bar.device) and bool(tally.stopped):
                    break  # the rest would change nothing
                by_autograd(rows)
            return
        with torch.no_grad(), one_thread_each() as threads:
            hand = self._by_hand(policy, optimizer, table, batch)
            hand.begin(threads)
            for rows in minibatches:
                if bool(tally.stopped):
                    break
                hand.learn(rows, tally)

    def _by_hand(self, *parts: Any) -> Any:
        """The passes over these parts: policy, optimiser, table, and batch."""
        own = has_own_encoder(parts[0])
        shapes = [(name, each.shape) for name, each in parts[0].named_parameters()]
        if self._hand is None or not self._hand.fits(*parts, own, shapes):
            # Imported when it is wanted, as kernels are: numba alone takes half a second.
            make = import_module("fastsim.learn.ppo.by_hand").ByHand
            self._hand = make(*parts, self.config, own_encoder=own)
        return self._hand

    def _tell(self, missing: list[str]) -> None:
        told = "by hand"
        if missing:
            told = f"through autograd: by hand nothing is known of {', '.join(missing)}"
        if told != self._told:
            log.info("minibatches are learned %s", told)
        self._told = told
