"""The market as tensors: what is known at a bar, and what happens after it.

The market is shared: nothing here depends on an agent, so it is computed once and every
environment is a row index into it. `known` holds only what the close of bar t reveals; `next` holds
what an agent deciding at t will meet. Nothing that is observed may come from `next`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Integral
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastsim.config import configuration, require_between, require_choice
from fastsim.data.bars import Bars, FloatArray
from fastsim.data.funding import FundingSource
from fastsim.data.tiers import TierSource
from fastsim.errors import ConfigError, DataError, FastsimError, one_line
from fastsim.extensions import require_known
from fastsim.market.benchmark import market_return_of
from fastsim.market.block import COLUMNS, Block, Column
from fastsim.market.extremes import EXTREMES, extremes_of
from fastsim.market.features import (
    FEATURE_LIMIT,
    FeatureConfig,
    clip_feature,
    make_features,
    rolling_mean,
    trailing_volatility,
)
from fastsim.market.funding import funding_table
from fastsim.market.lending import borrow_table, shortable_table
from fastsim.market.margin import Tiers, market_tiers
from fastsim.stats.years import years_between

DELISTED_AFTER = 3
"""Bars without a price, up to the end of the data, that tell a delisting from a halt."""
DTYPES = (torch.float32, torch.float64, torch.bfloat16)
OWN_COLUMNS = tuple(COLUMNS)
"""Columns that the tape makes itself."""
FillPrice = Literal["next_open", "close"]


@configuration
class TapeConfig:
    """How bars become a market."""

    fill: Literal["auto", "next_open", "close"] = "auto"
    """Decide on the close of bar t, trade at the open of t + 1 or at that same close. "auto" takes
    the next open where the data has opens."""
    risk_free_rate: float = 0.0
    """Simple annual rate that cash earns (and negative cash pays) over calendar days."""
    features: FeatureConfig = field(default_factory=FeatureConfig)
    delisting_haircut: float | None = None
    """Fraction of the price that is lost (a short gains it) when an asset leaves the data before
    the end; the rest is paid out in cash one bar after its last. None keeps positions, frozen at
    the last price."""
    borrow_bps_per_year: Mapping[str, float] = field(default_factory=dict)
    """Fee on shorts of these symbols, in place of the environment's own."""
    hard_to_borrow: tuple[str, ...] = ()
    """Symbols of which no short can be opened or grow."""
    funding: str | None = None
    """File of the funding of perpetual futures, JSON, CSV or Parquet (`fastsim.data.funding`); the
    bars are theirs then, and `EnvConfig.perpetual` says on what margin they are traded."""
    tiers: str | None = None
    """File of their leverage tiers, JSON of what ccxt's `fetch_leverage_tiers` returns."""
    tables: tuple[str, ...] = ()
    """Columns of the market beside these, for costs of your own: `fastsim.market.block.Column`, by
    name or as "package.module:object"."""

    def __post_init__(self) -> None:
        require_choice(self, "fill")
        require_known(self, "tables", COLUMNS)
        if self.delisting_haircut is not None:
            require_between(self, "delisting_haircut", 0, 1)
        if isinstance(self.hard_to_borrow, str):
            raise ConfigError(
                f"TapeConfig.hard_to_borrow must be a sequence of symbols, "
                f"got {self.hard_to_borrow!r}"
            )
        if not isinstance(self.borrow_bps_per_year, Mapping):
            raise ConfigError(
                f"TapeConfig.borrow_bps_per_year must map symbols to basis points, "
                f"got {self.borrow_bps_per_year!r}"
            )
        for symbol, rate in self.borrow_bps_per_year.items():
            number = isinstance(rate, int | float) and not isinstance(rate, bool)
            if not (number and 0.0 <= rate <= 1e6):
                raise ConfigError(
                    f"TapeConfig.borrow_bps_per_year of {symbol} must lie between 0 and 1e6, "
                    f"got {rate!r}"
                )
        rate = self.risk_free_rate
        if not (isinstance(rate, int | float) and -0.1 <= rate <= 1.0):
            raise ConfigError(
                f"TapeConfig.risk_free_rate is a yearly fraction such as 0.03, "
                f"got {self.risk_free_rate!r}"
            )


class KnownTables(NamedTuple):
    """Revealed by the close of bar t."""

    features: Tensor  # [T, A, F]
    sigma: Tensor  # [T, A]  trailing standard deviation of one-bar log returns; 0 if unknown
    impact_sigma: Tensor  # [T, A]  what impact is scaled by: that, or what `scale_impact` says
    dollar_volume: Tensor  # [T, A]  trailing mean traded value per bar; infinite without volume
    listed: Tensor  # [T, A]  bool: the asset traded at this bar
    bars: Tensor  # [T, A, 6]  as `Bars.table`


@dataclass(frozen=True, kw_only=True, eq=False)
class MarketTape:
    """T bars of A assets on one device. `first` to `last` are the bars that episodes may use.

    A tape can hold several worlds of the same calendar, one after the other; `first` and `last`
    then count within each, and an episode stays in the one it begins in.
    """

    symbols: tuple[str, ...]
    feature_names: tuple[str, ...]
    timestamps: NDArray[np.datetime64]  # [T]
    known: KnownTables
    next: Block
    """Met after the decision at bar t; its last row is never stepped on. Columns of every asset:
    `r_before`, `r_after` (simple returns from the close of t to the fill, and from there to the
    close of t + 1), `tradable` (at the fill), `dollars` (traded value of the bar of the fill,
    infinite without volume), `impact_scale` (sigma / sqrt(average traded value)), `price` (of one
    share at the fill, as traded; 1 where nothing trades), and where there are such: `borrow` (fee
    on shorts per year; NaN where the environment's own applies), `shortable` (shorts may be opened
    and grow), `delisted` (paid out in cash at the close of t + 1), `funding` (of perpetual
    futures), and what `fastsim.market.extremes` adds. Of every bar: `years` to the
    close of t + 1, `interest` (what a unit of cash earns till then), `market_return` (that of equal
    weights in what is tradable, see `fastsim.market.benchmark`)."""
    fill: FillPrice
    first: int
    last: int
    worlds: int = 1
    worlds_per_market: int = 0
    """Worlds that are one market's alone: its episode e is in number e mod `worlds_per_market` of
    them, and of M markets world m + M s is number s of market m. With 0, every episode draws any
    world."""
    rising: tuple[str, ...] = ()
    """Features that are higher by log f in an episode whose log returns are all f times as large;
    see `Feature.rises_with_volatility`."""
    volatility_window: int = FeatureConfig().volatility_window
    """Bars that `known.sigma` looks back on."""
    tiers: Tiers | None = None
    """Of the perpetual futures that are traded, where an exchange's are known."""

    def __len__(self) -> int:
        return len(self.timestamps)

    @cached_property
    def dates(self) -> Tensor:
        """`timestamps` as int64 [T], nanoseconds since 1970, where the tables lie."""
        stamps = self.timestamps.astype("datetime64[ns]").astype(np.int64)
        return torch.from_numpy(stamps).to(self.device)

    @property
    def bars_per_world(self) -> int:
        """Bars of each world."""
        return len(self) // self.worlds

    @property
    def num_assets(self) -> int:
        """A."""
        return len(self.symbols)

    @property
    def device(self) -> torch.device:
        """Where the tables lie."""
        return self.known.features.device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the tables."""
        return self.known.features.dtype

    @property
    def has_volume(self) -> bool:
        """Whether impact and participation limits apply; reads one value back to the host."""
        return bool(self.known.dollar_volume.isfinite().any())

    def bars_of(self, worlds: Tensor) -> Tensor:
        """Bars [K * bars_per_world] of these worlds [K], one world after the other."""
        bars = torch.arange(self.bars_per_world, device=worlds.device)
        return (worlds[:, None] * self.bars_per_world + bars).flatten()

    def between(self, rows: slice) -> MarketTape:
        """Restrict episodes to these rows. Tables are shared, so features keep their history."""
        start, stop, _ = rows.indices(self.bars_per_world)
        first, last = max(self.first, start), min(self.last, stop - 1)
        if last - first < 1:
            raise DataError(
                f"bars {start} to {stop - 1} leave no step after the {self.first} bars of warm-up; "
                f"use a longer span"
            )
        return replace(self, first=first, last=last)

    def world(self, number: int) -> MarketTape:
        """One world of several, as a tape of its own; DataError if there is none of this number."""
        whole = isinstance(number, Integral) and not isinstance(number, bool)
        if not whole or not 0 <= number < self.worlds:
            raise DataError(f"no world {number!r}: the tape has {self.worlds}, numbered from 0")
        rows = slice(number * self.bars_per_world, (number + 1) * self.bars_per_world)
        return replace(self.take(rows), worlds=1, worlds_per_market=0)

    def take(self, bars: slice | Tensor) -> MarketTape:
        """The tables at these bars [B], in this order, and all else as it is here."""
        rows = bars.numpy(force=True) if isinstance(bars, Tensor) else bars
        return replace(
            self,
            timestamps=self.timestamps[rows],
            known=KnownTables(*(table[bars] for table in self.known)),
            next=self.next.take(bars),
        )

    def fold(self, worlds: int) -> MarketTape:
        """Make `worlds` worlds of A assets of a tape of `worlds` x A, world by world in columns.

        Features of many worlds are so computed at once. Symbols are those of the first world.

        Raises
        ------
        DataError
            The assets cannot be shared out equally.
        """
        if worlds < 1 or self.num_assets % worlds or self.worlds > 1:
            raise DataError(f"{self.num_assets} assets do not make {worlds} worlds of equal size")
        bars, assets = len(self), self.num_assets // worlds

        def stack(table: Tensor) -> Tensor:  # [T, M A, ...] to [M T, A, ...]
            split = table.reshape(bars, worlds, assets, *table.shape[2:]).transpose(0, 1)
            return split.reshape(worlds * bars, assets, *table.shape[2:])

        known = KnownTables(*(stack(table) for table in self.known))
        following = self.next.each(
            lambda table: stack(table) if table.dim() == 2 else table.repeat(worlds)
        )
        market_return = market_return_of(
            following["r_before"], following["r_after"], following["tradable"]
        )
        return replace(
            self,
            symbols=self.symbols[:assets],
            timestamps=np.tile(self.timestamps, worlds),
            known=known,
            next=following.changed({"market_return": market_return}),
            worlds=worlds,
            tiers=None if self.tiers is None else Tiers(*(t[:, :assets] for t in self.tiers)),
        )

    def with_features(self, features: Mapping[str, Tensor]) -> MarketTape:
        """Add named features [T, A], known at the close of each bar, clipped into bounds.

        Raises
        ------
        DataError
            One has another shape, or the name of a feature that is there already.
        """
        for name, values in features.items():
            if name in self.feature_names:
                raise DataError(
                    f"the market has a feature {name!r} already: add it once, or under another name"
                )
            if values.shape != self.known.sigma.shape:
                raise DataError(
                    f"feature {name!r} must have the shape of the market "
                    f"{tuple(self.known.sigma.shape)}, got {tuple(values.shape)}"
                )
        table = self.known.features
        added = [
            values.to(table)[..., None].clamp(-FEATURE_LIMIT, FEATURE_LIMIT)
            for values in features.values()
        ]
        return replace(
            self,
            feature_names=(*self.feature_names, *features),
            known=self.known._replace(features=torch.cat([table, *added], dim=-1)),
        )

    def with_extremes(self) -> MarketTape:
        """The same with how far prices go within the next bar, if it has not got that yet.

        Raises
        ------
        DataError
            The data has no opens, highs or lows.
        """
        if set(EXTREMES) <= set(self.next):
            return self
        tables = extremes_of(
            self.known.bars,
            self.next["r_after"],
            bars_per_world=self.bars_per_world,
            filled_at_open=self.fill == "next_open",
        )
        return replace(self, next=self.next.changed(tables))

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> MarketTape:
        """Copy the tables to another device, or numbers to another floating-point type."""

        def moved(table: Tensor) -> Tensor:
            return table.to(device, dtype if table.is_floating_point() else None)

        return replace(
            self,
            known=KnownTables(*map(moved, self.known)),
            next=self.next.to(device, dtype),
            tiers=None if self.tiers is None else self.tiers.to(device, dtype),
        )


def make_tape(
    bars: Bars,
    config: TapeConfig | None = None,
    *,
    extra_features: Mapping[str, FloatArray] | None = None,
    borrow_rates: FloatArray | None = None,
    shortable: NDArray[np.bool_] | None = None,
    funding: FundingSource | None = None,
    tiers: TierSource | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> MarketTape:
    """Turn bars into a market.

    Parameters
    ----------
    extra_features
        Name to array [T, A]: whatever else is known at the close of each bar.
    borrow_rates
        Fee on shorts [T, A], a fraction per year, quoted at each close for the bar that follows;
        NaN where `TapeConfig.borrow_bps_per_year` or the environment's own applies.
    shortable
        Whether shorts may be opened and grow [T, A], from each close to the next.
    funding
        Of perpetual futures, in place of `TapeConfig.funding`: as `fastsim.data.funding` reads it.
    tiers
        Their leverage tiers, in place of `TapeConfig.tiers`: as `fastsim.data.tiers` reads them.
    dtype
        Of every table, and of accounts: a floating-point type that holds amounts of money.

    Raises
    ------
    ConfigError
        A feature of `FeatureConfig.extra` is not what it has to be, or a frame is too short; as
        `make_features`. A `dtype` that is no floating-point type of such a range.
    DataError
        Too few bars for the features, opens wanted where there are none, an array of the wrong
        shape, a symbol that is not in the data, or funding or tiers that cannot be read, or lack
        what these bars need.
    """
    config = config or TapeConfig()
    if dtype not in DTYPES:
        raise ConfigError(
            f"dtype must be one of {', '.join(map(str, DTYPES))}, in which amounts of money "
            f"fit, got {dtype!r}"
        )
    fill = _resolve_fill(config.fill, bars)
    first = config.features.first_complete(bars.timestamps)
    features = make_features(bars, config.features)
    for name, values in (extra_features or {}).items():
        if np.shape(values) != bars.close.shape:
            raise DataError(
                f"extra feature {name!r} must have the shape of the bars {bars.close.shape}, "
                f"got {np.shape(values)}"
            )
        features[name] = clip_feature(np.asarray(values, dtype=np.float64))
    if len(bars) < first + 2:
        raise DataError(
            f"{len(bars)} bars are too few: features need {first} bars of "
            f"warm-up and an episode two more; use more bars or shorter FeatureConfig windows"
        )

    def tensor(values: FloatArray | NDArray[np.bool_]) -> Tensor:
        result = torch.from_numpy(np.ascontiguousarray(values)).to(device)
        return result.to(dtype) if result.is_floating_point() else result

    arrays = _known_arrays(bars, features, config)
    known = KnownTables(**{name: tensor(values) for name, values in arrays.items()})
    following = _next_arrays(bars, fill, config) | {
        "borrow": borrow_table(bars, config.borrow_bps_per_year, borrow_rates),
        "shortable": shortable_table(bars, config.hard_to_borrow, shortable),
    }
    funding = config.funding if funding is None else funding
    tiers = config.tiers if tiers is None else tiers
    if funding is not None:
        following["funding"] = funding_table(bars, funding, first=first, fill=fill)
    extra = _extra_tables(bars, config.tables)
    following |= {column.name: values for column, values in extra.items()}
    tables = {name: tensor(values) for name, values in following.items() if values is not None}
    tables["impact_scale"] = impact_scale(known.impact_sigma, known.dollar_volume)
    return MarketTape(
        symbols=bars.symbols,
        feature_names=tuple(features),
        timestamps=bars.timestamps,
        known=known,
        next=Block.of(tables, dict(COLUMNS) | {column.name: column for column in extra}),
        fill=fill,
        first=first,
        last=len(bars) - 1,
        rising=config.features.rising,
        volatility_window=config.features.volatility_window,
        tiers=None if tiers is None else market_tiers(tiers, bars.symbols).to(device, dtype),
    )


def observed_tape(bars: Bars, config: TapeConfig, seen: int = 1) -> MarketTape:
    """What is known of bars, in float32 on a CPU, for whoever looks at the last `seen` of them.

    Nothing follows a bar there, so that nobody can trade on it. What is known at those bars is as
    `make_tape` has it, but for what impact is scaled by; features and volatility of bars that are
    too far back to matter for them are NaN. Errors as `make_features`.
    """
    needed = config.features.bars_needed(bars.timestamps) + seen - 1
    recent = bars.take(slice(-needed, None))
    features = make_features(recent, config.features)
    unknown = np.full_like(bars.close, np.nan)
    sigma, table = unknown.copy(), np.full((*bars.close.shape, len(features)), np.nan)
    window = config.features.volatility_window
    sigma[-len(recent) :] = np.nan_to_num(trailing_volatility(recent, window))
    table[-len(recent) :] = np.stack(list(features.values()), axis=-1)

    def tensor(values: FloatArray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, np.float32))

    known = KnownTables(
        features=tensor(table),
        sigma=tensor(sigma),
        impact_sigma=tensor(sigma),
        dollar_volume=torch.full(sigma.shape, torch.inf),
        listed=torch.from_numpy(np.isfinite(bars.close)),
        bars=tensor(bars.table()),
    )
    return MarketTape(
        symbols=bars.symbols,
        feature_names=tuple(features),
        timestamps=bars.timestamps,
        known=known,
        next=Block.of({"r_after": tensor(unknown), "years": tensor(unknown[:, 0])}),
        fill=_resolve_fill(config.fill, bars),
        first=0,
        last=len(bars) - 1,
        rising=config.features.rising,
        volatility_window=config.features.volatility_window,
    )


def impact_scale(sigma: Tensor, dollar_volume: Tensor) -> Tensor:
    """What the square-root law multiplies |u|^1.5 by: sigma / sqrt(average traded value)."""
    return sigma * dollar_volume.rsqrt()


def scale_impact(bars: Bars, window: int) -> tuple[FloatArray, FloatArray]:
    """Volatility and average traded value [T, A] that impact is scaled by, at every bar.

    Both are of the last `window` bars, or of as many as there are since an asset was listed. With
    fewer than two returns, or values, an asset is taken to be like the others: it has the median of
    those that trade at this bar, or did when last one did. The average is infinite without volume.
    """
    listed = np.isfinite(bars.close)
    sigma = trailing_volatility(bars, window, least=2)
    dollars = bars.dollar_volume
    if dollars is None:
        return _like_the_others(sigma, listed), np.full_like(bars.close, np.inf)
    average = rolling_mean(dollars, window, least=2)
    average = _like_the_others(np.where(average > 0, average, np.nan), listed)
    return _like_the_others(sigma, listed), np.where(average > 0, average, np.inf)


def _like_the_others(values: FloatArray, listed: NDArray[np.bool_]) -> FloatArray:
    """Values [T, A] with the median of those `listed` where they are NaN; 0 where all are."""
    told = np.where(listed, values, np.nan)
    median = np.full((len(values), 1), np.nan)
    some = np.isfinite(told).any(1)
    median[some, 0] = np.nanmedian(told[some], axis=1)
    return np.where(np.isnan(values), np.nan_to_num(_carry_forward(median)), values)


def _extra_tables(bars: Bars, names: Sequence[str]) -> dict[Column, FloatArray]:
    """The columns [T, A] that were asked for beside the tape's own."""
    tables: dict[Column, FloatArray] = {}
    for name in names:
        column = COLUMNS.find(name)
        if column.table is None or not column.by_asset or column.name in OWN_COLUMNS:
            raise ConfigError(
                f"TapeConfig.tables names {name!r}, which is not a table of your own: it needs "
                f"a function `table` of bars, and another name than {', '.join(OWN_COLUMNS)}"
            )
        try:
            values = np.asarray(column.table(bars), dtype=np.float64)
        except FastsimError:
            raise
        except Exception as error:  # whatever a user's code does
            reason = one_line(f"{type(error).__name__}: {error}")
            raise DataError(f"the table {name!r} fails: {reason}") from error
        odd = int((~np.isfinite(values)).sum())
        if values.shape != bars.close.shape or odd:
            raise DataError(
                f"the table {name!r} must be finite numbers of the shape of the bars "
                f"{bars.close.shape}, got {values.shape} and {odd} that are not finite"
            )
        tables[column] = values
    return tables


def _resolve_fill(wanted: str, bars: Bars) -> FillPrice:
    if wanted == "next_open" and bars.open is None:
        raise DataError(
            'TapeConfig.fill = "next_open" needs open prices; this data has closes only: '
            'use "close"'
        )
    if wanted == "close" or bars.open is None:
        return "close"
    return "next_open"


def _known_arrays(
    bars: Bars, features: Mapping[str, FloatArray], config: TapeConfig
) -> dict[str, FloatArray | NDArray[np.bool_]]:
    window = config.features.volatility_window
    impact_sigma, dollar_volume = scale_impact(bars, window)
    return {
        "features": np.stack(list(features.values()), axis=-1),
        "sigma": np.nan_to_num(trailing_volatility(bars, window)),
        "impact_sigma": impact_sigma,
        "dollar_volume": dollar_volume,
        "listed": np.isfinite(bars.close),
        "bars": bars.table(),
    }


def _next_arrays(
    bars: Bars, fill: FillPrice, config: TapeConfig
) -> dict[str, FloatArray | NDArray[np.bool_] | None]:
    close = bars.adjusted("close")
    assert close is not None
    mark = _carry_forward(close)  # [T, A]  NaN before the first bar of an asset
    total = np.zeros_like(close)
    total[:-1] = np.nan_to_num(mark[1:] / mark[:-1] - 1.0)
    delisted = None if config.delisting_haircut is None else _delisted(close)
    if delisted is not None:
        total[delisted] = -(config.delisting_haircut or 0.0)
    dollars = bars.dollar_volume
    dollars = np.full_like(close, np.inf) if dollars is None else np.nan_to_num(dollars)
    price, before = bars.close, np.zeros_like(close)
    tradable = np.isfinite(close)
    tradable[-1] = False
    if fill == "next_open":
        opens = bars.adjusted("open")
        assert opens is not None and bars.open is not None
        tradable = np.zeros_like(tradable)
        traded = np.isfinite(opens[1:]) & np.isfinite(close[1:])  # a bar without a close did not
        tradable[:-1] = traded & np.isfinite(mark[:-1])
        before[:-1] = np.where(tradable[:-1], opens[1:] / mark[:-1] - 1.0, 0.0)
        dollars = np.vstack([dollars[1:], np.zeros_like(dollars[:1])])
        known = np.where(np.isfinite(bars.open), bars.open, bars.close)
        price = np.vstack([known[1:], np.ones_like(close[:1])])
    years = np.append(years_between(bars.timestamps), 0.0)
    after = (1.0 + total) / (1.0 + before) - 1.0
    return {
        "r_before": before,
        "r_after": after,
        "tradable": tradable,
        "dollars": dollars,
        "price": np.where(np.isfinite(price), price, 1.0),
        "years": years,
        "interest": years * config.risk_free_rate,
        "market_return": market_return_of(
            *map(torch.from_numpy, (before, after, tradable))
        ).numpy(),
        "delisted": delisted,
    }


def _delisted(close: FloatArray) -> NDArray[np.bool_] | None:
    """The last bar [T, A] of each asset that leaves before the end; None if all stay."""
    traded = np.isfinite(close)
    final = np.cumsum(traded[::-1], axis=0)[::-1] == 1  # from its last bar back to the one before
    final &= traded
    final[-DELISTED_AFTER:] = False
    return final if final.any() else None


def _carry_forward(prices: FloatArray) -> FloatArray:
    """Last known price [T, A] at every bar, NaN before the first."""
    rows = np.where(np.isfinite(prices), np.arange(len(prices))[:, None], 0)
    rows = np.maximum.accumulate(rows, axis=0)
    return np.take_along_axis(prices, rows, axis=0)
