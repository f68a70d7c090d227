"""Parts of windows have the scores that they would have alone, and the worst is the worst."""

import numpy as np
import pytest
import torch

from fastsim.data.sample import sample_bars
from fastsim.forecast.evaluate import (
    by_origin,
    common_windows,
    relative,
    rolling_origins,
    rolling_windows,
    spaced_origins,
    summarise,
)
from fastsim.forecast.models.baselines import ewma_random_walk, trailing_random_walk
from fastsim.forecast.scoring.slices import (
    LEAST,
    crossed,
    cut_by_asset,
    cut_by_period,
    parts_of,
    worst_part,
)

CONTEXT, HORIZONS = 100, (1, 5)


@pytest.fixture(scope="module")
def scored():
    """Bars of tech4, windows of two walks, and scores of both."""
    bars = sample_bars("tech4")
    origins = spaced_origins(bars, context=CONTEXT, horizon=5, step=20)
    walks = trailing_random_walk(), ewma_random_walk()
    windows = common_windows(bars, walks, HORIZONS, origins, CONTEXT)
    told = [
        rolling_windows(bars, walk, HORIZONS, origins, CONTEXT, windows=windows) for walk in walks
    ]
    return bars, windows, *told


def test_an_asset_has_the_scores_that_it_has_alone(scored):
    bars, windows, walk, ewma = scored
    parts = parts_of(ewma, {"walk": walk}, cut_by_asset(ewma, bars.symbols))
    assert [part.name for part in parts] == list(bars.symbols)
    assert sum(part.windows for part in parts) == windows.scored
    for place, part in enumerate(parts):
        alone = bars.take(slice(None), [place])
        own, other = (
            rolling_origins(alone, each, HORIZONS, windows.origins, CONTEXT)
            for each in (ewma_random_walk(), trailing_random_walk())
        )
        summary = summarise(own)
        assert part.quantile_loss == pytest.approx(summary.quantile_loss, rel=1e-9)
        assert part.coverage == pytest.approx(summary.coverage, rel=1e-9)
        assert part.relative["walk"] == pytest.approx(relative(own, other), rel=1e-9)


def test_periods_are_years_or_halves_of_short_spans(scored):
    bars, windows, walk, _ = scored
    stamps = bars.timestamps[list(windows.origins)]
    years = cut_by_period(walk, stamps)
    assert years.names == tuple(map(str, range(2005, 2014)))
    wanted = stamps.astype("datetime64[Y]").astype(int)[walk.origin.numpy()] + 1970
    assert [years.names[label] for label in years.label.tolist()] == list(map(str, wanted))
    early = torch.from_numpy(stamps < np.datetime64("2007-07-01"))[walk.origin]
    short = type(walk)(*(part[early] for part in walk))
    halves = cut_by_period(short, stamps)
    assert halves.names == ("2005, half 1", "2005, half 2", *halves.names[2:])
    assert halves.names[-1] == "2007, half 1" and len(halves.names) == 5


def test_parts_of_few_origins_have_no_interval(scored):
    bars, windows, walk, ewma = scored
    cuts = cut_by_period(ewma, bars.timestamps[list(windows.origins)])
    parts = parts_of(ewma, {"walk": walk}, cuts)
    assert all(part.origins < 24 for part in parts)
    assert all(np.isnan([part.coverage.low, part.relative["walk"].high]).all() for part in parts)
    total = sum(part.quantile_loss.estimate * part.windows for part in parts) / windows.scored
    assert total == pytest.approx(summarise(by_origin(ewma)).quantile_loss.estimate, rel=1e-9)


def test_the_worst_part_is_the_largest_ratio_of_all(scored):
    bars, windows, walk, ewma = scored
    by_asset = cut_by_asset(ewma, bars.symbols)
    by_year = cut_by_period(ewma, bars.timestamps[list(windows.origins)])
    for cuts in (by_asset, by_year, crossed(by_asset, by_year)):
        parts = parts_of(ewma, {"walk": walk}, cuts)
        large = [part for part in parts if part.windows >= LEAST]
        wanted = max(large, key=lambda part: part.relative["walk"].estimate)
        worst = worst_part(ewma, walk, cuts)
        assert (worst.name, worst.windows) == (wanted.name, wanted.windows)
        assert worst.relative == pytest.approx(wanted.relative["walk"].estimate, rel=1e-12)
    assert "AAPL, 2005" in crossed(by_asset, by_year).names


def test_there_is_no_worst_among_parts_that_are_too_small(scored):
    _, _, walk, ewma = scored
    few = ewma.origin < 2
    own, other = (type(walk)(*(part[few] for part in each)) for each in (ewma, walk))
    assert worst_part(own, other, cut_by_asset(own, ("A", "B", "C", "D"))) is None
