"""Decisions played through the market once, from its first bar to its last, and recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fastsim.backtest.history import Alone, History, check_names, cost_parts
from fastsim.backtest.refused import Refusals
from fastsim.env.config import EnvConfig
from fastsim.env.core import Transition
from fastsim.env.decide import Decider, Seat
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.nested import take
from fastsim.env.observe import Observation
from fastsim.env.randomize import RandomizeConfig
from fastsim.env.state import EnvState
from fastsim.errors import ActionError, ConfigError
from fastsim.market.tape import MarketTape
from fastsim.progress import SILENT, Progress

WHOLE_TAPE = EpisodeConfig(horizon=None, random_start=False, staggered=False)
TOLD_TIMES = 400
"""How often progress is told of in a replay: often enough for a bar, too seldom to slow it."""


def replay(
    tape: MarketTape,
    who: Decider | Sequence[Decider],
    names: Sequence[str],
    config: EnvConfig | None = None,
    *,
    alone: Sequence[int] = (),
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
    alone
        The assets that the last S portfolios own, one each and no other. Of these the record keeps
        a weight instead of A + 1.
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
    env = PortfolioEnv(tape, len(names), config, backend="torch")  # it keeps single orders
    record = _Record(env, tape.last - tape.first, tuple(alone))
    observation = env.reset()
    with progress.task("replay", record.steps, unit="bars") as task:
        every = max(1, record.steps // TOLD_TIMES)
        for step in range(1, record.steps + 1):
            actions = torch.cat([seat(take(observation, rows)) for rows, seat in seats])
            state = env.stepper.state  # the reference writes into none of it
            transition = env.step(actions)
            record.add(state, actions, transition)
            observation = transition.observation
            for rows, seat in seats:
                seat.restart(transition.restarted[rows])
            if step % every == 0:
                task.advance(every)
        task.advance(record.steps % every)
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
) -> list[tuple[slice, Seat[Decider]]]:
    """Rows of N portfolios, and who sits on them."""
    for each in who if isinstance(who, Sequence) else [who]:
        if not all(hasattr(each, part) for part in ("answers", "study", "begin", "decide")):
            raise ConfigError(
                f"a replay is of deciders, got {type(each).__name__}: subclass "
                f"fastsim.env.decide.Decider"
            )
    if not isinstance(who, Sequence):
        return [(slice(0, count), Seat(who, tape, rules, rows=count))]
    if len(who) != count:
        raise ConfigError(f"a replay needs who decides for each of {count} names, got {len(who)}")
    return [(slice(row, row + 1), Seat(each, tape, rules, rows=1)) for row, each in enumerate(who)]


class _Record:
    """A history while it is written.

    It is laid out at once: many small pieces, kept between the large ones that a step takes and
    gives back, would leave holes in memory.
    """

    def __init__(self, env: PortfolioEnv, steps: int, alone: tuple[int, ...]) -> None:
        tape, count = env.tape, env.num_envs
        self.tape, self.steps, self.alone, self.step = tape, steps, alone, 0
        self.whole = count - len(alone)
        self.columns = torch.tensor(alone, dtype=torch.int64, device=tape.device)[:, None]  # [S, 1]
        self.refusals = Refusals(env.params)
        self.alive = torch.ones(count, dtype=torch.bool, device=tape.device)
        self.start = self.now = env.state.wealth  # [N]
        self.wealth = self.start.repeat(steps + 1, 1)
        self.weights = self.start.new_empty(steps, self.whole, tape.num_assets + 1)
        self.own = self.start.new_empty(steps, len(alone))
        self.names: tuple[tuple[str, ...], tuple[str, ...]] | None = None  # of costs, and of rules
        self.figures = self.start.new_empty(0)

    def add(self, state: EnvState, actions: Tensor, transition: Transition) -> None:
        """Write down one step from this state; the ruined hold, trade and pay nothing."""
        outcome, alive, bar = transition.outcome, self.alive, self.tape.first + self.step
        assert outcome.holdings is not None  # the reference keeps them
        solvent = (alive & (outcome.wealth_traded > 0))[:, None]
        risky = torch.where(solvent, outcome.holdings / outcome.wealth_traded[:, None], 0.0)
        whole = risky[: self.whole]
        self.weights[self.step, :, :-1] = whole
        self.weights[self.step, :, -1] = solvent[: self.whole, 0].to(whole) - whole.sum(-1)
        self.own[self.step] = risky[self.whole :].gather(1, self.columns)[:, 0]
        costs = cost_parts(outcome)
        refused = self.refusals.of(bar, state, actions, outcome)
        figures = [outcome.turnover, *costs.values(), *refused.values()]
        if self.names is None:
            self.names = tuple(costs), tuple(refused)
            self.figures = self.start.new_empty(self.steps, len(figures), len(alive))
        self.figures[self.step] = torch.where(alive, torch.stack(figures), 0.0)
        self.now = torch.where(alive, outcome.wealth, self.now)
        self.wealth[self.step + 1] = self.now
        self.alive = alive & ~transition.terminated
        self.step += 1

    def history(self, names: tuple[str, ...]) -> History:
        """What has been written."""
        assert self.names is not None  # a tape has a step
        turnover, *figures = self.figures.unbind(1)  # [T, N] each
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
