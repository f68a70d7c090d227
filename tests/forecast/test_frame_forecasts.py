"""Forecasts of higher bars, and of all frames as one, are those of what has closed by then."""

import logging
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from forecasters import Counting, TinyModel
from worlds import SHORT_FEATURES, random_bars

from fastsim import cli
from fastsim.adapters.build import build_env
from fastsim.data.bars import CLOSE, PRICES
from fastsim.data.frames import cut, higher_bars
from fastsim.data.source import DataConfig
from fastsim.env.config import EnvConfig
from fastsim.env.episode import EpisodeConfig
from fastsim.errors import ConfigError, DataError, ForecastError
from fastsim.experiment.config import TrainConfig
from fastsim.experiment.markets import load_markets
from fastsim.forecast.ensemble import Ensemble, fit_on_market
from fastsim.forecast.features import (
    ForecastConfig,
    bars_needed,
    latest_features,
    tabulated_features,
)
from fastsim.forecast.frames import Frame, Together
from fastsim.forecast.interface import Context, Forecast, ModuleForecaster
from fastsim.forecast.registry import load_forecaster
from fastsim.forecast.tape import LEAST_ROWS, build_forecast_tape
from fastsim.market.tape import TapeConfig, make_tape
from fastsim.synthetic.garch import Garch
from fastsim.synthetic.worlds import make_worlds

TINY = ModuleForecaster(TinyModel())
CONFIG = TapeConfig(features=SHORT_FEATURES)
SETTINGS = ForecastConfig(
    horizons=(1, 3), context_length=40, frames=("1h", "4h"), across=(1, 2), batch_size=64
)


def quarters(length=500, seed=2, **kinds):
    """Quarters of an hour from 09:30 on."""
    bars = random_bars(length, 3, seed, **kinds)
    minutes = np.arange(length) * np.timedelta64(15, "m")
    return replace(bars, timestamps=np.datetime64("2024-03-01T09:30", "ns") + minutes)


def in_sessions(days=40, seed=3):
    """Half hours of 6.5 hours a day."""
    bars = random_bars(days * 13, 3, seed)
    dates = np.busday_offset("2024-01-02", np.arange(days), roll="forward")
    opens = dates.astype("datetime64[ns]") + np.timedelta64(14 * 60 + 30, "m")
    stamps = opens[:, None] + np.arange(13) * np.timedelta64(30, "m")
    return replace(bars, timestamps=stamps.ravel())


def without_some(bars, seed=1, share=0.2):
    """The same with this share of the bars left out of the calendar."""
    kept = np.random.default_rng(seed).random(len(bars)) > share
    arrays = {name: getattr(bars, name)[kept] for name in (*PRICES, "volume")}
    return replace(bars, timestamps=bars.timestamps[kept], **arrays)


def changed_after(bars, bar):
    other, later = random_bars(len(bars), 3, seed=77), slice(bar + 1, None)
    arrays = {name: getattr(bars, name).copy() for name in (*PRICES, "volume")}
    for name, array in arrays.items():
        array[later] = getattr(other, name)[later] * 1.7
    return replace(bars, **arrays)


def table(bars, folder, settings=SETTINGS, forecaster=TINY):
    tape = make_tape(bars, CONFIG)
    features = tabulated_features(tape, forecaster, settings, folder)
    return torch.stack(list(features.values()), dim=-1), list(features)


def test_columns_are_named_by_frame_and_those_of_the_bars_stay_to_the_bit(tmp_path):
    bars = quarters(holes=True)
    values, names = table(bars, tmp_path)
    plain, own = table(bars, tmp_path, replace(SETTINGS, frames=(), across=()))
    assert torch.equal(values[..., : len(own)], plain)
    assert own[:2] == ["scaled_forecast_return_1", "scaled_forecast_dispersion_1"]
    together = [f"across.{name}" for name in own]
    together = [name.replace("_3", "_2") for name in together]
    assert names == [*own, *(f"1h.{name}" for name in own), *(f"4h.{name}" for name in own),
                     *together]  # fmt: skip
    assert values[300:].abs().amax((0, 1)).min() > 0.01


@pytest.mark.parametrize("frame", ["1h", "4h"])
def test_they_are_the_forecasts_of_a_market_in_higher_bars(tmp_path, frame):
    bars = quarters(800, holes=True)
    settings = replace(SETTINGS, frames=(frame,), across=())
    values, names = table(bars, tmp_path, settings)
    spans = cut(bars.timestamps, frame)
    higher = make_tape(higher_bars(bars, spans), CONFIG)
    forecast = build_forecast_tape(higher, TINY, tmp_path, horizons=(1, 3), context_length=40)
    known_from = np.searchsorted(spans.closed, np.arange(1, len(higher) + 1))
    for name, expected in forecast.features(higher).items():
        column = values[..., names.index(f"{frame}.{name}")]
        assert (column[: known_from[0]] == 0).all()
        for bar in range(higher.first, len(higher)):
            until = known_from[bar + 1] if bar + 1 < len(higher) else len(bars)
            shown = column[known_from[bar] : until]
            torch.testing.assert_close(shown, expected[bar].expand_as(shown), rtol=1e-3, atol=1e-4)


def test_a_tape_of_higher_bars_has_what_they_have():
    bars = quarters(holes=True, adjusted=True)
    frame = Frame.of(make_tape(bars, CONFIG, dtype=torch.float64), "1h", "mine")
    higher = higher_bars(bars, cut(bars.timestamps, "1h"))
    assert (frame.tape.timestamps == higher.timestamps).all()
    expected = higher.table()[..., :5]
    np.testing.assert_allclose(frame.tape.known.bars[..., :5], expected, rtol=1e-12)
    amounts = np.nansum(bars.dollar_volume[2:6], axis=0)  # of ten o'clock
    np.testing.assert_allclose(frame.tape.known.bars[1, [0, 2], 5], amounts[[0, 2]], rtol=1e-12)
    sigma = np.diff(np.log(higher.adjusted("close")[:, 0]))[36:40].std()
    assert float(frame.tape.known.sigma[40, 0]) == pytest.approx(sigma, rel=1e-9)
    assert frame.tape.known.sigma[0].isnan().all()


def test_each_higher_bar_is_forecast_once(tmp_path):
    bars, least = quarters(), 8 - 1
    spans = [cut(bars.timestamps, frame) for frame in ("1h", "4h")]
    counting = Counting()
    table(bars, tmp_path, replace(SETTINGS, across=()), counting)
    bars_asked = [len(bars), *(len(each.starts) for each in spans)]
    wanted = 3 * sum(count - least for count in bars_asked)
    filled_up = counting.asked - wanted  # what remains of a batch is asked for with copies
    assert 0 <= filled_up < LEAST_ROWS * len(bars_asked)
    again = Counting()
    table(bars, tmp_path, replace(SETTINGS, across=()), again)
    assert again.asked == 0


@pytest.mark.parametrize(
    ("bars", "frames"), [(quarters(220), ("1h", "4h")), (in_sessions(26), ("2h", "1d"))],
    ids=["quarters", "sessions"],
)  # fmt: skip
def test_no_later_bar_moves_a_forecast_at_any_bar(tmp_path, bars, frames):
    settings = replace(SETTINGS, frames=frames)
    values, _ = table(bars, tmp_path, settings)
    assert values[200:].abs().amax((0, 1)).min() > 0
    for bar in range(195, 213):
        changed, _ = table(changed_after(bars, bar), tmp_path / str(bar), settings)
        assert torch.equal(changed[: bar + 1], values[: bar + 1])
        assert not torch.equal(changed[bar + 1 :], values[bar + 1 :])


def closes_until(bars, row, asset, length=40):
    return bars.close[max(row + 1 - length, 0) : row + 1, asset]


def asked(closes, ahead):
    """Quantiles [Q] of TinyModel so many bars after these closes."""
    context = torch.full((1, 40, 6), torch.nan)
    context[0, -len(closes) :, CLOSE] = torch.tensor(closes, dtype=torch.float32)
    stamps = torch.arange(40)[None] * 60
    return TINY.forecast(Context(context, stamps), ahead).quantiles[0, -1]


@pytest.mark.parametrize("hours", [20, 24, 29])
def test_frames_together_are_the_mean_of_their_quantiles_at_one_moment(tmp_path, hours):
    """Four hours ahead are 16 quarters, 4 hours and one bar of 4 hours."""
    bars = quarters()
    values, names = table(bars, tmp_path)
    spans = cut(bars.timestamps, "4h")
    row = int(spans.stop[hours]) - 1  # at whose close the bar of 4 hours has closed as well
    assert spans.closed[row] == hours + 1
    hourly = higher_bars(bars, cut(bars.timestamps, "1h"))
    longest = higher_bars(bars, spans)
    for asset in range(3):
        for horizon in (1, 2):
            hour = int(np.searchsorted(hourly.timestamps, longest.timestamps[hours])) + 3
            parts = [
                asked(closes_until(bars, row, asset), 16 * horizon),
                asked(closes_until(hourly, hour, asset), 4 * horizon),
                asked(closes_until(longest, hours, asset), horizon),
            ]
            mean = Forecast(torch.stack(parts).mean(0)[None, None], TINY.card.levels)
            price = torch.tensor([bars.close[row, asset]], dtype=torch.float32)
            sigma = np.diff(np.log(longest.close[hours - 4 : hours + 1, asset])).std()
            expected = {
                "return": float(mean.expected_return(price)) / (sigma * horizon**0.5),
                "dispersion": float(mean.dispersion(price)) / (sigma * horizon**0.5),
                "rise": float(mean.probability_of_rise(price)) - 0.5,
            }
            for figure, value in expected.items():
                scaled = "" if figure == "rise" else "scaled_"
                name = f"across.{scaled}forecast_{figure}_{horizon}"
                shown = values[row : row + 16, asset, names.index(name)]
                assert shown.tolist() == pytest.approx([value] * len(shown), rel=1e-3, abs=1e-4)


def test_a_day_of_sessions_is_as_many_bars_as_a_session_has(tmp_path, caplog):
    settings = replace(SETTINGS, frames=("1d", "2h"), across=(1, 2, 3))
    with caplog.at_level(logging.WARNING):
        values, names = table(in_sessions(), tmp_path, settings)
    # A day is 13 bars, and 4 of 2 hours: the model reaches 32 ahead.
    assert caplog.messages == [
        "tiny reaches 32 bars ahead: the bars themselves are left out of horizons 3, which are up "
        "to 39 of them"
    ]
    for horizon in (1, 2, 3):
        assert values[300:, :, names.index(f"across.forecast_rise_{horizon}")].abs().max() > 0.01
    shown = values[-1, :, names.index("across.forecast_rise_3")]
    bars = in_sessions()
    days, hours = (higher_bars(bars, cut(bars.timestamps, frame)) for frame in ("1d", "2h"))
    last = int(np.searchsorted(hours.timestamps, days.timestamps[-1] + np.timedelta64(1, "D"))) - 1
    for asset in range(3):
        parts = [
            asked(closes_until(hours, last, asset), 12),
            asked(closes_until(days, len(days) - 1, asset), 3),
        ]
        mean = Forecast(torch.stack(parts).mean(0)[None, None], TINY.card.levels)
        price = torch.tensor([days.close[-1, asset]], dtype=torch.float32)
        expected = float(mean.probability_of_rise(price)) - 0.5
        assert float(shown[asset]) == pytest.approx(expected, abs=1e-4)


def test_a_bar_has_as_many_of_another_frame_as_the_median_of_its_last_nine():
    tape = make_tape(without_some(in_sessions()), CONFIG)
    frame = Frame.of(tape, "1d", "mine")
    bars, days = Together.of(tape, [frame], TINY, horizons=(1,), context_length=10).members
    counts = frame.spans.stop - frame.spans.first
    assert len(set(counts)) > 3 and (days.steps == 1).all()
    for day in range(len(counts)):
        last = sorted(counts[max(day - 8, 0) : day + 1])
        assert bars.steps[day] == last[(len(last) - 1) // 2]


def test_an_asset_that_some_frames_know_too_little_of_is_left_to_the_others(tmp_path):
    bars = quarters(300)
    for name in (*PRICES, "volume"):
        getattr(bars, name)[:220, 1] = np.nan  # 20 hours are 80 bars, 20 hours and 5 of 4 hours
        getattr(bars, name)[230::16, 2] = np.nan
    values, names = table(bars, tmp_path)
    rise = values[..., names.index("across.forecast_rise_1")]
    longest = values[..., names.index("4h.forecast_rise_1")]
    assert (longest[:, 1] == 0).all()
    assert (rise[-1, 1] != 0) and (rise[:220, 1] == 0).all()


def test_weights_are_fitted_on_the_bars_and_count_in_every_frame(tmp_path, capsys):
    names, start = ("random-walk-60", "random-walk-ewma-0.94"), "2024-03-07"
    bars = quarters(800)
    arguments = {"start": start, "tape": CONFIG, "episode": {"horizon": 40}}
    settings = replace(SETTINGS, weights="fit", across=(1,), season="none")
    fitted = build_env(
        1, bars, forecaster=",".join(names), forecast=settings, forecasts_dir=tmp_path, **arguments
    ).tape
    told = [line for line in capsys.readouterr().err.splitlines() if "Fitted weights" in line]
    assert len(told) == 1
    row = int(np.searchsorted(bars.timestamps, np.datetime64(start)))
    members = [load_forecaster(name) for name in names]
    weights = fit_on_market(
        members, make_tape(bars, CONFIG), slice(0, row), horizons=(1, 3), context_length=40
    )
    values, columns = table(
        bars, tmp_path, replace(settings, weights=""), Ensemble(members, weights)
    )
    assert fitted.feature_names[-len(columns) :] == tuple(columns)
    expected = values.clamp(-10, 10)
    assert torch.equal(fitted.known.features[..., -len(columns) :], expected)


@pytest.mark.parametrize(
    ("bars", "frames"),
    [
        (quarters(900), ("1h", "4h")),
        (quarters(900), ("4h", "1h")),
        (in_sessions(90), ("2h", "1d")),
        (without_some(in_sessions(90)), ("1d", "2h")),
    ],
    ids=["quarters", "longest first", "sessions", "gaps"],
)
def test_the_last_bar_of_a_window_is_told_as_in_the_whole_table(tmp_path, bars, frames):
    config = TapeConfig(features=replace(SHORT_FEATURES, frames=frames))
    settings = replace(SETTINGS, context_length=8, frames=frames)
    whole = make_tape(bars, config)
    values = tabulated_features(whole, TINY, settings, tmp_path)
    needed = max(
        bars_needed(bars.timestamps, settings, TINY),
        config.features.bars_needed(bars.timestamps),
    )
    assert 10 < needed < len(bars) - 120
    for bar in range(len(bars) - 120, len(bars)):
        window = make_tape(bars.take(slice(bar + 1 - needed, bar + 1)), config)
        torch.testing.assert_close(
            window.known.features[-1], whole.known.features[bar], rtol=1e-5, atol=1e-5
        )
        told = latest_features(window, TINY, settings)
        assert list(told) == list(values)
        for name, expected in values.items():
            torch.testing.assert_close(told[name][0], expected[bar], rtol=1e-4, atol=1e-4)


def test_a_window_that_is_too_short_is_refused_by_the_frame():
    bars, settings = quarters(900), replace(SETTINGS, context_length=10)
    enough = bars_needed(bars.timestamps, settings, TINY)
    for length, message in (
        (160, "10 bars of 4h are too few: forecasts look back on 10; give bars from longer ago"),
        (9, "9 bars are too few: forecasts look back on 10"),
    ):
        window = make_tape(bars.take(slice(900 - length, None)), CONFIG)
        given = settings if length > 100 else replace(settings, frames=(), across=())
        with pytest.raises(ForecastError, match=message):
            latest_features(window, TINY, given)
    assert enough < 16 * 14
    latest_features(make_tape(bars.take(slice(900 - enough, None)), CONFIG), TINY, settings)


def test_training_and_gymnasium_show_the_same(tmp_path):
    forecast = ForecastConfig(horizons=(1, 5), context_length=60, frames=("1w",), across=(2,))
    run = TrainConfig(
        data=DataConfig(source="tech4"),
        runs_dir=str(tmp_path),
        forecaster="random-walk-60",
        forecast=forecast,
        tape=TapeConfig(features=replace(SHORT_FEATURES, frames=("1w", "2w"))),
        env=EnvConfig(episode=EpisodeConfig(horizon=40)),
    )
    learned = load_markets(run).test
    env = gymnasium.make(
        "fastsim/Portfolio-v0",
        market="tech4",
        tape=run.tape,
        forecaster="random-walk-60",
        forecast={"horizons": (1, 5), "context_length": 60, "frames": ["1w"], "across": [2]},
        forecasts_dir=tmp_path / "forecasts",
    ).unwrapped.env
    assert env.tape.feature_names == learned.feature_names
    assert torch.equal(env.tape.known.features, learned.known.features)
    for name in (
        "2w.scaled_log_return_1",
        "1w.scaled_forecast_dispersion_5",
        "across.scaled_forecast_dispersion_2",
    ):
        assert f"AAPL.{name}" in env.observation_names
        assert learned.known.features[-1, :, learned.feature_names.index(name)].abs().max() > 0
    words = ["train", "--forecast.frames", "1h", "1d", "--forecast.across", "1", "2"]
    asked = cli.parse(words).run.forecast
    assert (asked.frames, asked.across) == (("1h", "1d"), (1, 2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frames": "1h"}, "ForecastConfig.frames must be a tuple such as"),
        ({"frames": ("1hour",)}, "ForecastConfig.frames must be a count below 10000"),
        ({"across": (1,)}, "ForecastConfig.across averages several frames and .*names none"),
        ({"across": (0,), "frames": ("1h",)}, "ForecastConfig.across: horizons must be different"),
        ({"across": (1, 1), "frames": ("1h",)}, "ForecastConfig.across: horizons must be"),
        ({"across": (1.5,), "frames": ("1h",)}, "ForecastConfig.across must be whole numbers"),
        (
            {"across": (1,), "frames": ("1h", "90min")},
            "ForecastConfig.across: a bar of 90min is no whole number of bars of 1h: name frames",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused_in_one_line(settings, message):
    with pytest.raises(ConfigError, match=message) as caught:
        ForecastConfig(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (
            {"frames": ("20min",), "across": ()},
            ConfigError,
            "ForecastConfig.frames: a bar of 20min",
        ),
        ({"frames": ("5w",), "across": ()}, DataError, "ForecastConfig.frames: no bar of 5w has"),
        ({"across": (33,)}, ForecastError, "tiny forecasts 1 to 32 bars of 4h ahead; horizons"),
    ],
)
def test_what_does_not_fit_the_bars_is_refused(tmp_path, settings, error, message):
    with pytest.raises(error, match=message) as caught:
        table(quarters(), tmp_path, replace(SETTINGS, **settings))
    assert "\n" not in str(caught.value)


def test_worlds_have_no_frames_of_one_history():
    worlds = make_worlds(Garch(assets=2), 2, 60, config=CONFIG)
    with pytest.raises(ForecastError, match="forecast one world at a time"):
        Frame.of(worlds, "1w", "mine")
