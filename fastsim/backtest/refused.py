"""What rules kept strategies from trading: how much, how often, and what can be done about it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastsim.backtest.history import History
from fastsim.backtest.steps import Steps
from fastsim.data.dates import show
from fastsim.env.actions import ACTIONS, target_weights
from fastsim.env.config import EnvConfig
from fastsim.market.block import Block
from fastsim.market.tape import MarketTape

PARTICIPATION, HALTED, SHORTS = "participation", "halted", "shorts"
ROUNDING, MARGIN = "rounding", "margin"
NOTICED = 1e-3
"""Share of wealth from which on orders count as refused in a step."""
OFTEN = 0.05
"""Share of steps from which on a rule is spoken of."""
WHAT = {
    PARTICIPATION: (
        "Participation limits cut orders",
        "the account is too large for this market's volume: use a smaller --env.initial-cash, a "
        "larger --env.costs.participation, or, for a volume that counts ticks, "
        "--data.ignore-volume",
    ),
    HALTED: (
        "Assets that did not trade held up orders",
        "they were not listed yet, halted or gone",
    ),
    SHORTS: (
        "Bans on shorts refused sales",
        "shorts in these assets can neither be opened nor grow: see --tape.hard-to-borrow",
    ),
    ROUNDING: (
        "Whole shares or the least commission left out orders",
        "the account is too small for these prices: use a larger --env.initial-cash",
    ),
    MARGIN: (
        "Margin calls cut positions",
        "the leverage is too high for these prices: use a smaller --env.max-gross",
    ),
}
"""By rule: what it did, and why or what helps."""


class Refusals:
    """Measures what rules refuse to n portfolios that are all at the same bars."""

    def __init__(self, tape: MarketTape, config: EnvConfig) -> None:
        costs, orders = config.costs, config.orders
        self.action, self.max_gross = ACTIONS.find(config.action), config.max_gross
        self.participation, self.carries = costs.participation, orders.carries
        self.limited = tape.has_volume
        self.rounds = orders.whole_shares or costs.minimum_fee > 0

    def of(self, market: Block, steps: Steps) -> dict[str, Tensor]:
        """Value [B, n] of orders that were not filled, or were forced, of wealth, by the rule.

        `market` is what the steps met, B rows.
        """
        outcome = steps.outcome
        assert outcome.trade is not None and outcome.holdings is not None
        wanted = self._wanted(market, steps)
        lacking = (wanted - outcome.trade).abs()
        trades = market["tradable"][:, None]  # [B, 1, A]
        refused = {HALTED: torch.where(trades, 0.0, lacking)}
        if self.limited:
            limit = self.participation * market["dollars"][:, None]
            beyond = (wanted.abs() - limit).clamp_min(0.0)
            refused[PARTICIPATION] = torch.where(trades, beyond.minimum(lacking), 0.0)
        if "shortable" in market:
            owned = (outcome.holdings - outcome.trade).clamp_min(0.0)
            short = (-wanted - owned).clamp_min(0.0).minimum(lacking)
            banned = ~market["shortable"][:, None]
            refused[SHORTS] = torch.where(trades & banned, short, 0.0)
        if self.rounds:
            asked = steps.actions.isfinite().all(-1, keepdim=True)
            others = sum(refused.values(), torch.zeros_like(lacking))
            refused[ROUNDING] = torch.where(asked, lacking - others, 0.0).clamp_min(0.0)
        if outcome.margin_call is not None:
            refused[MARGIN] = outcome.margin_call.trade.abs()
        wealth = outcome.wealth_traded
        solvent = wealth > 0
        return {
            rule: torch.where(solvent, value.sum(-1) / wealth, 0.0)
            for rule, value in refused.items()
        }

    def _wanted(self, market: Block, steps: Steps) -> Tensor:
        """Orders [B, n, A] as they would have been without limits."""
        outcome = steps.outcome
        assert outcome.trade is not None and outcome.holdings is not None
        weights, hold = target_weights(steps.actions.flatten(0, 1), self.action, self.max_gross)
        held = outcome.holdings - outcome.trade
        wanted = weights.view(held.shape) * outcome.wealth_traded[..., None] - held
        standing = torch.zeros_like(wanted)
        if self.carries:
            standing = steps.open_orders * (1.0 + market["r_before"])[:, None]
        return torch.where(hold.view(held.shape[:2])[..., None], standing, wanted)


def refusals_in_words(history: History) -> tuple[str, ...]:
    """One sentence for each rule that bound often, and for each strategy that was ruined."""
    return (
        *(sentence for rule in history.refused if (sentence := _sentence(history, rule))),
        *(
            f"{history.names[place]} was ruined on {show(history.timestamps[step])} and traded no "
            f"more."
            for place, step in _ruins(history)
        ),
    )


def _sentence(history: History, rule: str) -> str:
    """What one rule did to whom; nothing where it seldom did."""
    value = history.refused[rule].double()  # [T, N]
    often, mean = (value > NOTICED).double().mean(0), value.mean(0)  # [N]
    singles = history.singles
    groups: dict[str, Sequence[int]] = {
        name: (place,) for place, name in enumerate(history.names) if place not in singles
    }
    if singles:
        groups["single assets"] = singles
    parts = [
        f"{name} in {share:.0%} of steps, by {_share(float(mean[list(rows)].mean()))} of wealth "
        f"on average"
        for name, rows in groups.items()
        if (share := float(often[list(rows)].mean())) > OFTEN
    ]
    what, why = WHAT.get(rule, (f"The rule {rule!r} refused orders", "see the environment's rules"))
    return f"{what} of {'; of '.join(parts)}: {why}." if parts else ""


def _share(value: float) -> str:
    return f"{value:.0%}" if value >= 0.005 else "under 1%"


def _ruins(history: History) -> list[tuple[int, int]]:
    """Strategies that lost everything, and the close at which they had."""
    gone = history.wealth <= 0  # [T + 1, N]
    return [(place, int(gone[:, place].int().argmax())) for place in _places(gone.any(0))]


def _places(mask: Tensor) -> list[int]:
    return [int(place) for place in mask.nonzero().flatten()]
