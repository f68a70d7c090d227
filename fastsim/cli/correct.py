"""`fastsim forecast fit --mode volatility`."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from fastsim.data.bars import Bars
from fastsim.errors import ConfigError
from fastsim.forecast.correction.fit import CorrectionFit, fit_correction
from fastsim.forecast.correction.folder import NAME, require_no_correction, save_correction
from fastsim.forecast.naming import read_name
from fastsim.forecast.registry import load_forecaster
from fastsim.forecast.season.setting import AUTO, NONE, SUFFIX, UTC
from fastsim.forecast.training.config import FitConfig

USED = ("mode", "season", "horizons", "context", "split")
"""Settings of a fit that a correction of volatility has."""


def correct(
    model: str, bars: Bars, config: FitConfig, folder: Path, season: str, source: str, out: Console
) -> None:
    """Fit a correction of a forecaster's volatility, say what came of it, and keep it.

    Raises
    ------
    ConfigError
        A setting is given that a correction does not have, or the folder holds one.
    DataError, ForecastError
        As `fit_correction`.
    """
    require_no_correction(folder)
    usual = FitConfig(mode="volatility")
    for name in FitConfig.__dataclass_fields__:
        if name not in USED and getattr(config, name) != getattr(usual, name):
            raise ConfigError(f"FitConfig.{name} is not of mode volatility: leave it out")
    if season == NONE or season.endswith(SUFFIX):
        raise ConfigError(
            f"--season must be a time zone where volatility is fitted, whose profile is fitted as "
            f"well, got {season!r}"
        )
    fitted = fit_correction(
        load_forecaster(model),
        bars,
        horizons=config.horizons,
        zone=UTC if season == AUTO else season,
        context=config.context or 512,
        split=config.split,
        name=folder.name,
    )
    path = read_name(model).path
    head = model if path is None else model[: model.rindex(str(path))] if str(path) in model else ""
    save_correction(fitted, folder, base=head, path=path, source=source)
    for line in (in_words(fitted), f"Wrote {folder}: name it {NAME}:{folder}"):
        out.print(line, highlight=False, markup=False, soft_wrap=True)


def in_words(fitted: CorrectionFit) -> str:
    """What came of a fit, in a sentence or two."""
    ratio, (train, validation) = fitted.ratio, fitted.windows
    told = (
        f"Of {train:,} windows, judged on {validation:,}: loss {ratio.estimate:.4f} "
        f"[{ratio.low:.4f}, {ratio.high:.4f}] of that without the correction"
    )
    if fitted.kept:
        return f"{told}."
    return f"{told}, which is not surely less: it is left out, and the season alone is kept."
