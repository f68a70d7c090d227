"""Checkpoints: everything a run needs to go on, in one file that is whole or absent."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from fastsim.config import write_whole
from fastsim.errors import CheckpointError, one_line

FORMAT = 6
PARTS = (
    "iteration",
    "spec",
    "algorithm",
    "policy",
    "learner",
    "env",
    "extra",
)
"""What a trainer saves, and needs to go on."""
_UNREADABLE = (
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)
_MISFIT = (RuntimeError, AttributeError, TypeError, ValueError, IndexError)


class Stateful(Protocol):
    """A part of a run that goes on from what its `state_dict` once returned."""

    def load_state_dict(self, state_dict: Any, /) -> Any:
        """Take that over; raises if it is not of this part."""
        ...


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write the `PARTS` of a run atomically; an interrupted write leaves the old file."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **content}, buffer)
    write_whole(path, buffer.getvalue())


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint, of tensors and plain values only: no code in it is run.

    Raises
    ------
    CheckpointError
        The file is missing, damaged, of another format, or no checkpoint at all.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; train first, or name another with it")
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except _UNREADABLE as error:
        reason = one_line(error, 200) or type(error).__name__
        raise CheckpointError(f"{path}: damaged or not a checkpoint ({reason})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(f"{path}: not a fastsim checkpoint of format {FORMAT}: {found!r}")
    missing = [part for part in PARTS if part not in content]
    if missing:
        raise CheckpointError(f"{path}: the checkpoint lacks {', '.join(missing)}; use another one")
    return content


def load_into(part: Stateful, state: Mapping[str, Any], path: Path) -> None:
    """Let `part` go on from `state`; a missing, extra or misshapen value raises CheckpointError."""
    misfit = f"{path}: does not fit this configuration's {type(part).__name__}"
    try:
        part.load_state_dict(state)
    except KeyError as error:
        raise CheckpointError(f"{misfit}: it lacks {error}") from None
    except _MISFIT as error:
        raise CheckpointError(f"{misfit}: {one_line(error)}") from None
