"""Who decides: one protocol for policies, strategies, scripted players, past selves and your own.

Whatever lets somebody play, a replay, a match or a league, gives each a `Seat` on its market and
need not know which of them it is.
"""

from __future__ import annotations

from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor

from fastsim.env.actions import action_width, actions_for
from fastsim.env.ahead import Ahead, Targets
from fastsim.env.config import EnvConfig
from fastsim.env.nested import select
from fastsim.env.observe import Observation
from fastsim.errors import ActionError, ConfigError
from fastsim.market.tape import MarketTape


class Decider(Protocol):
    """Who decides for some rows of a market, bar by bar. It has settings, and never changes.

    Only `decide` has to be written. It is handed what was seen, and two things that others keep for
    it: what it once worked out of the market, and what it remembers of each row. Remembering row by
    row lets a row begin afresh with its episode, and a checkpoint hold what is remembered.
    """

    @property
    def answers(self) -> str:
        """What it says: target weights [n, A] that leave the rest as cash, or actions of a mode."""
        return "weights"

    def study(self, tape: MarketTape, rules: EnvConfig, /) -> Any:
        """What it works out of a market ahead, once; the tape itself if it is not written.

        Tables may go beyond the bar it is asked at; what it answers there may not depend on that.
        Who cannot play on this market raises ConfigError or DataError.
        """
        return tape

    def begin(self, market: Any, rows: int, /) -> Any:
        """What it remembers of `rows` rows whose episodes begin: nothing, if it is not written.

        A tensor [n, ...], or nested named tuples of them.
        """
        return ()

    def decide(self, market: Any, seen: Observation, memory: Any, /) -> tuple[Tensor, Any]:
        """Its answers [n, W], a row of NaN holding, and what it remembers from then on.

        Parameters
        ----------
        market
            What `study` returned.
        seen
            Bar, portfolio and view of its n rows.
        memory
            What `begin`, or `decide` at the bar before, said of these rows. Not to be changed.
        """
        ...

    def ahead(self, market: Any, bars: Tensor, memory: Any, /) -> tuple[Ahead, Any] | None:
        """How `decide` comes to its answers at these bars [B], one after the other.

        With it, what is remembered after the last of them. None, if it is not written: then it is
        asked bar by bar. What is said here must be what `decide` would say, so a class that is
        handed down says it for itself alone.
        """
        return None


Who = TypeVar("Who", bound=Decider)


class Seat(Generic[Who]):
    """The place of a decider on a market: it asks, and keeps what is remembered of the rows.

    Raises
    ------
    ConfigError
        The decider cannot play by these rules.
    """

    def __init__(self, decider: Who, tape: MarketTape, rules: EnvConfig, *, rows: int = 0) -> None:
        self.decider, self.mode = decider, rules.action
        self.market = decider.study(tape, rules)
        if decider.answers not in ("weights", rules.action):
            raise ConfigError(
                f"{type(decider).__name__} answers in {decider.answers}, and "
                f'EnvConfig.action = "{rules.action}" here: use that of the decider'
            )
        self._width = action_width(decider.answers, tape.num_assets)
        self.begin(rows)

    def begin(self, rows: int) -> None:
        """Sit on so many rows from now on, whose episodes begin."""
        self._fresh = self.memory = self.decider.begin(self.market, rows)

    def restart(self, begun: Tensor) -> None:
        """Forget those of the rows [n] whose episodes have `begun`."""
        self.memory = select(begun, self._fresh, self.memory)

    def ahead(self, bars: Tensor) -> tuple[Ahead, Any] | None:
        """How actions at these bars [B] come about, and what is to be remembered then.

        None if the decider cannot say, or not in actions of this mode.
        """
        ask = getattr(self.decider, "ahead", None)
        said = None if ask is None else ask(self.market, bars, self.memory)
        if said is None or self.decider.answers == self.mode:
            return said
        how, memory = said
        if not isinstance(how, Targets) or bool(how.keeps.any()):
            return None
        actions = actions_for(how.answers.flatten(0, 1), self.mode)
        return how._replace(answers=actions.view(*how.answers.shape[:2], -1)), memory

    def __call__(self, seen: Observation) -> Tensor:
        """Actions [n, width] for what the rows see.

        Raises
        ------
        ActionError
            The decider's answer has another shape.
        """
        said, self.memory = self.decider.decide(self.market, seen, self.memory)
        wanted = (len(seen.bar), self._width)
        if tuple(said.shape) != wanted:
            raise ActionError(
                f"{type(self.decider).__name__} must answer with shape {wanted}, "
                f"got {tuple(said.shape)}"
            )
        return said if self.decider.answers == self.mode else actions_for(said, self.mode)
