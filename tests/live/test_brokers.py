"""Brokers by name: registered ones, exchanges of ccxt, and a user's own."""

import subprocess
import sys

import pytest

from fastsim.errors import BrokerError, ConfigError
from fastsim.live.answers import Patience, RefusedError, ThrottledError, told_to_wait
from fastsim.live.brokers import BROKERS, METHODS, BrokerKind, make_broker
from fastsim.live.keys import Keys


class Ledgerless:
    """Enough of a broker to be told from none."""

    name = "mine"

    def __init__(self, request):
        self.request, self.live = request, request.live

    account = prices = tradable = submit = find = open_orders = cancel = lambda *_: None


def fail(_):
    raise RuntimeError("no\nline")


mine = BrokerKind(name="mine", open=Ledgerless)
paper_only = BrokerKind(name="paper-only", open=lambda _: make_broker("test_brokers:mine", ["A"]))
none = BrokerKind(name="none", open=lambda _: object())
broken = BrokerKind(name="broken", open=fail)


def test_a_users_own_is_given_what_was_asked_for():
    patience = Patience(attempts=2)
    broker = make_broker("test_brokers:mine", ["A", "B"], live=True, patience=patience)
    assert broker.request.symbols == ("A", "B")
    assert (broker.request.live, broker.request.patience) == (True, patience)


def test_a_registered_one_is_found_with_an_exchange_behind_a_colon(monkeypatch):
    monkeypatch.setattr(BROKERS, "_records", dict(BROKERS._records))
    BROKERS.add(mine)
    assert make_broker("mine:eu", ["A"]).request.exchange == "eu"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("alpacca", "no broker is called 'alpacca'.*did you mean 'alpaca'"),
        ("", "no broker is called ''; there are simulated, alpaca, ccxt with an exchange"),
        ("simulate", "did you mean 'simulated'"),
        (None, "a broker is named by text, got None"),
        ("ccxt", "name one, such as ccxt:binance"),
        ("ccxt:", "name one, such as ccxt:binance"),
        ("ccxt:binanse", "did you mean 'binance'"),
        ("alpaca:paper", "write alpaca, with --live"),
        ("test_brokers:fail", "is not a broker: it must be a BrokerKind"),
        ("test_brokers:nothing", "has no 'nothing'"),
        ("test_brokers:none", f"lacks {', '.join(METHODS)}"),
        ("test_brokers:broken", "cannot be opened .RuntimeError: no line."),
    ],
)
def test_what_is_no_broker_is_refused_in_one_line(name, words):
    with pytest.raises(ConfigError, match=words) as caught:
        make_broker(name, ["A"])
    assert "\n" not in str(caught.value)


def test_an_account_of_the_other_kind_is_refused():
    with pytest.raises(ConfigError, match="with real money, and is one with no real money"):
        make_broker("test_brokers:paper_only", ["A"], live=True)
    assert not make_broker("test_brokers:paper_only", ["A"]).live


def test_a_kind_of_broker_is_a_function():
    with pytest.raises(ConfigError, match="must be a function of a BrokerRequest"):
        BrokerKind(name="x", open=3)


def test_nothing_optional_is_imported_before_it_is_asked_for():
    code = "import sys, fastsim.live.brokers; print('ccxt' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "3"}, 3.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"Retry-After": "-3"}, 0.0),
        ({"Retry-After": "nan"}, 7.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, 7.0),
        ({}, 7.0),
    ],
)
def test_how_long_to_wait_is_read_from_what_was_told(headers, seconds):
    assert told_to_wait(headers, otherwise=7.0) == seconds


def test_patience_ends_and_is_for_being_asked_too_often_alone(monkeypatch):
    waited = []
    monkeypatch.setattr("fastsim.live.answers.time.sleep", waited.append)
    patience = Patience(attempts=3, longest=5.0)

    def throttled(wait):
        raise ThrottledError("too often", wait)

    def refused():
        raise RefusedError("no")

    with pytest.raises(ThrottledError):
        patience.keep(lambda: throttled(4.0))
    with pytest.raises(ThrottledError):
        patience.keep(lambda: throttled(6.0))
    with pytest.raises(RefusedError):
        patience.keep(refused)
    assert waited == [4.0, 4.0]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"attempts": 0}, "attempts must be at least 1"),
        ({"longest": float("inf")}, "longest must be finite"),
        ({"fills": -1.0}, "fills must be finite and >= 0"),
    ],
)
def test_patience_without_an_end_is_refused(wrong, words):
    with pytest.raises(ConfigError, match=words):
        Patience(**wrong)


def test_keys_are_taken_out_of_texts_in_any_form():
    keys = Keys(("a/key+of=8", "secret"))
    said = keys.scrub(
        "GET https://x.y/api?timestamp=1&signature=abc: a/key+of=8 a%2Fkey%2Bof%3D8\n secret "
        "signature=def&x"
    )
    assert said == "GET https://x.y/api *** *** *** signature=***&x"
    assert repr(keys) == "Keys(***)"
    assert len(keys.scrub("x" * 1_000)) == 303
    assert issubclass(ThrottledError, BrokerError)
