"""Checkpoints: everything a run needs to go on, in one file that is whole or absent."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from fastsim.config import write_whole
from fastsim.errors import CheckpointError

FORMAT = 3
PARTS = (
    "iteration",
    "symbols",
    "feature_names",
    "policy",
    "optimizer",
    "reward_scale",
    "env",
    "observation",
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
Nested = TypeVar("Nested", bound=tuple[Any, ...])


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
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError(f"{path}: damaged or not a checkpoint ({reason})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(f"{path}: not a fastsim checkpoint of format {FORMAT}: {found!r}")
    missing = [part for part in PARTS if part not in content]
    if missing:
        raise CheckpointError(f"{path}: the checkpoint lacks {', '.join(missing)}; use another one")
    return content


def load_into(module: torch.nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load weights into `module`; a missing, extra or misshapen one raises CheckpointError."""
    try:
        module.load_state_dict(state)
    except (RuntimeError, AttributeError, TypeError) as error:
        detail = " ".join(str(error).split())
        raise CheckpointError(
            f"{path}: weights do not fit this configuration's {type(module).__name__}: {detail}"
        ) from None


def flatten(nested: tuple[Any, ...]) -> list[Tensor]:
    """Tensors of nested named tuples, in order; what is None has none."""
    return list(_leaves(nested))


def unflatten(like: Nested, leaves: list[Tensor]) -> Nested:
    """Nested named tuples of the structure of `like`, with these tensors."""
    result: Nested = _fill(like, iter(leaves))
    return result


def _leaves(nested: Any) -> Iterator[Tensor]:
    if isinstance(nested, Tensor):
        yield nested
    elif nested is not None:
        for part in nested:
            yield from _leaves(part)


def _fill(like: Any, leaves: Iterator[Tensor]) -> Any:
    if like is None:
        return None
    if isinstance(like, Tensor):
        return next(leaves)
    return type(like)(*(_fill(part, leaves) for part in like))
