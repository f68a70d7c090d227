"""The analytic policy gradient: the slope of what is earned, and where it must not flow."""

from dataclasses import replace

import pytest
import torch
from planted import RULES as PLANTED
from planted import planted_tape
from worlds import SHORT_FEATURES, random_bars

from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.impact import ImpactConfig
from fastsim.env.nested import flatten
from fastsim.env.orders import OrderConfig
from fastsim.env.players import Noise
from fastsim.env.reward import RewardConfig
from fastsim.errors import ConfigError
from fastsim.learn.algorithm import Course
from fastsim.learn.apg.algorithm import APG
from fastsim.learn.apg.config import APGConfig
from fastsim.learn.apg.path import Path, earnings, roll_out
from fastsim.learn.league import LeagueConfig, LeagueEnv
from fastsim.learn.rollout import CollectConfig, Rollout, begin_rollout, empty_rollout
from fastsim.learn.trainer import Trainer
from fastsim.market.costs import CostConfig
from fastsim.market.tape import TapeConfig, make_tape
from fastsim.policy.flat import FlatPolicy
from fastsim.policy.policy import PolicyOutput
from fastsim.policy.spec import PolicyConfig

ASSETS, ROWS, STEPS = 3, 6, 14
DISCOUNT = 0.9
BARS = random_bars(80, ASSETS, seed=3, holes=True)
EPISODE = EpisodeConfig(horizon=6, staggered=True)
DEAR = CostConfig(fee_bps=10, half_spread_bps=20, participation=0.02)


def make(action="logits", dtype=torch.float64, **rules):
    tape = make_tape(BARS, TapeConfig(features=SHORT_FEATURES), dtype=dtype)
    config = EnvConfig(action=action, **{"episode": EPISODE, **rules})
    return PortfolioEnv(tape, ROWS, config, backend="torch")


class Exact(FlatPolicy):
    """The policy without its rounding to float32, which differences of the fourth digit show."""

    def forward(self, market, portfolio):
        own = self.portfolio_hidden(self.portfolio_moments(portfolio))
        actor, critic = torch.tanh(market + own).chunk(2, dim=-1)
        return PolicyOutput(self.actor(actor), self.log_std, self.critic(critic).squeeze(-1))


def exact_policy(env):
    apg = APG(env, PolicyConfig(hidden=5, initial_std=0.3), APGConfig(), COLLECT, course())
    policy = apg.policy.double()
    policy.__class__ = Exact
    with torch.no_grad():
        policy.actor.weight.mul_(100.0)  # it starts out caring for nothing
    return policy


COLLECT = CollectConfig(num_envs=ROWS, rollout_steps=STEPS)


def course():
    return Course(seed=0, iterations=1, generator=torch.Generator())


def earned(env, policy, rollout):
    """Discounted earnings of all, with the policy's own values at every end."""
    begin_rollout(rollout, env.reset(7))
    table = policy.standardize(env.tape)
    generator = torch.Generator().manual_seed(1)
    _, path = roll_out(env.params, env.state, policy, table, rollout, generator)
    seen = rollout.samples(STEPS + 1)
    market = policy.look_up(table, seen.bar, seen.view)
    value = policy(market, path.portfolio.flatten(0, 1)).value.view(STEPS + 1, ROWS)
    return earnings(path, value, rollout, DISCOUNT).sum()


RULES = {
    "plain": {},
    "dear": {"costs": DEAR},
    "signed": {"action": "signed", "max_gross": 2.0},
    "weights": {"action": "weights"},
    "moving": {"impact": ImpactConfig(transient=0.5, permanent=0.2), "initial_cash": 1e7},
    "carried": {"orders": OrderConfig(unfilled="carry"), "costs": DEAR},
    "margin": {
        "action": "signed", "max_gross": 1.5, "orders": OrderConfig(maintenance_margin=0.6),
    },
    "sharpe": {"reward": RewardConfig(kind="differential_sharpe")},
    "terminated": {"episode": replace(EPISODE, at_end="terminate", liquidate_at_end=True)},
}  # fmt: skip


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_the_gradient_is_the_slope_of_what_is_earned(rules):
    env = make(**rules)
    policy, rollout = exact_policy(env), empty_rollout(env, STEPS)
    names = ("actor.weight", "actor.bias", "log_std", "portfolio_hidden.weight",
             "market_hidden.weight", "market_encoder.0.weight", "critic.weight")  # fmt: skip
    parameters = dict(policy.named_parameters())
    total = earned(env, policy, rollout)
    assert rollout.restarted.any() and (rollout.truncated | rollout.terminated).any()
    gradients = torch.autograd.grad(total, [parameters[name] for name in names])
    generator, step = torch.Generator().manual_seed(2), 1e-5
    for name, gradient in zip(names, gradients, strict=True):
        assert gradient.isfinite().all()
        along = torch.randn(gradient.shape, generator=generator, dtype=gradient.dtype)
        ends = []
        for sign in (1.0, -1.0):
            with torch.no_grad():
                parameters[name].add_(sign * step * along)
                ends.append(float(earned(env, policy, rollout)))
                parameters[name].sub_(sign * step * along)
        slope = (ends[0] - ends[1]) / (2.0 * step)
        assert float((gradient * along).sum()) == pytest.approx(slope, rel=1e-4, abs=1e-8), name
        assert slope != 0.0 or name == "critic.weight"


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


def flags(*steps):
    raised = torch.zeros(4, 1, dtype=torch.bool)
    raised[list(steps)] = True
    return raised


def by_hand(**events):
    """Earnings of one agent that is paid 1, 2, 3, 4 and is worth 10, ..., 50 before and after."""
    nothing = {"terminated": flags(), "truncated": flags(), "restarted": flags()}
    blank = dict.fromkeys(Rollout._fields)
    rollout = Rollout(**{**blank, **nothing, **events})
    path = Path(column(1.0, 2.0, 3.0, 4.0), column(0.0, 0.0, 0.0, 0.0, 0.0))
    return float(earnings(path, column(10.0, 20.0, 30.0, 40.0, 50.0), rollout, 0.5))


def test_an_episode_that_goes_on_ends_with_the_value_of_the_last_state():
    assert by_hand() == 1.0 + 0.5 * (2.0 + 0.5 * (3.0 + 0.5 * (4.0 + 0.5 * 50.0)))


def test_a_truncated_episode_ends_with_the_value_of_its_true_last_state():
    after_restart = 3.0 + 0.5 * (4.0 + 0.5 * 50.0)
    expected = 1.0 + 0.5 * (2.0 + 0.5 * 30.0) + after_restart
    assert by_hand(truncated=flags(1), restarted=flags(2)) == expected


def test_a_terminated_episode_ends_with_nothing():
    after_restart = 3.0 + 0.5 * (4.0 + 0.5 * 50.0)
    expected = 1.0 + 0.5 * 2.0 + after_restart
    assert by_hand(terminated=flags(1), restarted=flags(2)) == expected


def test_a_rollout_that_begins_with_a_restart_counts_it_once():
    assert by_hand(restarted=flags(0)) == by_hand()


def test_nothing_flows_from_an_episode_into_the_one_before():
    env = make()
    env.reset(7)
    policy, rollout = exact_policy(env), empty_rollout(env, STEPS)
    begin_rollout(rollout, env.reset(7))
    state = env.state
    for leaf in (state.portfolio.holdings, state.portfolio.cash):
        leaf.requires_grad_()
    table, generator = policy.standardize(env.tape), torch.Generator().manual_seed(1)
    _, path = roll_out(env.params, state, policy, table, rollout, generator)
    begun = rollout.restarted.cumsum(0) > 0  # [T, N]  the first episode is over
    assert begun.any(0).all() and not begun.all(0).any()
    later, cash = path.reward[begun].sum(), state.portfolio.cash
    (gradient,) = torch.autograd.grad(later, cash, retain_graph=True, allow_unused=True)
    assert gradient is None or not gradient.any()
    (gradient,) = torch.autograd.grad(path.reward[~begun].sum(), cash)
    assert gradient.any()


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_an_environment_is_left_where_its_own_steps_would_have_left_it(backend):
    tape, _ = planted_tape(revealing=True, bars=400)
    ours, theirs = (PortfolioEnv(tape, ROWS, PLANTED, backend=backend) for _ in range(2))
    apg = APG(ours, PolicyConfig(hidden=5), APGConfig(), COLLECT, course())
    theirs.reset(0)
    for _ in range(3):
        apg.collect(ours)
        for action, reward in zip(apg.rollout.action, apg.rollout.reward, strict=True):
            transition = theirs.step(action)
            torch.testing.assert_close(transition.reward, reward, rtol=1e-5, atol=1e-6)
        apg.update()
        for one, other in zip(flatten(ours.state), flatten(theirs.state), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1.0)  # a dollar of a million
        assert not any(leaf.requires_grad for leaf in flatten(ours.state))


def test_ruin_does_not_spoil_the_gradients_of_others():
    close = random_bars(60, 2, volume=False)
    prices = close.close.copy()
    prices[30:32, 0] *= 20.0
    bars = replace(close, close=prices, open=None, high=None, low=None)
    tape = make_tape(bars, TapeConfig(features=SHORT_FEATURES)).between(slice(22, 50))
    rules = EnvConfig(action="signed", max_gross=4.0, episode=EpisodeConfig(horizon=20))
    size, collect = PolicyConfig(hidden=5, initial_std=1.0), replace(COLLECT, num_envs=64)
    trainer = Trainer(tape, rules, APGConfig(), size, collect, algorithm="apg", iterations=4)
    ruined = 0
    for _ in range(4):
        trainer.advance()
        ruined += int(trainer.algorithm.rollout.terminated.sum())
        assert all(weight.isfinite().all() for weight in trainer.policy.parameters())
    assert 0 < ruined < 4 * 64


@pytest.mark.parametrize(
    ("rules", "culprit"),
    [
        ({"players": 2}, r"EnvConfig\.players = 2"),
        ({"orders": OrderConfig(whole_shares=True)}, r"orders\.whole_shares"),
    ],
)
def test_where_wealth_has_no_slope_of_ones_own_it_is_said(rules, culprit):
    tape = make_tape(BARS, TapeConfig(features=SHORT_FEATURES))
    config = EnvConfig(action="logits", episode=EPISODE, **rules)
    with pytest.raises(ConfigError, match=culprit):
        Trainer(tape, config, APGConfig(), PolicyConfig(), COLLECT, algorithm="apg", iterations=1)


def test_a_league_is_refused_by_name():
    tape, _ = planted_tape(revealing=True, bars=400)
    env = PortfolioEnv(tape, 2 * ROWS, replace(PLANTED, players=2))
    league = LeagueEnv(env, [Noise()], LeagueConfig())
    with pytest.raises(ConfigError, match="not a LeagueEnv"):
        Trainer(tape, league, APGConfig(), PolicyConfig(), COLLECT, algorithm="apg", iterations=1)
