"""One protocol for who decides: whoever it is takes any seat, and is asked in the same words."""

from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from worlds import FREE, SHORT_FEATURES, random_bars

from fastsim.backtest.replay import Schedule, replay
from fastsim.backtest.strategies import BuyAndHold, ExponentiatedGradient
from fastsim.env.config import EnvConfig
from fastsim.env.decide import Decider, Seat
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.impact import ImpactConfig
from fastsim.env.nested import take
from fastsim.env.observe import Observation
from fastsim.env.orders import OrderConfig
from fastsim.env.players import SCRIPTED, Momentum, Noise
from fastsim.env.portfolio_columns import portfolio_names
from fastsim.env.randomize import RandomizeConfig
from fastsim.errors import ActionError, ConfigError
from fastsim.learn.league import LeagueConfig, LeagueEnv, play_match
from fastsim.learn.snapshot import Snapshot
from fastsim.market.tape import TapeConfig, make_tape
from fastsim.policy.make import new_policy
from fastsim.policy.spec import PolicyConfig, make_spec

ASSETS = 3
CONFIG = TapeConfig(features=SHORT_FEATURES)
TAPE = make_tape(random_bars(60, ASSETS, seed=4), CONFIG)
RULES = EnvConfig(action="logits", episode=EpisodeConfig(horizon=8, staggered=True))
POLICY = new_policy(make_spec(TAPE, RULES, PolicyConfig(hidden=8)), TAPE, seed=0)


class Counted(NamedTuple):
    bars: Tensor  # [n]  decisions so far in the episode
    weight: Tensor  # [n]


@dataclass(frozen=True)
class Creeping(Decider):
    """A user's own: holds a tenth more of the first asset at each bar of an episode."""

    pace: float = 0.1

    def begin(self, tape, rows):
        return Counted(torch.zeros(rows, dtype=torch.int64), torch.zeros(rows))

    def decide(self, tape, seen, memory):
        weight = (memory.weight + self.pace).clamp_max(1.0)
        weights = torch.zeros(len(weight), ASSETS)
        weights[:, 0] = weight
        return weights, Counted(memory.bars + 1, weight)


class Plain:
    """A user's own again, which knows of fastsim by the protocol's words alone."""

    answers = "logits"

    def study(self, tape, rules):
        return tape.num_assets + 1

    def begin(self, width, rows):
        return ()

    def decide(self, width, seen, memory):
        return torch.zeros(len(seen.bar), width), memory


EVERYBODY = {
    "policy": POLICY,
    "past self": Snapshot(POLICY),
    "strategy": ExponentiatedGradient(),
    "buys once": BuyAndHold(),
    **SCRIPTED,
    "own": Creeping(),
    "own, plain": Plain(),
}


def observation(bars, rules=RULES, tape=TAPE):
    width = len(portfolio_names(tape, rules))
    portfolio = torch.rand(len(bars), width, generator=torch.Generator().manual_seed(0))
    return Observation(torch.tensor(bars), portfolio / width)


@pytest.mark.parametrize("name", EVERYBODY)
def test_everybody_can_be_replayed_and_sit_in_a_match_and_in_a_league(name):
    history = replay(TAPE, EVERYBODY[name], ["it"], RULES)
    assert history.wealth.shape == (TAPE.last - TAPE.first + 1, 1)
    assert history.wealth.isfinite().all()
    growth = play_match(TAPE, [EVERYBODY[name], Noise()], RULES, markets=2)
    assert growth.isfinite().all()
    env = PortfolioEnv(TAPE, 4, replace(RULES, players=2))
    league = LeagueEnv(env, [EVERYBODY[name]], LeagueConfig())
    for _ in range(10):
        transition = league.step(torch.zeros(2, ASSETS + 1))
    assert transition.outcome.wealth.isfinite().all()


@pytest.mark.parametrize("name", EVERYBODY)
def test_nobody_looks_past_the_bar(name):
    bar = TAPE.first + 20
    known = TAPE.known._replace(
        bars=TAPE.known.bars.clone(),
        sigma=TAPE.known.sigma.clone(),
        features=TAPE.known.features.clone(),
    )
    for table in (known.bars, known.sigma, known.features):
        table[bar + 1 :] *= 3.0
    said = []
    for tape in (TAPE, replace(TAPE, known=known)):
        seat = Seat(EVERYBODY[name], tape, RULES, rows=2)
        said.append(torch.stack([seat(observation([bar - 5 + k, bar - 9 + k])) for k in range(6)]))
    assert torch.equal(said[0].nan_to_num(), said[1].nan_to_num())


@pytest.mark.parametrize("name", [name for name in EVERYBODY if name != "noise"])
def test_a_row_is_answered_as_if_it_were_alone(name):  # noise is another in every row
    bars = torch.tensor([TAPE.first + 3, TAPE.first + 11, TAPE.first + 7])
    together = Seat(EVERYBODY[name], TAPE, RULES, rows=3)
    seats = [Seat(EVERYBODY[name], TAPE, RULES, rows=1) for _ in bars]
    for step in range(3):
        seen = observation((bars + step).tolist())
        rows = (slice(row, row + 1) for row in range(3))
        alone = [seat(take(seen, row)) for seat, row in zip(seats, rows, strict=True)]
        torch.testing.assert_close(together(seen), torch.cat(alone), equal_nan=True)


def test_what_is_remembered_begins_anew_with_the_episode_of_the_row():
    env = PortfolioEnv(TAPE, 12, replace(RULES, players=2))
    league, begun, asked = LeagueEnv(env, [Creeping()], LeagueConfig()), [], []
    step = env.step

    def spy(action):
        asked.append(action[1::2].softmax(-1)[:, 0])
        begun.append((transition := step(action)).restarted[1::2])
        return transition

    env.step = spy
    for _ in range(30):
        league.step(torch.zeros(6, ASSETS + 1))
    bars = torch.zeros(6)
    for weight, restarted in zip(asked, begun, strict=True):
        bars += 1
        torch.testing.assert_close(weight, (0.1 * bars).clamp_max(1.0), atol=1e-6, rtol=0)
        bars[restarted] = 0
    assert torch.stack(begun).sum() > 12


def test_what_is_remembered_is_saved_with_a_league():
    def play(league, steps):
        wealth = []
        for _ in range(steps):
            league.step(torch.zeros(6, ASSETS + 1))
            wealth.append(league.env.state.wealth)
        return torch.stack(wealth)

    whole, other = (
        LeagueEnv(PortfolioEnv(TAPE, 12, replace(RULES, players=2)), [Creeping()], LeagueConfig())
        for _ in range(2)
    )
    play(whole, 5)
    saved = deepcopy(whole.state_dict())
    expected = play(whole, 12)
    other.load_state_dict(saved)
    assert torch.equal(play(other, 12), expected)
    nothing = [torch.zeros(6, dtype=torch.int64), torch.zeros(6)]
    other.load_state_dict(saved | {"memories": [nothing]})
    assert not torch.equal(play(other, 12), expected)


def test_a_new_season_begins_with_nothing_remembered():
    league = LeagueEnv(
        PortfolioEnv(TAPE, 2, replace(RULES, players=2)), [Creeping()], LeagueConfig()
    )
    [seat] = league.scripted
    league.step(torch.zeros(1, ASSETS + 1))
    assert seat.memory.bars.tolist() == [1]
    league.reset(1)
    assert seat.memory.bars.tolist() == [0]
    league.step(torch.zeros(1, ASSETS + 1))
    league.seat()
    assert seat.memory.bars.tolist() == [0]


def test_a_strategy_that_is_ruined_in_a_replay_begins_anew():
    @dataclass(frozen=True)
    class Short(Creeping):
        answers = "signed"
        asked: list = field(default_factory=list)

        def decide(self, tape, seen, memory):
            self.asked.append(int(memory.bars))
            return torch.full((1, ASSETS), -1.0), Counted(memory.bars + 1, memory.weight)

    bars = random_bars(30, ASSETS, volume=False)
    close = np.full_like(bars.close, 100.0)
    close[20:] = 300.0
    tape = make_tape(replace(bars, open=close, close=close, high=close, low=close), CONFIG)
    who = Short()
    history = replay(tape, who, ["it"], EnvConfig(action="signed", max_gross=3.0))
    alive = 20 - tape.first
    assert who.asked[: alive + 3] == [*range(alive + 1), 0, 1]
    assert (history.wealth[alive:] <= 0).all()


def test_only_the_rows_whose_episodes_begin_are_forgotten():
    seat = Seat(Creeping(), TAPE, RULES, rows=3)
    bars = [TAPE.first] * 3
    seat(observation(bars))
    seat.restart(torch.tensor([False, True, False]))
    seat(observation(bars))
    assert seat.memory.bars.tolist() == [2, 1, 2]
    torch.testing.assert_close(seat.memory.weight, torch.tensor([0.2, 0.1, 0.2]))


def test_target_weights_are_asked_for_in_the_words_of_the_rules():
    free = replace(RULES, costs=FREE)
    names = ["held", "crept"]
    who = [BuyAndHold(), Creeping()]
    in_logits = replay(TAPE, who, names, free)
    in_weights = replay(TAPE, who, names, replace(free, action="weights"))
    torch.testing.assert_close(in_logits.weights, in_weights.weights, atol=1e-5, rtol=0)
    assert (in_logits.turnover[:, 0] > 0).nonzero().flatten().tolist() == [0]  # NaN holds
    assert (in_logits.turnover[:, 1] > 0).sum() > 5


def test_side_by_side_everybody_does_what_they_do_alone():
    names = list(EVERYBODY)
    together = replay(TAPE, [EVERYBODY[name] for name in names], names, RULES)
    for column, name in enumerate(names):
        alone = replay(TAPE, EVERYBODY[name], [name], RULES)
        torch.testing.assert_close(together.wealth[:, column], alone.wealth[:, 0])


def test_who_cannot_play_is_told_so_in_one_line():
    with pytest.raises(ConfigError, match=r'Plain answers in logits, .*action = "signed" here'):
        Seat(Plain(), TAPE, replace(RULES, action="signed"))
    with pytest.raises(ConfigError, match="each of 2 names, got 3"):
        replay(TAPE, [Noise()] * 3, ["a", "b"], RULES)
    steps = TAPE.last - TAPE.first
    for wrong in ((steps, 1, ASSETS), (steps - 1, 2, ASSETS), (steps, 2), (steps, 2, 1)):
        with pytest.raises(ActionError, match=rf"schedule must have shape \({steps}, 2, 3\)"):
            replay(TAPE, Schedule(weights=torch.zeros(wrong)), ["a", "b"])
    drawn = replace(RULES, randomize=RandomizeConfig(assets=(1, 2)))
    with pytest.raises(ConfigError, match="EG looks at one history as it is"):
        Seat(ExponentiatedGradient(), TAPE, drawn)
    with pytest.raises(ConfigError, match='autoreset = "next_step"'):
        rules = replace(RULES, players=2, autoreset="same_step")
        LeagueEnv(PortfolioEnv(TAPE, 2, rules), [Noise()], LeagueConfig())


def test_answers_of_another_shape_are_named_with_who_gave_them():
    class Careless(Creeping):
        def decide(self, tape, seen, memory):
            return torch.zeros(ASSETS), memory

    with pytest.raises(ActionError, match=r"Careless must answer with shape \(1, 3\), got \(3,\)"):
        replay(TAPE, Careless(), ["it"])


@pytest.mark.long
@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"impact": ImpactConfig(transient=1.0)},
        {"orders": OrderConfig(unfilled="carry")},
        {"randomize": RandomizeConfig(assets=(1, 2))},
    ],
)
def test_the_columns_of_a_portfolio_are_those_of_the_environment(rules):
    config = EnvConfig(observation="index", episode=EpisodeConfig(horizon=8), **rules)
    env = PortfolioEnv(TAPE, 2, config)
    names = portfolio_names(TAPE, config)
    assert names == env.observation_names
    assert env.reset(0).portfolio.shape[1] == len(names)


def test_players_remember_nothing_and_their_settings_never_change():
    market = Momentum().study(TAPE, RULES)
    assert market is TAPE and Momentum().begin(market, 5) == ()
    with pytest.raises(AttributeError):
        Momentum().lookback = 3
