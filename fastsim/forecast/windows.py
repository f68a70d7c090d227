"""The past of every asset at every bar, cut out of a market."""

from __future__ import annotations

import hashlib

import torch

from fastsim.forecast.interface import Context
from fastsim.market.tape import MarketTape


def context_at(tape: MarketTape, bars: slice, length: int) -> Context:
    """Contexts that end at each of these bars, for every asset: rows bar by bar, asset by asset.

    Before the first bar of the tape a context is padded with NaN, and time goes on backwards at the
    tape's first step.
    """
    start, stop, _ = bars.indices(len(tape))
    first = start - length + 1
    table = tape.known.bars[max(first, 0) : stop]  # [rows, A, 6]
    stamps = torch.from_numpy(
        tape.timestamps[max(first, 0) : stop].astype("datetime64[s]").astype(int)
    )
    if first < 0:
        table = torch.cat([table.new_full((-first, *table.shape[1:]), torch.nan), table])
        step = int((tape.timestamps[1] - tape.timestamps[0]).astype("timedelta64[s]").astype(int))
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
