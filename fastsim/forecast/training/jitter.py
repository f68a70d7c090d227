"""Windows of bars with returns that are not quite those that were."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from fastsim.forecast.interface import Context
from fastsim.forecast.returns import returns_with_gaps
from fastsim.forecast.season.divide import rebuilt
from fastsim.forecast.training.config import JitterConfig
from fastsim.forecast.training.windows import Source, Windows


class Jittered:
    """Windows of another source, each changed as `JitterConfig` says."""

    def __init__(self, source: Source, config: JitterConfig) -> None:
        self.source, self.config = source, config

    def draw(self, count: int, generator: Generator) -> Windows:
        """Those of the source, changed."""
        windows = self.source.draw(count, generator)
        scale, amplitude = torch.randn(2, count, generator=generator, dtype=torch.float64)
        return jittered(windows, self.config.scale * scale, self.config.amplitude * amplitude)


@torch.no_grad()
def jittered(windows: Windows, scale: Tensor, amplitude: Tensor) -> Windows:
    """Windows whose log returns are multiplied.

    Parameters
    ----------
    scale
        Logarithm of the factor of all returns of each window [B].
    amplitude
        What is added to it at the oldest bar [B], on a line that ends with nothing at the latest.
    """
    bars = windows.context.bars.double()
    length = bars.shape[1]
    gaps = returns_with_gaps(windows.context.close.double(), torch.arange(length))
    line = torch.linspace(1.0, 0.0, length - 1, dtype=torch.float64)
    factor = (scale[:, None] + amplitude[:, None] * line).exp()  # [B, L - 1]
    returns = gaps.returns * gaps.spanned.sqrt() * factor
    changed = rebuilt(bars, gaps.last, returns, factor.reciprocal()).to(windows.context.bars)
    future = windows.future * scale.exp()[:, None, None].to(windows.future)
    return Windows(Context(changed, windows.context.timestamps), future)
