"""Write the tables of the READMEs from the results: python benchmarks/table.py."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from statistics import median

from cells import Row, table
from forecast_tables import FORECAST_TABLES
from goals import GOALS, NOT_MEASURED, in_words

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
GPU = "gpu"
"""The file of results that there is only once a GPU was at hand."""
BRIEF = "brief-cpu"
"""Of whole runs on a CPU, by the same program."""
PAGES = (ROOT / "README.md", ROOT / "benchmarks" / "README.md", ROOT / "docs" / "fitting.md")
BRIEFLY = "_brief"
"""What a kind of table ends with that has fewer columns of the same lines."""


def table_of(name: str) -> str:
    """Markdown table of one file of results, `file`, or of one kind of its lines, `file:kind`."""
    file, _, kind = name.partition(":")
    path = RESULTS / f"{file}.json"
    if file == GPU and not path.exists():
        return gpu_table([])
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    if file == BRIEF:
        return brief_table(rows)
    kind = kind or rows[0]["benchmark"]
    make = {
        "env": env_table,
        "env_growth": growth_table,
        "env_peers": env_peers_table,
        "ppo": ppo_table,
        "ppo_peers": ppo_peers_table,
        "ppo_planted": planted_table,
        "planted_algorithms": algorithms_table,
        "before_after": before_after_table,
        "learning": learning_table,
        "encoders": encoders_table,
        "encoders_peer": encoders_peer_table,
        "learning_peers": learning_peers_table,
        "learning_train": learning_train_table,
        "rules": rules_table,
        "replay": replay_table,
        "replay_minutes": minutes_table,
        "decide": decide_table,
        "gpu": gpu_table,
        **FORECAST_TABLES,
    }
    found = [row for row in rows if row["benchmark"] == kind.removesuffix(BRIEFLY)]
    return make[kind](found)


def decide_table(rows: list[Row]) -> str:
    """What a decision takes, and to load who makes it."""
    head = ["assets", "bars looked back on", "load, s", "a decision, ms", "99th percentile, ms"]
    names = ("num_assets", "bars_needed", "load_s", "median_ms", "p99_ms")
    return table(head, ([str(row[name]) for name in names] for row in rows))


def rules_table(rows: list[Row]) -> str:
    """Steps under each rule of orders, beside the plain step and the reference."""
    head = ["rules", "backend", "steps/s", "over torch", "slower than none of them"]
    cells = [
        (
            row["rules"],
            row["backend"],
            f"{row['env_steps_per_s']:,.0f}",
            f"{row['over_torch']:.1f}",
            f"{row['slower_than_plain']:.2f}",
        )
        for row in rows
    ]
    return table(head, cells)


def replay_table(rows: list[Row]) -> str:
    """Bars per second of replays, beside the reference of the same commit."""
    head = ["replay of `us20`", "bars/s", "reference", "ratio", "wealth off by"]
    cells = [
        (
            row["case"],
            f"{row['bars_per_s']:,.0f}",
            f"{row['reference_bars_per_s']:,.0f}",
            f"{row['ratio']:,.0f}",
            f"{row['wealth_off']:.1e}",
        )
        for row in rows
    ]
    return table(head, cells)


def minutes_table(rows: list[Row]) -> str:
    """Seconds of an evaluation of minute bars, part by part."""
    parts = rows[0]["parts"]
    cells = [
        (f"{row['bars']:,}", *(f"{row['parts'][name]:.1f}" for name in parts), f"{row['seconds']}")
        for row in rows
    ]
    return table(["minute bars", *(f"{name}, s" for name in parts), "in all, s"], cells)


def env_table(rows: list[Row]) -> str:
    """Environment steps per second: sizes and backends by number of environments."""
    counts = sorted({row["num_envs"] for row in rows})
    most = {row["backend"]: 0 for row in rows}
    found = {}
    for row in rows:
        size = (row["num_assets"], row["observation_width"], row["observation"], row["backend"])
        found.setdefault(size, {})[row["num_envs"]] = row
    cells = []
    for size in sorted(found, key=lambda size: (*size[:3], list(most).index(size[3]))):
        assets, width, observation, backend = size
        line = found[size]
        largest = line[max(line)]
        torch = found.get((*size[:3], "torch"), {}).get(max(line))
        over = largest["env_steps_per_s"] / torch["env_steps_per_s"] if torch else None
        rates = [
            f"{line[count]['env_steps_per_s']:,.0f}" if count in line else "" for count in counts
        ]
        cells.append(
            [
                str(assets),
                f"{observation}, {width:,} wide",
                backend,
                *rates,
                "" if over is None else f"{over:.1f}",
                f"{largest['env_policy_steps_per_s']:,.0f}",
                f"{largest['share_of_floor']:.1%}",
            ]
        )
    head = ["assets", "observation", "backend", *(f"{count:,} environments" for count in counts)]
    head.append("the most, over torch")
    return table([*head, "the most, with a policy", "the most, share of floor"], cells)


def growth_table(rows: list[Row]) -> str:
    """Time of a step with many assets over that with few."""
    head = ("backend", "environments", "assets", "steps/s", "time of a step")
    return table(
        head,
        [
            (
                row["backend"],
                f"{row['num_envs']:,}",
                " and ".join(str(assets) for assets in row["num_assets"]),
                " and ".join(f"{rate:,.0f}" for rate in row["env_steps_per_s"]),
                f"{row['time_ratio']:.2f} times",
            )
            for row in rows
        ],
    )


def env_peers_table(rows: list[Row]) -> str:
    """Other simulators, each beside what is comparable of ours."""
    head = ("peer", "its environments, width", "steps/s", "ours, environments, width", "steps/s")
    cells = []
    for row in rows:
        name = f"{row['peer']} {row['version']}"
        if "error" in row:
            cells.append((name, "did not run", "", "", "", ""))
            continue
        assets = "" if row["num_assets"] > 1 else ", one asset"
        ratio = f"{row['ratio']:,.1f}"
        if "ratio_without_resets" in row:
            ratio += f" ({row['ratio_without_resets']:,.1f} without its resets)"
        cells.append(
            (
                name,
                f"{row['num_envs']:,}, {row['observation_width']}{assets}",
                f"{row['env_steps_per_s']:,.0f}",
                f"{row['ours']}, {row['ours_num_envs']:,}, {row['ours_observation_width']}",
                f"{row['ours_env_steps_per_s']:,.0f}",
                ratio,
            )
        )
    return table([*head, "ratio"], cells)


def ppo_table(rows: list[Row]) -> str:
    """Environment, rollout and training by size."""
    head = ("assets", "environments", "environment, steps/s", "with policy", "training, frames/s")
    names = ("env_steps_per_s", "rollout_steps_per_s", "train_frames_per_s")
    return table(
        head,
        [
            (
                str(row["num_assets"]),
                f"{row['num_envs']:,}",
                *(f"{row[name]:,.0f}" for name in names),
            )
            for row in rows
        ],
    )


def ppo_peers_table(rows: list[Row]) -> str:
    """PPO of others, end to end, beside ours."""
    head = ("peer", "its environments", "epochs, minibatch", "frames/s", "ours", "ratio")
    cells = []
    for row in rows:
        name = f"{row['peer']} ({row['version']})"
        if "error" in row:
            cells.append((name, "did not run", "", "", "", ""))
            continue
        cells.append(
            (
                name,
                str(row["num_envs"]),
                f"{row['epochs']}, {row['batch_size']}",
                f"{row['train_frames_per_s']:,.0f}",
                f"{row['ours_train_frames_per_s']:,.0f}",
                f"{row['ratio']:,.1f}",
            )
        )
    return table(head, cells)


def planted_table(rows: list[Row]) -> str:
    """Seconds to a share of the best that a planted market holds."""
    head = ("peer", "its environments x steps", "seconds", "ours", "ratio")
    return table(
        head,
        [
            (
                row["peer"],
                f"{row['num_envs']} x {row['rollout_steps']}",
                "not reached" if row["seconds"] is None else f"{row['seconds']:,.2f}",
                "not reached" if row["ours_seconds"] is None else f"{row['ours_seconds']:,.2f}",
                "" if row["ratio"] is None else f"{row['ratio']:,.0f}",
            )
            for row in rows
        ],
    )


def algorithms_table(rows: list[Row]) -> str:
    """Frames and seconds that each algorithm needs."""
    cells = [
        (
            row["algorithm"],
            f"{row['num_envs']} x {row['rollout_steps']}",
            f"{row['frames']:,}",
            f"{row['frames'] / row['ppo_frames']:.3f}",
            f"{row['seconds']:.2f}",
        )
        for row in rows
    ]
    return table(("algorithm", "environments x steps", "frames", "over PPO's", "seconds"), cells)


def before_after_table(rows: list[Row]) -> str:
    """How many times as fast as before, by backend and observation: least, median and most."""
    groups: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        groups.setdefault((row["backend"], row["observation"]), []).append(row["env_ratio"])
    cells = [
        (
            backend,
            observation,
            str(len(ratios)),
            f"{min(ratios):.2f}",
            f"{median(ratios):.2f}",
            f"{max(ratios):.2f}",
        )
        for (backend, observation), ratios in groups.items()
    ]
    return table(("backend", "observation", "rows", "least", "median", "most"), cells)


def brief_table(rows: list[Row]) -> str:
    """Whole runs, from the file of bars to the report, and what they spent their time on."""
    head = ["case", "seconds", "forecasts", "training", "replays", "frames/s"]
    cells = [
        (
            row["case"],
            f"{row['seconds']:,.0f}",
            f"{row['tape_s']:,.0f} s, {row['tape_share']:.0%}",
            f"{row['training_s']:,.0f} s",
            f"{row['replay_s']:,.0f} s",
            f"{row['frames_per_s']:,.0f}",
        )
        for row in rows
        if "tape_s" in row
    ]
    return table(head, cells)


def gpu_table(rows: list[Row]) -> str:
    """What a GPU is to reach and what it reached; "not measured" until a row is there."""
    cells = []
    for goal in GOALS:
        row = next((row for row in rows if row["case"] == goal.case), {})
        found = row.get(goal.figure)
        figure = NOT_MEASURED if found is None else f"{in_words(found)} {goal.unit}"
        cells.append((goal.case, figure, goal.words, row.get("verdict", NOT_MEASURED)))
    device = f"on {rows[0]['device']}" if rows else "on a GPU"
    return table(("case", device, "goal", "verdict"), cells)


def learning_table(rows: list[Row]) -> str:
    """Frames a CPU second of two checkouts."""
    head = ("algorithm", "environments", "before, frames/CPU s", "after", "ratio")
    names = {"ppo": "PPO", "sac": "SAC", "league": "league, PPO's learner"}
    cells = [
        (
            names[row["algorithm"]],
            f"{row['num_envs']:,}",
            f"{row['before']:,.0f}",
            f"{row['after']:,.0f}",
            f"{row['ratio']:.2f}",
        )
        for row in rows
    ]
    return table(head, cells)


def encoders_table(rows: list[Row]) -> str:
    """Training by what looks at the market, beside the policy that sees the last bar."""
    head = ["encoder", "window", "environments x assets", "frames/CPU s", "mlp's", "ratio"]
    cells = [
        (
            row["encoder"],
            str(row["window"]),
            f"{row['num_envs']:,} x {row['num_assets']}",
            f"{row['frames_per_s']:,.0f}",
            f"{row['mlp_frames_per_s']:,.0f}",
            f"{row['ratio']:.2f}",
        )
        for row in rows
    ]
    return table(head, cells)


def encoders_peer_table(rows: list[Row]) -> str:
    """The same encoder as another library's extractor of features."""
    head = ["peer", "encoder", "environments, theirs and ours", "theirs", "ours", "ours over it"]
    cells = [
        (
            row["peer"],
            f"{row['encoder']}, {row['window']} bars",
            f"{row['num_envs']:,} and {row['ours_num_envs']:,}",
            f"{row['frames_per_s']:,.0f}",
            f"{row['ours_frames_per_s']:,.0f}",
            f"{row['ratio']:.1f}",
        )
        for row in rows
    ]
    return table(head, cells)


def learning_peers_table(rows: list[Row]) -> str:
    """PPO of others on our environments, beside ours."""
    head = ("peer", "its environments, weights", "frames/CPU s", "ours", "weights", "ratio")
    cells = [
        (
            row["peer"],
            f"{row['num_envs']:,}, {row['weights']:,}",
            f"{row['frames_per_cpu_s']:,.0f}",
            f"{row['ours_frames_per_cpu_s']:,.0f}",
            f"{row['ours_weights']:,}",
            f"{row['ratio']:.1f}",
        )
        for row in rows
    ]
    return table(head, cells)


def learning_train_table(rows: list[Row]) -> str:
    """A whole run of `fastsim train`."""
    head = ("command", "before, CPU s", "after", "ratio")
    cells = [
        (
            f"`{row['command']}`",
            f"{row['before_cpu_s']:.1f}",
            f"{row['after_cpu_s']:.1f}",
            f"{row['ratio']:.2f}",
        )
        for row in rows
    ]
    return table(head, cells)


def with_tables(text: str) -> str:
    """A README's text with every marked table made anew."""
    marked = re.compile(r"(<!-- table: ([\w:-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
    return marked.sub(lambda match: f"{match[1]}{table_of(match[2])}\n{match[3]}", text)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    for page in PAGES:
        page.write_text(with_tables(page.read_text()))
