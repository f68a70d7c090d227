"""Features of prices that hardly move, or move by one rule, are finite and moderate."""

import numpy as np
import pytest
from worlds import random_bars, weekdays

from fastsim.data.bars import Bars
from fastsim.market.features import (
    FEATURE_LIMIT,
    FeatureConfig,
    make_features,
    own_features,
    trailing_volatility,
)
from fastsim.market.tape import make_tape

LENGTH = 400
DAYS = np.arange(LENGTH)
RNG = np.random.default_rng(0)
STILL = {
    "constant": np.full(LENGTH, 100.0),
    "grows by a constant": 100.0 * 1.001**DAYS,
    "falls by a constant": 100.0 * 0.999**DAYS,
    "grows by a constant, in float32": (100.0 * 1.001**DAYS).astype(np.float32),
    "grows by a constant, to the cent": (100.0 * 1.001**DAYS).round(4),
    "constant and tiny": np.full(LENGTH, 1e-8),
    "constant and huge": np.full(LENGTH, 1e9),
    "pegged": np.full(LENGTH, 1.0),
}
CALM = {
    "one jump": np.where(DAYS < 200, 100.0, 130.0),
    "one fall": np.where(DAYS < 200, 100.0, 60.0),
    "spike": np.where(DAYS == 200, 130.0, 100.0),
    "pegged with noise": 1.0 + 1e-4 * RNG.integers(-1, 2, LENGTH),
}


def bars_of(close):
    close = np.asarray(close, dtype=np.float64)[:, None]
    return Bars(
        symbols=("X",),
        timestamps=weekdays(LENGTH),
        close=close,
        open=close.copy(),
        high=close.copy(),
        low=close.copy(),
        volume=np.full_like(close, 1e4),
    )


@pytest.mark.parametrize("name", STILL)
def test_what_does_not_deviate_has_features_of_zero(name):
    features = make_features(bars_of(STILL[name]), FeatureConfig())
    features.pop("log_volatility_63")
    for label, values in features.items():
        assert (values == 0).all(), label
    assert make_tape(bars_of(STILL[name])).known.features.isfinite().all()


@pytest.mark.parametrize("name", ["constant", "grows by a constant", "falls by a constant"])
def test_what_does_not_deviate_has_no_volatility(name):
    features = make_features(bars_of(STILL[name]), FeatureConfig())
    assert (features["log_volatility_63"] == 0).all()
    assert (make_tape(bars_of(STILL[name])).known.sigma == 0).all()


@pytest.mark.parametrize("name", CALM)
def test_what_seldom_moves_has_features_within_bounds(name):
    features = make_features(bars_of(CALM[name]), FeatureConfig())
    for label, values in features.items():
        assert np.isfinite(values).all()
        assert (np.abs(values) < FEATURE_LIMIT).all(), label


def test_after_a_jump_has_left_all_windows_features_are_as_they_were():
    features = make_features(bars_of(CALM["one jump"]), FeatureConfig())
    for label, values in features.items():
        assert (values[330:] == values[199]).all(), label


def test_a_standstill_is_told_from_usual_days():
    close = 100.0 * np.exp(np.cumsum(RNG.normal(0, 0.01, LENGTH)))
    close[300:] = close[300]
    ratio = make_features(bars_of(close), FeatureConfig())["log_volatility_ratio_21"][:, 0]
    assert abs(ratio[290]) < 1.0 and ratio[325] == pytest.approx(np.log(0.01))


@pytest.mark.parametrize("scale", [1e-10, 1e-6, 1e7])
def test_features_know_no_unit_of_price(scale):
    bars = random_bars(LENGTH, 2, seed=3)
    scaled = Bars(
        symbols=bars.symbols,
        timestamps=bars.timestamps,
        volume=bars.volume,
        **{name: getattr(bars, name) * scale for name in ("open", "high", "low", "close")},
    )
    one, other = (make_features(each, FeatureConfig()) for each in (bars, scaled))
    for name, values in one.items():
        np.testing.assert_allclose(other[name], values, atol=1e-9)
    assert make_tape(scaled).known.features.isfinite().all()


def test_volatility_of_ordinary_prices_is_their_standard_deviation():
    bars = random_bars(LENGTH, 2, seed=4)
    returns = np.diff(np.log(bars.close), axis=0)
    expected = returns[200 - 63 : 200].std(0)
    np.testing.assert_allclose(trailing_volatility(bars, 63)[200], expected, rtol=1e-12)
    assert {record.name for record in own_features(FeatureConfig())} == set(
        make_features(bars, FeatureConfig())
    )
