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
from fastsim.forecast.features import ForecastConfig, tabulated_features
from fastsim.forecast.frames import Frame
from fastsim.forecast.interface import Context, Forecast, ModuleForecaster
from fastsim.forecast.tape import build_forecast_tape
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
    assert counting.asked == 3 * sum(count - least for count in bars_asked)
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


def test_weights_are_fitted_in_each_frame_on_the_bars_before_the_start(tmp_path, capsys):
    names, start = "random-walk-60,random-walk-ewma-0.94", "2024-03-07"
    settings = replace(SETTINGS, weights="fit", across=(1,))
    arguments = {"start": start, "forecaster": names, "forecast": settings, "tape": CONFIG}
    arguments |= {"episode": {"horizon": 40}}
    bars = quarters(800)
    row = int(np.searchsorted(bars.timestamps, np.datetime64(start)))
    one = build_env(1, bars, forecasts_dir=tmp_path / "one", **arguments).tape
    told = [line for line in capsys.readouterr().err.splitlines() if "Fitted weights" in line]
    assert [line.split(":")[0] for line in told] == [
        "Fitted weights", "Fitted weights of 1h", "Fitted weights of 4h"
    ]  # fmt: skip
    later = changed_after(bars, row + 20)
    other = build_env(1, later, forecasts_dir=tmp_path / "other", **arguments).tape
    assert torch.equal(one.known.features[: row + 21], other.known.features[: row + 21])


def test_rows_of_a_frame_lie_within_those_of_the_bars():
    frame = Frame.of(make_tape(quarters(), CONFIG), "1h", "mine")
    assert frame.spans.first[:4].tolist() == [0, 2, 6, 10]
    assert frame.rows(slice(2, 10), 500) == slice(1, 3)
    assert frame.rows(slice(3, 13), 500) == slice(2, 3)
    assert frame.rows(slice(3, 5), 500) == slice(2, 2)
    assert frame.rows(slice(None), 500) == slice(0, len(frame.tape))


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
