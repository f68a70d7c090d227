"""An agent that learned by a fitted forecaster runs alone, and refuses another fit in its place."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from fastsim.agent.agent import Agent
from fastsim.agent.artifact import read_spec
from fastsim.agent.state import BrokerAccount
from fastsim.cli import main
from fastsim.data.sample import sample_bars
from fastsim.errors import CheckpointError, FastsimError
from fastsim.forecast.models.prior import load_prior
from fastsim.forecast.registry import load_forecaster
from fastsim.forecast.training.config import FitConfig
from fastsim.forecast.training.fit import fit
from fastsim.forecast.training.keep import save_fit
from fastsim.progress import SILENT

SMALL = FitConfig(
    mode="head",
    steps=6,
    evaluate_every=3,
    batch_size=16,
    validation_windows=60,
    warmup=1,
    sure=False,
    horizons=(1, 3),
)
BARS = sample_bars("tech4").take(slice(0, 420))
CASH = BrokerAccount(cash=1e6)


def fit_into(folder, seed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastsim.forecast.training.comparison.FORGETTING_WINDOWS", 64)
        config = replace(SMALL, seed=seed)
        save_fit(fit(load_prior(), BARS, config, name="mine", progress=SILENT), folder, config)
    return folder


def decided(agent, row):
    bars = sample_bars("tech4").take(slice(row - agent.bars_needed, row))
    days = bars.timestamps.astype("datetime64[D]")
    every = np.arange(days[0], days[-1])
    closed = {day.item() for day in every[~np.isin(every, days)]}
    now = bars.timestamps[-1] + np.timedelta64(24, "h")
    told = agent.decide(bars, CASH, now=now, closed=closed)
    return torch.tensor(list(told.weights.values()))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run by `fastsim train` on a fit, and the fit's folder."""
    folder = tmp_path_factory.mktemp("fitted")
    mine = fit_into(folder / "mine", 0)
    flags = ["--data.source", "tech4", "--data.end", str(BARS.timestamps[-1])[:10]]
    flags += ["--forecaster", f"fit:{mine}", "--forecast.horizons", "1", "3"]
    flags += ["--forecast.context-length", "64", "--total-steps", "1024", "--evaluations", "1"]
    flags += ["--collect.num-envs", "32", "--collect.rollout-steps", "16", "--policy.hidden", "8"]
    flags += ["--env.episode.horizon", "20", "--runs-dir", str(folder / "runs"), "--name", "one"]
    main(["train", *flags])
    return folder / "runs" / "one", mine


def test_it_runs_from_its_folder_alone(trained, tmp_path):
    run, mine = trained
    key = load_forecaster(f"fit:{mine}").key
    wanted = decided(Agent.load(run / "agent"), 400)
    shutil.copytree(run / "agent", tmp_path / "elsewhere")
    away = mine.rename(tmp_path / "away")
    hidden = run.rename(tmp_path / "hidden")
    try:
        agent = Agent.load(tmp_path / "elsewhere")
        assert agent.forecaster.key == key
        assert torch.equal(decided(agent, 400), wanted)
    finally:
        away.rename(mine)
        hidden.rename(run)
    assert read_spec(run / "agent").forecasters == (f"fit:{run / 'agent' / 'forecaster' / 'mine'}",)


def test_another_fit_in_its_place_is_refused_by_name(trained, tmp_path):
    run, mine = trained
    shutil.copytree(run / "agent", tmp_path / "agent")
    kept = tmp_path / "agent" / "forecaster" / "mine"
    shutil.rmtree(kept)
    fit_into(kept, 1)
    one, other = (load_forecaster(f"fit:{each}").key for each in (mine, kept))
    assert one != other
    with pytest.raises(CheckpointError) as refused:
        Agent.load(tmp_path / "agent")
    told = str(refused.value)
    assert f"the agent learned by forecasts of {one}, and these are of {other}" in told
    assert one.startswith("mine") and "\n" not in told


def test_a_fit_that_is_missing_from_its_folder_is_named(trained, tmp_path):
    run, _ = trained
    shutil.copytree(run / "agent", tmp_path / "agent")
    shutil.rmtree(tmp_path / "agent" / "forecaster" / "mine")
    with pytest.raises(FastsimError, match=r"mine: no fit\.json here") as refused:
        Agent.load(tmp_path / "agent")
    assert "\n" not in str(refused.value)
    spec = json.loads((tmp_path / "agent" / "agent.json").read_text())
    assert spec["forecasters"] == ["fit:forecaster/mine"]
