"""Tables of forecasts: how good they are, what fits forget, and what networks take."""

from __future__ import annotations

from collections.abc import Sequence

from cells import Row, interval, share, table


def official_table(rows: list[Row]) -> str:
    """Our forecasters beside the official packages."""
    head = ["model", "batch", "ours, forecasts/s", "official", "ratio"]
    names = ("case", "batch_size", "forecasts_per_s", "official_forecasts_per_s", "ratio")
    return table(head, ([str(row[name]) for name in names] for row in rows))


def accuracy_table(rows: list[Row]) -> str:
    """Forecasters by losses relative to a random walk and to GARCH, with intervals, and the PIT."""
    head = [
        "forecaster",
        "quantile loss / walk",
        "CRPS / walk",
        "quantile loss / garch-t",
        "CRPS / garch-t",
        "80 % band holds",
        "PIT in tenths, %",
        "failed fits",
        "ms a window",
    ]
    cells = []
    for entry in rows[0]["forecasters"]:
        ratios = [
            entry["relative"][reference][loss]
            for reference in ("random-walk-60", "garch-t")
            for loss in ("quantile_loss", "crps")
        ]
        cells.append(
            [
                entry["name"],
                *map(interval, ratios),
                share(entry["coverage"]),
                " ".join(f"{100 * part:.0f}" for part in entry["pit"]),
                f"{entry['fallbacks']:,}",
                f"{1000 * entry['seconds'] / entry['windows']:,.1f}",
            ]
        )
    return table(head, cells)


def daily_table(rows: list[Row]) -> str:
    """The same in brief."""
    head = ["forecaster", "loss / walk", "loss / garch-t", "80 % band holds", "ms a window"]
    cells = [
        [
            entry["name"],
            *(
                interval(entry["relative"][reference]["quantile_loss"])
                for reference in ("random-walk-60", "garch-t")
            ),
            share(entry["coverage"]),
            f"{1000 * entry['seconds'] / entry['windows']:,.1f}",
        ]
        for entry in rows[0]["forecasters"]
    ]
    return table(head, cells)


def intraday_table(rows: list[Row]) -> str:
    """Forecasters within the day by loss relative to GARCH, without a season and with one."""
    head = ["forecaster", "loss / garch-t", "loss / garch-t in the profile", "80 % band holds"]
    cells = [
        [
            row["forecaster"],
            interval(row["over_garch"]),
            interval(row.get("over_garch_season")),
            share(row["coverage"]),
        ]
        for row in rows
    ]
    return table(head, cells)


def worlds_table(rows: list[Row]) -> str:
    """What is recommended within the day, in markets whose season is planted."""
    head = [
        "bars",
        "hours",
        "season",
        "volatility",
        "holes",
        "mean of correction and garch-t / garch-t",
        "prior, season of the context / prior",
        "80 % band holds",
    ]
    cells = [
        [
            f"{row['minutes']} min",
            row["hours"],
            row["season"],
            row["law"],
            str(row["holes"]),
            interval(row["combined_over_garch"]),
            interval(row["season_over_none"]),
            share(row["coverage"]),
        ]
        for row in rows
    ]
    return table(head, cells)


def forgetting_table(rows: list[Row]) -> str:
    """What a fit is worth where it was not fitted: loss after it over the loss before."""
    head = ["`--mode`", "validation", "kept", *rows[0]["after_over_before"]]
    cells = [
        [
            row["mode"],
            interval(row["validation"]),
            "yes" if row["kept"] else "no",
            *map(interval, row["after_over_before"].values()),
        ]
        for row in rows
    ]
    return table(head, cells)


def scratch_table(rows: list[Row]) -> str:
    """A prior that was fitted from scratch beside the one that ships."""
    head = [
        "steps",
        "batch",
        "CPU s",
        "loss on new worlds / the shipped prior's",
        "80 % band holds",
    ]
    cells = [
        [
            f"{row['steps']:,}",
            f"{row['batch_size']:,}",
            f"{row['cpu_s']:,.0f}",
            "{:.4f} [{:.4f}, {:.4f}]".format(*row["over_shipped"]),
            f"{row['coverage']:.1%}, the shipped {row['shipped_coverage']:.1%}",
        ]
        for row in rows
    ]
    return table(head, cells)


def latency_table(rows: list[Row]) -> str:
    """CPU time of one forecast."""
    head = ["network", "weights", "median, ms", "99th percentile, ms"]
    cells = [
        [row["network"], f"{row['weights']:,}", f"{row['median_ms']:.2f}", f"{row['p99_ms']:.2f}"]
        for row in rows
    ]
    return table(head, cells)


def neural_table(rows: list[Row]) -> str:
    """Networks beside those of neuralforecast."""
    head = [
        "network, weights",
        "peer, weights",
        "loss / walk",
        "the peer's",
        "loss / the peer's",
        "CPU s",
        "the peer's",
        "peak MB",
        "the peer's",
    ]
    return table(head, map(_neural_cells, rows))


def _neural_cells(row: Row) -> Sequence[str]:
    ours, theirs = row["ours"], row["theirs"]
    return [
        f"{row['network']}, {ours['weights']:,}",
        f"{row['peer']}, {theirs['weights']:,}",
        interval(ours["over_walk"]),
        interval(theirs["over_walk"]),
        interval(row["over_peer"]),
        f"{ours['cpu_s']:,.1f}",
        f"{theirs['cpu_s']:,.1f}",
        f"{ours['peak_mb']:,.0f}",
        f"{theirs['peak_mb']:,.0f}",
    ]


FORECAST_TABLES = {
    "official_forecasters": official_table,
    "accuracy": accuracy_table,
    "accuracy_brief": daily_table,
    "intraday": intraday_table,
    "intraday_worlds": worlds_table,
    "forgetting": forgetting_table,
    "scratch": scratch_table,
    "own_networks": latency_table,
    "neural_peers": neural_table,
}
"""By the kind of line that they are made of."""
