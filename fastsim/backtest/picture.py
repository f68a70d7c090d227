"""The picture of a backtest's results as PNG, for whoever cannot show a page: needs matplotlib."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fastsim.backtest.charts import BOLD_COLOURS, to_array
from fastsim.backtest.results import Results
from fastsim.backtest.schema import TradeGroup
from fastsim.config import write_whole
from fastsim.errors import ConfigError, did_you_mean
from fastsim.stats.metrics import drawdown

LAST = 126
"""Bars that are drawn as candles."""
WON, LOST = "#2e8b62", "#cd463c"


def write_picture(results: Results, path: Path, symbol: str | None = None) -> None:
    """Draw equity, drawdown, trades by confidence and regime, and the last candles of one symbol.

    Parameters
    ----------
    symbol
        Whose candles; by default that of the last trade.

    Raises
    ------
    ConfigError
        matplotlib is not installed, or there is no such symbol.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        raise ConfigError(
            "a picture needs matplotlib, which is not installed: pip install 'fastsim-rl[plot]', "
            "or write .html"
        ) from None
    symbol = _symbol(results, symbol)
    figure = Figure(figsize=(12, 13), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    parts: Any = figure.subfigures(4, 1, height_ratios=(4, 2, 3, 4))
    equity, below, groups, candles = parts
    _equity(equity.subplots(), results)
    _drawdown(below.subplots(), results)
    left, right = groups.subplots(1, 2)
    _groups(left, results.file.by_confidence, "Sum of trades by confidence, of wealth")
    _groups(right, results.file.by_regime, "Sum of trades by regime, of wealth")
    _candles(candles.subplots(), results, symbol)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    write_whole(path, content.getvalue())


def _symbol(results: Results, symbol: str | None) -> str:
    known = results.file.symbols
    if symbol is not None and symbol not in known:
        raise ConfigError(
            f"results have no symbol {symbol!r}, but {', '.join(known)}"
            f"{did_you_mean(symbol, known)}"
        )
    trades = results.tables["trades"]
    last: str = trades["symbol"][-1] if len(trades) else known[0]
    return symbol or last


def _bold(results: Results) -> list[int]:
    history = results.history
    wanted = (results.file.focus, results.file.benchmark, "equal weight", "buy and hold")
    names = list(dict.fromkeys(name for name in wanted if name in history.names))
    return [history.names.index(name) for name in names]


def _equity(axes: Any, results: Results) -> None:
    history = results.history
    growth = to_array(history.wealth / history.wealth[0])
    for place, colour in zip(_bold(results), BOLD_COLOURS, strict=False):
        axes.plot(history.timestamps, growth[:, place], color=colour, label=history.names[place])
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.set_title(f"{results.file.title}: growth of one unit")
    axes.legend(frameon=False, loc="upper left")
    _plain(axes)


def _drawdown(axes: Any, results: Results) -> None:
    history, places = results.history, _bold(results)
    losses = to_array(drawdown(history.simple_returns[:, places]))
    for number, colour in zip(range(len(places)), BOLD_COLOURS, strict=False):
        axes.plot(history.timestamps[1:], 100.0 * losses[:, number], color=colour)
    axes.set_title("Drawdown, %")
    _plain(axes)


def _groups(axes: Any, groups: tuple[TradeGroup, ...], title: str) -> None:
    axes.set_title(title)
    _plain(axes)
    if not groups:
        axes.text(0.5, 0.5, "the strategy has no signals", ha="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    gains = [100.0 * group.contribution for group in groups]
    colours = [WON if gain > 0 else LOST for gain in gains]
    places = np.arange(len(groups))
    axes.barh(places, gains, color=colours)
    axes.set_yticks(places, [f"{group.name} ({group.trades:,})" for group in groups])
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter("{x:g} %")


def _candles(axes: Any, results: Results, symbol: str) -> None:
    own = pl.col("symbol") == symbol
    bars = results.tables["bars"].filter(own).tail(LAST)
    places = {stamp: place for place, stamp in enumerate(bars["date"])}
    axes.set_title(f"{symbol}: the last {len(bars)} bars and their trades")
    _plain(axes)
    for name, rows in (("rise", pl.col("close") >= pl.col("open")), ("fall", None)):
        part = bars.filter(rows if rows is not None else pl.col("close") < pl.col("open"))
        colour, x = WON if name == "rise" else LOST, [places[stamp] for stamp in part["date"]]
        axes.vlines(x, part["low"], part["high"], color="#566270", linewidth=0.8)
        axes.vlines(x, part["open"], part["close"], color=colour, linewidth=3.5)
    if bars["open"].is_null().all():
        axes.plot(range(len(bars)), bars["close"], color="#1d2733")
    _fans(axes, results, own, places)
    trades = results.tables["trades"].filter(own & pl.col("entered").is_in(list(places)))
    for trade in trades.rows(named=True):
        ends = [places[trade["entered"]], places.get(trade["left"], len(bars) - 1)]
        colour = WON if trade["simple_return"] > 0 else LOST
        axes.plot(ends, [trade["entry_price"], trade["exit_price"]], color=colour, marker="o", ms=4)
        for level in ("stop", "target"):
            if trade[level] is not None:
                axes.plot(ends, [trade[level]] * 2, color=LOST if level == "stop" else WON, ls=":")
    shown = list(range(0, len(bars), max(1, len(bars) // 6)))
    axes.set_xticks(shown, [f"{bars['date'][place]:%Y-%m-%d}" for place in shown])


def _fans(axes: Any, results: Results, own: pl.Expr, places: Mapping[Any, int]) -> None:
    """Bands that hold half and eight tenths of what was forecast."""
    if "fans" not in results.tables:
        return
    fans = results.tables["fans"].filter(own & pl.col("date").is_in(list(places)))
    for (stamp,), fan in fans.sort("ahead").partition_by("date", as_dict=True).items():
        levels = {level: part for (level,), part in fan.partition_by("level", as_dict=True).items()}
        for low, high in ((0.1, 0.9), (0.25, 0.75)):
            x = places[stamp] + levels[low]["ahead"].to_numpy()
            ends = (levels[low]["price"], levels[high]["price"])
            axes.fill_between(x, *ends, color="#0b5cad", alpha=0.12, linewidth=0)


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e4e8ed", linewidth=0.7)
    axes.set_axisbelow(True)
