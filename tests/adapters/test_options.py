"""`reset(options=...)` says where to begin and which rows, in every adapter, and nothing else."""

import gymnasium
import numpy as np
import pytest
import torch
from worlds import SHORT_FEATURES, random_bars

import fastsim
from fastsim.adapters.gym_env import PortfolioGymEnv, PortfolioVectorEnv
from fastsim.errors import ConfigError
from fastsim.market.tape import TapeConfig, make_tape

BARS = random_bars(60, 3, seed=1)
TAPE = make_tape(BARS, TapeConfig(features=SHORT_FEATURES))
RULES = {"episode": {"horizon": 10}}
DATE = str(TAPE.timestamps[20])[:10]


def single():
    return PortfolioGymEnv(TAPE, **RULES, observation="index")


def batch(**rules):
    return PortfolioVectorEnv(3, TAPE, **RULES, observation="index", **rules)


def test_one_environment_begins_at_a_bar_or_a_date():
    env = single()
    for start in (20, DATE, np.int64(20), TAPE.timestamps[20]):
        assert env.reset(options={"start": start})[0]["bar"] == 20
    made = gymnasium.make(fastsim.ENV_ID, market=TAPE, **RULES, observation="index")
    assert made.reset(seed=1, options={"start": DATE})[0]["bar"] == 20


@pytest.mark.parametrize("name", ["mask", "reset_mask"])
def test_rows_of_a_batch_begin_where_they_are_told(name):
    env = batch()
    before = env.reset(seed=1)[0]["bar"]
    mask = np.array([True, False, True])
    seen, _ = env.reset(options={"start": [20, 21, 22], name: mask})
    assert seen["bar"].tolist() == [20, int(before[1]), 22]
    assert env.reset(options={"start": DATE})[0]["bar"].tolist() == [20] * 3
    assert env.reset(options={name: None})[0]["bar"].shape == (3,)


def test_gymnasiums_own_wrapper_passes_its_mask_on():
    env = gymnasium.wrappers.vector.RecordEpisodeStatistics(batch())
    before = env.reset(seed=1)[0]["bar"]
    options = {"reset_mask": np.array([False, True, False]), "start": 21}
    assert env.reset(options=options)[0]["bar"].tolist() == [int(before[0]), 21, int(before[2])]


def test_stable_baselines_options_are_for_all_or_for_each():
    sb3 = pytest.importorskip("fastsim.adapters.sb3")
    env = sb3.SB3VecEnv(3, TAPE, **RULES)
    env.set_options({"start": 20})
    env.reset()
    assert env.env.state.episode.bar.tolist() == [20] * 3
    env.step(np.zeros((3, 3), dtype=np.float32))
    env.set_options({"mask": np.array([True, False, False]), "start": 25})
    env.reset()
    assert env.env.state.episode.bar.tolist() == [25, 21, 21]
    assert env._lengths.tolist() == [0, 1, 1]
    env.set_options([{"start": 22}, {}, {"start": DATE}])
    env.reset()
    assert env.env.state.episode.bar[::2].tolist() == [22, 20]
    env.reset()  # options are for one reset
    assert env.env.state.episode.bar.tolist() != [22, 20]


def test_players_begin_where_they_are_told():
    zoo = pytest.importorskip("fastsim.adapters.pettingzoo")
    env = zoo.SharedMarketParallelEnv(2, TAPE, **RULES, observation="index")
    seen, _ = env.reset(seed=1, options={"start": DATE})
    assert [each["bar"] for each in seen.values()] == [20, 20]


BAD = [
    (single, {"strat": 3}, "no reset option 'strat'; the options here are start$"),
    (single, {"mask": [True]}, "no reset option 'mask'; the options here are start$"),
    (single, {"reset_mask": np.array([True])}, "no reset option 'reset_mask'"),
    (single, {"seed": 3}, "no reset option 'seed'"),
    (single, "2020-01-01", "must be a mapping with start, got '2020-01-01'"),
    (single, [("start", 3)], "must be a mapping"),
    (single, {"start": 10**6}, "start 1000000 leaves no room"),
    (batch, {"rows": [True] * 3}, "no reset option 'rows'; .* start, mask, reset_mask"),
    (batch, {"Start": 20}, "no reset option 'Start'"),
    (batch, {3: 20}, "no reset option 3"),
    (batch, {"mask": [True] * 3, "reset_mask": [True] * 3}, "say the same: give one of them"),
    (batch, {"mask": [True] * 4}, r"mask must be 3 truth values.*got bool of shape \(4,\)"),
    (batch, {"reset_mask": np.ones(3)}, "got float64 of shape"),
    (batch, {"start": "yesterday"}, "got 'yesterday'"),
]


@pytest.mark.parametrize(("make", "options", "message"), BAD)
def test_what_is_no_option_is_refused_in_one_line(make, options, message):
    env = make()
    env.reset(seed=0)
    with pytest.raises(ConfigError, match=message) as error:
        env.reset(options=options)
    assert "\n" not in str(error.value)


def test_rows_cannot_be_left_alone_before_they_have_begun():
    env = batch()
    with pytest.raises(ConfigError, match=r"reset option mask .*: reset all rows first"):
        env.reset(options={"mask": [True, False, False]})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stat": 3}, "no reset option 'stat'"),
        ([{"start": 20}, {"mask": True}, {}], "'mask' of a single row; give start alone"),
        ([{"start": 20}, {"start": 10**6}, {}], "start 1000000 leaves no room"),
    ],
)
def test_stable_baselines_options_that_cannot_be_are_refused(options, message):
    sb3 = pytest.importorskip("fastsim.adapters.sb3")
    env = sb3.SB3VecEnv(3, TAPE, **RULES)
    env.set_options(options)
    with pytest.raises(ConfigError, match=message):
        env.reset()


def test_players_have_no_mask():
    zoo = pytest.importorskip("fastsim.adapters.pettingzoo")
    env = zoo.SharedMarketParallelEnv(2, TAPE, **RULES)
    with pytest.raises(ConfigError, match="no reset option 'mask'"):
        env.reset(options={"mask": torch.ones(2, dtype=torch.bool)})
