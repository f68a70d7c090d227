"""Kernels say what they cover, the documentation says the same, and parity tries all of it."""

from collections import defaultdict
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import configs, drawn_configs, shared_configs
from worlds import SHORT_FEATURES, random_bars

from fastsim.env.accounting import Outcome
from fastsim.env.actions import ACTIONS
from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.kernels import columns as c
from fastsim.env.kernels import numba_kernel
from fastsim.env.kernels.coverage import COVERAGE, FUSED, leaves, table, uncovered
from fastsim.env.portfolio_columns import PORTFOLIO_COLUMNS
from fastsim.env.reward import REWARDS
from fastsim.market.block import COLUMNS
from fastsim.market.costs import ALWAYS, Friction
from fastsim.market.tape import KnownTables, MarketTape, TapeConfig, make_tape

PAGE = Path(__file__).parents[2] / "docs" / "coverage.md"


def test_the_table_in_the_documentation_is_made_from_the_record():
    shown = PAGE.read_text().split("<!-- coverage -->\n")[1].split("\n<!-- end -->")[0]
    assert shown == table(), "python -m fastsim.env.kernels.coverage"


def test_kernels_cover_nothing_that_is_not_there():
    names = dict(leaves(EnvConfig()))
    for known in COVERAGE.values():
        assert set(known.settings) <= set(names)
        assert known.costs <= {cost.name for cost in ALWAYS}
        assert known.columns <= set(PORTFOLIO_COLUMNS)
        assert known.tables <= {*COLUMNS, *KnownTables._fields}
        assert known.tape == {field.name for field in fields(MarketTape)}
        assert known.frictions <= set(Friction._fields)
        assert known.outcome == set(Outcome._fields)
    assert set(c.ACTION._fields) <= set(ACTIONS) and set(c.REWARD._fields) <= set(REWARDS)


def test_every_rule_of_today_is_entered():
    env = make(EnvConfig(episode=EpisodeConfig(horizon=5)))
    assert uncovered(env.params, env.state, FUSED) == []
    assert dict(leaves(EnvConfig())).keys() == FUSED.settings.keys()


def test_leaves_are_all_there_is_to_set():
    def count(config):
        parts = [getattr(config, field.name) for field in fields(config)]
        return sum(count(part) if is_dataclass(part) else 1 for part in parts)

    assert len(dict(leaves(EnvConfig()))) == count(EnvConfig()) > 30


def test_parity_is_tried_on_every_value_that_kernels_cover():
    seen = defaultdict(set)

    @settings(max_examples=300)
    @given(drawn_configs(st.one_of(configs(levels=True), shared_configs())))
    def collect(config):
        for name, value in leaves(config):
            seen[name].add(value)

    collect()
    for name, allowed in FUSED.settings.items():
        if allowed.known is None:
            assert len(seen[name]) > 1, f"parity.py never varies {name}"
        else:
            assert seen[name] == set(allowed.known), f"parity.py leaves out some of {name}"


def test_the_numbers_of_kernels_are_those_of_the_registries():
    assert c.ACTION._fields == tuple(ACTIONS)
    assert c.REWARD._fields == tuple(REWARDS)
    assert tuple(cost.name for cost in ALWAYS) == c.COSTS
    assert tuple(PORTFOLIO_COLUMNS) == c.PORTFOLIO


@pytest.mark.parametrize(
    ("function", "kinds"),
    [(numba_kernel.target_weights, c.ACTION), (numba_kernel.measure_reward, c.REWARD)],
)
def test_a_kind_without_a_branch_does_not_compile(function, kinds):
    kernel = function.py_func
    assert numba_kernel.every(kinds)(kernel) is kernel
    more = c.places("More", *kinds._fields, "unheard_of")
    with pytest.raises(NotImplementedError, match=f"{kernel.__name__} .* for unheard_of"):
        numba_kernel.every(more)(kernel)


def make(config, backend="auto"):
    tape = make_tape(random_bars(40, 3), TapeConfig(features=SHORT_FEATURES), dtype=torch.float32)
    return PortfolioEnv(tape, 2, config, backend=backend)
