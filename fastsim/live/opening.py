"""From what a person asks for to a loop: the agent, its feed, its broker and its ledger."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import field
from pathlib import Path

import fastsim
from fastsim.agent.agent import Agent
from fastsim.agent.folder import agent_folder
from fastsim.config import configuration, require_between
from fastsim.errors import ConfigError
from fastsim.live.accounts import broker_of, opening_of, own_of, simulated
from fastsim.live.broker import Broker
from fastsim.live.feeds import make_feed
from fastsim.live.files import only_process, undone
from fastsim.live.ledger import LEDGER, Ledger
from fastsim.live.limits import LimitConfig
from fastsim.live.loop import Loop
from fastsim.live.records import Run
from fastsim.live.simulated import ACCOUNT, SHADOW, SimulatedBroker


@configuration
class PaperConfig:
    """Who trades, by whose bars, where, and within what limits."""

    agent: str
    """Folder of a run, or of its agent."""
    feed: str
    """replay:FILE, replay:SAMPLE, store:NAME, yfinance or ccxt:EXCHANGE."""
    state: str
    """Folder of the ledger; the same again goes on where it was stopped."""
    broker: str = "simulated"
    """simulated, ccxt:EXCHANGE or alpaca; the latter two on their test networks."""
    live: bool = False
    """Trade for real money; needs every limit."""
    accept: bool = False
    """Where the ledger has other positions than the broker, take the broker's and go on."""
    cash: float | None = None
    """What a simulated account begins with; by default what the agent learned with."""
    start: str | None = None
    """ISO date of the first bar of a replay to be decided on; by default the first it can be."""
    end: str | None = None
    """ISO date of the last."""
    funding: str | None = None
    """File of the funding of perpetual futures, up to the last bar of the feed; by default that
    which the agent learned by."""
    closed: tuple[str, ...] = ()
    """Days on which the market was closed, beyond those that it is always closed on."""
    limits: LimitConfig = field(default_factory=LimitConfig)

    def __post_init__(self) -> None:
        simulated, replayed = self.broker == "simulated", self.feed.startswith("replay:")
        if self.live and simulated:
            raise ConfigError(
                "PaperConfig.live = True needs a broker with real money, got "
                "PaperConfig.broker = 'simulated': leave it out"
            )
        if self.live:
            self.limits.require_all()
        if replayed and not simulated:
            raise ConfigError(
                f"PaperConfig.feed = {self.feed!r} is history, and PaperConfig.broker = "
                f"{self.broker!r} trades now: use the broker simulated, or another feed"
            )
        for name in ("start", "end"):
            if getattr(self, name) is not None and not replayed:
                raise ConfigError(f"PaperConfig.{name} is of a replay, got feed {self.feed!r}")
        if self.cash is not None:
            require_between(self, "cash", 0, open_low=True)
            if not simulated:
                raise ConfigError(
                    f"PaperConfig.cash is of a simulated account, got broker {self.broker!r}"
                )
        if Path(self.state).exists() and not Path(self.state).is_dir():
            raise ConfigError(f"PaperConfig.state must be a folder, {self.state} is a file")


@contextmanager
def opened(
    config: PaperConfig,
    tell: Callable[[str], None] = lambda line: None,
    *,
    run_id: str | None = None,
) -> Iterator[Loop]:
    """The loop of a folder, which no other process works in meanwhile.

    Parameters
    ----------
    tell
        Hears of what happens, line by line.
    run_id
        Of a run that begins, of which its orders' ids are made; drawn if it is not given.

    Raises
    ------
    ConfigError
        Another process works there, the folder is of another agent or broker, or there is no such
        feed or broker; or as brokers do.
    CheckpointError
        The agent or the ledger is damaged.
    """
    agent, folder = Agent.load(config.agent), agent_folder(Path(config.agent))
    state = Path(config.state)
    if config.funding is not None:
        agent = agent.with_funding(config.funding)
    feed = make_feed(config.feed, agent, start=config.start, end=config.end, closed=config.closed)
    run = Run(
        run_id or secrets.token_hex(8),
        str(folder),
        digest_of(folder),
        config.broker,
        config.live,
        {"symbols": list(agent.symbols), "feed": config.feed},
    )
    with only_process(state), ExitStack() as stack:
        stack.callback(feed.close)
        with undone(state, (LEDGER, ACCOUNT, SHADOW)), ExitStack() as opening:
            ledger, broker, shadow = _accounts(config, agent, run, opening)
            stack.enter_context(opening.pop_all())
        yield Loop(
            *(agent, feed, broker, ledger, config.limits),
            shadow=shadow,
            accept=config.accept,
            tell=tell,
        )


def _accounts(
    config: PaperConfig, agent: Agent, run: Run, stack: ExitStack
) -> tuple[Ledger, Broker, SimulatedBroker | None]:
    """The ledger, its broker, and a shadow of who trades elsewhere; the stack closes them."""
    state = Path(config.state)
    ledger = Ledger.open(state)
    stack.callback(ledger.close)
    if ledger.run is not None:
        ledger.check(run)
    broker = broker_of(config.broker, agent, state, live=config.live, cash=config.cash)
    if isinstance(broker, SimulatedBroker):
        stack.callback(broker.close)
    if ledger.run is None:
        ledger.begin(run, fastsim.__version__, opening_of(broker, agent))
    ledger.note("start", f"{config.feed}, process of fastsim {fastsim.__version__}")
    if isinstance(broker, SimulatedBroker):
        return ledger, broker, None
    shadow = simulated(state / SHADOW, agent, own_of(broker, agent))
    stack.callback(shadow.close)
    return ledger, broker, shadow


def digest_of(folder: Path) -> str:
    """What an agent is, as far as its files say; weights of forecasters are told by their key."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in (".json", ".safetensors", ".yaml"):
            digest.update(f"{path.relative_to(folder).as_posix()}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
