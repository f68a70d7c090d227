"""The table of outcomes holds all that scores are made of."""

import numpy as np
import polars as pl
import pytest

from fastsim.data.sample import sample_bars
from fastsim.forecast.evaluate import (
    by_origin,
    common_windows,
    rolling_windows,
    spaced_origins,
    summarise,
)
from fastsim.forecast.models.baselines import ewma_random_walk, trailing_random_walk
from fastsim.forecast.scoring.table import LEVELS, LOSSES, SCHEMA, score_table, write_table

CONTEXT, HORIZONS = 100, (1, 5)


@pytest.fixture(scope="module")
def scored():
    """Bars, windows, scores by forecaster, and their table."""
    bars = sample_bars("tech4")
    origins = spaced_origins(bars, context=CONTEXT, horizon=5, step=40)
    walks = (
        trailing_random_walk(),
        ewma_random_walk(levels=(0.1, 0.3, 0.5, 0.7, 0.9)),
    )
    windows = common_windows(bars, walks, HORIZONS, origins, CONTEXT)
    told = {
        walk.card.name: rolling_windows(
            bars, walk, HORIZONS, origins, CONTEXT, windows=windows, levels=LEVELS
        )
        for walk in walks
    }
    return bars, windows, told, score_table(told, bars, windows, HORIZONS, CONTEXT)


def test_a_row_is_of_one_forecaster_window_and_horizon(scored):
    bars, windows, _, table = scored
    assert len(table) == 2 * windows.scored * 2
    keys = table.select("forecaster", "origin", "symbol", "horizon")
    assert keys.is_unique().all()
    assert table["schema"].unique().to_list() == [SCHEMA]
    row = table.filter(horizon=5, symbol="IBM").row(3, named=True)
    at = int(np.searchsorted(bars.timestamps, np.datetime64(row["origin"])))
    asset = bars.symbols.index("IBM")
    closes = bars.adjusted("close")[:, asset]
    assert row["last"] == closes[at] and row["outcome"] == closes[at + 5]
    assert np.datetime64(row["outcome_at"]) == bars.timestamps[at + 5]
    moves = np.abs(np.diff(closes[at + 1 - CONTEXT : at + 1])).mean()
    assert row["scale"] == pytest.approx(moves, rel=1e-12)


def test_quantiles_and_losses_are_those_of_the_forecaster(scored):
    table = scored[3]
    name = "random-walk-60"
    own = table.filter(forecaster=name)
    error = (own["outcome"] - own["0.5"]).abs() / own["scale"]
    np.testing.assert_allclose(own["absolute"].to_numpy(), error.to_numpy(), rtol=1e-5, atol=1e-4)
    inside = (own["0.1"] <= own["outcome"]) & (own["outcome"] <= own["0.9"])
    assert (inside == own["in_80"]).mean() > 0.999  # quantiles are float32
    deciles = np.stack([own[f"{level / 10:g}"].to_numpy() for level in range(1, 10)], 1)
    below = (deciles < own["outcome"].to_numpy()[:, None]).sum(1)
    assert (below == own["tenth"].to_numpy()).mean() > 0.999


def test_means_of_the_table_are_the_scores(scored):
    _, _, told, table = scored
    for name, own in told.items():
        summary = summarise(by_origin(own))
        mean = table.filter(forecaster=name).select(pl.col(*LOSSES, "in_80").mean()).row(0)
        found = dict(zip((*LOSSES, "in_80"), mean, strict=True))
        assert found["quantile_loss"] == pytest.approx(summary.quantile_loss.estimate, rel=1e-9)
        assert found["crps"] == pytest.approx(summary.crps.estimate, rel=1e-9)
        assert found["absolute"] == pytest.approx(summary.mase.estimate, rel=1e-9)
        assert found["square"] ** 0.5 == pytest.approx(summary.rmse.estimate, rel=1e-9)
        assert found["percentage"] == pytest.approx(summary.mape.estimate, rel=1e-9)
        assert found["in_80"] == pytest.approx(summary.coverage.estimate, rel=1e-6)


def test_what_a_forecaster_does_not_tell_is_null(scored):
    short = scored[3].filter(forecaster="random-walk-ewma-0.94")
    assert short["0.025"].is_null().all() and short["in_95"].is_null().all()
    assert short["0.1"].null_count() == 0 and short["in_80"].null_count() == 0


def test_a_table_is_read_back_as_it_was_written(scored, tmp_path):
    table = scored[3]
    write_table(table, tmp_path / "deep" / "scores.parquet")
    assert pl.read_parquet(tmp_path / "deep" / "scores.parquet").equals(table)
    assert list(tmp_path.iterdir()) == [tmp_path / "deep"]
