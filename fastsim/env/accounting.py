"""The books: how accounts go from one close to the next. The reference for every backend.

    h' = h (1 + r_before)          from close t to the fill
    V- = sum h' + c                wealth before trading
    V+ = V- - C(w V+ - h')         wealth after trading; see `orders`
    h+ = w V+,  c+ = V+ - sum h+
    c' = c+ (1 + interest) - borrow fee on shorts, over calendar days; of perpetuals, - funding
    what stops and targets close within the bar turns into cash; see `brackets`
    what an exchange liquidates does so too, at the fill or within the bar; see `perpetual`
    h  = h+ (1 + r_after)          from the fill to close t + 1

Where trades move prices, orders of a market meet at once, net, and fill at one price, and wealth is
liquidation value; see `impact`. Everything is a function of tensors, of any device and
floating-point type, and differentiable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from fastsim.env.brackets import Exits, Since, closed, levels, traded
from fastsim.env.impact import (
    Displacement,
    ImpactConfig,
    drift,
    liquidation_value,
    mean_price,
    push,
)
from fastsim.env.nested import transform
from fastsim.env.orders import Fill, OrderConfig, Wish, cut, rebalance
from fastsim.env.perpetual import (
    Found,
    Liquidation,
    beyond_open,
    found_within,
    liquidation_of,
    within_leverage,
)
from fastsim.market.conditions import Conditions
from fastsim.market.costs import ALWAYS, Cost, Friction, Venue, total
from fastsim.market.margin import Margin


class Portfolio(NamedTuple):
    """What N accounts own."""

    holdings: Tensor  # [N, A]  market value of each position, signed, account currency
    cash: Tensor  # [N]

    @property
    def wealth(self) -> Tensor:
        """Value of everything held [N]."""
        return self.holdings.sum(-1) + self.cash


class Account(NamedTuple):
    """All there is to know of N = M P accounts, P of them in each of M markets."""

    portfolio: Portfolio
    displacement: Displacement  # [M, A] each, or without columns where prices are left alone
    open_orders: Tensor  # [N, A]  account currency; without columns where none are carried
    carry: Tensor  # [N]  what of the cash is lost in its rounding: cash + carry is what is owned
    since: Since  # [N, A] each, or without columns where positions have no stop or target


KINDS: Mapping[str, Literal["shares", "money", "of the position", "of the market"]] = {
    "holdings": "shares",
    "cash": "money",
    "transient": "of the market",
    "rate": "of the market",
    "open_orders": "shares",
    "carry": "money",
    "entry": "shares",
    "best": "shares",
    "stop": "of the position",
    "target": "of the position",
}
"""What becomes of each part of an account: so many shares [N, A], and prices over what they were,
grow with the price and end with their asset; what is of the position ends with it as well; these
and money [N] are lost in ruin; what is of the market is its own."""
Change = Callable[[Tensor], Tensor]
_NESTED: Mapping[str, Any] = {
    "portfolio": Portfolio,
    "displacement": Displacement,
    "since": Since,
}
assert tuple(KINDS) == tuple(
    name
    for part in Account._fields
    for name in (_NESTED[part]._fields if part in _NESTED else (part,))
), "every part of an account says what becomes of it"


class Terms(NamedTuple):
    """On what terms accounts trade, but for the rates that they are charged."""

    impact: ImpactConfig = ImpactConfig()
    orders: OrderConfig = OrderConfig()
    costs: tuple[Cost, ...] = ALWAYS
    margin: Margin | None = None
    """That of perpetual futures; None where spot is traded."""


class Settlement(NamedTuple):
    """What holding perpetual futures came to between two closes, in account currency."""

    funding: Tensor  # [N]  paid; negative where it was received
    liquidated: Tensor  # [N]  value of positions that were liquidated
    liquidation_fee: Tensor  # [N]
    insured: Tensor  # [N]
    seized: Tensor  # [N, A]  trades of liquidations, at the fill and within the bar


class Outcome(NamedTuple):
    """What happened between two closes, in account currency.

    Single orders are kept by the reference, and by fused backends that are asked to: else `trade`
    and `holdings` are None.
    """

    wealth_before: Tensor  # [N]  at the close of the decision
    wealth_at_fill: Tensor  # [N]  before trading
    wealth_traded: Tensor  # [N]  after trading and its costs
    wealth: Tensor  # [N]  at the next close
    turnover: Tensor  # [N]  traded value over the wealth before the trade, sum |dw|, both sides;
    #                        margin calls and exits apart
    unfilled: Tensor  # [N]  what halts, limits, bans and least commissions kept from being traded
    cost: dict[str, Tensor]  # [N] each, of the trade, by cause
    borrow: Tensor  # [N]
    interest: Tensor  # [N]
    ruined: Tensor  # [N]  bool: wealth was not positive at the fill or at the next close
    trade: Tensor | None = None  # [N, A]  bought (positive) and sold
    holdings: Tensor | None = None  # [N, A]  right after the trade
    margin_call: Fill | None = None  # at the next close, where positions may be cut by force
    exits: Exits | None = None  # within the bar, where positions have stops or targets
    settlement: Settlement | None = None  # where perpetual futures are held

    @property
    def all_costs(self) -> dict[str, Tensor]:
        """Cost [N] of the trade, of exits and of a margin call, by cause."""
        costs = self.cost
        for other in (self.exits, self.margin_call):
            if other is not None:
                costs = {name: paid + other.cost[name] for name, paid in costs.items()}
        return costs

    def still_where(self, rows: Tensor, wealth: Tensor, holdings: Tensor) -> Outcome:
        """The same, but that nothing happened to these rows [N] of accounts.

        They are worth `wealth` [N] and hold `holdings` [N, A].
        """

        def none(amount: Tensor) -> Tensor:
            return amount.masked_fill(rows if amount.dim() == 1 else rows[:, None], 0.0)

        exits, margin_call = transform(none, self.exits), None
        if self.margin_call is not None:
            margin_call = Fill(
                trade=none(self.margin_call.trade),
                cost={name: none(paid) for name, paid in self.margin_call.cost.items()},
                rest=self.margin_call.rest,
                unfilled=none(self.margin_call.unfilled),
            )
        return Outcome(
            wealth_before=torch.where(rows, wealth, self.wealth_before),
            wealth_at_fill=torch.where(rows, wealth, self.wealth_at_fill),
            wealth_traded=torch.where(rows, wealth, self.wealth_traded),
            wealth=torch.where(rows, wealth, self.wealth),
            turnover=none(self.turnover),
            unfilled=none(self.unfilled),
            cost={name: none(paid) for name, paid in self.cost.items()},
            borrow=none(self.borrow),
            interest=none(self.interest),
            ruined=self.ruined & ~rows,
            trade=None if self.trade is None else none(self.trade),
            holdings=None
            if self.holdings is None
            else torch.where(rows[:, None], holdings, self.holdings),
            margin_call=margin_call,
            exits=exits,
            settlement=transform(none, self.settlement),
        )

    @property
    def total_cost(self) -> Tensor:
        """Cost [N] of the trade, of exits and of a margin call."""
        return total(self.all_costs)


def lone(portfolio: Portfolio) -> Account:
    """Accounts that move no price and have nothing open."""
    nothing = portfolio.holdings[:, :0]
    still = Displacement(transient=nothing, rate=nothing)
    carry = torch.zeros_like(portfolio.cash)
    return Account(portfolio, still, nothing, carry, Since(*[nothing] * len(Since._fields)))


def receive(account: Account, amount: Tensor) -> Account:
    """Add an amount [N] to the cash, and what the sum loses in rounding to the carry.

    A year has half a million minutes, and the interest of one is less than float32 can tell of a
    million. The loss is that of Knuth's sum (Møller 1965); the carry goes to the cash as soon as
    that can hold some of it (Kahan 1965).
    """
    before = account.portfolio.cash
    cash = before + amount
    with torch.no_grad():
        added = cash - before
        lost = (before - (cash - added)) + (amount - added)
        carry = account.carry + lost
        rounded = (cash + carry) - cash
    portfolio = account.portfolio._replace(cash=cash + rounded)
    return account._replace(portfolio=portfolio, carry=carry - rounded)


def worth(account: Account) -> Tensor:
    """Wealth [N]: what selling everything now would bring, each account selling alone."""
    portfolio, displacement = account.portfolio, account.displacement
    if not displacement.exists:
        return portfolio.wealth
    rate = _each(displacement.rate, portfolio.cash)
    return liquidation_value(portfolio.holdings, rate).sum(-1) + portfolio.cash


def advance(
    account: Account,
    wish: Wish,
    market: Conditions,
    friction: Friction,
    terms: Terms | None = None,
    closing: Conditions | None = None,
) -> tuple[Account, Outcome]:
    """Trade to the weights of the wealth left after costs, then let the market move.

    `closing` is what positions that are cut by force meet at the next close; without it none are.
    Where positions have stops or targets, `market` says how far prices go within the bar.
    An order does not change its account's own wealth, so the self-financing equation holds whether
    it moves the price or not.
    """
    terms = terms or Terms()
    start = worth(account)
    account = reach_fill(account, 1.0 + market.r_before, terms.impact)
    account, wish, at_open = meet_margin(account, wish, terms.margin)
    before = worth(account)
    venue = Venue(market, friction, terms.costs)
    fill = rebalance(
        before, account.portfolio.holdings, account.open_orders, wish, venue, terms.orders
    )
    account = settle(account, fill, terms, wish)
    traded, held = worth(account), account.portfolio.holdings
    account, interest, borrow = accrue(account, market, friction)
    account, funding = pay_funding(account, market, terms.margin)
    account, exits, within = close_within(account, before > 0, market, friction, terms, closing)
    margin_call = None
    account = reach_close(account, market)
    if closing is not None and terms.orders.maintenance_margin > 0:
        account, margin_call = call_margin(account, closing, friction, terms)
    wealth = worth(account)
    return account, Outcome(
        wealth_before=start,
        wealth_at_fill=before,
        wealth_traded=traded,
        wealth=wealth,
        turnover=torch.where(before > 0, fill.trade.abs().sum(-1) / before, 0.0),
        unfilled=fill.unfilled,
        cost=fill.cost,
        borrow=borrow,
        interest=interest,
        ruined=(before <= 0) | (wealth <= 0),
        trade=fill.trade,
        holdings=held,
        margin_call=margin_call,
        exits=exits,
        settlement=settlement_of(funding, at_open, within),
    )


def settlement_of(
    funding: Tensor | None, at_open: Liquidation | None, within: Liquidation | None
) -> Settlement | None:
    """What funding and liquidations come to together; None of spot."""
    if funding is None or at_open is None or within is None:
        return None
    trade, value, fee, insured = (one + two for one, two in zip(at_open, within, strict=True))
    return Settlement(funding, value, fee, insured, trade)


def meet_margin(
    account: Account, wish: Wish, margin: Margin | None
) -> tuple[Account, Wish, Liquidation | None]:
    """Liquidate what a gap to the fill has gone beyond, and ask for no more than leverage allows.

    It is liquidated before its owner trades, who could else sell it for less than its margin, or
    enter anew what is lost.
    """
    if margin is None:
        return account, wish, None
    holdings, entry = account.portfolio.holdings, account.since.entry
    which = beyond_open(holdings, entry, margin)
    account, liquidation = liquidate(account, which, torch.ones_like(holdings), margin)
    weights = within_leverage(wish.weights, worth(account), margin)
    return account, wish._replace(weights=weights), liquidation


def liquidate(
    account: Account, which: Tensor, growth: Tensor, margin: Margin
) -> tuple[Account, Liquidation]:
    """Close positions [N, A] by force at `growth` times the price now, and what is open of them."""
    holdings, entry = account.portfolio.holdings, account.since.entry
    liquidation, received = liquidation_of(which, growth, holdings, entry, margin)
    return receive(_without(account, which), received), liquidation


def pay_funding(
    account: Account, market: Conditions, margin: Margin | None
) -> tuple[Account, Tensor | None]:
    """Pay the funding [N] of what is held until the close; shorts receive what longs pay."""
    if margin is None:
        return account, None
    assert market.funding is not None, "a market without funding is refused"
    funding = (account.portfolio.holdings * market.funding).sum(-1)
    return receive(account, -funding), funding


def reach_fill(account: Account, growth: Tensor, impact: ImpactConfig) -> Account:
    """From the close to the fill: prices grow [N, A], and what trades displaced decays."""
    displacement = account.displacement
    if displacement.exists:
        displacement, of_market = drift(displacement, _shared(growth, displacement), impact)
        growth = _each(of_market, account.portfolio.cash)
    return _grown(account, growth)._replace(displacement=displacement)


def settle(account: Account, fill: Fill, terms: Terms, wish: Wish | None = None) -> Account:
    """Exchange what was traded for cash, at the price that the orders of each market meet at."""
    displacement, trade = account.displacement, fill.trade
    since = traded(account.since, account.portfolio.holdings, trade, terms.orders, wish)
    account = account._replace(open_orders=fill.rest, since=since)
    if not displacement.exists:
        return _exchanged(account, trade, trade.sum(-1) + total(fill.cost))
    net = trade.view(len(displacement.rate), -1, trade.shape[-1]).sum(1)  # [M, A]
    displacement, moved = push(displacement, net, terms.impact)
    paid = (trade * _each(mean_price(moved), trade)).sum(-1)
    account = _exchanged(account, trade, paid + total(fill.cost))
    return _grown(account._replace(displacement=displacement), _each(moved.exp(), trade))


def _exchanged(account: Account, trade: Tensor, paid: Tensor) -> Account:
    """The account with these trades [N, A] for what is `paid` [N]."""
    holdings, cash = account.portfolio
    return receive(account._replace(portfolio=Portfolio(holdings + trade, cash)), -paid)


def accrue(
    account: Account, market: Conditions, friction: Friction
) -> tuple[Account, Tensor, Tensor]:
    """Pay interest on cash and the borrow fee on shorts, over calendar days; both of them [N]."""
    holdings, cash = account.portfolio
    short = (-holdings).clamp_min(0.0)
    interest = cash * market.interest
    if market.borrow is None:
        borrow = friction.borrow * market.years * short.sum(-1)
    else:
        general = market.borrow.isnan()
        rate = torch.where(general, friction.borrow[:, None], market.borrow)
        borrow = market.years * (rate * short).sum(-1)
    return receive(account, interest - borrow), interest, borrow


def close_within(
    account: Account,
    solvent: Tensor,
    market: Conditions,
    friction: Friction,
    terms: Terms,
    closing: Conditions | None,
) -> tuple[Account, Exits | None, Liquidation | None]:
    """Close what the bar brings to its stop, its target or its liquidation, of the solvent [N]."""
    if not terms.orders.brackets and terms.margin is None:
        return account, None, None
    since, holdings = account.since, account.portfolio.holdings
    places = levels(since, holdings, terms.orders)
    found = found_within(places, holdings, since.entry, market, terms.margin)
    stopped, taken, liquidated = (hit & solvent[:, None] for hit in found[:3])
    found = Found(stopped, taken, liquidated, found.growth)
    exits, liquidation = None, None
    if terms.orders.brackets:
        account, exits = leave(account, found, market, friction, terms, closing)
    if terms.margin is not None:
        account, liquidation = liquidate(account, found.liquidated, found.growth, terms.margin)
    return account, exits, liquidation


def leave(
    account: Account,
    found: Found,
    market: Conditions,
    friction: Friction,
    terms: Terms,
    closing: Conditions | None,
) -> tuple[Account, Exits]:
    """Close the positions whose stop or target the bar reaches, at its costs.

    An exit is filled whole, whatever a bar's volume, as a margin call is, and ends what is open of
    its asset. A commission by the share is on those of the bar, which `closing` tells the price of.
    """
    holdings, left = account.portfolio.holdings, found.stopped | found.taken
    trade = torch.where(left, -found.growth * holdings, 0.0)
    price = market.price if closing is None else closing.price / (1.0 + market.r_after)
    venue = Venue(market._replace(price=price * found.growth), friction, terms.costs)
    cost = venue.charge(trade)
    exits = Exits(
        trade=trade,
        cost=cost,
        stopped=torch.where(found.stopped, trade.abs(), 0.0).sum(-1),
        taken=torch.where(found.taken, trade.abs(), 0.0).sum(-1),
    )
    return receive(_without(account, left), -trade.sum(-1) - total(cost)), exits


def _without(account: Account, which: Tensor) -> Account:
    """The account without these positions [N, A], and without what is open of them."""
    return _each_part(account, ends=lambda held: torch.where(which, 0.0, held))


def reach_close(account: Account, market: Conditions) -> Account:
    """From the fill to the next close: prices move, and what is delisted is paid out."""
    growth, displacement = 1.0 + market.r_after, account.displacement
    if market.delisted is not None:
        account = pay_out(account, market.delisted, growth)
        growth = torch.where(market.delisted, 1.0, growth)
    if displacement.exists:
        rate = displacement.rate / _shared(growth, displacement)
        displacement = displacement._replace(rate=rate)
    account = _grown(account, growth)._replace(displacement=displacement)
    return account._replace(since=closed(account.since, account.portfolio.holdings))


def pay_out(account: Account, delisted: Tensor, growth: Tensor) -> Account:
    """Turn positions in what is `delisted` [N, A] into cash at their last growth, cancel orders.

    They bring what selling them would: else one could buy up a price that is about to be paid out.
    """
    (holdings, cash), displacement = account.portfolio, account.displacement
    value = holdings
    if displacement.exists:
        value = liquidation_value(holdings, _each(displacement.rate, cash))
    paid = torch.where(delisted, growth * value, 0.0).sum(-1)
    left = _each_part(account, ends=lambda held: held * ~delisted)
    return receive(left, paid)


def close_accounts(account: Account, ruined: Tensor) -> Account:
    """Take all from the ruined [N], or prices could bring back to life who waits for the others.

    Their positions are taken over at no cost and without an order: they move no price.
    """
    solvent = ~ruined[:, None]
    return _each_part(
        account,
        ends=lambda held: torch.where(solvent, held, 0.0),
        money=lambda owned: torch.where(ruined, 0.0, owned),
    )


def call_margin(
    account: Account, closing: Conditions, friction: Friction, terms: Terms
) -> tuple[Account, Fill]:
    """Cut the positions of accounts whose wealth does not cover their maintenance margin."""
    venue = Venue(closing, friction, terms.costs)
    fill = cut(worth(account), account.portfolio.holdings, venue, terms.orders)
    called = fill.trade.any(-1)
    kept = torch.where(called[:, None], 0.0, account.open_orders)  # who is called keeps none open
    return settle(account, fill._replace(rest=kept), terms), fill


def _grown(account: Account, growth: Tensor) -> Account:
    """The account at prices that have grown [N, A]."""
    return _each_part(account, grows=lambda held: held * growth)


def _same(part: Tensor) -> Tensor:
    return part


def _each_part(
    account: Account,
    *,
    grows: Change = _same,
    ends: Change = _same,
    money: Change = _same,
) -> Account:
    """The account with what these make of every part of its kind, where it has columns.

    Shares grow and end; what is of a position ends with it.
    """

    def shares(held: Tensor) -> Tensor:
        return ends(grows(held)) if held.numel() else held

    def position(kept: Tensor) -> Tensor:
        return ends(kept) if kept.numel() else kept

    change = {"shares": shares, "of the position": position, "money": money}
    return Account(**{n: _changed(n, part, change) for n, part in account._asdict().items()})


def _changed(name: str, part: Any, change: Mapping[str, Change]) -> Any:
    """What becomes of one part of an account, or of each of those within it."""
    if name in _NESTED:
        inner = {each: _changed(each, value, change) for each, value in part._asdict().items()}
        return _NESTED[name](**inner)
    return part if KINDS[name] == "of the market" else change[KINDS[name]](part)


def _shared(growth: Tensor, displacement: Displacement) -> Tensor:
    """Returns of N accounts as those of their M markets."""
    return growth[:: len(growth) // len(displacement.rate)]


def _each(values: Tensor, accounts: Tensor) -> Tensor:
    """Values of M markets [M, A] for each of N accounts."""
    return values.repeat_interleave(len(accounts) // len(values), 0)
