"""Fitting: what it learns and leaves alone, when it keeps its start, that it goes on exactly."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fastsim.agent.artifact import _kept
from fastsim.data.bars import Bars
from fastsim.errors import CheckpointError, ConfigError, DataError, ForecastError
from fastsim.forecast.artifacts.export import export, load_artifact
from fastsim.forecast.digests import fingerprint
from fastsim.forecast.ensemble import Ensemble
from fastsim.forecast.interface import Context, ModuleForecaster
from fastsim.forecast.models.prior import PriorModel, load_prior
from fastsim.forecast.registry import load_forecaster, load_network
from fastsim.forecast.tape import build_forecast_tape
from fastsim.forecast.training.config import FitConfig
from fastsim.forecast.training.fit import fit
from fastsim.forecast.training.folder import load_fit
from fastsim.forecast.training.keep import save_fit
from fastsim.forecast.training.lesson import lesson_of
from fastsim.forecast.training.loop import Loop
from fastsim.forecast.training.prior_paths import draw_paths
from fastsim.forecast.training.series import series_of_bars
from fastsim.market.tape import make_tape
from fastsim.progress import SILENT

SMALL = FitConfig(
    steps=12,
    evaluate_every=4,
    batch_size=16,
    validation_windows=60,
    warmup=2,
    sure=False,
    horizons=(1, 3),
)
LEVELS = torch.tensor(PriorModel.card.levels, dtype=torch.float64)


def bars_of(returns):
    """Daily bars of log returns [T, A]."""
    closes = 100.0 * np.exp(np.cumsum(returns, 0))
    days = np.datetime64("2000-01-03", "ns") + np.arange(len(closes)) * np.timedelta64(1, "D")
    symbols = tuple(f"S{column}" for column in range(closes.shape[1]))
    return Bars(symbols=symbols, timestamps=days.astype("datetime64[ns]"), close=closes)


def planted(bars, assets, seed=0):
    """Returns [T, A] whose volatility is twice as large after a fall, and that volatility."""
    normal = np.random.default_rng(seed).normal(size=(bars, assets))
    sigma = np.ones_like(normal)
    for row in range(1, bars):
        sigma[row] = np.where(normal[row - 1] < 0, 2.0, 1.0)
    return 0.01 * sigma * normal, 0.01 * sigma


@pytest.fixture(scope="module")
def bars():
    return bars_of(planted(420, 3)[0])


@pytest.fixture
def context(bars):
    closes = torch.from_numpy(bars.close.T[:, -200:].copy())
    table = closes[..., None].expand(-1, -1, 6)
    return Context(table, 86_400 * torch.arange(200).expand(len(closes), -1))


@pytest.fixture(autouse=True)
def _few_windows(monkeypatch):
    """What a fit forgets is told by fewer windows, for speed."""
    monkeypatch.setattr("fastsim.forecast.training.comparison.FORGETTING_WINDOWS", 64)


def with_(**changed):
    return replace(SMALL, **changed)


def fitted(bars, config=SMALL, **given):
    return fit(load_prior(), bars, config, progress=SILENT, **given)


def test_the_callers_model_stays_as_it_is(bars):
    model = load_prior()
    before, random = fingerprint(model), torch.get_rng_state()
    result = fit(model, bars, SMALL, progress=SILENT)
    assert fingerprint(model) == before
    assert torch.equal(torch.get_rng_state(), random)
    assert all(not each.requires_grad for each in result.model.parameters())
    assert result.model.spread is not model


@pytest.mark.parametrize("mode", ["full", "head", "scratch"])
def test_each_mode_moves_what_it_says(bars, mode):
    start = load_prior()
    result = fitted(bars, with_(mode=mode))
    moved = {
        name.split(".")[0]
        for name, weight in result.model.spread.named_parameters()
        if not torch.equal(weight, start.get_parameter(name))
    }
    everything = {name.split(".")[0] for name, _ in start.named_parameters()}
    assert moved == ({"head", "skip"} if mode == "head" else everything)


def test_the_median_stays_where_it_was_unless_asked(bars, context):
    closes = context.close.float()
    before = load_prior()(closes, horizon=3)[..., 6].detach()
    for centre, wanted in (("kept", before), ("last", closes[:, -1:].expand(-1, 3))):
        config = with_(centre=centre)
        median = fitted(bars, config).model(closes, horizon=3)[..., 6]
        torch.testing.assert_close(median, wanted, rtol=1e-6, atol=0.0)
    config = with_(centre="fitted", learning_rate=1e-2)
    median = fitted(bars, config).model(closes, horizon=3)[..., 6]
    assert float((median / before - 1.0).abs().max()) > 1e-4


def test_a_fit_that_is_worse_keeps_its_start_and_says_by_how_much():
    past, _ = draw_paths(4, 700, 1, 1, torch.Generator().manual_seed(5))
    noise = bars_of(past.T.double().numpy())  # what the prior knows all of
    config = with_(learning_rate=0.05, sure=True)
    result = fitted(noise, config)
    assert result.report.keeps_start
    assert "worse on validation; loss on validation" in result.report.sentence
    assert result.report.tried_loss > result.report.start_loss == result.report.loss
    wanted = load_prior().state_dict()
    assert all(
        torch.equal(each, wanted[name]) for name, each in result.model.spread.state_dict().items()
    )


def law_loss(bars, config):
    """Loss of the planted law itself on the windows that a fit is judged by, one bar ahead."""
    losses = []
    for windows in lesson_of(PriorModel.card, bars, None, config, None).judge.windows:
        closes = windows.context.close
        unit = load_prior().read(closes).scale.double()
        sigma = torch.where(closes[:, -1] < closes[:, -2], 0.02, 0.01).double()
        quantiles = torch.special.ndtri(LEVELS) * (sigma / unit)[:, None]
        error = (windows.future[:, 0, 0].double() / unit)[:, None] - quantiles
        losses.append(torch.maximum(LEVELS * error, (LEVELS - 1.0) * error).mean(1))
    return float(torch.cat(losses).mean())


def test_a_planted_law_is_learned():
    bars = bars_of(planted(600, 8)[0])
    config = FitConfig(
        horizons=(1,),
        steps=60,
        evaluate_every=20,
        learning_rate=3e-3,
        batch_size=128,
        warmup=10,
        average=0.98,
        validation_windows=3000,
    )
    report, law = fitted(bars, config).report, law_loss(bars, config)
    assert report.start_loss / law > 1.03
    assert report.loss / law < 1.026
    assert not report.keeps_start
    assert report.ratio.high < 1.0
    assert report.forgetting > 0.01
    assert "It has forgotten: on simulated worlds its loss is" in report.sentence


@pytest.mark.long
def test_a_planted_law_is_learned_to_half_a_percent():
    bars = bars_of(planted(8000, 8)[0])
    config = FitConfig(
        horizons=(1,),
        steps=1500,
        evaluate_every=250,
        learning_rate=2e-3,
        batch_size=256,
        patience=20,
    )
    report, law = fitted(bars, config).report, law_loss(bars, config)
    print(report, report.start_loss / law, report.loss / law)
    assert report.loss / law < 1.005
    assert abs(report.coverage - 0.8) < 0.01


def test_modes_that_a_model_does_not_have_are_refused_by_its_name(bars):
    class Still(PriorModel):
        card = replace(PriorModel.card, name="still")
        fit_modes = ()

    with pytest.raises(ConfigError, match="still cannot be fitted"):
        fit(Still(), bars, SMALL, progress=SILENT)
    Still.fit_modes = ("head",)
    with pytest.raises(ConfigError, match="mode of still must be one of head, got 'full'"):
        fit(Still(), bars, SMALL, progress=SILENT)
    with pytest.raises(ConfigError, match="mode must be one of"):
        FitConfig(mode="tree")
    with pytest.raises(ConfigError, match="mode of still must be one of head, got 'volatility'"):
        fit(Still(), bars, replace(SMALL, mode="volatility"), progress=SILENT)


def test_a_fit_from_simulations_alone_has_seen_no_bar():
    config = with_(mode="scratch", simulated=1.0)
    result = fit(PriorModel(), None, config, progress=SILENT)
    assert result.model.card.known_until is None
    assert result.report.forgetting is None
    assert result.report.steps == 12
    again = fit(load_prior(), None, config, progress=SILENT)
    assert fingerprint(result.model) == fingerprint(again.model)


def test_other_series_teach_too_and_end_before_validation(bars):
    others = series_of_bars(bars_of(planted(420, 2, seed=4)[0]))
    config = with_(others=0.5)
    with_others, without = fitted(bars, config, others=others), fitted(bars)
    assert fingerprint(with_others.model) != fingerprint(without.model)
    late = others._replace(stamps=others.stamps + 10**8)
    with pytest.raises(ValueError, match="no window before validation begins"):
        fitted(bars, config, others=late)


def test_what_was_fitted_can_be_fitted_again(bars):
    first = fitted(bars)
    second = fit(first.model, bars, SMALL, progress=SILENT)
    assert second.report.start_loss == pytest.approx(first.report.loss, rel=1e-6)
    centre = second.model.centre.state_dict()
    assert all(torch.equal(each, centre[name]) for name, each in load_prior().state_dict().items())


@pytest.mark.parametrize(
    "changed", [{"amp": "bfloat16"}, {"accumulation": 2}, {"weight_decay": 0.1}]
)
def test_options_of_the_loop_learn_as_well(bars, changed):
    result = fitted(bars, with_(**changed))
    assert fingerprint(result.model) != fingerprint(fitted(bars).model)
    assert result.report.tried_loss == pytest.approx(fitted(bars).report.tried_loss, rel=0.01)


class StoppedError(Exception):
    """As if the process were killed."""


@pytest.mark.parametrize("stop", [1, 4, 6, 11])
def test_a_fit_that_was_stopped_ends_with_the_same_bits(bars, tmp_path, monkeypatch, stop, threads):
    threads(1)
    whole = fitted(bars, name="x")
    learn = Loop.learn

    def stopping(loop, batches):
        if loop.step == stop:
            raise StoppedError
        return learn(loop, batches)

    monkeypatch.setattr(Loop, "learn", stopping)
    with pytest.raises(StoppedError):
        fitted(bars, name="x", folder=tmp_path)
    monkeypatch.setattr(Loop, "learn", learn)
    resumed = fitted(bars, name="x", folder=tmp_path)
    assert fingerprint(resumed.model) == fingerprint(whole.model)
    assert resumed.report == whole.report


def test_a_folder_of_another_fit_is_refused(bars, tmp_path):
    fitted(bars, folder=tmp_path)
    with pytest.raises(CheckpointError, match="of another fit"):
        fitted(bars, with_(seed=1), folder=tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(b"?")
    with pytest.raises(CheckpointError, match="damaged or not a checkpoint"):
        fitted(bars, folder=tmp_path)


KILLS = 10
KILLED = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
from test_fit import SMALL, bars_of, fitted, planted
from fastsim.forecast.training.config import FitConfig
from fastsim.forecast.training.keep import save_fit
from fastsim.forecast.training.lesson import lesson_of
from fastsim.forecast.digests import fingerprint
config = FitConfig(horizons=(1, 3), steps=60, evaluate_every=5, batch_size=16,
                   validation_windows=60, warmup=2, sure=False)
folder = Path(sys.argv[1])
result = fitted(bars_of(planted(420, 3)[0]), config, name="x", folder=folder)
save_fit(result, folder, config)
"""


@pytest.mark.long
def test_a_fit_that_is_killed_at_ten_moments_ends_with_the_same_bits(tmp_path):
    code = KILLED.format(tests=str(Path(__file__).parent))

    def run(folder, seconds=None):
        process = subprocess.Popen([sys.executable, "-c", code, str(folder)])
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            return process.wait()

    def same(folder):
        found = load_file(folder / "model.safetensors")
        return all(torch.equal(wanted[name], found[name]) for name in wanted)

    began = time.monotonic()
    assert run(tmp_path / "whole") == 0
    took, rng = time.monotonic() - began, np.random.default_rng(2)
    wanted = load_file(tmp_path / "whole" / "model.safetensors")
    killed, ended = 0, 0
    while killed < KILLS:
        if run(tmp_path / str(ended), float(rng.uniform(0.4, 1.0)) * took) == 0:
            assert same(tmp_path / str(ended))
            ended += 1
        else:
            killed += 1
    if not (tmp_path / str(ended) / "fit.json").exists():  # killed before it was whole
        assert run(tmp_path / str(ended)) == 0
    assert same(tmp_path / str(ended))


@pytest.fixture(scope="module")
def kept(bars, tmp_path_factory):
    """A fit in its folder."""
    folder = tmp_path_factory.mktemp("fits") / "mine"
    result = fitted(bars, name="mine", folder=folder)
    save_fit(result, folder, SMALL, source="planted")
    return folder, result


def test_a_folder_gives_the_model_back(kept, context):
    folder, result = kept
    assert {path.name for path in folder.iterdir()} == {
        "fit.json",
        "model.safetensors",
        "tensorboard",
    }
    loaded = load_fit(folder)
    closes = context.close.float()
    assert torch.equal(loaded(closes, horizon=3), result.model(closes, horizon=3))
    assert ModuleForecaster(loaded).key == ModuleForecaster(result.model).key
    about = json.loads((folder / "fit.json").read_text())
    assert about["known_until"] == "2001-02-25"  # the last of the bars, which judged it
    assert (
        about["network"] == "fastsim-prior" and about["centre"] == "kept" and about["trials"] == 1
    )
    assert about["report"]["loss"] == result.report.loss
    assert load_forecaster(f"fit:{folder}").card.max_horizon == 3


def test_keys_of_fits_differ_by_weights_and_centre(bars, kept):
    keys = {ModuleForecaster(kept[1].model).key, ModuleForecaster(load_prior()).key}
    for changed in ({"centre": "last"}, {"seed": 1}, {"mode": "head"}):
        config = with_(**changed)
        keys.add(ModuleForecaster(fitted(bars, config, name="mine").model).key)
    assert len(keys) == 5


def test_a_fit_is_a_forecaster_like_others(bars, kept, tmp_path):
    folder, _ = kept
    both = Ensemble([load_forecaster(f"fit:{folder}"), load_forecaster("fastsim-prior")])
    market = make_tape(bars.take(slice(280, 420)))
    told = build_forecast_tape(market, both, tmp_path, horizons=(1, 3), progress=SILENT)
    assert bool(told.values[-1].isfinite().all())


def test_a_fit_exports_through_the_gate(bars, kept, tmp_path):
    folder, _ = kept
    closes = torch.from_numpy(bars.close.T.copy()).unfold(1, 128, 9).flatten(0, 1)
    table = closes[:, :, None].expand(-1, -1, 6)
    windows = Context(table, 86_400 * torch.arange(128).expand(len(closes), -1))
    for centre in ("kept", "last"):
        model = load_network(f"fit:{folder}")
        if centre == "last":
            model = fitted(bars, with_(centre="last")).model
        path = tmp_path / f"{centre}.pt"
        export(model, path, windows=windows, horizon=3, precision="float32")
        short = Context(windows.bars[:, -90:], windows.timestamps[:, -90:])
        found = load_artifact(path).forecast(short, 3).quantiles
        wanted = ModuleForecaster(model).forecast(short, 3).quantiles
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "fit.json").unlink(), "no fit.json here"),
        (lambda folder: (folder / "fit.json").write_text("{}"), "no fit of format 1"),
        (lambda folder: (folder / "fit.json").write_text('{"format": 1}'), "damaged .KeyError"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"?"), "damaged"),
    ],
)
def test_a_damaged_folder_is_refused_in_one_line(bars, tmp_path, damage, message):
    save_fit(fitted(bars), tmp_path / "fit", SMALL)
    damage(tmp_path / "fit")
    with pytest.raises(ForecastError, match=message):
        load_forecaster(f"fit:{tmp_path / 'fit'}")


def test_a_fit_without_a_folder_is_refused():
    with pytest.raises(ForecastError, match="name the folder"):
        load_forecaster("fit")


def test_a_fit_travels_with_an_agent_under_the_same_key(bars, tmp_path):
    save_fit(fitted(bars, name="mine"), tmp_path / "mine", SMALL)
    key = load_forecaster(f"fit:{tmp_path / 'mine'}").key
    kept = _kept(f"fit:{tmp_path / 'mine'}", tmp_path / "agent")
    shutil.rmtree(tmp_path / "mine")
    assert kept == "fit:forecaster/mine"
    moved = load_forecaster(f"fit:{tmp_path / 'agent' / 'forecaster' / 'mine'}")
    assert moved.key == key
    save_fit(fitted(bars, with_(seed=1), name="mine"), tmp_path / "mine", SMALL)
    assert load_forecaster(f"fit:{tmp_path / 'mine'}").key != key  # which the agent refuses


def test_halts_late_listings_and_an_asset_that_never_moves_are_no_hindrance(bars):
    closes = np.concatenate([bars.close, bars.close[:, :1]], 1)
    closes[:, 3] = 50.0
    closes[:250, 1] = np.nan
    closes[100:140, 2] = np.nan
    odd = replace(bars, symbols=("A", "B", "C", "D"), close=closes)
    report = fitted(odd).report
    assert np.isfinite([report.start_loss, report.tried_loss, report.forgetting or 0.0]).all()
    still = replace(bars, symbols=("D",), close=closes[:, 3:])
    with pytest.raises(DataError, match="no window for train"):
        fitted(still)
