"""Kronos's tokenizer, bars to pairs of tokens and back, and the layers that all of Kronos shares.

The architecture and the names of the weights are those of the official Kronos (Shi et al. 2025,
arXiv 2508.02739). A sample path branches off the context that it shares with the other paths: the
context is the trunk, read once and kept as keys and values, and each of the S paths is a branch.

`B` series, `L` tokens of the trunk, `S` branches, `n` tokens at a time, `m` tokens of a branch so
far, `D` width, `E` width of a head. All of it is also TorchScript.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor, nn

BAR_FIELDS = 6


class Rotary(nn.Module):
    """Rotary positions (Su et al. 2021), by halves.

    Checkpoints hold the frequencies; they are computed anew, which keeps them in float32 when the
    parameters are half: bfloat16 would turn position 500 by up to a radian too much.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("inv_freq", _frequencies(torch.arange(0, width, 2), width))

    def forward(self, x: Tensor, start: int) -> Tensor:
        """Turn `x` [..., n, E] by its positions, which count from `start`."""
        frequencies = _frequencies(torch.arange(0, self.width, 2, device=x.device), self.width)
        positions = torch.arange(start, start + x.shape[-2], device=x.device)
        angles = positions.to(torch.float32)[:, None] * frequencies  # [n, E / 2]
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        first, second = x.chunk(2, -1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


class RMSNorm(nn.Module):
    """Root-mean-square normalisation in float32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` [..., D]."""
        exact = x.to(torch.float32)
        scale = torch.rsqrt(exact.square().mean(-1, keepdim=True) + 1e-5)
        return (exact * scale).to(x.dtype) * self.weight


class Attention(nn.Module):
    """Projections of an attention; keys and values travel together, as [2, B, heads, ...]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.rotary = Rotary(width // heads)

    def trunk_heads(self, x: Tensor) -> Tensor:
        """Split [B, L, D] into [B, heads, L, E]."""
        return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def branch_heads(self, x: Tensor) -> Tensor:
        """Split [B, S, n, D] into [B, heads, S, n, E]."""
        batch, paths, tokens, _ = x.shape
        return x.view(batch, paths, tokens, self.heads, -1).permute(0, 3, 1, 2, 4)

    def join_branches(self, x: Tensor) -> Tensor:
        """Join [B, heads, S, n, E] and project to [B, S, n, D]."""
        joined: Tensor = self.out_proj(x.permute(0, 2, 3, 1, 4).flatten(-2))
        return joined


class SelfAttention(Attention):
    """Causal attention with rotary positions."""

    def forward(self, x: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Attend within a trunk `x` [B, L, D] where `seen` [B, 1, L, L]; also its keys, values."""
        queries = self.rotary(self.trunk_heads(self.q_proj(x)), 0)
        keys = self.rotary(self.trunk_heads(self.k_proj(x)), 0)
        values = self.trunk_heads(self.v_proj(x))
        mixed = nn.functional.scaled_dot_product_attention(queries, keys, values, attn_mask=seen)
        return self.out_proj(mixed.transpose(1, 2).flatten(-2)), torch.stack([keys, values])

    def branch(self, x: Tensor, step: int, trunk: Tensor, cache: Tensor, known: Tensor) -> Tensor:
        """Attend from `x` [B, S, n, D], tokens `step` and on of the branches, kept in `cache`."""
        start, end = trunk.shape[3] + step, step + x.shape[2]
        queries = self.rotary(self.branch_heads(self.q_proj(x)), start)
        cache[0, :, :, :, step:end] = self.rotary(self.branch_heads(self.k_proj(x)), start)
        cache[1, :, :, :, step:end] = self.branch_heads(self.v_proj(x))
        return self.join_branches(attend(queries, trunk, cache[:, :, :, :, :end], known))


class FeedForward(nn.Module):
    """Gated linear unit with SiLU (Shazeer 2020)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(width, inner, bias=False)
        self.w3 = nn.Linear(width, inner, bias=False)
        self.w2 = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each token of `x` [..., D]."""
        out: Tensor = self.w2(nn.functional.silu(self.w1(x)) * self.w3(x))
        return out


class Block(nn.Module):
    """One pre-normalised transformer layer."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.norm1 = RMSNorm(width)
        self.self_attn = SelfAttention(width, heads)
        self.norm2 = RMSNorm(width)
        self.ffn = FeedForward(width, inner)

    def forward(self, x: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Transform a trunk `x` [B, L, D]; also its keys and values [2, B, heads, L, E]."""
        mixed, trunk = self.self_attn(self.norm1(x), seen)
        x = x + mixed
        return x + self.ffn(self.norm2(x)), trunk

    def branch(self, x: Tensor, step: int, trunk: Tensor, cache: Tensor, known: Tensor) -> Tensor:
        """Transform tokens `x` [B, S, n, D] of the branches, which start at their token `step`."""
        x = x + self.self_attn.branch(self.norm1(x), step, trunk, cache, known)
        out: Tensor = x + self.ffn(self.norm2(x))
        return out


def attend(queries: Tensor, trunk: Tensor, branch: Tensor, known: Tensor) -> Tensor:
    """Attention of branches over the trunk that they share and what they hold themselves.

    Queries [B, heads, S, n, E] are the last n of the branch's m tokens. Keys and values are
    `trunk` [2, B, heads, L, E], read where `known` [B, L], and `branch` [2, B, heads, S, m, E],
    read causally. One softmax runs over both, so this equals attention over the whole path.
    """
    batch, heads, paths, new, width = queries.shape
    length = trunk.shape[3]
    queries = queries / sqrt(width)
    shared = queries.flatten(2, 3) @ trunk[0].transpose(-1, -2)  # [B, heads, S n, L]
    shared = shared.masked_fill(~known[:, None, None], float("-inf"))
    own = queries @ branch[0].transpose(-1, -2)  # [B, heads, S, n, m]
    if new > 1:
        later = torch.ones(new, own.shape[-1], dtype=torch.bool, device=own.device)
        own = own.masked_fill(later.triu(own.shape[-1] - new + 1), float("-inf"))
    scores = torch.cat([shared.view(batch, heads, paths, new, length), own], -1)
    weights = scores.softmax(-1, dtype=torch.float32).to(queries.dtype)
    over_trunk = weights[..., :length].flatten(2, 3) @ trunk[1]  # [B, heads, S n, E]
    return over_trunk.view(batch, heads, paths, new, width) + weights[..., length:] @ branch[1]


def empty_branch(trunk: Tensor, paths: int, tokens: int) -> Tensor:
    """Cache of keys and values [2, B, heads, S, tokens, E] for branches of this trunk."""
    two, batch, heads, _, width = trunk.shape
    return trunk.new_zeros([two, batch, heads, paths, tokens, width])


def causal_mask(known: Tensor) -> Tensor:
    """What each token of a trunk sees, [B, 1, L, L]: itself, and earlier ones that are `known`."""
    length = known.shape[1]
    square = torch.ones(length, length, dtype=torch.bool, device=known.device)
    earlier = square.tril(-1) & known[:, None]
    return (earlier | (square.tril() & square.triu())).unsqueeze(1)


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerConfig:
    """Shape of a tokenizer; fields are named as in the official config.json."""

    d_in: int = BAR_FIELDS
    d_model: int = 256
    n_heads: int = 4
    ff_dim: int = 512
    n_enc_layers: int = 4
    """One more than there are layers, officially; so is the next."""
    n_dec_layers: int = 4
    s1_bits: int = 10
    s2_bits: int = 10
    group_size: int = 4
    """Bits of a group in the training loss; only shapes a buffer here."""


class Quantizer(nn.Module):
    """Buffers of the official quantiser, which forecasts do not use but checkpoints hold."""

    def __init__(self, bits: int, group_size: int) -> None:
        super().__init__()
        self.bsq = nn.Module()
        self.bsq.register_buffer("basis", 2 ** torch.arange(bits - 1, -1, -1))
        self.bsq.register_buffer("group_basis", 2 ** torch.arange(group_size - 1, -1, -1))


class KronosTokenizer(nn.Module):
    """Bars to tokens by binary spherical quantisation (Zhao et al. 2024), and back.

    A bar becomes `s1_bits + s2_bits` signs on a sphere; the first are the coarse token s1, the
    rest the fine token s2, the lowest bit first.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        width, bits = config.d_model, config.s1_bits + config.s2_bits
        self.s1_bits, self.s2_bits = config.s1_bits, config.s2_bits
        shape = (width, config.n_heads, config.ff_dim)
        self.embed = nn.Linear(config.d_in, width)
        self.head = nn.Linear(width, config.d_in)
        self.encoder = nn.ModuleList(Block(*shape) for _ in range(config.n_enc_layers - 1))
        self.decoder = nn.ModuleList(Block(*shape) for _ in range(config.n_dec_layers - 1))
        self.quant_embed = nn.Linear(width, bits)
        self.post_quant_embed_pre = nn.Linear(config.s1_bits, width)
        self.post_quant_embed = nn.Linear(bits, width)
        self.tokenizer = Quantizer(bits, config.group_size)

    def forward(self, bars: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens s1 and s2 [B, L] of normalised bars [B, L, 6].

        The nearest corner of the cube on the sphere has the signs of the projected bar, so its
        length does not matter and is not normalised.
        """
        x = self.embed(bars)
        seen = causal_mask(known)
        for layer in self.encoder:
            x = layer(x, seen)[0]
        signs = (self.quant_embed(x) > 0).to(torch.int64)  # [B, L, bits]
        return _to_tokens(signs[..., : self.s1_bits]), _to_tokens(signs[..., self.s1_bits :])

    def decode(
        self, trunk: tuple[Tensor, Tensor], branches: tuple[Tensor, Tensor], known: Tensor
    ) -> Tensor:
        """Normalised bars [B, S, H, 6] of the branches' tokens, each [B, S, H].

        They follow on the trunk's tokens, each [B, L], which are read where `known` [B, L].
        """
        x = self.post_quant_embed(self._corners(trunk[0], trunk[1]))
        new = self.post_quant_embed(self._corners(branches[0], branches[1]))
        seen = causal_mask(known)
        for layer in self.decoder:
            x, keys_values = layer(x, seen)
            cache = empty_branch(keys_values, new.shape[1], new.shape[2])
            new = layer.branch(new, 0, keys_values, cache, known)  # type: ignore[operator]
        bars: Tensor = self.head(new)
        return bars

    def _corners(self, s1: Tensor, s2: Tensor) -> Tensor:
        """Points [..., bits] on the unit sphere."""
        signs = torch.cat([_to_signs(s1, self.s1_bits), _to_signs(s2, self.s2_bits)], -1)
        length = sqrt(self.s1_bits + self.s2_bits)
        return (signs * 2 - 1).to(self.post_quant_embed.weight.dtype) / length


def _frequencies(dimensions: Tensor, width: int) -> Tensor:
    """Radians per position [E / 2] of a head's even dimensions, float32."""
    return 1.0 / 10_000.0 ** (dimensions.to(torch.float32) / width)


def _to_tokens(signs: Tensor) -> Tensor:
    places = torch.arange(signs.shape[-1], device=signs.device)
    return (signs << places).sum(-1)


def _to_signs(tokens: Tensor, bits: int) -> Tensor:
    places = torch.arange(bits, device=tokens.device)
    return (tokens[..., None] >> places) & 1
