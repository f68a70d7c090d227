"""Series that share their luck are tested as what they are: fewer than they look."""

import pytest
import torch

from fastsim.errors import ConfigError, DataError
from fastsim.stats.exceedances import (
    conditional_coverage,
    independence,
    pooled_ratios,
    unconditional_coverage,
)


def panel(generator, periods=250, series=20, correlation=0.4, share=0.2):
    """Exceedances [T, A] of a true band: normal shocks with one common factor, none over time."""
    common = torch.randn((periods, 1), generator=generator)
    own = torch.randn((periods, series), generator=generator)
    shocks = correlation**0.5 * common + (1 - correlation) ** 0.5 * own
    edge = torch.special.ndtri(torch.tensor(1 - share / 2))
    return shocks.abs() > edge


def naive(outside, share):
    """As if all series were one, one after the other."""
    return unconditional_coverage(outside.T.reshape(-1), share).p_value < 0.05


@pytest.mark.parametrize("share", [0.5, 0.2, 0.05])
def test_of_one_series_it_is_the_tests_of_one_series(share):
    drawn = torch.rand((200, 1), generator=torch.Generator().manual_seed(3))
    outside = drawn < 0.3
    known = torch.ones_like(outside)
    known[::7] = False
    found, alone = pooled_ratios(outside, known, share), outside[known]
    assert found.coverage == pytest.approx(unconditional_coverage(alone, share))
    assert found.independence == pytest.approx(independence(alone))
    assert found.both == pytest.approx(conditional_coverage(alone, share))
    assert found.effects == pytest.approx((1.0, 1.0))


def test_copies_of_a_series_say_what_it_says_alone():
    outside = torch.rand((300, 1), generator=torch.Generator().manual_seed(4)) < 0.25
    many, known = outside.expand(300, 12), torch.ones((300, 12), dtype=torch.bool)
    found = pooled_ratios(many.contiguous(), known, 0.2)
    assert found.effects == pytest.approx((12.0, 12.0), rel=1e-6)
    assert found.coverage.statistic == pytest.approx(
        unconditional_coverage(outside[:, 0], 0.2).statistic, rel=1e-6
    )
    assert found.independence.statistic == pytest.approx(
        independence(outside[:, 0]).statistic, rel=1e-6
    )


def test_true_bands_of_a_market_are_refused_as_often_as_is_said():
    """Of 400 markets at a level of 5 %: 20 within three deviations, where counting lies."""
    generator = torch.Generator().manual_seed(0)
    known = torch.ones((250, 20), dtype=torch.bool)
    markets = [panel(generator) for _ in range(400)]
    found = [pooled_ratios(outside, known, 0.2) for outside in markets]
    for name in ("coverage", "independence", "both"):
        refused = sum(getattr(each, name).p_value < 0.05 for each in found)
        assert 7 <= refused <= 33, name
    assert sum(naive(outside, 0.2) for outside in markets) > 80


def test_bands_that_are_too_narrow_or_left_in_runs_are_seen():
    generator = torch.Generator().manual_seed(1)
    known = torch.ones((250, 20), dtype=torch.bool)
    narrow = pooled_ratios(panel(generator, share=0.3), known, 0.2)
    assert narrow.coverage.p_value < 1e-4 and narrow.both.p_value < 1e-3
    assert narrow.independence.p_value > 0.01
    calm = torch.arange(250)[:, None] // 25 % 2 == 0
    runs = torch.where(calm, panel(generator, share=0.08), panel(generator, share=0.32))
    found = pooled_ratios(runs, known, 0.2)
    assert found.independence.p_value < 1e-3 and found.both.p_value < 1e-2


def test_a_series_that_comes_late_counts_from_there():
    outside = torch.rand((100, 2), generator=torch.Generator().manual_seed(2)) < 0.2
    known = torch.ones_like(outside)
    known[:60, 1] = False
    altered = outside.clone()
    altered[:60, 1] = ~altered[:60, 1]
    assert pooled_ratios(outside, known, 0.2) == pooled_ratios(altered, known, 0.2)


def test_what_is_no_panel_of_exceedances_is_refused():
    outside = torch.zeros((3, 2), dtype=torch.bool)
    with pytest.raises(DataError, match=r"bool \[T, A\]"):
        pooled_ratios(outside, torch.ones((3, 1), dtype=torch.bool), 0.2)
    with pytest.raises(DataError, match=r"bool \[T, A\]"):
        pooled_ratios(outside, torch.ones((3, 2)), 0.2)
    once = torch.tensor([[True, False], [False, True], [False, False]])
    with pytest.raises(DataError, match="at least 2 periods"):
        pooled_ratios(outside, once, 0.2)
    with pytest.raises(ConfigError, match="share"):
        pooled_ratios(outside, torch.ones_like(outside), 0.0)
