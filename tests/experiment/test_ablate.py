"""With forecasts and without: what is written down, and what few seeds may say."""

import json
from dataclasses import replace

import polars as pl
import pytest
import torch
from scipy import stats

from fastsim.data.source import DataConfig
from fastsim.errors import ConfigError, DataError
from fastsim.experiment.ablate import ablate, summarize_pairs, write_summary
from fastsim.experiment.config import TrainConfig
from fastsim.learn.rollout import CollectConfig
from fastsim.policy.spec import PolicyConfig
from fastsim.progress import SILENT
from fastsim.stats.student import mean_interval, student_margin

SMALL = TrainConfig(
    data=DataConfig(symbols=("AAPL", "KO"), start="2014-01-01", end="2016-12-30"),
    validation_start="2016-10-01",
    test_start="2016-11-15",
    collect=CollectConfig(num_envs=8, rollout_steps=8),
    policy=PolicyConfig(hidden=8),
    total_steps=128,
    evaluations=1,
    seed=3,
    name="pair",
)
CLEAR = [(0.5, 0.1), (0.6, 0.2), (0.55, 0.1), (0.5, 0.15), (0.62, 0.2)]


@pytest.mark.parametrize("degrees", [*range(1, 12), 29, 30, 99, 100])
@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99])
def test_quantiles_of_students_t_are_scipys(degrees, level):
    expected = stats.t.ppf((1 + level) / 2, degrees)
    assert student_margin(level, degrees) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_the_interval_of_a_mean_is_scipys(count):
    values = torch.randn(count, generator=torch.Generator().manual_seed(count)).double()
    low, high = stats.t.interval(
        0.95, count - 1, loc=float(values.mean()), scale=stats.sem(values.numpy())
    )
    interval = mean_interval(values)
    assert (interval.low, interval.high) == pytest.approx((low, high), rel=1e-12)
    assert interval.estimate == pytest.approx(float(values.mean()))


def test_five_seeds_without_any_difference_are_called_one_as_rarely_as_is_said():
    """A percentile bootstrap of five pairs does so 17 % of the time, where 5 % is promised."""
    draws = torch.randn(4000, 5, generator=torch.Generator().manual_seed(1)).double()
    wrong = sum(not mean_interval(each).contains_zero for each in draws) / len(draws)
    assert wrong == pytest.approx(0.05, abs=0.012)


def test_what_few_seeds_show_is_told_and_decides_nothing():
    for pairs in (CLEAR[:2], CLEAR[:4], [(1.0, 0.7), (1.0, 0.7)]):
        result = summarize_pairs(pairs)
        assert f"{len(pairs)} seeds decide nothing" in result.sentence
        for having, lacking in pairs:
            assert f"{having - lacking:+.3f}" in result.sentence
        assert not any(word in result.sentence for word in ("help", "hurt", "evidence"))


@pytest.mark.parametrize(
    ("pairs", "verdict"),
    [
        (CLEAR, "forecasts help here"),
        ([(lacking, having) for having, lacking in CLEAR], "forecasts hurt here"),
        ([*CLEAR[:4], (0.1, 0.9)], "no evidence that forecasts matter"),
        ([*CLEAR[:4], (float("nan"), 0.9)], "nothing can be said"),
    ],
)
def test_enough_seeds_have_a_verdict(pairs, verdict):
    assert verdict in summarize_pairs(pairs).sentence


def test_an_undefined_ratio_is_null_in_what_is_written(tmp_path):
    result = summarize_pairs([(float("nan"), 1.0), (1.0, 0.5)])
    write_summary(result, SMALL, tmp_path)
    record = json.loads((tmp_path / "summary.json").read_text())
    assert record["with_forecasts"] == [None, 1.0]
    assert record["interval"] == [None, None]
    assert pl.read_parquet(tmp_path / "summary.parquet")["difference"].to_list() == [None, 0.5]


def test_an_ablation_leaves_its_summary_and_its_runs(tmp_path):
    config = replace(SMALL, runs_dir=str(tmp_path))
    result = ablate(config, 2, progress=SILENT)
    assert result.folder == tmp_path / "pair-ablation"
    record = json.loads((result.folder / "summary.json").read_text())
    assert record["seed"] == [3, 4]
    assert record["with_forecasts"] == list(result.with_forecasts)
    assert record["difference"] == pytest.approx(result.differences)
    assert record["interval"] == pytest.approx([result.difference.low, result.difference.high])
    assert record["configuration"]["forecaster"] == "fastsim-prior"
    table = pl.read_parquet(result.folder / "summary.parquet")
    assert table.to_dict(as_series=False) == {
        name: record[name] for name in ("seed", "with_forecasts", "without", "difference")
    }
    for label in ("with", "without"):
        assert (tmp_path / f"pair-{label}-4" / "report.html").exists()
    (tmp_path / "other-without-4").mkdir()
    before = sorted(tmp_path.iterdir())
    for name, taken in (("pair", "pair-ablation"), ("other", "other-without-4")):
        with pytest.raises(ConfigError, match=rf"{taken} is there already"):
            ablate(replace(config, name=name), 2, progress=SILENT)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("wrong", "culprit"),
    [
        (lambda: mean_interval(torch.tensor([1.0])), "at least 2 values"),
        (lambda: mean_interval(torch.zeros(3, 2)), "at least 2 values"),
        (lambda: student_margin(1.0, 3), "level"),
        (lambda: student_margin(0.95, 0), "degrees"),
        (lambda: ablate(SMALL, 1), "at least 2 seeds"),
        (lambda: ablate(replace(SMALL, forecaster="none"), 5), "nothing to leave out"),
    ],
)
def test_what_cannot_be_compared_is_named(wrong, culprit):
    with pytest.raises((ConfigError, DataError), match=culprit) as caught:
        wrong()
    assert "\n" not in str(caught.value)
