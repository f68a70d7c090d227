"""The report: one self-contained page, a terminal table, and Parquet files that read back."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import polars as pl
import pytest
import torch
from plotted import costs_chart, drawdown_chart, equity_chart, weights_chart
from polars.testing import assert_frame_equal
from rich.console import Console

from fastsim.backtest.charts import MAX_POINTS
from fastsim.backtest.files import save_history
from fastsim.backtest.history import History
from fastsim.backtest.page import plotly_script
from fastsim.backtest.report import write_report
from fastsim.backtest.summary import monthly_returns, summarize
from fastsim.backtest.wording import metrics_table, sharpe_sentence
from fastsim.env.config import EnvConfig
from fastsim.env.orders import OrderConfig
from fastsim.env.randomize import RandomizeConfig
from fastsim.errors import ConfigError
from fastsim.experiment.config import TrainConfig
from fastsim.experiment.evaluate import run_settings
from fastsim.market.costs import CostConfig
from fastsim.market.tape import TapeConfig
from fastsim.stats.bootstrap import Interval

NAMES = ("agent", "equal weight", "<b>smith</b> & sons", "</script><script>alert(1)</script>", "A")
SYMBOLS = ("A", "B & C")
COSTS = ("commission", "spread", "impact", "borrow")
INTERVAL = Interval(estimate=0.12, low=-0.3, high=0.55, level=0.95)


def example_history(steps=300, *, start="2022-11-15", dtype=torch.float64):
    """Five strategies on two assets over days in a row, with made-up costs."""
    generator = torch.Generator().manual_seed(0)
    strategies, assets = len(NAMES), len(SYMBOLS)
    returns = 0.0005 + 0.01 * torch.randn(steps, strategies, generator=generator).to(dtype)
    growth = torch.cat([torch.ones(1, strategies, dtype=dtype), (1 + returns).cumprod(0)])
    weights = torch.rand(steps, strategies, assets + 1, generator=generator).to(dtype)
    costs = torch.rand(5, steps, strategies, generator=generator).to(dtype)
    return History(
        names=NAMES,
        symbols=SYMBOLS,
        timestamps=np.datetime64(start, "ns") + np.arange(steps + 1) * np.timedelta64(1, "D"),
        wealth=1e6 * growth,
        weights=weights / weights.sum(-1, keepdim=True),
        turnover=costs[0],
        costs=dict(zip(COSTS, costs[1:], strict=True)),
    )


def with_stamp_duty(history, name="stamp_duty"):
    """The same with one more cost part before the others, 0.3 % of what was traded."""
    duty = 0.003 * history.turnover * history.wealth[:-1]
    return history._replace(costs={name: duty, **history.costs})


def write_example(folder, history=None, **options):
    path = folder / "report.html"
    wording = {"title": "Agent <7>", "subtitle": "Test & hold-out", **options}
    write_report(history or example_history(), path, **wording)
    return path.read_text("utf-8")


class Page(HTMLParser):
    """Collects what a browser would show, load and run."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.loads, self.tags, self.ids = [], [], []
        self.shown, self.scripts, self.cells = "", "", []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        self.loads += [value for name, value in attrs if name in ("src", "href", "action")]
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data):
        inside = self.tags[-1] if self.tags else ""
        if inside == "script":
            self.scripts += data
        elif inside != "style":
            self.shown += data
            if inside in ("td", "th") and data.strip():
                self.cells[-1] += data


@pytest.fixture(scope="module")
def page_text(tmp_path_factory):
    return write_example(
        tmp_path_factory.mktemp("report"),
        interval=INTERVAL,
        notes=["costs < 1 bp & falling"],
        settings={"policy": "mlp & <256>"},
    )


def test_the_page_loads_nothing_and_carries_plotly_once(page_text):
    page = Page(page_text)
    assert page.loads == []
    assert "link" not in page.tags and "iframe" not in page.tags
    assert "@import" not in page_text[: page_text.index("</style>")]
    assert page_text.count("* plotly.js (basic - minified) v") == 1
    assert len(page_text.encode()) < 1.4e6


def test_charts_are_drawn_by_scripts_that_nothing_was_escaped_in(page_text):
    assert plotly_script() in page_text
    page = Page(page_text)
    for name in ("equity", "drawdown", "weights", "turnover", "costs"):
        assert f"{name}_chart" in page.ids
        assert re.search(rf'Plotly\.newPlot\(\s*"{name}_chart",\s*\[\{{"', page.scripts)


def test_every_name_and_sentence_is_shown_as_written(page_text):
    shown = Page(page_text).shown
    for text in (*NAMES, "Agent <7>", "Test & hold-out", "costs < 1 bp & falling", "mlp & <256>"):
        assert text in shown


def test_names_cannot_smuggle_in_tags(page_text):
    assert "<b>smith" not in page_text
    assert "<script>alert" not in page_text
    assert "&lt;b&gt;smith&lt;/b&gt; &amp; sons" in page_text


def test_what_looks_like_the_page_s_own_code_is_shown_as_written(tmp_path):
    names = ("{{ 6 * 7 }}", "{% raw %}", "ES[/H5]", 'it\'s "-3"', "{# A #}")
    history = example_history(steps=20)._replace(names=names, symbols=("$title", "ES[/H5]"))
    text = write_example(tmp_path, history, focus=names[0], benchmark=names[3], notes=names[1:])
    page = Page(text)
    assert all(name in page.cells for name in names)
    assert all(f"\n{name}\n" in page.shown for name in names[1:])
    assert f"Monthly returns of {names[0]}" in page.shown


def test_charts_name_strategies_assets_and_costs_as_they_are_called():
    names = ('it\'s "q"', "<b>", "A & B", "ES[/H5]", "-3")
    history = example_history(steps=20)._replace(names=names, symbols=('"A"', "<b>"))
    bold = [trace.name for trace in equity_chart(history, range(5)).data]
    assert bold == ['it\'s "q"', "&lt;b&gt;", "A &amp; B", "ES[/H5]", "-3"]
    assert [trace.name for trace in drawdown_chart(history, range(5)).data] == bold
    held = {trace.name for trace in weights_chart(history, 0).data}
    assert held == {'"A"', "&lt;b&gt;", "cash"}


def test_the_page_states_the_sharpe_difference_in_the_same_words(page_text):
    sentence = sharpe_sentence(INTERVAL, "agent", "equal weight").replace("-", "\N{MINUS SIGN}")
    assert sentence in Page(page_text).shown


def test_a_report_without_interval_notes_or_settings_leaves_them_out(tmp_path):
    shown = Page(write_example(tmp_path)).shown
    assert "interval" not in shown and "Settings" not in shown


def rules_of(config):
    """Settings that a run without options does not have, or has otherwise."""
    return dict(run_settings(config).items() - run_settings(TrainConfig()).items())


def test_changed_rules_are_settings_by_their_dotted_names():
    usual = TrainConfig()
    env = replace(
        usual.env,
        orders=OrderConfig(whole_shares=True),
        costs=CostConfig(minimum_fee=1.0),
        randomize=RandomizeConfig(assets=(5, 15)),
        initial_invested=0.5,
    )
    tape = TapeConfig(borrow_bps_per_year={"A": 300.0}, fill="close")
    assert rules_of(replace(usual, env=env, tape=tape)) == {
        "orders.whole_shares": "True",
        "costs.minimum_fee": "1.0",
        "randomize.assets": "(5, 15)",
        "initial_invested": "0.5",
        "borrow_bps_per_year": "{'A': 300.0}",
        "fill": "close",
    }


def test_rules_of_a_run_without_options_are_not_listed():
    assert not any("." in name for name in run_settings(TrainConfig()))
    assert rules_of(TrainConfig(seed=1)) == {"seed": "1"}


def test_a_rule_that_training_sets_otherwise_than_the_environment_is_listed_when_set_back():
    rules = rules_of(TrainConfig(env=EnvConfig()))
    assert rules["action"] == "weights"
    assert rules["episode.staggered"] == "False"


def test_rules_are_shown_as_written_and_cannot_smuggle_in_tags(tmp_path):
    tape = TapeConfig(borrow_bps_per_year={"<i>A</i>": 300.0}, hard_to_borrow=("<i>B & C</i>",))
    text = write_example(tmp_path, settings=run_settings(TrainConfig(tape=tape)))
    assert "<i>" not in text[text.index("<h2>Settings</h2>") :]
    cells = Page(text).cells
    assert cells[cells.index("borrow_bps_per_year") + 1] == "{'<i>A</i>': 300.0}"
    assert cells[cells.index("hard_to_borrow") + 1] == "('<i>B & C</i>',)"
    assert "orders.whole_shares" not in cells


def test_an_unwritten_report_leaves_nothing_behind(tmp_path):
    with pytest.raises(ConfigError):
        write_example(tmp_path, focus="nobody")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("role", ["focus", "benchmark"])
def test_an_unknown_strategy_is_named_beside_the_known_ones_in_one_line(tmp_path, role):
    with pytest.raises(ConfigError) as raised:
        write_example(tmp_path, **{role: "momentum"})
    message = str(raised.value)
    assert message.startswith(role) and "'momentum'" in message and "\n" not in message
    assert all(repr(name) in message for name in NAMES)


def test_the_sentence_says_what_the_interval_shows():
    def says(low, high, estimate=0.1):
        return sharpe_sentence(Interval(estimate, low, high, 0.95), "agent", "equal weight")

    assert says(-0.2, 0.4).endswith("The interval contains zero: no evidence of a difference.")
    assert "+0.10, 95% bootstrap interval -0.20 to +0.40" in says(-0.2, 0.4)
    assert "above zero: evidence that agent earned more" in says(0.05, 0.4)
    assert "below zero: evidence that agent earned less" in says(-0.4, -0.05)
    assert "cannot be compared" in says(float("nan"), float("nan"), float("nan"))


def test_monthly_returns_equal_compounding_by_hand():
    history = example_history(steps=80, start="2022-11-15")
    returns = history.simple_returns[:, 0].tolist()
    # Marks run from 16 November 2022: 15 in November, 31 in December, 31 in January, 3 in February.
    november, december, january, february = 0, 15, 46, 77

    def compounded(first, last):
        growth = 1.0
        for simple_return in returns[first:last]:
            growth *= 1.0 + simple_return
        return pytest.approx(growth - 1.0, rel=1e-12)

    first, second = monthly_returns(history, "agent")
    assert (first.year, second.year) == (2022, 2023)
    assert first.months[:10] == (None,) * 10
    assert first.months[10] == compounded(november, december)
    assert first.months[11] == compounded(december, january)
    assert first.total == compounded(november, january)
    assert second.months[0] == compounded(january, february)
    assert second.months[1] == compounded(february, 80)
    assert second.months[2:] == (None,) * 10
    assert second.total == compounded(january, 80)


def test_the_page_shows_every_cost_part_under_its_name_and_adds_it_up(tmp_path):
    history = with_stamp_duty(example_history())
    text = write_example(tmp_path, history)
    cells = Page(text).cells
    names = ("stamp duty", *COSTS, "total")
    rows = [cells[place : place + 3] for place in (cells.index(name) for name in names)]
    paid = [float(cost[:, 0].sum()) for cost in history.costs.values()]
    for row, money in zip(rows, [*paid, sum(paid)], strict=True):
        assert row[1:] == [f"{money:,.0f}", f"{money / 1e4:.2f}%"]
    assert paid[0] > 1e4


def test_names_of_cost_parts_cannot_smuggle_in_tags(tmp_path):
    history = with_stamp_duty(example_history(), "<i>stamp</i>_duty")
    text = write_example(tmp_path, history)
    assert "<i>" not in text[text.index("<h1>") :]
    assert "<i>stamp</i> duty" in Page(text).cells


def test_the_costs_chart_draws_every_part_by_its_label_and_in_a_colour_of_its_own():
    history = with_stamp_duty(example_history())
    areas = costs_chart(history, 1).data
    assert [area.name for area in areas] == ["stamp duty", *COSTS]
    assert len({area.fillcolor for area in areas}) == len(areas)
    for area, paid in zip(areas, history.costs.values(), strict=True):
        assert area.y[-1] == pytest.approx(float(paid[:, 1].sum()) / 1e6, rel=1e-6)


def test_negative_numbers_have_a_minus_sign_and_not_a_hyphen(page_text):
    cells = Page(page_text).cells
    assert sum(cell.startswith("\N{MINUS SIGN}") for cell in cells) > 10
    assert not any(cell.startswith("-") for cell in cells)


def test_the_page_shows_the_monthly_table(page_text):
    shown = [cell.replace("\N{MINUS SIGN}", "-") for cell in Page(page_text).cells]
    for row in monthly_returns(example_history(), "agent"):
        known = [month for month in row.months if month is not None]
        wanted = [f"{100 * value:.1f}%".replace("-0.0%", "0.0%") for value in (*known, row.total)]
        cells = [cell for cell in shown[shown.index(str(row.year)) + 1 :][:13] if cell]
        assert cells == wanted


def test_parquet_files_read_back_equal(tmp_path):
    history = example_history(steps=7, dtype=torch.float32)
    save_history(history, tmp_path)
    dates = history.timestamps
    equity = pl.DataFrame(
        [
            (dates[row], name, float(history.wealth[row, column]))
            for row in range(8)
            for column, name in enumerate(NAMES)
        ],
        schema={"date": pl.Datetime("ns"), "strategy": pl.String, "wealth": pl.Float32},
        orient="row",
    )
    read = pl.read_parquet(tmp_path / "equity.parquet").cast({"strategy": pl.String})
    assert_frame_equal(read, equity, check_exact=True)

    weights = pl.read_parquet(tmp_path / "weights.parquet")
    assert weights.columns == ["date", "strategy", "asset", "weight"]
    assert len(weights) == 7 * 5 * 3
    for name, column in (("A", 0), ("B & C", 1), ("cash", 2)):
        one = weights.filter(strategy="equal weight", asset=name).sort("date")
        assert one["weight"].to_list() == history.weights[:, 1, column].tolist()
        assert one["date"].to_numpy().tolist() == dates[1:].tolist()

    costs = pl.read_parquet(tmp_path / "costs.parquet").filter(strategy="agent")
    assert costs.columns[2:] == ["turnover", "commission", "spread", "impact", "borrow"]
    assert costs["turnover"].to_list() == history.turnover[:, 0].tolist()
    for name in costs.columns[3:]:
        assert costs[name].to_list() == history.costs[name][:, 0].tolist()


def test_a_cost_part_of_any_name_is_a_column_and_no_other_is_lost(tmp_path):
    history = with_stamp_duty(example_history(steps=7))
    save_history(history, tmp_path)
    costs = pl.read_parquet(tmp_path / "costs.parquet").filter(strategy="A")
    assert costs.columns[3:] == ["stamp_duty", *COSTS]
    for name in costs.columns[3:]:
        assert costs[name].to_list() == history.costs[name][:, 4].tolist()


@pytest.mark.parametrize("name", ["date", "strategy", "turnover"])
def test_a_cost_part_cannot_take_the_place_of_another_column(tmp_path, name):
    history = with_stamp_duty(example_history(steps=3), name)
    with pytest.raises(ConfigError, match=rf"columns of costs.parquet must differ, got '{name}'"):
        save_history(history, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_names_that_cannot_be_told_apart_are_refused(tmp_path):
    history = example_history(steps=3)
    with pytest.raises(ConfigError, match=r"strategies must differ, got 'agent' twice"):
        save_history(history._replace(names=("agent", *NAMES[:4])), tmp_path)
    with pytest.raises(ConfigError, match=r"assets must differ, got 'A' twice"):
        save_history(history._replace(symbols=("A", "A")), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_terminal_table_fits_120_columns_and_shows_names_as_they_are():
    summary = summarize(example_history())
    names = ["agent", "[bold]not markup[/bold]", "c" * 60, "equal weight", "A"]
    console = Console(width=120, record=True, file=None, quiet=False, force_terminal=False)
    with console.capture() as capture:
        console.print(metrics_table(summary, names))
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= 120
    assert any("[bold]not markup[/bold]" in line for line in lines)
    agent = next(line for line in lines if line.strip().startswith("agent"))
    assert f"{100 * float(summary.total_return[0]):.1f}%" in agent
    assert f"{float(summary.sharpe_ratio[0]):.2f}" in agent
    assert f"{float(summary.max_drawdown[0]) * 100:.1f}%" in agent


def test_a_long_history_is_thinned_without_losing_its_ends_or_its_deepest_loss():
    history = example_history(steps=2 * MAX_POINTS + 7)
    line = equity_chart(history, [0, 1]).data[-2]
    assert len(line.x) <= MAX_POINTS + 1
    assert (line.x[0], line.x[-1]) == tuple(history.timestamps[[0, -1]].astype("M8[D]").astype(str))
    assert line.y[-1] == pytest.approx(float(history.wealth[-1, 0] / 1e6), rel=1e-6)
    losses = drawdown_chart(history, [0]).data[0].y
    worst = float(summarize(history).max_drawdown[0])
    assert min(losses) == pytest.approx(worst, rel=1e-6)


def test_shorts_stack_below_zero_beside_the_longs():
    history = example_history(steps=5)
    weights = history.weights.clone()
    weights[:, 0] = torch.tensor([0.8, -0.3, 0.5], dtype=weights.dtype)
    stacks = {}
    for trace in weights_chart(history._replace(weights=weights), 0).data:
        stacks.setdefault(trace.stackgroup, []).append(float(trace.y[0]))
    assert sum(stacks["long"]) == pytest.approx(0.8)
    assert sum(stacks["short"]) == pytest.approx(-0.3)
    assert stacks[None] == pytest.approx([0.5])


def test_a_strategy_that_never_moves_and_one_that_is_ruined_still_make_a_report(tmp_path):
    history = example_history(steps=40)
    wealth = history.wealth.clone()
    wealth[:, 0] = 1e6
    wealth[20:, 1] = 0.0
    shown = Page(write_example(tmp_path, history._replace(wealth=wealth))).shown
    assert "n/a" in shown and "\N{MINUS SIGN}100.0%" in shown


def test_one_step_is_enough_for_a_report(tmp_path):
    assert "1 step from 2022-11-15 to 2022-11-16" in write_example(tmp_path, example_history(1))


def test_a_part_is_annualised_by_the_calendar_of_the_whole():
    days = np.arange("2021-03-01", "2021-03-20", dtype="datetime64[D]")
    open_days = days[np.is_busday(days)]
    session = np.timedelta64(570, "m") + np.arange(60).astype("timedelta64[m]")
    whole = (open_days[:, None] + session).ravel().astype("datetime64[ns]")
    part = example_history(59)._replace(timestamps=whole[-60:])
    assert part.steps_per_year == pytest.approx(525_600)  # an hour alone shows no closing bell
    year = part._replace(calendar=whole).steps_per_year
    assert year == pytest.approx(60 * 365 * 5 / 7, rel=0.01)
