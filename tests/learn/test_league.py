"""Self-play: who learns, who does not, and that learning among others is worth something."""

import runpy
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from planted import RULES as PLANTED
from planted import planted_tape

from fastsim.env.decide import Seat
from fastsim.env.environment import PortfolioEnv
from fastsim.env.nested import flatten
from fastsim.env.players import Momentum, Noise
from fastsim.errors import CheckpointError, ConfigError
from fastsim.learn.checkpoint import load_checkpoint
from fastsim.learn.league import LeagueConfig, LeagueEnv, play_match, train_league
from fastsim.learn.ppo.config import PPOConfig
from fastsim.learn.rollout import CollectConfig
from fastsim.learn.snapshot import Snapshot
from fastsim.learn.trainer import Trainer
from fastsim.policy.spec import PolicyConfig

PLAYERS, MARKETS = 3, 8
TAPE, BEST = planted_tape(revealing=True)
RULES = replace(PLANTED, players=PLAYERS)
POLICY = PolicyConfig(hidden=16, initial_std=1.0)


def make_league(markets=MARKETS, steps=16, iterations=4, **settings):
    env = PortfolioEnv(TAPE, markets * PLAYERS, RULES)
    config = LeagueConfig(snapshot_every=2, keep=2, **settings)
    league = LeagueEnv(env, [Noise(), Momentum()], config)
    ppo = PPOConfig(discount=0.9, learning_rate=3e-3)
    collect = CollectConfig(num_envs=markets, rollout_steps=steps)
    trainer = Trainer(TAPE, league, ppo, POLICY, collect, iterations=iterations)
    return league, trainer


def weights_of(policy):
    return [value.clone() for value in policy.state_dict().values()]


def test_snapshots_stay_as_they_were_while_the_learner_goes_on():
    league, trainer = make_league(scripted_share=0.0)
    train_league(trainer, league, 1)
    [snapshot] = league.snapshots
    policy, market = snapshot.decider.policy, snapshot.market.parts.clone()
    before = weights_of(policy)
    assert [member for member, _ in league.seats] == [2]  # nobody else plays
    trainer.iterate()
    assert all(map(torch.equal, weights_of(policy), before))
    assert torch.equal(snapshot.market.parts, market)
    assert not all(map(torch.equal, weights_of(trainer.policy), before))
    assert not any(value.requires_grad for value in policy.parameters())


def test_a_snapshot_plays_what_the_policy_would_have_played():
    league, trainer = make_league()
    trainer.iterate()
    observation = league.reset(0)
    snapshot = Seat(Snapshot(trainer.policy), TAPE, RULES)
    expected = trainer.policy.act(TAPE, observation)
    torch.testing.assert_close(snapshot(observation), expected)
    trainer.iterate()
    torch.testing.assert_close(snapshot(observation), expected)


def test_the_oldest_snapshots_leave():
    league, trainer = make_league(iterations=8)
    train_league(trainer, league, 3)
    first = league.snapshots[0]
    train_league(trainer, league, 3)
    assert len(league.snapshots) == 2
    assert first not in league.snapshots


def test_only_the_learners_rows_are_learned_from():
    league, trainer = make_league()
    received = []
    step = league.env.step

    def spy(action):
        received.append((action.clone(), step(action)))
        return received[-1][1]

    league.env.step = spy
    train_league(trainer, league, 1)
    rollout = trainer.algorithm.rollout
    assert rollout.reward.shape == (16, MARKETS)
    for number, (action, transition) in enumerate(received):
        assert torch.equal(rollout.action[number], action[::PLAYERS])
        assert torch.equal(rollout.reward[number], transition.reward[::PLAYERS])
        seen = transition.observation.portfolio[::PLAYERS]
        assert torch.equal(rollout.portfolio[number + 1], seen)


def test_every_seat_is_taken_by_one_player():
    league, trainer = make_league(markets=64)
    train_league(trainer, league, 1)
    rows = torch.cat([rows for _, rows in league.seats])
    others = torch.arange(64 * PLAYERS).view(64, PLAYERS)[:, 1:].flatten()
    assert torch.equal(rows.sort().values, others)
    assert {member for member, _ in league.seats} == {0, 1, 2}


def test_a_league_repeats_itself():
    runs = []
    for _ in range(2):
        league, trainer = make_league()
        train_league(trainer, league, 4)
        runs.append(weights_of(trainer.policy))
    assert all(map(torch.equal, *runs))


def everything(league, trainer):
    """All tensors of a run by name."""
    snapshots = [tensor for each in league.snapshots for tensor in weights_of(each.decider.policy)]
    return {
        "weights": weights_of(trainer.policy),
        "moments of Adam": [
            value
            for state in trainer.algorithm.optimizer.state.values()
            for value in state.values()
        ],
        "reward scale": weights_of(trainer.algorithm.reward_scale),
        "rollout": flatten(trainer.algorithm.rollout),
        "portfolios": flatten(league.env.state),
        "snapshots": snapshots + [each.market.parts for each in league.snapshots],
        "seats": [part for who, rows in league.seats for part in (torch.tensor(who), rows)],
        "draws": [league._generator.get_state()],
    }


@pytest.mark.parametrize("killed_after", [1, 2, 3, 5])
def test_a_league_killed_and_resumed_goes_on_as_if_nothing_had_happened(tmp_path, killed_after):
    league, trainer = make_league(iterations=7)
    train_league(trainer, league, 7)
    first, killed = make_league(iterations=7)
    train_league(killed, first, killed_after)
    killed.save(tmp_path / "latest.pt")
    other, resumed = make_league(iterations=7)
    resumed.load(tmp_path / "latest.pt")
    assert len(other.snapshots) == len(first.snapshots)
    train_league(resumed, other, 7 - killed_after)
    whole, again = everything(league, trainer), everything(other, resumed)
    assert max(who for who, _ in league.seats) > 1, "no snapshot sits anywhere"
    for name, tensors in whole.items():
        assert len(tensors) == len(again[name]), name
        assert all(map(torch.equal, tensors, again[name])), name


def test_loading_a_league_draws_no_random_number(tmp_path):
    league, trainer = make_league()
    train_league(trainer, league, 1)
    trainer.save(tmp_path / "latest.pt")
    before = torch.get_rng_state()
    trainer.load(tmp_path / "latest.pt")
    assert torch.equal(torch.get_rng_state(), before)


def test_what_a_league_saved_is_its_own_to_keep():
    league, trainer = make_league()
    train_league(trainer, league, 1)
    saved = league.state_dict()
    before = deepcopy(saved)
    train_league(trainer, league, 3)
    league.load_state_dict(saved)
    assert all(map(torch.equal, flatten(league.env.state), before["env"]["state"]))
    assert torch.equal(league._who, before["seats"])


def lose_a_weight(saved):
    del saved["snapshots"][0]["weights"]["actor.weight"]


def lose_a_spec(saved):
    del saved["snapshots"][0]["spec"]


def misspell_a_spec(saved):
    saved["snapshots"][0]["spec"]["max_grass"] = 1.0


def lose_a_memory(saved):
    saved["memories"].pop()


def lose_the_seats(saved):
    del saved["seats"]


def lose_a_player(saved):
    saved["seats"] = saved["seats"][1:]


def lose_a_tensor(saved):
    saved["env"]["state"].pop()


def seat_a_stranger(saved):
    saved["seats"][0] = 99


def widen_a_weight(saved):
    saved["snapshots"][0]["weights"]["log_std"] = torch.zeros(99)


def shorten_what_was_seen(saved):
    saved["seen"] = [part[1:] for part in saved["seen"]]


def spoil_the_generator(saved):
    saved["generator"] = torch.zeros(3)


def turn_the_snapshots_into_text(saved):
    saved["snapshots"] = ["weights"]


def empty_the_environment(saved):
    saved.clear()


@pytest.mark.parametrize(
    ("damage", "culprit"),
    [
        (lose_a_weight, r'Missing key.*"actor\.weight"'),
        (lose_a_spec, "lacks 'spec'"),
        (misspell_a_spec, "max_grass"),
        (lose_a_memory, ""),
        (lose_the_seats, "lacks 'seats'"),
        (lose_a_player, "saved seats are not 16 among 3 players"),
        (lose_a_tensor, "tensors is needed"),
        (seat_a_stranger, "saved seats"),
        (widen_a_weight, "log_std"),
        (shorten_what_was_seen, "saved state"),
        (spoil_the_generator, ""),
        (turn_the_snapshots_into_text, ""),
        (empty_the_environment, "lacks 'env'"),
    ],
)
def test_damaged_parts_of_a_league_are_named_in_one_line(tmp_path, damage, culprit):
    league, trainer = make_league()
    train_league(trainer, league, 1)
    path = tmp_path / "latest.pt"
    trainer.save(path)
    content = load_checkpoint(path)
    damage(content["env"])
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=rf"latest\.pt: .*LeagueEnv: .*{culprit}") as caught:
        trainer.load(path)
    assert "\n" not in str(caught.value)


def test_a_league_does_not_go_on_from_a_run_without_one(tmp_path):
    collect = CollectConfig(num_envs=MARKETS, rollout_steps=16)
    alone = Trainer(TAPE, PLANTED, PPOConfig(), POLICY, collect, iterations=1)
    alone.save(tmp_path / "alone.pt")
    _, trainer = make_league()
    with pytest.raises(CheckpointError, match=r"alone\.pt: does not fit .* LeagueEnv"):
        trainer.load(tmp_path / "alone.pt")


@pytest.fixture
def self_play(monkeypatch, tmp_path):
    """Run the script in a folder of its own; returns the latest checkpoint of the run."""

    def run(*options, name="play"):
        script = Path(__file__).parents[2] / "agents" / "self_play.py"
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [str(script), *options])
        runpy.run_path(str(script), run_name="__main__")
        return load_checkpoint(tmp_path / "runs" / name / "checkpoints" / "latest.pt")

    return run


SMALL = ["--iterations", "4", "--markets", "4", "--players", "3", "--save-every", "2"]


def test_the_script_goes_on_where_it_was_stopped(self_play, monkeypatch, capsys):
    whole = self_play("--name", "whole", *SMALL, name="whole")
    printed = capsys.readouterr().out
    save = Trainer.save

    def save_and_stop(self, path, **extra):
        save(self, path, **extra)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "save", save_and_stop)
        with pytest.raises(SystemExit, match=r"^130$"):
            self_play("--name", "play", *SMALL)
    assert capsys.readouterr().err == "self_play: stopped; --resume runs/play goes on\n"
    resumed = self_play("--resume", "runs/play")
    assert (whole["iteration"], resumed["iteration"]) == (4, 4)
    for name, tensor in whole["policy"].items():
        assert torch.equal(tensor, resumed["policy"][name])
    assert torch.equal(whole["env"]["seats"], resumed["env"]["seats"])
    assert capsys.readouterr().out == printed
    with pytest.raises(SystemExit, match=r"^2$"):
        self_play("--name", "play", *SMALL)
    assert "holds a run already" in capsys.readouterr().err


def test_the_script_makes_a_run_longer(self_play, capsys):
    short = self_play("--name", "short", *SMALL, name="short")
    longer = self_play("--resume", "runs/short", "--iterations", "6", name="short")
    assert (short["iteration"], longer["iteration"]) == (4, 6)
    assert "iterations: 6" in Path("runs/short/config.yaml").read_text()
    capsys.readouterr()
    for options, culprit in (
        (["--iterations", "5"], "--iterations 5 is less than the 6 that runs/short has done"),
        (["--iterations", "8", "--markets", "5"], "drop markets"),
        (["--seed", "1"], "drop seed"),
    ):
        with pytest.raises(SystemExit, match=r"^2$"):
            self_play("--resume", "runs/short", *options)
        (line,) = capsys.readouterr().err.splitlines()
        assert culprit in line
    again = self_play("--resume", "runs/short", "--iterations", "6", name="short")
    assert all(
        torch.equal(again["policy"][name], longer["policy"][name]) for name in again["policy"]
    )


def test_a_script_stopped_before_its_first_checkpoint_promises_nothing(
    self_play, monkeypatch, capsys
):
    def stop(self, path, **extra):
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "save", stop)
    with pytest.raises(SystemExit, match=r"^130$"):
        self_play(*SMALL)
    assert capsys.readouterr().err == "self_play: stopped\n"


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        (["--save-every", "0"], "--save-every must be >= 1, got 0"),
        (["--iterations", "0"], "--iterations must be >= 1, got 0"),
        (["--split", "abc"], "--split must be an ISO date such as '2020-01-31', got 'abc'"),
        (["--split", "2030-01-01"], "leave no step after"),
        (["--resume", "runs/none"], "runs/none/config.yaml: no such configuration file"),
        (["--resume", "runs/none", "--markets", "5"], "runs/none/config.yaml: no such"),
        (["--resume"], "--resume needs a path"),
    ],
)
def test_bad_options_of_the_script_end_in_one_line(self_play, capsys, options, culprit):
    with pytest.raises(SystemExit, match=r"^2$"):
        self_play(*options)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("self_play: ") and culprit in line


def test_the_learner_earns_more_than_noise_and_than_it_did_untrained():
    league, trainer = make_league(markets=64, iterations=40)
    rules = replace(RULES, episode=replace(RULES.episode, staggered=False))
    players = [Noise(), Momentum()]
    before = play_match(TAPE, [Snapshot(trainer.policy), *players], rules)
    train_league(trainer, league, 40)
    after = play_match(TAPE, [Snapshot(trainer.policy), *players], rules)
    torch.testing.assert_close(after[1:], before[1:])  # no volume, no impact: the others stay put
    best = BEST / (TAPE.last - TAPE.first)
    assert after[0] > 0.5 * best
    assert after[0] > max(before[0], after[1]) + 0.2 * best


def test_a_league_of_one_is_refused():
    env = PortfolioEnv(TAPE, 4, replace(RULES, players=1))
    with pytest.raises(ConfigError, match="players >= 2"):
        LeagueEnv(env, [Noise()], LeagueConfig())


def test_a_trainer_wants_as_many_rows_as_the_league_shows():
    league, _ = make_league()
    with pytest.raises(ConfigError, match="num_envs = 7 must be the environment's 8 rows"):
        Trainer(TAPE, league, PPOConfig(), POLICY, CollectConfig(num_envs=7), iterations=1)
