"""Triton's interpreter, without most of its time."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from triton.runtime import interpreter


@contextmanager
def quick_interpreter():
    """Patch the language once per launch rather than at every call, most of the interpreter's time.

    A launch patches what the kernel's own module sees; triton's modules stay patched.
    """
    patched = set()

    def call(function, *arguments, **named):
        home = function.fn.__module__
        if home.startswith("triton.") and home not in patched:
            interpreter._patch_lang(function.fn)
            patched.add(home)
        return function.rewrite()(*arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter.InterpretedFunction, "__call__", call)
        yield
