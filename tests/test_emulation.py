"""The emulation of CUDA graphs refuses what a device would, and does the rest again."""

import pytest
import torch

pytest.importorskip("triton", reason="triton is for Linux")
from emulation import NotCapturableError, emulated

from fastsim.capture import captured
from fastsim.learn.advantage import fused_gae, gae

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def emulation():
    with emulated() as emulation:
        yield emulation


def test_a_replay_does_again_what_was_recorded_on_the_same_memory(emulation):
    total, each = torch.zeros(3), torch.ones(3)
    replay = captured(lambda: total.add_((each * 2.0).sigmoid().round()), [total], CPU)
    assert torch.equal(total, torch.zeros(3)), "recording leaves no trace"
    for count in (1, 2, 3):
        replay()
        assert torch.equal(total, torch.full((3,), float(count)))
    each.fill_(-1.0)
    replay()
    assert torch.equal(total, torch.full((3,), 3.0))
    assert emulation.graphs[0].names == {"mul": 1, "sigmoid": 1, "round": 1, "add_": 1}


def test_what_a_graph_returns_is_rubbish_before_its_first_replay():
    made = []
    replay = captured(lambda: made.append(torch.ones(2) * 2.0), [], CPU)
    assert made[-1].isnan().all()
    replay()
    assert torch.equal(made[-1], torch.full((2,), 2.0))


def test_noise_of_replays_follows_from_the_generator_at_that_time():
    generator, noise = torch.Generator().manual_seed(3), torch.empty(20)
    torch.empty(7).normal_(generator=generator)
    state = generator.get_state()
    replay = captured(lambda: noise.normal_(generator=generator), [noise], CPU, generator)
    assert torch.equal(generator.get_state(), state), "recording draws nothing"
    replay()
    first = noise.clone()
    replay()
    assert not torch.equal(noise, first)
    generator.set_state(state)
    assert torch.equal(torch.empty(20).normal_(generator=generator), first)


class Rebinding:
    """What a captured step must not do: put a new tensor in place of the old one."""

    def __init__(self):
        self.value = torch.zeros(2)

    def step(self):
        self.value = self.value + 1.0


def test_memory_that_was_let_go_is_not_read_again():
    rebinding = Rebinding()
    replay = captured(rebinding.step, [], CPU)
    with pytest.raises(NotCapturableError, match="held by nobody any more"):
        replay()


def test_what_a_procedure_alone_holds_lasts_as_long_as_its_replay():
    room = torch.zeros(2)

    def recorded():
        only_here = torch.ones(2)
        return captured(lambda: room.add_(only_here), [room], CPU)

    replay = recorded()
    replay()
    assert torch.equal(room, torch.ones(2))


def test_gradients_are_recorded_with_what_they_are_of():
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    weight.grad = torch.zeros(2)
    seen = torch.tensor([3.0, 4.0])

    def backward():
        weight.grad.zero_()
        (weight * seen).square().sum().backward()

    replay = captured(backward, [weight.grad], CPU)
    weight.data.fill_(1.0)
    replay()
    assert torch.equal(weight.grad, 2.0 * seen.square())


VALUES, MASK = torch.tensor([1.0, -2.0, 3.0]), torch.tensor([True, False, True])
FORBIDDEN = {
    "item": lambda: VALUES.sum().item(),
    "float": lambda: float(VALUES[0]),
    "bool": lambda: 1 if VALUES[0] > 0 else 2,
    "index": lambda: [1, 2, 3][MASK.sum()],
    "numpy": VALUES.numpy,
    "tolist": VALUES.tolist,
    "equal": lambda: torch.equal(VALUES, VALUES),
    "mask": lambda: VALUES[MASK],
    "masked put": lambda: VALUES.clone().__setitem__(MASK, torch.ones(2)),
    "nonzero": MASK.nonzero,
    "unique": VALUES.unique,
    "repeat": lambda: VALUES.repeat_interleave(MASK.long()),
    "from the host": lambda: torch.tensor([1.0, 2.0]),
    "global noise": lambda: torch.rand(3),
    "global normal": lambda: torch.empty(3).normal_(),
    "another generator": lambda: torch.rand(3, generator=torch.Generator()),
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_what_a_device_would_refuse_is_refused(name):
    def procedure():
        FORBIDDEN[name]()

    with pytest.raises(NotCapturableError):
        captured(procedure, [], CPU, torch.Generator())


def test_an_optimiser_that_is_not_made_for_it_cannot_be_recorded():
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    optimizer = torch.optim.Adam([weight], fused=True)
    with pytest.raises(RuntimeError, match="capturable is False"):
        captured(optimizer.step, [], CPU)


def test_kernels_of_tritons_are_recorded_and_need_a_device(emulation, monkeypatch):
    reward, value = torch.rand(5, 3), torch.rand(6, 3)
    ended = torch.zeros(5, 3, dtype=torch.bool)
    rates, room = {"discount": 0.9, "trace": 0.8}, torch.zeros(5, 3)

    def estimate():
        room.copy_(fused_gae(reward, value, ended, ended, **rates))

    replay = captured(estimate, [room], CPU)
    reward.add_(1.0)
    replay()
    torch.testing.assert_close(room, gae(reward, value, ended, ended, **rates))
    assert emulation.graphs[0].names["sweep"] == 1
    monkeypatch.setattr("fastsim.learn.advantage_triton.current", lambda _: emulation.watching())
    with pytest.raises(NotCapturableError, match="launched without a device"):
        estimate()
