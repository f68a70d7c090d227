"""Requests to Alpaca's servers, and their refusals in our words.

Its own package for Python asks without a limit of time, sends an order again after a 504 and brings
pandas along; what is needed here is a request and four kinds of answers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from http.client import HTTPException
from typing import Any, TypeVar
from urllib.error import HTTPError
from urllib.parse import urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from fastsim.errors import BrokerError, FastsimError
from fastsim.live.answers import MissingError, Patience, RefusedError, ThrottledError, told_to_wait
from fastsim.live.broker import UnansweredError
from fastsim.live.keys import Keys

Answer = TypeVar("Answer")
UNREADABLE = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError)
"""What reading an answer raises that is not what it should be."""
VARIABLES = ("APCA_API_KEY_ID", "APCA_API_SECRET_KEY")
PAPER, LIVE, DATA = (f"https://{host}.alpaca.markets" for host in ("paper-api", "api", "data"))


class AlpacaRest:
    """Alpaca's servers: a paper account's by default.

    Parameters
    ----------
    keys
        The key's id and its secret.
    live
        Whether to ask for the account with real money.
    patience
        How long it is waited for.
    trading, data
        Other addresses of the two servers.
    """

    def __init__(
        self,
        keys: Keys,
        *,
        live: bool = False,
        patience: Patience | None = None,
        trading: str = "",
        data: str = "",
    ) -> None:
        self.live, self.patience = live, patience or Patience()
        self.trading, self.data = trading or (LIVE if live else PAPER), data or DATA
        self._keys = keys
        self._open = build_opener(_NoRedirect).open

    def get(self, path: str, read: Callable[[Any], Answer], **query: str) -> Answer:
        """What `read` makes of what stands at a path of the trading server.

        Raises
        ------
        MissingError, RefusedError
            It does not know what it was asked about, or refuses.
        BrokerError
            It cannot be reached, refuses the keys, or answers what cannot be read.
        """
        return self._ask("GET", f"{self.trading}{path}", read, query)

    def last_trades(self, symbols: str, read: Callable[[Any], Answer]) -> Answer:
        """The last trade of each of these symbols, of the server of prices; raises as `get`."""
        url = f"{self.data}/v2/stocks/trades/latest"
        return self._ask("GET", url, read, {"symbols": symbols})

    def place(self, order: Mapping[str, str], read: Callable[[Any], Answer]) -> Answer:
        """Place an order; raises as `get`, and UnansweredError where no answer came."""
        return self._ask("POST", f"{self.trading}/v2/orders", read, body=order)

    def withdraw(self, order_id: str) -> None:
        """Cancel an order; raises as `get`."""
        self._ask("DELETE", f"{self.trading}/v2/orders/{order_id}", lambda _: None)

    def _ask(
        self,
        method: str,
        url: str,
        read: Callable[[Any], Answer],
        query: Mapping[str, str] | None = None,
        body: Mapping[str, str] | None = None,
    ) -> Answer:
        key_id, secret = self._keys.values
        request = Request(
            f"{url}?{urlencode(query)}" if query else url,
            data=None if body is None else json.dumps(dict(body)).encode(),
            method=method,
            headers={
                "APCA-API-KEY-ID": key_id,
                "APCA-API-SECRET-KEY": secret,
                "Content-Type": "application/json",
            },
        )
        return self.patience.keep(lambda: self._once(request, read))

    def _once(self, request: Request, read: Callable[[Any], Answer]) -> Answer:
        try:
            with self._open(request, timeout=self.patience.answer) as answer:
                text = answer.read().decode()
            return read(json.loads(text) if text else None)
        except FastsimError as error:  # of `read`, in words of the server
            failure: FastsimError = type(error)(self._keys.scrub(error))
        except HTTPError as error:
            failure = self._refusal(error, request)
        except (OSError, HTTPException, *UNREADABLE) as error:
            failure = self._silence(f"{type(error).__name__}: {error}", request)
        raise failure  # outside, so that nothing hangs on to it

    def _silence(self, reason: str, request: Request) -> BrokerError:
        """No answer, or none that can be read."""
        said = f"{_what(request)}: no answer that can be read ({self._keys.scrub(reason)})"
        if request.get_method() == "POST":
            return UnansweredError(
                f"{said}, so that the order may stand or not: look it up before anything else is "
                f"sent"
            )
        return BrokerError(f"{said}: try again later")

    def _refusal(self, error: HTTPError, request: Request) -> BrokerError:
        """An answer that is no success."""
        try:
            text = error.read().decode(errors="replace")
        except (OSError, HTTPException):
            text = ""
        said, coded = _message(text)
        words = f"{_what(request)}: {error.code} {self._keys.scrub(said or error.reason)}"
        if error.code == 429:
            wait = _wait(dict(error.headers))
            return ThrottledError(
                f"{words}: asked too often, and told to wait {wait:.3g} s: let less be asked for, "
                f"by fewer symbols or longer bars",
                wait,
            )
        if error.code == 401 or (error.code == 403 and not coded):
            return BrokerError(f"{words}: its keys are refused: {remedy(self.live)}")
        if error.code >= 500:
            return self._silence(f"{error.code} {said}", request)
        if error.code == 404:
            return MissingError(words)
        if error.code < 400:
            return BrokerError(f"{words}: it sends elsewhere, where keys are not taken")
        return RefusedError(words)


class _NoRedirect(HTTPRedirectHandler):
    """Keys are for one server, whoever it recommends."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _what(request: Request) -> str:
    """What was asked for, in errors."""
    return f"alpaca: {request.get_method()} {urlsplit(request.full_url).path}"


def remedy(live: bool) -> str:
    """Where an account's keys are made."""
    kind = "the live" if live else "the paper"
    return (
        f"make keys of {kind} account at app.alpaca.markets, which has others for paper and live, "
        f"and put them into {' and '.join(VARIABLES)}"
    )


def _message(text: str) -> tuple[str, bool]:
    """What a refusal says, and whether it has one of Alpaca's codes, which those of keys lack."""
    try:
        said = json.loads(text)
    except ValueError:
        return text, False
    if not isinstance(said, dict):
        return text, False
    return str(said.get("message", text)), "code" in said


def _wait(headers: Mapping[str, str]) -> float:
    """Seconds until it may be asked again: of Retry-After, or until X-RateLimit-Reset, a time."""
    try:
        lower = {name.lower(): value for name, value in headers.items()}
        reset = float(lower.get("x-ratelimit-reset", "")) - time.time()
    except ValueError:
        reset = 1.0
    return told_to_wait(headers, otherwise=max(reset, 0.0))
