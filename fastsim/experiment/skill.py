"""What forecasters are worth to who picks assets: order, probabilities, and a book at costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastsim.config import configuration, require_between, require_choice
from fastsim.data.bars import Bars
from fastsim.env.config import EnvConfig
from fastsim.errors import ConfigError, ForecastError
from fastsim.experiment.book import Books, play_books
from fastsim.forecast.evaluate import spaced_origins
from fastsim.forecast.interface import Forecaster, check_horizon, check_horizons
from fastsim.forecast.skill import (
    By,
    RankSkill,
    known_styles,
    rank_skill,
    realised,
    rises,
    scores_of,
)
from fastsim.forecast.tape import ForecastTape, forecast_rows
from fastsim.market.costs import CostConfig
from fastsim.market.tape import MarketTape, make_tape
from fastsim.progress import SILENT, Progress
from fastsim.stats.ranks import LEAST
from fastsim.stats.reliability import Reliability, reliability

STYLES = ("momentum", "volatility")
"""What `beyond` is beyond of."""


@configuration
class SkillConfig:
    """How skill across assets is measured."""

    horizons: tuple[int, ...] = (1, 5, 21)
    """Bars ahead."""
    context: int = 512
    """Bars that a forecast looks back on."""
    step: int = 21
    """Bars between origins."""
    by: By = "return"
    """What assets are ordered by: return, the expected log return; ratio, that over its dispersion;
    or rise, the probability of a rise."""
    top: int = 3
    """Assets that the book holds, equally."""
    hold: int | None = None
    """Bars after which the book chooses anew, by the forecast so far ahead: one of the horizons; by
    default the longest."""
    bins: int = 10
    """Of probabilities of a rise, of as many forecasts each."""
    costs: CostConfig = CostConfig()
    """Of the book's trades."""

    def __post_init__(self) -> None:
        require_choice(self, "by")
        for name in ("context", "step", "top", "bins"):
            require_between(self, name, 1)
        try:
            check_horizons(self.horizons)
        except ForecastError as error:
            raise ConfigError(f"SkillConfig.{error}") from None
        if self.hold is not None and self.hold not in self.horizons:
            raise ConfigError(
                f"SkillConfig.hold must be one of SkillConfig.horizons = {self.horizons}, as the "
                f"book goes by the forecast so far ahead, got {self.hold}"
            )

    @property
    def bars_held(self) -> int:
        """Bars after which the book chooses anew."""
        return max(self.horizons) if self.hold is None else self.hold


class AtHorizon(NamedTuple):
    """A forecaster so many bars ahead."""

    raw: RankSkill
    beyond: RankSkill
    """Of what ranks of `STYLES` do not say."""
    rise: Reliability | None
    """Of its probability of a rise; None where nothing was forecast that came."""


class SkillReport(NamedTuple):
    """What forecasters know of which assets do better, and what that earns."""

    skills: Mapping[str, Mapping[int, AtHorizon]]
    """By the name of the forecaster, and the horizon."""
    books: Books
    timestamps: NDArray[np.datetime64]
    """Of the origins [R]."""
    assets: int

    @property
    def why_none(self) -> str:
        """Why there are no rank ICs, in a sentence; empty where nothing has to be said."""
        if self.assets < LEAST:
            return f"{self.assets} assets are too few to be ordered: rank ICs need {LEAST}."
        if self.assets < LEAST + len(STYLES):
            return (
                f"{self.assets} assets are too few to look beyond {' and '.join(STYLES)}: that "
                f"needs {LEAST + len(STYLES)}."
            )
        return ""


def find_skill(
    bars: Bars,
    forecasters: Sequence[Forecaster],
    config: SkillConfig | None = None,
    *,
    progress: Progress = SILENT,
) -> SkillReport:
    """Measure forecasters on bars: rank ICs and reliability by horizon, and a book of each.

    Raises
    ------
    ConfigError
        There are fewer assets than the book is to hold.
    DataError
        The bars are too few for the features of a market.
    ForecastError
        The bars are too few for an origin, or horizons do not fit a forecaster.
    """
    config = SkillConfig() if config is None else config
    if not forecasters:
        raise ConfigError("there is no forecaster to measure: name at least one")
    longest, hold = max(config.horizons), config.bars_held
    for forecaster in forecasters:
        check_horizon(forecaster.card, longest)
    if config.top > len(bars.symbols):
        raise ConfigError(
            f"SkillConfig.top must be at most {len(bars.symbols)}, as many as there are assets, "
            f"got {config.top}"
        )
    tape = make_tape(bars)
    context = max(config.context, tape.first + 1)
    rows = spaced_origins(bars, context=context, horizon=longest, step=config.step)
    chosen = spaced_origins(bars, context=context, horizon=hold, step=hold)
    asked = np.union1d(rows, chosen)
    told = {
        each.card.name: forecast_rows(
            tape,
            each,
            asked.tolist(),
            horizons=config.horizons,
            context_length=min(config.context, each.card.max_context),
            progress=progress,
        )
        for each in forecasters
    }
    books = {
        name: scores_of(each, hold, config.by)[np.isin(asked, chosen)]
        for name, each in told.items()
    }
    rules = EnvConfig(costs=config.costs)
    judged = np.isin(asked, rows)
    return SkillReport(
        skills={
            name: _by_horizon(tape, each._replace(values=each.values[judged]), rows, config)
            for name, each in told.items()
        },
        books=play_books(tape, books, chosen, hold, config.top, rules, progress=progress),
        timestamps=tape.timestamps[rows],
        assets=tape.num_assets,
    )


def _by_horizon(
    tape: MarketTape, told: ForecastTape, rows: NDArray[np.int64], config: SkillConfig
) -> dict[int, AtHorizon]:
    styles, found = known_styles(tape, rows), {}
    for horizon in config.horizons:
        scores, came = scores_of(told, horizon, config.by), realised(tape, rows, horizon)
        probability, rose = rises(told, came, horizon)
        found[horizon] = AtHorizon(
            raw=rank_skill(scores, came, rows, horizon),
            beyond=rank_skill(scores, came, rows, horizon, beyond=styles),
            rise=reliability(probability, rose, bins=config.bins) if len(rose) else None,
        )
    return found
