"""What can be chosen of a search."""

from __future__ import annotations

from fastsim.config import configuration, require_between
from fastsim.data.dates import iso_date
from fastsim.errors import ConfigError, DataError


@configuration
class SearchConfig:
    """How the settings of a fit are searched for."""

    trials: int = 20
    """Fits that are tried, those included that are given up early."""
    workers: int = 1
    """Processes that try at once, each with its share of the threads."""
    prune: bool = True
    """Give a fit up whose validation loss is worse than that of most others by its step."""
    test: float = 0.2
    """Share of the time, at the end, that no trial sees, and that the best one is scored on."""
    test_start: str | None = None
    """ISO date of the first bar of that, in place of a share."""

    def __post_init__(self) -> None:
        for name in ("trials", "workers"):
            require_between(self, name, 1)
        require_between(self, "test", 0.0, 0.9, open_low=True)
        if self.test_start is not None:
            try:
                iso_date(self.test_start, "SearchConfig.test_start")
            except DataError as error:
                raise ConfigError(str(error)) from None
