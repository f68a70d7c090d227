"""From what an agent says to target weights: the modes, and what they have in common."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from fastsim.config import configuration
from fastsim.errors import ConfigError
from fastsim.extensions import Registry

LOGIT_LIMIT = 10.0
"""Bound of the action space for logits; the environment itself takes any finite logit."""

GREATEST_GROSS = 10.0
"""Gross leverage that can be asked for on margin."""

LARGEST = 1e6
"""Numbers beyond this are cut to it, so that sums of huge ones stay finite."""


@configuration
class ActionMode:
    """A way to ask for weights."""

    name: str
    weights: Callable[[Tensor, float, Tensor | None], Tensor]
    """Action [N, W], finite and within +-LARGEST, gross leverage allowed, and which of its numbers
    are masked [N, W] (they are 0, and nothing may be asked by them) or None, to admissible weights
    [N, A] of the risky assets: no more than that leverage, and cash, 1 - sum, not below zero."""
    actions: Callable[[Tensor], Tensor] | None = None
    """Long-only weights [N, A] to actions that ask for them; None where it cannot be said."""
    bounds: tuple[float, float] = (0.0, 1.0)
    """Lowest and highest number of the action space."""
    width: Callable[[int], int] = lambda assets: assets
    """Assets to numbers in one action, those of the assets first."""
    levered: bool = False
    """Whether gross leverage may differ from 1."""
    owes: bool = False
    """Whether cash may be below zero, as where positions are held on margin."""
    brackets: bool = False
    """Whether distances of stops [A], then of targets [A], follow the weights [A]."""


def _long_only(action: Tensor, max_gross: float, masked: Tensor | None) -> Tensor:
    weights = action.clamp_min(0.0)
    return weights / weights.sum(-1, keepdim=True).clamp_min(1.0)


def _signed(action: Tensor, max_gross: float, masked: Tensor | None) -> Tensor:
    excess = torch.maximum(action.abs().sum(-1) / max_gross, action.sum(-1)).clamp_min(1.0)
    return action / excess[:, None]


def _leveraged(action: Tensor, max_gross: float, masked: Tensor | None) -> Tensor:
    return action / (action.abs().sum(-1, keepdim=True) / max_gross).clamp_min(1.0)


def _bracketed(action: Tensor, max_gross: float, masked: Tensor | None) -> Tensor:
    return _signed(action.chunk(3, dim=-1)[0], max_gross, masked)


def _softmax(action: Tensor, max_gross: float, masked: Tensor | None) -> Tensor:
    if masked is not None:
        action = action.masked_fill(masked, -torch.inf)
    return torch.softmax(action, dim=-1)[:, :-1]


def _logits(weights: Tensor) -> Tensor:
    cash = 1.0 - weights.sum(-1, keepdim=True)
    return torch.cat([weights, cash], dim=-1).clamp_min(1e-9).log()


ACTIONS: Registry[ActionMode] = Registry(
    "action mode",
    ActionMode,
    (
        ActionMode(name="weights", weights=_long_only, actions=lambda weights: weights),
        ActionMode(
            name="signed",
            weights=_signed,
            actions=lambda weights: weights,
            bounds=(-1.0, 1.0),
            levered=True,
        ),
        ActionMode(
            name="logits",
            weights=_softmax,
            actions=_logits,
            bounds=(-LOGIT_LIMIT, LOGIT_LIMIT),
            width=lambda assets: assets + 1,
        ),
        ActionMode(
            name="leveraged",
            weights=_leveraged,
            actions=lambda weights: weights,
            bounds=(-GREATEST_GROSS, GREATEST_GROSS),
            levered=True,
            owes=True,
        ),
        ActionMode(
            name="bracketed",
            weights=_bracketed,
            actions=lambda weights: pad(weights, (0, 2 * weights.shape[-1])),
            bounds=(-1.0, 1.0),
            width=lambda assets: 3 * assets,
            levered=True,
            brackets=True,
        ),
    ),
)
"""`weights`: long-only weights [A], the rest is cash; they are scaled down together, which keeps
their ratios, to sum at most one, and negative ones count as zero. `signed`: weights [A], negative
is short, scaled down to gross leverage `max_gross`. `logits`: [A + 1], softmax over the assets and
cash. `leveraged`: as `signed`, and the sum may be above one: of perpetual futures, whose margin is
a part of their value. `bracketed`: [3 A], signed weights, and how far from their entry the stops,
then the targets, are of positions that this action opens or adds to. A number x asks for a distance
of max(x, 0), a part of the entry as in `OrderConfig`; 0, what is below it, and NaN ask for none:
then a position keeps the distance it has, and a new one has that of `OrderConfig`."""


def action_width(mode: str, num_assets: int) -> int:
    """Numbers in one action."""
    return ACTIONS.find(mode).width(num_assets)


def action_bounds(mode: str) -> tuple[float, float]:
    """Lowest and highest number of the action space."""
    return ACTIONS.find(mode).bounds


def actions_for(weights: Tensor, mode: str) -> Tensor:
    """Actions that ask for these long-only weights [N, A]: what `target_weights` undoes.

    Raises
    ------
    ConfigError
        The mode cannot say.
    """
    ask = ACTIONS.find(mode).actions
    if ask is None:
        raise ConfigError(
            f"action mode {mode!r} has no `actions`, by which weights could be asked for"
        )
    return ask(weights)


def target_weights(
    action: Tensor, mode: ActionMode, max_gross: float, masked: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Admissible weights [N, A] of the risky assets, and which rows [N] hold instead.

    A row with NaN or an infinity holds, but for those of distances. Where `masked` [N, A], what is
    asked is ignored and the weight is 0.
    """
    if masked is not None:
        masked = pad(masked, (0, action.shape[-1] - masked.shape[-1]))  # [N, W]  cash is not
        action = action.masked_fill(masked, 0.0)
    said = action.chunk(3, dim=-1)[0] if mode.brackets else action
    hold = ~said.isfinite().all(-1)  # [N]
    action = torch.where(hold[:, None], 0.0, action).clamp(-LARGEST, LARGEST)
    return mode.weights(action, max_gross, masked), hold


def asked_distances(action: Tensor, mode: ActionMode) -> tuple[Tensor, Tensor] | None:
    """How far stops and targets [N, A] are to be, by slot; 0 where nothing is asked.

    None of a mode that asks for none. Numbers beyond LARGEST, infinity among them, are cut to it.
    """
    if not mode.brackets:
        return None
    asked = action.nan_to_num(nan=0.0, posinf=LARGEST, neginf=0.0).clamp(0.0, LARGEST)
    _, stop, target = asked.chunk(3, dim=-1)
    return stop, target
