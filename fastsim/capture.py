"""Procedures on fixed tensors, recorded once as a graph and replayed without the host."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

WARM_UP = 3
"""Eager runs before recording, so that libraries have chosen their kernels and workspaces."""

Procedure = Callable[[], None]
_HERE = nullcontext()


class Recorder(Protocol):
    """What records on one type of device."""

    def warm_up(self, procedure: Procedure, device: torch.device) -> None:
        """Run the procedure as it is, before it is recorded."""
        ...

    def record(
        self, procedure: Procedure, device: torch.device, generator: torch.Generator | None
    ) -> Procedure:
        """Run it without effect; returns what does again what it did, on the same memory.

        A replay draws from the state of `generator` at that time, and from no other.
        """
        ...


class CudaGraphs:
    """CUDA's own graphs."""

    def warm_up(self, procedure: Procedure, device: torch.device) -> None:
        """Run the procedure on a stream beside the current one, as PyTorch asks for."""
        with torch.cuda.device(device):
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                procedure()
            torch.cuda.current_stream().wait_stream(stream)

    def record(
        self, procedure: Procedure, device: torch.device, generator: torch.Generator | None
    ) -> Procedure:
        """Capture the procedure; returns the graph's launch."""
        with torch.cuda.device(device):
            graph = torch.cuda.CUDAGraph()
            if generator is not None:
                graph.register_generator_state(generator)
            with torch.cuda.graph(graph):
                procedure()
        replay: Procedure = graph.replay
        return replay


RECORDERS: dict[str, Recorder] = {"cuda": CudaGraphs()}
"""Who records on a type of device; on any other, procedures run as they are."""


def records(device: torch.device) -> bool:
    """Whether procedures on this device can be recorded, so that nothing should be read from it."""
    return device.type in RECORDERS


@dataclass(frozen=True)
class Replay:
    """A recorded procedure; it keeps what the procedure holds, whose memory a graph knows only."""

    procedure: Procedure
    again: Procedure

    def __call__(self) -> None:
        """Do again what was recorded."""
        self.again()


def captured(
    procedure: Procedure,
    changed: Iterable[Tensor],
    device: torch.device,
    generator: torch.Generator | None = None,
) -> Procedure:
    """Record `procedure`, which reads and writes the same memory every time and never the host.

    Parameters
    ----------
    changed
        Every tensor that outlives the procedure and that it changes: put back after the warm-up.
    device
        Where its tensors lie.
    generator
        Its only source of randomness, left as it is. A replay draws from the generator's state at
        that time, so its numbers are fresh, and those of a given seed again after `manual_seed`.
    """
    recorder, tensors = RECORDERS[device.type], list(changed)
    before = [tensor.clone() for tensor in tensors]
    state = None if generator is None else generator.get_state()
    for _ in range(WARM_UP):
        recorder.warm_up(procedure, device)
    replay = recorder.record(procedure, device, generator)
    with torch.no_grad():
        for tensor, old in zip(tensors, before, strict=True):
            tensor.copy_(old)
    if generator is not None and state is not None:
        generator.set_state(state)
    return Replay(procedure, replay)


def current(device: torch.device) -> AbstractContextManager[object]:
    """Within it kernels go to this device: Triton launches on the current one, whatever it gets.

    It changes nothing, and costs next to nothing, where that is the current device.
    """
    if device.type != "cuda" or device.index == torch.cuda.current_device():
        return _HERE
    return torch.cuda.device(device)
