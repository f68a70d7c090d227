"""TimesFM 2.5: ours is the official network as its makers ask it, and a forecaster by our laws.

The oracle is Google's package `timesfm`, through its own `forecast` with the options that its page
recommends; weights are random and seeded, every one moved off the one or zero that it starts at.
"""

from __future__ import annotations

import math
from copy import deepcopy

import numpy as np
import pytest
import torch
from forecasters import deviations, random_context, walks, with_gaps
from safetensors.torch import save_file
from torch import Tensor, nn

from fastsim.errors import ForecastError
from fastsim.forecast.artifacts.export import export, load_artifact
from fastsim.forecast.interface import Context, ModuleForecaster
from fastsim.forecast.models import timesfm
from fastsim.forecast.models.timesfm import CARD, TimesFMModel, load_timesfm, whole_patches
from fastsim.forecast.networks.timesfm_network import TimesFMConfig

SMALL = TimesFMConfig(
    patch=8, output_patch=16, furthest=64, width=32, hidden=48, layers=3, heads=2, context=256
)


def official_network(config: TimesFMConfig) -> nn.Module:
    from timesfm import configs  # noqa: PLC0415
    from timesfm.timesfm_2p5.timesfm_2p5_base import (  # noqa: PLC0415
        TimesFM_2p5_200M_Definition,
    )
    from timesfm.timesfm_2p5.timesfm_2p5_torch import (  # noqa: PLC0415
        TimesFM_2p5_200M_torch_module,
    )

    def block(width: int, out: int, *, bias: bool) -> object:
        return configs.ResidualBlockConfig(width, config.hidden, out, bias, "swish")

    layer = configs.TransformerConfig(
        model_dims=config.width,
        hidden_dims=config.hidden,
        num_heads=config.heads,
        attention_norm="rms",
        feedforward_norm="rms",
        qk_norm="rms",
        use_bias=False,
        use_rotary_position_embeddings=True,
        ff_activation="swish",
        fuse_qkv=True,
    )
    sizes = TimesFM_2p5_200M_Definition(
        input_patch_len=config.patch,
        output_patch_len=config.output_patch,
        output_quantile_len=config.furthest,
        tokenizer=block(2 * config.patch, config.width, bias=True),
        stacked_transformers=configs.StackedTransformersConfig(config.layers, layer),
        output_projection_point=block(config.width, 10 * config.output_patch, bias=False),
        output_projection_quantiles=block(config.width, 10 * config.furthest, bias=False),
    )
    torch.manual_seed(0)
    of_size = type("OfSize", (TimesFM_2p5_200M_torch_module,), {"config": sizes})
    return spread_weights(of_size().eval())


@torch.no_grad()
def spread_weights(network: nn.Module) -> nn.Module:
    """Every layer passes on about what it is given, and the quantiles spread as trained ones do."""
    for name, weight in network.named_parameters():
        if weight.dim() == 1:
            start = float(name.endswith("ln.scale"))
            weight.copy_(start + 0.1 * torch.randn(weight.shape))
        else:
            gain = 0.3 if name.startswith("output") else 0.7
            weight.normal_(std=gain * weight.shape[-1] ** -0.5)
    return network


def official_quantiles(network: nn.Module, series: Tensor, horizon: int) -> Tensor:
    from timesfm import configs  # noqa: PLC0415
    from timesfm.timesfm_2p5.timesfm_2p5_torch import TimesFM_2p5_200M_torch  # noqa: PLC0415

    wrapper = object.__new__(TimesFM_2p5_200M_torch)  # whose constructor makes the full network
    wrapper.model = network
    answers = []
    for row in series:  # alone: it counts what it pads a row with among the row's own values
        known = row[int(row.isfinite().int().argmax()) :]
        wrapper.compile(
            configs.ForecastConfig(
                max_context=len(known),
                max_horizon=horizon,
                normalize_inputs=True,
                use_continuous_quantile_head=True,
                force_flip_invariance=True,
                infer_is_positive=True,
                fix_quantile_crossing=True,
            )
        )
        answers.append(torch.from_numpy(wrapper.forecast(horizon, [known.numpy()])[1][0]))
    return torch.stack(answers)[..., 1:]


def ours_from(official: nn.Module, config: TimesFMConfig) -> TimesFMModel:
    model = TimesFMModel(config).eval()
    model.network.load_state_dict(official.state_dict())
    return model


@pytest.fixture(scope="module")
def official() -> nn.Module:
    return official_network(SMALL)


@pytest.fixture(scope="module")
def model(official) -> TimesFMModel:
    return ours_from(official, SMALL)


@pytest.mark.parametrize(("length", "horizon"), [(16, 1), (100, 16), (100, 50), (256, 64)])
@torch.inference_mode()
def test_quantiles_are_the_official_ones(model, official, length, horizon):
    # Medians fed back lie far from nine closes: there the official float32 is off by 2e-5 itself.
    series = with_gaps(length, step=4.0, end=40)
    expected = official_quantiles(official, series, horizon)
    unit = series[:1].std()
    assert 0.1 < ((expected[..., -1] - expected[..., 0]) / unit).median() < 10.0
    found = model(series, horizon=horizon)
    assert deviations(found, expected, series).max() < 1e-5
    assert (found.diff(dim=-1) >= 0.0).all()


@torch.inference_mode()
def test_prices_do_not_fall_below_zero_unless_the_past_does(model, official):
    low = walks(3, 100, step=4.0)
    low = low - low.amin(1, keepdim=True) + 0.01
    for series in (low, low - 20.0):
        expected = official_quantiles(official, series, 40)
        assert deviations(model(series, horizon=40), expected, series).max() < 1e-5
        assert (expected < 0.0).any() == (series < 0.0).any()


@pytest.mark.long
@torch.inference_mode()
def test_the_full_network_is_the_official_one():
    config = TimesFMConfig()
    official = official_network(config)
    model = ours_from(official, config)
    assert sum(weight.numel() for weight in official.parameters()) == CARD.parameters
    series = with_gaps(200, step=4.0)
    expected = official_quantiles(official, series, 200)
    apart = deviations(model(series, horizon=200), expected, series)
    assert apart[:, :128].max() < 1e-5
    assert (
        apart.max() < 3e-5
    )  # what is told of later bars is made of forecasts, with their roundings


def test_gaps_are_on_a_line_and_nothing_is_known_before_the_first_close():
    close = torch.tensor([[math.nan, 2.0, math.nan, math.nan, 5.0, math.nan]])
    past = whole_patches(close, 4)
    assert past.values[0].tolist() == pytest.approx([0, 0, 0, 2, 3, 4, 5, 5])
    assert past.hidden[0].tolist() == [True] * 3 + [False] * 5
    known = np.flatnonzero(close[0].isfinite().numpy())
    line = np.interp(np.arange(1, 6), known, close[0].numpy()[known])
    assert past.values[0, 3:].tolist() == pytest.approx(line.tolist())


@torch.inference_mode()
def test_without_the_mirror_it_is_another_and_with_it_a_mirrored_past_has_a_mirrored_future(model):
    series = walks(3, 100, step=4.0) - 100.0
    straight = TimesFMModel(SMALL, mirrored=False).eval()
    straight.load_state_dict(model.state_dict())
    alone = straight(series, horizon=20)
    assert deviations(alone, model(series, horizon=20), series).max() > 0.01
    assert straight.settings() != model.settings()
    both = model(torch.cat((series, -series)), horizon=20)
    torch.testing.assert_close(both[:3], -both[3:].flip(-1), rtol=0, atol=1e-3)


@torch.inference_mode()
def test_a_row_alone_is_its_row_in_the_batch(model):
    series = with_gaps(100)
    batch = model(series, horizon=40)
    for row in range(6):
        alone = model(series[row : row + 1], horizon=40)[0]
        torch.testing.assert_close(alone, batch[row], rtol=0, atol=1e-3)


@torch.inference_mode()
def test_missing_bars_before_a_short_context_and_longer_horizons_change_nothing(model):
    series = walks(3, 40)
    padded = torch.cat((torch.full((3, 60), math.nan), series), 1)
    expected = model(series, horizon=40)
    torch.testing.assert_close(model(padded, horizon=40), expected, rtol=0, atol=1e-3)
    for horizon in (1, 16, 17):
        short = model(series, horizon=horizon)
        torch.testing.assert_close(short, expected[:, :horizon], rtol=0, atol=1e-3)


@pytest.mark.parametrize("price", [1e-8, 1e-3, 1e8])
@torch.inference_mode()
def test_the_unit_of_the_price_does_not_matter(model, price):
    series = walks(3, 100)
    expected = model(series, horizon=32)
    found = model(series * price, horizon=32) / price
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("price", [1e-8, 1.0, 1e8])
@torch.inference_mode()
def test_a_constant_series_goes_on(model, price):
    quantiles = model(torch.full((2, 100), price), horizon=40)
    torch.testing.assert_close(quantiles, torch.full_like(quantiles, price), rtol=1e-6, atol=0)


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
@pytest.mark.filterwarnings("ignore:`torch.jit.*is deprecated:DeprecationWarning")
def test_it_passes_the_gate_and_takes_short_contexts(model, precision, tmp_path):
    windows = random_context(33, 96)
    path = tmp_path / "timesfm.pt"
    export(model, path, windows=windows, horizon=20, precision=precision)
    artefact = load_artifact(path)
    eager = ModuleForecaster(deepcopy(model), precision=precision)
    for context in (windows, Context(*(part[:, -50:] for part in windows))):
        found, wanted = (one.forecast(context, 20).quantiles for one in (artefact, eager))
        bound = {"float32": 1e-5, "float16": 1e-2, "bfloat16": 5e-2}[precision]
        assert deviations(found, wanted, context.close).max() < bound


@torch.inference_mode()
def test_an_official_checkpoint_loads(model, official, tmp_path, monkeypatch):
    monkeypatch.setattr(timesfm, "TimesFMConfig", lambda: SMALL)  # the files name no sizes
    save_file(official.state_dict(), tmp_path / "model.safetensors")
    series = walks(2, 64)
    for path in (tmp_path, tmp_path / "model.safetensors"):
        assert torch.equal(load_timesfm(path)(series, horizon=8), model(series, horizon=8))
    save_file({"tokenizer.hidden_layer.weight": torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(ForecastError, match="it is not this architecture"):
        load_timesfm(tmp_path)


@pytest.mark.parametrize("sizes", [{"output_patch": 12}, {"heads": 5}])
def test_sizes_fit_each_other(sizes):
    with pytest.raises(ForecastError, match="output_patch must be a multiple of patch"):
        TimesFMConfig(patch=8, width=32, **{"output_patch": 16, "heads": 2} | sizes)
