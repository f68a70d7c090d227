"""What trails behind every bar: windows over the last bars of [T, ...], skipping what is missing.

A window is gone through from its end, so a number is made of the same bars in the same order
however long the history before them is: a table that is made again of its last bars alone is the
same to the bit. Nothing depends on later bars. A window is complete from as many bars on as it is
long, counted from the first value that is known, if half of it is.
"""

from __future__ import annotations

import torch
from torch import Tensor


def lagged(values: Tensor, bars: int) -> Tensor:
    """What stood `bars` bars earlier [T, ...]; NaN before the first."""
    earlier = torch.full_like(values, torch.nan)
    earlier[bars:] = values[: max(len(values) - bars, 0)]
    return earlier


def carried_forward(values: Tensor) -> Tensor:
    """The last known value [T, ...] at every bar; NaN before the first."""
    bars = torch.arange(len(values), device=values.device).view(-1, *(1,) * (values.dim() - 1))
    latest = torch.where(values.isfinite(), bars, 0).cummax(0).values
    return values.gather(0, latest)


def log_returns(prices: Tensor, bars: int = 1) -> Tensor:
    """Log returns [T, ...] over `bars` bars; NaN where either end is missing."""
    return (prices / lagged(prices, bars)).log()


def trailing_mean(values: Tensor, window: int) -> Tensor:
    """Mean [T, ...] of the last `window` bars; NaN where they are not complete."""
    return _mean(values, window, torch.zeros_like(values))


def trailing_deviation(values: Tensor, window: int) -> Tensor:
    """Population standard deviation [T, ...] of the last `window` bars.

    NaN where they are not complete. Exactly 0 where all are the same.
    """
    base = carried_forward(values).nan_to_num(nan=0.0)  # differences from it have no rounding
    mean = _mean(values, window, base)
    total, count = torch.zeros_like(values), torch.zeros_like(values)
    for lag in range(min(window, len(values))):
        apart = lagged(values, lag) - base - mean
        known = apart.isfinite()
        count += known
        total += torch.where(known, apart * apart, 0.0)
    deviation = (total / count.clamp_min(1.0)).sqrt()
    return torch.where(_complete(values, count, window), deviation, torch.nan)


def rank_among_previous(values: Tensor, window: int) -> Tensor:
    """Share [T, ...] of the `window` values before each that lie below it, ties counting half.

    NaN where it is missing itself, or those before are not complete.
    """
    below, count = torch.zeros_like(values), torch.zeros_like(values)
    for lag in range(1, min(window, len(values) - 1) + 1):
        earlier = lagged(values, lag)
        below += (earlier < values).to(values) + 0.5 * (earlier == values).to(values)
        count += earlier.isfinite()
    enough = _complete(lagged(values, 1), count, window) & values.isfinite()
    return torch.where(enough, below / count.clamp_min(1.0), torch.nan)


def _mean(values: Tensor, window: int, base: Tensor) -> Tensor:
    """Mean of the last `window` bars less `base`."""
    total, count = torch.zeros_like(values), torch.zeros_like(values)
    for lag in range(min(window, len(values))):
        apart = lagged(values, lag) - base
        known = apart.isfinite()
        count += known
        total += torch.where(known, apart, 0.0)
    enough = _complete(values, count, window)
    return torch.where(enough, total / count.clamp_min(1.0), torch.nan)


def _complete(values: Tensor, count: Tensor, window: int) -> Tensor:
    """Where the last `window` bars of values, `count` of which are known, are complete, bool."""
    begun = lagged(carried_forward(values), window - 1).isfinite()
    return begun & (2 * count >= window)
