"""Toto 2.0: ours is the official network, and a forecaster that keeps the house's laws.

The oracle is Datadog's package `toto-2`; weights are random and seeded, its head's made larger so
that the quantiles spread as those of a trained model do.
"""

from __future__ import annotations

import json
import math
from copy import deepcopy
from dataclasses import asdict
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from fastsim.errors import ForecastError
from fastsim.forecast.interface import Context, ModuleForecaster
from fastsim.forecast.models.toto2 import (
    CARD,
    OPTIONS,
    Toto2Config,
    Toto2Model,
    card_of,
    load_toto2,
)
from fastsim.forecast.networks.toto2_patches import scale_patches

SMALL = Toto2Config(d_model=32, d_ff=48, num_heads=2, num_layers=4, layer_group_size=2)
OFFICIAL_4M = Toto2Config()


def walks(series: int, length: int, seed: int = 0) -> Tensor:
    noise = torch.randn(series, length, generator=torch.Generator().manual_seed(seed))
    return 100.0 + noise.cumsum(-1)


def official_model(package: ModuleType, config: Toto2Config) -> nn.Module:
    options = {name: ours for name, (_, ours) in OPTIONS.items()}
    torch.manual_seed(0)
    model = package.Toto2Model(package.Toto2ModelConfig(**asdict(config), **options)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    head = model.output_head.param_projection.proj
    for layer in (head.linear2, head.skip_proj):
        layer.weight.data.mul_(0.5 * config.d_model**0.5)
    return model


def official_forecast(model: nn.Module, close: Tensor, horizon: int) -> Tensor:
    """What its GluonTS predictor gives the network: gaps filled forward, and the mask of gaps."""
    known = close.isfinite()
    filled = close.nan_to_num(0.0)
    for bar in range(1, close.shape[1]):
        filled[:, bar] = torch.where(known[:, bar], filled[:, bar], filled[:, bar - 1])
    inputs = {
        "target": filled[:, None],
        "target_mask": known[:, None],
        "series_ids": torch.zeros(len(close), 1, dtype=torch.long),
    }
    return model.forecast(inputs, horizon=horizon)[:, :, 0].permute(1, 2, 0)


def ours_from(official: nn.Module, config: Toto2Config) -> Toto2Model:
    model = Toto2Model(config).eval()
    model.load_state_dict(official.state_dict())
    return model


@pytest.fixture(scope="module")
def package() -> ModuleType:
    import toto2  # noqa: PLC0415

    return toto2


@pytest.fixture(scope="module", params=[SMALL, OFFICIAL_4M], ids=["small", "4m"])
def pair(package, request):
    official = official_model(package, request.param)
    return ours_from(official, request.param), official


@pytest.fixture(scope="module")
def model(package) -> Toto2Model:
    return ours_from(official_model(package, SMALL), SMALL)


@pytest.mark.parametrize(
    ("length", "horizon", "gap"),
    [
        (32, 1, None),
        (64, 200, None),
        (512, 64, None),
        (1024, 32, None),
        (96, 33, (10, 60)),
        (512, 64, (0, 100)),
        (512, 64, (100, 180)),
        (512, 96, (500, 512)),
    ],
)
@torch.inference_mode()
def test_quantiles_are_the_official_ones(pair, length, horizon, gap):
    ours, official = pair
    close = walks(3, length)
    deviation = close.std(-1)[:, None, None]
    if gap is not None:
        close[1, slice(*gap)] = math.nan
    expected = official_forecast(official, close, horizon)
    spread = (expected[..., -1] - expected[..., 0]) / deviation[..., 0]
    assert 0.1 < spread.median() < 10.0
    error = (ours(close, horizon=horizon) - expected).abs() / deviation
    assert error.max() < 1e-4


@torch.inference_mode()
def test_a_ragged_context_is_padded_on_the_left_as_unknown(pair):
    ours, official = pair
    close = walks(2, 500)
    padded = torch.cat((torch.full((2, 12), math.nan), close), 1)
    expected = official_forecast(official, padded, 64)
    torch.testing.assert_close(ours(close, horizon=64), expected, rtol=0, atol=1e-3)
    torch.testing.assert_close(ours(padded, horizon=64), ours(close, horizon=64), rtol=0, atol=0)


def test_the_official_size_has_the_official_number_of_parameters(pair):
    ours, official = pair
    count = [sum(p.numel() for p in network.parameters()) for network in (ours, official)]
    assert count[0] == count[1]
    if ours.config == OFFICIAL_4M:
        assert count[0] == CARD.parameters


def test_patches_are_standardised_by_their_past_alone():
    close = torch.tensor([[1.0, 3.0, math.nan, 5.0, 2.0, 9.0]])
    patches = scale_patches(close, patch=2)
    past = torch.tensor([1.0, 3.0, 5.0], dtype=torch.float64)
    expected = torch.asinh((past[-1] - past.mean()) / past.std())
    torch.testing.assert_close(patches.scaled[0, 1], torch.stack((torch.zeros(()), expected)))
    assert patches.known[0].tolist() == [[True, True], [False, True], [True, True]]
    torch.testing.assert_close(patches.mean[0, :, 0], torch.tensor([2.0, 3.0, 4.0]).double())


@torch.inference_mode()
def test_a_row_alone_is_its_row_in_the_batch(model):
    close = walks(5, 200)
    close[2, 40:110] = math.nan
    batch = model(close, horizon=40)
    for row in range(5):
        alone = model(close[row : row + 1], horizon=40)[0]
        torch.testing.assert_close(alone, batch[row], rtol=0, atol=1e-3)


@torch.inference_mode()
def test_a_shorter_horizon_is_the_start_of_a_longer_one(model):
    close = walks(3, 128)
    long = model(close, horizon=150)
    for horizon in (1, 32, 33, 64):
        torch.testing.assert_close(model(close, horizon=horizon), long[:, :horizon])


@pytest.mark.filterwarnings("ignore:`torch.jit.*is deprecated:DeprecationWarning")
@torch.inference_mode()
def test_the_traced_model_is_the_eager_one_at_any_batch_and_place(model):
    program = _Fixed(deepcopy(model), 64)
    traced = torch.jit.trace(program, walks(3, 500), check_trace=False)
    for batch in (1, 2, 7, 33):
        close = walks(batch, 500, seed=batch)
        close[0, 50:130] = math.nan
        torch.testing.assert_close(traced(close), program(close), rtol=0, atol=1e-4)
    for elsewhere in (traced.to("meta"), program.to("meta")):
        assert elsewhere(walks(2, 500).to("meta")).shape == (2, 64, 9)


class _Fixed(nn.Module):
    def __init__(self, model: Toto2Model, horizon: int) -> None:
        super().__init__()
        self.model, self.horizon = model, horizon

    def forward(self, close: Tensor) -> Tensor:
        return self.model(close, horizon=self.horizon)


@pytest.mark.parametrize("price", [1e-8, 1e-3, 1.0, 1e8])
@torch.inference_mode()
def test_the_unit_of_the_price_does_not_matter(model, price):
    close = walks(3, 256)
    expected = model(close, horizon=32)
    torch.testing.assert_close(
        model(close * price, horizon=32) / price, expected, rtol=1e-4, atol=1e-2
    )


@pytest.mark.parametrize("price", [0.0, 1e-8, 1.0, 1e8])
@torch.inference_mode()
def test_a_constant_series_goes_on(model, price):
    quantiles = model(torch.full((2, 100), price), horizon=40)
    torch.testing.assert_close(quantiles, torch.full_like(quantiles, price), rtol=1e-3, atol=1e-30)


@torch.inference_mode()
def test_half_precision_rounds_and_does_not_overflow(model):
    close = 1e5 * walks(4, 256)
    exact = model(close, horizon=64)
    half = deepcopy(model).half()(close, horizon=64)
    assert half.dtype == torch.float32
    error = (half - exact).abs() / close.std(-1)[:, None, None]
    assert error[..., 1:-1].median() < 0.02


def test_a_forecaster_needs_no_more_than_eight_closes(model):
    close = walks(2, 20)
    bars = close[..., None].expand(-1, -1, 6)
    context = Context(bars, torch.arange(20).expand(2, -1))
    forecast = ModuleForecaster(deepcopy(model)).forecast(context, 5)
    assert forecast.quantiles.shape == (2, 5, 9)
    assert forecast.quantiles.isfinite().all()
    with pytest.raises(ForecastError, match="768 bars ahead, not 769"):
        ModuleForecaster(deepcopy(model)).forecast(context, 769)


@pytest.fixture
def folder(package, tmp_path):
    """A folder as the official package saves it."""
    official_model(package, OFFICIAL_4M).save_pretrained(tmp_path)
    return tmp_path


@torch.inference_mode()
def test_an_official_checkpoint_loads(package, folder):
    close = walks(2, 64)
    expected = ours_from(official_model(package, OFFICIAL_4M), OFFICIAL_4M)(close, horizon=8)
    for path in (folder, folder / "model.safetensors"):
        assert torch.equal(load_toto2(path)(close, horizon=8), expected)


def test_a_missing_checkpoint_says_what_is_expected(folder):
    with pytest.raises(ForecastError, match=r"no weights at .*nowhere.*Datadog/Toto-2.0-4m"):
        load_toto2(folder / "nowhere")
    (folder / "config.json").unlink()
    with pytest.raises(ForecastError, match=r"no weights at .*config\.json"):
        load_toto2(folder)


def test_a_truncated_checkpoint_is_damaged(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    with pytest.raises(ForecastError, match="damaged"):
        load_toto2(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ForecastError, match="no JSON object"):
        load_toto2(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"qk_norm": True}, "qk_norm is True"),
        ({"num_layers": 8}, "lacks transformer.layers.4"),
        ({"d_ff": 344}, "ffn.fc1.weight .* it is not this architecture"),
        ({"num_layers": 6}, "multiple of layer_group_size"),
        ({"d_model": 100}, "multiple of 4"),
        ({"patch_size": None}, "lacks patch_size"),
    ],
)
def test_another_architecture_is_refused(folder, change, message):
    path = folder / "config.json"
    given = json.loads(path.read_text()) | change
    path.write_text(json.dumps({name: value for name, value in given.items() if value is not None}))
    with pytest.raises(ForecastError, match=message) as caught:
        load_toto2(folder)
    assert "\n" not in str(caught.value)


@torch.inference_mode()
def test_another_size_of_the_family_loads_by_its_path_under_a_card_of_its_own(package, tmp_path):
    official = official_model(package, SMALL)
    official.save_pretrained(tmp_path)
    found = load_toto2(tmp_path)
    close = walks(2, 96)
    expected = ours_from(official, SMALL)(close, horizon=8)
    assert torch.equal(found(close, horizon=8), expected)
    assert found.card.parameters == sum(weight.numel() for weight in official.parameters())
    assert (found.card.name, found.card.hub_id, found.card.revision) == ("Toto-2.0-0m", None, None)
    with torch.device("meta"):
        wide = Toto2Model(Toto2Config(d_model=640, d_ff=1720, num_heads=10))
    count = sum(weight.numel() for weight in wide.parameters())
    assert card_of(count).name == f"Toto-2.0-{round(count / 1e6)}m"
    assert card_of(CARD.parameters) is CARD
    assert card_of(2_500_000_000).name == "Toto-2.0-2.5B"
