"""What a model has seen of markets: until which day, and on which bars it may remember it.

A forecast of bars that were among a model's training data says nothing of what it will be worth.
Trained weights carry the day in their card, `known_until`; models that are fitted to their context
alone, or trained on simulations, have seen no market at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fastsim.data.dates import DAY, iso_date, show_day
from fastsim.errors import ForecastError
from fastsim.forecast.interface import UNKNOWN, ModelCard


def latest_day(cards: Sequence[ModelCard]) -> str | None:
    """What several models have seen together: unknown if it is of any, else the latest day."""
    days = [card.known_until for card in cards if card.known_until is not None]
    return UNKNOWN if UNKNOWN in days else max(days, default=None)


def sources_of(cards: Sequence[ModelCard]) -> str:
    """Where the days of several models come from, each after its model's name."""
    told = {card.name: card.known_source for card in cards if card.known_source}
    return "; ".join(f"{name}: {source}" for name, source in told.items())


def of_a_path(card: ModelCard, published: ModelCard | None) -> ModelCard:
    """The card of weights that come from a path, where they say nothing of their own.

    They may be the published ones, or trained further: that these have seen no market is not
    known of them, and a day is told with that doubt.
    """
    if published is None or card.known_source != published.known_source:
        return card
    source = f"{card.known_source}, of the published weights, which these need not be"
    if card.known_until is None:
        return replace(card, known_until=UNKNOWN, known_source=source)
    return card if card.known_until == UNKNOWN else replace(card, known_source=source)


def may_remember(card: ModelCard, timestamps: NDArray[np.datetime64]) -> NDArray[np.bool_]:
    """Which bars [T] a model may have learned from: none, all, or those until its day is over."""
    if card.known_until is None or card.known_until == UNKNOWN:
        return np.full(len(timestamps), card.known_until is not None)
    remembered: NDArray[np.bool_] = timestamps < iso_date(card.known_until, "known_until") + DAY
    return remembered


def seen_in_words(card: ModelCard) -> str:
    """Until which day a model has seen markets, by whom, and of how many trials it is the best."""
    source = f" ({card.known_source})" if card.known_source else ""
    if card.known_until is None:
        told = f"{card.name} has seen no market{source}."
    elif card.known_until == UNKNOWN:
        told = f"Until when {card.name} has seen markets is unknown{source}."
    else:
        told = f"{card.name} has seen markets until {card.known_until}{source}."
    if card.trials > 1:
        told += f" It is the best of {card.trials} trials on validation."
    return told


def doubt(
    card: ModelCard, timestamps: NDArray[np.datetime64], *, bars: str, strict: bool = False
) -> str:
    """What to beware of where a model is tried on these bars; nothing if it has seen none of them.

    Parameters
    ----------
    timestamps
        [T] of the bars whose outcomes count.
    bars
        What they are called, such as "scored bars".
    strict
        Raise what would be said.

    Raises
    ------
    ForecastError
        Under `strict`, the model may have learned from some of the bars.
    """
    remembered = may_remember(card, timestamps)
    if not remembered.any():
        return ""
    if card.known_until == UNKNOWN:
        said = (
            f"until when {card.name} has seen markets is unknown: it may remember the {bars} "
            f"rather than forecast them"
        )
    else:
        said = (
            f"{card.name} has seen markets until {card.known_until}, and the {bars} begin "
            f"{show_day(timestamps[0])}: it may remember {int(remembered.sum()):,} of "
            f"{len(remembered):,} rather than forecast them"
        )
    if strict:
        raise ForecastError(f"{said}; take later bars, another forecaster, or leave out strict")
    return f"Beware: {said}."
