"""Episodes: where they start and end, who begins anew, and that chance repeats."""

from __future__ import annotations

import gc
import tracemalloc
from dataclasses import replace

import pytest
import torch
from worlds import SHORT_FEATURES, assert_same_bits, leaves, random_bars

from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.random import draw_integers, environment_keys
from fastsim.env.reward import RUIN_LOG_GROWTH
from fastsim.errors import ActionError, ConfigError
from fastsim.market.tape import TapeConfig, make_tape

FROM_THE_START = EpisodeConfig(horizon=None, random_start=False, staggered=False)


def small_tape(length=40, assets=3, **options):
    bars = random_bars(length, assets, seed=1, holes=assets > 2)
    return make_tape(bars, TapeConfig(features=SHORT_FEATURES), **options)


def from_the_start(horizon):
    return EpisodeConfig(horizon=horizon, random_start=False, staggered=False)


def staggered(horizon):
    return EpisodeConfig(horizon=horizon, random_start=True, staggered=True)


def actions(steps, rows, width, seed=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(steps, rows, width, generator=generator) / width


def run(env, script):
    """Every transition and state of a script of actions."""
    record = []
    for action in script:
        transition = env.step(action)
        record.append((transition, env.state))
    return record


def test_next_step_autoreset_as_a_script():
    tape = small_tape()
    env = PortfolioEnv(tape, 1, EnvConfig(episode=from_the_start(2)))
    all_in = torch.tensor([[1.0, 0.0, 0.0]])
    first = tape.first

    assert env.reset(seed=0).bar.tolist() == [first]

    one = env.step(all_in)
    assert one.observation.bar.tolist() == [first + 1]
    assert not (one.terminated | one.truncated | one.restarted)

    two = env.step(all_in)  # the horizon: the last observation of the old episode is shown
    assert two.observation.bar.tolist() == [first + 2]
    assert two.truncated and not two.terminated and not two.restarted
    assert two.reward != 0 and two.final_observation is None
    assert two.observation.portfolio[0, 0] > 0.3

    three = env.step(all_in)  # the reset row: its action is ignored
    assert three.restarted and not three.truncated and not three.terminated
    assert three.reward == 0
    assert three.observation.bar.tolist() == [first]
    assert env.state.episode.number.tolist() == [1]
    assert env.state.portfolio.cash.tolist() == [1e6]
    assert not env.state.portfolio.holdings.any()

    four = env.step(all_in)  # the new episode trades
    assert not four.restarted and four.observation.bar.tolist() == [first + 1]
    assert env.state.portfolio.holdings[0, 0] > 0
    torch.testing.assert_close(four.reward, one.reward, rtol=0, atol=0)


def test_same_step_autoreset_as_a_script():
    tape = small_tape()
    config = EnvConfig(episode=from_the_start(2), autoreset="same_step")
    env = PortfolioEnv(tape, 1, config)
    all_in = torch.tensor([[1.0, 0.0, 0.0]])
    env.reset(seed=0)

    one = env.step(all_in)
    assert not one.truncated
    assert_same_bits(one.final_observation, one.observation)

    two = env.step(all_in)  # ends and begins anew at once
    assert two.truncated and not two.restarted
    assert two.observation.bar.tolist() == [tape.first]
    assert two.observation.portfolio[0].tolist() == [0, 0, 0, 1, 0, 0]
    assert two.final_observation.bar.tolist() == [tape.first + 2]
    assert two.final_observation.portfolio[0, 0] > 0.3
    assert env.state.episode.number.tolist() == [1]

    three = env.step(all_in)
    assert not three.truncated and three.observation.bar.tolist() == [tape.first + 1]
    torch.testing.assert_close(three.reward, one.reward, rtol=0, atol=0)


def test_both_modes_pay_the_same_rewards_and_end_in_the_same_observations():
    tape, episode = small_tape(), from_the_start(5)
    script = actions(6, 4, 3)
    waiting = run(PortfolioEnv(tape, 4, EnvConfig(episode=episode)), script[:5])
    at_once = run(
        PortfolioEnv(tape, 4, EnvConfig(episode=episode, autoreset="same_step")), script[:5]
    )
    for (later, _), (now, _) in zip(waiting, at_once, strict=True):
        assert_same_bits(later.reward, now.reward)
        assert_same_bits(later.truncated, now.truncated)
        assert_same_bits(later.observation, now.final_observation)
    assert waiting[-1][0].truncated.all()


@pytest.mark.parametrize("autoreset", ["next_step", "same_step"])
def test_without_a_horizon_the_end_of_the_tape_truncates(autoreset):
    tape = small_tape(20)
    env = PortfolioEnv(tape, 2, EnvConfig(episode=FROM_THE_START, autoreset=autoreset))
    record = run(env, actions(tape.last - tape.first, 2, 3))
    flags = [bool(transition.truncated.all()) for transition, _ in record]
    assert flags == [False] * (len(flags) - 1) + [True]
    final = record[-1][0]
    seen = final.observation if autoreset == "next_step" else final.final_observation
    assert seen.bar.tolist() == [tape.last] * 2


@pytest.mark.parametrize("autoreset", ["next_step", "same_step"])
def test_an_end_that_terminates_leaves_nothing_truncated_and_all_else_as_it_was(autoreset):
    tape = small_tape()
    script = actions(7, 4, tape.num_assets)

    def play(at_end):
        episode = EpisodeConfig(horizon=3, random_start=False, at_end=at_end)
        config = EnvConfig(autoreset=autoreset, episode=episode)
        return run(PortfolioEnv(tape, 4, config, backend="torch"), script)

    for (over, state), (cut, same) in zip(play("terminate"), play("truncate"), strict=True):
        assert not over.truncated.any() and not cut.terminated.any()
        assert_same_bits(over.terminated, cut.truncated)
        assert_same_bits((over.reward, over.restarted, state), (cut.reward, cut.restarted, same))


def test_random_starts_cover_every_admissible_bar_and_no_other():
    tape, horizon = small_tape(40), 10
    env = PortfolioEnv(tape, 4000, EnvConfig(episode=staggered(horizon)))
    starts = env.reset().bar
    assert starts.unique().tolist() == list(range(tape.first, tape.last - horizon + 1))
    counts = starts.bincount()[tape.first :]
    assert counts.min() > 0.7 * counts.float().mean()


def test_random_starts_without_a_horizon_leave_one_step():
    tape = small_tape(20)
    env = PortfolioEnv(tape, 2000, EnvConfig(episode=staggered(None)))
    assert env.reset().bar.unique().tolist() == list(range(tape.first, tape.last))
    assert (env.state.episode.end > env.state.episode.bar).all()


def test_episodes_after_the_first_start_at_random_too_and_last_the_horizon():
    tape, horizon = small_tape(40), 10
    env = PortfolioEnv(tape, 2000, EnvConfig(episode=staggered(horizon)))
    for _ in range(horizon + 1):
        env.step(torch.zeros(2000, 3))
    episode = env.state.episode
    assert (episode.number == 1).all() and not episode.done.any()
    age = horizon - (episode.end - episode.bar)
    starts = episode.bar - age
    assert starts.unique().tolist() == list(range(tape.first, tape.last - horizon + 1))


def test_a_horizon_as_long_as_the_tape_fits_and_a_longer_one_does_not():
    tape = small_tape(20)
    steps = tape.last - tape.first
    env = PortfolioEnv(tape, 8, EnvConfig(episode=staggered(steps)))
    assert env.reset().bar.unique().tolist() == [tape.first]
    with pytest.raises(ConfigError, match=f"horizon = {steps + 1}"):
        PortfolioEnv(tape, 8, EnvConfig(episode=EpisodeConfig(horizon=steps + 1)))


def test_staggering_spreads_the_first_ends_evenly_over_the_horizon():
    tape = small_tape(40)
    episode = PortfolioEnv(tape, 4000, EnvConfig(episode=staggered(10))).state.episode
    length = episode.end - episode.bar
    counts = length.bincount(minlength=11)[1:]
    assert counts.sum() == 4000 and counts.min() > 300 and counts.max() < 500
    together = EnvConfig(episode=EpisodeConfig(horizon=10, staggered=False))
    episode = PortfolioEnv(tape, 8, together).state.episode
    assert (episode.end - episode.bar).unique().tolist() == [10]


@pytest.mark.parametrize("autoreset", ["next_step", "same_step"])
def test_a_restart_touches_only_finished_rows(autoreset):
    tape = small_tape(60)
    config = EnvConfig(autoreset=autoreset, episode=staggered(6))
    # The same starts, but no end in sight.
    endless = PortfolioEnv(tape, 64, config)
    episode = endless.state.episode
    beyond = torch.full_like(episode.end, tape.last)
    endless.state = endless.state._replace(episode=episode._replace(end=beyond))
    env = PortfolioEnv(tape, 64, config)
    untouched = torch.ones(64, dtype=torch.bool)
    for action in actions(4, 64, 3):
        ended, endless_transition = env.step(action), endless.step(action)
        if autoreset == "same_step":
            untouched &= ~ended.truncated
        else:
            untouched &= ~ended.restarted
        rows = [
            (env.state.portfolio, endless.state.portfolio),
            (env.state.peak, endless.state.peak),
        ]
        rows += [
            (env.state.memory, endless.state.memory),
            (ended.reward, endless_transition.reward),
        ]
        rows += [(ended.observation, endless_transition.observation)]
        for one, other in rows:
            kept = [leaf[untouched] for leaf in leaves(one)]
            assert_same_bits(tuple(kept), tuple(leaf[untouched] for leaf in leaves(other)))
    assert 5 < untouched.sum() < 60


@pytest.mark.parametrize("autoreset", ["next_step", "same_step"])
@pytest.mark.parametrize("kind", ["log_growth", "differential_sharpe"])
def test_an_environment_alone_equals_its_row_in_the_batch(autoreset, kind):
    tape = small_tape(60)
    config = EnvConfig(autoreset=autoreset, episode=staggered(7))
    config = replace(config, reward=replace(config.reward, kind=kind))
    script = actions(30, 16, 3)
    batch = run(PortfolioEnv(tape, 16, config, seed=5), script)
    assert int(batch[-1][1].episode.number.min()) >= 2
    for row in (0, 7, 15):
        alone = run(PortfolioEnv(tape, 1, config, seed=5, first_env=row), script[:, row : row + 1])
        for single, whole in zip(alone, batch, strict=True):
            assert_same_bits(single, tuple(leaf[row : row + 1] for leaf in leaves(whole)))


def test_the_same_seed_gives_the_same_run_and_another_seed_another():
    tape, script = small_tape(60), actions(20, 8, 3)
    config = EnvConfig(episode=staggered(7))
    one, again, other = (
        run(PortfolioEnv(tape, 8, config, seed=seed), script) for seed in (11, 11, 12)
    )
    assert_same_bits(tuple(one), tuple(again))
    assert not torch.equal(one[0][0].observation.bar, other[0][0].observation.bar)
    env = PortfolioEnv(tape, 8, config, seed=3)
    run(env, script)
    env.reset(seed=11)
    assert_same_bits(tuple(run(env, script)), tuple(one))


def test_a_reset_without_a_seed_begins_the_next_episode_everywhere():
    env = PortfolioEnv(small_tape(60), 64, EnvConfig(episode=staggered(7)))
    before = env.state.episode
    env.reset()
    assert torch.equal(env.state.episode.number, before.number + 1)
    assert not torch.equal(env.state.episode.bar, before.bar)


def test_one_thread_and_two_give_the_same_bits(threads):
    tape = make_tape(random_bars(60, 20, seed=1), TapeConfig(features=SHORT_FEATURES))
    script = actions(8, 2048, 20)  # 40,960 numbers: enough for torch to split the work
    records = []
    for count in (1, 2):
        threads(count)
        env = PortfolioEnv(tape, 2048, EnvConfig(episode=staggered(5)))
        records.append(run(env, script)[-1])
        records[-1] += (env.columns(records[-1][0].observation),)
    assert_same_bits(*records)


def fmix32(bits):
    """The finaliser of MurmurHash3 in plain Python integers."""
    bits &= 0xFFFFFFFF
    bits ^= bits >> 16
    bits = bits * 0x85EBCA6B & 0xFFFFFFFF
    bits ^= bits >> 13
    bits = bits * 0xC2B2AE35 & 0xFFFFFFFF
    return bits ^ bits >> 16


def plain_draw(seed, env, episode, stream, bound):
    key = fmix32(fmix32(fmix32(seed + 0x9E3779B9) ^ (seed >> 32 & 0xFFFFFFFF)) + env)
    bits = fmix32(fmix32(key + episode * 0x9E3779B9) + stream)
    return bits * bound >> 32


@pytest.mark.parametrize("seed", [0, 1, 123456789, 2**40 + 17, 2**63 - 1, -1])
def test_the_hash_is_murmur_in_plain_integers(seed):
    envs = torch.tensor([0, 1, 7, 4095, 2**31])
    keys = environment_keys(seed, envs)
    for episode in (0, 1, 1000, 2**20):
        for stream in (0, 1):
            numbers = torch.full_like(envs, episode)
            drawn = draw_integers(keys, numbers, stream, 2519).tolist()
            assert drawn == [plain_draw(seed, env, episode, stream, 2519) for env in envs.tolist()]


def test_the_hash_has_the_values_it_always_had():
    assert fmix32(1) == 0x514E28B7  # published: MurmurHash3_x86_32 of an empty key, seed 1
    keys = environment_keys(42, torch.arange(4))
    assert keys.tolist() == [140641691, 502082349, 3334534686, 500115417]
    assert draw_integers(keys, torch.arange(4), 1, 1000).tolist() == [719, 255, 760, 581]


@pytest.mark.parametrize("along", ["environments", "episodes", "seeds", "streams"])
def test_draws_are_uniform_along(along):
    count, bins = 8_000, 50
    numbers, zero = torch.arange(count), torch.zeros(count, dtype=torch.int64)
    if along == "environments":
        drawn = draw_integers(environment_keys(1, numbers), zero, 0, bins)
    elif along == "episodes":
        drawn = draw_integers(environment_keys(1, zero), numbers, 0, bins)
    elif along == "seeds":
        keys = [environment_keys(seed, torch.tensor([3])) for seed in range(count)]
        drawn = draw_integers(torch.cat(keys), zero, 0, bins)
    else:
        keys = environment_keys(1, zero[:1])
        drawn = torch.cat([draw_integers(keys, zero[:1], stream, bins) for stream in range(count)])
    expected = count / bins
    chi_square = ((drawn.bincount(minlength=bins) - expected) ** 2 / expected).sum()
    # 49 degrees of freedom: the 0.1 % and 99.9 % points of chi-square.
    assert 23.98 < chi_square < 85.35


def test_streams_of_one_episode_are_not_correlated():
    keys, zero = environment_keys(1, torch.arange(20_000)), torch.zeros(20_000, dtype=torch.int64)
    pair = torch.stack([draw_integers(keys, zero, stream, 2**30) for stream in (0, 1)]).double()
    assert torch.corrcoef(pair)[0, 1].abs() < 4 / 20_000**0.5


def test_an_invalid_action_holds_and_is_counted():
    env = PortfolioEnv(small_tape(), 3, EnvConfig(episode=FROM_THE_START))
    env.step(torch.full((3, 3), 0.3))
    bad = torch.full((3, 3), 0.1)
    bad[1, 2], bad[2, 0] = torch.nan, torch.inf
    transition = env.step(bad)
    assert env.state.invalid_actions.tolist() == [0, 1, 1]
    assert transition.outcome.turnover[0] > 0 and not transition.outcome.turnover[1:].any()
    assert transition.reward.isfinite().all()
    env.step(bad)
    assert env.state.invalid_actions.tolist() == [0, 2, 2]
    env.reset()
    assert env.state.invalid_actions.tolist() == [0, 0, 0]


def test_the_action_of_a_restarting_row_is_neither_used_nor_counted():
    env = PortfolioEnv(small_tape(), 1, EnvConfig(episode=from_the_start(1)))
    assert env.step(torch.zeros(1, 3)).truncated
    assert env.step(torch.full((1, 3), torch.nan)).restarted
    assert env.state.invalid_actions.tolist() == [0]


@pytest.mark.parametrize("shape", [(3,), (2, 3), (3, 2), (3, 4), (3, 3, 1)])
def test_an_action_of_the_wrong_shape_is_an_error(shape):
    env = PortfolioEnv(small_tape(), 3, EnvConfig(episode=FROM_THE_START))
    with pytest.raises(ActionError, match=r"must have shape \(3, 3\)"):
        env.step(torch.zeros(shape))


def test_logits_take_one_number_more_than_there_are_assets():
    env = PortfolioEnv(small_tape(), 3, EnvConfig(action="logits", episode=FROM_THE_START))
    with pytest.raises(ActionError, match=r"must have shape \(3, 4\)"):
        env.step(torch.zeros(3, 3))
    env.step(torch.zeros(3, 4))


@pytest.mark.parametrize("autoreset", ["next_step", "same_step"])
def test_ruin_terminates_pays_the_floor_and_begins_anew(autoreset):
    bars = random_bars(14, 1, seed=9, volume=False)
    for prices in (bars.open, bars.high, bars.low, bars.close):
        prices[:7], prices[7:] = 100.0, 180.0
    tape = make_tape(bars, TapeConfig(fill="close", features=SHORT_FEATURES))
    config = EnvConfig(action="signed", max_gross=2.0, episode=FROM_THE_START, autoreset=autoreset)
    env = PortfolioEnv(tape, 2, config)
    script = torch.tensor([[-2.0], [0.0]])
    env.step(script)
    ruin = env.step(script)
    assert ruin.terminated.tolist() == [True, False] and not ruin.truncated.any()
    assert ruin.reward.tolist() == [RUIN_LOG_GROWTH, 0.0]
    env.step(script)
    assert env.state.episode.number.tolist() == [1, 0]
    assert ruin.observation.portfolio.isfinite().all()


@pytest.mark.parametrize("autoreset", ["next_step", "same_step"])
@pytest.mark.parametrize("observation", ["flat", "window"])
def test_a_step_reads_no_value_back_to_the_host(autoreset, observation):
    # On the meta device there are no values: whoever asks for one fails.
    tape = small_tape().to("meta")
    config = EnvConfig(autoreset=autoreset, observation=observation, episode=staggered(5))
    env = PortfolioEnv(tape, 4, config)
    transition = env.step(torch.zeros(4, 3, device="meta"))
    width = len(env.observation_names)
    assert env.columns(transition.observation).shape == (4, width)


def live_objects():
    """How many tensors, and how many objects of any kind, the garbage collector knows."""
    gc.collect()
    things = gc.get_objects()
    return sum(type(thing) is torch.Tensor for thing in things), len(things)


@pytest.mark.long
def test_two_thousand_steps_leave_nothing_behind():
    env = PortfolioEnv(small_tape(), 8, EnvConfig(episode=staggered(5)))
    action = actions(1, 8, 3)[0]

    def walk(steps):
        for _ in range(steps):
            env.step(action)

    walk(50)
    tensors, objects = live_objects()
    walk(1700)
    tracemalloc.start()
    try:
        walk(50)
        held = tracemalloc.get_traced_memory()[0]
        walk(250)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - held
    finally:
        tracemalloc.stop()
    assert live_objects()[0] <= tensors and live_objects()[1] < objects + 100
    assert grown < 5000  # 20 bytes a step
