"""What cannot be replayed, judged or written is refused in one line, and leaves nothing behind."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from worlds import SHORT_FEATURES, random_bars

from fastsim.backtest.benchmarks import replay_benchmarks
from fastsim.backtest.files import save_history
from fastsim.backtest.history import join
from fastsim.backtest.replay import Schedule, replay, replay_schedule
from fastsim.backtest.report import write_report
from fastsim.backtest.strategies import BuyAndHold, ConstantRebalanced, play_strategies
from fastsim.backtest.summary import monthly_returns, summarize
from fastsim.env.config import EnvConfig
from fastsim.errors import FastsimError
from fastsim.market.tape import TapeConfig, make_tape
from fastsim.stats.bootstrap import sharpe_difference

TAPE = make_tape(random_bars(40, 3), TapeConfig(features=SHORT_FEATURES))
STEPS = TAPE.last - TAPE.first
HISTORY = replay_benchmarks(TAPE)
WHOLE = replay_benchmarks(TAPE, alone=False)
FLAT = torch.full((STEPS, 2, 3), 0.2)


def spoilt(figure, value):
    """The same tensor with one number replaced."""
    figure = figure.clone()
    figure.flatten()[-1] = value
    return figure


BROKEN = {
    "no step": (
        lambda: HISTORY._replace(timestamps=HISTORY.timestamps[:1], wealth=HISTORY.wealth[:1]),
        "two closes",
        "replay a longer span",
    ),
    "nobody": (lambda: HISTORY._replace(names=()), "0 strategies", "at least one strategy"),
    "two of one name": (
        lambda: HISTORY._replace(names=("A", "A", "B", "C", "D")),
        "'A' twice",
        "rename one",
    ),
    "too few names": (
        lambda: HISTORY._replace(names=HISTORY.names[:-1]),
        "of a history of 4 strategies",
        "must have shape",
    ),
    "short wealth": (
        lambda: HISTORY._replace(wealth=HISTORY.wealth[1:]),
        "wealth of a history",
        f"({STEPS + 1}, 5), got ({STEPS}, 5)",
    ),
    "narrow weights": (
        lambda: HISTORY._replace(weights=HISTORY.weights[..., 1:]),
        "weights of a history",
        f"({STEPS}, 2, 4)",
    ),
    "weights of all and alone": (
        lambda: HISTORY._replace(weights=torch.zeros(STEPS, 5, 4)),
        "weights of a history",
        f"({STEPS}, 2, 4)",
    ),
    "short turnover": (
        lambda: HISTORY._replace(turnover=HISTORY.turnover[1:]),
        "turnover of a history",
        f"({STEPS}, 5)",
    ),
    "a cost of one strategy": (
        lambda: HISTORY._replace(costs={"duty": HISTORY.turnover[:, :1]}),
        "duty of a history",
        f"({STEPS}, 5), got ({STEPS}, 1)",
    ),
    "wealth that is NaN": (
        lambda: HISTORY._replace(wealth=spoilt(HISTORY.wealth, torch.nan)),
        f"wealth of a history must be finite numbers, got nan at [{STEPS}, 4]",
        "mend what it was recorded from",
    ),
    "infinite weights": (
        lambda: HISTORY._replace(weights=spoilt(HISTORY.weights, torch.inf)),
        "weights of a history must be finite numbers, got inf",
        "mend what it was recorded from",
    ),
    "a cost that is NaN": (
        lambda: HISTORY._replace(costs={"duty": spoilt(HISTORY.turnover, torch.nan)}),
        "duty of a history must be finite numbers, got nan",
        "mend what it was recorded from",
    ),
    "nothing to begin with": (
        lambda: HISTORY._replace(wealth=HISTORY.wealth - HISTORY.wealth[0]),
        "must begin above zero, got 0.0",
        "'equal weight'",
    ),
    "alone of no asset": (
        lambda: HISTORY._replace(alone=HISTORY.alone._replace(weights=torch.zeros(1, 1))),
        "alone.weights of a history",
        f"({STEPS}, 3)",
    ),
}


def says(error, *parts):
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_record_is_neither_judged_nor_written(case, tmp_path):
    make, *parts = BROKEN[case]
    history = make()
    with pytest.raises(FastsimError) as error:
        summarize(history)
    says(error, *parts)
    with pytest.raises(FastsimError) as error:
        save_history(history, tmp_path)
    says(error, *parts)
    options = {"focus": "equal weight", "benchmark": "buy and hold", "title": "", "subtitle": ""}
    with pytest.raises(FastsimError) as error:
        write_report(history, tmp_path / "report.html", **options)
    says(error, *parts)
    assert list(tmp_path.iterdir()) == []


def test_timestamps_that_turn_back_are_named(tmp_path):
    stamps = HISTORY.timestamps.copy()
    stamps[[3, 4]] = stamps[[4, 3]]
    with pytest.raises(FastsimError) as error:
        write_report(
            HISTORY._replace(timestamps=stamps),
            tmp_path / "r.html",
            title="",
            subtitle="",
            focus="equal weight",
            benchmark="buy and hold",
        )
    says(error, "timestamps must increase", str(stamps[3]))
    assert list(tmp_path.iterdir()) == []


REPLAYS = {
    "no names": (lambda: replay(TAPE, BuyAndHold(), []), "sequence of names", "[]"),
    "a name for names": (lambda: replay(TAPE, BuyAndHold(), "it"), "sequence of names", "'it'"),
    "numbers for names": (lambda: replay(TAPE, BuyAndHold(), [1]), "sequence of names", "[1]"),
    "two of a name": (
        lambda: replay(TAPE, BuyAndHold(), ["it", "it"]),
        "'it' twice",
        "rename one of them",
    ),
    "more names than deciders": (
        lambda: replay(TAPE, [BuyAndHold()], ["a", "b"]),
        "each of 2 names",
        "got 1",
    ),
    "no decider": (lambda: replay(TAPE, [object()], ["a"]), "got object", "Decider"),
    "a function": (lambda: replay(TAPE, replay, ["a"]), "got function", "Decider"),
    "rules as a mapping": (
        lambda: replay(TAPE, BuyAndHold(), ["a"], {"action": "weights"}),
        "must be an EnvConfig",
        "got dict",
    ),
    "alone of an asset that is not": (
        lambda: replay(TAPE, BuyAndHold(), ["a"], alone=[3]),
        "assets from 0 to 2",
        "got [3]",
    ),
    "more alone than there are": (
        lambda: replay(TAPE, BuyAndHold(), ["a"], alone=[0, 1]),
        "each of 1 strategies",
        "got [0, 1]",
    ),
    "a schedule too short": (
        lambda: replay_schedule(TAPE, FLAT[1:], ["a", "b"]),
        f"({STEPS}, 2, 3)",
        f"got ({STEPS - 1}, 2, 3)",
    ),
    "a schedule of other assets": (
        lambda: replay_schedule(TAPE, FLAT[..., :2], ["a", "b"]),
        f"({STEPS}, 2, 3)",
        f"got ({STEPS}, 2, 2)",
    ),
    "a schedule of fewer strategies": (
        lambda: replay_schedule(TAPE, FLAT, ["a"]),
        f"({STEPS}, 1, 3)",
        f"got ({STEPS}, 2, 3)",
    ),
    "an array for a schedule": (
        lambda: replay(TAPE, Schedule(weights=FLAT.numpy()), ["a", "b"]),
        "must be a tensor",
        "ndarray",
    ),
    "a schedule of logits": (
        lambda: replay_schedule(TAPE, FLAT, ["a", "b"], EnvConfig(action="logits")),
        "a schedule holds weights",
        'action="weights"',
    ),
    "nothing to join": (join, "nothing to join", "at least one history"),
    "alone before others": (
        lambda: join(HISTORY, WHOLE._replace(names=("a", "b"))),
        "must come last",
        "'S2'",
    ),
    "joined over other bars": (
        lambda: join(WHOLE, replay_benchmarks(TAPE.between(slice(20, 40)), alone=False)),
        "of the same bars and assets",
        "replay both on one tape",
    ),
    "joined over other assets": (
        lambda: join(WHOLE, WHOLE._replace(symbols=("X", "Y", "Z"))),
        "of the same bars and assets",
        "replay both on one tape",
    ),
    "no strategies": (lambda: play_strategies(TAPE, []), "at least one strategy", "got none"),
    "a strategy for strategies": (
        lambda: play_strategies(TAPE, BuyAndHold()),
        "sequence of at least one strategy",
        "BuyAndHold",
    ),
    "who is no strategy": (
        lambda: play_strategies(TAPE, [Schedule(weights=FLAT)]),
        "must be a Strategy",
        "use `replay`",
    ),
    "strategies of one name": (
        lambda: play_strategies(TAPE, [BuyAndHold(), BuyAndHold()]),
        "'buy and hold' twice",
        "rename one of them",
    ),
    "weights below zero": (
        lambda: BuyAndHold(weights=torch.tensor([0.5, -0.1, 0.2])),
        "BuyAndHold.weights must be >= 0",
        "got [0.5",
    ),
    "weights beyond wealth": (
        lambda: ConstantRebalanced(weights=torch.tensor([0.5, 0.6, 0.2])),
        "sum to at most 1",
        "got [0.5",
    ),
    "weights that are NaN": (
        lambda: BuyAndHold(weights=torch.tensor([0.5, torch.nan, 0.2])),
        "BuyAndHold.weights must be >= 0",
        "nan",
    ),
    "weights as a list": (
        lambda: BuyAndHold(weights=[0.5, 0.5]),
        "BuyAndHold.weights must be a tensor [A]",
        "one weight per asset",
    ),
    "weights of other assets": (
        lambda: play_strategies(TAPE, [BuyAndHold(weights=torch.tensor([0.5, 0.5]))]),
        "BuyAndHold.weights must be one per asset, 3",
        "got 2",
    ),
    "a year of nothing": (
        lambda: summarize(HISTORY, periods_per_year=0.0),
        "periods_per_year must be > 0",
        "got 0.0",
    ),
    "a year that is NaN": (
        lambda: summarize(HISTORY, periods_per_year=float("nan")),
        "periods_per_year must be > 0",
        "got nan",
    ),
    "a rate that is infinite": (
        lambda: summarize(HISTORY, risk_free=float("inf")),
        "risk_free is a simple return",
        "got inf",
    ),
    "months of nobody": (
        lambda: monthly_returns(HISTORY, "agent"),
        "focus must be one of the strategies",
        "got 'agent'",
    ),
    "half a resample": (
        lambda: sharpe_difference(torch.ones(5), torch.ones(5), resamples=2.5),
        "resamples must be a whole number",
        "got 2.5",
    ),
    "a difference over no year": (
        lambda: sharpe_difference(torch.ones(5), torch.ones(5), periods_per_year=-1.0),
        "periods_per_year must be > 0",
        "got -1.0",
    ),
}


@pytest.mark.parametrize("case", REPLAYS)
def test_what_makes_no_sense_is_named_in_one_line(case):
    attempt, *parts = REPLAYS[case]
    with pytest.raises(FastsimError) as error:
        attempt()
    says(error, *parts)


def test_a_report_that_is_a_folder_and_files_in_a_file_are_refused(tmp_path):
    options = {"focus": "equal weight", "benchmark": "buy and hold", "title": "", "subtitle": ""}
    with pytest.raises(FastsimError) as error:
        write_report(HISTORY, tmp_path, **options)
    says(error, f"{tmp_path} is a folder", "add a name")
    (tmp_path / "file").write_text("")
    with pytest.raises(FastsimError) as error:
        save_history(HISTORY, tmp_path / "file")
    says(error, "file is a file", "name another")


def test_a_strategy_says_which_asset_lists_too_late_for_it():
    tape = make_tape(random_bars(80, 3, holes=True), TapeConfig(features=SHORT_FEATURES))
    with pytest.raises(FastsimError) as error:
        play_strategies(tape, [BuyAndHold()])
    says(error, "S1 has no close up to", "start later")


def test_the_shortest_replay_is_of_one_step():
    tape = replace(TAPE, last=TAPE.first + 1)
    history = replay_benchmarks(tape)
    assert history.wealth.shape == (2, 5)
    assert np.isfinite(summarize(history).total_return.numpy()).all()
    with pytest.raises(FastsimError) as error:
        TAPE.between(slice(10, 11))
    says(error, "leave no step", "use a longer span")
