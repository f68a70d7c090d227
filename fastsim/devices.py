"""Which device a name means, and whether its memory was too small."""

from __future__ import annotations

import torch

from fastsim.errors import ConfigError, one_line

_NO_MEMORY = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""How allocators and compiled programs, TorchScript's among them, say it in a RuntimeError."""


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


def device_name(device: torch.device) -> str:
    """Its type, with make and model where it is a GPU."""
    if device.type != "cuda":
        return device.type
    return f"{device.type} ({torch.cuda.get_device_name(device)})"


def memory_shortage(error: BaseException) -> str | None:
    """What an error says of memory that was too small; None if it is about anything else."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return one_line(str(error).partition(". GPU ")[0] or "out of memory", 160)
    if not isinstance(error, RuntimeError):
        return None
    lines = [line for line in str(error).splitlines() if any(word in line for word in _NO_MEMORY)]
    return one_line(lines[-1], 160) if lines else None


def _check_there(device: torch.device) -> None:
    """Raise ConfigError unless a number can be put on this device and read back."""
    try:
        float(torch.zeros((), device=device))
    except Exception as error:  # what a backend of torch raises is its own affair
        reason = str(error).partition(". ")[0].partition("\n")[0]
        raise ConfigError(
            f'device {str(device)!r} cannot be used: {reason}; use "cpu" or "cuda"'
        ) from None
