"""Keys: whatever changes an answer changes the key, by the way that keys are made."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
import torch
from forecasters import CARD, Counting, TinyModel, random_context

from fastsim.data.sample import sample_bars
from fastsim.errors import ConfigError
from fastsim.forecast.artifacts.export import export, load_artifact
from fastsim.forecast.cache import ForecastCache, MarketForecasts
from fastsim.forecast.ensemble import Ensemble
from fastsim.forecast.foreign import ForeignForecaster
from fastsim.forecast.interface import Identity, ModuleForecaster
from fastsim.forecast.models.baselines import (
    EwmaVolatility,
    GaussianRandomWalk,
    TrailingVolatility,
    ewma_random_walk,
    trailing_random_walk,
)
from fastsim.forecast.models.classical import auto_ets, garch_t, theta
from fastsim.forecast.models.fracast import load_fracast
from fastsim.forecast.models.kronos import Sampling, random_kronos
from fastsim.forecast.models.prior import load_prior
from fastsim.forecast.models.tirex import TiRexConfig, TiRexModel
from fastsim.forecast.models.tirex2 import official_settings, random_tirex2
from fastsim.forecast.models.toto import TotoConfig, TotoModel
from fastsim.forecast.models.toto2 import Toto2Config, Toto2Model
from fastsim.forecast.networks.kronos_network import KronosConfig
from fastsim.forecast.networks.kronos_tokenizer import TokenizerConfig
from fastsim.forecast.recalibration.recalibrated import (
    KNOTS,
    LevelMap,
    Recalibrated,
    normal_scores,
)
from fastsim.market.tape import make_tape

TIREX = TiRexConfig(
    blocks=1, width=16, heads=2, block_hidden=16, embedding_hidden=16, patch=8, context=64
)
TOTO2 = Toto2Config(
    patch_size=16, d_model=32, d_ff=48, num_heads=2, num_layers=2, layer_group_size=2
)
TOTO = TotoConfig(
    patch_size=16,
    embed_dim=32,
    num_layers=2,
    num_heads=2,
    mlp_hidden_dim=48,
    spacewise_every_n_layers=2,
    k_components=3,
)
TIREX2 = official_settings(blocks=2, width=64, hidden=64, patch=8, context=128, horizon=32)
KRONOS = {"d_model": 16, "n_heads": 2, "ff_dim": 24, "s1_bits": 4, "s2_bits": 3}


def seeded(make):
    torch.manual_seed(0)
    return make()


def kronos(**sampling):
    return random_kronos(
        KronosConfig(n_layers=1, **KRONOS),
        TokenizerConfig(group_size=7, n_enc_layers=2, n_dec_layers=2, **KRONOS),
        seed=0,
        max_context=64,
        sampling=Sampling(**sampling),
    )


def recalibrated(factor):
    maps = factor * normal_scores(KNOTS, torch.zeros(0))[None]
    levels = LevelMap(torch.tensor([1]), maps)
    return Recalibrated(trailing_random_walk(), levels, name="wide", known_until=None)


def artifact(tmp_path):
    path = tmp_path / "tiny.pt"
    export(TinyModel(), path, windows=random_context(33), horizon=4, precision="float32")
    return load_artifact(path)


FORECASTERS = {
    "prior": lambda _: ModuleForecaster(load_prior()),
    "tirex": lambda _: ModuleForecaster(TiRexModel.random(TIREX, 0)),
    "tirex2": lambda _: ModuleForecaster(random_tirex2(TIREX2, 0)),
    "toto": lambda _: ModuleForecaster(seeded(lambda: TotoModel(TOTO))),
    "toto2": lambda _: ModuleForecaster(seeded(lambda: Toto2Model(TOTO2))),
    "kronos": lambda _: ModuleForecaster(kronos()),
    "fracast": lambda _: ModuleForecaster(load_fracast()),
    "walk": lambda _: trailing_random_walk(),
    "ewma": lambda _: ewma_random_walk(),
    "garch": lambda _: garch_t(),
    "ets": lambda _: auto_ets(),
    "theta": lambda _: theta(),
    "ensemble": lambda _: Ensemble([trailing_random_walk(), ewma_random_walk()]),
    "recalibrated": lambda _: recalibrated(2.0),
    "artefact": artifact,
}


OF_TRAINING_DATA = ("known_until", "known_source", "trials")
"""Fields of a card that no forecast depends on, as `test_seen.py` and `test_tune.py` say."""


def other(value: Any) -> Any:
    """Another value of the same kind."""
    if value is None or isinstance(value, str):
        return f"{value}x"
    if isinstance(value, bool):
        return not value
    if isinstance(value, dict):
        return value | {"x": 1}
    if isinstance(value, tuple) and value and isinstance(value[0], float):
        return (*value[:-1], (value[-1] + 1.0) / 2)  # levels: still increasing
    return (*value, "x") if isinstance(value, tuple | list) else value + 1


def variants(record: Any) -> list[tuple[str, Any]]:
    """The record with each of its fields changed in turn, and each within those it is made of."""
    changed = []
    for field in fields(record):
        if field.name in OF_TRAINING_DATA:
            continue
        value = getattr(record, field.name)
        if is_dataclass(value):
            inner = variants(value)
        elif isinstance(value, dict):
            inner = [(name, value | {name: other(held)}) for name, held in value.items()]
            inner.append(("", other(value)))
        else:
            inner = [("", other(value))]
        changed += [
            (f"{field.name}.{name}".rstrip("."), replace(record, **{field.name: new}))
            for name, new in inner
        ]
    return changed


@pytest.mark.parametrize("name", FORECASTERS)
def test_every_field_of_what_a_forecaster_is_is_in_its_key(name, tmp_path):
    forecaster = FORECASTERS[name](tmp_path)
    assert isinstance(forecaster.identity, Identity)
    assert forecaster.key == forecaster.identity.key
    found = variants(forecaster.identity)
    assert {path.partition(".")[0] for path, _ in found} == {
        field.name for field in fields(Identity)
    }
    keys = [forecaster.key, *(record.key for _, record in found)]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("name", [name for name in FORECASTERS if name != "artefact"])
def test_the_same_forecaster_made_twice_has_one_key(name, tmp_path):
    assert FORECASTERS[name](tmp_path).key == FORECASTERS[name](tmp_path).key


LEVELS = (0.25, 0.5, 0.75)


class Louder(TinyModel):
    """The same weights, in other code."""


def walk(volatility):
    return GaussianRandomWalk(name="walk", volatility=volatility, min_context=3)


def toto2(**settings):
    model = seeded(lambda: Toto2Model(replace(TOTO2, **settings)))
    if "num_heads" not in settings:
        model.load_state_dict(seeded(lambda: Toto2Model(TOTO2)).state_dict())
    return ModuleForecaster(model)


def tirex(*, pad):
    return ModuleForecaster(TiRexModel.random(TIREX, 0, pad=pad))


def both(weights, **settings):
    return Ensemble([trailing_random_walk(), ewma_random_walk()], weights, **settings)


def foreign(forecaster, revision="1"):
    return ForeignForecaster(forecaster, "mine", revision)


@pytest.mark.parametrize(
    ("one", "another"),
    [
        (trailing_random_walk, lambda: trailing_random_walk(levels=LEVELS)),
        (trailing_random_walk, lambda: trailing_random_walk(61)),
        (lambda: recalibrated(2.0), lambda: recalibrated(2.000001)),
        (ewma_random_walk, lambda: ewma_random_walk(levels=LEVELS)),
        (lambda: ewma_random_walk(0.94), lambda: ewma_random_walk(0.940000001)),
        (
            lambda: walk(TrailingVolatility(window=60)),
            lambda: walk(TrailingVolatility(window=20)),
        ),
        (lambda: walk(TrailingVolatility(window=60)), lambda: walk(EwmaVolatility())),
        (garch_t, lambda: garch_t(levels=LEVELS)),
        (garch_t, lambda: garch_t(paths=500)),
        (garch_t, lambda: garch_t(seed=1)),
        (garch_t, lambda: garch_t(drift=True)),
        (theta, lambda: theta(levels=LEVELS)),
        (lambda: ModuleForecaster(TinyModel(0)), lambda: ModuleForecaster(TinyModel(1))),
        (
            lambda: ModuleForecaster(TinyModel()),
            lambda: ModuleForecaster(TinyModel(), precision="bfloat16"),
        ),
        (
            lambda: ModuleForecaster(TinyModel()),
            lambda: ModuleForecaster(TinyModel(), revision="2"),
        ),
        (lambda: ModuleForecaster(TinyModel()), lambda: ModuleForecaster(Louder())),
        (lambda: ModuleForecaster(kronos()), lambda: ModuleForecaster(kronos(seed=1))),
        (lambda: ModuleForecaster(kronos()), lambda: ModuleForecaster(kronos(top_p=0.8))),
        (lambda: ModuleForecaster(kronos()), lambda: ModuleForecaster(kronos(paths=4))),
        (toto2, lambda: toto2(norm_eps=1e-3)),
        (toto2, lambda: toto2(residual_mult=0.5)),
        (toto2, lambda: toto2(num_heads=1)),
        (lambda: tirex(pad=True), lambda: tirex(pad=False)),
        (lambda: both([1.0, 1.0]), lambda: both([1.0, 2.0])),
        (lambda: both([1.0, 1.0]), lambda: both([1.0, 1.0], on_failure="stop")),
        (lambda: foreign(Counting()), lambda: foreign(Counting(), revision="2")),
        (lambda: foreign(Counting()), lambda: foreign(Counting(levels=LEVELS))),
    ],
)
def test_other_answers_have_other_keys(one, another):
    assert one().key != another().key


def test_a_shared_cache_does_not_answer_one_walk_with_the_other(tape):
    cache = ForecastCache()
    levels = [
        MarketForecasts(tape, walk, context_length=64, horizon=3, cache=cache).at(200).quantiles
        for walk in (trailing_random_walk(), trailing_random_walk(levels=LEVELS))
    ]
    assert [part.shape[-1] for part in levels] == [13, 3]


@pytest.fixture(scope="module")
def tape():
    return make_tape(sample_bars("tech4").take(slice(0, 300)))


def test_a_walk_whose_rule_hides_its_settings_is_refused():
    with pytest.raises(ConfigError, match="volatility must be a dataclass that can be called"):
        walk(lambda gaps: gaps.last)


def test_a_setting_that_is_no_plain_value_is_refused():
    with pytest.raises(TypeError, match="a setting must be a plain value"):
        _ = Identity(card=CARD, settings={"rule": object()}).key
