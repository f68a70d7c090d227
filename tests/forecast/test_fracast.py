"""Fracast: real weights of another maker, everywhere."""

import sys

import numpy as np
import pytest
import torch
from forecasters import random_context
from fracast import FracastModel as Official

from fastsim.errors import ForecastError
from fastsim.forecast.interface import ModuleForecaster
from fastsim.forecast.registry import load_forecaster


def test_it_forecasts_what_its_own_package_does():
    context = random_context(3, length=256)
    context.bars[1, :100] = torch.nan
    ours = load_forecaster("fracast").forecast(context, 21).quantiles.numpy()
    official = Official.from_pretrained(weights="fp32").forecast_batch(
        context.close.numpy(), horizon=21
    )
    np.testing.assert_allclose(ours, np.sort(official, axis=-1), rtol=1e-6)


def test_its_weights_are_real_and_have_the_size_that_the_card_says():
    forecaster = load_forecaster("fracast")
    assert isinstance(forecaster, ModuleForecaster)
    official = Official.from_pretrained(weights="fp32")
    modules = (official.core, official.head)
    count = sum(weight.numel() for module in modules for weight in module.parameters())
    assert count == forecaster.card.parameters


def test_a_season_is_seen_and_continued():
    steps = torch.arange(512)
    context = random_context(1, length=512)
    wave = 100 + 10 * torch.sin(2 * torch.pi * steps / 16)
    context.bars[:] = wave[None, :, None]
    median = load_forecaster("fracast").forecast(context, 16).median[0]
    expected = 100 + 10 * torch.sin(2 * torch.pi * (512 + torch.arange(16)) / 16)
    assert float((median - expected).abs().max()) < 3.0


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "fracast", None)
    with pytest.raises(ForecastError, match=r"fastsim-rl\[fracast\]"):
        load_forecaster("fracast")
