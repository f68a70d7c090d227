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
# The interpreter does what a GPU does with infinities and empty lanes; NumPy remarks on it.
INTERPRETED = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter")


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


def test_the_replay_benchmark_writes_its_cases_and_the_parts_of_an_evaluation(load, tmp_path):
    module, table = load("benchmark_replay"), load("table")
    module.main(
        module.Benchmark(
            bars=40, reference_bars=20, minutes=600, hidden=8, rounds=1, json=tmp_path / "r.json"
        )
    )
    agent, benchmarks, minutes = rows = lines(tmp_path / "r.json")
    assert all(row.keys() >= WHO for row in rows)
    assert (agent["case"], benchmarks["case"]) == ("agent", "22 benchmarks")
    assert max(agent["wealth_off"], benchmarks["wealth_off"]) < 1e-6
    assert list(minutes["parts"]) == [
        "read",
        "tape",
        "replay",
        "summary",
        "bootstrap",
        "curves",
        "report",
    ]
    assert minutes["seconds"] >= max(minutes["parts"].values())
    assert "22 benchmarks" in table.replay_table(rows[:2])
    assert "bootstrap" in table.minutes_table(rows[2:])


@pytest.mark.long
def test_rules_of_orders_are_measured_beside_the_plain_step_and_the_reference(load):
    module = load("benchmark_rules")
    few = module.Options(num_envs=3, num_assets=4, bars=400, rounds=1, seconds=0.001)
    rows = module.measure(few)
    assert [row["rules"] for row in rows] == list(module.RULES)
    assert {row["backend"] for row in rows} == {"numba"}
    assert all(row["over_torch"] > 0 and row["slower_than_plain"] > 0 for row in rows)
    assert module.PLAIN in load("table").rules_table(rows)
    env = module.make_env(few, module.ALL, "torch")
    assert (env.params.tape.next["shortable"] == 0).any()
    assert module.actions_of(few, module.KEPT)[0].isnan().all(1).any()


def test_a_peer_that_cannot_be_had_is_a_line_that_says_so(load, monkeypatch):
    module = load("benchmark_env")

    def refuse(*_):
        raise module.PeerError("no network")

    monkeypatch.setattr(module, "ask", refuse)
    rows = module.measure_peers(module.Benchmark(bars=400, peer_envs=2, peer_seconds=0.001))
    assert {row["error"] for row in rows} == {"no network"}
    assert {row["peer"] for row in rows} == {"sekai", "finrl", "gym-trading-env", "torchtrade"}


def test_the_planted_race_measures_shares_of_the_best_growth(load):
    module = load("planted_race")
    market = module.Market()
    trainer = module.make_trainer(market, seed=0, hidden=8)
    share = market.share(lambda seen: trainer.policy.act(market.tape, seen))
    assert -1.0 < share < module.SHARE


@pytest.mark.long
def test_the_gradient_of_wealth_needs_at_most_a_tenth_of_the_frames_of_ppo(load, monkeypatch):
    module = load("planted_race")
    names = ("ppo", "apg")
    monkeypatch.setattr(module, "CONTESTANTS", {name: module.CONTESTANTS[name] for name in names})
    ppo, apg = module.compare([0], hidden=64, limit=60.0)
    assert None not in (ppo["seconds"], apg["seconds"])
    assert apg["frames"] <= ppo["frames"] / 10


@pytest.fixture
def emulation():
    """Graphs on a CPU."""
    pytest.importorskip("triton", reason="triton is for Linux")
    from emulation import emulated  # noqa: PLC0415

    with emulated() as emulation:
        yield emulation


@INTERPRETED
def test_steps_are_measured_as_graphs_where_there_are_any(load, emulation, monkeypatch):
    module = load("benchmark_env")
    case = module.Benchmark(
        backend=("triton", "torch"),
        observations=("flat",),
        num_envs=(2,),
        num_assets=(2,),
        graph_steps=(1, 3),
        bars=400,
        hidden=4,
        rounds=1,
        seconds=0.001,
    )
    monkeypatch.setattr(module, "copy_bandwidth", lambda _: 1e9)
    rows = [row for row in module.measure_grid(case) if row["benchmark"] == "env_graph"]
    assert [row["graph_steps"] for row in rows] == [1, 3]
    for row in rows:
        assert row.keys() >= (ENV - {"warm_up_s"}) | WHO
        assert row["backend"] == "triton"
    launched = [graph.names["step_kernel"] for graph in emulation.graphs]
    assert launched == [1, 1, 3, 3], "alone and with a policy"


@INTERPRETED
def test_the_rollout_is_measured_as_the_graph_that_it_is_in_training(load, emulation):
    module = load("benchmark_ppo")
    tape = module.market(module.market_bars(400, 2), "cpu")
    case = module.Benchmark(backend="triton", rollout_steps=2, hidden=4, minibatches=1)
    trainer = module.make_trainer(case, tape, 2)
    rate = module.rolling_out(trainer, 0.001)
    [graph] = emulation.graphs
    before = graph.replays
    assert rate() > 0
    assert graph.replays > before
    assert graph.names["step_kernel"] == 2
    eager = module.make_trainer(case, tape, 2, capture=False)
    module.rolling_out(eager, 0.001)
    assert emulation.graphs == [graph]


def test_the_planted_race_runs_on_the_device_that_its_lines_name(load, monkeypatch):
    module, race = load("benchmark_ppo"), load("planted_race")
    assert race.Market("meta").tape.device.type == "meta"
    asked = []
    monkeypatch.setattr(module, "race", lambda _, **named: asked.append(named["device"]) or [])
    module.measure_planted(module.Benchmark(device="cuda:1"))
    assert asked == ["cuda:1"]
    market, timed = race.Market(), []
    market.device = "its own"
    monkeypatch.setattr(race, "seconds_of", lambda _, device: timed.append(device) or 1.0)
    race.our_seconds(market, 0, 4, limit=1.0)
    assert timed == ["its own"]


@pytest.mark.parametrize("name", ["env-cpu", "ppo-cpu"])
def test_kept_results_name_machine_versions_and_date(name):
    for row in lines(RESULTS / f"{name}.json"):
        assert row.keys() >= WHO | {"benchmark", "device"}
        if "peer" in row:
            assert "ratio" in row or "error" in row


@pytest.mark.long
def test_learning_is_compared_in_turns_and_written_as_tables(load, tmp_path):
    module = load("learning")
    options = module.Options(
        before=FOLDER.parent,
        num_envs=(8,),
        num_assets=3,
        bars=400,
        pairs=1,
        seconds=0.001,
        algorithms=("league",),
    )
    rows = module.compare_all(options)
    assert [row["algorithm"] for row in rows] == ["league"]
    assert all(min(row["before"], row["after"], row["ratio"]) > 0 for row in rows)
    assert "league" in load("table").learning_table(rows)


@pytest.mark.long
def test_the_forecaster_benchmark_times_a_model_an_ensemble_and_a_file(load, tmp_path, capsys):
    module = load("benchmark_forecaster")
    few = {"batch_size": 2, "num_iterations": 3, "cold_runs": 1, "context": 64, "horizon": 3}
    cases = {
        "fastsim-prior": module.Benchmark(**few),
        "fastsim-prior+random-walk-60": module.Benchmark(
            model="fastsim-prior,random-walk-60", **few
        ),
        "file": module.Benchmark(format="torchscript", json=tmp_path / "x.json", **few),
    }
    for name, case in cases.items():
        row = module.measure(case)
        assert row["model"] == name or name == "file"
        assert set(row["latency_ms"]) == set(row["cold_ms"]) == {"mean", "p50", "p95", "p99"}
        assert row["latency_ms"]["p50"] < row["cold_ms"]["p50"]
        assert row["latency_ms"]["p50"] <= row["latency_ms"]["p99"]
    module.main(cases["file"])
    assert json.loads((tmp_path / "x.json").read_text())["format"] == "torchscript"


def test_the_benchmark_of_artefacts_says_what_the_gate_measured_and_what_is_refused(load):
    module = load("artifacts")
    case = module.Benchmark(
        models=("fastsim-prior", "kronos-mini"),
        formats=("torchscript",),
        precisions=("int8",),
        context=64,
        horizon=3,
    )
    prior, kronos = module.measure(case)
    assert 0.0 < prior["against_float32"] < 0.3 and prior["weights"] == "shipped"
    assert "kronos-random cannot be exported in int8" in kronos["refused"]
