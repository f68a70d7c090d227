"""What scripted players do, and that they do it from the past alone."""

from dataclasses import replace

import pytest
import torch
from worlds import SHORT_FEATURES, random_bars

from fastsim.env.actions import ACTIONS, actions_for, target_weights
from fastsim.env.config import EnvConfig
from fastsim.env.decide import Seat
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.impact import ImpactConfig
from fastsim.env.nested import take
from fastsim.env.observe import Observation
from fastsim.env.players import (
    SCRIPTED,
    LiquidityProvider,
    MeanReversion,
    Momentum,
    Noise,
    TwapExecutor,
    trailing_score,
)
from fastsim.errors import ConfigError
from fastsim.market.tape import TapeConfig, make_tape

ASSETS, ROWS = 4, 6
TAPE = make_tape(random_bars(assets=ASSETS, holes=True), TapeConfig(features=SHORT_FEATURES))
RULES = EnvConfig(impact=ImpactConfig(transient=1.0), players=2, episode=EpisodeConfig(horizon=30))


def seen(rules=RULES):
    env = PortfolioEnv(TAPE, ROWS, rules)
    env.reset(0)
    return env.step(torch.full((ROWS, ASSETS), 0.1)).observation


def said(player, observation, tape=TAPE, rules=RULES):
    """Target weights of a player, where actions are weights."""
    return Seat(player, tape, rules)(observation)


def with_displacement(observation, values):
    portfolio = observation.portfolio.clone()
    portfolio[:, -ASSETS:] = torch.tensor(values)
    return observation._replace(portfolio=portfolio)


@pytest.mark.parametrize("impact", [ImpactConfig(), RULES.impact])
@pytest.mark.parametrize("name", SCRIPTED)
def test_every_player_asks_for_admissible_weights_row_by_row(name, impact):
    rules = replace(RULES, impact=impact)
    player, observation = SCRIPTED[name], seen(rules)
    weights = said(player, observation, rules=rules)
    assert weights.shape == (ROWS, ASSETS) and weights.dtype == TAPE.dtype
    assert (weights >= 0).all() and (weights.sum(-1) <= 1 + 1e-6).all()
    assert torch.equal(said(player, observation, rules=rules), weights)
    few = torch.arange(2)
    assert torch.equal(said(player, take(observation, few), rules=rules), weights[:2])


@pytest.mark.parametrize("name", SCRIPTED)
def test_no_player_looks_ahead(name):
    observation = seen()
    bar = int(observation.bar.max())
    known = TAPE.known._replace(bars=TAPE.known.bars.clone(), sigma=TAPE.known.sigma.clone())
    known.bars[bar + 1 :] *= 3.0
    known.sigma[bar + 1 :] *= 3.0
    altered = replace(TAPE, known=known)
    assert torch.equal(
        said(SCRIPTED[name], observation, altered), said(SCRIPTED[name], observation)
    )


def test_momentum_and_mean_reversion_lean_opposite_ways():
    observation = seen()
    score = trailing_score(TAPE, observation.bar, 10)
    assert score.isfinite().all()
    best = score.argmax(-1, keepdim=True)
    chased = said(Momentum(lookback=10), observation).gather(1, best)
    leaned = said(MeanReversion(lookback=10), observation).gather(1, best)
    assert (chased > leaned).all()
    flat = said(Momentum(strength=0.0), observation)
    torch.testing.assert_close(flat, torch.full_like(flat, 1 / ASSETS))


def test_twap_buys_in_equal_slices_and_then_holds():
    held = torch.zeros(1, ASSETS)
    bought = []
    for _ in range(7):
        observation = Observation(torch.tensor([50]), held)
        after = said(TwapExecutor(slices=5), observation)
        bought.append(float((after - held).sum()))
        held = after
    assert bought == pytest.approx([0.2] * 5 + [0.0] * 2, abs=1e-6)


def test_a_liquidity_provider_sells_what_others_pushed_up():
    observation = with_displacement(seen(), [1.0, -1.0, 0.0, 5.0])
    weights = said(LiquidityProvider(inventory=0.5, strength=0.5), observation)
    torch.testing.assert_close(weights[0] * ASSETS, torch.tensor([0.0, 1.0, 0.5, 0.0]))


def test_noise_is_its_seed_and_nothing_else():
    observation = seen()
    state = torch.get_rng_state()
    first = said(Noise(pace=1.0), observation)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(said(Noise(pace=1.0, seed=1), observation), first)
    assert len(first.unique()) == ROWS * ASSETS
    many = Observation(torch.arange(40, 100).repeat(100), torch.zeros(6000, ASSETS + 3))
    mean = said(Noise(pace=1.0), many).mean(0)
    torch.testing.assert_close(mean, torch.full((ASSETS,), 1 / (ASSETS + 1)), atol=0.01, rtol=0)


@pytest.mark.parametrize("mode", ["weights", "signed", "logits"])
def test_actions_ask_for_the_weights_they_were_made_from(mode):
    weights = torch.tensor([[0.2, 0.3, 0.0], [0.0, 0.0, 0.0], [0.5, 0.25, 0.25]])
    again, hold = target_weights(actions_for(weights, mode), ACTIONS[mode], 1.0)
    torch.testing.assert_close(again, weights, atol=1e-7, rtol=0)
    assert not hold.any()


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigError, match=r"TwapExecutor\.slices"):
        TwapExecutor(slices=0)
