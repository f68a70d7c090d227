"""Charts as plotly's own package knows them, which refuses what its script does not know."""

import plotly.graph_objects as go

from fastsim.backtest import charts
from fastsim.backtest.page import Chart


def checked_by_plotly(chart: Chart) -> go.Figure:
    return go.Figure(chart.traces, chart.layout)


def equity_chart(*arguments):
    return checked_by_plotly(charts.equity_chart(*arguments))


def drawdown_chart(*arguments):
    return checked_by_plotly(charts.drawdown_chart(*arguments))


def weights_chart(*arguments):
    return checked_by_plotly(charts.weights_chart(*arguments))


def turnover_chart(*arguments):
    return checked_by_plotly(charts.turnover_chart(*arguments))


def costs_chart(*arguments):
    return checked_by_plotly(charts.costs_chart(*arguments))
