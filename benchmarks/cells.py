"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

Row = dict[str, Any]


def table(head: Sequence[str], cells: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def interval(given: Sequence[float] | None) -> str:
    """An estimate with its interval; nothing where there is none."""
    return "" if given is None else "{:.3f} [{:.3f}, {:.3f}]".format(*given)


def share(given: Sequence[float]) -> str:
    """A share with its interval, in per cent."""
    return "{:.1%} [{:.1%}, {:.1%}]".format(*given)
