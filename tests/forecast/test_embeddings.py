"""Embeddings: what the head reads, of a past alone, whatever the price; else refused by name."""

import pytest
import torch
from forecasters import TinyModel, random_context
from test_export import tiny_kronos, tiny_tirex, tiny_toto2
from test_keys import TOTO, seeded

from fastsim.errors import ForecastError
from fastsim.forecast.embeddings import embed
from fastsim.forecast.interface import Context, ModuleForecaster
from fastsim.forecast.models.baselines import trailing_random_walk
from fastsim.forecast.models.chronos2 import Chronos2Model
from fastsim.forecast.models.fitted import FittedModel, LastClose
from fastsim.forecast.models.prior import WIDTH, load_prior
from fastsim.forecast.models.toto import TotoModel
from fastsim.forecast.networks.chronos2_network import Chronos2Config
from fastsim.forecast.networks.lstm_attention import LstmConfig, LstmModel
from fastsim.forecast.networks.nhits import NhitsConfig, NhitsModel
from fastsim.forecast.networks.patch_transformer import (
    PatchTransformerConfig,
    PatchTransformerModel,
)

CHRONOS2 = Chronos2Config(
    d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, context_length=64, max_output_patches=4
)
NETWORKS = {
    "prior": (load_prior, WIDTH),
    "nhits": (lambda: NhitsModel(NhitsConfig(hidden=8)), 24),
    "lstm": (lambda: LstmModel(LstmConfig(hidden=8)), 8),
    "patch-transformer": (lambda: PatchTransformerModel(PatchTransformerConfig(width=8)), 16),
    "tirex": (tiny_tirex, 16),
    "toto2": (tiny_toto2, 32),
    "chronos2": (lambda: Chronos2Model(CHRONOS2).eval(), 32),
    "fitted": (
        lambda: FittedModel(load_prior(), LastClose(), name="f", reach=5, known_until=None),
        WIDTH,
    ),
}
CONTEXT = random_context(5, 60)
CONTEXT.bars[1, :20] = torch.nan
CONTEXT.bars[2, 30:34] = torch.nan


@pytest.fixture(params=NETWORKS)
def forecaster(request):
    make, width = NETWORKS[request.param]
    return ModuleForecaster(seeded(make)), width


def test_every_series_has_a_vector_that_depends_on_it_alone(forecaster):
    model, width = forecaster
    found = embed(model, CONTEXT)
    assert found.shape == (5, width) and found.dtype == torch.float32
    assert bool(found.isfinite().all())
    assert float(found.std(0).max()) > 0
    for row in range(5):
        alone = embed(model, Context(*(part[row : row + 1] for part in CONTEXT)))
        torch.testing.assert_close(alone[0], found[row], rtol=1e-4, atol=1e-5)


def test_the_unit_of_the_price_does_not_matter(forecaster):
    model, _ = forecaster
    scaled = Context(CONTEXT.bars * 8.0, CONTEXT.timestamps)
    torch.testing.assert_close(embed(model, scaled), embed(model, CONTEXT), rtol=1e-3, atol=1e-4)


def test_padding_before_a_short_past_is_not_counted(forecaster):
    model, _ = forecaster
    short = Context(*(part[:1, -40:] for part in CONTEXT))
    bars = torch.cat([torch.full_like(short.bars[:, :20], torch.nan), short.bars], 1)
    padded = Context(bars, CONTEXT.timestamps[:1])
    torch.testing.assert_close(embed(model, padded), embed(model, short), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["prior", "nhits", "lstm", "patch-transformer"])
@torch.no_grad()
def test_of_own_networks_it_is_what_the_head_reads(name):
    model = seeded(NETWORKS[name][0]).eval()
    read = model.read(CONTEXT.close)
    hidden = embed(ModuleForecaster(model), CONTEXT).clone()
    if name == "nhits":
        parts = hidden.chunk(len(model.blocks), 1)
        total = sum(
            torch.nn.functional.interpolate(
                torch.unflatten(block.forecast(part), 1, (14, -1)), size=8, mode="linear"
            )
            for block, part in zip(model.blocks, parts, strict=True)
        )
        wanted = total.transpose(1, 2).flatten(1)
    else:
        wanted = model.head(hidden)
        if name == "prior":
            standard = (read.features - model.feature_mean) / model.feature_deviation
            wanted = wanted + model.skip(standard.clamp(-5.0, 5.0))
    torch.testing.assert_close(model.raw(read.features), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("forecaster", "name"),
    [
        (ModuleForecaster(TinyModel()), "tiny"),
        (ModuleForecaster(tiny_kronos()), "kronos-random"),
        (ModuleForecaster(seeded(lambda: TotoModel(TOTO))), "Toto-Open-Base-1.0"),
        (trailing_random_walk(), "random-walk-60"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_whoever_has_none_is_refused_by_name(forecaster, name):
    with pytest.raises(ForecastError, match=f"{name} shows no hidden state: embeddings are of"):
        embed(forecaster, CONTEXT)
    short = Context(*(part[:, -3:] for part in CONTEXT))
    with pytest.raises(ForecastError, match="needs 32 known closes"):
        embed(ModuleForecaster(load_prior()), short)
