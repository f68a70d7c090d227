"""Bars in NautilusTrader's terms: instruments, stamps, decimals, its catalogue; and its costs."""

from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch
from nautilus_runs import require_nautilus
from worlds import random_bars

from fastsim.data.bars import Bars
from fastsim.errors import ConfigError, DataError
from fastsim.market.costs import CostConfig, make_friction

nautilus = require_nautilus()
catalog_module = import_module("nautilus_trader.persistence.catalog")
model = import_module("nautilus_trader.model")
costs = import_module("fastsim.adapters.nautilus.costs")
data = import_module("fastsim.adapters.nautilus.data")
instruments = import_module("fastsim.adapters.nautilus.instruments")
received = import_module("fastsim.adapters.nautilus.received")
DAY = 86_400.0


def hours(count=6, step=60, close=(10.0, 20.0)):
    """Bars of two symbols, an hour or so each."""
    stamps = np.datetime64("2024-03-04T00:00", "ns") + np.arange(count) * np.timedelta64(step, "m")
    prices = np.array(close) * np.linspace(1.0, 1.1, count)[:, None]
    return Bars(symbols=("BRK.B", "BTC/USD"), timestamps=stamps, close=prices, open=prices * 0.99)


def test_a_bar_is_stamped_at_its_end_and_its_open_right_after_the_last(tmp_path):
    bars = hours()
    made = instruments.make_instruments(bars, nautilus.VenueRules())
    (first, _), (opens, _) = data.make_bars(bars, made, 3600.0), data.make_opens(bars, made)
    begin = bars.timestamps.astype(np.int64)
    assert [each.ts_event for each in first] == (begin + 3600 * 10**9).tolist()
    assert [each.ts_event for each in opens] == (begin + 1).tolist()
    assert first[0].ts_event < opens[1].ts_event < first[1].ts_event
    assert str(first[0].bar_type) == "BRK.B.FASTSIM-1-HOUR-LAST-EXTERNAL"


def test_prices_are_adjusted_and_volumes_are_not():
    bars = random_bars()
    split = np.where(np.arange(len(bars)) < 5, 0.25, 1.0)[:, None]
    bars = Bars(
        symbols=bars.symbols,
        timestamps=bars.timestamps,
        close=bars.close,
        adj_close=bars.close * split,
        volume=np.full_like(bars.close, 1000.0),
    )
    made = instruments.make_instruments(bars, nautilus.VenueRules())
    first = data.make_bars(bars, made, data.bar_seconds(bars))[0]
    assert float(first[0].close) == pytest.approx(0.25 * bars.close[0, 0], rel=1e-10)
    assert float(first[5].close) == pytest.approx(bars.close[5, 0], rel=1e-10)
    assert float(first[0].volume) == 1000.0


def test_decimals_are_enough_for_any_price():
    bars = hours(close=(3e-6, 64_000.0))
    made = instruments.make_instruments(bars, nautilus.VenueRules())
    for column, each in enumerate(data.make_bars(bars, made, 3600.0)):
        found = [float(bar.close) for bar in each]
        np.testing.assert_allclose(found, bars.close[:, column], rtol=1e-10)
    with pytest.raises(DataError, match=r"BRK\.B was at 3e-06, and .* use fractions"):
        instruments.make_instruments(bars, nautilus.VenueRules(whole_shares=True))


def test_whole_shares_are_equities_in_cents():
    equity, _ = instruments.make_instruments(hours(), nautilus.VenueRules(whole_shares=True))
    fraction, _ = instruments.make_instruments(hours(), nautilus.VenueRules())
    assert type(equity).__name__ == "Equity" and type(fraction).__name__ == "CurrencyPair"
    assert (equity.price_precision, equity.size_precision) == (2, 0)


def test_cents_are_those_of_prices_as_they_were_traded():
    bars = replace(hours(), adj_close=hours().close * np.array([1.0 / 28.0, 1.0]))
    split, whole = instruments.make_instruments(bars, nautilus.VenueRules(whole_shares=True))
    assert (split.price_precision, whole.price_precision) == (4, 2)


@pytest.mark.parametrize(
    ("seconds", "name"),
    [
        (1.0, "1-SECOND"),
        (300.0, "5-MINUTE"),
        (14_400.0, "4-HOUR"),
        (DAY, "1-DAY"),
        (7 * DAY, "1-WEEK"),
    ],
)
def test_lengths_that_it_has(seconds, name):
    (found,) = instruments.bar_types(instruments.instrument_ids(("A",), "X"), seconds)
    assert str(found) == f"A.X-{name}-LAST-EXTERNAL"


@pytest.mark.parametrize("seconds", [90.0, 7 * 3600.0, 0.5, 5 * DAY, 31 * DAY])
def test_lengths_that_it_has_not(seconds):
    with pytest.raises(ConfigError, match=rf"has no bars of {seconds:,.10g} seconds \("):
        instruments.bar_types(instruments.instrument_ids(("A",), "X"), seconds)


def test_bars_that_overlap_are_refused():
    bars = hours(step=30)
    made = instruments.make_instruments(bars, nautilus.VenueRules())
    with pytest.raises(DataError, match=r"of 2024-03-04T00:30:00 begins before that of 2024-03-04"):
        data.make_bars(bars, made, 3600.0)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"account": "cash"}, "needs whole_shares"),
        ({"venue": "NEW YORK"}, "venue must be letters and digits"),
        ({"currency": "TEUR"}, "one that NautilusTrader knows"),
        ({"fill": "open"}, "fill"),
        ({"sized_at": "open"}, "sized_at"),
    ],
)
def test_rules_of_a_venue_are_checked(settings, told):
    with pytest.raises(ConfigError, match=told):
        nautilus.VenueRules(**settings)
    with pytest.raises(ConfigError, match="cannot be a symbol of NautilusTrader"):
        instruments.instrument_ids(("",), "X")


def test_a_catalogue_gives_back_what_was_written(tmp_path):
    bars, folder = hours(), tmp_path / "deep" / "catalog"
    made = nautilus.write_catalog(bars, folder)
    assert [path.name for path in folder.parent.iterdir()] == ["catalog"]
    catalog = catalog_module.ParquetDataCatalog(folder)
    assert {each.id for each in catalog.instruments()} == {each.id for each in made}
    for column, instrument in enumerate(made):
        kind = f"{instrument.id}-1-HOUR-LAST-EXTERNAL"
        wanted = data.make_bars(bars, made, 3600.0)[column]
        assert catalog.bars(bar_types=[kind]) == wanted
        ticks = catalog.trade_ticks(instrument_ids=[str(instrument.id)])
        assert list(map(str, ticks)) == list(map(str, data.make_opens(bars, made)[column]))
    with pytest.raises(ConfigError, match="is there already"):
        nautilus.write_catalog(bars, folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be made"):
        nautilus.write_catalog(bars, tmp_path / "file" / "catalog")


def test_a_catalogue_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def full(self, written, **_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(catalog_module.ParquetDataCatalog, "write_data", full)
    with pytest.raises(ConfigError, match=r"cannot be made \(No space left on device\)"):
        nautilus.write_catalog(hours(), tmp_path / "catalog")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("buys", [True, False])
@pytest.mark.parametrize(("fee_bps", "half_spread_bps"), [(5.0, 0.0), (10.0, 7.0), (0.0, 0.0)])
def test_a_fill_costs_what_it_does_in_fastsim(buys, fee_bps, half_spread_bps):
    config = costs.FrictionConfig(fee_bps=fee_bps, half_spread_bps=half_spread_bps)
    instrument, _ = instruments.make_instruments(hours(), nautilus.VenueRules())

    class Order:
        side = model.enums.OrderSide.BUY if buys else model.enums.OrderSide.SELL

    quantity, price = instrument.make_qty(40_000.0), instrument.make_price(12.5)
    charged = costs.Friction(config).get_commission(Order, quantity, price, instrument)
    fee, half, value = 1e-4 * fee_bps, 1e-4 * half_spread_bps, 500_000.0
    commission = fee * value * (1.0 + half if buys else 1.0 - half)
    assert float(charged) == pytest.approx(commission + half * value, abs=0.0051)
    parts = costs.split(commission + half * value, config, buys=buys)
    assert parts == pytest.approx((commission, half * value), rel=1e-12)


def test_bars_are_whole_when_the_last_asset_has_come():
    some = received.Received(("A", "B"), ("open", "adj_close"), 2)
    stamps = [np.datetime64(f"2024-03-0{day}", "ns") for day in (4, 5, 6)]
    for number, stamp in enumerate(stamps):
        assert not some.add("B", stamp, (1.0, 2.0, 0.5, 1.5 + number, 9.0))
        assert len(some) == min(number, 2)
        assert some.add("A", stamp, (10.0, 20.0, 5.0, 15.0 + number, 90.0))
    bars = some.bars()
    assert bars.timestamps.tolist() == np.array(stamps[1:]).tolist()
    assert bars.close.tolist() == [[16.0, 2.5], [17.0, 3.5]]
    assert bars.open.tolist() == [[10.0, 1.0]] * 2 and bars.volume is None and bars.low is None
    assert (bars.adj_close == bars.close).all() and some.closes.tolist() == [17.0, 3.5]


def test_bars_that_come_wrong_are_refused_by_name():
    some = received.Received(("A", "B"), (), 2)
    first, second = (np.datetime64(f"2024-03-0{day}", "ns") for day in (4, 5))
    row = (1.0,) * 5
    some.add("A", first, row)
    with pytest.raises(DataError, match="the bar of A on 2024-03-04 came twice"):
        some.add("A", first, row)
    with pytest.raises(DataError, match="there is no bar of B on 2024-03-04, and those of"):
        some.add("A", second, row)
    some.add("B", first, row)
    with pytest.raises(DataError, match="the bar of B on 2024-03-04 came twice"):
        some.add("B", first, row)
    some.add("A", second, row)
    with pytest.raises(DataError, match="the bar of B on 2024-03-04 comes after one on 2024-03-05"):
        some.add("B", first, row)


def test_rates_are_those_of_the_environment():
    config = CostConfig(fee_bps=3.0, half_spread_bps=4.0)
    friction = make_friction(config, 1, dtype=torch.float64)
    rate = costs.Friction(costs.FrictionConfig(fee_bps=3.0, half_spread_bps=4.0))
    assert (rate.fee, rate.half_spread) == pytest.approx(
        (float(friction.fee), float(friction.half_spread)), rel=1e-12
    )
