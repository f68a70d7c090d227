"""Linear layers in int8, for CPUs: a quarter of the weights, and faster products.

Weights are rounded once to 255 steps for each output, inputs at every call to 255 steps for each
row (LLM.int8, Dettmers et al. 2022, arXiv 2208.07339, section 2.1, without its outliers). A scale
of the row's own, unlike one for the whole batch, keeps a row's forecast apart from its neighbours'.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from fastsim.errors import ForecastError
from fastsim.forecast.interface import ForecastModel, Looping

STEPS = 127
"""Largest whole number that a weight or an input becomes, and the least its negative."""
_TINY = 1e-30
FACTOR = "factor"
"""What a linear layer of a model's own class multiplies all that it gives by."""


class Int8Linear(nn.Module):
    """A linear layer whose product is of whole numbers; the rest, its bias too, is float32."""

    whole: Tensor  # [out, in]  int8
    scale: Tensor  # [out]  what a step of the weights is worth
    bias: Tensor | None  # [out]

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.factor = float(getattr(layer, FACTOR, 1.0))
        weight = layer.weight.detach().float()
        scale = weight.abs().amax(1).clamp_min(_TINY) / STEPS
        self.register_buffer("whole", (weight / scale[:, None]).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().float())

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., in] to [..., out], float32."""
        rows = x.reshape(-1, x.shape[-1])
        step = rows.abs().amax(-1, keepdim=True).clamp_min(_TINY) / STEPS  # [rows, 1]
        product = torch._int_mm((rows / step).round().to(torch.int8), self.whole.t())
        out = product.to(torch.float32) * step * self.scale
        if self.bias is not None:
            out = out + self.bias
        if self.factor != 1.0:
            out = out * self.factor
        return out.reshape([*x.shape[:-1], out.shape[-1]])


def quantised(model: ForecastModel) -> ForecastModel:
    """A float32 copy of the model on the CPU with its linear layers in int8.

    Those are of torch's own class, or of one that scales what it gives by its `factor`; layers of
    other classes stay as they are.

    Raises
    ------
    ForecastError
        It has none, or has a loop that is compiled.
    """
    if any(isinstance(part, Looping) for part in model.modules()):
        raise ForecastError(
            f"{model.card.name} cannot be exported in int8: it draws its paths in a loop that is "
            f"compiled, which layers in int8 are not; use float16"
        )
    copied = copy.deepcopy(model).to(device="cpu", dtype=torch.float32).eval()
    places = [
        (parent, name, layer)
        for parent in copied.modules()
        for name, layer in parent.named_children()
        if type(layer) is nn.Linear or (isinstance(layer, nn.Linear) and hasattr(layer, FACTOR))
    ]
    if not places:
        raise ForecastError(
            f"{model.card.name} cannot be exported in int8: no layer to quantise; use float16"
        )
    for parent, name, layer in places:
        setattr(parent, name, Int8Linear(layer))
    return copied
