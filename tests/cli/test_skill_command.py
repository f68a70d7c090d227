"""`fastsim forecast skill`."""

import json

import pytest

from fastsim.cli import main
from fastsim.data.sample import sample_bars
from fastsim.errors import ConfigError
from fastsim.experiment.skill import SkillConfig, find_skill
from fastsim.forecast.models.baselines import trailing_random_walk

FEW = ["--context", "150", "--step", "63", "--horizons", "5", "63", "--top", "2"]


def test_order_probabilities_and_a_book_are_told_and_written(tmp_path, capsys):
    out = tmp_path / "skill.json"
    names = "fastsim-prior,random-walk-60"
    flags = ["--source", "us20", "--data.num-assets", "6", "--data.start", "2010-01-01"]
    main(["forecast", "skill", "--forecaster", names, *flags, *FEW, "--json", str(out)])
    told = " ".join(capsys.readouterr().out.split())
    for words in ("Rank IC by horizon", "Brier = reliability", "Reliability of fastsim-prior, 63"):
        assert words in told
    assert "Sharpe ratio of fastsim-prior minus that of equal weight, every 63 bars" in told
    record = json.loads(out.read_text())
    assert record["settings"]["horizons"] == [5, 63] and record["assets"] == 6
    prior, walk = (record["forecasters"][name] for name in names.split(","))
    assert prior["5"]["rank_ic"]["origins"] == record["origins"] > 40
    assert prior["5"]["beyond"]["origins"] > 40
    assert walk["5"]["rank_ic"] == {
        "origins": 0,
        "assets": None,
        "newey_west": None,
        "bootstrap": [None, None, None],
        "above_zero": None,
    }
    rise = prior["63"]["rise"]
    parts = rise["reliability"] - rise["resolution"] + rise["uncertainty"] + rise["within"]
    assert parts == pytest.approx(rise["brier"], abs=1e-8)
    counted = sum(each["forecasts"] for each in rise["bins"])
    assert 0 <= 6 * record["origins"] - counted <= 3  # a close may come back to the cent
    assert list(record["books"]) == [
        *names.split(","),
        "equal weight, every 63 bars",
        "equal weight",
        "buy and hold",
    ]
    apart = record["differences"]
    assert apart["random-walk-60"]["log_growth"][0] == pytest.approx(0.0, abs=1e-6)
    assert apart["fastsim-prior"]["beside"] == "equal weight, every 63 bars"


def test_what_cannot_be_ordered_is_said(capsys):
    main(["forecast", "skill", "--source", "tech4", *FEW, "--forecaster", "random-walk-60"])
    told = " ".join(capsys.readouterr().out.split())
    assert "4 assets are too few to look beyond momentum and volatility: that needs 5." in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--top", "5"], "--top must be at most 4, as many as there are assets, got 5"),
        (["--hold", "7"], "--hold must be one of --horizons"),
        (["--horizons", "5", "5"], "horizons must be different whole numbers"),
        (["--step", "0"], "--step must be >= 1"),
        (["--forecaster", "none"], "name at least one"),
        (["--context", "5000"], "bars hold no context of 5000"),
        (["--horizons", "1", "600"], "random-walk-60 forecasts 1 to 512 bars ahead, not 600"),
        (["--season", "Mars/Base"], "--season"),
    ],
)
def test_what_cannot_be_measured_is_one_line_and_nothing_is_written(
    tmp_path, capsys, arguments, message
):
    out = tmp_path / "skill.json"
    flags = ["--source", "tech4", "--forecaster", "random-walk-60", "--json", str(out), *arguments]
    with pytest.raises(SystemExit) as ended:
        main(["forecast", "skill", *flags])
    told = capsys.readouterr().err
    assert ended.value.code == 2 and message in told and told.count("\n") == 1
    assert not out.exists()


def test_python_is_told_the_same():
    bars = sample_bars("tech4").take(slice(0, 400))
    with pytest.raises(ConfigError, match=r"SkillConfig\.top must be at most 4"):
        find_skill(bars, [trailing_random_walk()], SkillConfig(top=5, context=100))
    with pytest.raises(ConfigError, match=r"SkillConfig\.hold must be one of"):
        SkillConfig(hold=7)
    with pytest.raises(ConfigError, match="name at least one"):
        find_skill(bars, [])
