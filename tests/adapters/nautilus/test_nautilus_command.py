"""`fastsim backtest run --engine nautilus`."""

from pathlib import Path

import pytest
from nautilus_runs import require_nautilus

from fastsim.backtest.results import read_results
from fastsim.cli import main

require_nautilus()
SPAN = ("--start", "2012-10-01", "--end", "2012-12-31")
STRATEGY = """
data: {source: tech4}
env:
  costs: {fee_bps: 5.0, half_spread_bps: 2.0, impact: 0.0}
"""


def test_a_strategy_comes_to_what_fastsim_makes_of_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("strategy.yaml").write_text(STRATEGY)
    played = {}
    for engine in ("fastsim", "nautilus"):
        options = ("--strategy", "strategy.yaml", "--engine", engine, "--out", engine, *SPAN)
        main(["backtest", "run", *options])
        played[engine] = read_results(Path(engine)).history
    ours, theirs = played["fastsim"], played["nautilus"]
    assert ours.names == theirs.names and len(ours.timestamps) > 50
    assert (ours.timestamps == theirs.timestamps).all()
    assert float(ours.turnover[:, 0].sum()) > 1.0
    assert float((theirs.wealth / ours.wealth - 1.0).abs().max()) < 2e-6


def test_a_benchmark_is_not_its_to_play(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["backtest", "run", "--strategy", "EG", "--engine", "nautilus"])
    assert "EG is a benchmark" in capsys.readouterr().err
    assert not list(tmp_path.rglob("results.json"))
