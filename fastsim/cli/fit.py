"""`fastsim forecast fit`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from fastsim.cli.correct import BUILT_ON
from fastsim.config import configuration
from fastsim.data.bars import Bars
from fastsim.data.source import DataConfig, load_bars
from fastsim.errors import ConfigError
from fastsim.forecast.interface import ForecastModel
from fastsim.forecast.naming import read_name
from fastsim.forecast.registry import load_network
from fastsim.forecast.training.architectures import ARCHITECTURES, from_scratch
from fastsim.forecast.training.config import FitConfig
from fastsim.forecast.training.fit import fit
from fastsim.forecast.training.keep import Base, require_no_fit, save_fit
from fastsim.forecast.training.series import series_of_frame
from fastsim.progress import ProgressBars

NO_BARS = "none"
"""As a source: simulated worlds are all that there is."""
GOES_ON = "the same command goes on from the last validation"


@configuration(slots=False)
class FitCommand:
    """Fit a forecaster to bars; what comes of it is named fit:FOLDER wherever forecasters are.

    The last bars judge it beside its start, which is kept where nothing is better. Keep bars that
    are to prove it out of its sight (--data.end). A fit that was stopped goes on where it was, by
    the same command.
    """

    model: tyro.conf.Positional[str]
    """What to begin with: a name, such as fastsim-prior or fit:FOLDER."""
    out: Path | None = None
    """Folder for what is fitted; by default fits/ with the model, the mode and the data."""
    architecture: tuple[str, ...] = ()
    """Sizes of a network from scratch, such as blocks=2 width=64; those that are not given are its
    own."""
    series: Path | None = None
    """A long frame of other series, CSV or Parquet with columns id, time and value, to learn from
    as well; --others says how much."""
    data: DataConfig = field(default_factory=DataConfig)
    """Bars to learn from and be judged by; of source none where --simulated is 1."""
    fit: Annotated[FitConfig, tyro.conf.arg(name="")] = field(default_factory=FitConfig)

    def __call__(self, console: Console) -> None:
        """Fit, say what came of it, and keep it."""
        folder = self.out or Path("fits") / self._name()
        if self.fit.mode in BUILT_ON:
            build, whole = BUILT_ON[self.fit.mode], load_bars(self.data)
            build(self.model, whole, self.fit, folder, self.data.source, console)
            return
        require_no_fit(folder)
        model, bars = self._model(), self._bars()
        others = None if self.series is None else series_of_frame(self.series)
        with hint():
            result = fit(
                model,
                bars,
                self.fit,
                others=others,
                name=folder.name,
                folder=folder,
                progress=ProgressBars(console),
            )
        save_fit(result, folder, self.fit, source=self.data.source, base=self._base())
        for line in (result.report.sentence, f"Wrote {folder}: name it fit:{folder}"):
            console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _name(self) -> str:
        source = Path(self.data.source).stem.replace(":", "-")
        name = self.model.partition(":")[0]
        return f"{name}-{self.fit.mode}-{source}"

    def _model(self) -> ForecastModel:
        """From scratch the architecture alone, of which no weights need to be there."""
        if self.model.partition(":")[0].partition("@")[0] not in (*ARCHITECTURES, "fit"):
            raise ConfigError(
                f"forecaster {self.model!r} cannot be fitted; {', '.join(ARCHITECTURES)} and "
                f"fit:FOLDER can"
            )
        if self.fit.mode == "scratch" and self.model in ARCHITECTURES:
            return from_scratch(self.model, self.architecture)
        if self.architecture:
            raise ConfigError(
                f"FitCommand.architecture is of a network from scratch, and {self.model} is what "
                f"it is: leave it out"
            )
        return load_network(self.model)

    def _base(self) -> Base:
        named = read_name(self.model)
        return Base(named.path, named.revision)

    def _bars(self) -> Bars | None:
        return None if self.data.source == NO_BARS else load_bars(self.data)


@contextmanager
def hint() -> Iterator[None]:
    """Let Ctrl-C end with how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(GOES_ON) from None
