"""Episodes about some of the assets: which are drawn, how agents are shown them, and the books."""

from dataclasses import replace

import pytest
import torch
from scipy import stats
from worlds import FREE, SHORT_FEATURES, assert_same_bits, random_bars

from fastsim.config import from_mapping, to_mapping
from fastsim.env.actions import ACTIONS, action_width, target_weights
from fastsim.env.config import EnvConfig
from fastsim.env.core import meet
from fastsim.env.decide import Seat
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.impact import ImpactConfig
from fastsim.env.nested import take
from fastsim.env.players import SCRIPTED, Momentum, TwapExecutor, trailing_score
from fastsim.env.random import environment_keys
from fastsim.env.randomize import RandomizeConfig
from fastsim.env.reward import RewardConfig
from fastsim.env.slots import draw_slots, drawn_assets, to_assets, to_slots
from fastsim.errors import ConfigError
from fastsim.market.conditions import conditions_at
from fastsim.market.tape import TapeConfig, make_tape

ASSETS = 5
TAPE = make_tape(
    random_bars(60, ASSETS, seed=3, holes=True),
    TapeConfig(features=SHORT_FEATURES),
    dtype=torch.float64,
)
MODES = ("weights", "signed", "logits")
SOME = RandomizeConfig(assets=(1, 4))
ALL = RandomizeConfig(assets=(ASSETS, ASSETS))


def make(randomize=SOME, rows=64, horizon=8, seed=0, first_env=0, tape=TAPE, **settings):
    config = EnvConfig(randomize=randomize, episode=EpisodeConfig(horizon=horizon), **settings)
    return PortfolioEnv(tape, rows, config, seed=seed, first_env=first_env)


def script(mode="weights", steps=12, rows=64, seed=2):
    shape = (steps, rows, action_width(mode, ASSETS))
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values.abs() if mode == "weights" else values


def said(player, env, seen):
    """Target weights of a player in an environment whose actions they are."""
    return Seat(player, TAPE, env.config)(seen)


def slots_of(rows=6000, bounds=(1, 4), episode=0, seed=0):
    key = environment_keys(seed, torch.arange(rows))
    return draw_slots(bounds, ASSETS, key, torch.full_like(key, episode))


def test_every_number_of_assets_is_as_likely_as_another():
    counts = (slots_of() >= 0).sum(-1).bincount(minlength=ASSETS + 1)
    assert counts[0] == counts[5] == 0
    assert stats.chisquare(counts[1:5]).pvalue > 0.001


def test_every_asset_is_as_likely_in_every_slot_and_after_every_other():
    slots = slots_of(bounds=(ASSETS, ASSETS))
    for slot in range(ASSETS):
        assert stats.chisquare(slots[:, slot].bincount(minlength=ASSETS)).pvalue > 0.001
    pairs = (ASSETS * slots[:, 0] + slots[:, 1]).bincount(minlength=ASSETS**2)
    assert (pairs.view(ASSETS, ASSETS).diagonal() == 0).all()
    assert stats.chisquare(pairs[pairs > 0]).pvalue > 0.001
    assert len(pairs[pairs > 0]) == ASSETS * (ASSETS - 1)


def test_slots_are_a_permutation_cut_short():
    for slots in slots_of(rows=200).tolist():
        shown = [asset for asset in slots if asset >= 0]
        assert slots == shown + [-1] * (ASSETS - len(shown))
        assert len(set(shown)) == len(shown) <= 4
        assert set(shown) <= set(range(ASSETS))


def test_a_draw_is_of_environment_and_episode_alone():
    slots = slots_of(rows=200)
    assert torch.equal(slots_of(rows=200), slots)
    assert torch.equal(slots_of(rows=9), slots[:9])
    for other in (slots_of(rows=200, episode=1), slots_of(rows=200, seed=1)):
        assert (other != slots).any(-1).double().mean() > 0.8


def test_slots_last_an_episode_and_change_with_the_next():
    env = make(horizon=4)
    env.reset(0)
    seen = []
    for action in script(steps=5):
        seen.append(env.state.slots)
        env.step(action)
    assert all(torch.equal(slots, seen[0]) for slots in seen)
    assert (env.state.slots != seen[0]).any(-1).double().mean() > 0.8


def test_players_of_a_market_are_shown_the_same_slots():
    slots = make(players=4).state.slots.view(-1, 4, ASSETS)
    assert (slots == slots[:, :1]).all()
    assert len(slots[:, 0].unique(dim=0)) > 8


def test_going_to_the_slots_and_back_keeps_what_is_shown():
    slots = slots_of(rows=50)
    values = torch.rand(50, ASSETS)
    drawn = drawn_assets(slots, ASSETS)
    assert torch.equal(to_assets(to_slots(values, slots), slots), values * drawn)
    assert torch.equal(drawn.sum(-1), (slots >= 0).sum(-1))
    assert to_slots(values, slots[:, :0]) is values
    assert to_assets(values, slots[:, :0]) is values
    assert drawn_assets(slots[:, :0], ASSETS).all()


@pytest.mark.parametrize("mode", MODES)
def test_what_is_asked_of_masked_slots_is_ignored(mode):
    masked = slots_of(rows=64) < 0
    action = script(mode)[0]
    weights, hold = target_weights(action, ACTIONS[mode], 1.0, masked)
    assert (weights[masked] == 0).all()
    assert not hold.any()
    for noise in (1e30, torch.nan, torch.inf):
        other = action.clone()
        other[:, :ASSETS][masked] = noise
        assert_same_bits(target_weights(other, ACTIONS[mode], 1.0, masked), (weights, hold))
    width = int((~masked[0]).sum())
    kept = torch.cat([action[:1, :width], action[:1, ASSETS:]], dim=-1)  # as if there were no more
    alone, _ = target_weights(kept, ACTIONS[mode], 1.0)
    torch.testing.assert_close(weights[:1, :width], alone)
    action[0, 0] = torch.nan  # the first slot always shows an asset
    assert target_weights(action, ACTIONS[mode], 1.0, masked)[1].tolist() == [True] + [False] * 63


@pytest.mark.parametrize("impact", [ImpactConfig(), ImpactConfig(transient=0.5, permanent=0.1)])
@pytest.mark.parametrize("mode", MODES)
def test_assets_that_are_not_drawn_are_neither_held_nor_traded(mode, impact):
    env = make(action=mode, impact=impact, initial_invested=0.5)
    env.reset(0)
    traded = torch.zeros(64, ASSETS)
    for action in script(mode, steps=30):
        state = env.state
        out = ~drawn_assets(state.slots, ASSETS)
        assert (state.portfolio.holdings[out] == 0).all()
        transition = env.step(action)
        live = ~transition.restarted
        assert (transition.outcome.trade[live][out[live]] == 0).all()
        assert (transition.outcome.holdings[live][out[live]] == 0).all()
        traded += transition.outcome.trade.abs() > 0
        if impact.moves_prices:
            assert (state.displacement.transient[out] == 0).all()
    assert (traded.sum(0) > 0).all()


def test_an_invested_start_is_spread_over_the_drawn_assets_that_are_listed():
    env = make(initial_invested=0.6)
    state = env.state
    listed = TAPE.known.listed[state.episode.bar] & drawn_assets(state.slots, ASSETS)
    share = state.portfolio.holdings / env.config.initial_cash
    expected = 0.6 * listed.double() / listed.sum(-1, keepdim=True).clamp_min(1)
    torch.testing.assert_close(share, expected)
    assert (~listed.any(-1)).any()  # one asset lists late: some begin with cash alone
    torch.testing.assert_close(state.wealth, torch.full_like(state.wealth, 1e6))


def test_the_market_that_rewards_are_measured_against_is_that_of_the_drawn_assets():
    env = make(costs=FREE, reward=RewardConfig(kind="excess_log_growth"))
    state = env.state
    market, _ = meet(env.params, state)
    whole = conditions_at(TAPE, state.episode.bar)
    total = (1.0 + whole.r_before) * (1.0 + whole.r_after) - 1.0
    for row, slots in enumerate(state.slots.tolist()):
        shown = [asset for asset in slots if asset >= 0 and whole.tradable[row, asset]]
        mean = total[row, shown].mean() if shown else torch.tensor(0.0).double()
        torch.testing.assert_close(market.market_return[row], mean)
    alone = (state.slots >= 0).sum(-1) == 1
    tradable = market.tradable.any(-1)
    asked = torch.zeros(64, ASSETS, dtype=torch.float64)
    asked[:, 0] = 1.0
    bar = state.episode.bar
    overnight = TAPE.next["r_before"][bar].gather(1, state.slots[:, :1]).log1p()[:, 0]
    reward = env.step(asked).reward  # all in one asset is its market, but for the night in cash
    rows = alone & tradable
    assert rows.sum() > 8
    torch.testing.assert_close(reward[rows], -overnight[rows])


@pytest.mark.parametrize("mode", MODES)
def test_all_assets_in_another_order_are_the_same_episode(mode):
    settings = {"action": mode, "max_gross": 1.5 if mode == "signed" else 1.0}
    plain, shuffled = make(RandomizeConfig(), **settings), make(ALL, **settings)
    assert (plain.reset(0).bar == shuffled.reset(0).bar).all()
    for action in script(mode, steps=20):
        slots = shuffled.state.slots
        asked = torch.cat([action[:, :ASSETS].gather(1, slots), action[:, ASSETS:]], dim=-1)
        one, other = plain.step(action), shuffled.step(asked)
        torch.testing.assert_close(one.outcome.wealth, other.outcome.wealth, rtol=1e-9, atol=0)
        torch.testing.assert_close(one.reward, other.reward, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_a_subset_is_the_market_of_its_assets_alone(mode):
    env = make(action=mode, rows=1, first_env=3, horizon=20)
    slots = env.state.slots[0]
    shown = slots[slots >= 0]
    assert 1 < len(shown) < ASSETS
    known = TAPE.known._replace(
        **{name: getattr(TAPE.known, name)[:, shown] for name in TAPE.known._fields}
    )
    following = TAPE.next.each(lambda table: table[:, shown] if table.dim() > 1 else table)
    symbols = tuple(TAPE.symbols[asset] for asset in shown)
    small = make(
        RandomizeConfig(),
        tape=replace(TAPE, symbols=symbols, known=known, next=following),
        rows=1,
        first_env=3,
        horizon=20,
        action=mode,
    )
    for action in script(mode, steps=20, rows=1):
        asked = torch.cat([action[:, : len(shown)], action[:, ASSETS:]], dim=-1)
        one, other = env.step(action), small.step(asked)
        torch.testing.assert_close(one.outcome.wealth, other.outcome.wealth, rtol=1e-9, atol=0)
        held = one.observation.portfolio[:, : len(shown)]
        torch.testing.assert_close(held, other.observation.portfolio[:, : len(shown)])


def test_an_environment_alone_equals_its_row_in_the_batch():
    both = replace(SOME, volatility=(0.5, 2.0))
    batch, alone = make(both), make(both, rows=1, first_env=7)
    for action in script():
        many, one = batch.step(action), alone.step(action[7:8])
        torch.testing.assert_close(one.reward, many.reward[7:8], rtol=1e-12, atol=0)
        columns = batch.columns(many.observation)[7:8]
        torch.testing.assert_close(alone.columns(one.observation), columns)


def named(env, observation):
    return dict(zip(env.observation_names, env.columns(observation).T, strict=True))


def test_columns_are_those_of_the_asset_in_the_slot():
    impact = ImpactConfig(transient=0.5)
    env, plain = make(impact=impact), make(RandomizeConfig(), impact=impact)
    for action in script(steps=3):
        observation = env.step(action).observation
    columns, slots = named(env, observation), env.state.slots
    features = TAPE.known.features[observation.bar]  # [N, A, F]
    state = env.state
    weights = state.portfolio.holdings / state.wealth[:, None]
    moved = 100.0 * state.displacement.transient
    assert moved.abs().max() > 1e-3
    for slot in range(ASSETS):
        shows, asset = slots[:, slot] >= 0, slots[:, slot].clamp_min(0)[:, None]
        for number, name in enumerate(TAPE.feature_names):
            expected = features[..., number].gather(1, asset)[:, 0] * shows
            torch.testing.assert_close(columns[f"slot{slot}.{name}"], expected)
        for name, values in (("weight", weights), ("displacement", moved)):
            expected = values.gather(1, asset)[:, 0] * shows
            torch.testing.assert_close(columns[f"{name}.slot{slot}"], expected)
    assert len(env.observation_names) == len(plain.observation_names)
    assert "weight.cash" in columns


def test_a_window_shows_the_bars_of_the_assets_in_the_slots():
    rules = {"observation": "window", "window_length": 4}
    env, plain = make(**rules), make(RandomizeConfig(), **rules)
    columns, whole = named(env, env.reset(0)), named(plain, plain.reset(0))
    slots = env.state.slots
    for age in (3, 1, 0):
        for channel in ("open", "close", "volume"):
            by_asset = torch.stack(
                [whole[f"{symbol}.{channel}.{-age}"] for symbol in TAPE.symbols], dim=-1
            )
            for slot in range(ASSETS):
                expected = to_slots(by_asset, slots)[:, slot]
                torch.testing.assert_close(columns[f"slot{slot}.{channel}.{-age}"], expected)


def test_the_last_observation_of_an_episode_shows_its_own_slots():
    env = make(autoreset="same_step", horizon=3)
    env.reset(0)
    for action in script(steps=3):
        before = env.state.slots
        transition = env.step(action)
    assert transition.truncated.all()
    assert torch.equal(transition.final_observation.view.slots, before)
    assert torch.equal(transition.observation.view.slots, env.state.slots)
    assert not torch.equal(env.state.slots, before)


@pytest.mark.parametrize("name", SCRIPTED)
def test_scripted_players_ask_for_nothing_where_nothing_is_shown(name):
    env = make(impact=ImpactConfig(transient=0.5))
    for action in script(steps=3):
        observation = env.step(action / 20).observation
    weights = said(SCRIPTED[name], env, observation)
    assert (weights[observation.view.slots < 0] == 0).all()
    assert (weights >= 0).all() and (weights.sum(-1) <= 1 + 1e-9).all()
    assert weights.sum() > 0
    few = torch.arange(2)
    assert torch.equal(said(SCRIPTED[name], env, take(observation, few)), weights[:2])


def test_scripted_players_go_by_the_asset_in_the_slot():
    env = make(ALL)
    observation = env.reset(0)
    plain = said(Momentum(lookback=5), env, observation._replace(view=None))
    slots = observation.view.slots
    torch.testing.assert_close(said(Momentum(lookback=5), env, observation), plain.gather(1, slots))
    score = trailing_score(TAPE, observation.bar, 5)
    assert score.abs().max() > 0.1
    few = make()
    some = few.reset(0)
    bought = said(TwapExecutor(slices=1), few, some)
    shown = some.view.slots >= 0
    torch.testing.assert_close(bought, shown / shown.sum(-1, keepdim=True).double())


@pytest.mark.parametrize("bounds", [(0, 2), (3, 2), (2,), (1, 2, 3), (1.0, 2.0), (True, 2)])
def test_numbers_of_assets_that_make_no_sense_are_errors(bounds):
    with pytest.raises(ConfigError, match=r"RandomizeConfig\.assets must be"):
        RandomizeConfig(assets=bounds)


def test_more_assets_than_there_are_is_an_error():
    with pytest.raises(ConfigError, match="up to 6 assets of a market of 5"):
        make(RandomizeConfig(assets=(2, 6)))


def test_numbers_of_assets_survive_a_configuration_file():
    config = EnvConfig(randomize=SOME)
    assert from_mapping(EnvConfig, to_mapping(config)) == config
