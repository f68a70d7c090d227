"""The simulators hold to their closed forms."""

import math

import pytest
import torch
from scipy import stats

from fastsim.forecast.training import prior_paths as paths


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def full(value, size=1000):
    return torch.full((size,), float(value))


def correlation(a, b):
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def plain(size=1000, **changes):
    """GARCH without news, jumps, regimes or drift: shocks of variance one, unless changed."""
    parameters = paths.PathParameters(
        is_garch=torch.ones(size, dtype=torch.bool),
        garch=paths.GarchParameters(*full(0.0, size).expand(3, -1)),
        volatility=paths.StochasticVolatilityParameters(
            full(0.9, size).expand(2, -1), full(0.0, size).expand(2, -1), full(0.0, size)
        ),
        regime=paths.make_regimes(
            ratio=full(1.0, size), calm_bars=full(100, size), wild_bars=full(50, size)
        ),
        jump=paths.JumpParameters(
            full(0.0, size),
            torch.zeros(size, dtype=torch.bool),
            torch.zeros(size, dtype=torch.long),
            full(0.0, size),
            full(1.0, size),
        ),
        freedom=full(1e5, size),
        drift=full(0.0, size),
        theta=full(0.0, size),
        level=full(1.0, size),
    )
    return parameters._replace(**changes)


def stationary(parameters, bars, seed=0):
    """Returns [T, B] after a long burn-in."""
    draws = generator(seed)
    _, state = paths.simulate(parameters, paths.start_state(parameters, draws), 300, draws)
    return paths.simulate(parameters, state, bars, draws)[0]


@pytest.mark.parametrize("freedom", [3.0, 5.0, 12.0])
def test_shocks_are_student_t_of_variance_one(freedom):
    student = paths.draw_shocks(500, full(freedom), generator()).student.flatten()
    levels = torch.tensor([0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99])
    wanted = stats.t.ppf(levels.double(), freedom) * math.sqrt((freedom - 2) / freedom)
    got = torch.quantile(student[:: len(student) // 400_000 + 1], levels)
    torch.testing.assert_close(got.double(), torch.from_numpy(wanted), atol=0.03, rtol=0.02)


def test_kurtosis_of_shocks_is_that_of_student_t():
    student = paths.draw_shocks(4000, full(12.0), generator()).student
    assert float(student.square().mean()) == pytest.approx(1.0, abs=0.005)
    assert float(student.pow(4).mean()) == pytest.approx(3 + 6 / (12 - 4), rel=0.03)


def test_the_normal_behind_a_shock_is_normal_and_has_its_sign():
    student, normal = paths.draw_shocks(500, full(4.0), generator())
    assert float(normal.square().mean()) == pytest.approx(1.0, abs=0.01)
    assert float(normal.pow(4).mean()) == pytest.approx(3.0, rel=0.02)
    assert bool(((student * normal) >= 0).all())


def test_linear_recurrence_is_the_one_worked_by_hand():
    slope = torch.tensor([[2.0], [3.0], [0.5]])
    shift = torch.tensor([[1.0], [0.0], [4.0]])
    path, following = paths.linear_recurrence(slope, shift, torch.tensor([1.0]))
    assert path.flatten().tolist() == [1.0, 3.0, 9.0]
    assert following.tolist() == [8.5]


def test_unconditional_variance_of_gjr_garch_is_one():
    parameters = paths.GarchParameters(full(0.03), full(0.06), full(0.9))
    student = paths.draw_shocks(3000, full(8.0), generator()).student
    variance, _ = paths.garch_variance(parameters, student, full(1.0))
    assert float(variance.mean()) == pytest.approx(1.0, abs=0.02)


def test_kurtosis_of_gaussian_garch_is_its_closed_form():
    alpha, beta = 0.1, 0.8
    garch = paths.GarchParameters(full(alpha, 2000), full(0.0, 2000), full(beta, 2000))
    returns = stationary(plain(2000, garch=garch), 1000)
    persistence = (alpha + beta) ** 2
    wanted = 3 * (1 - persistence) / (1 - persistence - 2 * alpha**2)
    kurtosis = returns.pow(4).mean() / returns.square().mean() ** 2
    assert float(kurtosis) == pytest.approx(wanted, rel=0.03)


def test_negative_news_raises_gjr_variance_more():
    parameters = paths.GarchParameters(full(0.02), full(0.1), full(0.9))
    student = paths.draw_shocks(1000, full(8.0), generator()).student
    variance, _ = paths.garch_variance(parameters, student, full(1.0))
    assert correlation(student[:-1], variance[1:] - variance[:-1]) < -0.2


def test_log_volatility_has_its_deviation_autocorrelation_and_leverage():
    phi, deviation, rho = 0.95, 0.5, -0.6
    parameters = paths.StochasticVolatilityParameters(
        torch.stack([full(phi), full(0.5)]), torch.stack([full(deviation), full(0.0)]), full(rho)
    )
    normal = torch.randn((2000, 1000), generator=generator(1))
    start = deviation * torch.randn((2, 1000), generator=generator(2))
    start[1] = 0.0
    factor, _ = paths.log_volatility_factors(parameters, normal, start, generator())
    assert float(factor.std()) == pytest.approx(deviation, rel=0.02)
    assert correlation(factor[10:], factor[:-10]) == pytest.approx(phi**10, abs=0.02)
    news = factor[1:] - phi * factor[:-1]
    assert correlation(normal[:-1], news) == pytest.approx(rho, abs=0.01)


def test_stochastic_volatility_has_mean_square_one_and_clusters():
    volatility = paths.StochasticVolatilityParameters(
        torch.stack([full(0.97, 4000), full(0.7, 4000)]),
        torch.stack([full(0.35, 4000), full(0.25, 4000)]),
        full(-0.5, 4000),
    )
    parameters = plain(4000, is_garch=torch.zeros(4000, dtype=torch.bool), volatility=volatility)
    returns = stationary(parameters, 500)
    assert float(returns.square().mean()) == pytest.approx(1.0, abs=0.03)
    spread = paths.log_volatility_variance(volatility)
    # E r^4 = 3 exp(4 Var f) for a lognormal volatility and a normal shock
    assert float(returns.pow(4).mean()) == pytest.approx(3 * math.exp(4 * spread[0]), rel=0.15)
    size = returns.abs()
    assert correlation(size[1:], size[:-1]) > correlation(size[20:], size[:-20]) > 0.05
    assert correlation(returns[:-1], size[1:]) < -0.02


def test_regimes_have_mean_square_one_and_spells_of_the_length_given():
    regime = paths.make_regimes(ratio=full(3.0), calm_bars=full(40), wild_bars=full(20))
    start = torch.rand(1000, generator=generator(1)) < 1 / 3
    multiplier, _ = paths.regime_multiplier(regime, 2000, start, generator())
    wild = multiplier == regime.wild
    assert float(multiplier.square().mean()) == pytest.approx(1.0, abs=0.02)
    assert float(wild.float().mean()) == pytest.approx(1 / 3, abs=0.01)
    ends = wild[:-1] & ~wild[1:]
    assert float(wild[:-1].sum() / ends.sum()) == pytest.approx(20.0, rel=0.03)
    torch.testing.assert_close(regime.wild / regime.calm, full(3.0))


def test_jumps_come_as_often_as_said_and_announcements_every_quarter():
    parameters = paths.JumpParameters(
        full(0.02), torch.zeros(1000, dtype=torch.bool), torch.zeros(1000).long(), full(-1), full(3)
    )
    jumps = paths.jumps(parameters, 2000, 0, generator())
    arrived = jumps[jumps != 0]
    assert len(arrived) / jumps.numel() == pytest.approx(0.02, rel=0.03)
    assert float(arrived.mean()) == pytest.approx(-1.0, abs=0.06)
    assert float(arrived.std()) == pytest.approx(3.0, rel=0.02)
    announced = parameters._replace(
        intensity=full(0.0), announced=full(1.0).bool(), phase=torch.full((1000,), 5)
    )
    bars = paths.jumps(announced, 100, 63, generator())[:, 0].nonzero().flatten()
    assert bars.tolist() == [5, 68]


def test_moving_average_gives_its_first_autocorrelation_and_no_second():
    returns = stationary(plain(theta=full(0.3)), 1000)
    assert correlation(returns[1:], returns[:-1]) == pytest.approx(0.3 / 1.09, abs=0.01)
    assert correlation(returns[2:], returns[:-2]) == pytest.approx(0.0, abs=0.01)


def test_drift_and_level_scale_what_they_should():
    returns = stationary(plain(drift=full(0.5), level=full(0.02)), 1000)
    assert float(returns.mean()) == pytest.approx(0.01, rel=0.02)
    assert float(returns.std()) == pytest.approx(0.02, rel=0.01)


def test_parameters_are_admissible_and_in_their_ranges():
    drawn = paths.draw_parameters(20_000, generator())
    alpha, gamma, beta = drawn.garch
    persistence = alpha + gamma / 2 + beta
    assert float(persistence.min()) >= 0.9 - 1e-6
    assert float(persistence.max()) <= 0.998 + 1e-6
    assert bool((torch.stack(drawn.garch) >= 0).all())
    assert bool((drawn.volatility.persistence < 1).all())
    assert 3 <= float(drawn.freedom.min()) < float(drawn.freedom.max()) <= 30
    assert float(drawn.level.max() / drawn.level.min()) > 250


def test_drawn_paths_look_like_markets():
    past, future = paths.draw_paths(500, 511, 64, 2, generator())
    assert past.shape == (500, 511)
    assert future.shape == (500, 2, 64)
    assert bool(past.isfinite().all() and future.isfinite().all())
    scaled = past / past.square().mean(1, keepdim=True).sqrt()
    assert 5.0 < float(scaled.pow(4).mean(1).median()) < 12.0
    size = scaled.abs()
    assert correlation(size[:, 1:], size[:, :-1]) > 0.05


def test_futures_of_a_past_differ_but_share_its_volatility():
    past, future = paths.draw_paths(1000, 511, 64, 2, generator())
    level = past.square().mean(1).sqrt()
    first, second = ((future[:, k].square().mean(1).sqrt() / level).log() for k in (0, 1))
    assert not torch.equal(future[:, 0], future[:, 1])
    assert correlation(first, second) > 0.3


def test_the_same_seed_draws_the_same_paths():
    torch.manual_seed(0)
    one = paths.draw_paths(50, 100, 10, 2, generator(7))
    torch.manual_seed(1)
    two = paths.draw_paths(50, 100, 10, 2, generator(7))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(one[0], paths.draw_paths(50, 100, 10, 2, generator(8))[0])
