"""The recurrence of an sLSTM on a GPU: one kernel for all tokens; a loop launches 18 for each.

A program has some series of one head and keeps their state in registers. Float16 weights of the
head stay on the chip from the first token to the last; a state, which is float32 whatever the
weights are, is split into two halves that add up to it to 22 bits, and both are multiplied by the
weights as they are, by the units for products of halves. Other weights are float32, of which a head
has too many for the chip: they come from the cache in chunks, at every token.

Annotations are not deferred in this file, because the compiler reads them.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

INTERPRETED = bool(triton.knobs.runtime.interpret)
"""Whether kernels run in Python, on tensors anywhere: TRITON_INTERPRET=1 when this was imported."""
ROWS = 32
"""Series of a program: 1,024 of them in 4 heads are one program for each of 128 multiprocessors."""
WARPS = 8
CHUNK = 16
"""Rows of float32 weights that are on the chip at once: all of them would not fit."""
HALVES = 2
"""Numbers of float16 that a state is split into."""


@triton.jit
def recurrence(
    inputs, bias, kernel, state, last, output, tokens, batch, state_part, state_head, state_row,
    width: tl.constexpr, rows: tl.constexpr, parts: tl.constexpr, chunk: tl.constexpr,
):  # fmt: skip
    """Fill `output` [E, S, B, W] float32; what it reads is laid out as `outputs` says.

    `last` [E, B, W] holds the last output of every series, for weights that come in chunks.
    """
    head = tl.program_id(1)
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    column = tl.arange(0, width)
    inside = (row < batch)[:, None]
    held = state + head * state_head + row[:, None] * state_row + column[None, :]
    out = tl.load(held, mask=inside, other=0.0)
    cell = tl.load(held + state_part, mask=inside, other=0.0)
    normaliser = tl.load(held + 2 * state_part, mask=inside, other=1.0)
    maximum = tl.load(held + 3 * state_part, mask=inside, other=0.0)
    added = bias + head * 4 * width + column[None, :]
    kept_out = last + (head * batch + row[:, None]) * width
    piece = tl.arange(0, chunk)
    if parts > 1:
        weight = kernel + head * 4 * width * width + column[:, None] * 4 * width + column[None, :]
        to_input, to_forget = tl.load(weight), tl.load(weight + width)
        to_cell, to_gate = tl.load(weight + 2 * width), tl.load(weight + 3 * width)
    for token in range(tokens):
        place = (head * tokens + token) * batch + row[:, None].to(tl.int64)
        gates = inputs + place * 4 * width + column[None, :]
        log_input = _gate(gates, added, inside)
        forget = _gate(gates + width, added + width, inside)
        candidate = _gate(gates + 2 * width, added + 2 * width, inside)
        gate = _gate(gates + 3 * width, added + 3 * width, inside)
        if parts > 1:
            rest = out
            for _ in tl.static_range(parts):
                part = rest.to(kernel.dtype.element_ty)
                log_input = tl.dot(part, to_input, log_input)
                forget = tl.dot(part, to_forget, forget)
                candidate = tl.dot(part, to_cell, candidate)
                gate = tl.dot(part, to_gate, gate)
                rest = rest - part.to(tl.float32)
        else:
            tl.store(kept_out + column[None, :], out, mask=inside)
            tl.debug_barrier()  # other threads of the program read it
            for first in tl.range(0, width, chunk, num_stages=1):
                part = tl.load(kept_out + first + piece[None, :], mask=inside, other=0.0)
                weight = kernel + (head * width + first + piece[:, None]) * 4 * width
                weight += column[None, :]
                log_input = tl.dot(part, tl.load(weight), log_input, input_precision="ieee")
                weight += width
                forget = tl.dot(part, tl.load(weight), forget, input_precision="ieee")
                weight += width
                candidate = tl.dot(part, tl.load(weight), candidate, input_precision="ieee")
                weight += width
                gate = tl.dot(part, tl.load(weight), gate, input_precision="ieee")
            tl.debug_barrier()
        cell, normaliser, maximum = _held(cell, normaliser, maximum, log_input, forget, candidate)
        out = tl.sigmoid(gate) * cell / normaliser
        tl.store(output + place * width + column[None, :], out, mask=inside)


@triton.jit
def _held(cell, normaliser, maximum, log_input, forget, candidate):
    """Cell, normaliser and maximum after a token (arXiv 2405.04517, equations 8 to 17)."""
    # log sigmoid is min(x, 0) - log(1 + exp(-|x|)), here of the forget gate below 15
    forget = tl.minimum(forget, 15.0)
    kept = maximum + tl.minimum(forget, 0.0) - tl.log(1.0 + tl.exp(-tl.abs(forget)))
    after = tl.maximum(log_input, kept)
    keep, take = tl.exp(kept - after), tl.exp(log_input - after)
    tanh = 2.0 * tl.sigmoid(2.0 * candidate) - 1.0
    return keep * cell + take * tanh, keep * normaliser + take, after


@triton.jit
def _gate(inputs, bias, inside):
    """What a gate gets from the token and its bias, float32."""
    return tl.load(inputs, mask=inside, other=0.0).to(tl.float32) + tl.load(bias).to(tl.float32)


def outputs(inputs: Tensor, bias: Tensor, kernel: Tensor, state: Tensor) -> Tensor:
    """Output after each token, [E, S, B, W] float32: `_scan` of `fastsim.forecast.models.tirex`.

    Parameters
    ----------
    inputs
        Gate inputs [E, S, B, 4W] without their bias: input, forget, cell, output.
    bias
        [E * 4W], likewise.
    kernel
        [E, W, 4W] from the last output to the gates, in any precision.
    state
        Output, cell, normaliser and maximum [4, E, B, W] float32, any row repeated or not.
    """
    heads, tokens, batch, wide = inputs.shape
    width, parts = wide // 4, HALVES if kernel.dtype == torch.float16 else 1
    if parts == 1:
        kernel = kernel.float()
    output = torch.empty(heads, tokens, batch, width, device=inputs.device)
    last = torch.empty(heads, batch if parts == 1 else 0, width, device=inputs.device)
    if state.stride(-1) != 1:
        state = state.contiguous()
    with torch.cuda.device_of(inputs):  # type: ignore[no-untyped-call]
        recurrence[(triton.cdiv(batch, ROWS), heads)](
            inputs.contiguous(), bias.contiguous(), kernel.contiguous(), state, last, output,
            tokens, batch, state.stride(0), state.stride(1), state.stride(2),
            width=width, rows=ROWS, parts=parts, chunk=CHUNK, num_warps=WARPS,
        )  # fmt: skip
    return output
