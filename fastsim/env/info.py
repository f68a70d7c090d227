"""What is told of a step beside its observation: one place for every adapter and backend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from torch import Tensor

from fastsim.env.core import Transition

WEALTH = ("wealth_before", "wealth_at_fill", "wealth_traded", "wealth")
ORDERS = ("turnover", "unfilled")
CARRY = ("borrow", "interest")


Value = TypeVar("Value")


def figure_names(costs: Iterable[str]) -> tuple[str, ...]:
    """Names of a step's figures, where trades are charged these costs."""
    return ("reward", *WEALTH, *ORDERS, *costs, *CARRY)


def figures_of(transition: Transition) -> dict[str, Tensor]:
    """Figures [N] of a step under their names, in their order."""
    outcome = transition.outcome
    named = {name: getattr(outcome, name) for name in (*WEALTH, *ORDERS, *CARRY)}
    costs = outcome.all_costs
    named |= {"reward": transition.reward} | costs
    return {name: named[name] for name in figure_names(costs)}


def step_info(figures: Mapping[str, Value], costs: Iterable[str]) -> dict[str, Value]:
    """What `info` tells of a step with these figures: wealth at the close, turnover, all costs."""
    first, *others = (figures[name] for name in costs)
    return {
        "wealth": figures["wealth"],
        "turnover": figures["turnover"],
        "cost": sum(others, first),  # type: ignore[call-overload]
    }
