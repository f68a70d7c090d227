"""Runs of one environment in two backends, and what makes them the same."""

from dataclasses import replace

import numpy as np
import torch
from hypothesis import strategies as st
from worlds import SHORT_FEATURES, random_bars

from fastsim.data.bars import OPEN
from fastsim.env.actions import ACTIONS, action_width
from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.impact import ImpactConfig
from fastsim.env.info import figures_of
from fastsim.env.orders import OrderConfig
from fastsim.env.perpetual import PerpetualConfig
from fastsim.env.randomize import RandomizeConfig
from fastsim.env.reward import REWARDS, RewardConfig
from fastsim.env.window import BAR_COLUMNS
from fastsim.market.costs import CostConfig, Friction
from fastsim.market.margin import Tiers
from fastsim.market.tape import TapeConfig, make_tape

ENVS, STEPS = 5, 40
SMALL = 20.0  # of weights, which are told of accounts that have lost nine tenths in a step
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-11}


@st.composite
def tapes(draw, dtype, length=60, volume=None):
    """Markets with holes or without, with volume and opens or without.

    Half of them have fees and bans on shorts, or delisting.
    """
    opens, holes = draw(st.booleans()), draw(st.booleans())
    volume = draw(st.booleans()) if volume is None else volume
    seed = draw(st.integers(0, 9))
    bars = random_bars(
        length, draw(st.integers(3, 18)), seed, opens=opens, volume=volume, holes=holes
    )
    further = draw(st.booleans())
    config = TapeConfig(
        features=SHORT_FEATURES,
        risk_free_rate=draw(st.sampled_from([0.0, 0.05])),
        delisting_haircut=draw(st.sampled_from([None, 0.3])) if further else None,
        fill=draw(st.sampled_from(["auto", "close"])),
    )
    return make_tape(
        _with_an_end(bars, length // 2) if config.delisting_haircut else bars,
        config,
        dtype=dtype,
        borrow_rates=_borrow_rates(bars, seed) if further and draw(st.booleans()) else None,
        shortable=_lendable(bars, seed) if further and draw(st.booleans()) else None,
    )


def _with_an_end(bars, last):
    """The same, but that the second asset has no price after this bar."""
    columns = (bars.open, bars.high, bars.low, bars.close, bars.volume)
    for prices in (column for column in columns if column is not None):
        prices[last + 1 :, 1] = np.nan
    return bars


def _borrow_rates(bars, seed):
    """Fees on shorts of half of all bars and assets; NaN where an account's own applies."""
    rates = np.random.default_rng(seed).uniform(0.0, 0.5, bars.close.shape)
    return np.where(rates < 0.25, np.nan, rates)


def _lendable(bars, seed):
    """Three of four bars and assets of which shorts may grow."""
    return np.random.default_rng(seed).uniform(size=bars.close.shape) < 0.75


def of_futures(tape, config, seed):
    """The same market, of perpetual futures if they are traded, with funding and often with tiers.

    Without opens spot is traded instead, without levels.
    """
    perpetual = config.perpetual
    if not tape.known.bars[..., OPEN].isfinite().any():
        orders = replace(config.orders, stop=0.0, target=0.0, trailing=0.0)
        action = "signed" if config.action in ("leveraged", "bracketed") else config.action
        config = replace(config, orders=orders, perpetual=PerpetualConfig(), action=action)
    if not config.perpetual.trades:
        return tape, config
    generator = torch.Generator().manual_seed(seed)
    rates = 0.002 * torch.randn(tape.next["price"].shape, generator=generator, dtype=torch.float64)
    table = [(0.004, 0.0, 2e3, 50.0), (0.01, 12.0, 5e5, 30.0), (0.02, 5012.0, 2e7, 25.0)]
    columns = torch.tensor(table, dtype=torch.float64).T[..., None].expand(-1, -1, tape.num_assets)
    tiers = None if perpetual.maintenance_rate else Tiers(*columns).to("cpu", tape.dtype)
    return replace(tape, next=tape.next.changed({"funding": rates}), tiers=tiers), config


@st.composite
def margins(draw):
    """Perpetual futures, or spot."""
    return PerpetualConfig(
        leverage=draw(st.sampled_from([0.0, 4.0, 25.0])),
        maintenance_rate=draw(st.sampled_from([0.0, 0.004, 0.03])),
        liquidation_fee_bps=draw(st.sampled_from([0.0, 125.0])),
    )


@st.composite
def order_rules(draw, max_gross, shares, levels, called=True):
    """How orders are filled, and what a broker charges for each."""
    margins = [0.0, 0.15, 0.24] + [0.7] * (max_gross <= 1.0) if called else [0.0]
    orders = OrderConfig(
        unfilled=draw(st.sampled_from(["drop", "carry"])),
        whole_shares=draw(st.booleans()) if shares else False,
        maintenance_margin=draw(st.sampled_from(margins)),
        stop=draw(st.sampled_from([0.0, 0.01, 0.03])) if levels else 0.0,
        target=draw(st.sampled_from([0.0, 0.02])) if levels else 0.0,
        trailing=draw(st.sampled_from([0.0, 0.015])) if levels else 0.0,
    )
    fees = {
        "fee_per_share": draw(st.sampled_from([0.0, 0.01])),
        "minimum_fee": draw(st.sampled_from([0.0, 2.0])),
    }
    return orders, fees


@st.composite
def configs(draw, *, shares=True, levels=False):
    """Any combination of the rules, whole shares, and `levels`, among them or not.

    These are stops and targets, and liquidations of perpetual futures.

    In float32 a backend buys one share more or less than another where an order is all but a whole
    number of them, and from there on they go apart.
    """
    perpetual = draw(margins()) if levels and draw(st.booleans()) else PerpetualConfig()
    modes = [
        name
        for name, mode in ACTIONS.items()
        if (perpetual.trades or not mode.owes) and (levels or not mode.brackets)
    ]
    action = draw(st.sampled_from(modes))
    max_gross = draw(st.sampled_from([0.5, 1.0, 4.0])) if ACTIONS[action].levered else 1.0
    rules = order_rules(max_gross, shares, levels, not perpetual.trades)
    orders, fees = draw(rules) if draw(st.booleans()) else (OrderConfig(), {})
    if ACTIONS[action].brackets:
        orders = replace(orders, stop=orders.stop or 0.02, target=orders.target or 0.04)
        orders = replace(orders, unfilled="drop")
    costs = CostConfig(
        fee_bps=draw(st.sampled_from([0.0, 1.0, 100.0])),
        half_spread_bps=draw(st.sampled_from([0.0, 2.0, 50.0])),
        impact=draw(st.sampled_from([0.0, 1.0, 3.0])),
        participation=draw(st.sampled_from([1e-3, 0.05, 1e9])),
        borrow_bps_per_year=draw(st.sampled_from([0.0, 500.0])),
        **fees,
    )
    observation = draw(st.sampled_from(["flat", "index", "window"]))
    shown = [BAR_COLUMNS] + [("log_return", "close", "log_volatility_4")] * (
        observation == "window"
    )
    return EnvConfig(
        action=action,
        max_gross=max_gross,
        reward=RewardConfig(
            kind=draw(st.sampled_from(list(REWARDS))),
            adaptation=draw(st.sampled_from([0.01, 0.05])),
            drawdown_penalty=draw(st.sampled_from([0.0, 2.0])),
        ),
        episode=EpisodeConfig(
            horizon=draw(st.sampled_from([1, 7, None])),
            random_start=draw(st.booleans()),
            staggered=draw(st.booleans()),
            liquidate_at_end=draw(st.booleans()),
            at_end=draw(st.sampled_from(["truncate", "terminate"])),
        ),
        costs=costs,
        orders=orders,
        perpetual=perpetual,
        initial_cash=draw(st.sampled_from([1e3, 1e6])),
        initial_invested=draw(st.sampled_from([0.0, 0.7])),
        observation=observation,
        window_length=draw(st.sampled_from([1, 3])),
        window_columns=draw(st.sampled_from(shown)),
        autoreset=draw(st.sampled_from(["next_step", "same_step"])),
    )


@st.composite
def shared_configs(draw, *, shares=True, levels=False):
    """Any combination of the rules in markets where players meet, move prices, or both.

    What closes positions within bars, of which there is some with `levels`, moves no price.
    """
    players, moved = draw(st.sampled_from([(1, True), (3, True), (10, True), (3, False)]))
    impact = ImpactConfig(
        transient=draw(st.sampled_from([0.0, 1.0, 30.0])),
        permanent=draw(st.sampled_from([0.1, 5.0])),
        half_life=draw(st.sampled_from([0.5, 5.0])),
    )
    config = draw(configs(shares=shares and not moved, levels=levels and not moved))
    return replace(config, players=players, impact=impact if moved else ImpactConfig())


@st.composite
def drawn_configs(draw, rules, assets=3):
    """Any of these rules where anything of a market of this many assets, or more, is drawn."""
    config = draw(rules)
    ranges = {
        "fee_bps": [(0.5, 40.0), (3.0, 3.0)],
        "half_spread_bps": [(1.0, 30.0)],
        "impact": [(0.5, 3.0)],
        "participation": [(0.001, 0.1)],
        "borrow_bps_per_year": [(10.0, 900.0)],
        "volatility": [(0.4, 2.5), (1.5, 1.5)],
        "assets": [(1, assets), (2, 2), (assets, assets)],
    }
    if config.impact.moves_prices:
        ranges["price_impact"] = [(0.2, 4.0)]
    drawn = {name: draw(st.sampled_from([(), *choices])) for name, choices in ranges.items()}
    spacing = draw(st.sampled_from(["uniform", "log"]))
    if drawn["volatility"]:  # shares are counted at the prices of the data
        orders = replace(config.orders, whole_shares=False)
        config = replace(config, orders=orders, costs=replace(config.costs, fee_per_share=0.0))
    return replace(config, randomize=RandomizeConfig(**drawn, spacing=spacing))


def soaring_tape(length=60, jump=30, *, volume=False):
    """A market in which one asset is worth eight times as much overnight: ruin for the short."""
    bars = random_bars(length, 3, seed=4, volume=volume)
    for prices in (bars.open, bars.high, bars.low, bars.close):
        prices[jump:, 0] *= 8.0
    return make_tape(bars, TapeConfig(features=SHORT_FEATURES), dtype=torch.float64)


def ruinous(autoreset, transient, horizon):
    """Rules under which one of two players is ruined now and then, and sometimes both."""
    return EnvConfig(
        players=2,
        impact=ImpactConfig(transient=transient),
        action="signed",
        max_gross=4.0,
        autoreset=autoreset,
        episode=EpisodeConfig(horizon=horizon),
    )


def assert_ruined_alone_and_together(record):
    """That a run of `ruinous` rules came to both."""
    ruined = torch.stack([transition.terminated for _, transition, _ in record[1:]])
    ruined = ruined.view(len(ruined), -1, 2).sum(-1)
    assert (ruined == 1).any() and (ruined == 2).any()


def actions(tape, config, seed, envs=ENVS, steps=STEPS):
    """Random actions [steps, envs, width], some of them out of bounds, some not finite."""
    generator = torch.Generator().manual_seed(seed)
    width = action_width(config.action, tape.num_assets)
    rows = 2.0 * torch.randn(steps, envs, width, generator=generator, dtype=tape.dtype)
    rows[3, 1, 0], rows[4, 2, -1], rows[5, 3] = torch.nan, torch.inf, 1e30
    rows[6, 4] = 0.0
    if ACTIONS[config.action].brackets:
        away = rows[..., tape.num_assets :]
        away *= 0.01  # what bars reach
        away[7, 1], away[8, :, 0], away[9] = torch.nan, -torch.inf, 0.0
    rows[torch.rand(steps, envs, generator=generator) < 0.15] = torch.nan  # orders are left open
    return rows


def run(
    tape, config, seed, backend, friction=None, *,
    envs=ENVS, steps=STEPS, device="cpu",
):  # fmt: skip
    """Observations, transitions and states of one run on this device, brought to the host.

    In float64 single orders are told, too.
    """
    singles = tape.dtype == torch.float64
    tape, config = of_futures(tape, config, seed)
    if friction is not None:
        friction = Friction(*(None if costs is None else costs.to(device) for costs in friction))
    there = tape.to(device)
    env = PortfolioEnv(
        there, envs, config, friction=friction, seed=seed, backend=backend, single_orders=singles
    )
    record = [(env.columns(env.reset(seed)).cpu(), None, None)]
    for action in actions(tape, config, seed, envs, steps):
        transition = env.step(action.to(device))
        columns, state = env.columns(transition.observation), _numbers(env.state)
        source = env.tell(transition)  # what `info` tells
        state |= {f"info.{name}": source.tell(name) for name in source.names}
        state = {name: number.cpu() for name, number in state.items()}
        record.append((columns.cpu(), _on_host(transition), state))
    return record


def _on_host(nested):
    if nested is None or isinstance(nested, torch.Tensor):
        return nested if nested is None else nested.cpu()
    if isinstance(nested, dict):
        return {name: _on_host(part) for name, part in nested.items()}
    return type(nested)(*map(_on_host, nested))


def _numbers(state, prefix=""):
    """Every tensor of a state by its dotted name."""
    found = {}
    for name, part in state._asdict().items():
        nested = isinstance(part, tuple)
        found |= _numbers(part, f"{prefix}{name}.") if nested else {f"{prefix}{name}": part}
    return found


def assert_same_view(found, wanted, tolerance):
    """Agents see the same assets in the same slots, at the same volatility."""
    assert (found.view is None) == (wanted.view is None)
    if wanted.view is not None:
        assert torch.equal(found.view.slots, wanted.view.slots)
        torch.testing.assert_close(
            found.view.volatility, wanted.view.volatility, rtol=tolerance, atol=0
        )


def assert_same_forced(found, wanted, near):
    """The same was traded by margin calls, by stops and targets, and by exchanges, at one cost."""
    for name in ("margin_call", "exits"):
        one, other = getattr(found, name), getattr(wanted, name)
        assert (one is None) == (other is None), name
        if one is not None:
            near(one.trade, other.trade)
            for cause, paid in one.cost.items():
                near(paid, other.cost[cause])
    assert (found.settlement is None) == (wanted.settlement is None)
    if wanted.settlement is not None:
        near(found.settlement.seized, wanted.settlement.seized)


def assert_same_run(reference, other, wealth, tolerance):
    """Equal to rounding in everything that is not a count; restarted rows, too."""

    def near(found, wanted, scale=1.0):
        torch.testing.assert_close(
            found, wanted, rtol=tolerance, atol=tolerance * scale, equal_nan=scale == SMALL
        )

    # A Sharpe difference divides by small variances; a rate is per unit of money.
    scales = {"reward": 300.0, "turnover": 10.0, "displacement.transient": 1.0}
    scales |= {"info.turnover": 10.0, "info.weights": SMALL}  # NaN where a step ends in ruin
    near(other[0][0], reference[0][0])
    for (columns, found, state), (wanted_columns, wanted, wanted_state) in zip(
        other[1:], reference[1:], strict=True
    ):
        near(columns, wanted_columns, 10.0)
        for name in ("terminated", "truncated", "restarted"):
            assert torch.equal(getattr(found, name), getattr(wanted, name)), name
        assert torch.equal(found.outcome.ruined, wanted.outcome.ruined)
        assert torch.equal(found.observation.bar, wanted.observation.bar)
        near(found.observation.portfolio, wanted.observation.portfolio, 10.0)
        assert_same_view(found.observation, wanted.observation, tolerance)
        assert (found.final_observation is None) == (wanted.final_observation is None)
        if wanted.final_observation is not None:
            assert torch.equal(found.final_observation.bar, wanted.final_observation.bar)
            near(found.final_observation.portfolio, wanted.final_observation.portfolio, 10.0)
            assert_same_view(found.final_observation, wanted.final_observation, tolerance)
        if found.outcome.holdings is not None:
            near(found.outcome.holdings, wanted.outcome.holdings, wealth)
        if found.outcome.trade is not None:
            near(found.outcome.trade, wanted.outcome.trade, wealth)
            assert_same_forced(found.outcome, wanted.outcome, lambda *both: near(*both, wealth))
        figures, expected = figures_of(found), figures_of(wanted)
        assert list(figures) == list(expected)
        for name, figure in figures.items():
            near(figure, expected[name], scales.get(name, wealth))
        assert list(state) == list(wanted_state)
        for name, number in state.items():
            if not number.is_floating_point():
                assert torch.equal(number, wanted_state[name]), name
            elif name == "displacement.rate":
                near(number * wealth, wanted_state[name] * wealth)
            elif name.startswith(("memory.", "since.")):
                near(number, wanted_state[name])
            else:
                near(number, wanted_state[name], scales.get(name, wealth))
