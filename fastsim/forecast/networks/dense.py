"""Networks whose one pass tells what follows after every patch of the past, not the last alone."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

from torch import Tensor

from fastsim.forecast.interface import ForecastModel


class AfterPatches(NamedTuple):
    """What follows after each of the last S patches of a past; the last of them ends it.

    Nothing at a patch, and no scale that it is told in, depends on a later close.
    """

    quantiles: Tensor  # [B, S, P, Q]  of the P closes after each, in the unit of the close
    ready: Tensor  # [B, S]  whether so much was known that they mean something


class DenseModel(ForecastModel):
    """A causal network over patches of closes, each of which can be learned from."""

    @property
    @abstractmethod
    def patch(self) -> int:
        """Closes in a patch."""

    @abstractmethod
    def after_patches(self, closes: Tensor) -> AfterPatches:
        """Forecast after each patch of closes [B, L], NaN where missing."""
