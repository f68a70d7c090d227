"""Players who share a market: they meet the same bars, and each keeps books of its own."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from worlds import FREE, SHORT_FEATURES, random_bars

from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.impact import ImpactConfig, mean_price
from fastsim.errors import ConfigError
from fastsim.learn.ppo.config import PPOConfig
from fastsim.learn.rollout import CollectConfig
from fastsim.learn.trainer import Trainer
from fastsim.market.costs import CostConfig, total
from fastsim.market.tape import TapeConfig, make_tape
from fastsim.policy.spec import PolicyConfig

ASSETS, PLAYERS, MARKETS = 3, 4, 5
ROWS = PLAYERS * MARKETS
TAPE = make_tape(
    random_bars(assets=ASSETS), TapeConfig(features=SHORT_FEATURES), dtype=torch.float64
)
RULES = EnvConfig(
    players=PLAYERS,
    impact=ImpactConfig(transient=2.0, permanent=0.5),
    episode=EpisodeConfig(horizon=12),
)


def weights(steps, rows=ROWS, seed=0):
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(steps, rows, ASSETS, generator=generator, dtype=torch.float64)
    return drawn / ASSETS


def per_market(values):
    return values.view(MARKETS, PLAYERS, *values.shape[1:])


@pytest.mark.parametrize("autoreset", ["next_step", "same_step"])
def test_players_of_a_market_share_its_bars_and_restarts(autoreset):
    staggered = replace(RULES.episode, staggered=True)
    env = PortfolioEnv(TAPE, ROWS, replace(RULES, episode=staggered, autoreset=autoreset))
    observations, restarts = [env.reset(0)], 0
    for action in weights(40):
        transition = env.step(action)
        observations.append(transition.observation)
        ended = transition.truncated if autoreset == "same_step" else transition.restarted
        together = per_market(ended)
        assert torch.equal(together, together[:, :1].expand_as(together))
        restarts += int(together[:, 0].sum())
    for observation in observations:
        bars = per_market(observation.bar)
        assert torch.equal(bars, bars[:, :1].expand_as(bars))
        moved = per_market(observation.portfolio[:, -ASSETS:])
        assert torch.equal(moved, moved[:, :1].expand_as(moved))
    assert restarts > 2 * MARKETS
    assert len(set(observations[0].bar.tolist())) > 1


def test_a_restarted_market_is_undisturbed():
    env = PortfolioEnv(TAPE, ROWS, RULES)
    env.reset(0)
    for action in weights(12):
        transition = env.step(action)
    assert (transition.observation.portfolio[:, -ASSETS:] != 0).any()
    state = env.step(weights(1)[0])
    assert state.restarted.all()
    assert (state.observation.portfolio[:, -ASSETS:] == 0).all()
    assert torch.equal(env.state.wealth, torch.full((ROWS,), 1e6).double())


def crash_tape(dtype=torch.float64):
    """Asset 0 is worth ten times as much for two bars; nothing else ever moves."""
    close = np.full((60, ASSETS), 50.0)
    close[30:32, 0] = 500.0
    bars = replace(random_bars(60, ASSETS), close=close, open=None, high=None, low=None)
    tape = make_tape(bars, TapeConfig(features=SHORT_FEATURES), dtype=dtype)
    return tape.between(slice(24, 50))


@pytest.mark.parametrize("moving", [True, False])
def test_a_ruined_player_is_terminated_once_and_begins_again_with_its_market(moving):
    impact = ImpactConfig(transient=0.01 if moving else 0.0)
    episode = EpisodeConfig(horizon=20, random_start=False)
    rules = EnvConfig(players=2, action="signed", costs=FREE, impact=impact, episode=episode)
    env = PortfolioEnv(crash_tape(), 4, rules)
    env.reset(0)
    short = torch.zeros(4, ASSETS).double()
    short[0, 0] = -1.0  # the first player of the first market is short of what multiplies
    record = [env.step(short) for _ in range(22)]
    terminated, reward = (
        torch.stack([getattr(step, name) for step in record]) for name in ("terminated", "reward")
    )
    assert terminated.sum(0).tolist() == [1, 0, 0, 0]
    ruin = int(terminated[:, 0].nonzero())
    assert reward[ruin, 0] <= -10
    for step in record[ruin + 1 : 20]:  # the price is back, the account is not
        assert float(step.outcome.trade[0].abs().sum()) == 0.0
        assert float(step.reward[0]) == 0.0 and float(step.outcome.wealth[0]) == 0.0
        assert step.ignored.tolist() == [True, False, False, False]
        assert step.observation.portfolio.isfinite().all()
    last = record[19]
    assert last.truncated.tolist() == [False, True, True, True]
    assert not last.terminated.any()
    assert record[20].restarted.all()
    assert record[20].observation.portfolio[0, ASSETS] == 1.0  # all cash
    assert record[21].outcome.wealth[0] > 0
    assert record[21].outcome.trade[0, 0] < 0


def test_an_episode_ends_when_all_its_players_are_ruined():
    episode = EpisodeConfig(horizon=20, random_start=False)
    env = PortfolioEnv(
        crash_tape(), 4, EnvConfig(players=2, action="signed", costs=FREE, episode=episode)
    )
    env.reset(0)
    short = torch.zeros(4, ASSETS).double()
    short[:3, 0] = -1.0  # everyone in the first market, one in the second
    record = [env.step(short) for _ in range(12)]
    ruin = next(i for i, step in enumerate(record) if step.terminated.any())
    assert record[ruin].terminated.tolist() == [True, True, True, False]
    assert not record[ruin].truncated.any()
    assert record[ruin + 1].restarted.tolist() == [True, True, False, False]


def test_permuting_the_players_permutes_what_happens_to_them():
    order = torch.stack([torch.randperm(PLAYERS) for _ in range(MARKETS)])
    rows = (order + PLAYERS * torch.arange(MARKETS)[:, None]).flatten()
    one, other = (PortfolioEnv(TAPE, ROWS, RULES) for _ in range(2))
    one.reset(0)
    other.reset(0)
    for action in weights(30):
        mine, theirs = one.step(action), other.step(action[rows])
        torch.testing.assert_close(theirs.reward, mine.reward[rows], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(
            theirs.outcome.wealth, mine.outcome.wealth[rows], rtol=1e-9, atol=1e-6
        )
        torch.testing.assert_close(
            theirs.observation.portfolio, mine.observation.portfolio[rows], rtol=1e-9, atol=1e-9
        )


def test_every_players_books_balance():
    env = PortfolioEnv(TAPE, ROWS, replace(RULES, costs=CostConfig(fee_bps=20)))
    env.reset(0)
    impact = env.config.impact
    share = impact.transient / (impact.transient + impact.permanent)
    for action in weights(30):
        before = env.state
        transition = env.step(action)
        outcome, after = transition.outcome, env.state
        going = ~transition.restarted
        decayed = impact.retention * before.displacement.transient
        moved = (after.displacement.transient - decayed) / share  # of the market's net order
        price = mean_price(moved).repeat_interleave(PLAYERS, 0)
        paid = (outcome.trade * price).sum(-1) + total(outcome.cost)
        cash = before.portfolio.cash - paid + outcome.interest - outcome.borrow
        growth = (outcome.wealth / outcome.wealth_before).log()
        for found, wanted in (
            (after.portfolio.cash, cash),
            (outcome.wealth_before, before.wealth),
            (outcome.wealth, after.wealth),
            (transition.reward, growth),
        ):
            torch.testing.assert_close(found[going], wanted[going], rtol=1e-9, atol=1e-9)
    assert int(env.state.episode.number.min()) > 0


def test_who_does_not_trade_neither_earns_nor_loses_by_what_others_do():
    env = PortfolioEnv(TAPE, ROWS, RULES)
    env.reset(0)
    for action in weights(11):
        action[::PLAYERS] = 0.0
        transition = env.step(action)
        assert (transition.outcome.wealth[::PLAYERS] == 1e6).all()


def test_without_impact_players_are_independent_environments_of_the_same_market():
    alone = replace(RULES, players=1, impact=ImpactConfig())
    together = PortfolioEnv(TAPE, ROWS, replace(alone, players=PLAYERS))
    apart = PortfolioEnv(TAPE, MARKETS, alone, backend="torch")
    for player in range(PLAYERS):
        rows = slice(player, None, PLAYERS)
        seen, other = together.reset(3), apart.reset(3)
        assert torch.equal(seen.bar[rows], other.bar)
        for action in weights(30):
            mine, theirs = together.step(action), apart.step(action[rows])
            assert torch.equal(mine.reward[rows], theirs.reward)
            assert torch.equal(mine.truncated[rows], theirs.truncated)
            assert torch.equal(mine.observation.bar[rows], theirs.observation.bar)
            assert torch.equal(mine.observation.portfolio[rows], theirs.observation.portfolio)


def test_a_market_alone_is_its_rows_of_the_batch():
    batch = PortfolioEnv(TAPE, ROWS, RULES)
    second = PortfolioEnv(TAPE, PLAYERS, RULES, first_env=PLAYERS)
    rows = slice(PLAYERS, 2 * PLAYERS)
    assert torch.equal(batch.reset(1).bar[rows], second.reset(1).bar)
    for action in weights(30):
        mine, alone = batch.step(action), second.step(action[rows])
        assert torch.equal(mine.reward[rows], alone.reward)
        assert torch.equal(mine.observation.portfolio[rows], alone.observation.portfolio)


@pytest.mark.parametrize(("rows", "first"), [(ROWS + 1, 0), (1, 0), (ROWS, 1)])
def test_rows_that_do_not_fill_markets_are_refused(rows, first):
    with pytest.raises(ConfigError, match="players"):
        PortfolioEnv(TAPE, rows, RULES, first_env=first)


@pytest.mark.parametrize("players", [1, PLAYERS])
def test_liquidation_leaves_only_cash(players):
    episode = EpisodeConfig(horizon=8, liquidate_at_end=True)
    liquid = CostConfig(participation=1.0)
    rules = replace(RULES, players=players, episode=episode, costs=liquid)
    env = PortfolioEnv(TAPE, ROWS, rules)
    env.reset(0)
    for action in weights(7):
        env.step(action)
    assert (env.state.portfolio.holdings.abs().sum(-1) > 0).all()
    transition = env.step(torch.full((ROWS, ASSETS), torch.nan).double())
    assert transition.truncated.all()
    assert (env.state.portfolio.holdings == 0).all()
    torch.testing.assert_close(env.state.portfolio.cash, transition.outcome.wealth)
    assert (env.state.invalid_actions == 1).all()


def test_an_invested_start_is_worth_what_selling_it_brings():
    env = PortfolioEnv(TAPE, ROWS, replace(RULES, initial_invested=0.8))
    observation = env.reset(0)
    state = env.state
    assert torch.equal(state.peak, state.wealth)
    assert (state.wealth < 1e6).all()
    drawdown = env.observation_names.index("drawdown") - len(env.observation_names)
    assert (observation.portfolio[:, drawdown] == 0).all()


@pytest.mark.parametrize("players", [1, 2])
def test_ppo_trains_where_trades_move_prices(players):
    tape = make_tape(random_bars(assets=ASSETS), TapeConfig(features=SHORT_FEATURES))
    rules = replace(RULES, players=players, action="logits")
    ppo, collect = PPOConfig(minibatches=2, epochs=2), CollectConfig(num_envs=8, rollout_steps=16)
    trainer = Trainer(tape, rules, ppo, PolicyConfig(hidden=8), collect, iterations=3)
    assert trainer.env.portfolio_width == 2 * ASSETS + 3
    for _ in range(3):
        figures = trainer.iterate()
        assert all(torch.isfinite(torch.tensor(value)) for value in figures.values())
        assert 0 <= figures["rollout/drawdown"] < 1


def test_ppo_learns_nothing_from_the_steps_of_the_ruined():
    episode = EpisodeConfig(horizon=20, random_start=False)
    rules = EnvConfig(players=2, action="signed", max_gross=4.0, episode=episode)
    ppo, collect = PPOConfig(minibatches=1, epochs=1), CollectConfig(num_envs=8, rollout_steps=20)
    tape = crash_tape(torch.float32)
    policy = PolicyConfig(hidden=8, initial_std=1.0)
    trainer = Trainer(tape, rules, ppo, policy, collect, iterations=1)
    figures = trainer.iterate()
    rollout = trainer.algorithm.rollout
    waited = 0
    for step, row in rollout.terminated.nonzero().tolist():
        if not rollout.terminated[:, row ^ 1].any():  # the other player goes on to the end
            assert not rollout.valid[step + 1 :, row].any()
            assert (rollout.reward[step + 1 :, row] == 0).all()
            waited += len(rollout.valid) - step - 1
    assert waited > 0
    assert all(torch.isfinite(torch.tensor(value)) for value in figures.values())


def test_impact_on_data_without_volume_is_refused():
    tape = make_tape(random_bars(60, 2, volume=False), TapeConfig(features=SHORT_FEATURES))
    rules = EnvConfig(impact=ImpactConfig(transient=1.0), episode=EpisodeConfig(horizon=5))
    with pytest.raises(ConfigError, match="market has none: use data with volume"):
        PortfolioEnv(tape, 2, rules)


def test_an_invested_account_begins_with_what_selling_it_would_bring():
    env = gymnasium.make_vec(
        "fastsim/SharedMarket-v0",
        num_envs=2,
        market="tech4",
        impact={"transient": 5.0},
        initial_invested=1.0,
        initial_cash=1e9,
        episode={"horizon": 2},
    )
    _, info = env.reset(seed=0)
    begun = info["wealth"].clone()
    assert (begun < 1e9).all()
    for _ in range(3):
        *_, info = env.step(torch.zeros(2, 4))
    assert (info["wealth"] < 1e9).all()  # restarted
