"""Every simulated model by name, each a record of how it is fitted and what it is."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fastsim.config import configuration
from fastsim.data.bars import Bars
from fastsim.errors import ConfigError, FastsimError, one_line
from fastsim.extensions import Registry
from fastsim.synthetic import calibrate
from fastsim.synthetic.brownian import GeometricBrownian
from fastsim.synthetic.garch import Garch
from fastsim.synthetic.heston import Heston
from fastsim.synthetic.interface import PathModel, Paths
from fastsim.synthetic.jumps import MertonJumps
from fastsim.synthetic.log_volatility import LogVolatility
from fastsim.synthetic.model import SyntheticModel
from fastsim.synthetic.regimes import RegimeSwitching

TRIAL = (2, 8)
"""Worlds and bars that a user's model is tried on."""


@configuration
class SyntheticRecord:
    """One simulated model by name. How to add one's own: `docs/howto/synthetic_market.md`.

    `fit(bars)` gives a model whose worlds are like these bars, with as many assets.
    """

    name: str
    fit: Callable[[Bars], PathModel]
    model: type[SyntheticModel] | None = None
    """Its class, where it needs no data: it can be made with its defaults."""

    def __post_init__(self) -> None:
        if not callable(self.fit):
            raise ConfigError(
                f"SyntheticRecord.fit of {self.name} must be a function of bars, got {self.fit!r}"
            )


OWN = (
    SyntheticRecord(name="gbm", fit=calibrate.fit_brownian, model=GeometricBrownian),
    SyntheticRecord(name="heston", fit=calibrate.fit_heston, model=Heston),
    SyntheticRecord(name="merton", fit=calibrate.fit_merton, model=MertonJumps),
    SyntheticRecord(name="garch", fit=calibrate.fit_garch_model, model=Garch),
    SyntheticRecord(name="sv", fit=calibrate.fit_log_volatility, model=LogVolatility),
    SyntheticRecord(name="regimes", fit=calibrate.fit_regime_switching, model=RegimeSwitching),
    SyntheticRecord(name="bootstrap", fit=calibrate.fit_bootstrap),
)
SYNTHETIC_MODELS: Registry[SyntheticRecord] = Registry("synthetic model", SyntheticRecord, OWN)


def fit(name: str, bars: Bars) -> PathModel:
    """Fit the model of this name, or a user's own, "package.module:object".

    Raises
    ------
    ConfigError
        There is no such model; a user's cannot be fitted, or draws no worlds of these assets.
    DataError
        Fewer than 101 bars on which every symbol traded.
    """
    record = SYNTHETIC_MODELS.find(name)
    if record in OWN:
        return record.fit(bars)
    try:
        model = record.fit(bars)
        drawn, again = (model.sample(*TRIAL, torch.Generator().manual_seed(0)) for _ in range(2))
    except FastsimError:
        raise
    except Exception as error:  # whatever a user's code does
        reason = one_line(f"{type(error).__name__}: {error}")
        raise ConfigError(f"synthetic model {name!r} fails: {reason}") from error
    problem = _problem(drawn, again, len(bars.symbols))
    if problem:
        raise ConfigError(f"synthetic model {name!r} {problem}")
    return model


def _problem(drawn: object, again: object, assets: int) -> str:
    """What is wrong with worlds that were drawn twice; empty if nothing is."""
    if not (isinstance(drawn, Paths) and isinstance(again, Paths)):
        return f"must draw Paths, got {type(drawn).__name__}"
    shape = (*TRIAL, assets)
    for name, field, other in zip(Paths._fields, drawn, again, strict=True):
        if field is None and name != "close":
            continue
        if not isinstance(field, Tensor) or tuple(field.shape) != shape:
            given = tuple(field.shape) if isinstance(field, Tensor) else type(field).__name__
            return f"must draw {name} [worlds, bars, assets] = {shape}, got {given}"
        least = 0.0 if name == "volume" else torch.finfo(torch.float64).tiny
        if not bool((field.isfinite() & (field >= least)).all()):
            return f"draws {name}s that are not finite numbers above 0"
        if other is None or not torch.equal(field, other):
            return "draws other worlds from the same seed: all chance must come from `generator`"
    for price in (drawn.close, drawn.open):
        for bound, side in ((drawn.high, 1.0), (drawn.low, -1.0)):
            if (
                price is not None
                and bound is not None
                and bool((side * bound < side * price).any())
            ):
                return "draws prices outside of its highs and lows"
    return ""
