"""Write the tables of the READMEs from the results: python benchmarks/table.py."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (ROOT / "README.md", ROOT / "benchmarks" / "README.md")
Row = dict[str, Any]


def table_of(name: str) -> str:
    """Markdown table of one file of results."""
    rows = [json.loads(line) for line in (RESULTS / f"{name}.json").read_text().splitlines()]
    make = {"env": env_table, "official_forecasters": official_table, "accuracy": accuracy_table}
    return make[rows[0]["benchmark"]](rows)


def official_table(rows: list[Row]) -> str:
    """Our forecasters beside the official packages."""
    lines = [
        "| model | batch | ours, forecasts/s | official | ratio |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        names = ("case", "batch_size", "forecasts_per_s", "official_forecasts_per_s", "ratio")
        lines.append("| " + " | ".join(str(row[name]) for name in names) + " |")
    return "\n".join(lines)


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
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join(["---"] * len(head)) + " |"]
    for entry in rows[0]["forecasters"]:
        ratios = [
            entry["relative"][reference][loss]
            for reference in ("random-walk-60", "garch-t")
            for loss in ("quantile_loss", "crps")
        ]
        cells = [f"{value:.3f} [{low:.3f}, {high:.3f}]" for value, low, high in ratios]
        low, high = entry["coverage"][1:]
        cells.append(f"{entry['coverage'][0]:.1%} [{low:.1%}, {high:.1%}]")
        cells.append(" ".join(f"{100 * share:.0f}" for share in entry["pit"]))
        cells.append(f"{entry['fallbacks']:,}")
        cells.append(f"{1000 * entry['seconds'] / entry['windows']:,.1f}")
        lines.append(f"| {entry['name']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def env_table(rows: list[Row]) -> str:
    """Environment steps per second: assets and observation by number of environments."""
    counts = sorted({row["num_envs"] for row in rows})
    cases = sorted(
        {(row["num_assets"], row["observation"], row["observation_width"]) for row in rows}
    )
    rates = {
        (row["num_assets"], row["observation"], row["num_envs"]): row["env_steps_per_s"]
        for row in rows
    }
    head = ["assets", "observation", *(f"{count:,} environments" for count in counts)]
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join(["---"] * len(head)) + " |"]
    for assets, observation, width in cases:
        cells = [f"{rates[assets, observation, count]:,.0f}" for count in counts]
        lines.append(f"| {assets} | {observation}, {width} wide | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def with_tables(text: str) -> str:
    """A README's text with every marked table made anew."""
    marked = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
    return marked.sub(lambda match: f"{match[1]}{table_of(match[2])}\n{match[3]}", text)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(with_tables(page.read_text()))
