"""Networks of our own: what holds for any weights of each, and that each learns and can be kept."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fastsim.errors import ConfigError, ForecastError
from fastsim.forecast.artifacts.export import export, load_artifact
from fastsim.forecast.interface import Context, ModuleForecaster
from fastsim.forecast.models.prior import PriorModel
from fastsim.forecast.networks.lstm_attention import LstmConfig, LstmModel
from fastsim.forecast.networks.nhits import NhitsConfig, NhitsModel
from fastsim.forecast.networks.patch_transformer import (
    PatchTransformerConfig,
    PatchTransformerModel,
)
from fastsim.forecast.networks.return_network import LEVELS
from fastsim.forecast.registry import load_forecaster
from fastsim.forecast.training.config import FitConfig
from fastsim.forecast.training.fit import fit
from fastsim.forecast.training.keep import save_fit
from fastsim.forecast.training.prior_paths import draw_paths
from fastsim.progress import SILENT

NETWORKS = {
    "nhits": (NhitsModel, NhitsConfig(hidden=8)),
    "lstm": (LstmModel, LstmConfig(hidden=8, patch=16)),
    "patch-transformer": (
        PatchTransformerModel,
        PatchTransformerConfig(width=8, hidden=8, layers=2),
    ),
}
SMALL = FitConfig(
    mode="scratch",
    simulated=1.0,
    steps=6,
    evaluate_every=3,
    batch_size=16,
    validation_windows=32,
    warmup=1,
    sure=False,
    horizons=(1, 3),
    futures=2,
)


def shaken(name, seed=0):
    """A network of random weights, all of them large enough to matter."""
    kind, config = NETWORKS[name]
    torch.manual_seed(seed)
    model = kind(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def closes():
    past, _ = draw_paths(9, 512, 1, 1, torch.Generator().manual_seed(3))
    closes = 100.0 * past.double().cumsum(1).exp().float()
    closes[1, :300] = torch.nan
    closes[2, 400:405] = torch.nan
    return closes


@pytest.mark.parametrize("name", NETWORKS)
class TestEach:
    def test_quantiles_increase_for_any_weights(self, name, closes):
        told = shaken(name)(closes, horizon=64)
        assert told.shape == (9, 64, len(LEVELS))
        assert bool(told.isfinite().all()) and bool((told.diff(dim=-1) >= 0).all())

    def test_price_and_unit_of_returns_are_of_no_account(self, name, closes):
        model, rows = shaken(name), closes[3:].double()
        told = model(rows.float(), horizon=21)
        torch.testing.assert_close(model((64.0 * rows).float(), horizon=21), 64.0 * told)
        rows = rows / rows[:, -1:]
        plain = model(rows.float(), horizon=21).double().log()
        scaled = model((3.0 * rows.log()).exp().float(), horizon=21).double().log()
        torch.testing.assert_close(scaled, 3.0 * plain, rtol=2e-3, atol=2e-4)

    def test_a_row_alone_is_its_row_in_the_batch(self, name, closes):
        model = shaken(name)
        alone = torch.cat([model(row[None], horizon=5) for row in closes])
        torch.testing.assert_close(alone, model(closes, horizon=5), rtol=1e-5, atol=0.0)

    def test_padding_changes_nothing_and_every_recent_bar_counts(self, name, closes):
        model, short = shaken(name), closes[3:4, -100:]
        padded = torch.cat([torch.full((1, 50), torch.nan), short], 1)
        assert torch.equal(model(short, horizon=5), model(padded, horizon=5))
        told = model(short, horizon=5)
        for bar in range(1, 100):
            moved = short.clone()
            moved[:, bar] *= 1.05
            assert not torch.equal(model(moved, horizon=5), told), bar

    def test_untrained_it_is_a_gaussian_walk_to_a_few_percent(self, name, closes):
        kind, _ = NETWORKS[name]
        torch.manual_seed(0)
        told = kind()(closes[3:], horizon=21).detach().double()
        prior = PriorModel()
        torch.nn.init.zeros_(prior.head.weight)
        walk = prior(closes[3:], horizon=21).detach().double()
        width = (walk[..., -3] / walk[..., 2]).log()
        torch.testing.assert_close((told[..., -3] / told[..., 2]).log(), width, rtol=0.2, atol=0.0)

    def test_it_learns_is_kept_and_named_by_its_folder(self, name, closes, tmp_path):
        kind, config = NETWORKS[name]
        result = fit(kind(config), None, SMALL, progress=SILENT)
        assert result.report.tried_loss < result.report.start_loss
        save_fit(result, tmp_path / "fit", SMALL)
        loaded = load_forecaster(f"{name}:{tmp_path / 'fit'}")
        assert loaded.model.spread.config == config
        assert loaded.card.known_until is None
        rows = closes[:, :, None].expand(-1, -1, 6)
        context = Context(rows, torch.arange(rows.shape[1]).expand(len(rows), -1))
        found = loaded.forecast(context, 3).quantiles
        assert torch.equal(found, ModuleForecaster(result.model).forecast(context, 3).quantiles)
        other = next(each for each in NETWORKS if each != name)
        with pytest.raises(ForecastError, match=f"holds a fit of {name}, not of {other}"):
            load_forecaster(f"{other}:{tmp_path / 'fit'}")

    def test_it_exports_through_the_gate(self, name, tmp_path):
        past, _ = draw_paths(33, 128, 1, 1, torch.Generator().manual_seed(4))
        closes = 100.0 * past.double().cumsum(1).exp()
        windows = Context(closes[:, :, None].expand(-1, -1, 6), torch.arange(128).expand(33, -1))
        model = shaken(name)
        export(model, tmp_path / "net.pt", windows=windows, horizon=21, precision="float32")
        found = load_artifact(tmp_path / "net.pt").forecast(windows, 21).quantiles
        wanted = ModuleForecaster(model).forecast(windows, 21).quantiles
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=0.0)

    def test_without_a_folder_it_has_no_weights(self, name):
        with pytest.raises(ForecastError, match=f"forecaster '{name}' has no weights before"):
            load_forecaster(name)

    def test_its_file_is_short(self, name):
        module = __import__(NETWORKS[name][0].__module__, fromlist=["x"])
        assert len(Path(module.__file__).read_text().splitlines()) < 250


def test_a_part_of_the_past_that_a_block_explains_is_taken_off():
    """One block by hand: forecasts add up, what was explained is gone, unknown bars stay 0."""
    model = shaken("nhits")
    features = torch.randn(2, 2, 511)
    features[:, :, :7] = 0.0  # unknown
    past, total = features.flip(-1), 0.0
    for block in model.blocks:
        hidden = block.layers(_largest(past, block.pool).flatten(1))
        total = total + _interpolated(block.forecast(hidden).view(2, 14, -1), 8)
        past = past - block.backcast(hidden).view(2, 2, 511)
        past[:, :, -7:] = 0.0
    torch.testing.assert_close(model.raw(features).view(2, 8, 14), total, rtol=1e-4, atol=1e-5)


def _largest(past, pool):
    """The largest of every `pool` places, the last of fewer."""
    return torch.stack([part.amax(-1) for part in past.split(pool, -1)], -1)


def _interpolated(points, size):
    """Linear interpolation between the middles of cells, constant beyond, [B, size, O]."""
    count = points.shape[-1]
    place = ((torch.arange(size) + 0.5) * count / size - 0.5).clamp(0, count - 1)
    low = place.floor().long()
    high = (low + 1).clamp_max(count - 1)
    share = place - low
    return (points[..., low] * (1 - share) + points[..., high] * share).transpose(1, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NhitsConfig(points=(1, 2)), "points must be as many as pools, 3"),
        (lambda: NhitsConfig(pools=(0, 1, 1)), "pools must be counts from 1 up"),
        (lambda: PatchTransformerConfig(heads=3), "width must be a multiple of heads 3, got 64"),
        (lambda: replace(LstmConfig(), dropout=1.0), "dropout must be >= 0 and <= 0.9"),
    ],
)
def test_sizes_that_make_no_network_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
