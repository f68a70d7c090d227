"""ccxt's client of an exchange: its keys, its test network, and its errors in our words."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

from fastsim.errors import BrokerError, ConfigError, FastsimError, did_you_mean
from fastsim.live.answers import MissingError, Patience, RefusedError, ThrottledError, told_to_wait
from fastsim.live.broker import UnansweredError
from fastsim.live.keys import Keys

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")
NEEDED = (
    *("fetchBalance", "fetchMarkets", "fetchTicker"),
    *("createOrder", "fetchOrder", "fetchOpenOrders", "cancelOrder"),
)
"""What an exchange must be able to do in ccxt."""
_KEYS = {"apiKey": "KEY", "secret": "SECRET", "password": "PASSWORD", "uid": "UID"}
"""What ccxt calls what an account is opened with, and the end of the variable it is read from."""


class ClockError(BrokerError):
    """An exchange refuses a request, as the time it was signed at is not its own."""


class CcxtClient:
    """A client of ccxt's that says what went wrong in one line, in which no key stands.

    Parameters
    ----------
    client
        Of ccxt, with its keys; `connect` makes one.
    patience
        How long it is waited for.
    """

    def __init__(self, client: Any, patience: Patience | None = None) -> None:
        self.client = client
        self.patience = patience or Patience()
        self.name = f"ccxt:{client.id}"
        self._keys = Keys([str(value) for name in _KEYS if (value := getattr(client, name, None))])
        self._errors = import_module("ccxt")
        client.timeout = int(1000 * self.patience.answer)
        client.logger = logging.Logger(
            "ccxt", logging.CRITICAL
        )  # its own tells keys, if it is heard

    @property
    def live(self) -> bool:
        """Whether it is the exchange itself, and not its test network."""
        return not self.client.isSandboxModeEnabled

    @property
    def window(self) -> float:
        """Seconds after which a request that has not arrived is no longer taken."""
        return float(self.client.options.get("recvWindow", 10_000)) / 1000.0

    def ask(
        self, what: str, request: Callable[[Any], Answer], *, sends_order: bool = False
    ) -> Answer:
        """What `request` makes of ccxt's client; `what` says in errors what was asked for.

        Where it was asked too often, it waits as it is told and asks again; where the clock of this
        machine differs from the exchange's, it signs by the exchange's.

        Raises
        ------
        MissingError, RefusedError
            The exchange does not know what it was asked about, or refuses.
        UnansweredError
            An order was sent and no answer came that can be understood.
        BrokerError
            It cannot be reached, or refuses its client.
        """

        def once() -> Answer:
            return self._once(what, request, sends_order)

        try:
            return self.patience.keep(once)
        except ClockError as error:
            logger.warning("%s", error)
        self._once("its time", lambda client: client.load_time_difference(), False)
        return self.patience.keep(once)

    def _once(self, what: str, request: Callable[[Any], Answer], sends_order: bool) -> Answer:
        try:
            return request(self.client)
        except FastsimError as error:  # of `request`, in words of the exchange
            failure: FastsimError = type(error)(self._keys.scrub(error))
        except Exception as error:  # whatever ccxt does with what an exchange answers
            said = self._keys.scrub(str(error).removeprefix(self.client.id).strip())
            begin = f"{self.name}: {what}"
            failure = self._refusal(error, begin, said) or self._silence(
                error, begin, said, sends_order
            )
        raise failure  # outside, so that ccxt's error and its signed request do not hang on to it

    def _refusal(self, error: Exception, begin: str, said: str) -> BrokerError | None:
        """What an exchange has said; None if it has said nothing."""
        ccxt = self._errors
        if isinstance(error, ccxt.DDoSProtection | ccxt.RateLimitExceeded):
            wait = told_to_wait(self.client.last_response_headers or {})
            return ThrottledError(
                f"{begin}: asked too often, and told to wait {wait:g} s ({said}): let less be "
                f"asked for, by fewer symbols or longer bars",
                wait,
            )
        if isinstance(error, ccxt.InvalidNonce):
            return ClockError(
                f"{begin}: the clock of this machine is not that of the exchange ({said}): set it "
                f"by a time server"
            )
        if isinstance(error, ccxt.AuthenticationError):
            return BrokerError(f"{begin}: its keys are refused ({said}): {remedy(self.client)}")
        if isinstance(error, ccxt.OrderNotFound):
            return MissingError(f"{begin}: {said}")
        if isinstance(error, ccxt.ExchangeError) and _is_answer(error):
            return RefusedError(f"{begin}: {said}")
        return None

    def _silence(self, error: Exception, begin: str, said: str, sends_order: bool) -> BrokerError:
        """No answer, or none that can be read."""
        kind = type(error).__name__
        if sends_order:
            return UnansweredError(
                f"{begin}: no answer came ({kind}: {said}), so that it may stand or not: look it "
                f"up before anything else is sent"
            )
        if isinstance(error, self._errors.BaseError):
            return BrokerError(f"{begin}: it cannot be reached ({kind}: {said}): try again later")
        return BrokerError(
            f"{begin}: an answer that cannot be read ({kind}: {said}): see whether a newer ccxt can"
        )


def _is_answer(error: Exception) -> bool:
    """Whether an error is what the exchange said, and not what became of the request on its way.

    With a status of 500 and above it does not know itself what has become of it.
    """
    cause, context = error.__cause__, error.__context__
    status = getattr(getattr(context, "response", None), "status_code", 0)
    return (cause is None or type(cause).__name__ == "HTTPError") and status < 500


def connect(exchange: str, *, live: bool = False, patience: Patience | None = None) -> CcxtClient:
    """A client of an exchange's test network, or of the exchange itself if it is told to be `live`.

    Its keys are those of the environment: FASTSIM_BINANCE_KEY, FASTSIM_BINANCE_SECRET.

    Raises
    ------
    ConfigError
        ccxt is not installed, does not know the exchange or not enough of it; it has no test
        network; or the environment has no keys.
    """
    try:
        ccxt = import_module("ccxt")
    except ImportError:
        raise ConfigError("ccxt is not installed: pip install 'fastsim-rl[ccxt]'") from None
    if exchange not in ccxt.exchanges:
        raise ConfigError(
            f"broker 'ccxt:{exchange}': ccxt has no exchange {exchange!r}; write such as "
            f"ccxt:binance{did_you_mean(exchange, ccxt.exchanges)}"
        )
    client = getattr(ccxt, exchange)({"enableRateLimit": True, "options": _options(exchange)})
    lacking = [name for name in NEEDED if not client.has.get(name)]
    if lacking:
        raise ConfigError(
            f"ccxt:{exchange} lacks {', '.join(lacking)} in ccxt: use another exchange"
        )
    if not live:
        if not client.urls.get("test"):
            raise ConfigError(
                f"ccxt:{exchange} has no test network: use the simulated broker, or --live with "
                f"limits"
            )
        client.set_sandbox_mode(True)
    wanted = [name for name, needed in client.requiredCredentials.items() if needed]
    if not set(wanted) <= set(_KEYS):
        raise ConfigError(
            f"ccxt:{exchange} is opened with {', '.join(sorted(set(wanted) - set(_KEYS)))}, and "
            f"fastsim has keys and passwords alone: use another exchange"
        )
    variables = [f"FASTSIM_{exchange.upper()}_{_KEYS[name]}" for name in wanted]
    keys = Keys.from_environment(variables, f"ccxt:{exchange}", remedy(client))
    for name, value in zip(wanted, keys.values, strict=True):
        setattr(client, name, value)
    return CcxtClient(client, patience)


def remedy(client: Any) -> str:
    """Where the keys of a client's account are made."""
    if not client.isSandboxModeEnabled:
        return "make keys for this exchange that may trade, and put them into the environment"
    where = (
        "testnet.binance.vision" if client.id == "binance" else f"the test network of {client.id}"
    )
    return f"its test network has keys of its own, made at {where}"


def _options(exchange: str) -> dict[str, Any]:
    """Spot markets only, without what takes more requests or other rights."""
    spot: dict[str, Any] = {"defaultType": "spot", "fetchCurrencies": False, "fetchMargins": False}
    if exchange.startswith("binance"):
        spot["fetchMarkets"] = {"types": ["spot"]}
        spot["warnOnFetchOpenOrdersWithoutSymbol"] = False  # it raises, and is asked for on purpose
    return spot
