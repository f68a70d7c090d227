"""What becomes of positions with levels, by hand: gaps, touches, both in a bar, long and short."""

import numpy as np
import pytest
import torch
from signalled import bars_of
from worlds import random_bars

from fastsim.data.sample import sample_bars
from fastsim.errors import ConfigError
from fastsim.signals.levels import LevelConfig, Levels, average_true_range, levels_by_range
from fastsim.signals.outcome import (
    OPEN,
    REASONS,
    STOP,
    TARGET,
    TIME,
    play_levels,
    risk_report,
)
from fastsim.signals.prices import Prices, prices_of_table

DECISION, FILL = (100, 101, 99, 100), (100, 102, 98, 101)
TABLE = [
    # bars after the fill, long with stop 95 and target 110: reason, price, bars, both
    ([(100, 109, 96, 105), (105, 108, 99, 104)], TIME, 104, 3, False),
    ([(100, 109, 95, 105)], STOP, 95, 2, False),  # touched exactly
    ([(100, 110, 96, 105)], TARGET, 110, 2, False),
    ([(93, 99, 90, 97)], STOP, 93, 2, False),  # a gap below: at the open
    ([(112, 115, 108, 113)], TARGET, 112, 2, False),  # a gap above: at the open, too
    ([(100, 111, 94, 105)], STOP, 95, 2, True),  # both: the stop first
    ([(112, 115, 90, 95)], TARGET, 112, 2, False),  # the open is before all else
    ([(93, 111, 90, 97)], STOP, 93, 2, False),
    ([(100, 105, 99, 104), (104, 104, 94, 96)], STOP, 95, 3, False),
    ([(np.nan,) * 4, (97, 98, 96, 97)], TIME, 97, 3, False),  # a halt is no touch
    ([(104, 104, 103, 104), (np.nan,) * 4], TIME, 104, 3, False),  # marked at what is known
]
IDS = [f"{REASONS[row[1]]}-{number}" for number, row in enumerate(TABLE)]


def played(rows, side, stop, target, hold=3, **rules):
    bars = bars_of(DECISION, FILL, *rows, *[(101, 101, 101, 101)] * 4)
    direction = torch.zeros_like(bars.close)
    direction[0] = side
    levels = Levels(*(torch.full_like(direction, level) for level in (stop, target)))
    return play_levels(bars, direction, levels, hold, **rules)


def mirrored(row):
    """The same bar upside down around 100."""
    opened, high, low, close = (200 - each for each in row)
    return opened, low, high, close


@pytest.mark.parametrize(("rows", "reason", "price", "bars", "both"), TABLE, ids=IDS)
def test_a_long_position_ends_by_the_rules(rows, reason, price, bars, both):
    found = played(rows, 1, 95, 110)
    assert found.entry[0] == 100 and found.entry[1:].isnan().all()
    assert (found.reason[0], found.price[0], found.bars[0]) == (reason, price, bars)
    assert bool(found.both[0]) is both
    gain = float(found.simple_returns(torch.ones_like(found.entry))[0])
    assert gain == pytest.approx(price / 100 - 1)


@pytest.mark.parametrize(("rows", "reason", "price", "bars", "both"), TABLE, ids=IDS)
def test_a_short_position_ends_as_a_long_one_upside_down(rows, reason, price, bars, both):
    found = played([mirrored(row) for row in rows], -1, 105, 90)
    assert (found.reason[0], found.price[0], found.bars[0]) == (reason, 200 - price, bars)
    assert bool(found.both[0]) is both
    gain = float(found.simple_returns(-torch.ones_like(found.entry))[0])
    assert gain == pytest.approx(price / 100 - 1)


def test_the_optimistic_rule_takes_the_target_where_a_bar_holds_both():
    found = played([(100, 111, 94, 105)], 1, 95, 110, first="target")
    assert (found.reason[0], found.price[0], found.both[0]) == (TARGET, 110, True)
    gapped = played([(93, 111, 90, 97)], 1, 95, 110, first="target")
    assert gapped.reason[0] == STOP and gapped.price[0] == 93


def test_the_bar_of_the_fill_counts():
    found = played([], 1, 98, 110)
    assert (found.reason[0], found.price[0], found.bars[0]) == (STOP, 98, 1)


def test_filled_at_the_close_the_next_open_is_a_gap():
    bars = bars_of((100, 101, 99, 100), (94, 96, 93, 95), (95, 96, 94, 95))
    direction = torch.zeros_like(bars.close)
    direction[0] = 1
    levels = Levels(torch.full_like(direction, 97), torch.full_like(direction, torch.nan))
    at_close = play_levels(bars, direction, levels, 2, fill="close")
    at_open = play_levels(bars, direction, levels, 2, fill="next_open")
    assert (at_close.entry[0], at_close.price[0]) == (100, 94)
    assert (at_open.entry[0], at_open.price[0]) == (94, 94)  # in and out at once


def test_what_has_not_ended_with_the_data_is_open_and_what_was_not_filled_is_nothing():
    bars = bars_of(DECISION, FILL)
    direction = torch.ones_like(bars.close)
    levels = Levels(*(torch.full_like(direction, torch.nan) for _ in range(2)))
    found = play_levels(bars, direction, levels, 5)
    assert found.entry[0] == 100 and found.entry[1].isnan()
    assert (found.reason == OPEN).all() and found.price.isnan().all()
    halted = bars_of(DECISION, (np.nan,) * 4, FILL)
    direction = torch.tensor([[1.0], [0.0], [0.0]], dtype=torch.float64)
    levels = Levels(direction * 95, direction * 110)
    assert play_levels(halted, direction, levels, 1).entry.isnan().all()


def test_without_levels_a_position_earns_what_it_is_held_for():
    bars = prices_of_table(torch.from_numpy(random_bars(60, 3).table()))
    none = torch.full_like(bars.close, torch.nan)
    found = play_levels(bars, torch.ones_like(none), Levels(none, none), 5, fill="close")
    expected = bars.close[5:] / bars.close[:-5] - 1
    torch.testing.assert_close(found.simple_returns(torch.ones_like(none))[:-5], expected)
    assert (found.reason[:-5] == TIME).all() and (found.bars[:-5] == 5).all()


def test_risk_is_reported_as_planned_and_as_it_came_by_hand():
    entry = torch.full((4, 1), 100.0, dtype=torch.float64)
    bars = bars_of((100, 100, 100, 100), *[(100, 100, 100, 100)] * 4)
    exits = play_levels(bars, torch.zeros(5, 1), Levels(bars.close, bars.close), 1)
    exits = exits._replace(
        entry=entry,
        price=torch.tensor([[95.0], [90.0], [110.0], [torch.nan]], dtype=torch.float64),
        both=torch.tensor([[False], [True], [False], [False]]),
    )
    weights, side = torch.full_like(entry, 0.4), torch.ones_like(entry)
    found = risk_report(weights, side, 0.05 * weights, exits)
    assert found.positions == 3  # the last is still open
    assert (found.planned_mean, found.planned_most) == pytest.approx((0.02, 0.02))
    assert found.realised_mean == pytest.approx((0.02 + 0.04) / 2)
    assert found.realised_most == pytest.approx(0.04)
    assert found.beyond == pytest.approx(1 / 3) and found.both == pytest.approx(1 / 3)
    assert found.result == pytest.approx((-1 - 2 + 2) / 3)
    nothing = risk_report(weights, side, torch.zeros_like(weights), exits)
    assert nothing.positions == 0 and np.isnan(nothing.realised_most)


def tech4_report(stop, target, first="stop"):
    """Long at every open for five bars, with levels around it; 2 % at the stop, without a cap."""
    prices = prices_of_table(torch.from_numpy(sample_bars("tech4").table()))
    ranges = average_true_range(prices)
    entry = torch.cat([prices.open[1:], prices.open[:1]])
    side = torch.ones_like(entry)
    side[:512] = side[-1] = 0
    levels = levels_by_range(entry, side, ranges, LevelConfig(stop_atr=stop, target_atr=target))
    exits = play_levels(prices, side, levels, 5, first=first)
    distance = 1 - levels.stop / entry
    weights = 0.02 / distance
    return risk_report(weights, side, weights.abs() * distance, exits)


def test_on_tech4_the_order_within_a_bar_decides_for_tight_levels_alone():
    pessimistic, optimistic = (tech4_report(0.25, 0.5, first) for first in ("stop", "target"))
    assert pessimistic.both == pytest.approx(0.136, abs=0.01)
    assert pessimistic.result == pytest.approx(-0.065, abs=0.02)
    assert optimistic.result == pytest.approx(0.345, abs=0.02)
    assert tech4_report(1.0, 2.0).both < 0.001


def test_on_tech4_gaps_lose_a_multiple_of_what_was_planned():
    tight, wide = tech4_report(0.5, 1.0), tech4_report(2.0, 4.0)
    assert tight.planned_most == pytest.approx(0.02) and wide.planned_most == pytest.approx(0.02)
    assert tight.realised_most == pytest.approx(0.17, abs=0.005)
    assert wide.realised_most == pytest.approx(0.055, abs=0.001)


def test_an_order_of_assets_and_a_batch_change_nothing():
    prices = prices_of_table(torch.from_numpy(random_bars(80, 4, holes=True).table()))
    side = torch.from_numpy(np.random.default_rng(2).integers(-1, 2, (80, 4)).astype(float))
    ranges = average_true_range(prices)
    order = torch.tensor([2, 3, 0, 1])

    def play(columns):
        chosen = Prices(*(each[:, columns] for each in prices))
        levels = levels_by_range(
            chosen.close, side[:, columns], ranges[:, columns], LevelConfig(stop_atr=0.7)
        )
        return play_levels(chosen, side[:, columns], levels, 6)

    whole = play(torch.arange(4))
    for one, two in zip(whole, play(order), strict=True):
        torch.testing.assert_close(one[:, order], two, equal_nan=True, rtol=0, atol=0)
    for asset in range(4):
        for one, two in zip(whole, play(torch.tensor([asset])), strict=True):
            torch.testing.assert_close(one[:, [asset]], two, equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize("rules", [{"hold": 0}, {"hold": 1.5}, {"fill": "open"}, {"first": "both"}])
def test_rules_that_there_are_none_of_are_refused(rules):
    with pytest.raises(ConfigError, match=next(iter(rules))):
        played([], 1, 95, 110, **rules)
