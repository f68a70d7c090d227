"""Some days of one symbol of a store: fetched, put together with what is there, and judged."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import polars as pl

from fastsim.data.dates import DAY, iso_date, show, show_day
from fastsim.data.intervals import closing_times
from fastsim.data.merge import Merged, fields_of, merge, rows_of, within
from fastsim.data.sources import ask, check_interval
from fastsim.data.store import Store, StoreSpec
from fastsim.data.update_config import UpdateConfig
from fastsim.data.vendors import BarRequest
from fastsim.errors import DataError, FastsimError, one_line

logger = logging.getLogger(__name__)

EVER, NEVER = np.datetime64("1678-01-01", "ns"), np.datetime64("2262-01-01", "ns")


class Renewal(NamedTuple):
    """What became of some days of a symbol."""

    symbol: str
    source: str
    first: np.datetime64  # rows of the symbol from here...
    stop: np.datetime64  # ...to before here are replaced
    rows: pl.DataFrame  # by these
    added: int  # bars that were not there before
    altered: bool  # whether the rows are others than before
    events: tuple[str, ...] = ()


@dataclass(slots=True)
class Renewing:
    """What is needed to renew a symbol of a store; `refused` tells why some could not be."""

    spec: StoreSpec
    config: UpdateConfig
    now: np.datetime64
    store: Store | None
    """What there is already; None where nothing is."""
    refused: list[str] = field(default_factory=list)
    fields: tuple[str, ...] = ()
    """What is kept of a bar: where nobody has said it, all that the first answer has."""

    @property
    def last_day(self) -> str:
        """Up to which bars are asked for."""
        today = show_day(self.now)
        return today if self.config.end is None else min(today, self.config.end)

    def some(self, symbol: str, kept: pl.DataFrame, start: str, end: str) -> Renewal | None:
        """Days of a symbol of which rows are kept; None where what came was refused.

        Raises
        ------
        DataError
            No source can be asked, or compared.
        """
        first, stop = iso_date(start, "start"), iso_date(end, "end") + DAY
        kept = kept.filter(within(kept, first, stop))
        failed = []
        for source in self.spec.sources:
            try:
                fetched = self._asked(source, symbol, start, end)
                merged = merge(kept, fetched, self.config.tolerance)
            except FastsimError as error:
                failed.append(_failure(source, error))
                continue
            _tell(symbol, source, failed)
            events = self._judged(symbol, source, merged)
            if merged.adjusted and events is None and self.config.fresh_when_adjusted:
                return self.whole(symbol, (source,), f" anew, as {merged.adjusted}")
            if events is None:
                return None
            return Renewal(
                symbol, source, first, stop, merged.rows, merged.added, merged.altered, events
            )
        raise DataError(f"{symbol} cannot be had: {'; '.join(failed)}")

    def whole(self, symbol: str, sources: tuple[str, ...], why: str = "") -> Renewal:
        """All days of a symbol, in place of what is kept of it; DataError as `some`."""
        kept = None if self.store is None else self.store.rows_of(symbol)
        failed = []
        for source in sources:
            try:
                rows = self._asked(source, symbol, self.spec.start, self.last_day)
                if kept is not None and len(kept):
                    _require_no_less(rows, kept)
            except FastsimError as error:
                failed.append(_failure(source, error))
                continue
            _tell(symbol, source, failed)
            event = f"all {len(rows)} bars of {symbol} were fetched from {source}{why}"
            added = len(rows) - (0 if kept is None else len(kept))
            return Renewal(symbol, source, EVER, NEVER, rows, added, True, (event,))
        raise DataError(f"{symbol} cannot be had: {'; '.join(failed)}")

    def _judged(self, symbol: str, source: str, merged: Merged) -> tuple[str, ...] | None:
        """What is to be recorded; None where it is refused, or all has to be fetched anew."""
        anew = f"--fresh {symbol} fetches all of it anew"
        if merged.adjusted:
            if not self.config.fresh_when_adjusted:
                self.refused.append(
                    f"{symbol} was adjusted anew by {source}: {merged.adjusted}; {anew}"
                )
            return None
        if merged.revised and not self.config.accept_revisions:
            self.refused.append(
                f"{symbol} was revised by {source}: {merged.revised[0]}; --accept-revisions takes "
                f"it over, {anew}"
            )
            return None
        return tuple(f"{symbol} was revised by {source}: {text}" for text in merged.revised)

    def _asked(self, source: str, symbol: str, start: str, end: str) -> pl.DataFrame:
        """Rows of a symbol that a source gives: those of bars that have closed, in these days."""
        request = BarRequest(
            symbols=(self.spec.names.get(source, {}).get(symbol, symbol),),
            start=start,
            end=end,
            interval=self.spec.interval,
            checks=self.spec.checks,
        )
        bars = ask(source, request, with_volume=not self.fields or "volume" in self.fields)
        fields = self.fields or fields_of(bars)
        rows = rows_of(bars, symbol, fields=fields, source=source, fetched=self.now)
        stamps = rows["timestamp"].to_numpy()
        closed = closing_times(stamps, self.spec.interval) <= self.now
        inside = within(rows, iso_date(start, "start"), iso_date(end, "end") + DAY)
        rows = rows.filter(closed & inside)
        if not len(rows):
            raise DataError(f"none of its bars from {start} to {end} has closed")
        check_interval(rows["timestamp"].to_numpy(), self.spec.interval)
        self.fields = fields
        return rows


def _require_no_less(rows: pl.DataFrame, kept: pl.DataFrame) -> None:
    """Raise DataError where a fetch of all bars reaches less far than what is kept."""
    for end, place, less in (("begin", 0, np.greater), ("end", -1, np.less)):
        stamp, before = (each["timestamp"].sort().to_numpy()[place] for each in (rows, kept))
        if less(stamp, before):
            raise DataError(
                f"its bars {end} on {show(stamp)}, and those that are kept on {show(before)}"
            )


def _failure(source: str, error: FastsimError) -> str:
    """Why a source gave nothing."""
    text = one_line(error)
    return text if source in text else f"{source}: {text}"


def _tell(symbol: str, source: str, failed: list[str]) -> None:
    """Log why it was not the first source that gave a symbol."""
    if failed:
        logger.warning("%s is from %s, since %s", symbol, source, "; ".join(failed))
