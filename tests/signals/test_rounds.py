"""What a strategy on signals entered and left, held to the strategy itself and to its replay."""

import pytest
import torch
from signalled import market
from worlds import FREE, random_bars

from fastsim.backtest.replay import replay
from fastsim.env.config import EnvConfig
from fastsim.signals.confidence import ThresholdConfig
from fastsim.signals.config import SignalConfig
from fastsim.signals.levels import LevelConfig
from fastsim.signals.plan import make_plan
from fastsim.signals.rounds import OPEN, STOP, TARGET, TIME, TURN, find_rounds
from fastsim.signals.strategy import SignalStrategy, find_entries

TIGHT = LevelConfig(stop_atr=0.8, target_atr=1.2)


def settings(sides="both", hold=6):
    return SignalConfig(sides=sides, hold=hold, levels=TIGHT, threshold=ThresholdConfig(least=0.62))


def test_they_are_the_entries_that_the_strategy_finds():
    tape, signals = market(), settings()
    rounds, entries = find_rounds(tape, signals), find_entries(tape, signals)
    again = torch.zeros_like(entries.direction)
    again[rounds.entered, rounds.asset] = rounds.side
    assert torch.equal(again, entries.direction)
    assert len(rounds.side) == int((entries.direction != 0).sum()) > 100
    assert set(rounds.why.tolist()) >= {STOP, TARGET, TIME, TURN}


@pytest.mark.parametrize("sides", ["long", "both"])
def test_replayed_a_weight_is_held_from_the_entry_to_the_end_and_at_no_other_step(sides):
    tape, signals = market(seed=2), settings(sides)
    rules = EnvConfig(costs=FREE, action="weights" if sides == "long" else "signed")
    history = replay(tape, SignalStrategy(signals=signals), ["signals"], rules)
    rounds = find_rounds(tape, signals)
    expected = torch.zeros(tape.last - tape.first, tape.num_assets)
    for asset, entered, left, side in zip(
        rounds.asset, rounds.entered, rounds.left, rounds.side, strict=True
    ):
        expected[entered - tape.first : left - tape.first, asset] = side.float()
    assert torch.equal(history.weights[:, 0, :-1].sign().float(), expected)


def test_each_is_left_for_the_reason_that_prices_and_signals_give():
    bars = random_bars(400, 4, seed=5)
    tape, signals = market(bars, seed=5), settings()
    plan, rounds = make_plan(tape, signals), find_rounds(tape, signals)
    for place in range(len(rounds.why)):
        asset, start, end = (
            int(table[place]) for table in (rounds.asset, rounds.entered, rounds.left)
        )
        side, why = float(rounds.side[place]), int(rounds.why[place])
        stop, target = float(rounds.stop[place]), float(rounds.target[place])

        def reached(bar, level, *, worse, asset=asset, side=side):
            low_side = (side > 0) == worse
            price = (bars.low if low_side else bars.high)[bar, asset]
            return side * (price - level) <= 0 if worse else side * (price - level) >= 0

        for bar in range(start + 1, end):
            assert not reached(bar, stop, worse=True) and not reached(bar, target, worse=False)
            assert float(plan.direction[bar, asset]) * side >= 0
        assert end - start <= signals.bars_held
        if why == OPEN:
            assert end == tape.last
        elif why in (STOP, TARGET):
            assert reached(end, stop if why == STOP else target, worse=why == STOP)
        else:
            assert not reached(end, stop, worse=True) and not reached(end, target, worse=False)
            turned = float(plan.direction[end, asset]) * side < 0
            assert (end - start == signals.bars_held) if why == TIME else turned


def test_a_market_without_signals_has_none():
    tape = market()
    signals = SignalConfig(threshold=ThresholdConfig(least=1.0))
    assert len(find_rounds(tape, signals).asset) == 0
