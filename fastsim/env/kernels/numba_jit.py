"""How kernels for a CPU are compiled."""

from __future__ import annotations

from typing import Any

import numba

from fastsim.kept_code import kept_alone

_FAST = {"reassoc", "contract", "arcp", "nsz"}


def jit(function: Any, *, inline: bool = True, fastmath: set[str] = _FAST) -> Any:
    """Compile for speed: no bounds checks, IEEE division by zero, cached on disk.

    Without `_nrt` numba counts no references. It would at every block that is taken out of a named
    tuple, with an atomic operation each: six times the time of the whole step. Inlining is left to
    LLVM: numba's own takes four fifths of the time to compile, for the same code.
    """
    compiled = numba.njit(  # type: ignore[call-overload]
        function,
        fastmath=fastmath,
        error_model="numpy",
        cache=True,
        nogil=True,
        forceinline=inline,
        _nrt=False,
    )
    return kept_alone(compiled)


def every(kinds: Any) -> Any:
    """Let no function be compiled that leaves out one of these kinds, as `columns` names them."""

    def check(function: Any) -> Any:
        missing = set(kinds._fields) - set(function.__code__.co_names)
        if missing:
            listed = ", ".join(sorted(missing))
            raise NotImplementedError(f"{function.__name__} has no branch for {listed}")
        return function

    return check
