"""Where a run cuts its bars: at the dates given, at those usual for a sample, or by shares."""

from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fastsim.cli import main
from fastsim.config import load_yaml
from fastsim.data.source import DataConfig, load_bars
from fastsim.data.split import dates_of_split, split_by_date
from fastsim.errors import ConfigError, DataError
from fastsim.experiment.config import TrainConfig, read_run
from fastsim.experiment.markets import load_markets

DAYS = np.arange("2021-01-01", "2021-04-11", dtype="datetime64[D]").astype("datetime64[ns]")  # 100
MINUTES = np.arange("2021-03-01T09:30", "2021-03-01T12:50", dtype="datetime64[m]")  # 200
US20 = ("2014-01-01", "2017-01-01")


def parts(calendar, dates):
    return [rows.stop - rows.start for rows in split_by_date(calendar, *dates)]


def test_without_dates_bars_are_cut_by_60_20_and_20_percent():
    assert parts(DAYS, dates_of_split(DAYS)) == [60, 20, 20]
    assert dates_of_split(DAYS) == ("2021-03-02", "2021-03-22")
    minutes = MINUTES.astype("datetime64[ns]")
    assert dates_of_split(minutes) == ("2021-03-01T11:30:00", "2021-03-01T12:10:00")
    assert parts(minutes, dates_of_split(minutes)) == [120, 40, 40]
    for count in range(6, 40):
        assert min(parts(DAYS[:count], dates_of_split(DAYS[:count]))) >= 2


def test_one_date_is_kept_and_the_other_follows_from_it():
    assert parts(DAYS, dates_of_split(DAYS, "2021-01-21")) == [20, 40, 40]
    assert parts(DAYS, dates_of_split(DAYS, None, "2021-03-22")) == [60, 20, 20]
    assert dates_of_split(DAYS, "2021-01-05", "2021-01-09") == ("2021-01-05", "2021-01-09")


def test_usual_dates_are_kept_where_the_data_hold_them():
    usual = ("2021-02-01", "2021-02-10")
    assert dates_of_split(DAYS, usual=usual) == usual
    assert dates_of_split(DAYS, None, "2021-03-01", usual=usual) == ("2021-02-01", "2021-03-01")
    assert dates_of_split(DAYS[50:], usual=usual) == dates_of_split(DAYS[50:])


@pytest.mark.parametrize(
    ("data", "dates"),
    [
        (DataConfig(), US20),
        (DataConfig(start="2010-01-01", end="2018-12-31"), US20),
        (DataConfig(start="2018-01-01"), None),
        (DataConfig(source="tech4"), None),
    ],
)
def test_samples_have_usual_dates_or_shares(data, dates):
    settled = load_markets(TrainConfig(data=data, forecaster="none")).config
    bars = load_bars(data)
    wanted = dates or dates_of_split(bars.timestamps)
    assert (settled.validation_start, settled.test_start) == wanted
    if dates is None:
        total = len(bars)
        assert parts(bars.timestamps, wanted) == pytest.approx(
            [0.6 * total, 0.2 * total, 0.2 * total], abs=1
        )


def test_a_run_on_data_of_ones_own_records_its_dates_and_keeps_them(tmp_path, capsys):
    days = np.arange("2023-01-02", "2024-09-01", dtype="datetime64[D]")
    days = days[np.is_busday(days)]
    closes = 100 * np.exp(np.cumsum(np.random.default_rng(0).normal(0, 0.01, (len(days), 2)), 0))
    path = tmp_path / "bars.csv"
    pl.DataFrame({"date": days.astype(str), "A[b]": closes[:, 0], "B": closes[:, 1]}).write_csv(
        path
    )
    small = [
        "--forecaster",
        "none",
        "--policy.hidden",
        "8",
        "--collect.rollout-steps",
        "8",
        "--collect.num-envs",
        "8",
    ]
    small += ["--total-steps", "128", "--evaluations", "1", "--env.episode.horizon", "20"]
    where = ["--data.source", str(path), "--runs-dir", str(tmp_path), "--name", "own"]
    main(["train", *where, *small])
    capsys.readouterr()
    recorded = load_yaml(TrainConfig, tmp_path / "own" / "config.yaml")
    wanted = dates_of_split(days.astype("datetime64[ns]"))
    assert (recorded.validation_start, recorded.test_start) == wanted
    markets = load_markets(read_run(tmp_path / "own"))
    assert markets.config.test_start == recorded.test_start
    # With more bars at its end, the run is still cut at the dates that it was trained with.
    longer = replace(recorded, data=replace(recorded.data, end="2024-08-01"))
    assert load_markets(longer).config.test_start == recorded.test_start
    main(["evaluate", str(tmp_path / "own")])
    assert f"test bars, {wanted[1]} to" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "culprit"),
    [
        (("2014-01-01", "2017-01-01"), "validation_start 2014-01-01 is outside"),
        (("2021-02-01", "2030-01-01"), "test_start 2030-01-01 is outside"),
        (("2021-01-02", "2021-03-01"), "the train part has 1 bars"),
        (("2021-02-01", "2021-02-02"), "the validation part has 1 bars"),
    ],
)
def test_dates_that_do_not_fit_name_flags_and_a_split_that_works(given, culprit):
    with pytest.raises(DataError) as caught:
        split_by_date(DAYS, *given)
    message = str(caught.value)
    assert culprit in message and "\n" not in message
    assert "validation_start = '2021-03-02' TrainConfig.test_start = '2021-03-22'" in message
    assert "leave both out for 60, 20 and 20 %" in message
    assert parts(DAYS, ("2021-03-02", "2021-03-22")) == [60, 20, 20]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("2030-01-01", None), "validation_start 2030-01-01 is outside"),
        ((None, "2000-01-01"), "test_start 2000-01-01"),
        (("soon", None), "validation_start must be an ISO date"),
    ],
)
def test_one_date_that_does_not_fit_is_named(given, message):
    with pytest.raises(DataError) as caught:
        dates_of_split(DAYS, *given)
    assert message in str(caught.value)


def test_too_few_bars_for_three_parts_are_said():
    with pytest.raises(DataError, match="5 bars, 2021-01-01 to 2021-01-05, are too few"):
        dates_of_split(DAYS[:5])


@pytest.mark.parametrize("name", ["validation_start", "test_start"])
@pytest.mark.parametrize("wrong", ["soon", "01.02.2021", "2021-02-30", "2021", "2021-01-01T10:00Z"])
def test_a_date_that_is_none_is_refused_before_anything_is_read(name, wrong):
    with pytest.raises(ConfigError, match=rf"TrainConfig.{name} must be an ISO date"):
        TrainConfig(**{name: wrong}, data=DataConfig(source="nowhere.csv"))


@pytest.mark.parametrize("wrong", [2021, date(2021, 1, 1), np.datetime64("2021-01-01")])
def test_a_date_that_is_no_text_is_refused(wrong):
    with pytest.raises(ConfigError, match=r"TrainConfig\.test_start must be text, got"):
        TrainConfig(test_start=wrong)


def test_the_command_line_says_what_can_be_typed(tmp_path, capsys):
    Path(tmp_path / "bars.csv").write_text(
        "date,A\n" + "".join(f"{day},5\n" for day in DAYS.astype("datetime64[D]"))
    )
    with pytest.raises(SystemExit) as caught:
        main(["train", "--data.source", str(tmp_path / "bars.csv"), "--test-start", "2017-01-01"])
    told = capsys.readouterr().err
    assert caught.value.code == 2 and told.count("\n") == 1
    assert "--validation-start 2021-03-02 --test-start 2021-03-22" in told
    assert "TrainConfig" not in told
