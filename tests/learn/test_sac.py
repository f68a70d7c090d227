"""SAC: what is remembered is what happened, and what it is worth."""

import math
from dataclasses import replace

import pytest
import torch
from planted import RULES, planted_tape
from torch.distributions import Dirichlet, MultivariateNormal, Normal
from worlds import SHORT_FEATURES, random_bars

from fastsim.data.sample import sample_bars
from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.nested import copy, flatten, take
from fastsim.env.observe import Observation, features_at
from fastsim.env.orders import OrderConfig
from fastsim.env.randomize import RandomizeConfig
from fastsim.env.slots import View
from fastsim.errors import CheckpointError, ConfigError
from fastsim.learn.rollout import CollectConfig
from fastsim.learn.sac.buffer import ReplayBuffer, Steps
from fastsim.learn.sac.config import SACConfig
from fastsim.learn.sac.entropy import entropy_of
from fastsim.learn.trainer import Trainer
from fastsim.market.tape import TapeConfig, make_tape
from fastsim.policy.policy import PolicyOutput
from fastsim.policy.spec import PolicyConfig
from fastsim.synthetic.brownian import GeometricBrownian
from fastsim.synthetic.fresh import FreshWorlds

ROWS, STEPS = 6, 5
SMALL = SACConfig(updates=2, batch_size=16, capacity=400)
COLLECT = CollectConfig(num_envs=ROWS, rollout_steps=STEPS)
SHORT = EpisodeConfig(horizon=7, staggered=True)
TAPE = make_tape(random_bars(80, 3, seed=3), TapeConfig(features=SHORT_FEATURES))
WORLDS = FreshWorlds(
    model=GeometricBrownian(assets=2), bars=20, config=TapeConfig(features=SHORT_FEATURES), batch=5
)


def make(market=TAPE, config=SMALL, *, iterations=8, hidden=8, std=0.3, **rules):
    rules = EnvConfig(**{"action": "logits", "episode": SHORT, **rules})
    size = PolicyConfig(hidden=hidden, initial_std=std)
    return Trainer(
        market, rules, config, size, COLLECT, algorithm="sac", iterations=iterations, seed=1
    )


def watched(trainer):
    """What the environment is asked and answers, as lists that grow with every step."""
    step, record = trainer.env.step, []
    seen = [copy(trainer.algorithm.rollout.seen(-1))]

    def spy(action, into=None):
        transition = copy(step(action, into))  # the next rollout is written into the same room
        record.append((seen[-1], action.clone(), transition))
        seen.append(transition.observation)
        return transition

    trainer.env.step = spy
    return record


def kept(trainer):
    """Steps in the buffer, the oldest first."""
    buffer = trainer.algorithm.buffer
    size, head = int(buffer.size), int(buffer.head)
    order = torch.arange(size) if size < buffer.capacity else (torch.arange(size) + head) % size
    return take(buffer.rows, order)


def test_what_is_kept_is_every_step_that_counted_and_none_that_did_not():
    trainer = make()
    record = watched(trainer)
    for _ in range(4):
        trainer.advance()
    rows = []
    for seen, action, transition in record:
        counted = ~transition.restarted
        rows.append(
            (
                seen.bar[counted].int(),
                seen.portfolio[counted],
                action[counted],
                transition.reward[counted],
                transition.observation.bar[counted].int(),
                transition.observation.portfolio[counted],
                transition.terminated[counted],
            )
        )
    expected = Steps(*map(torch.cat, zip(*rows, strict=True)))
    ours = kept(trainer)
    assert 4 * ROWS * STEPS - 20 < len(ours.bar) < 4 * ROWS * STEPS
    assert all(map(torch.equal, flatten(ours), flatten(expected)))
    assert sum(int(transition.truncated.sum()) for _, _, transition in record) > 5
    assert torch.equal(ours.next_bar, ours.bar + 1)  # no step leads into another episode
    assert not ours.terminated.any()  # time was up: there is more to come


def test_the_oldest_leave_and_the_newest_stay():
    trainer = make(config=replace(SMALL, capacity=50))
    record = watched(trainer)
    for _ in range(4):
        trainer.advance()
    actions = [action[~transition.restarted] for _, action, transition in record]
    assert torch.equal(kept(trainer).action, torch.cat(actions)[-50:])


def buffer_of(worlds, capacity=12):
    """A buffer with a step in each of these worlds of 10 bars, numbered in order."""
    trainer = make(config=replace(SMALL, capacity=ROWS * STEPS))
    buffer = ReplayBuffer(trainer.algorithm.rollout, capacity)
    rollout = trainer.algorithm.rollout._replace(room=None)
    for number, world in enumerate(worlds):
        one = type(rollout)(*(None if part is None else part[:2, :1].clone() for part in rollout))
        one = one._replace(
            bar=torch.tensor([[10 * world + 3], [10 * world + 4]]),
            reward=torch.tensor([[float(number)]]),
            restarted=torch.tensor([[False]]),
            **{name: getattr(one, name)[:1] for name in ("action", "terminated")},
        )
        buffer.add(one)
    return buffer


@pytest.mark.parametrize("count", [7, 12, 17])
def test_steps_of_worlds_that_are_gone_are_forgotten_and_the_others_keep_their_order(count):
    worlds = [number % 4 for number in range(count)]
    buffer = buffer_of(worlds)
    buffer.drop(torch.tensor([1, 3]), bars_per_world=10)
    held = range(max(0, count - 12), count)
    left = [float(number) for number in held if worlds[number] in (0, 2)]
    assert int(buffer.size) == len(left)
    assert buffer.rows.reward[: len(left)].tolist() == left
    drawn = buffer.sample(500, torch.Generator().manual_seed(0))
    assert set(drawn.reward.tolist()) == set(left)
    buffer.drop(torch.tensor([], dtype=torch.int64), bars_per_world=10)
    assert buffer.rows.reward[: int(buffer.size)].tolist() == left


def test_every_step_is_drawn_as_often_as_any_other():
    buffer = buffer_of(range(5))
    drawn = buffer.sample(20_000, torch.Generator().manual_seed(0)).reward
    shares = drawn.long().bincount(minlength=5) / 20_000
    torch.testing.assert_close(shares, torch.full((5,), 0.2), atol=0.01, rtol=0.0)


def test_what_is_remembered_of_fresh_worlds_still_looks_as_it_did():
    trainer = make(WORLDS, iterations=20)
    record, shown, dropped = watched(trainer), {}, 0
    for _ in range(20):
        before = len(record)
        worlds = trainer.env.tape.known.features.clone()
        trainer.advance()
        for seen, action, _ in record[before:]:
            for row in range(ROWS):
                shown[tuple(action[row].tolist())] = worlds[seen.bar[row]]
        now, steps = trainer.env.tape.known.features, kept(trainer)
        assert len(steps.bar)
        for bar, action in zip(steps.bar.tolist(), steps.action, strict=True):
            assert torch.equal(now[bar], shown[tuple(action.tolist())])
        dropped = len(shown) - len(steps.bar)
    assert dropped > 200


def test_views_are_remembered_with_the_steps():
    trainer = make(randomize=RandomizeConfig(assets=(1, 2), volatility=(0.5, 2.0)))
    record = watched(trainer)
    for _ in range(3):
        trainer.advance()
    counted = [~transition.restarted for _, _, transition in record]
    for name in ("slots", "volatility"):
        views = [getattr(seen.view, name) for seen, _, _ in record]
        after = [getattr(transition.observation.view, name) for _, _, transition in record]
        for seen in (views, after):  # the same before a step and after it
            expected = torch.cat([view[kept] for view, kept in zip(seen, counted, strict=True)])
            assert torch.equal(getattr(kept(trainer).view, name), expected)


def test_what_follows_counts_where_time_was_up_and_not_where_all_was_over():
    trainer = make()
    trainer.advance()
    sac = trainer.algorithm
    steps = sac.buffer.sample(32, torch.Generator().manual_seed(0))
    reward = sac.reward_scale(steps.reward)
    over = steps._replace(terminated=torch.ones_like(steps.terminated))
    torch.testing.assert_close(sac._target(over), reward)
    with torch.no_grad():
        for parameter in sac.targets.parameters():
            parameter.zero_()
        sac.targets.one.head.bias.fill_(3.0)
        sac.targets.other.head.bias.fill_(2.0)
    sac.course.begin()
    target = sac._target(steps)
    sac.course.begin()  # the same noise
    _, entropy = sac._worth(sac.targets, steps.after)
    ahead = 2.0 + sac.log_temperature.exp() * entropy.total  # the more cautious critic's
    torch.testing.assert_close(target, (reward + SMALL.discount * ahead).detach())
    assert entropy.total.abs().min() > 0


@pytest.mark.parametrize("std", [1.0, pytest.param(0.02, marks=pytest.mark.long)])
def test_the_temperature_holds_exploration_to_its_entropy(std):
    tape, _ = planted_tape(revealing=False, bars=300)
    config = SACConfig(updates=60, batch_size=64, learning_rate=2e-2, schedule="constant")
    trainer = make(tape, config, iterations=20, std=std, costs=RULES.costs)
    entropy = [trainer.iterate()["policy/entropy"] for _ in range(20)]
    assert abs(entropy[0] - config.target_entropy) > 0.8
    assert abs(sum(entropy[-5:]) / 5 - config.target_entropy) < 0.4


def gaussian(actions=4, rows=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mean, noise = torch.randn(2, rows, actions, generator=generator, dtype=torch.float64)
    log_std = torch.randn(actions, generator=generator, dtype=torch.float64)
    return PolicyOutput(mean, log_std, mean[:, 0]), mean + log_std.exp() * noise


def observed(slots=None):
    view = None if slots is None else View(torch.tensor(slots), torch.ones(len(slots)))
    return Observation(torch.zeros(5).long(), torch.zeros(5, 1), view=view)


LOGITS = EnvConfig(action="logits")


def test_the_entropy_of_logits_is_that_of_the_weights_they_ask_for():
    output, action = gaussian()
    ours = entropy_of(output, action, observed(), LOGITS)
    variance = torch.exp(2.0 * output.log_std)
    covariance = torch.diag(variance[:3]) + variance[3]  # of differences to the last
    of_differences = MultivariateNormal(torch.zeros(3).double(), covariance).entropy()

    def weights(difference):
        return torch.softmax(torch.cat([difference, difference.new_zeros(1)]), 0)[:3]

    volume = torch.stack(
        [torch.autograd.functional.jacobian(weights, row[:3] - row[3]).logdet() for row in action]
    )
    evenly = Dirichlet(torch.ones(4).double()).entropy()
    torch.testing.assert_close(ours.total, of_differences + volume - evenly)
    assert ours.numbers.tolist() == [3.0] * 5


def test_masked_slots_have_no_entropy():
    output, action = gaussian()
    masked = entropy_of(output, action, observed([[2, 0, -1]] * 5), LOGITS)
    kept = [0, 1, 3]  # two slots and cash
    fewer = PolicyOutput(output.mean[:, kept], output.log_std[kept], output.value)
    alone = entropy_of(fewer, action[:, kept], observed(), LOGITS)
    torch.testing.assert_close(masked.total, alone.total)
    assert masked.numbers.tolist() == [2.0] * 5


def test_the_entropy_of_numbers_within_bounds_is_their_own_less_what_is_beyond():
    output, _ = gaussian()
    inside, outside = torch.full((5, 4), 0.5).double(), torch.full((5, 4), -1.25).double()
    own = Normal(0.0, output.log_std.exp()).entropy().sum()
    for action, width in (("weights", 1.0), ("signed", 2.0)):
        rules = EnvConfig(action=action)
        total = entropy_of(output, inside, observed(), rules).total
        torch.testing.assert_close(total, (own - 4 * math.log(width)).expand(5))
        beyond = 1.25 if action == "weights" else 0.25
        less = total - entropy_of(output, outside, observed(), rules).total
        torch.testing.assert_close(less, torch.full((5,), 4 * beyond * 2.0 / width).double())


@pytest.mark.parametrize("action", ["weights", "signed"])
def test_other_modes_of_action_learn_too(action):
    trainer = make(action=action)
    before = [weight.detach().clone() for weight in trainer.policy.actor.parameters()]
    figures = [trainer.iterate() for _ in range(4)][-1]
    assert all(map(math.isfinite, figures.values()))
    assert not any(map(torch.equal, before, trainer.policy.actor.parameters()))


def test_a_step_takes_a_ninth_of_flat_observations_and_a_ninetieth_of_windows():
    tape = make_tape(sample_bars("us20"))
    features = {f"forecast_{number}": torch.zeros_like(tape.known.sigma) for number in range(9)}
    tape = tape.with_features(features)

    def numbers(observation):
        env = PortfolioEnv(tape, 1, EnvConfig(action="logits", observation=observation))
        return len(env.observation_names)

    trainer = Trainer(
        tape, EnvConfig(action="logits"), SMALL, PolicyConfig(), COLLECT, algorithm="sac",
        iterations=1,
    )  # fmt: skip
    rows = take(trainer.algorithm.buffer.rows, slice(0, 1))
    ours = sum(column.nbytes for column in flatten(rows))
    rest = rows.action.nbytes + rows.reward.nbytes + rows.terminated.nbytes
    assert (2 * 4 * numbers("flat") + rest) / ours > 9
    assert (2 * 4 * numbers("window") + rest) / ours > 90


def test_a_buffer_of_less_than_a_rollout_is_refused():
    with pytest.raises(ConfigError, match=r"SACConfig\.capacity = 29 does not hold the 30 steps"):
        make(config=replace(SMALL, capacity=29))


def test_a_buffer_does_not_go_on_from_a_larger_one(tmp_path):
    large = make()
    for _ in range(3):
        large.advance()
    large.save(tmp_path / "latest.pt")
    with pytest.raises(CheckpointError, match=r"latest\.pt: .*do not fit a buffer for 30 of"):
        make(config=replace(SMALL, capacity=30)).load(tmp_path / "latest.pt")


def test_features_of_what_is_drawn_are_those_of_the_tape():
    trainer = make()
    trainer.advance()
    sac = trainer.algorithm
    steps = sac.buffer.sample(16, torch.Generator().manual_seed(0))
    seen = steps.before
    direct = sac.policy.standardized(features_at(TAPE, seen.bar))
    critic = sac.critics.one
    with torch.no_grad():
        shared = sac.policy.look_up(sac.table, seen.bar, encode=critic.encode)
        torch.testing.assert_close(shared, critic.encode(direct))


def test_actions_that_ask_for_more_than_weights_are_refused():
    orders = OrderConfig(stop=0.05, target=0.1)
    with pytest.raises(ConfigError, match=r"SAC's critics see weights alone.*bracketed"):
        make(action="bracketed", orders=orders)
