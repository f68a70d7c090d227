"""What an agent's strategy is made of, as NautilusTrader's configurations hold it."""

from __future__ import annotations

from nautilus_trader.config import StrategyConfig


class AgentStrategyConfig(StrategyConfig, kw_only=True, frozen=True):  # type: ignore[misc, call-arg]
    """What an `AgentStrategy` is made of, in text and flags: JSON can hold it."""

    agent: str
    """The folder of an agent, or of its run."""
    venue: str = "FASTSIM"
    """Of its instruments, which are called SYMBOL.VENUE."""
    currency: str = "USD"
    """Of the account."""
    fill: str = "agent"
    """When orders are filled: "next_open" or "close"; as the agent learned, if not said."""
    sized_at: str = "fill"
    """By which prices orders are sized: "fill", that they are to be filled at, or "decision"."""
    start: str = ""
    """ISO stamp of the first bar to decide by; as soon as there are enough bars, if not said."""
    end: str = ""
    """ISO stamp of the last bar, by which nothing is decided."""
    closed: tuple[str, ...] = ()
    """ISO dates of days without bars that the agent's calendar does not know of."""
    history: str = ""
    """A file of bars from before the first that arrives, for `fastsim.data.read.read_bars`."""
