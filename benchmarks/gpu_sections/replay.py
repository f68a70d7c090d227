"""Section `replay`: the agent and its benchmarks through `us20`, bar by bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from common import Row, seconds_of
from gpu_sections.measuring import Bench, Case

from fastsim.backtest.benchmarks import replay_benchmarks
from fastsim.data.sample import sample_bars
from fastsim.env.config import EnvConfig
from fastsim.experiment.replays import play
from fastsim.market.tape import MarketTape, make_tape
from fastsim.policy.make import new_policy
from fastsim.policy.spec import PolicyConfig, make_spec

ROUNDS = 2
"""A replay is long: the better of two, the first of which compiles."""
RULES = EnvConfig(action="logits")


def cases(bench: Bench) -> Iterator[Case]:
    """One agent, then its 22 benchmarks together."""
    yield Case("replay of an agent on us20", agent)
    yield Case("replay of the benchmarks on us20", benchmarks)


def agent(bench: Bench) -> Row:
    """A policy that has learnt nothing: its speed is that of any."""
    tape = _tape(bench)
    spec = make_spec(tape, RULES, PolicyConfig(hidden=bench.sizes.hidden))
    policy = new_policy(spec, tape, seed=0)
    return _row(bench, tape, lambda: play(policy, tape, RULES))


def benchmarks(bench: Bench) -> Row:
    """Equal weight, buy and hold, and each asset alone."""
    tape = _tape(bench)
    return _row(bench, tape, lambda: replay_benchmarks(tape, RULES))


def _tape(bench: Bench) -> MarketTape:
    tape = make_tape(sample_bars("us20"), device=bench.device)
    count = bench.sizes.replay_bars
    return tape.between(slice(len(tape) - count, len(tape))) if count else tape


def _row(bench: Bench, tape: MarketTape, call: Callable[[], object]) -> Row:
    bars = tape.last - tape.first
    taken = [seconds_of(call, bench.device) for _ in range(min(bench.sizes.rounds, ROUNDS))]
    return {
        "bars": bars,
        "num_assets": tape.num_assets,
        "seconds": round(min(taken), 4),
        "bars_per_s": round(bars / min(taken), 1),
        "first_s": round(taken[0], 4),
    }
