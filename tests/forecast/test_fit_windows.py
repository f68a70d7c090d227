"""Windows that a fit learns from: what they hold, how they are split; no later bar moves one."""

import dataclasses

import numpy as np
import polars as pl
import pytest
import torch

from fastsim.data.bars import CLOSE, Bars
from fastsim.errors import ConfigError, DataError
from fastsim.forecast.models.prior import load_prior
from fastsim.forecast.season.divide import Season
from fastsim.forecast.training import series as of_series
from fastsim.forecast.training.config import FitConfig, SplitConfig
from fastsim.forecast.training.lesson import lesson_of
from fastsim.forecast.training.loss import scale_of
from fastsim.forecast.training.series import mapped, series_of_bars, series_of_frame
from fastsim.forecast.training.split import Look, split_origins, spread_origins, usable_origins
from fastsim.forecast.training.windows import (
    Mix,
    SeriesSource,
    SimulatedSource,
    made_ahead,
    seeded,
    windows_at,
)

LOOK = Look(context=8, least=4, horizons=(1, 3))
DAY_S = 86_400


DAY, HOUR = np.timedelta64(1, "D"), np.timedelta64(1, "h")


def bars_of(closes, *, step=DAY):
    """Bars of closes [T, A] on consecutive days."""
    closes = np.asarray(closes, dtype=float).reshape(len(closes), -1)
    stamps = np.datetime64("2000-01-03", "ns") + step * np.arange(len(closes))
    symbols = tuple(f"S{column}" for column in range(closes.shape[1]))
    return Bars(symbols=symbols, timestamps=stamps.astype("datetime64[ns]"), close=closes)


def walk(bars, assets=1, seed=0):
    steps = np.random.default_rng(seed).normal(0.0, 0.01, (bars, assets))
    return 100.0 * np.exp(steps.cumsum(0))


def test_usable_origins_are_those_that_counting_finds():
    rng = np.random.default_rng(1)
    for _ in range(60):
        closes = walk(40, seed=int(rng.integers(1000)))[:, 0].round(1)
        closes[rng.random(40) < rng.choice([0.0, 0.3, 0.7])] = np.nan
        closes[: rng.integers(20)] = rng.choice([np.nan, 100.0])
        stamps = DAY_S * (np.arange(40) + 30 * (np.arange(40) >= rng.integers(80)))
        wanted = []
        for end in range(40 - 3):
            window = closes[max(0, end - 7) : end + 1]
            known = window[np.isfinite(window)]
            earlier = closes[: max(0, end - 7)]
            moved = len(set(known)) > 1
            if len(known) and np.isfinite(earlier).any() and not np.isfinite(window[0]):
                moved = moved or known[0] != earlier[np.isfinite(earlier)][-1]
            told = np.isfinite(closes[[end + 1, end + 3]]).any()
            steps = np.diff(stamps[max(0, end - 7) : end + 4])
            if np.isfinite(closes[end]) and len(known) >= 4 and moved and told:
                wanted += [end] if (steps <= 20 * DAY_S).all() else []
        assert usable_origins(closes, stamps, LOOK).tolist() == wanted


@pytest.mark.parametrize("split", [SplitConfig(), SplitConfig(apart=True), SplitConfig(embargo=7)])
def test_parts_come_apart_by_an_embargo_and_by_a_context_if_asked(split):
    series = series_of_bars(bars_of(walk(100, 2)))
    origins = split_origins(series, LOOK, split)
    embargo = 3 if split.embargo is None else split.embargo
    for first in (0, 100):
        train = origins.train[(origins.train >= first) & (origins.train < first + 100)] - first
        judged = origins.validation[(origins.validation >= first)] - first
        last_target = train.max() + 3
        assert last_target == 78  # the 99th of 100 rows' times at 0.8 is row 79
        assert judged.min() + 1 - last_target - 1 >= embargo
        if split.apart:
            assert judged.min() - 7 > last_target
        else:
            assert judged.min() + 1 - last_target - 1 == embargo


def test_a_date_splits_as_well_as_a_share():
    series = series_of_bars(bars_of(walk(100)))
    origins = split_origins(series, LOOK, SplitConfig(validation_start="2000-02-22"))
    assert origins.train.max() + 3 == 49  # row 50 is 22 February
    assert origins.validation.min() + 1 == 50 + 3


def test_no_later_bar_moves_an_earlier_window():
    closes = walk(40)[:, 0]
    series = series_of_bars(bars_of(closes))
    rows = usable_origins(closes, series.stamps, LOOK)
    before = windows_at(series, rows, LOOK)
    for row in range(40):
        values = series.values.copy()
        values[row] *= 1.5
        after = windows_at(series._replace(values=values), rows, LOOK)
        earlier = torch.from_numpy(rows < row)
        for old, new in zip(before.context, after.context, strict=True):
            assert torch.equal(old[earlier].nan_to_num(), new[earlier].nan_to_num())
        old_scale, new_scale = (scale_of(each.context.close)[0] for each in (before, after))
        assert torch.equal(old_scale[earlier], new_scale[earlier])
        touched = torch.from_numpy(rows[:, None] + np.array([1, 3]) == row)[:, None]
        same = torch.from_numpy(rows != row)[:, None, None] & ~touched
        assert torch.equal(before.future[same], after.future[same])


def test_bars_of_validation_leave_all_that_is_learned_from_unchanged():
    config = FitConfig(horizons=(1, 3), context=40, batch_size=64, validation_windows=50)
    closes, card = walk(300, 3), load_prior().card
    whole = lesson_of(card, bars_of(closes), None, config, None)
    other = closes.copy()
    other[240:] = walk(60, 3, seed=9)  # validation is the last fifth
    altered = lesson_of(card, bars_of(other), None, config, None)
    for number in range(20):
        one, two = (each.source.draw(64, seeded(0, "", number)) for each in (whole, altered))
        assert torch.equal(one.context.close.nan_to_num(), two.context.close.nan_to_num())
        assert torch.equal(one.future, two.future)


def test_windows_hold_what_the_bars_hold():
    closes = walk(50, 2)
    closes[20, 1] = np.nan
    series = series_of_bars(bars_of(closes))
    window = windows_at(series, np.array([4, 50 + 21]), LOOK)
    first, second = window.context.close.double().numpy()
    assert np.isnan(first[:3]).all()
    np.testing.assert_allclose(first[3:], closes[:5, 0], rtol=1e-6)
    np.testing.assert_allclose(second, closes[14:22, 1], rtol=1e-6)
    wanted = [
        [np.log(closes[end + h, a] / closes[end, a]) for h in (1, 3)]
        for end, a in ((4, 0), (21, 1))
    ]
    np.testing.assert_allclose(window.future[:, 0].numpy(), wanted, atol=1e-6)
    assert bool((window.context.timestamps.diff(dim=1) == DAY_S).all())


def test_a_close_that_is_missing_is_no_target():
    closes = walk(50)[:, 0]
    closes[25] = np.nan
    window = windows_at(series_of_bars(bars_of(closes)), np.array([24, 22]), LOOK)
    assert window.future[:, 0].isnan().tolist() == [[True, False], [False, True]]


def test_validation_meets_all_hours():
    series = series_of_bars(bars_of(walk(2400), step=HOUR))
    origins = split_origins(series, LOOK, SplitConfig(validation=0.5))
    spread = spread_origins(series, origins.validation, 48)
    assert len(spread.origins) <= 48
    assert spread.origins[-1] == origins.validation[-1]
    assert len(set((series.stamps[spread.origins] // 3600) % 24)) == 24


def test_a_table_on_disk_is_the_table(tmp_path, monkeypatch):
    monkeypatch.setattr(of_series, "MAPPED", 1)
    series = series_of_bars(bars_of(walk(60, 2)))
    kept = mapped(series, tmp_path / "data")
    assert isinstance(kept.values, np.memmap)
    rows = np.array([20, 80])
    for one, two in zip(windows_at(series, rows, LOOK), windows_at(kept, rows, LOOK), strict=True):
        pairs = zip(one, two, strict=True) if isinstance(one, tuple) else [(one, two)]
        assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs)


def test_a_long_frame_is_the_bars_of_its_series(tmp_path):
    bars = bars_of(walk(30, 2))
    frame = pl.DataFrame(
        {
            "id": np.repeat(["S0", "S1"], 30),
            "time": np.tile(bars.timestamps, 2),
            "value": bars.close.T.ravel(),
        }
    ).sample(fraction=1.0, shuffle=True, seed=1)
    frame.write_csv(tmp_path / "long.csv")
    wanted = series_of_bars(bars)
    for source in (frame, tmp_path / "long.csv"):
        found = series_of_frame(source)
        np.testing.assert_array_equal(found.values[:, CLOSE], wanted.values[:, CLOSE])
        np.testing.assert_array_equal(found.stamps, wanted.stamps)
        np.testing.assert_array_equal(found.starts, wanted.starts)
        assert found.names == wanted.names


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": ["a", "a"], "time": ["2020-01-01"] * 2, "value": [1.0, 2.0]}, "2020-01-01 twice"),
        (
            {"id": ["a", "a"], "time": ["2020-01-01", "2020-01-02"], "value": [1.0, -2.0]},
            "has -2 on",
        ),
        ({"id": ["a"], "value": [1.0]}, "no column 'time'"),
    ],
)
def test_a_long_frame_that_cannot_be_learned_from_is_refused(columns, message):
    with pytest.raises(DataError, match=message):
        series_of_frame(pl.DataFrame(columns))


def test_a_mix_holds_its_shares():
    series = series_of_bars(bars_of(walk(60)))
    own = SeriesSource(series, np.array([20]), LOOK)
    mix = Mix([(own, 0.5), (SimulatedSource(LOOK, 4), 0.3), (own, 0.2)])
    drawn = mix.draw(20, seeded(0, "mix"))
    assert drawn.future.shape == (20, 4, 2)
    alone = drawn.future[:, 1].isnan().all(-1)
    assert alone.tolist() == [True] * 10 + [False] * 6 + [True] * 4
    assert bool(drawn.future[10:16].isfinite().all())


def test_windows_made_ahead_come_in_order_and_errors_come_through():
    with made_ahead(lambda number: number, range(7)) as made:
        assert list(made) == list(range(7))

    def failing(number):
        if number == 2:
            raise DataError("no more")
        return number

    with made_ahead(failing, range(7)) as made:
        assert [next(made), next(made)] == [0, 1]
        with pytest.raises(DataError, match="no more"):
            next(made)


@pytest.mark.parametrize("bars", [3, 30, 50])
def test_too_few_bars_are_one_clear_line(bars):
    config = FitConfig()
    with pytest.raises(DataError, match=f"no window for train: {bars} bars hold no context of 32"):
        lesson_of(load_prior().card, bars_of(walk(bars)), None, config, None)


def seasonal_walk(days, seed=0):
    """Hourly closes [T, 1] that move four times as much in every sixth hour."""
    sizes = np.tile(np.where(np.arange(24) % 6 == 0, 0.004, 0.001), days)
    return 100.0 * np.exp((np.random.default_rng(seed).normal(size=24 * days) * sizes).cumsum())


def test_what_is_learned_is_freed_of_the_season_as_forecasters_are_shown_bars():
    bars = bars_of(seasonal_walk(80), step=HOUR)
    config = FitConfig(horizons=(1, 3), context=500, validation_windows=200, simulated=0.25)
    free = lesson_of(load_prior().card, bars, None, config, None)
    raw = lesson_of(load_prior().card, bars, None, dataclasses.replace(config, season="none"), None)
    one, two = (each.source.draw(64, seeded(0, "")) for each in (raw, free))
    season = Season("UTC")
    divided = season(*one.context, 3)
    wanted = divided.bars[:48, :, CLOSE].float()
    torch.testing.assert_close(two.context.close[:48], wanted, equal_nan=True)
    wanted = one.future[:48] / divided.growth[:48, None, [0, 2]].float()
    torch.testing.assert_close(two.future[:48], wanted, equal_nan=True)
    assert torch.equal(one.future[48:].nan_to_num(), two.future[48:].nan_to_num())  # simulated
    # The moves of all hours are of nearer sizes: contexts show a part of their season.
    assert _wild_over_calm(raw) == pytest.approx(4.0, rel=0.15)
    assert 1.0 < _wild_over_calm(free) < 2.0


def _wild_over_calm(lesson):
    """Size of the next move in wild hours over that in others."""
    drawn = lesson.source.draw(2000, seeded(1, ""))
    own = drawn.context.timestamps[:, -1] > 10**8  # simulated ones begin in 1970
    wild = (drawn.context.timestamps[:, -1] // 3600 + 1) % 6 == 0
    sizes = [drawn.future[own & which, 0, 0].square().mean().sqrt() for which in (wild, ~wild)]
    return float(sizes[0] / sizes[1])


def test_daily_bars_have_no_season_to_be_freed_of():
    bars, card = bars_of(walk(300)), load_prior().card
    one, two = (
        lesson_of(card, bars, None, FitConfig(season=season), None).source.draw(8, seeded(0, ""))
        for season in ("auto", "none")
    )
    assert torch.equal(one.future, two.future)


def test_shares_that_do_not_fit_what_is_given_are_refused():
    card = load_prior().card
    with pytest.raises(ConfigError, match=r"simulated must be 1 where there are no bars, got 0.5"):
        lesson_of(card, None, None, FitConfig(simulated=0.5), None)
    with pytest.raises(ConfigError, match="others must be 0 where no other series are given"):
        lesson_of(card, bars_of(walk(400)), None, FitConfig(others=0.5), None)
    with pytest.raises(ConfigError, match=r"others must leave room beside simulated = 0.6"):
        FitConfig(simulated=0.6, others=0.5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"horizons": (3, 1)},
        {"horizons": ()},
        {"learning_rate": 0.0},
        {"average": 1.5},
        {"season": "Mars/North"},
        {"mode": "all"},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=rf"FitConfig\.{next(iter(wrong))}"):
        FitConfig(**wrong)


def test_a_split_at_no_date_is_refused():
    with pytest.raises(ConfigError, match=r"SplitConfig\.validation_start must be an ISO date"):
        dataclasses.replace(SplitConfig(), validation_start="soon")
