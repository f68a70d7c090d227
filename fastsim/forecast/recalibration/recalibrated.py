"""A forecaster whose quantiles are read at other levels: those that hold what they say."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fastsim.errors import ForecastError
from fastsim.forecast.around import Around
from fastsim.forecast.digests import fingerprint
from fastsim.forecast.interface import (
    Context,
    Forecast,
    Forecaster,
    Identity,
    ModelCard,
)
from fastsim.forecast.returns import returns_with_gaps

if TYPE_CHECKING:
    from fastsim.forecast.season.divide import Season


KNOTS = (0.025, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.975)
"""Levels at which a map is told: the ends of the bands, and the deciles."""


class LevelMap(nn.Module):
    """At which normal score the quantile of each level is read, by horizon.

    Between KNOTS it is linear in the level's own score, and beyond them in proportion to it; it
    grows with the level, and leaves the median where it is. Between the fitted horizons it is
    linear in the root of the horizon; beyond them it is that of the last. Where it is the scores of
    KNOTS themselves nothing changes.

    Parameters
    ----------
    horizons
        Bars ahead [h], increasing.
    maps
        Normal scores [h, K] that quantiles of KNOTS are read at, not decreasing, 0 at the median.
    """

    horizons: Tensor  # [h]  int64
    maps: Tensor  # [h, K]  float64

    def __init__(self, horizons: Tensor, maps: Tensor) -> None:
        super().__init__()
        self.register_buffer("horizons", horizons.long())
        self.register_buffer("maps", maps.double())

    def forward(self, horizon: int) -> Tensor:
        """Scores [H, K] at KNOTS of every horizon up to one."""
        maps, roots = self.maps.double(), self.horizons.double().sqrt()
        ahead = torch.arange(1, horizon + 1, device=roots.device).double().sqrt()
        if len(roots) == 1:
            return maps.expand(horizon, -1)
        upper = torch.searchsorted(roots, ahead).clamp(1, len(roots) - 1)
        share = (ahead - roots[upper - 1]) / (roots[upper] - roots[upper - 1])
        return torch.lerp(maps[upper - 1], maps[upper], share.clamp(0.0, 1.0)[:, None])


def mapped(scores: Tensor, maps: Tensor) -> Tensor:
    """Where scores [Q] are read, [H, Q], by maps [H, K] at KNOTS."""
    knots = normal_scores(KNOTS, scores)
    inside = scores.clamp(knots[0], knots[-1])
    upper = torch.searchsorted(knots, inside).clamp(1, len(knots) - 1)  # [Q]
    share = (inside - knots[upper - 1]) / (knots[upper] - knots[upper - 1])
    found = torch.lerp(maps[:, upper - 1], maps[:, upper], share)
    return found * torch.where(scores == inside, 1.0, scores / inside)


def normal_scores(levels: tuple[float, ...], like: Tensor) -> Tensor:
    """The standard normal quantiles [Q] of these levels."""
    given = torch.tensor(levels, dtype=torch.float64, device=like.device)
    found: Tensor = torch.special.ndtri(given)
    return found


def read_at(returns: Tensor, scores: Tensor, wanted: Tensor) -> Tensor:
    """Quantiles [B, H, Q] of log returns read at other normal scores `wanted` [H, Q].

    `returns` [B, H, Q] are those at `scores` [Q]; between them they are linear in the score, and
    beyond the outer ones the outermost slope goes on, as a normal law's would.
    """
    upper = torch.searchsorted(scores, wanted.contiguous()).clamp(1, len(scores) - 1)  # [H, Q]
    low, high = scores[upper - 1], scores[upper]
    share = (wanted - low) / (high - low)
    index = upper + torch.zeros_like(returns[:, :1, :1], dtype=torch.int64)  # whatever the batch
    below, above = returns.gather(-1, index - 1), returns.gather(-1, index)
    return below + share * (above - below)


def scores_of(returns: Tensor, scores: Tensor, outcome: Tensor) -> Tensor:
    """Normal scores [B, h] of outcomes [B, h] under quantiles [B, h, Q]: what `read_at` undoes.

    NaN where an outcome is unknown, or the outermost quantiles do not differ.
    """
    upper = (returns < outcome[..., None]).sum(-1, keepdim=True).clamp(1, returns.shape[-1] - 1)
    below, above = returns.gather(-1, upper - 1), returns.gather(-1, upper)
    low, high = scores[upper - 1], scores[upper]
    tiny = torch.finfo(returns.dtype).tiny
    share = (outcome[..., None] - below) / (above - below).clamp_min(tiny)
    found = (low + share * (high - low)).squeeze(-1)
    spread = returns[..., -1] > returns[..., 0]
    return found.masked_fill(~(outcome.isfinite() & spread & found.isfinite()), torch.nan)


def set_right(told: Forecast, last: Tensor, maps: Tensor) -> Forecast:
    """Quantiles read where maps [H, K] say, as log returns from `last` [B], in place of prices.

    Those of horizons whose map changes nothing stay as they are.
    """
    changes = (maps != normal_scores(KNOTS, maps)).any(-1)  # [H]
    scores = normal_scores(told.levels, told.quantiles)
    own = told.log_returns(last).quantiles.double()
    returns = read_at(own, scores, mapped(scores, maps))
    moved = (last[:, None, None] * returns.exp()).to(told.quantiles).cummax(-1).values
    return Forecast(torch.where(changes[:, None], moved, told.quantiles), told.levels)


class Recalibrated(Around):
    """A forecaster whose bands are widened or narrowed by level and horizon; its median stays.

    What season is around the forecaster by then is its own: it gets no other.
    """

    def __init__(
        self,
        forecaster: Forecaster,
        levels: LevelMap,
        *,
        name: str,
        known_until: str | None,
    ) -> None:
        if len(forecaster.card.levels) < 2:
            raise ForecastError(f"{forecaster.card.name} tells one quantile: it has no bands")
        self.forecaster, self.levels = forecaster, levels
        self._name, self._known_until = name, known_until

    @property
    def season(self) -> Season | None:
        """That of its forecaster, if any."""
        found: Season | None = getattr(self.forecaster, "season", None)
        return found

    @property
    def card(self) -> ModelCard:
        """That of its forecaster, under a name of its own, with the map among the weights."""
        card = self.forecaster.card
        return replace(
            card,
            name=self._name,
            parameters=card.parameters + self.levels.maps.numel(),
            known_until=self._known_until,
            known_source="the bars that set its bands, and what it began with",
        )

    @functools.cached_property
    def identity(self) -> Identity:
        """The forecaster, with the season around it, and the map."""
        return Identity(
            card=self.card,
            weights=fingerprint(self.levels),
            settings={"forecaster": self.forecaster.key},
        )

    def say(self, context: Context, horizon: int) -> Forecast:
        """The forecast, read where the map says."""
        told = self.forecaster.forecast(context, horizon)
        maps = self.levels(horizon).to(told.quantiles.device)
        changes = (maps != normal_scores(KNOTS, maps)).any(-1)  # [H]
        if not bool(changes.any()):
            return told
        closes = context.close.to(told.quantiles.device, torch.float64)
        last = returns_with_gaps(closes, torch.arange(closes.shape[1], device=closes.device)).last
        return set_right(told, last, maps)
