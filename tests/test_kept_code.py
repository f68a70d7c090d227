"""Compiled code is kept by one process at a time, whatever processes before have left beside it."""

import ast
import gc
import os
import subprocess
import sys
from pathlib import Path

import numba
import pytest
from numba import njit, types

import fastsim
from fastsim.kept_code import kept_alone

MODULE = """
from functools import partial
from fastsim.env.kernels.numba_jit import jit

@partial(jit, inline=False)
def twice(x):
    for n in range(x.shape[0]):
        x[n] += x[n]
"""
SLOW = """
import sys, time
import numpy as np
from numba.core.caching import IndexDataCacheFile
read = IndexDataCacheFile._load_index

def slowly(self):
    found = read(self)
    time.sleep(1.0)
    return found

IndexDataCacheFile._load_index = slowly
"""
CALL = """
import numpy as np, sys, doubling
x = np.ones(3, sys.argv[1])
doubling.twice(x)
assert (x == 2).all(), x
print(sum(doubling.twice.stats.cache_hits.values()))
"""
KINDS = ("float32", "float64", "int64")


def one_more(number):
    return number + 1


def compiled_in(folder, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(folder))
    return kept_alone(njit(cache=True)(one_more))


def begin(code, kind, folder):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    environment["NUMBA_CACHE_DIR"] = str(folder / "kept")
    command = [sys.executable, "-c", code, kind]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_a_list_that_names_functions_which_are_gone_is_begun_anew(tmp_path, monkeypatch):
    compiled = compiled_in(tmp_path, monkeypatch)
    gone = njit(lambda number: number)
    left = {(types.Dispatcher(gone),): "one_more.1.nbc"}
    del gone
    gc.collect()
    file = compiled._cache._cache_file
    read, index = file._load_index, Path(file._index_path)
    monkeypatch.setattr(file, "_load_index", lambda: read() if index.exists() else dict(left))
    assert compiled(1) == 2
    assert len(read()) == 1 and len(list(tmp_path.rglob("*.nbc"))) == 1


@pytest.mark.parametrize("ending", ["nbi", "nbc"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_what_was_cut_short_is_compiled_anew(tmp_path, monkeypatch, ending, share):
    assert compiled_in(tmp_path, monkeypatch)(1) == 2
    (kept,) = tmp_path.rglob(f"*.{ending}")
    whole = kept.read_bytes()
    kept.write_bytes(whole[: int(share * len(whole))])
    assert compiled_in(tmp_path, monkeypatch)(1) == 2
    again = compiled_in(tmp_path, monkeypatch)
    assert again(1) == 2
    assert sum(again.stats.cache_hits.values()) == 1


def test_whatever_is_kept_is_kept_alone():
    keeping = 0
    for path in Path(fastsim.__file__).parent.rglob("*.py"):
        if "cache=True" not in (text := path.read_text()):
            continue
        keeping += 1
        for node in ast.walk(ast.parse(text)):
            for decorator in getattr(node, "decorator_list", []):
                if "cache=True" in ast.unparse(decorator):
                    assert ast.unparse(node.decorator_list[0]) == "kept_alone", (path, node.name)
    assert keeping >= 4


@pytest.mark.long
def test_processes_that_compile_for_other_types_at_once_run_their_own_code_later(tmp_path):
    (tmp_path / "doubling.py").write_text(MODULE)
    for code, hits in ((SLOW + CALL, "0"), (CALL, "1")):
        running = [begin(code, kind, tmp_path) for kind in KINDS]
        told = [process.communicate()[0].strip() for process in running]
        assert [process.returncode for process in running] == [0, 0, 0]
        assert told == [hits] * 3
