"""A user's own features: named in the configuration, and held to what features are."""

import sys
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from worlds import SHORT_FEATURES, change_with_volatility, random_bars

from fastsim import cli
from fastsim.config import load_yaml, save_yaml
from fastsim.env.observe import feature_columns
from fastsim.errors import ConfigError, DataError
from fastsim.market.features import (
    FEATURE_LIMIT,
    FEATURES,
    Feature,
    FeatureConfig,
    log_returns,
    make_features,
    own_features,
    rolling_mean,
    rolling_std,
    unit,
)
from fastsim.market.tape import TapeConfig, make_tape

HERE = __name__
BARS = random_bars(60, 3, seed=2)


def feature(function, **settings):
    return Feature(name="mine", function=function, **settings)


def named(*names, **changes):
    return replace(SHORT_FEATURES, extra=names, **changes)


def made(record, monkeypatch, bars=BARS, **changes):
    """The column of this record, named by where it can be imported from."""
    monkeypatch.setattr(sys.modules[HERE], "MINE", record)
    return make_features(bars, named(f"{HERE}:MINE", **changes))["mine"]


MINE = None
GAP = Feature(
    name="gap",
    function=lambda bars, config: np.log(bars.open / bars.close) / unit(bars, config),
    warmup=9,
    needs=("open",),
)
LEVEL = Feature(
    name="level",
    function=lambda bars, config: np.log(rolling_std(log_returns(bars.close), 4)),
    warmup=4,
    rises_with_volatility=True,
)


def test_a_feature_of_ones_own_is_a_column_after_fastsims_own():
    tape = make_tape(BARS, TapeConfig(features=named(f"{HERE}:GAP")), dtype=torch.float64)
    plain = make_tape(BARS, TapeConfig(features=SHORT_FEATURES), dtype=torch.float64)
    assert tape.feature_names == (*plain.feature_names, "gap")
    assert tape.first == 9 > plain.first
    torch.testing.assert_close(tape.known.features[..., :-1], plain.known.features)
    expected = np.log(BARS.open / BARS.close) / unit(BARS, SHORT_FEATURES)
    column = tape.known.features[9:, :, -1].numpy()
    np.testing.assert_allclose(column, expected[9:].clip(-FEATURE_LIMIT, FEATURE_LIMIT))
    assert np.abs(column).max() > 0.1


def test_one_that_is_registered_is_named_without_its_module(monkeypatch):
    monkeypatch.setattr(FEATURES, "_records", dict(FEATURES))
    FEATURES.add(GAP)
    one = make_features(BARS, named("gap"))
    other = make_features(BARS, named(f"{HERE}:GAP"))
    np.testing.assert_array_equal(one["gap"], other["gap"])


def test_fastsims_own_are_found_with_other_windows_than_the_configurations():
    features = make_features(BARS, named("scaled_log_return_5"))
    expected = log_returns(BARS.close, 5) / (unit(BARS, SHORT_FEATURES) * 5**0.5)
    np.testing.assert_array_equal(features["scaled_log_return_5"][10:], expected[10:])


def test_text_names_it_alike_in_yaml_on_the_command_line_and_in_gymnasium(tmp_path):
    reference = f"{HERE}:GAP"
    windows = {"return_windows": [1], "momentum_window": 5, "momentum_skip": 2}
    windows |= {"short_window": 2, "volatility_window": 4}
    config = TapeConfig(
        features=FeatureConfig(**windows | {"return_windows": (1,)}, extra=(reference,))
    )
    path = tmp_path / "tape.yaml"
    save_yaml(config, path)
    assert "extra:" in path.read_text()
    typed = [
        word
        for name, value in windows.items()
        for word in (
            f"--tape.features.{name.replace('_', '-')}",
            str(value[0] if isinstance(value, list) else value),
        )
    ]
    command = cli.parse(["train", *typed, "--tape.features.extra", reference])
    assert load_yaml(TapeConfig, path) == config == command.run.tape
    single = gymnasium.make(
        "fastsim/Portfolio-v0",
        market=BARS,
        episode={"horizon": 20},
        tape={"features": {**windows, "extra": [reference]}},
    )
    tape = make_tape(BARS, config)
    columns = feature_columns(tape.symbols, tape.feature_names)
    assert single.unwrapped.observation_names[: len(columns)] == columns
    observation, _ = single.reset(seed=0)
    assert any(
        np.array_equal(observation[: row.size], row.ravel()) for row in tape.known.features.numpy()
    )


def test_a_feature_that_rises_with_volatility_says_so_itself():
    config = TapeConfig(features=named(f"{HERE}:LEVEL", f"{HERE}:GAP"))
    tape = make_tape(BARS, config, dtype=torch.float64)
    assert tape.rising == ("log_volatility_4", "level")
    change = change_with_volatility(tape)[:, 0]
    for column, name in enumerate(tape.feature_names):
        expected = np.log(2.0) if name in tape.rising else 0.0
        assert change[:, column].tolist() == pytest.approx([expected] * 8, abs=1e-9), name


def later(bars, config):
    values = np.full_like(bars.close, np.nan)
    values[:-1] = log_returns(bars.close)[1:]
    return values


def whole_sample(bars, config):
    returns = log_returns(bars.close)
    return (returns - np.nanmean(returns, 0)) / np.nanstd(returns, 0)


def filled_backwards(bars, config):
    values = rolling_mean(log_returns(bars.close), 4)[::-1].copy()
    return np.maximum.accumulate(np.nan_to_num(values, nan=-1.0))[::-1]


def random(bars, config):
    return np.random.default_rng().normal(size=bars.close.shape)


@pytest.mark.parametrize("function", [later, whole_sample, filled_backwards, random])
def test_a_feature_that_looks_ahead_is_refused_by_name(function, monkeypatch):
    with pytest.raises(ConfigError, match=r"feature 'mine' looks ahead: for S\d at 2020") as caught:
        made(feature(function, warmup=4), monkeypatch)
    assert "\n" not in str(caught.value)


def smoothed(bars, config):
    """An exponential mean as a convolution over all bars, which rounds with their number."""
    returns = np.nan_to_num(log_returns(bars.close)) * 100.0
    size = 2 * len(returns)
    weights = 0.5 ** np.arange(len(returns))
    return np.fft.irfft(np.fft.rfft(returns, size, 0).T * np.fft.rfft(weights, size), size).T[
        : len(returns)
    ]


def test_what_only_rounds_otherwise_does_not_look_ahead(monkeypatch):
    short = smoothed(BARS.take(slice(33)), SHORT_FEATURES)
    assert (short != smoothed(BARS, SHORT_FEATURES)[:33]).any()
    assert np.abs(made(feature(smoothed), monkeypatch)).max() > 0.5


def test_a_window_is_asked_for_on_no_fewer_bars_than_its_warm_up(monkeypatch):
    def trailing(bars, config):
        windows = np.lib.stride_tricks.sliding_window_view(bars.close, 40, axis=0)
        mean = np.full_like(bars.close, np.nan)
        mean[39:] = windows.mean(-1)
        return np.log(bars.close / mean)

    assert made(feature(trailing, warmup=39), monkeypatch)[39:].all()
    with pytest.raises(ConfigError, match="feature 'mine' fails on 20 bars: ValueError: window"):
        made(feature(trailing), monkeypatch)


def one_infinite(bars, config):
    values = np.zeros_like(bars.close)
    values[7, 1] = np.inf
    return values


def written(bars, config):
    close = bars.adjusted("close")
    close[:] = 1.0
    return close


def missing(bars, config):
    return np.full_like(bars.close, np.nan)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda bars, config: bars.close[:, 0], r"must have the shape of the bars \(60, 3\), got"),
        (lambda bars, config: "text", "fails on 60 bars: ValueError: could not convert"),
        (lambda bars, config: {}["a\nb"], "fails on 60 bars: KeyError"),
        (one_infinite, "is infinite for S1 at 2020-01-10"),
        (missing, "is NaN for every asset at every bar from bar 5"),
        (written, "fails on 60 bars: ValueError: assignment destination is read-only"),
    ],
)
def test_what_a_feature_does_wrong_is_named_in_one_line(function, message, monkeypatch):
    before = BARS.close.copy()
    with pytest.raises(ConfigError, match=message) as caught:
        made(feature(function, warmup=5), monkeypatch)
    assert "feature 'mine'" in str(caught.value) and "\n" not in str(caught.value)
    np.testing.assert_array_equal(BARS.close, before)


def test_what_the_data_lack_is_named():
    closes = random_bars(60, 2, opens=False)
    with pytest.raises(DataError, match="feature 'gap' needs open, which this data lacks"):
        make_tape(closes, TapeConfig(features=named(f"{HERE}:GAP")))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("gap", "must be a tuple of names, got the text 'gap'"),
        (("gap",), "no feature is called 'gap'; there are scaled_log_return_1,"),
        ((f"{HERE}:GAPS",), "has no 'GAPS'"),
        ((f"{HERE}:BARS",), "is not a feature: it must be a Feature, got Bars"),
        (("not_there:gap",), "not_there cannot be imported"),
        ((f"{HERE}:GAP", f"{HERE}:GAP"), "there is a feature called 'gap' already"),
        (("log_volatility_63",), "there is a feature called 'log_volatility_63' already"),
    ],
)
def test_a_configuration_that_names_no_feature_says_so(extra, message):
    with pytest.raises(ConfigError, match=message):
        FeatureConfig(extra=extra)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "a b"}, "Feature.name must be a word"),
        ({"function": 3}, "Feature.function of mine must be a function"),
        ({"warmup": -1}, "Feature.warmup of mine must be a whole number"),
        ({"warmup": 2.5}, "Feature.warmup must be a whole number"),
        ({"needs": "open"}, "Feature.needs of mine must be a tuple of open, high, low, volume"),
        ({"needs": ("opens",)}, "Feature.needs of mine must be"),
    ],
)
def test_a_record_that_cannot_be_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        Feature(**{"name": "mine", "function": later, **change})


def test_a_name_that_is_taken_is_refused():
    with pytest.raises(ConfigError, match="a feature cannot be called 'log_volatility_63'"):
        FEATURES.add(replace(GAP, name="log_volatility_63"))


def test_fastsims_own_look_at_nothing_ahead_and_are_complete_when_they_say():
    bars = random_bars(60, 3, seed=3)
    for record in own_features(SHORT_FEATURES):
        values = record.function(bars, SHORT_FEATURES)
        assert np.isfinite(values[record.warmup :]).all(), record.name
        for length in range(record.warmup + 1, 60):
            early = record.function(bars.take(slice(length)), SHORT_FEATURES)
            np.testing.assert_allclose(early, values[:length], rtol=1e-12, err_msg=record.name)


def test_the_command_line_says_what_it_cannot_find(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["train", "--tape.features.extra", f"{HERE}:nothing"])
    assert caught.value.code == 2
    told = capsys.readouterr().err.replace("│", " ").replace("|", " ")
    assert "has no 'nothing'" in " ".join(told.split())


@pytest.mark.parametrize("dtype", [torch.float16, torch.int64, "float32", None])
def test_a_type_in_which_no_money_fits_is_refused(dtype):
    with pytest.raises(
        ConfigError, match=r"^dtype must be one of torch.float32, .*, got "
    ) as caught:
        make_tape(random_bars(60, 2, seed=0), TapeConfig(features=SHORT_FEATURES), dtype=dtype)
    assert "\n" not in str(caught.value)
