"""Classic portfolio selection: rules that look at past prices alone, and need no training.

A strategy turns the price relatives known so far, x_t = close_t / close_{t-1}, into target weights.
`play_strategies` lets several of them trade side by side through the environment, at its costs, so
that an agent can be held to them; without costs they come to the wealth that their papers publish.

None sees more than the bar it decides at, apart from those named "in hindsight", which are bounds
and not strategies.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from fastsim.backtest.benchmarks import BENCHMARKS, benchmark_rules
from fastsim.backtest.history import History
from fastsim.backtest.replay import replay
from fastsim.backtest.simplex import maximize_growth, minimize_quadratic, project_simplex
from fastsim.config import configuration, require_between, require_choice
from fastsim.data.bars import CLOSE
from fastsim.data.dates import show_day
from fastsim.env.config import EnvConfig
from fastsim.env.decide import Decider
from fastsim.env.observe import Observation
from fastsim.errors import ConfigError, DataError, did_you_mean
from fastsim.market.tape import MarketTape


class Relatives(NamedTuple):
    """What strategies look at."""

    values: Tensor  # [T - 1, A]  `price_relatives` of the tape
    begin: int  # row from which on all assets have one


class Targets(NamedTuple):
    """What a strategy remembers of n portfolios."""

    weights: Tensor  # [n, A]  that it asked for last
    asked: Tensor  # [n]  bool: it did


class Strategy(Decider):
    """Decides target weights of each portfolio by itself, long only, of wealth."""

    name: str
    """Whose row this is in a table."""

    @abstractmethod
    def first(self, known: Tensor) -> Tensor:
        """Weights [A] of the first decision, from the price relatives known by then [t, A]."""

    @abstractmethod
    def next(self, weights: Tensor, known: Tensor) -> Tensor:
        """Weights [A] from the last ones [A] and the relatives known so far [t, A]; NaN holds."""

    def study(self, tape: MarketTape, rules: EnvConfig, /) -> Relatives:
        """Price relatives; DataError if an asset has no close up to the first bar."""
        if tape.worlds > 1 or rules.randomize.shows:
            raise ConfigError(
                f"{self.name} looks at one history as it is: give it a tape of one world, and "
                f"leave randomize.assets and randomize.volatility out"
            )
        return Relatives(price_relatives(tape), _bars_before_all_are_listed(tape))

    def begin(self, market: Relatives, rows: int, /) -> Targets:
        """No weights yet."""
        weights = market.values.new_zeros(rows, market.values.shape[1])
        return Targets(weights, torch.zeros(rows, dtype=torch.bool, device=weights.device))

    def decide(
        self, market: Relatives, seen: Observation, memory: Targets, /
    ) -> tuple[Tensor, Targets]:
        """Target weights [n, A], one portfolio after the other."""
        rows = zip(seen.bar.tolist(), memory.weights, memory.asked.tolist(), strict=True)
        weights = torch.stack(
            [
                self.next(last, market.values[market.begin : bar])
                if asked
                else self.first(market.values[market.begin : bar])
                for bar, last, asked in rows
            ]
        )
        return weights, Targets(weights, torch.ones_like(memory.asked))


def play_strategies(
    tape: MarketTape, strategies: Sequence[Strategy], config: EnvConfig | None = None
) -> History:
    """Let strategies trade side by side from the tape's first bar to its last.

    Parameters
    ----------
    tape
        In float64 if wealth is to be held to published figures. Bars before the first are known.
    config
        Costs and initial cash; actions are long-only weights, and what is not filled at once is
        carried until a strategy gives new weights, whatever it says.

    Raises
    ------
    ConfigError
        No strategy, two of one name, or what is none.
    DataError
        An asset has no close up to the first bar. What is known begins where all of them have one.
    """
    if isinstance(strategies, Strategy) or not strategies:
        given = type(strategies).__name__ if strategies else "none"
        raise ConfigError(f"give a sequence of at least one strategy, got {given}")
    odd = next((each for each in strategies if not isinstance(each, Strategy)), None)
    if odd is not None:
        raise ConfigError(
            f"a strategy must be a Strategy, got {type(odd).__name__}: use `replay` for others"
        )
    rules = benchmark_rules(config or EnvConfig())
    return replay(tape, strategies, [strategy.name for strategy in strategies], rules)


def price_relatives(tape: MarketTape) -> Tensor:
    """Close over the close before [T - 1, A]: row k is known from bar k + 1 on.

    An asset that did not trade stands still: its relative is 1, and the next one makes up for it.
    """
    closes = tape.known.bars[..., CLOSE]  # [T, A]
    bars = torch.arange(len(closes), device=closes.device)[:, None]
    last = torch.where(closes.isnan(), 0, bars).cummax(0).values
    closes = closes.gather(0, last)
    return (closes[1:] / closes[:-1]).nan_to_num(nan=1.0)


def _bars_before_all_are_listed(tape: MarketTape) -> int:
    unseen = (~tape.known.bars[..., CLOSE].isnan()).cummax(0).values.logical_not().sum(0)  # [A]
    last = int(unseen.argmax())
    if unseen[last] > tape.first:
        raise DataError(
            f"{tape.symbols[last]} has no close up to {show_day(tape.timestamps[tape.first])}: "
            f"classic strategies need every asset from the first bar on: start later"
        )
    return int(unseen[last])


def _check_weights(strategy: BuyAndHold | ConstantRebalanced) -> None:
    """Raise ConfigError unless weights that were given are long-only ones of wealth."""
    weights, name = strategy.weights, type(strategy).__name__
    if weights is None:
        return
    if not isinstance(weights, Tensor) or weights.dim() != 1:
        raise ConfigError(f"{name}.weights must be a tensor [A], one weight per asset")
    fine = weights.isfinite() & (weights >= 0)
    if not bool(fine.all()) or float(weights.sum()) > 1.0 + 1e-6:
        raise ConfigError(
            f"{name}.weights must be >= 0 and sum to at most 1, the rest being cash, "
            f"got {weights.tolist()}"
        )


def _given(strategy: BuyAndHold | ConstantRebalanced, known: Tensor) -> Tensor:
    """Its weights [A], equal ones if it was given none."""
    if strategy.weights is None:
        return uniform(known)
    if len(strategy.weights) != known.shape[1]:
        raise ConfigError(
            f"{type(strategy).__name__}.weights must be one per asset, {known.shape[1]}, "
            f"got {len(strategy.weights)}"
        )
    return strategy.weights.to(known)


def uniform(known: Tensor) -> Tensor:
    """Equal weights [A] for the assets of `known` [t, A]."""
    return known.new_full(known.shape[1:], 1.0 / known.shape[1])


@configuration(slots=False, eq=False)
class BuyAndHold(Strategy):
    """Buys once and lets the weights drift."""

    name: str = "buy and hold"
    weights: Tensor | None = None  # [A]  equal, if not given

    def __post_init__(self) -> None:
        _check_weights(self)

    def first(self, known: Tensor) -> Tensor:
        """Weights to buy."""
        return _given(self, known)

    def next(self, weights: Tensor, known: Tensor) -> Tensor:
        """Hold."""
        return torch.full_like(weights, torch.nan)


@configuration(slots=False, eq=False)
class ConstantRebalanced(Strategy):
    """Trades back to the same weights at every bar (Cover 1991)."""

    name: str = "uniform rebalanced"
    weights: Tensor | None = None  # [A]  equal, if not given

    def __post_init__(self) -> None:
        _check_weights(self)

    def first(self, known: Tensor) -> Tensor:
        """Weights, always the same."""
        return _given(self, known)

    def next(self, weights: Tensor, known: Tensor) -> Tensor:
        """Weights, always the same."""
        return self.first(known)


@configuration(slots=False)
class ExponentiatedGradient(Strategy):
    """Moves a little towards what just did well: Helmbold, Schapire, Singer and Warmuth (1998)."""

    name: str = "EG"
    rate: float = 0.05
    """Learning rate eta."""

    def __post_init__(self) -> None:
        require_between(self, "rate", 0)

    def first(self, known: Tensor) -> Tensor:
        """Equal weights."""
        return uniform(known)

    def next(self, weights: Tensor, known: Tensor) -> Tensor:
        """Update by the last price relatives."""
        return exponentiated_gradient(weights, known[-1], self.rate)


@configuration(slots=False)
class PassiveAggressive(Strategy):
    """Bets against what just did well: PAMR of Li, Zhao, Hoi and Gopalkrishnan (2012)."""

    name: str = "PAMR"
    sensitivity: float = 0.5
    """Epsilon: the growth of one bar from which on it acts."""

    def __post_init__(self) -> None:
        require_between(self, "sensitivity", 0)

    def first(self, known: Tensor) -> Tensor:
        """Equal weights."""
        return uniform(known)

    def next(self, weights: Tensor, known: Tensor) -> Tensor:
        """Update by the last price relatives."""
        return passive_aggressive(weights, known[-1], self.sensitivity)


@configuration(slots=False)
class MovingAverageReversion(Strategy):
    """Bets on a return to the moving average: OLMAR-1 of Li and Hoi (2012).

    The paper leaves the first bars open. As in its authors' toolbox (Li, Sahoo and Hoi 2016), the
    weights stay equal until two price relatives are known, and until there are `window` + 1 the
    last one is itself the forecast of the next.
    """

    name: str = "OLMAR"
    window: int = 5
    threshold: float = 10.0
    """Epsilon: the growth that is asked of the forecast."""

    def __post_init__(self) -> None:
        require_between(self, "window", 2)
        require_between(self, "threshold", 1)

    def first(self, known: Tensor) -> Tensor:
        """Equal weights."""
        return uniform(known)

    def next(self, weights: Tensor, known: Tensor) -> Tensor:
        """Update by the moving average of the last `window` prices."""
        if len(known) < 2:
            return weights
        short = len(known) <= self.window
        forecast = known[-1] if short else moving_average_forecast(known[1 - self.window :])
        return toward_forecast(weights, forecast, self.threshold)


Method = Literal["equal", "inverse_volatility", "minimum_variance", "mean_variance"]


@configuration(slots=False)
class Trailing(Strategy):
    """Weights from the moments of trailing simple returns, traded back to now and then.

    Equal weights until `window` returns are known; drifts between the bars it trades at. Minimum
    variance and mean-variance take the covariance of Ledoit and Wolf (2004) from scikit-learn.

    Raises
    ------
    ConfigError
        A number out of range, or scikit-learn is needed and not installed.
    """

    name: str
    method: Method
    window: int = 252
    """Bars that are looked back on."""
    every: int = 21
    """Bars from one trade to the next, counted from the first bar of the data."""
    risk_aversion: float = 5.0
    """Gamma of mean-variance: it maximises mu' w - gamma / 2 w' Sigma w."""

    def __post_init__(self) -> None:
        require_choice(self, "method")
        require_between(self, "window", 2)
        require_between(self, "every", 1)
        require_between(self, "risk_aversion", 0, open_low=True)
        if self.method in ("minimum_variance", "mean_variance"):
            _covariance_package()

    def first(self, known: Tensor) -> Tensor:
        """Weights from the last `window` price relatives, equal if there are fewer."""
        if self.method == "equal" or len(known) < self.window:
            return uniform(known)
        returns = known[-self.window :] - 1.0
        if self.method == "inverse_volatility":
            return inverse_volatility(returns)
        if self.method == "minimum_variance":
            return minimum_variance(ledoit_wolf(returns))
        return mean_variance(returns.mean(0), ledoit_wolf(returns), self.risk_aversion)

    def next(self, weights: Tensor, known: Tensor) -> Tensor:
        """Weights anew every `every` bars, and NaN, which holds, in between."""
        if len(known) % self.every == 0:
            return self.first(known)
        return torch.full_like(weights, torch.nan)


def classic_strategies() -> list[Strategy]:
    """Everything here that can be played, at its usual parameters.

    Raises
    ------
    ConfigError
        scikit-learn is not installed.
    """
    return [
        BuyAndHold(),
        ConstantRebalanced(),
        ExponentiatedGradient(),
        PassiveAggressive(),
        MovingAverageReversion(),
        Trailing(name="1/N, monthly", method="equal"),
        Trailing(name="inverse volatility", method="inverse_volatility"),
        Trailing(name="minimum variance", method="minimum_variance"),
        Trailing(name="mean-variance", method="mean_variance"),
    ]


def strategy_named(name: str) -> Strategy | str:
    """The classic strategy of this name, whatever its case and spaces: "buy-and-hold" too.

    Of those that are played beside every other, in `BENCHMARKS`, the name itself.

    Raises
    ------
    ConfigError
        There is none, or scikit-learn is not installed and it may be one that needs it.
    """
    for known in BENCHMARKS:
        if spelled(known) == spelled(name):
            return known
    strategies = {strategy.name: strategy for strategy in classic_strategies()}
    for known, strategy in strategies.items():
        if spelled(known) == spelled(name):
            return strategy
    names = dict.fromkeys((*BENCHMARKS, *strategies))
    raise ConfigError(
        f"{name!r} is neither the folder of a run or an agent, nor a .yaml file, nor one of "
        f"{', '.join(names)}{did_you_mean(name, names)}"
    )


def spelled(name: str) -> str:
    """Letters and digits of a name alone, small."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def hindsight_bounds(tape: MarketTape) -> list[Strategy]:
    """The best asset and the best constant mix from the tape's first close to its last.

    They know the future: no strategy, but what one can be measured against (Cover 1991). They are
    the best of their kind without costs, and where trades are filled at the close.
    """
    met = price_relatives(tape)[tape.first : tape.last]  # [steps, A]
    alone = torch.zeros_like(met[0])
    alone[met.log().sum(0).argmax()] = 1.0
    mix = torch.from_numpy(maximize_growth(met.double().cpu().numpy())).to(met)
    return [
        BuyAndHold(name="best asset in hindsight", weights=alone),
        ConstantRebalanced(name="best mix in hindsight", weights=mix),
    ]


def exponentiated_gradient(weights: Tensor, relative: Tensor, rate: float | Tensor) -> Tensor:
    """w_i exp(eta x_i / (w' x)), made to sum to one: Helmbold et al. (1998), equation 6.

    `weights` [..., A], `relative` [A], `rate` a number or [..., 1].
    """
    gain = (weights * relative).sum(-1, keepdim=True)
    scaled = weights * (rate * relative / gain).exp()
    return scaled / scaled.sum(-1, keepdim=True)


def passive_aggressive(weights: Tensor, relative: Tensor, sensitivity: float | Tensor) -> Tensor:
    """Project w - tau (x - mean x) onto the simplex: PAMR, Li et al. (2012), proposition 1.

    tau = max(0, w' x - epsilon) / |x - mean x|^2, and 0 where all assets moved alike.

    `weights` [..., A], `relative` [A], `sensitivity` a number or [..., 1].
    """
    gain = (weights * relative).sum(-1, keepdim=True)
    return _step_along(weights, relative, -(gain - sensitivity).clamp_min(0.0))


def toward_forecast(weights: Tensor, forecast: Tensor, threshold: float | Tensor) -> Tensor:
    """Project w + lambda (f - mean f) onto the simplex: OLMAR, Li and Hoi (2012), proposition 1.

    lambda = max(0, epsilon - w' f) / |f - mean f|^2, and 0 where all forecasts are alike.

    `weights` [..., A], `forecast` [A], `threshold` a number or [..., 1].
    """
    gain = (weights * forecast).sum(-1, keepdim=True)
    return _step_along(weights, forecast, (threshold - gain).clamp_min(0.0))


def moving_average_forecast(relatives: Tensor) -> Tensor:
    """Mean of the last w prices over the last price [A], from the w - 1 relatives between them.

    (1 + 1 / x_t + 1 / (x_t x_{t-1}) + ...) / w: Li and Hoi (2012), equation 1.
    """
    earlier = relatives.flip(0).cumprod(0).reciprocal()  # [w - 1, A]  p_{t-k} / p_t
    return (1.0 + earlier.sum(0)) / (len(relatives) + 1)


def inverse_volatility(returns: Tensor) -> Tensor:
    """One over the standard deviation of returns [t, A], made to sum to one [A].

    If some assets did not move at all, they share the weight among themselves.
    """
    inverse = returns.std(0).reciprocal()
    still = inverse.isinf()
    inverse = torch.where(still.any(), still.to(inverse), inverse)
    return inverse / inverse.sum()


def minimum_variance(covariance: Tensor) -> Tensor:
    """Long-only weights [A] of the least variance w' Sigma w under a covariance [A, A]."""
    return mean_variance(torch.zeros_like(covariance[0]), covariance, 1.0)


def mean_variance(mean: Tensor, covariance: Tensor, risk_aversion: float) -> Tensor:
    """Long-only weights [A] that maximise mu' w - gamma / 2 w' Sigma w (Markowitz 1952)."""
    matrix, linear = (part.double().cpu().numpy() for part in (covariance, mean))
    return torch.from_numpy(minimize_quadratic(risk_aversion * matrix, linear)).to(mean)


def ledoit_wolf(returns: Tensor) -> Tensor:
    """Covariance [A, A] of returns [t, A], shrunk towards a multiple of the identity.

    Ledoit and Wolf (2004), by scikit-learn. A trace of the identity keeps it positive definite
    where nothing moved.
    """
    fitted = _covariance_package().LedoitWolf().fit(returns.double().cpu().numpy())
    covariance = torch.from_numpy(fitted.covariance_).to(returns)
    return covariance + 1e-12 * torch.eye(len(covariance)).to(returns)


def _step_along(weights: Tensor, signal: Tensor, loss: Tensor) -> Tensor:
    """Project w + loss / |s - mean s|^2 (s - mean s) onto the simplex; w itself if s is flat."""
    direction = signal - signal.mean()  # [A]
    length = direction.square().sum()
    step = torch.where(length > 0, loss / length, 0.0)
    return project_simplex(weights + step * direction)


def _covariance_package() -> Any:
    try:
        return import_module("sklearn.covariance")
    except ImportError:
        raise ConfigError(
            "scikit-learn is not installed: pip install 'fastsim-rl[baselines]'"
        ) from None
