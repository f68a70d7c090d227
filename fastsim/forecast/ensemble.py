"""Several forecasters as one: the weighted average of their quantile functions.

Averaging quantiles (Vincent 1912; Ratcliff 1979) keeps the shape that members agree on, where
averaging probabilities would widen it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from fastsim.data.bars import CLOSE
from fastsim.errors import ConfigError, ForecastError
from fastsim.forecast.interface import (
    Context,
    Forecast,
    Forecaster,
    ModelCard,
    check_request,
)
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
        What happens when a member raises ForecastError: "drop" goes on with the others' weights
        renormalised and logs a warning, "stop" raises.

    Raises
    ------
    ConfigError
        No members, or weights that do not fit them.
    """

    def __init__(
        self,
        members: Sequence[Forecaster],
        weights: Sequence[float] | None = None,
        *,
        on_failure: Literal["drop", "stop"] = "drop",
    ) -> None:
        self.members = tuple(members)
        if not self.members:
            raise ConfigError("an ensemble needs at least one member")
        self.weights = normalized(weights, len(self.members))
        self.on_failure = on_failure
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
            min_context=max(card.min_context for card in cards),
        )

    @property
    def card(self) -> ModelCard:
        """The members' names, the union of their levels, the longest horizon."""
        return self._card

    @property
    def key(self) -> str:
        """Keys of the members with their weights."""
        parts = (
            f"{weight:.9g}*{member.key}"
            for weight, member in zip(self.weights, self.members, strict=True)
        )
        return f"{' + '.join(parts)} ({self.on_failure})"

    @counted
    def forecast(self, context: Context, horizon: int) -> Forecast:
        """Average the members' quantiles; a bar beyond a member's horizon is left to the others.

        Raises
        ------
        ForecastError
            The request does not fit; a member failed under "stop", or every member did.
        """
        check_request(self.card, context, horizon)
        total: Tensor | None = None
        mass: Tensor | None = None
        for member, weight in zip(self.members, self.weights, strict=True):
            reach = min(horizon, member.card.max_horizon)
            forecast = self._ask(member, context, reach) if weight > 0 else None
            if forecast is None:
                continue
            quantiles = at_levels(forecast, self.card.levels)  # [B, reach, Q]
            if total is None or mass is None:
                total = quantiles.new_zeros(len(quantiles), horizon, len(self.card.levels))
                mass = quantiles.new_zeros(horizon, 1)
            total[:, :reach] += weight * quantiles.to(total.device)
            mass[:reach] += weight
        if total is None or mass is None or not bool((mass > 0).all()):
            raise ForecastError(f"no member of {self.card.name} forecasts {horizon} bars ahead")
        return Forecast(total / mass, self.card.levels)

    def _ask(self, member: Forecaster, context: Context, horizon: int) -> Forecast | None:
        try:
            return member.forecast(context, horizon)
        except ForecastError as error:
            if self.on_failure == "stop":
                raise
            log.warning("%s drops out of the ensemble: %s", member.card.name, error)
            return None


def normalized(weights: Sequence[float] | None, count: int) -> tuple[float, ...]:
    """Weights scaled to sum one; equal if None."""
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
        A member cannot forecast these windows, or the rows hold none with a known outcome.
    """
    start, stop, _ = rows.indices(len(tape))
    ahead = torch.tensor(list(horizons), device=tape.device)
    reach, length = max(horizons), context_length
    every = max(1, (stop - start) * tape.num_assets // FIT_WINDOWS)
    least = max(member.card.min_context for member in members)
    close = tape.known.bars[..., CLOSE]  # [T, A]
    forecasts: list[list[Tensor]] = [[] for _ in members]
    targets = []
    for bar in range(start, stop - reach, every):
        context = context_at(tape, slice(bar, bar + 1), length)
        price, outcome = close[bar], close[bar + ahead].T  # [A], [A, h]
        known = context.close.isfinite().sum(1) >= least
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
