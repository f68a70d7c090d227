"""Perpetual futures: positions on isolated margin that pay funding and may be liquidated.

A position of `size` coins was entered at the mean price EP, and a part of its value there, size EP
/ leverage, is set aside as its isolated wallet balance WB. It is liquidated where that and what it
has gained no longer cover its maintenance margin, which tiers tell by its value N = size P:

    WB + side size (P - EP) <= MMR size P - cum

Solved for the price P, with side 1 for a long position and -1 for a short one,

    LP = (WB + cum - side size EP) / (size (MMR - side))

which is Binance's formula of one-way positions with TMM = UPNL = 0 ("How to Calculate Liquidation
Price of USDⓈ-M Futures Contracts", support FAQ b3c689c1). The tier is that of the value at LP, as
Binance asks for: since rates rise with size, it is the one whose LP is reached first.

    the open is beyond LP             liquidated at the open, before its owner trades there
    the low (short: high) reaches LP  liquidated at LP, unless a stop lies before it

LP is judged by the prices of bars in place of the mark price, and by the low and the high whichever
came first. What is liquidated is closed whole. The fee on its value is taken from what is left of
WB, and so is the loss: where a gap makes that larger than WB, the exchange's insurance fund bears
the rest, and the account loses no more. Funding is paid from the account's cash and not from WB. A
position that is closed within a bar has paid, or been paid, the funding of the whole bar.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from fastsim.config import BPS, configuration, require_between
from fastsim.env.brackets import LARGEST_TOUCH, TOUCH, Levels, Reached, reached
from fastsim.errors import ConfigError
from fastsim.market.conditions import Conditions
from fastsim.market.margin import Margin, Tiers, margin_of
from fastsim.market.tape import MarketTape

HIGHEST_LEVERAGE = 150.0


@configuration
class PerpetualConfig:
    """On what terms perpetual futures are traded."""

    leverage: float = 0.0
    """Value of a position at entry over the isolated margin that is set aside for it; 0 trades
    spot. It decides where a position is liquidated; how much is held is up to weights, and to
    `EnvConfig.max_gross`, which it has to cover."""
    maintenance_rate: float = 0.0
    """Maintenance margin over the value of a position of any size, such as 0.004, where there are
    no tiers (`TapeConfig.tiers`)."""
    liquidation_fee_bps: float = 125.0
    """Charged on the value that is liquidated, as long as its margin lasts. Each contract has its
    own: `liquidationFee` of Binance's exchangeInfo, 0.0125 for BTCUSDT."""

    def __post_init__(self) -> None:
        require_between(self, "leverage", 0, HIGHEST_LEVERAGE)
        require_between(self, "maintenance_rate", 0, 0.5)
        require_between(self, "liquidation_fee_bps", 0, 1000)
        if 0 < self.leverage < 1:
            raise ConfigError(
                f"PerpetualConfig.leverage must be at least 1, or 0 for spot, got {self.leverage!r}"
            )

    @property
    def trades(self) -> bool:
        """Whether perpetual futures are traded, and not spot."""
        return self.leverage > 0


class Liquidation(NamedTuple):
    """What was closed by an exchange, in account currency."""

    trade: Tensor  # [N, A]  bought back (positive) and sold, at the price of the liquidation
    value: Tensor  # [N]
    fee: Tensor  # [N]  as far as margin lasted
    insured: Tensor  # [N]  loss beyond the margin, which the insurance fund bears


class Found(NamedTuple):
    """Which positions are closed within a bar and how, and at what price over that of the fill."""

    stopped: Tensor  # [N, A]  bool
    taken: Tensor  # [N, A]  bool
    liquidated: Tensor  # [N, A]  bool
    growth: Tensor  # [N, A]  1 where nothing is closed


def check_market(tape: MarketTape, config: PerpetualConfig) -> None:
    """Raise ConfigError where a market of perpetual futures is traded as spot, or the other way."""
    if config.trades and "funding" not in tape.next:
        raise ConfigError(
            f"PerpetualConfig.leverage = {config.leverage:g} trades perpetual futures, and this "
            f"market has no funding, which is never taken for zero: give TapeConfig.funding (or "
            f"make_tape(funding=...)) the series"
        )
    if not config.trades and "funding" in tape.next:
        raise ConfigError(
            "this market has the funding of perpetual futures, and PerpetualConfig.leverage = 0 "
            "trades spot: set perpetual.leverage, or leave TapeConfig.funding out"
        )
    if config.trades and tape.tiers is None and config.maintenance_rate == 0:
        raise ConfigError(
            "perpetual futures need a maintenance margin: give TapeConfig.tiers the exchange's, or "
            "PerpetualConfig.maintenance_rate one for every size, such as 0.004"
        )
    if config.trades and tape.tiers is not None and config.maintenance_rate > 0:
        raise ConfigError(
            f"PerpetualConfig.maintenance_rate = {config.maintenance_rate:g} stands in for tiers, "
            f"and this market has tiers: leave one of them out"
        )
    market_margin(tape, config)


def market_margin(tape: MarketTape, config: PerpetualConfig) -> Margin | None:
    """On what margin these futures are held, where the tables lie; None for spot."""
    margin = margin_by(tape.tiers, tape.symbols, config)
    if margin is None:
        return None
    parts = (part.to(tape.device, tape.dtype) for part in margin[2:])
    return Margin(*margin[:2], *parts)


def margin_by(
    tiers: Tiers | None, symbols: tuple[str, ...], config: PerpetualConfig
) -> Margin | None:
    """On what margin futures in these symbols are held, in float64; None for spot."""
    if not config.trades:
        return None
    fee = config.liquidation_fee_bps * BPS
    return margin_of(tiers, symbols, config.leverage, config.maintenance_rate, fee)


def without_lending(tape: MarketTape) -> MarketTape:
    """The same without a fee on shorts and interest: of futures nothing is lent."""
    nothing = {"borrow": torch.zeros_like(tape.next["r_after"])}
    nothing["interest"] = torch.zeros_like(tape.next["interest"])
    return replace(tape, next=tape.next.changed(nothing))


def within_leverage(weights: Tensor, wealth: Tensor, margin: Margin) -> Tensor:
    """Weights [N, A] of no more than the value up to which the leverage is offered."""
    most = margin.largest / torch.where(wealth > 0, wealth, 1.0)[:, None]
    return torch.where((wealth > 0)[:, None], torch.minimum(weights, most).maximum(-most), weights)


def liquidation_levels(holdings: Tensor, entry: Tensor, margin: Margin) -> Tensor:
    """LP of positions [N, A] over the price now, which is `entry` [N, A] times that of entry.

    Out of reach, 0 or below for a long position and infinite for a short one, where none is held.
    """
    size = holdings.abs()
    value = size / torch.where(entry > 0, entry, 1.0)  # at entry
    backing = value / margin.leverage
    falls = (value - backing - margin.amount[:, None]) / (1.0 - margin.rate[:, None])  # [K, N, A]
    rises = (value + backing + margin.amount[:, None]) / (1.0 + margin.rate[:, None])
    level = torch.where(holdings > 0, falls.amax(0), rises.amin(0))
    return torch.where(size > 0, level / torch.where(size > 0, size, 1.0), torch.inf)


def beyond_open(holdings: Tensor, entry: Tensor, margin: Margin) -> Tensor:
    """Which positions [N, A] are to be liquidated at the price now."""
    line, slack = liquidation_levels(holdings, entry, margin), _slack(holdings)
    below, above = line * (1.0 + slack) >= 1.0, line * (1.0 - slack) <= 1.0
    return (holdings != 0) & torch.where(holdings > 0, below, above)


def found_within(
    levels: Levels, holdings: Tensor, entry: Tensor, market: Conditions, margin: Margin | None
) -> Found:
    """What closes positions within a bar: their stops and targets, and where it comes first, LP."""
    if margin is None:
        met = reached(levels, holdings, market)
        return Found(met.stopped, met.taken, torch.zeros_like(met.stopped), met.growth)
    long, line = holdings > 0, liquidation_levels(holdings, entry, margin)
    nearer = torch.where(long, levels.stop.maximum(line), levels.stop.minimum(line))
    met = reached(Levels(nearer, levels.target), holdings, market)
    return _told_apart(met, line, long, _slack(holdings))


def _told_apart(met: Reached, line: Tensor, long: Tensor, slack: float) -> Found:
    """Stops from liquidations: those at the line, or at an open beyond it."""
    below, above = met.growth <= line * (1.0 + slack), met.growth >= line * (1.0 - slack)
    liquidated = met.stopped & torch.where(long, below, above)
    return Found(met.stopped & ~liquidated, met.taken, liquidated, met.growth)


def liquidation_of(
    which: Tensor, growth: Tensor, holdings: Tensor, entry: Tensor, margin: Margin
) -> tuple[Liquidation, Tensor]:
    """Close positions [N, A] at `growth` times the price now; also what accounts [N] receive.

    A position's loss, its fee included, is never more than its margin.
    """
    held = torch.where(which, holdings, 0.0)
    value, bought = growth * held, held / torch.where(entry > 0, entry, 1.0)
    left = bought.abs() / margin.leverage + value - bought  # of the margin, before the fee
    fee = torch.minimum(margin.fee * value.abs(), left.clamp_min(0.0))
    insured = (-left).clamp_min(0.0)
    liquidation = Liquidation(-value, value.abs().sum(-1), fee.sum(-1), insured.sum(-1))
    return liquidation, (value - fee + insured).sum(-1)


def _slack(holdings: Tensor) -> float:
    """Part by which a price may miss a level and still touch it."""
    return min(TOUCH * torch.finfo(holdings.dtype).eps, LARGEST_TOUCH)
