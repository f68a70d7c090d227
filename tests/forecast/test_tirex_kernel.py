"""TiRex's recurrence in one kernel is the loop of tensor operations, which is the law."""

import dataclasses
import math
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from forecasters import random_context
from interpreted import quick_interpreter
from torch.utils._python_dispatch import TorchDispatchMode

from fastsim.forecast.artifacts.export import ROUNDING_BOUND, SAME_PRECISION_BOUND
from fastsim.forecast.interface import ModuleForecaster
from fastsim.forecast.models import tirex
from fastsim.forecast.models.tirex import TiRexConfig, TiRexModel

pytest.importorskip("triton")
from fastsim.forecast.networks import slstm_triton

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# The interpreter does what a GPU does with infinities; NumPy remarks on it.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter")
CONFIG = TiRexConfig(
    blocks=2, width=32, heads=2, block_hidden=32, embedding_hidden=32, patch=8, context=64
)
BOUND = {torch.float32: 2e-6, torch.float16: 4e-6, torch.bfloat16: 2e-6}
"""Of outputs, which lie within 1: roundings of float32, and the 22 bits of two halves."""


@pytest.fixture(scope="module", autouse=True)
def interpreter():
    with quick_interpreter():
        yield


def drawn(heads, tokens, batch, width, dtype, seed=0):
    """Gate inputs, biases, weights and a state in the midst of a series."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    inputs = (3.0 * normal(heads, tokens, batch, 4 * width)).to(DEVICE, dtype)
    bias = normal(heads * 4 * width).to(DEVICE, dtype)
    kernel = (2.0 * normal(heads, width, 4 * width) / math.sqrt(width)).to(DEVICE, dtype)
    state = normal(4, heads, batch, width).to(DEVICE)
    state[0].tanh_()
    state[2] = state[2].abs() + 1.0
    return inputs, bias, kernel, state


def law(inputs, bias, kernel, state):
    gates = inputs.float() + bias.float().reshape(len(inputs), 1, 1, -1)
    return tirex._scan(gates, kernel.float(), state)[0]


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize(
    ("heads", "tokens", "batch", "width"), [(2, 7, 3, 16), (4, 3, 40, 32), (1, 2, 33, 128)]
)
def test_the_kernel_is_the_loop(heads, tokens, batch, width, dtype):
    arguments = drawn(heads, tokens, batch, width, dtype)
    found, wanted = slstm_triton.outputs(*arguments), law(*arguments)
    assert found.dtype == torch.float32
    assert float((found - wanted).abs().max()) <= BOUND[dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_it_begins_where_nothing_is_known_and_from_one_state_for_all_series(dtype):
    inputs, bias, kernel, _ = drawn(2, 5, 6, 16, dtype)
    state = torch.zeros(4, 2, 1, 16, device=DEVICE)
    state[3] = -math.inf
    arguments = (inputs, bias, kernel, state.expand(-1, -1, 6, -1))
    found, wanted = slstm_triton.outputs(*arguments), law(*arguments)
    assert found.isfinite().all()
    assert float((found - wanted).abs().max()) <= BOUND[dtype]


def test_gates_that_are_far_out_stay_finite():
    inputs, bias, kernel, state = drawn(1, 6, 4, 16, torch.float32)
    arguments = (60.0 * inputs, bias, kernel, state)
    found, wanted = slstm_triton.outputs(*arguments), law(*arguments)
    assert found.isfinite().all()
    assert float((found - wanted).abs().max()) <= 1e-5


def test_a_row_does_not_depend_on_its_neighbours():
    inputs, bias, kernel, state = drawn(2, 4, 40, 16, torch.float16)
    alone = slstm_triton.outputs(inputs[:, :, 5:6], bias, kernel, state[:, :, 5:6])
    together = slstm_triton.outputs(inputs, bias, kernel, state)[:, :, 5:6]
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-6)


@pytest.fixture
def fused(monkeypatch):
    """The kernel wherever it may be, on this device too."""
    may = tirex._Recurrence._may_fuse

    def pretend(recurrence, inputs):
        pretended = inputs.as_subclass(OnCuda)
        return may(recurrence, pretended)

    monkeypatch.setattr(tirex._Recurrence, "_may_fuse", pretend)
    return monkeypatch


class OnCuda(torch.Tensor):
    is_cuda = True


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("horizon", [5, 20])
def test_forecasts_by_the_kernel_are_those_of_the_loop(precision, horizon, fused):
    model = TiRexModel.random(CONFIG, 0)
    forecaster = ModuleForecaster(model, precision=precision)
    exact = ModuleForecaster(model)
    context = random_context(5)
    context.bars[1, :40] = torch.nan
    found = forecaster.forecast(context, horizon).quantiles
    fused.undo()
    deviation = context.close.nan_to_num(100.0).std(1)[:, None, None]
    for other, bound in ((forecaster, SAME_PRECISION_BOUND), (exact, ROUNDING_BOUND)):
        wanted = other.forecast(context, horizon).quantiles
        assert float(((found - wanted).abs() / deviation).max()) <= bound[precision]


class Launches(TorchDispatchMode):
    """Counts operations that a GPU would launch a kernel for; views are none."""

    VIEWS = ("view", "expand", "slice", "select", "split", "unbind", "t", "transpose", "permute")

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        views = (*self.VIEWS, "_unsafe_view", "detach", "unsqueeze", "alias", "empty", "chunk")
        self.count += name not in views
        return func(*args, **(kwargs or {}))


def launches(patches):
    config = dataclasses.replace(CONFIG, context=8 * patches)
    model, closes = TiRexModel.random(config, 0), random_context(2, 8 * patches).close
    with Launches() as launched, torch.inference_mode():
        model(closes, horizon=1)
    return launched.count


def test_a_loop_launches_18_kernels_for_each_token_of_a_block_and_the_kernel_none(
    fused, monkeypatch
):
    calls = []
    monkeypatch.setattr(
        tirex, "_fused", lambda: lambda *given: calls.append(1) or slstm_triton.outputs(*given)
    )
    few, many = launches(2), launches(6)
    assert many == few
    assert len(calls) == 2 * CONFIG.blocks
    fused.undo()
    few, many = launches(2), launches(6)
    assert (many - few) / (4 * CONFIG.blocks) == 18


def test_the_kernel_is_not_taken_where_the_loop_is_wanted(fused):
    recurrence = TiRexModel.random(CONFIG, 0).blocks[0].slstm_layer.slstm_cell
    inputs = torch.zeros(2, 3, 4, 64)
    assert not recurrence._may_fuse(inputs)  # it could be learnt from
    with torch.no_grad():
        assert recurrence._may_fuse(inputs)
        recurrence._recurrent_kernel_.data = torch.zeros(2, 20, 80)
        assert not recurrence._may_fuse(inputs)
    fused.undo()
    with torch.no_grad():
        assert not recurrence._may_fuse(inputs)  # not on CUDA


def test_it_is_launched_on_the_device_of_its_inputs(monkeypatch):
    entered, launched = [], []

    @contextmanager
    def enter(tensor):
        entered.append(tensor.device)
        yield
        entered.clear()

    class Kernel:
        def __getitem__(self, grid):
            return lambda *_, **__: launched.append(list(entered))

    monkeypatch.setattr(torch.cuda, "device_of", enter)
    monkeypatch.setattr(slstm_triton, "recurrence", Kernel())
    arguments = drawn(2, 3, 5, 16, torch.float16)
    slstm_triton.outputs(*(argument.to("meta") for argument in arguments))
    assert launched == [[torch.device("meta")]]


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="the compiler is for Linux")
def test_the_kernel_compiles_for_a_gpu_and_its_weights_fit_the_chip(tmp_path):
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    environment |= {"TRITON_DEFAULT_FP_FUSION": "1"}
    environment.pop("TRITON_INTERPRET", None)
    script = Path(__file__).with_name("slstm_compile.py")
    result = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    sizes = [int(size) for size in result.stdout.split()]
    assert len(sizes) == 4  # two precisions of the narrowest and of the widest head
    assert max(sizes) <= 160 * 1024  # of an A100; an H100 has 227 KB


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_forecasts_on_a_gpu_are_those_of_the_loop(precision, monkeypatch):
    forecaster = ModuleForecaster(TiRexModel.random(CONFIG, 0), precision=precision, device="cuda")
    context = random_context(70)
    found = forecaster.forecast(context, 20).quantiles
    monkeypatch.setattr(tirex, "_fused", lambda: None)
    wanted = forecaster.forecast(context, 20).quantiles
    deviation = context.close.std(1)[:, None, None].to("cuda")
    assert float(((found - wanted).abs() / deviation).max()) <= SAME_PRECISION_BOUND[precision]
