"""What a forecaster is, as one frozen record: equal records, and they alone, have equal keys."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

import fastsim

if TYPE_CHECKING:
    from fastsim.forecast.interface import ModelCard

OWN_CODE = f"fastsim-{fastsim.__version__}"
"""The implementation of every forecaster whose code is here."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """All that a forecast depends on beside its context and horizon, whatever the device.

    The key is a hash of the whole record, so a field that is added is part of it at once.
    """

    card: ModelCard
    revision: str = ""
    """Of the weights, as those who publish them call it."""
    weights: str = ""
    """Digest of the weights or of the file that they are in; empty where there are none."""
    precision: str = "float32"
    implementation: str = OWN_CODE
    """Whose code runs, and which version of it."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What else its maker can choose: plain values, and dataclasses of them, by name."""

    @functools.cached_property
    def key(self) -> str:
        """Name, revision and precision in words, and the hash of the whole record."""
        name = f"{self.card.name}@{self.revision}" if self.revision else self.card.name
        return f"{name}/{self.precision}#{digest_of(asdict(self))}"


def digest_of(values: object) -> str:
    """Hash of plain values, and of dataclasses of them, in 16 hexadecimal digits."""
    text = json.dumps(values, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def fingerprint(module: nn.Module) -> str:
    """SHA-256 of every weight and buffer of `module`, in hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return {type(value).__qualname__: asdict(value)}
    raise TypeError(f"a setting must be a plain value or a dataclass of them, got {value!r}")
