"""The hub of weights: what is cached of it, what is fetched, and which revision is held to.

Where nobody names a revision, the one met first is written down beside the hub's cache with the
digests of its files, and held to from then on: forecasts do not change because a repository did.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import constants, get_session, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

from fastsim.config import configuration, write_whole
from fastsim.errors import ForecastError, one_line

HELD = "fastsim-revisions.json"
"""The file in the hub's cache that holds the revisions met first."""
PATIENCE_S = 3.0
"""Seconds that the hub has to answer; its own client tries for half a minute."""
_CHUNK = 2**20


@configuration
class HubFile:
    """One file of a repository on the hub, at a revision; None is the one met first."""

    hub_id: str
    filename: str
    revision: str | None = None

    @property
    def advice(self) -> str:
        """The command that puts this file, and what belongs to it, into the cache."""
        revision = f" --revision {self.revision}" if self.revision else ""
        return f"hf download {self.hub_id}{revision}"


class Held(NamedTuple):
    """The revision of a repository that was met first, and SHA-256 by file."""

    revision: str
    files: dict[str, str]


def cached(file: HubFile) -> Path | None:
    """Where the cache has a file; None if it has not."""
    held = None if file.revision else held_revision(file.hub_id)
    found = try_to_load_from_cache(
        file.hub_id,
        file.filename,
        revision=file.revision or (held.revision if held else None),
        cache_dir=constants.HF_HUB_CACHE,
    )
    return Path(found) if isinstance(found, str) else None


def obtain(name: str, file: HubFile) -> Path:
    """The file in the cache, fetched if it is not there; `name` is whose it is, for errors.

    Raises
    ------
    FileNotFoundError
        The repository has no such file at this revision.
    ForecastError
        It cannot be had, or differs from what was met first; says what to do.
    """
    found = cached(file) or _fetched(name, file)
    if file.revision is None:
        _hold(name, file, found)
    return found


def held_revision(hub_id: str) -> Held | None:
    """The revision of a repository that was met first, if one was."""
    entry = _read_held().get(hub_id)
    return None if entry is None else Held(entry["revision"], dict(entry["files"]))


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as content:
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _fetched(name: str, file: HubFile) -> Path:
    held = None if file.revision else held_revision(file.hub_id)
    try:
        _require_hub()
        revision = file.revision or (held.revision if held else None)
        return Path(
            hf_hub_download(file.hub_id, file.filename, revision=revision, etag_timeout=PATIENCE_S)
        )
    except EntryNotFoundError as error:
        if not isinstance(error, HfHubHTTPError):  # not in the cache, while the hub is off limits
            raise _unobtainable(name, file, error) from None
        raise FileNotFoundError(f"{file.hub_id} has no {file.filename}") from None
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise _unobtainable(name, file, error) from None


def _require_hub() -> None:
    """Raise OSError at once, not after half a minute, where there is no way to the hub."""
    if constants.HF_HUB_OFFLINE:
        return  # the hub's client itself keeps to the cache
    try:
        get_session().head(constants.ENDPOINT, timeout=PATIENCE_S)
    except Exception as error:  # of whatever library the client is built on
        raise OSError(f"no way to {constants.ENDPOINT}: {error}") from None


def _unobtainable(name: str, file: HubFile, error: Exception) -> ForecastError:
    reason = one_line(error, 160)
    return ForecastError(
        f"{name}: {file.filename} of {file.hub_id} is not cached and cannot be fetched; run "
        f"`{file.advice}` where there is network, or give a local path ({reason})"
    )


def _hold(name: str, file: HubFile, path: Path) -> None:
    """Write down the revision and digest that are met first; later ones must be the same."""
    held = held_revision(file.hub_id)
    digest, revision = sha256(path), path.parent.name
    if held is None or file.filename not in held.files:
        files = (held.files if held else {}) | {file.filename: digest}
        entry = {"revision": held.revision if held else revision, "files": files}
        known = _read_held() | {file.hub_id: entry}
        write_whole(_held_path(), json.dumps(known, indent=2).encode())
    elif held.files[file.filename] != digest:
        raise ForecastError(
            f"{name}: {path} is not the file that was met first (SHA-256 {digest[:12]}, not "
            f"{held.files[file.filename][:12]}): fetch it again, or take {file.hub_id} out of "
            f"{_held_path()} to accept it"
        )


def _held_path() -> Path:
    return Path(constants.HF_HUB_CACHE) / HELD


def _read_held() -> dict[str, Any]:
    path = _held_path()
    if not path.is_file():
        return {}
    try:
        known = json.loads(path.read_text())
        for entry in known.values():
            Held(str(entry["revision"]), dict(entry["files"]))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = one_line(f"{type(error).__name__}: {error}", 160)
        raise ForecastError(
            f"{path} does not say which revisions were met first ({reason}): delete it"
        ) from None
    return dict(known)
