"""Memory that is too small ends a program in one line that says what to make smaller."""

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

from fastsim import cli
from fastsim.cli.ending import one_line_errors
from fastsim.devices import memory_shortage

ROOT = Path(__file__).parents[2]
CUDA = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB of "
    "which 1.00 GiB is free.\nProcess 1 has 7 GiB memory in use."
)
WORDS = "memory is too small (CUDA out of memory. Tried to allocate 2.00 GiB); "
CALLS = {
    "train": (
        ["train", "--device", "cpu"],
        "fastsim.experiment.train.load_markets",
        "make --collect.num-envs or --collect.rollout-steps or --forecast.batch-size smaller",
    ),
    "ablate": (
        ["ablate"],
        "fastsim.cli.train.ablate",
        "make --collect.num-envs or --collect.rollout-steps or --forecast.batch-size smaller",
    ),
    "evaluate": (
        ["evaluate", "a-run"],
        "fastsim.cli.train.evaluate",
        "end what else uses it, or choose a device that has more",
    ),
    "forecast": (
        ["forecast", "show", "AAPL"],
        "fastsim.cli.show.load_ensemble",
        "make --context smaller",
    ),
    "export": (
        ["export", "fastsim-prior"],
        "fastsim.cli.export.export",
        "make --context smaller",
    ),
}


def fail(*_, **__):
    raise CUDA


@pytest.mark.parametrize("name", CALLS)
def test_a_command_says_what_to_make_smaller(name, monkeypatch, capsys, tmp_path):
    arguments, place, remedy = CALLS[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(place, fail)
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"fastsim: {WORDS}{remedy}"
    assert list(tmp_path.iterdir()) == []


def test_a_benchmark_says_it_too(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setattr(sys, "argv", ["benchmark_ppo", "--num-envs", "64"])
    monkeypatch.setattr("common.market", fail)
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(ROOT / "benchmarks" / "benchmark_ppo.py"), run_name="__main__")
    assert caught.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"benchmark_ppo: {WORDS}make --num-envs or --num-assets")


@pytest.mark.parametrize(
    "error",
    [
        CUDA,
        MemoryError("Unable to allocate 30.0 GiB for an array"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:130] DefaultCPUAllocator: can't allocate memory"
        ),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"),
    ],
)
def test_allocators_are_understood(error):
    told = memory_shortage(error)
    assert told and "\n" not in told


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes do not match"), ValueError("out of memory"), KeyError("memory")]
)
def test_other_errors_stay_what_they_are(error):
    assert memory_shortage(error) is None
    with pytest.raises(type(error), match=re.escape(str(error))), one_line_errors("x", object):
        raise error
