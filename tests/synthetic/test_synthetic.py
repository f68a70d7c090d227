"""Simulated markets hold to their closed forms.

Unless said otherwise a figure is averaged over each world, worlds are independent, and the mean
over worlds may miss its closed form by five of its own standard errors (`agrees`).
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console

pytest.importorskip("scipy")
from scipy import integrate, special, stats

from fastsim.cli import main, parse
from fastsim.config import from_mapping, to_mapping
from fastsim.data.sample import sample_bars
from fastsim.errors import ConfigError, DataError
from fastsim.market.tape import TapeConfig, make_tape
from fastsim.synthetic.bootstrap import BlockBootstrap
from fastsim.synthetic.brownian import GeometricBrownian
from fastsim.synthetic.calibrate import fit_factors, fit_intrabar
from fastsim.synthetic.facts import complete_closes, hill_index, stylised_facts
from fastsim.synthetic.garch import Garch
from fastsim.synthetic.heston import Heston, VarianceStep
from fastsim.synthetic.interface import Paths
from fastsim.synthetic.intrabar import IntrabarConfig, Moves, bridge_maximum, make_paths
from fastsim.synthetic.jumps import MertonJumps
from fastsim.synthetic.log_volatility import LogVolatility
from fastsim.synthetic.models import SYNTHETIC_MODELS, fit
from fastsim.synthetic.regimes import Regime, RegimeSwitching
from fastsim.synthetic.shocks import FactorConfig, draw_normal, student_from_normals
from fastsim.synthetic.worlds import to_bars, wide_bars
from tests.worlds import SHORT_FEATURES, random_bars

ALONE = FactorConfig(loadings=((0.0,),))
DAY = 1 / 252
WEEKDAY = 1.4 / 365.25
"""Mean years per business day of the calendar, which is what a fit sees."""


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def agrees(per_world, wanted, *, slack=0.0):
    """The mean over worlds [M] is within 5 standard errors (and a relative slack) of `wanted`."""
    error = float(per_world.std()) / len(per_world) ** 0.5
    miss = abs(float(per_world.mean()) - wanted)
    assert miss <= 5 * error + slack * abs(wanted), (float(per_world.mean()), wanted, error)


def returns(model, worlds, bars, seed=0):
    """Log returns [T, M, A]."""
    return model.moves(worlds, bars, generator(seed)).log_return


def growth(log_return):
    """Price relative of the last bar [M, A]."""
    return log_return.sum(0).exp()


def test_brownian_motion_has_its_mean_variance_correlation_and_growth():
    loadings = ((0.6, 0.2), (0.6, -0.3), (0.1, 0.9))
    model = GeometricBrownian(
        assets=3,
        drift=(0.05, 0.1, -0.2),
        volatility=(0.2, 0.4, 0.1),
        factors=FactorConfig(loadings=loadings),
    )
    log_return = returns(model, 400, 500)
    for asset, (drift, sigma) in enumerate(zip(model.drift, model.volatility, strict=True)):
        mean, spread = (drift - sigma**2 / 2) * DAY, sigma * DAY**0.5
        shock = (log_return[..., asset] - mean) / spread
        agrees(shock.mean(0), 0.0)
        agrees(shock.square().mean(0), 1.0)
        agrees(shock.pow(4).mean(0), 3.0)
        agrees(growth(log_return)[:, asset], math.exp(drift * 500 * DAY))
        for other in range(asset):
            scale = model.volatility[other]
            mean = (model.drift[other] - scale**2 / 2) * DAY
            joint = shock * (log_return[..., other] - mean) / (scale * DAY**0.5)
            agrees(joint.mean(0), float(np.dot(loadings[asset], loadings[other])))


@pytest.mark.parametrize("freedom", [2.5, 3.0, 5.0, 30.0])
def test_student_shocks_from_correlated_normals_are_exact(freedom):
    nu = torch.tensor(freedom, dtype=torch.float64)
    factors = FactorConfig(loadings=((0.8,),))
    first, second = (factors.draw(200_000, 1, 2, generator(seed)) for seed in (1, 2))
    student = student_from_normals(first, second, nu)[:, 0]
    unit = student[:, 0] * (freedom / (freedom - 2)) ** 0.5
    assert stats.kstest(unit.numpy(), stats.t(freedom).cdf).pvalue > 1e-4
    # in Laguerre polynomials of the squared length, corr = sum_n p_n rho^(2 n + 1), sum p_n = 1
    first_share = (
        integrate.quad(
            lambda q: np.sqrt((freedom - 2) * np.expm1(q / freedom) * q) * np.exp(-q / 2) / 4,
            0,
            400,
        )[0]
        ** 2
    )
    if freedom > 4:  # products have a standard error
        correlation = float((student[:, 0] * student[:, 1]).mean())
        assert first_share * 0.64 - 0.02 < correlation < 0.64 + 0.02


def heston(**changes):
    """Feller's condition is violated twice over: 2 kappa theta = 0.5 < xi^2 = 1."""
    settings = {
        "assets": 2,
        "drift": 0.0,
        "mean_variance": 0.0625,
        "reversion": 4.0,
        "volatility_of_variance": 1.0,
        "leverage": -0.7,
    }
    return Heston(**{**settings, **changes})


@pytest.mark.parametrize("years", [DAY, 1 / 12, 1.0, math.inf])
@pytest.mark.parametrize("start", [0.0, 0.01, 0.0625, 0.5])
def test_a_heston_step_has_its_exact_conditional_moments(years, start):
    """By quadrature over the normal that a draw is made of, against Cox, Ingersoll, Ross (1985)."""
    kappa, theta, xi = (torch.tensor([value], dtype=torch.float64) for value in (4.0, 0.0625, 1.0))
    step = VarianceStep.make(kappa, theta, xi, years)
    law = step.law(torch.full((1, 1), start, dtype=torch.float64))
    level = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    drawn = law.draw(torch.special.ndtri(level)[:, None, None])
    decay = math.exp(-4 * years)
    spread = start * decay * (1 - decay) / 4 + 0.0625 * (1 - decay) ** 2 / 8
    assert float(drawn.mean()) == pytest.approx(0.0625 + (start - 0.0625) * decay, rel=1e-4)
    assert float(drawn.var()) == pytest.approx(spread, rel=2e-3)
    power = torch.tensor([-3.0], dtype=torch.float64)
    moment = float((power * drawn).exp().mean())
    assert float(law.log_moment(power)) == pytest.approx(math.log(moment), rel=1e-4)


def test_heston_variance_has_its_mean_and_its_integral_its_variance():
    model, bars = heston(factors=ALONE), 252
    variance = model.moves(3000, bars, generator()).variance[..., 0]
    assert float(variance.min()) >= 0.0
    agrees(variance.mean(0) / DAY, 0.0625)
    kappa, stationary = 4.0, 1.0 * 0.0625 / 8
    # Var of the integral of a stationary square-root process over one year
    wanted = 2 * stationary * (kappa - 1 + math.exp(-kappa)) / kappa**2
    weights = np.r_[0.5, np.ones(bars - 1), 0.5] * DAY
    lags = np.abs(np.subtract.outer(np.arange(bars + 1), np.arange(bars + 1)))
    trapezoid = stationary * weights @ np.exp(-kappa * DAY * lags) @ weights
    assert trapezoid == pytest.approx(wanted, rel=1e-3)
    agrees((variance.sum(0) - 0.0625).square(), trapezoid)


@pytest.mark.parametrize("years", [DAY, 1 / 52, 1 / 12])
def test_heston_prices_are_martingales_without_drift_whatever_the_bar(years):
    log_return = returns(heston(years_per_bar=years), 20_000, round(1 / years) // 2 + 1)
    agrees(growth(log_return)[:, 0], 1.0)
    drifting = returns(heston(years_per_bar=years, drift=0.3), 5000, 12)
    agrees(growth(drifting)[:, 1], math.exp(0.3 * 12 * years))


def test_heston_leverage_is_its_covariance_and_assets_correlate():
    model = heston(volatility_of_variance=0.5)
    moves = model.moves(500, 500, generator())
    variance = moves.variance / DAY
    change = (
        variance[2:] - variance[:-2]
    )  # half of v's changes over three bars, of which one counts
    joint = (moves.log_return[1:-1] * change).mean(0)[:, 0]
    wanted = -0.7 * 0.5 * 0.0625 * DAY * (1 + math.exp(-4 * DAY)) / 2
    agrees(joint, wanted, slack=0.02)
    product = (moves.log_return[..., 0] * moves.log_return[..., 1]).mean(0)
    agrees(product, 0.25 * 0.0625 * DAY, slack=0.05)


def test_merton_has_its_first_four_cumulants_and_growth():
    model = MertonJumps(
        assets=2,
        drift=0.1,
        volatility=0.2,
        jumps_per_year=60.0,
        jump_mean=-0.01,
        jump_deviation=0.03,
        shared_jumps=1.0,
        factors=FactorConfig(loadings=((0.5,),)),
    )
    log_return = returns(model, 500, 500)
    rate, m, d = 60 * DAY, -0.01, 0.03
    compensator = 60 * math.expm1(m + d**2 / 2)
    first = (0.1 - 0.02 - compensator) * DAY + rate * m
    second = 0.04 * DAY + rate * (m**2 + d**2)
    centred = log_return[..., 0] - first
    agrees(centred.mean(0), 0.0)
    agrees(centred.square().mean(0), second)
    agrees(centred.pow(3).mean(0), rate * (m**3 + 3 * m * d**2))
    fourth = rate * (m**4 + 6 * m**2 * d**2 + 3 * d**4)
    agrees(centred.pow(4).mean(0), fourth + 3 * second**2)
    agrees(growth(log_return)[:, 0], math.exp(0.1 * 500 * DAY))
    joint = (centred * (log_return[..., 1] - first)).mean(0)
    agrees(joint, 0.25 * 0.04 * DAY + rate * (m**2 + 0.25 * d**2))


def test_jumps_that_are_not_shared_leave_assets_to_their_diffusion():
    model = MertonJumps(assets=2, drift=0.0, jump_mean=0.0, shared_jumps=0.0)
    log_return = returns(model, 500, 500)
    together = 6 * DAY  # chance that both jump, squared below: sizes then correlate
    extra = 0.25 * 0.05**2 * together**2
    agrees((log_return[..., 0] * log_return[..., 1]).mean(0), 0.25 * 0.04 * DAY + extra, slack=0.02)


def garch_kurtosis(alpha, gamma, beta, freedom):
    kurtosis = 3 + 6 / (freedom - 4)
    persistence = alpha + gamma / 2 + beta
    square = beta**2 + 2 * beta * (alpha + gamma / 2)
    square += kurtosis * (alpha**2 + alpha * gamma + gamma**2 / 2)
    return kurtosis * (1 - persistence**2) / (1 - square)


@pytest.mark.parametrize("weights", [(0.08, 0.0, 0.85), (0.03, 0.08, 0.85)])
def test_garch_has_its_variance_and_kurtosis(weights):
    alpha, gamma, beta = weights
    model = Garch(
        assets=2, alpha=alpha, gamma=gamma, beta=beta, freedom=12.0, log_drift=0.0, volatility=0.3
    )
    scaled = returns(model, 1000, 1000)[..., 0] / (0.3 * DAY**0.5)
    agrees(scaled.mean(0), 0.0)
    agrees(scaled.square().mean(0), 1.0)
    agrees(scaled.pow(4).mean(0), garch_kurtosis(alpha, gamma, beta, 12.0))
    leverage = (scaled[:-1] * scaled[1:].square()).mean(0)
    if gamma:
        assert float(leverage.mean()) < -5 * float(leverage.std()) / len(leverage) ** 0.5
    else:
        agrees(leverage, 0.0)


def test_garch_begins_after_its_burn_in_as_it_goes_on():
    model = Garch(assets=1, alpha=0.15, gamma=0.0, beta=0.8, freedom=1e6, log_drift=0.0)
    scaled = returns(model, 20_000, 10)[..., 0] / (0.25 * DAY**0.5)
    agrees(scaled.pow(4).mean(0), 3 * (1 - 0.95**2) / (1 - 0.95**2 - 2 * 0.15**2))


def test_log_volatility_begins_in_its_stationary_law():
    model = LogVolatility(assets=1, log_drift=0.0, deviation=0.5, freedom=1e6)
    first = returns(model, 20_000, 1)[0, :, 0].square().log()
    agrees((first - first.mean()).square(), 1.0 + math.pi**2 / 2)


def test_log_volatility_has_the_moments_of_log_squared_returns():
    phi, d, freedom = 0.95, 0.5, 8.0
    model = LogVolatility(
        assets=2,
        log_drift=0.0,
        volatility=0.2,
        persistence=phi,
        deviation=d,
        leverage=-0.6,
        freedom=freedom,
    )
    scaled = returns(model, 1000, 500)[..., 0] / (0.2 * DAY**0.5)
    agrees(scaled.square().mean(0), 1.0)
    mean = math.log(freedom - 2) + special.digamma(0.5) - special.digamma(freedom / 2)
    spread = special.polygamma(1, 0.5) + special.polygamma(1, freedom / 2)
    centred = scaled.square().log() - (mean - 2 * d**2)
    agrees(centred.mean(0), 0.0)
    agrees(centred.square().mean(0), 4 * d**2 + spread)
    for lag in (1, 10, 30):
        agrees((centred[lag:] * centred[:-lag]).mean(0), 4 * d**2 * phi**lag)
    answer = (scaled[:-1].sign() * centred[1:]).mean(0)
    agrees(answer, 2 * d * (1 - phi**2) ** 0.5 * -0.6 * (2 / math.pi) ** 0.5)


def two_regimes(assets=2):
    wild = Regime(log_drift=-0.5, volatility=0.4, factors=FactorConfig(loadings=((0.9,),)))
    calm = Regime(log_drift=0.3, volatility=0.1, factors=FactorConfig(loadings=((0.3,),)))
    return RegimeSwitching(
        assets=assets, regimes=(calm, wild), transitions=((0.98, 0.02), (0.06, 0.94))
    )


def test_regimes_have_their_shares_spells_and_mixture_moments():
    model = two_regimes()
    np.testing.assert_allclose(model.stationary(), [0.75, 0.25], rtol=1e-12)
    path = model.chain(1000, 1000, generator())
    wild = path.double()
    agrees(wild.mean(0), 0.25)
    agrees(wild[0], 0.25)
    spells = ((path[:-1] == 1) & (path[1:] == 0)).sum() / (path[:-1] == 1).sum()
    assert float(1 / spells) == pytest.approx(1 / 0.06, rel=0.05)  # 15,000 spells: 0.8 % each
    log_return = returns(model, 1000, 1000)
    mean = (0.75 * 0.3 - 0.25 * 0.5) * DAY
    variance = (0.75 * 0.01 + 0.25 * 0.16) * DAY + 0.75 * 0.25 * (0.8 * DAY) ** 2
    first = log_return[..., 0]
    agrees(first.mean(0), mean)
    agrees((first - mean).square().mean(0), variance)
    fourth = 3 * (0.75 * 0.01**2 + 0.25 * 0.16**2) * DAY**2
    agrees((first - mean).pow(4).mean(0), fourth, slack=0.01)  # drifts left out
    for number, correlation in ((0, 0.09), (1, 0.81)):
        regime = model.regimes[number]
        shocks = (log_return - regime.log_drift * DAY) / (regime.volatility * DAY**0.5)
        same = model.chain(1000, 1000, generator()) == number  # a model's first draws are its chain
        joint = (shocks[..., 0] * shocks[..., 1])[same].reshape(-1)
        agrees(joint, correlation)


def test_three_regimes_follow_their_transitions():
    rows = ((0.9, 0.08, 0.02), (0.1, 0.8, 0.1), (0.0, 0.3, 0.7))
    model = RegimeSwitching(regimes=(Regime(), Regime(), Regime()), transitions=rows)
    path = model.chain(500, 500, generator())
    for start in range(3):
        ends = path[1:][path[:-1] == start]
        shares = torch.bincount(ends, minlength=3) / len(ends)
        torch.testing.assert_close(
            shares.double(), torch.tensor(rows[start]).double(), atol=0.01, rtol=0
        )


def source_rows(bars):
    """Log open, high, low and close over the close before, and volume [T - 1, A * 5]."""
    prices = [np.log(getattr(bars, name)[1:] / bars.close[:-1]) for name in PRICES]
    return np.concatenate([*prices, bars.volume[1:] / 1e6], axis=1)


PRICES = ("open", "high", "low", "close")


def test_every_bootstrapped_row_is_a_row_of_the_source_and_blocks_have_their_length():
    bars = random_bars(150, 3)
    rows, length = source_rows(bars), 8.0
    paths = BlockBootstrap(bars=bars, block_length=length).sample(30, 400, generator())
    taken = []
    for world in range(30):
        again = source_rows(to_bars(paths, world))
        distance = np.abs(again[:, None] - rows[None]).max(2)
        assert distance.min(1).max() < 1e-9
        taken.append(distance.argmin(1))
    taken = torch.from_numpy(np.stack(taken))  # [M, T - 1]
    goes_on = ((taken[:, 1:] - taken[:, :-1]) % len(rows) == 1).double()
    agrees(goes_on.mean(1), 1 - 1 / length + 1 / length / len(rows))
    log_return = paths.close.log().diff(dim=1)[..., 0]
    agrees(log_return.mean(1), float(rows[:, 9].mean()))
    agrees(log_return.square().mean(1), float((rows[:, 9] ** 2).mean()))


def test_a_bootstrap_leaves_out_rows_with_holes_and_takes_closes_alone():
    holes = random_bars(150, 3, holes=True)
    paths = BlockBootstrap(bars=holes).sample(5, 50, generator())
    assert all(bool(field.isfinite().all()) for field in paths)
    closes = BlockBootstrap(bars=random_bars(opens=False, volume=False)).sample(2, 10, generator())
    assert closes.open is None
    assert closes.volume is None


@pytest.mark.parametrize("end", [-0.03, 0.0, 0.01])
def test_bridge_maxima_have_their_exact_law(end):
    variance = 0.02**2
    uniform = torch.rand(100_000, generator=generator(), dtype=torch.float64)
    drawn = bridge_maximum(torch.tensor(end), torch.tensor(variance), uniform.log())

    def law(top):
        return 1 - np.exp(-2 * top * (top - end) / variance)

    assert float(drawn.min()) >= max(0.0, end)
    assert stats.kstest(drawn.numpy(), law).pvalue > 1e-4


def test_extremes_of_whole_bars_are_those_of_a_fine_brownian_bridge():
    """Against bridges of 4,000 steps, whose extremes fall short by 0.58 steps' deviation each."""
    steps, count = 4000, 2000
    walk = draw_normal((steps, count), generator(5)).cumsum(0) / steps**0.5
    time = torch.arange(1, steps + 1)[:, None] / steps
    fine = walk - time * walk[-1]
    correction = 0.5826 / steps**0.5  # Broadie, Glasserman and Kou (1997)
    wanted = fine.amax(0) + correction
    zero = torch.zeros((count, 50, 1), dtype=torch.float64)
    moves = Moves(zero, zero + 1.0, torch.ones(1, dtype=torch.float64))
    config = IntrabarConfig(overnight=0.0)
    paths = make_paths(moves, torch.ones(1, dtype=torch.float64), config, generator())
    assert paths.high is not None
    assert paths.low is not None
    high, low = paths.high.log(), paths.low.log()
    assert stats.ks_2samp(high.flatten().numpy(), wanted.numpy()).pvalue > 1e-4
    span = high - low
    agrees(span.mean((1, 2)), (math.pi / 2) ** 0.5)
    agrees(span.square().mean((1, 2)), math.pi**2 / 6)


def test_bars_are_in_order_and_their_range_is_parkinsons():
    model = GeometricBrownian(assets=2, drift=0.03125, intrabar=IntrabarConfig(overnight=0.3))
    paths = model.sample(300, 300, generator())
    open_, high, low, close, volume = paths
    assert bool((high >= torch.maximum(open_, close)).all())
    assert bool((low <= torch.minimum(open_, close)).all())
    assert bool((low > 0).all() and (volume > 0).all())
    variance = 0.0625 * DAY
    before = torch.cat([torch.full_like(close[:, :1], 100.0), close[:, :-1]], dim=1)
    night, day = (open_ / before).log(), (close / open_).log()
    agrees(night.square().mean((1, 2)), 0.3 * variance)
    agrees(day.square().mean((1, 2)), 0.7 * variance)
    agrees((night * day).mean((1, 2)), 0.0)
    span = (high / low).log()
    # mean range sqrt(8 / pi) sigma and mean square 4 log 2 sigma^2 (Feller 1951; Parkinson 1980);
    # the second needs both extremes' joint law, which is exact for bars without a return alone
    agrees(span.mean((1, 2)), (8 / math.pi * 0.7 * variance) ** 0.5)
    agrees(span.square().mean((1, 2)), 4 * math.log(2) * 0.7 * variance, slack=0.02)


def test_jumps_come_between_close_and_open():
    config = IntrabarConfig(overnight=0.0)
    model = MertonJumps(
        assets=1, volatility=0.01, jumps_per_year=50.0, jump_deviation=0.1, intrabar=config
    )
    paths = model.sample(20, 200, generator())
    night = (paths.open[:, 1:] / paths.close[:, :-1]).log()
    day = (paths.close / paths.open).log()
    assert float(night.abs().max()) > 0.1
    assert float(day.abs().max()) < 0.006  # nine of the diffusion's standard deviations


def test_volume_is_log_normal_given_the_return_and_rises_with_it():
    config = IntrabarConfig(volume=5e5, volume_elasticity=1.5, volume_noise=0.5)
    model = GeometricBrownian(assets=1, drift=0.03125, intrabar=config)
    paths = model.sample(300, 300, generator())
    before = torch.cat([torch.full_like(paths.close[:, :1], 100.0), paths.close[:, :-1]], dim=1)
    size = ((paths.close / before).log().abs() / (0.25 * DAY**0.5)).log1p()
    noise = (paths.volume / 5e5).log() + 0.125 - 1.5 * size
    assert stats.kstest((noise / 0.5).flatten()[::7].numpy(), stats.norm.cdf).pvalue > 1e-4
    density = lambda z: np.sqrt(2 / np.pi) * np.exp(-z * z / 2)  # noqa: E731
    mean = integrate.quad(lambda z: np.log1p(z) * density(z), 0, np.inf)[0]
    square = integrate.quad(lambda z: np.log1p(z) ** 2 * density(z), 0, np.inf)[0] - mean**2
    wanted = 1.5 * square**0.5 / (1.5**2 * square + 0.25) ** 0.5
    pair = torch.stack([size.flatten(), paths.volume.log().flatten()])
    # the standard error of a correlation is (1 - rho^2) / sqrt(n)
    error = (1 - wanted**2) / size.numel() ** 0.5
    assert float(torch.corrcoef(pair)[0, 1]) == pytest.approx(wanted, abs=5 * error)


def simulated(model, bars=5000, seed=3):
    """One world on the business calendar, whose mean bar the model is told."""
    return to_bars(replace(model, years_per_bar=WEEKDAY).sample(1, bars, generator(seed)), 0)


def average(value):
    return float(np.mean(value))


def test_fitting_brownian_motion_finds_its_parameters():
    loadings = ((0.8,), (0.6,), (0.4,), (0.5,))
    truth = GeometricBrownian(
        assets=4,
        volatility=(0.1, 0.2, 0.3, 0.4),
        factors=FactorConfig(loadings=loadings),
        intrabar=IntrabarConfig(overnight=0.35, volume_elasticity=1.2, volume_noise=0.3),
    )
    found = fit("gbm", simulated(truth))
    assert found.volatility == pytest.approx(truth.volatility, rel=0.05)  # 1 / sqrt(2 T) = 1 %
    for mu, sigma in zip(found.drift, truth.volatility, strict=True):
        assert mu == pytest.approx(0.06, abs=4 * sigma / (5000 * WEEKDAY) ** 0.5)
    assert np.ravel(found.factors.loadings) == pytest.approx(np.ravel(loadings), abs=0.08)
    assert found.years_per_bar == pytest.approx(WEEKDAY, rel=1e-3)
    assert found.intrabar.overnight == pytest.approx(0.35, abs=0.02)
    assert found.intrabar.volume == pytest.approx(1e6, rel=0.03)
    assert found.intrabar.volume_elasticity == pytest.approx(1.2, abs=0.04)
    assert found.intrabar.volume_noise == pytest.approx(0.3, abs=0.01)


def test_fitting_merton_finds_its_jumps():
    truth = MertonJumps(
        assets=4, volatility=0.2, jumps_per_year=10.0, jump_mean=-0.02, jump_deviation=0.06,
        shared_jumps=0.5,
    )  # fmt: skip
    found = fit("merton", simulated(truth, 8000))
    # 300 jumps an asset, a few of them lost among large moves; means over four assets
    assert average(found.volatility) == pytest.approx(0.2, rel=0.03)
    assert average(found.jumps_per_year) == pytest.approx(10.0, rel=0.25)
    assert average(found.jump_mean) == pytest.approx(-0.02, abs=0.012)
    assert average(found.jump_deviation) == pytest.approx(0.06, rel=0.15)
    assert found.shared_jumps == pytest.approx(0.5, abs=0.3)


def test_fitting_heston_finds_its_memory_and_leverage():
    truth = Heston(assets=8, factors=ALONE)
    found = fit("heston", simulated(truth, 8000))
    # squared returns are 2 parts noise to 0.13 of signal: their memory is read to about a fifth
    assert average(found.mean_variance) == pytest.approx(0.0625, rel=0.1)
    assert average(found.reversion) == pytest.approx(4.0, rel=0.5)
    assert average(found.volatility_of_variance) == pytest.approx(0.5, rel=0.3)
    assert found.leverage == pytest.approx(-0.6, abs=0.2)


def test_fitting_garch_finds_its_weights():
    truth = Garch(assets=4, alpha=0.04, gamma=0.08, beta=0.88, freedom=6.0)
    found = fit("garch", simulated(truth, 4000))
    # standard errors of one asset at T = 4,000 are about 0.012, 0.02, 0.015 and 0.5; of the mean
    # of four assets, whose shocks correlate, somewhat above half of that
    assert average(found.alpha) == pytest.approx(0.04, abs=0.03)
    assert average(found.gamma) == pytest.approx(0.08, abs=0.05)
    assert average(found.beta) == pytest.approx(0.88, abs=0.04)
    assert average(found.freedom) == pytest.approx(6.0, abs=1.2)
    assert average(found.volatility) == pytest.approx(0.25, rel=0.15)
    correlation = np.outer(found.factors.loadings, found.factors.loadings)
    assert correlation[~np.eye(4, dtype=bool)].mean() == pytest.approx(0.25, abs=0.06)


def test_fitting_log_volatility_finds_its_law():
    truth = LogVolatility(assets=8, freedom=8.0)
    found = fit("sv", simulated(truth, 8000))
    assert found.persistence == pytest.approx(0.98, abs=0.008)
    assert found.deviation == pytest.approx(0.4, rel=0.12)
    assert found.leverage == pytest.approx(-0.5, abs=0.2)
    assert 1 / found.freedom == pytest.approx(1 / 8, abs=0.04)


def test_fitting_regimes_finds_both():
    found = fit("regimes", simulated(two_regimes(4)))
    calm, wild = found.regimes
    assert average(calm.volatility) == pytest.approx(0.1, rel=0.05)
    assert average(wild.volatility) == pytest.approx(0.4, rel=0.08)
    assert average(calm.factors.loadings) == pytest.approx(0.3, abs=0.1)
    assert average(wild.factors.loadings) == pytest.approx(0.9, abs=0.03)
    assert found.transitions[0][1] == pytest.approx(0.02, abs=0.008)  # 75 spells: 12 % each
    assert found.transitions[1][0] == pytest.approx(0.06, abs=0.024)


def test_factors_of_an_exact_correlation_are_found():
    loadings = torch.tensor([[0.9], [0.5], [0.3], [0.7], [0.2]], dtype=torch.float64)
    correlation = (loadings @ loadings.T).fill_diagonal_(1.0)
    found = torch.tensor(fit_factors(correlation).loadings, dtype=torch.float64)
    torch.testing.assert_close(found, loadings, atol=1e-4, rtol=0)


def test_closes_alone_are_fitted_and_simulated_as_closes_alone():
    bars = random_bars(300, opens=False)
    assert fit_intrabar(bars) is None
    assert fit("gbm", bars).sample(2, 10, generator()).high is None


def test_facts_of_a_random_walk_and_of_garch():
    normal = GeometricBrownian(assets=5).sample(50, 1000, generator()).close
    facts = stylised_facts(normal)
    assert facts.skew.shape == (50,)
    for name in ("skew", "leverage_1", "leverage_5"):
        agrees(getattr(facts, name), 0.0)
    agrees(facts.excess_kurtosis, -6 / 1000, slack=1.0)  # biased by -6 / T
    agrees(facts.clustering_1, -1 / 1000, slack=1.0)
    agrees(facts.cross_correlation, 0.25)
    agrees(facts.volatility, 0.25 * DAY**0.5, slack=0.001)
    fat = stylised_facts(Garch(assets=5).sample(50, 1000, generator()).close)
    assert float(fat.excess_kurtosis.mean()) > 2.0
    assert float(fat.hill_index.mean()) < float(facts.hill_index.mean()) - 1.0
    assert float(fat.clustering_1.mean()) > float(fat.clustering_20.mean()) > 0.03
    assert float(fat.leverage_1.mean()) < -0.01


def test_hills_index_of_a_pareto_tail_is_its_exponent():
    uniform = torch.rand((200, 2000, 1), generator=generator(), dtype=torch.float64)
    agrees(1 / hill_index(uniform ** (-1 / 3.0)).squeeze(-1), 1 / 3.0)


def test_facts_refuse_what_they_cannot_measure():
    with pytest.raises(DataError, match="T > 100"):
        stylised_facts(torch.ones(50, 2))
    with pytest.raises(DataError, match="> 0"):
        stylised_facts(torch.zeros(200, 2))
    with pytest.raises(DataError, match="too few to measure"):
        complete_closes(random_bars(90))


CLASSES = {
    name: record.model for name, record in SYNTHETIC_MODELS.items() if record.model is not None
}


def every_model():
    return [
        *(cls(assets=3) for cls in CLASSES.values()),
        BlockBootstrap(bars=random_bars(120, 3)),
    ]


@pytest.mark.parametrize("model", every_model(), ids=SYNTHETIC_MODELS)
def test_the_same_seed_gives_the_same_paths_on_any_number_of_threads(model, threads):
    threads(1)
    one = model.sample(40, 200, generator(7))
    threads(2)
    torch.manual_seed(1)
    two = model.sample(40, 200, generator(7))
    other = model.sample(40, 200, generator(8))
    for name, field in one._asdict().items():
        assert field.shape == (40, 200, 3)
        assert field.dtype == torch.float64
        assert bool(field.isfinite().all())
        assert torch.equal(field, getattr(two, name))
        assert not torch.equal(field, getattr(other, name))


@pytest.mark.gpu
@pytest.mark.parametrize("model", every_model(), ids=SYNTHETIC_MODELS)
def test_paths_are_drawn_where_the_generator_is(model):
    there = model.sample(2000, 200, torch.Generator("cuda").manual_seed(0))
    here = model.sample(2000, 200, generator())
    assert there.close.is_cuda
    spread = here.close.log().diff(dim=1).std()
    assert float(there.close.log().diff(dim=1).std()) == pytest.approx(float(spread), rel=0.02)
    again = model.sample(2000, 200, torch.Generator("cuda").manual_seed(0))
    assert torch.equal(there.close, again.close)


@pytest.mark.parametrize("cls", CLASSES.values(), ids=CLASSES)
def test_models_survive_a_configuration_file(cls):
    model = cls(assets=2, start_price=(10.0, 20.0))
    mapping = to_mapping(model)
    assert from_mapping(cls, mapping) == model


def test_one_world_is_bars_of_business_days():
    paths = GeometricBrownian(assets=2).sample(3, 6, generator())
    bars = to_bars(paths, 1, "2021-01-01")
    assert bars.symbols == ("A0", "A1")
    assert [str(day)[:10] for day in bars.timestamps[:2]] == ["2021-01-01", "2021-01-04"]
    np.testing.assert_array_equal(bars.close, paths.close[1].numpy())
    np.testing.assert_array_equal(bars.volume, paths.volume[1].numpy())


def test_all_worlds_side_by_side_become_a_tape():
    paths = Heston(assets=3).sample(4, 60, generator())
    bars = wide_bars(paths)
    assert bars.symbols[:4] == ("w0.A0", "w0.A1", "w0.A2", "w1.A0")
    assert bars.close.shape == (60, 12)
    config = TapeConfig(features=SHORT_FEATURES)
    wide = make_tape(bars, config, dtype=torch.float64)
    alone = make_tape(to_bars(paths, 2), config, dtype=torch.float64)
    assert wide.fill == "next_open"
    assert wide.has_volume
    torch.testing.assert_close(wide.known.features[:, 6:9], alone.known.features)
    torch.testing.assert_close(wide.next["r_before"][:, 6:9], alone.next["r_before"])


def test_closes_alone_make_bars_of_closes_alone():
    paths = GeometricBrownian(assets=1, intrabar=None).sample(2, 5, generator())
    assert paths._replace(close=None) == Paths(None, None, None, None, None)
    assert wide_bars(paths).open is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GeometricBrownian(volatility=-0.1), "volatility must be > 0"),
        (lambda: GeometricBrownian(assets=3, drift=(0.1, 0.2)), "a tuple of 3"),
        (lambda: GeometricBrownian(assets=0), "assets must be a whole number"),
        (lambda: GeometricBrownian(years_per_bar=0.0), "years_per_bar must be > 0"),
        (lambda: FactorConfig(loadings=((0.9, 0.9),)), "row 0 .* has 1.62"),
        (lambda: FactorConfig(loadings=((0.1,), (0.1, 0.2))), "rows of equal length"),
        (
            lambda: Heston(assets=3, factors=FactorConfig(loadings=((0.1,), (0.2,)))),
            "one row or 3, got 2",
        ),
        (lambda: Heston(leverage=0.3), "leverage must be >= -1 and <= 0"),
        (lambda: Heston(reversion=float("nan")), "reversion must be > 0"),
        (lambda: MertonJumps(jumps_per_year=-1.0), "jumps_per_year must be >= 0"),
        (lambda: MertonJumps(shared_jumps=1.5), "shared_jumps must be >= 0 and <= 1"),
        (lambda: Garch(alpha=0.1, gamma=0.1, beta=0.9), "must be < 1 .* got 1.05"),
        (lambda: Garch(freedom=2.0), "freedom must be > 2"),
        (lambda: LogVolatility(persistence=1.0), "persistence must be"),
        (lambda: RegimeSwitching(transitions=((0.9, 0.2), (0.1, 0.9))), "row 0 .* sum 1.1"),
        (lambda: RegimeSwitching(transitions=((1.0, 0.0), (0.0, 1.0))), "one set of regimes"),
        (lambda: RegimeSwitching(transitions=((1.0,),)), "2 rows of 2"),
        (lambda: IntrabarConfig(overnight=1.2), "overnight must be"),
        (lambda: BlockBootstrap(bars=random_bars(), block_length=0.5), "block_length must be"),
        (lambda: Garch().sample(0, 5, generator()), "worlds must be a whole number"),
        (lambda: Garch().sample(5, 0, generator()), "bars must be a whole number"),
        (lambda: fit("arima", random_bars()), "there are gbm, heston"),
    ],
)
def test_bad_parameters_are_one_line(make, message):
    with pytest.raises(ConfigError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_world_or_a_calendar_that_is_not_there_is_refused():
    paths = GeometricBrownian(assets=1).sample(2, 5, generator())
    with pytest.raises(ConfigError, match="world must be 0 to 1"):
        to_bars(paths, 2)
    with pytest.raises(DataError, match="end after"):
        to_bars(paths, 0, "2261-12-30")


def test_every_model_fits_real_bars():
    bars = sample_bars("tech4").take(slice(0, 400))
    for name in SYNTHETIC_MODELS:
        paths = fit(name, bars).sample(2, 50, generator())
        assert all(bool(field.isfinite().all()) for field in paths), name


def test_facts_are_shown_beside_simulated_ones(capsys):
    command = ["data", "facts", "tech4", "--model", "gbm", "bootstrap", "--worlds", "3"]
    console = Console(record=True, width=120)
    parse(command)(console)
    shown = console.export_text()
    assert "excess kurtosis" in shown
    assert "bootstrap" in shown
    with pytest.raises(SystemExit):
        main(["data", "facts", "tech4", "--model", "arima"])
    assert "no synthetic model is called 'arima'" in capsys.readouterr().err
