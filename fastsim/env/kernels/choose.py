"""Which backend steps an environment, and why not a faster one."""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Literal, get_args

import torch

from fastsim.env.core import EnvState, World
from fastsim.env.kernels.stepper import Stepper, TorchStepper
from fastsim.errors import ConfigError

Backend = Literal["auto", "torch", "numba"]

log = logging.getLogger(__name__)


def make_stepper(world: World, state: EnvState, backend: Backend = "auto") -> Stepper:
    """The backend that was asked for, or the fastest there is for this world; logs which and why.

    Raises
    ------
    ConfigError
        There is no such backend, or it cannot step this world.
    """
    names = get_args(Backend)
    if backend not in names:
        listed = ", ".join(f'"{name}"' for name in names)
        raise ConfigError(f"backend must be one of {listed}, got {backend!r}")
    if backend == "auto":
        backend, reason = _fastest(world)
        log.info("environment steps run on %s%s", backend, reason)
    if backend == "torch":
        return TorchStepper(world, state)
    # Kernels are imported when they are wanted: numba alone takes half a second.
    stepper: Stepper = import_module(f"fastsim.env.kernels.{backend}_step").make(world, state)
    return stepper


def _fastest(world: World) -> tuple[Backend, str]:
    tape = world.tape
    if tape.device.type != "cpu":
        return "torch", f": the market lies on {tape.device}"
    if tape.dtype != torch.float32:
        return "torch", f": the market is {tape.dtype}, fused steps are for float32"
    return "numba", ""
