"""What an agent is held against: equal weight, buy and hold, and each asset alone.

Equal weight is what rewards are measured against, too: the mean of what is listed. Whoever buys and
holds keeps the money for what is not listed yet, or not to be had at once, and buys it as soon as
it can.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from fastsim.backtest.history import History, unlike
from fastsim.backtest.replay import replay
from fastsim.config import configuration
from fastsim.env.ahead import Ahead, Targets
from fastsim.env.config import EnvConfig
from fastsim.env.decide import Decider
from fastsim.env.observe import Observation
from fastsim.errors import ConfigError
from fastsim.market.benchmark import equal_weights
from fastsim.market.tape import MarketTape
from fastsim.progress import SILENT, Progress

EQUAL_WEIGHT, BUY_AND_HOLD = "equal weight", "buy and hold"
BENCHMARKS = (EQUAL_WEIGHT, BUY_AND_HOLD)
SPENT = 1e-3
"""Share of wealth in cash from which on an asset alone is bought no more."""


class Bought(NamedTuple):
    """What is remembered of n rows."""

    once: Tensor  # [n]  bool: orders have been given


@configuration(slots=False)
class Benchmarks(Decider):
    """Equal weight in row 0, buy and hold in row 1, and each of the A assets alone in the others.

    Buy and hold gives its orders once, and ends with what it ordered where what is unfilled is
    carried; see `benchmark_rules`. Orders for an asset alone are given until its cash is spent.
    """

    def begin(self, tape: MarketTape, rows: int, /) -> Bought:
        """Nothing is ordered yet; ConfigError if there are neither 2 nor 2 + A rows."""
        few, most = len(BENCHMARKS), len(BENCHMARKS) + tape.num_assets
        if rows not in (few, most):
            raise ConfigError(
                f"benchmarks take {few} rows, or {most} with each asset alone, got {rows}"
            )
        return Bought(torch.zeros(rows, dtype=torch.bool, device=tape.device))

    def decide(
        self, tape: MarketTape, seen: Observation, memory: Bought, /
    ) -> tuple[Tensor, Bought]:
        """Target weights [n, A]."""
        held = seen.portfolio[:, : tape.num_assets]
        equal = fully_invested(tape.known.listed[seen.bar[:1]], held[:1])
        parts = torch.full_like(equal, 1.0 / tape.num_assets)
        alone = torch.eye(len(held) - 2, tape.num_assets, device=held.device, dtype=held.dtype)
        parts = parts.masked_fill(memory.once[1], torch.nan)
        spent = held[2:].sum(-1, keepdim=True) > 1.0 - SPENT
        weights = torch.cat([equal, parts, alone.masked_fill(spent, torch.nan)])
        return weights, Bought(torch.ones_like(memory.once))

    def ahead(
        self, tape: MarketTape, bars: Tensor, memory: Bought, /
    ) -> tuple[Ahead, Bought] | None:
        """The same weights, which are settled but for what is held and stuck, or spent."""
        if type(self) is not Benchmarks:
            return None
        rows, assets = len(memory.once), tape.num_assets
        listed, dtype = tape.known.listed[bars], tape.dtype
        number = torch.arange(rows, device=tape.device)
        answers = torch.zeros(len(bars), rows, assets, dtype=dtype, device=tape.device)
        answers[:, 0] = equal_weights(listed, dtype)
        answers[:, 1] = torch.nan
        answers[:1, 1] = answers[:1, 1].where(memory.once[1], 1.0 / assets)
        answers[:, 2:] = torch.eye(rows - 2, assets, dtype=dtype, device=tape.device)
        enough = torch.full((rows,), torch.inf, dtype=dtype, device=tape.device)
        enough[2:] = 1.0 - SPENT
        said = Targets(answers=answers, enough=enough, keeps=number == 0, stuck=~listed)
        return said, Bought(torch.ones_like(memory.once))


def fully_invested(listed: Tensor, held: Tensor) -> Tensor:
    """The same weight [n, A] for every asset that is `listed` [n, A], and nothing in cash.

    A position in what is not, because it is halted or gone, cannot be sold: it stays as it is held
    [n, A], and the others share the rest.
    """
    stuck = torch.where(listed, 0.0, held).clamp_min(0.0)
    room = (1.0 - stuck.sum(-1, keepdim=True)).clamp_min(0.0)
    return stuck + room * equal_weights(listed, held.dtype)


def benchmark_rules(config: EnvConfig) -> EnvConfig:
    """The same costs for who asks for long-only weights, and waits for what is not filled."""
    orders = replace(config.orders, unfilled="carry")
    return replace(config, action="weights", max_gross=1.0, orders=orders)


def benchmark_names(symbols: Sequence[str], others: Sequence[str] = ()) -> tuple[str, ...]:
    """What benchmarks are called: an asset alone by its symbol, if none of `others` is called so.

    "alone" is put after the symbols that another strategy is called by.
    """
    taken = {*others, *BENCHMARKS}
    return (
        *BENCHMARKS,
        *(
            unlike(each, " alone", taken | set(symbols)) if each in taken else each
            for each in symbols
        ),
    )


def replay_benchmarks(
    tape: MarketTape,
    config: EnvConfig | None = None,
    *,
    alone: bool = True,
    others: Sequence[str] = (),
    progress: Progress = SILENT,
) -> History:
    """Let the benchmarks trade side by side from the tape's first bar to its last.

    Parameters
    ----------
    config
        Costs and initial cash; actions are long-only weights and orders are carried whatever it
        says.
    alone
        Whether each asset alone is among them, after equal weight and buy and hold.
    others
        Names that strategies have which they are to stand beside.
    """
    names = benchmark_names(tape.symbols, others)
    singles = range(tape.num_assets) if alone else ()
    return replay(
        tape,
        Benchmarks(),
        names if alone else BENCHMARKS,
        benchmark_rules(config or EnvConfig()),
        alone=singles,
        progress=progress,
    )
