"""The forecasters that can be named, each a record of what it is and how it is loaded."""

from __future__ import annotations

from fastsim.extensions import Registry
from fastsim.forecast.foundation import FOUNDATION
from fastsim.forecast.models import prior
from fastsim.forecast.models.baselines import ewma_random_walk, trailing_random_walk
from fastsim.forecast.models.classical import auto_ets, garch_t, theta
from fastsim.forecast.record import ForecasterRecord
from fastsim.forecast.training.folder import load_fit

__all__ = ["FORECASTERS", "ForecasterRecord"]

MODELS = (
    ForecasterRecord(
        name="fastsim-prior",
        load=prior.load_prior,
        card=prior.CARD,
        shipped_file="forecast/models/weights/prior.safetensors",
    ),
    *FOUNDATION,
)
"""Networks with weights."""

FITS = (ForecasterRecord(name="fit", load=load_fit),)
"""What has its weights from a fit, in whose folder they are."""

BASELINES = (
    ForecasterRecord(name="random-walk-60", load=lambda path: trailing_random_walk()),
    ForecasterRecord(name="random-walk-ewma-0.94", load=lambda path: ewma_random_walk()),
    ForecasterRecord(name="garch-t", load=lambda path: garch_t()),
    ForecasterRecord(name="garch-t-drift", load=lambda path: garch_t(drift=True)),
    ForecasterRecord(name="auto-ets", load=lambda path: auto_ets()),
    ForecasterRecord(name="theta", load=lambda path: theta()),
)
"""What they are held against."""

OWN = (*MODELS, *FITS, *BASELINES)
FORECASTERS: Registry[ForecasterRecord] = Registry("forecaster", ForecasterRecord, OWN)
