"""Episodes begin where they are told to, in the rows that are told, and all else goes on."""

import datetime

import numpy as np
import pytest
import torch
from worlds import SHORT_FEATURES, assert_same_bits, random_bars

from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.impact import ImpactConfig
from fastsim.env.nested import take
from fastsim.errors import ConfigError, DataError
from fastsim.market.tape import TapeConfig, make_tape
from fastsim.synthetic.fresh import FreshWorlds
from fastsim.synthetic.garch import Garch
from fastsim.synthetic.worlds import make_worlds

BACKENDS = ["torch", "numba", pytest.param("triton", marks=pytest.mark.long)]
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter")
TAPE = make_tape(random_bars(60, 3, seed=1), TapeConfig(features=SHORT_FEATURES))
ENVS, HORIZON = 4, 10
FIRST, LATEST = TAPE.first, TAPE.last - HORIZON


def make(backend="torch", tape=TAPE, envs=ENVS, horizon=HORIZON, **rules):
    if backend == "triton":
        pytest.importorskip("triton", reason="triton is for Linux")
    episode = EpisodeConfig(horizon=horizon, staggered=rules.pop("staggered", False))
    env = PortfolioEnv(tape, envs, EnvConfig(episode=episode, **rules), backend=backend)
    env.reset(3)
    return env


def step(env, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return env.step(torch.rand(env.num_envs, 3, generator=generator, dtype=env.tape.dtype) / 3)


def day(bar):
    return str(TAPE.timestamps[bar])[:10]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("autoreset", ["next_step", "same_step"])
def test_all_rows_begin_at_the_bar_and_run_a_whole_episode(backend, autoreset):
    env = make(backend, autoreset=autoreset, staggered=True)
    seen = env.reset(start=20)
    assert seen.bar.tolist() == [20] * ENVS
    for count in range(HORIZON):
        transition = step(env, count)
        assert transition.truncated.tolist() == [count == HORIZON - 1] * ENVS
    bars = (transition if autoreset == "same_step" else step(env)).observation.bar
    assert len(set(bars.tolist()) - {20}) > 0  # the next are drawn as usual


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "start",
    [
        [20, 21, 22, 23],
        np.array([20, 21, 22, 23]),
        torch.tensor([20, 21, 22, 23]),
        TAPE.timestamps[20:24],
        [day(20), TAPE.timestamps[21], datetime.date.fromisoformat(day(22)), np.int64(23)],
        [20, f"{day(21)}T00:00", datetime.datetime.fromisoformat(day(22)), f" {day(23)} "],
    ],
    ids=["list", "array", "tensor", "stamps", "mixed", "times"],
)
def test_every_row_begins_at_its_own_bar_or_date(backend, start):
    assert make(backend).reset(start=start).bar.tolist() == [20, 21, 22, 23]


def test_a_date_is_the_first_bar_not_before_it():
    days = [np.datetime64(day(bar)) for bar in range(20, 30)]
    friday = 20 + next(place for place, one in enumerate(days) if not np.is_busday(one + 1))
    saturday = str(np.datetime64(day(friday)) + 1)
    assert make().reset(start=saturday).bar.tolist() == [friday + 1] * ENVS
    zoned = datetime.datetime.fromisoformat(f"{day(friday)}T01:00+01:00")
    assert make().reset(start=zoned).bar.tolist() == [friday] * ENVS


def test_starts_that_are_none_are_drawn_as_ever():
    drawn = make().reset(5).bar.tolist()
    some = make().reset(5, start=[None, 20, None, day(21)]).bar.tolist()
    assert some == [drawn[0], 20, drawn[2], 21]
    assert make().reset(5, start=[None] * 4).bar.tolist() == drawn


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("autoreset", ["next_step", "same_step"])
@pytest.mark.parametrize("observation", ["flat", "index"])
def test_rows_that_are_not_in_the_mask_go_on_bit_for_bit(backend, autoreset, observation):
    rules = {"autoreset": autoreset, "observation": observation}
    env, other = make(backend, **rules), make(backend, **rules)
    for count in range(4):
        step(env, count), step(other, count)
    mask, rest = torch.tensor([True, False, True, False]), torch.tensor([1, 3])
    number = env.state.episode.number
    seen = env.reset(mask=mask)
    assert_same_bits(take(env.state, rest), take(other.state, rest))
    assert torch.equal(env.state.episode.number, number + mask)
    assert (env.state.portfolio.holdings[mask] == 0).all()
    assert torch.equal(seen.bar, env.state.episode.bar)
    for count in range(20):
        one, two = step(env, count), step(other, count)
        assert_same_bits(take(env.state, rest), take(other.state, rest))
        assert torch.equal(env.columns(one.observation)[rest], env.columns(two.observation)[rest])
        assert torch.equal(one.reward[rest], two.reward[rest])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_mask_with_starts_and_a_seed_begins_those_rows_as_that_seed_does(backend):
    env = make(backend)
    step(env)
    before = env.state
    mask = np.array([False, True, True, False])
    seen = env.reset(11, start=[-5, 20, None, "never"], mask=mask)  # of other rows, not looked at
    whole = make(backend)
    whole.reset(11)
    assert seen.bar[1] == 20
    assert_same_bits(take(env.state, slice(2, 3)), take(whole.state, slice(2, 3)))
    assert_same_bits(take(env.state, slice(0, 1)), take(before, slice(0, 1)))


def test_a_mask_of_nobody_changes_nothing_and_lists_are_masks():
    env = make()
    step(env)
    before = env.state
    env.reset(mask=[False] * ENVS)
    assert_same_bits(env.state, before)
    env.reset(mask=[True, False, False, False])
    assert env.state.episode.number.tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_markets_begin_with_all_their_players(backend):
    rules = {"players": 2, "impact": ImpactConfig(transient=1.0)}
    env, other = make(backend, **rules), make(backend, **rules)
    step(env), step(other)
    mask = torch.tensor([True, True, False, False])
    seen = env.reset(start=[22, 22, None, None], mask=mask)
    assert seen.bar[:2].tolist() == [22, 22]
    assert (env.state.displacement.transient[0] == 0).all()
    assert_same_bits(env.state.displacement.rate[1], other.state.displacement.rate[1])
    for count in range(6):
        one, two = step(env, count), step(other, count)
        # The other market's orders are those of two other rows, which are not alike.
        assert one.observation.bar[2:].tolist() == two.observation.bar[2:].tolist()
        assert torch.equal(one.outcome.wealth[2:], two.outcome.wealth[2:])


def fresh(**rules):
    worlds = FreshWorlds(
        model=Garch(assets=3), bars=40, config=TapeConfig(features=SHORT_FEATURES), batch=4
    )
    return make("numba", tape=worlds, horizon=5, **rules)


def test_fresh_worlds_begin_where_they_are_told_within_their_world():
    env = fresh()
    seen = env.reset(start=12)
    assert (seen.bar % 40).tolist() == [12] * ENVS
    assert len(set((seen.bar // 40).tolist())) == ENVS


def test_rows_of_fresh_worlds_go_on_in_theirs_while_others_begin_new_ones():
    env, other = fresh(), fresh()
    for count in range(12):
        env.reset(mask=[True, False, False, False])
        one, two = step(env, count), step(other, count)
        other.renew()
        assert torch.equal(one.outcome.wealth[1:], two.outcome.wealth[1:])
        assert torch.equal(one.reward[1:], two.reward[1:])
    with pytest.raises(ConfigError, match="deals fresh worlds to all rows"):
        env.reset(1, mask=[True, False, False, False])


def test_worlds_of_one_tape_are_drawn_and_their_bar_is_told():
    env = make(tape=make_tape(random_bars(60, 6), TapeConfig(features=SHORT_FEATURES)).fold(2))
    seen = env.reset(1, start=20)
    assert set(seen.bar.tolist()) <= {20, 80}


BAD = [
    ({"start": FIRST - 1}, rf"start {FIRST - 1} leaves no room: .* bars {FIRST} to {LATEST}"),
    ({"start": -1}, "start -1 leaves no room"),
    ({"start": LATEST + 1}, rf"start {LATEST + 1} leaves no room: episodes of 10 steps"),
    ({"start": 10**6}, "leaves no room"),
    ({"start": "1999-01-01"}, rf"start 1999-01-01 leaves no room: .*{day(FIRST)} to {day(LATEST)}"),
    ({"start": "2031-01-01"}, "start 2031-01-01 leaves no room"),
    ({"start": day(LATEST + 1)}, "leaves no room"),
    ({"start": "soon"}, r"must be a bar \(a whole number\) or a date .* got 'soon'"),
    ({"start": "now"}, "a date such as '2020-01-31', got 'now'"),
    ({"start": "2020-02-31"}, "got '2020-02-31'"),
    ({"start": "1200-01-01"}, "got '1200-01-01'"),
    ({"start": ""}, "got ''"),
    ({"start": 20.0}, r"got 20\.0"),
    ({"start": True}, "got True"),
    ({"start": {"bar": 3}}, r"got \{'bar': 3\}"),
    ({"start": np.datetime64("NaT")}, "got .*NaT"),
    ({"start": torch.tensor([20.0, 20.0, 20.0, 20.0])}, "got .*20"),
    ({"start": [20, 21]}, "one for each of 4 rows, got 2"),
    ({"start": []}, "got 0 of them"),
    ({"start": [20, 21, 22, "x"]}, "got 'x'"),
    ({"start": [20, 21, 22, 999]}, "start 999 leaves no room"),
    ({"start": torch.ones(5, dtype=torch.int64)}, "got 5 of them"),
    ({"mask": True}, "mask must be 4 truth values, one for each row, got True"),
    ({"mask": "all"}, "got 'all'"),
    ({"mask": [1, 0, 0, 1]}, r"got int64 of shape \(4,\)"),
    ({"mask": [0, 3]}, r"got int64 of shape \(2,\)"),
    ({"mask": [True, False]}, r"got bool of shape \(2,\)"),
    ({"mask": torch.ones(4)}, r"got float32 of shape \(4,\)"),
    ({"mask": np.ones((4, 1), dtype=bool)}, r"got bool of shape \(4, 1\)"),
    ({"mask": [True, None, False, True]}, "mask must be 4 truth values"),
    ({"mask": []}, "got float64 of shape"),
    ({"mask": [[True], [True, False], True, True]}, "mask must be 4 truth values"),
]


@pytest.mark.parametrize(("asked", "message"), BAD, ids=[str(asked)[:40] for asked, _ in BAD])
def test_what_cannot_be_is_refused_in_one_line_and_nothing_has_changed(asked, message):
    env = make()
    step(env)
    before = env.state
    with pytest.raises(ConfigError, match=message) as error:
        env.reset(**asked)
    assert "\n" not in str(error.value)
    assert_same_bits(env.state, before)


def test_players_who_would_part_are_named():
    env = make(players=2)
    with pytest.raises(ConfigError, match="mask would part the 2 players of a market"):
        env.reset(mask=[True, False, True, True])
    with pytest.raises(ConfigError, match="start must be the same for the 2 players of a market"):
        env.reset(start=[20, 21, 20, 20])


def test_without_a_horizon_one_step_is_room_enough():
    env = make(horizon=None)
    assert env.reset(start=TAPE.last - 1).bar.tolist() == [TAPE.last - 1] * ENVS
    assert step(env).truncated.all()
    with pytest.raises(ConfigError, match=f"episodes can begin at bars {FIRST} to {TAPE.last - 1}"):
        env.reset(start=TAPE.last)


BRIEF = EnvConfig(episode=EpisodeConfig(horizon=10))


@pytest.mark.parametrize("seed", [0.5, "1", -1, True, 2**70, [0, 1.5], [0], [0, None]])
def test_a_seed_that_is_none_is_named(seed):
    with pytest.raises(ConfigError, match=r"^seed must be ") as caught:
        PortfolioEnv(TAPE, 2, BRIEF).reset(seed)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [0.5, "1", None, -1, True, 2**70])
def test_numbers_of_seeds_environments_and_worlds_are_whole(wrong):
    for name in ("seed", "first_env"):
        with pytest.raises(ConfigError, match=rf"^{name} must be a whole number >= 0"):
            PortfolioEnv(TAPE, 2, BRIEF, **{name: wrong})
    with pytest.raises(ConfigError, match=r"^seed must be a whole number >= 0"):
        make_worlds(Garch(assets=2), 2, 100, seed=wrong)
    with pytest.raises(DataError, match=r"^no world .*: the tape has 1, numbered from 0"):
        TAPE.world(wrong)


def test_seeds_of_numpy_are_numbers_too():
    env, other = PortfolioEnv(TAPE, 2, BRIEF), PortfolioEnv(TAPE, 2, BRIEF)
    assert torch.equal(env.reset(np.int64(3)).bar, other.reset(3).bar)
    assert torch.equal(env.reset(np.array([3, 4])).bar, other.reset([3, 4]).bar)
