"""What of a forecaster is on this machine: its package, its weights, their revision and digest."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files as files_of_package
from pathlib import Path
from typing import NamedTuple

from fastsim.forecast.digests import OWN_CODE
from fastsim.forecast.hub import cached, held_revision, sha256
from fastsim.forecast.record import ForecasterRecord


class Availability(NamedTuple):
    """What `fastsim models` tells of a forecaster."""

    package: str
    """Whose code runs it, with its version, or how to install it."""
    weights: str
    """Where they are, or how to get them."""
    revision: str
    """Of the weights: the pinned one, or the one met first; empty if neither is known."""
    digest: str
    """SHA-256 of the file of weights, its first 12 digits; empty if it is not here."""


def availability(record: ForecasterRecord) -> Availability:
    """What is here of a forecaster, found without any network.

    Raises
    ------
    ForecastError
        The record of the revisions met first is damaged.
    """
    files = record.weights_files
    revision = record.card.revision if record.card is not None else None
    if not files:
        where = "in its own package" if record.package else "in the package"
        shipped = files_of_package("fastsim") / record.shipped_file
        digest = sha256(Path(str(shipped)))[:12] if record.shipped_file else ""
        return Availability(_package(record), where, revision or "", digest)
    held = held_revision(files[0].hub_id)
    revision = revision or (held.revision if held else None)
    found = next((path for path in map(cached, files) if path is not None), None)
    missing = [files[0]] if found is None else []
    missing += [file for file in record.other_files if cached(file) is None]
    digest = "" if found is None else _digest(found)[:12]
    if found is not None and revision is None:
        revision = found.parent.name  # a folder of the cache is called by the commit that it holds
    advice = "; ".join(file.advice for file in missing)
    where = f"not here: {advice}" if missing else str(found)
    return Availability(_package(record), where, revision or "", digest)


def _package(record: ForecasterRecord) -> str:
    ours = OWN_CODE if not record.package else _installed(record.package)
    if not record.official_package:
        return ours
    return f"{ours}; official: {_installed(record.official_package)}"


def _installed(package: str) -> str:
    try:
        return f"{package}-{version(package)}"
    except PackageNotFoundError:
        return f"pip install {package}"


def _digest(path: Path) -> str:
    """SHA-256 of a file; the cache calls large ones by it, which saves reading them."""
    name = path.resolve().name
    named_by_digest = len(name) == 64 and all(digit in "0123456789abcdef" for digit in name)
    return name if named_by_digest else sha256(path)
