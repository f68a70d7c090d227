"""Worlds drawn while they are lived in: every episode a path never seen, none changed midway."""

import math
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from pettingzoo.test import parallel_api_test
from stable_baselines3 import PPO
from worlds import SHORT_FEATURES, assert_same_bits, random_bars

import fastsim
from fastsim.adapters.build import build_env
from fastsim.adapters.pettingzoo import SharedMarketParallelEnv
from fastsim.adapters.sb3 import SB3VecEnv
from fastsim.config import from_mapping
from fastsim.data.source import DataConfig, load_bars
from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.impact import ImpactConfig
from fastsim.env.players import SCRIPTED
from fastsim.errors import CheckpointError, ConfigError, DataError
from fastsim.experiment.config import TrainConfig, read_run
from fastsim.experiment.evaluate import evaluate
from fastsim.experiment.markets import load_markets
from fastsim.experiment.replays import play
from fastsim.experiment.train import make_trainer, train
from fastsim.learn.league import LeagueConfig, LeagueEnv
from fastsim.learn.ppo.config import PPOConfig
from fastsim.learn.rollout import CollectConfig
from fastsim.learn.trainer import Trainer
from fastsim.market.tape import TapeConfig, make_tape
from fastsim.policy.spec import PolicyConfig
from fastsim.synthetic.bootstrap import BlockBootstrap
from fastsim.synthetic.brownian import GeometricBrownian
from fastsim.synthetic.config import WorldsConfig
from fastsim.synthetic.fresh import FreshWorlds
from fastsim.synthetic.garch import Garch
from fastsim.synthetic.models import SYNTHETIC_MODELS, fit
from fastsim.synthetic.worlds import make_worlds

ROOT = Path(__file__).parents[2]
ASSETS, BARS, ENVS = 2, 20, 6
MODEL = GeometricBrownian(assets=ASSETS)
TAPE = TapeConfig(features=SHORT_FEATURES)
SHORT = EpisodeConfig(horizon=4)
ACTION = torch.full((ENVS, ASSETS), 0.4)
RULES = EnvConfig(action="logits", episode=EpisodeConfig(horizon=5, staggered=True))
SMALL, FEW = PPOConfig(minibatches=2), CollectConfig(num_envs=ENVS, rollout_steps=4)


def source(**changes):
    return FreshWorlds(**{"model": MODEL, "bars": BARS, "config": TAPE, "batch": 5, **changes})


def world_at(tape, bar):
    """Closes of the world that this bar is in."""
    return tape.world(int(bar) // tape.bars_per_world).known.bars[..., 3].clone()


def trainer_of(seed=0, iterations=8, **changes):
    return Trainer(
        source(**changes),
        RULES,
        SMALL,
        PolicyConfig(hidden=8),
        FEW,
        iterations=iterations,
        seed=seed,
    )


@pytest.mark.parametrize("autoreset", ["next_step", "same_step"])
@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_no_two_episodes_follow_the_same_path_and_none_is_changed_midway(backend, autoreset):
    env = PortfolioEnv(source(), ENVS, EnvConfig(episode=SHORT, autoreset=autoreset),
                       backend=backend)  # fmt: skip
    bar, number = env.reset(0).bar, env.state.episode.number
    lived = [world_at(env.tape, at) for at in bar]
    seen = {world.numpy().tobytes() for world in lived}
    for _ in range(40):
        env.renew()
        bar = env.step(ACTION).observation.bar
        after = env.state.episode.number
        for row in range(ENVS):
            world = world_at(env.tape, bar[row])
            if after[row] == number[row]:
                assert torch.equal(world, lived[row])
            else:
                lived[row] = world
                seen.add(world.numpy().tobytes())
        number = after
    assert len(seen) == ENVS + int(number.sum()) >= 8 * ENVS


def test_worlds_are_renewed_where_they_are_used_up_and_nowhere_else():
    config = EnvConfig(episode=EpisodeConfig(horizon=6, staggered=True))
    env = PortfolioEnv(source(ahead=3), ENVS, config)
    env.reset(0)
    counts = set()
    for _ in range(30):
        env.step(ACTION)
        before, bar = env.tape.known.bars.clone(), env.state.episode.bar
        renewed = env.renew()
        counts.add(len(renewed))
        kept = torch.ones(env.tape.worlds, dtype=torch.bool)
        kept[renewed] = False
        assert kept[bar // BARS].all()
        same = (env.tape.known.bars == before).nan_to_num(1).unflatten(0, (-1, BARS)).flatten(1)
        assert torch.equal(same.all(1), kept)
        assert len(env.renew()) == 0
    assert len(counts) > 1


def test_what_worlds_hold_depends_on_their_place_in_the_sequence_alone():
    few, many = source().lay(2), source().lay(3)
    for laid in (few, many):
        laid.deal(7)
        laid.renew(np.full(laid.markets, 1))
    assert set(few.number) == {2, 3, 4, 5} and set(many.number) == set(range(3, 9))
    for number in (3, 4, 5):
        places = [int(np.flatnonzero(laid.number == number)[0]) for laid in (few, many)]
        one, other = few.tape.world(places[0]), many.tape.world(places[1])
        assert_same_bits((one.known, one.next), (other.known, other.next))


def test_a_market_that_outruns_its_slots_meets_its_worlds_again_until_it_is_renewed():
    env = PortfolioEnv(source(ahead=2), ENVS, EnvConfig(episode=EpisodeConfig(horizon=1)))
    env.reset(0)
    worlds = [world_at(env.tape, env.state.episode.bar[0])]
    for _ in range(4):
        env.step(ACTION), env.step(ACTION)
        worlds.append(world_at(env.tape, env.state.episode.bar[0]))
    assert torch.equal(worlds[0], worlds[2]) and torch.equal(worlds[1], worlds[3])
    assert len(env.renew()) == ENVS
    assert torch.equal(world_at(env.tape, env.state.episode.bar[0]), worlds[4])
    env.step(ACTION), env.step(ACTION)
    assert not torch.equal(world_at(env.tape, env.state.episode.bar[0]), worlds[3])


@pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter")
@pytest.mark.parametrize("observation", ["flat", "index"])
@pytest.mark.parametrize("backend", ["numba", "triton"])
def test_fused_steps_meet_the_worlds_of_the_reference(backend, observation):
    if backend == "triton":
        pytest.importorskip("triton", reason="triton is for Linux")
    config = EnvConfig(observation=observation, episode=EpisodeConfig(horizon=3, staggered=True))
    worlds = source(dtype=torch.float64)
    device = "cuda" if backend == "triton" and torch.cuda.is_available() else "cpu"
    reference = PortfolioEnv(worlds, 3, config, backend="torch")
    fused = PortfolioEnv(worlds.to(device), 3, config, backend=backend)
    reference.reset(3), fused.reset(3)
    action = ACTION[:3].double()
    for step in range(14):
        one, other = reference.step(action), fused.step(action.to(device))
        assert torch.equal(one.observation.bar, other.observation.bar.cpu())
        columns = fused.columns(other.observation).cpu()
        torch.testing.assert_close(columns, reference.columns(one.observation))
        torch.testing.assert_close(other.reward.cpu(), one.reward, rtol=1e-9, atol=1e-12)
        if step % 3 == 0:
            assert torch.equal(reference.renew(), fused.renew().cpu())
    assert reference.worlds.ahead > 6


def test_a_seed_repeats_its_worlds_and_another_has_others(threads):
    def run(env, seed):
        observation, rewards = env.reset(seed), []
        begun = env.columns(observation).clone()
        for _ in range(15):
            rewards.append(env.step(ACTION).reward)
            env.renew()
        return begun, torch.stack(rewards)

    config = EnvConfig(episode=SHORT)
    threads(1)
    env = PortfolioEnv(source(model=Garch(assets=ASSETS)), ENVS, config)
    first = run(env, 5)
    threads(2)
    other = PortfolioEnv(source(model=Garch(assets=ASSETS)), ENVS, config, seed=9)
    other_seed = run(other, 9)
    assert_same_bits(first, run(env, 5))
    assert_same_bits(first, run(other, 5))
    assert not torch.equal(first[1], other_seed[1])


def test_environments_of_other_seeds_or_numbers_have_no_world_in_common():
    config = EnvConfig(episode=SHORT)
    seen = set()
    for seed, first_env in ((5, 0), (9, 0), (5, ENVS)):
        tape = PortfolioEnv(source(), ENVS, config, seed=seed, first_env=first_env).tape
        seen |= {world_at(tape, world * BARS).numpy().tobytes() for world in range(tape.worlds)}
    assert len(seen) == 3 * 2 * ENVS


def test_players_of_a_market_share_its_worlds():
    config = EnvConfig(players=3, impact=ImpactConfig(transient=1.0), episode=SHORT)
    env = PortfolioEnv(source(), ENVS, config)
    env.reset(0)
    assert env.tape.worlds == 2 * ENVS // 3
    renewed = 0
    for _ in range(20):
        bar = env.step(ACTION).observation.bar.view(-1, 3)
        assert (bar == bar[:, :1]).all() and bar[0, 0] // BARS != bar[1, 0] // BARS
        renewed += len(env.renew())
    assert renewed == 2 * int(env.state.episode.number[0])


def test_a_trainer_renews_worlds_only_when_it_has_learnt_from_them():
    trainer = trainer_of()
    env, seen, renewals = trainer.env, [trainer.algorithm.rollout.bar[-1].clone()], []
    features, step, renew = env.tape.known.features, env.step, env.renew
    shown = [features[seen[0]].clone()]

    def watched_step(action, into=None):
        transition = step(action, into)
        shown.append(features[transition.observation.bar].clone())
        return transition

    def watched_renew():
        rollout = trainer.algorithm.rollout
        assert torch.equal(features[rollout.bar], torch.stack(shown[-len(rollout.bar) :]))
        standard = trainer.policy.standardize(env.tape).rows
        assert torch.equal(trainer.algorithm.table.rows, standard)
        renewals.append(len(renew()))
        assert torch.equal(features[rollout.bar[-1]], shown[-1])
        return torch.arange(env.tape.worlds)

    env.step, env.renew = watched_step, watched_renew
    for _ in range(8):
        assert all(map(math.isfinite, trainer.iterate().values()))
    assert sum(renewals) >= ENVS


def test_a_policys_table_shows_the_worlds_as_they_are_now():
    trainer = trainer_of()
    before = trainer.algorithm.table.rows.clone()
    for _ in range(4):
        trainer.advance()
    assert not torch.equal(trainer.algorithm.table.rows, before)
    assert torch.equal(
        trainer.algorithm.table.rows, trainer.policy.standardize(trainer.env.tape).rows
    )


def test_a_run_on_fresh_worlds_goes_on_from_a_checkpoint_as_if_never_stopped(tmp_path):
    whole, stopped = trainer_of(3), trainer_of(3)
    for _ in range(8):
        whole.advance()
    for _ in range(4):
        stopped.advance()
    stopped.save(tmp_path / "latest.pt")
    resumed = trainer_of(3)
    resumed.load(tmp_path / "latest.pt")
    assert torch.equal(resumed.algorithm.table.rows, stopped.algorithm.table.rows)
    for _ in range(4):
        resumed.advance()
    assert_same_bits(tuple(resumed.policy.parameters()), tuple(whole.policy.parameters()))
    assert_same_bits(resumed.env.tape.known, whole.env.tape.known)
    with pytest.raises(CheckpointError, match=r"holds 12 worlds and this configuration 18: use as"):
        trainer_of(3, ahead=3).load(tmp_path / "latest.pt")


def test_an_agent_trains_on_fresh_worlds_and_is_tested_on_history():
    bars = random_bars(60, 3)
    worlds = source(model=BlockBootstrap(bars=bars), symbols=bars.symbols)
    trainer = Trainer(worlds, RULES, SMALL, PolicyConfig(hidden=8), FEW, iterations=3)
    for _ in range(3):
        trainer.advance()
    history = make_tape(bars, TAPE)
    assert trainer.env.tape.symbols == history.symbols
    assert trainer.env.tape.feature_names == history.feature_names
    wealth = play(trainer.policy, history, RULES).wealth
    assert wealth.isfinite().all() and (wealth > 0).all()


@pytest.mark.parametrize("observation", ["flat", "index", "window"])
def test_gymnasium_finds_nothing_to_complain_about(observation):
    env = gymnasium.make(
        fastsim.ENV_ID, market=source(), observation=observation, window_length=3,
        episode={"horizon": 4},
    )  # fmt: skip
    check_env(env.unwrapped, skip_render_check=True)


def test_every_reset_of_a_single_environment_begins_in_a_world_of_its_own():
    env = gymnasium.make(fastsim.ENV_ID, market=source(), episode={"horizon": 4}).unwrapped
    seen = set()
    for episode in range(12):
        env.reset(seed=1 if episode == 0 else None)
        seen.add(world_at(env.env.tape, env.env.state.episode.bar[0]).numpy().tobytes())
    assert len(seen) == 12


@pytest.mark.parametrize("autoreset", ["next_step", "same_step"])
def test_a_batch_in_gymnasium_never_meets_a_world_twice(autoreset):
    env = gymnasium.make_vec(
        fastsim.ENV_ID, num_envs=ENVS, market=source(), episode={"horizon": 2},
        autoreset=autoreset, observation="index",
    )  # fmt: skip
    seen = {world_at(env.env.tape, at).numpy().tobytes() for at in env.reset(seed=0)[0]["bar"]}
    for _ in range(24):
        before = env.env.tape.known.features.clone()
        observation, *_, info = env.step(ACTION)
        seen |= {world_at(env.env.tape, at).numpy().tobytes() for at in observation["bar"]}
        if "final_obs" in info:  # its bars can be looked up until the next step
            final = info["final_obs"]["bar"]
            assert torch.equal(env.env.tape.known.features[final], before[final])
    assert len(seen) == ENVS + int(env.env.state.episode.number.sum())


def test_stable_baselines3_learns_from_worlds_it_never_meets_twice():
    env = SB3VecEnv(ENVS, market=source(), episode={"horizon": 3})
    PPO("MlpPolicy", env, n_steps=16, batch_size=32, n_epochs=1, device="cpu").learn(200)
    episodes = int(env.env.state.episode.number.sum())
    assert episodes > 50 and env.env.worlds.ahead >= episodes + ENVS


def test_pettingzoo_finds_nothing_to_complain_about():
    zoo = SharedMarketParallelEnv(3, market=source(), episode={"horizon": 4})
    parallel_api_test(zoo, num_cycles=40)
    seen = set()
    for _ in range(6):
        zoo.reset()
        seen.add(world_at(zoo.env.tape, zoo.env.state.episode.bar[0]).numpy().tobytes())
        while zoo.agents:
            zoo.step(dict.fromkeys(zoo.agents, np.zeros(ASSETS, dtype=np.float32)))
    assert len(seen) == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ahead": 1}, r"FreshWorlds\.ahead must be a whole number >= 2, got 1"),
        ({"batch": 0}, r"FreshWorlds\.batch must be a whole number >= 1, got 0"),
        ({"bars": 2.5}, r"FreshWorlds\.bars must be a whole number, got 2\.5"),
        ({"model": "garch"}, r"FreshWorlds\.model must be a model such .*bars\), got 'garch'"),
        ({"model": Garch}, r"FreshWorlds\.model must be a model such as Garch\(assets=20\)"),
        ({"model": None}, r"FreshWorlds\.model must be a model such .*, got a NoneType"),
    ],
)
def test_settings_that_make_no_worlds_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        source(**changes)


def test_worlds_are_not_made_of_a_name():
    with pytest.raises(ConfigError, match=r"^model must be a model such .*, got 'garch'"):
        make_worlds("garch", 2, BARS)


def test_worlds_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="6 bars are too few: features need 5"):
        PortfolioEnv(source(bars=6), ENVS)
    with pytest.raises(ConfigError, match="horizon = 15 is longer than the tape's 14 steps"):
        PortfolioEnv(source(), ENVS, EnvConfig(episode=EpisodeConfig(horizon=15)))
    with pytest.raises(ConfigError, match="must name the model's 2 assets, got 3"):
        PortfolioEnv(source(symbols=("A", "B", "C")), ENVS, EnvConfig(episode=SHORT))
    with pytest.raises(ConfigError, match="moves prices by traded volume"):
        PortfolioEnv(
            source(model=replace(MODEL, intrabar=None)), ENVS,
            EnvConfig(episode=SHORT, impact=ImpactConfig(transient=1.0)),
        )  # fmt: skip
    tape = PortfolioEnv(source(), 2, EnvConfig(episode=SHORT)).tape
    with pytest.raises(ConfigError, match="the tape has worlds for 2 markets, not for 3"):
        PortfolioEnv(tape, 3, EnvConfig(episode=SHORT))
    with pytest.raises(ConfigError, match="do not apply to a ready FreshWorlds"):
        build_env(2, source(), tape={"fill": "close"})
    with pytest.raises(ConfigError, match="start and end are days of a history"):
        build_env(2, source(), start="2001-01-01")
    config = EnvConfig(players=2, episode=SHORT)
    with pytest.raises(ConfigError, match="give it a tape, not FreshWorlds"):
        LeagueEnv(PortfolioEnv(source(), 4, config), [*SCRIPTED.values()], LeagueConfig())


def small_run(folder, **changes):
    settings = {
        "data": DataConfig(symbols=("AAPL", "KO"), start="2014-01-01", end="2016-12-30"),
        "validation_start": "2016-10-01",
        "test_start": "2016-11-15",
        "forecaster": "none",
        "worlds": WorldsConfig(model="gbm", bars=160),
        "env": RULES,
        "collect": CollectConfig(num_envs=8, rollout_steps=8),
        "policy": PolicyConfig(hidden=8),
        "total_steps": 8 * 8 * 6,
        "evaluations": 3,
    }
    return TrainConfig(name="run", runs_dir=str(folder), **settings | changes)


def test_a_run_learns_from_worlds_fitted_to_its_training_bars_and_is_judged_on_history(tmp_path):
    folder = train(small_run(tmp_path))
    config = read_run(folder)
    assert config.worlds == WorldsConfig(model="gbm", bars=160)
    markets = load_markets(config)
    trainer = make_trainer(config, markets)
    trainer.load(folder / "checkpoints" / "latest.pt")
    assert trainer.env.worlds.ahead > 2 * 8
    bars = load_bars(config.data)
    training = bars.timestamps < np.datetime64("2016-10-01")
    assert trainer.env.worlds.source.model == fit("gbm", bars.take(slice(0, training.sum())))
    evaluation = evaluate(folder)
    assert evaluation.history.symbols == ("AAPL", "KO") and len(evaluation.history.timestamps) > 20
    assert "gbm worlds fitted to the training bars" in evaluation.report.read_text()


def test_forecasts_of_worlds_that_are_yet_to_be_drawn_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r'one history, .*use TrainConfig.forecaster = "none"'):
        small_run(tmp_path, forecaster="fastsim-prior")


def test_a_model_of_worlds_is_one_that_can_be_fitted():
    for name in SYNTHETIC_MODELS:
        assert WorldsConfig(model=name).model == name
    with pytest.raises(ConfigError, match=r"WorldsConfig\.model: .*'arima'.* gbm, .*, or \"none\""):
        from_mapping(WorldsConfig, {"model": "arima"})


def test_the_example_in_the_readme_runs():
    blocks = (ROOT / "README.md").read_text().split("```python")
    code = next(block for block in blocks if "FreshWorlds(" in block).split("```")[0]
    names = {}
    exec(code.replace("num_envs=256", "num_envs=4"), names)
    assert names["env"].worlds.ahead == 8


def test_the_script_compares_agents_of_worlds_and_of_history(monkeypatch, capsys):
    script = str(ROOT / "agents" / "train_on_worlds.py")
    options = ["--iterations", "2", "--model", "gbm", "--split", "2022-11-01"]
    monkeypatch.setattr(sys, "argv", [script, *options])
    runpy.run_path(script, run_name="__main__")
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "us20, 2022-11-01 and later"
    names = ("learned from gbm worlds", "learned from history", "equal weight", "buy and hold")
    assert all(line.startswith(name) for line, name in zip(printed[1:], names, strict=True))


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        (["--split", "abc"], "--split must be an ISO date such as '2020-01-31', got 'abc'"),
        (["--split", "2030-01-01"], "--split 2030-01-01 leaves no step before it or after it"),
        (["--split", "1999-01-01"], "--split 1999-01-01 leaves no step before it or after it"),
        (["--iterations", "0"], "--iterations must be >= 1, got 0"),
        (["--model", "arch"], "no synthetic model is called 'arch'"),
        (["--source", "us21"], "no built-in data named 'us21'"),
        (["--model", "gbm", "--bars", "1"], "FreshWorlds.bars must be a whole number >= 2, got 1"),
        (["--model", "gbm", "--split", "2000-09-01"], "--horizon 126 is longer than"),
    ],
)
def test_bad_options_of_the_script_end_in_one_line_before_training(
    monkeypatch, capsys, options, culprit
):
    def train(self):
        raise AssertionError("training began")

    monkeypatch.setattr(Trainer, "advance", train)
    script = str(ROOT / "agents" / "train_on_worlds.py")
    monkeypatch.setattr(sys, "argv", [script, *options])
    with pytest.raises(SystemExit, match=r"^2$"):
        runpy.run_path(script, run_name="__main__")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("train_on_worlds: ") and culprit in line
