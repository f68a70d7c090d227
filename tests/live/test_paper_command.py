"""`fastsim paper` runs, and says how it stands; what cannot be is one line."""

import sqlite3

import pytest
from papered import small_run
from test_loop import content

from fastsim.cli import main
from fastsim.experiment.evaluate import evaluate
from fastsim.live.ledger import LEDGER
from fastsim.live.simulated import ACCOUNT
from fastsim.live.status import drift, read_status


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return small_run(folder, "run", data={"source": "tech4"}, forecaster="none")


def command(run, state, *more):
    return ["paper", "run", str(run), "--feed", "replay:tech4", "--state", str(state), *more]


def refused(arguments, capsys, status=2):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert status in (None, end.value.code) and end.value.code
    return capsys.readouterr()


def test_pass_after_pass_and_how_it_stands(run, tmp_path, capsys):
    state = tmp_path / "state"
    span = ("--start", "2011-09-01", "--end", "2011-09-09")
    main(command(run, state, *span, "--once"))
    assert capsys.readouterr().out.startswith("2011-09-01: equity 1,000,000.00, 4 orders\n")
    main(command(run, state, *span))
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 6 and told[-1] == "there are no more bars"
    evaluate(run)
    main(["paper", "status", str(state)])
    shown = capsys.readouterr().out
    assert "equity" in shown and "24 orders, of which 4 are open" in shown
    assert "slippage against the last close" in shown and "no real money" in shown
    page = (state / "status.html").read_text()
    assert "Plotly.newPlot" in page and "<h2>Positions</h2>" in page and "MSFT" in page
    assert "<script src" not in page and "http-equiv" not in page


def test_a_replay_does_not_drift_from_its_backtest(run, tmp_path, capsys):
    evaluation = evaluate(run)
    start = str(evaluation.history.timestamps[0])[:10]
    end = str(evaluation.history.timestamps[12])[:10]
    state = tmp_path / "state"
    main(command(run, state, "--start", start, "--end", end))
    status = read_status(state)
    found = drift(status.equity, status.backtest)
    assert (found.since, found.bar) == (start, end)
    assert abs(found.apart) < 1e-6 and found.account != 1.0
    main(["paper", "status", str(state), "--out", str(tmp_path / "page.html")])
    assert "drift from the backtest of its run: +0.0000%" in capsys.readouterr().out.replace(
        "-0.0000%", "+0.0000%"
    )
    assert (tmp_path / "page.html").exists()


def test_a_difference_is_shown_and_ends_with_a_status_of_its_own(run, tmp_path, capsys):
    state = tmp_path / "state"
    main(command(run, state, "--start", "2011-09-01", "--end", "2011-09-06"))
    capsys.readouterr()
    before = content(state)
    with sqlite3.connect(state / ACCOUNT) as tables:
        tables.execute("UPDATE bars SET shares = '{\"IBM\": 11.0}'")
    said = refused(command(run, state, "--once"), capsys, status=3)
    assert "Trading has stopped" in said.out and "IBM" in said.out and "11" in said.out
    assert said.err.startswith("fastsim: simulated and the ledger differ in ")
    assert len(said.err.splitlines()) == 1
    assert content(state) == before


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--live",), "--live needs a broker with real money"),
        (("--broker", "alpaca"), "--feed replay:tech4 is history"),
        (("--limits.gross", "-1"), "--limits.gross must be > 0"),
        (("--start", "yesterday"), "start must be an ISO date"),
        (("--cash", "0"), "--cash must be > 0"),
        (("--feed", "tape"), "--feed must be replay:FILE"),
        (("--feed", "store:nowhere-at-all"), "there is no store of bars"),
        (("--feed", "replay:nowhere.parquet"), "nowhere.parquet"),
        (("--feed", "yfinance", "--broker", "alpaca"), "APCA_API_KEY_ID"),
        (
            ("--feed", "yfinance", "--broker", "alpaca", "--live"),
            "a real account needs every limit",
        ),
    ],
)
def test_bad_input_is_one_line_and_nothing_has_begun(
    run, tmp_path, capsys, monkeypatch, more, told
):
    for name in ("APCA_API_KEY_ID", "APCA_API_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    said = refused(command(run, tmp_path / "state", *more), capsys).err
    assert told in said and len(said.splitlines()) == 1
    assert not (tmp_path / "state").exists()
    assert refused(["paper", "status", str(tmp_path / "state")], capsys).err.startswith("fastsim: ")


def test_nothing_is_left_where_an_account_cannot_be_opened(run, tmp_path, capsys):
    state = tmp_path / "deep" / "state"
    elsewhere = ("--feed", "yfinance", "--broker", "not.a.package:broker")
    assert "not.a.package" in refused(command(run, state, *elsewhere), capsys).err
    assert not (tmp_path / "deep").exists()
    state.mkdir(parents=True)
    refused(command(run, state, *elsewhere), capsys)
    assert state.exists() and not any(state.iterdir())
    (state / "mine.txt").write_text("kept")
    refused(command(run, state, *elsewhere), capsys)
    refused(command(run / "agent" / "policy", state), capsys)
    assert (state / "mine.txt").exists() and not (state / LEDGER).exists()


def test_a_ledger_that_was_there_stays_where_an_account_cannot_be_opened(run, tmp_path, capsys):
    state = tmp_path / "state"
    main(command(run, state, "--start", "2011-09-01", "--once"))
    before, files = content(state), sorted(each.name for each in state.iterdir())
    (state / ACCOUNT).write_bytes(b"damaged")
    assert ACCOUNT in refused(command(run, state), capsys, status=None).err
    assert content(state) == before and sorted(each.name for each in state.iterdir()) == files
