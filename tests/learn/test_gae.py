"""Advantages, with the arithmetic shown."""

import pytest
import torch

from fastsim.learn import advantage_numba, advantage_triton
from fastsim.learn.advantage import discounted_sums, fused_gae, gae

NEVER = torch.zeros(3, 1, dtype=torch.bool)


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def at(step: int) -> torch.Tensor:
    flags = NEVER.clone()
    flags[step] = True
    return flags


def estimate(terminated: torch.Tensor, truncated: torch.Tensor) -> list[float]:
    reward, value = column(1.0, 2.0, 3.0), column(10.0, 20.0, 30.0, 40.0)
    advantage = gae(reward, value, terminated, truncated, discount=0.5, trace=0.8)
    return advantage[:, 0].tolist()


def test_an_episode_that_goes_on_bootstraps_from_the_last_value():
    last = 3.0 + 0.5 * 40.0 - 30.0
    middle = (2.0 + 0.5 * 30.0 - 20.0) + 0.5 * 0.8 * last
    first = (1.0 + 0.5 * 20.0 - 10.0) + 0.5 * 0.8 * middle
    assert estimate(NEVER, NEVER) == [first, middle, last]


def test_a_terminated_episode_is_worth_nothing_after_its_end():
    last = 3.0 + 0.5 * 40.0 - 30.0
    middle = 2.0 - 20.0
    first = (1.0 + 0.5 * 20.0 - 10.0) + 0.5 * 0.8 * middle
    assert estimate(at(1), NEVER) == [first, middle, last]


def test_a_truncated_episode_is_worth_its_true_last_state_and_no_more():
    last = 3.0 + 0.5 * 40.0 - 30.0
    middle = 2.0 + 0.5 * 30.0 - 20.0
    first = (1.0 + 0.5 * 20.0 - 10.0) + 0.5 * 0.8 * middle
    assert estimate(NEVER, at(1)) == [first, middle, last]


def test_with_trace_one_advantages_are_discounted_returns_less_values():
    generator = torch.Generator().manual_seed(0)
    reward = torch.randn(50, 7, generator=generator, dtype=torch.float64)
    value = torch.randn(51, 7, generator=generator, dtype=torch.float64)
    flags = torch.zeros(50, 7, dtype=torch.bool)
    returns, rows = value[-1], []
    for step in range(49, -1, -1):
        returns = reward[step] + 0.9 * returns
        rows.insert(0, returns - value[step])
    advantage = gae(reward, value, flags, flags, discount=0.9, trace=1.0)
    torch.testing.assert_close(advantage, torch.stack(rows), rtol=1e-12, atol=1e-12)


def random_rollout(steps: int, count: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(steps)
    reward = torch.randn(steps, count, generator=generator, dtype=dtype)
    value = torch.randn(steps + 1, count, generator=generator, dtype=dtype)
    ends = torch.rand(2, steps, count, generator=generator) < 0.2
    return reward, value, ends[0], ends[1]


@pytest.mark.parametrize("estimate", [advantage_numba.estimate, advantage_triton.estimate])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
@pytest.mark.parametrize(("steps", "count"), [(1, 1), (7, 3), (16, 130)])
def test_a_fused_pass_makes_the_estimates_of_the_reference(
    estimate, dtype, tolerance, steps, count
):
    device = "cuda" if torch.cuda.is_available() and "triton" in estimate.__module__ else "cpu"
    rollout = [block.to(device) for block in random_rollout(steps, count, dtype)]
    expected = gae(*rollout, discount=0.95, trace=0.9)
    torch.testing.assert_close(
        estimate(*rollout, 0.95, 0.9), expected, rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("fused", [advantage_numba, advantage_triton])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("steps", "count"), [(1, 1), (7, 3), (16, 130)])
def test_fused_sums_of_rewards_are_those_of_the_reference_and_go_on_as_they_do(
    fused, dtype, steps, count
):
    device = "cuda" if torch.cuda.is_available() and fused is advantage_triton else "cpu"
    reward, _, terminated, truncated = (
        block.to(device) for block in random_rollout(steps, count, dtype)
    )
    law = torch.linspace(-1.0, 1.0, count, dtype=torch.float64, device=device)
    running = law.clone()
    for _ in range(2):
        expected = discounted_sums(reward, terminated, truncated, 0.95, law)
        sums = fused.discounted_sums(reward, terminated, truncated, 0.95, running)
        torch.testing.assert_close(sums, expected, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(running, law, rtol=1e-13, atol=1e-13)


def test_on_a_cpu_the_fused_pass_is_taken(monkeypatch):
    taken = []
    monkeypatch.setattr(advantage_numba, "estimate", lambda *given: taken.append(given))
    fused_gae(*random_rollout(3, 2, torch.float32), discount=0.95, trace=0.9)
    assert taken[0][-2:] == (0.95, 0.9)
