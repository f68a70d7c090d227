"""The season of volatility around any forecaster: what it is made of, and what it changes."""

import json
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest
import torch

from fastsim.errors import ConfigError, ForecastError
from fastsim.forecast.artifacts.export import export, load_artifact
from fastsim.forecast.interface import Context, ModuleForecaster
from fastsim.forecast.models.baselines import trailing_random_walk
from fastsim.forecast.models.prior import load_prior
from fastsim.forecast.season.clock import (
    DAY,
    HOUR,
    HOURS_OF_WEEK,
    Offsets,
    bars_to_come,
    local_time,
    offsets_of,
)
from fastsim.forecast.season.divide import Season
from fastsim.forecast.season.network import SeasonalModel
from fastsim.forecast.season.profile import KINDS
from fastsim.forecast.season.seasonal import Seasonal
from fastsim.forecast.season.setting import (
    check_season,
    fit_season,
    read_season,
    resolved,
    season_of,
    with_season,
    write_season,
)

START = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp())  # a Monday
WALK = trailing_random_walk()
NEW_YORK = "America/New_York"


def context_of(returns, stamps):
    """Contexts whose closes have these log returns [B, L - 1], and bars about them."""
    close = torch.nn.functional.pad(returns.double().cumsum(1), (1, 0)).exp() * 100.0
    about = torch.tensor([1.0, 1.001, 0.999, 1.0], dtype=torch.float64)
    bars = torch.cat([close[..., None] * about, torch.ones(*close.shape, 2)], -1)
    return Context(bars, stamps.expand(len(bars), -1))


def hourly(count, start=START):
    return start + HOUR * torch.arange(count)


def planted(rows, bars, seed=0, strength=1.0):
    """Normal returns whose variance has a wave of a day, its factors [bars], and their stamps."""
    stamps = hourly(bars + 1)
    hour = stamps[1:] // HOUR % 24
    factor = (strength * torch.sin(2.0 * torch.pi * hour / 24.0)).exp().double()
    noise = torch.randn(rows, bars, generator=torch.Generator().manual_seed(seed)).double()
    return noise * 0.01 * factor.sqrt(), factor, stamps


def weekday_stamps(count, start=START):
    stamps = hourly(3 * count, start)
    return stamps[stamps // DAY % 7 != 2][:count]  # without one day of seven


@pytest.mark.parametrize("zone", ["UTC", NEW_YORK, "Asia/Kolkata", "Australia/Lord_Howe"])
def test_local_time_is_what_the_database_of_zones_says(zone):
    instants = torch.randint(START - 9 * 365 * DAY, START + 9 * 365 * DAY, (400,))
    told = local_time(instants, offsets_of(zone))
    for instant, local in zip(instants.tolist(), told.tolist(), strict=True):
        clock = datetime.fromtimestamp(instant, ZoneInfo(zone)).replace(tzinfo=UTC)
        assert local == int(clock.timestamp())


def test_offsets_change_at_the_minute_that_clocks_do():
    offsets = offsets_of(NEW_YORK)
    change = int(datetime(2024, 3, 10, 7, tzinfo=UTC).timestamp())
    assert change in offsets.since.tolist()
    before, after = local_time(torch.tensor([change - 1, change]), offsets).tolist()
    assert after - before == HOUR + 1


def test_bars_of_a_day_or_longer_are_forecast_as_without_a_season():
    generator = torch.Generator().manual_seed(0)
    returns = 0.01 * torch.randn(3, 99, generator=generator)
    daily = context_of(returns, START + DAY * torch.arange(100))
    prior = ModuleForecaster(load_prior())
    told = Seasonal(prior, Season()).forecast(daily, 8)
    assert torch.equal(told.quantiles, prior.forecast(daily, 8).quantiles)


def test_a_season_that_was_known_before_is_divided_out_and_multiplied_in():
    """Returns of one size times the root of their factor: divided, all have that size."""
    before = 0.5 + torch.rand(KINDS, generator=torch.Generator().manual_seed(1)).double()
    stamps = hourly(337)
    kinds = stamps[1:] // HOUR % HOURS_OF_WEEK
    factor = before[kinds] / before[kinds].mean()
    sign = torch.tensor([1.0, -1.0]).repeat(168)
    context = context_of((0.01 * sign * factor.sqrt())[None], stamps)
    season = Season(before=before)
    divided = season(*context, 24)
    size = divided.bars[0, :, 3].log().diff().abs()
    torch.testing.assert_close(size, torch.full_like(size, 0.01), rtol=1e-6, atol=0)
    coming = factor[:24]  # a fortnight later the same hours come again
    mean = coming.cumsum(0) / torch.arange(1, 25)
    torch.testing.assert_close(divided.growth[0], mean.sqrt(), rtol=1e-6, atol=0)
    torch.testing.assert_close(divided.bars[:, -1, 3], context.bars[:, -1, 3])
    told = Seasonal(WALK, season).forecast(context, 24).quantiles
    plain = WALK.forecast(Context(divided.bars, context.timestamps), 24).quantiles
    start = context.bars[0, -1, 3]
    widths = (told / start).log() / (plain / start).log()
    expected = mean.sqrt()[:, None].expand_as(widths[0])
    skewed = (plain[0] / start).log().abs() > 1e-9
    torch.testing.assert_close(
        widths[0][skewed], expected[skewed].float(), rtol=1e-3, atol=0, check_dtype=False
    )


def loss(forecaster, context, future):
    told = forecaster.forecast(context, future.shape[1])
    price = context.bars[:, -1, 3]
    return told.log_returns(price).crps(future.cumsum(1)).mean(0)


def test_what_a_context_shows_of_a_season_forecasts_better():
    returns, _, stamps = planted(600, 496 + 12)  # the next hours are calm ones
    context = context_of(returns[:, :496], stamps[:497])
    future = returns[:, 496:]
    with_it = loss(Seasonal(WALK, Season()), context, future)
    without = loss(WALK, context, future)
    assert float(with_it[:3].mean() / without[:3].mean()) < 0.97
    assert float(with_it.mean() / without.mean()) < 1.0


@pytest.mark.parametrize("step", [HOUR, HOUR // 4])
def test_where_there_is_no_season_it_costs_a_thousandth_at_most(step):
    returns, _, _ = planted(3000, 511 + 8, strength=0.0)
    context = context_of(returns[:, :511], START + step * torch.arange(512))
    future = returns[:, 511:]
    ratio = (
        loss(Seasonal(WALK, Season()), context, future).mean() / loss(WALK, context, future).mean()
    )
    assert float(ratio) < 1.001


def test_a_context_of_too_few_days_has_no_season():
    returns, _, stamps = planted(2, 40)
    context = context_of(returns, stamps)
    divided = Season()(*context, 8)
    assert torch.equal(divided.bars, context.bars)
    assert torch.equal(divided.growth, torch.ones(2, 8).double())


def test_nothing_is_learnt_from_a_return_over_a_hole():
    returns, _, stamps = planted(4, 400)
    stamps = stamps.clone()
    stamps[200:] += 60 * DAY
    jump = returns.clone()
    jump[:, 199] = 0.7
    one, other = (
        Seasonal(WALK, Season()).forecast(context_of(each, stamps), 12).quantiles
        / context_of(each, stamps).bars[:, -1:, 3:4]
        for each in (returns, jump)
    )
    torch.testing.assert_close(one, other, rtol=1e-6, atol=0, check_dtype=False)


def test_missing_bars_are_returns_over_as_many():
    returns, _, stamps = planted(3, 300)
    context = context_of(returns, stamps)
    context.bars[:, 100:110] = torch.nan
    divided = Season()(*context, 5)
    assert divided.bars[:, 100:110].isnan()[..., :4].all()
    known = divided.bars[:, [*range(100), *range(110, 301)]]
    assert known.isfinite().all()


def test_padding_before_a_context_changes_nothing():
    returns, _, stamps = planted(3, 200)
    short = context_of(returns, stamps)
    padding = torch.full((3, 56, 6), torch.nan, dtype=torch.float64)
    before = (stamps[:1] - HOUR * torch.arange(56, 0, -1)).expand(3, -1)
    long = Context(torch.cat([padding, short.bars], 1), torch.cat([before, short.timestamps], 1))
    one, other = (Season()(*each, 12) for each in (short, long))
    torch.testing.assert_close(one.growth, other.growth)
    torch.testing.assert_close(one.bars[:, 1:], other.bars[:, 57:])


def test_multiplying_prices_multiplies_the_forecast():
    returns, _, stamps = planted(3, 300)
    context = context_of(returns, stamps)
    seasonal = Seasonal(WALK, Season())
    dear = Context(context.bars * 1000.0, context.timestamps)
    one, other = seasonal.forecast(context, 8), seasonal.forecast(dear, 8)
    torch.testing.assert_close(one.quantiles * 1000.0, other.quantiles, rtol=1e-6, atol=0)


@pytest.mark.parametrize("end", [300, 311, 317, 340])
def test_bars_to_come_follow_the_last_week(end):
    stamps = weekday_stamps(500)[None]
    ahead = bars_to_come(stamps[:, :end], stamps[:, 0], 150)
    assert torch.equal(ahead, stamps[:, end : end + 150])


def test_bars_to_come_follow_the_last_day_where_there_is_no_week():
    session = (START + DAY * torch.arange(9)[:, None] + HOUR * (9 + torch.arange(7))).flatten()
    ahead = bars_to_come(session[None, :30], session[None, 0], 20)
    assert torch.equal(ahead[0], session[30:50])


def test_bars_to_come_go_on_by_a_bar_where_there_is_no_day():
    stamps = (START + 60 * torch.arange(30))[None]
    assert torch.equal(
        bars_to_come(stamps, stamps[:, 0], 5)[0], stamps[0, -1] + 60 * torch.arange(1, 6)
    )


def test_a_fitted_profile_is_the_season_of_its_bars():
    returns, factor, stamps = planted(3, 24 * 7 * 40)
    season = fit_season(context_of(returns, stamps), "UTC")
    kinds = stamps[1 : 1 + HOURS_OF_WEEK] // HOUR % HOURS_OF_WEEK
    wanted = (factor / factor.mean())[:HOURS_OF_WEEK]
    apart = season.before[kinds] / wanted - 1.0
    assert float(apart.square().mean().sqrt()) < 0.15
    hours = season.before[:HOURS_OF_WEEK].view(7, 24).mean(0)[kinds[:24] % 24] / wanted[:24] - 1.0
    assert float(hours.abs().max()) < 0.2


def test_a_clock_that_changes_keeps_its_hours():
    """Volatile from nine to ten in New York, winter and summer: by UTC two hours share that."""
    stamps = hourly(24 * 364, START)
    hour = local_time(stamps, offsets_of(NEW_YORK)) // HOUR % 24
    noise = torch.randn(1, len(stamps) - 1, generator=torch.Generator().manual_seed(2))
    returns = noise * torch.where(hour[1:] == 9, 0.05, 0.01)
    context = context_of(returns, stamps)
    by_hour = {
        zone: fit_season(context, zone).before[:HOURS_OF_WEEK].view(7, 24).mean(0)
        for zone in (NEW_YORK, "UTC")
    }
    assert float(by_hour[NEW_YORK].max()) > 1.3 * float(by_hour["UTC"].max())


def test_a_network_and_its_artefact_have_the_season_of_the_forecaster(tmp_path):
    returns, _, stamps = planted(40, 299)
    context = context_of(returns, stamps)
    season = Season(NEW_YORK, 0.5 + torch.rand(KINDS).double())
    prior = load_prior()
    wanted = Seasonal(ModuleForecaster(prior), season).forecast(context, 8)
    model = SeasonalModel(prior, season)
    found = ModuleForecaster(model).forecast(context, 8)
    torch.testing.assert_close(found.quantiles, wanted.quantiles, rtol=1e-6, atol=0)
    path = tmp_path / "prior.pt"
    export(model, path, windows=context, horizon=8, precision="float32")
    told = load_artifact(path).forecast(context, 8)
    torch.testing.assert_close(told.quantiles, wanted.quantiles, rtol=1e-5, atol=0)


def test_keys_tell_seasons_apart():
    one = torch.ones(KINDS).double()
    seasons = [Season(), Season(NEW_YORK), Season(before=2.0 * one)]
    keys = {Seasonal(WALK, season).key for season in seasons}
    assert len(keys | {WALK.key}) == 4
    assert Seasonal(WALK, Season()).key == Seasonal(WALK, Season()).key


def test_settings_of_seasons():
    hours = np.datetime64("2024-01-01T00") + np.arange(9) * np.timedelta64(1, "h")
    days = np.datetime64("2024-01-01") + np.arange(9)
    assert resolved("auto", hours) == "UTC"
    assert resolved("auto", days) == "none" == resolved("none", hours)
    assert resolved(NEW_YORK, days) == NEW_YORK
    assert season_of("none") is None
    around = with_season(WALK, season_of("UTC"))
    assert isinstance(around, Seasonal) and with_season(around, Season()) is around
    for bad in ("Mars/Base", "", 3):
        with pytest.raises(ConfigError, match=r"ForecastConfig\.season"):
            check_season(bad, "ForecastConfig.season")


def test_a_profile_is_a_file(tmp_path):
    season = Season(NEW_YORK, 0.5 + torch.rand(KINDS).double())
    path = tmp_path / "season.json"
    write_season(season, path)
    kept = season_of(str(path))
    assert kept.zone == NEW_YORK and torch.equal(kept.before, season.before)
    record = json.loads(path.read_text())
    for bad in (
        record | {"format": 9},
        record | {"before": [1.0]},
        record | {"before": [0.0] * KINDS},
        record | {"zone": "Mars/Base"},
        {"zone": "UTC"},
        [],
    ):
        path.write_text(json.dumps(bad))
        with pytest.raises(ForecastError, match=str(path)):
            read_season(path)
    path.unlink()
    with pytest.raises(ForecastError, match="fit one first"):
        read_season(path)


def test_offsets_are_kept_out_of_the_weights():
    assert set(Season().state_dict()) == {"before"}
    assert isinstance(offsets_of("UTC"), Offsets)
