"""Sample paths: of the law that quantiles are of, each row apart; else refused by name."""

import numpy as np
import pytest
import torch
from forecasters import TinyModel, random_context
from scipy.stats import t as student_t
from test_export import tiny_kronos
from test_keys import TOTO, seeded

from fastsim.errors import ForecastError
from fastsim.forecast.ensemble import Ensemble
from fastsim.forecast.interface import Context, ModuleForecaster
from fastsim.forecast.models.baselines import trailing_random_walk
from fastsim.forecast.models.toto import PATHS, TotoModel
from fastsim.forecast.networks.toto_mixture import Mixture
from fastsim.forecast.paths import forecast_paths
from fastsim.forecast.season.divide import Season
from fastsim.forecast.season.seasonal import Seasonal

CONTEXT = random_context(3, 64)


@pytest.fixture(scope="module")
def toto():
    return ModuleForecaster(seeded(lambda: TotoModel(TOTO)))


def rows(context, *chosen):
    return Context(*(part[list(chosen)] for part in context))


def test_paths_of_kronos_are_what_its_quantiles_are_taken_of():
    forecaster = ModuleForecaster(tiny_kronos())
    paths = forecast_paths(forecaster, CONTEXT, 5)
    assert paths.shape == (3, 16, 5)
    told = forecaster.forecast(CONTEXT, 5)
    wanted = paths.quantile(torch.tensor(told.levels), dim=1).movedim(0, -1)
    torch.testing.assert_close(told.quantiles, wanted)
    more = forecast_paths(forecaster, CONTEXT, 5, paths=20)
    assert torch.equal(more[:, :16], paths)


def test_paths_of_toto_fall_as_often_below_a_quantile_as_its_level_says(toto):
    count = 4000
    told, paths = toto.forecast(CONTEXT, 10), forecast_paths(toto, CONTEXT, 10, paths=count)
    assert paths.shape == (3, count, 10) and paths.dtype == torch.float32
    below = (paths[..., None] < told.quantiles[:, None]).double().mean(1)  # [B, H, Q]
    levels = torch.tensor(told.levels, dtype=torch.float64)
    error = (levels * (1 - levels) / count).sqrt()
    assert float(((below - levels) / error).abs().max()) < 4.5


def test_a_draw_is_of_the_mixture_beyond_its_deciles_too():
    parts = ([0.3, 0.7], [3.0, 8.0], [-1.0, 2.0], [0.5, 1.5])
    mixture = Mixture(*(torch.tensor(part, dtype=torch.float64).expand(1, 1, 2) for part in parts))
    noise = torch.rand(200_000, 1, 3, generator=torch.Generator().manual_seed(0)).double()
    wide = Mixture(*(part.expand(len(noise), 1, 2) for part in mixture))
    drawn = wide.sample(noise).flatten().numpy()
    for value in (-6.0, -1.0, 0.5, 2.0, 6.0, 12.0):
        law = sum(
            weight * student_t.cdf((value - place) / width, freedom)
            for weight, freedom, place, width in zip(*parts, strict=True)
        )
        error = np.sqrt(law * (1 - law) / len(drawn))
        assert abs((drawn < value).mean() - law) < 4.5 * error


def test_patches_to_come_follow_on_what_was_drawn(toto):
    """Paths of the second patch spread more than quantiles that follow on the mean."""
    horizon = 2 * TOTO.patch_size
    told = toto.forecast(CONTEXT, horizon)
    paths = forecast_paths(toto, CONTEXT, horizon, paths=800)
    first = forecast_paths(toto, CONTEXT, TOTO.patch_size, paths=800)
    assert torch.isfinite(paths).all() and first.shape[2] == TOTO.patch_size
    band = paths.quantile(torch.tensor([0.1, 0.9]), dim=1).diff(dim=0)[0][:, TOTO.patch_size :]
    own = (told.at(0.9) - told.at(0.1))[:, TOTO.patch_size :]
    assert float((band / own).mean()) > 1.0


def test_a_row_alone_has_the_paths_of_its_row_in_the_batch(toto):
    for forecaster in (toto, ModuleForecaster(tiny_kronos())):
        together = forecast_paths(forecaster, CONTEXT, 4)
        alone = forecast_paths(forecaster, rows(CONTEXT, 1), 4)
        torch.testing.assert_close(alone[0], together[1], rtol=1e-4, atol=1e-3)
    assert forecast_paths(toto, CONTEXT, 4).shape[1] == PATHS


@pytest.mark.parametrize(
    ("forecaster", "name"),
    [
        (ModuleForecaster(TinyModel()), "tiny"),
        (trailing_random_walk(), "random-walk-60"),
        (Ensemble([trailing_random_walk(), ModuleForecaster(TinyModel())]), "random-walk-60.tiny"),
        (Seasonal(ModuleForecaster(tiny_kronos()), Season("UTC")), "kronos-random, season"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_whoever_has_no_paths_is_refused_by_name(forecaster, name):
    with pytest.raises(ForecastError, match=f"{name} forecasts each bar's quantiles and no paths"):
        forecast_paths(forecaster, CONTEXT, 4)


@pytest.mark.parametrize("paths", [0, -1, 2.5, True])
def test_a_number_of_paths_that_is_none_is_refused(toto, paths):
    with pytest.raises(ForecastError, match="paths must be a whole number from 1 up"):
        forecast_paths(toto, CONTEXT, 4, paths=paths)
    with pytest.raises(ForecastError, match="bars ahead, not 0"):
        forecast_paths(toto, CONTEXT, 0)
