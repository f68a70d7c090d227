"""What TensorBoard shows of a fit: losses by step, time per epoch and peak memory."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import torch
from torch.utils.tensorboard import SummaryWriter

MEBIBYTE = 2**20


class Curves:
    """Events of a fit in a folder, or nowhere; those after `step` are written anew."""

    def __init__(self, folder: Path | None, step: int) -> None:
        self._writer = None if folder is None else SummaryWriter(str(folder), purge_step=step + 1)
        self._began = time.perf_counter()

    def __enter__(self) -> Curves:
        return self

    def __exit__(self, *raised: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def epoch(self, figures: Mapping[str, float], step: int) -> None:
        """Write the figures of the steps since the last call, with their time and the memory."""
        now = time.perf_counter()
        told = {
            **figures,
            "time/epoch_seconds": now - self._began,
            "memory/peak_mib": peak_memory(),
        }
        self._began = now
        if self._writer is not None:
            for name, value in told.items():
                self._writer.add_scalar(name, value, step)


def peak_memory() -> float:
    """Most mebibytes that this process has held so far: of the GPU where there is one in use.

    0 where the system does not say.
    """
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / MEBIBYTE
    try:
        resource = import_module("resource")  # there is none on Windows
    except ImportError:
        return 0.0
    most = float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return most / MEBIBYTE if sys.platform == "darwin" else most / 1024  # bytes, or kibibytes
