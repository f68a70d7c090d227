"""The optimiser of fits: PyTorch's AdamW to the bit, without PyTorch's compiler."""

import subprocess
import sys

import pytest
import torch

from fastsim.forecast.training.steps import AdamW

FIT = """
import sys
from fastsim.forecast.networks.nhits import NhitsConfig, NhitsModel
from fastsim.forecast.training.config import FitConfig
from fastsim.forecast.training.fit import fit
from fastsim.progress import SILENT
config = FitConfig(mode="scratch", simulated=1.0, steps=2, batch_size=4, validation_windows=8)
fit(NhitsModel(NhitsConfig(hidden=4)), None, config, progress=SILENT)
sys.exit("torch._dynamo" in sys.modules)
"""


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_its_steps_are_those_of_pytorch(decay):
    made = [torch.nn.Linear(5, 3) for _ in range(2)]
    made[1].load_state_dict(made[0].state_dict())
    optimisers = [
        kind(each.parameters(), lr=0.01, weight_decay=decay)
        for kind, each in zip((AdamW, torch.optim.AdamW), made, strict=True)
    ]
    inputs = torch.randn(7, 5)
    for _ in range(4):
        for each, optimiser in zip(made, optimisers, strict=True):
            optimiser.zero_grad()
            each(inputs).square().mean().backward()
            optimiser.step()
    assert torch.equal(made[0].weight, made[1].weight)
    ours, theirs = (each.state_dict() for each in optimisers)
    assert ours["param_groups"] == theirs["param_groups"]
    assert all(
        torch.equal(ours["state"][place][name], theirs["state"][place][name])
        for place in theirs["state"]
        for name in theirs["state"][place]
    )


def test_a_fit_does_not_import_the_compiler():
    done = subprocess.run([sys.executable, "-c", FIT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
