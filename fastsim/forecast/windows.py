"""The past of every asset at every bar, cut out of a market."""

from __future__ import annotations

import hashlib
from numbers import Integral

import torch

from fastsim.errors import ForecastError
from fastsim.forecast.interface import Context
from fastsim.market.tape import MarketTape

DAY_S = 86_400


def context_at(tape: MarketTape, bars: slice, length: int) -> Context:
    """Contexts that end at each of these bars, for every asset: rows bar by bar, asset by asset.

    Before the first bar of the tape a context is padded with NaN, and time goes on backwards at the
    tape's first step.

    Raises
    ------
    ForecastError
        The length is no whole number from 1 up, or the bars are not on the tape.
    """
    if not isinstance(length, Integral) or isinstance(length, bool) or length < 1:
        raise ForecastError(f"a context has a whole number of bars from 1 up, not {length!r}")
    start, stop, _ = bars.indices(len(tape))
    if (bars.start or 0) < 0 or stop < (bars.stop or 0) or start >= stop:
        raise ForecastError(
            f"bars {bars.start} to {bars.stop} are not on the tape, which has bars 0 to "
            f"{len(tape) - 1}"
        )
    first = start - length + 1
    table = tape.known.bars[max(first, 0) : stop]  # [rows, A, 6]
    stamps = torch.from_numpy(
        tape.timestamps[max(first, 0) : stop].astype("datetime64[s]").astype(int)
    )
    if first < 0:
        table = torch.cat([table.new_full((-first, *table.shape[1:]), torch.nan), table])
        seconds = tape.timestamps[:2].astype("datetime64[s]").astype(int)
        step = int(seconds[-1] - seconds[0]) or DAY_S  # of a tape of one bar: a day
        earlier = stamps[0] + step * torch.arange(first, 0)
        stamps = torch.cat([earlier, stamps])
    windows = table.unfold(0, length, 1)  # [bars, A, 6, L]
    rows = (stop - start) * tape.num_assets
    times = stamps.to(table.device).unfold(0, length, 1)[:, None].expand(-1, tape.num_assets, -1)
    return Context(
        windows.permute(0, 1, 3, 2).reshape(rows, length, 6), times.reshape(rows, length)
    )


def market_fingerprint(tape: MarketTape) -> str:
    """SHA-256 of the symbols, timestamps and bars of a market."""
    digest = hashlib.sha256(repr(tape.symbols).encode())
    digest.update(tape.timestamps.astype("datetime64[ns]").astype("int64").tobytes())
    digest.update(tape.known.bars.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
