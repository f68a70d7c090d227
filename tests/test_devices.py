"""A device is the same, or refused in the same words, wherever it is named."""

import pytest
import torch

from fastsim.adapters.build import build_env
from fastsim.devices import resolve_device
from fastsim.errors import ConfigError
from fastsim.experiment.config import TrainConfig
from fastsim.experiment.markets import load_markets

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


def test_names_are_those_of_torch_and_auto_takes_what_there_is():
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device(torch.device("cpu")) == torch.device("cpu")
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ConfigError, match="there is no device 'gpu'"):
        resolve_device("gpu")


@NO_GPU
def test_a_gpu_that_is_not_there_is_refused_in_the_same_words_everywhere():
    words = "device 'cuda' was asked for, but PyTorch finds no GPU; use \"cpu\""
    for front in (
        lambda: resolve_device("cuda"),
        lambda: build_env(2, device="cuda"),
        lambda: load_markets(TrainConfig(device="cuda")),
    ):
        with pytest.raises(ConfigError) as caught:
            front()
        assert str(caught.value) == words
