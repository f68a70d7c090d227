"""A forecaster that is fitted anew as bars go by, and is asked about none that a fit has seen.

Each fit knows the bars up to a row and is its own `fit`: training and validation apart, an early
stop, the start kept where nothing is better. A forecast is that of the latest fit whose bars end
where its context ends, or before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastsim.config import configuration, require_between, require_choice
from fastsim.data.bars import Bars
from fastsim.data.dates import iso_date, show, show_day
from fastsim.errors import ConfigError, DataError, ForecastError
from fastsim.forecast.digests import digest_of
from fastsim.forecast.interface import (
    Context,
    Forecast,
    Forecaster,
    ForecastModel,
    ModelCard,
    ModuleForecaster,
    can_forecast,
    check_request,
)
from fastsim.forecast.statistics import Counted, counted
from fastsim.forecast.training.config import FitConfig
from fastsim.forecast.training.fit import fit
from fastsim.progress import SILENT, Progress

Refit = Literal["warm", "scratch"]
"""What a fit begins with: what the one before came to, or what the first began with."""


@configuration
class RefitConfig:
    """Whether forecasters are fitted anew as scored bars go by, and how."""

    refit_every: int | None = None
    """Fit what is scored anew every so many bars, to the bars before; baselines as they are. What
    is named fit:FOLDER by the settings of that fit, from what it began with; any other by --fit."""
    refit: Refit = "warm"
    """What each fit begins with: what the one before came to, or, scratch, what the first did."""
    refit_from: str | None = None
    """ISO date of the first bar that no fit knows at first: scores begin there. By default half
    way."""

    def __post_init__(self) -> None:
        require_choice(self, "refit")
        if self.refit_every is not None:
            require_between(self, "refit_every", 1)
        elif self.refit_from is not None:
            raise ConfigError(
                f"RefitConfig.refit_every must be given with refit_from, got "
                f"{self.refit_from!r} alone"
            )
        if self.refit_from is not None:
            try:
                iso_date(self.refit_from, "RefitConfig.refit_from")
            except DataError as error:
                raise ConfigError(str(error)) from None

    def first_row(self, bars: Bars) -> int:
        """The last bar that the first fit knows.

        Raises
        ------
        DataError
            There is no bar before it, or none from it on.
        """
        if self.refit_from is None:
            return len(bars) // 2 - 1
        day = iso_date(self.refit_from, "RefitConfig.refit_from")
        row = int(np.searchsorted(bars.timestamps, day)) - 1
        if not 0 <= row < len(bars) - 1:
            first, last = (show_day(bars.timestamps[place]) for place in (0, -1))
            raise DataError(
                f"RefitConfig.refit_from must lie after the first bar, {first}, and not after the "
                f"last, {last}, got {self.refit_from}"
            )
        return row


SINCE = "fitted anew, to bars before those that it is asked about"


class Fitted(NamedTuple):
    """A forecaster, and the second since 1970 UTC of the last bar that it was fitted to."""

    until: int
    forecaster: Forecaster


class WalkForward(Counted):
    """The latest of several fits that a context's last bar allows.

    Parameters
    ----------
    fits
        In order of time.
    name
        Of the whole.
    start
        What it was that the fits began with, None for random weights: it has seen what that has, as
        bars that fitted it come before all that it is asked about.
    """

    def __init__(self, fits: Sequence[Fitted], *, name: str, start: ModelCard | None) -> None:
        self.fits = tuple(fits)
        self._until = torch.tensor([each.until for each in fits])
        self.card = replace(
            fits[0].forecaster.card,
            name=name,
            known_until=None if start is None else start.known_until,
            known_source="; ".join(([start.known_source] if start else []) + [SINCE]),
        )
        season = getattr(fits[0].forecaster, "season", None)
        if season is not None:
            self.season = season  # there alone, so that no other is put around them
        told = [[each.until, each.forecaster.key] for each in fits]
        self.key = f"{name}#{digest_of(told)}"

    def can_forecast(self, context: Context) -> Tensor:
        """Which series [B] have a fit before them that can forecast them."""
        found = torch.zeros(len(context.bars), dtype=torch.bool, device=context.bars.device)
        for rows, forecaster in self._parts(context):
            found[rows] = can_forecast(forecaster, _rows_of(context, rows))
        return found

    @counted
    def forecast(self, context: Context, horizon: int) -> Forecast:
        """Forecast the next `horizon` closes.

        Raises
        ------
        ForecastError
            As the forecasters themselves, or a context ends before the first fit does.
        """
        check_request(self.card, context, horizon)
        self._require_fit(context)
        shape = (len(context.bars), horizon, len(self.card.levels))
        quantiles = torch.empty(shape, device=context.bars.device)
        for rows, forecaster in self._parts(context):
            told = forecaster.forecast(_rows_of(context, rows), horizon)
            quantiles[rows] = told.quantiles.to(quantiles)
        return Forecast(quantiles, self.card.levels)

    def latest(self, context: Context) -> Forecaster:
        """The fit that forecasts the first series of a context, which it can."""
        return self._parts(context)[0][1]

    def _require_fit(self, context: Context) -> None:
        """Raise ForecastError where a series [B] ends before the first fit does."""
        ends = context.timestamps[:, -1].cpu().contiguous()
        early = ends[ends < self._until[0]]
        if len(early):
            first, asked = (
                show(np.datetime64(int(each), "s")) for each in (self._until[0], early[0])
            )
            raise ForecastError(
                f"{self.card.name} is first fitted to the bars until {first}, and was asked about "
                f"what follows {asked}: ask about later bars"
            )

    def _parts(self, context: Context) -> list[tuple[Tensor, Forecaster]]:
        """Rows of a context, and who forecasts them; without those that end before all fits."""
        ends = context.timestamps[:, -1].cpu().contiguous()
        latest = torch.searchsorted(self._until, ends, right=True) - 1  # [B]
        return [
            ((latest == place).nonzero().squeeze(1).to(context.bars.device), each.forecaster)
            for place, each in enumerate(self.fits)
            if bool((latest == place).any())
        ]


def _rows_of(context: Context, rows: Tensor) -> Context:
    return Context(context.bars[rows], context.timestamps[rows])


def refit_rows(first: int, last: int, every: int) -> list[int]:
    """Rows whose bars are the last that each fit knows, from `first` on, `every` bars apart."""
    return list(range(first, last + 1, every))


def check_refits(config: FitConfig, how: Refit) -> None:
    """Raise ConfigError unless a fit can be done again and again as bars go by."""
    if config.split.validation_start is not None:
        raise ConfigError(
            "SplitConfig.validation_start must be left out where a fit is done anew as bars go "
            f"by, got {config.split.validation_start!r}: give a share, SplitConfig.validation"
        )
    if how == "warm" and config.mode == "lora":
        raise ConfigError(
            "RefitConfig.refit must be scratch for FitConfig.mode lora, whose adapters lie beside "
            "published weights, got 'warm'"
        )


def walk_forward(
    model: ForecastModel,
    bars: Bars,
    rows: Sequence[int],
    config: FitConfig,
    *,
    how: Refit = "warm",
    name: str = "",
    progress: Progress = SILENT,
) -> WalkForward:
    """Fit a model anew to the bars up to each of some rows.

    Parameters
    ----------
    model
        What the first fit begins with, and from "scratch" every one: a copy of it, or in mode
        scratch its architecture with random weights.
    rows
        The last bar that each fit knows, increasing.
    config
        Of each fit. Warm fits after one of mode scratch are of mode full.
    name
        Of the whole; by default the model's, refitted.
    progress
        Told of each fit.

    Raises
    ------
    ConfigError, DataError, ForecastError
        As `check_refits` and `fit`.
    """
    check_refits(config, how)
    seconds = bars.timestamps.astype("datetime64[s]").astype(np.int64)
    name = name or f"{model.card.name}, refitted"
    fits: list[Fitted] = []
    begun, settings = model, config
    for number, row in enumerate(rows):
        known = bars.take(slice(0, row + 1))
        result = fit(begun, known, settings, name=f"{name} {number + 1}", progress=progress)
        fits.append(Fitted(int(seconds[row]), ModuleForecaster(result.model)))
        if how == "warm":
            begun = result.model
            settings = replace(config, mode="full") if config.mode == "scratch" else config
    return WalkForward(fits, name=name, start=None if config.mode == "scratch" else model.card)


def repeated(
    fit_to: Callable[[Bars], Forecaster], bars: Bars, rows: Sequence[int], start: Forecaster
) -> WalkForward:
    """What is fitted by `fit_to`, a function of bars, to the bars up to each of some rows.

    `start` is what every fit begins with.
    """
    seconds = bars.timestamps.astype("datetime64[s]").astype(np.int64)
    fits = [Fitted(int(seconds[row]), fit_to(bars.take(slice(0, row + 1)))) for row in rows]
    return WalkForward(fits, name=f"{start.card.name}, refitted", start=start.card)
