"""Who computes says how far it is; who listens decides what is seen."""

import io
from contextlib import contextmanager

import pytest
from rich.console import Console
from worlds import random_bars

from fastsim.cli import main
from fastsim.forecast.models.baselines import trailing_random_walk
from fastsim.forecast.tape import build_forecast_tape
from fastsim.market.tape import make_tape
from fastsim.progress import ON_STDERR, SILENT, Progress, ProgressBars, Whole, whole


class Listener:
    """Writes down all that it is told."""

    def __init__(self) -> None:
        self.told = []

    @contextmanager
    def task(self, name, total, *, unit, done=0):
        self.told.append((name, total, unit, done))
        yield self
        self.told.append("end")

    def advance(self, count=1, /, **figures):
        self.told.append((count, *figures))

    def say(self, line):
        self.told.append(line)


def bars_on(terminal: bool, stay: bool) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    progress = ProgressBars(console, stay=stay)
    with progress.task("count[ing]", 4, unit="sheep", done=1) as task:
        task.advance(1, rate="7 sheep/s")
        task.advance(2, mood="sleepy")
    progress.say("out came [4]")
    return console.file.getvalue()


def test_a_bar_tells_its_name_how_far_it_is_and_the_latest_figures():
    told = bars_on(terminal=False, stay=True)
    for words in ("count[ing]", "4/4 sheep", "7 sheep/s sleepy", "out came [4]"):
        assert words in told


def test_a_bar_that_does_not_stay_is_seen_on_a_terminal_alone():
    assert bars_on(terminal=False, stay=False) == "out came [4]\n"
    assert "4/4 sheep" in bars_on(terminal=True, stay=False)


def test_silence_is_silent(capsys):
    with SILENT.task("counting", 2, unit="sheep") as task:
        task.advance(rate="fast")
    SILENT.say("nothing")
    assert capsys.readouterr() == ("", "")


def test_what_no_console_is_given_for_goes_to_standard_error(capsys):
    ON_STDERR.say("heard")
    assert capsys.readouterr() == ("", "heard\n")


def test_a_table_of_forecasts_tells_whoever_listens_of_what_is_left_to_do(tmp_path):
    tape = make_tape(random_bars(600, 2))
    walk = trailing_random_walk(60)

    def build() -> Listener:
        listener: Progress = Listener()
        build_forecast_tape(tape, walk, tmp_path, horizons=(1,), progress=listener)
        return listener

    assert build().told == [
        ("forecasting", 600, "bars", 0),
        *((count, "rate") for count in (256, 256, 88)),
        "end",
    ]
    assert build().told == []
    next(tmp_path.rglob("00000256.safetensors")).unlink()
    assert build().told == [("forecasting", 600, "bars", 400), (256, "rate"), "end"]


def test_an_error_ends_the_task_of_a_bar():
    console = Console(file=io.StringIO(), width=100)
    with pytest.raises(KeyError), ProgressBars(console).task("counting", 2, unit="sheep"):
        raise KeyError
    assert "0/2 sheep" in console.file.getvalue()


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Line:
    """Writes down the share and what stands beside it."""

    def __init__(self) -> None:
        self.share, self.figures, self.lines = 0, {}, []

    @contextmanager
    def task(self, name, total, *, unit, done=0):
        assert (name, total, unit) == ("run", 100, "%")
        self.lines.append(name)
        yield self

    def advance(self, count=1, /, **figures):
        assert count >= 0
        self.share += count
        self.figures = figures

    def say(self, line):
        self.lines.append(line)


def test_a_whole_is_one_line_whose_share_and_time_left_count_all_that_is_expected():
    clock, line = Clock(), Line()
    with Whole(line, "run", clock=clock) as run:
        assert line.lines == []
        run.expect("training", 10, seconds_each=1.0)
        run.expect("replay", 100, seconds_each=0.1)
        assert line.figures["left"] == "0:00:20 left"
        with run.task("training", 10, unit="iterations") as training:
            for number in range(1, 11):
                clock.now += 3.0
                training.advance(rate="7 steps/s")
                if number == 1:  # an iteration takes three times as long as was thought
                    assert line.share == 7  # 3 of 3 + 27 + 10 seconds
                    assert line.figures["left"] == "0:00:37 left"
                if number in (5, 10):
                    with run.task("replay", 50, unit="bars") as replay:
                        for _ in range(50):
                            clock.now += 0.2
                            replay.advance()
                        assert line.figures["part"] == "replay 50/50 bars"
                    assert line.figures["rate"] == "7 steps/s"
                if number == 5:
                    clock.now += 1.0
                    run.advanced()
                    assert line.figures["part"] == "training 5/10 iterations"
                    assert line.share == 50  # 26 of 52, and never back from what was shown
        assert line.share == 99
    assert line.share == 100
    assert line.figures["left"] == "took 0:00:51"
    assert line.lines == ["run"]


def test_a_whole_of_several_runs_expects_them_all_and_the_first_word_counts():
    clock, line = Clock(), Line()
    with Whole(line, "run", runs=4, clock=clock) as run:
        for _ in range(4):
            with whole(run, "a part of it") as same:
                assert same is run
                same.expect("training", 5, seconds_each=1.0)
                with same.task("training", 5, unit="iterations") as task:
                    clock.now += 5.0
                    task.advance(5)
        assert line.share == 99
    assert line.figures["left"] == "took 0:00:20"


def test_what_is_done_already_is_not_ahead():
    clock, line = Clock(), Line()
    with Whole(line, "run", clock=clock) as run:
        with run.task("training", 10, unit="iterations", done=8) as task:
            assert line.figures["part"] == "training 8/10 iterations"
            clock.now += 5.0
            task.advance()
            assert line.share == 50
        run.say("heard")
    assert line.lines == ["run", "heard"]


def test_a_whole_that_fails_is_not_called_done():
    clock, line = Clock(), Line()
    with pytest.raises(KeyError), Whole(line, "run", clock=clock) as run:
        run.expect("training", 10, seconds_each=1.0)
        raise KeyError
    assert line.share == 0


def test_training_and_evaluation_are_one_line_of_the_command(tmp_path, capsys):
    short = ["--data.start", "2013-01-01", "--data.end", "2016-12-30"]
    short += ["--validation-start", "2016-01-01", "--test-start", "2016-07-01"]
    short += ["--data.symbols", "AAPL", "KO", "--evaluations", "2", "--policy.hidden", "8"]
    short += ["--collect.num-envs", "8", "--collect.rollout-steps", "8", "--total-steps", "256"]
    main(["train", "--runs-dir", str(tmp_path), "--name", "told", *short])
    told = capsys.readouterr().out
    lines = [line for line in told.splitlines() if " % " in line and "took" in line]
    assert len(lines) == 1
    assert lines[0].startswith("run ")
    assert "100 %" in lines[0]
    assert "iterations" not in told.replace(lines[0], "")
