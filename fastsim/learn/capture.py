"""Procedures on fixed tensors, recorded once as a CUDA graph and replayed without the host."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

WARM_UP = 3
"""Eager runs before recording, so that libraries have chosen their kernels and workspaces."""


def captured(
    procedure: Callable[[], None], changed: Iterable[Tensor], generator: torch.Generator
) -> Callable[[], None]:
    """Record `procedure`, which reads and writes the same memory every time and never the host.

    Parameters
    ----------
    changed
        Every tensor that outlives the procedure and that it changes: put back after the warm-up.
    generator
        Its only source of randomness. A replay draws from the generator's state at that time, so
        its numbers are fresh, and those of a given seed again after `manual_seed`.
    """
    tensors = list(changed)
    before = [tensor.clone() for tensor in tensors]
    seed = generator.initial_seed()
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            procedure()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(generator)
    with torch.cuda.graph(graph):
        procedure()
    for tensor, old in zip(tensors, before, strict=True):
        tensor.copy_(old)
    generator.manual_seed(seed)
    replay: Callable[[], None] = graph.replay
    return replay
