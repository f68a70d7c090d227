"""Candles of one symbol at a time: its bars, what was traded, its levels and what was forecast.

All symbols lie in the page as plain numbers; `candles.js` draws the one that is chosen, so that it
works without a network. Places along x are bars, whose dates are written once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fastsim.backtest.charts import DATES, written_dates
from fastsim.backtest.page import CONFIG, INK, Chart, Trace, as_script, as_shown

MAX_CANDLES = 24_000
"""Of all symbols together: the last so many bars of each."""
MAX_BARS, MIN_BARS = 2_520, 126
"""Bars of a symbol, at most and at least."""
MAX_SYMBOLS = 40
"""Symbols, those that were traded most; of more, the page says how many are left out."""
MAX_TRADES = 3_000
"""Of all symbols together: the last so many of each."""
MAX_FAN_POINTS = 24_000
"""Quantiles of all fans together: those of the last trades of each symbol."""
SPANS = {"63": "last 63 bars", "126": "last 126 bars", "252": "last 252 bars", "all": "all bars"}
WON, LOST, LONG, SHORT = "#2e8b62", "#cd463c", "#0b5cad", "#6b4c9a"
HEIGHT = 620


class CandleTables(NamedTuple):
    """What is shown; columns as `fastsim.backtest.results` has them."""

    bars: pl.DataFrame
    trades: pl.DataFrame
    weights: pl.DataFrame | None = None  # date, symbol, weight: held after each decision
    signals: pl.DataFrame | None = None
    fans: pl.DataFrame | None = None


class CandleView(NamedTuple):
    """Candles of several symbols, as `candles.js` takes them."""

    dates: list[str]  # of the bars that are shown, and of those that fans reach
    bars: int  # how many of them there are bars of
    symbols: Mapping[str, Mapping[str, Any]]  # `bars` and `traces`, by symbol
    left_out: int  # symbols
    layout: Mapping[str, Any]


def candle_view(tables: CandleTables) -> CandleView:
    """Lay out everything that is to be shown.

    A table of trades may be empty, but not that of bars.
    """
    chosen, left_out = _chosen(tables)
    stamps = tables.bars["date"].unique().sort().to_numpy()
    share = MAX_CANDLES // max(1, len(chosen))
    stamps = stamps[-max(MIN_BARS, min(MAX_BARS, share)) :]
    reach = 0 if tables.fans is None or tables.fans.is_empty() else int(tables.fans["ahead"].max())  # type: ignore[arg-type]
    later = _continued(stamps, reach)
    places = {stamp: place for place, stamp in enumerate(later.tolist())}
    shown = _Shown(tables, stamps, places, len(chosen))
    return CandleView(
        dates=written_dates(later).tolist(),
        bars=len(stamps),
        symbols={symbol: shown.symbol(symbol) for symbol in chosen},
        left_out=left_out,
        layout=_layout(tables),
    )


def candles_html(name: str, view: CandleView) -> str:
    """An element of a page: two drop-downs, and the chart they choose what is drawn in."""
    script = (files("fastsim.backtest") / "candles.js").read_text("utf-8")
    shown = {"dates": view.dates, "bars": view.bars, "symbols": view.symbols}
    data, layout, config = map(as_script, (shown, view.layout, CONFIG))
    symbols = "".join(f'<option value="{escape(s)}">{escape(s)}</option>' for s in view.symbols)
    spans = "".join(
        f'<option value="{span}"{" selected" if span == "126" else ""}>{words}</option>'
        for span, words in SPANS.items()
    )
    return (
        f'<p class="choose"><label>Symbol <select id="{name}_symbol">{symbols}</select></label> '
        f'<label>Show <select id="{name}_span">{spans}</select></label></p>\n'
        f'<div id="{name}" class="plotly-graph-div" style="height: {HEIGHT}px"></div>\n'
        f'<script>{script}\nshowCandles("{name}", {data}, {layout}, {config});</script>'
    )


def _chosen(tables: CandleTables) -> tuple[list[str], int]:
    """Symbols that are shown, in the order of the data, and how many are not."""
    symbols = tables.bars["symbol"].unique(maintain_order=True).to_list()
    traded = dict(tables.trades["symbol"].value_counts().rows())
    most = sorted(symbols, key=lambda symbol: -traded.get(symbol, 0))[:MAX_SYMBOLS]
    return [symbol for symbol in symbols if symbol in most], len(symbols) - len(most)


def _continued(stamps: NDArray[np.datetime64], more: int) -> NDArray[np.datetime64]:
    """The same stamps and so many after them, at the usual distance."""
    if len(stamps) < 2 or not more:
        return stamps
    step = np.median(np.diff(stamps).astype(np.int64)).astype("timedelta64[ns]")
    return np.concatenate([stamps, stamps[-1] + step * np.arange(1, more + 1)])


class _Shown:
    """Traces of one symbol after the other, places by stamp in nanoseconds."""

    def __init__(
        self,
        tables: CandleTables,
        stamps: NDArray[np.datetime64],
        places: Mapping[int, int],
        symbols: int,
    ) -> None:
        self._tables, self._stamps, self._places = tables, stamps, places
        self._most_trades = max(1, MAX_TRADES // symbols)
        self._most_fan = max(1, MAX_FAN_POINTS // symbols)

    def symbol(self, symbol: str) -> dict[str, Any]:
        """Its bars and traces."""
        own = pl.col("symbol") == symbol
        bars = self._tables.bars.filter(own)
        trades = self._tables.trades.filter(own & self._begins("decided"))
        trades = trades.tail(self._most_trades)
        return {
            "bars": self._prices(bars),
            "traces": [
                *self._fans(own),
                *self._levels(trades),
                *self._ways(trades),
                *self._below(own),
            ],
        }

    def _begins(self, column: str) -> pl.Expr:
        return pl.col(column) >= pl.lit(self._stamps[0]).cast(pl.Datetime("ns"))

    def _prices(self, bars: pl.DataFrame) -> list[NDArray[np.float32]]:
        """Open, high, low and close at every shown bar, NaN where there is none; or closes."""
        names = ["open", "high", "low", "close"]
        if bars["open"].is_null().all():
            names = ["close"]
        return [self._laid(bars, name) for name in names]

    def _laid(self, table: pl.DataFrame, column: str) -> NDArray[np.float32]:
        """A column at every shown bar, NaN where the table has none."""
        values = np.full(len(self._stamps), np.nan, dtype=np.float32)
        table = table.filter(self._begins("date")).drop_nulls(column)
        rows = [self._places.get(stamp, -1) for stamp in _whole(table["date"])]
        known = np.array([row for row in rows if row >= 0], dtype=np.intp)
        found = table[column].cast(pl.Float64).to_numpy()[np.array(rows, dtype=np.intp) >= 0]
        values[known] = found
        return values

    def _at(self, stamps: pl.Series) -> list[int]:
        return [self._places[stamp] for stamp in _whole(stamps)]

    def _levels(self, trades: pl.DataFrame) -> Iterator[Trace]:
        """Stops and targets, from the entry to the exit."""
        for name, colour in (("stop", LOST), ("target", WON)):
            held = trades.drop_nulls(name)
            if len(held):
                ends = (self._at(held["entered"]), self._at(held["left"]))
                style = {"color": colour, "width": 1.3, "dash": "dot"}
                levels = held[name].to_list()
                yield _segments(name, ends, (levels, levels), style) | {"hoverinfo": "skip"}

    def _ways(self, trades: pl.DataFrame) -> Iterator[Trace]:
        """From entries to exits, and marks at both."""
        for won, colour, name in ((True, WON, "won"), (False, LOST, "lost")):
            part = trades.filter((pl.col("simple_return") > 0) == won)
            if len(part):
                ends = (self._at(part["entered"]), self._at(part["left"]))
                levels = (part["entry_price"].to_list(), part["exit_price"].to_list())
                yield _segments(name, ends, levels, {"color": colour, "width": 2}) | {
                    "hoverinfo": "skip"
                }
        for side, sign, colour in (
            ("long", "triangle-up", LONG),
            ("short", "triangle-down", SHORT),
        ):
            part = trades.filter(pl.col("side") == side)
            if len(part):
                yield _marks(
                    f"enter {side}",
                    self._at(part["entered"]),
                    part["entry_price"],
                    {"symbol": sign, "color": colour, "size": 9},
                    [_entry(row) for row in part.rows(named=True)],
                )
        ended = trades.filter(pl.col("reason") != "open")
        if len(ended):
            colours = [WON if gain > 0 else LOST for gain in ended["simple_return"]]
            yield _marks(
                "leave",
                self._at(ended["left"]),
                ended["exit_price"],
                {"symbol": "x", "color": colours, "size": 7},
                [_exit(row) for row in ended.rows(named=True)],
            )

    def _fans(self, own: pl.Expr) -> Iterator[Trace]:
        """Bands between quantiles, and medians, from the close that was forecast from."""
        fans = self._tables.fans
        if fans is None:
            return
        fans = fans.filter(own & self._begins("date")).tail(self._most_fan)
        parts = [_Fan(part, self._at(part["date"])[0]) for part in fans.partition_by("date")]
        for low, high, shade in ((0.1, 0.9, 0.10), (0.25, 0.75, 0.16)):
            bands = [fan.band(low, high) for fan in parts]
            x, y = _with_gaps([band[0] for band in bands]), _with_gaps([band[1] for band in bands])
            if y:
                fill = {"fill": "toself", "fillcolor": f"rgba(11, 92, 173, {shade})"}
                name = f"forecast, {low:.0%} to {high:.0%}"
                yield _line(name, x, y, {"width": 0}) | fill | BEHIND
        lines = [fan.line(0.5) for fan in parts]
        x, y = _with_gaps([line[0] for line in lines]), _with_gaps([line[1] for line in lines])
        if y:
            style = {"color": "#0b5cad", "width": 1, "dash": "dot"}
            yield _line("forecast, median", x, y, style) | BEHIND

    def _below(self, own: pl.Expr) -> Iterator[Trace]:
        """What was held, and what signals said, on axes of their own."""
        for axis, name, table, column, colour in (
            ("y2", "weight", self._tables.weights, pl.col("weight"), LONG),
            ("y3", "signal", self._tables.signals, SAID, "#1f8a70"),
        ):
            if table is not None:
                part = table.filter(own).with_columns(column.alias("shown"))
                line = {"color": colour, "width": 1, "shape": "hv"}
                yield {
                    **_line(name, "all", self._laid(part, "shown"), line),
                    **{"yaxis": axis, "fill": "tozeroy", "showlegend": False},
                    "hovertemplate": "%{y:.1%}" if axis == "y2" else "%{y:+.2f}",
                }


class _Fan:
    """One forecast: places and prices by level, from its own bar on."""

    def __init__(self, table: pl.DataFrame, place: int) -> None:
        by_level = table.sort("ahead").partition_by("level", as_dict=True)
        self._levels = {level: part["price"].to_list() for (level,), part in by_level.items()}
        ahead = table["ahead"].unique().sort().to_list()
        self._places = [place + bars for bars in ahead]

    def line(self, level: float) -> tuple[list[int], list[float]]:
        return self._places, self._levels[level]

    def band(self, low: float, high: float) -> tuple[list[int], list[float]]:
        places = [*self._places, *reversed(self._places)]
        return places, [*self._levels[low], *reversed(self._levels[high])]


SAID = pl.col("direction") * (2.0 * pl.col("confidence") - 1.0).fill_null(0.0)
"""Direction times how sure it is, from 0 to 1."""
BEHIND = {"meta": "behind", "hoverinfo": "skip"}


def _whole(stamps: pl.Series) -> list[int]:
    """Stamps in nanoseconds."""
    return stamps.cast(pl.Datetime("ns")).to_physical().to_list()


def _line(name: str, x: Any, y: Any, style: Mapping[str, Any]) -> Trace:
    y = np.array(y, dtype=np.float32)  # None is NaN: a gap
    return {"type": "scatter", "mode": "lines", "name": name, "x": x, "y": y, "line": dict(style)}


def _segments(
    name: str,
    ends: tuple[list[int], list[int]],
    levels: tuple[list[float], list[float]],
    style: Mapping[str, Any],
) -> Trace:
    x = _with_gaps([list(pair) for pair in zip(*ends, strict=True)])
    y = _with_gaps([list(pair) for pair in zip(*levels, strict=True)])
    return _line(name, x, y, style)


def _with_gaps(parts: Sequence[Sequence[Any]]) -> list[Any]:
    """Parts one after the other, with nothing between them."""
    return [each for part in parts for each in (*part, None)]


def _marks(
    name: str, x: list[int], y: pl.Series, marker: Mapping[str, Any], words: list[str]
) -> Trace:
    edge = {"line": {"color": "white", "width": 1}}
    return {
        **{"type": "scatter", "mode": "markers", "name": name, "x": x, "text": words},
        **{"y": y.cast(pl.Float32).to_numpy(), "marker": {**marker, **edge}},
        "hovertemplate": "%{text}",
    }


def _entry(trade: Mapping[str, Any]) -> str:
    words = [f"{trade['entry_price']:.6g}, weight {trade['weight']:.1%}"]
    if trade["confidence"] is not None:
        words.append(f"confidence {trade['confidence']:.3f}")
    return as_shown(", ".join([*words, *([trade["regime"]] if trade["regime"] else [])]))


def _exit(trade: Mapping[str, Any]) -> str:
    gain = f"{trade['simple_return']:+.2%} of a {trade['side']} position"
    return as_shown(f"{gain} over {trade['bars']} bars, left by {trade['reason']}")


def _layout(tables: CandleTables) -> dict[str, Any]:
    """Prices above; below them what was held, and what signals said."""
    chart = Chart.along(DATES)
    below = [("yaxis2", "Weight", tables.weights), ("yaxis3", "Signal", tables.signals)]
    below = [each for each in below if each[2] is not None]
    for number, (axis, title, _) in enumerate(reversed(below)):
        bottom = 0.15 * number
        chart.layout[axis] = {
            **chart.y_axis,
            **{"domain": [bottom, bottom + 0.12], "title": {"text": title}, "nticks": 4},
            "tickformat": "~%" if axis == "yaxis2" else "~g",
        }
    chart.layout["xaxis"] |= {"anchor": "free", "position": 0.0, "hoverformat": "%Y-%m-%d %H:%M"}
    chart.y_axis.update(domain=[0.15 * len(below) + 0.02 * bool(below), 1.0])
    chart.y_axis.update(title={"text": "Price, adjusted"}, tickformat=".6~g")
    chart.layout["legend"] |= {"font": {"size": 12, "color": INK}}
    return chart.layout
