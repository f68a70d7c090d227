"""The house: imports point one way, and the README's tree is the disk's."""

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "fastsim"
FOLDERS = ("fastsim", "agents", "benchmarks", "examples")
FLOORS = {
    "errors": (),
    "settings": (),
    "config": ("errors", "settings"),
    "space": ("config",),
    "extensions": ("errors",),
    "devices": ("errors",),
    "progress": (),
    "capture": (),
    "kept_code": (),
    "stats": ("config", "extensions", "kept_code"),
    "data": ("stats",),
    "market": ("data",),
    "synthetic": ("market", "data"),
    "env": ("market", "synthetic", "capture"),
    "forecast": ("market", "synthetic", "progress", "devices", "space"),
    "signals": ("forecast", "market"),
    "policy": ("env",),
    "backtest": ("env", "stats", "progress"),
    "learn": ("policy", "env"),
    "agent": ("policy", "signals"),
    "live": ("agent", "backtest"),
    "experiment": ("agent", "learn", "policy", "backtest", "forecast"),
    "adapters": ("env", "forecast", "agent", "backtest"),
    "cli": ("experiment", "live", "adapters"),
    "__main__": ("cli",),
}
"""What each room may import, with all that those may."""
MOST_IMPORTS = 14
MOST_CALLS = 4


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def modules_imported_by(path: Path) -> set[str]:
    named = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            named |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in named if name.startswith("fastsim.") and is_module(name)}


def is_module(name: str) -> bool:
    return (ROOT / f"{name.replace('.', '/')}.py").exists()


def below(room: str) -> set[str]:
    return {room} | {deep for floor in FLOORS[room] for deep in below(floor)}


def test_no_two_files_of_tests_have_one_name():
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_imports_point_one_way():
    for path in PACKAGE.rglob("*.py"):
        room = room_of(path)
        if room == "__init__":
            continue
        foreign = {name.split(".")[1] for name in modules_imported_by(path)} - below(room)
        assert not foreign, f"{path.relative_to(ROOT)} imports {foreign}"


def test_no_file_imports_the_whole_house():
    for path in PACKAGE.rglob("*.py"):
        modules = modules_imported_by(path)
        listed = ", ".join(sorted(modules))
        assert len(modules) <= MOST_IMPORTS, f"{path.relative_to(ROOT)} imports {listed}"


def test_every_room_has_its_floor():
    rooms = {room_of(path) for path in PACKAGE.rglob("*.py")} - {"__init__"}
    assert rooms <= set(FLOORS)
    assert all(set(floors) <= set(FLOORS) for floors in FLOORS.values())


def test_settings_reach_their_use_by_the_calls_that_are_listed():
    section = (ROOT / "CONTRIBUTING.md").read_text().split("## From the command line to its use")[1]
    chains = {}
    for entry in section.split("\n- ")[1:]:
        setting, *names = re.findall(r"`([\w.]+)`", entry)
        chains[setting] = [name for name in names if "." in name]
    assert set(chains) == {"seed", "num_envs", "fee_bps", "forecaster"}
    for setting, chain in chains.items():
        found = [pkgutil.resolve_name(name) for name in chain]
        assert 2 <= len(chain) <= 1 + MOST_CALLS, setting
        for caller, called in pairwise(found):
            assert f"{called.__name__}(" in inspect.getsource(caller), (setting, called)


def test_optional_packages_are_not_imported_with_the_package():
    code = (
        "import sys, fastsim, fastsim.cli, fastsim.adapters.gym_env;"
        "optional = {'stable_baselines3', 'yfinance', 'ccxt', 'pandas', 'arch', 'statsforecast'};"
        "optional |= {'sklearn', 'pettingzoo', 'exchange_calendars', 'nautilus_trader', 'optuna'};"
        "print(sorted(optional & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_the_tree_in_the_readme_is_the_tree_on_disk():
    text = (ROOT / "README.md").read_text()
    tree = text.split("## The tree")[1].split("```")[1]
    named, folders = set(), []
    for line in tree.splitlines()[1:]:
        match = re.match(r"( *)([\w./-]+)", line)
        if not match:
            continue
        depth, name = len(match[1]) // 2, match[2]
        folders = [*folders[:depth], name.rstrip("/")]
        if not name.endswith("/"):
            named.add("/".join(folders))
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *FOLDERS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    on_disk = {
        path
        for path in listed
        if not path.endswith(("__init__.py", "py.typed", ".json")) and (ROOT / path).exists()
    }
    assert named == on_disk


def test_the_tables_in_the_readmes_are_made_from_the_results(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    table = importlib.import_module("table")
    assert "environments" in table.table_of("env-cpu")
    assert "sekai" in table.table_of("env-cpu:env_peers")
    assert "Stable-Baselines3" in table.table_of("ppo-cpu:ppo_peers")
    assert "garch-t" in table.table_of("accuracy-us20")
    for page in table.PAGES:
        text = page.read_text()
        assert "<!-- table: " in text
        assert table.with_tables(text) == text


def test_the_ten_lines_in_the_readme_run():
    code = (ROOT / "README.md").read_text().split("```python")[1].split("```")[0]
    small = code.replace("num_envs=4096", "num_envs=64").replace("range(100)", "range(3)")
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", small], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "AAPL" in result.stdout


def drawing() -> str:
    """Every room with the rooms that its files import, from the ground up."""
    used: dict[str, set[str]] = {room: set() for room in FLOORS}
    for path in PACKAGE.rglob("*.py"):
        room = room_of(path)
        if room in used:
            used[room] |= {name.split(".")[1] for name in modules_imported_by(path)} - {room}
    lines = (
        f"{room:<11}<- {', '.join(below for below in FLOORS if below in used[room])}"
        for room in FLOORS
    )
    return "\n".join(line.rstrip() for line in lines)


def test_the_house_can_be_drawn():
    assert re.search(r"^market +<- .*data", drawing(), re.MULTILINE)
    assert re.search(r"^learn +<- .*policy", drawing(), re.MULTILINE)


if __name__ == "__main__":
    print(drawing())
