"""No later bar moves a forecast, a window or a scale of an earlier one: model by model.

Models are those that can be named, so that one that is added is enumerated by itself, or fails for
want of a small network of its architecture.
"""

from dataclasses import replace

import numpy as np
import pytest
import test_chronos2
import test_covariates
import test_timesfm
import torch
from test_covariates import NETWORKS as COVARIED
from test_keys import FORECASTERS as KEYED
from test_own_networks import NETWORKS, shaken
from worlds import SHORT_FEATURES, random_bars

from fastsim.data.bars import PRICES
from fastsim.forecast.correction.corrected import INPUTS, Corrected, Correction
from fastsim.forecast.ensemble import Ensemble
from fastsim.forecast.evaluate import Centred
from fastsim.forecast.interface import ModuleForecaster
from fastsim.forecast.known import OWN
from fastsim.forecast.models.chronos2 import Chronos2Model
from fastsim.forecast.models.fitted import FittedModel, LastClose
from fastsim.forecast.models.prior import load_prior
from fastsim.forecast.models.timesfm import TimesFMModel
from fastsim.forecast.networks.return_network import KNOTS as POINTS
from fastsim.forecast.recalibration.recalibrated import (
    KNOTS,
    LevelMap,
    Recalibrated,
    normal_scores,
)
from fastsim.forecast.registry import load_forecaster
from fastsim.forecast.season.divide import Season
from fastsim.forecast.season.profile import KINDS
from fastsim.forecast.season.seasonal import Seasonal
from fastsim.forecast.season.setting import with_season
from fastsim.forecast.tape import forecast_rows
from fastsim.forecast.training.architectures import ARCHITECTURES
from fastsim.forecast.training.config import FitConfig
from fastsim.forecast.training.lesson import lesson_of
from fastsim.forecast.training.loss import scale_of, scaled_quantiles
from fastsim.forecast.training.series import series_of_bars
from fastsim.forecast.training.split import Look, usable_origins
from fastsim.forecast.training.windows import freed, seeded, windows_at
from fastsim.forecast.unpublished import FITS
from fastsim.market.tape import TapeConfig, make_tape

BARS, CONTEXT, HORIZONS = 330, 200, (1, 5)
ROWS, BAR = (299, 304, 305, 312), 304
NEW_YORK = "America/New_York"


def profile(zone="UTC"):
    """A season that was fitted before."""
    return Season(
        zone, 0.5 + torch.rand(KINDS, generator=torch.Generator().manual_seed(1)).double()
    )


SEASONS = {
    "none": lambda: None,
    "UTC": lambda: Season("UTC"),
    NEW_YORK: lambda: Season(NEW_YORK),
    "fitted": lambda: profile(NEW_YORK),
}


def fitted(name):
    """As a fit leaves it: about the last close, under another name."""
    network = load_prior() if name == "fit" else shaken(name)
    made = FittedModel(network, LastClose(), name="mine", reach=8, known_until=None)
    return ModuleForecaster(made)


def with_covariates(name):
    """A network that is told all of them."""
    network = test_covariates.shaken(name)
    made = FittedModel(network, LastClose(), name="mine", reach=8, known_until=None)
    return ModuleForecaster(made)


def corrected():
    weights = 0.05 * torch.randn(INPUTS, POINTS, generator=torch.Generator().manual_seed(2))
    base = load_forecaster("fastsim-prior")
    return Corrected(base, Correction(weights.double()), profile(), name="c", known_until=None)


def recalibrated():
    scores = normal_scores(KNOTS, torch.zeros(0))
    levels = LevelMap(torch.tensor([1, 5]), torch.stack([0.8 * scores, 1.2 * scores]))
    return Recalibrated(load_forecaster("fastsim-prior"), levels, name="r", known_until=None)


def seeded_model(make):
    torch.manual_seed(0)
    return ModuleForecaster(make().eval())


SMALL = {
    **{name: lambda name=name: KEYED[name](None) for name in ("tirex", "tirex2", "toto")},
    "toto2-4m": lambda: KEYED["toto2"](None),
    "chronos2": lambda: seeded_model(lambda: Chronos2Model(test_chronos2.SMALL)),
    "timesfm": lambda: seeded_model(lambda: TimesFMModel(test_timesfm.SMALL)),
    **dict.fromkeys(("kronos-mini", "kronos", "kronos-base"), lambda: KEYED["kronos"](None)),
    **{name: lambda name=name: fitted(name) for name in ("fit", *NETWORKS)},
    "corrected": corrected,
    "recalibrated": recalibrated,
}
"""Small ones of models whose weights are on a hub or in a fit, by name."""
TOGETHER = {
    "ensemble": lambda: Ensemble([load_forecaster("fastsim-prior"), fitted("nhits")]),
    "centred": lambda: Centred(load_forecaster("fastsim-prior")),
    **{f"{name}, covariates": lambda name=name: with_covariates(name) for name in COVARIED},
}
SLOW = ("tirex2",)
"""Whose package takes long to be imported."""
NAMES = [
    pytest.param(record.name, marks=pytest.mark.long) if record.name in SLOW else record.name
    for record in OWN
]


def forecaster_of(name):
    """The forecaster itself where nothing has to be had first, else a small one."""
    record = next((record for record in OWN if record.name == name), None)
    if record is None:
        return TOGETHER[name]()
    if record.weights_files or record in FITS:
        assert name in SMALL, f"{name} is new: give this test a small one of its architecture"
        return SMALL[name]()
    return load_forecaster(name)


def hourly():
    """Bars of every hour of which one asset lists late and one is halted now and then."""
    bars = random_bars(BARS, 3, 4, holes=True)
    stamps = np.datetime64("2024-02-19T00", "ns") + np.arange(BARS) * np.timedelta64(1, "h")
    return replace(bars, timestamps=stamps)


def changed_after(bars, bar):
    """All bars after one are others, and later."""
    rng = np.random.default_rng(bar)
    factor = np.ones((len(bars), 1))
    factor[bar + 1 :, 0] = np.exp(0.1 * rng.normal(size=len(bars) - bar - 1).cumsum())
    stamps = bars.timestamps.copy()
    stamps[bar + 1 :] += np.timedelta64(36, "h")
    others = {name: getattr(bars, name) * factor for name in PRICES}
    return replace(bars, **others, volume=bars.volume * factor**9, timestamps=stamps)


BARS_OF = hourly()


def told(forecaster, bars):
    tape = make_tape(bars, TapeConfig(features=SHORT_FEATURES))
    found = forecast_rows(tape, forecaster, list(ROWS), horizons=HORIZONS, context_length=CONTEXT)
    return found.values


def assert_no_later_bar_counts(forecaster):
    whole = told(forecaster, BARS_OF)
    assert bool(whole.isfinite().all(-1).any(1).all()), "nothing is forecast"
    changed = told(forecaster, changed_after(BARS_OF, BAR))
    before = np.array(ROWS) <= BAR
    assert torch.equal(changed[before].nan_to_num(), whole[before].nan_to_num())
    for row in np.flatnonzero(~before):  # which shows that it would be seen
        assert not torch.equal(changed[row].nan_to_num(), whole[row].nan_to_num())


@pytest.mark.parametrize("name", [*NAMES, *TOGETHER])
def test_no_later_bar_moves_a_forecast_of_any_model_in_its_season(name):
    forecaster = with_season(forecaster_of(name), Season("UTC"))
    assert isinstance(forecaster, Seasonal) or forecaster.season is None or name == "corrected"
    assert_no_later_bar_counts(forecaster)


@pytest.mark.parametrize("season", SEASONS)
@pytest.mark.parametrize("name", ["fastsim-prior", "random-walk-60", "recalibrated"])
def test_no_later_bar_moves_a_forecast_in_any_season(name, season):
    assert_no_later_bar_counts(with_season(forecaster_of(name), SEASONS[season]()))


def network_of(name):
    """A small network of an architecture that can be fitted."""
    if name == "fastsim-prior":
        return load_prior()
    return shaken(name) if name in NETWORKS else SMALL[name]().model


def look_of(model):
    return Look(min(CONTEXT, model.card.max_context), model.card.min_context, HORIZONS)


@pytest.mark.parametrize("season", SEASONS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_no_later_bar_moves_a_window_or_its_scale_and_no_target_an_input(name, season):
    model, around = network_of(name), SEASONS[season]()
    look, horizons = look_of(model), torch.tensor(HORIZONS)

    def windows_of(bars):
        series = series_of_bars(bars.take(slice(None), [0]))
        rows = usable_origins(BARS_OF.close[:, 0], series_of_bars(BARS_OF).stamps[:BARS], look)
        made = windows_at(series, rows[rows >= 290], look)
        return rows[rows >= 290], made if around is None else freed(made, around, HORIZONS)

    def inputs_of(windows):
        with torch.no_grad():
            return scaled_quantiles(model, windows, horizons, torch.device("cpu"))

    rows, whole = windows_of(BARS_OF)
    wanted = inputs_of(whole)
    _, changed = windows_of(changed_after(BARS_OF, BAR))
    found = inputs_of(changed)
    for old, new in zip(
        (*whole.context, scale_of(whole.context.close)[0], *wanted),
        (*changed.context, scale_of(changed.context.close)[0], *found),
        strict=True,
    ):
        early = torch.from_numpy(rows <= BAR)
        assert torch.equal(old[early].nan_to_num(), new[early].nan_to_num())
        assert not torch.equal(old[~early].nan_to_num(), new[~early].nan_to_num())
    known = torch.from_numpy(rows[:, None] + np.array(HORIZONS) <= BAR)
    assert torch.equal(whole.future[:, 0][known], changed.future[:, 0][known])
    assert not torch.equal(whole.future[:, 0][~known], changed.future[:, 0][~known])
    others = inputs_of(whole._replace(future=whole.future * 7.0 + 1.0))
    assert all(torch.equal(one, two) for one, two in zip(wanted, others, strict=True))


@pytest.mark.parametrize("season", ["none", "UTC", NEW_YORK])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_no_bar_of_validation_moves_what_a_fit_draws(name, season):
    model = network_of(name)
    config = FitConfig(
        horizons=HORIZONS,
        context=look_of(model).context,
        season=season,
        batch_size=8,
        validation_windows=30,
    )
    border = int(0.8 * (BARS - 1))  # the last fifth is for validation
    one, two = (
        lesson_of(model.card, bars, None, config, None)
        for bars in (BARS_OF, changed_after(BARS_OF, border))
    )
    for number in range(3):
        drawn = [each.source.draw(8, seeded(0, "", number)) for each in (one, two)]
        for old, new in zip(drawn[0].context, drawn[1].context, strict=True):
            assert torch.equal(old.nan_to_num(), new.nan_to_num())
        assert torch.equal(drawn[0].future.nan_to_num(), drawn[1].future.nan_to_num())
    judged = [each.judge.windows[0].context.close for each in (one, two)]
    assert not torch.equal(judged[0].nan_to_num(), judged[1].nan_to_num())
