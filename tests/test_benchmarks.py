"""The benchmarks run, and their lines of results have what is promised."""

import importlib
import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"
RESULTS = FOLDER / "results"
PPO = {
    "benchmark",
    "device",
    "num_envs",
    "num_assets",
    "hidden",
    "epochs",
    "precision",
    "rollout_steps_per_s",
    "train_frames_per_s",
}
ENV = {
    "benchmark",
    "device",
    "backend",
    "num_envs",
    "num_assets",
    "observation",
    "env_steps_per_s",
    "env_policy_steps_per_s",
    "warm_up_s",
    "floor_bytes_per_step",
    "share_of_floor",
}
WHO = {"version", "date", "torch", "threads"}


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("players", [1, 4])
def test_the_environment_benchmark_writes_a_line_for_each_case(load, tmp_path, players):
    module = load("benchmark_env")
    case = module.Benchmark(
        backend=("torch", "numba"),
        num_envs=(4, 8),
        num_assets=(3,),
        players=players,
        window_length=4,
        bars=400,
        hidden=8,
        rounds=1,
        seconds=0.001,
        compilation=False,
        growth=(2, 4),
        growth_envs=8,
        json=tmp_path / "env.json",
    )
    module.main(case)
    rows = lines(tmp_path / "env.json")
    cases = [row for row in rows if row["benchmark"] == "env"]
    assert len(cases) == 2 * 2 * 3
    assert {row["backend"] for row in cases} == {"torch", "numba"}
    for row in cases:
        assert row.keys() >= ENV | WHO
        assert row["env_steps_per_s"] > 0
    growth = [row for row in rows if row["benchmark"] == "env_growth"]
    assert [row["num_assets"] for row in growth] == [[2, 4], [2, 4]]


def test_the_floor_of_a_step_counts_every_byte_once(load):
    module = load("benchmark_env")
    tape = module.market(module.market_bars(400, 3), "cpu")
    index, flat = (
        module.make_env(module.Benchmark(), tape, 1, kind, "torch") for kind in ("index", "flat")
    )
    features = 3 * len(tape.feature_names) * 4
    # A lone environment reads its bar's features and writes them into the observation.
    assert module.floor_bytes(flat) - module.floor_bytes(index) == 2 * features


def test_the_ppo_benchmark_writes_a_line_for_each_size(load, tmp_path):
    module = load("benchmark_ppo")
    case = module.Benchmark(
        backend="torch",
        num_envs=(1, 8),
        num_assets=(3,),
        rollout_steps=4,
        bars=400,
        hidden=8,
        epochs=2,
        rounds=1,
        seconds=0.001,
        json=tmp_path / "ppo.json",
    )
    module.main(case)
    rows = lines(tmp_path / "ppo.json")
    assert [row["num_envs"] for row in rows] == [1, 8]
    for row in rows:
        assert row.keys() >= PPO | WHO
        assert row["backend"] == "torch"
        assert min(row["train_frames_per_s"], row["rollout_steps_per_s"]) > 0


def test_a_peer_that_cannot_be_had_is_a_line_that_says_so(load, monkeypatch):
    module = load("benchmark_env")

    def refuse(*_):
        raise module.PeerError("no network")

    monkeypatch.setattr(module, "ask", refuse)
    rows = module.measure_peers(module.Benchmark(bars=400, peer_envs=2, peer_seconds=0.001))
    assert {row["error"] for row in rows} == {"no network"}
    assert {row["peer"] for row in rows} == {"sekai", "finrl", "gym-trading-env"}


def test_the_planted_race_measures_shares_of_the_best_growth(load):
    module = load("planted_race")
    market = module.Market()
    trainer = module.make_trainer(market, seed=0, hidden=8)
    share = market.share(lambda seen: trainer.policy.act(market.tape, seen))
    assert -1.0 < share < module.SHARE


def test_the_gradient_of_wealth_needs_at_most_a_tenth_of_the_frames_of_ppo(load, monkeypatch):
    module = load("planted_race")
    names = ("ppo", "apg")
    monkeypatch.setattr(module, "CONTESTANTS", {name: module.CONTESTANTS[name] for name in names})
    ppo, apg = module.compare([0], hidden=64, limit=60.0)
    assert None not in (ppo["seconds"], apg["seconds"])
    assert apg["frames"] <= ppo["frames"] / 10


@pytest.mark.parametrize("name", ["env-cpu", "ppo-cpu"])
def test_kept_results_name_machine_versions_and_date(name):
    for row in lines(RESULTS / f"{name}.json"):
        assert row.keys() >= WHO | {"benchmark", "device"}
        if "peer" in row:
            assert "ratio" in row or "error" in row


def test_learning_is_compared_in_turns_and_written_as_tables(load, tmp_path):
    module = load("learning")
    options = module.Options(
        before=FOLDER.parent,
        num_envs=(8,),
        num_assets=3,
        bars=400,
        pairs=1,
        seconds=0.001,
        algorithms=("ppo", "league"),
    )
    rows = module.compare_all(options)
    assert [row["algorithm"] for row in rows] == ["ppo", "league"]
    assert all(min(row["before"], row["after"], row["ratio"]) > 0 for row in rows)
    assert "PPO" in load("table").learning_table(rows)
