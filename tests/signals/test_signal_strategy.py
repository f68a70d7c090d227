"""The strategy on signals: played by hand, replayed, causal, and as observations."""

import logging
from dataclasses import replace
from math import isnan
from pathlib import Path
from typing import NamedTuple

import gymnasium
import numpy as np
import pytest
import torch
from signalled import market
from torch import Tensor
from worlds import FREE, SHORT_FEATURES, random_bars

import fastsim
from fastsim.backtest.replay import WHOLE_TAPE as WHOLE
from fastsim.backtest.replay import replay
from fastsim.config import load_yaml, save_yaml
from fastsim.data.sample import sample_bars
from fastsim.env.config import EnvConfig
from fastsim.env.decide import Decider
from fastsim.env.environment import PortfolioEnv
from fastsim.env.observe import observation_names
from fastsim.env.orders import OrderConfig
from fastsim.env.randomize import RandomizeConfig
from fastsim.errors import ConfigError
from fastsim.forecast.registry import load_forecaster
from fastsim.forecast.tape import build_forecast_tape
from fastsim.market.features import FeatureConfig, make_features
from fastsim.market.tape import TapeConfig, make_tape
from fastsim.progress import SILENT
from fastsim.signals.columns import signal_columns
from fastsim.signals.confidence import ThresholdConfig
from fastsim.signals.config import SignalConfig
from fastsim.signals.levels import LevelConfig, average_true_range
from fastsim.signals.plan import column_names, make_plan, with_forecasts
from fastsim.signals.prices import prices_of
from fastsim.signals.regimes import RegimeConfig
from fastsim.signals.sizing import SizingConfig
from fastsim.signals.strategy import Positions, SignalStrategy, find_entries, report_risk

ROOT = Path(__file__).parent.parent.parent
REGIMES = RegimeConfig(volatility_window=4, history=20, trend_window=5, memory=8)
QUICK = SignalConfig(
    horizon=3,
    regimes=REGIMES,
    threshold=ThresholdConfig(least=0.6),
    sizing=SizingConfig(by_regime=(1.0, 0.9, 0.8, 0.7, 0.6, 0.5)),
)
BOTH = replace(QUICK, sides="both")
QUANTILE = replace(BOTH, levels=LevelConfig(kind="quantile"))
ADAPTIVE = replace(BOTH, threshold=ThresholdConfig(best=0.2, history=30))
FREE_SIGNED = EnvConfig(costs=FREE, action="signed")


class Row(NamedTuple):
    bar: Tensor
    portfolio: Tensor


def decided(strategy, plan, bar, memory, present):
    seen = Row(torch.tensor([bar]), torch.tensor([[*present, 1 - sum(present)]]).double())
    weights, memory = strategy.decide(plan, seen, memory)
    return weights[0].tolist(), memory


def test_a_plan_is_direction_by_risk_by_regime_by_hand():
    tape = market(config=BOTH)
    plan, close = make_plan(tape, BOTH), prices_of(tape).close
    ranges = average_true_range(prices_of(tape))
    rise = 0.5 + tape.known.features[..., tape.feature_names.index("forecast_rise_3")]
    factors = BOTH.sizing.by_regime
    for bar, asset in np.ndindex(close.shape):
        sure = max(rise[bar, asset], 1 - rise[bar, asset]) >= 0.6
        side = (1 if rise[bar, asset] > 0.5 else -1) if sure and bar >= 13 else 0
        assert plan.direction[bar, asset] == side
        price, span = float(close[bar, asset]), 2.0 * float(ranges[bar, asset])
        if not side:
            assert plan.position[bar, asset] == 0 and plan.stop[bar, asset].isnan()
            continue
        factor = 1.0 if plan.regime[bar, asset] < 0 else factors[plan.regime[bar, asset]]
        expected = min(1.0, factor * min(1.0, 0.02 / (span / price)))
        assert float(plan.position[bar, asset]) == pytest.approx(expected, rel=1e-9)
        assert float(plan.stop[bar, asset]) == pytest.approx(price - side * span, rel=1e-9)
        assert float(plan.target[bar, asset]) == pytest.approx(price + 2 * side * span, rel=1e-9)


def test_stops_at_quantiles_are_read_back_from_features():
    tape = market(config=QUANTILE)
    plan, close = make_plan(tape, QUANTILE), prices_of(tape).close
    unit = tape.known.sigma.clamp_min(1e-6) * 3**0.5
    low, high = (
        tape.known.features[..., tape.feature_names.index(f"scaled_forecast_quantile_{level}_3")]
        for level in (10, 90)
    )
    longs, shorts = plan.direction > 0, plan.direction < 0
    assert longs.any() and shorts.any()
    torch.testing.assert_close(plan.stop[longs], (close * (low * unit).exp())[longs])
    torch.testing.assert_close(plan.target[longs], (close * (high * unit).exp())[longs])
    torch.testing.assert_close(plan.stop[shorts], (close * (high * unit).exp())[shorts])


def test_a_stop_on_the_wrong_side_of_the_price_is_no_trade():
    tape = market(config=QUANTILE)
    place = tape.feature_names.index("scaled_forecast_quantile_10_3")
    tape.known.features[..., place] = 0.5  # above the price
    plan = make_plan(tape, QUANTILE)
    assert not (plan.direction > 0).any() and (plan.direction < 0).any()


def test_what_was_not_forecast_has_no_confidence_and_no_rank():
    config = replace(ADAPTIVE, threshold=ThresholdConfig(best=1.0, history=30))
    tape = market(config=config)
    tape.known.features[:100, :, tape.feature_names.index("forecast_rise_3")] = 0.0
    plan = make_plan(tape, config)
    assert plan.confidence[:100].isnan().all() and plan.confidence[100:].isfinite().all()
    assert not plan.direction[:130].any() and plan.direction[130:].all()
    assert (signal_columns(tape, config)["signal_confidence"][:100] == 0).all()


@pytest.fixture
def by_hand():
    """Two assets over twelve bars of which all is laid out, and who decides."""
    table = torch.full((12, 2), 100.0, dtype=torch.float64)
    nothing = torch.zeros_like(table)
    plan = make_plan(market(config=QUICK), QUICK)
    return plan._replace(
        direction=nothing.clone(),
        confidence=table / 200,
        regime=nothing.long(),
        stop=torch.full_like(table, torch.nan),
        target=torch.full_like(table, torch.nan),
        distance=nothing.clone(),
        position=nothing.clone(),
        high=table + 1,
        low=table - 1,
    ), SignalStrategy(signals=replace(BOTH, sizing=SizingConfig()))


def signal(plan, bar, asset, side, *, stop=95.0, target=110.0, position=0.4):
    tables = ("direction", "stop", "target", "distance", "position")
    values = (side, stop, target, abs(1 - stop / 100), position)
    for name, value in zip(tables, values, strict=True):
        getattr(plan, name)[bar, asset] = value


def played(plan, strategy, bars, fills=True):
    """Weights at each bar by who holds what it asked for."""
    memory, present, asked = strategy.begin(plan, 1), [0.0, 0.0], []
    for bar in range(bars):
        weights, memory = decided(strategy, plan, bar, memory, present)
        present = [old if isnan(new) else new for old, new in zip(present, weights, strict=True)]
        asked.append(present)
    return asked


def test_a_position_is_kept_for_its_time(by_hand):
    plan, strategy = by_hand
    signal(plan, 1, 0, 1)
    asked = [row[0] for row in played(plan, strategy, 6)]
    assert asked == [0.0, 0.4, 0.4, 0.4, 0.0, 0.0]  # decided at 1, left at 4: three bars


def test_a_signal_that_goes_on_does_not_move_the_levels_but_begins_anew_after_its_time(by_hand):
    plan, strategy = by_hand
    for bar in range(1, 6):
        signal(plan, bar, 0, 1, position=0.1 * bar, stop=90.0 + bar)
    asked = [row[0] for row in played(plan, strategy, 6)]
    assert asked == pytest.approx([0.0, 0.1, 0.1, 0.1, 0.4, 0.4])


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("level", ["stop", "target"])
def test_a_touch_leaves_and_bars_its_direction_for_that_close(by_hand, side, level):
    plan, strategy = by_hand
    for bar in range(1, 5):
        signal(plan, bar, 0, side, stop=100.0 - 5 * side, target=100.0 + 10 * side)
    if (side > 0) == (level == "stop"):
        plan.low[2, 0] = 95.0 if level == "stop" else 90.0
    else:
        plan.high[2, 0] = 110.0 if level == "target" else 105.0
    asked = [row[0] for row in played(plan, strategy, 4)]
    assert asked == [0.0, 0.4 * side, 0.0, 0.4 * side]


def test_the_bar_of_the_decision_touches_nothing(by_hand):
    plan, strategy = by_hand
    signal(plan, 1, 0, 1)
    plan.low[1, 0] = 50.0
    assert [row[0] for row in played(plan, strategy, 3)] == [0.0, 0.4, 0.4]


def test_a_signal_that_turns_turns_the_position(by_hand):
    plan, strategy = by_hand
    signal(plan, 1, 0, 1)
    signal(plan, 2, 0, -1, stop=105.0, target=90.0)
    assert [row[0] for row in played(plan, strategy, 6)] == [0.0, 0.4, -0.4, -0.4, -0.4, 0.0]


def test_a_second_position_shares_the_budget(by_hand):
    plan, strategy = by_hand
    signal(plan, 1, 0, 1, stop=90.0, position=0.4)  # 4 % at its stop
    signal(plan, 2, 1, 1, stop=90.0, position=0.4)  # 8 % together, of 6 %
    asked = played(plan, strategy, 4)
    assert asked[1] == pytest.approx([0.4, 0.0])
    assert asked[2] == pytest.approx([0.3, 0.3])
    assert asked[3] == pytest.approx([0.3, 0.3])


def test_what_was_not_filled_is_not_asked_for_again(by_hand):
    plan, strategy = by_hand
    signal(plan, 1, 0, 1)
    memory = strategy.begin(plan, 1)
    weights, memory = decided(strategy, plan, 1, memory, [0.0, 0.0])
    assert weights == [0.4, 0.0]
    weights, memory = decided(strategy, plan, 2, memory, [0.0, 0.0])
    assert all(map(isnan, weights))  # holds what it has, nothing
    weights, memory = decided(strategy, plan, 3, memory, [0.1, 0.0])
    assert all(map(isnan, weights))


def test_rows_of_a_batch_decide_by_themselves(by_hand):
    plan, strategy = by_hand
    signal(plan, 1, 0, 1)
    signal(plan, 2, 1, -1, stop=104.0)
    bars = torch.tensor([0, 1, 2, 2])
    memory = strategy.begin(plan, 4)
    portfolio = torch.zeros(4, 3, dtype=torch.float64)
    together, after = strategy.decide(plan, Row(bars, portfolio), memory)
    for row in range(4):
        alone, own = strategy.decide(
            plan,
            Row(bars[row : row + 1], portfolio[:1]),
            Positions(*(each[:1] for each in memory)),
        )
        torch.testing.assert_close(together[[row]], alone, equal_nan=True)
        for one, two in zip(after, own, strict=True):
            torch.testing.assert_close(one[[row]], two, equal_nan=True)


def test_it_is_a_decider():
    for name in ("answers", "study", "begin", "decide", "ahead"):
        assert hasattr(Decider, name) and hasattr(SignalStrategy, name)
    assert SignalStrategy().answers == "weights"
    assert SignalStrategy(signals=BOTH).answers == "signed"


@pytest.mark.parametrize("fill", ["next_open", "close"])
def test_a_replay_holds_what_is_asked_within_the_caps(fill):
    tape = market(config=BOTH, fill=fill)
    history = replay(tape, SignalStrategy(signals=BOTH), ["signals"], FREE_SIGNED)
    weights = history.weights[:, 0, :-1]
    assert (weights.abs().sum(-1) <= 1.0 + 1e-9).all()
    assert (weights > 0).any() and (weights < 0).any()
    plan = make_plan(tape, BOTH)
    first = next(
        bar for bar in range(tape.first, tape.last) if plan.direction[bar].abs().sum() == 1
    )
    earlier = plan.direction[tape.first : first]
    if not earlier.any():
        asset = int(plan.direction[first].abs().argmax())
        expected = plan.direction[first, asset] * plan.position[first, asset]
        assert weights[first - tape.first, asset] == pytest.approx(float(expected), abs=1e-9)


def test_a_replay_is_that_of_every_row_of_an_environment():
    tape = market(config=BOTH)
    strategy = SignalStrategy(signals=BOTH)
    history = replay(tape, strategy, ["signals"], FREE_SIGNED)
    plan = strategy.study(tape, FREE_SIGNED)
    env = PortfolioEnv(tape, 3, replace(FREE_SIGNED, episode=WHOLE), backend="torch")
    seen, memory = env.reset(), strategy.begin(plan, 3)
    for _ in range(50):
        weights, memory = strategy.decide(plan, seen, memory)
        transition = env.step(weights)
        seen = transition.observation
    wealth = transition.outcome.wealth
    torch.testing.assert_close(wealth, history.wealth[50, 0].expand(3), rtol=1e-9, atol=0)


def test_between_decisions_nothing_is_traded():
    tape = market(config=QUICK, rise=torch.zeros(400, 4, dtype=torch.float64))
    column = tape.feature_names.index("forecast_rise_3")
    tape.known.features[100, 1, column] = 0.2
    history = replay(tape, SignalStrategy(signals=QUICK), ["signals"], EnvConfig())
    traded = (history.turnover[:, 0] > 0).nonzero().flatten() + tape.first
    assert traded.tolist() == [100, 103]


@pytest.mark.parametrize("config", [BOTH, QUANTILE, ADAPTIVE], ids=["atr", "quantile", "adaptive"])
def test_bars_after_t_change_no_plan_column_or_decision_up_to_t(config):
    bars = random_bars(300, 4, seed=2, holes=True)
    names = ("open", "high", "low", "close", "volume")
    later = {
        name: np.vstack([getattr(bars, name)[:200], getattr(bars, name)[200:][::-1] * 1.3])
        for name in names
    }
    rules = replace(FREE_SIGNED, costs=EnvConfig().costs)
    found = []
    for each in (bars, replace(bars, **later)):
        tape = market(each, config=config)
        if each is not bars:
            tape.known.features[200:, :, -len(column_names(config)) :] *= -1.0
        history = replay(tape, SignalStrategy(signals=config), ["signals"], rules)
        found.append((make_plan(tape, config), signal_columns(tape, config), history))
    (one, columns, history), (other, changed, otherwise) = found
    for mine, theirs in zip(one, other, strict=True):
        torch.testing.assert_close(mine[:200], theirs[:200], equal_nan=True, rtol=0, atol=0)
    assert not torch.equal(one.direction, other.direction)
    for name, values in columns.items():
        assert torch.equal(values[:200], changed[name][:200])
    steps = 199 - SHORT_FEATURES.warmup
    assert torch.equal(history.weights[:steps], otherwise.weights[:steps])
    assert not torch.equal(history.weights, otherwise.weights)


def test_assets_in_another_order_are_held_the_same():
    bars, order = random_bars(300, 4, seed=2), [2, 0, 3, 1]
    tape = market(bars, config=BOTH)
    names = column_names(BOTH)
    other = make_tape(
        bars.take(slice(None), order), TapeConfig(features=SHORT_FEATURES), dtype=torch.float64
    ).with_features(
        {name: tape.known.features[:, order, tape.feature_names.index(name)] for name in names}
    )
    one, two = (
        replay(each, SignalStrategy(signals=BOTH), ["signals"], FREE_SIGNED)
        for each in (tape, other)
    )
    weights = one.weights[..., [*order, 4]]
    torch.testing.assert_close(weights, two.weights, rtol=1e-9, atol=1e-12)


def test_the_last_bars_alone_make_the_same_plan():
    config = replace(BOTH, context_length=20)
    tape = market(config=config)
    plan = make_plan(tape, config)
    needed = config.bars_needed
    assert needed == REGIMES.bars_needed
    for bar in (needed, 200, 399):
        last = make_plan(tape.take(slice(bar - needed + 1, bar + 1)), config)
        for whole, part in zip(plan, last, strict=True):
            torch.testing.assert_close(whole[bar], part[-1], equal_nan=True, rtol=0, atol=0)


def test_columns_are_observed_by_name_and_of_order_one():
    tape = market(config=BOTH)
    columns = signal_columns(tape, BOTH)
    assert all(values.isfinite().all() for values in columns.values())
    assert all(0.1 < values.abs().max() <= 1.0 + 1e-9 for values in columns.values())
    names = observation_names(tape.with_features(columns), EnvConfig())
    assert "S0.signal_direction" in names and "S3.signal_regime_trend" in names
    rise = tape.known.features[..., tape.feature_names.index("forecast_rise_3")]  # less one half
    torch.testing.assert_close(columns["signal_confidence"], 2 * rise.abs())
    plan = make_plan(tape, BOTH)
    known = plan.regime >= 0
    volatility, trend = columns["signal_regime_volatility"], columns["signal_regime_trend"]
    number = 2 * (volatility[known] + 1) + (trend[known] > 0)
    assert torch.equal(number.long(), plan.regime[known]) and (trend[~known] == 0).all()


def test_features_of_bars_alone_are_named_where_features_are():
    names = (
        "volatility_rank_252",
        "efficiency_20",
        "regime_volatility",
        "regime_trend",
        "log_atr_14",
    )
    extra = tuple(f"fastsim.signals.columns:{name}" for name in names)
    made = make_features(sample_bars("tech4"), FeatureConfig(extra=extra))
    assert set(names) <= set(made)
    assert set(np.unique(made["regime_volatility"])) == {-1.0, 0.0, 1.0}
    assert (made["efficiency_20"] >= 0).all() and made["efficiency_20"].max() <= 1
    env = gymnasium.make(fastsim.ENV_ID, market="tech4", tape={"features": {"extra": [extra[1]]}})
    assert "IBM.efficiency_20" in env.unwrapped.observation_names


def test_the_example_holds_every_setting_as_it_is_unless_given(tmp_path):
    path = ROOT / "agents" / "signals.yaml"
    assert load_yaml(SignalConfig, path) == SignalConfig()
    save_yaml(SignalConfig(), tmp_path / "all.yaml")
    keys = [line.split(":")[0].strip() for line in path.read_text().splitlines() if ":" in line]
    written = [line.split(":")[0] for line in (tmp_path / "all.yaml").read_text().splitlines()]
    wanted = {line.strip() for line in written if not line.strip().startswith("-")}
    assert wanted <= set(keys)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("forecaster: none", "forecaster must name at least one model, got 'none'"),
        ("forecaster: nobody", "forecaster: no forecaster is called 'nobody'"),
        ("sides: up", "sides must be one of 'long', 'short', 'both', got 'up'"),
        ("hold: 0", "hold must be >= 1"),
        ("horizon: 2.5", "horizon must be a whole number, got 2.5"),
        ("threshold: {lest: 0.6}", "threshold has no key 'lest'.*did you mean 'least'"),
        ("sizing: {by_regime: [1, 2]}", r"sizing.by_regime must be 6 numbers"),
        ("levels: {kind: percent}", "levels.kind must be one of"),
    ],
)
def test_wrong_settings_are_refused_by_their_keys(text, words, tmp_path):
    path = tmp_path / "strategy.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        load_yaml(SignalConfig, path)


def test_markets_and_rules_that_do_not_fit_are_refused():
    tape, strategy = market(config=BOTH), SignalStrategy(signals=BOTH)
    with pytest.raises(ConfigError, match=r'answers in signed, and EnvConfig.action = "weights"'):
        replay(tape, strategy, ["signals"])
    wide = replace(BOTH, sizing=SizingConfig(gross=2.0))
    with pytest.raises(ConfigError, match=r"gross = 2.0 is more than EnvConfig.max_gross = 1.0"):
        replay(tape, SignalStrategy(signals=wide), ["signals"], FREE_SIGNED)
    with pytest.raises(ConfigError, match=r"need the feature 'forecast_rise_4'.*with_forecasts"):
        make_plan(tape, replace(BOTH, horizon=4))
    rules = replace(FREE_SIGNED, randomize=RandomizeConfig(volatility=(0.5, 2.0)))
    with pytest.raises(ConfigError, match=r"leave randomize.assets and randomize.volatility out"):
        strategy.study(tape, rules)


def test_what_never_trades_says_so(caplog):
    config = replace(QUICK, threshold=ThresholdConfig(least=0.95))
    tape = market(config=config)
    with caplog.at_level(logging.INFO):
        SignalStrategy(signals=config).study(tape, EnvConfig())
        SignalStrategy(signals=QUICK).study(tape, EnvConfig())
    never, often = (record.getMessage() for record in caplog.records)
    assert "never trade" in never and "highest confidence is 0.8" in never
    assert "signals trade on" in often


def test_risk_as_planned_is_below_the_budget_and_gaps_lose_more():
    bars = sample_bars("tech4")
    always = torch.full(bars.close.shape, 0.2, dtype=torch.float64)
    config = replace(QUICK, sizing=SizingConfig(cap=0.5))
    found = report_risk(market(bars, config=config, rise=always), config)
    assert found.positions > 2000  # four assets, entered at least every third bar
    assert 0.005 < found.planned_mean < found.planned_most <= 0.02 + 1e-12
    assert found.realised_most > 1.2 * found.planned_most and 0 < found.beyond < 0.1


def test_what_is_entered_is_what_a_replay_is_seen_to_enter():
    tape = market(config=BOTH, fill="close")
    history = replay(tape, SignalStrategy(signals=BOTH), ["signals"], FREE_SIGNED)
    held = history.weights[:, 0, :-1]
    found = find_entries(tape, BOTH)
    sides = found.direction[tape.first : tape.last]
    assert 0 < (sides != 0).double().mean() < 0.5
    assert torch.equal(held.sign()[sides != 0], sides[sides != 0])
    opened = (held != 0) & (
        held.sign() != torch.cat([torch.zeros_like(held[:1]), held[:-1]]).sign()
    )
    assert opened.any() and (sides[opened] != 0).all()
    plan = make_plan(tape, BOTH)
    assert ((found.direction == 0) | (found.direction == plan.direction)).all()
    gross = found.weights.abs()
    assert (gross <= plan.position + 1e-12).all() and (gross.sum(-1) <= 1 + 1e-6).all()


def test_orders_that_are_carried_and_whole_shares_are_played_too():
    tape = market(config=QUICK)
    rules = EnvConfig(orders=OrderConfig(unfilled="carry", whole_shares=True))
    history = replay(tape, SignalStrategy(signals=QUICK), ["signals"], rules)
    assert history.wealth.isfinite().all() and (history.turnover > 0).any()


def test_quantiles_are_tabulated_beside_the_figures(tmp_path):
    tape = make_tape(sample_bars("tech4").take(slice(0, 300)))
    forecaster = load_forecaster("fastsim-prior")
    settings = {"horizons": (1, 5), "context_length": 64, "progress": SILENT}
    plain = build_forecast_tape(tape, forecaster, tmp_path, **settings)
    table = build_forecast_tape(tape, forecaster, tmp_path, levels=(0.1, 0.5, 0.9), **settings)
    for name in plain.names:
        torch.testing.assert_close(
            plain.figure(name), table.figure(name), equal_nan=True, rtol=1e-5, atol=1e-7
        )
    low, middle, high = (table.figure(f"forecast_quantile_{level}_5") for level in (10, 50, 90))
    known = low.isfinite()
    assert known.any() and (low <= middle)[known].all() and (middle <= high)[known].all()
    width = (high - low) / (2 * 1.2815515655446004)
    torch.testing.assert_close(width[known], table.figure("forecast_dispersion_5")[known])
    features = table.features(tape)
    unit = tape.known.sigma.clamp_min(1e-6) * 5**0.5
    torch.testing.assert_close(
        features["scaled_forecast_quantile_10_5"], (low / unit).nan_to_num(nan=0.0)
    )


def small():
    return make_tape(sample_bars("tech4").take(slice(0, 700)), dtype=torch.float64)


def test_forecasts_that_are_needed_are_added_once(tmp_path):
    config = SignalConfig(
        context_length=64, levels=LevelConfig(kind="quantile"), threshold=ThresholdConfig()
    )
    tape = with_forecasts(small(), config, tmp_path, progress=SILENT)
    assert set(column_names(config)) <= set(tape.feature_names)
    assert with_forecasts(tape, config, tmp_path, progress=SILENT) is tape
    history = replay(tape, SignalStrategy(signals=config), ["signals"])
    assert (history.turnover > 0).any()


@pytest.mark.long
def test_on_tech4_a_stop_at_a_quantile_is_touched_twice_as_often_as_it_says(tmp_path):
    tape = make_tape(sample_bars("tech4"), dtype=torch.float64)
    table = build_forecast_tape(
        tape,
        load_forecaster("fastsim-prior"),
        tmp_path,
        horizons=(5,),
        levels=(0.1,),
        progress=SILENT,
    )
    prices = prices_of(tape)
    stop = prices.close * table.figure("forecast_quantile_10_5").double().exp()
    known = stop[:-5].isfinite()
    away = (prices.close - stop) / average_true_range(prices)
    assert away[:-5][known].median().item() == pytest.approx(1.97, abs=0.05)
    below = (prices.close[5:] < stop[:-5])[known].double().mean().item()
    lows = torch.stack([prices.low[bar : len(stop) - 5 + bar] for bar in range(1, 6)]).amin(0)
    touched = (lows <= stop[:-5])[known].double().mean().item()
    assert below == pytest.approx(0.098, abs=0.01)
    assert touched == pytest.approx(0.207, abs=0.015)
