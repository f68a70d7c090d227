"""Books of the assets that are forecast best, in the environment's books beside equal weight."""

import numpy as np
import pytest
import torch
from worlds import random_bars

from fastsim.backtest.benchmarks import replay_benchmarks
from fastsim.env.config import EnvConfig
from fastsim.errors import ConfigError
from fastsim.experiment.book import play_books, top_weights
from fastsim.market.costs import CostConfig
from fastsim.market.tape import TapeConfig, make_tape

FREE = EnvConfig(costs=CostConfig(fee_bps=0.0, half_spread_bps=0.0, impact=0.0, participation=1e9))
NAN = torch.nan


def tape_of(seed=0, assets=6, bars=500, fill="close"):
    bars = random_bars(bars, assets, seed, volume=False)
    return make_tape(bars, TapeConfig(fill=fill), dtype=torch.float64)


def test_the_highest_are_held_and_who_tie_for_the_last_place_share_it():
    scores = torch.tensor(
        [
            [3.0, 1.0, 2.0, 0.0],
            [1.0, 1.0, 1.0, 1.0],
            [3.0, 1.0, 1.0, 1.0],
            [NAN, 5.0, NAN, 4.0],
            [NAN, NAN, 1.0, NAN],
            [NAN, NAN, NAN, NAN],
        ]
    )
    wanted = torch.tensor(
        [
            [0.5, 0.0, 0.5, 0.0],
            [0.25, 0.25, 0.25, 0.25],
            [0.5, 1 / 6, 1 / 6, 1 / 6],
            [0.0, 0.5, 0.0, 0.5],
            [0.0, 0.0, 1.0, 0.0],
            [0.0, 0.0, 0.0, 0.0],
        ]
    ).double()
    torch.testing.assert_close(top_weights(scores, 2), wanted)
    assert torch.equal(top_weights(scores[:, [3, 2, 1, 0]], 2), top_weights(scores, 2).flip(1))


def test_one_asset_at_a_time_without_costs_earns_what_its_prices_did():
    tape = tape_of()
    rows = np.arange(200, 440, 20)
    scores = torch.from_numpy(np.random.default_rng(1).normal(size=(len(rows), 6)))
    books = play_books(tape, {"mine": scores}, rows, 20, 1, FREE)
    closes = tape.known.bars[..., 3]
    best = scores.argmax(1)
    growth = [
        closes[row + 20, asset] / closes[row, asset] for row, asset in zip(rows, best, strict=True)
    ]
    wealth = books.history.wealth[:, books.history.column("mine")]
    assert len(wealth) == 241
    assert float(wealth[-1] / wealth[0]) == pytest.approx(
        float(torch.stack(growth).prod()), rel=1e-9
    )


def test_a_book_of_all_assets_is_equal_weight_at_its_bars():
    tape = tape_of(fill="next_open")
    rows = np.arange(200, 440, 20)
    everywhere = torch.zeros(len(rows), 6)
    books = play_books(tape, {"flat": everywhere, "all": -everywhere}, rows, 20, 3)
    history = books.history
    beside = history.wealth[:, history.column(books.beside)]
    for name in ("flat", "all"):
        torch.testing.assert_close(history.wealth[:, history.column(name)], beside)
        assert books.differences[name].growth.estimate == pytest.approx(0.0, abs=1e-12)
    assert history.names == (
        "flat",
        "all",
        "equal weight, every 20 bars",
        "equal weight",
        "buy and hold",
    )
    usual = replay_benchmarks(tape.between(slice(200, 441)), alone=False)
    torch.testing.assert_close(history.wealth[:, -2:], usual.wealth)


def test_costs_are_the_environments_and_are_paid_where_the_book_trades():
    tape = tape_of()
    rows = np.arange(200, 440, 20)
    scores = torch.from_numpy(np.random.default_rng(1).normal(size=(len(rows), 6)))
    dear = EnvConfig(costs=CostConfig(fee_bps=50.0, half_spread_bps=0.0, impact=0.0))
    free, paid = (play_books(tape, {"mine": scores}, rows, 20, 2, each) for each in (FREE, dear))
    turnover = paid.history.turnover[:, 0]
    traded = turnover.nonzero().squeeze(1).tolist()
    assert traded == list(range(0, 240, 20))
    lost = 1.0 - paid.history.wealth[-1, 0] / free.history.wealth[-1, 0]
    assert float(lost) == pytest.approx(0.005 * float(turnover.sum()), rel=0.1)


def test_a_book_that_knows_what_comes_is_above_equal_weight_and_noise_is_not():
    tape = tape_of(bars=900)
    rows = np.arange(200, 880, 10)
    closes = tape.known.bars[..., 3].log()
    later = closes[rows + 10] - closes[rows]
    noise = torch.from_numpy(np.random.default_rng(3).normal(size=tuple(later.shape)))
    books = play_books(tape, {"knows": later, "noise": noise}, rows, 10, 2)
    knows, luck = books.differences["knows"], books.differences["noise"]
    assert knows.sharpe.low > 0 and knows.growth.low > 0 and knows.p_value < 1e-6
    assert luck.sharpe.contains_zero and luck.growth.contains_zero


def test_more_assets_than_there_are_cannot_be_held():
    tape, rows = tape_of(), np.arange(200, 440, 20)
    with pytest.raises(ConfigError, match="top must be 1 to 6, as many as there are assets, got 7"):
        play_books(tape, {"mine": torch.zeros(len(rows), 6)}, rows, 20, 7)
