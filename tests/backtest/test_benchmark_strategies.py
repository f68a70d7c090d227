"""Benchmarks by one definition, and what rules kept strategies from trading, told by number."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from worlds import FREE, SHORT_FEATURES, random_bars

from fastsim.backtest.benchmarks import BENCHMARKS, Benchmarks, benchmark_names, replay_benchmarks
from fastsim.backtest.files import save_history
from fastsim.backtest.history import join
from fastsim.backtest.refused import HALTED, MARGIN, PARTICIPATION, SHORTS, refusals_in_words
from fastsim.backtest.replay import replay, replay_schedule
from fastsim.env.config import EnvConfig
from fastsim.env.orders import OrderConfig
from fastsim.errors import ConfigError
from fastsim.market.costs import CostConfig
from fastsim.market.tape import TapeConfig, make_tape

FREE_RULES = EnvConfig(costs=FREE)


def market(bars, **settings):
    return make_tape(bars, TapeConfig(features=SHORT_FEATURES, **settings), dtype=torch.float64)


def late_listings(length=80, assets=5):
    """Closes alone; assets list one after the other, the last of them never."""
    bars = random_bars(length, assets, seed=3, opens=False, volume=False)
    close = bars.close.copy()
    for asset in range(1, assets):
        close[: 20 * asset, asset] = np.nan
    return replace(bars, close=close, high=None, low=None)


def test_equal_weight_earns_what_rewards_take_for_the_market_where_assets_list_late():
    tape = market(late_listings())
    history = replay_benchmarks(tape, FREE_RULES, alone=False)
    market_return = tape.next["market_return"][tape.first : tape.last]
    expected = 1e6 * (1.0 + market_return).cumprod(0)
    np.testing.assert_allclose(history.wealth[1:, 0], expected, rtol=1e-9)
    by_symbols = 1e6 * (1.0 + history.simple_returns[:, 1]).cumprod(0)
    assert abs(by_symbols[-1] / expected[-1] - 1) > 1e-3  # buy and hold is another thing


def test_equal_weight_is_one_nth_of_what_is_listed_by_hand():
    history = replay_benchmarks(market(late_listings()), FREE_RULES, alone=False)
    first = SHORT_FEATURES.warmup
    for step, listed in ((0, 1), (25 - first, 2), (45 - first, 3), (65 - first, 4)):
        wanted = [1.0 / listed] * listed + [0.0] * (5 - listed) + [0.0]
        np.testing.assert_allclose(history.weights[step, 0], wanted, atol=1e-12)


@pytest.mark.parametrize("opens", [True, False])
def test_equal_weight_neither_borrows_nor_idles_where_an_asset_is_halted(opens):
    bars = random_bars(120, 4, seed=1, opens=opens, holes=True)
    history = replay_benchmarks(market(bars), FREE_RULES, alone=False)
    halted = torch.from_numpy(np.isnan(bars.close[SHORT_FEATURES.warmup : -1, 2]))
    assert halted.any()
    assert history.weights[halted, 0, -1].abs().max() < 0.02
    assert history.weights[halted, 0, -1].min() > -0.02


def test_benchmarks_know_nothing_of_the_future():
    bars = random_bars(80, 4, seed=5, holes=True)
    later = {
        name: np.vstack([getattr(bars, name)[:50], getattr(bars, name)[50:][::-1]])
        for name in ("open", "high", "low", "close", "volume")
    }
    steps = 50 - SHORT_FEATURES.warmup - 1
    one, other = (replay_benchmarks(market(each)) for each in (bars, replace(bars, **later)))
    assert torch.equal(one.weights[:steps], other.weights[:steps])
    assert torch.equal(one.alone.weights[:steps], other.alone.weights[:steps])
    assert not torch.equal(one.wealth[steps + 3 :], other.wealth[steps + 3 :])


def test_what_lists_late_is_bought_once_it_trades_with_money_kept_for_it():
    bars = random_bars(120, 3, seed=2, holes=True).take(slice(0, 120), [0, 1])
    tape = market(bars)
    history = replay_benchmarks(tape)
    listing = 30 - tape.first
    held, alone = history.held(1), history.held(3)
    assert history.names == ("equal weight", "buy and hold", "S0", "S1")
    assert (held[: listing - 1, -1] > 0.4).all() and (alone[:listing, -1] == 1.0).all()
    assert held[listing + 1 :, -1].max() < 0.02 and alone[listing + 1 :, -1].max() < 2e-3
    assert (alone.sum(-1) == 1.0).all() and (alone[listing + 1 :, 1] > 0.998).all()


def test_a_large_account_goes_on_buying_what_participation_cut():
    tape = market(random_bars(200, 3, seed=4))
    rules = EnvConfig(initial_cash=3e7, costs=CostConfig(participation=0.05, impact=0.0))
    history = replay_benchmarks(tape, rules)
    for column in range(1, 5):
        cash = history.held(column)[:, -1]
        assert cash[0] > 0.9
        assert (cash[1:] <= cash[:-1] + 0.02).all() and cash[-1] < 0.1
        assert history.turnover[-20:, column].sum() < 0.2  # then it holds


def test_refused_orders_are_measured_in_wealth_by_hand():
    tape = market(random_bars(60, 2, seed=4))
    rules = EnvConfig(initial_cash=1e9, costs=CostConfig(participation=0.01, impact=0.0))
    history = replay_benchmarks(tape, rules, alone=False)
    limit = 0.01 * tape.next["dollars"][tape.first]
    assert (limit < 4e8).all()
    wealth = 1e9 - history.cost[0, 0]
    expected = ((0.5 * wealth - limit).sum() / wealth).item()
    assert history.refused[PARTICIPATION][0].tolist() == pytest.approx([expected] * 2, rel=1e-9)
    assert not history.refused[HALTED].any()
    (sentence,) = refusals_in_words(history)
    often = (history.refused[PARTICIPATION] > 1e-3).double().mean(0)
    assert f"of equal weight in {often[0]:.0%} of steps" in sentence
    assert f"buy and hold in {often[1]:.0%} of steps" in sentence
    assert "too large for this market's volume" in sentence and "--env.initial-cash" in sentence


def test_a_small_account_on_a_deep_market_is_told_nothing():
    history = replay_benchmarks(market(random_bars(60, 2, seed=4)), EnvConfig(initial_cash=1e4))
    assert refusals_in_words(history) == ()
    assert set(history.refused) == {HALTED, PARTICIPATION}


def test_a_market_without_volume_has_no_participation_to_speak_of():
    history = replay_benchmarks(market(random_bars(60, 2, volume=False)))
    assert set(history.refused) == {HALTED}


def test_a_ban_on_shorts_is_told_with_the_share_of_wealth_it_refused():
    tape = market(random_bars(60, 2), hard_to_borrow=("S1",))
    schedule = torch.tensor([[-0.4, -0.3]]).double().repeat(tape.last - tape.first, 1, 1)
    rules = EnvConfig(action="signed", max_gross=2.0, initial_cash=1e4)
    history = replay_schedule(tape, schedule, ["bear"], rules)
    assert history.refused[SHORTS][:, 0].tolist() == pytest.approx([0.3] * len(schedule), rel=1e-6)
    (sentence,) = refusals_in_words(history)
    assert "Bans on shorts refused sales of bear in 100% of steps, by 30% of wealth" in sentence


def test_margin_calls_and_ruin_are_told():
    bars = random_bars(60, 1, seed=8)
    jump = np.where(np.arange(60) < 40, 1.0, 3.0)[:, None]
    fields = {name: getattr(bars, name) * jump for name in ("open", "high", "low", "close")}
    tape = market(replace(bars, **fields))
    schedule = torch.full((tape.last - tape.first, 1, 1), -2.0).double()
    orders = OrderConfig(maintenance_margin=0.49)
    rules = EnvConfig(action="signed", max_gross=2.0, orders=orders, initial_cash=1e4)
    history = replay_schedule(tape, schedule, ["bear"], rules)
    assert (history.refused[MARGIN] > 0).any()
    called, ruined = refusals_in_words(history)
    assert "Margin calls cut positions of bear" in called
    assert ruined.startswith("bear was ruined on ") and str(bars.timestamps[40])[:10] in ruined


def test_whole_shares_that_a_small_account_cannot_buy_are_told():
    tape = market(random_bars(60, 2))  # prices near 50
    rules = EnvConfig(initial_cash=120.0, orders=OrderConfig(whole_shares=True))
    sentences = refusals_in_words(replay_benchmarks(tape, rules))
    assert any("account is too small" in sentence for sentence in sentences)


def test_who_is_called_like_a_benchmark_is_told_apart():
    symbols = ("agent", "equal weight", "cash", "agent alone")
    names = benchmark_names(symbols, ("agent",))
    assert len(set(names) | {"agent"}) == 7
    assert names[:2] == BENCHMARKS and names[-2:] == ("cash", "agent alone")
    assert names[2].startswith("agent alone") and names[3] == "equal weight alone"


def test_files_hold_the_weights_of_an_asset_alone_in_it_and_in_cash(tmp_path):
    bars = replace(random_bars(40, 3), symbols=("cash", "B", "equal weight"))
    history = replay_benchmarks(market(bars), EnvConfig(initial_cash=1e4))
    save_history(history, tmp_path)
    weights = pl.read_parquet(tmp_path / "weights.parquet")
    steps = len(history.weights)
    assert len(weights) == steps * (2 * 4 + 3 * 2)
    assert set(weights["asset"].unique()) == {"cash", "B", "equal weight", "cash (money)"}
    for name, column in zip(history.names, range(5), strict=True):
        for asset, place in (("cash", 0), ("B", 1), ("equal weight", 2), ("cash (money)", 3)):
            rows = weights.filter(strategy=name, asset=asset).sort("date")
            if len(rows):
                assert rows["weight"].to_list() == history.held(column)[:, place].tolist()
            else:
                assert not history.held(column)[:, place].any()


def test_benchmarks_beside_an_agent_keep_their_own_records():
    tape = market(random_bars(40, 3))
    one, other = replay_benchmarks(tape, alone=False), replay_benchmarks(tape)
    joined = join(one._replace(names=("a", "b"), refused={"new": one.turnover}), other)
    assert joined.names == ("a", "b", *other.names)
    assert torch.equal(joined.held(6), other.held(4))
    assert torch.equal(joined.refused["new"][:, :2], one.turnover)
    assert not joined.refused["new"][:, 2:].any() and not joined.refused[HALTED][:, :2].any()
    assert joined.singles == (4, 5, 6)


@pytest.mark.parametrize("rows", [1, 3, 6])
def test_benchmarks_say_how_many_rows_they_take(rows):
    tape = market(random_bars(40, 3))
    with pytest.raises(ConfigError, match=rf"2 rows, or 5 with each asset alone, got {rows}"):
        replay(tape, Benchmarks(), [f"{row}" for row in range(rows)])


MEMORY = """
import re, sys, tempfile
from pathlib import Path
sys.path.insert(0, {tests!r})
from worlds import SHORT_FEATURES, random_bars
from fastsim.backtest.benchmarks import replay_benchmarks
from fastsim.backtest.files import save_history
from fastsim.backtest.report import write_report
from fastsim.market.tape import TapeConfig, make_tape

tape = make_tape(random_bars(406, 500), TapeConfig(features=SHORT_FEATURES))
history = replay_benchmarks(tape)
assert history.wealth.shape == (401, 502)
folder = Path(tempfile.mkdtemp())
save_history(history, folder)
write_report(
    history, folder / "report.html", title="t", subtitle="s",
    focus="equal weight", benchmark="buy and hold",
)
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024)
print((folder / "report.html").stat().st_size / 1e6)
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak where Linux tells it")
def test_a_report_of_500_assets_over_400_steps_stays_below_800_mb_and_its_page_below_1_5(request):
    code = MEMORY.format(tests=str(request.config.rootpath / "tests"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    peak, page = map(float, done.stdout.split())
    assert peak < 800
    assert page < 1.5
