"""The gate of models that draw paths: half precision passes by its law, another law does not."""

from __future__ import annotations

import json
from copy import deepcopy

import pytest
import torch
from test_kronos import CONFIG, TOKENIZER, WINDOW, bars_of, times_of

from fastsim.errors import ForecastError
from fastsim.forecast.artifacts.export import export, load_artifact
from fastsim.forecast.artifacts.sampled import (
    PATHS,
    QUANTILES_BOUND,
    TOKENS_BOUND,
    Agreement,
    agreement,
    draws_paths,
    errors_of,
    require_agreement,
    share_below,
)
from fastsim.forecast.interface import Context, copied
from fastsim.forecast.models.kronos import KronosModel, Sampling, random_kronos

HORIZON = 4


@pytest.fixture(scope="module")
def model() -> KronosModel:
    return random_kronos(CONFIG, TOKENIZER, seed=0, max_context=64, sampling=Sampling(paths=3))


@pytest.fixture(scope="module")
def context() -> Context:
    return Context(bars_of(40, WINDOW), times_of(40, WINDOW))


@torch.no_grad()
def test_forced_laws_are_those_that_paths_are_drawn_by(model, context):
    """The tokens drawn at noise u are those at which the law's own ordered sum passes u."""
    exact = deepcopy(model)
    exact.program.top_p = 1.0
    noise = torch.rand(5, 6, HORIZON, 2, generator=torch.Generator().manual_seed(0))
    rows = context.bars[:5], context.timestamps[:5]
    tokens = exact.tokens(*rows, noise=noise)
    for law, drawn, uniform in zip(
        exact.laws(*rows, tokens=tokens), tokens.paths, noise.unbind(-1), strict=True
    ):
        torch.testing.assert_close(law.sum(-1), torch.ones(5, 6, HORIZON))
        own = law.gather(-1, drawn[..., None])
        likelier = law.masked_fill(law <= own, 0.0).sum(-1)
        as_likely = law.masked_fill(law < own, 0.0).sum(-1)
        assert (likelier <= uniform + 1e-5).all()
        assert (uniform <= as_likely + 1e-5).all()


@torch.no_grad()
def test_paths_are_those_that_quantiles_are_taken_of(model, context):
    rows = context.bars[:5], context.timestamps[:5]
    noise = torch.rand(5, 9, HORIZON, 2, generator=torch.Generator().manual_seed(0))
    paths = model.paths(*rows, noise=noise)
    assert paths.shape == (5, 9, HORIZON)
    wanted = model(*rows, horizon=HORIZON, noise=noise)
    levels = torch.tensor(model.card.levels)
    torch.testing.assert_close(paths.quantile(levels, dim=1).movedim(0, -1), wanted)


def test_shares_below_quantiles_are_their_levels_and_ties_count_half():
    levels = (0.25, 0.5, 0.75)
    paths = torch.arange(5.0)[None, :, None]
    assert share_below(paths, paths, levels)[0, 0].tolist() == pytest.approx([0.3, 0.5, 0.7])
    assert share_below(paths + 9.0, paths, levels)[0, 0].tolist() == [0.0, 0.0, 0.0]
    assert share_below(paths * torch.nan, paths, levels).isnan().all()


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.filterwarnings("ignore:`torch.jit.*is deprecated:DeprecationWarning")
def test_half_precision_is_exported_by_its_law(model, context, precision, tmp_path):
    path = tmp_path / "kronos.pt"
    parity = export(model, path, windows=context, horizon=HORIZON, precision=precision)
    assert 0.0 < parity.agreement.tokens <= TOKENS_BOUND[precision]
    assert parity.agreement.quantiles <= QUANTILES_BOUND
    assert "of the next tokens are others" in str(parity)
    report = json.loads((tmp_path / "kronos.pt.json").read_text())
    assert report["parity"]["agreement"]["tokens"] == parity.agreement.tokens
    assert report["agreement_bounds"] == [TOKENS_BOUND[precision], QUANTILES_BOUND]
    assert load_artifact(path).forecast(context, HORIZON).quantiles.isfinite().all()


def test_the_same_model_agrees_and_another_law_does_not(model, context):
    inputs = [(context.bars, context.timestamps)]
    same = agreement(copied(model, "float32"), model, inputs, HORIZON)
    assert same.tokens == 0.0
    assert same.quantiles < 1.0, "an interpolated quantile of 64 paths is not quite its level"
    hotter = deepcopy(model)
    hotter.program.network.head.proj_s1.weight.data.mul_(3.0)
    assert agreement(hotter, model, inputs, HORIZON).tokens > TOKENS_BOUND["bfloat16"]
    wider = deepcopy(model)
    wider.program.tokenizer.head.bias.data[3] += 1.0
    shifted = agreement(wider, model, inputs, HORIZON)
    assert shifted.tokens == 0.0
    assert shifted.quantiles > QUANTILES_BOUND
    broken = deepcopy(model)
    broken.program.tokenizer.head.bias.data[3] = torch.nan
    assert agreement(broken, model, inputs, HORIZON).quantiles == torch.inf


def test_independent_paths_of_one_law_are_within_the_bound(model):
    """The bound is of honest sampling: two draws of the same normal, over and over."""
    generator = torch.Generator().manual_seed(0)
    beyond = 0
    for _ in range(40):
        found, wanted = (torch.randn(16, PATHS, 64, generator=generator) for _ in "ab")
        share = share_below(found, wanted, model.card.levels)
        beyond += bool((errors_of(share, model.card.levels) > QUANTILES_BOUND).any())
    assert beyond == 0
    found, wanted = (torch.randn(4000, PATHS, 1, generator=generator) for _ in "ab")
    errors = errors_of(share_below(found, wanted, model.card.levels), model.card.levels)
    assert errors.max() < 3.5, "without bias"


def test_what_is_beyond_the_bounds_is_refused_by_name():
    assert draws_paths(random_kronos(CONFIG, TOKENIZER, seed=0), "float16")
    assert not draws_paths(random_kronos(CONFIG, TOKENIZER, seed=0), "float32")
    require_agreement("kronos in float16", Agreement(0.01, 4.5), "float16")
    for met, said in (
        (Agreement(0.011, 0.0), "of its next tokens 0.011 are others"),
        (Agreement(torch.nan, 0.0), "of its next tokens nan are others"),
        (Agreement(0.0, 4.6), "4.6 standard errors"),
    ):
        with pytest.raises(ForecastError, match=said):
            require_agreement("kronos in float16", met, "float16")
