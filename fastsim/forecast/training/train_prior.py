"""Train fastsim-prior on simulated paths; the defaults are what made the shipped weights.

Run `OMP_NUM_THREADS=1 python -m fastsim.forecast.training.train_prior`. With torch 2.13.0 on the
same kind of CPU it gives the shipped file bit for bit, in 8 to 11 minutes on one core.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import tyro
from safetensors.torch import save
from torch import Generator, Tensor

from fastsim.config import configuration, require_between, write_whole
from fastsim.forecast.models.prior import CARD, PriorModel
from fastsim.forecast.networks.return_network import CONTEXT, HORIZON, LEVELS
from fastsim.forecast.training.prior_paths import draw_paths
from fastsim.forecast.training.steps import move_average, pinball, warm_cosine


@configuration(slots=False)
class PriorTraining:
    """How the network is trained."""

    steps: int = 2500
    batch: int = 1024
    """Simulated pasts per step, all new."""
    futures: int = 4
    """Futures simulated from the end of each past: more of them make the gradient less noisy."""
    horizons: int = 8
    """Horizons per step, uniform in their square root."""
    learning_rate: float = 2e-3
    """Peak of Adam's step, after a linear warm-up; a half cosine ends it at 0."""
    warmup: int = 100
    average: float = 0.998
    """Decay per step of the moving average of the weights, which is what is kept."""
    gradient_limit: float = 1.0
    """Largest norm of the gradient."""
    short: float = 0.3
    """Share of pasts cut to 32 closes or more, log-uniform."""
    gappy: float = 0.1
    """Share of pasts of which 2 to 20 % of the closes are missing."""
    seed: int = 1
    out: Path = Path(__file__).parents[1] / "models" / "weights" / "prior.safetensors"

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "futures", "horizons"):
            require_between(self, name, 1)
        for name in ("warmup", "seed"):
            require_between(self, name, 0)
        require_between(self, "learning_rate", 0.0, open_low=True)
        require_between(self, "gradient_limit", 0.0, open_low=True)
        for name in ("average", "short", "gappy"):
            require_between(self, name, 0.0, 1.0)


def train(config: PriorTraining) -> PriorModel:
    """Train from scratch; the same configuration gives the same bits on one thread."""
    generator = torch.Generator().manual_seed(config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = PriorModel()
    set_feature_moments(model, config, generator)
    average = copy.deepcopy(model)
    optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    began, losses = time.perf_counter(), 0.0
    for step in range(config.steps):
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * warm_cosine(step, config.steps, config.warmup)
        loss = batch_loss(model, config, generator)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.gradient_limit)
        optimiser.step()
        move_average(average, model, config.average, step)
        losses += float(loss.detach())
        if (step + 1) % 100 == 0:
            seconds = time.perf_counter() - began
            print(f"step {step + 1}: loss {losses / 100:.5f}, {seconds:.0f} s", flush=True)
            losses = 0.0
    return average.eval()


def batch_loss(model: PriorModel, config: PriorTraining, generator: Generator) -> Tensor:
    """Mean pinball loss of new paths, in units of the trailing volatility times sqrt(h)."""
    closes, future = draw_closes(config, generator)
    with torch.no_grad():
        reading = model.read(closes)
        bars = draw_horizons(config.horizons, generator)
        target = future.cumsum(-1)[..., bars - 1] * (bars.float().rsqrt())  # [B, futures, h]
        target = target / reading.scale[:, None, None]
    quantiles: Tensor = model.curve[bars - 1] @ model.knots(reading)  # [B, h, Q]
    return pinball(quantiles[:, None], target, torch.tensor(LEVELS)).mean()


def draw_closes(config: PriorTraining, generator: Generator) -> tuple[Tensor, Tensor]:
    """Closes [B, CONTEXT] with missing bars, and future log returns [B, futures, HORIZON]."""
    past, future = draw_paths(config.batch, CONTEXT - 1, HORIZON, config.futures, generator)
    # Float64: a price that wandered far from 1 keeps the digits of its small returns.
    closes = torch.nn.functional.pad(past.double().cumsum(1), (1, 0)).exp().float()
    draw = torch.rand((4, config.batch, 1), generator=generator)
    shortest = CARD.min_context
    length = (shortest * (CONTEXT / shortest) ** draw[1]).long()
    length = torch.where(draw[0] < config.short, length, CONTEXT)
    missing = torch.where(draw[2] < config.gappy, 0.02 + 0.18 * draw[3], 0.0)
    hole = torch.rand(closes.shape, generator=generator) < missing
    hole[:, -1] = False
    age = torch.arange(CONTEXT).flip(0)
    return closes.masked_fill(hole | (age >= length), torch.nan), future


def draw_horizons(count: int, generator: Generator) -> Tensor:
    """Horizons [h] in bars, uniform in their square root."""
    low, high = 1.0, math.sqrt(HORIZON + 1.0)
    root = low + (high - low) * torch.rand(count, generator=generator)
    return root.square().long().clamp(1, HORIZON)


@torch.no_grad()
def set_feature_moments(model: PriorModel, config: PriorTraining, generator: Generator) -> None:
    """Set the mean and deviation that features are standardised with from four batches."""

    def features() -> Iterator[Tensor]:
        for _ in range(4):
            yield model.read(draw_closes(config, generator)[0]).features.double()

    model.standardise(torch.cat(list(features())))


def save_prior(model: PriorModel, path: Path) -> None:
    """Write the weights as safetensors, in one piece."""
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    write_whole(path, save(state))


def main() -> None:
    """Train on one thread and write the weights."""
    config = tyro.cli(PriorTraining, description=__doc__)
    torch.set_num_threads(1)
    began = time.perf_counter()
    save_prior(train(config), config.out)
    print(f"{config.out}: {time.perf_counter() - began:.0f} s, torch {torch.__version__}")


if __name__ == "__main__":
    main()
