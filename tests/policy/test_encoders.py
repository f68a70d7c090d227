"""Policies that look at windows of each asset: what they see, and what they cannot depend on."""

from dataclasses import replace

import pytest
import torch
from worlds import SHORT_FEATURES, random_bars

from fastsim.agent.export import export_policy
from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.observe import Observation
from fastsim.env.orders import OrderConfig
from fastsim.env.randomize import RandomizeConfig
from fastsim.env.slots import View
from fastsim.errors import ConfigError
from fastsim.learn.algorithms import ALGORITHMS
from fastsim.learn.rollout import CollectConfig
from fastsim.learn.sac.config import SACConfig
from fastsim.learn.trainer import Trainer
from fastsim.market.tape import TapeConfig, make_tape
from fastsim.policy.encoders import ENCODERS, Convolutions, spans
from fastsim.policy.make import new_policy
from fastsim.policy.own import OwnMoments, own_columns
from fastsim.policy.spec import PolicyConfig, make_spec

WINDOW, CHANNELS = 12, 6
CONFIG = TapeConfig(features=SHORT_FEATURES)
BARS = random_bars(90, 4, seed=3, holes=True)
TAPE = replace(make_tape(BARS, CONFIG, dtype=torch.float64), first=30)
RULES = EnvConfig(action="logits", episode=EpisodeConfig(horizon=10))
ACTIONS = {
    "logits": RULES,
    "weights": replace(RULES, action="weights"),
    "bracketed": replace(RULES, action="bracketed", orders=OrderConfig(stop=0.05, target=0.1)),
}


def config(encoder="conv", **given):
    settings = {"hidden": 8, "window": WINDOW, "channels": CHANNELS, "encoder": encoder}
    return PolicyConfig(**settings | given)


def policy_for(encoder="conv", tape=TAPE, rules=RULES, **given):
    """A policy whose every number matters, in float64."""
    policy = new_policy(make_spec(tape, rules, config(encoder, **given)), tape, seed=1).double()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    return policy


def portfolios(tape, rules, rows, seed=4):
    """Portfolios [rows, P] that hold something of everything."""
    env = PortfolioEnv(tape, rows, rules, seed=seed, backend="torch")
    env.reset(seed)
    generator = torch.Generator().manual_seed(seed)
    action = torch.randn(rows, env.action_width, generator=generator, dtype=tape.dtype)
    return env.step(action).observation.portfolio


def answers(policy, tape, bar, portfolio):
    with torch.no_grad():
        return policy(policy.look_up(policy.standardize(tape), bar), portfolio)


def permuted(tape, order):
    """The tape with its assets in another order."""
    return make_tape(BARS.take(slice(None), order), CONFIG, dtype=torch.float64).between(
        slice(tape.first, tape.last + 1)
    )


def all_encoders(test):
    return pytest.mark.parametrize("encoder", ENCODERS)(test)


def test_the_last_layer_sees_the_window_and_nothing_before_it():
    for window in range(1, 70):
        assert 1 + sum(spans(window)) == window


@all_encoders
def test_an_answer_depends_on_the_bars_of_the_window_and_on_no_other(encoder):
    policy, bar = policy_for(encoder), 50
    own = portfolios(TAPE, RULES, 1)
    before = answers(policy, TAPE, torch.tensor([bar]), own)

    def altered(row):
        features = TAPE.known.features.clone()
        features[row] += 1.0
        return replace(TAPE, known=TAPE.known._replace(features=features))

    for row in (bar - WINDOW, bar + 1, bar - WINDOW - 5, len(TAPE) - 1):
        same = answers(policy, altered(row), torch.tensor([bar]), own)
        assert torch.equal(same.mean, before.mean) and torch.equal(same.value, before.value)
    seen = WINDOW if encoder != "attention" else WINDOW - WINDOW % 5
    for row in range(bar - seen + 1, bar + 1):
        other = answers(policy, altered(row), torch.tensor([bar]), own)
        assert (other.mean != before.mean).any() and (other.value != before.value).any()


@all_encoders
def test_bars_encoded_along_the_tape_are_those_encoded_one_by_one(encoder):
    policy = policy_for(encoder)
    table = policy.standardize(TAPE)
    every = policy.encode_table(table)
    assert len(every) == table.bars == TAPE.last - TAPE.first + 1
    for bar in (TAPE.first, TAPE.first + 1, 44, TAPE.last):
        parts, place = policy.look_up(table, torch.tensor([bar, bar]))
        expected = every[table.place(torch.tensor([bar, bar]))]
        torch.testing.assert_close(parts[place], expected, rtol=1e-12, atol=1e-12)


@all_encoders
def test_before_the_first_bar_stand_features_at_their_means(encoder):
    tape = replace(TAPE, first=3)
    policy = policy_for(encoder, tape)
    table = policy.standardize(tape)
    assert (table.rows[0, : WINDOW - 1 - 3] == 0).all()
    assert (table.rows[0, WINDOW - 1 - 3] != 0).any()
    own = portfolios(tape, RULES, 1)
    assert answers(policy, tape, torch.tensor([3]), own).mean.isfinite().all()


@all_encoders
@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("mode", ACTIONS)
def test_permuting_assets_permutes_what_is_asked_for_and_leaves_the_value(encoder, across, mode):
    rules, order = ACTIONS[mode], [2, 0, 3, 1]
    policy = policy_for(encoder, rules=rules, across=across)
    bars, own = torch.tensor([30, 47, 80]), portfolios(TAPE, rules, 3)
    here = answers(policy, TAPE, bars, own)
    columns, cash = policy.spec.own, 4 if mode == "logits" else 0
    places, at = [], 0
    for block in columns.blocks:
        assets = 4 if block.of_assets else 0
        places += [at + place for place in order[:assets]]
        places += range(at + assets, at + block.width(4))
        at += block.width(4)
    there = answers(policy, permuted(TAPE, order), bars, own[:, places])
    heads = 3 if mode == "bracketed" else 1
    moved = [place + 4 * head for head in range(heads) for place in order]
    moved += [cash] if cash else []
    torch.testing.assert_close(there.mean, here.mean[:, moved], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(there.value, here.value, rtol=1e-9, atol=1e-9)


def test_what_is_not_listed_is_not_asked_for_and_moves_nobody_else():
    policy, bar = policy_for("attention", across=True), torch.tensor([30])
    listed = TAPE.known.listed.clone()
    listed[bar[0] - WINDOW : bar[0] + 1, 1] = False
    hidden = replace(TAPE, known=TAPE.known._replace(listed=listed))
    features = TAPE.known.features.clone()
    features[:, 1] += 1.0
    strange = replace(hidden, known=hidden.known._replace(features=features))
    own = portfolios(TAPE, RULES, 1)
    one, other = answers(policy, hidden, bar, own), answers(policy, strange, bar, own)
    assert float(one.mean[0, 1]) == -10.0
    assert torch.equal(one.mean, other.mean)
    seen = answers(policy, TAPE, bar, own)
    assert (seen.mean[0, [0, 2, 3]] != one.mean[0, [0, 2, 3]]).all()


@all_encoders
def test_it_decides_on_other_assets_than_it_learned_from(encoder):
    policy = policy_for(encoder)
    for assets in (2, 7):
        tape = make_tape(random_bars(90, assets, seed=6), CONFIG, dtype=torch.float64)
        policy.spec.check(tape, RULES)
        own = portfolios(tape, RULES, 3)
        said = policy.act(tape, Observation(torch.tensor([40, 60, 41]), own))
        assert said.shape == (3, assets + 1) and said.isfinite().all()
        market = policy.study(tape, RULES)
        again, _ = policy.decide(market, Observation(torch.tensor([40, 60, 41]), own), ())
        torch.testing.assert_close(again, said, rtol=1e-12, atol=1e-12)


def test_other_features_or_columns_are_refused():
    policy = policy_for()
    more = TAPE.with_features({"signal": torch.zeros(90, 4)})
    with pytest.raises(ConfigError, match=r"the features"):
        policy.spec.check(more, RULES)
    with pytest.raises(ConfigError, match=r"the portfolio columns weight, drawdown, log_growth;"):
        policy.spec.check(TAPE, replace(RULES, orders=OrderConfig(stop=0.1)))


def test_assets_that_are_drawn_are_a_market_of_these_assets_alone():
    policy, bars = policy_for("gru", across=True), torch.tensor([40, 66])
    rules = replace(RULES, randomize=RandomizeConfig(assets=(2, 2)))
    chosen = [3, 0]
    few = permuted(TAPE, chosen)
    own = portfolios(few, RULES, 2)
    wide = torch.zeros(2, 7, dtype=own.dtype)
    wide[:, [0, 1, 4, 5, 6]] = own
    view = View(torch.tensor([[3, 0, -1, -1]] * 2), torch.ones(2, dtype=torch.float64))
    policy.spec = make_spec(TAPE, rules, policy.spec.network)
    with torch.no_grad():
        shown = policy.look_up(policy.standardize(TAPE), bars, view)
        policy.portfolio_moments.mean.zero_()
        spare = policy.portfolio_moments.square_sum
        spare.zero_()
        # A share of the wealth counts by how many assets there are: 4 slots here, 2 assets there.
        wide[:, :4] /= 2.0
        there = policy(policy.look_up(policy.standardize(few), bars), own)
        here = policy(shown, wide)
    torch.testing.assert_close(here.mean[:, [0, 1, 4]], there.mean, rtol=1e-9, atol=1e-9)
    assert (here.mean[:, [2, 3]] == -10.0).all()


def test_windows_of_several_worlds_do_not_reach_into_one_another():
    tape = make_tape(random_bars(60, 6, seed=8), CONFIG, dtype=torch.float64)
    worlds = replace(tape.fold(3), first=10)
    policy = policy_for("conv", replace(tape.fold(3), first=10))
    table = policy.standardize(worlds)
    assert table.bars == 3 * (worlds.last - 9)
    every = policy.encode_table(table)
    for number in range(3):
        world = worlds.world(number)
        alone = policy.encode_table(policy.standardize(world))
        bars = torch.arange(10, world.last + 1)
        there = every[table.place(bars + number * worlds.bars_per_world)]
        torch.testing.assert_close(there, alone, rtol=1e-12, atol=1e-12)


@all_encoders
@pytest.mark.parametrize("algorithm", ["ppo", "apg"])
def test_it_learns_and_goes_on_from_a_checkpoint(encoder, algorithm, tmp_path):
    tape = make_tape(BARS, CONFIG)

    def trainer():
        settings = ALGORITHMS.find(algorithm).config()
        collect = CollectConfig(num_envs=8, rollout_steps=6)
        return Trainer(
            tape, RULES, settings, config(encoder), collect, algorithm=algorithm, iterations=4
        )

    whole, first, second = trainer(), trainer(), trainer()
    start = [parameter.clone() for parameter in whole.policy.parameters()]
    for _ in range(4):
        whole.iterate()
    for _ in range(2):
        first.iterate()
    first.save(tmp_path / "half.pt")
    second.load(tmp_path / "half.pt")
    for _ in range(2):
        second.iterate()
    for one, other in zip(whole.policy.parameters(), second.policy.parameters(), strict=True):
        assert torch.equal(one, other)
    moved = [
        not torch.equal(one, begun)
        for one, begun in zip(whole.policy.parameters(), start, strict=True)
    ]
    assert sum(moved) > len(moved) / 2


def test_what_does_not_go_together_is_refused():
    drawn = replace(RULES, randomize=RandomizeConfig(volatility=(0.5, 2.0)))
    with pytest.raises(
        ConfigError, match=r"RandomizeConfig.volatility shows every episode another"
    ):
        make_spec(TAPE, drawn, config())
    with pytest.raises(
        ConfigError, match=r"PolicyConfig.across is for encoders of windows, such as conv"
    ):
        PolicyConfig(across=True)
    with pytest.raises(ConfigError, match=r"no encoder is called 'lstm'.*, and \"mlp\""):
        PolicyConfig(encoder="lstm")
    collect = CollectConfig(num_envs=8, rollout_steps=6)
    tape = make_tape(BARS, CONFIG)
    with pytest.raises(
        ConfigError, match=r'the critics of "sac" know no PolicyConfig.encoder = "conv"'
    ):
        Trainer(tape, RULES, SACConfig(), config(), collect, algorithm="sac", iterations=1)


def test_a_file_of_weights_alone_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r'encoder = "conv" cannot be exported as a file, only'):
        export_policy(policy_for(), tmp_path / "policy.pt")
    assert not any(tmp_path.iterdir())


def test_moments_of_assets_are_those_of_all_assets_in_units_of_an_equal_share():
    names = (
        "weight.A",
        "weight.B",
        "weight.C",
        "weight.cash",
        "drawdown",
        "stop.A",
        "stop.B",
        "stop.C",
    )
    columns = own_columns(names, "A", 3)
    assert columns.names == ("weight", "drawdown", "stop")
    assert columns.place(3) == [0, 0, 0, 2, 3, 1, 1, 1]
    assert columns.assets_in(8) == 3 and columns.assets_in(12) == 5
    rows = torch.randn(500, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows[:, 1] += 2.0
    moments = OwnMoments(columns)
    for part in rows.split(170):
        moments.update(part)
    weights = 3.0 * rows[:, :3].flatten()
    stops = rows[:, 5:].flatten()
    expected = [weights, stops, rows[:, 3], rows[:, 4]]
    torch.testing.assert_close(moments.mean, torch.stack([each.mean() for each in expected]))
    std = torch.stack([each.std(unbiased=False) for each in expected])
    torch.testing.assert_close(moments.std, std)
    shown = moments(rows)
    torch.testing.assert_close(
        shown[:, 1], ((3.0 * rows[:, 1] - moments.mean[0]) / moments.std[0]).clamp(-5.0, 5.0)
    )
    own, alone = columns.split(rows)
    assert torch.equal(own[..., 1], rows[:, 5:]) and torch.equal(alone, rows[:, [3, 4]])


@pytest.mark.parametrize("mode", ["logits", "weights"])
def test_scores_in_one_pass_are_those_of_the_formula_and_so_are_their_gradients(mode, monkeypatch):
    rules, bars = ACTIONS[mode], torch.tensor([30, 47, 80, 47])
    tape = replace(make_tape(BARS, CONFIG), first=30)
    policy = policy_for("conv", tape, rules).float()
    own = portfolios(tape, rules, 4)
    weights = torch.randn(4, policy.spec.action_width, generator=torch.Generator().manual_seed(0))

    def found():
        policy.zero_grad()
        said = policy(policy.look_up(policy.standardize(tape), bars), own)
        (said.mean * weights).sum().backward(retain_graph=True)
        said.value.square().sum().backward()
        gradients = [
            parameter.grad.clone()
            for parameter in policy.parameters()
            if parameter.grad is not None
        ]
        return [said.mean.detach(), said.value.detach(), *gradients]

    fused = found()
    monkeypatch.setattr("fastsim.policy.assets.is_fused", lambda *_: False)
    plain = found()
    assert len(fused) == len(plain) > 10
    for one, other in zip(fused, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("channels", [4, 6, 16])
def test_a_convolution_in_one_pass_is_the_formula_and_so_are_its_gradients(channels):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(20, 3, channels, generator=generator)
    module = Convolutions(channels, 13, channels)
    weights = torch.randn(8, 3, channels, generator=generator)

    def found(dtype):
        module.to(dtype).zero_grad()
        given = rows.to(dtype).requires_grad_()
        said = module(given)
        (said * weights).sum().backward()
        return [said.detach(), given.grad, *(each.grad.clone() for each in module.parameters())]

    exact = found(torch.float64)
    for one, other in zip(found(torch.float32), exact, strict=True):
        torch.testing.assert_close(one.double(), other.double(), rtol=1e-4, atol=1e-5)
