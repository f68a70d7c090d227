"""A CUDA graph on a CPU: what a procedure calls is written down, and done again on the same memory.

What would be wrong on a device is an error here. While a procedure is recorded: reading a tensor on
the host, copying numbers from there, a shape that depends on values, a random number of a generator
that is not the graph's, a Triton kernel without a device. When it is replayed: memory that nobody
holds any more. Recording leaves no trace, as on a device, where nothing runs meanwhile: memory that
was there before holds what it held, and what the graph allocated holds rubbish until a replay.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from interpreted import quick_interpreter
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map
from triton.runtime import interpreter

from fastsim import capture
from fastsim.env.kernels import triton_step
from fastsim.learn import advantage

aten = torch.ops.aten
HOST_READS = {"_local_scalar_dense", "is_nonzero", "equal", "allclose"}
SHAPES_BY_VALUE = {"nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive"}
FROM_HOST = {"lift_fresh", "lift_fresh_copy"}
TO_HOST = {"numpy", "tolist", "item", "__bool__", "__float__", "__int__", "__index__", "__array__"}
NO_KERNEL = {"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "detach"}
RUBBISH = 0xFF  # NaN in every floating-point type, -1 in whole numbers


class NotCapturableError(Exception):
    """What a device would refuse, or do wrong without a word."""


def storage_of(tensor):
    return tensor.untyped_storage()._cdata


def holders_of(storage):
    """Tensors that hold it; PyTorch's own object for Python is one more, once it was asked for."""
    return torch._C._storage_Use_Count(storage) - _OBJECT


def _count_alone():
    alone = torch.empty(1)
    return torch._C._storage_Use_Count(storage_of(alone)) - 1


_OBJECT = _count_alone()


def alias(tensor):
    """The same memory in a tensor of our own, which keeps it but not the tensor."""
    return tensor.detach()


def aliased(nested):
    return tree_map(lambda leaf: alias(leaf) if isinstance(leaf, torch.Tensor) else leaf, nested)


def tensors_in(*nested):
    return [leaf for leaf in tree_leaves(nested) if isinstance(leaf, torch.Tensor)]


def fill_with_rubbish(tensor):
    storage = tensor.untyped_storage()
    torch.empty(0, dtype=torch.uint8).set_(storage).fill_(RUBBISH)


class Graph:
    """What was recorded, and its replay."""

    def __init__(self, generator):
        self.generator = generator
        self.calls = []  # functions without arguments
        self.names = Counter()  # of kernels that a replay launches
        self.own = {}  # storages that the graph allocated, each by a tensor on it
        self.before = {}  # storages that were there: a tensor on it, and what it held
        self.held = Counter()  # tensors of ours on each of them
        self.replays = 0

    def meet(self, *nested):
        """Keep what memory from before held when the graph first met it."""
        for tensor in tensors_in(nested):
            key = storage_of(tensor)
            if key not in self.own and key not in self.before:
                self.before[key] = alias(tensor), tensor.untyped_storage().clone()
                self.held[key] += 1

    def keep(self, nested):
        """The same tensors for replays, counted."""
        kept = aliased(nested)
        self.held.update(storage_of(tensor) for tensor in tensors_in(kept))
        return kept

    def add(self, name, call):
        self.names[name] += 1
        self.calls.append(call)

    def undo(self):
        """Leave no trace of the recording."""
        for tensor, content in self.before.values():
            tensor.untyped_storage().copy_(content)
        for tensor in self.own.values():
            fill_with_rubbish(tensor)
        self.before = {key: tensor for key, (tensor, _) in self.before.items()}

    def replay(self):
        for key, tensor in self.before.items():
            if holders_of(key) <= self.held[key]:
                raise NotCapturableError(
                    f"memory of shape {tuple(tensor.shape)}, {tensor.dtype}, that the graph reads "
                    f"or writes is held by nobody any more"
                )
        with torch.no_grad():
            for call in self.calls:
                call()
        self.replays += 1


class Operations(TorchDispatchMode):
    """Writes down every call of PyTorch's."""

    def __init__(self, graph):
        super().__init__()
        self.graph = graph

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        refuse(function, args, kwargs, self.graph.generator)
        graph = self.graph
        graph.meet(args, kwargs)
        result = function(*args, **kwargs)
        schema = function._schema
        name = schema.name.removeprefix("aten::")
        fresh = [
            tensor
            for tensor in tensors_in(result)
            if storage_of(tensor) not in graph.own and storage_of(tensor) not in graph.before
        ]
        for tensor in fresh:
            graph.own[storage_of(tensor)] = alias(tensor)
        writes = any(a.alias_info is not None and a.alias_info.is_write for a in schema.arguments)
        if writes:
            self._again(name, function, args, kwargs)
        elif fresh and name not in NO_KERNEL:
            self._anew(name, function, args, kwargs, result)
        return result

    def _again(self, name, function, args, kwargs):
        args, kwargs = self.graph.keep(args), self.graph.keep(kwargs)
        self.graph.add(name, lambda: function(*args, **kwargs))

    def _anew(self, name, function, args, kwargs, result):
        args, kwargs = self.graph.keep(args), self.graph.keep(kwargs)
        rooms = aliased(tensors_in(result))

        def call():
            for room, value in zip(rooms, tensors_in(function(*args, **kwargs)), strict=True):
                room.copy_(value)

        self.graph.add(name, call)


def refuse(function, args, kwargs, generator):
    """Raise what a capture would."""
    name = function._schema.name.removeprefix("aten::")
    if name in HOST_READS:
        raise NotCapturableError(f"{function} reads a tensor on the host")
    if name in FROM_HOST:
        raise NotCapturableError(f"{function} copies numbers from the host")
    indices = args[1] if name in ("index", "index_put", "index_put_", "_index_put_impl_") else ()
    masks = [index for index in indices if index is not None and index.dtype == torch.bool]
    by_value = name == "repeat_interleave" and kwargs.get("output_size") is None
    if name in SHAPES_BY_VALUE or masks or by_value:
        raise NotCapturableError(f"{function} has a shape that depends on values")
    if any(argument.name == "generator" for argument in function._schema.arguments):
        given = kwargs.get("generator")
        if given is None or generator is None or given._cdata != generator._cdata:
            raise NotCapturableError(f"{function} draws from a generator that is not the graph's")
    elif torch.Tag.nondeterministic_seeded in function.tags and name not in NO_KERNEL:
        raise NotCapturableError(f"{function} draws from PyTorch's own generator")


class Host(TorchFunctionMode):
    """Refuses what does not pass through the dispatcher on a CPU, and would read a device."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        if name in TO_HOST and isinstance(args[0], torch.Tensor):
            raise NotCapturableError(f"Tensor.{name} reads a tensor on the host")
        return function(*args, **(kwargs or {}))


class Emulation:
    """Records on a CPU as `fastsim.capture.CudaGraphs` does on a GPU."""

    def __init__(self):
        self.graphs = []
        self.recording = None
        self.devices = 0  # within how many `capture.current` we are

    def warm_up(self, procedure, device):
        procedure()

    def record(self, procedure, device, generator):
        with self.watching(generator) as graph:
            procedure()
        graph.undo()
        self.graphs.append(graph)
        return graph.replay

    @contextmanager
    def watching(self, generator=None):
        """Run what is within it, but as strictly as if it were recorded."""
        self.recording = Graph(generator)
        try:
            with Host(), Operations(self.recording):
                yield self.recording
        finally:
            self.recording = None

    def launch(self, executor, launched, args, kwargs):
        """A kernel of Triton's: interpreted now, and at every replay."""
        if not self.devices:
            raise NotCapturableError(f"{executor.fn.__name__} is launched without a device")
        graph = self.recording
        with _disable_current_modes(), torch._C.DisableTorchFunction():
            if graph is not None:
                graph.meet(args, kwargs)
                args, kwargs = graph.keep(args), graph.keep(kwargs)
                graph.add(executor.fn.__name__, lambda: launched(executor, *args, **kwargs))
            launched(executor, *args, **kwargs)

    @contextmanager
    def current(self, device):
        self.devices += 1
        try:
            yield
        finally:
            self.devices -= 1


@contextmanager
def emulated():
    """Within it, procedures on a CPU are recorded as those on a GPU are, by its kernels."""
    emulation = Emulation()
    launched, kernel = interpreter.GridExecutor.__call__, advantage._kernel

    def launch(executor, *args, **kwargs):
        emulation.launch(executor, launched, args, kwargs)

    stream = SimpleNamespace(is_capturing=lambda: emulation.recording is not None)
    with pytest.MonkeyPatch.context() as patch, quick_interpreter():
        patch.setitem(capture.RECORDERS, "cpu", emulation)
        patch.setattr(interpreter.GridExecutor, "__call__", launch)
        patch.setattr(triton_step, "current", emulation.current)
        patch.setattr(advantage, "_kernel", lambda _: kernel("triton"))
        patch.setattr("fastsim.learn.advantage_triton.current", emulation.current)
        patch.setattr("fastsim.learn.fused.launches.current", emulation.current)
        # PyTorch's own check that an optimiser may be captured.
        patch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("cuda"))
        patch.setattr(torch.accelerator, "current_stream", lambda *_: stream)
        yield emulation
