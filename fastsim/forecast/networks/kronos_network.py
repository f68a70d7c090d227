"""Kronos's decoder: from tokens of bars to logits of the next pair of tokens.

Names of the weights are the official ones. `forward` reads a context, the trunk, once; `extend`
reads one more token of every branch. Legend as in `kronos_tokenizer`; all of it is TorchScript.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastsim.forecast.networks.kronos_tokenizer import (
    Attention,
    Block,
    RMSNorm,
    attend,
    causal_mask,
)

DEPENDENCY_HEADS = 4
_CALENDAR_SIZES = {"minute": 60, "hour": 24, "weekday": 7, "day": 32, "month": 13}


@dataclass(frozen=True, kw_only=True, slots=True)
class KronosConfig:
    """Shape of the decoder; fields are named as in the official config.json."""

    s1_bits: int = 10
    s2_bits: int = 10
    n_layers: int
    d_model: int
    n_heads: int
    ff_dim: int
    learn_te: bool = True
    """Whether embeddings of the calendar are learned; they are part of the checkpoint anyway."""


class TokenEmbedding(nn.Module):
    """One vector for a pair of tokens."""

    def __init__(self, config: KronosConfig) -> None:
        super().__init__()
        width = config.d_model
        self.scale = float(width) ** 0.5
        self.emb_s1 = nn.Embedding(2**config.s1_bits, width)
        self.emb_s2 = nn.Embedding(2**config.s2_bits, width)
        self.fusion_proj = nn.Linear(2 * width, width)

    def forward(self, s1: Tensor, s2: Tensor) -> Tensor:
        """Embed tokens of any shape [...] as [..., D]."""
        both = torch.cat([self.emb_s1(s1), self.emb_s2(s2)], -1) * self.scale
        fused: Tensor = self.fusion_proj(both)
        return fused


class FixedEmbedding(nn.Module):
    """A calendar embedding that was not learned, under its official name."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.emb = nn.Embedding(size, width)
        self.emb.weight.requires_grad_(False)

    def forward(self, index: Tensor) -> Tensor:
        """Embed an index."""
        embedded: Tensor = self.emb(index)
        return embedded


class CalendarEmbedding(nn.Module):
    """Sum of the embeddings of minute, hour, weekday, day and month."""

    def __init__(self, width: int, learned: bool) -> None:
        super().__init__()
        kind = nn.Embedding if learned else FixedEmbedding
        self.minute_embed = kind(_CALENDAR_SIZES["minute"], width)
        self.hour_embed = kind(_CALENDAR_SIZES["hour"], width)
        self.weekday_embed = kind(_CALENDAR_SIZES["weekday"], width)
        self.day_embed = kind(_CALENDAR_SIZES["day"], width)
        self.month_embed = kind(_CALENDAR_SIZES["month"], width)

    def forward(self, stamps: Tensor) -> Tensor:
        """Embed calendar fields [..., 5] as [..., D]."""
        minute, hour, weekday, day, month = stamps.unbind(-1)
        date = self.weekday_embed(weekday) + self.day_embed(day) + self.month_embed(month)
        total: Tensor = self.hour_embed(hour) + date + self.minute_embed(minute)
        return total


class DependencyLayer(nn.Module):
    """Lets the fine token s2 depend on the coarse token s1 that was drawn.

    Its keys carry no rotary position and its query stands at position 0: an official quirk, for
    queries there come one at a time and their length sets the positions. The weights know no other.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cross_attn = Attention(width, DEPENDENCY_HEADS)
        self.norm = RMSNorm(width)

    def read(self, hidden: Tensor) -> Tensor:
        """Keys and values [2, B, heads, L, E] of a trunk's hidden states [B, L, D]."""
        attention = self.cross_attn
        keys = attention.trunk_heads(attention.k_proj(hidden))
        return torch.stack([keys, attention.trunk_heads(attention.v_proj(hidden))])

    def extend(self, hidden: Tensor, step: int, cache: Tensor) -> None:
        """Write the branches' hidden states [B, S, 1, D] into their cache at `step`."""
        attention = self.cross_attn
        cache[0, :, :, :, step : step + 1] = attention.branch_heads(attention.k_proj(hidden))
        cache[1, :, :, :, step : step + 1] = attention.branch_heads(attention.v_proj(hidden))

    def forward(
        self, hidden: Tensor, sibling: Tensor, trunk: Tensor, branch: Tensor, known: Tensor
    ) -> Tensor:
        """Hidden states [B, S, 1, D] given the embedding [B, S, 1, D] of the s1 that was drawn."""
        queries = self.cross_attn.branch_heads(self.cross_attn.q_proj(sibling))
        mixed = self.cross_attn.join_branches(attend(queries, trunk, branch, known))
        conditioned: Tensor = self.norm(hidden + mixed)
        return conditioned


class Heads(nn.Module):
    """Logits of the two tokens."""

    def __init__(self, config: KronosConfig) -> None:
        super().__init__()
        self.proj_s1 = nn.Linear(config.d_model, 2**config.s1_bits)
        self.proj_s2 = nn.Linear(config.d_model, 2**config.s2_bits)


class Kronos(nn.Module):
    """The decoder. Its memory is a list of keys and values: one a layer, then the dependency's."""

    def __init__(self, config: KronosConfig) -> None:
        super().__init__()
        width = config.d_model
        self.embedding = TokenEmbedding(config)
        self.time_emb = CalendarEmbedding(width, config.learn_te)
        self.transformer = nn.ModuleList(
            Block(width, config.n_heads, config.ff_dim) for _ in range(config.n_layers)
        )
        self.norm = RMSNorm(width)
        self.dep_layer = DependencyLayer(width)
        self.head = Heads(config)

    def forward(
        self, tokens: tuple[Tensor, Tensor], stamps: Tensor, known: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Read a trunk: hidden states [B, L, D] and memory.

        Tokens s1 and s2 are [B, L], calendar fields [B, L, 5]; `known` [B, L] is false on padding.
        """
        x = self.embedding(tokens[0], tokens[1]) + self.time_emb(stamps)
        seen = causal_mask(known)
        memory: list[Tensor] = []
        for layer in self.transformer:
            x, keys_values = layer(x, seen)
            memory.append(keys_values)
        hidden: Tensor = self.norm(x)
        memory.append(self.dep_layer.read(hidden))
        return hidden, memory

    def extend(
        self,
        tokens: tuple[Tensor, Tensor],
        stamps: Tensor,
        step: int,
        memory: list[Tensor],
        caches: list[Tensor],
        known: Tensor,
    ) -> Tensor:
        """Read token `step` of every branch, each [B, S], at calendar fields [B, 5].

        Returns hidden states [B, S, 1, D]; fills the caches, which are laid out like the memory.
        """
        x = self.embedding(tokens[0], tokens[1]) + self.time_emb(stamps)[:, None]
        x = x.unsqueeze(2)
        for index, layer in enumerate(self.transformer):
            x = layer.branch(x, step, memory[index], caches[index], known)  # type: ignore[operator]
        hidden: Tensor = self.norm(x)
        self.dep_layer.extend(hidden, step, caches[-1])
        return hidden

    def logits_s1(self, hidden: Tensor) -> Tensor:
        """Logits [B, S, 2^s1_bits] of the coarse token."""
        logits: Tensor = self.head.proj_s1(hidden.squeeze(2))
        return logits

    def logits_s2(
        self, hidden: Tensor, s1: Tensor, trunk: Tensor, branch: Tensor, known: Tensor
    ) -> Tensor:
        """Logits [B, S, 2^s2_bits] of the fine token after the coarse token [B, S]."""
        sibling = self.embedding.emb_s1(s1).unsqueeze(2)
        hidden = self.dep_layer(hidden, sibling, trunk, branch, known)
        logits: Tensor = self.head.proj_s2(hidden.squeeze(2))
        return logits
