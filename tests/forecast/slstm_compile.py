"""Compile TiRex's recurrence for a GPU that need not be there; run apart, as tests interpret it."""

from types import SimpleNamespace

import torch
import triton
from triton.backends.compiler import GPUTarget

from fastsim.forecast.models.tirex import FUSED_WIDTHS
from fastsim.forecast.networks.slstm_triton import CHUNK, HALVES, ROWS, WARPS, recurrence

HOPPER = SimpleNamespace(
    get_current_target=lambda: GPUTarget("cuda", 90, 32),
    get_current_device=lambda: 0,
    get_current_stream=lambda device: 0,
)


def shared_bytes(width, dtype, parts, heads=4, tokens=16, batch=1024):
    """Bytes of a program on the chip, for weights of this precision."""
    state, last = torch.zeros(4, heads, batch, width), torch.zeros(heads, batch, width)
    compiled = recurrence.warmup(
        torch.zeros(heads, tokens, batch, 4 * width, dtype=dtype),
        torch.zeros(heads * 4 * width, dtype=dtype),
        torch.zeros(heads, width, 4 * width, dtype=dtype),
        state,
        last,
        torch.zeros(heads, tokens, batch, width),
        *(tokens, batch, state.stride(0), state.stride(1), state.stride(2)),
        width=width,
        rows=ROWS,
        parts=parts,
        chunk=CHUNK,
        num_warps=WARPS,
        grid=(1, heads),
    )
    assert compiled.asm["cubin"]
    return compiled.metadata.shared


if __name__ == "__main__":
    triton.runtime.driver.set_active(HOPPER)
    for width in (FUSED_WIDTHS[0], FUSED_WIDTHS[-1]):
        print(shared_bytes(width, torch.float16, HALVES), shared_bytes(width, torch.float32, 1))
