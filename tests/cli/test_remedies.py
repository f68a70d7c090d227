"""What an error advises on the command line can be typed there, and helps."""

import re
import shlex

import numpy as np
import polars as pl
import pytest

from fastsim.cli import main
from fastsim.cli.remedies import in_flags
from fastsim.data.read import read_bars
from fastsim.errors import ConfigError, DataError

DAYS = [str(day) for day in np.arange("2021-01-01", "2021-03-01", dtype="datetime64[D]")]
FRAME = {"date": DAYS, "symbol": "EURUSD", "close": 1.2 + np.arange(len(DAYS)) / 1000}

# name: (columns of a file, the option that helps)
SICK = {
    "no volume": ({**FRAME, "volume": 0}, "ignore-volume"),
    "no symbol": ({name: FRAME[name] for name in ("date", "close")}, "symbols AAPL"),
    "a price below zero": ({**FRAME, "close": [-1.0, *FRAME["close"][1:]]}, "repair"),
    "a day without volume": ({**FRAME, "volume": [0.0, *[5.0] * (len(DAYS) - 1)]}, "repair"),
    "a row back in time": ({**FRAME, "date": [DAYS[1], DAYS[0], *DAYS[2:]]}, "repair"),
    "a day twice": ({**FRAME, "date": [DAYS[0], DAYS[0], *DAYS[2:]]}, "repair"),
}


def told_by(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    told = capsys.readouterr().err
    assert caught.value.code == 2 and told.count("\n") == 1, told
    assert "CheckConfig" not in told and "DataConfig" not in told and "symbols=" not in told
    return told


@pytest.mark.parametrize("name", SICK)
def test_the_option_that_an_error_names_is_there_and_helps(name, tmp_path, capsys):
    columns, option = SICK[name]
    path, mended = tmp_path / "bars.csv", tmp_path / "mended.parquet"
    pl.DataFrame(columns).write_csv(path)
    assert f"--{option}" in told_by(["data", "check", path], capsys)
    assert f"--data.{option}" in told_by(["train", "--data.source", path], capsys)
    elsewhere = told_by(["forecast", "show", "AAPL", "--source", path], capsys)
    advice = re.search(
        r"(--[\w-]+(?: AAPL)?) to `fastsim (data check) FILE (--out) bars", elsewhere
    )
    main([*shlex.split(advice[2]), str(path), *shlex.split(advice[1]), advice[3], str(mended)])
    assert len(read_bars(mended)) >= len(DAYS) - 2


@pytest.mark.parametrize("arguments", [["train"], ["data", "check"], ["forecast", "show"], []])
@pytest.mark.parametrize("kind", [DataError, ConfigError])
def test_errors_keep_their_kind_and_other_words(arguments, kind):
    with (
        pytest.raises(kind, match=r"^A on 2021-01-01: no price: correct the source, or give --"),
        in_flags(arguments),
    ):
        raise kind(
            "A on 2021-01-01: no price: correct the source, or set gaps='halt' in CheckConfig "
            "(repair=True in DataConfig)"
        )
    with pytest.raises(kind, match=r"^as it was$"), in_flags(arguments):
        raise kind("as it was")
