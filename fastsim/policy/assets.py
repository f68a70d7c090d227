"""A policy that looks at each asset by the same weights: at its window, and at what is held of it.

    e_a = encoder(window of a)                     once per bar, whoever holds what
    m = tanh(whole(mean of e_a over the assets that are listed))
    p_a = asset(e_a) + market(m)
    score_a = out(tanh(p_a + held(own_a) + account(own)))
    score_cash = cash_out(tanh(cash(m) + account(own)))
    value = critic(tanh(worth(m) + of_held(sum of w_a p_a) + account(own)))

What is held enters before the score, as in Jiang, Xu and Liang (2017). Nothing depends on the order
of the assets or on how many there are, so a policy can decide on others than it learned from.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, pad

from fastsim.env.actions import ACTIONS, LOGIT_LIMIT
from fastsim.env.config import EnvConfig
from fastsim.env.observe import Observation
from fastsim.env.slots import View, look_up
from fastsim.errors import ConfigError
from fastsim.market.tape import MarketTape
from fastsim.policy.encoders import ENCODERS, SetAttention
from fastsim.policy.normalize import RunningMoments
from fastsim.policy.own import OwnMoments
from fastsim.policy.policy import Encoded, Policy, PolicyOutput, linear
from fastsim.policy.score import Picked, is_fused, scores
from fastsim.policy.spec import PolicySpec


class WindowTable(NamedTuple):
    """Standardised features of W worlds at the S bars of each that episodes use, as `Table` says.

    Before them stand as many bars as windows look back on, zeros where there are none.
    """

    rows: Tensor  # [W, L - 1 + S, A, F]
    listed: Tensor  # [W, L - 1 + S, A]  bool: whether the asset traded at the bar
    tape: MarketTape
    window: int  # L

    @property
    def bars(self) -> int:
        """W S."""
        return len(self.rows) * self._each

    @property
    def _each(self) -> int:
        return self.rows.shape[1] - self.window + 1

    def place(self, bar: Tensor) -> Tensor:
        """Rows of these bars [N] among the W S."""
        each, first = self.tape.bars_per_world, self.tape.first
        return bar // each * self._each + bar % each - first

    def windows(self, place: Tensor) -> tuple[Tensor, Tensor]:
        """Features [L, N, A, F] up to these of the W S bars [N], and what was listed [L, N, A]."""
        length = self.rows.shape[1]
        start = place // self._each * length + place % self._each  # [N]
        index = start + torch.arange(self.window, device=place.device)[:, None]  # [L, N]
        return self.rows.flatten(0, 1)[index], self.listed.flatten(0, 1)[index]


class AssetPolicy(Policy):
    """Gaussian policy whose scores are those of single assets, and of cash."""

    def __init__(self, spec: PolicySpec) -> None:
        super().__init__()
        self.spec, network = spec, spec.network
        channels, hidden = network.channels, network.hidden
        mode = ACTIONS.find(spec.action)
        self._each = 3 if mode.brackets else 1
        self._cash = mode.width(1) - self._each
        if self._cash not in (0, 1) or mode.width(2) != 2 * self._each + self._cash:
            raise ConfigError(
                f'PolicyConfig.encoder = "{network.encoder}" scores single assets, and action mode '
                f'"{mode.name}" asks for other numbers: use PolicyConfig.encoder = "mlp"'
            )
        own = self.columns = spec.own
        alone = own.width - len(own.of_assets)
        self.market_moments = RunningMoments(len(spec.features))
        self.portfolio_moments = OwnMoments(own)
        make = ENCODERS.find(network.encoder).make
        self.encoder = make(len(spec.features), network.window, channels)
        self.across = SetAttention(channels) if network.across else None
        self.whole = nn.Linear(channels, channels)
        self.asset, self.market = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.held = nn.Linear(len(own.of_assets), channels, bias=False)
        self.account = nn.Linear(alone, 2 * channels + hidden, bias=False)
        self.cash, self.worth = nn.Linear(channels, channels), nn.Linear(channels, hidden)
        self.of_held = nn.Linear(channels, hidden, bias=False)
        self.out = linear(channels, self._each, gain=0.01)
        self.cash_out = linear(channels, 1, gain=0.01) if self._cash else None
        self.critic = linear(hidden, 1, gain=1.0)
        start = math.log(network.initial_std)
        self.own_log_std = nn.Parameter(torch.full((self._each + self._cash,), start))

    @property
    def log_std(self) -> Tensor:  # type: ignore[override]
        """Log standard deviations [W], alike for all assets."""
        assets = self.own_log_std[: self._each].repeat_interleave(len(self.spec.symbols))
        return torch.cat([assets, self.own_log_std[self._each :]])

    @property
    def history(self) -> int:
        """Bars that it looks back on, the last included."""
        return self.spec.network.window

    def fit_moments(self, tape: MarketTape) -> None:
        """Take in what the market shows at the bars of `tape` that episodes use."""
        rows = torch.unflatten(tape.known.features, 0, (tape.worlds, tape.bars_per_world))
        self.market_moments.update(rows[:, tape.first : tape.last + 1].flatten(0, 2))

    def study(self, tape: MarketTape, rules: EnvConfig, /) -> Encoded:
        """Every bar encoded once; ConfigError if the policy was made for another market."""
        self.spec.check(tape, rules)
        return self.by_heart(tape)

    def decide(self, market: Encoded, seen: Observation, memory: Any, /) -> tuple[Tensor, Any]:
        """Most likely actions [n, W], without exploration."""
        with torch.no_grad():
            return self.recall(market, seen), memory

    def standardize(self, tape: MarketTape) -> WindowTable:
        """What the market shows at the bars of `tape` that episodes use, and before them."""
        table = self._empty(tape)
        self.restandardize(table, torch.arange(tape.worlds, device=tape.device))
        return table

    def _empty(self, tape: MarketTape) -> WindowTable:
        window, known = self.spec.network.window, tape.known
        shape = (tape.worlds, window + tape.last - tape.first, tape.num_assets)
        rows = known.features.new_zeros(*shape, len(tape.feature_names))
        return WindowTable(rows, known.listed.new_zeros(shape), tape, window)

    def restandardize(self, table: WindowTable, worlds: Tensor) -> None:
        """Put right, in place, what a table shows of these worlds [K], which have changed."""
        tape = table.tape
        begin = max(0, tape.first - table.window + 1)
        late = begin - (tape.first - table.window + 1)  # bars that there are none of
        each = (tape.worlds, tape.bars_per_world)
        for rows, known in ((table.rows, tape.known.features), (table.listed, tape.known.listed)):
            seen = torch.unflatten(known, 0, each)[worlds, begin : tape.last + 1]
            if rows is table.rows:
                seen = self.market_moments(seen)
            rows[worlds, late:] = seen

    def encode_table(self, table: WindowTable) -> Tensor:
        """Market part [W S, R] of every bar of a table."""
        rows = table.rows.transpose(0, 1)  # [L - 1 + S, W, A, F]
        known = table.listed.transpose(0, 1)
        encoded = self._encode(rows).transpose(0, 1).flatten(0, 1)  # [W S, A, D]
        # Listed is what traded at any bar of the window.
        count = pad(known.cumsum(0), (0, 0, 0, 0, 1, 0))
        listed = count[table.window :] > count[: -table.window]  # [S, W, A]
        return self._parts(encoded, listed.transpose(0, 1).flatten(0, 1))

    def look_up(self, table: WindowTable, bar: Tensor, view: View | None = None) -> Picked:
        """Market parts of samples at `bar` [M]: of each bar that is seen, or of all."""
        place = table.place(bar)
        if view is None and (place.is_cuda or len(bar) >= table.bars):
            return Picked(self.encode_table(table), place)
        seen, index = torch.unique(place, return_inverse=True)
        windows, listed = table.windows(seen)
        encoded, known = self._encode(windows)[0], listed.any(0)  # [K, A, D], [K, A]
        if view is None:
            return Picked(self._parts(encoded, known), index)
        # Of the assets that are drawn, the market as a whole is another in each sample.
        shown = (look_up(each, index, view.slots) for each in (encoded, known))
        return Picked(self._parts(*shown), torch.arange(len(bar), device=bar.device))

    def _encode(self, rows: Tensor) -> Tensor:
        """What the encoder says [S, ..., D] of rows [L - 1 + S, ..., F]."""
        said: Tensor = self.encoder(rows.flatten(1, -2))
        return torch.unflatten(said, 1, rows.shape[1:-1])

    def _parts(self, assets: Tensor, listed: Tensor) -> Tensor:
        """Market part [B, (A + 1) D + H + A] of encoded assets [B, A, D].

        The assets' own [A D], that of cash [D] and of the value [H], and which are listed [A].
        """
        if self.across is not None:
            assets = assets + self.across(assets, listed)
        seen = listed.to(assets)
        mean = torch.einsum("bad,ba->bd", assets, seen) / seen.sum(-1, keepdim=True).clamp_min(1.0)
        whole = torch.tanh(self.whole(mean))
        each = self.asset(assets) + self.market(whole)[:, None]
        return torch.cat([each.flatten(1), self.cash(whole), self.worth(whole), seen], -1)

    def pick(self, parts: Tensor, place: Tensor) -> Picked:
        """What `forward` takes of bars `place` [N] out of what was made of all of them."""
        return Picked(parts, place)

    def forward(self, market: Picked, portfolio: Tensor) -> PolicyOutput:
        """Decide from market parts that were picked for N samples, and from portfolios [N, P]."""
        parts, place = market
        channels, hidden = self.spec.network.channels, self.spec.network.hidden
        assets = (parts.shape[-1] - channels - hidden) // (channels + 1)
        rest = embedding(place, parts[:, assets * channels :])  # its gradient is one pass
        cash, worth, listed = torch.split(rest, [channels, hidden, assets], dim=-1)
        own, alone = self.columns.split(self.portfolio_moments(portfolio))
        sizes = [channels, channels, hidden]
        account, of_cash, of_worth = torch.split(self.account(alone), sizes, dim=-1)
        weight = portfolio[:, :assets]  # the first column
        score, held = self._score(market, own, account, weight)
        score = torch.where(listed[..., None] > 0, score, -LOGIT_LIMIT if self._cash else 0.0)
        mean = score.transpose(1, 2).flatten(1)
        if self.cash_out is not None:
            mean = torch.cat([mean, self.cash_out(torch.tanh(cash + of_cash))], -1)
        value = self.critic(torch.tanh(worth + self.of_held(held) + of_worth)).squeeze(-1)
        full = torch.promote_types(mean.dtype, torch.float32)
        return PolicyOutput(mean.to(full), self.log_std, value.to(full))

    def _score(
        self, market: Picked, own: Tensor, account: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Scores [N, A, 1 or 3], and the assets' parts as weights [N, A] sum them up [N, D]."""
        channels, assets = account.shape[-1], weight.shape[-1]
        if self._each == 1 and is_fused(market.parts, own):
            layers = (self.held.weight, self.out.weight, self.out.bias)
            score, held = scores(market, own, account, weight, *layers)
            return score[..., None], held
        each = embedding(market.place, market.parts[:, : assets * channels])
        each = torch.unflatten(each, -1, (assets, channels))
        score = self.out(torch.tanh(each + self.held(own) + account[:, None]))
        return score, torch.einsum("nad,na->nd", each, weight)

    @torch.no_grad()
    def act(self, tape: MarketTape, observation: Observation) -> Tensor:
        """Most likely action [N, W] for observations of `tape`, without exploration."""
        place = observation.bar % tape.bars_per_world
        seen = replace(tape, first=int(place.min()), last=int(place.max()))
        market = self.look_up(self.standardize(seen), observation.bar, observation.view)
        mean: Tensor = self(market, observation.portfolio).mean
        return mean
