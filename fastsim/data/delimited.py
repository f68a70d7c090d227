"""Text of cells and lines, whichever system wrote it, as a table of text."""

from __future__ import annotations

import io
import logging
import re
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fastsim.errors import DataError

logger = logging.getLogger(__name__)

SEPARATORS = (",", ";", "\t", "|")
INVISIBLE = "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\u00ad"
"""Characters of no width that web pages and spreadsheets leave in cells."""
BLANKS = "\u00a0\u2007\u202f\u2009"
"""Spaces that do not break lines, which stand for plain ones."""
ENCODINGS = {b"\xff\xfe\x00\x00": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
NO_TABLE = {
    b"pk": "a zip archive or an Excel workbook: unpack it, or save its sheet as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel workbook: save its sheet as CSV",
    b"<!do": "a web page: the download failed",
    b"<htm": "a web page: the download failed",
    b"<?xm": "XML: save it as CSV",
    b"{": "JSON: save it as CSV",
    b"[": "JSON: save it as CSV",
}
"""What files under the name of a CSV are, by their first bytes in lower case."""

_LINE_FEED, _RETURN, _QUOTE = b'\n\r"'


class _Lines(NamedTuple):
    """Bytes of a text in which every line ends in a line feed, and where its lines begin."""

    content: NDArray[np.uint8]  # [B]
    outside: NDArray[np.bool_]  # [B]  not between quotes
    starts: NDArray[np.intp]  # [lines]

    def number_of(self, marked: NDArray[np.bool_]) -> NDArray[np.intp]:
        """How many bytes of each line are marked."""
        places = np.flatnonzero(marked)
        before = np.searchsorted(places, self.starts)
        counts: NDArray[np.intp] = np.diff(before, append=len(places))
        return counts

    def keep(self, wanted: NDArray[np.bool_]) -> _Lines:
        """Keep these lines."""
        lengths = np.diff(self.starts, append=len(self.content))
        bytes_of = np.repeat(wanted, lengths)
        starts = np.cumsum(lengths[wanted]) - lengths[wanted]
        return _Lines(self.content[bytes_of], self.outside[bytes_of], starts)

    def text(self, line: int) -> str:
        """One line without its end, shortened."""
        stop = self.starts[line + 1] if line + 1 < len(self.starts) else len(self.content)
        return (
            self.content[self.starts[line] : stop].tobytes().decode(errors="replace")[:60].strip()
        )


def read_delimited(raw: bytes) -> pl.DataFrame:
    """Cells of a text as columns named column_1, column_2...; the first row is the header.

    Takes UTF-8, and UTF-16 with or without a byte order mark; lines that end in LF, CR LF, CR or
    CR CR LF; cells between commas, semicolons, tabs or bars, quoted or not. Blank lines, lines
    without any cell at the end, and what stands above the header are left out, the last with a
    warning.

    Raises
    ------
    DataError
        The text is empty, of another encoding, no table, cut off, or a row has more or fewer cells
        than the header; names the row, counted from 1 below the header.
    """
    text = _as_utf8(raw)
    told = re.match(rb'"?sep=(.)"?[\r\n]+', text, re.IGNORECASE)
    lines = _lines(text[told.end() :] if told else text)
    if (lines.content[lines.starts] <= 32).any():
        lines = lines.keep(lines.number_of(lines.content > 32) > 0)
    if not len(lines.starts):
        raise DataError("the file is empty")
    separator = told[1].decode("latin-1") if told else _separator(lines)
    lines = _without_last_separators(_below_the_title(lines, separator), separator)
    _check_widths(lines, separator)
    frame = pl.read_csv(
        io.BytesIO(lines.content.tobytes()),
        separator=separator,
        has_header=False,
        infer_schema=False,
    )
    frame = _without_empty_rows(
        frame.rename({n: f"column_{k}" for k, n in enumerate(frame.columns, 1)})
    )
    if len(frame) < 2:
        raise DataError("a header but no rows")
    return frame


def _as_utf8(raw: bytes) -> bytes:
    """Plain UTF-8 without marks of any kind; DataError if these bytes are no text."""
    start = raw[:4].lower()
    for mark, what in NO_TABLE.items():
        if start.startswith(mark):
            raise DataError(f"not CSV but {what}")
    encoding = next((name for mark, name in ENCODINGS.items() if raw.startswith(mark)), None)
    zeros = np.frombuffer(raw[:1000], np.uint8) == 0
    if encoding is None and zeros.mean() > 0.2:  # every other byte, where all letters are Latin
        encoding = "utf-16-le" if zeros[1::2].sum() > zeros[::2].sum() else "utf-16-be"
    try:
        text = raw if encoding is None else raw.decode(encoding).encode()
        text.decode()
    except UnicodeDecodeError as error:
        form = "UTF-8" if encoding is None else encoding.upper()
        raise DataError(
            f"not {form} text from byte {error.start + 1} on: save the file as UTF-8"
        ) from None
    if b"\0" in text:
        raise DataError("not text: it holds bytes of zero; save the file as UTF-8")
    if not text.isascii():
        for character in INVISIBLE:
            text = text.replace(character.encode(), b"")
        for character in BLANKS:
            text = text.replace(character.encode(), b" ")
    text = text.rstrip(b"\x1a")  # how DOS ended a file
    if not text.strip():
        raise DataError("the file is empty")
    return re.sub(rb"\r+\n", b"\n", text) if b"\r" in text else text


def _lines(text: bytes) -> _Lines:
    content = np.frombuffer(text if text.endswith((b"\n", b"\r")) else text + b"\n", np.uint8)
    outside = ~np.logical_xor.accumulate(content == _QUOTE)
    if not outside[-1]:
        raise DataError("a quote is opened and never closed: the file is cut off or damaged")
    alone = (content == _RETURN) & outside
    if alone.any():
        ended = np.where(alone, _LINE_FEED, content).astype(np.uint8)
        lines = _split(ended, outside)
        _require_line_ends(content, outside, lines, alone)
        return lines
    return _split(content, outside)


def _split(content: NDArray[np.uint8], outside: NDArray[np.bool_]) -> _Lines:
    ends = np.flatnonzero((content == _LINE_FEED) & outside)
    return _Lines(content, outside, np.concatenate([[0], ends[:-1] + 1]).astype(np.intp))


def _require_line_ends(
    content: NDArray[np.uint8],
    outside: NDArray[np.bool_],
    lines: _Lines,
    alone: NDArray[np.bool_],
) -> None:
    """A carriage return without a line feed ends a line, unless that tears a row apart."""
    separator = _separator(lines)
    widths = lines.number_of((lines.content == ord(separator)) & lines.outside)
    full = lines.number_of(lines.content > 32) > 0
    if (widths[full] == widths[full][0]).all() or not (content == _LINE_FEED).any():
        return
    as_told = _split(content, outside)
    row = int((as_told.number_of(alone) > 0).argmax())
    raise DataError(
        f"row {row}: a carriage return within the line {as_told.text(row)!r}, which is no line "
        "end: remove it"
    )


def _separator(lines: _Lines) -> str:
    """The mark of which most lines, the first 50 looked at, have the same number."""

    def regularity(mark: str) -> tuple[bool, float, float]:
        counts = lines.number_of((lines.content == ord(mark)) & lines.outside)[:50]
        usual = float(np.median(counts))
        return usual >= 1, float((counts == usual).mean()), usual

    return max(SEPARATORS, key=regularity)


def _below_the_title(lines: _Lines, separator: str) -> _Lines:
    """Leave out lines above the header: comments, and titles of a single cell."""
    widths = lines.number_of((lines.content == ord(separator)) & lines.outside)
    first = 0
    while first + 2 < len(widths) and widths[first] < widths[first + 1 :].max():
        text = lines.text(first)
        if widths[first] > 0 and not text.startswith("#"):
            break
        logger.warning("left out above the header: %r", text)
        first += 1
    kept = lines.keep(np.arange(len(widths)) >= first) if first else lines
    if kept.text(0).startswith("#"):
        content = kept.content.copy()
        content[kept.content.tobytes().index(b"#")] = ord(" ")
        kept = kept._replace(content=content)
    return kept


def _without_last_separators(lines: _Lines, separator: str) -> _Lines:
    """Where every row ends in a separator and the header does not, leave those out."""
    ends = np.append(lines.starts[1:], len(lines.content)) - 2  # before the line feed
    ending = (lines.content[ends] == ord(separator)) & lines.outside[ends] & (ends > lines.starts)
    if len(ending) < 2 or ending[0] or not ending[1:].all():
        return lines
    widths = lines.number_of((lines.content == ord(separator)) & lines.outside)
    if (widths[1:] != widths[0] + 1).any():
        return lines
    kept = np.ones(len(lines.content), dtype=bool)
    kept[ends[ending]] = False
    starts = lines.starts - np.cumsum(ending) + ending
    return _Lines(lines.content[kept], lines.outside[kept], starts)


def _check_widths(lines: _Lines, separator: str) -> None:
    widths = lines.number_of((lines.content == ord(separator)) & lines.outside) + 1
    wanted = int(widths[0])
    if wanted == 1 and len(lines.text(0).split()) > 1:
        raise DataError(
            f"one column, {lines.text(0)!r}: put commas, semicolons, tabs or bars between cells"
        )
    odd = widths != wanted
    if not odd.any():
        return
    row, last = int(odd.argmax()), len(widths) - 1
    if row == last and widths[row] < wanted:
        raise DataError(f"the last line has {widths[row]} of {wanted} columns: the file is cut off")
    if widths[row] > wanted:
        raise DataError(
            f"row {row} has more fields than the header, {widths[row]} and not {wanted}: "
            f"{lines.text(row)!r}; put a cell that holds the separator in quotes"
        )
    raise DataError(
        f"row {row} has {widths[row]} cells, the header has {wanted}: {lines.text(row)!r}"
    )


def _without_empty_rows(frame: pl.DataFrame) -> pl.DataFrame:
    """Leave out rows at the end whose cells are all empty, as spreadsheets write them."""
    empty = frame.select(
        pl.all_horizontal(pl.all().str.strip_chars().fill_null("") == "")
    ).to_series()
    filled = (~empty).arg_true()
    return frame.head(int(filled[-1]) + 1 if len(filled) else 0)
