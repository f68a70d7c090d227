"""Charts: thinned without hiding anything, readable at any range, and drawn without a network."""

import base64
import json
import re
from importlib.resources import files

import numpy as np
import pytest
import torch
from plotted import (
    checked_by_plotly,
    costs_chart,
    drawdown_chart,
    equity_chart,
    turnover_chart,
    weights_chart,
)

from fastsim.backtest.charts import MAX_FAINT, MAX_POINTS
from fastsim.backtest.history import History
from fastsim.backtest.page import Chart, chart_page, charts_html, plotly_script
from fastsim.backtest.report import write_report
from fastsim.backtest.summary import max_drawdown
from fastsim.cli.fan import PAST, fan_chart
from fastsim.forecast.interface import Context, Forecast

MINUTE = np.timedelta64(1, "m")


def chart_of(*traces):
    made = Chart.along({})
    made.traces.extend({"type": "scatter", **trace} for trace in traces)
    return made


def history_of(wealth, *, step="D", symbols=("A", "B"), names=None, start="2021-03-01T09:30"):
    """Strategies of this wealth [T + 1, N], half in A and half in cash, that trade 1 % a step."""
    wealth = torch.as_tensor(wealth, dtype=torch.float64)
    steps, count = len(wealth) - 1, wealth.shape[1]
    stamps = np.datetime64(start, "ns") + np.arange(steps + 1) * np.timedelta64(1, step)
    weights = torch.zeros(steps, count, len(symbols) + 1, dtype=torch.float64)
    weights[..., 0] = weights[..., -1] = 0.5
    traded = torch.full((steps, count), 0.01, dtype=torch.float64)
    return History(
        names=names or ("agent", "equal weight", *(f"other {n}" for n in range(count - 2)))[:count],
        symbols=symbols,
        timestamps=stamps,
        wealth=wealth,
        weights=weights,
        turnover=traded,
        costs={"commission": traded * 1e-4},
    )


def walk(steps, count=2, *, spread=0.01, seed=0):
    noise = torch.randn(steps, count, generator=torch.Generator().manual_seed(seed)).double()
    growth = (spread * noise).exp().cumprod(0)
    return 1e6 * torch.cat([torch.ones(1, count).double(), growth])


def test_a_thinned_line_keeps_its_ends_its_highest_and_its_lowest():
    wealth = walk(50_000)
    wealth[31_234, 0], wealth[17_003, 0] = 9e8, 1e2
    line = equity_chart(history_of(wealth), [0, 1]).data[0]
    assert len(line.x) == len(line.y) <= MAX_POINTS + 1
    growth = (wealth[:, 0] / 1e6).numpy()
    assert (line.y[0], line.y[-1]) == pytest.approx((growth[0], growth[-1]), rel=1e-6)
    assert (line.y.max(), line.y.min()) == pytest.approx((900.0, 1e-4), rel=1e-6)
    assert line.x[0].startswith("2021-03-01") and list(line.x) == sorted(line.x)


def test_every_bin_of_a_thinned_line_shows_its_range_in_order():
    wealth = walk(10_000, 1)
    history = history_of(wealth)
    line = equity_chart(history, [0]).data[0]
    growth, dates = (wealth[:, 0] / 1e6).numpy(), history.timestamps.astype("datetime64[s]")
    shown = np.array(line.x[1:-1], dtype="datetime64[s]").reshape(-1, 2)
    for (start, end), pair in zip(shown, line.y[1:-1].reshape(-1, 2), strict=True):
        inside = growth[(dates >= start) & (dates <= end)]
        falls = inside.argmax() < inside.argmin()
        wanted = sorted([inside.min(), inside.max()], reverse=bool(falls))
        assert pair.tolist() == pytest.approx(wanted, rel=1e-6)


def test_a_short_line_is_drawn_point_by_point():
    wealth = walk(MAX_POINTS - 1)
    line = equity_chart(history_of(wealth), [0, 1]).data[1]
    np.testing.assert_allclose(line.y, wealth[:, 1] / 1e6, rtol=1e-6)


def test_many_faint_lines_are_drawn_evenly_from_the_worst_to_the_best():
    wealth = walk(300, 402)
    traces = equity_chart(history_of(wealth), [0, 1]).data
    faint, final = traces[:-2], wealth[-1, 2:] / 1e6
    assert len(faint) == MAX_FAINT and faint[0].name == f"{MAX_FAINT} of 400 other strategies"
    ends = [float(line.y[-1]) for line in faint]
    assert (min(ends), max(ends)) == pytest.approx((float(final.min()), float(final.max())), 1e-6)
    assert np.median(ends) == pytest.approx(float(final.median()), rel=0.02)


@pytest.mark.parametrize("spread", [0.0, 1e-7, 1e-5, 1e-3, 0.01, 0.05, 0.3])
def test_a_log_axis_holds_every_line_and_asks_for_ticks_at_any_range(spread):
    growth = walk(200, spread=spread) / 1e6
    axis = equity_chart(history_of(1e6 * growth), [0, 1]).layout.yaxis
    low, high = 10.0 ** np.array(axis.range)
    assert low < float(growth.min()) and float(growth.max()) < high
    assert high / low > 1.005 and axis.nticks and axis.dtick is None
    used = np.log10(float(growth.max() / growth.min())) / (axis.range[1] - axis.range[0])
    assert spread < 0.01 or used > 0.9  # hardly any of it is empty


def test_who_is_ruined_leaves_the_axis_to_the_others():
    wealth = walk(100)
    wealth[50:, 0] = -3.0
    figure = equity_chart(history_of(wealth), [0, 1])
    assert np.isnan(figure.data[0].y[50:]).all()
    assert 10.0 ** figure.layout.yaxis.range[0] > 0.5


@pytest.mark.parametrize("steps", [8, 30, 400, 8239, 30_000])
def test_the_mean_turnover_is_a_line_however_long_a_month_is(steps):
    figure = turnover_chart(history_of(walk(steps), step="m"), 0, 8239)
    _, mean = figure.data
    drawn = np.isfinite(mean.y)
    assert drawn.mean() > 0.7 and drawn.sum() >= 6
    np.testing.assert_allclose(mean.y[drawn], 0.01, rtol=1e-5)
    number = int(re.search(r"mean of ([\d,]+) steps", mean.name)[1].replace(",", ""))
    assert 2 <= number <= max(2, steps // 4)


def test_a_single_step_can_be_seen_in_every_chart():
    history = history_of(walk(1))
    for figure in (
        equity_chart(history, [0, 1]),
        drawdown_chart(history, [0, 1]),
        weights_chart(history, 0),
        turnover_chart(history, 0, 21),
        costs_chart(history, 0),
    ):
        for trace in figure.data:
            assert len(trace.y) > 1 or "markers" in trace.mode


def test_losses_and_costs_begin_at_nothing_and_weights_at_the_first_decision():
    history = history_of(walk(5))
    first = "2021-03-01T09:30"
    for figure in (drawdown_chart(history, [0]), costs_chart(history, 0)):
        assert figure.data[0].x[0] == first and figure.data[0].y[0] == 0.0
    held = weights_chart(history, 0).data
    assert held[0].x[0] == first and sum(trace.y[0] for trace in held) == pytest.approx(1.0)
    worst = float(max_drawdown(history.simple_returns)[0])
    assert min(drawdown_chart(history, [0]).data[0].y) == pytest.approx(worst, rel=1e-6)


def test_weights_of_a_bin_are_its_mean_and_still_add_up():
    history = history_of(walk(4 * MAX_POINTS))
    weights = history.weights.clone()
    weights[::2, :, 0], weights[::2, :, -1] = 1.0, 0.0
    weights[1::2, :, 0], weights[1::2, :, -1] = 0.0, 1.0
    held = weights_chart(history._replace(weights=weights), 0).data
    by_name = {trace.name: trace.y for trace in held}
    np.testing.assert_allclose(by_name["A"], 0.5)
    np.testing.assert_allclose(by_name["cash"], 0.5)


def test_an_asset_called_cash_is_told_from_the_money():
    held = weights_chart(history_of(walk(9), symbols=("cash", "B")), 0).data
    names = [trace.name for trace in held]
    assert sorted(names) == ["B", "cash", "cash (money)"]
    assert len({trace.legendgroup for trace in held}) == 3


@pytest.mark.parametrize(
    ("step", "start", "shown"),
    [
        ("D", "2021-03-01", "2021-03-01"),
        ("m", "2021-03-01T09:30", "2021-03-01T09:30"),
        ("s", "2021-03-01T09:30:01", "2021-03-01T09:30:01"),
        ("ms", "2021-03-01T09:30:01.5", "2021-03-01T09:30:01.500"),
    ],
)
def test_dates_are_as_precise_as_they_differ(step, start, shown):
    dates = equity_chart(history_of(walk(5), step=step, start=start), [0, 1]).data[0].x
    assert dates[0] == shown and len(set(dates)) == 6


def test_a_page_of_any_history_stays_small(tmp_path):
    cases = {
        "many": history_of(walk(300, 502), symbols=tuple(f"A{n}" for n in range(500))),
        "long": history_of(walk(50_000, 22), step="m", symbols=tuple("ABCDEFGHIJKLMNOPQRST")),
    }
    for name, history in cases.items():
        path = tmp_path / f"{name}.html"
        write_report(history, path, title=name, subtitle="")
        assert path.stat().st_size < 1.5e6, name


def test_the_script_is_the_bundle_that_draws_our_charts_and_comes_with_its_licence():
    script = plotly_script()
    assert script.lstrip().startswith("/**\n* plotly.js (basic - minified)")
    assert len(script.encode()) < 1.25e6 and "</script" not in script
    licence = (files("fastsim.backtest") / "plotly" / "LICENSE").read_text()
    assert licence.startswith("MIT License") and "Plotly" in licence


def test_dates_that_lines_share_are_written_once_and_nothing_ends_the_script():
    evil = "</script><script>alert(1)</script>"
    chart = chart_of(*({"x": ["2021-03-01"], "y": [n], "name": evil} for n in range(3)))
    parts = charts_html({"it": (chart, 300), "same": (chart, 300)})
    text = "".join(parts.values())
    assert text.count("2021-03-01") == 1 and "2021-03-01" in parts["dates"]
    assert text.count("<script>") == text.count("</script>") == 3
    data = re.search(r"newPlot\(\"it\", (\[.*?\])\.map", text)[1]
    traces = json.loads(data)
    assert [trace["x"] for trace in traces] == [0, 0, 0] and traces[0]["name"] == evil


def test_a_page_of_one_chart_shows_its_title_as_it_is():
    page = chart_page(chart_of({"x": [1], "y": [2]}), "ES[/H5] <b>")
    assert "<title>ES[/H5] &lt;b&gt;</title>" in page
    assert (
        "src=" not in page.replace(plotly_script(), "") and "href=" not in page.split("<body>")[1]
    )


def test_numbers_in_a_page_are_those_that_were_drawn_and_gaps_stay_gaps():
    levels = np.array([1.5, np.nan, -np.pi], np.float32)
    text = charts_html({"it": (chart_of({"x": [1, 2, 3], "y": levels}), 300)})["it"]
    (trace,) = json.loads(re.search(r"newPlot\(\"it\", (\[.*?\])\.map", text)[1])
    assert trace["y"].pop("dtype") == "f4"
    read = np.frombuffer(base64.b64decode(trace["y"].pop("bdata")), "<f4")
    np.testing.assert_array_equal(read, levels)
    assert trace == {"type": "scatter", "x": 0, "y": {}}


def test_a_fan_chart_is_one_that_plotly_knows():
    levels = (0.1, 0.25, 0.5, 0.75, 0.9)
    forecast = Forecast(torch.linspace(90.0, 110.0, 5).expand(1, 3, -1), levels)
    context = Context(torch.full((1, 200, 6), 100.0), torch.arange(200).expand(1, -1))
    figure = checked_by_plotly(fan_chart(forecast, context, "ES <b>"))
    assert figure.layout.title.text == "ES &lt;b&gt;"
    close, high, low, *_, median = figure.data
    assert len(close.x) == PAST and close.x[-1] == median.x[0] == 0
    assert (high.y[0], low.y[0], median.y[0]) == (100.0, 100.0, 100.0)
    assert high.y[1] == 110.0 and low.y[1] == 90.0 and median.y[1] == 100.0
