"""Feeds by their names: replay:SOURCE, store:NAME, yfinance, ccxt:EXCHANGE."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from fastsim.agent.agent import Agent
from fastsim.data.bars import Bars
from fastsim.data.dates import iso_date, show_day
from fastsim.data.store import Store
from fastsim.data.vendors import BarRequest, fetch
from fastsim.errors import ConfigError
from fastsim.live.feed import Feed, LiveFeed, ReplayFeed, interval_of
from fastsim.live.watching import CandleWatch, watching_client

FEEDS = "replay:FILE, replay:SAMPLE, store:NAME, yfinance or ccxt:EXCHANGE"


def make_feed(
    name: str,
    agent: Agent,
    *,
    start: str | None = None,
    end: str | None = None,
    closed: Sequence[str] = (),
) -> Feed:
    """The feed of this name for an agent's bars.

    Raises
    ------
    ConfigError
        There is no such feed, or it has no bars of the agent's length.
    DataError
        A date is none, or a history cannot be read.
    """
    kind, _, rest = name.partition(":")
    calendar = agent.spec.calendar
    days = [date.fromisoformat(show_day(iso_date(text, "closed"))) for text in closed]
    if kind == "replay" and rest:
        return ReplayFeed(rest, calendar, start=start, end=end)
    if kind == "store" and rest:
        Store.open(rest)  # an error if there is none
        needed = 2 * agent.bars_needed

        def of_store(symbols: Sequence[str], first: str, last: str) -> Bars:
            store, count = Store.open(rest), needed
            bars = store.last(count, tuple(symbols))
            while len(bars) == count and bars.timestamps[0] > iso_date(first, "first"):
                count *= 2
                bars = store.last(count, tuple(symbols))
            return bars

        return LiveFeed(name, of_store, calendar, closed=days)
    if name == "yfinance" or (kind == "ccxt" and rest):
        interval = interval_of(calendar)

        def of_vendor(symbols: Sequence[str], first: str, last: str) -> Bars:
            request = BarRequest(
                symbols=tuple(symbols), start=first, end=last, interval=interval, exchange=rest
            )
            return fetch(kind, request)

        watch = CandleWatch(lambda: watching_client(rest), agent.symbols[0], interval)
        return LiveFeed(
            *(name, of_vendor, calendar), closed=days, watch=watch if kind == "ccxt" else None
        )
    raise ConfigError(f"PaperConfig.feed must be {FEEDS}, got {name!r}")
