"""The program `fastsim`, which is `python -m fastsim` too."""

import atexit
import gc
import sys
from pkgutil import resolve_name

COLLECT_AFTER = 100_000
"""Objects made since garbage was last looked for, before it is again. After every 700, Python's own
number, what torch and numba define is gone through often enough to take a tenth of a short run."""


def main() -> None:
    """Run the command line.

    What it imports lives as long as the process, and none of it is looked through at the end.
    """
    gc.set_threshold(COLLECT_AFTER)
    atexit.register(_leave)
    resolve_name("fastsim.cli:main")()


def _leave() -> None:
    """Look through nothing more, unless Triton is there, which complains of what is then left."""
    if "triton" not in sys.modules:
        gc.freeze()


if __name__ == "__main__":
    main()
