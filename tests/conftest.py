"""What all tests share: one hypothesis profile, under which every run draws the same examples."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import settings

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # it is read when triton is first imported

settings.register_profile(
    "fastsim", derandomize=True, deadline=None, database=None, max_examples=30
)
settings.load_profile("fastsim")


@pytest.fixture
def threads():
    """Set the number of threads within a test; it is put back afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def pytest_ignore_collect(collection_path, config):
    """With `-m gpu` files without such a test are not imported, nor what they need."""
    if config.option.markexpr == "gpu" and collection_path.suffix == ".py":
        return "mark.gpu" not in collection_path.read_text() or None
    return None


def pytest_collection_modifyitems(items):
    """Tests marked `gpu` are skipped where there is none."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="there is no CUDA device"))
