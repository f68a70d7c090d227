"""Forecasts that are kept for whoever asks bar by bar are those that would be made."""

import pytest
import torch
from forecasters import Counting, random_context

from fastsim.errors import ConfigError
from fastsim.forecast.memo import Remembering

SERIES = 20


def rows(whole, *chosen):
    return type(whole)(*(part[list(chosen)] for part in whole))


def test_what_was_asked_before_is_not_asked_again():
    maker, whole = Counting(), random_context(SERIES)
    memo = Remembering(maker, SERIES)
    first = memo.forecast(whole, 5)
    assert maker.asked == SERIES and (memo.key, memo.card) == (maker.key, maker.card)
    again = memo.forecast(rows(whole, 3, 1, 3), 5)
    assert maker.asked == SERIES
    assert torch.equal(again.quantiles, first.quantiles[[3, 1, 3]])
    memo.forecast(rows(whole, 3), 6)  # another horizon
    assert maker.asked > SERIES


def test_every_number_of_a_context_matters():
    maker, whole = Counting(), random_context(SERIES)
    memo = Remembering(maker, 1000)
    memo.forecast(whole, 5)
    for part in range(2):
        changed = [each.clone() for each in whole]
        changed[part][7].view(-1)[-1] += 1
        other, asked = type(whole)(*changed), maker.asked
        found = memo.forecast(other, 5)
        assert maker.asked > asked
        assert torch.equal(found.quantiles, maker.forecast(other, 5).quantiles)


def test_those_asked_for_least_recently_are_forgotten():
    maker, whole = Counting(), random_context(SERIES)
    memo = Remembering(maker, 4)
    memo.forecast(rows(whole, 0, 1, 2, 3), 5)
    memo.forecast(rows(whole, 0), 5)
    memo.forecast(rows(whole, 4), 5)  # 1 goes
    asked = maker.asked
    memo.forecast(rows(whole, 0, 2, 3, 4), 5)
    assert maker.asked == asked
    memo.forecast(rows(whole, 1), 5)
    assert maker.asked > asked


def test_it_keeps_at_least_one():
    with pytest.raises(ConfigError, match="most must be a whole number >= 1"):
        Remembering(Counting(), 0)
