"""Forecasts in several time frames: of higher bars, and of all frames as one.

A forecaster is asked once for every higher bar, at its close, and what it says stands until the
next has closed. Frames together are an ensemble too: each is asked how the price is at one moment,
in as many steps of its own bars as lead there, and their quantiles are averaged
(`fastsim.forecast.ensemble`). Members of such an ensemble know the same past, up to the close of a
bar of the longest frame, and cut it otherwise.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastsim.data.bars import BAR_FIELDS, CLOSE, Bars, FloatArray
from fastsim.data.frames import TOGETHER, Spans, cut, frame_length
from fastsim.errors import ForecastError
from fastsim.forecast.interface import Context, Forecast, Forecaster, can_forecast
from fastsim.forecast.tape import FIGURES, FORMAT, ForecastTape, Told, figures_of, tabulated
from fastsim.forecast.windows import context_at, market_fingerprint
from fastsim.market.features import trailing_volatility
from fastsim.market.tape import KnownTables, MarketTape
from fastsim.progress import Progress

ACROSS = "across"
"""What the columns of all frames together begin with."""
BARS = "bars"
"""What the bars themselves are called among frames."""
USUAL = 9
"""Bars of the longest frame by which it is told how many of another one usually has."""
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

    def seen_at(self, bars: int) -> Tensor:
        """Which of the K had closed last [bars] at each of the last bars of the market."""
        return torch.from_numpy(self.spans.closed[-bars:] - 1)

    def columns(self, features: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
        """Features [K, A] as what is known of them at every bar [T, A], prefix before the name."""

        def shown(values: Tensor) -> Tensor:
            return torch.from_numpy(self.spans.shown(values.double().cpu().numpy())).to(values)

        return {f"{prefix}.{name}": shown(values) for name, values in features.items()}


class Member(NamedTuple):
    """One frame of an ensemble."""

    name: str
    tape: MarketTape
    last: Tensor  # [K]  its last bar at the close of each bar of the longest frame
    steps: Tensor  # [K]  bars of its own that a bar of the longest frame has had, the median


class Together(NamedTuple):
    """The bars themselves and some frames, as an ensemble that one forecaster is asked for."""

    members: tuple[Member, ...]  # the bars, the frames, the longest of them last
    forecaster: Forecaster
    horizons: tuple[int, ...]
    """In bars of the longest frame."""
    context_length: int

    @classmethod
    def of(
        cls,
        tape: MarketTape,
        frames: Sequence[Frame],
        forecaster: Forecaster,
        *,
        horizons: Sequence[int],
        context_length: int,
    ) -> Together:
        """The ensemble of these frames, the longest of which is a multiple of every other.

        A frame takes no part in a horizon that is more of its bars than the forecaster reaches,
        which a warning says, nor in an asset that it knows too little of.

        Raises
        ------
        ForecastError
            A horizon is beyond the forecaster in the longest frame too.
        """
        nested = sorted(frames, key=lambda frame: frame_length(frame.name))
        card, wanted = forecaster.card, tuple(horizons)
        if max(wanted) > card.max_horizon:
            raise ForecastError(
                f"{card.name} forecasts 1 to {card.max_horizon} bars of {nested[-1].name} ahead; "
                f"horizons {wanted} do not fit"
            )
        members = _members(tape, nested)
        for member in members:
            _tell(member, forecaster, wanted)
        return cls(members, forecaster, wanted, min(context_length, card.max_context))

    def build_tape(
        self, tape: MarketTape, folder: Path, *, batch_size: int, progress: Progress
    ) -> ForecastTape:
        """Forecast every bar of the longest frame, or read what was forecast; `tape` has the bars.

        Raises
        ------
        ForecastError
            As `build_forecast_tape`.
        """
        settings = {
            "format": FORMAT,
            "market": market_fingerprint(tape),
            "frames": [member.name for member in self.members],
            "usual": USUAL,
            "forecaster": self.forecaster.key,
            "context_length": self.context_length,
            "horizons": self.horizons,
        }
        table = tabulated(
            self.figures,
            settings,
            folder,
            size=(len(self.members[-1].tape), tape.num_assets),
            name=self.forecaster.card.name,
            batch_size=batch_size,
            progress=progress,
        )
        return ForecastTape(table.values, self.horizons)

    def last(self, bars: int = 1) -> ForecastTape:
        """What is forecast at the last bars of the longest frame alone [bars, A, K]; not kept.

        Raises
        ------
        ForecastError
            A frame has fewer bars by then than forecasts look back on.
        """
        reach, longest = self.forecaster.card.max_horizon, self.members[-1].tape
        for member in self.members:
            if int(member.steps[-1]) * min(self.horizons) <= reach:
                require_context(int(member.last[-bars]) + 1, member.name, self.context_length)
        require_context(len(longest) - bars + 1, self.members[-1].name, USUAL)
        rows = slice(len(longest) - bars, len(longest))
        return ForecastTape(self.figures(rows, longest.num_assets), self.horizons)

    def figures(self, rows: slice, most: int) -> Tensor:
        """Figures [bars, A, K] of bars of the longest frame; NaN where nobody can forecast."""
        longest, card = self.members[-1].tape, self.forecaster.card
        price = longest.known.bars[rows, :, CLOSE].flatten().float().cpu()  # [bars A]
        total = torch.zeros(len(price), len(self.horizons), len(card.levels))
        mass = torch.zeros(len(price), len(self.horizons), 1)
        for member in self.members:
            ahead = member.steps[rows, None] * torch.tensor(self.horizons)  # [bars, h]
            ahead = ahead.repeat_interleave(longest.num_assets, 0)
            near = ahead <= card.max_horizon
            for chosen, quantiles in self._ask(member, rows, ahead.where(near, 0), most):
                total[chosen] += quantiles * near[chosen, :, None]
                mass[chosen] += near[chosen, :, None].float()
        steps = Told(tuple(range(1, len(self.horizons) + 1)))
        figures = figures_of(Forecast(total / mass, card.levels), price, steps)
        figures[(mass == 0).squeeze(-1).repeat_interleave(len(FIGURES), 1)] = torch.nan
        return figures.view(-1, longest.num_assets, figures.shape[-1])

    def _ask(
        self, member: Member, rows: slice, ahead: Tensor, most: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Series [R] of these bars that a member knows, and their quantiles [R, h, Q].

        These are so far ahead [S, h]; where that is 0, nothing is meant by them.
        """
        lasts, length = member.last[rows].tolist(), self.context_length
        every = [context_at(member.tape, slice(last, last + 1), length) for last in lasts]
        context = Context(*(torch.cat(parts) for parts in zip(*every, strict=True)))
        known = can_forecast(self.forecaster, context) & context.close[:, -1].isfinite()
        able = known.cpu() & (ahead > 0).any(1)
        for chosen in torch.split(able.nonzero().squeeze(1), most):
            asked = Context(*(part[chosen.to(part.device)] for part in context))
            forecast = self.forecaster.forecast(asked, int(ahead[chosen].max()))
            quantiles = forecast.quantiles.float().cpu()
            steps = (ahead[chosen] - 1).clamp_min(0)[..., None]  # [R, h, 1]
            yield chosen, quantiles.gather(1, steps.expand(-1, -1, quantiles.shape[-1]))


def require_context(bars: int, name: str, context_length: int) -> None:
    """Raise ForecastError unless so many bars of a frame are a whole context.

    The first of a frame is not counted, as it may have begun before the data.
    """
    least = context_length + (name != BARS)
    if bars < least:
        raise ForecastError(
            f"{bars} bars{f' of {name}' if name != BARS else ''} are too few: forecasts look back "
            f"on {context_length}; give bars from longer ago"
        )


def _members(tape: MarketTape, frames: Sequence[Frame]) -> tuple[Member, ...]:
    """The bars themselves and every frame, with where each stands when the longest closes."""
    longest = frames[-1].spans
    final = longest.stop - 1  # [K]  the last bar of each
    members = [Member(BARS, tape, torch.from_numpy(final), _usual(longest.stop - longest.first))]
    for frame in frames:
        first, last = (
            np.searchsorted(frame.spans.first, rows, side="right") - 1
            for rows in (longest.first, final)
        )
        usual = _usual(last - first + 1)
        members.append(Member(frame.name, frame.tape, torch.from_numpy(last), usual))
    return tuple(members)


def _usual(counts: NDArray[np.int64]) -> Tensor:
    """Median [K] of the last `USUAL` counts [K], the lower one of an even number."""
    padded = np.concatenate([np.full(USUAL - 1, np.iinfo(np.int64).max), counts])
    windows = np.sort(np.lib.stride_tricks.sliding_window_view(padded, USUAL), axis=1)
    known = np.minimum(np.arange(1, len(counts) + 1), USUAL)
    return torch.from_numpy(np.take_along_axis(windows, (known[:, None] - 1) // 2, 1)[:, 0])


def _tell(member: Member, forecaster: Forecaster, horizons: Sequence[int]) -> None:
    """Warn of the horizons that a member is left out of."""
    reach, steps = forecaster.card.max_horizon, int(member.steps.max())
    beyond = [horizon for horizon in horizons if horizon * steps > reach]
    if beyond:
        log.warning(
            "%s reaches %d bars ahead: %s are left out of horizons %s, which are up to %d of them",
            forecaster.card.name,
            reach,
            "the bars themselves" if member.name == BARS else f"bars of {member.name}",
            ", ".join(map(str, beyond)),
            max(beyond) * steps,
        )


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
