"""Bands that are off are set right by validation, those within chance stay as they are."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fastsim.agent.artifact import _kept
from fastsim.cli import main
from fastsim.data.bars import Bars
from fastsim.data.read import write_bars
from fastsim.errors import ConfigError, DataError, ForecastError
from fastsim.forecast.evaluate import DECILES, relative, rolling_origins
from fastsim.forecast.interface import Context, Forecast, ModelCard
from fastsim.forecast.models import prior
from fastsim.forecast.models.baselines import trailing_random_walk
from fastsim.forecast.recalibration.fit import fit_recalibration
from fastsim.forecast.recalibration.folder import save_recalibration
from fastsim.forecast.recalibration.recalibrated import (
    KNOTS,
    LevelMap,
    Recalibrated,
    mapped,
    normal_scores,
    read_at,
    scores_of,
)
from fastsim.forecast.registry import load_ensemble, load_forecaster
from fastsim.forecast.season.divide import Season
from fastsim.forecast.season.seasonal import Seasonal
from fastsim.forecast.skill import realised, rises
from fastsim.forecast.tape import forecast_rows
from fastsim.forecast.training.config import SplitConfig
from fastsim.market.tape import make_tape
from fastsim.stats.reliability import reliability

DAY = np.timedelta64(1, "D")
HORIZONS, CONTEXT, SEEN = (1, 5), 20, 2000
WALK = trailing_random_walk(60)
WIDE_LEVELS = (0.01, 0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975, 0.99)
SHIPPED = Path(prior.__file__).parent / "weights" / "prior.safetensors"


def bars_of(returns, step=DAY):
    closes = 100.0 * np.exp(np.cumsum(returns, 0))
    stamps = np.datetime64("2000-01-03", "ns") + np.arange(len(closes)) * step
    return Bars(
        symbols=tuple(f"S{n}" for n in range(closes.shape[1])), timestamps=stamps, close=closes
    )


class Gaussian:
    """A driftless Gaussian walk of one volatility, told by horizon; it may lean with the last."""

    def __init__(self, volatility, *, levels=DECILES, lean=0.0, over=None):
        self.volatility, self.levels, self.lean = volatility, levels, lean
        self.over = over or {}
        self.key = f"gaussian {volatility} {lean} {over}"
        self.card = ModelCard(
            name="gaussian",
            licence="",
            parameters=0,
            max_context=512,
            max_horizon=64,
            levels=levels,
            known_until=None,
        )

    def forecast(self, context, horizon):
        bars = torch.arange(1, horizon + 1).double()[:, None]
        sizes = torch.tensor([self.over.get(int(bar), 1.0) for bar in bars])[:, None]
        normal = torch.special.ndtri(torch.tensor(self.levels, dtype=torch.float64))
        close = context.close.double()
        lean = self.lean * (close[:, -1] / close[:, -2]).log()
        spread = lean[:, None, None] + self.volatility * sizes * bars.sqrt() * normal
        return Forecast((close[:, -1, None, None] * spread.exp()).float(), self.levels)


def normal_returns(seed=0, bars=3000, assets=8):
    return 0.01 * np.random.default_rng(seed).normal(size=(bars, assets))


def fitted(forecaster, returns, **given):
    bars = bars_of(returns)
    found = fit_recalibration(
        forecaster,
        bars.take(slice(0, SEEN)),
        horizons=HORIZONS,
        context=CONTEXT,
        split=SplitConfig(validation=0.5),
        **given,
    )
    return found, bars


def coverage(forecaster, bars, horizons=HORIZONS):
    """Shares in the 80 % band on bars that no fit has seen, by horizon."""
    origins = np.arange(SEEN, len(bars) - max(horizons), 3)
    scores = rolling_origins(bars, forecaster, horizons, origins, CONTEXT)
    return scores, scores.covered[..., 1].mean(0).tolist()


@pytest.mark.parametrize("volatility", [0.006, 0.0085, 0.015])
@pytest.mark.parametrize("levels", [DECILES, WIDE_LEVELS])
def test_bands_that_are_off_hold_what_they_say_on_bars_to_come(volatility, levels):
    forecaster = Gaussian(volatility, levels=levels)
    fit, bars = fitted(forecaster, normal_returns())
    before, was = coverage(forecaster, bars)
    after, held = coverage(fit.recalibrated, bars)
    assert fit.kept and all(each.off for each in fit.bands)
    assert not any(0.78 <= share <= 0.83 for share in was)
    assert all(0.78 <= share <= 0.83 for share in held)
    assert relative(after, before).high < 1.0
    for each in fit.bands:
        assert each.factors == pytest.approx((0.01 / volatility,) * 2, rel=0.08)


def test_a_law_with_fat_tails_and_one_that_leans_are_covered_too():
    rng = np.random.default_rng(4)
    fat = 0.01 * rng.standard_t(3, size=(3000, 8))
    skewed = 0.01 * (rng.exponential(size=(3000, 8)) - np.log(2.0))  # median 0
    for returns in (fat, skewed):
        fit, bars = fitted(Gaussian(0.02), returns)
        _, held = coverage(fit.recalibrated, bars)
        assert all(0.78 <= share <= 0.83 for share in held)
    below, above = fit.bands[0].factors
    assert above > 1.5 * below


def test_bands_within_chance_are_left_as_they_are_to_the_bit():
    kept = 0
    for seed in range(12):
        forecaster = Gaussian(0.01, levels=WIDE_LEVELS)
        fit, bars = fitted(forecaster, normal_returns(seed, bars=SEEN))
        kept += fit.kept
        if not fit.kept:
            assert [each.factors for each in fit.bands] == [(1.0, 1.0)] * 2
            closes = torch.from_numpy(bars.close.T[:, -30:].copy())
            context = context_of(closes)
            one, other = (
                each.forecast(context, 9).quantiles for each in (fit.recalibrated, forecaster)
            )
            assert torch.equal(one, other)
    assert kept <= 2  # 0.6 are to be expected


def test_a_horizon_that_is_right_is_left_alone_beside_one_that_is_not():
    forecaster = Gaussian(0.01, over={5: 0.6})
    fit, bars = fitted(forecaster, normal_returns(2))
    assert [each.off for each in fit.bands] == [False, True]
    context = context_of(torch.from_numpy(bars.close.T[:, -30:].copy()))
    one, other = (each.forecast(context, 5).quantiles for each in (fit.recalibrated, forecaster))
    assert torch.equal(one[:, 0], other[:, 0])
    assert bool((one[:, 4, -1] > other[:, 4, -1]).all())
    assert torch.equal(one[:, 4, 4], other[:, 4, 4]) or torch.allclose(
        one[:, 4, 4], other[:, 4, 4], rtol=1e-6
    )


def test_probabilities_of_a_rise_that_are_too_sure_become_reliable():
    """The next bar is the last one's tenth, and noise; the forecaster knows half of the noise."""
    noise = normal_returns(6)
    returns = noise.copy()
    for row in range(1, len(returns)):
        returns[row] = 0.5 * returns[row - 1] + noise[row]
    forecaster = Gaussian(0.004, lean=0.5)
    fit, bars = fitted(forecaster, returns)
    tape = make_tape(bars)
    rows = np.arange(SEEN, 2990, 2)
    came, found = realised(tape, rows, 1), []
    for each in (forecaster, fit.recalibrated):
        told = forecast_rows(tape, each, rows.tolist(), horizons=(1,), context_length=CONTEXT)
        found.append(reliability(*rises(told, came, 1)))
    sure, right = found
    assert right.brier < sure.brier and right.reliability < 0.25 * sure.reliability


def context_of(closes):
    stamps = 86_400 * torch.arange(closes.shape[1])
    return Context(closes[..., None].expand(-1, -1, 6), stamps.expand(len(closes), -1))


def test_later_bars_move_no_map_and_no_forecast():
    returns = normal_returns(3)
    fit, _ = fitted(Gaussian(0.006), returns)
    later = returns.copy()
    later[SEEN:] *= 3.0
    again, _ = fitted(Gaussian(0.006), later)
    assert again.recalibrated.key == fit.recalibrated.key
    earlier = returns.copy()
    earlier[: SEEN // 2 - CONTEXT - 5] *= 3.0  # which no window of validation looks back on
    again, _ = fitted(Gaussian(0.006), earlier)
    one, other = (each.recalibrated.levels.maps for each in (again, fit))
    torch.testing.assert_close(one, other, rtol=1e-3, atol=0.0)  # prices of another size round
    told = []
    for scale in (1.0, 2.0):
        moved = returns.copy()
        moved[2500:] *= scale
        tape = make_tape(bars_of(moved))
        rows = list(range(2480, 2500))
        told.append(
            forecast_rows(tape, fit.recalibrated, rows, horizons=(5,), context_length=CONTEXT)
        )
    assert torch.equal(told[0].values, told[1].values)


def test_reading_at_other_levels_is_what_a_normal_law_of_another_width_says():
    context = context_of(100.0 * torch.rand(4, 30, generator=torch.Generator().manual_seed(0)) + 1)
    scores = normal_scores(KNOTS, torch.zeros(0))
    map_ = LevelMap(torch.tensor([1]), (scores * torch.where(scores < 0, 0.5, 2.0))[None])
    wide = Recalibrated(Gaussian(0.01), map_, name="wide", known_until=None)
    told = wide.forecast(context, 3).quantiles
    for side, factor in ((slice(0, 5), 0.5), (slice(4, 9), 2.0)):
        wanted = Gaussian(0.01 * factor).forecast(context, 3).quantiles
        torch.testing.assert_close(told[..., side], wanted[..., side], rtol=1e-6, atol=0.0)


def test_scores_undo_what_is_read_at_them():
    generator = torch.Generator().manual_seed(1)
    returns = torch.rand(50, 2, 9, generator=generator, dtype=torch.float64).cumsum(-1)
    levels = normal_scores(DECILES, returns)
    wanted = torch.randn(2, 9, generator=generator, dtype=torch.float64).sort(-1).values * 2
    outcome = read_at(returns, levels, wanted)
    for place in range(9):
        found = scores_of(returns, levels, outcome[..., place])
        torch.testing.assert_close(found, wanted[:, place].expand(50, -1))
    still = torch.zeros(1, 2, 9, dtype=torch.float64)
    assert bool(scores_of(still, levels, torch.zeros(1, 2).double()).isnan().all())


def test_between_horizons_a_map_changes_with_the_root_and_beyond_its_levels_in_proportion():
    scores = normal_scores(KNOTS, torch.zeros(0))
    map_ = LevelMap(torch.tensor([1, 9]), torch.stack([scores, 3.0 * scores]))
    found = map_(16) / scores
    assert bool((found[0, scores != 0] == 1.0).all())
    for bars, factor in ((4, 2.0), (9, 3.0), (16, 3.0)):
        torch.testing.assert_close(map_(16)[bars - 1], factor * scores)
    asked = torch.tensor([-4.0, -0.3, 0.0, 1.0, 5.0], dtype=torch.float64)
    torch.testing.assert_close(mapped(asked, map_(9)[[0, 8]]), torch.stack([asked, 3.0 * asked]))
    one = LevelMap(torch.tensor([5]), 2.0 * scores[None])(3)
    torch.testing.assert_close(one, 2.0 * scores.expand(3, -1))


def test_intraday_bars_have_the_season_that_they_were_fitted_with(tmp_path):
    rng, hours = np.random.default_rng(0), 24 * 90
    sizes = np.tile(np.where(np.arange(24) % 6 == 0, 0.004, 0.001), 90)[:, None]
    bars = bars_of(rng.normal(size=(hours, 3)) * sizes, np.timedelta64(1, "h"))
    season = Season("UTC")
    fit = fit_recalibration(WALK, bars, horizons=(1, 4), season=season, context=300)
    assert isinstance(fit.recalibrated.forecaster, Seasonal)
    assert fit.recalibrated.season is season
    save_recalibration(fit, tmp_path / "mine", base="random-walk-60", path=None, source="")
    kept = load_forecaster(f"recalibrated:{tmp_path / 'mine'}")
    assert kept.key == fit.recalibrated.key and kept.season.zone == "UTC"


@pytest.fixture(scope="module")
def made():
    return fitted(WALK, 0.01 * np.random.default_rng(4).standard_t(3, size=(SEEN, 4)))[0]


def test_what_was_fitted_is_kept_in_a_folder(made, tmp_path):
    assert made.kept
    folder = tmp_path / "mine"
    save_recalibration(made, folder, base="random-walk-60", path=None, source="here")
    kept = load_forecaster(f"recalibrated:{folder}")
    assert kept.key == made.recalibrated.key != WALK.key
    context = context_of(torch.from_numpy(np.exp(normal_returns(1, 100, 3).cumsum(0)).T.copy()))
    one, other = (each.forecast(context, 5).quantiles for each in (kept, made.recalibrated))
    assert torch.equal(one, other)
    changed = Recalibrated(
        WALK,
        LevelMap(torch.tensor(HORIZONS), 1.01 * made.recalibrated.levels.maps),
        name=kept.card.name,
        known_until=kept.card.known_until,
    )
    assert changed.key != kept.key
    with pytest.raises(ConfigError, match="holds a recalibration already"):
        save_recalibration(made, folder, base="random-walk-60", path=None, source="here")
    about = json.loads((folder / "recalibration.json").read_text())
    assert about["bands"][0]["off"] and about["kept"]
    for change, wrong in (
        ({"base": "random-walk-ewma-0.94"}, "fit it anew"),
        ({"format": 7}, "format 1"),
        ({"zone": 3}, "damaged"),
    ):
        (folder / "recalibration.json").write_text(json.dumps(about | change))
        with pytest.raises(ForecastError, match=wrong):
            load_forecaster(f"recalibrated:{folder}")
    with pytest.raises(ForecastError, match=r"no recalibration\.json here"):
        load_forecaster(f"recalibrated:{tmp_path}")
    with pytest.raises(ForecastError, match="is of a folder"):
        load_forecaster("recalibrated")


def test_it_has_seen_its_bars_and_what_it_began_with_has(made):
    assert made.recalibrated.card.known_until == "2005-06-24"
    assert WALK.card.known_until is None


def test_weights_from_a_path_travel_with_it_and_into_an_agent(tmp_path):
    weights = tmp_path / "prior.safetensors"
    weights.write_bytes(SHIPPED.read_bytes())
    bars = bars_of(normal_returns(1, 500, 2))
    write_bars(bars, tmp_path / "bars.parquet")
    flags = ["--mode", "bands", "--data.source", str(tmp_path / "bars.parquet"), "--horizons", "1"]
    main(["forecast", "fit", f"fastsim-prior:{weights}", *flags, "--out", str(tmp_path / "mine")])
    key = load_forecaster(f"recalibrated:{tmp_path / 'mine'}").key
    weights.unlink()
    assert _kept(f"recalibrated:{tmp_path / 'mine'}", tmp_path / "agent") == (
        "recalibrated:forecaster/mine"
    )
    shutil.rmtree(tmp_path / "mine")
    assert load_forecaster(f"recalibrated:{tmp_path / 'agent' / 'forecaster' / 'mine'}").key == key


def test_the_command_says_what_it_changed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_bars(bars_of(normal_returns(1, 1500, 4)), tmp_path / "bars.parquet")
    flags = ["--data.source", "bars.parquet", "--mode", "bands", "--horizons", "1", "5"]
    main(["forecast", "fit", "random-walk-60", *flags])
    told = " ".join(capsys.readouterr().out.split())
    assert "windows of validation" in told and "5 bars ahead: 80 % band held" in told
    assert "name it recalibrated:fits/random-walk-60-bands-bars" in told
    for extra, wrong in (
        (["--steps", "5", "--out", "other"], "--steps is not of mode bands: leave it out"),
        ([], "holds a recalibration already"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(["forecast", "fit", "random-walk-60", *flags, *extra])
        assert wrong in capsys.readouterr().err


def test_too_few_bars_and_a_single_quantile_are_one_clear_line():
    with pytest.raises(DataError, match="no window for"):
        fit_recalibration(WALK, bars_of(normal_returns(1, 40, 2)), horizons=(1, 5))
    with pytest.raises(DataError, match="validation has"):
        fit_recalibration(
            WALK,
            bars_of(normal_returns(1, 200, 2)),
            horizons=(1, 21),
            split=SplitConfig(validation=0.3),
        )
    single = Gaussian(0.01)
    single.card = replace(single.card, levels=(0.5,))
    with pytest.raises(ForecastError, match="gaussian tells one quantile: it has no bands"):
        Recalibrated(
            single, LevelMap(torch.tensor([1]), torch.zeros(1, 11)), name="", known_until=None
        )


def test_bands_of_a_fit_are_set_right_and_the_fit_travels_with_them(tmp_path, monkeypatch):
    monkeypatch.setattr("fastsim.forecast.training.comparison.FORGETTING_WINDOWS", 64)
    write_bars(bars_of(normal_returns(1, 500, 2)), tmp_path / "bars.parquet")
    flags = ["--data.source", str(tmp_path / "bars.parquet"), "--horizons", "1", "3"]
    few = ["--steps", "4", "--evaluate-every", "2", "--batch-size", "8", "--no-sure"]
    mine, bands = tmp_path / "mine", tmp_path / "bands"
    main(["forecast", "fit", "fastsim-prior", *flags, *few, "--mode", "head", "--out", str(mine)])
    main(["forecast", "fit", f"fit:{mine}", *flags, "--mode", "bands", "--out", str(bands)])
    both = load_ensemble([f"recalibrated:{bands}", "random-walk-60"])
    key = both.key
    shutil.rmtree(mine)
    bands.rename(tmp_path / "moved")
    moved = load_ensemble([f"recalibrated:{tmp_path / 'moved'}", "random-walk-60"])
    assert moved.key == key and moved.members[0].forecaster.card.name == "mine"
