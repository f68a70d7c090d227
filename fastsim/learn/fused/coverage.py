"""Which policies, optimisers and tables the passes by hand know; all else goes through autograd."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from itertools import chain

import torch
from torch import Tensor, nn

from fastsim.capture import records
from fastsim.learn.optimizer import Adam
from fastsim.policy.flat import FlatPolicy
from fastsim.policy.normalize import RunningMoments
from fastsim.policy.policy import Policy, Table

_METHODS = ("forward", "encode", "look_up", "show", "standardized")
_LAYERS = ("market_hidden", "portfolio_hidden", "actor", "critic")
_PLAIN_ADAM = {"weight_decay": 0, "amsgrad": False, "maximize": False}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_GRADIENT_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")


def uncovered(policy: Policy, optimizer: torch.optim.Optimizer, table: Table) -> list[str]:
    """What is asked for and not known here, in words; nothing if the passes by hand may be taken.

    They are those of `on_device`, where steps are recorded, or those for a CPU. An encoder of bars
    may be any module, as it goes through autograd.
    """
    named = dict(policy.named_parameters())  # to look for them takes longer than what follows
    numbers = [*named.values(), table.rows]
    place = _not_on_cpu(numbers)
    if on_device(table):
        place = _of_device([*named.values(), *policy.buffers()], optimizer, table)
    found = _of_policy(policy, named), _of_types(numbers), place, _of_optimizer(optimizer, named)
    return [*chain(*found)]


def uncovered_policy(policy: Policy, table: Table) -> list[str]:
    """The same of one that only acts, which is known on a CPU alone."""
    named = dict(policy.named_parameters())
    numbers = [*named.values(), table.rows]
    return [*chain(_of_policy(policy, named), _of_types(numbers), _not_on_cpu(numbers))]


def on_device(table: Table) -> bool:
    """Whether steps are recorded where the table lies, so that nothing is read from there."""
    return records(table.rows.device)


def has_own_encoder(policy: FlatPolicy) -> bool:
    """Whether its encoder of bars is the one that is known by hand: a layer, and its tanh."""
    encoder = policy.market_encoder
    if type(encoder) is not nn.Sequential or len(encoder) != 2 or _hooked(encoder):
        return False
    layer, activation = encoder
    if type(layer) is not nn.Linear or type(activation) is not nn.Tanh:
        return False
    return layer.bias is not None and not any(map(_hooked, encoder))


def _of_policy(policy: Policy, named: dict[str, nn.Parameter]) -> Iterator[str]:
    if not isinstance(policy, FlatPolicy):
        yield f'PolicyConfig.encoder = "{policy.spec.network.encoder}"'
        return
    for name in _METHODS:
        if getattr(type(policy), name) is not getattr(FlatPolicy, name) or name in vars(policy):
            yield f"a {name} of the policy's own"
    for name in _LAYERS:
        layer = getattr(policy, name, None)
        if type(layer) is not nn.Linear:
            yield f"{name} that is no plain linear layer"
        elif (layer.bias is None) != (name == "portfolio_hidden"):
            yield f"{name} with{'out' if layer.bias is None else ''} a bias"
    if type(policy.portfolio_moments) is not RunningMoments:
        yield "moments of the portfolio of another kind"
    known = {f"{layer}.{part}" for layer in _LAYERS for part in ("weight", "bias")} | {"log_std"}
    for name, parameter in named.items():
        if name not in known and not name.startswith("market_encoder."):
            yield f"a parameter {name}"
        if any(getattr(parameter, hooks, None) for hooks in _GRADIENT_HOOKS):
            yield f"hooks on {name}"
    if any(map(_hooked, (policy, *(getattr(policy, name) for name in _LAYERS)))):
        yield "hooks on a layer"


def _of_optimizer(
    optimizer: torch.optim.Optimizer, named: dict[str, nn.Parameter]
) -> Iterator[str]:
    groups = optimizer.param_groups
    if type(optimizer) not in (Adam, torch.optim.Adam) or len(groups) != 1:
        yield "an optimiser that is not one Adam"
        return
    for name, plain in _PLAIN_ADAM.items():
        if groups[0].get(name, plain) != plain:
            yield f"Adam's {name} = {groups[0][name]}"
    if [*map(id, groups[0]["params"])] != [*map(id, named.values())]:
        yield "an optimiser of other parameters than the policy's"
    elif any(each not in optimizer.state for each in named.values()):
        yield "an optimiser that has not begun"


def _of_types(numbers: list[Tensor]) -> Iterator[str]:
    for wanted in sorted({str(each.dtype) for each in numbers} - {"torch.float32"}):
        yield f"numbers of type {wanted}"


def _not_on_cpu(numbers: list[Tensor]) -> Iterator[str]:
    for device in {each.device for each in numbers}:
        if device.type != "cpu" or records(device):
            yield f"tensors on {device}" + (", where steps are recorded" if records(device) else "")


def _of_device(own: list[Tensor], optimizer: torch.optim.Optimizer, table: Table) -> Iterator[str]:
    if find_spec("triton") is None:
        yield f"tensors on {table.rows.device} without the package triton"
    for device in {each.device for each in own} - {table.rows.device}:
        yield f"tensors on {device}, and others on {table.rows.device}"
    if any(not each.is_contiguous() for each in (*own, table.rows)):
        yield "tensors with gaps"
    states = [optimizer.state[each] for each in own if each in optimizer.state]
    kept = [optimizer.param_groups[0]["lr"], *(each for state in states for each in state.values())]
    if any(not isinstance(each, Tensor) or each.device != table.rows.device for each in kept):
        yield "an optimiser whose rate or steps are elsewhere"


def _hooked(module: nn.Module) -> bool:
    return any(getattr(module, hooks) for hooks in _HOOKS)
