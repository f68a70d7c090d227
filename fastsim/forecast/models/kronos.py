"""Kronos (NeoQuasar): a decoder over tokens of whole bars, forecasting by sampled paths.

Official architecture and weights (Shi et al. 2025, arXiv 2508.02739; MIT). The context is read
once; every sample path branches off it with caches of its own. `KronosProgram` is TorchScript as it
stands, loops and all: give a `KronosModel` its scripted program before tracing it, or the trace
unrolls every step. Half precision forecasts from the same distribution but along other paths, since
a draw that lands on another token changes all that follows: its gate is that of
`fastsim.forecast.artifacts.sampled`.

Where the official predictor is followed and where not:

- Channels are normalised by their mean and deviation over the context and clipped at 5. The
  official 1e-5 added to the deviation swamps prices far below 1: there it is 1e-5 of the mean.
- Fields that are NaN: the open is the close before, high and low span open and close, volume and
  traded value are 0; without traded value it is the volume times the mean of the four prices. The
  official predictor does the last two and refuses the rest. A bar without a close is flat, at the
  close before, without volume. Bars before the first close are masked.
- Official forecasts are told the future timestamps; here they follow the context's last by its
  median spacing, without the weekdays and times of day that the context never has: no weekends for
  stocks. Holidays are not foreseen. Calendar fields are UTC.
- The last `max_context - horizon` bars are read, so that a path never outgrows the window. With
  `slide`, the last `max_context` are, and the window slides as it does officially: exactly, but at
  the official cost of reading a whole window again for each further bar of each path.
- Where the official predictor averages its paths, their quantiles are returned.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from fastsim.config import configuration
from fastsim.data.bars import CLOSE
from fastsim.errors import ForecastError, one_line
from fastsim.forecast.interface import ForecastModel, Looping, ModelCard
from fastsim.forecast.networks.kronos_network import Kronos, KronosConfig
from fastsim.forecast.networks.kronos_tokenizer import (
    KronosTokenizer,
    TokenizerConfig,
    empty_branch,
)
from fastsim.forecast.weights import (
    find_weights,
    load_exactly,
    read_safetensors,
    require_parameters,
)

DAY_S = 86_400
NEVER = 1 << 62
"""Later than any bar."""
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_Config = TypeVar("_Config", "KronosConfig", TokenizerConfig)


@configuration
class Sampling:
    """How paths are drawn. Temperature and top_p are the official predictor's defaults."""

    paths: int = 16
    temperature: float = 1.0
    top_p: float = 0.9
    """Draw from the likeliest tokens, up to the first that takes their probability past this."""
    slide: bool = False
    """Read `max_context` bars, not `horizon` fewer, and slide the window: slow."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.paths < 1:
            raise ForecastError(f"Sampling.paths must be at least 1, got {self.paths!r}")
        if not (isfinite(self.temperature) and self.temperature > 0):
            raise ForecastError(f"Sampling.temperature must be above 0, got {self.temperature!r}")
        if not 0 < self.top_p <= 1:
            raise ForecastError(f"Sampling.top_p must be in (0, 1], got {self.top_p!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """Where the official weights of one part are, and how many they are."""

    hub_id: str
    revision: str
    parameters: int


CONFIGS = {
    "mini": KronosConfig(n_layers=4, d_model=256, n_heads=4, ff_dim=512),
    "small": KronosConfig(n_layers=8, d_model=512, n_heads=8, ff_dim=1024),
    "base": KronosConfig(n_layers=12, d_model=832, n_heads=16, ff_dim=2048),
}
_TOKENIZER = Release(
    hub_id="NeoQuasar/Kronos-Tokenizer-base",
    revision="0e0117387f39004a9016484a186a908917e22426",
    parameters=3_958_042,
)
TOKENIZER_CONFIGS = {
    "mini": TokenizerConfig(group_size=5),
    "small": TokenizerConfig(),
    "base": TokenizerConfig(),
}
RELEASES = {
    "mini": Release(
        hub_id="NeoQuasar/Kronos-mini",
        revision="f4e68697d9d5aed55cef5c96aabc3376bcad9f81",
        parameters=4_108_032,
    ),
    "small": Release(
        hub_id="NeoQuasar/Kronos-small",
        revision="901c26c1332695a2a8f243eb2f37243a37bea320",
        parameters=24_741_376,
    ),
    "base": Release(
        hub_id="NeoQuasar/Kronos-base",
        revision="2b554741eca47781b64468546e77fef3e85130e6",
        parameters=102_310_592,
    ),
}
TOKENIZER_RELEASES = {
    "mini": Release(
        hub_id="NeoQuasar/Kronos-Tokenizer-2k",
        revision="26966d0035065a0cae0ebad7af8ece35bc1fb51c",
        parameters=_TOKENIZER.parameters,
    ),
    "small": _TOKENIZER,
    "base": _TOKENIZER,
}
MAX_CONTEXT = {"mini": 2048, "small": 512, "base": 512}


def _card(size: str) -> ModelCard:
    return ModelCard(
        name=f"kronos-{size}",
        licence="MIT",
        attribution="Kronos, Shi et al. 2025, arXiv 2508.02739",
        hub_id=RELEASES[size].hub_id,
        revision=RELEASES[size].revision,
        parameters=RELEASES[size].parameters + TOKENIZER_RELEASES[size].parameters,
        max_context=MAX_CONTEXT[size],
        max_horizon=MAX_CONTEXT[size] // 2,
        levels=LEVELS,
        inputs="bars",
        known_until="2024-05-31",
        known_source="its authors: trained to February 2024, validated March to May 2024",
    )


CARDS = {size: _card(size) for size in CONFIGS}
"""By size. The parameters are those of the decoder, as officially named, and of its tokenizer."""


class KronosProgram(Looping):
    """From bars to quantiles, with nothing but tensors and loops: one TorchScript program."""

    def __init__(
        self, network: Kronos, tokenizer: KronosTokenizer, max_context: int, sampling: Sampling
    ) -> None:
        super().__init__()
        self.network, self.tokenizer, self.max_context = network, tokenizer, max_context
        self.paths, self.seed = sampling.paths, sampling.seed
        self.temperature, self.top_p = sampling.temperature, sampling.top_p
        self.levels, self.close = list(LEVELS), CLOSE

    def forward(
        self, bars: Tensor, timestamps: Tensor, horizon: int, noise: Tensor | None = None
    ) -> Tensor:
        """Quantiles [B, H, Q] of the close, for uniform noise [B, S, H, 2] or the default."""
        if noise is None:
            noise = uniform_noise(timestamps[:, -1], self.paths, horizon, self.seed)
        closes = self.sample_bars(bars, timestamps, noise)[..., self.close]  # [B, S, H]
        levels = torch.tensor(self.levels, dtype=torch.float32, device=closes.device)
        return closes.quantile(levels, dim=1).movedim(0, -1)

    def sample_bars(self, bars: Tensor, timestamps: Tensor, noise: Tensor) -> Tensor:
        """Bars [B, S, H, 6] float32 of paths, in the units of the bars."""
        bars, known = fill_bars(bars)
        normal, mean, deviation = normalise(bars, known)
        stamps = calendar(extend_timestamps(timestamps, known, noise.shape[2]))
        paths = self.sample(normal, stamps, known, noise).to(torch.float32)
        return paths * deviation[:, None, None] + mean[:, None, None]

    def sample(self, normal: Tensor, stamps: Tensor, known: Tensor, noise: Tensor) -> Tensor:
        """Normalised bars [B, S, H, 6] after normalised bars [B, L, 6].

        Calendar fields are [B, L + H, 5]; `known` [B, L] is false on padding.
        """
        dtype = self.network.norm.weight.dtype
        trunk = self.tokenizer(normal.to(dtype), known)
        branches = self.sample_tokens(trunk, stamps, known, noise)
        kept = min(normal.shape[1], self.max_context - noise.shape[2])
        last = (trunk[0][:, -kept:], trunk[1][:, -kept:])
        decoded: Tensor = self.tokenizer.decode(last, branches, known[:, -kept:])
        return decoded

    def sample_tokens(
        self, trunk: tuple[Tensor, Tensor], stamps: Tensor, known: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Tokens s1 and s2 [B, S, H] that follow on those of the trunk, each [B, L]."""
        batch, paths, horizon, _ = noise.shape
        length = trunk[0].shape[1]
        hidden, memory = self.network(trunk, stamps[:, :length], known)
        last = hidden[:, None, -1:].expand(-1, paths, -1, -1)  # [B, S, 1, D]
        fitting = max(0, min(horizon - 1, self.max_context - length))
        caches = [empty_branch(keys_values, paths, fitting) for keys_values in memory]
        s1 = torch.zeros([batch, paths, horizon], dtype=torch.int64, device=noise.device)
        s2 = torch.zeros_like(s1)
        for step in range(horizon):
            if step <= fitting:
                if step > 0:
                    before = (s1[:, :, step - 1], s2[:, :, step - 1])
                    stamp = stamps[:, length + step - 1]
                    last = self.network.extend(before, stamp, step - 1, memory, caches, known)
                branch = caches[-1][:, :, :, :, :step]
                drawn = self.draw_pair(last, memory[-1], branch, known, noise[:, :, step])
            else:
                sampled = (s1[:, :, :step], s2[:, :, :step])
                drawn = self.slide(trunk, sampled, stamps, known, noise[:, :, step])
            s1[:, :, step], s2[:, :, step] = drawn[0], drawn[1]
        return s1, s2

    def draw_pair(
        self, last: Tensor, trunk: Tensor, branch: Tensor, known: Tensor, uniform: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Next tokens s1 and s2 [B, S] after hidden states [B, S, 1, D], for noise [B, S, 2]."""
        s1 = draw(self.network.logits_s1(last), uniform[..., 0], self.temperature, self.top_p)
        logits = self.network.logits_s2(last, s1, trunk, branch, known)
        return s1, draw(logits, uniform[..., 1], self.temperature, self.top_p)

    def slide(
        self,
        trunk: tuple[Tensor, Tensor],
        sampled: tuple[Tensor, Tensor],
        stamps: Tensor,
        known: Tensor,
        uniform: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Next tokens [B, S] once the window is full: every path's last tokens, read anew."""
        batch, paths, step = sampled[0].shape
        start, end = trunk[0].shape[1] + step - self.max_context, trunk[0].shape[1] + step
        window = (
            _append(trunk[0], sampled[0])[:, start:],
            _append(trunk[1], sampled[1])[:, start:],
        )
        stamp = stamps[:, start:end].repeat_interleave(paths, 0)
        seen = nn.functional.pad(known, [0, step], value=True)[:, start:]
        seen = seen.repeat_interleave(paths, 0)
        hidden, memory = self.network(window, stamp, seen)
        branch = empty_branch(memory[-1], 1, 0)
        noise = uniform.reshape(batch * paths, 1, 2)
        s1, s2 = self.draw_pair(hidden[:, None, -1:], memory[-1], branch, seen, noise)
        return s1.view(batch, paths), s2.view(batch, paths)


class Tokens(NamedTuple):
    """Pairs of tokens: of a context, and of the paths that follow on it."""

    trunk: tuple[Tensor, Tensor]  # each [B, L]
    paths: tuple[Tensor, Tensor]  # each [B, S, H]


class KronosModel(ForecastModel):
    """Kronos behind the contract of every model.

    Unless noise is given, it is a hash of (seed, last timestamp, path, step): a row's forecast does
    not depend on the rows beside it beyond rounding, more paths or a longer horizon keep the draws
    of fewer, and assets forecast at the same time share their draws. Rounding, of a different batch
    size or of half precision, moves a path only where a draw falls next to the border of a token.
    """

    def __init__(
        self, network: Kronos, tokenizer: KronosTokenizer, card: ModelCard, sampling: Sampling
    ) -> None:
        super().__init__()
        self.program = KronosProgram(network, tokenizer, card.max_context, sampling)
        self.sampling = sampling
        changed = [
            f"{field.name}={getattr(sampling, field.name)}"
            for field in fields(sampling)
            if getattr(sampling, field.name) != field.default
        ]
        self.card = replace(card, name="-".join([card.name, *changed]))

    def settings(self) -> dict[str, Any]:
        """How paths are drawn."""
        return asdict(self.sampling)

    @torch.no_grad()
    def forward(self, *inputs: Tensor, horizon: int, noise: Tensor | None = None) -> Tensor:
        """Quantiles [B, horizon, 9] of the close, float32, over sampled paths.

        Parameters
        ----------
        inputs
            Bars [B, L, 6], NaN where missing, and timestamps [B, L], int64 seconds since 1970 UTC.
            The last `max_context - horizon` bars are read, or `max_context` with `slide`.
        noise
            Uniform [B, S, horizon, 2] in [0, 1), for s1 and s2; 0 takes the likeliest token.

        Raises
        ------
        ForecastError
            The horizon or the shape of the noise does not fit.
        """
        if not 1 <= horizon <= self.card.max_horizon:
            raise ForecastError(
                f"{self.card.name} forecasts 1 to {self.card.max_horizon} bars ahead, not {horizon}"
            )
        bars, timestamps = self._read(inputs, horizon)
        fitting = (len(bars), horizon, 2)
        if noise is not None and (noise.dim() != 4 or (len(noise), *noise.shape[2:]) != fitting):
            raise ForecastError(
                f"{self.card.name}: noise must be [{len(bars)}, paths, {horizon}, 2], "
                f"got {tuple(noise.shape)}"
            )
        quantiles: Tensor = self.program(bars, timestamps, horizon, noise)
        return quantiles

    def _read(self, inputs: tuple[Tensor, ...], horizon: int) -> tuple[Tensor, Tensor]:
        """The bars and timestamps that are looked at."""
        length = self.card.max_context - (0 if self.sampling.slide else horizon)
        bars, timestamps = (column[:, -length:] for column in inputs)
        return bars, timestamps

    def paths(self, *inputs: Tensor, noise: Tensor) -> Tensor:
        """Closes [B, S, H] of paths, for uniform noise [B, S, H, 2]."""
        sampled: Tensor = self.program.sample_bars(*self._read(inputs, noise.shape[2]), noise)
        return sampled[..., CLOSE]

    def sample_paths(self, *inputs: Tensor, horizon: int, paths: int | None) -> Tensor:
        """Closes [B, S, horizon] of paths, by default those that its quantiles are taken of."""
        stamps = inputs[1][:, -1]
        count = self.sampling.paths if paths is None else paths
        return self.paths(*inputs, noise=uniform_noise(stamps, count, horizon, self.sampling.seed))

    @torch.no_grad()
    def bar_quantiles(self, *inputs: Tensor, horizon: int, noise: Tensor | None = None) -> Tensor:
        """Quantiles [B, horizon, 6, 9] of every column of the bars, float32, over the same paths.

        Those of the close are what `forward` gives; noise as there.
        """
        read = self._read(inputs, horizon)
        if noise is None:
            noise = uniform_noise(read[1][:, -1], self.sampling.paths, horizon, self.sampling.seed)
        sampled: Tensor = self.program.sample_bars(*read, noise)  # [B, S, H, 6]
        return sampled.quantile(sampled.new_tensor(LEVELS), dim=1).movedim(0, -1)

    def tokens(self, *inputs: Tensor, noise: Tensor) -> Tokens:
        """Tokens of the context and of paths, for uniform noise [B, S, H, 2]."""
        read, stamps, known = self._prepared(inputs, noise.shape[2])
        trunk = self.program.tokenizer(read.to(self.program.network.norm.weight.dtype), known)
        return Tokens(trunk, self.program.sample_tokens(trunk, stamps, known, noise))

    def laws(self, *inputs: Tensor, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """Probabilities [B, S, H, V] of both tokens of every bar, given the tokens before it.

        They are those before `top_p` cuts them, which half precision does elsewhere. Paths must
        not outgrow the window.
        """
        network, (s1, s2) = self.program.network, tokens.paths
        paths, horizon = s1.shape[1:]
        _, stamps, known = self._prepared(inputs, horizon)
        length = tokens.trunk[0].shape[1]
        hidden, memory = network(tokens.trunk, stamps[:, :length], known)
        caches = [empty_branch(keys_values, paths, horizon) for keys_values in memory]
        last = hidden[:, None, -1:].expand(-1, paths, -1, -1)
        found: list[tuple[Tensor, Tensor]] = []
        for step in range(horizon):
            if step > 0:
                before = (s1[:, :, step - 1], s2[:, :, step - 1])
                stamp = stamps[:, length + step - 1]
                last = network.extend(before, stamp, step - 1, memory, caches, known)
            branch = caches[-1][:, :, :, :, :step]
            fine = network.logits_s2(last, s1[:, :, step], memory[-1], branch, known)
            found.append((network.logits_s1(last), fine))
        coarse, fine = (torch.stack(logits, 2).float() for logits in zip(*found, strict=True))
        heat = self.sampling.temperature
        return (coarse / heat).softmax(-1), (fine / heat).softmax(-1)

    def _prepared(self, inputs: tuple[Tensor, ...], horizon: int) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised bars [B, L, 6], calendar [B, L + H, 5], and what of the context is known."""
        bars, timestamps = self._read(inputs, horizon)
        bars, known = fill_bars(bars)
        stamps = calendar(extend_timestamps(timestamps, known, horizon))
        return normalise(bars, known)[0], stamps, known


def draw(logits: Tensor, uniform: Tensor, temperature: float, top_p: float) -> Tensor:
    """Tokens [...] from logits [..., V] by inverting their distribution at uniform noise [...].

    Tokens go by falling probability, and only those up to the first that takes the sum past `top_p`
    are drawn (nucleus sampling, Holtzman et al. 2020), so noise 0 draws the likeliest.
    """
    scaled = logits.to(torch.float32) / temperature
    ranked, order = scaled.softmax(-1).sort(-1, descending=True)
    total = ranked.cumsum(-1)
    count = 1 + (total[..., :-1] <= top_p).sum(-1, keepdim=True)  # [..., 1]
    target = uniform[..., None] * total.gather(-1, count - 1)
    rank = (total <= target).sum(-1, keepdim=True).minimum(count - 1)
    return order.gather(-1, rank).squeeze(-1)


def fill_bars(bars: Tensor) -> tuple[Tensor, Tensor]:
    """Bars [B, L, 6] without NaN, as this file's head says, and which are known [B, L].

    Bars before the first close are not known, and 0.
    """
    finite = bars.isfinite()
    present = finite[..., 3]
    index = torch.arange(bars.shape[1], device=bars.device)
    newest = torch.where(present, index, -1).cummax(1).values  # [B, L] the last close so far
    known = newest >= 0
    close = bars[..., 3].gather(1, newest.clamp_min(0))
    close = torch.where(known, close, 0.0)
    before = torch.where(known[:, :-1], close[:, :-1], close[:, 1:])
    before = torch.cat([close[:, :1], before], 1)
    given = finite & present[..., None]
    opening = torch.where(given[..., 0], bars[..., 0], before)
    high = torch.where(given[..., 1], bars[..., 1], opening.maximum(close))
    low = torch.where(given[..., 2], bars[..., 2], opening.minimum(close))
    volume = torch.where(given[..., 4], bars[..., 4], 0.0)
    amount = volume * (opening + high + low + close) / 4
    amount = torch.where(given[..., 4] & given[..., 5], bars[..., 5], amount)
    filled = torch.stack([opening, high, low, close, volume, amount], -1)
    return torch.where(known[..., None], filled, 0.0), known


def normalise(
    bars: Tensor, known: Tensor, clip: float = 5.0, min_deviation: float = 1e-5
) -> tuple[Tensor, Tensor, Tensor]:
    """Clipped z-scores [B, L, 6] of filled bars, and each channel's mean and deviation [B, 6].

    Moments are taken in float64, since traded values squared overflow float32.
    """
    exact, weight = bars.to(torch.float64), known[..., None].to(torch.float64)
    count = weight.sum(1).clamp_min(1.0)  # [B, 1]
    mean = (exact * weight).sum(1) / count  # [B, 6]
    centred = (exact - mean[:, None]) * weight
    floor = min_deviation * mean[:, :4].abs().clamp_max(1.0)
    floor = nn.functional.pad(floor, [0, 2], value=min_deviation)
    deviation = (centred.square().sum(1) / count).sqrt() + floor.clamp_min(1e-30)
    scores = (centred / deviation[:, None]).clamp(-clip, clip)
    return scores.to(torch.float32), mean.to(torch.float32), deviation.to(torch.float32)


def extend_timestamps(
    timestamps: Tensor, known: Tensor, horizon: int, never: int = NEVER
) -> Tensor:
    """Timestamps [B, L + H]: the context's, then those of the next H bars by its own calendar.

    Bars follow the last by the median spacing of those known. Left out are days of the week that
    the context never has, and times of day where bars are shorter than a day, or times of the week
    where it holds two: weekends and nights, where a market has them. What is too short to tell
    leaves nothing out: a week is needed for days, a day for times. A bar of a week or more that
    would end on a day that the context never has ends before it.
    """
    gaps, counted = timestamps.diff(dim=1), known[:, :-1]
    ranked = torch.where(counted, gaps, never).sort(1).values
    count = counted.sum(1, keepdim=True)
    median = ranked.gather(1, (count - 1).clamp_min(0) // 2)
    step = torch.where(count > 0, median, 0)  # [B, 1]
    room = _steps_for(timestamps, known, step, horizon)
    ahead = torch.arange(1, room + 1, device=timestamps.device)
    following = timestamps[:, -1:] + step * ahead
    traded = _traded(timestamps, known, step, following)
    place = torch.where(traded, ahead, room + ahead).sort(1).values[:, :horizon]  # traded first
    chosen = timestamps[:, -1:] + step * torch.where(place > room, place - room, place)
    return torch.cat([timestamps, _on_traded_days(timestamps, known, step, chosen)], 1)


def _traded(
    timestamps: Tensor,
    known: Tensor,
    step: Tensor,
    following: Tensor,
    day: int = DAY_S,
    never: int = NEVER,
) -> Tensor:
    """Whether bars `step` [B, 1] apart would be at times [B, S], by where the context has bars."""
    first = torch.where(known, timestamps, never).amin(1, keepdim=True)
    span = timestamps[:, -1:] - first + step  # [B, 1]  what the bars stand for; < 0 without any
    weekday = _has_day(timestamps, known, following) | (span < 7 * day)
    time_of_day = _has_time(timestamps, known, following, day) | (span < day)
    of_week = _has_time(timestamps, known, following, 7 * day)
    within_days = torch.where(span < 14 * day, weekday & time_of_day, of_week)
    return torch.where(step < day, within_days, weekday | (step > day))


def _has_day(timestamps: Tensor, known: Tensor, following: Tensor) -> Tensor:
    """Whether the context has known bars on the weekdays of times [B, S]."""
    seen = torch.zeros(len(timestamps), 7, dtype=torch.int64, device=timestamps.device)
    seen = seen.scatter_add(1, _weekday(timestamps), known.to(torch.int64))
    return seen.gather(1, _weekday(following)) > 0


def _has_time(
    timestamps: Tensor, known: Tensor, following: Tensor, period: int, never: int = NEVER
) -> Tensor:
    """Whether the context has known bars at the times [B, S] of the day, or of another period."""
    times = torch.where(known, timestamps % period, never).sort(1).values  # [B, L]
    wanted = following % period
    place = torch.searchsorted(times, wanted).clamp_max(times.shape[1] - 1)
    return times.gather(1, place) == wanted


def _on_traded_days(
    timestamps: Tensor, known: Tensor, step: Tensor, following: Tensor, day: int = DAY_S
) -> Tensor:
    """Times [B, H], those of bars of a week or more moved back to a weekday that there is."""
    for _ in range(6):
        moved = (step >= 7 * day) & ~_has_day(timestamps, known, following)
        following = torch.where(moved, following - day, following)
    return following


def _steps_for(
    timestamps: Tensor,
    known: Tensor,
    step: Tensor,
    horizon: int,
    week: int = 7 * DAY_S,
    never: int = NEVER,
) -> int:
    """So many steps, of whatever series, that they meet H times at which it has bars."""
    bars = known.sum(1).clamp_min(1)
    first = torch.where(known, timestamps, never).amin(1)
    spanned = (timestamps[:, -1] - first).clamp_min(0) // step[:, 0].clamp_min(1)
    for_each = 1 + spanned // bars
    a_week = torch.full_like(step, week) // step.clamp_min(1)
    closed = torch.where(step > 0, a_week, 0)
    return int(for_each.amax()) * horizon + int(closed.amax()) + 1


def _weekday(timestamps: Tensor, day: int = DAY_S) -> Tensor:
    """Monday 0 to Sunday 6, in UTC."""
    return (timestamps // day + 3) % 7


def calendar(timestamps: Tensor) -> Tensor:
    """Minute, hour, weekday (Monday 0), day and month [..., 5] of seconds since 1970, in UTC.

    Dates by Hinnant's days-to-civil algorithm, in which years begin in March.
    """
    days = timestamps // 86_400
    seconds = timestamps - days * 86_400
    shifted = days + 719_468  # since 0000-03-01
    of_era = shifted % 146_097
    leaps = of_era // 1_460 - of_era // 36_524 + of_era // 146_096
    year = (of_era - leaps) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    from_march = (5 * of_year + 2) // 153
    day = of_year - (153 * from_march + 2) // 5 + 1
    month = (from_march + 2) % 12 + 1
    fields = [seconds // 60 % 60, seconds // 3_600, _weekday(timestamps), day, month]
    return torch.stack(fields, -1)


def uniform_noise(timestamps: Tensor, paths: int, horizon: int, seed: int = 0) -> Tensor:
    """Noise [B, paths, horizon, 2] in [0, 1): hashes of (seed, timestamp, path, step, token)."""
    device = timestamps.device
    key = _mix(_mix(timestamps ^ _mix(torch.full_like(timestamps, seed))) + (timestamps >> 32))
    key = _mix(key[:, None] + torch.arange(1, paths + 1, device=device))
    key = _mix(key[..., None] + torch.arange(1, horizon + 1, device=device))
    bits = _mix(key[..., None] + torch.arange(1, 3, device=device))
    return (bits >> 8).to(torch.float32) * 2.0**-24


def _mix(bits: Tensor) -> Tensor:
    """Hash the low 32 bits of int64 numbers to [0, 2^32): Wellons's lowbias32, off its zero."""
    bits = (bits + 0x9E3779B9) & 0xFFFFFFFF
    bits = ((bits ^ (bits >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
    bits = ((bits ^ (bits >> 15)) * 0x846CA68B) & 0xFFFFFFFF
    return bits ^ (bits >> 16)


def _append(trunk: Tensor, sampled: Tensor) -> Tensor:
    """Whole paths [B S, L + h] from a trunk [B, L] and what was sampled after it [B, S, h]."""
    shared = trunk[:, None].expand(-1, sampled.shape[1], -1)
    return torch.cat([shared, sampled], -1).flatten(0, 1)


def load_kronos(
    size: str = "small",
    path: str | Path | None = None,
    tokenizer_path: str | Path | None = None,
    revision: str | None = None,
    samples: int = 16,
    *,
    temperature: float = 1.0,
    top_p: float = 0.9,
    slide: bool = False,
    seed: int = 0,
) -> KronosModel:
    """Kronos with its official weights, on the CPU in float32.

    Parameters
    ----------
    size
        "mini", "small" or "base".
    path, tokenizer_path
        The model's and the tokenizer's `model.safetensors`, or a folder that holds it; a
        `config.json` beside it is read. None asks the hub; a folder `tokenizer` within `path` goes
        before the hub.
    revision
        Of the model on the hub; None is the pinned one.
    samples
        Paths that the quantiles are taken over.
    temperature, top_p, slide, seed
        As in `Sampling`.

    Raises
    ------
    ForecastError
        The size is unknown, or weights cannot be had, are damaged, or are of another size.
    """
    if size not in CARDS:
        raise ForecastError(f"Kronos comes as {', '.join(CARDS)}, not {size!r}")
    card = replace(CARDS[size], revision=revision or CARDS[size].revision)
    release = replace(RELEASES[size], revision=card.revision or "")
    if tokenizer_path is None and path is not None and (Path(path) / "tokenizer").is_dir():
        tokenizer_path = Path(path) / "tokenizer"
    weights, config = _files(card.name, release, CONFIGS[size], path)
    tokenizer_release = TOKENIZER_RELEASES[size]
    tokenizer_weights, tokenizer_config = _files(
        f"{card.name}'s tokenizer", tokenizer_release, TOKENIZER_CONFIGS[size], tokenizer_path
    )
    bits = (config.s1_bits, config.s2_bits)
    if bits != (tokenizer_config.s1_bits, tokenizer_config.s2_bits):
        raise ForecastError(
            f"{card.name} has tokens of {bits} bits, {tokenizer_weights} of "
            f"{(tokenizer_config.s1_bits, tokenizer_config.s2_bits)}: they do not belong together"
        )
    network, tokenizer = Kronos(config), KronosTokenizer(tokenizer_config)
    _fill(card.name, network, release, weights)
    _fill(f"{card.name}'s tokenizer", tokenizer, tokenizer_release, tokenizer_weights)
    sampling = Sampling(paths=samples, temperature=temperature, top_p=top_p, slide=slide, seed=seed)
    return KronosModel(network, tokenizer, card, sampling).eval()


def random_kronos(
    config: KronosConfig,
    tokenizer_config: TokenizerConfig,
    *,
    seed: int,
    max_context: int = 512,
    sampling: Sampling | None = None,
) -> KronosModel:
    """Kronos with random weights, for tests of shapes and speed: its forecasts mean nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network, tokenizer = Kronos(config), KronosTokenizer(tokenizer_config)
    parts = (network, tokenizer)
    card = replace(
        CARDS["mini"],
        name="kronos-random",
        hub_id=None,
        revision=None,
        parameters=sum(weight.numel() for part in parts for weight in part.parameters()),
        max_context=max_context,
        max_horizon=max_context // 2,
    )
    return KronosModel(network, tokenizer, card, sampling or Sampling()).eval()


def _files(
    name: str, release: Release, default: _Config, path: str | Path | None
) -> tuple[Path, _Config]:
    """Weights of one part and its config; the official one where none lies beside local weights."""
    where = {"hub_id": release.hub_id, "revision": release.revision}
    weights = find_weights(name, "model.safetensors", path=path, **where)
    if path is None:
        return weights, _read_config(
            name, find_weights(name, "config.json", path=None, **where), type(default)
        )
    beside = weights.parent / "config.json"
    return weights, _read_config(name, beside, type(default)) if beside.is_file() else default


def _read_config(name: str, path: Path, kind: type[_Config]) -> _Config:
    try:
        given = json.loads(path.read_text())
        missing = [field.name for field in fields(kind) if field.name not in given]
        if missing:
            raise ValueError(f"it lacks {missing[0]}")
        values = {field.name: int(given[field.name]) for field in fields(kind)}
        if values["d_model"] % values["n_heads"] or values["d_model"] // values["n_heads"] % 2:
            raise ValueError(f"{values['n_heads']} heads do not fit a width of {values['d_model']}")
        return kind(**values)  # type: ignore[arg-type]
    except (ZeroDivisionError, OSError, ValueError, TypeError) as error:
        reason = one_line(error, 160)
        raise ForecastError(f"{name}: {path} is no config.json of Kronos ({reason})") from None


def _fill(name: str, module: nn.Module, release: Release, weights: Path) -> None:
    require_parameters(name, module, release.parameters)
    load_exactly(name, module, read_safetensors(name, weights), weights)
