"""Forecasts in several time frames: of higher bars, and of all frames as one.

A forecaster is asked once for every higher bar, at its close, and what it says stands until the
next has closed. Frames together are an ensemble too: each is asked how the price is at one moment,
in as many steps of its own bars as lead there, and their quantiles are averaged
(`fastsim.forecast.ensemble`). Members of such an ensemble know the same past, up to the close of a
bar of the longest frame, and cut it otherwise.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastsim.data.bars import BAR_FIELDS, CLOSE, Bars, FloatArray
from fastsim.data.frames import TOGETHER, Spans, cut
from fastsim.errors import ForecastError
from fastsim.forecast.ensemble import at_levels
from fastsim.forecast.interface import Context, Forecast, Forecaster, can_forecast
from fastsim.forecast.tape import FIGURES, FORMAT, ForecastTape, Told, figures_of, tabulated
from fastsim.forecast.windows import context_at, market_fingerprint
from fastsim.market.features import trailing_volatility
from fastsim.market.tape import KnownTables, MarketTape
from fastsim.progress import ON_STDERR, Progress

ACROSS = "across"
"""What the columns of all frames together begin with."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """A market in bars of one frame, for forecasters alone: nobody trades on its tape."""

    name: str
    tape: MarketTape
    """Of K higher bars: what is known of them, and nothing of what follows."""
    spans: Spans

    @classmethod
    def of(cls, tape: MarketTape, name: str, owner: str) -> Frame:
        """The higher bars of a frame that have closed.

        Raises
        ------
        ConfigError
            The frame is too short for these bars; `owner` says where it was named.
        DataError
            No bar of it has closed.
        ForecastError
            The tape has several worlds.
        """
        if tape.worlds > 1:
            raise ForecastError(f"forecast one world at a time, tape.world(i), not {tape.worlds}")
        spans = cut(tape.timestamps, name, owner)
        return cls(name=name, tape=_higher(tape, spans), spans=spans)

    def rows(self, bars: slice, length: int) -> slice:
        """Higher bars that lie within these of `length` bars."""
        start, stop, _ = bars.indices(length)
        low = int(np.searchsorted(self.spans.first, start))
        return slice(low, max(low, int(np.searchsorted(self.spans.stop, stop, side="right"))))

    def columns(self, features: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
        """Features [K, A] as what is known of them at every bar [T, A], prefix before the name."""

        def shown(values: Tensor) -> Tensor:
            return torch.from_numpy(self.spans.shown(values.double().cpu().numpy())).to(values)

        return {f"{prefix}.{name}": shown(values) for name, values in features.items()}


class Member(NamedTuple):
    """One frame of an ensemble: its bars, and who is asked about them."""

    tape: MarketTape
    forecaster: Forecaster
    last: Tensor  # [K]  its last bar at the close of each bar of the longest frame
    steps: int
    """Bars of its own that a bar of the longest frame usually has."""


def build_ensemble_tape(
    tape: MarketTape,
    frames: Sequence[Frame],
    forecasters: Sequence[Forecaster],
    folder: Path,
    *,
    horizons: Sequence[int] = (1,),
    context_length: int = 512,
    batch_size: int = 1024,
    progress: Progress = ON_STDERR,
) -> ForecastTape:
    """Forecast the bars of the longest frame in every frame, and average the quantiles.

    A frame takes no part in a horizon that is more of its bars than its forecaster reaches, nor in
    an asset that it knows too little of; a warning says which horizons it is left out of.

    Parameters
    ----------
    frames
        The longest of them last, a multiple of every other; the bars of the tape themselves are
        the first member.
    forecasters
        Of the bars themselves, and of each frame.
    horizons
        In bars of the longest frame.

    Raises
    ------
    ForecastError
        A horizon is beyond the forecaster of the longest frame.
    """
    members = _members(tape, frames, forecasters)
    longest, wanted = members[-1], tuple(horizons)
    reach = longest.forecaster.card.max_horizon
    if max(wanted) > reach:
        raise ForecastError(
            f"{longest.forecaster.card.name} forecasts 1 to {reach} bars of {frames[-1].name} "
            f"ahead; horizons {wanted} do not fit"
        )
    names = ("bars", *(frame.name for frame in frames))
    for name, member in zip(names, members, strict=True):
        _tell(name, member, wanted)
    settings = {
        "format": FORMAT,
        "market": market_fingerprint(tape),
        "frames": names,
        "forecasters": [forecaster.key for forecaster in forecasters],
        "steps": [member.steps for member in members],
        "context_length": context_length,
        "horizons": wanted,
    }

    def figures(bars: slice, most: int) -> Tensor:
        return _figures(members, bars, wanted, context_length, most)

    table = tabulated(
        figures,
        settings,
        folder,
        size=(len(longest.tape), tape.num_assets),
        name=longest.forecaster.card.name,
        batch_size=batch_size,
        progress=progress,
    )
    return ForecastTape(table.values, wanted)


def _members(
    tape: MarketTape, frames: Sequence[Frame], forecasters: Sequence[Forecaster]
) -> list[Member]:
    """The bars themselves and every frame, with where each stands when the longest closes."""
    spans = frames[-1].spans
    final = spans.stop - 1  # [K]  the last bar of each
    places = [final]
    counts = [spans.stop - spans.first]
    for frame in frames:
        first, last = (
            np.searchsorted(frame.spans.first, rows, side="right") - 1
            for rows in (spans.first, final)
        )
        places.append(last)
        counts.append(last - first + 1)
    return [
        Member(
            tape=own,
            forecaster=forecaster,
            last=torch.from_numpy(place),
            steps=int(np.quantile(count, 0.5, method="lower")),
        )
        for own, forecaster, place, count in zip(
            (tape, *(frame.tape for frame in frames)), forecasters, places, counts, strict=True
        )
    ]


def _tell(name: str, member: Member, horizons: Sequence[int]) -> None:
    """Warn of the horizons that a member is left out of."""
    reach = member.forecaster.card.max_horizon
    beyond = [horizon for horizon in horizons if horizon * member.steps > reach]
    if beyond:
        log.warning(
            "%s reaches %d bars ahead: %s are left out of horizons %s, which are up to %d of them",
            member.forecaster.card.name,
            reach,
            "the bars themselves" if name == "bars" else f"bars of {name}",
            ", ".join(map(str, beyond)),
            max(beyond) * member.steps,
        )


def _figures(
    members: Sequence[Member],
    rows: slice,
    horizons: tuple[int, ...],
    context_length: int,
    most: int,
) -> Tensor:
    """Figures [bars, A, K] of these bars of the longest frame; NaN where nobody could forecast."""
    longest = members[-1].tape
    price = longest.known.bars[rows, :, CLOSE].flatten().float().cpu()  # [bars A]
    levels = tuple(sorted({level for one in members for level in one.forecaster.card.levels}))
    total = torch.zeros(len(price), len(horizons), len(levels))
    mass = torch.zeros(len(price), len(horizons), 1)
    for member in members:
        near = [h * member.steps <= member.forecaster.card.max_horizon for h in horizons]
        if not any(near):
            continue
        ahead = [h * member.steps for h, told in zip(horizons, near, strict=True) if told]
        places = torch.tensor(near).nonzero().squeeze(1)
        able, quantiles = _ask(member, rows, ahead, levels, context_length, most)
        total[able[:, None], places] += quantiles
        mass[able[:, None], places] += 1.0
    steps = Told(tuple(range(1, len(horizons) + 1)))
    figures = figures_of(Forecast(total / mass, levels), price, steps)
    figures[~(mass > 0).squeeze(-1).repeat_interleave(len(FIGURES), 1)] = torch.nan
    return figures.view(-1, longest.num_assets, figures.shape[-1])


def _ask(
    member: Member,
    rows: slice,
    ahead: Sequence[int],
    levels: tuple[float, ...],
    context_length: int,
    most: int,
) -> tuple[Tensor, Tensor]:
    """Which series [R] of these bars it forecasts, and their quantiles [R, h, Q] so far ahead."""
    forecaster = member.forecaster
    length = min(context_length, forecaster.card.max_context)
    lasts = member.last[rows].tolist()
    every = [context_at(member.tape, slice(last, last + 1), length) for last in lasts]
    context = Context(*(torch.cat(parts) for parts in zip(*every, strict=True)))
    known = can_forecast(forecaster, context) & context.close[:, -1].isfinite()
    able = known.nonzero().squeeze(1)
    told = []
    for chosen in torch.split(able, most):
        forecast = forecaster.forecast(Context(*(part[chosen] for part in context)), max(ahead))
        quantiles = at_levels(forecast, levels).float().cpu()
        told.append(quantiles[:, torch.tensor(ahead) - 1])
    return able.cpu(), torch.cat(told) if told else torch.empty(0, len(ahead), len(levels))


def _higher(tape: MarketTape, spans: Spans) -> MarketTape:
    """The tape in higher bars: their prices, adjusted as its own, and their volatility.

    That is NaN where too little is known of it, so that forecasts have no unit there.
    """
    table = tape.known.bars[: int(spans.stop[-1])].double().cpu().numpy()
    table[~np.isfinite(table[..., CLOSE])] = np.nan
    columns = [TOGETHER[name](table[..., place], spans) for place, name in enumerate(BAR_FIELDS)]
    close = columns[CLOSE]
    closes = Bars(symbols=tape.symbols, timestamps=spans.starts, close=close)

    def tensor(values: FloatArray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(tape.known.bars)

    volatility = tensor(trailing_volatility(closes, tape.volatility_window))
    known = KnownTables(
        features=volatility.new_empty(*close.shape, 0),
        sigma=volatility,
        impact_sigma=volatility,
        dollar_volume=torch.full_like(volatility, torch.inf),
        listed=torch.from_numpy(np.isfinite(close)).to(tape.device),
        bars=tensor(np.stack(columns, axis=-1)),
    )
    rows = torch.from_numpy(spans.stop - 1).to(tape.device)
    return replace(
        tape,
        feature_names=(),
        rising=(),
        timestamps=spans.starts,
        known=known,
        next=tape.next.take(rows),
        first=0,
        last=len(close) - 1,
    )
