"""From the data of a run to the parts of its market, with forecasts among the features."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from fastsim.agent.artifact import AgentSpec
from fastsim.data.sample import SPLITS
from fastsim.data.source import load_bars
from fastsim.data.split import dates_of_split, split_by_date
from fastsim.devices import resolve_device
from fastsim.env.episode import check_room
from fastsim.experiment.agents import agent_spec
from fastsim.experiment.config import Part, TrainConfig
from fastsim.experiment.notes import SEEN_NOTHING, Seen
from fastsim.forecast.features import card_of, make_forecaster, tabulated_features
from fastsim.forecast.registry import parse_names
from fastsim.market.tape import MarketTape, make_tape
from fastsim.progress import ON_STDERR, Progress
from fastsim.synthetic.fresh import FreshWorlds


class Markets(NamedTuple):
    """One tape, restricted to the bars of each part, and worlds to learn from in its place."""

    train: MarketTape
    validation: MarketTape
    test: MarketTape
    config: TrainConfig
    """The run's, with the dates at which its bars were cut."""
    agent: AgentSpec
    """What an agent that learns here needs to know."""
    worlds: FreshWorlds | None = None
    seen: Seen = SEEN_NOTHING
    """What its forecaster has seen of markets."""

    def part(self, name: Part) -> MarketTape:
        """The tape restricted to the bars of one part."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]


def load_markets(config: TrainConfig, *, progress: Progress = ON_STDERR) -> Markets:
    """Read the data, forecast it, and lay out the three parts on the run's device."""
    bars = load_bars(config.data)
    dates = dates_of_split(
        bars.timestamps,
        config.validation_start,
        config.test_start,
        usual=SPLITS.get(config.data.source),
    )
    config = replace(config, validation_start=dates[0], test_start=dates[1])
    split = split_by_date(bars.timestamps, *dates)
    tape = make_tape(bars, config.tape, device=resolve_device(config.device))
    parts = [tape.between(rows) for rows in split]
    check_room(parts[0], config.env.episode)
    seen = SEEN_NOTHING
    names, features, forecaster = parse_names(config.forecaster), {}, None
    if names:
        forecaster = make_forecaster(
            tape, names, config.forecast, validation=split.validation, progress=progress
        )
        seen = Seen(card_of(forecaster, config.forecast))
        tested = replace(parts[1], last=parts[2].last)
        seen.doubts(tested, bars="validation and test bars", strict=config.strict)
        kept = Path(config.runs_dir) / "forecasts"
        features = tabulated_features(tape, forecaster, config.forecast, kept, progress=progress)
    worlds = config.worlds.fit(bars.take(split.train), tape, config.tape)
    train, validation, test = (part.with_features(features) for part in parts)
    agent = agent_spec(config, bars, split.train, tape, forecaster)
    return Markets(train, validation, test, config, agent, worlds, seen)
