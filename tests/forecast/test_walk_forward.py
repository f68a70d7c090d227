"""Fits that walk forward know nothing of what they are asked about, and begin as they are told."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fastsim.data.sample import sample_bars
from fastsim.errors import ConfigError, DataError, ForecastError
from fastsim.forecast.digests import fingerprint
from fastsim.forecast.evaluate import rolling_windows
from fastsim.forecast.models.prior import load_prior
from fastsim.forecast.networks.nhits import NhitsConfig, NhitsModel
from fastsim.forecast.scoring.windows import history_of, past_of
from fastsim.forecast.training.config import FitConfig, SplitConfig
from fastsim.forecast.training.fit import fit
from fastsim.forecast.training.folder import load_start
from fastsim.forecast.training.keep import Base, save_fit
from fastsim.forecast.training.lora import LoraConfig
from fastsim.forecast.training.walk_forward import RefitConfig, refit_rows, walk_forward

HORIZONS = (1, 5)
ROWS = [500, 760]
FEW = FitConfig(
    mode="head",
    horizons=HORIZONS,
    context=128,
    steps=3,
    evaluate_every=3,
    batch_size=16,
    validation_windows=60,
    sure=False,
    learning_rate=0.01,
    warmup=0,
    average=0.0,
)


@pytest.fixture(scope="module")
def bars():
    return sample_bars("tech4").take(slice(0, 860), [0, 2])


def poor_prior():
    """fastsim-prior with a last layer that any fit betters."""
    model = load_prior()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name in model.head_names:
            for weight in model.get_submodule(name).parameters():
                weight.add_(0.3 * torch.randn(weight.shape, generator=draw))
    return model


def changed(bars, row):
    """The same with other prices after a row."""
    close = bars.close.copy()
    close[row + 1 :] *= np.exp(
        0.03 * np.random.default_rng(0).standard_normal(close[row + 1 :].shape).cumsum(0)
    )
    return replace(bars, close=close, open=None, high=None, low=None, adj_close=None)


@pytest.fixture(scope="module")
def closes(bars):
    """The bars of closes alone, so that a change of closes is all that changes."""
    return replace(bars, open=None, high=None, low=None, adj_close=None)


@pytest.fixture(scope="module")
def warm(closes):
    return walk_forward(poor_prior(), closes, ROWS, FEW)


def weights_of(walked):
    return [fingerprint(each.forecaster.model) for each in walked.fits]


def test_bars_after_a_fit_change_neither_it_nor_any_score_before(closes, warm):
    origins = [500, 508, 515, 518, 620, 755, 765, 820]
    altered = changed(closes, 760)
    again = walk_forward(poor_prior(), altered, ROWS, FEW)
    assert weights_of(again) == weights_of(warm)
    earlier = changed(closes, 520)
    later = walk_forward(poor_prior(), earlier, ROWS, FEW)
    assert weights_of(later)[0] == weights_of(warm)[0]
    assert weights_of(later)[1] != weights_of(warm)[1]
    one, two = (
        rolling_windows(each, walked, HORIZONS, origins, 128, levels=(0.1, 0.5, 0.9))
        for each, walked in ((closes, warm), (earlier, later))
    )
    known = torch.tensor([origins[place] + 5 <= 520 for place in one.origin])
    assert 0 < int(known.sum()) < len(known)
    for first, second in zip(one, two, strict=True):
        assert torch.equal(first[known], second[known])
    assert not torch.equal(one.quantiles[~known], two.quantiles[~known])


def test_each_origin_is_forecast_by_the_latest_fit_that_does_not_know_more(closes, warm):
    history = history_of(closes)
    for row, place in ((500, 0), (759, 0), (760, 1), (850, 1)):
        context = past_of(history, row, 128)
        told = warm.forecast(context, 5).quantiles
        wanted = warm.fits[place].forecaster.forecast(context, 5).quantiles
        assert torch.equal(told, wanted)
        other = warm.fits[1 - place].forecaster.forecast(context, 5).quantiles
        assert not torch.equal(told, other)
    early = past_of(history, 499, 128)
    assert not warm.can_forecast(early).any() and warm.can_forecast(context).all()
    with pytest.raises(ForecastError, match=r"first fitted to the bars until 20.*later bars"):
        warm.forecast(early, 5)


def test_warm_begins_with_the_fit_before_and_scratch_with_the_start(closes, warm):
    cold = walk_forward(poor_prior(), closes, ROWS, FEW, how="scratch")
    assert weights_of(cold)[0] == weights_of(warm)[0]
    assert weights_of(cold)[1] != weights_of(warm)[1]
    known = closes.take(slice(0, ROWS[1] + 1))
    by_hand = fit(poor_prior(), known, FEW, name="x").model
    assert fingerprint(by_hand) == weights_of(cold)[1]
    first = fit(poor_prior(), closes.take(slice(0, ROWS[0] + 1)), FEW, name="x").model
    assert fingerprint(fit(first, known, FEW, name="x").model) == weights_of(warm)[1]


def test_its_card_has_seen_what_its_start_has_and_its_key_tells_fits_apart(closes, warm):
    assert warm.card.known_until is None and warm.card.name == "fastsim-prior, refitted"
    assert warm.card.known_source.startswith(
        "trained on simulated paths only; fitted anew, to bars"
    )
    other = walk_forward(poor_prior(), closes, ROWS, replace(FEW, seed=1))
    assert other.key != warm.key
    prior = load_prior()
    prior.card = replace(prior.card, known_until="2001-02-03")
    assert walk_forward(prior, closes, ROWS[:1], FEW).card.known_until == "2001-02-03"


def test_warm_fits_from_scratch_go_on_as_whole_ones(closes):
    network = NhitsModel(NhitsConfig(hidden=8))
    config = replace(FEW, mode="scratch")
    walked = walk_forward(network, closes, ROWS, config)
    first = fit(network, closes.take(slice(0, ROWS[0] + 1)), config, name="x").model
    known = closes.take(slice(0, ROWS[1] + 1))
    second = fit(first, known, replace(config, mode="full"), name="x").model
    assert weights_of(walked) == [fingerprint(first), fingerprint(second)]
    assert walked.card.known_until is None


def test_rows_of_fits_are_evenly_apart():
    assert refit_rows(99, 400, 100) == [99, 199, 299, 399]
    assert refit_rows(5, 5, 7) == [5]


def test_the_first_fit_knows_the_bars_before_a_day_or_half_of_them(bars):
    assert RefitConfig(refit_every=50).first_row(bars) == 429
    day = str(bars.timestamps[700])[:10]
    assert RefitConfig(refit_every=50, refit_from=day).first_row(bars) == 699
    for day in ("1999-01-01", "2030-01-01"):
        with pytest.raises(DataError, match="after the first bar, 2004-08-19"):
            RefitConfig(refit_every=50, refit_from=day).first_row(bars)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (replace(FEW, split=SplitConfig(validation_start="2006-01-01")), "validation_start must"),
        (replace(FEW, mode="lora", lora=LoraConfig()), "refit must be scratch for .*lora"),
    ],
)
def test_fits_that_cannot_be_done_again_are_refused(closes, config, told):
    with pytest.raises(ConfigError, match=told):
        walk_forward(poor_prior(), closes, ROWS, config)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"refit_every": 0}, "refit_every must be >= 1"),
        ({"refit_from": "2010-01-01"}, "refit_every must be given with refit_from"),
        ({"refit_every": 5, "refit_from": "soon"}, "refit_from must be an ISO date"),
        ({"refit_every": 5, "refit": "cold"}, "refit must be"),
    ],
)
def test_settings_that_cannot_be_are_refused(given, told):
    with pytest.raises(ConfigError, match=told):
        RefitConfig(**given)


def test_a_fit_that_is_kept_says_what_it_began_with(closes, tmp_path):
    known = closes.take(slice(0, 701))
    save_fit(fit(load_prior(), known, FEW, name="x"), tmp_path / "head", FEW)
    start = load_start(tmp_path / "head")
    assert start.config == FEW
    assert fingerprint(start.model) == fingerprint(load_prior())
    network, config = NhitsModel(NhitsConfig(hidden=8)), replace(FEW, mode="scratch")
    made = fit(network, known, config, name="y")
    save_fit(made, tmp_path / "made", config)
    start = load_start(tmp_path / "made")
    assert isinstance(start.model, NhitsModel) and start.model.config == network.config
    again = fit(made.model, known, replace(FEW, mode="full"), name="z")
    base = Base(tmp_path / "made")
    save_fit(again, tmp_path / "again", replace(FEW, mode="full"), base=base)
    with pytest.raises(ForecastError, match="not at hand to begin with again: name that"):
        load_start(tmp_path / "again")
    with pytest.raises(ForecastError, match=r"no fit\.json here"):
        load_start(tmp_path / "nothing")
