"""Which way a forecast points, how sure it is, and how often that would have traded.

Direction and confidence are those of the sign alone: the confidence of a forecast is
max(P(rise), 1 - P(rise)), from one half to one, and its direction the likelier side. Forecasters of
prices are seldom sure, so that a threshold which reads well may never trade: `count_trades` says.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastsim.config import configuration, require_between
from fastsim.signals.trailing import rank_among_previous


@configuration
class ThresholdConfig:
    """How sure a forecast must be to be traded on: at least this, and among its own best."""

    least: float = 0.5
    """Confidence below which there is no trade, from 0.5 (always) to 1."""
    best: float | None = None
    """Trade only on this share of an asset's own confidences, the highest, such as 0.1; None for
    all. The past `history` bars say which they are."""
    history: int = 252
    """Bars before the present one that a confidence is ranked among."""

    def __post_init__(self) -> None:
        require_between(self, "least", 0.5, 1)
        require_between(self, "history", 2, 1e5)
        if self.best is not None:
            require_between(self, "best", 0, 1, open_low=True)

    @property
    def bars_needed(self) -> int:
        """Forecasts up to and including the present one that a decision is made of."""
        return 1 if self.best is None else self.history + 1


class Leaning(NamedTuple):
    """What forecasts say of the sign of a log return."""

    direction: Tensor  # [...]  1 up, -1 down, 0 neither, or unknown
    confidence: Tensor  # [...]  in [0.5, 1]; NaN where nothing was forecast


class Trades(NamedTuple):
    """How often a threshold would have traded."""

    traded: int
    forecasts: int
    highest: float
    """The highest confidence there was; NaN without forecasts."""

    @property
    def share(self) -> float:
        """Of forecasts, NaN without any."""
        return self.traded / self.forecasts if self.forecasts else float("nan")


def leaning(rise: Tensor) -> Leaning:
    """Direction and confidence [...] of probabilities of a rise [...]; NaN is unknown."""
    direction = (rise - 0.5).sign().nan_to_num(nan=0.0)
    return Leaning(direction, torch.maximum(rise, 1.0 - rise))


def passes(confidence: Tensor, config: ThresholdConfig) -> Tensor:
    """Whether confidences [T, A] are traded on, bool, by what is known at each bar.

    Where a best share q is wanted, a confidence must lie above 1 - q of those of the `history`
    bars before; until there are so many there is no trade.
    """
    enough = confidence >= config.least  # False where it is NaN
    if config.best is None:
        return enough
    return enough & (confidence_rank(confidence, config.history) >= 1.0 - config.best)


def confidence_rank(confidence: Tensor, history: int = 252) -> Tensor:
    """Rank [T, A], in [0, 1], of each confidence among the `history` before it, ties half."""
    return rank_among_previous(confidence.double(), history)


def count_trades(confidence: Tensor, config: ThresholdConfig) -> Trades:
    """How often a threshold would have traded on these confidences [T, A]."""
    known = confidence.isfinite()
    highest = float(confidence[known].max()) if bool(known.any()) else float("nan")
    return Trades(int(passes(confidence, config).sum()), int(known.sum()), highest)
