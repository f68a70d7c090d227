"""The forecasters that can be named, each a record of what it is and how it is loaded."""

from __future__ import annotations

from fastsim.extensions import Registry
from fastsim.forecast.foundation import FOUNDATION
from fastsim.forecast.models import prior
from fastsim.forecast.record import ForecasterRecord
from fastsim.forecast.unpublished import BASELINES, FITS

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

OWN = (*MODELS, *FITS, *BASELINES)
FORECASTERS: Registry[ForecasterRecord] = Registry("forecaster", ForecasterRecord, OWN)
