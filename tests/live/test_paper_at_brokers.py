"""An agent at servers of brokers' kinds: ledger and books agree, whatever goes wrong."""

from collections import Counter
from contextlib import suppress
from decimal import Decimal

import alpaca_server
import binance_server
import ccxt
import numpy as np
import polars as pl
import pytest
from alpaca_server import AlpacaServer
from binance_server import BinanceServer
from loopback import Answer
from papered import RUN, paper, small_run

from fastsim.cli import main
from fastsim.data.read import read_bars, write_bars
from fastsim.data.sample import sample_bars
from fastsim.errors import DataError
from fastsim.live import alpaca_rest, ccxt_broker
from fastsim.live.broker import OrderState, UnansweredError
from fastsim.live.feed import LiveFeed
from fastsim.live.ledger import LEDGER, Ledger
from fastsim.live.loop import Passed
from fastsim.live.opening import opened
from fastsim.live.reconcile import DifferenceError

DAY = np.timedelta64(1, "D")
COINS = ("BTCUSDT", "ETHUSDT")
BEGIN = np.datetime64("2024-01-01", "ms")


def coin_bars(days=1_300):
    """Days of two coins, every day of the week."""
    random = np.random.default_rng(7)
    frames = []
    for symbol, price in zip(COINS, (20_000.0, 1_000.0), strict=True):
        close = np.round(price * np.exp(np.cumsum(0.03 * random.standard_normal(days))), 2)
        opens = np.round(np.roll(close, 1) * np.exp(0.002 * random.standard_normal(days)), 2)
        opens[0] = price
        frames.append(
            pl.DataFrame(
                {
                    "timestamp": BEGIN + np.arange(days) * DAY,
                    "symbol": symbol,
                    "open": opens,
                    "high": np.round(1.01 * np.maximum(opens, close), 2),
                    "low": np.round(0.99 * np.minimum(opens, close), 2),
                    "close": close,
                    "volume": np.full(days, 1e6),
                }
            )
        )
    return read_bars(pl.concat(frames))


class Exchange(BinanceServer):
    """The loopback with a clock of its own, and candles up to the one that is being traded."""

    def __init__(self, bars):
        super().__init__()
        self.bars, self.now = bars, bars.timestamps[0]
        for column, symbol in enumerate(bars.symbols):
            self.candles[symbol] = [
                [int(stamp.astype("datetime64[ms]").astype(int)), *map(str, row)]
                for stamp, *row in zip(
                    bars.timestamps,
                    *(
                        getattr(bars, name)[:, column]
                        for name in ("open", "high", "low", "close", "volume")
                    ),
                    strict=True,
                )
            ]

    def milliseconds(self):
        return int(self.now.astype("datetime64[ms]").astype(int))

    def klines(self, form):
        *closed, last = super().klines(form)
        wild = [last[0], last[1], "9999999", "0.01", "123456", "1"]
        return [*closed, wild if last[0] + 86_400_000 > self.milliseconds() else last]

    def begin(self, row):
        """The day of a row has just begun: it trades at its open."""
        self.now = self.bars.timestamps[row] + np.timedelta64(5, "s")
        for column, symbol in enumerate(self.bars.symbols):
            price = str(self.bars.open[row, column])
            self.depth[symbol] = [(price, "0.02"), (price, "1000")]


@pytest.fixture(scope="module")
def coin_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coins")
    write_bars(coin_bars(), folder / "coins.parquet")
    return small_run(
        folder, "coins", data={"source": str(folder / "coins.parquet")}, forecaster="none"
    )


@pytest.fixture
def exchange(monkeypatch):
    monkeypatch.setenv("FASTSIM_BINANCE_KEY", binance_server.KEY)
    monkeypatch.setenv("FASTSIM_BINANCE_SECRET", binance_server.SECRET)
    monkeypatch.setattr(ccxt_broker, "SLACK", -9.7)  # 0.3 s for what may be on its way
    with Exchange(coin_bars()) as server:
        urls = {
            name: server.url + path
            for name, path in {"public": "/api/v3", "private": "/api/v3", "v1": "/api/v1"}.items()
        }

        class Local(ccxt.binance):
            """ccxt's own client at the loopback's address and by its clock."""

            def __init__(self, config):
                super().__init__(config)
                self.urls |= {"api": urls, "test": urls}
                self.options |= {"fetchMarkets": {"types": ["spot"]}, "fetchMargins": False}
                self.enableRateLimit = False

            def milliseconds(self):
                return server.milliseconds()

        monkeypatch.setattr(ccxt, "binance", Local)
        monkeypatch.setattr("fastsim.live.feed.clock", lambda: server.now)
        monkeypatch.setattr("fastsim.live.answers.time.sleep", lambda _: None)
        yield server


def coins(run, state, **settings):
    return paper(run, state, "ccxt:binance", broker="ccxt:binance", **settings)


def one_pass(config):
    """A process for cron."""
    with opened(config, run_id=RUN) as loop:
        return loop.once()


def require_exchanges_books(state, server):
    """What the ledger says of positions, orders and fees is what the exchange's books say."""
    ledger = Ledger.read(state)
    for symbol in COINS:
        held = float(server.held(server_pair(symbol).base))
        assert ledger.positions.get(symbol, 0.0) == pytest.approx(held, abs=1e-12)
    assert Counter(each.client_id for each in server.orders) == Counter(
        key for key, each in ledger.reports.items() if each.state is not OrderState.REJECTED
    )
    for order in server.orders:
        report = ledger.reports[order.client_id]
        assert abs(Decimal(str(report.filled))) == order.filled
        assert {coin: Decimal(str(fee)) for coin, fee in report.fees.items()} == order.fees
    assert not ledger.unsettled()
    cash = ledger.snapshots()[-1].cash
    ledger.close()
    return cash


def server_pair(symbol):
    return binance_server.PAIRS[symbol]


@pytest.mark.long
def test_days_at_an_exchange_with_a_process_for_each(exchange, coin_run, tmp_path):
    config, rows = coins(coin_run, tmp_path), range(1_200, 1_208)
    for row in rows:
        exchange.begin(row)
        assert one_pass(config) is Passed.DECIDED
        assert one_pass(config) is Passed.WAITING
        require_exchanges_books(tmp_path, exchange)
    ledger = Ledger.read(tmp_path)
    stamps = [each.bar[:10] for each in ledger.decisions()]
    assert stamps == [str(exchange.bars.timestamps[row - 1])[:10] for row in rows]
    closes = [each.closes["BTCUSDT"] for each in ledger.decisions()]
    assert closes == [exchange.bars.close[row - 1, 0] for row in rows]  # none of an open candle
    assert len(exchange.orders) >= len(rows)
    assert {order.side for order in exchange.orders} == {"BUY", "SELL"}
    assert any("BTC" in order.fees for order in exchange.orders)
    ledger.close()


FAULTS = {
    "an answer is lost": ("lose", None),
    "an order never arrives": ("refuse", None),
    "the gateway fails": ("after", Answer(502, "<html>", {"Content-Type": "text/html"})),
    "asked too often": ("status", Answer(429, {"code": -1003, "msg": "x"}, {"Retry-After": "1"})),
}


@pytest.mark.long
@pytest.mark.parametrize("name", FAULTS)
def test_days_at_an_exchange_with_a_restart_in_the_middle(exchange, coin_run, tmp_path, name):
    config = coins(coin_run, tmp_path)
    kind, answer = FAULTS[name]
    for row in range(1_200, 1_206):
        exchange.begin(row)
        exchange.fail("POST", "/api/v3/order", kind, answer)
        try:
            one_pass(config)
        except UnansweredError:
            assert one_pass(config) is Passed.WAITING  # a new process, which settles
        assert not exchange.faults
        require_exchanges_books(tmp_path, exchange)
    assert len(exchange.orders) >= 6


def test_what_an_exchange_rejects_is_written_down_and_the_day_goes_on(exchange, coin_run, tmp_path):
    config = coins(coin_run, tmp_path)
    exchange.begin(1_200)
    refusal = Answer(
        400, {"code": -2010, "msg": "Account has insufficient balance for requested action."}
    )
    exchange.fail("POST", "/api/v3/order", "status", refusal)
    one_pass(config)
    require_exchanges_books(tmp_path, exchange)
    ledger = Ledger.read(tmp_path)
    (rejected,) = [each for each in ledger.reports.values() if each.state is OrderState.REJECTED]
    assert "insufficient balance" in rejected.reason
    ledger.close()
    exchange.begin(1_201)
    assert one_pass(config) is Passed.DECIDED
    require_exchanges_books(tmp_path, exchange)


def test_trades_by_hand_stop_it_until_they_are_accepted(exchange, coin_run, tmp_path):
    config = coins(coin_run, tmp_path)
    exchange.begin(1_200)
    one_pass(config)
    exchange.free["BTC"] += Decimal("0.5")
    exchange.begin(1_201)
    count = len(exchange.orders)
    with pytest.raises(DifferenceError, match="position of BTCUSDT"):
        one_pass(config)
    assert len(exchange.orders) == count
    assert one_pass(coins(coin_run, tmp_path, accept=True)) is Passed.DECIDED
    require_exchanges_books(tmp_path, exchange)


def test_an_order_by_hand_stops_it(exchange, coin_run, tmp_path):
    exchange.rest("by-hand", "BTCUSDT", "BUY", "0.1", "15000")
    exchange.begin(1_200)
    with pytest.raises(DifferenceError, match="order of BTCUSDT"):
        one_pass(coins(coin_run, tmp_path))
    assert len(exchange.orders) == 1


def test_a_feed_that_lacks_a_day_decides_nothing(exchange, coin_run, tmp_path):
    exchange.begin(1_200)
    del exchange.candles["BTCUSDT"][1_190], exchange.candles["ETHUSDT"][1_190]
    with pytest.raises(DataError):
        one_pass(coins(coin_run, tmp_path))
    assert not exchange.orders
    ledger = Ledger.read(tmp_path)
    assert ledger.last_decision() is None
    ledger.close()


class StockMarket(AlpacaServer):
    """Alpaca with the days of a sample: orders wait for the open, positions are marked at it."""

    def __init__(self, bars):
        super().__init__()
        self.bars, self.is_open, self.leverage = bars, False, 2
        self.now = bars.timestamps[0]
        self.mark(0, bars.close)

    def mark(self, row, prices):
        self.prices = {
            symbol: f"{prices[row, column]:.4f}" for column, symbol in enumerate(self.bars.symbols)
        }

    def trade(self, row):
        """A day of the exchange."""
        self.mark(row, self.bars.open)
        self.open()
        self.mark(row, self.bars.close)
        self.close()
        self.now = self.bars.timestamps[row] + DAY + np.timedelta64(5, "m")


@pytest.fixture(scope="module")
def stock_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stocks")
    return small_run(folder, "stocks", data={"source": "tech4"}, forecaster="none")


@pytest.fixture
def market(monkeypatch):
    monkeypatch.setenv("APCA_API_KEY_ID", alpaca_server.KEY)
    monkeypatch.setenv("APCA_API_SECRET_KEY", alpaca_server.SECRET)
    bars = sample_bars("tech4")
    with StockMarket(bars) as server:
        monkeypatch.setattr(alpaca_rest, "PAPER", server.url)
        monkeypatch.setattr(alpaca_rest, "DATA", server.url)
        monkeypatch.setattr("fastsim.live.feed.clock", lambda: server.now)
        days = {str(stamp)[:10] for stamp in bars.timestamps}

        def fetched(symbols, first, last):
            return bars.take(bars_between(bars, first, last), None)

        def feed(name, agent, **_):
            calendar = agent.spec.calendar
            every = np.arange(*(bars.timestamps[[0, -1]].astype("datetime64[D]")))
            closed = [day.item() for day in every if str(day) not in days]
            return LiveFeed(name, fetched, calendar, closed=closed)

        monkeypatch.setattr("fastsim.live.opening.make_feed", feed)
        yield server


def bars_between(bars, first, last):
    stamps = bars.timestamps.astype("datetime64[D]")
    rows = np.flatnonzero((stamps >= np.datetime64(first)) & (stamps <= np.datetime64(last)))
    return slice(int(rows[0]), int(rows[-1]) + 1)


def stocks(run, state):
    return paper(run, state, "yfinance", broker="alpaca")


def require_brokers_books(state, server):
    ledger = Ledger.read(state)
    held = {symbol: shares for symbol, shares in ledger.positions.items() if shares}
    assert held == pytest.approx({symbol: float(n) for symbol, n in server.shares.items()})
    taken = [key for key, each in ledger.reports.items() if each.state is not OrderState.REJECTED]
    assert Counter(each.client_id for each in server.orders) == Counter(taken)
    ledger.close()


@pytest.mark.parametrize("fault", [None, "lose", "refuse"])
def test_days_at_alpaca_with_orders_that_wait_for_the_open(market, stock_run, tmp_path, fault):
    config, rows = stocks(stock_run, tmp_path), range(1700, 1708)
    for row in rows:
        market.trade(row)
        if fault:
            market.fail("POST", "/v2/orders", fault)
        try:
            assert one_pass(config) is Passed.DECIDED
        except UnansweredError:
            assert one_pass(config) is Passed.WAITING
        assert not market.faults
        require_brokers_books(tmp_path, market)
    assert len(market.orders) > len(rows)
    assert any(order.status == "filled" for order in market.orders)
    market.trade(rows.stop)
    assert one_pass(config) is Passed.DECIDED
    require_brokers_books(tmp_path, market)


def told_and_written(arguments, state, capsys, caplog):
    """All that a command says and logs, and all that lies in its folder afterwards."""
    with caplog.at_level("DEBUG"), suppress(SystemExit):
        main(arguments)
    if (state / LEDGER).exists():
        main(["paper", "status", str(state)])
    said = "".join(capsys.readouterr()) + caplog.text
    return said.encode() + b"".join(each.read_bytes() for each in state.rglob("*"))


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        (None, 200, b"equity"),
        ("/api/v3/account", 401, b"Invalid key"),
        ("/api/v3/order", 400, b"Invalid key"),
    ],
)
def test_keys_of_an_exchange_are_in_no_text_of_a_run(
    exchange, coin_run, tmp_path, capsys, caplog, path, status, told
):
    key, secret = binance_server.KEY, binance_server.SECRET
    exchange.begin(1_200)
    if path is not None:
        answer = Answer(status, {"code": -1100, "msg": f"Invalid key {key} of {secret}"})
        exchange.fail("POST" if "order" in path else "GET", path, "status", answer)
    name = "ccxt:binance"
    arguments = ["paper", "run", str(coin_run), "--feed", name, "--broker", name, "--once"]
    state = tmp_path / "state"
    found = told_and_written([*arguments, "--state", str(state)], state, capsys, caplog)
    assert told in found and key.encode() not in found and secret.encode() not in found
    assert not exchange.faults and state.exists() == (path != "/api/v3/account")


@pytest.mark.parametrize(("path", "told"), [(None, b"equity"), ("/v2/account", b"no such key")])
def test_keys_of_alpaca_are_in_no_text_of_a_run(
    market, stock_run, tmp_path, capsys, caplog, path, told
):
    key, secret = alpaca_server.KEY, alpaca_server.SECRET
    market.trade(1_700)
    if path is not None:
        market.fail("GET", path, "status", Answer(403, {"message": f"no such key {key} {secret}"}))
    arguments = ["paper", "run", str(stock_run), "--feed", "yfinance", "--broker", "alpaca"]
    state = tmp_path / "state"
    found = told_and_written([*arguments, "--once", "--state", str(state)], state, capsys, caplog)
    assert told in found and key.encode() not in found and secret.encode() not in found
    assert not market.faults and state.exists() == (path is None)
