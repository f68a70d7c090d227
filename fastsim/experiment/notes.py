"""What a report says of a run: what it was made with, and what to beware of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fastsim.backtest.history import History
from fastsim.backtest.refused import refusals_in_words
from fastsim.config import changes
from fastsim.data.sample import SAMPLES
from fastsim.env.config import EnvConfig
from fastsim.experiment.config import Part, TrainConfig
from fastsim.extensions import is_reference
from fastsim.forecast.interface import ModelCard
from fastsim.forecast.seen import doubt, seen_in_words
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


class Seen(NamedTuple):
    """What whoever forecasts for a run has seen of markets."""

    card: ModelCard | None
    """None where nobody forecasts."""

    def doubts(self, tape: MarketTape, *, bars: str, strict: bool = False) -> tuple[str, ...]:
        """What to beware of on the bars of a tape; ForecastError instead of it if strict."""
        if self.card is None:
            return ()
        played = tape.timestamps[tape.first : tape.last + 1]
        beware = doubt(self.card, played, bars=bars, strict=strict)
        return (beware,) if beware else ()

    def notes(self, tape: MarketTape, *, bars: str) -> tuple[str, ...]:
        """The same after what it has seen, in sentences; none where nobody forecasts."""
        if self.card is None:
            return ()
        return (seen_in_words(self.card), *self.doubts(tape, bars=bars))


SEEN_NOTHING = Seen(None)


def notes_on(
    config: TrainConfig, tape: MarketTape, part: Part, history: History, seen: Seen
) -> Sequence[str]:
    """What a reader of the report should know, in sentences."""
    own = f"These are {part} bars: the agent or its selection has seen them."
    more = (() if part == "test" else (own,)) + seen.notes(tape, bars=f"{part} bars")
    return notes_of(config.data.source, tape, history, more)


def notes_of(
    source: str, tape: MarketTape, history: History, more: Sequence[str] = ()
) -> Sequence[str]:
    """What a reader should know of any replay of these bars, and `more`."""
    notes = [
        f"Trades are filled at the {'next open' if tape.fill == 'next_open' else 'same close'}. "
        f"Every strategy pays the same costs."
    ]
    if not tape.has_volume:
        notes.append("The data has no volume: market impact and participation limits are off.")
    notes += more
    if source in SAMPLES:
        notes.append(SAMPLES[source])
    return [*notes, *refusals_in_words(history)]


def rules_in_words(env: EnvConfig) -> dict[str, str]:
    """What is traded on, as a report says it: the main costs, then every other changed rule."""
    costs = env.costs
    told = {
        "commission": f"{costs.fee_bps:g} bp",
        "half spread": f"{costs.half_spread_bps:g} bp",
        "initial cash": f"{env.initial_cash:,.0f}",
    }
    shown = ("costs.fee_bps", "costs.half_spread_bps", "initial_cash")
    others = changes(env, EnvConfig()).items()
    return told | {name: str(value) for name, value in others if name not in shown}
