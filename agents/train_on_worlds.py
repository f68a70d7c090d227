"""Train PPO on simulated worlds, each episode a path never seen before, and test it on history.

    python agents/train_on_worlds.py --model bootstrap

A model is fitted to the years before `split`. One agent learns from worlds of it that are drawn
while it trains, another for as many steps from those years themselves. Both then trade the years
after, beside equal weight and buy and hold, at the same costs.
"""

import numpy as np

from fastsim.backtest.benchmarks import replay_benchmarks
from fastsim.backtest.history import History, join
from fastsim.backtest.summary import summarize
from fastsim.cli.ending import one_line_errors, read_options
from fastsim.config import configuration, require_between
from fastsim.data.dates import iso_date, show
from fastsim.data.sample import sample_bars
from fastsim.env.config import EnvConfig
from fastsim.env.episode import EpisodeConfig
from fastsim.env.reward import RewardConfig
from fastsim.errors import DataError
from fastsim.experiment.replays import play
from fastsim.learn.ppo.config import PPOConfig
from fastsim.learn.rollout import CollectConfig
from fastsim.learn.trainer import Trainer
from fastsim.market.tape import MarketTape, make_tape
from fastsim.policy.policy import Policy
from fastsim.policy.spec import PolicyConfig
from fastsim.synthetic.fresh import FreshWorlds
from fastsim.synthetic.models import fit


@configuration(slots=False)
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

    def __post_init__(self) -> None:
        require_between(self, "iterations", 1)


def rules_of(options: Options) -> EnvConfig:
    """Logits for actions, paid their growth beyond that of equal weights."""
    return EnvConfig(
        action="logits",
        reward=RewardConfig(kind="excess_log_growth"),
        episode=EpisodeConfig(horizon=options.horizon, staggered=True),
    )


def make_trainer(market: MarketTape | FreshWorlds, options: Options) -> Trainer:
    """PPO on this market, not trained yet."""
    return Trainer(
        market,
        rules_of(options),
        PPOConfig(),
        PolicyConfig(),
        CollectConfig(num_envs=128, rollout_steps=32),
        iterations=options.iterations,
        seed=options.seed,
    )


def learn(trainer: Trainer) -> Policy:
    """Train to the end."""
    for _ in range(trainer.iterations):
        trainer.advance()
    return trainer.policy


def make_run(options: Options) -> tuple[dict[str, Trainer], MarketTape]:
    """An agent for worlds and one for history, and the years that neither sees."""
    bars = sample_bars(options.source)
    first = int(np.searchsorted(bars.timestamps, iso_date(options.split, "--split")))
    history = make_tape(bars)
    if not history.first < first < history.last:
        raise DataError(
            f"--split {options.split} leaves no step before it or after it: choose a day between "
            f"{show(bars.timestamps[history.first])} and {show(bars.timestamps[history.last])}"
        )
    worlds = FreshWorlds(
        model=fit(options.model, bars.take(slice(0, first))),
        bars=options.bars,
        symbols=bars.symbols,
    )
    trainers = {
        f"learned from {options.model} worlds": make_trainer(worlds, options),
        "learned from history": make_trainer(history.between(slice(0, first)), options),
    }
    return trainers, history.between(slice(first, None))


def compare(policies: dict[str, Policy], tape: MarketTape, rules: EnvConfig) -> History:
    """Let agents and benchmarks trade the tape from its first bar to its last."""
    histories = [play(policy, tape, rules, name) for name, policy in policies.items()]
    return join(*histories, replay_benchmarks(tape, rules, alone=False))


def show_record(record: History, options: Options) -> None:
    """Print one line for each agent and benchmark."""
    summary = summarize(record, periods_per_year=record.steps_per_year)
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


def main() -> None:
    """Fit, train, test and print."""
    with one_line_errors("train_on_worlds", Options):
        options = read_options(Options)
        trainers, unseen = make_run(options)
        policies = {name: learn(trainer) for name, trainer in trainers.items()}
        show_record(compare(policies, unseen, rules_of(options)), options)


if __name__ == "__main__":
    main()
