"""Stacks of NHITS, one after the other: they begin with volatility and end as the whole."""

from itertools import pairwise

import torch
from forecasters import spread_out, walks

from fastsim.forecast.networks.nhits import NhitsModel
from fastsim.forecast.networks.return_network import LEVELS


def test_stacks_end_as_the_forecast_and_none_says_volatility_alone():
    torch.manual_seed(0)
    model = spread_out(NhitsModel()).eval()
    closes = walks(3, 512)
    with torch.no_grad():
        told = model.by_stack(closes, horizon=21)
        whole = model(closes, horizon=21)
        reading = model.read(closes)
    assert told.shape == (4, 3, 21, len(LEVELS))
    assert torch.equal(told[-1], whole)
    normal = torch.special.ndtri(torch.tensor(LEVELS, dtype=torch.float64))
    root = torch.arange(1, 22).double().sqrt()[:, None]
    alone = (
        closes[:, -1, None, None] * (reading.scale.double()[:, None, None] * root * normal).exp()
    )
    torch.testing.assert_close(told[0].double(), alone, rtol=1e-4, atol=0.0)
    first = model.sums(reading.features)[0]
    torch.testing.assert_close(told[1], model.quantiles_of(first, reading, 21))
    assert all(not torch.equal(one, two) for one, two in pairwise(told))
