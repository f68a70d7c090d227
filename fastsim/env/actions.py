"""From what an agent says to target weights."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

ActionMode = Literal["weights", "signed", "logits"]
"""`weights`: long-only weights [A], the rest is cash. `signed`: weights [A], negative is short.
`logits`: [A + 1], softmax over the assets and cash."""

LOGIT_LIMIT = 10.0
"""Bound of the action space for logits; the environment itself takes any finite logit."""

LARGEST = 1e6
"""Numbers beyond this are cut to it, so that sums of huge ones stay finite."""


def action_width(mode: ActionMode, num_assets: int) -> int:
    """Numbers in one action."""
    return num_assets + 1 if mode == "logits" else num_assets


def action_bounds(mode: ActionMode) -> tuple[float, float]:
    """Lowest and highest number of the action space."""
    bounds = {"weights": (0.0, 1.0), "signed": (-1.0, 1.0), "logits": (-LOGIT_LIMIT, LOGIT_LIMIT)}
    return bounds[mode]


def actions_for(weights: Tensor, mode: ActionMode) -> Tensor:
    """Actions that ask for these long-only weights [N, A]: what `target_weights` undoes."""
    if mode != "logits":
        return weights
    cash = 1.0 - weights.sum(-1, keepdim=True)
    return torch.cat([weights, cash], dim=-1).clamp_min(1e-9).log()


def target_weights(
    action: Tensor, mode: ActionMode, max_gross: float, masked: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Admissible weights [N, A] of the risky assets, and which rows [N] hold instead.

    A row with NaN or an infinity holds. Weights that ask for too much are scaled down together,
    which keeps their ratios: to sum at most one, and, if signed, to gross leverage `max_gross`.
    Negative long-only weights count as zero. Where `masked` [N, A], what is asked is ignored and
    the weight is 0.
    """
    if masked is not None:
        masked = pad(masked, (0, action.shape[-1] - masked.shape[-1]))  # [N, W]  cash is not
        action = action.masked_fill(masked, 0.0)
    hold = ~action.isfinite().all(-1)  # [N]
    action = torch.where(hold[:, None], 0.0, action).clamp(-LARGEST, LARGEST)
    if mode == "logits":
        if masked is not None:
            action = action.masked_fill(masked, -torch.inf)
        return torch.softmax(action, dim=-1)[:, :-1], hold
    if mode == "weights":
        weights = action.clamp_min(0.0)
        return weights / weights.sum(-1, keepdim=True).clamp_min(1.0), hold
    excess = torch.maximum(action.abs().sum(-1) / max_gross, action.sum(-1)).clamp_min(1.0)
    return action / excess[:, None], hold
