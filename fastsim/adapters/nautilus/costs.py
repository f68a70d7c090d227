"""What the agent's trades cost at a venue of NautilusTrader: fee and half spread, as commission."""

from __future__ import annotations

from typing import Any

from nautilus_trader.backtest.models import FeeModel
from nautilus_trader.config import NautilusConfig
from nautilus_trader.model.enums import OrderSide
from nautilus_trader.model.objects import Money

from fastsim.agent.artifact import AgentSpec
from fastsim.config import BPS
from fastsim.env.actions import ACTIONS
from fastsim.errors import ConfigError


class FrictionConfig(NautilusConfig, frozen=True):  # type: ignore[misc, call-arg]
    """Rates of `Friction`, in basis points of what is traded."""

    fee_bps: float
    half_spread_bps: float


class Friction(FeeModel):  # type: ignore[misc]
    """Fee f and half spread s as the commission of a fill, whose price is without a spread.

    It is (1 + s)(1 + f) - 1 of the value to buy, and 1 - (1 - s)(1 - f) to sell.
    """

    def __init__(self, config: FrictionConfig) -> None:
        self.fee, self.half_spread = BPS * config.fee_bps, BPS * config.half_spread_bps

    def get_commission(self, order: Any, fill_qty: Any, fill_px: Any, instrument: Any) -> Money:
        """What a fill costs, in the currency that it is paid in."""
        buys = order.side == OrderSide.BUY
        sign = 1.0 if buys else -1.0
        rate = sign * ((1.0 + sign * self.half_spread) * (1.0 + sign * self.fee) - 1.0)
        notional = instrument.notional_value(fill_qty, fill_px)
        return Money(rate * notional.as_double(), notional.currency)


def split(charged: float, config: FrictionConfig, *, buys: bool) -> tuple[float, float]:
    """A commission of `Friction`, as fastsim has its parts: of the broker, and of the spread."""
    fee, half = BPS * config.fee_bps, BPS * config.half_spread_bps
    sign = 1.0 if buys else -1.0
    whole = fee * (1.0 + sign * half) + half
    spread = charged * half / whole if whole else 0.0
    return charged - spread, spread


def require_played(spec: AgentSpec) -> None:
    """Raise ConfigError for an agent whose positions are closed by what is not here."""
    if spec.env.perpetual.trades:
        raise ConfigError(
            "the agent trades perpetual futures, and NautilusTrader is given neither their funding "
            "nor their liquidation here: use --engine fastsim"
        )
    if ACTIONS.find(spec.env.action).brackets:
        raise ConfigError(
            "the agent asks for a stop and a target of each position, and none are placed in "
            "NautilusTrader here: use --engine fastsim"
        )


def left_out(spec: AgentSpec) -> tuple[str, ...]:
    """What the agent was charged or held to in fastsim, and is not here, by name."""
    costs, rules = spec.env.costs, spec.env
    names = {
        "costs.impact": costs.impact > 0 and "volume" in spec.fields,
        "costs.fee_per_share": costs.fee_per_share > 0,
        "costs.minimum_fee": costs.minimum_fee > 0,
        "costs.also": bool(costs.also),
        "costs.participation": "volume" in spec.fields,
        "costs.borrow_bps_per_year": costs.borrow_bps_per_year > 0 and rules.action == "signed",
        "impact": rules.impact.moves_prices,
        "orders.unfilled": rules.orders.carries,
        "orders.stop, target and trailing": rules.orders.brackets,
        "orders.maintenance_margin": rules.orders.maintenance_margin > 0,
        "tape.risk_free_rate": spec.tape.risk_free_rate != 0.0,
    }
    return tuple(name for name, there in names.items() if there)
