"""Without NautilusTrader its adapter is one line that says how to install it."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "wanted",
    [
        "from fastsim.adapters.nautilus import backtest",
        "from fastsim.adapters.nautilus.strategy import AgentStrategy",
        "import fastsim.adapters; fastsim.adapters.nautilus",
    ],
)
def test_what_is_missing_is_one_line_with_the_remedy(wanted):
    code = f"import sys; sys.modules['nautilus_trader'] = None\n{wanted}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last == (
        "fastsim.errors.ConfigError: nautilus_trader is not installed: "
        "pip install 'fastsim-rl[nautilus]'"
    )


def test_a_version_with_other_modules_is_refused_by_name():
    code = (
        "import sys, types, importlib.metadata as its\n"
        "sys.modules['nautilus_trader'] = types.ModuleType('nautilus_trader')\n"
        "its.version = lambda name: '2.0.0rc6'\n"
        "import fastsim.adapters.nautilus"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("fastsim.errors.ConfigError: nautilus_trader 2.0.0rc6 has other modules")
    assert last.endswith("pip install 'nautilus_trader<2'")
