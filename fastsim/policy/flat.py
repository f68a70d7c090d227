"""A policy that sees one row per bar: what the shared market says, and what the portfolio adds.

The hidden layer of both heads is linear in an encoding of the bar and in the portfolio, so its
market part is a function of the bar alone. `encode` computes that part for a table of bars, whose
rows are then gathered: once per bar of the tape, not once per sample. Where episodes draw their
assets or their volatility, no two samples see the same market, and each is encoded by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from fastsim.env.ahead import Ahead, Network
from fastsim.env.observe import Observation, features_at
from fastsim.env.slots import View
from fastsim.market.tape import MarketTape
from fastsim.policy.normalize import OBSERVATION_LIMIT, RunningMoments
from fastsim.policy.policy import Policy, PolicyOutput, linear
from fastsim.policy.spec import PolicySpec

AHEAD = 256
"""Bars that are encoded together, counted from the first of the tape: a product of other rows
differs in its last bits."""


class MarketTable(NamedTuple):
    """Standardised features of the bars that episodes use, as `Table` says."""

    rows: Tensor  # [B, A F]
    first: int  # bar of the first row
    tape: MarketTape

    @property
    def bars(self) -> int:
        """B."""
        return len(self.rows)

    def place(self, bar: Tensor) -> Tensor:
        """Rows of these bars [N]."""
        return bar - self.first


class FlatPolicy(Policy):
    """A policy that sees the last bar's features of all assets in one row.

    Where any asset may stand in a slot, moments are pooled: those of a feature over all assets, so
    that a number means the same whichever asset it is of.
    """

    def __init__(self, spec: PolicySpec) -> None:
        super().__init__()
        self.spec = spec
        each = len(spec.features)
        features, portfolio = len(spec.symbols) * each, len(spec.portfolio)
        width, actions = spec.network.hidden, spec.action_width
        self.market_moments = RunningMoments(each if spec.pooled else features)
        self.portfolio_moments = RunningMoments(portfolio)
        self.market_encoder = nn.Sequential(linear(features, width), nn.Tanh())
        self.market_hidden = nn.Linear(width, 2 * width)
        self.portfolio_hidden = nn.Linear(portfolio, 2 * width, bias=False)
        self.actor = linear(width, actions, gain=0.01)
        self.critic = linear(width, 1, gain=1.0)
        self.log_std = nn.Parameter(torch.full((actions,), math.log(spec.network.initial_std)))
        self._begin_hidden()

    def fit_moments(self, tape: MarketTape) -> None:
        """Take in what the market shows at the bars of `tape` that episodes use."""
        self.market_moments.update(self._by_moment(_rows(tape)).flatten(0, 1))

    @torch.no_grad()
    def ahead(self, tape: MarketTape, bars: Tensor, memory: Any, /) -> tuple[Ahead, Any] | None:
        """The actor, with its market part at these bars [B]; None of a network of another kind."""
        moments, hidden, actor = self.portfolio_moments, self.portfolio_hidden, self.actor
        kinds = (type(self), *map(type, (moments, hidden, actor)))
        if kinds != (FlatPolicy, RunningMoments, nn.Linear, nn.Linear):
            return None
        width, dtype = actor.in_features, actor.weight.dtype
        return Network(
            market=self._encoded(tape, bars)[:, :width],
            mean=moments.mean.to(dtype),
            std=moments.std.to(dtype),
            limit=actor.weight.new_tensor([OBSERVATION_LIMIT]),
            hidden=hidden.weight[:width].T,
            actor=actor.weight.T,
            bias=actor.bias,
        ), memory

    def _encoded(self, tape: MarketTape, bars: Tensor) -> Tensor:
        """Market part [B, 2 hidden] of consecutive bars [B], the same whatever B is."""
        first, last = int(bars[0]), int(bars[-1])
        begin = first - first % AHEAD
        parts = [
            self.encode(self.standardized(tape.known.features[start : start + AHEAD]))
            for start in range(begin, last + 1, AHEAD)
        ]
        return torch.cat(parts)[first - begin : last + 1 - begin]

    def standardize(self, tape: MarketTape) -> MarketTable:
        """What the market shows at the bars of `tape` that episodes use, ready to be encoded."""
        return MarketTable(self.standardized(_rows(tape)), tape.first, tape)

    def restandardize(self, table: MarketTable, worlds: Tensor) -> None:
        """Put right, in place, what a table shows of these worlds [K], which have changed."""
        last = table.first + len(table.rows) - 1
        # Bars beyond the table stand for its outermost ones, which stay right: picking the others
        # out by a mask would wait for the device.
        bars = table.tape.bars_of(worlds).clamp(table.first, last)
        table.rows[bars - table.first] = self.standardized(table.tape.known.features[bars])

    def encode(self, rows: Tensor) -> Tensor:
        """Market part [B, 2 hidden] of the hidden layer, from standardised features [B, A F]."""
        hidden: Tensor = self.market_hidden(self.market_encoder(rows))
        return hidden

    def encode_table(self, table: MarketTable) -> Tensor:
        """Market part [B, 2 hidden] of every bar of a table."""
        return self.encode(table.rows)

    def show(self, table: MarketTable, bar: Tensor, view: View) -> Tensor:
        """Standardised features [M, A F] of samples at `bar` [M] with views of their own."""
        return self.standardized(features_at(table.tape, bar, view))

    def look_up(
        self,
        table: MarketTable,
        bar: Tensor,
        view: View | None = None,
        *,
        encode: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Market part [M, 2 hidden] of samples at `bar` [M]: of each bar or sample, the fewer.

        Samples with a view of their own are encoded one by one. `encode` is another network's, of
        the same standardised features.
        """
        encode = encode or self.encode
        if view is not None:
            return encode(self.show(table, bar, view))
        index = bar - table.first
        if len(bar) < len(table.rows):
            return encode(table.rows[index])
        return embedding(index, encode(table.rows))  # its gradient is one pass over the rows

    def forward(self, market: Tensor, portfolio: Tensor) -> PolicyOutput:
        """Decide from the market parts [N, 2 hidden] and portfolios [N, P]."""
        own = self.portfolio_hidden(self.portfolio_moments(portfolio))
        actor, critic = torch.tanh(market + own).chunk(2, dim=-1)
        mean, value = self.actor(actor).float(), self.critic(critic).float()
        return PolicyOutput(mean, self.log_std, value.squeeze(-1))

    @torch.no_grad()
    def act(self, tape: MarketTape, observation: Observation) -> Tensor:
        """Most likely action [N, W] for observations of `tape`, without exploration."""
        features = features_at(tape, observation.bar, observation.view)
        market = self.encode(self.standardized(features))
        output: PolicyOutput = self(market, observation.portfolio)
        return output.mean

    def standardized(self, features: Tensor) -> Tensor:
        """Features [B, A, F] in standard deviations, asset by asset in a row [B, A F]."""
        scaled: Tensor = self.market_moments(self._by_moment(features))
        return scaled.flatten(1)

    def _by_moment(self, features: Tensor) -> Tensor:
        """The same numbers [B, 1, A F] or, where moments are pooled, [B, A, F]."""
        flat, size = features.flatten(1), len(self.market_moments.mean)
        return flat.reshape(len(flat), flat.shape[1] // size, size)

    def _begin_hidden(self) -> None:
        """Start each head's hidden layer orthogonal in its joint inputs, market and portfolio."""
        width = self.market_hidden.in_features
        for rows in (slice(0, width), slice(width, 2 * width)):
            joint = linear(width + self.portfolio_hidden.in_features, width).weight.detach()
            self.market_hidden.weight.data[rows] = joint[:, :width]
            self.portfolio_hidden.weight.data[rows] = joint[:, width:]
        nn.init.zeros_(self.market_hidden.bias)


def _rows(tape: MarketTape) -> Tensor:
    stop = len(tape) - tape.bars_per_world + tape.last + 1  # of the last world
    return tape.known.features[tape.first : stop]
