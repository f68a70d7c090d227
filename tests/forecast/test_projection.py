"""Embeddings as columns: principal components of training bars, causal, the same in an agent."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from fastsim.agent.artifact import _placed
from fastsim.cli import main
from fastsim.data.bars import Bars
from fastsim.data.read import write_bars
from fastsim.errors import ConfigError, ForecastError
from fastsim.forecast.embeddings import embed
from fastsim.forecast.ensemble import Ensemble
from fastsim.forecast.features import (
    ForecastConfig,
    card_of,
    latest_features,
    tabulated_features,
)
from fastsim.forecast.interface import ModuleForecaster
from fastsim.forecast.models.baselines import trailing_random_walk
from fastsim.forecast.models.prior import load_prior
from fastsim.forecast.projection import (
    columns_of,
    fit_projection,
    projected,
    read_projection,
    write_projection,
)
from fastsim.forecast.season.divide import Season
from fastsim.forecast.season.seasonal import Seasonal
from fastsim.forecast.windows import context_at
from fastsim.market.tape import make_tape
from fastsim.progress import SILENT

PRIOR = ModuleForecaster(load_prior())
LENGTH, CUT = 96, 200


def market(bars=300, seed=0):
    noise = np.random.default_rng(seed).normal(size=(bars, 3))
    scale = 0.01 * np.exp(np.sin(np.arange(bars) / 20.0))[:, None]
    days = np.datetime64("2010-01-04", "ns") + np.arange(bars) * np.timedelta64(1, "D")
    close = 50.0 * np.exp(np.cumsum(scale * noise, 0))
    close[:60, 2] = np.nan  # a late listing
    return Bars(symbols=("A", "B", "C"), timestamps=days.astype("datetime64[ns]"), close=close)


@pytest.fixture(scope="module")
def bars():
    return market()


@pytest.fixture(scope="module")
def projection(bars):
    return fit_projection(PRIOR, make_tape(bars.take(slice(0, CUT))), 3, context_length=LENGTH)


@pytest.fixture
def settings(projection, tmp_path):
    write_projection(projection, tmp_path / "p.safetensors")
    return ForecastConfig(
        horizons=(1,), context_length=LENGTH, embedding=str(tmp_path / "p.safetensors")
    )


def test_its_directions_are_the_principal_components_of_training_bars(bars, projection):
    tape = make_tape(bars.take(slice(0, CUT)))
    states = []
    for bar in range(CUT):
        context = context_at(tape, slice(bar, bar + 1), LENGTH)
        able = context.close.isfinite().sum(1) >= PRIOR.card.min_context
        able &= context.close[:, -1].isfinite()
        if able.any():
            states.append(embed(PRIOR, type(context)(*(part[able] for part in context))))
    states = torch.cat(states).double()
    pca = PCA(3, whiten=True, svd_solver="full").fit(states.numpy())
    ours, theirs = projection(states).numpy(), pca.transform(states.numpy())
    signs = np.sign((ours * theirs).sum(0))
    np.testing.assert_allclose(ours, theirs * signs, atol=2e-4)
    np.testing.assert_allclose(ours.std(0, ddof=1), 1.0, rtol=1e-5)


def test_later_bars_change_nothing_earlier(bars, projection, settings, tmp_path):
    changed = bars.close.copy()
    changed[CUT + 20 :] *= np.exp(np.random.default_rng(1).normal(0, 0.2, (80, 3)))
    other = replace(bars, close=changed)
    again = fit_projection(PRIOR, make_tape(other.take(slice(0, CUT))), 3, context_length=LENGTH)
    assert torch.equal(again.directions, projection.directions)
    one, two = (
        tabulated_features(make_tape(each), PRIOR, settings, tmp_path, progress=SILENT)
        for each in (bars, other)
    )
    for name in projection.names:
        assert torch.equal(one[name][: CUT + 20], two[name][: CUT + 20])
        assert not torch.equal(one[name][CUT + 20 :], two[name][CUT + 20 :])
    assert not one["embedding_0"][:31].any() and one["embedding_0"][40:].any()


def test_an_agent_sees_at_the_last_bar_what_a_table_has_there(bars, settings, tmp_path):
    tape = make_tape(bars)
    table = tabulated_features(tape, PRIOR, settings, tmp_path, progress=SILENT)
    latest = latest_features(tape, PRIOR, settings)
    for name in ("embedding_0", "embedding_1", "embedding_2"):
        torch.testing.assert_close(latest[name], table[name][-1:], rtol=1e-5, atol=1e-6)


def test_a_second_run_reads_its_table(bars, settings, tmp_path, monkeypatch):
    tape = make_tape(bars)
    first = tabulated_features(tape, PRIOR, settings, tmp_path, progress=SILENT)
    monkeypatch.setattr("fastsim.forecast.projection.projected", None)
    again = tabulated_features(tape, PRIOR, settings, tmp_path, progress=SILENT)
    assert torch.equal(first["embedding_1"], again["embedding_1"])


def test_it_is_found_within_a_season_and_an_ensemble_and_nowhere_else(bars, projection):
    tape, rows = make_tape(bars), slice(250, 252)
    wanted = projected(tape, PRIOR, projection, rows, 64)
    both = Ensemble([trailing_random_walk(), Seasonal(PRIOR, Season("UTC"))])
    assert torch.equal(projected(tape, both, projection, rows, 64), wanted)
    with pytest.raises(ForecastError, match=r"the projection is of fastsim-prior.* nor a part of"):
        projected(tape, trailing_random_walk(), projection, rows, 64)


def test_what_has_seen_its_bars_has_seen_them(bars, settings, projection):
    assert projection.until == str(bars.timestamps[CUT - 1])[:10]
    assert card_of(PRIOR, settings).known_until == projection.until
    assert card_of(PRIOR, ForecastConfig()).known_until is None


def test_a_file_gives_it_back_and_another_is_refused(projection, tmp_path):
    path = tmp_path / "p.safetensors"
    with pytest.raises(ForecastError, match="no projection here; fit one first"):
        read_projection(path)
    write_projection(projection, path)
    kept = read_projection(path)
    assert torch.equal(kept.directions, projection.directions)
    assert kept[2:] == projection[2:]
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ForecastError, match="no projection"):
        read_projection(path)
    with pytest.raises(ConfigError, match=r"must end in \.safetensors"):
        write_projection(projection, tmp_path / "p.pt")
    with pytest.raises(ConfigError, match=r"ForecastConfig\.embedding must be the \.safetensors"):
        ForecastConfig(embedding="p.json")


def test_states_that_do_not_vary_so_much_are_refused(bars):
    tape = make_tape(bars.take(slice(0, CUT)))
    with pytest.raises(ForecastError, match="vary along fewer than 250 directions"):
        fit_projection(PRIOR, tape, 250, context_length=LENGTH)
    young = replace(bars, symbols=("C",), close=bars.close[:, 2:]).take(slice(0, 130))
    with pytest.raises(ForecastError, match=r"39 states .* too few for 40 directions: give more"):
        fit_projection(PRIOR, make_tape(young), 40, context_length=LENGTH)
    with pytest.raises(ForecastError, match="shows no hidden state"):
        fit_projection(trailing_random_walk(), tape, 3)


def test_missing_is_zero(projection):
    values = torch.full((2, 3, 3), torch.nan)
    assert all(not each.any() for each in columns_of(values, projection).values())


def test_the_command_fits_one_and_an_agents_folder_has_its_own(bars, tmp_path, capsys):
    write_bars(bars, tmp_path / "bars.parquet")
    out = tmp_path / "e.safetensors"
    command = ["forecast", "embed", "fastsim-prior", "--components", "2", "--context", "96"]
    main([*command, "--data.source", str(tmp_path / "bars.parquet"), "--out", str(out)])
    assert "name it by --forecast.embedding" in " ".join(capsys.readouterr().out.split())
    assert read_projection(out).names == ("embedding_0", "embedding_1")
    placed = _placed({"forecast": {"embedding": "embedding.safetensors"}}, tmp_path)
    assert placed["forecast"]["embedding"] == str(tmp_path / "embedding.safetensors")
