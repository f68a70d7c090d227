"""A policy as one file that needs neither fastsim nor Python: an observation in, weights out."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

import fastsim
from fastsim.config import to_mapping, write_whole
from fastsim.env.actions import ACTIONS
from fastsim.env.observe import feature_columns
from fastsim.errors import ConfigError, ForecastError
from fastsim.forecast.artifacts.formats import Format, open_program, pack
from fastsim.market.features import FEATURE_LIMIT
from fastsim.policy.flat import FlatPolicy
from fastsim.policy.normalize import OBSERVATION_LIMIT
from fastsim.policy.policy import Policy

MOST_APART = 1e-6
"""What weights of the file may differ by from the policy's."""
GATE_BATCHES = (1, 2, 7, 33)


class PolicyProgram(nn.Module):
    """The actor alone, frozen: observations [N, A F + P], as `flat` rows are, to weights [N, A]."""

    market_mean: Tensor
    market_std: Tensor
    own_mean: Tensor
    own_std: Tensor

    def __init__(self, policy: FlatPolicy) -> None:
        super().__init__()
        spec, width = policy.spec, policy.spec.network.hidden
        self.split = len(spec.symbols) * len(spec.features)
        self.size = len(policy.market_moments.mean)
        self.max_gross, self.mode = spec.max_gross, ACTIONS.find(spec.action)
        market, own = (
            m.scale(torch.float32) for m in (policy.market_moments, policy.portfolio_moments)
        )
        for name, moments in (("market", market), ("own", own)):
            self.register_buffer(f"{name}_mean", moments.mean.clone())
            self.register_buffer(f"{name}_std", moments.std.clone())
        self.model = nn.ModuleDict(
            {
                "encoder": policy.market_encoder,
                "market": _part(policy.market_hidden, width),
                "own": _part(policy.portfolio_hidden, width),
                "actor": policy.actor,
            }
        )

    def forward(self, *inputs: Tensor) -> Tensor:
        """Target weights [N, A] for one batch of observations."""
        (seen,) = inputs
        market = seen[:, : self.split].reshape(-1, self.split // self.size, self.size)
        market = _bounded((market - self.market_mean) / self.market_std).flatten(1)
        own = _bounded((seen[:, self.split :] - self.own_mean) / self.own_std)
        hidden = self.model["market"](self.model["encoder"](market)) + self.model["own"](own)
        action = self.model["actor"](torch.tanh(hidden))
        return self.mode.weights(action, self.max_gross, None)


def export_policy(policy: Policy, path: Path, *, format: Format = "torchscript") -> float:
    """Write the policy as TorchScript or ONNX, if it decides there as it does here.

    Returns the largest difference of a weight, over random observations in batches of several
    sizes. The file's metadata name the columns of the observation and the symbols of the weights.

    Raises
    ------
    ConfigError
        The policy's network is one of its own kind, or it asks for more than weights.
    ForecastError
        The format cannot hold it, or the weights differ by more than `MOST_APART`.
    """
    if policy.spec.by_asset:
        raise ConfigError(
            f'a policy of PolicyConfig.encoder = "{policy.spec.network.encoder}" cannot be '
            f'exported as a file, only one of "mlp"'
        )
    if type(policy) is not FlatPolicy:
        raise ConfigError(f"a {type(policy).__name__} cannot be exported, only a FlatPolicy")
    if ACTIONS.find(policy.spec.action).brackets:
        raise ConfigError(
            f"a policy whose action is {policy.spec.action!r} asks for distances of stops and "
            f"targets, and a file says weights alone: export one that learned by another action"
        )
    spec, program = policy.spec, PolicyProgram(policy).eval().requires_grad_(False)
    metadata = {
        "model": {"name": "policy"},
        "fastsim": fastsim.__version__,
        "observation": [*feature_columns(spec.symbols, spec.features), *spec.portfolio],
        "spec": to_mapping(spec),
    }
    batches = [_observations(policy, rows) for rows in GATE_BATCHES]
    content = pack(program, (batches[2],), metadata, format)
    found, _ = open_program(content, format, path, torch.device("cpu"))
    mode = ACTIONS.find(spec.action)
    apart = 0.0
    with torch.no_grad():
        for seen in batches:
            wanted = mode.weights(_actions(policy, seen), spec.max_gross, None)
            apart = max(apart, float((found(seen) - wanted).abs().max()))
    if not apart <= MOST_APART:
        raise ForecastError(
            f"{path}: weights of the {format} file are off by {apart:.2g}, more than "
            f"{MOST_APART:g}: it is not written"
        )
    write_whole(path, content)
    return apart


def _actions(policy: FlatPolicy, seen: Tensor) -> Tensor:
    """What the policy itself says to flat observations."""
    spec = policy.spec
    split = len(spec.symbols) * len(spec.features)
    features = seen[:, :split].view(len(seen), len(spec.symbols), len(spec.features))
    market = policy.encode(policy.standardized(features))
    actions: Tensor = policy(market, seen[:, split:]).mean
    return actions


def _observations(policy: FlatPolicy, rows: int) -> Tensor:
    """Random observations [rows, A F + P], some of them beyond the bounds of any."""
    spec = policy.spec
    width = len(spec.symbols) * len(spec.features) + len(spec.portfolio)
    generator = torch.Generator().manual_seed(rows)
    drawn = 2.0 * torch.randn(rows, width, generator=generator)
    drawn[-1] *= FEATURE_LIMIT
    return drawn


def _part(layer: nn.Linear, width: int) -> nn.Linear:
    """The first `width` outputs of a layer: those of the actor."""
    part = nn.Linear(layer.in_features, width, bias=layer.bias is not None)
    part.weight.data = layer.weight.data[:width].clone()
    if layer.bias is not None:
        part.bias.data = layer.bias.data[:width].clone()
    return part


def _bounded(values: Tensor) -> Tensor:
    return values.clamp(-OBSERVATION_LIMIT, OBSERVATION_LIMIT)
