"""Simulated one-bar log returns with random parameters: all that `fastsim-prior` has ever seen.

A path is

    r_t = level * (drift + e_t + theta e_{t-1}),    e_t = m_t s_t z_t + J_t

with s_t a GJR-GARCH or a two-factor stochastic volatility, m_t a two-state Markov regime, z_t a
Student-t of variance one and J_t jumps. What each is, and where it comes from, stands with its
function; every function draws from the generator it is given and from nothing else.

The ranges were written down before any forecast was evaluated and not tuned on market data. They
are wide on purpose, for daily equities first and hourly and weekly bars by the same shapes:

- The level is log-uniform over 2.5 decades. The forecaster is scale-equivariant, so this only
  exercises its arithmetic.
- GARCH persistence is 0.9 to 0.998, log-uniform in its distance from 1 (half-lives of 7 to 350
  bars), the share of news in it 0.02 to 0.15 with any part of that asymmetric: the span of
  estimates on daily stocks and indices (Bollerslev, Chou and Kroner 1992; Glosten et al. 1993).
- The logarithm of stochastic volatility has a slow factor (half-lives of 14 to 350 bars, standard
  deviation 0.1 to 0.6) and a fast one (1 to 14 bars, 0 to 0.4), because one factor cannot both
  persist and spike (Chernov, Gallant, Ghysels and Tauchen 2003). Leverage is -0.8 to 0.1.
- Student-t shocks have 3 to 12 degrees of freedom under GARCH, whose residuals are that fat
  (Bollerslev 1987), and 5 to 30 under stochastic volatility, which makes fat tails of its own.
- Half of the paths jump, some at random and some every 63 bars as stocks do on quarterly earnings.
  A jump does not feed volatility, so that a large return may or may not herald more of them.
- Three in ten have regimes: volatility 1.3 to 4 times higher in spells of 10 to 250 bars.
- Drift per bar, in units of volatility, is normal(0.01, 0.02): a yearly log return of 0.16
  volatilities, about what the equity premium leaves a single stock after half its variance.
- theta is normal(-0.02, 0.04): returns of single stocks are weakly negatively autocorrelated
  (Roll 1984, the bid-ask bounce; Lo and MacKinlay 1988).
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeVar

import torch
from torch import Generator, Tensor

from fastsim.synthetic.garch import GarchParameters, garch_variance
from fastsim.synthetic.shocks import linear_recurrence, student_radius

ANNOUNCEMENT_PERIOD = 63
"""Bars between scheduled jumps: a quarter of daily bars."""
BURN_IN = 128
"""Bars simulated and dropped before a path begins; GARCH also starts from a random variance."""
_FULL_TURN = 2.0 * math.pi


class StochasticVolatilityParameters(NamedTuple):
    """Two autoregressive factors of log volatility, slow and fast."""

    persistence: Tensor  # [2, B]
    deviation: Tensor  # [2, B]  stationary standard deviation of each factor
    leverage: Tensor  # [B]  correlation of a return's shock with the next log volatility's


class RegimeParameters(NamedTuple):
    """Calm and wild spells."""

    enter: Tensor  # [B]  probability per bar of turning wild
    leave: Tensor  # [B]  probability per bar of turning calm
    calm: Tensor  # [B]  volatility multipliers, of mean square 1
    wild: Tensor  # [B]


class JumpParameters(NamedTuple):
    """Jumps in units of the path's volatility level."""

    intensity: Tensor  # [B]  probability per bar
    announced: Tensor  # [B]  bool: also one every ANNOUNCEMENT_PERIOD bars
    phase: Tensor  # [B]  int64, bar of the first announcement
    mean: Tensor  # [B]
    deviation: Tensor  # [B]


class PathParameters(NamedTuple):
    """Everything about B paths; volatility is GARCH where `is_garch`."""

    is_garch: Tensor  # [B]  bool
    garch: GarchParameters
    volatility: StochasticVolatilityParameters
    regime: RegimeParameters
    jump: JumpParameters
    freedom: Tensor  # [B]  degrees of freedom of the shocks
    drift: Tensor  # [B]  per bar, in units of the level
    theta: Tensor  # [B]  moving-average coefficient
    level: Tensor  # [B]  unconditional volatility of a bar, before jumps


class PathState(NamedTuple):
    """Where B paths stand; futures that start from it are independent draws."""

    variance: Tensor  # [B]  GARCH
    factors: Tensor  # [2, B]  log volatility
    wild: Tensor  # [B]  bool
    shock: Tensor  # [B]  e of the last bar
    bar: int


class Shocks(NamedTuple):
    """Student-t shocks of variance one, and the normals that they are a monotone function of."""

    student: Tensor  # [T, B]
    normal: Tensor  # [T, B]


Nested = TypeVar("Nested", bound=tuple[object, ...])


def draw_shocks(bars: int, freedom: Tensor, generator: Generator) -> Shocks:
    """Independent Student-t shocks [T, B] by Bailey's polar method; `freedom` [B] > 2.

    With U and V uniform, `student_radius` times cos(2 pi V) is Student-t and sqrt(-2 log U)
    cos(2 pi V) normal: same angle, and the radius of one increases in that of the other.
    """
    shape = (bars, len(freedom))
    log_u = (1.0 - torch.rand(shape, generator=generator)).log()  # (0, 1]
    cosine = torch.cos(_FULL_TURN * torch.rand(shape, generator=generator))
    return Shocks(student_radius(log_u, freedom) * cosine, torch.sqrt(-2.0 * log_u) * cosine)


def log_volatility_factors(
    parameters: StochasticVolatilityParameters, normal: Tensor, start: Tensor, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Factors of log volatility: their sum [T, B], and the next factors [2, B].

    f_{t+1} = phi f_t + d sqrt(1 - phi^2) eta_t, eta_t = rho n_t + sqrt(1 - rho^2) n'_t, with n_t
    the normal behind the return's shock. Omori, Chib, Shephard and Nakajima (2007),
    here per factor; d is the stationary standard deviation.
    """
    phi, deviation, rho = parameters
    own = torch.randn((len(normal), *phi.shape), generator=generator)  # [T, 2, B]
    eta = rho * normal[:, None] + (1.0 - rho.square()).sqrt() * own
    shift = deviation * (1.0 - phi.square()).sqrt() * eta
    path, following = linear_recurrence(phi.expand_as(shift), shift, start)
    return path.sum(1), following


def log_volatility_variance(parameters: StochasticVolatilityParameters) -> Tensor:
    """Stationary variance [B] of the sum of both factors, which leverage makes covary.

    Both hear of the same return with weight rho, so their covariance solves
    c = phi_1 phi_2 c + d_1 d_2 sqrt(1 - phi_1^2) sqrt(1 - phi_2^2) rho^2.
    """
    phi, deviation, rho = parameters
    shared = (deviation * (1.0 - phi.square()).sqrt()).prod(0) * rho.square()
    return deviation.square().sum(0) + 2.0 * shared / (1.0 - phi.prod(0))


def regime_multiplier(
    parameters: RegimeParameters, bars: int, start: Tensor, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Volatility multiplier of each bar [T, B], and whether the next bar is wild [B].

    A two-state Markov chain scales the volatility of another process: SWARCH, Hamilton and Susmel
    (1994).
    """
    draw = torch.rand((bars, len(start)), generator=generator)
    enters, stays = draw < parameters.enter, draw >= parameters.leave
    path, wild = torch.empty_like(enters), start
    for bar in range(bars):
        path[bar] = wild
        wild = torch.where(wild, stays[bar], enters[bar])
    return torch.where(path, parameters.wild, parameters.calm), wild


def jumps(parameters: JumpParameters, bars: int, first: int, generator: Generator) -> Tensor:
    """Sum of a bar's jump, 0 on most bars [T, B].

    Normal jumps at random bars (Merton 1976, with at most one a bar), and at scheduled ones.
    """
    shape = (bars, len(parameters.mean))
    arrives = torch.rand(shape, generator=generator) < parameters.intensity
    bar = torch.arange(first, first + bars)[:, None]
    due = (bar % ANNOUNCEMENT_PERIOD == parameters.phase) & parameters.announced
    size = parameters.mean + parameters.deviation * torch.randn(shape, generator=generator)
    return torch.where(arrives | due, size, 0.0)


def draw_parameters(paths: int, generator: Generator) -> PathParameters:
    """Parameters of B paths from the ranges at the head of this file."""

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(paths, generator=generator)

    def log_uniform(low: float, high: float) -> Tensor:
        return uniform(math.log(low), math.log(high)).exp()

    def normal(mean: float, deviation: float) -> Tensor:
        return mean + deviation * torch.randn(paths, generator=generator)

    def chance(probability: float) -> Tensor:
        return torch.rand(paths, generator=generator) < probability

    is_garch = chance(0.5)
    news, asymmetric = log_uniform(0.02, 0.15), uniform(0.0, 1.0)
    persistence = torch.maximum(1.0 - log_uniform(0.002, 0.1), news)
    garch = GarchParameters(
        alpha=news * (1.0 - asymmetric), gamma=2.0 * news * asymmetric, beta=persistence - news
    )
    volatility = StochasticVolatilityParameters(
        persistence=1.0 - torch.stack([log_uniform(0.002, 0.05), log_uniform(0.05, 0.5)]),
        deviation=torch.stack([uniform(0.1, 0.6), uniform(0.0, 0.4)]),
        leverage=uniform(-0.8, 0.1),
    )
    jumpy, announced = chance(0.5), chance(0.3)
    deviation = log_uniform(1.5, 5.0)
    return PathParameters(
        is_garch=is_garch,
        garch=garch,
        volatility=volatility,
        regime=make_regimes(
            ratio=torch.where(chance(0.3), log_uniform(1.3, 4.0), 1.0),
            calm_bars=log_uniform(50.0, 1000.0),
            wild_bars=log_uniform(10.0, 250.0),
        ),
        jump=JumpParameters(
            intensity=torch.where(jumpy, log_uniform(0.002, 0.05), 0.0),
            announced=jumpy & announced,
            phase=torch.randint(ANNOUNCEMENT_PERIOD, (paths,), generator=generator),
            mean=-deviation * uniform(0.0, 0.3),
            deviation=deviation,
        ),
        freedom=torch.where(is_garch, log_uniform(3.0, 12.0), log_uniform(5.0, 30.0)),
        drift=normal(0.01, 0.02),
        theta=normal(-0.02, 0.04),
        level=log_uniform(1e-4, 0.03),
    )


def make_regimes(*, ratio: Tensor, calm_bars: Tensor, wild_bars: Tensor) -> RegimeParameters:
    """Regimes [B] of mean square volatility 1 from the ratio of wild to calm and mean spells."""
    share = wild_bars / (calm_bars + wild_bars)
    calm = (1.0 - share + share * ratio.square()).rsqrt()
    return RegimeParameters(1.0 / calm_bars, 1.0 / wild_bars, calm, calm * ratio)


def start_state(parameters: PathParameters, generator: Generator) -> PathState:
    """States [B] to start from: stationary but for GARCH, whose variance is lognormal of mean 1."""
    paths = len(parameters.level)
    noise = torch.randn((3, paths), generator=generator)
    share = parameters.regime.enter / (parameters.regime.enter + parameters.regime.leave)
    return PathState(
        variance=(0.5 * noise[0] - 0.125).exp(),
        factors=parameters.volatility.deviation * noise[1:],
        wild=torch.rand(paths, generator=generator) < share,
        shock=torch.zeros(paths),
        bar=0,
    )


def simulate(
    parameters: PathParameters, state: PathState, bars: int, generator: Generator
) -> tuple[Tensor, PathState]:
    """Log returns [T, B] of the next `bars` bars, and the state after them."""
    shocks = draw_shocks(bars, parameters.freedom, generator)
    variance, next_variance = garch_variance(parameters.garch, shocks.student, state.variance)
    factors, next_factors = log_volatility_factors(
        parameters.volatility, shocks.normal, state.factors, generator
    )
    # E exp(2 f) = exp(2 Var f): dividing by its root gives stochastic volatility a mean square of 1
    spread = log_volatility_variance(parameters.volatility)
    sigma = torch.where(parameters.is_garch, variance.sqrt(), (factors - spread).exp())
    multiplier, next_wild = regime_multiplier(parameters.regime, bars, state.wild, generator)
    news = sigma * multiplier * shocks.student
    news = news + jumps(parameters.jump, bars, state.bar, generator)
    before = torch.cat([state.shock[None], news[:-1]])
    returns = parameters.level * (parameters.drift + news + parameters.theta * before)
    after = PathState(next_variance, next_factors, next_wild, news[-1], state.bar + bars)
    return returns, after


def repeat(nested: Nested, times: int) -> Nested:
    """Repeat every path of parameters or a state, so that B becomes B * times, path by path."""

    def repeated(part: object) -> object:
        if isinstance(part, Tensor):
            return part.repeat_interleave(times, dim=-1)
        return repeat(part, times) if isinstance(part, tuple) else part

    return type(nested)(*map(repeated, nested))  # type: ignore[arg-type]  # a NamedTuple's fields


def draw_paths(
    paths: int, bars: int, horizon: int, futures: int, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Pasts of new random paths, and several futures of each.

    Returns
    -------
    past
        Log returns [B, bars].
    future
        Log returns [B, futures, horizon], independent given the past's last state.
    """
    parameters = draw_parameters(paths, generator)
    _, state = simulate(parameters, start_state(parameters, generator), BURN_IN, generator)
    past, state = simulate(parameters, state, bars, generator)
    future, _ = simulate(repeat(parameters, futures), repeat(state, futures), horizon, generator)
    return past.T, future.T.reshape(paths, futures, horizon)
