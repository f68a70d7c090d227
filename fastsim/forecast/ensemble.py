"""Several forecasters as one: the weighted average of their quantile functions.

Averaging quantiles (Vincent 1912; Ratcliff 1979) keeps the shape that members agree on, where
averaging probabilities would widen it.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fastsim.data.bars import CLOSE
from fastsim.errors import ConfigError, ForecastError
from fastsim.forecast.interface import (
    Context,
    Forecast,
    Forecaster,
    Identity,
    ModelCard,
    can_forecast,
    check_horizons,
    check_request,
    no_forecasts,
)
from fastsim.forecast.seen import latest_day, sources_of
from fastsim.forecast.statistics import Counted, counted
from fastsim.forecast.windows import context_at
from fastsim.market.tape import MarketTape

FIT_WINDOWS = 2000
"""Windows that weights are fitted on, about."""

log = logging.getLogger(__name__)


class Ensemble(Counted):
    """A forecaster made of forecasters.

    Parameters
    ----------
    members
        At least one.
    weights
        One per member, not negative, not all zero; scaled to sum one. None weighs them equally.
    on_failure
        What happens where a member cannot forecast: "drop" goes on with the others' weights
        renormalised and logs a warning, "stop" raises. A series that is too short for a member is
        left to the others, and that alone; a member that raises ForecastError drops out of the
        whole batch.

    Raises
    ------
    ConfigError
        No members, weights that do not fit them, or another word for `on_failure`.
    """

    def __init__(
        self,
        members: Sequence[Forecaster],
        weights: Sequence[float] | None = None,
        *,
        on_failure: Literal["drop", "stop"] = "drop",
    ) -> None:
        self.members = tuple(members)
        self.weights = normalized(weights, len(self.members))
        if on_failure not in ("drop", "stop"):
            raise ConfigError(f'on_failure must be "drop" or "stop", got {on_failure!r}')
        self.on_failure = on_failure
        self._warned: set[str] = set()
        least = min if on_failure == "drop" else max
        cards = [member.card for member in self.members]
        self._card = ModelCard(
            name="+".join(card.name for card in cards),
            licence="; ".join(sorted({card.licence for card in cards})),
            attribution="; ".join(sorted({card.attribution for card in cards} - {""})),
            parameters=sum(card.parameters for card in cards),
            max_context=max(card.max_context for card in cards),
            max_horizon=max(card.max_horizon for card in cards),
            levels=tuple(sorted({level for card in cards for level in card.levels})),
            inputs="bars" if any(card.inputs == "bars" for card in cards) else "close",
            min_context=least(card.min_context for card in cards),
            known_until=latest_day(cards),
            known_source=sources_of(cards),
            trials=1 + sum(card.trials - 1 for card in cards),
        )

    @property
    def card(self) -> ModelCard:
        """The members' names, the union of their levels, the longest horizon, what any has seen."""
        return self._card

    @functools.cached_property
    def identity(self) -> Identity:
        """Identities of the members with their weights; those of no weight do not matter."""
        members = [
            [round(weight, 9), member.key]
            for weight, member in zip(self.weights, self.members, strict=True)
        ]
        return Identity(
            card=self.card, settings={"members": members, "on_failure": self.on_failure}
        )

    @property
    def key(self) -> str:
        """Names, and the hash of its identity."""
        return self.identity.key

    def can_forecast(self, context: Context) -> Tensor:
        """Which series [B] one of the members can forecast, or every one under "stop"."""
        parts = [
            can_forecast(member, context)
            for member, weight in zip(self.members, self.weights, strict=True)
            if weight > 0
        ]
        able = torch.stack(parts)
        return able.any(0) if self.on_failure == "drop" else able.all(0)

    @counted
    def forecast(self, context: Context, horizon: int) -> Forecast:
        """Average the members' quantiles; a bar beyond a member's horizon is left to the others.

        Raises
        ------
        ForecastError
            The request does not fit; a member failed under "stop", or no member is left for a
            series or a bar.
        """
        check_request(self.card, context, horizon)
        rows = len(context.bars)
        if not rows:
            return no_forecasts(self.card, horizon)
        total = torch.zeros(rows, horizon, len(self.card.levels))
        mass = torch.zeros(rows, horizon, 1)
        for member, weight in zip(self.members, self.weights, strict=True):
            reach = min(horizon, member.card.max_horizon)
            answer = self._ask(member, context, reach) if weight > 0 else None
            if answer is None:
                continue
            quantiles = at_levels(answer.forecast, self.card.levels)  # [rows, reach, Q]
            total, mass = total.to(quantiles.device), mass.to(quantiles.device)
            total[answer.rows, :reach] += weight * quantiles
            mass[answer.rows, :reach] += weight
        lacking = (mass == 0).nonzero()
        if len(lacking):
            row, bar, _ = lacking[0].tolist()
            raise ForecastError(
                f"no member of {self.card.name} forecasts series {row} of the context "
                f"{bar + 1} bars ahead: leave it out, or ask for less"
            )
        return Forecast(total / mass, self.card.levels)

    def _ask(self, member: Forecaster, context: Context, horizon: int) -> _Answer | None:
        """What a member says of the series that it can forecast; None if it says nothing."""
        able = can_forecast(member, context)
        if self.on_failure == "stop" or bool(able.all()):
            able = torch.ones_like(able)
        else:
            self._warn_once(member, int((~able).sum()), len(able))
        rows = able.nonzero().squeeze(1)
        if not len(rows):
            return None
        asked = context if len(rows) == len(able) else Context(*(part[rows] for part in context))
        try:
            forecast = member.forecast(asked, horizon)
        except ForecastError as error:
            if self.on_failure == "stop":
                raise
            log.warning("%s drops out of the ensemble: %s", member.card.name, error)
            return None
        return _Answer(rows.to(forecast.quantiles.device), forecast)

    def _warn_once(self, member: Forecaster, short: int, rows: int) -> None:
        name = member.card.name
        if name not in self._warned:
            self._warned.add(name)
            log.warning(
                "%s drops out of the ensemble for %d of %d series, too short for it; from now on "
                "this is not said again",
                name,
                short,
                rows,
            )


class _Answer(NamedTuple):
    rows: Tensor  # [B']  places in the batch
    forecast: Forecast  # of these rows


def normalized(weights: Sequence[float] | None, count: int) -> tuple[float, ...]:
    """Weights scaled to sum one; equal if None."""
    if count < 1:
        raise ConfigError("an ensemble needs at least one member: name a forecaster")
    if weights is None:
        return (1.0 / count,) * count
    if len(weights) != count:
        raise ConfigError(f"{count} forecasters need {count} weights, got {len(weights)}")
    total = sum(weights)
    if not all(weight >= 0 for weight in weights) or not 0 < total < float("inf"):
        raise ConfigError(f"ensemble weights must be >= 0 and not all 0, got {list(weights)}")
    return tuple(weight / total for weight in weights)


def at_levels(forecast: Forecast, levels: tuple[float, ...]) -> Tensor:
    """Quantiles [B, H, Q'] at other levels, linear between the known ones, constant beyond."""
    if levels == forecast.levels:
        return forecast.quantiles
    return torch.stack([forecast.at(level) for level in levels], dim=-1)


def fit_weights(
    forecasts: Sequence[Forecast], target: Tensor, *, steps: int = 200
) -> tuple[float, ...]:
    """Weights on the simplex that minimise the mean CRPS of the average on past forecasts.

    The loss is convex in the weights (a pinball loss of a linear combination), so a softmax
    parametrisation under L-BFGS finds its minimum.

    Parameters
    ----------
    forecasts
        One per member, of the same series and bars.
    target
        What came [B, H].
    """
    levels = tuple(sorted({level for forecast in forecasts for level in forecast.levels}))
    members = torch.stack([at_levels(forecast, levels) for forecast in forecasts]).double()
    scale = (target.double() - members.mean((0, -1))).abs().mean().clamp_min(1e-12)
    logits = torch.zeros(len(forecasts), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=steps, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        weights = torch.softmax(logits, 0)
        average = Forecast(torch.einsum("m,mbhq->bhq", weights, members), levels)
        value = average.crps(target.double()).mean() / scale
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return tuple(torch.softmax(logits, 0).tolist())


def fit_on_market(
    members: Sequence[Forecaster],
    tape: MarketTape,
    rows: slice,
    *,
    horizons: Sequence[int],
    context_length: int,
) -> tuple[float, ...]:
    """Weights by CRPS on the closes of `rows`, as shares of each window's last close.

    About FIT_WINDOWS windows are forecast, spread evenly over the bars and assets; their outcomes
    lie in `rows` too, so that bars after them stay unseen. Rounded to a thousandth.

    Raises
    ------
    ForecastError
        Horizons are no whole numbers from 1, a member cannot forecast these windows, or the rows
        hold none with a known outcome.
    """
    start, stop, _ = rows.indices(len(tape))
    reach, length = check_horizons(horizons), context_length
    ahead = torch.tensor(list(horizons), device=tape.device)
    every = max(1, (stop - start) * tape.num_assets // FIT_WINDOWS)
    close = tape.known.bars[..., CLOSE]  # [T, A]
    forecasts: list[list[Tensor]] = [[] for _ in members]
    targets = []
    for bar in range(start, stop - reach, every):
        context = context_at(tape, slice(bar, bar + 1), length)
        price, outcome = close[bar], close[bar + ahead].T  # [A], [A, h]
        known = torch.stack([can_forecast(member, context) for member in members]).all(0)
        usable = known & price.isfinite() & outcome.isfinite().all(1)
        if not bool(usable.any()):
            continue
        window = Context(context.bars[usable], context.timestamps[usable])
        last = price[usable, None]
        targets.append((outcome[usable] / last).cpu())
        for member, found in zip(members, forecasts, strict=True):
            quantiles = member.forecast(window, reach).quantiles[:, ahead - 1]
            found.append((quantiles.to(last) / last[..., None]).cpu())
    if not targets:
        raise ForecastError(
            f"bars {start} to {stop - 1} hold no window with a known outcome: weights need more"
        )
    weights = fit_weights(
        [
            Forecast(torch.cat(found), member.card.levels)
            for member, found in zip(members, forecasts, strict=True)
        ],
        torch.cat(targets),
    )
    return tuple(round(weight, 3) for weight in weights)
