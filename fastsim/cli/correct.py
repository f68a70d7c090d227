"""`fastsim forecast fit --mode volatility` and `--mode bands`: what is built on any forecaster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from fastsim.data.bars import Bars
from fastsim.errors import ConfigError
from fastsim.forecast.correction.fit import CorrectionFit, fit_correction
from fastsim.forecast.correction.folder import NAME as CORRECTED
from fastsim.forecast.correction.folder import require_no_correction, save_correction
from fastsim.forecast.naming import read_name
from fastsim.forecast.recalibration.fit import RecalibrationFit, fit_recalibration
from fastsim.forecast.recalibration.folder import NAME as RECALIBRATED
from fastsim.forecast.recalibration.folder import require_no_recalibration, save_recalibration
from fastsim.forecast.registry import load_forecaster
from fastsim.forecast.season.setting import AUTO, NONE, SUFFIX, UTC, resolved, season_of
from fastsim.forecast.training.config import FitConfig, Mode

USED = ("mode", "season", "horizons", "context", "split")
"""Settings of a fit that what is built on a forecaster has."""
USUAL_CONTEXT = 512
WHY_LEFT = {False: "within chance", True: "off, and not alike in both halves"}


def correct(
    model: str, bars: Bars, config: FitConfig, folder: Path, source: str, out: Console
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
    _require_used(config)
    season = config.season
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
        context=config.context or USUAL_CONTEXT,
        split=config.split,
        name=folder.name,
    )
    base, path = _split(model)
    save_correction(fitted, folder, base=base, path=path, source=source)
    _say(out, in_words(fitted), f"Wrote {folder}: name it {CORRECTED}:{folder}")


def recalibrate(
    model: str, bars: Bars, config: FitConfig, folder: Path, source: str, out: Console
) -> None:
    """Set a forecaster's bands right by validation bars, say what came of it, and keep it.

    Raises
    ------
    ConfigError
        A setting is given that a recalibration does not have, or the folder holds one.
    DataError, ForecastError
        As `fit_recalibration`.
    """
    require_no_recalibration(folder)
    _require_used(config)
    fitted = fit_recalibration(
        load_forecaster(model),
        bars,
        horizons=config.horizons,
        season=season_of(resolved(config.season, bars.timestamps)),
        context=config.context or USUAL_CONTEXT,
        split=config.split,
        name=folder.name,
    )
    base, path = _split(model)
    save_recalibration(fitted, folder, base=base, path=path, source=source)
    _say(out, *bands_in_words(fitted), f"Wrote {folder}: name it {RECALIBRATED}:{folder}")


BUILT_ON: dict[Mode, Callable[[str, Bars, FitConfig, Path, str, Console], None]] = {
    "volatility": correct,
    "bands": recalibrate,
}
"""Modes that leave the forecaster as it is, whatever it is, and build on it."""


def in_words(fitted: CorrectionFit) -> str:
    """What came of a correction, in a sentence or two."""
    ratio, (train, validation) = fitted.ratio, fitted.windows
    told = (
        f"Of {train:,} windows, judged on {validation:,}: loss {ratio.estimate:.4f} "
        f"[{ratio.low:.4f}, {ratio.high:.4f}] of that without the correction"
    )
    if fitted.kept:
        return f"{told}."
    return f"{told}, which is not surely less: it is left out, and the season alone is kept."


def bands_in_words(fitted: RecalibrationFit) -> list[str]:
    """What came of a recalibration, a sentence for each horizon."""
    kept = "" if fitted.kept else ": nothing is changed"
    told = [f"Of {fitted.windows:,} windows of validation{kept}."]
    for each in fitted.bands:
        found, low, high = (100.0 * part for part in each.coverage[:3])
        below, above = each.factors
        done = (
            f"widths times {below:.3f} below the median and {above:.3f} above"
            if each.changed
            else f"bands {WHY_LEFT[each.off]}, left as they are"
        )
        told.append(
            f"{each.horizon} bars ahead: 80 % band held {found:.1f} % [{low:.1f}, {high:.1f}], "
            f"least p of its bands {each.p_value:.3g}: {done}."
        )
    return told


def _require_used(config: FitConfig) -> None:
    """Raise ConfigError if a setting is given that this mode does not have."""
    usual = FitConfig(mode=config.mode)
    for name in FitConfig.__dataclass_fields__:
        if name not in USED and getattr(config, name) != getattr(usual, name):
            raise ConfigError(f"FitConfig.{name} is not of mode {config.mode}: leave it out")


def _split(model: str) -> tuple[str, Path | None]:
    """What of a forecaster's name comes before its path, the colon included, and the path."""
    path = read_name(model).path
    if path is None:
        return model, None
    return ("" if Path(model).expanduser() == path else model[: model.rindex(":") + 1]), path


def _say(out: Console, *lines: str) -> None:
    for line in lines:
        out.print(line, highlight=False, markup=False, soft_wrap=True)
