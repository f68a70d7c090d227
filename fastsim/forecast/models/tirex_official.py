"""TiRex by its official package, `tirex-ts`: the same network in its makers' code.

The package runs on its PyTorch kernels, with one setting of its own changed: the recurrence is in
float32, as the parameters are. In the bfloat16 that the package casts it to, a row's forecast
depends on the rows beside it, and no table of forecasts could be trusted.
"""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastsim.errors import ForecastError, one_line
from fastsim.forecast.interface import ForecastModel
from fastsim.forecast.models.tirex import CARD, CHECKPOINT
from fastsim.forecast.weights import find_weights, require_parameters


class OfficialTiRex(ForecastModel):
    """The package's network behind our interface."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.implementation = f"tirex-ts-{version('tirex-ts')}"
        for block in network.blocks:
            cell = block.slstm_layer.slstm_cell
            cell._impl_torch = _Float32Cell(cell)
        config = network.config
        self.card = replace(
            CARD,
            parameters=sum(weight.numel() for weight in network.parameters()),
            max_context=config.train_ctx_len,
            max_horizon=config.train_ctx_len,
            levels=tuple(config.quantiles),
        )

    def settings(self) -> dict[str, Any]:
        """What the checkpoint says of the network."""
        return asdict(self.network.config)

    def forward(self, *inputs: Tensor, horizon: int) -> Tensor:
        """Quantiles [B, horizon, Q] of closes [B, L], NaN where missing.

        Raises
        ------
        ForecastError
            The parameters are not float32, or the model is being exported.
        """
        if torch.jit.is_tracing() or torch.compiler.is_compiling():  # type: ignore[attr-defined, no-untyped-call]
            raise ForecastError(
                f"{CARD.name} of its package cannot be exported: export fastsim's, the default"
            )
        dtype = next(self.parameters()).dtype
        if dtype != torch.float32:
            raise ForecastError(f"{CARD.name} of its package runs in float32 alone, not in {dtype}")
        place = str(inputs[0].device)
        quantiles: Tensor = self.network._forecast_quantiles(
            inputs[0].float(), prediction_length=horizon, output_device=place
        )[0]
        return quantiles


class _Float32Cell:
    """The package's recurrence with its inputs, state and kernel as they are, in float32."""

    def __init__(self, cell: Any) -> None:
        self.cell = cell

    def __call__(self, inputs: Tensor, state: Tensor) -> Any:
        cell = self.cell
        gates = cell._bias_.reshape(cell.config.num_heads, cell.config.num_gates, -1)
        bias = gates.transpose(0, 1).reshape(-1)
        flat = inputs.reshape(*inputs.shape[:2], -1)
        return cell._impl_forward_torch(flat, state, cell._recurrent_kernel_, bias)


def load_official_tirex(
    path: str | Path | None = None, revision: str | None = None
) -> OfficialTiRex:
    """TiRex with its official weights in its official package; as `load_tirex` otherwise.

    Raises
    ------
    ForecastError
        The package or the file cannot be had, or the file is damaged or holds another network.
    """
    model = read_official(
        find_weights(
            CARD.name, CHECKPOINT, hub_id=CARD.hub_id, revision=revision or CARD.revision, path=path
        )
    )
    require_parameters(CARD.name, model, CARD.parameters)
    return model


def read_official(path: Path) -> OfficialTiRex:
    """The network of whatever size that a checkpoint holds; ForecastError as its loader."""
    try:
        package = import_module("tirex.models.tirex")
    except ImportError as error:
        raise ForecastError(
            f"tirex-ts is not installed ({error.name} is missing): pip install 'fastsim-rl[tirex]'"
        ) from None
    try:
        with redirect_stdout(io.StringIO()):  # it says where the weights come from
            network = package.TiRexZero.from_pretrained(str(path), backend="torch", device="cpu")
        return OfficialTiRex(network).eval()
    except Exception as error:  # what the package raises depends on the damage
        reason = one_line(error, 160)
        raise ForecastError(
            f"{CARD.name}: {path} is damaged or not this architecture "
            f"({type(error).__name__}: {reason})"
        ) from None
