"""Worlds drawn while they are lived in: every episode follows a path that none has seen before.

Worlds come in one endless sequence, a batch at a time, and a key begins it: what the worlds hold
depends on the model, the key and the batch's size alone. On the tape every market has `ahead`
places. Its episode e lives in place e mod ahead, which nobody else enters, and once that episode is
over the next world of the sequence is laid there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastsim.config import configuration
from fastsim.errors import CheckpointError, ConfigError
from fastsim.market.tape import MarketTape, TapeConfig
from fastsim.synthetic.interface import PathModel
from fastsim.synthetic.worlds import check_model, make_worlds


@configuration(slots=False, eq=False)
class FreshWorlds:
    """A market whose every episode is a world of its own; an environment takes it for a tape.

    A world of 10 assets and 320 bars takes 3 ms of one core to draw and lay, 5 with Heston's model;
    about half is features. The tape holds `ahead` worlds for each market, some 100 bytes for every
    bar of every asset in float32, what fused steps keep included, and 16 for a column of windows.
    """

    model: PathModel
    bars: int
    """Of each world, the warm-up of the features included."""
    config: TapeConfig | None = None
    ahead: int = 2
    """Worlds that a market has ahead, its present one among them. A market that begins more
    episodes than this before its environment is renewed meets worlds again."""
    batch: int = 32
    """Worlds drawn at once: with fewer, models that go bar by bar take longer over each world."""
    symbols: tuple[str, ...] = ()
    """Names of the assets; A0, A1, ... if there are none."""
    device: torch.device | str = "cpu"
    """Where the tape lies. Worlds are drawn on the CPU."""
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        check_model(self.model, "FreshWorlds.model")
        for name, least in (("bars", 2), ("ahead", 2), ("batch", 1)):
            value = getattr(self, name)
            if value < least:
                raise ConfigError(
                    f"FreshWorlds.{name} must be a whole number >= {least}, got {value!r}"
                )

    def draw(self, key: int, batch: int) -> MarketTape:
        """Worlds `batch` * self.batch and following of the sequence of this key, below 2^32.

        Raises
        ------
        ConfigError
            There are not as many symbols as assets.
        DataError
            Too few bars for the features.
        """
        tape = make_worlds(
            self.model,
            self.batch,
            self.bars,
            seed=key ^ batch,  # no two batches of a key share a seed
            config=self.config,
            device=torch.device(self.device),
            dtype=self.dtype,
        )
        symbols = self.symbols or tape.symbols
        if len(symbols) != tape.num_assets:
            raise ConfigError(
                f"FreshWorlds.symbols must name the model's {tape.num_assets} assets, "
                f"got {len(symbols)}"
            )
        return replace(tape, symbols=symbols)

    def to(self, device: torch.device | str) -> FreshWorlds:
        """The same source of worlds, laid out on another device."""
        return replace(self, device=device)

    def lay(self, markets: int, *, extremes: bool = False) -> LaidWorlds:
        """A tape with room for the worlds of `markets` markets; errors as `draw`.

        With `extremes` it says how far prices go within bars, as `MarketTape.with_extremes` does.
        """
        return LaidWorlds(self, markets, extremes=extremes)


class LaidWorlds:
    """The tape of M markets with S ahead each; world p = m + M s is place s of market m.

    Until `deal`, the worlds of one batch lie on it again and again.
    """

    def __init__(self, source: FreshWorlds, markets: int, *, extremes: bool = False) -> None:
        self.source, self.markets, self._extremes = source, markets, extremes
        self._drawn = (0, 0), self._draw(0, 0)  # key and number of a batch, and the batch
        count = source.ahead * markets
        self.tape = _repeated(self._drawn[1], count, source.ahead)
        self.key, self.ahead = 0, 0  # of the sequence, and its first world not laid yet
        self.number = np.full(count, -1)  # [S M]  of the world in the sequence
        self.episode = np.full(count, -1)  # [S M]  of its market that lives in it

    def deal(self, key: int) -> Tensor:
        """Begin with the first worlds of a key and episode 0; returns the worlds [K] that changed.

        Key and batch are 32 bits of a seed: keys are `fastsim.env.random.environment_keys`.
        """
        number = np.arange(len(self.number))
        return self._lay(key, len(number), number, number // self.markets)

    def renew(self, episode: NDArray[np.int64]) -> Tensor:
        """Draw anew what lies behind markets that are in these episodes [M].

        Returns the worlds [K] that changed. One that a market is in never does.
        """
        ahead = self.source.ahead
        coming = episode + (np.arange(ahead)[:, None] - episode) % ahead  # [S, M]  next in each
        held = self.episode.reshape(ahead, -1)
        behind = (held < coming) & (coming > episode)
        fresh = np.where(behind, coming, held).ravel()
        number, places = self.number.copy(), np.flatnonzero(behind)
        number[places] = self.ahead + np.arange(len(places))
        return self._lay(self.key, self.ahead + len(places), number, fresh)

    def state_dict(self) -> dict[str, Any]:
        """Which worlds lie where: what they hold follows from it."""
        return {
            "key": self.key,
            "ahead": self.ahead,
            "number": torch.from_numpy(self.number),
            "episode": torch.from_numpy(self.episode),
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> Tensor:
        """Lay the worlds of a `state_dict` again; returns those [K] that changed.

        Raises
        ------
        CheckpointError
            It is of another number of markets or ahead.
        """
        number, episode = (saved[name].numpy(force=True) for name in ("number", "episode"))
        if number.shape != self.number.shape:
            raise CheckpointError(
                f"the checkpoint holds {len(number)} worlds and this configuration "
                f"{len(self.number)}: use as many environments, players and ahead as it did"
            )
        return self._lay(saved["key"], saved["ahead"], number, episode)

    def _lay(
        self, key: int, ahead: int, number: NDArray[np.int64], episode: NDArray[np.int64]
    ) -> Tensor:
        places = np.flatnonzero((number != self.number) | (key != self.key))
        batch, row = np.divmod(number[places], self.source.batch)
        for wanted in np.unique(batch).tolist():
            mine = batch == wanted
            self._copy(self._batch(key, wanted), row[mine], places[mine])
        self.key, self.ahead, self.number, self.episode = key, ahead, number, episode
        return torch.from_numpy(places).to(self.tape.device)

    def _batch(self, key: int, batch: int) -> MarketTape:
        """A batch of the sequence: the last one drawn, which may have worlds left, or drawn now."""
        if self._drawn[0] != (key, batch):
            self._drawn = (key, batch), self._draw(key, batch)
        return self._drawn[1]

    def _draw(self, key: int, batch: int) -> MarketTape:
        drawn = self.source.draw(key, batch)
        return drawn.with_extremes() if self._extremes else drawn

    def _copy(
        self, drawn: MarketTape, worlds: NDArray[np.int64], places: NDArray[np.int64]
    ) -> None:
        """Lay these worlds [K] of a batch in these places [K]."""
        here, there = (torch.from_numpy(number).to(self.tape.device) for number in (places, worlds))
        bars, values = self.tape.bars_of(here), drawn.take(drawn.bars_of(there))
        for table, row in zip(self.tape.known, values.known, strict=True):
            table[bars] = row
        self.tape.next.put(bars, values.next)


def _repeated(tape: MarketTape, worlds: int, ahead: int) -> MarketTape:
    """A tape of `worlds` worlds: those of `tape` in turn."""
    bars = tape.bars_of(torch.arange(worlds, device=tape.device) % tape.worlds)
    return replace(tape.take(bars), worlds=worlds, worlds_per_market=ahead)
