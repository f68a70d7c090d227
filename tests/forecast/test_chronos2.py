"""Chronos-2: ours is the official network, alone and in groups, and a forecaster by our laws.

The oracle is Amazon's package `chronos-forecasting`; weights are random and seeded, every one of
them moved off the one or zero that it starts at.
"""

from __future__ import annotations

import json
import math
from copy import deepcopy

import pytest
import torch
from forecasters import deviations, random_context, walks, with_gaps
from torch import Tensor, nn

from fastsim.errors import ForecastError
from fastsim.forecast.artifacts.export import export, load_artifact
from fastsim.forecast.interface import Context, ModuleForecaster
from fastsim.forecast.models.chronos2 import (
    CARD,
    Chronos2Model,
    load_chronos2,
    scale_of,
)
from fastsim.forecast.networks.chronos2_network import Chronos2Config

SMALL = Chronos2Config(
    d_model=48,
    d_kv=12,
    d_ff=64,
    num_layers=3,
    num_heads=4,
    context_length=256,
    max_output_patches=8,
    time_encoding_scale=256,
    quantiles=(0.1, 0.25, 0.5, 0.75, 0.9),
)
GROUP = torch.tensor([0, 0, 1, 1, 1, 2])


def official_network(config: Chronos2Config, seed: int = 0) -> nn.Module:
    from chronos.chronos2.config import Chronos2CoreConfig  # noqa: PLC0415
    from chronos.chronos2.model import Chronos2Model as Official  # noqa: PLC0415

    patch = config.input_patch_size
    settings = Chronos2CoreConfig(
        d_model=config.d_model,
        d_kv=config.d_kv,
        d_ff=config.d_ff,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        chronos_config={
            "context_length": config.context_length,
            "input_patch_size": patch,
            "input_patch_stride": patch,
            "output_patch_size": patch,
            "max_output_patches": config.max_output_patches,
            "quantiles": list(config.quantiles),
            "time_encoding_scale": config.time_encoding_scale,
            "use_arcsinh": True,
            "use_reg_token": True,
        },
    )
    torch.manual_seed(seed)
    return spread_weights(Official(settings).eval())


@torch.no_grad()
def spread_weights(network: nn.Module) -> nn.Module:
    """Every layer passes on about what it is given, and the quantiles spread as trained ones do."""
    for name, weight in network.named_parameters():
        if weight.dim() == 1:
            weight.copy_(0.1 * torch.randn(weight.shape) + float("norm" in name))
        else:
            weight.normal_(std=weight.shape[-1] ** -0.5)
        if name.endswith(("self_attention.q.weight", "self_attention.k.weight")):
            weight.mul_(0.5)
        if name.startswith("output_patch_embedding"):
            weight.mul_(0.5)
    return network


def official_quantiles(network: nn.Module, series: Tensor, horizon: int, **more: Tensor) -> Tensor:
    patches = -(-horizon // network.chronos_config.output_patch_size)
    told = network(series, num_output_patches=patches, **more).quantile_preds
    return told.transpose(1, 2)[:, :horizon]


def ours_from(official: nn.Module, config: Chronos2Config) -> Chronos2Model:
    model = Chronos2Model(config).eval()
    model.network.load_state_dict(official.state_dict())
    return model


@pytest.fixture(scope="module")
def official() -> nn.Module:
    return official_network(SMALL)


@pytest.fixture(scope="module")
def model(official) -> Chronos2Model:
    return ours_from(official, SMALL)


@pytest.mark.parametrize(("length", "horizon"), [(16, 1), (200, 40), (256, 128), (300, 16)])
@torch.inference_mode()
def test_quantiles_are_the_official_ones(model, official, length, horizon):
    series = with_gaps(length)[:, -SMALL.context_length :]
    expected = official_quantiles(official, series, horizon)
    spread = (expected[..., -1] - expected[..., 0]) / scale_of(series).deviation
    assert 0.1 < spread.median() < 10.0
    assert deviations(model(series, horizon=horizon), expected, series).max() < 1e-5


@torch.inference_mode()
def test_the_embedding_is_the_mean_of_the_official_states_of_known_patches(model, official):
    series, patch = with_gaps(200), SMALL.input_patch_size
    outputs, _, _, count = official.encode(series)
    states = outputs.last_hidden_state[:, :count]
    padded = torch.nn.functional.pad(series, (-series.shape[1] % patch, 0), value=math.nan)
    known = padded.unfold(1, patch, patch).isfinite().any(-1)[..., None]
    expected = torch.where(known, states, 0.0).sum(1) / known.sum(1)
    torch.testing.assert_close(model.hidden_state(series), expected, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_groups_and_known_covariates_are_the_official_ones(model, official):
    series, horizon = with_gaps(200), 40
    together = model.quantiles(series, horizon, group=GROUP)
    expected = official_quantiles(official, series, horizon, group_ids=GROUP)
    assert deviations(together, expected, series).max() < 1e-5
    alone = model(series, horizon=horizon)
    assert deviations(alone, together, series)[:5].amax((1, 2)).min() > 0.01, "groups are read"
    torch.testing.assert_close(alone[5], together[5], rtol=0, atol=1e-4)
    future = torch.full((6, horizon), math.nan)
    future[0], future[3, :20] = walks(1, horizon)[0], 101.0
    told = model.quantiles(series, horizon, group=GROUP, future=future)
    expected = official_quantiles(
        official, series, horizon, group_ids=GROUP, future_covariates=future
    )
    assert deviations(told, expected, series).max() < 1e-5
    assert deviations(told, together, series)[[1, 2, 4]].amax((1, 2)).min() > 0.001


@torch.inference_mode()
def test_the_order_within_a_group_and_other_groups_do_not_matter(model):
    series = with_gaps(200)
    wanted = model.quantiles(series, 20, group=GROUP)
    order = torch.tensor([4, 1, 5, 2, 0, 3])
    found = model.quantiles(series[order], 20, group=7 * GROUP[order] + 3)
    torch.testing.assert_close(found, wanted[order], rtol=0, atol=1e-3)


@pytest.mark.long
@torch.inference_mode()
def test_the_full_network_is_the_official_one():
    config = Chronos2Config()
    official = official_network(config)
    model = ours_from(official, config)
    assert sum(weight.numel() for weight in official.parameters()) == CARD.parameters
    series = with_gaps(300)
    expected = official_quantiles(official, series, 40)
    assert deviations(model(series, horizon=40), expected, series).max() < 1e-5


@torch.inference_mode()
def test_a_row_alone_is_its_row_in_the_batch(model):
    series = with_gaps(200)
    batch = model(series, horizon=40)
    for row in range(6):
        alone = model(series[row : row + 1], horizon=40)[0]
        torch.testing.assert_close(alone, batch[row], rtol=0, atol=1e-3)


@torch.inference_mode()
def test_missing_bars_before_a_short_context_change_nothing(model):
    series = walks(3, 40)
    padded = torch.cat((torch.full((3, 60), math.nan), series), 1)
    expected = model(series, horizon=20)
    torch.testing.assert_close(model(padded, horizon=20), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("price", [1e-8, 1e-3, 1e8])
@torch.inference_mode()
def test_the_unit_of_the_price_does_not_matter(model, price):
    series = walks(3, 200)
    expected = model(series, horizon=32)
    found = model(series * price, horizon=32) / price
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("price", [1e-8, 1.0, 1e8])
@torch.inference_mode()
def test_a_constant_series_goes_on(model, price):
    quantiles = model(torch.full((2, 100), price), horizon=40)
    torch.testing.assert_close(quantiles, torch.full_like(quantiles, price), rtol=1e-3, atol=0)


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
@pytest.mark.filterwarnings("ignore:`torch.jit.*is deprecated:DeprecationWarning")
def test_it_passes_the_gate_and_takes_short_contexts(model, precision, tmp_path):
    windows = random_context(33, 96)
    path = tmp_path / "chronos.pt"
    export(model, path, windows=windows, horizon=20, precision=precision)
    artefact = load_artifact(path)
    eager = ModuleForecaster(deepcopy(model), precision=precision)
    for context in (windows, Context(*(part[:, -50:] for part in windows))):
        found, wanted = (one.forecast(context, 20).quantiles for one in (artefact, eager))
        bound = {"float32": 1e-5, "float16": 1e-2, "bfloat16": 5e-2}[precision]
        assert deviations(found, wanted, context.close).max() < bound
    assert load_artifact(path).card.known_source == CARD.known_source


@pytest.fixture
def folder(official, tmp_path):
    """A folder as the official package saves it."""
    official.save_pretrained(tmp_path)
    return tmp_path


@torch.inference_mode()
def test_an_official_checkpoint_loads_under_a_card_of_its_own(model, folder):
    series = walks(2, 64)
    for path in (folder, folder / "model.safetensors"):
        found = load_chronos2(path)
        assert torch.equal(found(series, horizon=8), model(series, horizon=8))
    card = found.card
    assert (card.name, card.hub_id, card.max_context) == ("chronos-2-0m", None, 256)
    assert (card.max_horizon, card.levels) == (128, SMALL.quantiles)
    assert card.parameters == sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"feed_forward_proj": "gated-gelu"}, "feed_forward_proj is 'gated-gelu'"),
        ({"chronos_config": {"use_arcsinh": False}}, "use_arcsinh is False"),
        ({"chronos_config": {"input_patch_stride": 8}}, "input_patch_stride is 8"),
        ({"num_layers": 4}, "lacks encoder.block.3"),
        ({"d_ff": 65}, "it is not this architecture"),
        ({"d_kv": 13}, "d_kv must be even"),
        ({"d_model": None}, "lacks d_model"),
    ],
)
def test_another_architecture_is_refused(folder, change, message):
    path = folder / "config.json"
    given = json.loads(path.read_text())
    inner = given["chronos_config"] | change.get("chronos_config", {})
    given = {**given, **change, "chronos_config": inner}
    path.write_text(json.dumps({name: value for name, value in given.items() if value is not None}))
    with pytest.raises(ForecastError, match=message) as caught:
        load_chronos2(folder)
    assert "\n" not in str(caught.value)
