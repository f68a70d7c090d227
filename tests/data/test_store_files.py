"""A store is as it was or whole: whatever ends an update, and whatever is done to its files."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from stand_ins import ONE, assert_equal, at, files, made, of_vendor, update, usual

from fastsim.data.source import DataConfig, read_source
from fastsim.data.store import Store
from fastsim.data.store_files import locked
from fastsim.errors import DataError

CALLS = ("os.open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "open")
"""What Python tells its auditors of the calls by which a store is changed."""
KILLED = """
import os, signal, sys
import stand_ins
place, count = int(sys.argv[2]), 0
def audit(event, arguments):
    global count
    if event in {calls} and sys.argv[1] in str(arguments[0]):
        count += 1
        if count == place:
            os.kill(os.getpid(), signal.SIGKILL)
stand_ins.usual()
sys.addaudithook(audit)
stand_ins.{update}
print(count)
"""


@pytest.fixture(autouse=True)
def vendors():
    usual()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "us"


def run(folder, script, place):
    """Run an update that is killed where it would change its files for the nth time."""
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder), str(place)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode == 0


def kills(folder, call, before):
    """The store after each of the kills, from the first call to the last."""
    script = KILLED.format(calls=CALLS, update=call)
    for place in range(1, 100):
        finished = run(folder, script, place)
        yield finished
        if finished:
            assert place > 8  # it was killed at as many places
            return
        before()


@pytest.mark.long
def test_a_kill_at_any_moment_leaves_the_store_as_it_was_or_whole(folder):
    made(folder)
    old = of_vendor(ONE, ("KO", "PEP"), "2024-01-31")
    new = of_vendor(ONE, ("KO", "PEP"), "2024-03-29")
    as_it_was = files(folder)

    def put_back():
        for path in set(files(folder)) - set(as_it_was):
            path.unlink()
        for path, content in as_it_was.items():
            path.write_bytes(content)

    seen = []
    for _ in kills(folder, f"update({str(folder)!r}, '2024-04-01')", put_back):
        bars = Store.open(folder).bars()
        seen.append(len(bars))
        assert_equal(bars, old if len(bars) == len(old) else new)
        store = update(folder, "2024-04-01").store  # nothing is in its way
        assert_equal(store.bars(), new)
    assert seen == sorted(seen) and {len(old), len(new)} == set(seen[:-1])


@pytest.mark.long
def test_a_kill_at_any_moment_of_the_first_update_leaves_no_store_or_a_whole_one(folder):
    new = of_vendor(ONE, ("KO", "PEP"), "2024-01-31")

    def put_back():
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()

    for _ in kills(folder, f"made({str(folder)!r})", put_back):
        if (folder / "store.json").exists():
            assert_equal(Store.open(folder).bars(), new)
        else:
            with pytest.raises(DataError, match="there is no store of bars"):
                Store.open(folder)
        assert_equal(made(folder).store.bars(), new)


def hold(folder, held, free):
    with locked(folder):
        held.set()
        free.wait(30)


def test_two_updates_at_once_are_refused_and_the_lock_ends_with_its_process(folder):
    made(folder)
    fork = multiprocessing.get_context("spawn")
    held, free = fork.Event(), fork.Event()
    other = fork.Process(target=hold, args=(folder, held, free))
    other.start()
    assert held.wait(60)
    before = files(folder)
    with pytest.raises(DataError, match="another update of it is running"):
        update(folder, "2024-02-10")
    assert len(Store.open(folder).bars()) == 23  # who reads does not wait
    assert files(folder) == before
    other.kill()
    other.join()
    assert update(folder, "2024-02-10").renewals[0].added == 7


def test_who_has_opened_a_store_reads_on_while_it_is_updated(folder):
    opened = made(folder).store
    wanted = opened.bars()
    update(folder, "2024-02-10")
    assert_equal(opened.bars(), wanted)
    update(folder, "2024-02-20")
    assert len(list((folder / "bars").iterdir())) == 2  # what was and what is


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (flip, "damaged, not what was written"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "damaged, not what was written"),
        (lambda path: path.write_bytes(b""), "damaged, not what was written"),
        (Path.unlink, "No such file"),
    ],
)
def test_damaged_bars_are_refused_by_name_wherever_they_are_read(folder, damage, error):
    store = made(folder).store
    damage(folder / "bars" / store.manifest.parts[0])
    for read in (
        store.bars,
        lambda: store.last(3),
        lambda: read_source(DataConfig(source=f"store:{folder}")),
        lambda: update(folder, "2024-02-10"),
    ):
        with pytest.raises(DataError, match=rf"{store.manifest.parts[0]}: {error}.*make the store"):
            read()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda text: text[:-20], "damaged"),
        (lambda text: "", "damaged"),
        (lambda text: "[" * 100_000, "damaged"),
        (lambda text: "[]", "no store of format 1, but of None"),
        (lambda text: text.replace('"format": 1', '"format": 2'), "no store of format 1, but of 2"),
        (lambda text: text.replace('"interval": "1d"', '"interval": 1'), "interval must be"),
        (lambda text: text.replace('"parts"', '"pieces"'), "pieces"),
        (lambda text: text.replace("2024-01-01", "someday"), "start must be an ISO date"),
    ],
)
def test_a_damaged_description_is_refused_by_name(folder, change, error):
    made(folder)
    path = folder / "store.json"
    path.write_text(change(path.read_text()))
    before = files(folder)
    for read in (lambda: Store.open(folder), lambda: update(folder, "2024-02-10")):
        with pytest.raises(DataError, match=f"{path}: .*{error}"):
            read()
    assert files(folder) == before


def test_a_store_without_bars_says_so(folder):
    made(folder)
    path = folder / "store.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "parts": []}))
    for read in (lambda: Store.open(folder).bars(), lambda: Store.open(folder).last(3)):
        with pytest.raises(DataError, match="it holds no bars of these symbols; update it"):
            read()
    assert_equal(
        update(folder, "2024-02-10").store.bars(), of_vendor(ONE, ("KO", "PEP"), "2024-02-09")
    )


def test_a_folder_of_other_things_is_no_place_for_a_store(folder):
    folder.mkdir()
    (folder / "thesis.txt").write_text("do not touch")
    with pytest.raises(DataError, match=r"thesis.txt lies there and no store"):
        made(folder)
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]
    (folder.parent / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written: "):
        made(folder.parent / "file" / "us")


def test_a_disk_that_is_full_leaves_the_store_as_it_was(folder, monkeypatch):
    made(folder)
    before = files(folder)

    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fastsim.data.store_files.write_whole", full)
    with pytest.raises(DataError, match="cannot be written: No space left on device"):
        update(folder, "2024-02-10")
    assert files(folder) == before
    assert Store.open(folder).closes(at("2024-01-31")) == at("2024-02-01")
