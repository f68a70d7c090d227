"""What a GPU is to reach, by case and figure: the goals that `gpu.py` holds its rows against.

They are those of one H100 or H200. Nothing here imports torch, so that tables can be written
without it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

REACHED, MISSED, NO_GOAL = "reached", "missed", "no goal"
NOT_MEASURED = "not measured"


class Goal(NamedTuple):
    """A bound of one figure of one case; None where it is only to be measured."""

    case: str
    figure: str
    unit: str
    at_least: float | None = None
    at_most: float | None = None

    @property
    def words(self) -> str:
        """The bound as a table has it."""
        if self.at_least is not None:
            return f"at least {in_words(self.at_least)} {self.unit}"
        if self.at_most is not None:
            return f"at most {in_words(self.at_most)} {self.unit}"
        return "measured"

    def verdict(self, found: float | None) -> str:
        """Reached or missed, or no goal where it is only to be measured."""
        if found is None:
            return MISSED
        if self.at_least is not None:
            return REACHED if found >= self.at_least else MISSED
        if self.at_most is not None:
            return REACHED if found <= self.at_most else MISSED
        return NO_GOAL


GOALS = (
    Goal("step 4,096 x 100 index, graph of 16", "env_steps_per_s", "steps/s", at_least=600e6),
    Goal("step 4,096 x 100 flat6, graph of 16", "share_of_bandwidth", "of copies", at_least=0.5),
    Goal("ppo 4,096 x 30", "train_frames_per_s", "frames/s", at_least=4e6),
    Goal("train us20, 100,000,000 frames", "seconds", "s", at_most=60.0),
    Goal("toto float16 artefact, batch 1,024", "matrix_rate_share", "of products", at_least=0.4),
    Goal("tirex float16 artefact, batch 1,024", "matrix_rate_share", "of products", at_least=0.25),
    Goal("kronos float32, batch 1,024", "forecasts_per_s", "forecasts/s"),
    Goal("tape of us20, all three", "seconds", "s"),
    Goal("training beside all three", "peak_memory_gb", "GB", at_most=4.0),
    Goal("brief 1,024 x 100, forecasts, 10,000,000 frames", "seconds", "s", at_most=30.0),
)
"""Names of cases are those of the sections; a case of another size has another name."""


def goal_of(case: str) -> Goal | None:
    """The goal of a case, if it has one."""
    return next((goal for goal in GOALS if goal.case == case), None)


def judged(row: dict[str, Any], on_gpu: bool) -> dict[str, Any]:
    """The row with its goal and what became of it; goals are a GPU's, a CPU has none."""
    goal = goal_of(row["case"]) if on_gpu else None
    if goal is None or "skipped" in row:
        return row | {"goal": goal and goal.words, "verdict": NO_GOAL}
    return row | {"goal": goal.words, "verdict": goal.verdict(row.get(goal.figure))}


def in_words(value: float) -> str:
    """A number with as many digits as a person reads."""
    if value >= 1e6:
        return f"{value / 1e6:,.4g} M"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
