"""The forecasters that can be named, each a record of what it is and how it is loaded."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from fastsim.config import configuration
from fastsim.errors import ConfigError
from fastsim.extensions import Registry
from fastsim.forecast.interface import Forecaster, ForecastModel, ModelCard
from fastsim.forecast.models import fracast, kronos, prior, tirex, tirex2, toto, toto2
from fastsim.forecast.models.baselines import ewma_random_walk, trailing_random_walk
from fastsim.forecast.models.classical import auto_ets, garch_t, theta


@configuration
class ForecasterRecord:
    """One forecaster by name. How to add one's own: `docs/howto/forecaster.md`.

    `load(path)` gives a `Forecaster`, or a network (`ForecastModel`) that is put behind one; its
    weights come from the path, or from where it keeps them if that is None.
    """

    name: str
    load: Callable[[Path | None], ForecastModel | Forecaster]
    card: ModelCard | None = None
    """What it is, where that can be said before it is loaded."""
    random: Callable[[], ForecastModel] | None = None
    """Full size with random weights, for benchmarks; None where weights ship."""
    weights_file: str = ""
    """The file on the card's hub that is looked for to say whether the weights are here."""

    def __post_init__(self) -> None:
        if not callable(self.load):
            raise ConfigError(
                f"ForecasterRecord.load of {self.name} must be a function of a path, "
                f"got {self.load!r}"
            )
        if not isinstance(self.card, ModelCard | None):
            raise ConfigError(
                f"ForecasterRecord.card of {self.name} must be a ModelCard or None, "
                f"got {self.card!r}"
            )


def _kronos(name: str, size: str) -> ForecasterRecord:
    return ForecasterRecord(
        name=name,
        load=lambda path: kronos.load_kronos(size, path),
        card=kronos.CARDS[size],
        random=partial(
            kronos.random_kronos, kronos.CONFIGS[size], kronos.TOKENIZER_CONFIGS[size], seed=0
        ),
        weights_file="model.safetensors",
    )


MODELS = (
    ForecasterRecord(name="fastsim-prior", load=prior.load_prior, card=prior.CARD),
    ForecasterRecord(
        name="tirex",
        load=tirex.load_tirex,
        card=tirex.CARD,
        random=lambda: tirex.TiRexModel.random(tirex.TiRexConfig(), 0),
        weights_file=tirex.CHECKPOINT,
    ),
    ForecasterRecord(
        name="tirex2",
        load=tirex2.load_tirex2,
        card=tirex2.CARD,
        random=lambda: tirex2.random_tirex2(tirex2.official_settings(), 0),
        weights_file=tirex2.CHECKPOINT,
    ),
    ForecasterRecord(
        name="toto",
        load=toto.load_toto,
        card=toto.CARD,
        random=lambda: toto.TotoModel(toto.TotoConfig()),
        weights_file="model.safetensors",
    ),
    ForecasterRecord(
        name="toto2-4m",
        load=toto2.load_toto2,
        card=toto2.CARD,
        random=lambda: toto2.Toto2Model(toto2.Toto2Config()),
        weights_file="model.safetensors",
    ),
    _kronos("kronos-mini", "mini"),
    _kronos("kronos", "small"),
    _kronos("kronos-base", "base"),
    ForecasterRecord(name="fracast", load=fracast.load_fracast, card=fracast.CARD),
)
"""Networks with weights."""

BASELINES = (
    ForecasterRecord(name="random-walk-60", load=lambda path: trailing_random_walk()),
    ForecasterRecord(name="random-walk-ewma-0.94", load=lambda path: ewma_random_walk()),
    ForecasterRecord(name="garch-t", load=lambda path: garch_t()),
    ForecasterRecord(name="garch-t-drift", load=lambda path: garch_t(drift=True)),
    ForecasterRecord(name="auto-ets", load=lambda path: auto_ets()),
    ForecasterRecord(name="theta", load=lambda path: theta()),
)
"""What they are held against."""

OWN = (*MODELS, *BASELINES)
FORECASTERS: Registry[ForecasterRecord] = Registry("forecaster", ForecasterRecord, OWN)
