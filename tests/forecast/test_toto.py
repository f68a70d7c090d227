"""Toto Open Base 1.0: ours is the official network, its quantiles those of the official mixture.

The oracle is Datadog's package `toto-ts`; weights are random and seeded.
"""

from __future__ import annotations

import json
import math
import warnings
from copy import deepcopy
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from forecasters import spread_out
from safetensors.torch import save_file
from scipy.stats import t as student_t
from torch import Tensor, nn

from fastsim.errors import ForecastError
from fastsim.forecast.interface import Context, ModuleForecaster
from fastsim.forecast.models import toto
from fastsim.forecast.models.toto import (
    CARD,
    TotoConfig,
    TotoModel,
    enlarge,
    load_toto,
    standardise,
)
from fastsim.forecast.networks.toto_mixture import Mixture, student_cdf

SMALL = TotoConfig(
    patch_size=16,
    embed_dim=32,
    num_layers=4,
    num_heads=2,
    mlp_hidden_dim=48,
    spacewise_every_n_layers=2,
    k_components=5,
)
LEVELS = torch.tensor(CARD.levels)


def walks(series: int, length: int, seed: int = 0) -> Tensor:
    """Prices whose deviation is above the one that series are enlarged to."""
    noise = torch.randn(series, length, generator=torch.Generator().manual_seed(seed))
    return 500.0 + 8.0 * noise.cumsum(-1)


@pytest.fixture(scope="module")
def package() -> SimpleNamespace:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "xFormers", ImportWarning)
        from toto.data.util.dataset import MaskedTimeseries, pad_array  # noqa: PLC0415
        from toto.inference.forecaster import TotoForecaster  # noqa: PLC0415
        from toto.model.toto import Toto  # noqa: PLC0415
    return SimpleNamespace(
        Toto=Toto,
        Forecaster=TotoForecaster,
        MaskedTimeseries=MaskedTimeseries,
        pad_array=pad_array,
    )


def official_settings(config: TotoConfig) -> dict[str, Any]:
    """What config.json holds on the hub."""
    sizes = asdict(config)
    return {
        "output_distribution_kwargs": {"k_components": sizes.pop("k_components")},
        "stride": config.patch_size,
        "dropout": 0.1,
        "scaler_cls": "<class 'model.scaler.CausalPatchStdMeanScaler'>",
        "output_distribution_classes": ["<class 'model.distribution.MixtureOfStudentTsOutput'>"],
        "use_memory_efficient_attention": False,
        "stabilize_with_global": True,
        "scale_factor_exponent": 10.0,
    } | sizes


@pytest.fixture(scope="module")
def official(package) -> nn.Module:
    torch.manual_seed(0)
    model = package.Toto(**official_settings(SMALL)).eval()
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            parameter.data.mul_(2.0)
    widths = model.model.output_distribution.scale_proj
    widths.weight.data.mul_(0.2)  # no component so narrow that samples stick to its place
    widths.bias.data.fill_(0.0)
    return spread_out(model)


@pytest.fixture(scope="module")
def model(official) -> TotoModel:
    ours = TotoModel(SMALL).eval()
    ours.load_state_dict(official.state_dict())
    return ours


def official_series(package: SimpleNamespace, close: Tensor) -> tuple[Tensor, Tensor]:
    """Closes, gaps filled forward, and the mask of gaps, both as its forecaster pads them."""
    known = close.isfinite()
    filled = close.nan_to_num(0.0)
    for bar in range(1, close.shape[1]):
        filled[:, bar] = torch.where(known[:, bar], filled[:, bar], filled[:, bar - 1])
    patch = SMALL.patch_size
    return package.pad_array(filled[:, None], patch), package.pad_array(known[:, None], patch)


def official_mixtures(package: SimpleNamespace, official: nn.Module, close: Tensor, patches: int):
    """The distribution of each patch ahead, after the means of those before it."""
    series, known = official_series(package, close)
    prefix, patch = series.shape[-1], SMALL.patch_size
    for _ in range(patches):
        together = torch.zeros_like(series, dtype=torch.int)
        base, mean, scale = official.model(series, known, together, None, prefix)
        distribution = package.Forecaster.create_affine_transformed(base, mean, scale)
        yield distribution
        following = distribution.mean[..., -patch:]
        series = torch.cat((series, following), -1)
        known = torch.cat((known, torch.ones_like(following, dtype=torch.bool)), -1)


def below(distribution: torch.distributions.Distribution, value: Tensor) -> Tensor:
    """Its probability [B, P] of less than `value` [B, P] in the last patch."""
    every = torch.zeros_like(distribution.mean)
    every[:, 0, -value.shape[1] :] = value
    return distribution.cdf(every)[:, 0, -value.shape[1] :]


@pytest.mark.parametrize(
    ("length", "patches", "gap"),
    [
        (16, 1, None),
        (128, 1, None),
        (500, 1, None),
        (256, 1, (0, 40)),
        (256, 1, (100, 150)),
        (250, 1, (240, 250)),
        (128, 3, None),
    ],
)
@torch.inference_mode()
def test_quantiles_are_those_of_the_official_mixture(
    package, official, model, length, patches, gap
):
    close = walks(3, length)
    if length < 100:
        close = 500.0 + 5.0 * (close - 500.0)
    margin = 1e-4 * close.std(-1)[:, None]
    if gap is not None:
        close[1, slice(*gap)] = math.nan
    patch = SMALL.patch_size
    pieces = model(close, horizon=patches * patch).split(patch, 1)
    mixtures = official_mixtures(package, official, close, patches)
    for ours, theirs in zip(pieces, mixtures, strict=True):
        for rank, level in enumerate(CARD.levels):
            assert (below(theirs, ours[..., rank] - margin) < level + 3e-4).all()
            assert (below(theirs, ours[..., rank] + margin) > level - 3e-4).all()


@torch.inference_mode()
def test_official_sample_paths_fall_below_our_quantiles_as_often_as_they_should(
    package, official, model
):
    close = walks(3, 128)
    inputs = package.MaskedTimeseries(
        series=close[:, None],
        padding_mask=torch.ones(3, 1, 128, dtype=torch.bool),
        id_mask=torch.zeros(3, 1, 128, dtype=torch.int),
        timestamp_seconds=torch.arange(128).expand(3, 1, -1),
        time_interval_seconds=torch.ones(3, 1, dtype=torch.int),
    )
    torch.manual_seed(1)
    forecast = package.Forecaster(official.model).forecast(
        inputs, prediction_length=16, num_samples=256, samples_per_batch=256
    )
    samples = forecast.samples[:, 0]  # [B, H, 256]
    share = (samples[..., None] < model(close, horizon=16)[:, :, None]).double().mean((0, 1, 2))
    error = 4.0 * (LEVELS * (1.0 - LEVELS) / samples.numel()).sqrt()
    assert ((share - LEVELS).abs() < error).all()


@torch.inference_mode()
def test_the_mean_fed_back_is_the_official_mean_forecast(package, official, model):
    close = walks(2, 64)
    series, known = official_series(package, close)
    expected = package.Forecaster(official.model).generate_mean(
        series,
        32,
        torch.arange(64).expand(2, 1, -1),
        torch.ones(2, 1, dtype=torch.int),
        input_padding_mask=known,
    )[:, 0, :16]
    state = enlarge(close.double())
    scaled, mean, scale = standardise(state.values, state.known, state.near, SMALL.patch_size)
    ours = (model.model(scaled.float()).mean() * scale + mean) / state.lift
    torch.testing.assert_close(ours.float(), expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(("freedom", "error"), [(2.0, 2.1e-4), (3.0, 1.1e-5), (10.0, 1e-6)])
def test_hills_deviate_gives_the_probability(freedom, error):
    value = torch.linspace(-30.0, 30.0, 1000)
    expected = torch.from_numpy(student_t.cdf(value.double().numpy(), freedom)).float()
    found = student_cdf(value, torch.tensor(freedom))
    torch.testing.assert_close(found, expected, rtol=0, atol=error)
    assert student_cdf(torch.zeros(1), torch.tensor(freedom)) == 0.5


def test_a_spike_far_from_a_wide_component_is_not_missed():
    mixture = Mixture(
        weight=torch.tensor([0.5, 0.5]).expand(1, 1, 2),
        freedom=torch.tensor([4.0, 4.0]).expand(1, 1, 2),
        place=torch.tensor([0.0, 7.0]).expand(1, 1, 2),
        width=torch.tensor([1.0, 1e-5]).expand(1, 1, 2),
    )
    quantiles = mixture.quantiles(LEVELS)[0, 0]
    expected = torch.from_numpy(student_t.ppf(2.0 * LEVELS[:4].numpy(), 4.0)).float()
    torch.testing.assert_close(quantiles[:4], expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(quantiles[5:], torch.full((4,), 7.0), rtol=0, atol=1e-4)


@torch.inference_mode()
def test_a_row_alone_is_its_row_in_the_batch(model):
    close = walks(5, 100)
    close[2, 40:80] = math.nan
    batch = model(close, horizon=20)
    for row in range(5):
        alone = model(close[row : row + 1], horizon=20)[0]
        torch.testing.assert_close(alone, batch[row], rtol=0, atol=0.01)


@torch.inference_mode()
def test_quantiles_increase_and_a_shorter_horizon_is_the_start_of_a_longer_one(model):
    close = walks(3, 128)
    long = model(close, horizon=40)
    assert (long.diff(dim=-1) >= 0.0).all()
    for horizon in (1, 16, 17):
        torch.testing.assert_close(model(close, horizon=horizon), long[:, :horizon])


class _Fixed(nn.Module):
    def __init__(self, model: TotoModel, horizon: int) -> None:
        super().__init__()
        self.model, self.horizon = model, horizon

    def forward(self, close: Tensor) -> Tensor:
        return self.model(close, horizon=self.horizon)


@pytest.mark.filterwarnings("ignore:`torch.jit.*is deprecated:DeprecationWarning")
@torch.inference_mode()
def test_the_traced_model_is_the_eager_one_at_any_batch_and_place(model):
    program = _Fixed(deepcopy(model), 20)
    traced = torch.jit.trace(program, walks(3, 100), check_trace=False)
    for batch in (1, 2, 7, 33):
        close = walks(batch, 100, seed=batch)
        close[0, 20:70] = math.nan
        torch.testing.assert_close(traced(close), program(close), rtol=0, atol=1e-3)
    for elsewhere in (traced.to("meta"), program.to("meta")):
        assert elsewhere(walks(2, 100).to("meta")).shape == (2, 20, 9)


@pytest.mark.parametrize("price", [1e-8, 1e-3, 0.1])
@torch.inference_mode()
def test_the_unit_of_a_small_price_does_not_matter(model, price):
    close = walks(3, 128) / 100.0
    change = (model(close * price, horizon=16) / price - model(close, horizon=16)).abs()
    assert (change / close.std(-1)[:, None, None]).max() < 1e-3


@torch.inference_mode()
def test_a_large_price_differs_by_the_added_variance_alone(model):
    close = walks(3, 128)
    change = (model(close * 1e6, horizon=16) / 1e6 - model(close, horizon=16)).abs()
    assert (change / close.std(-1)[:, None, None]).median() < 0.01


@pytest.mark.parametrize("price", [0.0, 1e-8, 1.0, 1e8])
@torch.inference_mode()
def test_a_constant_series_goes_on(model, price):
    quantiles = model(torch.full((2, 100), price), horizon=20)
    torch.testing.assert_close(quantiles, torch.full_like(quantiles, price), rtol=1e-3, atol=1e-30)


@torch.inference_mode()
def test_half_precision_rounds_and_does_not_overflow(model):
    close = 1e5 + walks(4, 120)
    exact = model(close, horizon=20)
    half = deepcopy(model).half()(close, horizon=20)
    assert half.dtype == torch.float32
    assert half.isfinite().all()
    assert ((half - exact).abs() / close.std(-1)[:, None, None]).median() < 0.05


def test_a_forecaster_needs_no_more_than_eight_closes(model):
    bars = walks(2, 10)[..., None].expand(-1, -1, 6)
    context = Context(bars, torch.arange(10).expand(2, -1))
    forecast = ModuleForecaster(deepcopy(model)).forecast(context, 5)
    assert forecast.quantiles.shape == (2, 5, 9)
    assert forecast.quantiles.isfinite().all()


def test_the_official_size_has_the_official_number_of_parameters():
    with torch.device("meta"):
        count = sum(p.numel() for p in TotoModel(TotoConfig()).parameters())
    assert count == CARD.parameters


@pytest.fixture
def folder(official, tmp_path, monkeypatch):
    """A folder in the official format; small, and the card agrees with it."""
    save_file(official.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(official_settings(SMALL)))
    count = sum(p.numel() for p in official.parameters())
    monkeypatch.setattr(toto, "CARD", replace(CARD, parameters=count))
    return tmp_path


@torch.inference_mode()
def test_an_official_checkpoint_loads(folder, model):
    close = walks(2, 64)
    for path in (folder, folder / "model.safetensors"):
        assert torch.equal(load_toto(path)(close, horizon=8), model(close, horizon=8))


@torch.inference_mode()
def test_a_checkpoint_of_the_fused_kernel_loads(folder, model, official):
    """As training under xFormers saves it: other names, and tables that are computed anyway."""
    fused = {"model.transformer.rotary_emb.freqs": torch.zeros(8)}
    for name, tensor in official.state_dict().items():
        fused[name.replace(".mlp.0.", ".mlp.0.w12.").replace(".mlp.2.", ".mlp.0.w3.")] = tensor
    save_file(fused, folder / "model.safetensors")
    close = walks(2, 64)
    assert torch.equal(load_toto(folder)(close, horizon=8), model(close, horizon=8))


def test_a_missing_or_damaged_checkpoint_is_refused(folder):
    with pytest.raises(ForecastError, match=r"no weights at .*nowhere.*Datadog/Toto-Open-Base-1.0"):
        load_toto(folder / "nowhere")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:10_000])
    with pytest.raises(ForecastError, match="damaged"):
        load_toto(folder)
    (folder / "config.json").write_text("[1]")
    with pytest.raises(ForecastError, match="no JSON object"):
        load_toto(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ForecastError, match=r"no weights at .*config\.json"):
        load_toto(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_layers": 6}, r"lacks model\.transformer\.layers\.4"),
        ({"mlp_hidden_dim": 64}, r"mlp\.0\.weight .* it is not this architecture"),
        ({"stride": 8}, "stride is 8"),
        ({"scaler_cls": "StdMeanScaler"}, "scaler_cls is 'StdMeanScaler'"),
        ({"output_distribution_classes": ["StudentTOutput"]}, "this architecture has Mixture"),
        ({"num_heads": 5}, "multiple of 2"),
        ({"spacewise_every_n_layers": 3}, "must divide num_layers"),
        ({"embed_dim": None}, "lacks embed_dim"),
    ],
)
def test_another_architecture_is_refused(folder, change, message):
    path = folder / "config.json"
    given = json.loads(path.read_text()) | change
    path.write_text(json.dumps({name: value for name, value in given.items() if value is not None}))
    with pytest.raises(ForecastError, match=message) as caught:
        load_toto(folder)
    assert "\n" not in str(caught.value)


def test_another_size_is_refused(folder, monkeypatch):
    monkeypatch.setattr(toto, "CARD", CARD)
    with pytest.raises(ForecastError, match="has 151,306,080 parameters"):
        load_toto(folder)
