"""Portfolios carried through a market block by block: compiled where that is possible.

Books are kept in float64 on the host whatever the market's tables are: a year has half a million
minutes, over which float32 would lose four digits. Deciders see the market as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from fastsim.env.accounting import Outcome
from fastsim.env.config import EnvConfig
from fastsim.env.decide import Decider, Seat
from fastsim.env.environment import PortfolioEnv
from fastsim.env.kernels.coverage import COVERAGE, uncovered
from fastsim.env.nested import combine, take, transform
from fastsim.env.observe import Observation, observe
from fastsim.env.state import EnvState, begin_state, check_fit, equipped, make_params
from fastsim.env.window import BAR_COLUMNS
from fastsim.market.costs import make_friction
from fastsim.market.tape import MarketTape

log = logging.getLogger(__name__)


class Place(NamedTuple):
    """Who decides for which portfolios."""

    rows: tuple[int, ...]
    seat: Seat[Decider]


class Steps(NamedTuple):
    """What became of n portfolios in B steps, on the host."""

    actions: Tensor  # [B, n, W]
    open_orders: Tensor  # [B, n, A]  before the step; without columns where none are carried
    outcome: Outcome  # of tensors [B, n, ...]
    terminated: Tensor  # [B, n]  bool


class Runner(Protocol):
    """Some of the portfolios on their way through the market."""

    rows: tuple[int, ...]
    """Which of them."""

    def run(self, bars: slice, tell: Callable[[int], None]) -> Steps:
        """Go on through these bars; if it takes a while, `tell` hears how many are done in all."""
        ...


def make_runners(
    tape: MarketTape, seats: Sequence[Place], config: EnvConfig, *, fused: bool
) -> list[Runner]:
    """Who carries the portfolios of these seats: one for each that is compiled, one for the rest.

    Without `fused` it is the reference; else that steps where the kernels do not cover the rules.
    """
    config = replace(config, observation="index", window_columns=BAR_COLUMNS)
    check_fit(tape, config, markets=1)
    tape = equipped(tape, config)
    missing = _uncovered(tape, config) if fused else []
    if missing:
        log.info("a replay steps on torch: numba does not cover %s", ", ".join(missing))
    fused = fused and not missing
    first = torch.tensor([tape.first], device=tape.device)
    compiled = [place for place in seats if fused and place.seat.ahead(first) is not None]
    others = [place for place in seats if place not in compiled]
    runners: list[Runner] = [Compiled(tape, place, config) for place in compiled]
    return [*runners, BarByBar(tape, others, config, fused=fused)] if others else runners


class Compiled:
    """Portfolios of who says ahead how decisions come about: many bars in one call."""

    def __init__(self, tape: MarketTape, place: Place, config: EnvConfig) -> None:
        self.rows, self._seat, self._tape, self._config = *place, tape, config
        self._friction = make_friction(config.costs, len(self.rows), dtype=torch.float64)
        self._alive = torch.ones(len(self.rows), dtype=torch.bool)
        self._state: EnvState | None = None
        self._seen = torch.empty(0)

    def run(self, bars: slice, tell: Callable[[int], None]) -> Steps:
        """Go on through these bars, which is done in no time."""
        params = make_params(books(self._tape, bars), self._friction, self._config)
        if self._state is None:
            number = torch.zeros(len(self.rows), dtype=torch.int64)
            self._state = begin_state(params, number, number)
            self._seen = observe(params, self._state).portfolio.contiguous()
        said = self._seat.ahead(torch.arange(bars.start, bars.stop, device=self._tape.device))
        assert said is not None, "who says how decisions come about says so of all of them"
        how, self._seat.memory = said
        # Kernels are imported when they are wanted: numba alone takes half a second.
        run_ahead = import_module("fastsim.env.kernels.numba_ahead").run_ahead
        run = run_ahead(params, self._state, how, self._seen, self._alive)
        self._state = run.state

        def by_bar(rows: Tensor) -> Tensor:
            return rows.view(bars.stop - bars.start, len(self.rows), *rows.shape[1:])

        return Steps(
            actions=by_bar(run.actions),
            open_orders=by_bar(run.open_orders),
            outcome=transform(by_bar, run.transition.outcome),
            terminated=by_bar(run.transition.terminated),
        )


class BarByBar:
    """Portfolios of anybody else: each is asked at each bar."""

    def __init__(
        self, tape: MarketTape, seats: Sequence[Place], config: EnvConfig, *, fused: bool
    ) -> None:
        self.rows = tuple(row for place in seats for row in place.rows)
        self._seats, start = [], 0
        for rows, seat in seats:
            self._seats.append((slice(start, start + len(rows)), seat))
            start += len(rows)
        self._tape = tape
        self._env = PortfolioEnv(
            books(tape) if fused else tape.to(tape.device, torch.float64),
            len(self.rows),
            config,
            backend="numba" if fused else "torch",
            single_orders=True,
        )
        self._none = self._env.state.open_orders[:, :0]
        self._seen = self._shown(self._env.reset())

    def run(self, bars: slice, tell: Callable[[int], None]) -> Steps:
        """Go on through these bars, one after the other."""
        steps = []
        for bar in range(bars.start, bars.stop):
            steps.append(self._step())
            tell(bar + 1 - self._tape.first)
        return transform(Tensor.cpu, combine(lambda *each: torch.stack(each), *steps))

    def _step(self) -> Steps:
        asked = [seat(take(self._seen, rows)) for rows, seat in self._seats]
        actions = torch.cat(asked).to(self._env.tape.device, self._env.tape.dtype)
        open_orders = self._none
        if self._env.config.orders.carries:
            open_orders = self._env.stepper.state.open_orders.clone()  # a fused step writes into it
        transition = self._env.step(actions)
        self._seen = self._shown(transition.observation)
        for rows, seat in self._seats:
            seat.restart(transition.restarted[rows].to(self._tape.device))
        return Steps(actions, open_orders, transition.outcome, transition.terminated)

    def _shown(self, observation: Observation) -> Observation:
        """An observation where the market lies, in its type."""
        return Observation(
            bar=observation.bar.to(self._tape.device),
            portfolio=observation.portfolio.to(self._tape.device, self._tape.dtype),
        )


def books(tape: MarketTape, bars: slice | None = None) -> MarketTape:
    """What steps from these bars meet, or from any, in float64 on the host; features are left out.

    It ends with the bar that the last step leads to.
    """
    if bars is not None:
        tape = replace(
            tape.take(slice(bars.start, bars.stop + 1)), first=0, last=bars.stop - bars.start
        )
    known = tape.known._replace(
        features=tape.known.features[..., :0], bars=tape.known.bars[..., :0]
    )
    return replace(tape, feature_names=(), rising=(), known=known).to("cpu", torch.float64)


def _uncovered(tape: MarketTape, config: EnvConfig) -> list[str]:
    """What kernels do not know of these rules."""
    part = books(tape, slice(tape.first, tape.first + 1))
    params = make_params(part, make_friction(config.costs, 1, dtype=part.dtype), config)
    number = torch.zeros(1, dtype=torch.int64)
    return uncovered(params, begin_state(params, number, number), COVERAGE["numba"])
