"""What settings are called where they are typed.

Errors call a setting as Python does, `EpisodeConfig.horizon`. A file of YAML calls the same setting
`env.episode.horizon`, the command line `--env.episode.horizon`: every front says its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple, get_args, get_type_hints

Naming = Callable[[str, str], str | None]
"""From a class and the name of a setting in it to what a front calls it; None if it cannot."""
Assigning = Callable[[str, str], str]
"""From what a front calls a setting, and a value, to how it is given there."""

_VALUE = r"""(?:'(?P<single>[^']*)'|"(?P<double>[^"]*)"|(?P<plain>[+-]?\w+(?:\.\d+)?))"""
_DOTTED = r"[a-z_]\w*(?:\.[a-z_]\w*)*"
_OF_OWNER = re.compile(rf"\b(?P<owner>[A-Z]\w+)(?:\.|: )(?P<name>{_DOTTED})(?: ?= ?{_VALUE})?")
_IN_OWNER = re.compile(
    rf"\b(?P<name>[a-z_]\w*)={_VALUE} in (?P<owner>[A-Z]\w+)"
    rf"(?: \((?P<other>[^()]* in [A-Z]\w+)\))?"
)
_KEYWORD = re.compile(rf"(?<![\w.-])(?P<name>[a-z_]\w*)={_VALUE}")
_UNKNOWN = re.compile(r"\b(?P<owner>[A-Z]\w+) has no field\b")


class Place(NamedTuple):
    """Where a class of settings stands in a root."""

    prefix: str  # "env.episode.", or nothing for the root itself
    names: frozenset[str]  # of its settings


def nothing_is_inlined(hint: Any) -> bool:
    """Every class of settings has a name of its own."""
    return False


def places_of(
    root: type[Any], inlined: Callable[[Any], bool] = nothing_is_inlined
) -> dict[str, Place]:
    """Classes of settings by their name, and that of those they extend; the first place counts.

    A field whose annotation is `inlined` gives its settings to whoever holds it.
    """
    found: dict[str, Place] = {}

    def visit(cls: type[Any], prefix: str) -> None:
        place = Place(prefix, frozenset(entry.name for entry in fields(cls)))
        for each in cls.__mro__:
            if is_dataclass(each):
                found.setdefault(each.__name__, place)
        for name, hint in get_type_hints(cls, include_extras=True).items():
            for inner in (hint, *get_args(hint)):
                if is_dataclass(inner) and isinstance(inner, type):
                    visit(inner, prefix if inlined(hint) else f"{prefix}{name}.")

    visit(root, "")
    return found


def as_keys(message: str, root: type[Any]) -> str:
    """The message with settings as keys of a file that configures a `root`."""
    places = places_of(root)

    def holder(found: re.Match[str]) -> str:
        place = places.get(found["owner"])
        return found[0] if place is None else f"{place.prefix.rstrip('.') or 'it'} has no key"

    told = respoken(message, lambda owner, name: dotted(places, owner, name), "{}: {}".format)
    return _UNKNOWN.sub(holder, told)


def dotted(places: dict[str, Place], owner: str, name: str) -> str | None:
    """The whole name of a setting; None if no such class stands anywhere, or it has none."""
    place = places.get(owner)
    if place is None or name.partition(".")[0] not in place.names:
        return None
    return place.prefix + name


def respoken(message: str, naming: Naming, assigning: Assigning) -> str:
    """The message with every setting that a front can name in that front's words.

    A setting stands there as `Owner.name`, `Owner.name = value`, `name=value in Owner`, or as
    `name=value` beside another of its owner. Of `a=b in Owner (c=d in Other)`, which are two ways
    to one end, the one that a front cannot name is left out.
    """

    def of_owner(found: re.Match[str]) -> str:
        name = naming(found["owner"], found["name"])
        return found[0] if name is None else _given(found, name, assigning)

    def in_owner(found: re.Match[str]) -> str:
        name, other = naming(found["owner"], found["name"]), found["other"]
        told = "" if other is None else _IN_OWNER.sub(in_owner, other)
        if name is not None:
            return _given(found, name, assigning) + (f" ({told})" if told else "")
        return found[0] if told in ("", other) else told

    def keyword(found: re.Match[str]) -> str:
        names = (naming(owner, found["name"]) for owner in owners)
        name = next((name for name in names if name is not None), None)
        return found[0] if name is None else _given(found, name, assigning)

    owners = [found["owner"] for found in _OF_OWNER.finditer(message)]
    return _KEYWORD.sub(keyword, _OF_OWNER.sub(of_owner, _IN_OWNER.sub(in_owner, message)))


def _given(found: re.Match[str], name: str, assigning: Assigning) -> str:
    values = (found["single"], found["double"], found["plain"])
    value = next((value for value in values if value is not None), None)
    return name if value is None else assigning(name, value)
