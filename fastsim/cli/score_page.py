"""Scores of forecasters as one page: tables, and charts with what came."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from fastsim.backtest.page import Chart, charts_html
from fastsim.backtest.sections import Row, Section, write_sections
from fastsim.cli.fan import fan_chart
from fastsim.cli.intervals import cell, p_cell
from fastsim.cli.score_charts import (
    band_chart,
    horizon_chart,
    part_chart,
    pit_chart,
    stack_chart,
    with_outcome,
)
from fastsim.cli.scores import WALK, Entry, Scoring
from fastsim.data.dates import show, show_day
from fastsim.forecast.interface import (
    Context,
    Forecast,
    Forecaster,
    ModuleForecaster,
    model_inputs,
)
from fastsim.forecast.models.fitted import FittedModel
from fastsim.forecast.networks.nhits import NhitsModel
from fastsim.forecast.scoring.slices import cut_by_period, parts_of
from fastsim.forecast.scoring.summary import loss_difference, relative, summarise
from fastsim.forecast.scoring.windows import history_of, past_of
from fastsim.forecast.training.walk_forward import WalkForward

HEIGHT = 380
HEAD = ("Forecaster", "Quantile loss / walk", "p", "CRPS / walk", "MASE", "50 %", "80 %", "95 %")


class Words(NamedTuple):
    """What stands above a chart."""

    title: str
    explain: str


OF_THE_FAN = (
    "The window whose loss is the median of all of this forecaster's, with the closes that came."
)
OF_STACKS = (
    "Width of the 80 % band of the window above, in logarithms, over that of its trailing "
    "volatility alone, when the stacks of this NHITS speak one after the other."
)
EXPLAINED = {
    "horizons": Words(
        "Loss by horizon", "Quantile loss over that of the random walk; below 1 is better."
    ),
    "periods": Words("Loss by period", "The same by when the forecast was made."),
    "bands": Words(
        "What bands hold",
        "Share of outcomes in bands of 50, 80 and 95 %, with 95 % intervals. A band that the "
        "levels of a forecaster do not reach is left out.",
    ),
    "pit": Words(
        "Where outcomes fall",
        "Share in each tenth of the forecast: 10 % each if it is calibrated, more at both ends if "
        "it is too sure.",
    ),
}


def write_score_page(scoring: Scoring, focus: Entry, path: Path, notes: Sequence[str]) -> None:
    """Write one HTML file that needs nothing else.

    Parameters
    ----------
    focus
        Whose forecast of one window is drawn: that whose loss is the median of all.
    notes
        Sentences that a reader should see first.
    """
    charts, explained = _charts(scoring, focus)
    drawn = charts_html({name: (chart, HEIGHT) for name, chart in charts.items()})
    sections = [_table(scoring)]
    sections += [
        Section(title, words, html=drawn[name]) for name, (title, words) in explained.items()
    ]
    plan = scoring.plan
    stamps = plan.origin_stamps
    write_sections(
        path,
        title="Scores of forecasts",
        subtitle=f"{len(plan.bars.symbols)} assets, {plan.windows.scored:,} windows from "
        f"{len(stamps):,} origins, {show_day(stamps[0])} to {show_day(stamps[-1])}",
        sections=sections,
        notes=notes,
        before=drawn["dates"],
        footer="Made with fastsim. docs/scoring.md says what each number means.",
    )


def _charts(scoring: Scoring, focus: Entry) -> tuple[dict[str, Chart], dict[str, Words]]:
    """By name: charts, and what stands above each."""
    plan, scores = scoring.plan, {name: each.scores for name, each in scoring.entries.items()}
    walk = scoring.walk
    context, outcome, place = _example(scoring, focus)
    symbol = plan.bars.symbols[int(focus.told.asset[place])]
    stamp = show(plan.origin_stamps[int(focus.told.origin[place])])
    parts = {
        name: parts_of(each.told, {WALK: walk.told}, cut_by_period(each.told, plan.origin_stamps))
        for name, each in scoring.entries.items()
    }
    charts = {
        "fan": _fan(focus, context, outcome),
        "horizons": horizon_chart(scores, walk.scores, plan.horizons),
        "periods": part_chart(parts, WALK),
        "bands": band_chart(scores),
        "pit": pit_chart(scores),
    }
    explained = {"fan": Words(f"{focus.name} on {symbol}, {stamp}", OF_THE_FAN), **EXPLAINED}
    for number, each in enumerate(scoring.entries.values()):
        stacks = _stacks(each.forecaster, context, len(outcome))
        if stacks:
            charts[f"stacks{number}"] = stack_chart(stacks)
            title = f"What each stack of {each.name} adds"
            explained[f"stacks{number}"] = Words(title, OF_STACKS)
    return charts, explained


def _fan(focus: Entry, context: Context, outcome: Tensor) -> Chart:
    """The forecast of a context [1, L, 6], with the closes [H] that came."""
    told = focus.forecaster.forecast(context, len(outcome))
    fan = with_outcome(fan_chart(told, context, ""), float(context.close[0, -1]), outcome)
    fan.layout["margin"] = {"l": 64, "r": 16, "t": 12, "b": 40}
    fan.layout.pop("title")
    return fan


def _example(scoring: Scoring, focus: Entry) -> tuple[Context, Tensor, int]:
    """The context [1, L, 6] of a forecaster's median window, the closes [H] after it, its place."""
    plan, told = scoring.plan, focus.told
    order = told.quantile_loss.mean(1).argsort()
    place = int(order[(len(order) - 1) // 2])
    row, asset = plan.windows.origins[int(told.origin[place])], int(told.asset[place])
    history = history_of(plan.bars)
    past = past_of(history, row, plan.context)
    only = slice(asset, asset + 1)
    context = Context(past.bars[only], past.timestamps[only])
    return context, history.close[asset, row + 1 : row + 1 + plan.horizons[-1]], place


def _stacks(forecaster: Forecaster, context: Context, horizon: int) -> list[Forecast]:
    """What the stacks of a NHITS forecast one after the other; nothing of other networks."""
    if isinstance(forecaster, WalkForward):
        forecaster = forecaster.latest(context)
    model = forecaster.model if isinstance(forecaster, ModuleForecaster) else None
    network = model.spread if isinstance(model, FittedModel) else model
    if not isinstance(network, NhitsModel):
        return []
    card, device = network.card, next(network.parameters()).device
    with torch.inference_mode():
        inputs = model_inputs(card, context, card.max_context, device)
        told = network.by_stack(*inputs, horizon=horizon)
    return [Forecast(each, network.card.levels) for each in told]


def _table(scoring: Scoring) -> Section:
    rows = []
    for name, entry in scoring.entries.items():
        own, other = entry.scores, scoring.walk.scores
        summary = summarise(own)
        cells = [
            cell(relative(own, other)),
            p_cell(loss_difference(own, other, scoring.plan.lags[-1])),
            cell(relative(own, other, "crps")),
            cell(summary.mase),
            *(
                _percent(each.estimate)
                for each in (summary.coverage_50, summary.coverage, summary.coverage_95)
            ),
        ]
        rows.append(Row(name, cells))
    return Section(
        "All forecasters",
        "Means over windows and horizons with 95 % intervals of a block bootstrap over origins; p "
        "is Diebold and Mariano's, of no difference to the walk.",
        HEAD,
        rows,
    )


def _percent(share: float) -> str:
    return "none" if isnan(share) else f"{100.0 * share:.1f} %"
