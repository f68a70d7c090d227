"""Players of one market whose positions are closed within bars: each as if it were alone in it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import (
    TOLERANCE,
    assert_ruined_alone_and_together,
    assert_same_run,
    configs,
    of_futures,
    ruinous,
    run,
    soaring_tape,
    tapes,
)
from worlds import FREE, SHORT_FEATURES, random_bars, weekdays

from fastsim.data.bars import Bars
from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.orders import OrderConfig
from fastsim.env.perpetual import PerpetualConfig
from fastsim.env.randomize import RandomizeConfig
from fastsim.market.tape import TapeConfig, make_tape

FROM_THE_START = EpisodeConfig(horizon=None, random_start=False, staggered=False)
BOTH = OrderConfig(stop=0.05, target=0.10)
STILL, HOLD = (100.0,) * 4, float("nan")
FIRST = 5  # bars of warm-up
RULES = {
    "levels": {"orders": OrderConfig(stop=0.01, target=0.02, trailing=0.015)},
    "asked for": {"orders": OrderConfig(stop=0.02, target=0.03), "action": "bracketed"},
    "futures": {
        "perpetual": PerpetualConfig(leverage=25.0),
        "orders": OrderConfig(target=0.02),
        "action": "leveraged",
        "max_gross": 6.0,
    },
}

each_backend = pytest.mark.parametrize("backend", ["torch", "numba"])


def bars_of(*prices):
    """Seven still bars at 100, these (open, high, low, close), and three at the last close."""
    rows = [STILL] * (FIRST + 2) + [*prices] + [(prices[-1][3],) * 4] * 3
    columns = np.array(rows, dtype=float)[:, :, None].transpose(1, 0, 2)
    named = dict(zip(("open", "high", "low", "close"), columns, strict=True))
    return Bars(symbols=("X",), timestamps=weekdays(len(rows)), **named)


def make_env(bars, backend, *, perpetual=None, funding=0.0, **rules):
    """Two players in one market, each with 1000."""
    tape = make_tape(bars, TapeConfig(features=SHORT_FEATURES), dtype=torch.float64)
    if perpetual is not None:
        rates = torch.full(tape.next["price"].shape, funding, dtype=torch.float64)
        tape = replace(tape, next=tape.next.changed({"funding": rates}))
        rules["perpetual"] = perpetual
    rules = {"action": "signed", "initial_cash": 1000.0, "costs": FREE, **rules}
    config = EnvConfig(players=2, episode=FROM_THE_START, **rules)
    env = PortfolioEnv(tape, 2, config, backend=backend, single_orders=True)
    env.reset(0)
    return env


def play(env, one, other):
    """Outcome of a step to these weights of the only asset."""
    return env.step(torch.tensor([[one], [other]], dtype=torch.float64)).outcome


@pytest.mark.long
@each_backend
def test_one_bar_stops_the_one_and_pays_the_other(backend):
    env = make_env(bars_of((100, 101, 88, 92)), backend, orders=BOTH)
    play(env, 0.5, -0.5)  # five shares each, at 100
    outcome = play(env, HOLD, HOLD)
    assert outcome.exits.stopped.tolist() == pytest.approx([5 * 95, 0])
    assert outcome.exits.taken.tolist() == pytest.approx([0, 5 * 90])
    assert outcome.exits.trade[:, 0].tolist() == pytest.approx([-5 * 95, 5 * 90])
    assert outcome.wealth.tolist() == pytest.approx([1000 - 5 * 5, 1000 + 5 * 10])
    assert not env.state.portfolio.holdings.any() and not env.state.since.entry.any()


@each_backend
def test_players_hold_their_own_entries_and_best_closes(backend):
    rise = (100, 120, 100, 120), (120, 121, 113, 115)
    env = make_env(bars_of(*rise), backend, orders=OrderConfig(trailing=0.05))
    play(env, 0.0, 0.5)
    play(env, 0.6, HOLD)  # both are long when the price rises to 120
    outcome = play(env, HOLD, 0.0)  # one has a stop at 114, the other has sold at 120
    assert outcome.exits.stopped.tolist() == pytest.approx([6 * 114, 0])
    assert outcome.wealth.tolist() == pytest.approx([1000 + 6 * 14, 1000 + 5 * 20])


@each_backend
def test_who_is_ruined_keeps_no_level_and_the_others_keep_theirs(backend):
    gap, fall = (150, 151, 149, 150), (150, 151, 140, 141)
    env = make_env(bars_of(gap, fall), backend, max_gross=4.0, orders=OrderConfig(stop=0.05))
    play(env, -3.0, 0.5)
    outcome = play(env, HOLD, HOLD)  # 30 shares sold at 100 are not bought back for 1000 at 150
    assert outcome.ruined.tolist() == [True, False]
    assert not outcome.exits.trade.any()  # of who has nothing at the fill nothing is closed
    assert env.state.since.entry[:, 0].tolist() == pytest.approx([0, 1.5])
    outcome = play(env, 1.0, 1.0)  # of 1250, at 150; the stop is at 95 % of the mean entry
    shares = 1250 / 150
    stop = 0.95 * (5 * 100 + (shares - 5) * 150) / shares
    assert outcome.exits.trade[0, 0] == 0 and stop < 140
    outcome = play(env, HOLD, HOLD)
    assert outcome.wealth.tolist() == pytest.approx([0, shares * 141])
    assert float(env.state.since.entry[1, 0]) == pytest.approx(141 * shares * 0.95 / stop / shares)


@each_backend
def test_an_exchange_liquidates_one_player_and_not_the_other(backend):
    # At 4 times leverage without a maintenance margin worth naming LP is at three quarters of 100.
    terms = PerpetualConfig(leverage=4.0, maintenance_rate=1e-9, liquidation_fee_bps=0.0)
    rules = {"action": "leveraged", "max_gross": 4.0, "perpetual": terms, "funding": 0.01}
    env = make_env(bars_of((100, 101, 74, 80)), backend, **rules)
    outcome = play(env, 2.0, -1.0)
    assert outcome.settlement.funding.tolist() == pytest.approx([20, -10])
    outcome = play(env, HOLD, HOLD)
    assert outcome.settlement.liquidated.tolist() == pytest.approx([20 * 75, 0])
    assert outcome.settlement.seized[:, 0].tolist() == pytest.approx([-20 * 75, 0])
    long, short = 1000 - 20 - 20 * 25 - 20, 1000 + 10 + 10 * 20 + 10
    assert outcome.wealth.tolist() == pytest.approx([long, short])


@each_backend
@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_players_who_move_no_price_are_each_alone(backend, rules):
    bars = random_bars(40, 3, seed=2)
    tape = make_tape(bars, TapeConfig(features=SHORT_FEATURES), dtype=torch.float64)
    config = EnvConfig(episode=FROM_THE_START, initial_invested=0.5, **rules)
    tape, config = of_futures(tape, config, 1)
    together, alone = (
        PortfolioEnv(tape, 6, replace(config, players=players), backend=backend)
        for players in (3, 1)
    )
    together.reset(0)
    alone.reset(0)
    generator, closed = torch.Generator().manual_seed(0), 0
    width = 9 if config.action == "bracketed" else 3
    for _ in range(25):
        action = torch.randn(6, width, generator=generator, dtype=torch.float64)
        action[:, 3:] *= 0.01
        one, other = together.step(action).outcome, alone.step(action).outcome
        assert not other.ruined.any()
        closed += int((one.exits.trade != 0).sum())
        torch.testing.assert_close(one.wealth, other.wealth, rtol=1e-12, atol=0)
        torch.testing.assert_close(one.exits, other.exits, rtol=1e-11, atol=1e-6)
        torch.testing.assert_close(one.settlement, other.settlement, rtol=1e-11, atol=1e-6)
        torch.testing.assert_close(together.state.since, alone.state.since, rtol=1e-12, atol=0)
    assert closed > 20


@pytest.mark.parametrize("autoreset", ["next_step", "same_step"])
def test_fused_steps_ruin_players_amid_others_and_together(autoreset):
    config = replace(
        ruinous(autoreset, 0.0, horizon=30),
        orders=OrderConfig(stop=0.05, target=0.1, trailing=0.03, maintenance_margin=0.1),
    )
    runs = [run(soaring_tape(), config, 5, backend, envs=30) for backend in ("torch", "numba")]
    assert_same_run(*runs, config.initial_cash, TOLERANCE[torch.float64])
    assert_ruined_alone_and_together(runs[0])


@pytest.mark.long
@settings(max_examples=40)
@given(
    tapes(torch.float64),
    configs(levels=True).filter(lambda config: config.closes_within),
    st.sampled_from([2, 3, 10]),
    st.integers(0, 2**40),
)
def test_fused_steps_close_what_the_reference_does(tape, config, players, seed):
    config = replace(config, players=players)
    runs = [run(tape, config, seed, backend, envs=30) for backend in ("torch", "numba")]
    assert_same_run(*runs, config.initial_cash, TOLERANCE[tape.dtype])


@pytest.mark.long
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("fill", ["next_open", "close"])
def test_many_episodes_of_markets_are_those_of_the_reference(dtype, fill):
    bars = random_bars(60, 5, seed=6, holes=True)
    tape = make_tape(bars, TapeConfig(features=SHORT_FEATURES, fill=fill), dtype=dtype)
    config = EnvConfig(
        players=4,
        orders=OrderConfig(stop=0.012, target=0.02, trailing=0.015, unfilled="carry"),
        action="signed",
        max_gross=2.0,
        randomize=RandomizeConfig(volatility=(0.5, 2.0), assets=(2, 5)),
        episode=EpisodeConfig(horizon=9, staggered=True),
        initial_invested=0.5,
    )
    runs = [run(tape, config, 3, backend, envs=20) for backend in ("torch", "numba")]
    assert_same_run(*runs, config.initial_cash, TOLERANCE[dtype])
    for name in ("stopped", "taken"):
        told = torch.stack([state[f"info.{name}"] for _, _, state in runs[1][1:]])
        assert (told > 0).sum() > 50, name
