"""Train PPO on simulated worlds, each episode a path never seen before, and test it on history.

    python agents/train_on_worlds.py --model bootstrap

A model is fitted to the years before `split`. One agent learns from worlds of it that are drawn
while it trains, another for as many steps from those years themselves. Both then trade the years
after, beside equal weight and buy and hold, at the same costs.
"""

from dataclasses import dataclass

import numpy as np
import tyro

from fastsim.backtest.history import History
from fastsim.backtest.metrics import periods_per_year, summarize
from fastsim.backtest.replay import benchmark_schedule, join, replay_schedule
from fastsim.env.core import EnvConfig
from fastsim.env.episode import EpisodeConfig
from fastsim.env.reward import RewardConfig
from fastsim.learn.policy import Policy, PolicyConfig
from fastsim.learn.ppo import PPOConfig
from fastsim.learn.run import play
from fastsim.learn.trainer import Trainer
from fastsim.market.sample import sample_bars
from fastsim.market.synthetic.calibrate import fit
from fastsim.market.synthetic.fresh import FreshWorlds
from fastsim.market.tape import MarketTape, make_tape


@dataclass(frozen=True, kw_only=True)
class Options:
    """Learn from simulated worlds, and from history, and compare the two on later years."""

    model: str = "garch"
    """Of the worlds: gbm, heston, merton, garch, sv, regimes or bootstrap."""
    source: str = "us20"
    """A built-in data set."""
    split: str = "2017-01-01"
    """ISO date: bars before it are learned from, those after it are for the test."""
    bars: int = 253
    """Of each world: 126 of warm-up, and one more than the horizon; more are begun at random."""
    horizon: int = 126
    """Steps of an episode."""
    iterations: int = 100
    """Of PPO, each of 128 environments and 32 steps."""
    seed: int = 0


def rules_of(options: Options) -> EnvConfig:
    """Logits for actions, paid their growth beyond that of equal weights."""
    return EnvConfig(
        action="logits",
        reward=RewardConfig(kind="excess_log_growth"),
        episode=EpisodeConfig(horizon=options.horizon, staggered=True),
    )


def learn_from(market: MarketTape | FreshWorlds, options: Options) -> Policy:
    """PPO on this market."""
    trainer = Trainer(
        market,
        rules_of(options),
        PPOConfig(num_envs=128, rollout_steps=32),
        PolicyConfig(),
        iterations=options.iterations,
        seed=options.seed,
    )
    for _ in range(options.iterations):
        trainer.advance()
    return trainer.policy


def compare(policies: dict[str, Policy], tape: MarketTape, rules: EnvConfig) -> History:
    """Let agents and benchmarks trade the tape from its first bar to its last."""
    names, schedule = benchmark_schedule(tape)
    histories = [play(policy, tape, rules, name) for name, policy in policies.items()]
    return join(*histories, replay_schedule(tape, schedule[:, :2], names[:2]))


def main() -> None:
    """Fit, train, test and print."""
    options = tyro.cli(Options, description=Options.__doc__)
    bars = sample_bars(options.source)
    first = int(np.searchsorted(bars.timestamps, np.datetime64(options.split)))
    history = make_tape(bars)
    worlds = FreshWorlds(
        model=fit(options.model, bars.take(slice(0, first))),
        bars=options.bars,
        symbols=bars.symbols,
    )
    policies = {
        f"learned from {options.model} worlds": learn_from(worlds, options),
        "learned from history": learn_from(history.between(slice(0, first)), options),
    }
    unseen = history.between(slice(first, None))
    record = compare(policies, unseen, rules_of(options))
    summary = summarize(record, periods_per_year=periods_per_year(record.timestamps))
    print(f"{options.source}, {options.split} and later")
    for name, growth, sharpe, turnover in zip(
        record.names,
        *(summary.total_return.tolist(), summary.sharpe_ratio.tolist(), summary.turnover.tolist()),
        strict=True,
    ):
        print(
            f"{name:26} {growth:7.1%} total return, Sharpe ratio {sharpe:5.2f}, "
            f"turnover {turnover:5.2f} a year"
        )


if __name__ == "__main__":
    main()
