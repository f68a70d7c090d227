"""Frozen dataclasses as configuration: checks of type and range, and YAML in and out.

Every configuration class lives beside the code it configures, is frozen and keyword-only, and
checks itself once, on construction. This file holds what they share.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from functools import cache
from math import isfinite
from numbers import Integral
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Any,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
    overload,
)

import dacite
import yaml

from fastsim.errors import ConfigError, did_you_mean, one_line
from fastsim.settings import as_keys

Config = TypeVar("Config")
BPS = 1e-4
"""A basis point."""


@overload
@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
def configuration(cls: type[Config], /) -> type[Config]: ...


@overload
def configuration(
    *, slots: bool = True, eq: bool = True
) -> Callable[[type[Config]], type[Config]]: ...


def configuration(
    cls: type[Config] | None = None, /, *, slots: bool = True, eq: bool = True
) -> type[Config] | Callable[[type[Config]], type[Config]]:
    """Make a frozen, keyword-only dataclass that checks its counts and flags by their annotations.

    Fields of type `int` and `bool`, of other configurations, of tuples of them, and of any of these
    or None are checked before the class's own `__post_init__`, text and configurations that may be
    None after it: a count is a whole number and no boolean, a flag is a boolean and no number or
    word. NumPy's whole numbers become Python's, and paths text, so that YAML can hold them.

    Raises
    ------
    ConfigError
        When such a class is made: names the field and the value.
    """

    def make(cls: type[Config]) -> type[Config]:
        own = cls.__dict__.get("__post_init__")

        def check(self: Config) -> None:
            _check_types(self, late=False)
            if own is not None:
                own(self)
            _check_types(self, late=True)

        if own is not None or not hasattr(cls, "__post_init__"):
            cls.__post_init__ = check  # type: ignore[attr-defined]
        return dataclass(frozen=True, kw_only=True, slots=slots, eq=eq)(cls)

    return make if cls is None else make(cls)


class _Kind(NamedTuple):
    """What a field that is checked may hold."""

    of: type  # int, bool, str or a configuration
    many: bool  # a tuple of them
    optional: bool  # or None

    @property
    def late(self) -> bool:
        """Whether the class itself may have more to say of it: of text, and of what may be None."""
        return self.of is str or (self.optional and self.of not in _IN_WORDS)

    def __str__(self) -> str:
        one, many = _IN_WORDS.get(self.of, (f"a {self.of.__name__}", f"{self.of.__name__}s"))
        return many if self.many else one


_IN_WORDS = {
    int: ("a whole number", "whole numbers"),
    bool: ("true or false", "each true or false"),
    str: ("text", "a tuple of names"),
}


@cache
def _checked_fields(cls: Any) -> dict[str, _Kind]:
    hints = get_type_hints(cls)
    kinds = {entry.name: _kind(hints[entry.name]) for entry in fields(cls)}
    known = [(name, kind) for name, kind in kinds.items() if kind is not None]
    return dict(sorted(known, key=lambda entry: entry[1].of not in (int, bool)))  # counts first


def _kind(hint: Any) -> _Kind | None:
    """None for what is neither a count, a flag, text nor a configuration."""
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    wanted = [option for option in options if option is not NoneType]
    if len(wanted) != 1:
        return None
    many = get_origin(wanted[0]) is tuple
    parts = set(get_args(wanted[0])) - {Ellipsis} if many else set(wanted)
    part = parts.pop() if len(parts) == 1 else None
    if part not in _IN_WORDS and not (isinstance(part, type) and is_dataclass(part)):
        return None
    return _Kind(part, many, len(options) > 1)


def _check_types(config: Any, *, late: bool) -> None:
    for name, kind in _checked_fields(config.__class__).items():
        given = getattr(config, name)
        if kind.late is not late or (given is None and kind.optional):
            continue
        values = given if kind.many and isinstance(given, tuple | list) else (given,)
        fits = all(_is_a(kind.of, value) for value in values)
        if not fits or (kind.many and values is not given):
            got = f"the text {given!r}" if kind.many and isinstance(given, str) else repr(given)
            raise ConfigError(f"{type(config).__name__}.{name} must be {kind}, got {got}")
        if kind.of not in _IN_WORDS:
            continue
        plain = tuple(os.fspath(value) if kind.of is str else kind.of(value) for value in values)
        object.__setattr__(config, name, plain if kind.many else plain[0])


def _is_a(kind: type, value: object) -> bool:
    flag = isinstance(value, bool)
    if kind not in (int, bool):
        return isinstance(value, (str, os.PathLike) if kind is str else kind)
    return flag if kind is bool else isinstance(value, Integral) and not flag


def require_between(
    config: object, name: str, low: float, high: float = float("inf"), *, open_low: bool = False
) -> None:
    """Raise ConfigError unless `config.name` is a finite number in [low, high] ((low, high])."""
    value = getattr(config, name)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and isfinite(value) and (low < value if open_low else low <= value) and value <= high:
        return
    wanted = f"> {low:g}" if open_low else f">= {low:g}"
    if isfinite(high):
        wanted += f" and <= {high:g}"
    raise ConfigError(f"{type(config).__name__}.{name} must be {wanted}, got {value!r}")


def require_positive(name: str, value: float) -> None:
    """Raise ConfigError unless an argument called `name` is a finite number above zero."""
    if not (isfinite(value) and value > 0):
        raise ConfigError(f"{name} must be > 0, got {value!r}")


def require_count(name: str, value: object) -> None:
    """Raise ConfigError unless an argument called `name` is a whole number of at least one."""
    if not isinstance(value, Integral) or isinstance(value, bool) or int(value) < 1:
        raise ConfigError(f"{name} must be a whole number >= 1, got {value!r}")


def whole_number(name: str, value: object, *, most: int = 2**63 - 1) -> int:
    """An argument called `name`, such as a seed, as an int.

    Raises
    ------
    ConfigError
        It is no whole number from 0 to `most`.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or not 0 <= int(value) <= most:
        upper = "" if most == 2**63 - 1 else f" and <= {most}"
        raise ConfigError(f"{name} must be a whole number >= 0{upper}, got {value!r}")
    return int(value)


def require_choice(config: object, name: str) -> None:
    """Raise ConfigError unless `config.name` is one of the values its `Literal` type lists."""
    value = getattr(config, name)
    choices = get_args(get_type_hints(type(config))[name])
    if value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise ConfigError(f"{type(config).__name__}.{name} must be one of {listed}, got {value!r}")


def to_mapping(config: object) -> dict[str, Any]:
    """Turn a configuration into plain nested dicts, lists and scalars."""
    assert is_dataclass(config) and not isinstance(config, type)

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return str(value) if isinstance(value, Path) else value

    mapping: dict[str, Any] = plain(asdict(config))
    return mapping


def changes(config: object, default: object) -> dict[str, Any]:
    """Values of `config` that `default`, of the same type, has otherwise, by dotted field name."""
    assert is_dataclass(config) and type(config) is type(default)
    found: dict[str, Any] = {}
    for entry in fields(config):
        value, usual = getattr(config, entry.name), getattr(default, entry.name)
        if is_dataclass(value) and type(value) is type(usual):
            inner = changes(value, usual)
            found |= {f"{entry.name}.{name}": item for name, item in inner.items()}
        elif value != usual:
            found[entry.name] = value
    return found


def from_mapping(cls: type[Config], mapping: Mapping[str, Any]) -> Config:
    """Build `cls` from nested plain values; an unknown or ill-typed key raises ConfigError.

    A class that knows its fields under other names too has a class method `respelled`, from plain
    values under any of them to plain values under the names of its fields.
    """
    respelled = getattr(cls, "respelled", dict)
    rules = dacite.Config(strict=True, type_hooks={float: _as_float})
    given_values = _with_tuples(respelled(mapping))
    _check_names(cls, given_values)
    try:
        return dacite.from_dict(cls, given_values, rules)
    except dacite.WrongTypeError as error:
        path = f"{cls.__name__}.{error.field_path}"
        if get_origin(error.field_type) is tuple and not isinstance(error.value, tuple):
            given: Any = mapping  # the error holds what dacite made of it
            for name in (error.field_path or "").split("."):
                given = given[name]
            raise ConfigError(f"{path} must be a list of values, got {given!r}") from None
        kind = _kind(error.field_type)
        if get_origin(error.field_type) is Literal:
            listed = ", ".join(repr(choice) for choice in get_args(error.field_type))
            raise ConfigError(f"{path} must be one of {listed}, got {error.value!r}") from None
        if _is_text(error.field_type):
            given = error.value if isinstance(error.value, tuple) else (error.value,)
            wrong = next(value for value in given if not isinstance(value, str))
            raise ConfigError(
                f"{path} must be text, got {wrong!r}: put it in quotes, as '{wrong}'"
            ) from None
        if kind is None:
            raise ConfigError(f"{cls.__name__}: {error}") from None
        raise ConfigError(f"{path} must be {kind}, got {error.value!r}") from None
    except dacite.DaciteError as error:
        raise ConfigError(f"{cls.__name__}: {error}") from None


def _is_text(hint: Any) -> bool:
    """Whether a field holds text, or a tuple of it, or either or None."""
    options = set(get_args(hint)) if get_origin(hint) in (Union, UnionType) else {hint}
    options -= {NoneType}
    parts = {part for option in options for part in get_args(option) or (option,)}
    return parts - {Ellipsis} == {str}


def _check_names(cls: Any, mapping: Mapping[str, Any]) -> None:
    """Raise ConfigError for a key, at any depth, that no field is called; names the nearest."""
    hints = get_type_hints(cls)
    known = [entry.name for entry in fields(cls) if entry.init]
    for name, value in mapping.items():
        if name not in known:
            raise ConfigError(
                f"{cls.__name__} has no field {name!r}; it has {', '.join(known)}"
                f"{did_you_mean(name, known)}"
            )
        inner = [each for each in (hints[name], *get_args(hints[name])) if is_dataclass(each)]
        if isinstance(value, Mapping) and len(inner) == 1:
            many = isinstance(get_origin(hints[name]), type) and issubclass(
                get_origin(hints[name]), Mapping
            )
            for each in value.values() if many else (value,):
                if isinstance(each, Mapping):
                    _check_names(inner[0], each)


def _as_float(value: Any) -> Any:
    """Let `1` and YAML's `1e-4` (a string to YAML 1.1) stand for floats; leave the rest to fail."""
    if isinstance(value, bool):
        return str(value)
    try:
        return float(value)
    except (TypeError, ValueError):
        return value


def _with_tuples(value: Any) -> Any:
    """Let YAML's lists, at any depth, stand for tuples, as what is frozen holds no list.

    NumPy's whole numbers become Python's.
    """
    if isinstance(value, Mapping):
        return {key: _with_tuples(item) for key, item in value.items()}
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


_NUMBER = r"(?!0\d)[-+]?(\d[\d_]*\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
_NO_TEXT = {
    "bool": ("true|True|false|False", "tTfF"),
    "int": (r"[-+]?(0|[1-9][\d_]*)", "-+0123456789"),
    "float": (_NUMBER, "-+.0123456789"),
    "null": ("~|null|", ("~", "n", "")),
    "merge": ("<<", "<"),
}
"""What stands in YAML without quotes and is no text: its pattern and its first characters."""


class _Plain(yaml.SafeLoader):
    """YAML in which text stays text: ON and NO are no flags, 000001 no number, dates no dates."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (of its base)
        first: [
            (f"tag:yaml.org,2002:{kind}", re.compile(rf"(?:{pattern})$"))
            for kind, (pattern, firsts) in _NO_TEXT.items()
            if first in firsts
        ]
        for first in sorted({first for _, firsts in _NO_TEXT.values() for first in firsts})
    }


class _Quoting(yaml.SafeDumper):
    """Quotes all text that either way of reading YAML would take for something else."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (of its base)
        first: [
            *yaml.SafeDumper.yaml_implicit_resolvers.get(first, []),
            *_Plain.yaml_implicit_resolvers.get(first, []),
        ]
        for first in {*yaml.SafeDumper.yaml_implicit_resolvers, *_Plain.yaml_implicit_resolvers}
    }


def save_yaml(config: object, path: Path) -> None:
    """Write `config` to `path` in one piece: a reader sees the old file or the new one."""
    text = yaml.dump(to_mapping(config), Dumper=_Quoting, sort_keys=False)
    write_whole(path, text.encode())


def load_yaml(cls: type[Config], path: Path) -> Config:
    """Read a configuration of type `cls` from a YAML file, read as by `read_yaml`."""
    names = ", ".join(entry.name for entry in fields(cls))  # type: ignore[arg-type]
    mapping = read_yaml(path, f"keys among {names}")
    try:
        return from_mapping(cls, mapping)
    except ConfigError as error:
        raise ConfigError(f"{path}: {as_keys(str(error), cls)}") from None


def read_yaml(path: Path, keys: str = "names") -> dict[str, Any]:
    """Read a mapping from a YAML file.

    Words are text without quotes too, but for true, false and null: ON and NO are names, as are
    000001 and 2018-01-01.

    Raises
    ------
    ConfigError
        There is no such file, or it is not readable, or no mapping, of which `keys` says more.
    """
    try:
        mapping = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=_Plain)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = one_line(error)
        raise ConfigError(f"{path}: not readable as YAML: {reason}") from None
    if not isinstance(mapping, dict):
        raise ConfigError(f"{path}: expected a mapping with {keys}")
    return mapping


def write_whole(path: Path, content: bytes) -> None:
    """Write bytes beside `path`, flush them to disk, and move them into place atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
