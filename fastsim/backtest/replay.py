"""Decisions played through the market once, from its first bar to its last, and recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastsim.backtest.history import History, cost_parts
from fastsim.env.config import EnvConfig
from fastsim.env.core import Transition
from fastsim.env.decide import Decider, Seat
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.nested import combine, select, take, transform
from fastsim.env.observe import Observation
from fastsim.env.randomize import RandomizeConfig
from fastsim.errors import ActionError, ConfigError
from fastsim.market.tape import MarketTape
from fastsim.progress import SILENT, Progress

WHOLE_TAPE = EpisodeConfig(horizon=None, random_start=False, staggered=False)


def replay(
    tape: MarketTape,
    who: Decider | Sequence[Decider],
    names: Sequence[str],
    config: EnvConfig | None = None,
    *,
    progress: Progress = SILENT,
) -> History:
    """Let N portfolios trade side by side from the tape's first bar to its last.

    Parameters
    ----------
    who
        Who decides for each of them, or one for all of them together.
    names
        The portfolios, N of them.
    config
        Actions, costs and initial cash; its episode settings are ignored, nothing is drawn, and
        they share no market. One that is ruined keeps its last wealth and trades no more.
    progress
        Who is told how many bars are done.

    Raises
    ------
    ConfigError
        The tape holds several worlds, there are not as many deciders as names, or one of them
        cannot play by these rules.
    """
    if tape.worlds > 1:
        raise ConfigError(f"a replay is of one history, not of {tape.worlds}: use tape.world(i)")
    config = replace(
        config or EnvConfig(),
        episode=WHOLE_TAPE,
        autoreset="next_step",
        players=1,
        randomize=RandomizeConfig(),
    )
    seats = _seats(tape, who, len(names), config)
    env = PortfolioEnv(tape, len(names), config, backend="torch")  # it keeps single orders
    observation = env.reset()
    steps, alive = [], torch.ones(len(names), dtype=torch.bool, device=tape.device)
    wealth = [env.state.wealth]
    count = tape.last - tape.first
    with progress.task("replay", count, unit="bars") as task:
        for _ in range(count):
            actions = [seat(take(observation, rows)) for rows, seat in seats]
            transition = env.step(torch.cat(actions))
            observation = transition.observation
            for rows, seat in seats:
                seat.restart(transition.restarted[rows])
            steps.append(_record(transition, alive))
            wealth.append(torch.where(alive, transition.outcome.wealth, wealth[-1]))
            alive = alive & ~transition.terminated
            task.advance()
    record = combine(lambda *each: torch.stack(each), *steps)
    return History(
        names=tuple(names),
        symbols=tape.symbols,
        timestamps=tape.timestamps[tape.first : tape.last + 1],
        wealth=torch.stack(wealth),
        weights=record.weights,
        turnover=record.turnover,
        costs=record.costs,
    )


class _Record(NamedTuple):
    """What a history keeps of one step, or of all, beside the wealth."""

    weights: Tensor  # [N, A + 1]
    turnover: Tensor  # [N]
    costs: dict[str, Tensor]  # [N] each


def _seats(
    tape: MarketTape, who: Decider | Sequence[Decider], count: int, rules: EnvConfig
) -> list[tuple[slice, Seat[Decider]]]:
    """Rows of N portfolios, and who sits on them."""
    if not isinstance(who, Sequence):
        return [(slice(0, count), Seat(who, tape, rules, rows=count))]
    if len(who) != count:
        raise ConfigError(f"a replay needs who decides for each of {count} names, got {len(who)}")
    return [(slice(row, row + 1), Seat(each, tape, rules, rows=1)) for row, each in enumerate(who)]


def _record(transition: Transition, alive: Tensor) -> _Record:
    outcome = transition.outcome
    assert outcome.holdings is not None  # the reference keeps them
    risky = outcome.holdings / outcome.wealth_traded[:, None]
    weights = torch.cat([risky, 1.0 - risky.sum(-1, keepdim=True)], dim=-1)
    record = _Record(weights, outcome.turnover, cost_parts(outcome))
    return select(alive, record, transform(torch.zeros_like, record))


@dataclass(frozen=True, kw_only=True, eq=False)
class Schedule(Decider):
    """Target weights that were settled beforehand, for N portfolios from the first bar on."""

    weights: Tensor  # [steps, N, A]  a NaN row holds

    def begin(self, tape: MarketTape, rows: int, /) -> tuple[()]:
        """Nothing; ActionError if there are not weights for every step, row and asset."""
        wanted = (tape.last - tape.first, rows, tape.num_assets)
        if tuple(self.weights.shape) != wanted:
            raise ActionError(
                f"schedule must have shape {wanted} (steps, strategies, assets), "
                f"got {tuple(self.weights.shape)}"
            )
        return ()

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


def benchmark_schedule(tape: MarketTape) -> tuple[tuple[str, ...], Tensor]:
    """Names and target weights [T, N, A] of equal weight, buy and hold, and each asset alone."""
    steps, assets = tape.last - tape.first, tape.num_assets
    options = {"device": tape.device, "dtype": tape.dtype}
    schedule = torch.full((steps, 2 + assets, assets), torch.nan, **options)  # type: ignore[call-overload]
    schedule[:, 0] = schedule[0, 1] = 1.0 / assets
    schedule[0, 2:] = torch.eye(assets, **options)  # type: ignore[call-overload]
    return ("equal weight", "buy and hold", *tape.symbols), schedule


def join(*histories: History) -> History:
    """Put strategies that were replayed over the same bars side by side."""
    first = histories[0]
    kinds = {tuple(sorted(history.costs)): None for history in histories}
    if len(kinds) > 1:
        listed = " and ".join(map(str, kinds))
        raise ConfigError(f"histories that are joined must have the same cost parts, got {listed}")
    names = tuple(name for history in histories for name in history.names)
    figures = combine(
        lambda *each: torch.cat(each, dim=1), *(history.figures for history in histories)
    )
    return first._replace(names=names, **figures)
