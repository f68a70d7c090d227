"""Every backend makes the steps of the reference: same restarts, same draws, same books."""

import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import SHORT_FEATURES, grid, random_bars

from fastsim.env.actions import action_width
from fastsim.env.core import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.reward import RewardConfig
from fastsim.errors import ConfigError
from fastsim.market.costs import CostConfig, make_friction
from fastsim.market.tape import TapeConfig, make_tape

ENVS, STEPS = 5, 40
WHOLE = EnvConfig(episode=EpisodeConfig(horizon=None))
REWARD_KINDS = (
    "log_growth",
    "excess_log_growth",
    "simple_return",
    "differential_sharpe",
    "drawdown_penalized_growth",
)
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-11}


@st.composite
def tapes(draw, dtype):
    """Markets with holes or without, with volume and opens or without."""
    opens, volume, holes = (draw(st.booleans()) for _ in range(3))
    bars = random_bars(
        60, draw(st.integers(3, 18)), draw(st.integers(0, 9)), opens=opens, volume=volume,
        holes=holes,
    )  # fmt: skip
    rate = draw(st.sampled_from([0.0, 0.05]))
    return make_tape(bars, TapeConfig(features=SHORT_FEATURES, risk_free_rate=rate), dtype=dtype)


@st.composite
def configs(draw):
    """Any combination of the rules."""
    action = draw(st.sampled_from(["weights", "signed", "logits"]))
    costs = CostConfig(
        fee_bps=draw(st.sampled_from([0.0, 1.0, 100.0])),
        half_spread_bps=draw(st.sampled_from([0.0, 2.0, 50.0])),
        impact=draw(st.sampled_from([0.0, 1.0, 3.0])),
        participation=draw(st.sampled_from([1e-3, 0.05, 1e9])),
        borrow_bps_per_year=draw(st.sampled_from([0.0, 500.0])),
    )
    return EnvConfig(
        action=action,
        max_gross=draw(st.sampled_from([0.5, 1.0, 4.0])) if action == "signed" else 1.0,
        reward=RewardConfig(
            kind=draw(st.sampled_from(REWARD_KINDS)),
            adaptation=0.05,
            drawdown_penalty=draw(st.sampled_from([0.0, 2.0])),
        ),
        episode=EpisodeConfig(
            horizon=draw(st.sampled_from([1, 7, None])),
            random_start=draw(st.booleans()),
            staggered=draw(st.booleans()),
        ),
        costs=costs,
        initial_cash=draw(st.sampled_from([1e3, 1e6])),
        observation=draw(st.sampled_from(["flat", "index", "window"])),
        window_length=3,
        autoreset=draw(st.sampled_from(["next_step", "same_step"])),
    )


def actions(tape, config, seed):
    """Random actions [STEPS, N, width], some of them out of bounds, some not finite."""
    generator = torch.Generator().manual_seed(seed)
    width = action_width(config.action, tape.num_assets)
    rows = 2.0 * torch.randn(STEPS, ENVS, width, generator=generator, dtype=tape.dtype)
    rows[3, 1, 0], rows[4, 2, -1], rows[5, 3] = torch.nan, torch.inf, 1e30
    rows[6, 4] = 0.0
    return rows


def run(tape, config, seed, backend, friction=None):
    """Observations, transitions and states of one run."""
    env = PortfolioEnv(tape, ENVS, config, friction=friction, seed=seed, backend=backend)
    record = [(env.columns(env.reset(seed)), None, None)]
    for action in actions(tape, config, seed):
        transition = env.step(action)
        state = [leaf.clone() for leaf in _numbers(env.state)]
        record.append((env.columns(transition.observation), transition, state))
    return record


def _numbers(state):
    episode = state.episode
    return (
        *(episode.bar, episode.end, episode.number, episode.done, state.invalid_actions, state.key),
        *(state.portfolio.holdings, state.portfolio.cash, state.peak, *state.memory),
    )


def assert_same_run(reference, other, wealth, tolerance):
    """Equal to rounding in everything that is not a count."""

    def near(found, wanted, scale=1.0):
        torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance * scale)

    near(other[0][0], reference[0][0])
    for (columns, found, state), (wanted_columns, wanted, wanted_state) in zip(
        other[1:], reference[1:], strict=True
    ):
        near(columns, wanted_columns, 10.0)
        for name in ("terminated", "truncated", "restarted"):
            assert torch.equal(getattr(found, name), getattr(wanted, name)), name
        assert torch.equal(found.observation.bar, wanted.observation.bar)
        near(found.observation.portfolio, wanted.observation.portfolio, 10.0)
        assert (found.final_observation is None) == (wanted.final_observation is None)
        if wanted.final_observation is not None:
            assert torch.equal(found.final_observation.bar, wanted.final_observation.bar)
            near(found.final_observation.portfolio, wanted.final_observation.portfolio, 10.0)
        live = ~wanted.restarted
        near(found.reward, wanted.reward, 300.0)  # a Sharpe difference divides by small variances
        outcome, expected = found.outcome, wanted.outcome
        assert torch.equal(outcome.ruined[live], expected.ruined[live])
        near(outcome.turnover[live], expected.turnover[live], 10.0)
        for name in ("wealth_before", "wealth_at_fill", "wealth_traded", "wealth"):
            near(getattr(outcome, name)[live], getattr(expected, name)[live], wealth)
        for part, share in zip(outcome.cost, expected.cost, strict=True):
            near(part[live], share[live], wealth)
        near(outcome.borrow[live], expected.borrow[live], wealth)
        near(outcome.interest[live], expected.interest[live], wealth)
        for mine, theirs in zip(state[:6], wanted_state[:6], strict=True):
            assert torch.equal(mine, theirs)
        for mine, theirs in zip(state[6:9], wanted_state[6:9], strict=True):
            near(mine, theirs, wealth)
        for mine, theirs in zip(state[9:], wanted_state[9:], strict=True):
            near(mine, theirs)


@settings(max_examples=60)
@given(tapes(torch.float64), configs(), st.integers(0, 2**40))
def test_numba_steps_as_the_reference(tape, config, seed):
    runs = (run(tape, config, seed, backend) for backend in ("torch", "numba"))
    assert_same_run(*runs, config.initial_cash, TOLERANCE[tape.dtype])


@settings(max_examples=40)
@given(tapes(torch.float32), configs(), st.integers(0, 2**40))
def test_numba_steps_as_the_reference_in_float32(tape, config, seed):
    runs = (run(tape, config, seed, backend) for backend in ("torch", "numba"))
    assert_same_run(*runs, config.initial_cash, TOLERANCE[tape.dtype])


@given(tapes(torch.float64), st.lists(grid(0, 100), min_size=ENVS, max_size=ENVS))
@settings(max_examples=10)
def test_every_environment_pays_its_own_costs(tape, fees):
    friction = make_friction(CostConfig(), ENVS, dtype=tape.dtype, fee_bps=torch.tensor(fees))
    config = EnvConfig(episode=EpisodeConfig(horizon=7))
    runs = (run(tape, config, 1, backend, friction) for backend in ("torch", "numba"))
    assert_same_run(*runs, config.initial_cash, TOLERANCE[tape.dtype])


def soaring_tape():
    """A market in which one asset is worth eight times as much overnight: ruin for the short."""
    bars = random_bars(60, 3, seed=4, volume=False)
    for prices in (bars.open, bars.high, bars.low, bars.close):
        prices[30:, 0] *= 8.0
    return make_tape(bars, TapeConfig(features=SHORT_FEATURES), dtype=torch.float64)


@pytest.mark.parametrize("autoreset", ["next_step", "same_step"])
def test_ruin_ends_an_episode_in_every_backend(autoreset):
    config = EnvConfig(
        action="signed", max_gross=4.0, autoreset=autoreset, episode=EpisodeConfig(horizon=30)
    )
    runs = [run(soaring_tape(), config, 5, backend) for backend in ("torch", "numba")]
    assert any(transition.terminated.any() for _, transition, _ in runs[0][1:])
    assert_same_run(*runs, config.initial_cash, TOLERANCE[torch.float64])


def test_threads_share_the_environments_and_change_no_bit(threads):
    tape = make_tape(random_bars(120, 8, seed=3), TapeConfig(features=SHORT_FEATURES))
    config, count = EnvConfig(action="logits", episode=EpisodeConfig(horizon=9)), 4097
    ends = []
    for number in (1, 2, 3):
        threads(number)
        env = PortfolioEnv(tape, count, config, backend="numba")
        env.reset(0)
        generator = torch.Generator().manual_seed(0)
        for _ in range(12):
            last = env.step(torch.randn(count, 9, generator=generator))
        ends.append(torch.cat([last.observation.portfolio, last.reward[:, None]], dim=1))
    assert torch.equal(ends[0], ends[1]) and torch.equal(ends[0], ends[2])


def test_what_a_step_returns_is_the_callers_to_keep():
    tape = make_tape(random_bars(60, 3), TapeConfig(features=SHORT_FEATURES))
    env = PortfolioEnv(tape, 2, EnvConfig(episode=EpisodeConfig(horizon=20)), backend="numba")
    env.reset(0)
    first = env.step(torch.full((2, 3), 0.3))
    kept = first.observation.portfolio.clone(), first.reward.clone()
    env.step(torch.zeros(2, 3))
    assert torch.equal(first.observation.portfolio, kept[0]) and torch.equal(first.reward, kept[1])


def test_a_loaded_state_is_gone_on_from():
    tape = make_tape(random_bars(60, 3), TapeConfig(features=SHORT_FEATURES), dtype=torch.float64)
    config = EnvConfig(episode=EpisodeConfig(horizon=20))
    one, other = (PortfolioEnv(tape, 2, config, backend=name) for name in ("torch", "numba"))
    one.reset(7)
    one.step(torch.full((2, 3), 0.3))
    other.state = one.state
    last = [env.step(torch.full((2, 3), 0.2)) for env in (one, other)]
    torch.testing.assert_close(last[0].reward, last[1].reward, rtol=1e-10, atol=1e-13)
    assert torch.equal(last[0].observation.bar, last[1].observation.bar)


def test_auto_takes_the_fused_step_and_says_when_it_cannot(caplog):
    bars = random_bars(60, 3)
    with caplog.at_level(logging.INFO):
        for dtype, name in ((torch.float32, "numba"), (torch.float64, "torch")):
            tape = make_tape(bars, TapeConfig(features=SHORT_FEATURES), dtype=dtype)
            assert PortfolioEnv(tape, 2, WHOLE).stepper.name == name
    assert caplog.messages == [
        "environment steps run on numba",
        "environment steps run on torch: the market is torch.float64, fused steps are for float32",
    ]


def test_a_backend_that_does_not_exist_or_fit_is_refused():
    tape = make_tape(random_bars(60, 3), TapeConfig(features=SHORT_FEATURES))
    with pytest.raises(ConfigError, match=r"backend must be one of .*\"numba\".*got 'cuda'"):
        PortfolioEnv(tape, 2, WHOLE, backend="cuda")
    with pytest.raises(ConfigError, match='"numba" runs on a CPU, not on meta'):
        PortfolioEnv(tape.to("meta"), 2, WHOLE, backend="numba")
