"""Interest and fees on shorts come to what they are by the clock, however short a bar is."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fastsim.data.read import read_bars
from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.impact import ImpactConfig
from fastsim.market.costs import CostConfig
from fastsim.market.features import FeatureConfig
from fastsim.market.tape import TapeConfig, make_tape

BACKENDS = ["torch", "numba", pytest.param("triton", marks=pytest.mark.long)]
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter")
MINUTES = Path(__file__).parents[1] / "cases" / "data" / "minutes.csv"
STEPS, MINUTE = 195, 1.0 / (365 * 24 * 60)
FEATURES = FeatureConfig(
    return_windows=(1,), momentum_window=3, momentum_skip=2, short_window=2, volatility_window=3
)


def make(backend, rate=0.0, borrow=0.0, dtype=torch.float32, bars=None, **rules):
    if backend == "triton":
        pytest.importorskip("triton", reason="triton is for Linux")
    tape = make_tape(
        read_bars(MINUTES) if bars is None else bars,
        TapeConfig(features=FEATURES, risk_free_rate=rate),
        dtype=dtype,
    )
    free = CostConfig(fee_bps=0, half_spread_bps=0, impact=0, borrow_bps_per_year=borrow)
    episode = EpisodeConfig(horizon=STEPS, random_start=False)
    config = EnvConfig(**({"action": "signed", "costs": free, "episode": episode} | rules))
    rows = 1 if backend == "triton" else 2  # it is interpreted, row by row
    env = PortfolioEnv(tape, rows, config, backend=backend)
    env.reset(0)
    return env


def play(env, weight=0.0, steps=STEPS):
    """Trade once, then hold; returns wealth [N] and what interest and borrow came to."""
    action = torch.full((env.num_envs, 1), float("nan"), dtype=env.tape.dtype)
    paid = {"interest": 0.0, "borrow": 0.0}
    for step in range(steps):
        outcome = env.step(action if step else torch.full_like(action, weight)).outcome
        for name in paid:
            paid[name] += float(getattr(outcome, name)[0])
    return env.state.wealth, paid


def one_step_of(amount):
    return float(np.spacing(np.float32(amount)))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("rate", "earned"), [(0.01, 3.7), (0.03, 11.1), (-0.01, -3.7)])
def test_a_million_in_cash_earns_its_interest_by_the_minute(backend, rate, earned):
    wealth, paid = play(make(backend, rate))
    assert earned == pytest.approx(1e6 * rate * MINUTE * STEPS, rel=0.01)
    for each in wealth.tolist():
        assert abs(each - 1e6 - earned) <= 0.02 * abs(earned) + one_step_of(1e6)
    assert paid["interest"] == pytest.approx(earned, rel=0.01)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("impact", [ImpactConfig(), ImpactConfig(transient=1e-9)])
def test_a_short_of_a_million_pays_its_fee_by_the_minute(backend, impact):
    bars = read_bars(MINUTES)
    if impact.moves_prices:
        bars = type(bars)(
            symbols=bars.symbols,
            timestamps=bars.timestamps,
            close=bars.close,
            volume=np.full_like(bars.close, 1e9),
        )
    (free, _), (wealth, paid) = (
        play(make(backend, borrow=fee, bars=bars, impact=impact), -1.0) for fee in (0.0, 50.0)
    )
    due = 1e6 * 50e-4 * MINUTE * STEPS
    assert due == pytest.approx(1.9, rel=0.03)
    assert paid["borrow"] == pytest.approx(due, rel=0.01) and paid["interest"] == 0
    for with_fee, without in zip(wealth.tolist(), free.tolist(), strict=True):
        assert abs(without - with_fee - due) <= 0.02 * due + 2 * one_step_of(1e6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_told_of_an_account_is_what_becomes_of_its_cash(backend):
    env = make(backend, 0.03, 300.0)
    _, paid = play(env, -0.7)
    portfolio, carry = env.state.portfolio, env.state.carry
    owned = float(portfolio.cash[0].double() + carry[0].double())
    assert owned - 1.7e6 == pytest.approx(paid["interest"] - paid["borrow"], abs=2e-3)
    assert float(carry.abs().max()) <= one_step_of(float(portfolio.cash[0]))


@pytest.mark.long
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_hundred_thousand_minutes_drift_by_no_more_than_one_step(backend):
    steps = 150 if backend == "triton" else 5000
    bars = read_bars(MINUTES)
    day = np.arange(steps + 10) * np.timedelta64(1, "m") + bars.timestamps[0]
    still = type(bars)(
        symbols=bars.symbols, timestamps=day, close=np.resize(bars.close, (steps + 10, 1))
    )
    episode = EpisodeConfig(horizon=steps, random_start=False)
    wealth, _ = play(make(backend, 0.02, bars=still, episode=episode), steps=steps)
    expected = 1e6 * np.exp(steps * np.log1p(0.02 * MINUTE))
    assert abs(float(wealth[0]) - expected) <= one_step_of(1e6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_carry_is_saved_with_the_account_and_begins_anew_with_it(backend):
    env, other = make(backend, 0.01), make(backend, 0.01)
    play(env, steps=100)
    assert (env.state.carry != 0).all()
    other.load_state_dict(env.state_dict())
    hold = torch.full((env.num_envs, 1), float("nan"))
    for _ in range(STEPS - 100):
        env.step(hold), other.step(hold)
    assert torch.equal(env.state.wealth, other.state.wealth)
    assert torch.equal(env.state.carry, other.state.carry)
    env.step(hold)  # the episode has ended, and the next begins
    assert (env.state.carry == 0).all() and (env.state.portfolio.cash == 1e6).all()


def test_float64_agrees_with_float32_to_one_step_of_it():
    ends = [
        float(play(make("torch", 0.03, dtype=dtype))[0][0])
        for dtype in (torch.float32, torch.float64)
    ]
    assert abs(ends[0] - ends[1]) <= one_step_of(1e6)
