"""What is observed at a bar is a function of bars up to it, and says what its name says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from worlds import SHORT_FEATURES, assert_same_bits, random_bars

from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.window import BAR_COLUMNS
from fastsim.errors import DataError
from fastsim.market.features import (
    FEATURE_LIMIT,
    FeatureConfig,
    make_features,
    rolling_mean,
    rolling_std,
)
from fastsim.market.tape import TapeConfig, make_tape

LENGTH, WINDOW = 60, 6
FROM_THE_START = EpisodeConfig(horizon=None, random_start=False, staggered=False)
OBSERVATIONS = ("flat", "window", "index")
# Asset 1 lists at bar 15; asset 2 is halted at bars 30, 37, 44, ... : cut around both.
CUTS = (9, 13, 14, 29, 30, 36, 45, LENGTH - 2)


def with_another_future(bars, first):
    """The same bars before `first`; from there on, other prices, volumes, listings and halts."""
    other = random_bars(len(bars), len(bars.symbols), seed=77)
    rng = np.random.default_rng(78)
    halted = rng.random(bars.close.shape) < 0.2
    changed = {}
    for name in ("open", "high", "low", "close", "volume"):
        array = getattr(bars, name).copy()
        array[first:] = np.where(halted, np.nan, getattr(other, name) * 1.7)[first:]
        changed[name] = array
    if bars.adj_close is not None:
        changed["adj_close"] = bars.adj_close.copy()
        changed["adj_close"][first:] = changed["close"][first:] * 0.9
    return replace(bars, **changed)


def observed(bars, fill, until):
    """Every observation, of every kind, at bars up to `until`, of portfolios that trade."""
    tape = make_tape(bars, TapeConfig(fill=fill, features=SHORT_FEATURES), dtype=torch.float64)
    seen = []
    for kind in OBSERVATIONS:
        config = EnvConfig(observation=kind, window_length=WINDOW, episode=FROM_THE_START)
        env = PortfolioEnv(tape, 2, config)
        observation = env.reset()
        generator = torch.Generator().manual_seed(3)
        for _ in range(tape.first, until + 1):
            seen.append((observation, env.columns(observation)))
            weights = torch.rand(2, tape.num_assets, generator=generator, dtype=torch.float64) / 4
            observation = env.step(weights).observation
        assert int(seen[-1][0].bar[0]) == until
    return tuple(seen)


@pytest.mark.parametrize("fill", ["next_open", "close"])
@pytest.mark.parametrize("adjusted", [False, True])
def test_no_later_bar_moves_what_is_known_at_a_bar(fill, adjusted):
    bars = random_bars(LENGTH, 4, seed=2, holes=True, adjusted=adjusted)
    config = TapeConfig(fill=fill, features=SHORT_FEATURES)
    tape = make_tape(bars, config)
    for bar in CUTS:
        other = make_tape(with_another_future(bars, bar + 1), config)
        assert_same_bits(
            tuple(table[: bar + 1] for table in tape.known),
            tuple(table[: bar + 1] for table in other.known),
        )
        assert not torch.equal(tape.next["r_after"][bar], other.next["r_after"][bar])


@pytest.mark.parametrize("fill", ["next_open", "close"])
def test_no_later_bar_moves_an_observation(fill):
    bars = random_bars(LENGTH, 4, seed=2, holes=True)
    for bar in CUTS[1::2]:
        assert_same_bits(
            observed(bars, fill, bar), observed(with_another_future(bars, bar + 1), fill, bar)
        )


@pytest.mark.parametrize("name", ["open", "high", "low", "close", "volume"])
def test_the_bar_itself_does_move_what_is_known_and_observed_at_it(name):
    bars, bar = random_bars(LENGTH, 4, seed=2), 40
    array = getattr(bars, name).copy()
    array[bar] *= 1.01
    moved = replace(bars, **{name: array})
    config = TapeConfig(features=SHORT_FEATURES)
    one, other = make_tape(bars, config), make_tape(moved, config)
    assert not torch.equal(one.known.bars[bar], other.known.bars[bar])
    if name != "open":  # no feature is made of opens
        assert not torch.equal(one.known.features[bar], other.known.features[bar])
    seen, seen_after_the_change = observed(bars, "close", bar), observed(moved, "close", bar)
    each = len(seen) // len(OBSERVATIONS)
    for place, kind in enumerate(OBSERVATIONS):
        last, before = (place + 1) * each - 1, (place + 1) * each - 2
        shows_it = kind == "window" or name == "close" or (kind == "flat" and name != "open")
        same = torch.equal(seen[last][1], seen_after_the_change[last][1])
        assert same is not shows_it
        assert_same_bits(seen[before], seen_after_the_change[before])


def test_an_extra_feature_is_known_at_its_own_bar_and_bounded():
    bars = random_bars(LENGTH, 3, seed=2)
    extra = np.random.default_rng(1).normal(0, 5, bars.close.shape)
    extra[10, 0], extra[11, 0], extra[12, 0] = np.nan, np.inf, -1e300
    tape = make_tape(bars, TapeConfig(features=SHORT_FEATURES), extra_features={"mine": extra})
    assert tape.feature_names[-1] == "mine"
    column = tape.known.features[..., -1].numpy()
    assert column[10, 0] == 0 and column[11, 0] == FEATURE_LIMIT
    assert column[12, 0] == -FEATURE_LIMIT
    np.testing.assert_allclose(column[13:], np.clip(extra, -10, 10)[13:], rtol=1e-6)
    with pytest.raises(DataError, match="extra feature 'mine' must have the shape"):
        make_tape(bars, extra_features={"mine": extra[1:]})


def test_features_are_their_formulas():
    bars = random_bars(40, 2, seed=5, adjusted=True)
    config = FeatureConfig(
        return_windows=(1, 3),
        momentum_window=8,
        momentum_skip=3,
        short_window=4,
        volatility_window=6,
    )
    features = make_features(bars, config)
    close = bars.adj_close
    for bar in (20, 33, 39):
        for asset in (0, 1):
            logs = np.log(close[:, asset])
            daily = np.diff(logs)[:bar]  # up to the return that ends at this bar
            sigma = np.std(daily[-6:])
            span = np.log(bars.high / bars.low)[:, asset]
            sigmas = [np.std(np.diff(logs)[:b][-6:]) for b in range(bar - 3, bar + 1)]
            sizes = np.log1p(bars.volume[bar - 5 : bar + 1, asset])
            expected = {
                "scaled_log_return_1": daily[-1] / sigma,
                "scaled_log_return_3": (logs[bar] - logs[bar - 3]) / (sigma * 3**0.5),
                "scaled_momentum_8_3": (logs[bar - 3] - logs[bar - 8]) / (sigma * 5**0.5),
                "log_volatility_ratio_4": np.log(np.std(daily[-4:]) / sigma),
                "log_volatility_6": np.log(sigma / 0.01),
                "scaled_range_4": np.mean(span[bar - 3 : bar + 1] / sigmas),
                "volume_zscore_6": (sizes[-1] - sizes.mean()) / sizes.std(),
            }
            assert set(expected) == set(features)
            actual = {name: values[bar, asset] for name, values in features.items()}
            assert actual == pytest.approx(expected, rel=1e-7, abs=1e-7)


def test_features_of_closes_alone_leave_out_range_and_volume():
    names = set(make_features(random_bars(40, 2, opens=False, volume=False), SHORT_FEATURES))
    assert not {name for name in names if "range" in name or "volume" in name}


def test_rolling_moments_skip_what_is_missing_and_wait_for_half_a_window():
    values = np.array([[np.nan], [1.0], [2.0], [np.nan], [6.0], [7.0], [8.0]])
    mean = rolling_mean(values, 4)[:, 0]
    np.testing.assert_allclose(mean, [np.nan, np.nan, 1.5, 1.5, 3.0, 5.0, 7.0])
    std = rolling_std(values, 4)[:, 0]
    np.testing.assert_allclose(std[4], np.std([1.0, 2.0, 6.0]), rtol=1e-12)


def test_features_are_complete_from_the_first_bar_an_episode_may_use():
    bars = random_bars(LENGTH, 3, seed=4)
    for config in (
        SHORT_FEATURES,
        FeatureConfig(
            return_windows=(1,),
            momentum_window=4,
            momentum_skip=2,
            short_window=12,
            volatility_window=6,
        ),
    ):
        tape = make_tape(bars, TapeConfig(features=config), dtype=torch.float64)
        # A complete feature does not change when the market is known for longer.
        longer = random_bars(LENGTH, 3, seed=6)
        joined = replace(
            bars,
            timestamps=np.concatenate(
                [longer.timestamps - np.timedelta64(90, "D"), bars.timestamps]
            ),
            **{
                name: np.concatenate([getattr(longer, name), getattr(bars, name)])
                for name in ("open", "high", "low", "close", "volume")
            },
        )
        with_history = make_tape(joined, TapeConfig(features=config), dtype=torch.float64)
        first = tape.first
        torch.testing.assert_close(
            tape.known.features[first:],
            with_history.known.features[LENGTH + first :],
            rtol=1e-6,
            atol=1e-6,
        )


def test_the_observed_volatility_and_traded_value_are_trailing():
    bars = random_bars(LENGTH, 3, seed=4)
    tape = make_tape(bars, TapeConfig(features=SHORT_FEATURES), dtype=torch.float64)
    window, returns = SHORT_FEATURES.volatility_window, np.diff(np.log(bars.close), axis=0)
    dollars = bars.close * bars.volume
    for bar in (20, 50):
        np.testing.assert_allclose(
            tape.known.sigma[bar], returns[bar - window : bar].std(0), rtol=1e-9
        )
        np.testing.assert_allclose(
            tape.known.dollar_volume[bar], dollars[bar - window + 1 : bar + 1].mean(0), rtol=1e-9
        )


def seen_by_name(kind):
    bars = random_bars(LENGTH, 3, seed=2, holes=True)
    tape = make_tape(bars, TapeConfig(features=SHORT_FEATURES), dtype=torch.float64)
    config = EnvConfig(observation=kind, window_length=WINDOW, episode=FROM_THE_START)
    env = PortfolioEnv(tape, 1, config)
    for _ in range(30):
        observation = env.step(torch.tensor([[0.2, 0.3, 0.4]])).observation
    columns = env.columns(observation)
    assert columns.shape == (1, len(env.observation_names))
    assert len(set(env.observation_names)) == len(env.observation_names)
    named = dict(zip(env.observation_names, columns[0].tolist(), strict=True))
    return bars, tape, env, int(observation.bar), named


@pytest.mark.parametrize("kind", OBSERVATIONS)
def test_names_point_to_the_columns_of_the_portfolio(kind):
    _, tape, env, _, named = seen_by_name(kind)
    portfolio = env.state.portfolio
    wealth = float(portfolio.wealth)
    for asset, symbol in enumerate(tape.symbols):
        weight = float(portfolio.holdings[0, asset]) / wealth
        assert named[f"weight.{symbol}"] == pytest.approx(weight, rel=1e-12)
    assert named["weight.cash"] == pytest.approx(float(portfolio.cash) / wealth, rel=1e-12)
    assert named["drawdown"] == pytest.approx(1 - wealth / float(env.state.peak), abs=1e-12)
    assert named["log_growth"] == pytest.approx(np.log(wealth / 1e6), rel=1e-9)


def test_names_point_to_the_columns_of_the_features():
    bars, tape, _, bar, named = seen_by_name("flat")
    features = make_features(bars, SHORT_FEATURES)
    for asset, symbol in enumerate(tape.symbols):
        for name, values in features.items():
            assert named[f"{symbol}.{name}"] == values[bar, asset]


def slow_window(bars, bar, length):
    """The window of bars as a dictionary, number by number."""
    slow = {}
    for asset, symbol in enumerate(bars.symbols):
        rows = [row for row in range(bar - length + 1, bar + 1) if row >= 0]
        mean_volume = np.nanmean([bars.volume[row, asset] for row in rows])
        for age in range(length):
            row = bar - age
            for channel in BAR_COLUMNS:
                value = 0.0
                if row >= 0:
                    base = mean_volume if channel == "volume" else bars.close[bar, asset]
                    value = np.log(getattr(bars, channel)[row, asset] / base)
                slow[f"{symbol}.{channel}.{-age}"] = 0.0 if np.isnan(value) else value
    return slow


def test_a_window_is_what_a_slow_construction_makes():
    bars, _, _, bar, named = seen_by_name("window")
    slow = slow_window(bars, bar, WINDOW)
    assert {name: named[name] for name in slow} == pytest.approx(slow, rel=1e-10, abs=1e-12)
    assert len(named) == len(slow) + 3 + 1 + 2
    assert any(value == 0 for value in slow.values()), "the halted bar is in the window"


def test_a_window_that_reaches_before_the_first_bar_is_zero_there():
    bars = random_bars(LENGTH, 2, seed=2)
    tape = make_tape(bars, TapeConfig(features=SHORT_FEATURES), dtype=torch.float64)
    config = EnvConfig(observation="window", window_length=9, episode=FROM_THE_START)
    env = PortfolioEnv(tape, 1, config)
    columns = env.columns(env.reset())[0].tolist()
    named = dict(zip(env.observation_names, columns, strict=True))
    slow = slow_window(bars, tape.first, 9)
    assert {name: named[name] for name in slow} == pytest.approx(slow, rel=1e-10, abs=1e-12)
    assert named["S0.close.-8"] == 0 and named["S0.close.-4"] != 0


@pytest.mark.parametrize("kind", OBSERVATIONS)
def test_observations_are_bounded_whatever_the_market_does(kind):
    bars = random_bars(LENGTH, 3, seed=2, holes=True)
    for prices in (bars.open, bars.high, bars.low, bars.close):
        prices[20:30] *= 1e9
    bars.volume[25:40] = 0.0
    tape = make_tape(bars, TapeConfig(features=SHORT_FEATURES))
    config = EnvConfig(observation=kind, window_length=WINDOW, episode=FROM_THE_START)
    env = PortfolioEnv(tape, 2, config)
    for _ in range(tape.last - tape.first):
        columns = env.columns(env.step(torch.full((2, 3), 0.3)).observation)
        assert columns.isfinite().all() and columns.abs().max() <= FEATURE_LIMIT


def test_between_restricts_episodes_and_shares_the_tables():
    tape = make_tape(random_bars(LENGTH, 2), TapeConfig(features=SHORT_FEATURES))
    part = tape.between(slice(20, 31))
    assert (part.first, part.last) == (20, 30)
    assert part.known.features is tape.known.features
    assert tape.between(slice(0, 31)).first == tape.first
    with pytest.raises(DataError, match="leave no step"):
        tape.between(slice(20, 21))


def test_too_few_bars_are_an_error_that_says_how_many_are_needed():
    with pytest.raises(DataError, match="6 bars are too few: features need 5 bars"):
        make_tape(random_bars(6, 2), TapeConfig(features=SHORT_FEATURES))
    assert len(make_tape(random_bars(7, 2), TapeConfig(features=SHORT_FEATURES))) == 7


def test_filling_at_the_next_open_needs_opens():
    bars = random_bars(20, 2, opens=False)
    with pytest.raises(DataError, match="needs open prices"):
        make_tape(bars, TapeConfig(fill="next_open", features=SHORT_FEATURES))
    assert make_tape(bars, TapeConfig(features=SHORT_FEATURES)).fill == "close"
