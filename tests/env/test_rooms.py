"""Rooms of results: handed out again when nobody looks at them, and written past the caches."""

import numpy as np
import pytest
import torch
from worlds import SHORT_FEATURES, assert_same_bits, random_bars

from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.kernels import memory, numba_step
from fastsim.env.kernels.memory import LARGE, last_cache, room_maker
from fastsim.market.tape import TapeConfig, make_tape

SHAPE = 1024, LARGE // 1024
EYES = {
    "the array": lambda room: room,
    "a part": lambda room: room[3:5, 7:9],
    "a part of a part": lambda room: room[3:][:2].T,
    "a tensor": torch.from_numpy,
    "a part of a tensor": lambda room: torch.from_numpy(room)[3:5],
    "an array of a tensor": lambda room: torch.from_numpy(room)[3:5].numpy(),
    "a detached tensor": lambda room: torch.from_numpy(room).view(-1)[5:].detach(),
}


def place_of(room):
    return room.__array_interface__["data"][0]


@pytest.mark.parametrize("kept", EYES)
def test_a_room_is_handed_out_again_when_nobody_looks_at_it(kept):
    make = room_maker(SHAPE, np.uint8)
    room = make()
    first, eye = place_of(room), EYES[kept](room)
    del room
    others = [make() for _ in range(4)]
    places = {place_of(other) for other in others}
    assert first not in places and len(places) == 4
    del eye, others
    again = room_maker(SHAPE, np.uint8)
    place = place_of(again())
    for _ in range(3):
        room = again()
        assert place_of(room) == place
        del room


def test_no_more_than_two_rooms_are_kept_and_small_ones_not_at_all():
    make = room_maker(SHAPE, np.uint8)
    rooms = [make() for _ in range(5)]
    for number, room in enumerate(rooms):
        room[:] = number
    assert [int(room.max()) for room in rooms] == [0, 1, 2, 3, 4]
    last = {place_of(room) for room in rooms[-2:]}
    del room, rooms
    assert {place_of(made) for made in (make(), make())} <= last
    small = room_maker((2, 3), np.float32)
    assert small().base is None and small().shape == (2, 3)


@pytest.mark.parametrize(("observation", "envs"), [("flat", 9_000), ("window", 3_000)])
def test_what_was_seen_is_the_callers_however_many_steps_follow(observation, envs):
    config = EnvConfig(observation=observation, window_length=8, episode=EpisodeConfig(horizon=20))
    tape = make_tape(random_bars(), config=TapeConfig(features=SHORT_FEATURES))
    env = PortfolioEnv(tape, envs, config, backend="numba")
    env.reset(0)
    action = torch.rand(envs, env.action_width)
    seen = env.columns(env.step(action).observation)
    assert seen.numel() * seen.element_size() >= LARGE
    kept, copied = seen[5:9, 3:], seen[5:9, 3:].clone()
    del seen
    places = set()
    for _ in range(5):
        seen = env.columns(env.step(action).observation)
        places.add(seen.data_ptr())
    assert_same_bits(kept, copied)
    assert len(places) <= 3  # rooms are handed out again, but not the one that is kept


@pytest.mark.parametrize("autoreset", ["next_step", "same_step"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("players", [1, 2])
def test_observations_past_the_caches_are_the_same(monkeypatch, autoreset, dtype, players):
    tape = make_tape(random_bars(assets=7), config=TapeConfig(features=SHORT_FEATURES), dtype=dtype)
    rules = {"autoreset": autoreset, "observation": "flat", "players": players}
    config = EnvConfig(**rules, episode=EpisodeConfig(horizon=9))
    action = torch.rand(12, 7, generator=torch.Generator().manual_seed(1))

    def run(cache):
        monkeypatch.setattr(numba_step, "last_cache", lambda: cache)
        monkeypatch.setattr(numba_step, "STREAMED", 0)
        env = PortfolioEnv(tape, 12, config, backend="numba")
        env.reset(3)
        return [env.step(action) for _ in range(25)]

    usual, streamed = run(1 << 40), run(0)
    assert_same_bits(streamed, usual)
    assert usual[-1].observation.portfolio.shape[0] == 12


def test_every_row_however_it_lies_in_memory_is_copied_whole():
    from fastsim.env.kernels.numba_stream import stream_row  # noqa: PLC0415

    for dtype in (np.float32, np.float64):
        for width in (1, 2, 15, 16, 17, 33, 64, 127):
            source = np.arange(3.0 * width, dtype=dtype).reshape(3, width)
            for room in (0, 1, 5):
                target = np.full((4, width + room), -1.0, dtype)
                stream_row(source, 2, target, 3)
                stream_row(source, 1, target, 1)
                np.testing.assert_array_equal(target[3, :width], source[2])
                np.testing.assert_array_equal(target[1, :width], source[1])
                assert (target[[0, 2]] == -1.0).all() and (target[:, width:] == -1.0).all()


def test_the_last_cache_is_that_which_the_machine_has(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "CACHES", tmp_path)
    for number, (level, size) in enumerate([(1, "48K"), (2, "2048K"), (3, "107520K")]):
        (tmp_path / f"index{number}").mkdir()
        (tmp_path / f"index{number}" / "level").write_text(f"{level}\n")
        (tmp_path / f"index{number}" / "size").write_text(f"{size}\n")
    assert last_cache.__wrapped__() == 105 << 20
    (tmp_path / "index2" / "size").write_text("\n")
    assert last_cache.__wrapped__() == memory.USUAL_CACHE
    monkeypatch.setattr(memory, "CACHES", tmp_path / "nothing")
    assert last_cache.__wrapped__() == memory.USUAL_CACHE
