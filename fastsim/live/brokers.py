"""Brokers by the name that people write: "alpaca", "ccxt:binance", or a user's own.

Each is a record; how to add one's own: `docs/howto/broker.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field

from fastsim.config import configuration
from fastsim.errors import ConfigError, FastsimError, did_you_mean, one_line
from fastsim.extensions import Registry, is_reference
from fastsim.live import alpaca_broker, ccxt_client
from fastsim.live.answers import Patience
from fastsim.live.broker import Broker
from fastsim.live.ccxt_broker import CcxtBroker

SIMULATED = "simulated"
"""The name of the account that the loop keeps by itself."""
METHODS = ("account", "prices", "tradable", "submit", "find", "open_orders", "cancel")
"""What the loop asks a broker for."""


@configuration
class BrokerRequest:
    """What is wanted of a broker."""

    symbols: tuple[str, ...]
    """That the agent trades."""
    live: bool = False
    """Whether with real money; on a test network or a paper account if not."""
    exchange: str = ""
    """Which of a broker's exchanges: what stands behind the colon of "ccxt:binance"."""
    patience: Patience = field(default_factory=Patience)
    """How long it is waited for."""


@configuration
class BrokerKind:
    """One kind of broker. `open(request)` returns a `Broker`, and reads its keys itself."""

    name: str
    open: Callable[[BrokerRequest], Broker]

    def __post_init__(self) -> None:
        if not callable(self.open):
            raise ConfigError(
                f"BrokerKind.open of {self.name} must be a function of a BrokerRequest, "
                f"got {self.open!r}"
            )


def make_broker(
    name: str, symbols: Sequence[str], *, live: bool = False, patience: Patience | None = None
) -> Broker:
    """The broker of this name, opened for these symbols.

    Parameters
    ----------
    name
        "alpaca", "ccxt:" and an exchange of ccxt's, or a user's own as "package.module:object".
    symbols
        That the agent trades, as it names them.
    live
        Whether its money is to be real.
    patience
        How long it is waited for.

    Raises
    ------
    ConfigError
        There is no such broker, it lacks a package or keys, it does not trade a symbol, or it is
        not the kind of account that was asked for.
    BrokerError
        It cannot be reached, or refuses the keys.
    """
    kind, exchange = _find(name)
    request = BrokerRequest(
        symbols=tuple(symbols), live=live, exchange=exchange, patience=patience or Patience()
    )
    try:
        broker = kind.open(request)
    except FastsimError:
        raise
    except Exception as error:  # whatever a user's code does
        reason = one_line(f"{type(error).__name__}: {error}", 300)
        raise ConfigError(f"broker {name!r} cannot be opened ({reason})") from error
    lacking = [method for method in METHODS if not callable(getattr(broker, method, None))]
    if lacking:
        raise ConfigError(
            f"broker {name!r} lacks {', '.join(lacking)}: it must be a fastsim.live.broker.Broker"
        )
    if broker.live is not live:
        has = {True: "real money", False: "no real money"}
        raise ConfigError(
            f"broker {name!r} was opened for an account with {has[live]}, and is one with "
            f"{has[bool(broker.live)]}"
        )
    return broker


def _find(name: str) -> tuple[BrokerKind, str]:
    """A kind of broker, and which of its exchanges."""
    begin, colon, exchange = name.partition(":") if isinstance(name, str) else (name, "", "")
    if colon and begin in BROKERS:
        return BROKERS[begin], exchange
    if isinstance(name, str) and name not in BROKERS and not is_reference(name):
        known = (SIMULATED, *BROKERS)
        raise ConfigError(
            f"no broker is called {name!r}; there are {', '.join(known)} with an exchange behind "
            f'a colon, and your own as "package.module:object"{did_you_mean(name, known)}'
        )
    return BROKERS.find(name), ""


def _open_ccxt(request: BrokerRequest) -> Broker:
    if not request.exchange:
        raise ConfigError("broker 'ccxt' is many exchanges: name one, such as ccxt:binance")
    client = ccxt_client.connect(request.exchange, live=request.live, patience=request.patience)
    return CcxtBroker(client, request.symbols)


def _open_alpaca(request: BrokerRequest) -> Broker:
    if request.exchange:
        raise ConfigError(
            f"broker 'alpaca:{request.exchange}': Alpaca has one of each account; write alpaca, "
            f"with --live for real money"
        )
    return alpaca_broker.connect(request.symbols, live=request.live, patience=request.patience)


OWN = (BrokerKind(name="alpaca", open=_open_alpaca), BrokerKind(name="ccxt", open=_open_ccxt))
BROKERS: Registry[BrokerKind] = Registry("broker", BrokerKind, OWN)
