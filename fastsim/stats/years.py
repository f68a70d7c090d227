"""How long a year is: one length for calendar time, one for bars of markets with weekends."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DAYS_PER_YEAR = 365.0
"""Of calendar time: what borrow, interest and the length of a bar are measured in."""
TRADING_DAYS = 252.0
"""In a year: daily bars of a market with weekends and holidays, by the convention of the field."""


def years_between(timestamps: NDArray[np.datetime64]) -> NDArray[np.float64]:
    """Calendar years [T - 1] from each timestamp [T] to the next."""
    elapsed = np.diff(timestamps).astype("timedelta64[ns]").astype(np.float64)
    years: NDArray[np.float64] = elapsed / (86_400e9 * DAYS_PER_YEAR)
    return years
