"""Covariates: ranges by their closed forms, the calendar, and no later bar in any of them."""

import math
import statistics
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import torch

from fastsim.data.bars import AMOUNT, CLOSE, HIGH, LOW, OPEN, VOLUME, Bars
from fastsim.errors import ConfigError
from fastsim.forecast.artifacts.export import export, load_artifact
from fastsim.forecast.covariates.calendar import hour, month_end, session, weekday
from fastsim.forecast.covariates.channels import COVARIATES, Covariates
from fastsim.forecast.covariates.ranges import garman_klass, parkinson, yang_zhang
from fastsim.forecast.interface import Context, ModuleForecaster, model_inputs
from fastsim.forecast.networks.lstm_attention import LstmConfig, LstmModel
from fastsim.forecast.networks.nhits import NhitsConfig, NhitsModel
from fastsim.forecast.networks.patch_transformer import (
    PatchTransformerConfig,
    PatchTransformerModel,
)
from fastsim.forecast.networks.return_network import KNOTS, horizon_curve
from fastsim.forecast.registry import load_forecaster
from fastsim.forecast.returns import returns_with_gaps
from fastsim.forecast.training.config import FitConfig
from fastsim.forecast.training.fit import fit
from fastsim.forecast.training.keep import save_fit
from fastsim.forecast.training.series import series_of_bars
from fastsim.forecast.training.split import Look, usable_origins
from fastsim.forecast.training.windows import windows_at
from fastsim.progress import SILENT

ALL = tuple(COVARIATES)
NETWORKS = {
    "nhits": (NhitsModel, NhitsConfig(hidden=8)),
    "lstm": (LstmModel, LstmConfig(hidden=8, patch=16)),
    "patch-transformer": (
        PatchTransformerModel,
        PatchTransformerConfig(width=8, hidden=8, layers=1),
    ),
    "encoder-decoder": (
        PatchTransformerModel,
        PatchTransformerConfig(width=8, hidden=8, layers=1, decoder=1),
    ),
}
HOUR, DAY = 3_600, 86_400


def bars_of(count, assets=1, seed=0, hours=1):
    """Bars with ranges and volume, every so many hours from Monday, 3 January 2000 on."""
    rng = np.random.default_rng(seed)
    steps = rng.standard_normal((count, assets, 16)) * 0.002
    path = steps.reshape(count, assets, 16).cumsum(2)
    start = np.concatenate([np.zeros((1, assets)), path[:, :, -1].cumsum(0)[:-1]])
    whole = np.concatenate([np.zeros((count, assets, 1)), path], 2) + start[..., None]
    stamps = np.datetime64("2000-01-03T00", "ns") + np.arange(count) * np.timedelta64(hours, "h")
    prices = 100.0 * np.exp(whole)
    jump = np.exp(rng.standard_normal((count, assets)) * 0.001)
    opens = prices[:, :, 0] * jump
    return Bars(
        symbols=tuple(f"S{asset}" for asset in range(assets)),
        timestamps=stamps.astype("datetime64[ns]"),
        open=opens,
        high=np.maximum(prices.max(2), opens),
        low=np.minimum(prices.min(2), opens),
        close=prices[:, :, -1],
        volume=np.exp(rng.standard_normal((count, assets))),
    )


def table_of(bars):
    return torch.from_numpy(bars.table()).transpose(0, 1)


def shaken(name, covariates=ALL, seed=0):
    """A network of random weights, all of them large enough to matter."""
    kind, config = NETWORKS[name]
    torch.manual_seed(seed)
    model = kind(replace(config, covariates=covariates)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return model.requires_grad_(False)


def test_ranges_are_their_closed_forms_bar_by_bar():
    """Against the papers' formulas in Python's own floats and statistics."""
    bars = table_of(bars_of(60))
    rows = bars[0].tolist()
    estimates = {each: each(bars)[0].tolist() for each in (parkinson, garman_klass, yang_zhang)}
    n = 21
    k = 0.34 / (1.34 + (n + 1) / (n - 1))
    for bar, row in enumerate(rows):
        o, h, low, c = (math.log(row[field]) for field in (OPEN, HIGH, LOW, CLOSE))
        assert estimates[parkinson][bar] == pytest.approx(
            (h - low) ** 2 / (4 * math.log(2)), rel=1e-9
        )
        body = (2 * math.log(2) - 1) * (c - o) ** 2
        assert estimates[garman_klass][bar] == pytest.approx((h - low) ** 2 / 2 - body, rel=1e-9)
        if bar < n:
            assert math.isnan(estimates[yang_zhang][bar])
            continue
        overnight, within, satchell = [], [], []
        for day in range(bar - n + 1, bar + 1):
            o, h, low, c = (math.log(rows[day][field]) for field in (OPEN, HIGH, LOW, CLOSE))
            overnight.append(o - math.log(rows[day - 1][CLOSE]))
            within.append(c - o)
            satchell.append((h - o) * (h - c) + (low - o) * (low - c))
        wanted = statistics.variance(overnight) + k * statistics.variance(within)
        wanted += (1 - k) * statistics.mean(satchell)
        assert estimates[yang_zhang][bar] == pytest.approx(wanted, rel=1e-9)


def test_the_estimator_of_yang_and_zhang_has_the_variance_of_a_bar_with_gaps_and_drift():
    rng = np.random.default_rng(1)
    steps = rng.standard_normal((4000, 400)) * 0.01 / 20 + 0.0005 / 400
    gaps = rng.standard_normal(4000) * 0.006
    path = steps.cumsum(1)
    start = np.concatenate([[0.0], (path[:-1, -1] + gaps[:-1]).cumsum()]) + gaps
    whole = np.concatenate([start[:, None], start[:, None] + path], 1)
    columns = (whole[:, 0], whole.max(1), whole.min(1), whole[:, -1])
    bars = torch.from_numpy(np.exp(np.stack([*columns, columns[0], columns[0]], -1)))
    found = yang_zhang(bars[None])[0, 21:].mean()
    # 400 steps see narrower ranges.
    assert float(found) == pytest.approx(0.01**2 + 0.006**2, rel=0.08)


def test_the_calendar_is_that_of_datetime():
    days = [datetime(2001, 2, 20, 7, 30, tzinfo=UTC) + timedelta(hours=5 * n) for n in range(900)]
    stamps = torch.tensor([[int(day.timestamp()) for day in days]])
    angle = torch.atan2(*hour(stamps)[0, :, :2].unbind(-1)) / (2 * math.pi) * 24 % 24
    wanted = torch.tensor([day.hour + day.minute / 60 for day in days], dtype=torch.float64)
    torch.testing.assert_close(angle, wanted, rtol=0, atol=1e-4)
    angle = torch.atan2(*weekday(stamps)[0, :, :2].unbind(-1)) / (2 * math.pi) * 7 % 7
    # 1970 began on a Thursday, which is day 3.
    wanted = [((day.weekday() - 3) % 7) + (day.hour + day.minute / 60) / 24 for day in days]
    torch.testing.assert_close(angle, torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=1e-3)
    wanted = [float(day.month != (day + timedelta(days=2)).month) for day in days]
    assert month_end(stamps)[0, :, 0].tolist() == wanted


def test_sessions_begin_after_nights_and_weekends():
    week = [DAY * 4 + 9 * HOUR + day * DAY + h * HOUR for day in range(5) for h in range(8)]
    stamps = torch.tensor([week + [stamp + 7 * DAY for stamp in week]])  # Mondays to Fridays
    told = session(stamps)[0]
    first = torch.arange(80) % 8 == 0
    weekend = torch.arange(80) == 40
    night = first & ~weekend & (torch.arange(80) > 0)
    assert told[:, 0].bool().tolist() == night.tolist()
    assert told[:, 1].bool().tolist() == weekend.tolist()


def office_hours(count):
    """Stamps of bars from 9 to 16 on weekdays, from Monday, 26 January 1970 on."""
    bar = torch.arange(count)[None]
    day = bar // 8
    return (25 + day // 5 * 7 + day % 5) * DAY + (9 + bar % 8) * HOUR


def read(bars, stamps, names=ALL):
    closes = bars[..., CLOSE]
    gaps = returns_with_gaps(closes.float(), torch.arange(closes.shape[1]))
    scale = torch.full((len(bars),), 0.01)
    return Covariates(names, "UTC")(bars, stamps, gaps, scale, horizon_curve())


@pytest.mark.parametrize("name", ALL)
def test_no_covariate_of_a_bar_looks_at_a_later_one(name):
    bars, stamps = table_of(bars_of(120)), office_hours(120)
    before = read(bars, stamps, (name,))
    width = COVARIATES[name].width
    assert before.past.shape == (1, 119, width)
    assert float(before.past.std()) > 0.01
    assert (before.ahead is not None) == COVARIATES[name].is_ahead
    for bar in range(1, 120, 7):
        altered = bars.clone()
        altered[:, bar:] *= torch.tensor([1.2, 1.7, 0.6, 1.3, 2.0, 3.0])
        after = read(altered, stamps, (name,))
        assert torch.equal(before.past[:, : bar - 1], after.past[:, : bar - 1]), bar
        if COVARIATES[name].is_ahead:
            assert torch.equal(before.past, after.past)
            assert torch.equal(before.ahead, after.ahead)
        else:
            assert not torch.equal(before.past[:, bar - 1 :], after.past[:, bar - 1 :])


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("network", NETWORKS)
def test_later_bars_and_targets_move_no_input_of_an_earlier_origin(network, name):
    bars = bars_of(90)
    series = series_of_bars(bars)
    look = Look(context=50, least=32, horizons=(1, 3))
    rows = usable_origins(bars.close[:, 0], series.stamps, look)
    model = shaken(network, (name,))

    def inputs(values):
        windows = windows_at(series._replace(values=values), rows, look)
        given = model_inputs(model.card, windows.context, 512, torch.device("cpu"))
        reading = model.read(*given)
        return [each for each in reading if each is not None]

    before = inputs(series.values)
    for row in range(int(rows[0]), 90, 13):
        values = series.values.copy()
        values[row] *= [1.2, 1.4, 0.7, 1.1, 3.0, 2.0]
        earlier = torch.from_numpy(rows < row)
        after = inputs(values)
        for old, new in zip(before, after, strict=True):
            assert torch.equal(old[earlier], new[earlier])


def test_covariates_of_the_calendar_are_known_of_bars_to_come():
    """Hourly: the mean over the first control point is nearest to the very next bar."""
    stamps = HOUR * torch.arange(400)[None]
    told = read(table_of(bars_of(400)), stamps, ("hour",))
    assert told.ahead.shape == (1, KNOTS, 4)
    ahead = hour(HOUR * torch.arange(400, 464)[None])[0]
    weight = horizon_curve().double()
    wanted = (weight / weight.sum(0)).T @ ahead
    torch.testing.assert_close(told.ahead[0].double(), wanted, rtol=0, atol=1e-5)


def test_a_zone_moves_hours_with_its_clock():
    winter = int(datetime(2021, 1, 4, tzinfo=UTC).timestamp())
    summer = int(datetime(2021, 7, 5, tzinfo=UTC).timestamp())
    bars = table_of(bars_of(100))
    closes = bars[..., CLOSE].float()
    gaps = returns_with_gaps(closes, torch.arange(100))
    for start, ahead in ((winter, -5), (summer, -4)):
        stamps = start + HOUR * torch.arange(100)[None]
        given = (gaps, torch.full((1,), 0.01), horizon_curve())
        told = Covariates(("hour",), "America/New_York")(bars, stamps, *given)
        wanted = Covariates(("hour",), "UTC")(bars, stamps + ahead * HOUR, *given)
        assert torch.equal(told.past, wanted.past) and torch.equal(told.ahead, wanted.ahead)


def test_what_is_missing_counts_for_nothing_and_ranges_fall_back_on_returns():
    bars, stamps = table_of(bars_of(200)).clone(), HOUR * torch.arange(200)[None]
    bars[:, :50] = math.nan
    bars[:, 100:103] = math.nan
    bars[..., OPEN : LOW + 1] = math.nan
    bars[..., [VOLUME, AMOUNT]] = math.nan
    told = read(bars, stamps)
    assert bool(told.past.isfinite().all())
    assert not told.past[:, :50].any() and not told.past[:, 99:102].any()
    ranges = read(bars, stamps, ("parkinson", "garman-klass", "yang-zhang")).past[0]
    closes = bars[0, :, CLOSE]
    size = (closes[1:] / closes[:-1]).log().abs() / 0.01
    there = size.isfinite()
    wanted = size.log().clamp(-3, 3).float()[there]
    for column in ranges.unbind(-1):
        torch.testing.assert_close(column[there], wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("network", NETWORKS)
class TestEachNetwork:
    def context(self, count=300, rows=33):
        bars = table_of(bars_of(count + 10 * rows))[0]
        cut = bars.unfold(0, count, 10)[:rows].transpose(1, 2)
        stamps = HOUR * (torch.arange(count) + 10 * torch.arange(rows)[:, None])
        return Context(cut.contiguous(), stamps)

    def test_every_covariate_counts(self, network):
        context, model = self.context(rows=3), shaken(network)
        told = model(*context, horizon=5)
        for column in range(6):
            bars = context.bars.clone()
            bars[:, -20, column] *= 1.1
            assert not torch.equal(model(bars, context.timestamps, horizon=5), told), column
        later = model(context.bars, context.timestamps + 5 * HOUR, horizon=5)
        assert not torch.equal(later, told)

    def test_the_unit_of_the_price_is_of_no_account(self, network):
        context, model = self.context(rows=3), shaken(network)
        told = model(*context, horizon=5)
        dear = context.bars * torch.tensor([64.0, 64.0, 64.0, 64.0, 1.0, 64.0])
        torch.testing.assert_close(model(dear, context.timestamps, horizon=5), 64.0 * told)

    def test_padding_changes_nothing(self, network):
        context, model = self.context(rows=3), shaken(network)
        bars = torch.cat([torch.full((3, 50, 6), torch.nan), context.bars], 1)
        before = context.timestamps[:, :1] + HOUR * torch.arange(-50, 0)
        stamps = torch.cat([before, context.timestamps], 1)
        assert torch.equal(model(bars, stamps, horizon=5), model(*context, horizon=5))

    def test_it_is_kept_with_its_covariates_and_exported(self, network, tmp_path):
        kind, config = NETWORKS[network]
        fits = FitConfig(
            mode="scratch",
            covariates="hour,parkinson,volume",
            zone="America/New_York",
            steps=4,
            evaluate_every=2,
            batch_size=16,
            validation_windows=40,
            sure=False,
            horizons=(1, 3),
        )
        result = fit(kind(config), bars_of(900, 2), fits, progress=SILENT)
        found = result.model.spread.config
        assert found.covariates == ("hour", "parkinson", "volume")
        assert found.zone == "America/New_York"
        save_fit(result, tmp_path / "fit", fits)
        loaded = load_forecaster(f"fit:{tmp_path / 'fit'}")
        assert loaded.card.inputs == "bars"
        other = replace(fits, covariates="hour,garman-klass,volume")
        keys = {
            loaded.key,
            ModuleForecaster(
                fit(kind(config), bars_of(900, 2), other, name="fit", progress=SILENT).model
            ).key,
        }
        assert len(keys) == 2
        context = self.context()
        wanted = loaded.forecast(context, 3).quantiles
        export(loaded.model, tmp_path / "net.pt", windows=context, horizon=3, precision="float32")
        artefact = load_artifact(tmp_path / "net.pt")
        torch.testing.assert_close(artefact.forecast(context, 3).quantiles, wanted)
        again = replace(fits, mode="full", covariates="")
        assert fit(result.model, bars_of(900, 2), again, progress=SILENT).report.steps == 4
        with pytest.raises(ConfigError, match="covariates must be empty, or those that"):
            fit(result.model, bars_of(900, 2), replace(again, covariates="hour"), progress=SILENT)


@pytest.mark.long
def test_ends_of_months_that_move_more_are_learned_by_their_covariate_alone():
    rng = np.random.default_rng(3)
    stamps = np.datetime64("2000-01-03", "s") + np.arange(9000) * np.timedelta64(1, "D")
    ends = month_end(torch.from_numpy(stamps.astype(np.int64))[None])[0].numpy() > 0
    steps = rng.standard_normal((9000, 2)) * np.where(ends, 0.02, 0.002)
    closes = 100.0 * np.exp(steps.cumsum(0))
    bars = Bars(symbols=("A", "B"), timestamps=stamps.astype("datetime64[ns]"), close=closes)
    config = FitConfig(
        mode="scratch",
        horizons=(1,),
        steps=120,
        evaluate_every=60,
        batch_size=128,
        context=64,
        warmup=10,
        average=0.9,
        validation_windows=1500,
        learning_rate=1e-2,
    )
    losses = [
        fit(
            PatchTransformerModel(PatchTransformerConfig(width=16, hidden=16, layers=1)),
            bars,
            replace(config, covariates=covariates),
            progress=SILENT,
        ).report.loss
        for covariates in ("", "month-end")
    ]
    assert losses[1] < 0.93 * losses[0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FitConfig(covariates="huor"), r"covariates must be of hour, .*did you mean"),
        (lambda: FitConfig(covariates="hour,hour"), "covariates must be named once each"),
        (lambda: FitConfig(zone="Mars/North"), "no time zone 'Mars/North'"),
        (lambda: NhitsConfig(covariates=("close",)), r"NhitsConfig\.covariates must be of hour"),
        (lambda: FitConfig(mode="volatility", covariates="hour"), "mode volatility"),
    ],
)
def test_covariates_that_there_are_not_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_models_that_read_closes_alone_refuse_covariates_by_name():
    prior = load_forecaster("fastsim-prior").model
    config = FitConfig(mode="scratch", covariates="hour", season="none")
    with pytest.raises(ConfigError, match="covariates must be empty for fastsim-prior"):
        fit(prior, bars_of(900), config, progress=SILENT)


@pytest.mark.parametrize("network", NETWORKS)
def test_halts_late_listings_and_still_assets_are_no_hindrance_to_any_covariate(network):
    bars = bars_of(700, 3)
    odd = {name: getattr(bars, name).copy() for name in ("open", "high", "low", "close", "volume")}
    for values in odd.values():
        values[:300, 0] = np.nan  # listed late
        values[200:240, 1] = np.nan  # halted
        values[:, 2] = 50.0  # never moves
    kind, config = NETWORKS[network]
    config = replace(config, covariates=ALL)
    fits = FitConfig(
        mode="scratch",
        simulated=0.25,
        steps=4,
        evaluate_every=2,
        batch_size=32,
        validation_windows=40,
        sure=False,
        horizons=(1, 3),
    )
    report = fit(kind(config), replace(bars, **odd), fits, progress=SILENT).report
    assert np.isfinite([report.start_loss, report.tried_loss, report.coverage]).all()
    assert report.tried_loss < report.start_loss
