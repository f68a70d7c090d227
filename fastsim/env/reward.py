"""What an agent is paid for: functions of what happened, apart from the accounting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastsim.config import configuration, require_between
from fastsim.env.accounting import Outcome
from fastsim.extensions import Registry, require_known

RUIN_LOG_GROWTH = -10.0
"""Least log growth of one step: ruin would be minus infinity."""


@configuration
class RewardConfig:
    """Which reward, and its parameters."""

    kind: str = "log_growth"
    """A name in `REWARDS`, or a reward of your own as "package.module:object"."""
    adaptation: float = 0.01
    """Differential Sharpe: weight of the newest return in the moving moments."""
    drawdown_penalty: float = 1.0
    """Drawdown-penalised growth: charge for each unit by which the drawdown deepens."""

    def __post_init__(self) -> None:
        require_known(self, "kind", REWARDS)
        require_between(self, "adaptation", 0, 1, open_low=True)
        require_between(self, "drawdown_penalty", 0)


class RewardMemory(NamedTuple):
    """What a reward remembers within an episode: moving moments of the simple return."""

    mean: Tensor  # [N]
    square: Tensor  # [N]


class Growth(NamedTuple):
    """One step, as rewards see it."""

    log_growth: Tensor  # [N]
    simple_return: Tensor  # [N]
    drawdown_before: Tensor  # [N]
    drawdown: Tensor  # [N]
    market_return: Tensor  # [N]  simple return of the equal-weighted market, free of costs
    outcome: Outcome  # all there is to know of the step


INITIAL_VOLATILITY = 0.01
"""Standard deviation of returns that the differential Sharpe ratio supposes at the start."""


def fresh_memory(like: Tensor) -> RewardMemory:
    """Memory at the start of an episode, with the shape [N] of `like`."""
    return RewardMemory(torch.zeros_like(like), torch.full_like(like, INITIAL_VOLATILITY**2))


def measure_growth(
    outcome: Outcome, peak_before: Tensor, peak: Tensor, market_return: Tensor
) -> Growth:
    """Compare wealth [N] at two closes, with the highest wealth up to each.

    Who has nothing before, and so nothing after, has grown to nothing. Ruin is final, whatever
    comes after.
    """
    before = outcome.wealth_before
    after = torch.where(outcome.ruined, 0.0, outcome.wealth)
    ratio = after / torch.where(before > 0, before, 1.0)
    return Growth(
        log_growth=ratio.clamp_min(torch.finfo(ratio.dtype).tiny).log().clamp_min(RUIN_LOG_GROWTH),
        simple_return=ratio - 1.0,
        drawdown_before=1.0 - before / peak_before,
        drawdown=1.0 - after / peak,
        market_return=market_return,
        outcome=outcome,
    )


@configuration
class Reward:
    """One way to pay."""

    name: str
    measure: Callable[[Growth, Any, RewardConfig], tuple[Tensor, Any]]
    """From a step, what is remembered and the settings to the reward [N] and what is remembered
    then. Who had nothing before the step is paid nothing, whatever it says."""
    memory: Callable[[Tensor], Any] = fresh_memory
    """From wealth [N] at the start of episodes to what is remembered then: a `NamedTuple` of
    tensors [N, ...]."""


def log_growth(
    growth: Growth, memory: RewardMemory, config: RewardConfig
) -> tuple[Tensor, RewardMemory]:
    """Log of the wealth ratio; its sum over an episode is the log of total growth."""
    return growth.log_growth, memory


def excess_log_growth(
    growth: Growth, memory: RewardMemory, config: RewardConfig
) -> tuple[Tensor, RewardMemory]:
    """Log growth less that of the equal-weighted market.

    No action moves the market, so the best policy is that of `log_growth`; what all portfolios have
    in common is gone from the reward's variance.
    """
    of_market = growth.market_return.log1p().clamp_min(RUIN_LOG_GROWTH)  # all may be delisted
    return growth.log_growth - of_market, memory


def simple_return(
    growth: Growth, memory: RewardMemory, config: RewardConfig
) -> tuple[Tensor, RewardMemory]:
    """Relative change of wealth."""
    return growth.simple_return, memory


def differential_sharpe(
    growth: Growth, memory: RewardMemory, config: RewardConfig
) -> tuple[Tensor, RewardMemory]:
    """How much this return moves an exponentially weighted Sharpe ratio.

    D = (B dA - A dB / 2) / (B - A^2)^(3/2) with moments A of R and B of R^2 before the step
    (Moody and Saffell 2001, equation 14).
    """
    gain = growth.simple_return
    d_mean, d_square = gain - memory.mean, gain.square() - memory.square
    variance = (memory.square - memory.mean.square()).clamp_min(1e-8)
    reward = (memory.square * d_mean - 0.5 * memory.mean * d_square) / variance.pow(1.5)
    rate = config.adaptation
    return reward, RewardMemory(memory.mean + rate * d_mean, memory.square + rate * d_square)


def drawdown_penalized_growth(
    growth: Growth, memory: RewardMemory, config: RewardConfig
) -> tuple[Tensor, RewardMemory]:
    """Log growth less `drawdown_penalty` times the deepening of the drawdown, where it deepens."""
    deepening = (growth.drawdown - growth.drawdown_before).clamp_min(0.0)
    return growth.log_growth - config.drawdown_penalty * deepening, memory


REWARDS: Registry[Reward] = Registry(
    "reward",
    Reward,
    tuple(
        Reward(name=measure.__name__, measure=measure)
        for measure in (
            log_growth,
            excess_log_growth,
            simple_return,
            differential_sharpe,
            drawdown_penalized_growth,
        )
    ),
)
"""Rewards by name: each function above says what it pays."""
