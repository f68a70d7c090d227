"""Keys of an account with a broker: out of the environment, and into no text."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from urllib.parse import quote

from fastsim.errors import ConfigError, one_line

HIDDEN = "***"
_QUERY = re.compile(r"(https?://[^\s?]+)\?\S*")
_SIGNATURE = re.compile(r"(?i)(signature=)[^\s&\"']+")
_PEM = "PRIVATE KEY"
"""What stands in a key of several lines."""


class Keys:
    """What an account is opened with; none of it is ever shown.

    Parameters
    ----------
    values
        By the order of the names they were asked for.
    """

    def __init__(self, values: Sequence[str]) -> None:
        self.values = tuple(values)

    @classmethod
    def from_environment(cls, names: Sequence[str], owner: str, remedy: str) -> Keys:
        """Those that the environment has under these names.

        `owner` says in errors whose they are, and `remedy` where they are made.

        Raises
        ------
        ConfigError
            One is not there, or cannot be one; names the variable and never the value.
        """
        found = {name: os.environ.get(name, "").strip() for name in names}
        missing = [name for name, value in found.items() if not value]
        if missing:
            raise ConfigError(
                f"{owner} needs keys, and the environment has no {' and no '.join(missing)}: "
                f"{remedy}"
            )
        for name, value in found.items():
            plain = value.isascii() and value.isprintable() and " " not in value
            if not (plain or _PEM in value):
                raise ConfigError(
                    f"{owner}: {name} of the environment cannot be a key, as it has spaces or "
                    f"letters that are not ASCII: set it anew"
                )
        return cls(tuple(found.values()))

    def scrub(self, text: object, most: int = 300) -> str:
        """The text as one line, without keys, signatures and what stands behind a URL's "?"."""
        clean = str(text)
        for value in self.values:
            for form in (value, quote(value, safe="")):
                clean = clean.replace(form, HIDDEN)
        clean = _SIGNATURE.sub(rf"\1{HIDDEN}", _QUERY.sub(r"\1", clean))
        return one_line(clean, most)

    def __repr__(self) -> str:
        return f"Keys({HIDDEN})"

    def __reduce__(self) -> str:
        raise TypeError("keys are not written anywhere")
