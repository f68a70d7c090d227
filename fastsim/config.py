"""Frozen dataclasses as configuration: range checks, and YAML in and out.

Every configuration class lives beside the code it configures, is frozen and keyword-only, and
checks itself once, on construction. This file holds what they share.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from math import isfinite
from numbers import Integral
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import dacite
import yaml

from fastsim.errors import ConfigError

Config = TypeVar("Config")
BPS = 1e-4
"""A basis point."""


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
    for field in fields(config):
        value, usual = getattr(config, field.name), getattr(default, field.name)
        if is_dataclass(value) and type(value) is type(usual):
            inner = changes(value, usual)
            found |= {f"{field.name}.{name}": item for name, item in inner.items()}
        elif value != usual:
            found[field.name] = value
    return found


def from_mapping(cls: type[Config], mapping: Mapping[str, Any]) -> Config:
    """Build `cls` from nested plain values; an unknown or ill-typed key raises ConfigError."""
    rules = dacite.Config(strict=True, type_hooks={float: _as_float})
    try:
        return dacite.from_dict(cls, _with_tuples(mapping), rules)
    except dacite.DaciteError as error:
        raise ConfigError(f"{cls.__name__}: {error}") from None


def _as_float(value: Any) -> Any:
    """Let `1` and YAML's `1e-4` (a string to YAML 1.1) stand for floats; leave the rest to fail."""
    if isinstance(value, bool):
        return str(value)
    try:
        return float(value)
    except (TypeError, ValueError):
        return value


def _with_tuples(value: Any) -> Any:
    """Let YAML's lists, at any depth, stand for tuples: what is frozen holds no list."""
    if isinstance(value, Mapping):
        return {key: _with_tuples(item) for key, item in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def save_yaml(config: object, path: Path) -> None:
    """Write `config` to `path` in one piece: a reader sees the old file or the new one."""
    text = yaml.safe_dump(to_mapping(config), sort_keys=False)
    write_whole(path, text.encode())


def load_yaml(cls: type[Config], path: Path) -> Config:
    """Read a configuration of type `cls` from a YAML file."""
    try:
        mapping = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path}: not readable as YAML: {reason}") from None
    if not isinstance(mapping, dict):
        names = ", ".join(field.name for field in fields(cls))  # type: ignore[arg-type]
        raise ConfigError(f"{path}: expected a mapping with keys among {names}")
    try:
        return from_mapping(cls, mapping)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


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
