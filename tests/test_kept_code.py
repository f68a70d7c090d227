"""Compiled code is kept, whatever processes before have left beside it."""

import gc
from pathlib import Path

import numba
from numba import njit, types

from fastsim.kept_code import kept_alone


def one_more(number):
    return number + 1


def test_a_list_that_names_functions_which_are_gone_is_begun_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    compiled = kept_alone(njit(cache=True)(one_more))
    gone = njit(lambda number: number)
    left = {(types.Dispatcher(gone),): "one_more.1.nbc"}
    del gone
    gc.collect()
    file = compiled._cache._cache_file
    read, index = file._load_index, Path(file._index_path)
    monkeypatch.setattr(file, "_load_index", lambda: read() if index.exists() else dict(left))
    assert compiled(1) == 2
    assert len(read()) == 1 and len(list(tmp_path.rglob("*.nbc"))) == 1
