"""Forecasters of other people: their answers are checked, and their code is part of their key."""

from __future__ import annotations

import hashlib
import inspect
import sys

from torch import Tensor

from fastsim.devices import memory_shortage
from fastsim.errors import ConfigError, FastsimError, ForecastError, one_line
from fastsim.forecast.digests import digest_of
from fastsim.forecast.interface import (
    Context,
    Forecast,
    Forecaster,
    ModelCard,
    can_forecast,
    check_request,
    no_forecasts,
)
from fastsim.forecast.statistics import Counted, counted


class ForeignForecaster(Counted):
    """A forecaster that a user has named, held to what forecasters promise.

    Parameters
    ----------
    forecaster
        Theirs.
    name
        What it was asked for by.
    revision
        What equal forecasts depend on beside its own key: `source_digest` of its code.

    Raises
    ------
    ConfigError
        It has no `card`, `key` or `forecast`.
    """

    def __init__(self, forecaster: Forecaster, name: str, revision: str) -> None:
        card, key = getattr(forecaster, "card", None), getattr(forecaster, "key", None)
        for attribute, fits, wanted in (
            ("card", isinstance(card, ModelCard), "a ModelCard"),
            ("key", isinstance(key, str) and key, "a text that tells its settings"),
            ("forecast", callable(getattr(forecaster, "forecast", None)), "a method"),
        ):
            if not fits:
                raise ConfigError(
                    f"forecaster {name!r} loads a {type(forecaster).__name__} whose {attribute} "
                    f"is not {wanted}"
                )
        self.forecaster, self.name, self.revision = forecaster, name, revision
        self._card_digest = digest_of(forecaster.card.facts())

    @property
    def card(self) -> ModelCard:
        """What it is."""
        return self.forecaster.card

    @property
    def key(self) -> str:
        """Its own key, its card's and its code's."""
        return f"{self.forecaster.key}#{self._card_digest}#{self.revision}"

    def can_forecast(self, context: Context) -> Tensor:
        """Which series [B] have enough known closes, by its own rule if it has one."""
        return can_forecast(self.forecaster, context)

    @counted
    def forecast(self, context: Context, horizon: int) -> Forecast:
        """Forecast the next `horizon` closes of every series.

        Raises
        ------
        ForecastError
            The request does not fit, or the answer: it fails, or its quantiles are not
            [B, horizon, Q] increasing numbers at the levels of its card.
        """
        check_request(self.card, context, horizon)
        if not len(context.bars):
            return no_forecasts(self.card, horizon)
        try:
            forecast = self.forecaster.forecast(context, horizon)
        except FastsimError:
            raise
        except Exception as error:  # whatever a user's code does
            if memory_shortage(error) is not None:
                raise  # so that whoever asked may ask for less
            reason = one_line(f"{type(error).__name__}: {error}")
            raise ForecastError(f"forecaster {self.name!r} fails: {reason}") from error
        problem = self._problem(forecast, len(context.bars), horizon)
        if problem:
            raise ForecastError(f"forecaster {self.name!r} {problem}")
        return Forecast(forecast.quantiles.float(), forecast.levels)

    def _problem(self, forecast: object, rows: int, horizon: int) -> str:
        """What is wrong with an answer; empty if nothing is."""
        if not (isinstance(forecast, Forecast) and isinstance(forecast.quantiles, Tensor)):
            return f"must return a Forecast of tensors, got {type(forecast).__name__}"
        quantiles, levels = forecast.quantiles, self.card.levels
        wanted = (rows, horizon, len(levels))
        if tuple(forecast.levels) != levels:
            return f"answers at levels {forecast.levels}, not at those of its card, {levels}"
        if tuple(quantiles.shape) != wanted:
            return f"must return quantiles [B, horizon, Q] = {wanted}, got {tuple(quantiles.shape)}"
        if not bool(quantiles.isfinite().all()):
            row = int((~quantiles.isfinite()).nonzero()[0, 0])
            return f"forecasts series {row} of {rows} as something that is no finite number"
        if bool((quantiles.diff(dim=-1) < 0).any()):
            return "must return quantiles that do not decrease from level to level"
        return ""


def source_digest(*objects: object) -> str:
    """Hash of the source files that these objects are from; what has no source adds nothing."""
    digest = hashlib.sha256()
    for name in sorted({getattr(found, "__module__", None) or "" for found in objects}):
        digest.update(name.encode())
        try:
            digest.update(inspect.getsource(sys.modules[name]).encode())
        except (KeyError, OSError, TypeError):
            continue
    return digest.hexdigest()[:16]
