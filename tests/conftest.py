"""What all tests share: one hypothesis profile, under which every run draws the same examples."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings

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
