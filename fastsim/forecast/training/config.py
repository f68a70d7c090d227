"""What can be chosen of a fit."""

from __future__ import annotations

from typing import Literal

from fastsim.config import configuration, require_between, require_choice
from fastsim.data.dates import iso_date
from fastsim.errors import ConfigError, DataError
from fastsim.forecast.covariates.channels import check_covariates, named_covariates
from fastsim.forecast.season.setting import check_season
from fastsim.forecast.training.lora import LoraConfig

Mode = Literal["scratch", "full", "head", "lora", "volatility", "bands"]
Centre = Literal["kept", "fitted", "last"]
HORIZONS = (1, 2, 3, 5, 8, 13, 21)
RATES: dict[Mode, float] = {
    "scratch": 2e-3,
    "full": 3e-4,
    "head": 1e-3,
    "lora": 1e-3,
    "volatility": 1.0,
    "bands": 1.0,
}
"""Peak of the learning rate where none is given."""


@configuration
class SplitConfig:
    """Which bars a fit learns from, and which it is judged by: the last ones.

    Between the parts so many bars are left out that no target of the one is a target of the other.
    """

    validation: float = 0.2
    """Share of the time that is for validation, at the end."""
    validation_start: str | None = None
    """ISO date of the first bar for validation, in place of a share."""
    embargo: int | None = None
    """Bars left out between the last target of the one and the first of the other part; by default
    the longest horizon."""
    apart: bool = False
    """Leave a whole context out, too, so that no context of validation holds a bar of training."""

    def __post_init__(self) -> None:
        require_between(self, "validation", 0.0, 0.9, open_low=True)
        if self.embargo is not None:
            require_between(self, "embargo", 0)
        if self.validation_start is not None:
            try:
                iso_date(self.validation_start, "SplitConfig.validation_start")
            except DataError as error:
                raise ConfigError(str(error)) from None


@configuration
class JitterConfig:
    """Windows of bars that are not quite those that were; each is off at 0."""

    scale: float = 0.0
    """Deviation of the logarithm of a factor of all log returns of a window, past and to come."""
    amplitude: float = 0.0
    """Deviation of the logarithm of a factor of the log returns of the oldest bar, which fades to
    none at the latest: times long ago were louder or calmer than they were."""
    time: float = 0.0
    """Share of windows whose bars are two joined to one."""

    def __post_init__(self) -> None:
        for name in ("scale", "amplitude"):
            require_between(self, name, 0.0, 1.0)
        require_between(self, "time", 0.0, 0.9)

    @property
    def moves(self) -> bool:
        """Whether returns are changed."""
        return self.scale > 0.0 or self.amplitude > 0.0


@configuration
class FitConfig:
    """How a forecaster is fitted."""

    mode: Mode = "full"
    """scratch begins with random weights; full moves all of a model's; head its last layer; lora
    adds a few beside its linear layers; volatility corrects that of any forecaster by what ranges,
    hours and volume say, beside the season; bands sets the widths of its bands right where
    validation says that they are off."""
    centre: Centre = "kept"
    """Where the median is: as before the fit, fitted as well, or at the last close. Years that
    rose teach a drift that the next do not keep, so spread and shape alone are fitted unless you
    ask for more; from scratch, where nothing was before, kept is the last close."""
    horizons: tuple[int, ...] = HORIZONS
    """Bars ahead that are learned, each with equal weight; the longest is as far as it sees."""
    context: int | None = None
    """Bars to look back on; by default 512, or as many as the model reads."""
    steps: int = 2000
    """Of the optimiser, at most."""
    batch_size: int = 256
    """Windows at once."""
    accumulation: int = 1
    """Batches per step."""
    learning_rate: float | None = None
    """Peak of AdamW's; by default 2e-3 from scratch, 3e-4 for a whole model, 1e-3 for a part."""
    warmup: int = 100
    """Steps until the peak; from there half a cosine falls to nothing."""
    weight_decay: float = 0.0
    gradient_limit: float = 1.0
    """Largest norm of the gradient."""
    average: float = 0.998
    """Decay per step of the moving average of the weights, which is what is judged and kept."""
    amp: Literal["none", "bfloat16", "float16"] = "none"
    """Precision of products while learning; what is kept is float32."""
    evaluate_every: int = 100
    """Steps from one validation to the next, and from one checkpoint to the next."""
    patience: int = 8
    """Validations without a better one, after which the fit ends."""
    validation_windows: int = 4096
    """At most so many, spread over the validation's time."""
    sure: bool = True
    """Keep the start unless the fit is better on validation by more than chance, the 95 % interval
    of a block bootstrap; else any gain will do."""
    covariates: str = ""
    """What a network from scratch reads beside returns, with commas between: of the calendar, known
    of bars to come as well, hour, weekday, month-end and session; of the past alone the ranges
    parkinson, garman-klass and yang-zhang, and the columns open, high, low, volume and amount.
    One that was fitted before keeps its own."""
    zone: str = "UTC"
    """Time zone of the clock that covariates of the calendar go by."""
    dense: bool = False
    """Learn from every patch of a context as if it ended there, where a network tells what follows
    each; each is scaled by what lies before it. Horizons lie within a patch."""
    growing: float = 0.0
    """Share of the steps in which horizons are added one after the other, the nearest first."""
    checkpointing: bool = False
    """Work layers out again on the way back, rather than hold what they held: less memory."""
    season: str = "auto"
    """The season of volatility that bars are freed of before they are learned from, as that around
    forecasters: "auto" is one by UTC for bars shorter than a day, "none", a time zone, or the file
    of a fitted profile. Forecast with the same one around what is fitted."""
    simulated: float = 0.0
    """Share of each batch that is of simulated worlds, new ones at every step; 1 without bars."""
    others: float = 0.0
    """Share of each batch that is of the other series, where some are given."""
    futures: int = 4
    """Futures drawn from each simulated past."""
    seed: int = 0
    device: str = "cpu"
    split: SplitConfig = SplitConfig()
    jitter: JitterConfig = JitterConfig()
    """Of bars; what is simulated is new at every step as it is."""
    lora: LoraConfig = LoraConfig()
    """Of mode lora."""

    def __post_init__(self) -> None:
        for name in ("mode", "centre", "amp"):
            require_choice(self, name)
        for name in ("steps", "batch_size", "accumulation", "evaluate_every", "patience"):
            require_between(self, name, 1)
        for name in ("validation_windows", "futures"):
            require_between(self, name, 1)
        for name in ("warmup", "seed", "weight_decay"):
            require_between(self, name, 0)
        for name in ("average", "simulated", "others", "growing"):
            require_between(self, name, 0.0, 1.0)
        if self.context is not None:
            require_between(self, "context", 2)
        if self.learning_rate is not None:
            require_between(self, "learning_rate", 0.0, open_low=True)
        require_between(self, "gradient_limit", 0.0, open_low=True)
        if self.simulated + self.others > 1.0:
            raise ConfigError(
                f"FitConfig.others must leave room beside simulated = {self.simulated:g}: shares "
                f"of a batch are at most 1 together, got {self.others:g}"
            )
        check_season(self.season, "FitConfig.season")
        check_covariates(named_covariates(self.covariates), self.zone, "FitConfig.covariates")
        if self.mode == "volatility" and (self.covariates or self.dense):
            name = "covariates" if self.covariates else "dense"
            raise ConfigError(
                f"FitConfig.{name} is of networks, and mode volatility corrects what a forecaster "
                f"says, by ranges, the calendar and volume: leave it out"
            )
        increasing = self.horizons == tuple(sorted(set(self.horizons)))
        if not self.horizons or not increasing or self.horizons[0] < 1:
            raise ConfigError(
                f"FitConfig.horizons must be bars from 1 up that increase, got {self.horizons!r}"
            )

    @property
    def reach(self) -> int:
        """The longest horizon."""
        return self.horizons[-1]

    @property
    def rate(self) -> float:
        """Peak of the learning rate."""
        return RATES[self.mode] if self.learning_rate is None else self.learning_rate
