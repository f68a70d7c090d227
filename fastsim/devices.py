"""Which device a name means."""

from __future__ import annotations

import torch

from fastsim.errors import ConfigError


def resolve_device(name: str | torch.device) -> torch.device:
    """The device called "cpu", "cuda", "cuda:1" and so on; "auto" is a GPU where there is one.

    Raises
    ------
    ConfigError
        There is no such device, or CUDA is asked for and PyTorch finds no GPU.
    """
    available = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if available else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise ConfigError(f'there is no device {name!r}; use "cpu" or "cuda"') from None
    if device.type == "cuda" and not available:
        raise ConfigError(
            f'device {str(name)!r} was asked for, but PyTorch finds no GPU; use "cpu"'
        )
    if device.type != "cpu":
        _check_there(device)
    return device


def _check_there(device: torch.device) -> None:
    """Raise ConfigError unless a number can be put on this device and read back."""
    try:
        float(torch.zeros((), device=device))
    except Exception as error:  # what a backend of torch raises is its own affair
        reason = str(error).partition(". ")[0].partition("\n")[0]
        raise ConfigError(
            f'device {str(device)!r} cannot be used: {reason}; use "cpu" or "cuda"'
        ) from None
