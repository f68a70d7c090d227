"""What can be added from outside: records by name, and objects named "package.module:object".

A reward, a cost, a feature and their like are frozen records, each with the function that makes it
what it is. fastsim's own stand in registries, one for each kind; a user's are added to them in code
or, where only text can be given (YAML, the command line, `gymnasium.make`), named by where they can
be imported from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from importlib import import_module
from typing import Any, Generic, Protocol, TypeVar

from fastsim.errors import ConfigError, did_you_mean, one_line


class Named(Protocol):
    """What a registry holds."""

    @property
    def name(self) -> str:
        """What it is found by."""
        ...


Record = TypeVar("Record", bound=Named)


class Registry(Mapping[str, Record], Generic[Record]):
    """Records of one kind by name, in the order in which they were added.

    Parameters
    ----------
    kind
        What they are, for errors: "reward".
    record
        Their class.
    records
        Those that come with fastsim.
    """

    def __init__(self, kind: str, record: type[Record], records: tuple[Record, ...] = ()) -> None:
        self.kind, self.record = kind, record
        self._records: dict[str, Record] = {}
        for own in records:
            self.add(own)

    def add(self, record: Record) -> Record:
        """Let `record` be found by its name; returns it.

        One that was defined at the same place is replaced, as when a notebook's cell runs again.

        Raises
        ------
        ConfigError
            It is of another kind, or a record from elsewhere has its name.
        """
        self._check(record, repr(record))
        known = self._records.get(record.name, record)
        if ":" in record.name or not (known == record or _same_place(known, record)):
            raise ConfigError(
                f"a {self.kind} cannot be called {record.name!r}: "
                f"{'that is how objects are imported' if ':' in record.name else 'one is'}; "
                f"choose another name"
            )
        self._records[record.name] = record
        return record

    def find(self, name: str) -> Record:
        """The record of this name, or the one that "package.module:object" imports.

        Raises
        ------
        ConfigError
            There is no such record, it cannot be imported, or it is of another kind.
        """
        if not isinstance(name, str):
            raise ConfigError(f"a {self.kind} is named by text, got {name!r}")
        if name in self._records:
            return self._records[name]
        if not is_reference(name):
            raise ConfigError(
                f"no {self.kind} is called {name!r}; there are {', '.join(self._records)}, and "
                f'your own as "package.module:object"{did_you_mean(name, self._records)}'
            )
        return self._check(import_object(name, self.kind), name)

    def _check(self, record: Any, name: str) -> Record:
        if not isinstance(record, self.record):
            raise ConfigError(
                f"{name} is not a {self.kind}: it must be a {self.record.__name__}, "
                f"got {type(record).__name__}"
            )
        return record

    def __getitem__(self, name: str) -> Record:
        return self._records[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)


def _same_place(known: Any, record: Any) -> bool:
    """Whether the functions of two records were written in the same places, and there are any."""
    origins = _origins(known)
    return bool(origins) and origins == _origins(record)


def _origins(record: Any) -> set[tuple[str, str]]:
    """Where the functions of a record were written: modules and names within them."""
    values = (getattr(record, entry.name) for entry in fields(record))
    return {
        (getattr(each, "__module__", ""), getattr(each, "__qualname__", ""))
        for each in values
        if callable(each)
    }


def require_known(config: object, name: str, registry: Registry[Any]) -> None:
    """Raise ConfigError unless `config.name` is a name that the registry finds, or all of several.

    A field of several names is a tuple.
    """
    value = getattr(config, name)
    several = isinstance(value, tuple | list)
    try:
        for one in value if several else (value,):
            registry.find(one)
    except ConfigError as error:
        owner = f"{type(config).__name__}.{name}"
        raise ConfigError(f"{owner} must be a known {registry.kind}: {error}") from None


def is_reference(name: object) -> bool:
    """Whether a name says where to import from: "package.module:object"."""
    if not isinstance(name, str):
        return False
    module, colon, attribute = name.partition(":")
    return bool(colon) and all(part.isidentifier() for part in (*module.split("."), attribute))


def import_object(reference: str, kind: str) -> Any:
    """Import what "package.module:object" names; `kind` says in errors what it was to be.

    Raises
    ------
    ConfigError
        The module cannot be imported, or has no such object.
    """
    module, _, attribute = reference.partition(":")
    try:
        found = import_module(module)
    except Exception as error:  # whatever a user's module does when it is imported
        reason = one_line(f"{type(error).__name__}: {error}")
        raise ConfigError(f"{kind} {reference!r}: {module} cannot be imported ({reason})") from None
    if not hasattr(found, attribute):
        raise ConfigError(f"{kind} {reference!r}: {module} has no {attribute!r}")
    return getattr(found, attribute)


def checked(kind: str, record: Named, values: Any, shape: tuple[int, ...]) -> Any:
    """What a record's function returned, if it is a tensor of this shape.

    Raises
    ------
    ConfigError
        It is not: a wrong shape would be spread over others in silence.
    """
    if getattr(values, "shape", None) != shape:
        found = getattr(values, "shape", type(values).__name__)
        raise ConfigError(
            f"{kind} {record.name!r} must return a tensor of shape {tuple(shape)}, got "
            f"{tuple(found) if not isinstance(found, str) else found}"
        )
    return values
