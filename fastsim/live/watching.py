"""Waiting for a candle to begin, which an exchange tells as it happens (ccxt's `watch_ohlcv`).

What is told only wakes: bars are asked for as they always are, so that there is one kind of them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

from fastsim.errors import one_line

logger = logging.getLogger(__name__)


class CandleWatch:
    """Waits for the next candle of one symbol; by the clock where the exchange does not tell.

    Parameters
    ----------
    open_client
        Gives a client of ccxt.pro, or None where the exchange has no `watch_ohlcv`; first asked
        when it is first waited.
    symbol, timeframe
        Whose candles, and how long they are.
    """

    def __init__(self, open_client: Callable[[], Any], symbol: str, timeframe: str) -> None:
        self._open, self._symbol, self._timeframe = open_client, symbol, timeframe
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: Any = None
        self._asked: asyncio.Future[Any] | None = None
        self._newest: int | None = None

    def wait(self, seconds: float) -> None:
        """Come back when a candle has begun since the last one that was seen, or after so long."""
        deadline = time.monotonic() + seconds
        try:
            if self._loop is None:
                self._loop, self._client = asyncio.new_event_loop(), self._open()
            if self._client is not None:
                self._loop.run_until_complete(self._until_told(deadline))
                return
        except Exception as error:  # of the network, in whatever words: the clock is left
            reason = one_line(f"{type(error).__name__}: {error}", 200)
            logger.warning("candles of %s are not watched for now (%s)", self._symbol, reason)
            self.close()
        time.sleep(max(0.0, deadline - time.monotonic()))

    def close(self) -> None:
        """Let go of the exchange; it can be waited again."""
        loop, client = self._loop, self._client
        self._loop = self._client = self._asked = None
        if loop is None:
            return
        try:
            loop.run_until_complete(_cancelled(loop))
            if client is not None:
                loop.run_until_complete(client.close())
        except Exception as error:  # it is of no use any more
            logger.debug("closing: %s", one_line(str(error), 200))
        finally:
            loop.close()

    async def _until_told(self, deadline: float) -> None:
        while (left := deadline - time.monotonic()) > 0:
            if self._asked is None:
                told = self._client.watch_ohlcv(self._symbol, self._timeframe)
                self._asked = asyncio.ensure_future(told)
            done, _ = await asyncio.wait({self._asked}, timeout=left)
            if not done:
                return  # and it is waited for again the next time
            asked, self._asked = self._asked, None
            before, self._newest = self._newest, max(candle[0] for candle in asked.result())
            if before is not None and self._newest > before:
                return


async def _cancelled(loop: asyncio.AbstractEventLoop) -> None:
    """Whatever is under way, after an interrupt also what waits for it."""
    tasks = asyncio.all_tasks(loop) - {asyncio.current_task(loop)}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def watching_client(exchange: str) -> Any:
    """A client of ccxt.pro for public candles; None where there is none that tells of them."""
    pro = import_module("ccxt.pro")  # it takes a second, which only a process that waits spends
    make = getattr(pro, exchange, None)
    client = None if make is None else make({"enableRateLimit": True})
    return client if client is not None and client.has.get("watchOHLCV") else None
