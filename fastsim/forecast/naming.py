"""How forecasters are spelled: `tirex`, `tirex@REVISION`, `tirex:/folder`, `module:record`, `x.pt`.

What comes after `@` is a revision of the hub; what comes after a known name and a colon is a path
of weights. A record of one's own is named by where it is imported from, and may be given a path
after a second colon.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from fastsim.errors import ConfigError
from fastsim.extensions import is_reference
from fastsim.forecast.artifacts.formats import SUFFIX
from fastsim.forecast.known import FORECASTERS
from fastsim.forecast.record import ForecasterRecord


class Named(NamedTuple):
    """What a spelling says: a record, or an artefact, with where its weights come from."""

    record: ForecasterRecord | None
    """None for an artefact, whose file is `path`."""
    path: Path | None
    revision: str | None


def read_name(text: str) -> Named:
    """What a spelling names.

    Raises
    ------
    ConfigError
        There is no forecaster of this name, it takes no revision, or both or nothing are given.
    """
    name, path = _split_path(text)
    name, at, revision = name.partition("@")
    if name not in FORECASTERS and Path(text).suffix in SUFFIX.values():
        return Named(None, Path(text).expanduser(), None)
    record = FORECASTERS.find(name)
    if at and not revision:
        raise ConfigError(
            f"forecaster {text!r} names no revision after @: give one, as in {name}@main"
        )
    if path == "":
        raise ConfigError(f"forecaster {text!r} names no path after the colon: give one, or {name}")
    if at and path is not None:
        raise ConfigError(
            f"forecaster {text!r} names a revision of the hub and a path: give one of them"
        )
    if at and not record.revisions:
        takers = ", ".join(known.name for known in FORECASTERS.values() if known.revisions)
        raise ConfigError(f"forecaster {name!r} takes no revision ({text!r}); {takers} do")
    return Named(record, None if path is None else Path(path).expanduser(), revision or None)


def _split_path(text: str) -> tuple[str, str | None]:
    """The name, and what follows the colon after it; None without one."""
    head, colon, rest = text.partition(":")
    if head.partition("@")[0] in FORECASTERS:
        return head, rest if colon else None
    attribute, colon, path = rest.partition(":")
    reference = f"{head}:{attribute}"
    if colon and is_reference(reference):
        return reference, path
    return text, None
