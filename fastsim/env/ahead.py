"""Answers that are known ahead, but for what an account becomes in the meantime.

A market is known before it is stepped through. A decider whose answers take little else into
account says for many bars at once how they come about (`Decider.ahead`), in one of the two records
here, and a backend may compile its step together with them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Targets(NamedTuple):
    """Answers that were settled beforehand, of n rows at B bars."""

    answers: Tensor  # [B, n, W]  a row of NaN holds
    enough: Tensor  # [n]  weight in assets beyond which a row holds, whatever its answer
    keeps: Tensor  # [n]  bool: rows that keep what is stuck; their answers share out the rest
    stuck: Tensor  # [B, A]  bool: assets that cannot be sold


class Network(NamedTuple):
    """Answers of a hidden layer and a linear one: actor tanh(market + hidden z) + bias.

    z are the columns of the portfolio in standard deviations, clipped to +-limit.
    """

    market: Tensor  # [B, H]  what the bar adds to the hidden layer
    mean: Tensor  # [P]
    std: Tensor  # [P]
    limit: Tensor  # [1]
    hidden: Tensor  # [P, H]
    actor: Tensor  # [H, W]
    bias: Tensor  # [W]


Ahead = Targets | Network


def settled(answers: Tensor, assets: int) -> Targets:
    """Answers [B, n, W] that stand whatever becomes of an account."""
    bars, rows = answers.shape[:2]
    nobody = torch.zeros(rows, dtype=torch.bool, device=answers.device)
    return Targets(
        answers=answers,
        enough=answers.new_full((rows,), torch.inf),
        keeps=nobody,
        stuck=nobody.new_zeros(bars, assets),
    )
