"""Returns and lengths of episodes, held against a count by hand."""

import math

import pytest
import torch

from fastsim.learn.figures import Episodes, read
from fastsim.learn.rollout import Rollout

STEPS, ROWS = 7, 5


def drawn(generator: torch.Generator) -> Rollout:
    def flag(chance: float) -> torch.Tensor:
        return torch.rand(STEPS, ROWS, generator=generator) < chance

    empty = [None] * 5
    return Rollout(
        *empty,
        reward=torch.randn(STEPS, ROWS, generator=generator),
        terminated=flag(0.05),
        truncated=flag(0.1),
        restarted=flag(0.1),
        log_growth=None,
        turnover=None,
        cost=None,
    )


def by_hand(rollout: Rollout, running: list[list[float]]) -> list[tuple[float, float]]:
    """Episodes that end in a rollout; `running` goes on."""
    ended = []
    for step in range(STEPS):
        for row in range(ROWS):
            if rollout.restarted[step, row]:
                continue
            running[row][0] += float(rollout.reward[step, row])
            running[row][1] += 1
            if rollout.terminated[step, row] or rollout.truncated[step, row]:
                ended.append(tuple(running[row]))
                running[row] = [0.0, 0]
    return ended


def test_they_are_those_of_whole_episodes_over_as_many_rollouts_as_they_take():
    generator = torch.Generator().manual_seed(0)
    episodes, running = Episodes(ROWS, torch.device("cpu")), [[0.0, 0] for _ in range(ROWS)]
    for _ in range(40):
        rollout = drawn(generator)
        figures, ended = read(episodes.update(rollout)), by_hand(rollout, running)
        if ended:
            total, length = (sum(each) / len(ended) for each in zip(*ended, strict=True))
            assert figures["episode/return"] == pytest.approx(total, rel=1e-4, abs=1e-5)
            assert figures["episode/length"] == pytest.approx(length)


def test_before_any_has_ended_nothing_is_said_and_then_the_last_is():
    episodes = Episodes(ROWS, torch.device("cpu"))
    none = torch.zeros(STEPS, ROWS, dtype=torch.bool)
    rollout = drawn(torch.Generator().manual_seed(0))
    quiet = rollout._replace(terminated=none, truncated=none, restarted=none)
    assert read(episodes.update(quiet)) == {}
    told = read(episodes.update(quiet._replace(truncated=~none)))
    assert told["episode/length"] == pytest.approx((STEPS + 1 + STEPS - 1) / STEPS)
    assert read(episodes.update(quiet)) == told


def test_a_loss_that_is_no_number_is_still_told():
    assert math.isnan(read({"loss/value": torch.tensor(float("nan"))})["loss/value"])
