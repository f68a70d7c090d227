"""Options of a fit: what each changes, and that each leaves alone what it should."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fastsim.data.bars import AMOUNT, CLOSE, HIGH, LOW, OPEN, VOLUME, Bars
from fastsim.errors import ConfigError
from fastsim.forecast.digests import fingerprint
from fastsim.forecast.interface import Context
from fastsim.forecast.models.chronos2 import Chronos2Model
from fastsim.forecast.models.prior import load_prior
from fastsim.forecast.models.tirex import TiRexConfig, TiRexModel
from fastsim.forecast.models.toto2 import Toto2Config, Toto2Model
from fastsim.forecast.networks.chronos2_network import Chronos2Config
from fastsim.forecast.networks.nhits import NhitsConfig, NhitsModel
from fastsim.forecast.networks.patch_transformer import (
    PatchTransformerConfig,
    PatchTransformerModel,
)
from fastsim.forecast.training.config import FitConfig, JitterConfig
from fastsim.forecast.training.fit import fit
from fastsim.forecast.training.jitter import jittered
from fastsim.forecast.training.lesson import lesson_of
from fastsim.forecast.training.loop import Loop, Student
from fastsim.forecast.training.recompute import recomputing
from fastsim.forecast.training.series import series_of_bars
from fastsim.forecast.training.split import Look
from fastsim.forecast.training.windows import Windows, seeded, windows_at
from fastsim.progress import SILENT

SMALL = FitConfig(
    mode="full",
    steps=6,
    evaluate_every=3,
    batch_size=16,
    context=64,
    validation_windows=40,
    warmup=1,
    sure=False,
    horizons=(1, 3, 8),
)


def tirex():
    sizes = TiRexConfig(
        blocks=3, width=16, heads=2, block_hidden=16, embedding_hidden=16, patch=8, context=64
    )
    return TiRexModel.random(sizes, 0)


def toto():
    torch.manual_seed(0)
    return Toto2Model(
        Toto2Config(
            patch_size=8, d_model=16, d_ff=16, num_heads=2, num_layers=2, layer_group_size=2
        )
    )


def chronos():
    torch.manual_seed(0)
    sizes = Chronos2Config(
        d_model=16, d_kv=4, d_ff=16, num_layers=2, num_heads=2, context_length=128,
        max_output_patches=4, time_encoding_scale=128, input_patch_size=8,
    )  # fmt: skip
    return Chronos2Model(sizes)


def transformer():
    torch.manual_seed(0)
    return PatchTransformerModel(
        PatchTransformerConfig(width=8, hidden=8, layers=2, decoder=1, dropout=0.2)
    )


LAYERED = {"tirex": tirex, "toto2-4m": toto, "chronos2": chronos, "patch-transformer": transformer}


def bars_of(count=500, assets=2):
    rng = np.random.default_rng(0)
    closes = 100.0 * np.exp((rng.standard_t(4, (count, assets)) * 0.01).cumsum(0))
    days = np.datetime64("2000-01-03", "ns") + np.arange(count) * np.timedelta64(1, "D")
    spread = np.exp(np.abs(rng.standard_normal((count, assets))) * 0.005)
    opens = closes * np.exp(rng.standard_normal((count, assets)) * 0.002)
    return Bars(
        symbols=tuple(f"S{asset}" for asset in range(assets)),
        timestamps=days.astype("datetime64[ns]"),
        open=opens,
        high=np.maximum(closes, opens) * spread,
        low=np.minimum(closes, opens) / spread,
        close=closes,
        volume=np.exp(rng.standard_normal((count, assets))),
    )


@pytest.fixture(autouse=True)
def _few_windows(monkeypatch):
    monkeypatch.setattr("fastsim.forecast.training.comparison.FORGETTING_WINDOWS", 32)


@pytest.mark.parametrize("name", LAYERED)
def test_layers_that_are_worked_out_twice_learn_the_same(name):
    plain, again = (
        fit(LAYERED[name](), bars_of(), replace(SMALL, checkpointing=each), progress=SILENT)
        for each in (False, True)
    )
    for one, two in zip(plain.model.parameters(), again.model.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)
    assert again.report.tried_loss == pytest.approx(plain.report.tried_loss, rel=1e-6)
    assert not any("forward" in vars(module) for module in again.model.modules())


@pytest.mark.parametrize("name", LAYERED)
def test_less_is_held_until_gradients_are_made(name):
    """Bytes of what a forward pass leaves behind for its way back."""
    model = LAYERED[name]().train()
    closes = torch.rand(8, 64) + 100.0

    def held():
        kept = {}

        def remember(tensor):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
            told = model(closes, horizon=8)
        weights = {each.untyped_storage().data_ptr() for each in model.parameters()}
        del told
        return sum(size for place, size in kept.items() if place not in weights)

    plain = held()
    with recomputing(model):
        less = held()
    assert less < 0.75 * plain


MEASURED = """
import re, sys, torch
torch.set_num_threads(1)
from contextlib import nullcontext
from fastsim.forecast.networks.patch_transformer import (
    PatchTransformerConfig, PatchTransformerModel)
from fastsim.forecast.training.recompute import recomputing
config = PatchTransformerConfig(patch=2, width=64, hidden=256, layers=12)
model = PatchTransformerModel(config).train()
def peak_after(rows):
    with recomputing(model) if sys.argv[1] == "less" else nullcontext():
        model(100.0 + torch.rand(rows, 512), horizon=8).mean().backward()
    with open("/proc/self/status") as status:  # what getrusage says begins with the parent's
        return int(re.search(r"VmHWM:\\s+(\\d+)", status.read())[1])
print(-peak_after(1) + peak_after(48))
"""


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_the_peak_of_memory_is_lower():
    def peak(which):
        run = [sys.executable, "-c", MEASURED, which]
        return int(subprocess.run(run, capture_output=True, text=True, check=True).stdout)

    plain, less = peak("plain"), peak("less")
    print(plain, less)
    assert less < 0.7 * plain


def test_networks_without_a_list_of_layers_refuse_it_by_name():
    with pytest.raises(ConfigError, match="checkpointing must be false for fastsim-prior"):
        fit(load_prior(), bars_of(), replace(SMALL, checkpointing=True), progress=SILENT)


@pytest.mark.parametrize("mode", ["full", "head", "lora"])
def test_chronos_is_fitted_in_the_modes_that_it_has(mode):
    config = replace(SMALL, mode=mode, learning_rate=1e-2, steps=30, evaluate_every=15, average=0.5)
    before = fingerprint(chronos())
    model = chronos()
    result = fit(model, bars_of(), config, progress=SILENT)
    assert fingerprint(model) == before
    assert result.report.tried_loss < result.report.start_loss
    changed = {
        name.split(".")[1]
        for name, weight in result.model.spread.named_parameters()
        if "lora" not in name
        and not torch.equal(weight, chronos().get_parameter(name.replace(".base.", ".")))
    }
    assert (
        changed
        == {
            "full": {"encoder", "input_patch_embedding", "output_patch_embedding", "shared"},
            "head": {"output_patch_embedding"},
            "lora": set(),
        }[mode]
    )
    with pytest.raises(ConfigError, match="mode of chronos-2 must be one of full, head, lora"):
        fit(model, bars_of(), replace(config, mode="scratch"), progress=SILENT)


def windows_of(bars, row, look, joined=1):
    return windows_at(series_of_bars(bars), np.array([row]), look, joined)


LOOK = Look(context=20, least=8, horizons=(1, 3))


def test_joined_bars_are_those_of_two():
    bars = bars_of(120, 1)
    found = windows_of(bars, 100, LOOK, joined=2)
    table = bars.table()[:, 0]
    for place in range(20):
        second = 100 - 2 * (19 - place)
        one, two = table[second - 1], table[second]
        wanted = np.empty(6)
        wanted[[OPEN, CLOSE]] = one[OPEN], two[CLOSE]
        wanted[[HIGH, LOW]] = max(one[HIGH], two[HIGH]), min(one[LOW], two[LOW])
        wanted[[VOLUME, AMOUNT]] = one[[VOLUME, AMOUNT]] + two[[VOLUME, AMOUNT]]
        np.testing.assert_allclose(found.context.bars[0, place], wanted, rtol=1e-6)
    came = np.log(table[[102, 106], CLOSE] / table[100, CLOSE])
    np.testing.assert_allclose(found.future[0, 0], came, rtol=1e-4)
    assert bool((found.context.timestamps.diff(dim=1) == 2 * 86_400).all())
    early = windows_of(bars, 10, LOOK, joined=2).context.bars[0, :, CLOSE]
    assert early.isnan().sum() == 14  # six bars of two lie before the eleventh, and one of one
    np.testing.assert_allclose(early[-1], table[10, CLOSE], rtol=1e-6)


def test_returns_are_multiplied_and_bars_keep_their_shape():
    windows = windows_of(bars_of(120, 1), 100, LOOK)
    scale, amplitude = torch.tensor([0.3]).double(), torch.tensor([-0.5]).double()
    found = jittered(windows, scale, amplitude)
    before, after = (each.context.bars[0].double().log() for each in (windows, found))
    factor = after[:, CLOSE].diff() / before[:, CLOSE].diff()
    wanted = (0.3 - 0.5 * torch.linspace(1, 0, 19)).exp().double()
    torch.testing.assert_close(factor, wanted, rtol=1e-2, atol=0)
    torch.testing.assert_close(after[-1, CLOSE], before[-1, CLOSE])
    for field in (OPEN, HIGH, LOW):
        about = (after[:, field] - after[:, CLOSE]) / (before[:, field] - before[:, CLOSE])
        torch.testing.assert_close(about[1:], wanted, rtol=2e-2, atol=1e-3)
    torch.testing.assert_close(after[:, VOLUME:], before[:, VOLUME:])
    torch.testing.assert_close(found.future, windows.future * float(np.exp(0.3)))


def test_no_jitter_changes_nothing():
    windows = windows_of(bars_of(120, 1), 100, LOOK)
    found = jittered(windows, torch.zeros(1).double(), torch.zeros(1).double())
    torch.testing.assert_close(found.context.bars, windows.context.bars, rtol=1e-6, atol=0)
    assert torch.equal(found.future, windows.future)


@pytest.mark.parametrize("changed", [{"scale": 0.2}, {"amplitude": 0.5}, {"time": 0.5}])
def test_jitter_is_of_training_bars_alone(changed):
    bars, card = bars_of(), load_prior().card
    config = replace(SMALL, jitter=JitterConfig(**changed), simulated=0.25)
    plain, other = (
        lesson_of(card, bars, None, each, None)
        for each in (replace(config, jitter=JitterConfig()), config)
    )
    one, two = (each.source.draw(64, seeded(0, "")) for each in (plain, other))
    assert not torch.equal(one.future[:48].nan_to_num(), two.future[:48].nan_to_num()) or (
        not torch.equal(one.context.close[:48].nan_to_num(), two.context.close[:48].nan_to_num())
    )
    for mine, yours in zip(plain.judge.windows, other.judge.windows, strict=True):
        assert torch.equal(mine.context.close.nan_to_num(), yours.context.close.nan_to_num())
        assert torch.equal(mine.future.nan_to_num(), yours.future.nan_to_num())


def test_joined_bars_of_training_end_before_validation():
    """Altering the bars of validation leaves all that is drawn unchanged, joined or not."""
    bars, card = bars_of(), load_prior().card
    config = replace(SMALL, jitter=JitterConfig(time=0.9))
    altered = {name: getattr(bars, name).copy() for name in ("open", "high", "low", "close")}
    for prices in altered.values():
        prices[400:] *= 1.3  # validation is the last fifth
    drawn = [
        lesson_of(card, each, None, config, None).source.draw(256, seeded(1, ""))
        for each in (bars, replace(bars, **altered))
    ]
    assert torch.equal(drawn[0].future, drawn[1].future)
    assert torch.equal(drawn[0].context.close.nan_to_num(), drawn[1].context.close.nan_to_num())


def test_horizons_grow_and_are_all_there_in_the_end(monkeypatch):
    seen = []
    losses = Student.losses

    def spied(student, windows, horizons):
        if torch.is_grad_enabled():
            seen.append((horizons.tolist(), windows.future.shape[-1]))
        return losses(student, windows, horizons)

    monkeypatch.setattr(Student, "losses", spied)
    fit(load_prior(), bars_of(), replace(SMALL, growing=0.5), progress=SILENT)
    wanted = [[1], [1, 3], [1, 3, 8]] + 3 * [[1, 3, 8]]
    assert seen == [(each, len(each)) for each in wanted]


@pytest.mark.parametrize(
    "changed",
    [
        {"growing": 0.9},
        {"jitter": JitterConfig(scale=0.2)},
        {"jitter": JitterConfig(amplitude=0.2)},
        {"jitter": JitterConfig(time=0.3)},
    ],
)
def test_an_option_goes_on_from_where_it_was_stopped(changed, tmp_path, monkeypatch, threads):
    threads(1)
    config = replace(SMALL, **changed)

    def fitted(**given):
        return fit(NhitsModel(NhitsConfig(hidden=8)), bars_of(), config, progress=SILENT, **given)

    config = replace(config, mode="scratch")
    whole = fitted(name="x")
    assert fingerprint(whole.model) != fingerprint(
        fit(
            NhitsModel(NhitsConfig(hidden=8)),
            bars_of(),
            replace(SMALL, mode="scratch"),
            name="x",
            progress=SILENT,
        ).model
    )
    learn = Loop.learn

    def stopping(loop, batches):
        if loop.step == 4:
            raise KeyboardInterrupt
        return learn(loop, batches)

    monkeypatch.setattr(Loop, "learn", stopping)
    with pytest.raises(KeyboardInterrupt):
        fitted(name="x", folder=tmp_path)
    monkeypatch.setattr(Loop, "learn", learn)
    assert fingerprint(fitted(name="x", folder=tmp_path).model) == fingerprint(whole.model)


@pytest.mark.parametrize("wrong", [{"scale": -0.1}, {"amplitude": 1.5}, {"time": 1.0}])
def test_jitter_out_of_range_is_refused(wrong):
    with pytest.raises(ConfigError, match=rf"JitterConfig\.{next(iter(wrong))} must be"):
        JitterConfig(**wrong)


def test_windows_of_several_futures_are_jittered_alike():
    bars = torch.full((2, 10, 6), 100.0)
    bars[..., CLOSE] += torch.rand(2, 10)
    windows = Windows(Context(bars, torch.arange(10).expand(2, -1)), torch.randn(2, 4, 3))
    found = jittered(windows, torch.tensor([0.0, 0.1]).double(), torch.zeros(2).double())
    torch.testing.assert_close(found.future[0], windows.future[0])
    torch.testing.assert_close(found.future[1], windows.future[1] * float(np.exp(0.1)))
