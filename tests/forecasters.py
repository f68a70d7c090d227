"""A small model and contexts for tests of what surrounds models."""

import torch
from torch import Tensor, nn

from fastsim.errors import ForecastError
from fastsim.forecast.interface import Context, Forecast, ForecastModel, ModelCard

LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
CARD = ModelCard(
    name="tiny",
    licence="MIT",
    parameters=5 * 8 + 5,
    max_context=64,
    max_horizon=32,
    levels=LEVELS,
)


class TinyModel(ForecastModel):
    """Quantiles that a seeded linear layer makes of the last eight scaled closes."""

    card = CARD

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.layer = nn.Linear(8, 5)
        with torch.no_grad():
            for parameter in self.layer.parameters():
                parameter.normal_(generator=generator).mul_(0.3)

    def forward(self, *inputs: Tensor, horizon: int) -> Tensor:
        last = inputs[0][:, -1:].float()
        closes = inputs[0].float() - last  # sums of small numbers round less
        mean = closes.nanmean(1, keepdim=True)
        deviation = (closes - mean).square().nanmean(1, keepdim=True).sqrt().clamp_min(1e-12)
        recent = ((closes - mean) / deviation)[:, -8:].nan_to_num(nan=0.0)
        scaled = self.layer(recent.to(self.layer.bias.dtype)).float()[:, None]
        steps = torch.arange(1, horizon + 1, device=closes.device)[None, :, None]
        return (last + mean)[:, None] + deviation[:, None] * scaled.sort(-1).values * steps.sqrt()


class Counting:
    """A forecaster that counts the series it is asked for, and fails when told to."""

    def __init__(
        self, *, name: str = "counting", shift: float = 0.0, horizon: int = 32, levels=LEVELS
    ) -> None:
        self.card = ModelCard(
            name=name,
            licence="MIT",
            parameters=0,
            max_context=64,
            max_horizon=horizon,
            levels=levels,
        )
        self.key, self.shift, self.asked, self.failing = f"{name}@1", shift, 0, False

    def forecast(self, context: Context, horizon: int) -> Forecast:
        if self.failing:
            raise ForecastError(f"{self.card.name} fails")
        self.asked += len(context.bars)
        last = context.close[:, -1]
        levels = torch.tensor(self.card.levels)
        quantiles = last[:, None, None] * (1.0 + 0.02 * (levels - 0.5) + self.shift)
        return Forecast(quantiles.expand(-1, horizon, -1), self.card.levels)


def walks(series: int, length: int, seed: int = 0, step: float = 1.0) -> Tensor:
    """Random walks from a price of 100."""
    noise = torch.randn(series, length, generator=torch.Generator().manual_seed(seed))
    return 100.0 + step * noise.cumsum(-1)


def with_gaps(length: int, step: float = 1.0, end: int = 9) -> Tensor:
    """Six series: whole, late, with a hole, without an end, sparse, and only its `end` known."""
    series = walks(6, length, step=step)
    series[1, : length // 3] = torch.nan
    series[2, length // 4 : length // 2] = torch.nan
    series[3, -5:] = torch.nan
    series[4, ::3] = torch.nan
    series[5, :-end] = torch.nan
    return series


def deviations(found: Tensor, wanted: Tensor, series: Tensor) -> Tensor:
    """Differences in deviations of each series, beyond one rounding of the price."""
    rows = [row[row.isfinite()].std(unbiased=False) for row in series]
    rounding = torch.finfo(torch.float32).eps * wanted.abs()
    return ((found - wanted).abs() - rounding).clamp_min(0.0) / torch.stack(rows)[:, None, None]


def spread_out(module: nn.Module, seed: int = 7) -> nn.Module:
    """Move every bias, scale and norm off the zero or one that it starts at: all of them matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return module


def random_context(rows: int, length: int = 64, seed: int = 0) -> Context:
    generator = torch.Generator().manual_seed(seed)
    steps = 0.02 * torch.randn(rows, length, 1, generator=generator)
    close = 100.0 * steps.cumsum(1).exp()
    stamps = (86_400 * torch.arange(length)).expand(rows, -1)
    return Context(close.expand(-1, -1, 6).clone(), stamps)
