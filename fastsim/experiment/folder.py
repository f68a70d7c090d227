"""The folder of a run: its name, its configuration, and where its policies are."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from fastsim.agent.artifact import POLICY
from fastsim.config import save_yaml
from fastsim.errors import ConfigError
from fastsim.experiment.config import TrainConfig


def start_name(config: TrainConfig) -> str:
    """Name of the run's folder: its own, or the data's with the time."""
    source = Path(config.data.source).stem.replace(":", "-")  # "package.module:object"
    return config.name or f"{source}-{datetime.now():%Y%m%d-%H%M%S}"


def start_run(config: object, folder: Path) -> Path:
    """Make the folder of a new run and write its configuration.

    Raises
    ------
    ConfigError
        It holds a run already, or cannot be written.
    """
    if (folder / "config.yaml").exists():
        raise ConfigError(f"{folder} holds a run already; resume it, or choose another --name")
    try:
        save_yaml(config, folder / "config.yaml")
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot hold a run ({error.strerror}): choose another --runs-dir or --name"
        ) from None
    return folder


def policy_folder(run: Path, checkpoint: str = "best") -> Path:
    """Where a run keeps its policy: the best on the validation bars, or the latest."""
    return agent_folder(run, checkpoint) / POLICY


def agent_folder(run: Path, checkpoint: str = "best") -> Path:
    """Where a run keeps its agent, with the best policy on the validation bars, or the latest."""
    return run / ("agent" if checkpoint == "best" else f"agent-{checkpoint}")
