"""What is known of a forecaster before it is loaded: the record that its name finds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from fastsim.config import configuration
from fastsim.errors import ConfigError
from fastsim.forecast.hub import HubFile
from fastsim.forecast.interface import Forecaster, ForecastModel, ModelCard

Implementation = Literal["fastsim", "official"]
"""Whose code runs: ours, or the package of those who published the model."""


@configuration
class ForecasterRecord:
    """One forecaster by name. How to add one's own: `docs/howto/forecaster.md`.

    `load(path)` gives a `Forecaster`, or a network (`ForecastModel`) that is put behind one; its
    weights come from the path, or from where it keeps them if that is None.
    """

    name: str
    load: Callable[..., ForecastModel | Forecaster]
    card: ModelCard | None = None
    """What it is, where that can be said before it is loaded."""
    random: Callable[[], ForecastModel] | None = None
    """Full size with random weights, for benchmarks; None where weights ship."""
    weights_file: str = ""
    """The file on the card's hub that is looked for to say whether the weights are here."""
    older_weights_file: str = ""
    """What that file is called where the hub still has it in another form."""
    shipped_file: str = ""
    """The file of weights within the folder of fastsim, where they come with it."""
    other_files: tuple[HubFile, ...] = ()
    """What else of the hub it needs."""
    revisions: bool = False
    """Whether `load(path, revision)` takes a revision of the hub too."""
    builds_on_another: bool = False
    """Whether it is `load(path, load=load_forecaster)`: it needs one by name that it builds on."""
    official: Callable[..., ForecastModel] | None = None
    """The same in the code of its own package: as `load`, revision included."""
    package: str = ""
    """The distribution that `load` needs beside fastsim, if any."""
    official_package: str = ""
    """The distribution that `official` needs."""

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

    @property
    def weights_files(self) -> tuple[HubFile, ...]:
        """The forms of its weights on the hub, of which it needs one; none if it is on no hub."""
        card = self.card
        if card is None or card.hub_id is None:
            return ()
        return tuple(
            HubFile(hub_id=card.hub_id, filename=filename, revision=card.revision)
            for filename in (self.weights_file, self.older_weights_file)
            if filename
        )
