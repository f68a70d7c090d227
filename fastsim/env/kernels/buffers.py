"""How fused backends lay out the market, the state and the results: a few blocks, row by row.

All numbers of an environment stand side by side in a row of each block, so that a step touches few
cache lines; columns of their own would be 2^k apart for 2^k environments and evict one another. A
column of a block is a tensor [N] like any other.
"""

from __future__ import annotations

from dataclasses import replace
from math import nan
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from fastsim.env.accounting import Account, Outcome, Portfolio, Settlement, lone, worth
from fastsim.env.brackets import Exits, Since
from fastsim.env.config import EnvConfig
from fastsim.env.core import Transition
from fastsim.env.episode import Episode
from fastsim.env.impact import Displacement, undisturbed
from fastsim.env.kernels import columns as c
from fastsim.env.observe import Observation
from fastsim.env.orders import Fill, OrderConfig
from fastsim.env.portfolio_columns import portfolio_names
from fastsim.env.randomize import DRAWN_COSTS
from fastsim.env.reward import RewardMemory
from fastsim.env.slots import View
from fastsim.env.state import EnvParams, EnvState, endowment

_COSTS = tuple((name, getattr(c.FIGURE, name)) for name in c.COSTS)
Blocks = TypeVar("Blocks", bound=tuple[Tensor, ...])


class MarketBlocks(NamedTuple):
    """What environments meet, a row per bar, and what trading costs them."""

    moves: Tensor  # [T, MOVE, A']  traded value is 0 where nothing can be traded
    bars: Tensor  # [T, BARS]
    features: Tensor  # [T, A F]
    friction: Tensor  # [N, FRICTION]
    terms: Tensor  # [T, TERM, A'], or [0, TERM, A'] where no further rules hold
    fees: Tensor  # [N, FEE]
    ranges: Tensor  # [T, RANGE, A'], or [0, RANGE, A'] where nothing is closed within bars
    funding: Tensor  # [T, A'], or [0, A'] where spot is traded
    tiers: Tensor  # [K, TIER, A'], or [0, TIER, A']


class Rules(NamedTuple):
    """Settings, as kernels read them."""

    whole: Tensor  # [WHOLE]  int64
    real: Tensor  # [REAL]


class State(NamedTuple):
    """What changes, in place. A' is A rounded up to whole vectors: the rest is never traded."""

    holdings: Tensor  # [N, A']
    money: Tensor  # [N, MONEY]
    counters: Tensor  # [N, COUNTER]  int64
    done: Tensor  # [N]  bool
    slots: Tensor  # [N, A]  int64, or [N, 0] where every asset is shown in its own slot
    displaced: Tensor  # [DISPLACED, M, A'], or [DISPLACED, M, 0] if every row is its own
    open_orders: Tensor  # [N, A'], or [N, 0] where none are carried
    since: Tensor  # [N, SINCE, A'], or [N, SINCE, 0] where nothing is closed within bars

    def nested(self, params: EnvParams) -> EnvState:
        """The same memory under the names of the reference."""
        assets = params.tape.num_assets
        money, counters = by_name(c.MONEY, self.money), by_name(c.COUNTER, self.counters)
        displaced = self.displaced[..., : assets if params.config.impact.moves_prices else 0]
        return EnvState(
            displacement=Displacement(**dict(zip(c.DISPLACED._fields, displaced, strict=True))),
            open_orders=self.open_orders[:, :assets],
            carry=money["carry"],
            since=self._since(params),
            portfolio=Portfolio(holdings=self.holdings[:, :assets], cash=money["cash"]),
            episode=Episode(
                **{name: counters[name] for name in Episode._fields if name in counters},
                done=self.done,
            ),
            peak=money["peak"],
            memory=RewardMemory(**{name: money[name] for name in c.MEMORY}),
            invalid_actions=counters["invalid_actions"],
            key=counters["key"],
            slots=self.slots,
        )

    def _since(self, params: EnvParams) -> Since:
        assets, config = params.tape.num_assets, params.config
        asks = params.rules.action.brackets
        kept = {
            "entry": config.closes_within,
            "best": config.orders.trailing > 0,
            "stop": asks,
            "target": asks,
        }
        none = self.since[:, 0, :0]
        rows = {n: self.since[:, getattr(c.SINCE, n), :assets] for n in kept if kept[n]}
        return Since(**{name: rows.get(name, none) for name in kept})

    def load(self, state: EnvState) -> None:
        """Copy a state in."""
        assets = state.portfolio.holdings.shape[1]
        self.holdings[:, :assets] = state.portfolio.holdings
        self.holdings[:, assets:] = 0.0
        self.open_orders.zero_()
        self.open_orders[:, : state.open_orders.shape[1]] = state.open_orders
        self.since.zero_()
        for name, values in state.since._asdict().items():
            if values.shape[1]:
                self.since[:, getattr(c.SINCE, name), : values.shape[1]] = values
        self.displaced.zero_()
        for name, values in state.displacement._asdict().items():
            self.displaced[getattr(c.DISPLACED, name), :, : values.shape[1]] = values
        self.done.copy_(state.episode.done)
        self.slots.copy_(state.slots)
        numbers = state._asdict() | state.episode._asdict() | state.memory._asdict()
        numbers |= {"cash": state.portfolio.cash}
        for block, names in ((self.money, c.MONEY), (self.counters, c.COUNTER)):
            for name, column in by_name(names, block).items():
                column.copy_(numbers[name])


class Draws(NamedTuple):
    """What is drawn for every episode: from which ranges, and what follows from it for each row.

    A row's costs are in `MarketBlocks.friction`, and what it has drawn is a function of the state.
    """

    ranges: Tensor  # [DRAWN, 3]  float64: lowest, highest and unit; NaN where nothing is drawn
    rising: Tensor  # [A F]  1 for features that rise with the log of the volatility, else 0
    factors: Tensor  # [N, FACTOR]
    shown: Tensor  # [N]  int64, assets of the episode


class Views(NamedTuple):
    """How agents see the market after a step, where that is not as it is; see `slots.View`."""

    slots: Tensor  # [N, A]  int64, or [N, 0]
    volatility: Tensor  # [N]
    final_slots: Tensor  # like `slots`, before a restart; empty under next_step
    final_volatility: Tensor  # [N]; empty under next_step


class Singles(NamedTuple):
    """Orders one by one, where they are asked for: a batch that trains has no use for them.

    Where positions may end at a close, what was held before it is told in any case.
    """

    trade: Tensor  # [N, A]  bought (positive) and sold; [0, A] if not asked for
    holdings: Tensor  # [N, A]  right after the trade
    called: Tensor  # [N, A]  traded by force at the next close; [0, A] where margin is not kept
    called_cost: Tensor  # [N, COSTS]  of those trades, or [0, COSTS]
    exit_trade: Tensor  # [N, A]  traded by stops and at targets; [0, A] where there are none
    exit_cost: Tensor  # [N, COSTS]  of those trades, or [0, COSTS]
    exit_value: Tensor  # [N, EXIT]  of positions that were closed so, or [0, EXIT]
    settled: Tensor  # [N, SETTLED]  of perpetual futures, or [0, SETTLED]
    seized: Tensor  # [N, A]  traded by liquidations, or [0, A]

    @property
    def settlement(self) -> Settlement | None:
        """What perpetual futures came to, if any are held."""
        if not len(self.settled):
            return None
        return Settlement(**by_name(c.SETTLED, self.settled), seized=self.seized)

    @property
    def exits(self) -> Exits | None:
        """Trades of stops and targets, if there can be any."""
        if not len(self.exit_trade):
            return None
        return Exits(
            trade=self.exit_trade,
            cost=dict(zip(c.COSTS, self.exit_cost.unbind(1), strict=True)),
            **by_name(c.EXIT, self.exit_value),
        )

    @property
    def margin_call(self) -> Fill | None:
        """Trades by force, if there can be any."""
        if not len(self.called):
            return None
        cost = dict(zip(c.COSTS, self.called_cost.unbind(1), strict=True))
        nothing = torch.zeros_like(self.called)
        return Fill(trade=self.called, cost=cost, rest=nothing, unfilled=nothing[:, 0])


class Results(NamedTuple):
    """What one step returns; a restarted row's figures are those of a still account."""

    seen: Tensor  # [N, P] or [N, A F + P]  observation after the step, flat if the config says so
    bar: Tensor  # [N]  int64
    figures: Tensor  # [N, FIGURE]
    flags: Tensor  # [N, FLAG]  bool
    final_seen: Tensor  # like `seen`, before a restart; empty under next_step
    final_bar: Tensor  # [N]  int64; empty under next_step

    def transition(
        self, portfolio_width: int, singles: Singles | None = None, views: Views | None = None
    ) -> Transition:
        """The same memory under the names of the reference."""
        figures, flags = self.figures.unbind(1), self.flags.unbind(1)
        cost = {name: figures[place] for name, place in _COSTS}
        single: dict[str, Any] = {}
        if singles is not None:
            called, exits = singles.margin_call, singles.exits
            trade = singles.trade if len(singles.trade) else None
            single = {"trade": trade, "holdings": singles.holdings}
            single |= {"margin_call": called, "exits": exits, "settlement": singles.settlement}
            for other in (called, exits):
                if other is not None:
                    cost = {name: paid - other.cost[name] for name, paid in cost.items()}
        final, view, last_view = None, None, None
        if views is not None:
            view = View(views.slots, views.volatility)
            last_view = View(views.final_slots, views.final_volatility)
        if len(self.final_bar):
            final = _observation(self.final_bar, self.final_seen, portfolio_width, last_view)
        at, ends = c.FIGURE, c.FLAG
        return Transition(
            observation=_observation(self.bar, self.seen, portfolio_width, view),
            reward=figures[at.reward],
            terminated=flags[ends.terminated],
            truncated=flags[ends.truncated],
            restarted=flags[ends.restarted],
            final_observation=final,
            outcome=Outcome(
                wealth_before=figures[at.wealth_before],
                wealth_at_fill=figures[at.wealth_at_fill],
                wealth_traded=figures[at.wealth_traded],
                wealth=figures[at.wealth],
                turnover=figures[at.turnover],
                unfilled=figures[at.unfilled],
                cost=cost,
                borrow=figures[at.borrow],
                interest=figures[at.interest],
                ruined=flags[ends.ruined],
                **single,
            ),
        )


def by_name(names: Any, block: Tensor) -> dict[str, Tensor]:
    """Columns [N] of a block [N, C] whose places these are."""
    return dict(zip(names._fields, block.unbind(1), strict=True))


def pack_market(params: EnvParams, vector: int = 1) -> MarketBlocks:
    """Lay out the market for kernels that work on whole vectors of this many assets."""
    tape, following = params.tape, params.tape.next
    begun = _starts(params)
    rate = begun.displacement.rate
    moves = {
        **{name: following[name] for name in c.MOVE._fields if name in following},
        **_log_returns(params),
        "present": (tape.known.sigma > 0).to(tape.dtype),
        "dollars": torch.where(following["tradable"], following["dollars"], 0.0),
        "start_holdings": begun.portfolio.holdings,
        "start_rate": rate if begun.displacement.exists else torch.zeros_like(tape.known.sigma),
    }
    bars = {
        **{name: following[name] for name in c.BARS._fields if name in following},
        "start_cash": begun.portfolio.cash,
        "start_wealth": worth(begun),
    }
    names = c.MOVE._fields[: market_rows(params.config)]
    rows = torch.stack([moves[name].to(tape.dtype) for name in names], 1)
    return MarketBlocks(
        moves=pad(rows, (0, -tape.num_assets % vector)),
        bars=torch.stack([bars[name] for name in c.BARS._fields], dim=1),
        features=tape.known.features.flatten(1).contiguous(),
        friction=torch.stack([getattr(params.friction, name) for name in c.FRICTION._fields], 1),
        terms=_terms(params, vector),
        fees=_fees(params),
        ranges=_ranges(params, vector),
        funding=_funding(params, vector),
        tiers=_tiers(params, vector),
    )


def _terms(params: EnvParams, vector: int) -> Tensor:
    """What further rules need of every bar; empty lanes hold ones, which prices may be."""
    tape, following, known = params.tape, params.tape.next, params.tape.known
    if not by_orders(params):
        return following["price"].new_empty(0, len(c.TERM), tape.num_assets)
    then = torch.arange(1, len(tape) + 1, device=tape.device).clamp_max(len(tape) - 1)
    listed, closing = known.listed[then], following["price"][then]
    if tape.fill != "close":  # of the same bar, so nothing was split
        closing = following["price"] * (1.0 + following["r_after"])
    price = following["price"]
    rows = {
        "price": price,
        "borrow": following["borrow"] if "borrow" in following else price * torch.nan,
        "shortable": _flag(params, "shortable", otherwise=True),
        "delisted": _flag(params, "delisted", otherwise=False),
        "listed": listed.to(price.dtype),
        "closing_price": torch.where(listed, closing, 1.0),
        "closing_scale": following["impact_scale"][then],
    }
    table = torch.stack([rows[name] for name in c.TERM._fields], 1)
    return pad(table, (0, -tape.num_assets % vector), value=1.0)


def _ranges(params: EnvParams, vector: int) -> Tensor:
    """How far prices go within bars, where positions may be closed there."""
    tape, following = params.tape, params.tape.next
    if not params.config.closes_within:
        return following["price"].new_empty(0, len(c.RANGE), tape.num_assets)
    rows = {name: following[name] for name in c.RANGE._fields}
    if params.config.randomize.volatility:
        rows = {name: reached.log1p() for name, reached in rows.items()}
    table = torch.stack([rows[name] for name in c.RANGE._fields], 1)
    return pad(table, (0, -tape.num_assets % vector))


def _funding(params: EnvParams, vector: int) -> Tensor:
    """What long positions pay for each bar, of perpetual futures."""
    tape = params.tape
    if params.rules.terms.margin is None:
        return tape.next["price"].new_empty(0, tape.num_assets)
    return pad(tape.next["funding"], (0, -tape.num_assets % vector))


def _tiers(params: EnvParams, vector: int) -> Tensor:
    """The margin that they must keep, tier by tier."""
    tape, margin = params.tape, params.rules.terms.margin
    if margin is None:
        return tape.next["price"].new_empty(0, len(c.TIER), tape.num_assets)
    rows = margin._asdict() | {"largest": margin.largest.expand_as(margin.rate)}
    table = torch.stack([rows[name] for name in c.TIER._fields], 1)
    return pad(table, (0, -tape.num_assets % vector))


def _flag(params: EnvParams, name: str, *, otherwise: bool) -> Tensor:
    """A column of truth values [T, A] as numbers."""
    block = params.tape.next
    price = block["price"]
    given = block[name] if name in block else torch.full_like(price, otherwise)
    return given.to(price.dtype)


def _fees(params: EnvParams) -> Tensor:
    """Commissions by share and by order, zero where there are none."""
    friction, none = params.friction, torch.zeros_like(params.friction.fee)
    given = (getattr(friction, name) for name in c.FEE._fields)
    return torch.stack([none if fee is None else fee for fee in given], 1)


def _log_returns(params: EnvParams) -> dict[str, Tensor]:
    """What returns are laid out as where an episode multiplies their logarithms."""
    if not params.config.randomize.volatility:
        return {}
    return {name: params.tape.next[name].log1p() for name in ("r_before", "r_after")}


def repack_bars(market: MarketBlocks, params: EnvParams, bars: Tensor, vector: int = 1) -> None:
    """Lay out again, in place, these bars [B], at which the tape has changed."""
    if len(bars) == 0:
        return
    changed = pack_market(params._replace(tape=params.tape.take(bars)), vector)
    tables = ["moves", "bars", "features", *["terms"] * by_orders(params)]
    tables += ["ranges"] * params.config.closes_within
    tables += ["funding"] * params.config.perpetual.trades
    for name in tables:
        getattr(market, name)[bars] = getattr(changed, name)


def pack_rules(params: EnvParams) -> Rules:
    """Lay out the settings for kernels."""
    tape, config = params.tape, params.config
    episode, reward, following = config.episode, config.reward, tape.next
    randomize, margin = config.randomize, params.rules.terms.margin
    whole = {
        "action": getattr(c.ACTION, config.action),
        "reward": getattr(c.REWARD, reward.kind),
        "same_step": config.autoreset == "same_step",
        "flat": config.observation == "flat",
        "first": tape.first,
        "last": tape.last,
        "horizon": episode.horizon or 0,
        "random_start": episode.random_start,
        "worlds": tape.worlds,
        "span": tape.bars_per_world,
        "worlds_per_market": tape.worlds_per_market,
        "assets": tape.num_assets,
        "players": config.players,
        "liquidates": episode.liquidate_at_end,
        "terminates": episode.at_end == "terminate",
        "carries": config.orders.carries,
        "whole_shares": config.orders.whole_shares,
        "by_order": params.friction.minimum is not None,
        "lends": "borrow" in following,
        "bans": "shortable" in following,
        "delists": "delisted" in following,
        "brackets": config.orders.brackets,
        "perpetual": config.perpetual.trades,
        "entries": config.closes_within,
        "asks": params.rules.action.brackets,
        "fewest": min(randomize.assets, default=0),
        "most": max(randomize.assets, default=0),
        "log_spacing": randomize.spacing == "log",
        "stream_from": torch.iinfo(torch.int64).max,  # never, unless a backend knows its caches
        **{f"{name}_at": place for name, place in column_places(params).items()},
    }
    real = {
        "max_gross": config.max_gross,
        "initial_cash": config.initial_cash,
        "initial_invested": config.initial_invested,
        "adaptation": reward.adaptation,
        "drawdown_penalty": reward.drawdown_penalty,
        "retention": config.impact.retention,
        "transient_share": config.impact.transient_share,
        "maintenance_margin": config.orders.maintenance_margin,
        "stop": config.orders.stop,
        "target": config.orders.target,
        "trailing": config.orders.trailing,
        "leverage": config.perpetual.leverage,
        "liquidation_fee": 0.0 if margin is None else margin.fee,
    }
    device = tape.device
    return Rules(
        torch.tensor([whole[n] for n in c.WHOLE._fields], dtype=torch.int64, device=device),
        torch.tensor([real[n] for n in c.REAL._fields], dtype=tape.dtype, device=device),
    )


def column_places(params: EnvParams) -> dict[str, int]:
    """Where each portfolio column begins in what kernels write; 0 for what is not shown."""
    columns = {column.name: column for column in params.rules.columns}
    place, places = seen_width(params) - portfolio_width(params), dict.fromkeys(c.PORTFOLIO, 0)
    for name, column in columns.items():
        assert name in places, "coverage lets no other column through"
        places[name] = place
        place += len(column.names(params.tape.symbols))
    return places


def empty_state(params: EnvParams, num_envs: int, vector: int = 1) -> State:
    """Room for the state of N environments."""
    tape = params.tape
    options = {"device": tape.device, "dtype": tape.dtype}
    padded = tape.num_assets + -tape.num_assets % vector
    markets, columns = num_envs // params.config.players, padded if by_market(params.config) else 0
    kept = padded if params.config.orders.carries else 0
    since = padded if params.config.closes_within else 0
    parts = len(c.SINCE) if params.rules.action.brackets else int(c.SINCE.stop)
    return State(
        holdings=torch.empty(num_envs, padded, **options),  # type: ignore[call-overload]
        money=torch.empty(num_envs, c.NUM_MONEY, **options),  # type: ignore[call-overload]
        counters=torch.empty(num_envs, c.NUM_COUNTERS, device=tape.device, dtype=torch.int64),
        done=torch.empty(num_envs, device=tape.device, dtype=torch.bool),
        slots=_empty_slots(params, num_envs),
        displaced=torch.empty(len(c.DISPLACED), markets, columns, **options),  # type: ignore[call-overload]
        open_orders=torch.empty(num_envs, kept, **options),  # type: ignore[call-overload]
        since=torch.empty(num_envs, parts, since, **options),  # type: ignore[call-overload]
    )


def empty_results(params: EnvParams, num_envs: int, *steps: int, row_bytes: int = 1) -> Results:
    """Room for what one step of N environments returns, or [steps] of them.

    Rows of `seen` and `final_seen` begin at multiples of `row_bytes`: views of longer ones.
    """

    def room(rows: int, *columns: int, dtype: torch.dtype = params.tape.dtype) -> Tensor:
        return torch.empty(*steps, rows, *columns, device=params.tape.device, dtype=dtype)

    finals = num_envs if params.config.autoreset == "same_step" else 0
    width = seen_width(params)
    pitch = padded_width(width, params.tape.dtype, row_bytes)
    return Results(
        seen=room(num_envs, pitch)[..., :width],
        bar=room(num_envs, dtype=torch.int64),
        figures=room(num_envs, c.NUM_FIGURES),
        flags=room(num_envs, c.NUM_FLAGS, dtype=torch.bool),
        final_seen=room(finals, pitch)[..., :width],
        final_bar=room(finals, dtype=torch.int64),
    )


def padded_width(width: int, dtype: torch.dtype, row_bytes: int) -> int:
    """Numbers from one row to the next, where rows begin at multiples of so many bytes."""
    numbers = max(row_bytes // dtype.itemsize, 1)
    return width + -width % numbers


def without_features(params: EnvParams) -> EnvParams:
    """The same, but of the market an observation names the bar alone: who learns looks it up."""
    if params.config.observation != "flat":
        return params
    return params._replace(config=replace(params.config, observation="index"))


def empty_draws(params: EnvParams, num_envs: int) -> Draws | None:
    """Ranges that are drawn from, and room for what N rows draw; None if nothing is drawn."""
    tape, config = params.tape, params.config.randomize
    if not config.varies:
        return None
    units = {name: unit for name, (_, unit) in DRAWN_COSTS.items()}
    ranges = [
        (*(getattr(config, name) or (nan, nan)), units.get(name, 1.0)) for name in c.DRAWN._fields
    ]
    rising = [name in tape.rising for name in tape.feature_names]
    options: dict[str, Any] = {"device": tape.device, "dtype": tape.dtype}
    return Draws(
        ranges=torch.tensor(ranges, device=tape.device, dtype=torch.float64),
        rising=torch.tensor(rising * tape.num_assets, **options),
        factors=torch.empty(num_envs, len(c.FACTOR), **options),
        shown=torch.empty(num_envs, device=tape.device, dtype=torch.int64),
    )


def empty_views(params: EnvParams, num_envs: int) -> Views | None:
    """Room for what N rows see the market as; None where it is as it is."""
    tape, config = params.tape, params.config
    if not config.randomize.shows:
        return None
    finals = num_envs if config.autoreset == "same_step" else 0
    options: dict[str, Any] = {"device": tape.device, "dtype": tape.dtype}
    return Views(
        slots=_empty_slots(params, num_envs),
        volatility=torch.empty(num_envs, **options),
        final_slots=_empty_slots(params, finals),
        final_volatility=torch.empty(finals, **options),
    )


def _empty_slots(params: EnvParams, rows: int) -> Tensor:
    columns = params.tape.num_assets if params.config.randomize.assets else 0
    return torch.empty(rows, columns, device=params.tape.device, dtype=torch.int64)


def empty_singles(params: EnvParams, num_envs: int, *, asked: bool) -> Singles | None:
    """Room for the single orders of one step of N environments, or for what must be told of them.

    None if that is nothing. What was held follows from what is at the close (`info`), but where
    positions are closed before, cut by force or paid out.
    """
    options = {"device": params.tape.device, "dtype": params.tape.dtype}
    calls = params.config.orders.maintenance_margin > 0
    leaves, held = params.config.orders.brackets, params.config.perpetual.trades
    if not (asked or calls or leaves or held or "delisted" in params.tape.next):
        return None
    told = num_envs if asked else 0
    called, left, futures = told if calls else 0, num_envs * leaves, num_envs * held

    def room(rows: int, columns: int) -> Tensor:
        return torch.empty(rows, columns, **options)  # type: ignore[call-overload, no-any-return]

    assets = params.tape.num_assets
    return Singles(
        trade=room(told, assets),
        holdings=room(num_envs, assets),
        called=room(called, assets),
        called_cost=room(called, len(c.COSTS)),
        exit_trade=room(left, assets),
        exit_cost=room(left, len(c.COSTS)),
        exit_value=room(left, len(c.EXIT)),
        settled=room(futures, len(c.SETTLED)),
        seized=room(futures, assets),
    )


def numpy_blocks(blocks: Blocks) -> Blocks:
    """The same memory as arrays, under the same names: what numba takes."""
    return type(blocks)(*(block.numpy() for block in blocks))


def torch_blocks(blocks: Blocks) -> Blocks:
    """The same memory as tensors, under the same names."""
    return type(blocks)(*map(torch.from_numpy, blocks))


def market_rows(config: EnvConfig) -> int:
    """Rows of `MarketBlocks.moves` for each bar; see `columns.MOVE`."""
    if config.randomize.shows:
        return len(c.MOVE)
    invested = config.initial_invested > 0 or config.impact.moves_prices
    return int(c.MOVE.tradable if invested else c.MOVE.start_holdings)


def by_market(config: EnvConfig) -> bool:
    """Whether rows depend on one another, or on what they did to prices: a step is a market's."""
    return config.players > 1 or config.impact.moves_prices


def by_orders(params: EnvParams) -> bool:
    """Whether more decides on orders, and what becomes of them, than rates and limits."""
    named = {"borrow", "shortable", "delisted"} & set(params.tape.next)
    config = params.config
    settings = config.orders != OrderConfig() or config.perpetual.trades
    return settings or bool(named) or params.friction.minimum is not None


def portfolio_width(params: EnvParams) -> int:
    """P."""
    return len(portfolio_names(params.tape, params.config))


def seen_width(params: EnvParams) -> int:
    """Columns that a kernel writes per observation."""
    own = portfolio_width(params)
    if params.config.observation == "flat":
        return own + params.tape.num_assets * len(params.tape.feature_names)
    return own


def _starts(params: EnvParams) -> Account:
    """What an episode would begin with at each of T bars, every one a market of its own."""
    tape, known = params.tape, params.tape.known
    bar = torch.arange(len(tape), device=tape.device)
    begun = lone(endowment(params, bar, bar[:, None][:, :0]))
    moved = undisturbed(params.config.impact, known.impact_sigma, known.dollar_volume)
    return begun._replace(displacement=moved)


def _observation(bar: Tensor, seen: Tensor, width: int, view: View | None) -> Observation:
    if seen.shape[1] == width:
        return Observation(bar, seen, view=view)
    return Observation(bar, seen[:, -width:], seen, view)
