"""`make gpu` finds its way through a CPU, survives whatever fails, and judges by the goals."""

import importlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "benchmarks"
SECTIONS = ("machine", "check", "step", "policy", "ppo", "forecast", "replay")


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


@pytest.fixture
def emulation():
    pytest.importorskip("triton", reason="triton is for Linux")
    with importlib.import_module("emulation").emulated() as emulation:
        yield emulation


@pytest.fixture
def gpu(load):
    return load("gpu")


@pytest.fixture
def bench(load, tmp_path):
    measuring = load("gpu_sections.measuring")
    return measuring.Bench("cpu", measuring.TINY, tmp_path)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def sections(gpu, monkeypatch, **found):
    monkeypatch.setattr(gpu, "section_of", lambda name, options: found[name])


@pytest.mark.long
def test_every_section_goes_its_whole_way_on_a_cpu(gpu, tmp_path):
    there = tmp_path / "test_there.py"
    there.write_text("import pytest\n@pytest.mark.gpu\ndef test_it():\n    pass\n")
    lacking = tmp_path / "test_lacking.py"
    lacking.write_text("import a_package_that_is_not_there\n")
    options = gpu.Options(
        device="cpu",
        quick=True,
        sweep=True,
        json=tmp_path / "gpu.json",
        tests=(there, lacking),
    )
    assert gpu.main(options) == 0
    rows = lines(tmp_path / "gpu.json")
    found = {row["case"]: row for row in rows}
    assert len(found) == len(rows)
    assert {row["section"] for row in rows} == set(SECTIONS)
    assert {row["verdict"] for row in rows} == {"no goal"}  # goals are a GPU's
    assert found["tests test_there.py"]["tests_passed"] == 1
    skipped = {row["case"]: row["skipped"] for row in rows if "skipped" in row}
    assert "a_package_that_is_not_there" in skipped.pop("tests test_lacking.py")
    assert skipped == {"sweep": "a step on a CPU has no warps or registers to set"}
    assert not any(row["captured"] for row in rows if "graph_steps" in row)
    forecasts = [row for row in rows if row["section"] == "forecast"]
    assert {row["weights"] for row in forecasts} == {"random, tiny"}
    assert all(row["no_load"] for row in forecasts if "batch_ms" in row)
    whole = [row for row in rows if "tape_share" in row]
    assert len(whole) == 2
    for row in whole:
        assert 0 < row["tape_share"] < 1
        assert row["tape_s"] + row["training_s"] + row["replay_s"] < row["seconds"]


def test_a_sweep_has_a_row_for_each_setting_and_says_which_was_best(
    load, emulation, monkeypatch, tmp_path
):
    measuring, sweep, step = (
        load(f"gpu_sections.{name}") for name in ("measuring", "sweep", "step")
    )
    monkeypatch.setattr(measuring.Bench, "on_gpu", True)
    monkeypatch.setattr(sweep, "REGISTERS", (None, 64))
    monkeypatch.setattr(sweep, "STEPS", 2)
    monkeypatch.setattr(sweep, "PLAYERS", 2)
    bench = measuring.Bench("cpu", replace(measuring.TINY, num_envs=2), tmp_path)
    gpu, rows = load("gpu"), []
    for case in sweep.cases(bench, step.made):
        rows.append(case.measure(bench) | {"case": case.name})
        assert gpu.in_short(rows[-1])
    *measured, best = rows
    assert len({row["case"] for row in rows}) == len(rows)
    assert [(row["kind"], row["launch"]) for row in measured[:2]] == [
        ("index", "1 warp"),
        ("index", "1 warp, at most 64 registers"),
    ]
    assert {row["kind"] for row in measured} == {"index", "flat6", "players"}
    assert {row["warps"] for row in measured if row["kind"] == "players"} == {1, 2}
    assert [row["table"] for row in measured[:2]] == [False, True]
    assert all(graph.names == {"step_kernel": 2} for graph in emulation.graphs)
    assert set(best["best"]) == {"index", "flat6", "players"}
    assert gpu.in_short(best) == best["summary"]


@pytest.mark.parametrize(
    ("microseconds", "table", "summary"),
    [
        ((4.0, 5.0), 0, "index: 1 warp, 4.0 us (the table's)"),
        ((4.0, 5.0), 1, "index: 1 warp, 4.0 us, 1.25 x as fast as the table's 2 warps, 5.0 us"),
        ((4.0, 5.0), None, "index: 1 warp, 4.0 us (the table's was not measured)"),
        ((), None, "no setting was measured"),
    ],
)
def test_the_best_setting_is_compared_with_the_tables(load, microseconds, table, summary):
    rows = [
        {"kind": "index", "launch": launch, "step_us": each, "table": number == table}
        for number, (launch, each) in enumerate(
            zip(("1 warp", "2 warps"), microseconds, strict=False)
        )
    ]
    assert load("gpu_sections.sweep").best(rows)["summary"] == summary


def test_the_best_setting_is_said_though_no_time_is_left(gpu, bench):
    case = gpu.Case("best", lambda _: {"summary": "1 warp"}, always=True)
    assert gpu.row_of(case, bench, deadline=0.0)["summary"] == "1 warp"


@pytest.mark.parametrize("kind", ["index", "flat6"])
def test_steps_of_a_graph_are_one_replay_where_there_are_graphs(
    load, emulation, monkeypatch, tmp_path, kind
):
    measuring, step = load("gpu_sections.measuring"), load("gpu_sections.step")
    make = step.make_env
    monkeypatch.setattr(step, "make_env", lambda *given: make(*given[:4], "triton"))
    bench = measuring.Bench("cpu", replace(measuring.TINY, num_envs=2), tmp_path)
    row = step.graph(3, kind, False, 2, bench)
    assert (row["captured"], row["graph_steps"], row["backend"]) == (True, 2, "triton")
    (graph,) = emulation.graphs
    assert graph.names == {"step_kernel": 2}
    assert graph.replays >= 3


def test_a_row_or_a_section_that_fails_is_a_row_and_the_next_one_comes(gpu, monkeypatch, tmp_path):
    def broken(_):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")

    def half(_):
        yield gpu.Case("one", broken)
        yield gpu.Case("two", lambda _: {"seconds": 1.0})
        raise RuntimeError("no more cases")

    def whole(_):
        return iter([gpu.Case("three", lambda _: {"passed": True})])

    sections(gpu, monkeypatch, machine=half, check=whole)
    path = tmp_path / "gpu.json"
    options = gpu.Options(device="cpu", sections=("machine", "check"), json=path)
    assert gpu.main(options) == 1
    rows = lines(path)
    assert [row["case"] for row in rows] == ["one", "two", "the section as a whole", "three"]
    assert rows[0]["error"].startswith("OutOfMemoryError: CUDA out of memory. Tried")
    assert "no more cases" in rows[2]["error"]
    assert rows[3]["passed"]


def test_rows_are_on_disk_before_the_next_one_is_measured(gpu, monkeypatch, tmp_path):
    path = tmp_path / "gpu.json"

    def looks(_):
        return {"seconds": float(len(lines(path)))}

    sections(gpu, monkeypatch, step=lambda _: iter([gpu.Case(name, looks) for name in "abc"]))
    gpu.main(gpu.Options(device="cpu", sections=("step",), json=path))
    assert [row["seconds"] for row in lines(path)] == [0.0, 1.0, 2.0]


def test_sections_go_on_in_another_process_once_this_one_has_lost_the_device(
    gpu, monkeypatch, tmp_path
):
    def broken(_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    sections(gpu, monkeypatch, step=lambda _: iter([gpu.Case(name, broken) for name in "ab"]))
    monkeypatch.setattr(gpu, "answers", lambda device: False)
    path = tmp_path / "gpu.json"
    names = ("step", "machine")
    gpu.main(gpu.Options(device="cpu", quick=True, sections=names, only="", json=path))
    rows = lines(path)
    assert [row["section"] for row in rows[:2]] == ["step", "machine"]
    assert "illegal memory access" in rows[0]["error"]
    assert rows[-1]["case"] == "launches"


def test_a_row_for_which_no_time_is_left_says_so(gpu, bench):
    row = gpu.row_of(gpu.Case("late", lambda _: 1 / 0), bench, deadline=0.0)
    assert row["skipped"].startswith("no time is left")


def test_sections_share_the_time_and_have_all_of_it(gpu):
    assert sum(gpu.SHARES.values()) == pytest.approx(1.0)
    assert tuple(gpu.SHARES) == SECTIONS


def test_every_goal_is_that_of_a_case_at_full_size(load, tmp_path):
    measuring, goals = load("gpu_sections.measuring"), load("goals")
    bench = measuring.Bench("cuda", measuring.FULL, tmp_path)
    step, ppo, forecast = (load(f"gpu_sections.{name}") for name in ("step", "ppo", "forecast"))
    found = [step.step_cases(bench), ppo.cases(bench), forecast.cases(bench)]
    names = {case.name for cases in found for case in cases}
    assert {goal.case for goal in goals.GOALS} <= names


@pytest.mark.parametrize(
    ("case", "figure", "value", "verdict"),
    [
        ("ppo 4,096 x 30", "train_frames_per_s", 4e6, "reached"),
        ("ppo 4,096 x 30", "train_frames_per_s", 3.99e6, "missed"),
        ("ppo 4,096 x 30", "error", "it failed", "missed"),
        ("train us20, 100,000,000 frames", "seconds", 60.0, "reached"),
        ("train us20, 100,000,000 frames", "seconds", 61.0, "missed"),
        ("train us20, 8,000,000 frames", "seconds", 1.0, "no goal"),
        ("kronos float32, batch 1,024", "forecasts_per_s", 1.0, "no goal"),
        ("ppo 4,096 x 30", "skipped", "no time", "no goal"),
    ],
)
def test_a_row_is_held_against_the_goal_of_its_case_alone(load, case, figure, value, verdict):
    goals = load("goals")
    row = {"case": case, figure: value}
    assert goals.judged(row, on_gpu=True)["verdict"] == verdict
    assert goals.judged(row, on_gpu=False)["verdict"] == "no goal"


@pytest.mark.parametrize(
    ("status", "output", "expected"),
    [
        (0, "...\n3 passed, 5 deselected in 1.00s", {"passed": True, "tests_passed": 3}),
        (5, "7 deselected in 1.00s", {"skipped": "no test of it ran", "tests_skipped": 0}),
        (0, "2 skipped in 1.0s", {"skipped": "no test of it ran", "tests_skipped": 2}),
        (
            2,
            "E   ModuleNotFoundError: No module named 'arch'\n1 error in 1.0s",
            {"skipped": "needs the package arch"},
        ),
        (1, "/usr/bin/python3: No module named pytest", {"skipped": "needs the package pytest"}),
        (
            1,
            "E   ModuleNotFoundError: No module named 'arch'\nFAILED tests/a.py::b\n1 failed",
            {
                "passed": False,
                "tests_passed": 0,
                "error": "E   ModuleNotFoundError: No module named 'arch' | FAILED tests/a.py::b",
            },
        ),
    ],
)
def test_what_became_of_a_module_of_tests_is_read_from_pytest(load, status, output, expected):
    assert load("gpu_sections.check").outcome(status, output) == expected


def test_all_modules_with_a_test_for_a_gpu_are_found(load):
    found = {path.name for path in load("gpu_sections.check").gpu_modules()}
    assert found >= {"test_triton.py", "test_ppo.py"}
    assert "test_metrics.py" not in found


def test_flops_of_tirex_are_those_of_its_products(load, bench):
    forecast = load("gpu_sections.forecast")
    config = forecast.SMALL["tirex"]().config
    tokens, width, patch = bench.sizes.context // config.patch, config.width, config.patch
    head, hidden = width // config.heads, config.embedding_hidden
    entrance = tokens * (2 * patch * hidden + hidden * width + 2 * patch * width)
    gates = tokens * config.heads * head * 4 * head
    block = 2 * gates + tokens * 3 * width * config.block_hidden
    out = len(config.levels) * patch
    exit_layer = width * hidden + hidden * out + width * out
    expected = 2 * (entrance + config.blocks * block + exit_layer)
    assert forecast.flops_of("tirex", bench) == expected


def test_load_is_the_mean_of_what_nvml_says_and_null_with_the_reason_without_it(load, monkeypatch):
    measuring = load("gpu_sections.measuring")
    monkeypatch.setattr(torch.cuda, "utilization", lambda device: 80)
    monkeypatch.setattr(torch.cuda, "power_draw", lambda device: 350_500)
    with measuring.watching("cuda") as watched:
        while not watched.figures["utilisation"]:
            pass
    assert watched.figures == {"utilisation": 0.8, "power_w": 350.5}

    def missing(device):
        raise ModuleNotFoundError("pynvml does not seem to be installed")

    monkeypatch.setattr(torch.cuda, "utilization", missing)
    with measuring.watching("cuda") as unwatched:
        while not unwatched.reason:
            pass
    assert unwatched.figures["utilisation"] is None
    assert "pynvml" in unwatched.figures["no_load"]


def test_kernel_times_go_to_a_file_of_the_case(load, bench, tmp_path):
    bench.profiles, bench.case = tmp_path / "profiles", "step 4,096 x 100 index, graph of 16"
    x = torch.ones(8)
    bench.time(lambda: torch.add(x, 1))
    (found,) = bench.profiles.iterdir()
    assert found.name == "step-4-096-x-100-index-graph-of-16.txt"
    assert "aten::add" in found.read_text()


def test_the_table_says_what_was_not_measured(load, monkeypatch, tmp_path):
    table, goals = load("table"), load("goals")
    monkeypatch.setattr(table, "RESULTS", tmp_path)
    empty = table.table_of("gpu").splitlines()[2:]
    assert len(empty) == len(goals.GOALS)
    assert all(line.endswith("| not measured |") for line in empty)
    row = {"benchmark": "gpu", "device": "a card", "case": "ppo 4,096 x 30", "goal": "4 M"}
    row |= {"train_frames_per_s": 5e6, "verdict": "reached"}
    (tmp_path / "gpu.json").write_text(json.dumps(row) + "\n")
    text = table.table_of("gpu")
    assert "on a card" in text
    assert "| ppo 4,096 x 30 | 5 M frames/s | at least 4 M frames/s | reached |" in text


def test_the_peak_is_that_of_the_device_that_was_named(load, monkeypatch, tmp_path):
    measuring = load("gpu_sections.measuring")
    asked = []
    monkeypatch.setattr(
        torch.cuda, "max_memory_allocated", lambda device: asked.append(device) or 2e9
    )
    bench = measuring.Bench("cuda:1", measuring.TINY, tmp_path)
    assert bench.on_gpu
    assert bench.peak_memory_gb() == 2.0
    assert asked == ["cuda:1"]
