"""Decisions played through the market once, from its first bar to its last, and recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from fastsim.backtest.history import Alone, History, check_names, cost_parts
from fastsim.backtest.refused import Refusals
from fastsim.backtest.steps import Place, Steps, make_runners
from fastsim.env.accounting import Outcome
from fastsim.env.ahead import Ahead, settled
from fastsim.env.config import EnvConfig
from fastsim.env.decide import Decider, Seat
from fastsim.env.episode import EpisodeConfig
from fastsim.env.nested import combine
from fastsim.env.observe import Observation
from fastsim.env.randomize import RandomizeConfig
from fastsim.errors import ActionError, ConfigError
from fastsim.market.tape import MarketTape
from fastsim.progress import SILENT, Progress, Task

WHOLE_TAPE = EpisodeConfig(horizon=None, random_start=False, staggered=False)
TOLD_TIMES = 400
"""How often progress is told of in a replay: often enough for a bar, too seldom to slow it."""
BLOCK_NUMBERS = 2**18
"""Numbers, bars times portfolios times assets, that are worked on at a time."""
MOST_BARS = 4096
"""Of a block."""


def replay(
    tape: MarketTape,
    who: Decider | Sequence[Decider],
    names: Sequence[str],
    config: EnvConfig | None = None,
    *,
    alone: Sequence[int] = (),
    backend: Literal["auto", "torch"] = "auto",
    progress: Progress = SILENT,
) -> History:
    """Let N portfolios trade side by side from the tape's first bar to its last.

    Books are kept in float64, on the host, and so are histories. Steps are fused where the kernels
    cover the rules; those of deciders that say ahead how they decide are compiled with them.

    Parameters
    ----------
    who
        Who decides for each of them, or one for all of them together.
    names
        The portfolios, N of them.
    config
        Actions, costs and initial cash; its episode settings are ignored, nothing is drawn, and
        they share no market. One that is ruined keeps its last wealth and trades no more.
    alone
        The assets that the last S portfolios own, one each and no other. Of these the record keeps
        a weight instead of A + 1.
    backend
        The fastest way that there is, or the reference.
    progress
        Who is told how many bars are done.

    Raises
    ------
    ConfigError
        The tape holds several worlds, there are no names, or two that are the same, there are not
        as many deciders as names, or one of them cannot play by these rules.
    """
    if tape.worlds > 1:
        raise ConfigError(f"a replay is of one history, not of {tape.worlds}: use tape.world(i)")
    check_names("strategies", _names(names))
    _check_alone(alone, len(names), tape)
    if not isinstance(config, EnvConfig | None):
        raise ConfigError(f"a replay's rules must be an EnvConfig, got {type(config).__name__}")
    config = replace(
        config or EnvConfig(),
        episode=WHOLE_TAPE,
        autoreset="next_step",
        players=1,
        randomize=RandomizeConfig(),
    )
    seats = _seats(tape, who, len(names), config)
    runners = make_runners(tape, seats, config, fused=backend == "auto")
    record = _Record(tape, config, len(names), tuple(alone))
    order = torch.tensor([row for runner in runners for row in runner.rows]).argsort()
    block = max(1, min(MOST_BARS, BLOCK_NUMBERS // (len(names) * tape.num_assets)))
    with progress.task("replay", record.steps, unit="bars") as task:
        told = _Told(task, max(1, record.steps // TOLD_TIMES))
        for start in range(tape.first, tape.last, block):
            bars = slice(start, min(start + block, tape.last))
            parts = [runner.run(bars, told.reach) for runner in runners]
            record.add(bars, parts[0] if len(parts) == 1 else _side_by_side(parts, order))
            told.reach(bars.stop - tape.first)
        told.all(record.steps)
    return record.history(tuple(names))


def _names(names: Sequence[str]) -> tuple[str, ...]:
    if isinstance(names, str) or not names or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"a replay needs a sequence of names, one per strategy, got {names!r}")
    return tuple(names)


def _check_alone(alone: Sequence[int], count: int, tape: MarketTape) -> None:
    if len(alone) > count or any(not 0 <= asset < tape.num_assets for asset in alone):
        raise ConfigError(
            f"alone must number assets from 0 to {tape.num_assets - 1}, at most one for each of "
            f"{count} strategies, got {list(alone)}"
        )


def _seats(
    tape: MarketTape, who: Decider | Sequence[Decider], count: int, rules: EnvConfig
) -> list[Place]:
    """Who sits on which of N portfolios."""
    for each in who if isinstance(who, Sequence) else [who]:
        if not all(hasattr(each, part) for part in ("answers", "study", "begin", "decide")):
            raise ConfigError(
                f"a replay is of deciders, got {type(each).__name__}: subclass "
                f"fastsim.env.decide.Decider"
            )
    if not isinstance(who, Sequence):
        return [Place(tuple(range(count)), Seat(who, tape, rules, rows=count))]
    if len(who) != count:
        raise ConfigError(f"a replay needs who decides for each of {count} names, got {len(who)}")
    return [Place((row,), Seat(each, tape, rules, rows=1)) for row, each in enumerate(who)]


def _side_by_side(parts: Sequence[Steps], order: Tensor) -> Steps:
    """Steps of all portfolios, in their order."""
    return combine(lambda *each: torch.cat(each, dim=1)[:, order], *parts)


class _Told:
    """Tells a task of bars, at least so many at a time."""

    def __init__(self, task: Task, least: int) -> None:
        self._task, self._least, self._done = task, least, 0

    def reach(self, bars: int) -> None:
        """So many bars are done in all."""
        if bars - self._done >= self._least:
            self.all(bars)

    def all(self, bars: int) -> None:
        """So many bars are done, and it is to be told."""
        if bars > self._done:
            self._task.advance(bars - self._done)
            self._done = bars


class _Record:
    """A history while it is written, block by block.

    It is laid out at once: many small pieces, kept between the large ones that a block takes and
    gives back, would leave holes in memory. Wealth is kept in float64, all else in the tape's type.
    """

    def __init__(
        self, tape: MarketTape, config: EnvConfig, count: int, alone: tuple[int, ...]
    ) -> None:
        self.tape, self.steps, self.alone = tape, tape.last - tape.first, alone
        self.whole, self.count = count - len(alone), count
        self.dtype = torch.promote_types(tape.dtype, torch.float32)
        self.columns = torch.tensor(alone, dtype=torch.int64)[None, :, None]  # [1, S, 1]
        self.refusals = Refusals(tape, config)
        self.alive = torch.ones(count, dtype=torch.bool)
        self.wealth = torch.empty(self.steps + 1, count, dtype=torch.float64)
        self.weights = torch.empty(self.steps, self.whole, tape.num_assets + 1, dtype=self.dtype)
        self.own = torch.empty(self.steps, len(alone), dtype=self.dtype)
        self.names: tuple[tuple[str, ...], tuple[str, ...]] | None = None  # of costs, and of rules
        self.figures = torch.empty(0)

    def add(self, bars: slice, steps: Steps) -> None:
        """Write down steps from these bars; the ruined hold, trade and pay nothing."""
        rows = slice(bars.start - self.tape.first, bars.stop - self.tape.first)
        outcome, ended = steps.outcome, steps.terminated.cumsum(0) > 0  # [B, N]
        alive = self.alive & torch.cat([torch.zeros_like(ended[:1]), ended[:-1]]).logical_not()
        self._add_weights(rows, outcome, alive & (outcome.wealth_traded > 0))
        costs = cost_parts(outcome)
        market = self.tape.next.take(bars).to("cpu", torch.float64)
        refused = self.refusals.of(market, steps)
        figures = [outcome.turnover, *costs.values(), *refused.values()]
        if self.names is None:
            self.names = tuple(costs), tuple(refused)
            self.figures = self.weights.new_empty(len(figures), self.steps, self.count)
            self.wealth[0] = outcome.wealth_before[0]
        for place, figure in enumerate(figures):
            self.figures[place, rows] = torch.where(alive, figure, 0.0).to(self.dtype)
        levels = torch.cat([self.wealth[rows.start, None], outcome.wealth])  # [B + 1, N]
        latest = levels.gather(0, alive.cumsum(0))  # of the last step that was taken
        self.wealth[rows.start + 1 : rows.stop + 1] = latest
        self.alive = alive[-1] & ~steps.terminated[-1]

    def _add_weights(self, rows: slice, outcome: Outcome, solvent: Tensor) -> None:
        assert outcome.holdings is not None  # asked for
        share = torch.where(solvent, 1.0 / outcome.wealth_traded, 0.0)[..., None]
        risky = outcome.holdings * share  # [B, N, A]
        whole = risky[:, : self.whole]
        self.weights[rows, :, :-1] = whole
        self.weights[rows, :, -1] = solvent[:, : self.whole].to(whole) - whole.sum(-1)
        own = risky[:, self.whole :]
        self.own[rows] = own.gather(2, self.columns.expand(len(own), -1, -1))[..., 0]

    def history(self, names: tuple[str, ...]) -> History:
        """What has been written."""
        assert self.names is not None  # a tape has a step
        turnover, *figures = self.figures  # [T, N] each
        costs, refused = self.names
        return History(
            names=names,
            symbols=self.tape.symbols,
            timestamps=self.tape.timestamps[self.tape.first : self.tape.last + 1],
            calendar=self.tape.timestamps,
            wealth=self.wealth,
            weights=self.weights,
            turnover=turnover,
            costs=dict(zip(costs, figures, strict=False)),
            alone=Alone(self.alone, self.own),
            refused=dict(zip(refused, figures[len(costs) :], strict=True)),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Schedule(Decider):
    """Target weights that were settled beforehand, for N portfolios from the first bar on."""

    weights: Tensor  # [steps, N, A]  a NaN row holds

    def begin(self, tape: MarketTape, rows: int, /) -> tuple[()]:
        """Nothing; ActionError if there are not weights for every step, row and asset."""
        wanted = (tape.last - tape.first, rows, tape.num_assets)
        if not isinstance(self.weights, Tensor):
            raise ActionError(f"schedule must be a tensor, got {type(self.weights).__name__}")
        if tuple(self.weights.shape) != wanted:
            raise ActionError(
                f"schedule must have shape {wanted} (steps, strategies, assets), "
                f"got {tuple(self.weights.shape)}"
            )
        return ()

    def ahead(self, tape: MarketTape, bars: Tensor, memory: Any, /) -> tuple[Ahead, Any] | None:
        """Its weights at these bars [B]."""
        if type(self) is not Schedule:
            return None
        return settled(self.weights[bars - tape.first], tape.num_assets), memory

    def decide(self, tape: MarketTape, seen: Observation, memory: Any, /) -> tuple[Tensor, Any]:
        """Weights [N, A] of the bar."""
        columns = torch.arange(len(seen.bar), device=seen.bar.device)
        return self.weights[seen.bar - tape.first, columns], memory


def replay_schedule(
    tape: MarketTape,
    schedule: Tensor,
    names: Sequence[str],
    config: EnvConfig | None = None,
    *,
    progress: Progress = SILENT,
) -> History:
    """Replay given target weights [T, N, A], one row per step; a NaN row holds.

    Raises
    ------
    ActionError
        The schedule does not have one row per step, or not the tape's assets.
    """
    if config is not None and config.action == "logits":
        raise ConfigError('a schedule holds weights: use action="weights" or "signed"')
    return replay(tape, Schedule(weights=schedule), names, config, progress=progress)
