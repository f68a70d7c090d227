"""How fused backends lay out the market, the state and the results: a few blocks, row by row.

All numbers of an environment stand side by side in a row of each block, so that a step touches few
cache lines; columns of their own would be 2^k apart for 2^k environments and evict one another. A
column of a block is a tensor [N] like any other.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from fastsim.env.accounting import Account, Outcome, Portfolio, lone, worth
from fastsim.env.core import EnvConfig, EnvParams, EnvState, Transition, endowment
from fastsim.env.episode import Episode
from fastsim.env.impact import Displacement, undisturbed
from fastsim.env.kernels import columns as c
from fastsim.env.observe import Observation, portfolio_names
from fastsim.env.reward import RewardMemory
from fastsim.market.costs import TradeCost

Blocks = TypeVar("Blocks", bound=tuple[Tensor, ...])


class MarketBlocks(NamedTuple):
    """What environments meet, a row per bar, and what trading costs them."""

    moves: Tensor  # [T, 4, A']  what a trade meets; traded value is 0 where nothing can be traded;
    # [T, 6, A'] with holdings and displacement's rate at the start of episodes that have any
    bars: Tensor  # [T, 5]  years, interest and market return to the next close; cash and wealth of
    # an episode that begins here
    features: Tensor  # [T, A F]
    friction: Tensor  # [N, 5]


class Rules(NamedTuple):
    """Settings, as kernels read them."""

    whole: Tensor  # [15]  int64; a horizon of 0 is none
    real: Tensor  # [6]


class State(NamedTuple):
    """What changes, in place. A' is A rounded up to whole vectors: the rest is never traded."""

    holdings: Tensor  # [N, A']
    money: Tensor  # [N, 4]  cash, peak, and the moments of the reward
    counters: Tensor  # [N, 5]  int64: bar, end, episode, invalid actions, key
    done: Tensor  # [N]  bool
    displaced: Tensor  # [2, M, A']  transient part and rate; [2, M, 0] if every row is its own

    def nested(self, params: EnvParams) -> EnvState:
        """The same memory under the names of the reference."""
        assets = params.tape.num_assets
        moved = self.displaced[..., : assets if params.config.impact.moves_prices else 0]
        return EnvState(
            displacement=Displacement(moved[c.TRANSIENT], moved[c.RATE]),
            open_orders=self.holdings[:, :0],
            portfolio=Portfolio(self.holdings[:, :assets], self.money[:, c.CASH]),
            episode=Episode(
                self.counters[:, c.BAR],
                self.counters[:, c.END],
                self.counters[:, c.NUMBER],
                self.done,
            ),
            peak=self.money[:, c.PEAK],
            memory=RewardMemory(self.money[:, c.MEAN], self.money[:, c.SQUARE]),
            invalid_actions=self.counters[:, c.INVALID],
            key=self.counters[:, c.KEY],
            slots=self.counters[:, :0],
        )

    def load(self, state: EnvState) -> None:
        """Copy a state in."""
        assets = state.portfolio.holdings.shape[1]
        self.holdings[:, :assets] = state.portfolio.holdings
        self.holdings[:, assets:] = 0.0
        self.displaced.zero_()
        for part, values in zip(self.displaced, state.displacement, strict=True):
            part[:, : values.shape[1]] = values
        self.done.copy_(state.episode.done)
        for column, values in (
            (c.CASH, state.portfolio.cash),
            (c.PEAK, state.peak),
            (c.MEAN, state.memory.mean),
            (c.SQUARE, state.memory.square),
        ):
            self.money[:, column].copy_(values)
        episode = state.episode
        for column, values in (
            (c.BAR, episode.bar),
            (c.END, episode.end),
            (c.NUMBER, episode.number),
            (c.INVALID, state.invalid_actions),
            (c.KEY, state.key),
        ):
            self.counters[:, column].copy_(values)


class Results(NamedTuple):
    """What one step returns; a restarted row's figures are those of a still account."""

    seen: Tensor  # [N, P] or [N, A F + P]  observation after the step, flat if the config says so
    bar: Tensor  # [N]  int64
    figures: Tensor  # [N, 11]
    flags: Tensor  # [N, 4]  bool
    final_seen: Tensor  # like `seen`, before a restart; empty under next_step
    final_bar: Tensor  # [N]  int64; empty under next_step

    def transition(self, portfolio_width: int) -> Transition:
        """The same memory under the names of the reference."""
        figures, flags = self.figures.unbind(1), self.flags.unbind(1)
        final = None
        if len(self.final_bar):
            final = _observation(self.final_bar, self.final_seen, portfolio_width)
        return Transition(
            observation=_observation(self.bar, self.seen, portfolio_width),
            reward=figures[c.REWARD],
            terminated=flags[c.TERMINATED],
            truncated=flags[c.TRUNCATED],
            restarted=flags[c.RESTARTED],
            final_observation=final,
            outcome=Outcome(
                wealth_before=figures[c.WEALTH_BEFORE],
                wealth_at_fill=figures[c.WEALTH_AT_FILL],
                wealth_traded=figures[c.WEALTH_TRADED],
                wealth=figures[c.WEALTH],
                turnover=figures[c.TURNOVER],
                cost=TradeCost(figures[c.COMMISSION], figures[c.SPREAD], figures[c.IMPACT_COST]),
                borrow=figures[c.BORROWED],
                interest=figures[c.INTEREST_EARNED],
                ruined=flags[c.RUINED],
            ),
        )


def pack_market(params: EnvParams, vector: int = 1) -> MarketBlocks:
    """Lay out the market for kernels that work on whole vectors of this many assets."""
    known, following = params.tape.known, params.tape.next
    moves = [
        following.r_before,
        following.r_after,
        torch.where(following.tradable, following.dollars, 0.0),
        known.sigma * known.dollar_volume.rsqrt(),
    ]
    begun = _starts(params)
    rate = begun.displacement.rate if begun.displacement.exists else torch.zeros_like(moves[0])
    moves = [*moves, begun.portfolio.holdings, rate][: market_rows(params.config)]
    bars = [following.years, following.interest, following.market_return]
    bars += [begun.portfolio.cash, worth(begun)]
    return MarketBlocks(
        moves=pad(torch.stack(moves, dim=1), (0, -params.tape.num_assets % vector)),
        bars=torch.stack(bars, dim=1),
        features=known.features.flatten(1).contiguous(),
        friction=torch.stack([costs for costs in params.friction if costs is not None], dim=1),
    )


def repack_bars(market: MarketBlocks, params: EnvParams, bars: Tensor, vector: int = 1) -> None:
    """Lay out again, in place, these bars [B], at which the tape has changed."""
    if len(bars) == 0:
        return
    changed = pack_market(params._replace(tape=params.tape.take(bars)), vector)
    for name in ("moves", "bars", "features"):
        getattr(market, name)[bars] = getattr(changed, name)


def pack_rules(params: EnvParams) -> Rules:
    """Lay out the settings for kernels."""
    tape, config = params.tape, params.config
    episode, reward = config.episode, config.reward
    whole = [
        c.ACTION_CODES[config.action],
        c.REWARD_CODES[reward.kind],
        config.autoreset == "same_step",
        config.observation == "flat",
        tape.first,
        tape.last,
        episode.horizon or 0,
        episode.random_start,
        tape.worlds,
        tape.bars_per_world,
        tape.slots,
        tape.num_assets,
        config.players,
        episode.liquidate_at_end,
        episode.at_end == "terminate",
    ]
    real = [
        config.max_gross,
        config.initial_cash,
        reward.adaptation,
        reward.drawdown_penalty,
        config.impact.retention,
        config.impact.transient_share,
    ]
    device = tape.device
    return Rules(
        torch.tensor(whole, dtype=torch.int64, device=device),
        torch.tensor(real, dtype=tape.dtype, device=device),
    )


def empty_state(params: EnvParams, num_envs: int, vector: int = 1) -> State:
    """Room for the state of N environments."""
    tape = params.tape
    options = {"device": tape.device, "dtype": tape.dtype}
    padded = tape.num_assets + -tape.num_assets % vector
    markets, columns = num_envs // params.config.players, padded if by_market(params.config) else 0
    return State(
        holdings=torch.empty(num_envs, padded, **options),  # type: ignore[call-overload]
        money=torch.empty(num_envs, 4, **options),  # type: ignore[call-overload]
        counters=torch.empty(num_envs, 5, device=tape.device, dtype=torch.int64),
        done=torch.empty(num_envs, device=tape.device, dtype=torch.bool),
        displaced=torch.empty(2, markets, columns, **options),  # type: ignore[call-overload]
    )


def empty_results(params: EnvParams, num_envs: int) -> Results:
    """Room for what one step of N environments returns."""
    options = {"device": params.tape.device, "dtype": params.tape.dtype}
    finals = num_envs if params.config.autoreset == "same_step" else 0
    width = seen_width(params)
    return Results(
        seen=torch.empty(num_envs, width, **options),  # type: ignore[call-overload]
        bar=torch.empty(num_envs, device=params.tape.device, dtype=torch.int64),
        figures=torch.empty(num_envs, c.NUM_FIGURES, **options),  # type: ignore[call-overload]
        flags=torch.empty(num_envs, 4, device=params.tape.device, dtype=torch.bool),
        final_seen=torch.empty(finals, width, **options),  # type: ignore[call-overload]
        final_bar=torch.empty(finals, device=params.tape.device, dtype=torch.int64),
    )


def numpy_blocks(blocks: Blocks) -> Blocks:
    """The same memory as arrays, under the same names: what numba takes."""
    return type(blocks)(*(block.numpy() for block in blocks))


def empty_like(arrays: Blocks) -> Blocks:
    """Arrays of the same sizes, under the same names."""
    return type(arrays)(*map(np.empty_like, arrays))


def torch_blocks(blocks: Blocks) -> Blocks:
    """The same memory as tensors, under the same names."""
    return type(blocks)(*map(torch.from_numpy, blocks))


def market_rows(config: EnvConfig) -> int:
    """Rows of `MarketBlocks.moves` for each bar: fewer where all episodes begin with cash alone."""
    return 6 if config.initial_invested > 0 or config.impact.moves_prices else 4


def by_market(config: EnvConfig) -> bool:
    """Whether rows depend on one another, or on what they did to prices: a step is a market's."""
    return config.players > 1 or config.impact.moves_prices


def portfolio_width(params: EnvParams) -> int:
    """P."""
    return len(portfolio_names(params.tape, moves_prices=params.config.impact.moves_prices))


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
    moved = undisturbed(params.config.impact, known.sigma, known.dollar_volume)
    return begun._replace(displacement=moved)


def _observation(bar: Tensor, seen: Tensor, width: int) -> Observation:
    if seen.shape[1] == width:
        return Observation(bar, seen)
    return Observation(bar, seen[:, -width:], seen)
