"""Steps of Adam whose learning rate stays on the device."""

from __future__ import annotations

import math
from collections.abc import Iterable
from inspect import unwrap

import torch
from torch import Tensor, nn

from fastsim.capture import records


class Adam(torch.optim.Adam):
    """PyTorch's, whose methods here do not import its compiler: that takes seconds of every run."""

    add_param_group = unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = unwrap(torch.optim.Optimizer.zero_grad)
    state_dict = unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = unwrap(torch.optim.Optimizer.load_state_dict)


def adam(
    parameters: Iterable[nn.Parameter], rate: float, *, betas: tuple[float, float] = (0.9, 0.999)
) -> torch.optim.Adam:
    """Adam, in one kernel for all parameters; its steps can be recorded where there are graphs."""
    listed = list(parameters)
    device = listed[0].device
    optimizer = Adam(
        listed,
        lr=torch.tensor(rate, device=device),
        betas=betas,
        eps=1e-5,
        fused=True,
        capturable=records(device),
    )
    optimizer.register_load_state_dict_post_hook(_capturable_again)
    # PyTorch would warn of steps that run as they are: warm-ups and runs without graphs do.
    optimizer._warned_capturable_if_run_uncaptured = True
    return optimizer


def _capturable_again(optimizer: torch.optim.Optimizer) -> None:
    """Let it be recorded after loading, too: what was saved elsewhere says what held there."""
    for group in optimizer.param_groups:
        group["capturable"] = records(group["params"][0].device)


def descend(optimizer: torch.optim.Adam, loss: Tensor, max_grad_norm: float = math.inf) -> Tensor:
    """Take one step down the gradient of `loss` [], cut to a norm; returns the norm [] it had."""
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    optimizer.zero_grad()
    loss.backward(inputs=parameters)  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(parameters, max_grad_norm)
    optimizer.step()
    return norm.detach()


def set_rate(optimizer: torch.optim.Adam, rate: float) -> None:
    """Let its next steps be of this learning rate."""
    for group in optimizer.param_groups:
        group["lr"].fill_(rate)


def falling(rate: float, schedule: str, done: float) -> float:
    """Learning rate after a share `done` in [0, 1] of the run: "constant", "linear", "cosine"."""
    if schedule == "linear":
        return rate * (1.0 - done)
    if schedule == "cosine":
        return rate * 0.5 * (1.0 + math.cos(math.pi * done))
    return rate


@torch.no_grad()
def follow(target: nn.Module, source: nn.Module, share: float) -> None:
    """Move the parameters of `target` a share of the way to those of `source` (Polyak averages)."""
    for slow, fast in zip(target.parameters(), source.parameters(), strict=True):
        slow.lerp_(fast, share)
