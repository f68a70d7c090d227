"""Selling a block where the optimum is known: it costs what the closed forms say, and PPO finds it.

Prices stand still, so all that is lost is what the orders themselves cost. Closed forms are those
of small displacements; the whole block moves the price by 0.2 %, where exp is linear to 0.1 %.
"""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fastsim.env.environment import PortfolioEnv
from fastsim.env.impact import ImpactConfig

SPEC = importlib.util.spec_from_file_location(
    "execution", Path(__file__).parents[2] / "agents" / "execution.py"
)
execution = importlib.util.module_from_spec(SPEC)
sys.modules["execution"] = execution
SPEC.loader.exec_module(execution)

BARS = 20
SMALL = 2e-3
ONE_PERCENT = 0.01


def transient(displacement=SMALL, half_life=6.58):
    return ImpactConfig(transient=displacement / execution.SIGMA, half_life=half_life)


def even(bars=BARS):
    return torch.full((bars,), 1.0 / bars, dtype=torch.float64)


def at_once(bars=BARS):
    return torch.eye(bars, dtype=torch.float64)[0]


def perturbed(schedule, count=200, size=0.2, seed=0):
    """Schedules that sell as much, each order changed by up to `size` of the mean order."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(count, len(schedule), generator=generator, dtype=torch.float64) - 0.5
    noise = noise - noise.mean(1, keepdim=True)
    return schedule + 2.0 * size / len(schedule) * noise


def costs_of(schedules, impact=None):
    return execution.schedule_costs(schedules, SMALL, impact or transient())


@pytest.mark.parametrize("half_life", [1.0, 6.58, 20.0])
@pytest.mark.parametrize("bars", [2, 5, 20])
def test_schedules_under_decaying_impact_cost_what_the_closed_forms_say(bars, half_life):
    impact = transient(half_life=half_life)
    a = impact.retention
    schedules = torch.stack([execution.optimal_schedule(bars, a), even(bars), at_once(bars)])
    wanted = (
        0.5 * SMALL * np.array([execution.optimal_cost(bars, a), execution.even_cost(bars, a), 1])
    )
    np.testing.assert_allclose(costs_of(schedules, impact).numpy(), wanted, rtol=ONE_PERCENT)


def test_the_optimal_schedule_is_that_of_the_quadratic_form_solved_by_a_matrix():
    a = transient().retention
    steps = np.arange(BARS)
    kernel = a ** np.abs(steps[:, None] - steps)
    solved = np.linalg.solve(kernel, np.ones(BARS))
    schedule = execution.optimal_schedule(BARS, a).numpy()
    np.testing.assert_allclose(schedule, solved / solved.sum(), rtol=1e-9)
    cost = schedule @ kernel @ schedule
    assert cost == pytest.approx(execution.optimal_cost(BARS, a), rel=1e-9)
    assert kernel.mean() == pytest.approx(execution.even_cost(BARS, a), rel=1e-9)


def test_nothing_is_cheaper_than_the_optimum():
    best = execution.optimal_schedule(BARS, transient().retention)
    others = [perturbed(best, size=size, seed=seed) for seed, size in enumerate((0.1, 0.5, 2.0))]
    costs = costs_of(torch.cat([best[None], even()[None], at_once()[None], *others]))
    assert (costs[1:] > costs[0]).all()
    assert costs[1] > 1.1 * costs[0]
    assert costs[2] > 1.9 * costs[0]


def almgren_chriss(risk):
    """Shares sold [BARS] and the expected cost, in units of eta X^2; risk = lambda sigma^2 / eta.

    Almgren and Chriss (2000): the sinh trajectory and its expected shortfall, in bars of unit
    length and without permanent impact.
    """
    kappa = np.arccosh(1.0 + 0.5 * risk)
    left = np.sinh(kappa * (BARS - np.arange(BARS + 1))) / np.sinh(kappa * BARS)
    cost = np.sinh(2.0 * kappa * BARS) + 2.0 * BARS * np.sinh(kappa)
    cost *= np.tanh(0.5 * kappa) / (2.0 * np.sinh(kappa * BARS) ** 2)
    return torch.from_numpy(-np.diff(left)), cost


@pytest.mark.parametrize("permanent", [0.0, 0.1])
def test_linear_temporary_impact_costs_what_almgren_and_chriss_say(permanent):
    """Transient impact that is gone by the next fill is their temporary one, eta = r / 2.

    What is permanent costs gamma X^2 / 2, whatever the schedule.
    """
    impact = ImpactConfig(transient=0.1, permanent=permanent, half_life=0.01)
    rate = (0.1 + permanent) * execution.SIGMA
    risk = 0.02
    averse, expected = almgren_chriss(risk)
    schedules = torch.stack([averse, even()])
    costs = execution.schedule_costs(schedules, rate, impact).numpy()
    eta, always = 0.5 * 0.1 * execution.SIGMA, 0.5 * permanent * execution.SIGMA
    wanted = always + eta * np.array([expected, 1.0 / BARS])
    np.testing.assert_allclose(costs, wanted, rtol=ONE_PERCENT)
    others = torch.cat([schedules, perturbed(averse), perturbed(even())])
    costs = execution.schedule_costs(others, rate, impact)
    assert costs[1:].min() == costs[1]  # without aversion the cheapest are equal orders
    variance = (1.0 - others.cumsum(1)).square().sum(1)
    utility = costs + eta * risk * variance
    assert utility.min() == utility[0]


def square_root_costs(schedules, scale):
    """Costs [N] under the square-root law alone, Y sigma / sqrt(ADV) = `scale` of a unit block."""
    costs = replace(execution.FREE, impact=scale / execution.SIGMA)
    rules = execution.liquidation(BARS, ImpactConfig(), costs)
    env = PortfolioEnv(
        execution.flat_market(BARS, dtype=torch.float64), len(schedules), rules, backend="torch"
    )
    env.reset(0)
    for sold, left in zip(schedules.T, (1.0 - schedules.cumsum(1)).T, strict=True):
        wealth = env.state.wealth / execution.BLOCK - scale * sold.abs() ** 1.5
        env.step((left / wealth)[:, None])
    return 1.0 - env.state.wealth / execution.BLOCK


def test_equal_orders_are_cheapest_under_the_square_root_law_and_cost_its_closed_form():
    """A power law of temporary impact is convex, so a risk-neutral seller trades evenly.

    Almgren (2003): N orders of X / N cost N Y sigma (X / N)^{3/2} / sqrt(ADV).
    """
    scale = 0.02
    schedules = torch.cat([even()[None], at_once()[None], perturbed(even())])
    costs = square_root_costs(schedules, scale)
    assert float(costs[0]) == pytest.approx(scale * BARS**-0.5, rel=1e-6)
    assert float(costs[1]) == pytest.approx(scale, rel=1e-6)
    assert costs.min() == costs[0]


@pytest.mark.long
def test_ppo_sells_for_less_than_equal_orders_and_nearly_the_optimum(threads):
    threads(1)
    options = execution.Options(iterations=60)
    impact = transient(options.displacement, options.half_life)
    schedule = execution.optimal_schedule(options.bars, impact.retention)
    optimum = execution.schedule_costs(schedule[None], options.displacement, impact)
    rules = execution.liquidation(options.bars, impact)
    policy = execution.train(options, rules)
    cost = execution.policy_cost(policy, execution.flat_market(options.bars), rules)
    assert 0.999 < cost / float(optimum) < 1.05


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        (["--bars", "0"], "--bars must be >= 2, got 0"),
        (["--half-life", "-1"], "--half-life must be > 0, got -1.0"),
        (["--displacement", "nan"], "--displacement must be > 0 and <= 1, got nan"),
        (["--iterations", "0"], "--iterations must be >= 1, got 0"),
    ],
)
def test_bad_options_end_in_one_line(monkeypatch, capsys, options, culprit):
    monkeypatch.setattr(sys, "argv", ["execution.py", *options])
    with pytest.raises(SystemExit, match=r"^2$"):
        execution.main()
    assert capsys.readouterr().err == f"execution: {culprit}\n"
