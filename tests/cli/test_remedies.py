"""What an error advises on the command line can be typed there, and helps."""

import numpy as np
import polars as pl
import pytest

from fastsim.cli import main
from fastsim.data.read import read_bars

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
    for reading in (
        ["data", "check", path],
        ["data", "facts", path],
        ["train", "--data.source", path],
        ["forecast", "show", "AAPL", "--source", path],
    ):
        assert f"--data.{option}" in told_by(reading, capsys)
    main(["data", "check", str(path), *f"--data.{option}".split(), "--out", str(mended)])
    assert len(read_bars(mended)) >= len(DAYS) - 2
