"""Do bands hold what they promise, and do outcomes leave them one by one: tests by horizon.

What is tested is whether the outcomes of an asset left a band, origin by origin. Outcomes that
overlap leave it together, however good the forecast is: at each horizon h only origins are taken
that lie h bars apart or more. Horizons are never pooled, as they overlap. Assets are, by
`pooled_ratios`: they share their days, and their hits are not counted as if they did not.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastsim.forecast.scoring.losses import BAND_SHARES, WindowScores
from fastsim.forecast.scoring.windows import Windows, origins_apart
from fastsim.stats.exceedances import (
    LikelihoodRatio,
    independence,
    pooled_ratios,
    unconditional_coverage,
)

LEAST_ORIGINS = 20
"""Fewer that do not overlap are not tested: chi-squared laws are those of long series."""
REFUSED = 0.05
"""Level at which an asset by itself refuses."""


class BandTest(NamedTuple):
    """Of one band at one horizon."""

    origins: int
    """Whose outcomes do not overlap."""
    outcomes: int
    """Of all assets from them."""
    outside: float
    """Share of these outcomes that left the band."""
    kupiec: LikelihoodRatio
    """Whether that is the share that the band promises to leave out."""
    independence: LikelihoodRatio
    """Christoffersen's: whether leaving it is as likely after an outcome that left it."""
    christoffersen: LikelihoodRatio
    """Both at once: conditional coverage."""
    effects: tuple[float, float]
    """Design effects of `kupiec` and of `independence`: how many assets count as one."""
    assets: int
    """That have enough origins to be tested by themselves."""
    refused: tuple[int, int]
    """Of these so many refuse coverage, and independence, at a level of 5 %."""


def band_tests(
    told: WindowScores, windows: Windows, horizons: tuple[int, ...]
) -> list[tuple[BandTest | None, ...]]:
    """For each horizon the test of each band, by `losses.BANDS`.

    None where the forecaster's levels do not reach so far, or there are too few origins.
    """
    rows = np.asarray(windows.origins)
    found = []
    for place, horizon in enumerate(horizons):
        with_one = torch.unique(told.origin).numpy()
        kept = torch.from_numpy(with_one[origins_apart(rows[with_one], horizon)])
        found.append(
            tuple(
                _test(told, kept, told.covered[:, place, band], share)
                for band, share in enumerate(BAND_SHARES)
            )
        )
    return found


def _test(told: WindowScores, kept: Tensor, covered: Tensor, share: float) -> BandTest | None:
    """Of whether windows were `covered` [W], from the origins that are `kept` [T]."""
    if len(kept) < LEAST_ORIGINS or bool(covered.isnan().any()):
        return None
    left = 1.0 - share
    chosen = torch.isin(told.origin, kept)
    period = torch.searchsorted(kept, told.origin[chosen])
    assets, asset = torch.unique(told.asset[chosen], return_inverse=True)
    known = torch.zeros(len(kept), len(assets), dtype=torch.bool)
    outside = torch.zeros_like(known)
    known[period, asset] = True
    outside[period, asset] = covered[chosen] == 0
    pooled = pooled_ratios(outside, known, left)
    alone = [
        outside[own, column]
        for column, own in enumerate(known.T)
        if int(own.sum()) >= LEAST_ORIGINS
    ]
    return BandTest(
        origins=len(kept),
        outcomes=int(known.sum()),
        outside=float(outside[known].double().mean()),
        kupiec=pooled.coverage,
        independence=pooled.independence,
        christoffersen=pooled.both,
        effects=pooled.effects,
        assets=len(alone),
        refused=(
            sum(unconditional_coverage(each, left).p_value < REFUSED for each in alone),
            sum(independence(each).p_value < REFUSED for each in alone),
        ),
    )
