"""The record of a replay: what several strategies were worth, held, traded and paid."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastsim.data.dates import show_span
from fastsim.env.accounting import Outcome
from fastsim.env.nested import combine
from fastsim.errors import ConfigError, DataError
from fastsim.stats.metrics import periods_per_year

BORROW = "borrow"


class Alone(NamedTuple):
    """What S strategies held that own one asset each and have the rest in cash."""

    assets: tuple[int, ...]  # S  which of the market's
    weights: Tensor  # [T, S]  in it, after each trade


NOBODY = Alone((), torch.zeros(0, 0))
NOTHING: Mapping[str, Tensor] = {}


class History(NamedTuple):
    """N strategies over T steps on A assets. Money is in account currency.

    The last S of them may own one asset alone: what they held takes T x S numbers instead of
    T x S x A.
    """

    names: tuple[str, ...]  # N
    symbols: tuple[str, ...]  # A
    timestamps: NDArray[np.datetime64]  # [T + 1]  closes: the first decision, then every mark
    wealth: Tensor  # [T + 1, N]  marked at those closes
    weights: Tensor  # [T, N - S, A + 1]  held after each trade, of wealth after costs; cash last
    turnover: Tensor  # [T, N]  sum over assets of |traded| / wealth before the trade
    costs: Mapping[str, Tensor]  # [T, N] each, by the name of the cost part
    alone: Alone = NOBODY
    refused: Mapping[str, Tensor] = NOTHING  # [T, N] each, by the rule that kept orders from being
    #                                 filled, or forced some: their value, of wealth after the trade
    calendar: NDArray[np.datetime64] | None = None  # of the whole market, of which this is a part

    @property
    def simple_returns(self) -> Tensor:
        """Wealth changes [T, N], relative to the wealth before."""
        return self.wealth[1:] / self.wealth[:-1] - 1.0

    @property
    def steps_per_year(self) -> float:
        """By the whole calendar of the market: a part may be too short to show its week."""
        return periods_per_year(self.timestamps if self.calendar is None else self.calendar)

    @property
    def cost(self) -> Tensor:
        """Everything paid per step [T, N]."""
        return sum(self.costs.values(), torch.zeros_like(self.turnover))

    @property
    def singles(self) -> tuple[int, ...]:
        """Which strategies are one asset alone: the last S, or else those named after one."""
        count = len(self.names)
        if self.alone.assets:
            return tuple(range(count - len(self.alone.assets), count))
        return tuple(place for place in range(count) if self.names[place] in self.symbols)

    def held(self, column: int) -> Tensor:
        """Weights [T, A + 1] of one strategy, cash last."""
        whole = self.weights.shape[1]
        if column < whole:
            return self.weights[:, column]
        own = self.alone.weights[:, column - whole]
        weights = own.new_zeros(len(own), len(self.symbols) + 1)
        weights[:, self.alone.assets[column - whole]] = own
        weights[:, -1] = 1.0 - own
        return weights

    def column(self, name: str, role: str = "strategy") -> int:
        """Where the strategy `name` stands among N.

        Raises
        ------
        ConfigError
            No strategy is called so; `role` is what the message says it was asked for as.
        """
        if name not in self.names:
            known = ", ".join(repr(known) for known in self.names)
            raise ConfigError(f"{role} must be one of the strategies {known}, got {name!r}")
        return self.names.index(name)


def check_history(history: History) -> None:
    """Raise ConfigError or DataError for a record that cannot be judged.

    That is one without a strategy or a step, whose fields do not fit together, whose strategies
    share a name, whose stamps do not increase, or in which something was worth nothing at first or
    was not a number.
    """
    check_names("strategies", history.names)
    steps, count = len(history.timestamps) - 1, len(history.names)
    if steps < 1 or count < 1:
        raise DataError(
            f"a history needs at least one strategy and two closes, got {count} strategies and "
            f"{steps + 1} closes: replay a longer span"
        )
    turns = np.flatnonzero(np.diff(history.timestamps) <= np.timedelta64(0))
    if len(turns):
        before, after = history.timestamps[turns[0] :][:2]
        raise DataError(f"timestamps must increase, got {before} before {after}")
    each = {"turnover": history.turnover} | dict(history.costs) | dict(history.refused)
    own, assets = history.alone, len(history.symbols)
    shapes = {name: (figure, (steps, count)) for name, figure in each.items()} | {
        "wealth": (history.wealth, (steps + 1, count)),
        "weights": (history.weights, (steps, count - len(own.assets), assets + 1)),
    }
    if own.assets:
        shapes["alone.weights"] = (own.weights, (steps, len(own.assets)))
    for name, (figure, wanted) in shapes.items():
        if tuple(figure.shape) != wanted:
            raise DataError(
                f"{name} of a history of {count} strategies, {assets} assets and {steps} steps "
                f"must have shape {wanted}, got {tuple(figure.shape)}"
            )
        if not bool(figure.isfinite().all()):
            place = (~figure.isfinite()).nonzero()[0].tolist()
            raise DataError(
                f"{name} of a history must be finite numbers, got {float(figure[tuple(place)])} "
                f"at {place}: mend what it was recorded from"
            )
    poor = (history.wealth[0] <= 0).nonzero().flatten().tolist()
    if poor:
        raise DataError(
            f"wealth of a history must begin above zero, got {float(history.wealth[0, poor[0]])} "
            f"for {history.names[poor[0]]!r}"
        )


def join(*histories: History) -> History:
    """Put strategies that were replayed over the same bars side by side.

    Raises
    ------
    ConfigError
        There is nothing to join, or the histories differ in bars, symbols or cost parts, or two
        strategies share a name, or assets alone are not all in the last history.
    """
    _check_join(histories)
    first, last = histories[0], histories[-1]

    def beside(*figures: Tensor) -> Tensor:
        return torch.cat(figures, dim=1)

    rules = dict.fromkeys(rule for history in histories for rule in history.refused)
    refused = [
        {rule: history.refused.get(rule, torch.zeros_like(history.turnover)) for rule in rules}
        for history in histories
    ]
    return first._replace(
        names=tuple(name for history in histories for name in history.names),
        wealth=beside(*(history.wealth for history in histories)),
        weights=beside(*(history.weights for history in histories)),
        turnover=beside(*(history.turnover for history in histories)),
        costs=combine(beside, *(history.costs for history in histories)),
        alone=last.alone,
        refused=combine(beside, *refused),
    )


def _check_join(histories: Sequence[History]) -> None:
    if not histories:
        raise ConfigError("there is nothing to join: give at least one history")
    kinds = {tuple(sorted(history.costs)): None for history in histories}
    if len(kinds) > 1:
        listed = " and ".join(map(str, kinds))
        raise ConfigError(f"histories that are joined must have the same cost parts, got {listed}")
    first = histories[0]
    for other in histories[1:]:
        if other.symbols != first.symbols or not np.array_equal(other.timestamps, first.timestamps):
            raise ConfigError(
                f"histories that are joined must be of the same bars and assets, got "
                f"{_span(first)} and {_span(other)}: replay both on one tape"
            )
    early = next((each for each in histories[:-1] if each.alone.assets), None)
    if early is not None:
        raise ConfigError(
            f"the history with assets alone must come last where histories are joined, "
            f"got {early.names[-1]!r} before {histories[-1].names[0]!r}"
        )


def _span(history: History) -> str:
    return f"{len(history.symbols)} assets over {show_span(history.timestamps)}"


def check_names(kind: str, names: tuple[str, ...]) -> None:
    """Raise ConfigError if two of these share a name."""
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(
            f"names of {kind} must differ, got {twice!r} twice in {list(names)}: rename one of them"
        )


def cost_parts(outcome: Outcome) -> dict[str, Tensor]:
    """What each environment paid [N] in one step, by the name of the cost part; "borrow" last.

    Of perpetual futures funding, which may be received, and fees of liquidations are among them.
    """
    settled, parts = outcome.settlement, outcome.all_costs
    if settled is not None:
        parts |= {"funding": settled.funding, "liquidation_fee": settled.liquidation_fee}
    return {**parts, BORROW: outcome.borrow}


def unlike(name: str, suffix: str, taken: Collection[str]) -> str:
    """The name itself, or where it is taken, with the suffix as often as it takes."""
    while name in taken:
        name += suffix
    return name
