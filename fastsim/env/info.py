"""What is told of a step beside its observation: one place for every adapter and backend."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from typing import Any, overload

import torch
from torch import Tensor

from fastsim.env.core import Transition
from fastsim.env.observe import Observation
from fastsim.env.slots import masked, to_slots
from fastsim.env.state import EnvParams
from fastsim.market.costs import ALWAYS
from fastsim.market.features import FEATURE_LIMIT

WEALTH = ("wealth_before", "wealth_at_fill", "wealth_traded", "wealth")
ORDERS = ("turnover", "unfilled")
EXITS = ("stopped", "taken")
CARRY = ("borrow", "interest")
SETTLED = ("funding", "liquidated", "liquidation_fee", "insured")


def figure_names(costs: Iterable[str]) -> tuple[str, ...]:
    """Names of a step's figures, where trades are charged these costs."""
    return ("reward", *WEALTH, *ORDERS, *costs, *CARRY)


def figures_of(transition: Transition) -> dict[str, Tensor]:
    """Figures [N] of a step under their names, in their order.

    Those of exits and of perpetual futures, if there are any, come last.
    """
    outcome = transition.outcome
    named = {name: getattr(outcome, name) for name in (*WEALTH, *ORDERS, *CARRY)}
    costs = outcome.all_costs
    named |= {"reward": transition.reward} | costs
    exits = {} if outcome.exits is None else {n: getattr(outcome.exits, n) for n in EXITS}
    told, settlement = {name: named[name] for name in figure_names(costs)}, outcome.settlement
    settled = {} if settlement is None else {n: getattr(settlement, n) for n in SETTLED}
    return told | exits | settled


def told_names(
    costs: Iterable[str], *, exits: bool = False, perpetual: bool = False
) -> tuple[str, ...]:
    """Keys of every `info`, where trades are charged these costs.

    Where `exits` may happen, and where `perpetual` futures are traded, there are more of them.
    """
    orders = (*ORDERS, *(EXITS if exits else ()))
    carry = (*CARRY, *(SETTLED if perpetual else ()))
    return ("bar", "date", "wealth", "weights", *orders, "cost", *costs, *carry, "invalid_actions")


MEANING = {
    "bar": ("int64", "row of the tape at whose close the step ended, before any restart"),
    "date": ("int64", "its time, in nanoseconds since 1970, UTC: `numpy.datetime64(date, 'ns')`"),
    "wealth": ("float", "at that close, in account currency"),
    "weights": (
        "float [A]",
        "executed: held right after the trade, of the wealth after costs, by slot as actions are; "
        "cash is 1 less their sum. NaN in a step that ends in ruin, or so near that a weight at "
        "the close is beyond 10",
    ),
    "turnover": ("float", "traded value, both sides, over the wealth before the trade"),
    "unfilled": (
        "float",
        "value of what was asked for and not traded, both sides: participation, halts, bans on "
        "shorts and least commissions refused it; in account currency",
    ),
    "stopped": (
        "float",
        "value of positions that a stop closed within the bar; where `orders` has any, as `taken`",
    ),
    "taken": ("float", "value of positions that were closed at their target"),
    "cost": (
        "float",
        "of the trade, of exits and of a margin call, in account currency: the parts below",
    ),
    "borrow": ("float", "fee on shorts until the close, apart from `cost`"),
    "interest": ("float", "earned by cash until the close"),
    "funding": (
        "float",
        "paid by perpetual futures until the close, negative if received, apart from `cost`; where "
        "`perpetual` trades any, as the next three",
    ),
    "liquidated": ("float", "value of positions that the exchange liquidated"),
    "liquidation_fee": ("float", "charged for that, as far as their margin lasted; likewise apart"),
    "insured": ("float", "loss beyond their margin, which the insurance fund bore"),
    "invalid_actions": ("int64", "actions that were not finite and held, since the last reset"),
}
"""What `info` tells of a step of each row: type and meaning. Parts of the cost are told by their
own names. After a reset, and for a row that restarted, nothing has happened: there was no trade."""


class Source:
    """What there is to tell of a step of N rows; each of it worked out once, if it is asked for."""

    __slots__ = ("_told", "_work_out", "names")

    def __init__(self, names: tuple[str, ...], work_out: Callable[[str], Any]) -> None:
        self.names, self._work_out = names, work_out
        self._told: dict[str, Any] = {}

    def tell(self, name: str) -> Any:
        """[N] or [N, A]."""
        if name not in self._told:
            self._told[name] = self._work_out(name)
        return self._told[name]


class Info(dict[str, Any]):
    """A dictionary whose values are worked out when they are looked at: of all rows, or of one.

    A batch takes its step in less time than it takes to divide its holdings by its wealth. Made of
    keywords alone it is a dictionary of them: so do clients copy mappings.
    """

    __slots__ = ("_row", "_source")

    def __init__(
        self, source: Source | None = None, row: int | None = None, /, **known: Any
    ) -> None:
        if known:
            self.update(known)
        self._source = source
        self._row = row

    def __missing__(self, name: str) -> Any:
        if self._source is None or name not in self._source.names:
            raise KeyError(name)
        value = self._source.tell(name)
        if self._row is not None:
            value = value[self._row]
            value = deepcopy(value) if value.ndim else value.item()  # a row of its own
        self[name] = value
        return value

    def __contains__(self, name: object) -> bool:
        if super().__contains__(name):
            return True
        return self._source is not None and name in self._source.names

    def get(self, name: str, default: Any = None) -> Any:
        """The value of `name`, if there is one."""
        try:
            return self[name]
        except KeyError:
            return default

    def told(self) -> dict[str, Any]:
        """Everything, worked out: from then on it is as any dictionary."""
        if self._source is not None:
            told = {name: self[name] for name in self._source.names}
            self._source = None
            for name in super().__iter__():
                told.setdefault(name, self[name])
            super().clear()
            self.update(told)
        return self

    def __iter__(self) -> Iterator[str]:
        self.told()
        return super().__iter__()

    def __len__(self) -> int:
        self.told()
        return super().__len__()

    def __eq__(self, other: object) -> bool:
        self.told()
        return super().__eq__(other)

    __hash__ = None

    def __repr__(self) -> str:
        self.told()
        return super().__repr__()

    def __or__(self, other: Any) -> Any:
        return {**self, **other}

    def __ror__(self, other: Any) -> Any:
        return {**other, **self}

    def __delitem__(self, name: str) -> None:
        self.told()
        super().__delitem__(name)

    def __reduce__(self) -> Any:
        return dict, (dict(self),)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A row's is worked out when it is looked at, as its original: some copy every step."""
        if self._source is None or self._row is None:
            return deepcopy(dict(self), memo)
        same = Info(self._source, self._row)
        for name in super().__iter__():
            same[name] = deepcopy(super().__getitem__(name), memo)
        return same

    def keys(self) -> Any:
        """Its names."""
        self.told()
        return super().keys()

    def values(self) -> Any:
        """All values."""
        self.told()
        return super().values()

    def items(self) -> Any:
        """Names with their values."""
        self.told()
        return super().items()

    def clear(self) -> None:
        """Leave nothing to tell."""
        self._source = None
        super().clear()

    def copy(self) -> dict[str, Any]:
        """A dictionary with the same values."""
        return dict(self)

    def pop(self, *arguments: Any) -> Any:
        """Take a value out."""
        self.told()
        return super().pop(*arguments)

    def popitem(self) -> tuple[str, Any]:
        """Take the last value out."""
        self.told()
        return super().popitem()

    def setdefault(self, name: str, default: Any = None) -> Any:
        """The value of `name`, which is set if there is none."""
        self.told()
        return super().setdefault(name, default)


class RowInfos(Sequence[Info]):
    """Infos of N rows, each made when it is looked at; what is written into one stays there."""

    __slots__ = ("_made", "_rows", "_source")

    def __init__(self, source: Source, rows: int) -> None:
        self._source, self._rows = source, rows
        self._made: dict[int, Info] = {}

    def __len__(self) -> int:
        return self._rows

    @overload
    def __getitem__(self, row: int) -> Info: ...

    @overload
    def __getitem__(self, row: slice) -> list[Info]: ...

    def __getitem__(self, row: int | slice) -> Info | list[Info]:
        if isinstance(row, slice):
            return [self[each] for each in range(*row.indices(self._rows))]
        place = row + self._rows if row < 0 else row
        if not 0 <= place < self._rows:
            raise IndexError(f"no row {row} of {self._rows}")
        if place not in self._made:
            self._made[place] = Info(self._source, int(place))
        return self._made[place]


def tell_step(params: EnvParams, transition: Transition, invalid: Tensor) -> Source:
    """What there is to tell of a step; `invalid` [N] are the actions so far that were not finite.

    Tensors are on the device of the market.
    """
    names = _names(params)

    def work_out(name: str) -> Tensor:
        if name == "invalid_actions":
            return invalid
        if name == "bar":
            return closing(transition).bar
        if name == "date":
            return params.tape.dates[closing(transition).bar]
        if name == "weights":
            return executed_weights(params, transition)
        if name == "cost":
            return transition.outcome.total_cost
        return figures_of(transition)[name]

    return Source(names, work_out)


def tell_start(params: EnvParams, seen: Observation, wealth: Tensor) -> Source:
    """What there is to tell of rows that are where they are: nothing has happened."""
    nothing = torch.zeros_like(wealth)
    known = {
        "bar": seen.bar,
        "wealth": wealth,
        "weights": seen.portfolio[:, : params.tape.num_assets],
        "invalid_actions": torch.zeros_like(seen.bar),
    }

    def work_out(name: str) -> Tensor:
        return params.tape.dates[seen.bar] if name == "date" else known.get(name, nothing)

    return Source(_names(params), work_out)


def on_host(source: Source) -> Source:
    """The same in NumPy."""
    return Source(source.names, lambda name: source.tell(name).numpy(force=True))


def closing(transition: Transition) -> Observation:
    """What was seen at the close of a step, before any restart in it."""
    final = transition.final_observation
    return transition.observation if final is None else final


def executed_weights(params: EnvParams, transition: Transition) -> Tensor:
    """Weights [N, A] right after the trade; see `MEANING`.

    Fused steps keep no single orders. But returns from the fill to the close are those of the tape,
    or of the episode, so what was held follows from what is seen at the close.
    """
    outcome, seen, assets = transition.outcome, closing(transition), params.tape.num_assets
    at_close = seen.portfolio[:, :assets]
    if outcome.holdings is None:
        growth = torch.where(transition.restarted[:, None], 1.0, _growth_after_fill(params, seen))
        held = at_close * outcome.wealth[:, None] / growth
    else:
        all_assets = seen.bar[:, None][:, :0]
        held = to_slots(outcome.holdings, all_assets if seen.view is None else seen.view.slots)
    unknown = outcome.ruined | (at_close.abs() >= FEATURE_LIMIT).any(-1)
    traded = torch.where(outcome.wealth_traded > 0, outcome.wealth_traded, torch.nan)
    return torch.where(unknown[:, None], torch.nan, held / traded[:, None])


def _growth_after_fill(params: EnvParams, seen: Observation) -> Tensor:
    """Growth [N, A] of prices from the last fill to the close that is seen, by slot."""
    growth = 1.0 + params.tape.next["r_after"][(seen.bar - 1).clamp_min(0)]
    if seen.view is None:
        return growth
    growth = to_slots(growth.pow(seen.view.volatility[:, None]), seen.view.slots)
    hidden = masked(seen.view.slots)
    return growth if hidden is None else growth.masked_fill(hidden, 1.0)


def table() -> str:
    """The keys of `info`, in Markdown."""
    lines = ["| key | of each row | what it is |", "| --- | --- | --- |"]
    always = ", ".join(f"`{cost.name}`" for cost in ALWAYS)
    part = "float", f"part of `cost`: {always}, and each of `CostConfig.also`"
    for name in told_names(["<part>"], exits=True, perpetual=True):
        kind, what = MEANING.get(name, part)
        shown = "each part by its name" if name == "<part>" else f"`{name}`"
        lines.append(f"| {shown} | {kind} | {what} |")
    return "\n".join(lines)


def _names(params: EnvParams) -> tuple[str, ...]:
    costs, config = (cost.name for cost in params.rules.terms.costs), params.config
    return told_names(costs, exits=config.orders.brackets, perpetual=config.perpetual.trades)


if __name__ == "__main__":
    print(table())
