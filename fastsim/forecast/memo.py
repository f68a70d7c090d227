"""Forecasts of contexts that were asked for before, for whoever asks bar by bar about many bars."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

import torch
from torch import Tensor

from fastsim.config import require_count
from fastsim.forecast.interface import Context, Forecast, Forecaster, ModelCard, can_forecast
from fastsim.forecast.tape import LEAST_ROWS


class Remembering:
    """A forecaster that keeps its last forecasts, by what they are made of.

    Parameters
    ----------
    forecaster
        Whose forecasts are kept.
    most
        How many of them: those that were asked for least recently are forgotten.
    """

    def __init__(self, forecaster: Forecaster, most: int) -> None:
        require_count("most", most)
        self.forecaster, self.most = forecaster, most
        self._kept: OrderedDict[bytes, Tensor] = OrderedDict()  # [H, Q] each

    @property
    def card(self) -> ModelCard:
        """What its forecaster is."""
        return self.forecaster.card

    @property
    def key(self) -> str:
        """That of its forecaster, as it says the same."""
        return self.forecaster.key

    def can_forecast(self, context: Context) -> Tensor:
        """Which series [B] its forecaster has enough known closes of."""
        return can_forecast(self.forecaster, context)

    def forecast(self, context: Context, horizon: int) -> Forecast:
        """Forecast the next `horizon` closes of every series; what is known is not asked for."""
        names = _names(context, horizon)
        unknown = {name: row for row, name in enumerate(names) if name not in self._kept}
        if unknown:
            self._ask(context, horizon, unknown)
        for name in names:
            self._kept.move_to_end(name)
        told = torch.stack([self._kept[name] for name in names])
        while len(self._kept) > self.most:
            self._kept.popitem(last=False)
        return Forecast(told, self.card.levels)

    def _ask(self, context: Context, horizon: int, unknown: dict[bytes, int]) -> None:
        rows = torch.tensor(list(unknown.values()))
        rows = rows[torch.arange(max(len(rows), LEAST_ROWS)) % len(rows)].to(context.bars.device)
        asked = Context(context.bars[rows], context.timestamps[rows])
        made = self.forecaster.forecast(asked, horizon).quantiles
        self._kept.update(zip(unknown, (row.clone() for row in made), strict=False))


def _names(context: Context, horizon: int) -> list[bytes]:
    """What tells the forecasts of a context's rows [B] from all others."""
    bars = context.bars.cpu().contiguous().numpy()
    stamps = context.timestamps.cpu().contiguous().numpy()
    head = f"{horizon} {bars.dtype} {bars.shape[1:]}".encode()
    return [
        hashlib.blake2b(head + row.tobytes() + stamp.tobytes(), digest_size=16).digest()
        for row, stamp in zip(bars, stamps, strict=True)
    ]
