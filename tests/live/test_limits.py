"""Limits refuse an order, or all of a bar, and nothing else; a real account needs all of them."""

import pytest

from fastsim.errors import ConfigError
from fastsim.live.broker import Order
from fastsim.live.limits import LimitConfig, Situation, allowed
from fastsim.live.records import Snapshot

CLOSES = {"KO": 50.0, "PEP": 100.0}
ACCOUNT = Snapshot("2024-01-03", 10_000.0, 5_000.0, {"KO": 100.0}, {})
NOW = Situation(ACCOUNT, 10_000.0, CLOSES, {"KO": 51.0, "PEP": 100.0}, 60.0)
ORDERS = [Order("a", "KO", -20.0, 50.0, 0.4), Order("b", "PEP", 45.0, 100.0, 0.45)]


def refused(limits, now=NOW, orders=ORDERS):
    kept, refusals = allowed(orders, limits, now)
    return [order.symbol for order in kept], [(r.limit, r.symbol) for r in refusals]


def test_without_limits_all_is_sent():
    assert refused(LimitConfig()) == (["KO", "PEP"], [])


@pytest.mark.parametrize(
    ("limits", "now", "kept", "why"),
    [
        ({"largest_order": 4_500.0}, NOW, ["KO", "PEP"], []),
        ({"largest_order": 4_499.0}, NOW, ["KO"], [("largest_order", "PEP")]),
        ({"largest_order": 999.0}, NOW, [], [("largest_order", "KO"), ("largest_order", "PEP")]),
        ({"price_distance": 0.021}, NOW, ["KO", "PEP"], []),
        ({"price_distance": 0.019}, NOW, ["PEP"], [("price_distance", "KO")]),
        ({"price_distance": 0.5}, NOW._replace(prices={}), [], None),
        ({"gross": 0.86}, NOW, ["KO", "PEP"], []),  # 80 x 50 + 45 x 100 = 8,500 of 10,000
        ({"gross": 0.84}, NOW, ["KO"], [("gross", "PEP")]),
        ({"daily_loss": 0.05}, NOW._replace(equity_before=10_500.0), ["KO", "PEP"], []),
        (
            *({"daily_loss": 0.05}, NOW._replace(equity_before=10_600.0)),
            *(["KO"], [("daily_loss", "PEP")]),
        ),
        ({"stale_seconds": 60.0}, NOW, ["KO", "PEP"], []),
        ({"stale_seconds": 59.0}, NOW, [], [("stale_seconds", "")]),
    ],
)
def test_what_each_limit_refuses(limits, now, kept, why):
    found = refused(LimitConfig(**limits), now)
    assert found[0] == kept and why in (None, found[1])


def of_ko(shares):
    return [Order("a", "KO", shares, 50.0, 0.0)]


def test_positions_may_always_be_made_smaller_within_gross():
    limits = LimitConfig(gross=0.1)
    assert refused(limits, orders=ORDERS[:1]) == (["KO"], [])
    assert refused(limits, orders=of_ko(-150.0)) == (["KO"], [])  # gross is 0.25 after 0.5
    assert refused(limits, orders=of_ko(-250.0)) == ([], [("gross", "KO")])


@pytest.mark.parametrize("held", [100.0, -100.0])
def test_after_the_loss_of_a_day_positions_can_be_closed_and_not_turned(held):
    limits = LimitConfig(daily_loss=0.05)
    now = NOW._replace(account=ACCOUNT._replace(shares={"KO": held}), equity_before=20_000.0)
    for shares in (-0.2 * held, -held, 0.0):
        assert refused(limits, now, of_ko(shares)) == (["KO"], [])
    for shares in (-1.1 * held, -2.5 * held, 0.1 * held):
        assert refused(limits, now, of_ko(shares)) == ([], [("daily_loss", "KO")])


def test_bars_that_are_too_old_close_nothing():
    now = NOW._replace(equity_before=20_000.0)
    limits = LimitConfig(daily_loss=0.05, stale_seconds=59.0)
    assert refused(limits, now) == ([], [("daily_loss", "PEP"), ("stale_seconds", "")])
    assert refused(limits, now, of_ko(-100.0)) == ([], [("stale_seconds", "")])


def test_an_order_that_is_refused_counts_no_more():
    limits = LimitConfig(largest_order=4_000.0, gross=0.5)
    assert refused(limits) == (["KO"], [("largest_order", "PEP")])


def test_limits_out_of_range_and_missing_ones_are_named():
    for wrong in ({"gross": 0.0}, {"daily_loss": 1.5}, {"largest_order": float("nan")}):
        with pytest.raises(ConfigError, match=f"LimitConfig.{next(iter(wrong))} must be"):
            LimitConfig(**wrong)
    full = {"largest_order": 1.0, "gross": 1.0, "daily_loss": 0.1, "stale_seconds": 60.0}
    with pytest.raises(ConfigError, match=r"there is no LimitConfig.price_distance: set them"):
        LimitConfig(**full).require_all()
    LimitConfig(**full, price_distance=0.1).require_all()
