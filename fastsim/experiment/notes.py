"""What a report says of a run: what it was made with, and what to beware of."""

from __future__ import annotations

from collections.abc import Sequence

from fastsim.backtest.history import History
from fastsim.backtest.refused import refusals_in_words
from fastsim.config import changes
from fastsim.data.sample import SAMPLES
from fastsim.experiment.config import Part, TrainConfig
from fastsim.extensions import is_reference
from fastsim.market.tape import MarketTape


def algorithm_of(config: TrainConfig) -> str:
    """What a reader calls who learned: PPO, or where a user's own comes from."""
    name = config.algorithm
    return name if is_reference(name) else name.upper()


def run_settings(config: TrainConfig) -> dict[str, str]:
    """What a report says a run was made with: the main settings, then every changed rule.

    A rule is a field of the environment or of the tape, and is changed where a run without options
    has it otherwise.
    """
    costs, usual = config.env.costs, TrainConfig()
    rules = changes(config.env, usual.env) | changes(config.tape, usual.tape)
    return {
        "environment steps": f"{config.total_steps:,}",
        "seed": str(config.seed),
        "learned from": _learned_from(config),
        "reward": config.env.reward.kind,
        "forecasts": config.forecaster,
        "commission": f"{costs.fee_bps:g} bp",
        "half spread": f"{costs.half_spread_bps:g} bp",
        "initial cash": f"{config.env.initial_cash:,.0f}",
        **{name: str(value) for name, value in rules.items()},
    }


def _learned_from(config: TrainConfig) -> str:
    model = config.worlds.model
    return "training bars" if model == "none" else f"{model} worlds fitted to the training bars"


def notes_on(config: TrainConfig, tape: MarketTape, part: Part, history: History) -> Sequence[str]:
    """What a reader of the report should know, in sentences."""
    notes = [
        f"Trades are filled at the {'next open' if tape.fill == 'next_open' else 'same close'}. "
        f"Every strategy pays the same costs."
    ]
    if not tape.has_volume:
        notes.append("The data has no volume: market impact and participation limits are off.")
    if part != "test":
        notes.append(f"These are {part} bars: the agent or its selection has seen them.")
    if config.data.source in SAMPLES:
        notes.append(SAMPLES[config.data.source])
    return [*notes, *refusals_in_words(history)]
