"""A user's own simulated markets: named as fastsim's are, and tried before they are lived in."""

import sys
from dataclasses import dataclass, replace

import gymnasium
import numpy as np
import pytest
import torch
from worlds import random_bars

from fastsim.cli import main, parse
from fastsim.data.sample import sample_bars
from fastsim.errors import ConfigError
from fastsim.experiment.config import TrainConfig
from fastsim.experiment.markets import load_markets
from fastsim.market.tape import TapeConfig
from fastsim.synthetic.config import WorldsConfig
from fastsim.synthetic.fresh import FreshWorlds
from fastsim.synthetic.interface import Paths
from fastsim.synthetic.models import SYNTHETIC_MODELS, SyntheticRecord, fit
from fastsim.synthetic.worlds import make_worlds

HERE = __name__
BARS = random_bars(60, 3, seed=2)


@dataclass(frozen=True, kw_only=True)
class Laplace:
    """Independent log returns with Laplace's law."""

    scale: torch.Tensor  # [A]

    def sample(self, worlds, bars, generator):
        uniform = torch.rand(
            worlds, bars, len(self.scale), generator=generator, dtype=torch.float64
        )
        centred = uniform - 0.5
        steps = -self.scale * centred.sign() * (1.0 - 2.0 * centred.abs()).clamp_min(1e-12).log()
        return Paths(None, None, None, 100.0 * steps.cumsum(1).exp(), None)


def fit_laplace(bars):
    steps = torch.from_numpy(bars.close).log().diff(dim=0)
    return Laplace(scale=steps.nan_to_num(nan=0.0).abs().mean(0))


RECORD = SyntheticRecord(name="laplace", fit=fit_laplace)


def test_a_model_of_ones_own_is_fitted_by_name(monkeypatch):
    expected = fit_laplace(BARS).sample(2, 9, torch.Generator().manual_seed(3)).close
    monkeypatch.setattr(SYNTHETIC_MODELS, "_records", dict(SYNTHETIC_MODELS))
    SYNTHETIC_MODELS.add(RECORD)
    for name in ("laplace", f"{HERE}:RECORD"):
        found = fit(name, BARS).sample(2, 9, torch.Generator().manual_seed(3)).close
        assert torch.equal(found, expected)


def test_a_run_learns_from_its_worlds():
    config = TrainConfig(
        forecaster="none", worlds=WorldsConfig(model=f"{HERE}:RECORD", bars=320, batch=4)
    )
    markets = load_markets(config)
    training = sample_bars("us20").take(slice(0, markets.validation.first))
    expected = make_worlds(fit_laplace(training), 4, 320, seed=5 ^ 1)
    drawn = markets.worlds.draw(5, 1)
    assert drawn.symbols == markets.train.symbols
    torch.testing.assert_close(drawn.known.bars, expected.known.bars, equal_nan=True)
    command = parse(
        [
            "train",
            "--forecaster",
            "none",
            "--worlds.model",
            f"{HERE}:RECORD",
            "--worlds.bars",
            "320",
        ]
    )
    assert command.run.worlds == replace(config.worlds, batch=32)


@pytest.mark.parametrize("name", ["gbm", f"{HERE}:RECORD"])
def test_gymnasium_makes_worlds_like_the_years_that_are_named(name):
    bars = sample_bars("us20")
    years = {"start": "2010-01-01", "end": "2014-12-31"}
    rules = {"num_envs": 4, "tape": {"risk_free_rate": 0.02}, "episode": {"horizon": 20}}
    env = gymnasium.make_vec(
        "fastsim/Portfolio-v0", **rules, **years, worlds={"model": name, "bars": 320, "batch": 4}
    )
    days = bars.timestamps.astype("datetime64[D]").astype(str)
    (rows,) = np.nonzero((days >= years["start"]) & (days <= years["end"]))
    worlds = FreshWorlds(
        model=fit(name, bars.take(slice(rows[0], rows[-1] + 1))),
        bars=320,
        batch=4,
        symbols=bars.symbols,
        config=TapeConfig(risk_free_rate=0.02),
    )
    del rules["tape"]
    other = gymnasium.make_vec("fastsim/Portfolio-v0", market=worlds, **rules)
    (one, _), (two, _) = env.reset(seed=1), other.reset(seed=1)
    assert torch.equal(one, two) and one.abs().sum() > 0
    with pytest.raises(ConfigError, match="worlds are fitted to bars, not to a ready FreshWorlds"):
        gymnasium.make("fastsim/Portfolio-v0", market=worlds, worlds={"model": name})
    with pytest.raises(ConfigError, match="no synthetic model is called 'arima'"):
        gymnasium.make("fastsim/Portfolio-v0", market="us20", worlds={"model": "arima"})


def test_its_facts_are_shown_beside_the_datas(capsys):
    main(["data", "facts", "tech4", "--model", f"{HERE}:RECORD", "--worlds", "2"])
    assert f"{HERE}:RECORD" in capsys.readouterr().out


def saying(answer):
    class Saying:
        def sample(self, worlds, bars, generator):
            return answer(fit_laplace(BARS).sample(worlds, bars, generator))

    return lambda bars: Saying()


def with_a_hole(good):
    close = good.close.clone()
    close[0, 5, 0] = torch.nan
    return good._replace(close=close)


def restless(good):
    return good._replace(close=good.close * (1.0 + torch.rand(1, dtype=torch.float64)))


def failing(good):
    raise RuntimeError("no\nchance")


@pytest.mark.parametrize(
    ("fitted", "message"),
    [
        (lambda bars: None, "fails: AttributeError: 'NoneType' object has no attribute 'sample'"),
        (saying(failing), "fails: RuntimeError: no chance"),
        (saying(lambda good: good.close), "must draw Paths, got Tensor"),
        (saying(lambda good: good._replace(close=None)), "must draw close .* got NoneType"),
        (
            saying(lambda good: good._replace(close=good.close[..., :2])),
            r"must draw close \[worlds, bars, assets\] = \(2, 8, 3\), got \(2, 8, 2\)",
        ),
        (
            saying(lambda good: good._replace(volume=good.close[:, 0])),
            r"must draw volume .* got \(2, 3\)",
        ),
        (saying(with_a_hole), "draws closes that are not finite numbers above 0"),
        (saying(lambda good: good._replace(open=-good.close)), "draws opens that are not"),
        (saying(restless), "draws other worlds from the same seed"),
        (
            saying(lambda good: good._replace(high=0.9 * good.close)),
            "outside of its highs and lows",
        ),
        (saying(lambda good: good._replace(low=1.1 * good.close)), "outside of its highs and lows"),
    ],
)
def test_what_a_model_does_wrong_is_named_in_one_line(fitted, message, monkeypatch):
    record = SyntheticRecord(name="mine", fit=fitted)
    monkeypatch.setattr(sys.modules[HERE], "WRONG", record)
    with pytest.raises(ConfigError, match=message) as caught:
        fit(f"{HERE}:WRONG", BARS)
    assert f"synthetic model '{HERE}:WRONG'" in str(caught.value)
    assert "\n" not in str(caught.value)


WRONG = None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (f"{HERE}:NOTHING", "has no 'NOTHING'"),
        (f"{HERE}:BARS", "is not a synthetic model: it must be a SyntheticRecord, got Bars"),
        ("not_there:record", "not_there cannot be imported"),
        ("arima", "no synthetic model is called 'arima'; there are gbm"),
    ],
)
def test_a_configuration_that_names_no_model_says_so(name, message):
    with pytest.raises(ConfigError, match=message):
        WorldsConfig(model=name)


def test_a_record_that_cannot_be_is_refused():
    with pytest.raises(ConfigError, match=r"SyntheticRecord\.fit of mine must be a function"):
        SyntheticRecord(name="mine", fit=Laplace(scale=torch.ones(2)))
