"""Sell a block while one's own orders move the price, where the cheapest way is known.

    python agents/execution.py

Each order pushes the price down, and the push decays. The optimum (Obizhaeva and Wang 2013; in
discrete time Alfonsi, Fruth and Schied 2010) sells much at once, the same again at the end, and a
little at every bar between, as fast as the price recovers. PPO is told only how much time is left,
what it holds and how far the price is pushed.
"""

import numpy as np
import torch
from torch import Tensor

from fastsim.cli.ending import one_line_errors, read_options
from fastsim.config import configuration, require_between
from fastsim.env.accounting import reach_fill, worth
from fastsim.env.config import EnvConfig
from fastsim.env.decide import Seat
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.impact import ImpactConfig
from fastsim.env.state import EnvState
from fastsim.learn.ppo.config import PPOConfig
from fastsim.learn.rollout import CollectConfig
from fastsim.learn.trainer import Trainer
from fastsim.market.block import Block
from fastsim.market.costs import CostConfig
from fastsim.market.tape import KnownTables, MarketTape, impact_scale
from fastsim.policy.policy import Policy
from fastsim.policy.spec import PolicyConfig

BLOCK = 1e6
SIGMA = 0.01
FREE = CostConfig(
    fee_bps=0.0, half_spread_bps=0.0, impact=0.0, participation=1e9, borrow_bps_per_year=0.0
)


@configuration(slots=False)
class Options:
    """Learn to sell a block, and print what it costs beside the optimum."""

    bars: int = 20
    """Fills until everything is sold."""
    half_life: float = 6.58
    """Bars in which half of a push decays."""
    displacement: float = 0.02
    """Log displacement of the price by the whole block at once."""
    iterations: int = 100
    """Of PPO, each of 256 sales."""
    seed: int = 0

    def __post_init__(self) -> None:
        require_between(self, "bars", 2)
        require_between(self, "half_life", 0, open_low=True)
        require_between(self, "displacement", 0, 1, open_low=True)
        require_between(self, "iterations", 1)


def flat_market(bars: int, *, dtype: torch.dtype = torch.float32) -> MarketTape:
    """One asset whose price stands still for `bars` fills; its feature is the share of time left.

    A block is a bar's average volume, and the volatility of a bar is `SIGMA`.
    """
    rows = bars + 1
    still = torch.zeros(rows, 1, dtype=dtype)
    known = KnownTables(
        features=torch.linspace(1.0, 0.0, rows, dtype=dtype)[:, None, None],
        sigma=still + SIGMA,
        impact_sigma=still + SIGMA,
        dollar_volume=still + BLOCK,
        listed=torch.ones_like(still, dtype=torch.bool),
        bars=torch.full((rows, 1, 6), torch.nan, dtype=dtype),
    )
    following = Block.of(
        {
            "r_before": still,
            "r_after": still,
            "tradable": known.listed,
            "dollars": still + torch.inf,
            "price": still + 1.0,
            "impact_scale": impact_scale(known.impact_sigma, known.dollar_volume),
            "years": still[:, 0],
            "interest": still[:, 0],
            "market_return": still[:, 0],
        }
    )
    days = np.datetime64("2000-01-03", "ns") + np.arange(rows) * np.timedelta64(24, "h")
    return MarketTape(
        symbols=("BLOCK",),
        feature_names=("time_left",),
        timestamps=days,
        known=known,
        next=following,
        fill="next_open",
        first=0,
        last=bars,
    )


def liquidation(bars: int, impact: ImpactConfig, costs: CostConfig = FREE) -> EnvConfig:
    """Rules: begin with the block, end without it."""
    return EnvConfig(
        action="weights",
        costs=costs,
        impact=impact,
        initial_cash=BLOCK,
        initial_invested=1.0,
        episode=EpisodeConfig(
            horizon=bars, random_start=False, liquidate_at_end=True, at_end="terminate"
        ),
    )


def optimal_schedule(bars: int, retention: float) -> Tensor:
    """Shares of the block [bars] to sell at each fill; `retention` is left of a push a bar later.

    Alfonsi, Fruth and Schied (2010) for a block-shaped book: the first and the last are
    1 / ((bars - 2)(1 - a) + 2), those between (1 - a) times as large.
    """
    ends = 1.0 / ((bars - 2) * (1.0 - retention) + 2.0)
    schedule = torch.full((bars,), (1.0 - retention) * ends, dtype=torch.float64)
    schedule[[0, -1]] = ends
    return schedule


def optimal_cost(bars: int, retention: float) -> float:
    """What the optimum costs, as a share of what selling everything at once does.

    Selling x costs r/2 sum_ij a^|i-j| x_i x_j while displacements r x are small. The matrix has a
    tridiagonal inverse, whose entries sum to ((bars - 2)(1 - a) + 2) / (1 + a).
    """
    return (1.0 + retention) / ((bars - 2) * (1.0 - retention) + 2.0)


def even_cost(bars: int, retention: float) -> float:
    """The same of equal orders: (bars + 2 sum_k (bars - k) a^k) / bars^2, summed."""
    gone = 1.0 - retention
    later = retention * (bars * gone - (1.0 - retention**bars)) / gone**2
    return (bars + 2.0 * later) / bars**2


def weights_leaving(
    state: EnvState, left: Tensor, displacement: float, impact: ImpactConfig
) -> Tensor:
    """Weights [N, 1] that leave `left` [N] of the block after the next fill, the price unmoved.

    `displacement` is that of the whole block. Weights are of wealth, which is liquidation value.
    """
    ahead = reach_fill(state.account, torch.ones_like(state.portfolio.holdings), impact)
    mid = displacement / BLOCK / ahead.displacement.rate  # the rate per share is constant
    return left[:, None] * BLOCK * mid / worth(ahead)[:, None]


def schedule_costs(schedules: Tensor, displacement: float, impact: ImpactConfig) -> Tensor:
    """What `schedules` [N, bars], shares of the block sold at each fill, cost [N] of its value."""
    count, bars = schedules.shape
    env = PortfolioEnv(
        flat_market(bars, dtype=torch.float64), count, liquidation(bars, impact), backend="torch"
    )
    env.reset(0)
    left = 1.0 - schedules.cumsum(1)
    for row in left.T:
        env.step(weights_leaving(env.state, row, displacement, impact))
    return 1.0 - env.state.wealth / BLOCK


def policy_cost(policy: Policy, tape: MarketTape, rules: EnvConfig) -> float:
    """What the policy's most likely actions cost, as a share of the block's value."""
    env, seat = PortfolioEnv(tape, 1, rules), Seat(policy, tape, rules, rows=1)
    observation = env.reset(0)
    for _ in range(tape.last):
        observation = env.step(seat(observation)).observation
    return 1.0 - float(env.state.wealth) / BLOCK


def train(options: Options, rules: EnvConfig) -> Policy:
    """Learn by selling; rewards are the log growth of liquidation value."""
    ppo = PPOConfig(learning_rate=3e-3, discount=1.0, trace=0.95, target_kl=None)
    trainer = Trainer(
        flat_market(options.bars),
        rules,
        ppo,
        PolicyConfig(initial_std=0.2),
        CollectConfig(num_envs=256, rollout_steps=options.bars + 1),
        iterations=options.iterations,
        seed=options.seed,
    )
    for _ in range(options.iterations):
        trainer.iterate()
    return trainer.policy


def compare(options: Options) -> None:
    """Train, and print costs in basis points of the block."""
    impact = ImpactConfig(transient=options.displacement / SIGMA, half_life=options.half_life)
    at_once = torch.zeros(options.bars, dtype=torch.float64)
    at_once[0] = 1.0
    schedules = {
        "optimum": optimal_schedule(options.bars, impact.retention),
        "equal orders": torch.full_like(at_once, 1.0 / options.bars),
        "all at once": at_once,
    }
    costs = schedule_costs(torch.stack([*schedules.values()]), options.displacement, impact)
    small = 0.5 * options.displacement * optimal_cost(options.bars, impact.retention)
    rules = liquidation(options.bars, impact)
    learnt = policy_cost(train(options, rules), flat_market(options.bars), rules)
    for name, cost in {"PPO": learnt, **dict(zip(schedules, costs.tolist(), strict=True))}.items():
        print(f"{name:14} {cost * 1e4:8.2f} bp {cost / float(costs[0]):8.3f} of the optimum")
    print(f"{'closed form':14} {small * 1e4:8.2f} bp, of the optimum for small displacements")


def main() -> None:
    """Read the options, and compare."""
    with one_line_errors("execution", Options):
        compare(read_options(Options))


if __name__ == "__main__":
    main()
