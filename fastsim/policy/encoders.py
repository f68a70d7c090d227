"""What looks at the last bars of an asset: evaluators by name, of the same weights for all assets.

An encoder makes D numbers of the last L bars of F features. It is given consecutive bars of many
assets and answers for every bar that has L - 1 before it, so that windows which overlap share what
they have in common. Bars before the first are zeros, as is a feature at its mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastsim.extensions import Registry
from fastsim.policy.convolve import convolve

PATCH = 5
"""Bars of a token of "attention", where a window holds two of them."""
HEADS = 2


@dataclass(frozen=True, kw_only=True)
class EncoderRecord:
    """An encoder by name: `PolicyConfig.encoder`."""

    name: str
    make: Callable[[int, int, int], nn.Module]
    """Features F, window L and channels D to a module from [L - 1 + S, K, F], standardised features
    of K assets at consecutive bars, to [S, K, D]: what it says at the last S of them. What it says
    of an asset at a bar may depend on nothing but that asset's L bars up to it."""


class Convolutions(nn.Module):
    """Causal convolutions over two bars each, twice as far apart from layer to layer.

    The last ones are as far apart as fills the window. After van den Oord et al. (2016), with what
    the layer before said added to what each says; as an evaluator shared by all assets it stands
    where Jiang, Xu and Liang (2017) have theirs (EIIE).
    """

    def __init__(self, features: int, window: int, channels: int) -> None:
        super().__init__()
        self.apart = spans(window)
        self.lift = nn.Linear(features, channels)
        self.now = nn.ModuleList(nn.Linear(channels, channels) for _ in self.apart)
        self.before = nn.ModuleList(nn.Linear(channels, channels, bias=False) for _ in self.apart)

    def forward(self, rows: Tensor) -> Tensor:
        """From [L - 1 + S, K, F] to [S, K, D]."""
        assets = rows.shape[1]
        hidden = self.lift(rows.flatten(0, 1)).T  # [D, (L - 1 + S) K]
        for apart, now, before in zip(self.apart, self.now, self.before, strict=True):
            hidden = convolve(hidden, apart * assets, now, before)
        return torch.unflatten(hidden.T, 0, (-1, assets))


class Recurrence(nn.Module):
    """A gated recurrent unit (Cho et al. 2014) that reads each window from nothing."""

    def __init__(self, features: int, window: int, channels: int) -> None:
        super().__init__()
        self.window = window
        self.cell = nn.GRU(features, channels)

    def forward(self, rows: Tensor) -> Tensor:
        """From [L - 1 + S, K, F] to [S, K, D]."""
        windows = rows.unfold(0, self.window, 1)  # [S, K, F, L]
        bars, assets = windows.shape[:2]
        _, last = self.cell(windows.flatten(0, 1).permute(2, 0, 1).contiguous())
        hidden: Tensor = last[0].view(bars, assets, -1)
        return hidden


class PatchAttention(nn.Module):
    """The last patch of a window asks all its patches, nearer and farther ones apart.

    Keys and values are made of each patch once, wherever it stands in a window: what tells near
    from far is a number by head and age, as in Press, Smith and Lewis (2022), but learned.
    """

    def __init__(self, features: int, window: int, channels: int) -> None:
        super().__init__()
        self.patch = PATCH if window >= 2 * PATCH else 1
        self.patches, self.spare = divmod(window, self.patch)
        self.heads = HEADS if channels % HEADS == 0 else 1
        self.lift = nn.Linear(self.patch * features, channels)
        self.ask = nn.Linear(channels, channels)
        self.tell = nn.Linear(channels, 2 * channels)
        self.age = nn.Parameter(torch.zeros(self.heads, self.patches))
        self.mix = nn.Linear(channels, channels)
        self.think = nn.Sequential(
            nn.Linear(channels, 2 * channels), nn.ReLU(), nn.Linear(2 * channels, channels)
        )

    def forward(self, rows: Tensor) -> Tensor:
        """From [L - 1 + S, K, F] to [S, K, D]."""
        patches = rows[self.spare :].unfold(0, self.patch, 1).flatten(2)  # [.., K, F patch]
        tokens = torch.relu(self.lift(patches))
        back = self.patch * (self.patches - 1)
        last = tokens[back:]  # [S, K, D]
        asked = self.ask(last).unflatten(-1, (self.heads, -1))  # [S, K, heads, d]
        told = self.tell(tokens).unflatten(-1, (2 * self.heads, -1))
        seen = torch.stack(
            [told[back - age : len(told) - age] for age in range(0, back + 1, self.patch)], 2
        )  # [S, K, patches, 2 heads, d]
        keys, values = seen.chunk(2, dim=3)
        score = torch.einsum("skhd,skphd->skhp", asked, keys) * keys.shape[-1] ** -0.5
        weight = torch.softmax(score + self.age, dim=-1)
        found = torch.einsum("skhp,skphd->skhd", weight, values).flatten(2)
        mixed = last + self.mix(found)
        hidden: Tensor = mixed + self.think(mixed)
        return hidden


class SetAttention(nn.Module):
    """Assets of a bar attend to one another (Lee et al. 2019), in no order; the masked to none."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = HEADS if channels % HEADS == 0 else 1
        self.parts = nn.Linear(channels, 3 * channels)
        self.mix = nn.Linear(channels, channels)

    def forward(self, assets: Tensor, listed: Tensor) -> Tensor:
        """What is to be added to [B, A, D], of which `listed` [B, A] are seen by the others."""
        asked, keys, values = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.parts(assets).chunk(3, dim=-1)
        )  # [B, heads, A, d]
        score = asked @ keys.transpose(-1, -2) * keys.shape[-1] ** -0.5
        score = score.masked_fill(~listed[:, None, None], torch.finfo(score.dtype).min)
        found = (torch.softmax(score, dim=-1) @ values).transpose(1, 2).flatten(2)
        said: Tensor = self.mix(found)
        return said


def spans(window: int) -> list[int]:
    """How far apart the two bars of each layer are, so that the last layer sees `window` bars."""
    found, seen = [], 1
    while seen < window:
        found.append(min(seen, window - seen))
        seen += found[-1]
    return found


ENCODERS: Registry[EncoderRecord] = Registry(
    "encoder",
    EncoderRecord,
    (
        EncoderRecord(name="conv", make=Convolutions),
        EncoderRecord(name="gru", make=Recurrence),
        EncoderRecord(name="attention", make=PatchAttention),
    ),
)
