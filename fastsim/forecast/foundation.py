"""The foundation models of others, each a record of what it is and how it is loaded."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from fastsim.forecast.hub import HubFile
from fastsim.forecast.models import (
    chronos2,
    fracast,
    kronos,
    timesfm,
    tirex,
    tirex2,
    tirex_official,
    toto,
    toto2,
)
from fastsim.forecast.record import ForecasterRecord


def _kronos(name: str, size: str) -> ForecasterRecord:
    tokenizer = kronos.TOKENIZER_RELEASES[size]
    return ForecasterRecord(
        name=name,
        load=lambda path, revision=None: kronos.load_kronos(size, path, revision=revision),
        revisions=True,
        card=kronos.CARDS[size],
        random=partial(
            kronos.random_kronos, kronos.CONFIGS[size], kronos.TOKENIZER_CONFIGS[size], seed=0
        ),
        weights_file="model.safetensors",
        other_files=(
            HubFile(
                hub_id=tokenizer.hub_id,
                filename="model.safetensors",
                revision=tokenizer.revision,
            ),
        ),
    )


def _tirex2(path: Path | None, revision: str | None = None) -> tirex2.TiRex2Model:
    """Ours is the official one."""
    return tirex2.load_tirex2(path, revision=revision)


FOUNDATION = (
    ForecasterRecord(
        name="tirex",
        load=tirex.load_tirex,
        revisions=True,
        official=tirex_official.load_official_tirex,
        official_package="tirex-ts",
        card=tirex.CARD,
        random=lambda: tirex.TiRexModel.random(tirex.TiRexConfig(), 0),
        weights_file=tirex.CHECKPOINT,
    ),
    ForecasterRecord(
        name="tirex2",
        load=_tirex2,
        revisions=True,
        official=_tirex2,
        package="tirex-2",
        card=tirex2.CARD,
        random=lambda: tirex2.random_tirex2(tirex2.official_settings(), 0),
        weights_file=tirex2.CHECKPOINTS[0],
        older_weights_file=tirex2.CHECKPOINTS[1],
    ),
    ForecasterRecord(
        name="toto",
        load=toto.load_toto,
        revisions=True,
        card=toto.CARD,
        random=lambda: toto.TotoModel(toto.TotoConfig()),
        weights_file="model.safetensors",
    ),
    ForecasterRecord(
        name="toto2-4m",
        load=toto2.load_toto2,
        revisions=True,
        card=toto2.CARD,
        random=lambda: toto2.Toto2Model(toto2.Toto2Config()),
        weights_file="model.safetensors",
    ),
    ForecasterRecord(
        name="chronos2",
        load=chronos2.load_chronos2,
        revisions=True,
        card=chronos2.CARD,
        random=chronos2.random_chronos2,
        weights_file="model.safetensors",
    ),
    ForecasterRecord(
        name="timesfm",
        load=timesfm.load_timesfm,
        revisions=True,
        card=timesfm.CARD,
        random=timesfm.random_timesfm,
        weights_file=timesfm.WEIGHTS,
    ),
    _kronos("kronos-mini", "mini"),
    _kronos("kronos", "small"),
    _kronos("kronos-base", "base"),
    ForecasterRecord(
        name="fracast",
        load=fracast.load_fracast,
        card=fracast.CARD,
        official=fracast.load_fracast,
        package="fracast",
    ),
)
