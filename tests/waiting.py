"""Waiting for a GPU, which a step never does."""

from __future__ import annotations

import warnings
from contextlib import contextmanager

import torch


@contextmanager
def without_waiting():
    """Within it, whatever makes the host wait for a GPU raises."""
    _set_mode("error")
    try:
        yield
    finally:
        _set_mode("default")


def _set_mode(mode):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Synchronization debug mode is a prototype")
        torch.cuda.set_sync_debug_mode(mode)
