"""Every weight counts: against the official packages, a hundredth more of any one is seen.

Two networks that share their weights can agree because a weight is never read, or stands at the one
or zero where it started. Here each parameter of ours is multiplied by 1.01 in turn, and the
comparison with the official forecast has to fail; what provably cannot matter is listed with why.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import test_chronos2
import test_kronos
import test_timesfm
import test_tirex
import test_tirex2
import test_toto
import test_toto2
import torch
from forecasters import deviations, spread_out, with_gaps
from torch import Tensor, nn

from fastsim.forecast.models.kronos import fill_bars, normalise
from fastsim.forecast.models.tirex import TiRexModel, read_checkpoint
from fastsim.forecast.models.tirex2 import random_tirex2
from fastsim.forecast.models.toto import TotoModel, enlarge, standardise
from fastsim.forecast.networks.kronos_network import Kronos
from fastsim.forecast.networks.kronos_tokenizer import KronosTokenizer

MORE = 1.01


class Case(SimpleNamespace):
    """A network of ours, and how far its answers are off the official ones in what it is read in.

    `margin` is what rounding explains; `idle` are patterns of parameters that no answer depends on,
    each with the reason. If `spared`, every second row of a parameter stays: where a norm follows,
    more of all of it would be divided out.
    """

    spared: bool = False
    network: nn.Module
    off_by: Callable[[], float]
    margin: float
    idle: dict[str, str]


def largest(*pairs: tuple[Tensor, Tensor]) -> float:
    return max(float((ours - theirs).abs().max()) for ours, theirs in pairs)


def tirex(folder) -> Case:
    path = folder / "model.ckpt"
    test_tirex.save_checkpoint(TiRexModel.random(test_tirex.SMALL, seed=1), path)
    ours = read_checkpoint(path)
    official = test_tirex.load_official(path, pad=True)
    closes = test_tirex.walks(4, 150)
    closes[1, :40] = closes[2, 60:75] = math.nan
    expected = test_tirex.official_quantiles(official, closes, 64)
    deviation = closes[0].std()

    def off_by() -> float:
        ours.tabulate_padding()
        return largest((ours(closes, horizon=64) / deviation, expected / deviation))

    return Case(network=ours, off_by=off_by, margin=1e-5, idle={})


def tirex2(folder) -> Case:
    ours = random_tirex2(test_tirex2.TINY, seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, weight in ours.network.named_parameters():
        scale = 0.3 if "gate" in name or "recurrent" in name else 0.05
        weight.add_(scale * torch.randn(weight.shape, generator=generator))
    spread_out(ours.network)
    test_tirex2.save(ours.network, folder)
    context = test_tirex2.some_that_trend()
    expected = test_tirex2.official(test_tirex2.imported(), folder, list(context.close), horizon=20)
    return Case(
        network=ours.network,
        off_by=lambda: test_tirex2.off_by(ours(context.close, horizon=20), expected, context),
        margin=5e-6,
        idle={
            r"variate_mixer|combination": "mixes variates, and there is one",
        },
    )


def toto(folder) -> Case:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "xFormers", ImportWarning)
        from toto.model.toto import Toto  # noqa: PLC0415
    torch.manual_seed(0)
    official = spread_out(Toto(**test_toto.official_settings(test_toto.SMALL)).eval())
    ours = TotoModel(test_toto.SMALL).eval()
    ours.load_state_dict(official.state_dict())
    close = test_toto.walks(3, 128)
    state = enlarge(close.double())
    series, known = close[:, None], torch.ones(3, 1, 128, dtype=torch.bool)
    together = torch.zeros(3, 1, 128, dtype=torch.int)
    base, *_ = official.model(series, known, together, None, 128)
    kind, part = base.mixture_distribution, base.component_distribution
    patch = test_toto.SMALL.patch_size
    expected = [x[:, 0, -patch:] for x in (kind.probs, part.df, part.loc, part.scale)]

    def off_by() -> float:
        scaled, *_ = standardise(state.values, state.known, state.near, patch)
        return largest(*zip(ours.model(scaled.float()), expected, strict=True))

    return Case(network=ours, off_by=off_by, margin=5e-6, idle={})


def toto2(folder) -> Case:
    import toto2 as package  # noqa: PLC0415

    official = test_toto2.official_model(package, test_toto2.SMALL)
    ours = test_toto2.ours_from(official, test_toto2.SMALL)
    close = test_toto2.walks(3, 160)
    close[1, 40:90] = math.nan
    expected = test_toto2.official_forecast(official, close, 64)
    deviation = test_toto2.walks(3, 160).std()
    return Case(
        network=ours,
        off_by=lambda: largest((ours(close, horizon=64) / deviation, expected / deviation)),
        margin=1e-5,
        idle={
            r"layers\.[13]\.attn\._pds": "scales queries across variates, and there is one",
        },
    )


def chronos2(folder) -> Case:
    official = test_chronos2.official_network(test_chronos2.SMALL)
    ours = test_chronos2.ours_from(official, test_chronos2.SMALL)
    series = with_gaps(100)
    together = {"group_ids": test_chronos2.GROUP}
    expected = test_chronos2.official_quantiles(official, series, 32, **together)

    def off_by() -> float:
        found = ours.quantiles(series, 32, group=test_chronos2.GROUP)
        return float(deviations(found, expected, series).max())

    return Case(network=ours.network, off_by=off_by, margin=1e-5, idle={})


def timesfm(folder) -> Case:
    official = test_timesfm.official_network(test_timesfm.SMALL)
    ours = test_timesfm.ours_from(official, test_timesfm.SMALL)
    series = with_gaps(100, step=4.0)
    expected = test_timesfm.official_quantiles(official, series, 40)
    return Case(
        network=ours.network,
        off_by=lambda: float(deviations(ours(series, horizon=40), expected, series).max()),
        margin=1e-5,
        spared=True,
        idle={},
    )


def kronos(folder) -> Case:
    official = test_kronos.official_network(test_kronos.CONFIG)
    ours = Kronos(test_kronos.CONFIG).eval()
    ours.load_state_dict(official.state_dict())
    generator = torch.Generator().manual_seed(2)
    tokens = tuple(torch.randint(2**6, (6, 40), generator=generator) for _ in "12")
    times = test_kronos.START + torch.randint(10**8, (6, 40), generator=generator)
    stamps, known = test_kronos.calendar(times), torch.ones(6, 40, dtype=torch.bool)
    drawn = torch.randint(2**6, (6, 1), generator=generator)
    first, context = official.decode_s1(*tokens, stamps.float())
    second = official.decode_s2(context, drawn)[:, -1:]

    def off_by() -> float:
        hidden, memory = ours(tokens, stamps, known)
        nothing = memory[-1][:, :, :, None, :0]
        found = ours.logits_s2(hidden[:, None, -1:], drawn, memory[-1], nothing, known)
        return largest((ours.head.proj_s1(hidden), first), (found, second))

    return Case(
        network=ours,
        off_by=off_by,
        margin=5e-6,
        idle={
            r"^dep_layer\.cross_attn\.k_proj\.bias": "its keys carry no position, so it adds the "
            "same to every score of a query, which softmax does not see",
        },
    )


def kronos_tokenizer(folder) -> Case:
    official = test_kronos.official_tokenizer(test_kronos.TOKENIZER)
    ours = KronosTokenizer(test_kronos.TOKENIZER).eval()
    ours.load_state_dict(official.state_dict())
    normal, *_ = normalise(*fill_bars(test_kronos.bars_of(4, 40)))
    known = torch.ones(4, 40, dtype=torch.bool)
    seen: dict[str, Tensor] = {}
    for name, network in (("ours", ours), ("theirs", official)):
        network.quant_embed.register_forward_hook(
            lambda _module, _inputs, out, name=name: seen.__setitem__(name, out)
        )
    tokens = official.encode(normal, half=True)
    expected = official.decode(list(tokens), half=True)[:, 30:]
    trunk = tuple(part[:, :30] for part in tokens)
    branch = tuple(part[:, None, 30:] for part in tokens)

    def off_by() -> float:
        """Of what the signs of tokens are taken from, and of the bars that tokens become."""
        ours(normal, known)
        decoded = ours.decode(trunk, branch, known[:, :30])[:, 0]
        return largest((seen["ours"], seen["theirs"]), (decoded, expected))

    return Case(
        network=ours,
        off_by=off_by,
        margin=3e-6,
        idle={
            r"^post_quant_embed_pre": "decodes coarse tokens alone, in the training loss",
        },
    )


@pytest.mark.parametrize(
    "make",
    [tirex, tirex2, toto, toto2, chronos2, timesfm, kronos, kronos_tokenizer],
    ids=lambda make: make.__name__,
)
@torch.no_grad()
def test_a_hundredth_more_of_any_weight_is_seen(make, tmp_path):
    case = make(tmp_path)
    assert case.off_by() < case.margin
    quiet = []
    for name, weight in case.network.named_parameters():
        kept = weight.clone()
        (weight[1::2] if case.spared else weight).mul_(MORE)
        if case.off_by() < 3 * case.margin:
            quiet.append(name)
        weight.copy_(kept)
    listed = [
        name
        for name, _ in case.network.named_parameters()
        if any(re.search(pattern, name) for pattern in case.idle)
    ]
    assert quiet == listed
    assert all(any(re.search(pattern, name) for name in listed) for pattern in case.idle)
    assert case.off_by() < case.margin, "the weights are put back"
