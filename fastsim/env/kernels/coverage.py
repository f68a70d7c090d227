"""What fused steps cover: every setting, table, cost and column that a kernel knows.

A kernel covers what stands here and nothing else, whatever its default: what is added elsewhere in
the house, or from outside, goes to the reference by name until somebody teaches it to a kernel and
enters it. `python -m fastsim.env.kernels.coverage` writes the table of the documentation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from torch import Tensor

from fastsim.env.accounting import Outcome
from fastsim.env.config import EnvConfig
from fastsim.env.kernels import columns as c
from fastsim.env.state import EnvParams, EnvState
from fastsim.market.block import COLUMNS
from fastsim.market.tape import KnownTables, MarketTape


@dataclass(frozen=True, slots=True)
class Values:
    """Values of a setting that a kernel knows; None knows all of them."""

    known: tuple[Any, ...] | None = None

    def __contains__(self, value: object) -> bool:
        return self.known is None or value in self.known

    def __str__(self) -> str:
        if self.known is None:
            return "any"
        return ", ".join("off" if _is_off(value) else f"`{value}`" for value in self.known)


ANY, NONE = Values(), Values(((),))


def only(*values: Any) -> Values:
    """These values alone."""
    return Values(values)


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """What one backend's kernel knows, each by name."""

    settings: Mapping[str, Values]
    """Leaves of `EnvConfig`, by dotted name."""
    tables: frozenset[str]
    """Columns of the market's block, and tables of what is known."""
    tape: frozenset[str]
    """Fields of `MarketTape`."""
    frictions: frozenset[str]
    """Fields of `Friction`."""
    costs: frozenset[str]
    memory: frozenset[str]
    """Fields of what the reward remembers."""
    columns: frozenset[str]
    """Portfolio columns."""
    state: frozenset[str]
    """Leaves of the state, by dotted name."""
    outcome: frozenset[str]
    """Fields of `Outcome`."""


FUSED = Coverage(
    settings={
        "action": only(*c.ACTION._fields),
        "max_gross": ANY,
        "reward.kind": only(*c.REWARD._fields),
        "reward.adaptation": ANY,
        "reward.drawdown_penalty": ANY,
        "episode.horizon": ANY,
        "episode.random_start": ANY,
        "episode.staggered": ANY,
        "episode.liquidate_at_end": ANY,
        "episode.at_end": only("truncate", "terminate"),
        "costs.fee_bps": ANY,
        "costs.half_spread_bps": ANY,
        "costs.fee_per_share": ANY,
        "costs.minimum_fee": ANY,
        "costs.impact": ANY,
        "costs.participation": ANY,
        "costs.borrow_bps_per_year": ANY,
        "costs.also": NONE,
        "impact.transient": ANY,
        "impact.permanent": ANY,
        "impact.half_life": ANY,
        "orders.unfilled": only("drop", "carry"),
        "orders.whole_shares": only(False, True),
        "orders.maintenance_margin": ANY,
        "orders.stop": ANY,
        "orders.target": ANY,
        "orders.trailing": ANY,
        "perpetual.leverage": ANY,
        "perpetual.maintenance_rate": ANY,
        "perpetual.liquidation_fee_bps": ANY,
        "randomize.fee_bps": ANY,
        "randomize.half_spread_bps": ANY,
        "randomize.impact": ANY,
        "randomize.participation": ANY,
        "randomize.borrow_bps_per_year": ANY,
        "randomize.price_impact": ANY,
        "randomize.volatility": ANY,
        "randomize.assets": ANY,
        "randomize.spacing": ANY,
        "players": ANY,
        "initial_cash": ANY,
        "initial_invested": ANY,
        "observation": only("flat", "index", "window"),
        "window_length": ANY,
        "window_columns": ANY,
        "columns": NONE,
        "autoreset": only("next_step", "same_step"),
    },
    tables=frozenset(
        {"r_before", "r_after", "tradable", "dollars", "impact_scale", "price"}
        | {"years", "interest", "market_return", "borrow", "shortable", "delisted"}
        | set(c.RANGE._fields)
        | {"funding"}
        | {"features", "sigma", "impact_sigma", "dollar_volume", "listed", "bars"}
    ),
    tape=frozenset(
        {"symbols", "feature_names", "timestamps", "known", "next", "fill", "first", "last"}
        | {"worlds", "worlds_per_market", "rising", "volatility_window", "tiers"}
    ),
    frictions=frozenset(c.FRICTION._fields + c.FEE._fields),
    costs=frozenset(c.COSTS),
    memory=frozenset(c.MEMORY),
    columns=frozenset(c.PORTFOLIO),
    state=frozenset(
        {"portfolio.holdings", "portfolio.cash", "displacement.transient", "displacement.rate"}
        | {
            "open_orders",
            "carry",
            "since.entry",
            "since.best",
            "since.stop",
            "since.target",
            "peak",
            "memory.mean",
            "memory.square",
            "invalid_actions",
            "key",
            "slots",
        }
        | {"episode.bar", "episode.end", "episode.number", "episode.done"}
    ),
    outcome=frozenset(
        {"wealth_before", "wealth_at_fill", "wealth_traded", "wealth", "turnover", "unfilled"}
        | {"cost", "borrow", "interest", "ruined", "trade", "holdings", "margin_call"}
        | {"exits", "settlement"}
    ),
)
COVERAGE: Mapping[str, Coverage] = {"numba": FUSED, "triton": FUSED}
"""By backend; the reference covers everything."""


def uncovered(params: EnvParams, state: EnvState, coverage: Coverage) -> list[str]:
    """What is asked for and not covered, by name: settings with their values, and all the rest."""
    known, friction = coverage, params.friction._asdict()
    settings = dict(leaves(params.config))
    names = {
        "": set(settings) - set(known.settings),
        "table ": {*params.tape.next, *KnownTables._fields} - known.tables,
        "tape.": {each.name for each in fields(MarketTape)} - known.tape,
        "costs.": {name for name, rate in friction.items() if rate is not None} - known.frictions,
        "cost ": {cost.name for cost in params.rules.terms.costs} - known.costs,
        "memory ": set(_tensors(state.memory)) - known.memory,
        "portfolio column ": {column.name for column in params.rules.columns} - known.columns,
        "state.": set(_tensors(state)) - known.state,
        "outcome.": {*Outcome._fields} - known.outcome,
    }
    unknown = [f"{kind}{name}" for kind, found in names.items() for name in sorted(found)]
    values = [
        f"{name} = {settings[name]!r}"
        for name, allowed in known.settings.items()
        if name in settings and settings[name] not in allowed
    ]
    return values + unknown


def leaves(config: object, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting of a configuration by its dotted name, with its value."""
    for each in fields(config):  # type: ignore[arg-type]
        value = getattr(config, each.name)
        if is_dataclass(value):
            yield from leaves(value, f"{prefix}{each.name}.")
        else:
            yield f"{prefix}{each.name}", value


def _tensors(nested: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of the tensors of nested named tuples."""
    parts = nested._asdict() if hasattr(nested, "_asdict") else dict(enumerate(nested))
    for name, part in parts.items():
        if isinstance(part, Tensor):
            yield f"{prefix}{name}"
        else:
            yield from _tensors(part, f"{prefix}{name}.")


def _is_off(value: object) -> bool:
    return value is False or value in ((), 0.0)


def table() -> str:
    """Which values of which setting run on which backend, in Markdown."""
    lines = [
        f"| setting | torch | {' | '.join(COVERAGE)} |",
        "| --- | --- |" + " --- |" * len(COVERAGE),
    ]
    for name in dict(leaves(EnvConfig())):
        cells = (str(known.settings.get(name, "none")) for known in COVERAGE.values())
        lines.append(f"| `{name}` | any | {' | '.join(cells)} |")
    for kind, what in (("costs", "a cost"), ("columns", "a portfolio column")):
        cells = (", ".join(sorted(getattr(known, kind))) for known in COVERAGE.values())
        lines.append(f"| {what} | any | {' | '.join(cells)} |")
    cells = (", ".join(sorted(known.tables & set(COLUMNS))) for known in COVERAGE.values())
    return "\n".join([*lines, f"| a column of the market | any | {' | '.join(cells)} |"])


if __name__ == "__main__":
    print(table())
