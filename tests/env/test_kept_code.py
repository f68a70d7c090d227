"""Code that several processes compile at once is kept under names of its own."""

import os
import subprocess
import sys

import pytest

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


def begin(code, kind, folder):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    environment["NUMBA_CACHE_DIR"] = str(folder / "kept")
    command = [sys.executable, "-c", code, kind]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.long
def test_processes_that_compile_for_other_types_at_once_run_their_own_code_later(tmp_path):
    (tmp_path / "doubling.py").write_text(MODULE)
    for code, hits in ((SLOW + CALL, "0"), (CALL, "1")):
        running = [begin(code, kind, tmp_path) for kind in KINDS]
        told = [process.communicate()[0].strip() for process in running]
        assert [process.returncode for process in running] == [0, 0, 0]
        assert told == [hits] * 3
