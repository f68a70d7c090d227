"""Scores of forecasts against hand arithmetic, and against worlds whose law is known."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from fastsim.cli import main
from fastsim.data.bars import Bars
from fastsim.errors import ConfigError, ForecastError
from fastsim.forecast import evaluate
from fastsim.forecast.evaluate import (
    DECILES,
    Centred,
    common_windows,
    relative,
    resampled,
    rolling_origins,
    score,
    spaced_origins,
    summarise,
)
from fastsim.forecast.interface import Context, Forecast, ModelCard
from fastsim.forecast.models.baselines import ewma_random_walk, trailing_random_walk
from fastsim.stats.bootstrap import Interval

CONTEXT = 100


def bars_of(close):
    stamps = np.datetime64("2000-01-03", "ns") + np.arange(len(close)) * np.timedelta64(1, "D")
    symbols = tuple(f"S{column}" for column in range(close.shape[1]))
    return Bars(symbols=symbols, timestamps=stamps, close=close)


@pytest.fixture(scope="module")
def walk():
    """Bars [3000, 20] of driftless Gaussian random walks with volatility 0.01."""
    returns = 0.01 * np.random.default_rng(0).standard_normal((3000, 20))
    return bars_of(100.0 * np.exp(returns.cumsum(0)))


class Knowing:
    """A forecaster of a random walk that knows its volatility, and may lean and be too sure."""

    def __init__(self, volatility=0.01, drift=0.0):
        self.volatility, self.drift = volatility, drift
        self.card = ModelCard(
            name="knowing",
            licence="",
            parameters=0,
            max_context=512,
            max_horizon=64,
            levels=DECILES,
            min_context=2,
        )
        self.key = "knowing"
        self.seen = []

    def forecast(self, context, horizon):
        self.seen.append(context)
        bars = torch.arange(1, horizon + 1).double()[:, None]
        normal = torch.special.ndtri(torch.tensor(DECILES, dtype=torch.float64))
        spread = self.drift * bars + self.volatility * bars.sqrt() * normal
        return Forecast((context.close[:, -1, None, None] * spread.exp()).float(), DECILES)


def context_of(closes):
    bars = closes[..., None].expand(*closes.shape, 6)
    return Context(bars, torch.arange(closes.shape[1]).expand(len(closes), -1))


def test_scores_equal_those_worked_by_hand():
    closes = torch.tensor([[9.0, 10.0, 12.0]]).double()  # mean absolute change 1.5
    steps = torch.arange(1, 10).double()
    forecast = Forecast((steps + 8.0).reshape(1, 1, 9), DECILES)  # 9 to 17, median 13
    scores = score(forecast, closes, torch.tensor([[15.0]]).double())
    level = steps / 10
    error = 15.0 - (steps + 8.0)
    pinball = torch.maximum(level * error, (level - 1) * error)
    assert float(scores.quantile_loss) == pytest.approx(2 * float(pinball.mean()) / 1.5)
    assert float(scores.absolute) == pytest.approx(2.0 / 1.5)
    assert float(scores.square) == pytest.approx(((15.0 - 13.0) / 1.5) ** 2)
    assert scores.covered[0, :2].tolist() == [1.0, 1.0] and math.isnan(scores.covered[0, 2])
    assert float(scores.percentage) == pytest.approx(2.0 / 15.0)
    assert (float(scores.hits), float(scores.misses)) == (1.0, 0.0)
    assert scores.pit.nonzero().tolist() == [[0, 6]]  # above six of the nine, at the seventh
    assert float(scores.windows) == 1.0


def test_the_law_itself_covers_eighty_percent_with_a_flat_pit(walk):
    origins = spaced_origins(walk, context=CONTEXT, horizon=5, step=5)
    summary = summarise(rolling_origins(walk, Knowing(), range(1, 6), origins, CONTEXT))
    assert summary.windows == 20 * len(origins)
    assert summary.coverage.low < 0.8 < summary.coverage.high
    assert max(abs(share - 0.1) for share in summary.pit) < 0.01
    assert sum(summary.pit) == pytest.approx(1.0)
    # E|N| sqrt(h) over E|N| of one bar
    wanted = sum(math.sqrt(h) for h in range(1, 6)) / 5
    assert summary.mase.estimate == pytest.approx(wanted, rel=0.03)


@pytest.mark.parametrize("wrong", [Knowing(0.005), Knowing(0.02), Knowing(drift=0.005)])
def test_no_other_forecast_beats_the_law(walk, wrong):
    origins = spaced_origins(walk, context=CONTEXT, horizon=5, step=10)
    law = rolling_origins(walk, Knowing(), range(1, 6), origins, CONTEXT)
    other = rolling_origins(walk, wrong, range(1, 6), origins, CONTEXT)
    for loss in ("quantile_loss", "crps"):
        assert relative(other, law, loss).low > 1.0


def test_a_drift_foreseen_is_hit_and_a_random_walk_takes_no_side(walk):
    rising = bars_of(walk.close * np.exp(0.02 * np.arange(len(walk)))[:, None])
    origins = spaced_origins(rising, context=CONTEXT, horizon=5, step=20)
    leaning = summarise(rolling_origins(rising, Knowing(drift=0.02), [5], origins, CONTEXT))
    assert leaning.hit_rate.estimate > 0.99
    none = summarise(rolling_origins(rising, trailing_random_walk(), [5], origins, CONTEXT))
    assert math.isnan(none.hit_rate.estimate)


def test_a_centred_law_has_no_drift_and_the_same_width(walk):
    leaning, driftless = Knowing(drift=0.005), Knowing()
    context = context_of(torch.from_numpy(walk.close[:CONTEXT].T))
    told = Centred(leaning).forecast(context, 5).quantiles
    torch.testing.assert_close(told, driftless.forecast(context, 5).quantiles)
    scores = rolling_origins(walk, Centred(leaning), [5], [500], CONTEXT)
    assert (float(scores.hits), float(scores.misses)) == (0.0, 0.0)
    assert Centred(leaning).card.name == "knowing, centred"
    assert Centred(leaning).key != leaning.key


def test_the_forecaster_sees_the_origin_and_nothing_after(walk):
    spy = Knowing()
    rolling_origins(walk, spy, [1, 5], [CONTEXT - 1, 700], CONTEXT)
    for context, row in zip(spy.seen, (CONTEXT - 1, 700), strict=True):
        past = torch.from_numpy(walk.close[row + 1 - CONTEXT : row + 1].T)
        assert torch.equal(context.close, past)
        assert context.bars.shape == (20, CONTEXT, 6)
        assert int(context.timestamps[0, -1]) == int(walk.timestamps[row].astype(int) // 10**9)


def test_bars_after_the_last_outcome_change_no_score(walk):
    close = walk.close.copy()
    close[706:] *= 2.0
    altered = replace(walk, close=close)
    one, two = (
        rolling_origins(bars, trailing_random_walk(), [1, 5], [700], CONTEXT)
        for bars in (walk, altered)
    )
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_windows_without_a_last_close_or_an_outcome_do_not_count(walk):
    close = walk.close.copy()
    close[700, 0] = np.nan  # the last close
    close[703, 1] = np.nan  # an outcome
    close[601:699, 2] = np.nan  # two closes are left: fewer than the walk needs
    close[650, 3] = np.nan  # a mere gap
    scores = rolling_origins(
        replace(walk, close=close), trailing_random_walk(), [1, 3], [700, 900], CONTEXT
    )
    assert scores.windows.tolist() == [17.0, 20.0]
    assert bool(scores.quantile_loss.isfinite().all())


def test_origins_out_of_range_are_refused(walk):
    for row in (CONTEXT - 2, len(walk) - 5):
        with pytest.raises(ForecastError, match=f"origin {row} lacks"):
            rolling_origins(walk, Knowing(), [5], [row], CONTEXT)
    origins = spaced_origins(walk, context=CONTEXT, horizon=5, step=1)
    assert (origins[0], origins[-1]) == (CONTEXT - 1, len(walk) - 6)


def test_a_market_without_a_window_is_refused(walk):
    empty = replace(walk, close=np.full_like(walk.close, np.nan))
    with pytest.raises(ForecastError, match="no origin"):
        rolling_origins(empty, Knowing(), [5], [500], CONTEXT)


def test_a_forecaster_relative_to_itself_is_exactly_one(walk):
    scores = rolling_origins(walk, Knowing(), [5], [500, 600, 700], CONTEXT)
    assert relative(scores, scores) == Interval(1.0, 1.0, 1.0, evaluate.INTERVAL)


def test_scores_on_other_windows_are_not_compared(walk):
    one, two = (
        rolling_origins(walk, Knowing(), [5], rows, CONTEXT) for rows in ([500], [500, 600])
    )
    with pytest.raises(ForecastError, match="same origins"):
        relative(one, two)


def test_the_interval_of_a_mean_is_as_wide_as_theory_says():
    values = torch.randn((600, 1), generator=torch.Generator().manual_seed(1)).double()
    estimate = resampled(values, torch.ones(600).double(), lambda mean: mean)
    wanted = 2 * 1.96 * float(values.std()) / math.sqrt(600)
    assert estimate.estimate == pytest.approx(float(values.mean()))
    assert estimate.high - estimate.low == pytest.approx(wanted, rel=0.2)
    assert estimate == resampled(values, torch.ones(600).double(), lambda mean: mean)


def test_spells_widen_the_interval():
    spells = torch.randn((100, 1), generator=torch.Generator().manual_seed(1)).double()
    repeated = spells.repeat_interleave(evaluate.BLOCK, 0)
    shuffled = repeated[torch.randperm(len(repeated), generator=torch.Generator().manual_seed(2))]
    ones = torch.ones(len(repeated)).double()
    wide, narrow = (resampled(values, ones, lambda mean: mean) for values in (repeated, shuffled))
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_origins_weigh_by_their_windows():
    values = torch.tensor([[1.0], [4.0]]).double()
    assert resampled(values, torch.tensor([2.0, 1.0]).double(), lambda mean: mean).estimate == 2.0


def test_the_trailing_walk_has_the_quantiles_of_its_formula():
    returns = 0.02 * torch.randn((1, 200), generator=torch.Generator().manual_seed(0)).double()
    closes = 50.0 * returns.cumsum(1).exp()
    forecast = trailing_random_walk(60).forecast(context_of(closes), 9)
    sigma = returns[0, -60:].square().mean().sqrt()
    wanted = closes[0, -1] * (sigma * 3.0 * 1.2815515655446004).exp()
    assert float(forecast.at(0.9)[0, 8]) == pytest.approx(float(wanted), rel=1e-5)
    assert float(forecast.median[0, 8]) == pytest.approx(float(closes[0, -1]), rel=1e-6)


def test_the_ewma_walk_follows_its_recursion():
    returns = 0.02 * torch.randn((1, 500), generator=torch.Generator().manual_seed(0)).double()
    closes = torch.nn.functional.pad(returns.cumsum(1), (1, 0)).exp()
    forecast = ewma_random_walk(0.94).forecast(context_of(closes), 1)
    variance = 0.0
    for value in returns[0].tolist():
        variance = 0.94 * variance + 0.06 * value**2
    log_quantile = math.log(float(forecast.at(0.9)[0, 0] / closes[0, -1]))
    assert log_quantile == pytest.approx(math.sqrt(variance) * 1.2815515655446004, rel=1e-4)


@pytest.mark.parametrize("baseline", [trailing_random_walk(), ewma_random_walk()])
def test_baselines_scale_with_the_price_and_skip_gaps(baseline, walk):
    closes = torch.from_numpy(walk.close[:200].T).clone()
    closes[0, 150:160] = torch.nan
    one = baseline.forecast(context_of(closes), 10).quantiles
    two = baseline.forecast(context_of(closes * 8.0), 10).quantiles
    assert torch.equal(two, one * 8.0)
    assert bool(one.isfinite().all())


def test_baseline_settings_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="window"):
        trailing_random_walk(1)
    with pytest.raises(ConfigError, match="decay"):
        ewma_random_walk(1.0)


def uneven(walk):
    """Four assets: whole, listed late, constant, and with a gap."""
    close = walk.close[:900, :4].copy()
    close[:400, 1] = np.nan
    close[:, 2] = 1.0
    close[600:620, 3] = np.nan
    return bars_of(close)


def test_all_forecasters_are_scored_on_the_same_windows_and_what_is_skipped_is_counted(walk):
    bars, context, horizons = uneven(walk), 100, (1, 5)
    patient = Knowing()
    patient.card = replace(patient.card, min_context=80)
    origins = spaced_origins(bars, context=context, horizon=5, step=10)
    windows = common_windows(bars, [trailing_random_walk(), patient], horizons, origins, context)
    count = len(origins)
    rows = list(map(int, origins))
    unknown = sum(row < 400 for row in rows) + sum(600 <= row < 620 for row in rows)
    young = sum(400 <= row < 479 for row in rows)
    assert windows.unknown == unknown
    assert windows.young == young
    assert windows.constant == count
    assert windows.open == sum(595 <= row < 600 or row == 599 for row in rows)
    assert windows.scored + sum(windows.skipped.values()) == 4 * count
    ours, theirs = (
        rolling_origins(bars, forecaster, horizons, origins, context, windows=windows)
        for forecaster in (trailing_random_walk(), patient)
    )
    assert torch.equal(ours.windows, theirs.windows)
    ratio = relative(theirs, ours)
    assert math.isfinite(ratio.estimate) and ratio.low <= ratio.estimate <= ratio.high


def test_a_constant_asset_beside_others_changes_no_score(walk):
    close = walk.close[:600, :3].copy()
    pegged = np.concatenate([close, np.full((600, 1), 1.1)], 1)
    origins, context = [150, 250, 350], 100
    alone, beside = (
        rolling_origins(bars_of(table), trailing_random_walk(), [1, 5], origins, context)
        for table in (close, pegged)
    )
    assert all(torch.equal(one, other) for one, other in zip(alone, beside, strict=True))
    with pytest.raises(ForecastError, match=r"no origin .*3 closes that never move"):
        rolling_origins(bars_of(pegged[:, 3:]), trailing_random_walk(), [1], origins, context)


@pytest.mark.parametrize(
    ("horizons", "told"),
    [
        ((), "different whole numbers of bars from 1 up, got \\[\\]"),
        ((0,), "from 1 up, got \\[0\\]"),
        ((-1, 5), "from 1 up, got \\[-1, 5\\]"),
        ((1, 1), "different whole numbers"),
        ((1.5,), "whole numbers"),
        ((5, 1), "increasing order, got \\[5, 1\\]"),
        ((65,), "knowing forecasts 1 to 64 bars ahead, not 65"),
    ],
)
def test_horizons_that_cannot_be_scored_are_refused_before_any_forecast(walk, horizons, told):
    spy = Knowing()
    with pytest.raises(ForecastError, match=told):
        rolling_origins(walk, spy, horizons, [500], CONTEXT)
    assert spy.seen == []


@pytest.mark.parametrize("origins", [[], [500, 500], [600, 500]])
def test_origins_that_do_not_increase_are_refused_before_any_forecast(walk, origins):
    spy = Knowing()
    with pytest.raises(ForecastError, match="origins must be rows that increase"):
        rolling_origins(walk, spy, [5], origins, CONTEXT)
    assert spy.seen == []


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "5"])
@pytest.mark.parametrize("name", ["context", "horizon", "step"])
def test_spacings_that_cannot_be_are_refused(walk, name, value):
    with pytest.raises(ForecastError, match=f"{name} must be a whole number of bars from 1 up"):
        spaced_origins(walk, **{"context": 100, "horizon": 5, "step": 10} | {name: value})


def test_bars_that_hold_no_window_are_refused(walk):
    with pytest.raises(ForecastError, match="3000 bars hold no context of 2999 with 5 bars after"):
        spaced_origins(walk, context=2999, horizon=5, step=1)


@pytest.fixture
def uneven_file(walk, tmp_path):
    """Bars with a late listing and a pegged asset, as a CSV."""
    close = uneven(walk).close[:, :3]
    days = np.busday_offset("2015-01-01", np.arange(900), roll="forward")
    rows = (
        ",".join([str(day), *("" if np.isnan(x) else f"{x:.6f}" for x in prices)])
        for day, prices in zip(days, close, strict=True)
    )
    path = tmp_path / "uneven.csv"
    path.write_text("\n".join(["date,WHOLE,LATE,PEGGED", *rows]) + "\n")
    return path


def test_the_command_line_says_what_was_skipped_and_scores_the_rest(uneven_file, capsys, tmp_path):
    out = tmp_path / "scores.json"
    flags = ["--source", str(uneven_file), "--step", "60", "--horizons", "1", "5"]
    main(["forecast", "evaluate", *flags, "--context", "100", "--json", str(out)])
    told = capsys.readouterr().out
    assert "closes that never move" in told and "no close at the origin" in told
    losses = next(line for line in told.splitlines() if line.startswith("│ fastsim-prior"))
    assert "none" not in losses
    record = json.loads(out.read_text())
    assert record["skipped"]["closes that never move"] == record["origins"] == 14
    assert record["windows"] + sum(record["skipped"].values()) == 3 * record["origins"]
    assert all(entry["relative"]["random-walk-60"]["crps"][0] for entry in record["forecasters"])


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--horizons", "0"], "whole numbers of bars from 1 up, got [0]"),
        (["--horizons", "-3", "1"], "got [-3, 1]"),
        (["--horizons", "1", "1"], "different whole numbers"),
        (["--horizons", "5", "1"], "increasing order"),
        (["--horizons", "1.5"], "must be whole numbers"),
        (["--horizons", "65"], "fastsim-prior forecasts 1 to 64 bars ahead, not 65"),
        (["--step", "0"], "step must be a whole number of bars from 1 up, got 0"),
        (["--step", "-1"], "got -1"),
        (["--step", "1.5"], "step must be a whole number"),
        (["--context", "0"], "context must be a whole number of bars from 1 up, got 0"),
        (["--context", "-2"], "got -2"),
        (["--context", "3000"], "bars hold no context of 3000"),
        (["--context", "5"], "too few known closes"),
        (["--forecaster", "theta,theta"], "forecaster theta is named twice"),
        (["--json", "."], "json must be a file to write"),
    ],
)
def test_the_command_line_refuses_what_cannot_be_scored_before_the_work(
    flags, told, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["forecast", "evaluate", "--source", "tech4", "--step", "500", *flags])
    error = capsys.readouterr()
    assert ended.value.code == 2
    assert told in error.err and error.err.count("\n") == 1 and error.out == ""
    assert list(tmp_path.iterdir()) == []
