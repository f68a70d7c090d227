"""Tests marked `gpu` are found and run on a machine that has little more than a GPU."""

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from waiting import without_waiting

ROOT = Path(__file__).parent.parent
OPTIONAL = (
    *("arch", "bokeh_sampledata", "bt", "ccxt", "cvxportfolio", "empyrical", "fracast"),
    *("kronos_finance", "matplotlib", "onnx", "onnxruntime", "onnxscript", "pandas", "pettingzoo"),
    *("rsl_rl", "sb3_contrib", "scipy", "skfolio", "sklearn", "skrl", "stable_baselines3"),
    *("statsforecast", "supersuit", "tensordict", "tirex", "tirex2", "torchrl", "vectorbt"),
    *("xdist", "yfinance"),
)
MARK = r"^@(pytest\.mark\.)?gpu$"
COLLECT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1:]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
import pytest
sys.exit(pytest.main(["-m", "gpu", "--collect-only", "-p", "no:cacheprovider"]))
"""


def test_they_are_collected_where_no_optional_package_is_installed():
    found = (ROOT / "tests").rglob("test_*.py")
    marked = {path.name for path in found if re.search(MARK, path.read_text(), re.MULTILINE)}
    about_others = {"test_sb3.py", "test_synthetic.py"}
    result = subprocess.run(
        [sys.executable, "-c", COLLECT, *OPTIONAL],
        cwd=ROOT,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert len(marked) > len(about_others)
    for name in marked - about_others:
        assert f"{name}::" in result.stdout


def test_not_waiting_is_asked_for_without_the_warning_that_it_is_a_prototype(monkeypatch):
    modes = []

    def set_mode(mode):
        warnings.warn(
            "Synchronization debug mode is a prototype feature and does not yet detect all "
            "synchronizing operations",
            stacklevel=1,
        )
        modes.append(mode)

    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", set_mode)
    with pytest.raises(ZeroDivisionError), without_waiting():
        assert modes == ["error"]
        raise ZeroDivisionError
    assert modes == ["error", "default"]
