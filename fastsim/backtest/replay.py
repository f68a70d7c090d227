"""Decisions played through the market once, from its first bar to its last, and recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from fastsim.backtest.history import History, cost_parts
from fastsim.env.core import EnvConfig, Transition
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.nested import combine, select, transform
from fastsim.env.observe import Observation
from fastsim.env.randomize import RandomizeConfig
from fastsim.errors import ActionError, ConfigError
from fastsim.market.tape import MarketTape

Decide = Callable[[int, Observation], Tensor]
"""Step number and observation of N portfolios to their actions [N, width]; NaN rows hold."""

WHOLE_TAPE = EpisodeConfig(horizon=None, random_start=False, staggered=False)


def replay(
    tape: MarketTape, decide: Decide, names: Sequence[str], config: EnvConfig | None = None
) -> History:
    """Let N strategies trade from the tape's first bar to its last.

    Parameters
    ----------
    decide
        Called once per step for all strategies together.
    names
        The strategies, N of them.
    config
        Actions, costs and initial cash; its episode settings are ignored, nothing is drawn, and
        strategies share no market. One that is ruined keeps its last wealth and trades no more.
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
    env = PortfolioEnv(tape, len(names), config, backend="torch")  # it keeps single orders
    observation = env.reset()
    steps, alive = [], torch.ones(len(names), dtype=torch.bool, device=tape.device)
    wealth = [env.state.wealth]
    for number in range(tape.last - tape.first):
        transition = env.step(decide(number, observation))
        observation = transition.observation
        steps.append(_record(transition, alive))
        wealth.append(torch.where(alive, transition.outcome.wealth, wealth[-1]))
        alive = alive & ~transition.terminated
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


def _record(transition: Transition, alive: Tensor) -> _Record:
    outcome = transition.outcome
    assert outcome.holdings is not None  # the reference keeps them
    risky = outcome.holdings / outcome.wealth_traded[:, None]
    weights = torch.cat([risky, 1.0 - risky.sum(-1, keepdim=True)], dim=-1)
    record = _Record(weights, outcome.turnover, cost_parts(outcome))
    return select(alive, record, transform(torch.zeros_like, record))


def replay_schedule(
    tape: MarketTape, schedule: Tensor, names: Sequence[str], config: EnvConfig | None = None
) -> History:
    """Replay given target weights [T, N, A], one row per step; a NaN row holds.

    Raises
    ------
    ActionError
        The schedule does not have one row per step, or not the tape's assets.
    """
    wanted = (tape.last - tape.first, len(names), tape.num_assets)
    if tuple(schedule.shape) != wanted:
        raise ActionError(
            f"schedule must have shape {wanted} (steps, strategies, assets), "
            f"got {tuple(schedule.shape)}"
        )
    config = config or EnvConfig()
    if config.action == "logits":
        raise ConfigError('a schedule holds weights: use action="weights" or "signed"')
    return replay(tape, lambda number, _: schedule[number], names, config)


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
