"""A virtual environment for each peer, made on first use in `.venv-peers/`.

python benchmarks/peers/environments.py    # make them all beforehand
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FOLDER = HERE.parent.parent / ".venv-peers"
LEARNING = ("torch==2.13.0", "stable-baselines3==2.9.2", "gymnasium==1.4.0", "numpy==2.4.6")
TIME_LIMIT = 1800.0


class PeerError(Exception):
    """A peer could not be installed or did not run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """What is measured, by which script, and what it needs."""

    name: str
    version: str
    script: str
    packages: tuple[str, ...]
    alone: tuple[str, ...] = ()
    """Packages without what they require, where that is more than the environment needs."""


SEKAI = Peer(
    name="sekai",
    version="0.2.0",
    script="sekai_env.py",
    packages=("sekai==0.2.0", "numpy==2.4.6"),
)
FINRL = Peer(
    name="finrl",
    version="0.3.7",
    script="finrl_env.py",
    packages=(*LEARNING, "pandas==2.3.3", "matplotlib==3.11.2"),
    alone=("finrl==0.3.7",),
)
GYM_TRADING_ENV = Peer(
    name="gym-trading-env",
    version="0.3.5",
    script="gym_trading_env_env.py",
    packages=("gymnasium==1.4.0", "numpy==2.4.6", "pandas==2.3.3"),
    alone=("gym-trading-env==0.3.5",),
)
TORCHTRADE = Peer(
    name="torchtrade",
    version="0.1.0",
    script="torchtrade_env.py",
    packages=(
        "torch==2.13.0",
        "numpy==2.4.6",
        "pandas==2.3.3",
        "torchrl==0.13.2",
        "matplotlib==3.11.2",
    ),
    alone=("torchtrade==0.1.0",),
)
SB3_ON_SEKAI = Peer(
    name="stable-baselines3 on sekai",
    version="2.9.2 on 0.2.0",
    script="sb3_sekai_ppo.py",
    packages=("sekai==0.2.0", *LEARNING),
)
NEURALFORECAST = Peer(
    name="neuralforecast",
    version="3.3.0",
    script="neuralforecast_fit.py",
    packages=("torch==2.13.0", "neuralforecast==3.3.0"),
)
PEERS = (SEKAI, FINRL, GYM_TRADING_ENV, TORCHTRADE, SB3_ON_SEKAI, NEURALFORECAST)


def python_of(peer: Peer) -> Path:
    """Its Python, installed first if it is not there.

    Raises
    ------
    PeerError
        The environment cannot be made.
    """
    folder = FOLDER / peer.name.replace(" ", "-")
    python, made = folder / "bin" / "python", folder / "made.json"
    wanted = json.dumps([peer.packages, peer.alone])
    if made.exists() and made.read_text() == wanted:
        return python
    print(f"installing {peer.name} {peer.version} in {folder}", file=sys.stderr)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    _run([sys.executable, "-m", "venv", "--clear", str(folder)])
    _run([*pip, *peer.packages])
    if peer.alone:
        _run([*pip, "--no-deps", *peer.alone])
    made.write_text(wanted)
    return python


def ask(peer: Peer, *arguments: object) -> dict[str, Any]:
    """Run a peer's script in its environment and return the JSON object it prints last.

    Raises
    ------
    PeerError
        The peer cannot be installed, or its script fails.
    """
    return told_by(python_of(peer), peer.script, *arguments)


def told_by(python: Path, script: str, *arguments: object) -> dict[str, Any]:
    """Run a script of this folder with this Python and return the JSON object it prints last.

    Raises
    ------
    PeerError
        It fails.
    """
    lines = _run([str(python), str(HERE / script), *map(str, arguments)]).strip().splitlines()
    try:
        answer: dict[str, Any] = json.loads(lines[-1])
    except (IndexError, json.JSONDecodeError):
        raise PeerError(f"{script} printed no JSON object") from None
    return answer


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=TIME_LIMIT
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerError(str(error)) from error
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise PeerError(f"{Path(command[0]).name} {' '.join(command[1:4])}: {said[-1]}")
    return done.stdout


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    for each in PEERS:
        print(each.name, python_of(each))
