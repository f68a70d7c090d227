"""A policy's folder: what it was made for and its weights, in two files that are whole or absent.

Loading needs nothing else, no data, no forecasts and no environment, and runs no code of the files.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fastsim.config import to_mapping, write_whole
from fastsim.errors import CheckpointError, one_line
from fastsim.policy.make import policy_with
from fastsim.policy.policy import Policy
from fastsim.policy.spec import PolicySpec, read_spec

FORMAT = 1
SPEC, WEIGHTS = "spec.json", "weights.safetensors"


def save_policy(policy: Policy, folder: Path) -> None:
    """Write what the policy was made for, and its weights with their moments, into `folder`."""
    mapping = {"format": FORMAT, **to_mapping(policy.spec)}
    text = json.dumps(mapping, indent=2).encode()
    tensors = {name: value.contiguous().cpu() for name, value in policy.state_dict().items()}
    write_whole(folder / WEIGHTS, save(tensors, metadata={SPEC: _digest(text)}))
    write_whole(folder / SPEC, text)


def load_policy(folder: Path, device: torch.device | str = "cpu") -> Policy:
    """The policy that `save_policy` wrote.

    Raises
    ------
    CheckpointError
        A file is missing, damaged, of another format, or not of this policy.
    """
    spec, digest = _read_spec(folder / SPEC)
    weights = _read_weights(folder / WEIGHTS, digest, device)
    try:
        return policy_with(spec, weights)
    except RuntimeError as error:
        reason = one_line(error, 300)
        raise CheckpointError(f"{folder / WEIGHTS}: does not fit its {SPEC} ({reason})") from None


def _read_spec(path: Path) -> tuple[PolicySpec, str]:
    """The spec, and the digest of its file."""
    try:
        text = path.read_bytes()
        mapping = json.loads(text)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no policy here; train first, or name another") from None
    except (OSError, ValueError, RecursionError) as error:
        reason = one_line(error)
        raise CheckpointError(f"{path}: damaged, or no policy's ({reason})") from None
    found = mapping.pop("format", None) if isinstance(mapping, dict) else None
    if found != FORMAT:
        raise CheckpointError(f"{path}: no spec of format {FORMAT}, but of {found!r}")
    return read_spec(mapping, path), _digest(text)


def _read_weights(path: Path, digest: str, device: torch.device | str) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            metadata = file.metadata() or {}
            # Copies: products of what lies unaligned in a file differ in their last bits.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no weights here, beside {SPEC}") from None
    except (SafetensorError, OSError) as error:
        reason = one_line(error)
        raise CheckpointError(f"{path}: damaged, or no weights ({reason})") from None
    if metadata.get(SPEC) != digest:
        raise CheckpointError(f"{path}: belongs to another {SPEC} than the one beside it")
    return tensors


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()
