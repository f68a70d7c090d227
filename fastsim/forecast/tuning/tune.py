"""Searching for the settings of a fit, and scoring the best of them on bars that no trial saw."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from fastsim.data.bars import Bars
from fastsim.forecast.interface import ForecastModel
from fastsim.forecast.training.config import FitConfig
from fastsim.forecast.training.modes import check_mode, parts_of
from fastsim.forecast.training.series import Series
from fastsim.forecast.tuning.config import SearchConfig
from fastsim.forecast.tuning.outcome import TuneResult, outcome
from fastsim.forecast.tuning.score import cut_off
from fastsim.forecast.tuning.spaces import candidate, usual_space
from fastsim.progress import ON_STDERR, Progress
from fastsim.space import Space, require_fit


def tune(
    model: ForecastModel,
    bars: Bars,
    config: FitConfig | None = None,
    *,
    search: SearchConfig | None = None,
    space: Space | None = None,
    others: Series | None = None,
    name: str = "",
    folder: Path | None = None,
    progress: Progress = ON_STDERR,
) -> TuneResult:
    """Fit a model by many settings, and score what is best on validation on bars left for that.

    Parameters
    ----------
    model
        What each fit begins with; from scratch its architecture alone.
    bars
        The last of them are the test; the others are what fits learn from and are judged by.
    config
        Of every fit, but for what is searched.
    space
        What is searched; by default what `usual_space` says of the model and the mode.
    others, name
        As `fit` takes them.
    folder
        Where the study is kept: what was stopped goes on from there, given the same again, and
        other processes that are given it work on it as well. None keeps it for as long as it runs.

    Raises
    ------
    ConfigError
        Optuna is not installed, the space names what there is not, or as `fit`.
    DataError
        The bars are too few for one of the parts.
    ForecastError
        No trial came to its end.
    CheckpointError
        The folder holds another search.
    """
    from fastsim.forecast.tuning.job import Job  # noqa: PLC0415  (Optuna is an extra)
    from fastsim.forecast.tuning.workers import try_all  # noqa: PLC0415

    config = FitConfig() if config is None else config
    search = SearchConfig() if search is None else search
    check_mode(parts_of(model)[0], config.mode)
    space = usual_space(model, config.mode) if space is None else space
    require_fit(space, lambda values: candidate(model, config, values))
    parts = cut_off(bars, search)
    with TemporaryDirectory() as temporary:
        place = Path(temporary) if folder is None else folder
        name = name or f"{model.card.name}-{config.mode}"
        job = Job(model, parts.learned, others, config, search, space, name, place)
        return outcome(job, try_all(job, progress), bars, parts.start)
