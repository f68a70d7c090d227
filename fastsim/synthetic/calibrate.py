"""Models fitted to real bars: by moments where they do, by likelihood where they do not.

Every fit uses log returns of the rows on which every symbol traded, and a bar's mean calendar
length as its years. Drifts are sample means: over a few years they are mostly noise, and a user who
wants none sets it with `dataclasses.replace`. Where the data have opens and volume, the insides of
bars are fitted too; where they have closes alone, so do the paths.
"""

from __future__ import annotations

from math import exp, lgamma, log, pi
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastsim.data.bars import Bars
from fastsim.synthetic.bootstrap import BlockBootstrap
from fastsim.synthetic.brownian import GeometricBrownian
from fastsim.synthetic.facts import complete_closes
from fastsim.synthetic.garch import Garch
from fastsim.synthetic.heston import Heston
from fastsim.synthetic.intrabar import IntrabarConfig
from fastsim.synthetic.jumps import MertonJumps
from fastsim.synthetic.likelihood import fit_garch, fit_mixture, fit_regimes
from fastsim.synthetic.log_volatility import LogVolatility
from fastsim.synthetic.regimes import Regime, RegimeSwitching
from fastsim.synthetic.shocks import FactorConfig

MEMORY_LAGS = 60
"""Lags of the autocovariances from which the memory of volatility is read."""


NO_RETURN = 1e-4
"""Least squared return over its variance: a bar without one is a tick, not infinitely calm."""


class Sample(NamedTuple):
    """What all fits begin with."""

    log_return: Tensor  # [T, A]
    years: float  # per bar
    start_price: tuple[float, ...]
    intrabar: IntrabarConfig | None

    @property
    def deviation(self) -> Tensor:
        """Standard deviation of a bar [A]."""
        return self.log_return.std(0)

    @property
    def scaled(self) -> Tensor:
        """Returns [T, A] of mean 0 and variance 1."""
        return (self.log_return - self.log_return.mean(0)) / self.deviation


def fit_brownian(bars: Bars) -> GeometricBrownian:
    """Sample moments, which are the likelihood's maximum."""
    sample = _sample(bars)
    sigma = sample.deviation / sample.years**0.5
    return GeometricBrownian(
        assets=len(sigma),
        years_per_bar=sample.years,
        start_price=sample.start_price,
        intrabar=sample.intrabar,
        drift=_floats(sample.log_return.mean(0) / sample.years + 0.5 * sigma.square()),
        volatility=_floats(sigma),
        factors=fit_factors(torch.corrcoef(sample.log_return.T)),
    )


def fit_merton(bars: Bars) -> MertonJumps:
    """A mixture of two normals by EM: bars without a jump and with one.

    Two jumps in a bar are read as one, so lambda dt should be well below 1. As many jumps are
    shared as give assets their mean covariance, with factors from the signs of returns. Volatility
    clusters in real data and a jump-diffusion's does not: turbulent spells come out as frequent
    small jumps.
    """
    sample = _sample(bars)
    mixture = fit_mixture(sample.log_return)
    variance, years = mixture.variance, sample.years
    rate = -torch.log1p(-mixture.share) / years
    mean = mixture.mean[1] - mixture.mean[0]
    square = (variance[1] - variance[0]).clamp_min(0.0)
    factors = fit_factors(sign_correlation(sample.log_return))
    growth = 0.5 * variance[0] / years + rate * (torch.expm1(mean + 0.5 * square) - mean)
    return MertonJumps(
        assets=len(rate),
        years_per_bar=years,
        start_price=sample.start_price,
        intrabar=sample.intrabar,
        drift=_floats(sample.log_return.mean(0) / years + growth),
        volatility=_floats((variance[0] / years).sqrt()),
        jumps_per_year=_floats(rate),
        jump_mean=_floats(mean),
        jump_deviation=_floats(square.sqrt()),
        shared_jumps=_shared_jumps(
            sample,
            diffusion=variance[0],
            rate=rate * years,
            jump_mean=mean,
            jump_variance=square,
            factors=factors,
        ),
        factors=factors,
    )


def _shared_jumps(
    sample: Sample,
    *,
    diffusion: Tensor,
    rate: Tensor,
    jump_mean: Tensor,
    jump_variance: Tensor,
    factors: FactorConfig,
) -> float:
    """Share of jumps with which the model's covariances add up to the data's; inputs per bar [A].

    cov(r_i, r_j) = b_i b_j sigma_i sigma_j + share * rate * (m_i m_j + b_i b_j d_i d_j), summed
    over pairs.
    """
    if len(rate) == 1:
        return 0.0
    loadings = torch.tensor(factors.loadings, dtype=torch.float64)
    correlation = loadings @ loadings.T

    def over_pairs(matrix: Tensor) -> float:
        return float(matrix.sum() - matrix.trace())

    def covariance(variance: Tensor) -> Tensor:
        return correlation * variance.sqrt().outer(variance.sqrt())

    missing = over_pairs(torch.cov(sample.log_return.T) - covariance(diffusion))
    jumps = jump_mean.outer(jump_mean) + covariance(jump_variance)
    most = float(rate.min()) * over_pairs(jumps)
    return min(max(missing / most, 0.0), 1.0) if most > 0.0 else 0.0


def fit_heston(bars: Bars) -> Heston:
    """Moments of squared returns, whose memory and leverage are pooled over assets.

    With q the squared return over its mean, cov(q_t, q_{t+k}) = c exp(-kappa k dt) and
    c = xi^2 / (2 kappa theta); cov(r_t / sd, q_{t+k}) decays alike from rho sqrt(2 kappa c dt).
    Bars much shorter than 1 / kappa are assumed.
    """
    sample = _sample(bars)
    scaled = sample.scaled
    square = scaled.square()
    memory = fit_decay(autocovariance(square, square))
    kappa = -log(memory.decay) / sample.years
    size = max(memory.scale, 1e-4)
    powers = memory.decay ** torch.arange(MEMORY_LAGS, dtype=torch.float64)
    answer = float((autocovariance(scaled, square) * powers).sum() / powers.square().sum())
    leverage = answer / (2.0 * kappa * size * sample.years) ** 0.5
    theta = sample.deviation.square() / sample.years
    return Heston(
        assets=len(theta),
        years_per_bar=sample.years,
        start_price=sample.start_price,
        intrabar=sample.intrabar,
        drift=_floats(sample.log_return.mean(0) / sample.years + 0.5 * theta),
        mean_variance=_floats(theta),
        reversion=kappa,
        volatility_of_variance=_floats((2.0 * kappa * size * theta).sqrt()),
        leverage=min(max(leverage, -0.99), 0.0),
        factors=fit_factors(torch.corrcoef(sample.log_return.T)),
    )


def fit_garch_model(bars: Bars) -> Garch:
    """Maximum likelihood of every asset with variance targeting; correlation from signs."""
    sample = _sample(bars)
    found = fit_garch(sample.scaled)
    return Garch(
        assets=len(sample.start_price),
        years_per_bar=sample.years,
        start_price=sample.start_price,
        intrabar=sample.intrabar,
        log_drift=_floats(sample.log_return.mean(0) / sample.years),
        volatility=_floats(sample.deviation / sample.years**0.5),
        alpha=_floats(found.weights.alpha),
        gamma=_floats(found.weights.gamma),
        beta=_floats(found.weights.beta),
        freedom=_floats(found.freedom),
        factors=fit_factors(sign_correlation(found.shocks)),
    )


def fit_log_volatility(bars: Bars) -> LogVolatility:
    """Moments of log squared returns, pooled over assets: Harvey, Ruiz and Shephard (1994).

    Their autocovariance is 4 d^2 phi^k, and cov(sign r_t, log r_{t+k}^2) is
    2 d sqrt(1 - phi^2) rho sqrt(2 / pi) phi^(k-1). Degrees of freedom are those at which
    (E |r|)^2 / E r^2 = exp(-d^2) (E |x|)^2, as fourth moments may not exist.
    """
    sample = _sample(bars)
    scaled = sample.scaled
    size = scaled.square().clamp_min(NO_RETURN).log()
    memory = fit_decay(autocovariance(size, size))
    square, phi = max(memory.scale / 4.0, 1e-4), memory.decay
    powers = phi ** torch.arange(MEMORY_LAGS, dtype=torch.float64)
    answer = float((autocovariance(scaled.sign(), size) * powers).sum() / powers.square().sum())
    per_shock = 2.0 * square**0.5 * (1.0 - phi**2) ** 0.5 * (2.0 / pi) ** 0.5
    return LogVolatility(
        assets=len(sample.start_price),
        years_per_bar=sample.years,
        start_price=sample.start_price,
        intrabar=sample.intrabar,
        log_drift=_floats(sample.log_return.mean(0) / sample.years),
        volatility=_floats(sample.deviation / sample.years**0.5),
        persistence=phi,
        deviation=square**0.5,
        leverage=min(max(answer / per_shock, -0.99), 0.99),
        freedom=_freedom_of(float(scaled.abs().mean()) ** 2 * exp(square)),
        factors=fit_factors(sign_correlation(scaled)),
    )


def fit_regime_switching(bars: Bars) -> RegimeSwitching:
    """Two regimes of the mean return over assets by EM, then each asset's moments within them."""
    sample = _sample(bars)
    market = sample.scaled.mean(1).numpy()
    found = fit_regimes(market / market.std())
    regimes = []
    for weight in torch.from_numpy(found.weight).T:
        share = (weight / weight.sum())[:, None]
        mean = (share * sample.log_return).sum(0)
        centred = sample.log_return - mean
        covariance = (share * centred).T @ centred
        deviation = covariance.diagonal().sqrt()
        regimes.append(
            Regime(
                log_drift=_floats(mean / sample.years),
                volatility=_floats(deviation / sample.years**0.5),
                factors=fit_factors(covariance / deviation.outer(deviation)),
            )
        )
    return RegimeSwitching(
        assets=len(sample.start_price),
        years_per_bar=sample.years,
        start_price=sample.start_price,
        intrabar=sample.intrabar,
        regimes=tuple(regimes),
        transitions=tuple((stay, 1.0 - stay) for stay in found.transitions[:, 0].tolist()),
    )


def fit_bootstrap(bars: Bars) -> BlockBootstrap:
    """The bars themselves, in blocks of a month of days."""
    return BlockBootstrap(bars=bars)


def fit_factors(correlation: Tensor, factors: int = 1) -> FactorConfig:
    """Loadings of a correlation matrix [A, A] by iterated principal factors (Harman 1976)."""
    assets = len(correlation)
    if assets == 1:
        return FactorConfig(loadings=((0.0,),))
    common = torch.full((assets,), 0.5, dtype=correlation.dtype)
    loadings = correlation.new_zeros((assets, factors))
    for _ in range(200):
        reduced = correlation.clone()
        reduced.diagonal().copy_(common)
        values, vectors = torch.linalg.eigh(reduced)
        loadings = vectors[:, -factors:] * values[-factors:].clamp_min(0.0).sqrt()
        size = loadings.square().sum(1)
        loadings = loadings * (0.98 / size.clamp_min(0.98)).sqrt()[:, None]
        common = loadings.square().sum(1)
    loadings = loadings * loadings.sum(0).sign()
    return FactorConfig(loadings=tuple(_floats(row) for row in loadings))


def sign_correlation(values: Tensor) -> Tensor:
    """Correlation [A, A] of the normals behind symmetric values [T, A], from their signs alone.

    E sign sign = 2 / pi arcsin(rho) (Sheppard 1899), whatever the volatility and the tails.
    """
    sign = (values - values.median(0).values).sign()
    return torch.sin(0.5 * torch.pi * (sign.T @ sign) / len(sign)).fill_diagonal_(1.0)


def autocovariance(first: Tensor, second: Tensor) -> Tensor:
    """Covariance of `first` [T, A] with `second` 1 to 60 bars later, mean over assets [lags]."""
    first, second = first - first.mean(0), second - second.mean(0)
    bars, lags = len(first), range(1, MEMORY_LAGS + 1)
    return torch.stack([(first[: bars - lag] * second[lag:]).sum() for lag in lags]) / first.numel()


class Decay(NamedTuple):
    """scale * decay^k."""

    scale: float
    decay: float


def fit_decay(covariance: Tensor) -> Decay:
    """Least squares of c decay^k to covariances at lags k = 1, 2, ..."""
    distance = torch.logspace(-3.3, -0.3, 600, dtype=torch.float64)
    lags = torch.arange(1, len(covariance) + 1, dtype=torch.float64)
    powers = (1.0 - distance)[:, None] ** lags  # [grid, lags]
    scale = (powers @ covariance) / powers.square().sum(1)
    best = int((scale[:, None] * powers - covariance).square().sum(1).argmin())
    return Decay(float(scale[best]), float(1.0 - distance[best]))


def fit_intrabar(bars: Bars) -> IntrabarConfig | None:
    """Overnight share of variance, and the law of volume given returns; None without opens."""
    opens, close = bars.adjusted("open"), bars.adjusted("close")
    if opens is None or close is None:
        return None
    overnight = torch.from_numpy(np.log(opens[1:] / close[:-1]))
    day = torch.from_numpy(np.log(close[1:] / opens[1:]))
    whole = (overnight.isfinite() & day.isfinite()).all(1)
    overnight, day = overnight[whole], day[whole]
    night = float((overnight.var(0) / (overnight.var(0) + day.var(0))).mean())
    if bars.volume is None:
        return IntrabarConfig(overnight=night)
    volume = torch.from_numpy(bars.volume[1:])[whole].clamp_min(1.0).log()
    total = overnight + day
    size = (total.abs() / total.std(0)).log1p()
    x, y = size - size.mean(0), volume - volume.mean(0)
    elasticity = max(float((x * y).sum() / x.square().sum()), 0.0)
    noise = float((y - elasticity * x).square().mean().sqrt())
    base = float((volume - elasticity * size).mean()) + 0.5 * noise**2
    return IntrabarConfig(
        overnight=night,
        volume=exp(base),
        volume_elasticity=min(elasticity, 10.0),
        volume_noise=min(noise, 5.0),
    )


def _sample(bars: Bars) -> Sample:
    close = complete_closes(bars)
    return Sample(
        log_return=close.log().diff(dim=0),
        years=bars.years_per_bar,
        start_price=_floats(close[0]),
        intrabar=fit_intrabar(bars),
    )


def _floats(values: Tensor) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _freedom_of(ratio: float) -> float:
    """Degrees of freedom of a Student-t of variance 1 with (E |x|)^2 = ratio, 3 to 200 (bisection).

    E |x| = sqrt((nu - 2) / pi) Gamma((nu - 1) / 2) / Gamma(nu / 2), increasing in nu.
    """
    low, high = 3.0, 200.0
    for _ in range(60):
        nu = 0.5 * (low + high)
        mean = ((nu - 2.0) / pi) ** 0.5 * exp(lgamma(0.5 * (nu - 1.0)) - lgamma(0.5 * nu))
        low, high = (nu, high) if mean**2 < ratio else (low, nu)
    return low
