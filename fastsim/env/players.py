"""Scripted players: from what an agent sees to target weights, without learning.

Each answers with long-only weights [n, A], the rest is cash; it looks at nothing after the bar and
remembers nothing between calls. Weights, like observations, are by slot: of an asset each, unless
episodes draw theirs (`fastsim.env.slots`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastsim.config import configuration, require_between
from fastsim.data.bars import CLOSE
from fastsim.env.config import EnvConfig
from fastsim.env.decide import Decider
from fastsim.env.observe import Observation
from fastsim.env.portfolio_columns import portfolio_names
from fastsim.env.random import draw_integers, environment_keys
from fastsim.env.slots import filled, to_slots
from fastsim.market import benchmark
from fastsim.market.tape import MarketTape

NOISE_STREAM = 3
_RESOLUTION = 1 << 24


@configuration(slots=False)
class Momentum(Decider):
    """More of what rose: equal weights, tilted by trailing returns in standard deviations."""

    lookback: int = 20
    strength: float = 0.5

    def __post_init__(self) -> None:
        require_between(self, "lookback", 1)
        require_between(self, "strength", 0)

    def decide(self, tape: MarketTape, seen: Observation, memory: Any, /) -> tuple[Tensor, Any]:
        """Target weights [n, A]."""
        score = self.strength * shown_score(tape, seen, self.lookback)
        return tilted(1.0, score, equal_weights(tape, seen)), memory


@configuration(slots=False)
class MeanReversion(Decider):
    """More of what fell: momentum the other way round, over fewer bars."""

    lookback: int = 5
    strength: float = 0.5

    def __post_init__(self) -> None:
        require_between(self, "lookback", 1)
        require_between(self, "strength", 0)

    def decide(self, tape: MarketTape, seen: Observation, memory: Any, /) -> tuple[Tensor, Any]:
        """Target weights [n, A]."""
        score = -self.strength * shown_score(tape, seen, self.lookback)
        return tilted(1.0, score, equal_weights(tape, seen)), memory


@configuration(slots=False)
class TwapExecutor(Decider):
    """Buys equal weights in equal slices, one a bar (time-weighted average price), then holds."""

    slices: int = 20

    def __post_init__(self) -> None:
        require_between(self, "slices", 1)

    def decide(self, tape: MarketTape, seen: Observation, memory: Any, /) -> tuple[Tensor, Any]:
        """Target weights [n, A]."""
        goal = equal_weights(tape, seen)
        held = held_weights(tape, seen)
        return torch.where(held < goal, (held + goal / self.slices).minimum(goal), held), memory


class Displaced(NamedTuple):
    """A market whose prices may be displaced."""

    tape: MarketTape
    columns: slice | None  # of a portfolio, displacements by slot; None where trades move no prices


@configuration(slots=False)
class LiquidityProvider(Decider):
    """Leans against displacement: sells what others have pushed up and buys what they pushed down.

    Where trades move no prices there is nothing to lean against, and it keeps its inventory.
    """

    inventory: float = 0.5
    """Share of its wealth in assets, equally, while nothing is displaced."""
    strength: float = 0.5
    """Shares of an asset's equal weight to sell for each per cent that it stands too high."""

    def __post_init__(self) -> None:
        require_between(self, "inventory", 0, 1)
        require_between(self, "strength", 0)

    def study(self, tape: MarketTape, rules: EnvConfig, /) -> Displaced:
        """Find the displacements among the columns of a portfolio."""
        names = portfolio_names(tape, rules)
        places = [place for place, name in enumerate(names) if name.startswith("displacement.")]
        return Displaced(tape, slice(places[0], places[-1] + 1) if places else None)

    def decide(self, market: Displaced, seen: Observation, memory: Any, /) -> tuple[Tensor, Any]:
        """Target weights [n, A]."""
        shares = equal_weights(market.tape, seen)
        columns = market.columns
        displacement = torch.zeros_like(shares) if columns is None else seen.portfolio[:, columns]
        return tilted(self.inventory, -self.strength * displacement, shares), memory


@configuration(slots=False)
class Noise(Decider):
    """Moves a part of the way to weights drawn evenly from all there are, afresh at every bar."""

    pace: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        require_between(self, "pace", 0, 1)

    def decide(self, tape: MarketTape, seen: Observation, memory: Any, /) -> tuple[Tensor, Any]:
        """Target weights [n, A]; a draw depends on the seed, the row and the bar alone."""
        rows, columns = len(seen.bar), tape.num_assets + 1
        numbers = torch.arange(rows * columns, device=tape.device)
        key = environment_keys(self.seed, numbers).view(rows, columns)
        drawn = draw_integers(key, seen.bar[:, None], NOISE_STREAM, _RESOLUTION)
        spacing = -((drawn.to(tape.dtype) + 0.5) / _RESOLUTION).log()
        spacing[:, :-1] *= equal_weights(tape, seen) > 0
        wanted = (spacing / spacing.sum(-1, keepdim=True))[:, :-1]  # uniform on the simplex
        held = held_weights(tape, seen)
        return held + self.pace * (wanted - held), memory


SCRIPTED: dict[str, Decider] = {
    "momentum": Momentum(),
    "mean reversion": MeanReversion(),
    "twap": TwapExecutor(),
    "liquidity": LiquidityProvider(),
    "noise": Noise(),
}


def equal_weights(tape: MarketTape, observation: Observation) -> Tensor:
    """The same weight [n, A] for every slot that shows an asset, 1 together."""
    view, bar = observation.view, observation.bar
    slots = bar.new_empty(len(bar), 0) if view is None else view.slots
    return benchmark.equal_weights(filled(slots, tape.num_assets), tape.dtype)


def tilted(inventory: float, score: Tensor, shares: Tensor) -> Tensor:
    """Long-only weights [n, A]: `inventory` in these shares, each of them changed by its score."""
    weights = (inventory + score).clamp_min(0.0) * shares
    return weights / weights.sum(-1, keepdim=True).clamp_min(1.0)


def held_weights(tape: MarketTape, observation: Observation) -> Tensor:
    """Long-only weights [n, A] that a player holds now."""
    return observation.portfolio[:, : tape.num_assets].clamp(0.0, 1.0)


def shown_score(tape: MarketTape, observation: Observation, lookback: int) -> Tensor:
    """`trailing_score` by slot; the volatility of an episode does not change it."""
    score = trailing_score(tape, observation.bar, lookback)
    return score if observation.view is None else to_slots(score, observation.view.slots)


def trailing_score(tape: MarketTape, bar: Tensor, lookback: int) -> Tensor:
    """Log returns [n, A] over `lookback` bars, in their standard deviations; 0 where unknown."""
    begun = bar // tape.bars_per_world * tape.bars_per_world  # [n]  of its world
    close = tape.known.bars[..., CLOSE]
    change = (close[bar] / close[torch.maximum(bar - lookback, begun)]).log()
    deviation = tape.known.sigma[bar] * lookback**0.5
    return torch.nan_to_num(change / deviation, nan=0.0, posinf=0.0, neginf=0.0)
