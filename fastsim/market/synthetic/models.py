"""Every simulated model by name."""

from __future__ import annotations

from fastsim.market.synthetic.brownian import GeometricBrownian
from fastsim.market.synthetic.garch import Garch
from fastsim.market.synthetic.heston import Heston
from fastsim.market.synthetic.jumps import MertonJumps
from fastsim.market.synthetic.log_volatility import LogVolatility
from fastsim.market.synthetic.model import SyntheticModel
from fastsim.market.synthetic.regimes import RegimeSwitching

MODELS: dict[str, type[SyntheticModel]] = {
    "gbm": GeometricBrownian,
    "heston": Heston,
    "merton": MertonJumps,
    "garch": Garch,
    "sv": LogVolatility,
    "regimes": RegimeSwitching,
}
"""Models that need no data: each can be made with its defaults."""
