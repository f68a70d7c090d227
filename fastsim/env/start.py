"""What a caller of `reset` asks for: a bar or a date to begin at, and rows to begin anew."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastsim.config import whole_number
from fastsim.data.dates import show
from fastsim.env.config import EnvConfig
from fastsim.env.random import environment_keys
from fastsim.errors import ConfigError, one_line
from fastsim.market.tape import MarketTape

Start = int | str | date | np.datetime64 | None
"""A bar, a date or time of day (UTC), or None for one that is drawn."""
Starts = Start | Sequence[Start] | NDArray[Any] | Tensor
"""One for all rows, or one for each [N]."""
Rows = Sequence[bool] | NDArray[np.bool_] | Tensor
"""A mask [N]."""
_YEARS = 1678, 2261
_MANY = (list, tuple, np.ndarray, Tensor)


def keys_under(
    seed: int | Sequence[int] | NDArray[Any], rows: Tensor, first_env: int, players: int
) -> Tensor:
    """Keys of randomness [N] of these rows [N] under one seed, or each under its own.

    Raises
    ------
    ConfigError
        A seed is no whole number >= 0, or there are not as many as rows.
    """
    if not isinstance(seed, _MANY):
        return environment_keys(whole_number("seed", seed), (rows + first_env) // players)
    if len(seed) != len(rows):
        raise ConfigError(f"seed must be one or a list of {len(rows)}, got {len(seed)}")
    seeds = [whole_number("seed", each) for each in seed]
    return environment_keys(seeds, (torch.zeros_like(rows) + first_env) // players)


def rows_to_begin(mask: Rows | None, num_envs: int, players: int) -> Tensor | None:
    """A mask as a tensor [N] on the host.

    Raises
    ------
    ConfigError
        It is not [N] truth values, or parts the players of a market.
    """
    if mask is None:
        return None
    wanted = f"mask must be {num_envs} truth values, one for each row"
    if not isinstance(mask, _MANY):
        raise ConfigError(f"{wanted}, got {one_line(repr(mask), 60)}")
    try:
        rows = mask.cpu() if isinstance(mask, Tensor) else torch.from_numpy(np.array(mask))
    except (TypeError, ValueError):
        raise ConfigError(f"{wanted}, got {one_line(repr(mask), 60)}") from None
    if rows.dtype != torch.bool or rows.shape != (num_envs,):
        kind = str(rows.dtype).removeprefix("torch.")
        raise ConfigError(f"{wanted}, got {kind} of shape {tuple(rows.shape)}")
    markets = rows.view(-1, players)
    if (markets != markets[:, :1]).any():
        raise ConfigError(
            f"mask would part the {players} players of a market, who begin together: "
            f"give all of them, or none"
        )
    return rows


def chosen_starts(
    tape: MarketTape, config: EnvConfig, start: Starts, num_envs: int, rows: Tensor | None
) -> Tensor | None:
    """Bars [N] of their worlds to begin at, negative where they are drawn; None if all are.

    Only the starts of `rows` [N] are looked at, if there are any.

    Raises
    ------
    ConfigError
        A start is no bar or date, or leaves no room for an episode; or there are not N of them; or
        they differ within a market.
    """
    if start is None:
        return None
    each = _each_row(start, num_envs)
    begun = [True] * num_envs if rows is None else rows.tolist()
    if len({id(one) for one in each}) == 1:
        bars = [_bar(tape, config, each[0])] * num_envs
    else:
        bars = [
            _bar(tape, config, one) if mine else -1 for one, mine in zip(each, begun, strict=True)
        ]
    chosen = torch.tensor(bars, dtype=torch.int64)
    markets = chosen.view(-1, config.players)
    if (markets != markets[:, :1]).any():
        raise ConfigError(
            f"start must be the same for the {config.players} players of a market, who begin "
            f"together"
        )
    return chosen.to(tape.device)


def _each_row(start: Any, num_envs: int) -> list[Any]:
    if not isinstance(start, _MANY) or (not isinstance(start, list | tuple) and start.ndim == 0):
        return [start.item() if isinstance(start, Tensor) else start] * num_envs
    if isinstance(start, Tensor):
        start = start.numpy(force=True)
    if len(start) != num_envs:
        raise ConfigError(
            f"start must be one bar or date, or one for each of {num_envs} rows, "
            f"got {len(start)} of them"
        )
    return list(start)


def _bar(tape: MarketTape, config: EnvConfig, start: Any) -> int:
    """The bar of its world that a start means; -1 for None."""
    if start is None:
        return -1
    if isinstance(start, np.ndarray) and start.ndim == 0:
        start = start[()]
    stamps, horizon = tape.timestamps[: tape.bars_per_world], config.episode.horizon
    if isinstance(start, Integral) and not isinstance(start, bool | np.bool_):
        bar, shown = int(start), str(int(start))
    else:
        stamp = _stamp(start)
        bar, shown = int(np.searchsorted(stamps, stamp)), show(stamp)
    latest = tape.last - (horizon or 1)
    if not tape.first <= bar <= latest:
        room = "" if horizon is None else f" of {horizon} steps"
        raise ConfigError(
            f"start {shown} leaves no room: episodes{room} can begin at bars {tape.first} to "
            f"{latest} here, {show(stamps[tape.first])} to {show(stamps[latest])}"
        )
    return bar


def _stamp(start: Any) -> np.datetime64:
    """A date or time as people give it."""
    moment = start
    try:
        if isinstance(moment, str):
            moment = datetime.fromisoformat(moment.strip())
        if isinstance(moment, np.datetime64) and not np.isnat(moment):
            moment = moment.astype("datetime64[us]").item()
        if isinstance(moment, datetime) and moment.tzinfo is not None:
            moment = moment.astimezone(UTC).replace(tzinfo=None)
        if isinstance(moment, date) and _YEARS[0] <= moment.year <= _YEARS[1]:
            return np.datetime64(moment, "ns")
    except (ValueError, OverflowError):
        pass
    raise ConfigError(
        f"start must be a bar (a whole number) or a date such as '2020-01-31', "
        f"got {one_line(repr(start), 60)}"
    )
