"""Which backend steps an environment, and why not a faster one."""

from __future__ import annotations

import logging
from importlib import import_module
from importlib.util import find_spec
from typing import Literal, get_args

import torch

from fastsim.env.core import EnvParams, EnvState
from fastsim.env.kernels.stepper import Stepper, TorchStepper
from fastsim.errors import ConfigError

Backend = Literal["auto", "torch", "numba", "triton"]

log = logging.getLogger(__name__)


def make_stepper(params: EnvParams, state: EnvState, backend: Backend = "auto") -> Stepper:
    """The backend that was asked for, or the fastest there is for these rules; logs which and why.

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
        backend, reason = _fastest(params)
        log.info("environment steps run on %s%s", backend, reason)
    if backend == "torch":
        return TorchStepper(params, state)
    left_out = _left_out(params)
    if left_out:
        raise ConfigError(f'backend "{backend}" leaves out {left_out}; use backend="torch"')
    if backend == "triton" and find_spec("triton") is None:
        raise ConfigError(
            'backend "triton" needs the package triton, which comes with CUDA builds of torch; '
            'install one, or use backend="auto"'
        )
    # Kernels are imported when they are wanted: numba alone takes half a second.
    stepper: Stepper = import_module(f"fastsim.env.kernels.{backend}_step").make(params, state)
    return stepper


def _fastest(params: EnvParams) -> tuple[Backend, str]:
    tape, left_out = params.tape, _left_out(params)
    if left_out:
        return "torch", f": fused steps leave out {left_out}"
    if tape.device.type not in ("cpu", "cuda"):
        return "torch", f": the market lies on {tape.device}"
    if tape.dtype != torch.float32:
        return "torch", f": the market is {tape.dtype}, fused steps are for float32"
    if tape.device.type == "cpu":
        return "numba", ""
    if find_spec("triton") is None:
        return "torch", ": the package triton, which comes with CUDA builds of torch, is missing"
    return "triton", ""


def _left_out(params: EnvParams) -> str:
    """What the reference does and fused steps do not, if these rules ask for it."""
    config, following = params.config, params.tape.next
    asked = {
        "worlds drawn for each episode": config.randomize.varies,
        "open orders that are carried": config.orders.carries,
        "whole shares": config.orders.whole_shares,
        "margin calls": config.orders.maintenance_margin > 0,
        "commissions by order": params.friction.minimum is not None,
        "assets of which shorts are dear or banned": (
            following.borrow is not None or following.shortable is not None
        ),
        "assets that are paid out when they leave": following.delisted is not None,
    }
    return ", ".join(name for name, wanted in asked.items() if wanted)
