"""Markets within the day whose season of volatility is planted by the clock of a zone.

Shocks and volatility are those of a simulated law, bar by bar; a bar's variance is then multiplied
by what its time of day has against others. The session of a stock exchange adds what happens
between a close and the next open. Clocks change within the data, and days are missing where there
are holes: the return over one is the sum of those that nobody saw.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Generator, Tensor

from fastsim.data.bars import Bars
from fastsim.forecast.season.clock import DAY, MINUTE, local_time, offsets_of
from fastsim.forecast.training.prior_paths import draw_parameters, simulate, start_state
from fastsim.synthetic.garch import Garch
from fastsim.synthetic.interface import Paths
from fastsim.synthetic.intrabar import IntrabarConfig, Moves, make_paths
from fastsim.synthetic.log_volatility import LogVolatility

ZONE = "America/New_York"
START = np.datetime64("2022-01-10T00:30")
"""By UTC; clocks change on 13 March and on 6 November."""
OPENS, CLOSES = (9 * 60 + 30) * MINUTE, 16 * 60 * MINUTE
"""Of a session, by the clock of the zone."""
STRENGTHS = {"none": 0.0, "weak": 0.3, "strong": 1.2}
"""Half of the range of the logarithm of variance over the day."""
NIGHTS = {"none": 0.0, "weak": 2.0, "strong": 6.0}
"""Variance of what happens over night, in bars."""
PEAK = 10 / 24
"""When the day is wildest, as a share of it, where there are no sessions."""
HOLES, HOLE_DAYS = (0.3, 0.5, 0.85), 9
"""Where days are missing, as shares of the data, and how many."""
VOLATILITY = 0.25
"""A year's."""
YEAR = 365.25 * DAY
LAWS = {
    "garch-t": Garch(log_drift=0.0, volatility=VOLATILITY, alpha=0.05, gamma=0.0, beta=0.93),
    "gjr": Garch(log_drift=0.0, volatility=VOLATILITY),
    "log volatility": LogVolatility(log_drift=0.0, volatility=VOLATILITY),
}
PRIOR_PATHS = "the prior's"


@dataclass(frozen=True, kw_only=True)
class World:
    """What is planted."""

    minutes: int = 60
    hours: Literal["all", "session"] = "all"
    season: Literal["none", "weak", "strong"] = "none"
    law: str = "garch-t"
    """Of volatility: one of LAWS, or the paths of fastsim-prior's training without drift, which
    have closes alone."""
    holes: int = 0
    """How many spells of days are missing, of three at most."""


WORLDS = (
    World(season="none", law="garch-t"),
    World(season="weak", law="log volatility"),
    World(season="strong", law="gjr"),
    World(season="strong", law=PRIOR_PATHS, holes=3),
    World(hours="session", season="weak", law="garch-t", holes=3),
    World(hours="session", season="strong", law="log volatility"),
    World(minutes=15, season="none", law="log volatility", holes=3),
    World(minutes=15, season="weak", law="garch-t"),
    World(minutes=15, season="strong", law="log volatility", holes=3),
    World(minutes=15, hours="session", season="none", law="gjr"),
    World(minutes=15, hours="session", season="weak", law=PRIOR_PATHS),
    World(minutes=15, hours="session", season="strong", law="garch-t"),
)


def planted_bars(world: World, bars: int, assets: int, seed: int) -> Bars:
    """So many bars of a world, those in holes counted; assets have a factor in common."""
    generator = torch.Generator().manual_seed(seed)
    stamps = open_times(world, bars)
    local = local_time(stamps, offsets_of(ZONE))
    moves = _with_season(world, _base_moves(world, bars, assets, generator), local, generator)
    inside = None if world.law == PRIOR_PATHS else IntrabarConfig(overnight=0.0)
    paths = make_paths(moves, torch.full((assets,), 100.0, dtype=torch.float64), inside, generator)
    kept = ~in_holes(world, stamps).numpy()
    times = stamps.numpy().astype("datetime64[s]").astype("datetime64[ns]")
    fields = {
        name: field[0].double().numpy()[kept]
        for name in Paths._fields
        if (field := getattr(paths, name)) is not None
    }
    symbols = tuple(f"A{asset}" for asset in range(assets))
    return Bars(symbols=symbols, timestamps=times[kept], **fields)


def open_times(world: World, count: int) -> Tensor:
    """Seconds since 1970 UTC [T] of the first bars at which the market is open."""
    step = world.minutes * MINUTE
    many = count if world.hours == "all" else 7 * count  # a session is a quarter of a day, and more
    stamps = int(START.astype("datetime64[s]").astype(np.int64)) + step * torch.arange(many)
    if world.hours == "all":
        return stamps
    local = local_time(stamps, offsets_of(ZONE))
    weekday = (local // DAY + 3) % 7  # 1970 began on a Thursday
    second = local % DAY
    return stamps[(weekday < 5) & (second >= OPENS) & (second < CLOSES)][:count]


def factors_of(world: World, local: Tensor) -> Tensor:
    """Variance [T] of bars at local times [T] against the mean: a wave, or high at both ends."""
    second = (local % DAY).double()
    if world.hours == "all":
        wave = torch.cos(2.0 * math.pi * (second / DAY - PEAK))
    else:
        middle = 2.0 * (second + 0.5 * world.minutes * MINUTE - OPENS) / (CLOSES - OPENS) - 1.0
        wave = 2.0 * middle.square() - 1.0
    factor = (STRENGTHS[world.season] * wave).exp()
    return factor / factor.mean()


def in_holes(world: World, stamps: Tensor) -> Tensor:
    """Which bars [T] nobody saw."""
    first, span = stamps[0], stamps[-1] - stamps[0]
    missing = torch.zeros(len(stamps), dtype=torch.bool)
    for share in HOLES[: world.holes]:
        begins = first + share * span
        missing |= (stamps >= begins) & (stamps < begins + HOLE_DAYS * DAY)
    return missing


def _base_moves(world: World, bars: int, assets: int, generator: Generator) -> Moves:
    """Log returns [T, 1, A] as if all hours were alike."""
    if world.law == PRIOR_PATHS:
        drawn = draw_parameters(assets, generator)
        drawn = drawn._replace(drift=torch.zeros(assets))
        returns, _ = simulate(drawn, start_state(drawn, generator), bars, generator)
        level = drawn.level.double()
        wide = returns.double()[:, None]
        return Moves(wide, level.square().expand_as(wide), level)
    years = world.minutes * MINUTE / YEAR
    law = replace(LAWS[world.law], assets=assets, years_per_bar=years)
    return law.moves(1, bars, generator)


def _with_season(world: World, moves: Moves, local: Tensor, generator: Generator) -> Moves:
    """Moves whose variance depends on the hour, with nights between sessions."""
    factor = factors_of(world, local)[:, None, None]
    night = torch.zeros_like(moves.log_return)
    if world.hours == "session":
        opens = local.diff(prepend=local[:1]) > world.minutes * MINUTE
        noise = torch.randn(night.shape, generator=generator, dtype=torch.float64)
        spread = (NIGHTS[world.season] * moves.variance).sqrt()
        night = opens[:, None, None] * spread * noise
    returns = moves.log_return * factor.sqrt() + night
    return Moves(returns, moves.variance * factor, moves.typical, night)
