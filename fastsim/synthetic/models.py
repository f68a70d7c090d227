"""Every simulated model by name."""

from __future__ import annotations

from fastsim.synthetic.brownian import GeometricBrownian
from fastsim.synthetic.garch import Garch
from fastsim.synthetic.heston import Heston
from fastsim.synthetic.jumps import MertonJumps
from fastsim.synthetic.log_volatility import LogVolatility
from fastsim.synthetic.model import SyntheticModel
from fastsim.synthetic.regimes import RegimeSwitching

SYNTHETIC_MODELS: dict[str, type[SyntheticModel]] = {
    "gbm": GeometricBrownian,
    "heston": Heston,
    "merton": MertonJumps,
    "garch": Garch,
    "sv": LogVolatility,
    "regimes": RegimeSwitching,
}
"""Models that need no data: each can be made with its defaults."""
