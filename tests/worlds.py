"""Small synthetic worlds: bars from a seed, and portfolios meeting a market drawn by hypothesis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from fastsim.data.bars import Bars
from fastsim.env.accounting import Outcome, Portfolio, Terms, advance, lone
from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.orders import OrderConfig, Wish
from fastsim.env.randomize import RandomizeConfig
from fastsim.market.block import Block
from fastsim.market.conditions import Conditions
from fastsim.market.costs import CostConfig, Friction, Venue, total
from fastsim.market.features import FeatureConfig

SHORT_FEATURES = FeatureConfig(
    return_windows=(1, 2), momentum_window=5, momentum_skip=2, short_window=2, volatility_window=4
)
FREE = CostConfig(fee_bps=0, half_spread_bps=0, impact=0, participation=1e12, borrow_bps_per_year=0)


def weekdays(length, start="2020-01-01"):
    """Timestamps [T] of weekdays, so that some bars are three days apart."""
    days = np.busday_offset(start, np.arange(length), roll="forward")
    return days.astype("datetime64[ns]")


def random_bars(
    length=120, assets=4, seed=0, *, opens=True, volume=True, holes=False, adjusted=False
):
    """Open, high, low, close and volume of a random walk.

    With `holes`, asset 1 lists after a quarter of the bars and asset 2 is halted now and then.
    """
    rng = np.random.default_rng(seed)
    overnight, intraday = rng.normal(0, 0.01, (2, length, assets))
    close = 50.0 * np.exp(np.cumsum(overnight + intraday, axis=0))
    open_ = close * np.exp(-intraday)
    high = np.maximum(open_, close) * np.exp(rng.exponential(0.005, close.shape))
    low = np.minimum(open_, close) * np.exp(-rng.exponential(0.005, close.shape))
    units = np.exp(rng.normal(12, 0.5, close.shape))
    if holes:
        for array in (open_, high, low, close, units):
            array[: length // 4, 1] = np.nan
            array[length // 2 :: 7, 2] = np.nan
    return Bars(
        symbols=tuple(f"S{number}" for number in range(assets)),
        timestamps=weekdays(length),
        close=close,
        open=open_ if opens else None,
        high=high if opens else None,
        low=low if opens else None,
        volume=units if volume else None,
        adj_close=close * np.linspace(0.5, 1.0, length)[:, None] if adjusted else None,
    )


class Moment(NamedTuple):
    """N portfolios about to trade, in float64."""

    portfolio: Portfolio
    weights: Tensor  # [N, A]
    market: Conditions
    friction: Friction

    def advance(
        self, hold: bool = False, orders: OrderConfig | None = None
    ) -> tuple[Portfolio, Outcome]:
        wish = Wish(self.weights, torch.full((len(self.weights),), hold))
        terms = Terms(orders=orders or OrderConfig())
        after, outcome = advance(lone(self.portfolio), wish, self.market, self.friction, terms)
        return after.portfolio, outcome

    def cost_of(self, trade: Tensor) -> Tensor:
        """What it costs to trade this [N, A]."""
        return total(Venue(self.market, self.friction).charge(trade))

    def with_friction(self, **fields: Tensor) -> Moment:
        return self._replace(friction=self.friction._replace(**fields))

    def with_market(self, **fields: Tensor) -> Moment:
        return self._replace(market=self.market._replace(**fields))


def change_with_volatility(tape):
    """What features [8, A, F] change by where all log returns of an episode are twice as large."""
    seen = []
    for factor in (1.0, 2.0):
        rules = EnvConfig(
            randomize=RandomizeConfig(volatility=(factor, factor)),
            episode=EpisodeConfig(horizon=20),
        )
        env = PortfolioEnv(tape, 8, rules)
        columns = env.columns(env.reset(0))[:, : tape.num_assets * len(tape.feature_names)]
        seen.append(columns.view(8, tape.num_assets, -1))
    return seen[1] - seen[0]


def grid(low, high, ticks=1000):
    """Multiples of 1 / `ticks`: zero is drawn often, and nothing else is lost in rounding."""
    whole = st.integers(round(low * ticks), round(high * ticks))
    return whole.map(lambda count: count / ticks)


@st.composite
def tensors(draw, shape, low, high, ticks=1000):
    """Float64 tensors of this shape on a grid."""
    count = int(np.prod(shape))
    values = draw(st.lists(grid(low, high, ticks), min_size=count, max_size=count))
    return torch.tensor(values, dtype=torch.float64).reshape(shape)


@st.composite
def weights_of(draw, shape, *, signed=True, gross=2.0):
    """Weights [N, A]: long-only with sum <= 1, or signed with gross <= 2 and sum <= 1."""
    raw = draw(tensors(shape, -1.0 if signed else 0.0, 1.0))
    if not signed:
        return raw / raw.sum(-1, keepdim=True).clamp_min(1.0)
    return raw / torch.maximum(raw.abs().sum(-1) / gross, raw.sum(-1)).clamp_min(1.0)[:, None]


@st.composite
def frictions(draw, rows, *, impact=2.0, borrow=500.0):
    """Costs [N]: up to 1 % fee, 1 % half spread, Y = 2 and 5 % a year; unlimited participation."""
    return Friction(
        fee=draw(tensors((rows,), 0, 1e-2, ticks=10_000)),
        half_spread=draw(tensors((rows,), 0, 1e-2, ticks=10_000)),
        impact=draw(tensors((rows,), 0, impact)),
        participation=torch.ones(rows, dtype=torch.float64),
        borrow=draw(tensors((rows,), 0, borrow * 1e-4)),
    )


def still_market(rows, assets, **changes: Tensor):
    """Conditions in which nothing moves, everything trades and only `changes` differ."""
    each, both = torch.zeros(rows).double(), torch.zeros(rows, assets).double()
    still = Conditions(
        r_before=both,
        r_after=both,
        tradable=torch.ones(rows, assets, dtype=torch.bool),
        dollars=both + torch.inf,
        impact_scale=both,
        price=both + 1.0,
        years=each,
        interest=each,
        market_return=each,
    )
    return still._replace(**changes)


@st.composite
def conditions(draw, rows, assets):
    """Returns within 20 %; impact of up to 5 % of an order as large as the account."""
    shape = (rows, assets)
    return still_market(
        rows,
        assets,
        r_before=draw(tensors(shape, -0.2, 0.2)),
        r_after=draw(tensors(shape, -0.2, 0.2)),
        impact_scale=draw(tensors(shape, 0, 0.05)),  # for a wealth of 1; see `moments`
        years=draw(tensors((rows,), 0, 0.02)),
        interest=draw(tensors((rows,), -0.001, 0.001, ticks=100_000)),
    )


@st.composite
def moments(draw, *, signed=True, impact=2.0, borrow=500.0):
    """Moments of up to 3 accounts of up to 5 assets, worth 10^2 to 10^8, unlimited liquidity."""
    rows, assets = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    wealth = 10.0 ** draw(tensors((rows,), 2, 8, ticks=10))
    held = draw(weights_of((rows, assets), signed=signed)) * wealth[:, None]
    market = draw(conditions(rows, assets))
    return Moment(
        Portfolio(held, wealth - held.sum(-1)),
        draw(weights_of((rows, assets), signed=signed)),
        market._replace(impact_scale=market.impact_scale * wealth.rsqrt()[:, None]),
        draw(frictions(rows, impact=impact, borrow=borrow)),
    )


def leaves(nested):
    """Every tensor of nested tuples, mappings and blocks, in order."""
    if isinstance(nested, Tensor):
        return [nested]
    if isinstance(nested, Block):
        return [nested.assets, nested.bars]
    parts = nested.values() if isinstance(nested, Mapping) else nested
    return [] if nested is None else [leaf for part in parts for leaf in leaves(part)]


def assert_same_bits(one, other):
    """Nested tuples hold the same tensors, bit for bit; NaN equals NaN."""
    pairs = list(zip(leaves(one), leaves(other), strict=True))
    assert pairs
    for left, right in pairs:
        torch.testing.assert_close(left, right, rtol=0, atol=0, equal_nan=True)
