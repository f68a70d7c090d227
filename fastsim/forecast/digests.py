"""Digests of what forecasters are made of: plain settings, and weights."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, is_dataclass

import torch
from torch import nn

import fastsim

OWN_CODE = f"fastsim-{fastsim.__version__}"
"""The implementation of every forecaster whose code is here."""


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
