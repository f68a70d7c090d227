"""Who computes says how far it is; who listens decides what is seen."""

import io
from contextlib import contextmanager

import pytest
from rich.console import Console
from worlds import random_bars

from fastsim.forecast.models.baselines import trailing_random_walk
from fastsim.forecast.tape import build_forecast_tape
from fastsim.market.tape import make_tape
from fastsim.progress import ON_STDERR, SILENT, Progress, ProgressBars


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
