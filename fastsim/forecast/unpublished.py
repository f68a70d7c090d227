"""Forecasters whose weights nobody publishes: those of a fit, and classical ones that have none."""

from __future__ import annotations

from functools import partial

from fastsim.forecast.correction.folder import NAME as CORRECTED
from fastsim.forecast.correction.folder import load_corrected
from fastsim.forecast.models.baselines import ewma_random_walk, trailing_random_walk
from fastsim.forecast.models.classical import auto_ets, garch_t, theta
from fastsim.forecast.models.har import har
from fastsim.forecast.recalibration.folder import NAME as RECALIBRATED
from fastsim.forecast.recalibration.folder import load_recalibrated
from fastsim.forecast.record import ForecasterRecord
from fastsim.forecast.training.folder import load_fit

FITS = (
    *(
        ForecasterRecord(name=name, load=partial(load_fit, network=name))
        for name in ("fit", "nhits", "lstm", "patch-transformer")
    ),
    ForecasterRecord(name=CORRECTED, load=load_corrected, builds_on_another=True),
    ForecasterRecord(name=RECALIBRATED, load=load_recalibrated, builds_on_another=True),
)
"""What has its weights from a fit, in whose folder they are."""

BASELINES = (
    ForecasterRecord(name="random-walk-60", load=lambda path: trailing_random_walk()),
    ForecasterRecord(name="random-walk-ewma-0.94", load=lambda path: ewma_random_walk()),
    ForecasterRecord(name="har", load=lambda path: har()),
    ForecasterRecord(name="garch-t", load=lambda path: garch_t()),
    ForecasterRecord(name="garch-t-drift", load=lambda path: garch_t(drift=True)),
    ForecasterRecord(name="auto-ets", load=lambda path: auto_ets()),
    ForecasterRecord(name="theta", load=lambda path: theta()),
)
"""What they are held against."""
