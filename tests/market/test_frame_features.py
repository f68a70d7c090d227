"""Features of higher bars: the same features, of bars that have closed by then."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from worlds import SHORT_FEATURES, assert_same_bits, change_with_volatility, random_bars

from fastsim import cli
from fastsim.config import load_yaml, save_yaml
from fastsim.data.frames import cut, higher_bars
from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.errors import ConfigError, DataError
from fastsim.market.features import Feature, FeatureConfig, log_returns, make_features
from fastsim.market.tape import TapeConfig, make_tape

HERE = __name__
NAMES = ("open", "high", "low", "close", "volume")
FRAMES = replace(SHORT_FEATURES, frames=("1h", "4h"))
NEEDED = SHORT_FEATURES.warmup + 2


def intraday(length=400, assets=3, seed=2, *, step=15, start="2024-03-01T09:20", **kinds):
    """Bars of so many minutes, from a stamp within an hour on."""
    bars = random_bars(length, assets, seed, **kinds)
    minutes = np.arange(length) * np.timedelta64(step, "m")
    return replace(bars, timestamps=np.datetime64(start, "ns") + minutes)


def in_sessions(length=390, seed=3, **kinds):
    """Half hours of sessions of 6.5 hours, an hour earlier in UTC from 11 March on, with holes."""
    bars = random_bars(length, 3, seed, holes=True, **kinds)
    days = np.busday_offset("2024-02-20", np.arange(-(-length // 13)), roll="forward")
    opens = days.astype("datetime64[ns]") + np.timedelta64(14 * 60 + 30, "m")
    opens = opens - np.where(days >= np.datetime64("2024-03-11"), 1, 0) * np.timedelta64(1, "h")
    stamps = opens[:, None] + np.arange(13) * np.timedelta64(30, "m")
    return replace(bars, timestamps=stamps.ravel()[:length])


def changed_after(bars, bar):
    """The same up to `bar`, and other prices, volumes and halts later."""
    other, later = random_bars(len(bars), len(bars.symbols), seed=77), slice(bar + 1, None)
    halted = np.random.default_rng(78).random(bars.close.shape) < 0.2
    arrays = {name: getattr(bars, name).copy() for name in NAMES}
    for name, array in arrays.items():
        array[later] = np.where(halted, np.nan, getattr(other, name) * 1.7)[later]
    if bars.adj_close is not None:
        arrays["adj_close"] = bars.adj_close.copy()
        arrays["adj_close"][later] = arrays["close"][later] * 0.9
    return replace(bars, **arrays)


def one_bar_changed(bars, bar):
    arrays = {name: getattr(bars, name).copy() for name in NAMES}
    for array in arrays.values():
        array[bar] *= 1.02
    return replace(bars, **arrays)


def table(bars, config):
    """Every column [T, A, F], and their names."""
    features = make_features(bars, config)
    return np.stack(list(features.values()), axis=-1), list(features)


def test_they_are_the_features_of_the_higher_bars_shown_once_these_have_closed():
    bars = intraday(holes=True)
    features = make_features(bars, FRAMES)
    for frame in FRAMES.frames:
        spans = cut(bars.timestamps, frame)
        of_higher = make_features(higher_bars(bars, spans), SHORT_FEATURES)
        for name, values in of_higher.items():
            shown = features[f"{frame}.{name}"]
            for t in range(len(bars)):
                last = spans.closed[t] - 1
                expected = values[last] if last >= 0 else np.zeros(3)
                np.testing.assert_array_equal(shown[t], expected)
            assert np.abs(shown).max() > 0.1


def test_a_return_by_hand():
    """Closes of hours at 10:00 and 11:00, out of bars that begin at 09:20 and last 20 minutes."""
    bars = intraday(60, step=20)
    closes = bars.close[1::3]  # of 09:40 to 10:00, of 10:40 to 11:00, ...
    values = make_features(bars, FRAMES)["1h.scaled_log_return_2"]
    returns = np.diff(np.log(closes), axis=0)
    for hour in range(6, len(closes)):
        row = 1 + 3 * hour
        sigma = returns[hour - 4 : hour].std(axis=0)
        expected = np.clip(np.log(closes[hour] / closes[hour - 2]) / (sigma * 2**0.5), -10, 10)
        np.testing.assert_allclose(values[row : row + 3], np.tile(expected, (3, 1))[: 60 - row])
        assert (values[row - 1] != expected).all()


def test_columns_follow_the_others_which_stay_to_the_bit():
    for bars, frames in (
        (intraday(holes=True), ("2h", "5h")),
        (in_sessions(adjusted=True), ("2h", "1d")),
    ):
        plain = make_tape(bars, TapeConfig(features=SHORT_FEATURES))
        tape = make_tape(bars, TapeConfig(features=replace(FRAMES, frames=frames)))
        own = len(plain.feature_names)
        assert tape.feature_names[:own] == plain.feature_names
        assert tape.feature_names[own:] == tuple(
            f"{frame}.{name}" for frame in frames for name in plain.feature_names
        )
        assert_same_bits(tape.known.features[..., :own].contiguous(), plain.known.features)
        assert_same_bits(tape.known[1:], plain.known[1:])
        assert_same_bits(tape.next, plain.next)


@pytest.mark.parametrize("adjusted", [False, True])
@pytest.mark.parametrize(
    ("bars", "frames"),
    [
        (lambda adjusted: intraday(200, holes=True, adjusted=adjusted), ("1h", "4h")),
        (lambda adjusted: intraday(200, step=20, holes=True, adjusted=adjusted), ("1h", "5h")),
        (lambda adjusted: in_sessions(200, adjusted=adjusted), ("2h", "1d")),
    ],
    ids=["quarters", "thirds", "sessions"],
)
def test_no_later_bar_moves_a_column_at_any_bar(bars, frames, adjusted):
    bars, config = bars(adjusted), replace(SHORT_FEATURES, frames=frames)
    values, _ = table(bars, config)
    for bar in range(20, len(bars) - 1):
        changed, _ = table(changed_after(bars, bar), config)
        np.testing.assert_array_equal(changed[: bar + 1], values[: bar + 1])
        assert (changed[bar + 1 :] != values[bar + 1 :]).any()


@pytest.mark.parametrize("frames", [("1h", "4h"), ("1d",)])
def test_bars_that_have_not_come_yet_need_not_be_there(frames):
    bars, config = intraday(300), replace(SHORT_FEATURES, frames=frames)
    values, _ = table(bars, config)
    for length in (150, 163, 164, 165, 166, 167, 168, 233, 234, 235):
        early, _ = table(bars.take(slice(length)), config)
        np.testing.assert_allclose(early, values[:length], rtol=1e-9, atol=1e-12)


def test_a_bar_moves_its_higher_bar_once_that_has_closed_and_not_before():
    bars, config = intraday(200), replace(SHORT_FEATURES, frames=("1h",))
    values, names = table(bars, config)
    of_hours = [place for place, name in enumerate(names) if name.startswith("1h.")]
    closed = cut(bars.timestamps, "1h").closed
    for bar in range(100, 110):
        moved, _ = table(one_bar_changed(bars, bar), config)
        apart = (moved != values)[..., of_hours].any((1, 2))
        # 09:20 and 09:35 are nine o'clock's; it is over when 09:50 has closed, at 10:05.
        own = np.searchsorted(cut(bars.timestamps, "1h").stop, bar, side="right")
        assert np.flatnonzero(apart)[0] == np.searchsorted(closed, own + 1)
        assert np.flatnonzero(apart)[0] >= bar


def test_no_later_bar_moves_an_observation():
    bars = intraday(200, holes=True)
    rules = EnvConfig(episode=EpisodeConfig(horizon=None, random_start=False, staggered=False))

    def seen(given, until):
        tape = make_tape(given, TapeConfig(features=FRAMES), dtype=torch.float64)
        env, shown = PortfolioEnv(tape, 1, rules), []
        observation = env.reset()
        for _ in range(tape.first, until + 1):
            shown.append(env.columns(observation))
            observation = env.step(torch.full((1, 3), 0.2, dtype=torch.float64)).observation
        return torch.cat(shown)

    for bar in range(150, 156):
        assert torch.equal(seen(bars, bar), seen(changed_after(bars, bar), bar))


def test_episodes_begin_once_every_frame_is_complete():
    bars = intraday(400)
    tape = make_tape(bars, TapeConfig(features=FRAMES), dtype=torch.float64)
    closed = cut(bars.timestamps, "4h").closed
    assert closed[tape.first] == NEEDED and closed[tape.first - 1] == NEEDED - 1
    assert tape.first == FRAMES.first_complete(bars.timestamps) > SHORT_FEATURES.warmup
    # A complete feature does not change when the market is known for longer.
    before = intraday(333, seed=9, start="2024-02-01")
    joined = replace(
        bars,
        timestamps=np.concatenate(
            [bars.timestamps[0] - np.arange(333, 0, -1) * np.timedelta64(15, "m"), bars.timestamps]
        ),
        **{name: np.concatenate([getattr(b, name) for b in (before, bars)]) for name in NAMES},
    )
    longer = make_tape(joined, TapeConfig(features=FRAMES), dtype=torch.float64)
    torch.testing.assert_close(
        tape.known.features[tape.first :],
        longer.known.features[333 + tape.first :],
        rtol=1e-6,
        atol=1e-6,
    )
    none = make_tape(bars, TapeConfig(features=SHORT_FEATURES))
    assert none.first == SHORT_FEATURES.warmup


@pytest.mark.parametrize(
    ("bars", "frames"), [(intraday(500), ("1h", "4h")), (in_sessions(), ("2h", "1d"))],
    ids=["quarters", "sessions"],
)  # fmt: skip
def test_so_many_bars_are_enough_for_the_features_of_the_last(bars, frames):
    config = replace(SHORT_FEATURES, frames=frames)
    needed, whole = config.bars_needed(bars.timestamps), make_features(bars, config)
    assert needed > SHORT_FEATURES.bars_needed(bars.timestamps) == SHORT_FEATURES.warmup + 2
    for bar in range(len(bars) - 60, len(bars)):
        tape = make_tape(bars.take(slice(bar + 1 - needed, bar + 1)), TapeConfig(features=config))
        shown = dict(zip(tape.feature_names, tape.known.features[-1].unbind(-1), strict=True))
        for name, values in whole.items():
            np.testing.assert_allclose(shown[name], values[bar], rtol=1e-4, atol=1e-5)


def test_an_asset_that_did_not_trade_in_a_higher_bar_has_no_features_of_it():
    bars = intraday(300)
    spans = cut(bars.timestamps, "1h")
    row = slice(int(spans.first[40]), int(spans.stop[40]))
    for name in NAMES:
        getattr(bars, name)[row, 1] = np.nan
    values = make_features(bars, FRAMES)["1h.scaled_log_return_1"]
    shown = spans.closed == 41
    assert shown.any() and (values[shown, 1] == 0).all() and (values[shown, 0] != 0).all()


MINE = Feature(
    name="mine",
    function=lambda bars, config: 5 * log_returns(bars.adjusted("close"), 3),
    warmup=3,
    rises_with_volatility=True,
)
AHEAD = Feature(name="ahead", function=lambda bars, config: bars.close / bars.close[-1], warmup=3)


def test_a_feature_of_ones_own_is_made_of_higher_bars_too():
    bars, config = intraday(), replace(FRAMES, extra=(f"{HERE}:MINE",))
    features = make_features(bars, config)
    spans = cut(bars.timestamps, "4h")
    close = higher_bars(bars, spans).close
    last = spans.closed[-1] - 1
    np.testing.assert_allclose(features["4h.mine"][-1], 5 * np.log(close[last] / close[last - 3]))
    with pytest.raises(ConfigError, match="'ahead' looks ahead"):
        make_features(bars, replace(FRAMES, extra=(f"{HERE}:AHEAD",)))


def test_those_that_rise_with_volatility_do_so_in_every_frame():
    bars = intraday()
    tape = make_tape(
        bars, TapeConfig(features=replace(FRAMES, extra=(f"{HERE}:MINE",))), dtype=torch.float64
    )
    own = ("log_volatility_4", "mine")
    assert tape.rising == (*own, *(f"{frame}.{name}" for frame in ("1h", "4h") for name in own))
    change = change_with_volatility(tape).mean((0, 1))
    for name in ("log_volatility_4", "1h.log_volatility_4", "4h.log_volatility_4"):
        assert float(change[tape.feature_names.index(name)]) == pytest.approx(np.log(2), abs=1e-9)
    # And that is what higher bars of such a market hold.
    wilder = replace(bars, **{name: bars.close[0] * (getattr(bars, name) / bars.close[0]) ** 2
                              for name in NAMES[:4]})  # fmt: skip
    for name in ("1h.log_volatility_4", "4h.log_volatility_4"):
        rise = make_features(wilder, FRAMES)[name] - make_features(bars, FRAMES)[name]
        np.testing.assert_allclose(rise[tape.first :], np.log(2), rtol=1e-9)


def test_text_names_them_alike_in_yaml_on_the_command_line_and_in_gymnasium(tmp_path):
    bars = intraday(400)
    windows = {"return_windows": [1, 2], "momentum_window": 5, "momentum_skip": 2}
    windows |= {"short_window": 2, "volatility_window": 4}
    config = TapeConfig(features=FRAMES)
    path = tmp_path / "tape.yaml"
    save_yaml(config, path)
    assert load_yaml(TapeConfig, path) == config
    command = cli.parse(["train", "--tape.features.frames", "1h", "4h"])
    assert command.run.tape.features.frames == ("1h", "4h")
    single = gymnasium.make(
        "fastsim/Portfolio-v0",
        market=bars,
        episode={"horizon": 20},
        tape={"features": {**windows, "frames": ["1h", "4h"]}},
    )
    assert "S1.4h.log_volatility_4" in single.unwrapped.observation_names
    tape = make_tape(bars, config)
    observation, _ = single.reset(seed=0)
    flat = [row.ravel() for row in tape.known.features.numpy()]
    assert any(np.array_equal(observation[: row.size], row) for row in flat)


def test_a_window_shows_them():
    env = gymnasium.make(
        "fastsim/Portfolio-v0",
        market=intraday(400),
        tape=TapeConfig(features=FRAMES),
        observation="window",
        window_length=3,
        window_columns=("close", "1h.scaled_log_return_1"),
    )
    assert env.unwrapped.observation_names[1] == "S0.1h.scaled_log_return_1.-2"
    env.reset(seed=0)


@pytest.mark.parametrize(
    ("frames", "error", "message"),
    [
        ("1h", ConfigError, "FeatureConfig.frames must be a tuple such as"),
        (("1hour",), ConfigError, "FeatureConfig.frames must be a count below 10000 and one of"),
        (("1h", "60min"), ConfigError, "FeatureConfig.frames: '60min' is as long as '1h'"),
        (("15min",), ConfigError, "FeatureConfig.frames: a bar of 15min must have room for 2 bars"),
        (("20min",), ConfigError, "which last 15min: name a longer frame"),
        (("1w",), DataError, "FeatureConfig.frames: no bar of 1w has closed by the end"),
        (("1d",), DataError, "FeatureConfig.frames: 1 of the 7 bars of 1d that features need"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(frames, error, message):
    bars = intraday(120, start="2024-03-01T00:00")
    with pytest.raises(error, match=message) as caught:
        make_tape(bars, TapeConfig(features=replace(SHORT_FEATURES, frames=frames)))
    assert "\n" not in str(caught.value)


def test_a_list_will_do_and_names_stay_as_they_were_written():
    config = FeatureConfig(frames=["60min", "1d"])
    assert config.frames == ("60min", "1d")
    assert config.rising[1:] == ("60min.log_volatility_63", "1d.log_volatility_63")
