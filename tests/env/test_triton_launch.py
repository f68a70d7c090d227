"""A launch goes to its tensors' device, with the warps, registers and rows meant for it."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from worlds import SHORT_FEATURES, random_bars

pytest.importorskip("triton", reason="triton is for Linux")
from fastsim import capture
from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.impact import ImpactConfig
from fastsim.env.kernels import triton_step
from fastsim.env.kernels.triton_launch import Launch, launch_of
from fastsim.env.kernels.triton_step import TritonStepper, usual_launch
from fastsim.env.orders import OrderConfig
from fastsim.env.randomize import RandomizeConfig
from fastsim.errors import ConfigError
from fastsim.learn import advantage_triton
from fastsim.market.tape import TapeConfig, make_tape

SECOND = torch.device("cuda:1")
EPISODE = EpisodeConfig(horizon=5)
IMPACT = ImpactConfig(transient=1.0)


def make_env(assets=3, dtype=torch.float32, num_envs=2, **rules):
    tape = make_tape(random_bars(20, assets), TapeConfig(features=SHORT_FEATURES), dtype=dtype)
    return PortfolioEnv(tape, num_envs, EnvConfig(episode=EPISODE, **rules), backend="torch")


class Kernel:
    """What is launched in place of a kernel, and what it was given."""

    def __init__(self, devices=()):
        self.devices, self.launched, self.settings = devices, [], []

    def __getitem__(self, grid):
        return self.launch

    def launch(self, *_, **settings):
        self.launched.append(list(self.devices))
        self.settings.append(settings)


@pytest.fixture
def entered():
    return []


@pytest.fixture
def entering(entered):
    @contextmanager
    def enter(device):
        entered.append(device)
        try:
            yield
        finally:
            entered.pop()

    return enter


def test_kernels_go_to_the_device_of_their_tensors_if_another_is_current(
    monkeypatch, entered, entering
):
    monkeypatch.setattr(torch.cuda, "device", entering)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    with capture.current(SECOND):
        assert entered == [SECOND]
    with capture.current(torch.device("cuda:0")):
        assert entered == [], "it is the current one"
    monkeypatch.setattr(torch.cuda, "current_device", lambda: pytest.fail("asked of a CPU"))
    with capture.current(torch.device("cpu")):
        assert entered == []


def test_a_step_is_launched_on_the_device_of_its_action(monkeypatch, entered, entering):
    kernel, env = Kernel(entered), make_env()
    monkeypatch.setattr(triton_step, "step_kernel", kernel)
    monkeypatch.setattr(triton_step, "current", entering)
    action = SimpleNamespace(device=SECOND, contiguous=lambda: None)
    TritonStepper(env.params, env.state).step(action)
    assert kernel.launched == [[SECOND]]


@pytest.mark.parametrize("name", ["sweep", "add_up"])
def test_advantages_are_launched_on_the_device_of_rewards(monkeypatch, entered, entering, name):
    kernel = Kernel(entered)
    monkeypatch.setattr(advantage_triton, name, kernel)
    monkeypatch.setattr(advantage_triton, "current", entering)
    reward, value = torch.zeros(3, 2, device="meta"), torch.zeros(4, 2, device="meta")
    ends = torch.zeros(3, 2, dtype=torch.bool, device="meta")
    if name == "sweep":
        advantage_triton.estimate(reward, value, ends, ends, 0.9, 0.9)
    else:
        advantage_triton.discounted_sums(reward, ends, ends, 0.9, value[0])
    assert kernel.launched == [[torch.device("meta")]]


@pytest.mark.parametrize("launch", [None, Launch(warps=4), Launch(warps=2, registers=96)])
def test_a_stepper_launches_as_it_is_told_and_else_as_the_table_has_it(monkeypatch, launch):
    kernel, env = Kernel(), make_env()
    monkeypatch.setattr(triton_step, "step_kernel", kernel)
    TritonStepper(env.params, env.state, launch=launch).step(torch.zeros(2, 3))
    (given,) = kernel.settings
    meant = launch or Launch(warps=1, registers=64)
    assert (given["num_warps"], given["maxnreg"]) == (meant.warps, meant.registers)


@pytest.mark.parametrize(
    ("assets", "rules", "expected"),
    [
        (30, {}, Launch(registers=64)),
        (100, {"observation": "index"}, Launch(registers=64)),
        (100, {"dtype": torch.float64}, Launch()),
        (100, {"autoreset": "same_step"}, Launch()),
        (100, {"randomize": RandomizeConfig(fee_bps=(1.0, 2.0))}, Launch()),
        (129, {}, Launch()),
        (500, {}, Launch()),
        (500, {"dtype": torch.float64}, Launch(warps=2)),
        (500, {"orders": OrderConfig(unfilled="carry")}, Launch(warps=4)),
        (500, {"randomize": RandomizeConfig(assets=(1, 9))}, Launch(warps=4)),
        (100, {"orders": OrderConfig(stop=0.1)}, Launch()),
        (30, {"orders": OrderConfig(stop=0.1), "players": 4, "num_envs": 4}, Launch(warps=2)),
        (100, {"impact": IMPACT}, Launch()),
        (30, {"impact": IMPACT, "players": 6, "num_envs": 6}, Launch(warps=2)),
        (100, {"impact": IMPACT, "players": 10, "num_envs": 10}, Launch(warps=16)),
    ],
)
def test_launches_follow_from_what_a_program_holds(assets, rules, expected):
    assert usual_launch(make_env(assets, **rules).params) == expected


def test_the_table_has_a_launch_for_any_number_of_assets():
    for wide in (False, True):
        found = [launch_of(2**power, plain=True, wide=wide).warps for power in range(5, 16)]
        assert found == sorted(found)
        assert (found[0], found[-1]) == (1, 16)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"warps": 3}, r"warps must be one of \(1, 2, 4, 8, 16\), got 3"),
        ({"registers": 0}, "registers must be None or 16 to 255, got 0"),
        ({"registers": 64.5}, "registers must be None or 16 to 255, got 64.5"),
    ],
)
def test_a_launch_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Launch(**settings)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("observation", ["index", "flat"])
@pytest.mark.parametrize("autoreset", ["next_step", "same_step"])
def test_rows_of_observations_begin_with_a_sector_of_memory(
    monkeypatch, dtype, observation, autoreset
):
    env = make_env(4, dtype, observation=observation, autoreset=autoreset)
    monkeypatch.setattr(triton_step, "step_kernel", Kernel())
    stepper = TritonStepper(env.params, env.state)
    transition = stepper.step(torch.zeros(2, 4, dtype=dtype))
    rooms, observed = (stepper.room(3), stepper.room(3, flat=True)), transition.observation
    blocks = [block for room in rooms for block in (room.seen, room.final_seen)]
    blocks.append(observed.portfolio if observed.flat is None else observed.flat)
    widths = {len(env.observation_names), env.portfolio_width}
    assert {block.shape[-1] for block in blocks} == widths
    for block in blocks:
        numbers = block.stride(-2)
        assert numbers * dtype.itemsize % triton_step.SECTOR == 0
        assert 0 <= numbers - block.shape[-1] < triton_step.SECTOR // dtype.itemsize
    assert observed.portfolio.shape == (2, env.portfolio_width)
