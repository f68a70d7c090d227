"""The page of a backtest's results: a report, with trades, what they came to, and candles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from fastsim.backtest.candles import CandleTables, candle_view, candles_html
from fastsim.backtest.report import write_report
from fastsim.backtest.results import Results
from fastsim.backtest.schema import TradeGroup
from fastsim.backtest.sections import Row, Section
from fastsim.backtest.wording import percent, ratio
from fastsim.stats.bootstrap import Interval

LAST = 20
"""Trades that are listed."""
GROUP = ("Trades", "Won", "Mean return", "In units of risk", "Sum, of wealth")
TRADE = ("Side", "Entered", "Left", "Bars", "Weight", "Entry", "Exit", "Return", "Left by")


def write_results_page(results: Results, path: Path) -> None:
    """Write one HTML file that needs nothing else.

    Raises
    ------
    ConfigError
        `path` is a folder.
    """
    file = results.file
    write_report(
        results.history,
        path,
        title=file.title,
        subtitle=file.subtitle,
        focus=file.focus,
        benchmark=file.benchmark,
        interval=interval_of(results),
        notes=file.notes,
        settings=file.settings,
        sections=_sections(results),
        periods_per_year=file.periods_per_year,
    )


def interval_of(results: Results) -> Interval | None:
    """The interval of the difference in Sharpe ratios; NaN where it could not be found."""
    found = results.file.sharpe_difference
    if found is None:
        return None
    estimate, low, high = (
        float("nan") if end is None else end for end in (found.estimate, found.low, found.high)
    )
    return Interval(estimate, low, high, found.level)


def candle_tables(results: Results) -> CandleTables | None:
    """What candles are drawn of; None without bars."""
    if "bars" not in results.tables:
        return None
    return CandleTables(
        bars=results.tables["bars"],
        trades=results.tables["trades"],
        weights=_weights(results),
        signals=results.tables.get("signals"),
        fans=results.tables.get("fans"),
    )


def _weights(results: Results) -> pl.DataFrame:
    """What the strategy held after each decision: date, symbol, weight."""
    history = results.history
    held = history.held(history.column(results.file.focus))[:, :-1]  # [T, A]
    steps, assets = held.shape
    dates = pl.Series("date", history.timestamps[:-1].astype("datetime64[ns]"))
    return pl.DataFrame(
        {
            "date": dates.gather([step for step in range(steps) for _ in range(assets)]),
            "symbol": list(history.symbols) * steps,
            "weight": held.double().cpu().numpy().reshape(-1),
        }
    )


def _sections(results: Results) -> list[Section]:
    file, sections = results.file, []
    tables = candle_tables(results)
    if tables is not None:
        view = candle_view(tables)
        more = f" {view.left_out} symbols that were traded less are left out." * (view.left_out > 0)
        sections.append(
            Section(
                "Symbol by symbol",
                "Bars with positions from entry to exit, their stops and targets, the forecasts "
                "they were entered on, and below what was held and what signals said (direction "
                f"times how sure, 0 to 1). Drag to zoom; double-click for all of it.{more}",
                html=candles_html("candles", view),
            )
        )
    if file.trades is not None:
        sections.append(
            Section(
                f"Trades of {file.focus}",
                "At the prices of fills and before costs. A position lasts from the fill that "
                f"opens it to the one that closes it. The last {LAST}, the latest first:",
                ("Symbol", *TRADE),
                [_trade_row(row) for row in _last(results.tables["trades"])],
                html=_risk_sentence(results),
            )
        )
    for title, explain, groups in (
        (
            "Trades by confidence",
            "Groups of equal size, by the confidence of the signal they were entered on.",
            file.by_confidence,
        ),
        (
            "Trades by regime",
            "By the regime that the asset was in when they were entered.",
            file.by_regime,
        ),
    ):
        if groups:
            everything = [] if file.trades is None else [_group_row(file.trades, "total")]
            rows = [*map(_group_row, groups), *everything]
            sections.append(Section(title, explain, ("", *GROUP), rows))
    return sections


def _last(trades: pl.DataFrame) -> list[dict[str, Any]]:
    return trades.tail(LAST).reverse().rows(named=True)


def _trade_row(trade: Mapping[str, Any]) -> Row:
    cells = [
        trade["side"],
        *(f"{trade[name]:%Y-%m-%d %H:%M}".removesuffix(" 00:00") for name in ("entered", "left")),
        str(trade["bars"]),
        percent(trade["weight"]),
        *(f"{trade[name]:.6g}" for name in ("entry_price", "exit_price")),
        percent(trade["simple_return"], 2),
        trade["reason"],
    ]
    return Row(trade["symbol"], cells)


def _group_row(group: TradeGroup, kind: str = "") -> Row:
    cells: Sequence[str] = [
        f"{group.trades:,}",
        percent(group.won),
        percent(group.mean_return, 2),
        "" if group.in_risk is None else ratio(group.in_risk),
        percent(group.contribution),
    ]
    return Row(group.name, cells, kind)


def _risk_sentence(results: Results) -> str:
    """Planned beside realised risk, in words; nothing without stops."""
    risk = results.file.risk
    if risk is None:
        return ""
    return (
        f"<p>Planned to lose at a stop: {percent(risk.planned_mean, 2)} of wealth in the mean, "
        f"{percent(risk.planned_most, 2)} at most. Lost by those that lost: "
        f"{percent(risk.realised_mean, 2)} in the mean, {percent(risk.realised_most, 2)} at most; "
        f"{percent(risk.beyond)} of {risk.trades:,} trades lost more than was planned.</p>"
    )
