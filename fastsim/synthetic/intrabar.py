"""Opens, highs, lows and volumes around simulated closes.

A bar of log return r and variance s2 is Brownian between its closes. The share phi of its variance
falls before the open:

    log O = log C_before + phi r + sqrt(phi (1 - phi) s2) xi                  the bridge at phi
    log H = log O + (x + sqrt(x^2 - 2 (1 - phi) s2 log U)) / 2,  x = log C - log O
    log L = log O + (x - sqrt(x^2 - 2 (1 - phi) s2 log U')) / 2

The extremes are those of a Brownian bridge from 0 to x (reflection principle; Borodin and Salminen
2002, 2.8): each exact. Their joint law is a series, so U and U' are joined by a normal copula whose
correlation gives the range of a bridge from 0 to 0 its exact variance pi^2/6 - pi/2 (Kuiper 1960;
Feller 1951); independent, it would be three times that. The mean square range of Brownian bars is
then 0.8 % below Parkinson's 4 log 2 (1980), and would be 2.7 % above.

    V = V0 (1 + |r| / sd)^e exp(d xi - d^2 / 2)

log-normal given the bar's absolute return, in units of its long-run standard deviation sd: volume
and volatility rise together (Karpoff 1987; Tauchen and Pitts 1983).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from fastsim.config import configuration, require_between
from fastsim.synthetic.interface import Paths
from fastsim.synthetic.shocks import draw_normal

EXTREMES_CORRELATION = -0.6854912272897664
"""Of the normals behind U and U': solves Var(range) = pi^2/6 - pi/2, by quadrature."""


@configuration
class IntrabarConfig:
    """What a bar looks like inside."""

    overnight: float = 0.25
    """Share phi of a bar's variance between the close before it and its open."""
    volume: float = 1e6
    """V0: mean units traded in a bar without a return."""
    volume_elasticity: float = 1.0
    """e: power of 1 + |log return| / its long-run standard deviation."""
    volume_noise: float = 0.4
    """d: standard deviation of log volume given the return."""

    def __post_init__(self) -> None:
        require_between(self, "overnight", 0, 1)
        require_between(self, "volume", 0, open_low=True)
        require_between(self, "volume_elasticity", 0, 10)
        require_between(self, "volume_noise", 0, 5)


class Moves(NamedTuple):
    """What a model says of every bar."""

    log_return: Tensor  # [T, M, A]  close to close
    variance: Tensor  # [T, M, A]  of its diffusion
    typical: Tensor  # [A]  long-run standard deviation of one bar's log return
    jump: Tensor | None = (
        None  # [T, M, A]  the part of the log return that comes overnight, as news
    )


def make_paths(
    moves: Moves, start_price: Tensor, config: IntrabarConfig | None, generator: Generator
) -> Paths:
    """Chain log returns from `start_price` [A], and draw what happens within the bars."""
    log_close = start_price.log() + moves.log_return.cumsum(0)  # [T, M, A]
    close = log_close.exp()
    if config is None:
        return Paths(None, None, None, close.transpose(0, 1), None)
    log_open, log_high, log_low = _within(moves, log_close, config.overnight, generator)
    open_ = log_open.exp()
    # logarithms and prices round differently: the order of prices is settled on prices
    high = torch.maximum(log_high.exp(), torch.maximum(open_, close))
    low = torch.minimum(log_low.exp(), torch.minimum(open_, close))
    volume = draw_volume(moves.log_return.abs() / moves.typical, config, generator)
    fields = (open_, high, low, close, volume)
    return Paths(*(field.transpose(0, 1) for field in fields))


def _within(
    moves: Moves, log_close: Tensor, share: float, generator: Generator
) -> tuple[Tensor, Tensor, Tensor]:
    shape = tuple(log_close.shape)
    jump = torch.zeros_like(log_close) if moves.jump is None else moves.jump
    diffusion = moves.log_return - jump
    spread = (share * (1.0 - share) * moves.variance).sqrt()
    overnight = jump + share * diffusion + spread * draw_normal(shape, generator)
    day, variance = moves.log_return - overnight, (1.0 - share) * moves.variance
    log_open = log_close - day
    first, own = draw_normal(shape, generator), draw_normal(shape, generator)
    second = EXTREMES_CORRELATION * first + (1.0 - EXTREMES_CORRELATION**2) ** 0.5 * own
    up = bridge_maximum(day, variance, torch.special.log_ndtr(first))
    down = bridge_maximum(-day, variance, torch.special.log_ndtr(second))
    return log_open, log_open + up, log_open - down


def bridge_maximum(end: Tensor, variance: Tensor, log_uniform: Tensor) -> Tensor:
    """Maximum of a Brownian bridge from 0 to `end`: (x + sqrt(x^2 - 2 s2 log U)) / 2.

    P(max > m) = exp(-2 m (m - x) / s2) for m >= max(0, x), solved for m.
    """
    return 0.5 * (end + (end.square() - 2.0 * variance * log_uniform).sqrt())


def draw_volume(size: Tensor, config: IntrabarConfig, generator: Generator) -> Tensor:
    """Units traded [T, M, A] in bars of absolute return `size`, in typical standard deviations."""
    noise = config.volume_noise * draw_normal(tuple(size.shape), generator)
    log_volume = config.volume_elasticity * size.log1p() + noise - 0.5 * config.volume_noise**2
    return config.volume * log_volume.exp()
