"""Which backend steps an environment, and why not a faster one."""

from __future__ import annotations

import logging
from importlib import import_module
from importlib.util import find_spec
from typing import Literal, get_args

import torch

from fastsim.env.kernels.buffers import Results
from fastsim.env.kernels.coverage import COVERAGE, uncovered
from fastsim.env.kernels.stepper import Stepper, TorchStepper
from fastsim.env.state import EnvParams, EnvState
from fastsim.env.window_tables import TorchWindows, Windows
from fastsim.errors import ConfigError

Backend = Literal["auto", "torch", "numba", "triton"]
Room = Results
"""Blocks that steps write into."""

log = logging.getLogger(__name__)


def make_stepper(
    params: EnvParams, state: EnvState, backend: Backend = "auto", *, single_orders: bool = False
) -> Stepper:
    """The backend that was asked for, or the fastest there is for these rules; logs which and why.

    It keeps single orders if asked to: `Outcome.trade` and `Outcome.holdings`.

    Raises
    ------
    ConfigError
        There is no such backend, or it cannot step by these rules.
    """
    names = get_args(Backend)
    if backend not in names:
        listed = ", ".join(f'"{name}"' for name in names)
        raise ConfigError(f"backend must be one of {listed}, got {backend!r}")
    if backend == "auto":
        backend, reason = _fastest(params, state)
        log.info("environment steps run on %s%s", backend, reason)
    if backend == "torch":
        return TorchStepper(params, state)
    missing = uncovered(params, state, COVERAGE[backend])
    if missing:
        raise ConfigError(
            f'backend "{backend}" does not cover {", ".join(missing)}; use backend="torch"'
        )
    if backend == "triton" and find_spec("triton") is None:
        raise ConfigError(
            'backend "triton" needs the package triton, which comes with CUDA builds of torch; '
            'install one, or use backend="auto"'
        )
    # Kernels are imported when they are wanted: numba alone takes half a second.
    kernels = import_module(f"fastsim.env.kernels.{backend}_step")
    stepper: Stepper = kernels.make(params, state, single_orders=single_orders)
    return stepper


def make_windows(params: EnvParams, backend: Backend = "auto") -> Windows | None:
    """Who lays windows out from tables; None where the reference does, or there are no windows.

    Tables are float64, which not every device has.
    """
    tape, config = params.tape, params.config
    device = tape.device.type
    if config.observation != "window" or backend == "torch" or device not in ("cpu", "cuda"):
        return None
    if device == "cuda" or tape.dtype == torch.bfloat16:
        return TorchWindows(tape, config)
    made: Windows = import_module("fastsim.env.kernels.numba_window").NumbaWindows(tape, config)
    return made


def _fastest(params: EnvParams, state: EnvState) -> tuple[Backend, str]:
    tape = params.tape
    if tape.device.type not in ("cpu", "cuda"):
        return "torch", f": the market lies on {tape.device}"
    fused: Backend = "numba" if tape.device.type == "cpu" else "triton"
    missing = uncovered(params, state, COVERAGE[fused])
    if missing:
        return "torch", f': backend "{fused}" does not cover {", ".join(missing)}'
    if tape.dtype != torch.float32:
        return "torch", f": the market is {tape.dtype}, fused steps are for float32"
    if fused == "triton" and find_spec("triton") is None:
        return "torch", ": the package triton, which comes with CUDA builds of torch, is missing"
    return fused, ""
