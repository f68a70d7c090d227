"""A process is woken when a candle begins, and by the clock where nobody tells."""

import asyncio
import gc
import time

import pytest

from fastsim.live.feed import LiveFeed
from fastsim.live.watching import CandleWatch, watching_client

LONG = 60.0
"""Seconds that no test here waits."""


class Exchange:
    """Tells of the candles that it was given, one answer after the other, and then of none."""

    def __init__(self, *told):
        self.told, self.asked, self.closed = list(told), [], 0

    async def watch_ohlcv(self, symbol, timeframe):
        self.asked.append((symbol, timeframe))
        if not self.told:
            await asyncio.Event().wait()
        told = self.told.pop(0)
        if isinstance(told, BaseException):
            raise told
        return [[stamp, 1.0, 1.0, 1.0, 1.0, 1.0] for stamp in told]

    async def close(self):
        self.closed += 1


def watching(exchange):
    return CandleWatch(lambda: exchange, "BTC/USDT", "1m")


def seconds(watch, longest):
    start = time.monotonic()
    watch.wait(longest)
    return time.monotonic() - start


def test_it_wakes_at_the_first_candle_that_is_new():
    exchange = Exchange([60, 120], [120], [120, 180], [180])
    feed = LiveFeed("ccxt:somewhere", None, None, watch=watching(exchange))
    assert seconds(feed, LONG) < 5.0
    assert exchange.told == [[180]] and set(exchange.asked) == {("BTC/USDT", "1m")}
    feed.close()
    assert exchange.closed == 1


def test_a_candle_that_began_between_two_waits_wakes_at_once():
    exchange = Exchange([60], [120])
    watch = watching(exchange)
    assert seconds(watch, LONG) < 5.0
    exchange.told = [[180]]
    assert seconds(watch, LONG) < 5.0 and exchange.told == []
    watch.close()


def test_where_nothing_is_told_it_comes_back_in_time_and_asks_no_second_time():
    exchange = Exchange([60])
    watch = watching(exchange)
    for _ in range(3):
        assert 0.05 <= seconds(watch, 0.05) < 5.0
    assert len(exchange.asked) == 2  # the second is waited for still
    watch.close()
    watch.close()
    assert exchange.closed == 1


def test_what_fails_is_waited_for_by_the_clock_and_tried_again(caplog):
    exchange = Exchange(ConnectionError("gone"), [60], [120])
    watch = watching(exchange)
    assert 0.05 <= seconds(watch, 0.05) < 5.0
    assert "BTC/USDT are not watched for now (ConnectionError: gone)" in caplog.text
    assert exchange.closed == 1
    assert seconds(watch, LONG) < 5.0
    watch.close()


def test_an_interrupt_goes_on_and_leaves_nothing_under_way(capfd):
    exchange = Exchange([60], KeyboardInterrupt())
    watch = watching(exchange)
    with pytest.raises(KeyboardInterrupt):
        watch.wait(LONG)
    watch.close()
    gc.collect()
    assert exchange.closed == 1 and not capfd.readouterr().err


def test_an_exchange_that_does_not_tell_is_waited_for_by_the_clock():
    watch = watching(None)
    assert 0.05 <= seconds(watch, 0.05) < 5.0
    watch.close()


def test_exchanges_of_ccxt_that_tell_are_known():
    pytest.importorskip("ccxt")
    client = watching_client("binance")
    assert client.has["watchOHLCV"] and callable(client.watch_ohlcv)
    assert watching_client("no_such_exchange") is None
