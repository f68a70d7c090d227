"""What the columns of a table are: their roles, their levels, and what pandas left over."""

from __future__ import annotations

import logging
import re
from ast import literal_eval
from collections.abc import Mapping, Sequence

import polars as pl

from fastsim.data.delimited import INVISIBLE
from fastsim.errors import DataError

logger = logging.getLogger(__name__)

ALIASES = {
    "timestamp": (
        *("timestamp", "date", "dates", "datetime", "time", "day", "opentime", "tsevent"),
        *("localtime", "gmttime", "utctime", "dateutc", "datetimeutc", "unixtime"),
        *("tradedate", "tradingdate", "tradingday", "exchangedate", "observationdate", "snappedat"),
    ),
    "symbol": ("symbol", "ticker", "asset", "instrument", "tic"),
    "open": ("open", "openprice", "openingprice", "pxopen"),
    "high": ("high", "highprice", "pxhigh"),
    "low": ("low", "lowprice", "pxlow"),
    "close": ("close", "closeprice", "closingprice", "price", "pxlast", "closelast"),
    "adj_close": (
        "adjclose",
        "adjustedclose",
        "adjcloseprice",
        "closeadj",
        "closeadjusted",
        "adjusted",
    ),
    "volume": ("volume", "vol", "pxvolume"),
    "halted": ("halted",),
}
"""Spellings of each column, in lower case without blanks, punctuation and brackets."""

_ROLES = {spelling: role for role, spellings in ALIASES.items() for spelling in spellings}
FIELD_ROLES = ("open", "high", "low", "close", "adj_close", "volume")

NO_SYMBOLS = (
    *("last", "lastprice", "settle", "settlement", "settleprice", "settlementprice", "vwap"),
    *("bid", "ask", "mid", "midprice", "spread", "average", "change", "chg", "pctchg", "return"),
    *("returns", "logreturn", "openinterest", "openint", "oi", "trades", "count", "turnover"),
    *("value", "amount", "dividends", "stocksplits", "capitalgains", "tickvol", "closetime"),
    *("quoteassetvolume", "numberoftrades", "net", "%chg", "change%", "per"),
    *("year", "month", "quarter", "weekday", "hour", "minute"),
)
"""Words of tables of fields, spelled as `ALIASES`, that bars have no column for."""

QUALIFIERS = (
    "bid",
    "ask",
    "mid",
    "adj",
    "raw",
    "prev",
    "previous",
    "total",
    "avg",
    "average",
    "mean",
)
"""Words beside a field that make it another field: Prev Close is no close of Prev."""

CURRENCIES = ("USD", "EUR", "GBP", "JPY", "CHF", "CNY", "INR", "CAD", "AUD", "USDT")
"""What prices may be in, as names such as close_usd say."""

ACTIONS = ("Dividends", "Stock Splits", "Capital Gains", "Repaired?")
"""Fields that yfinance adds to prices on request; bars have no use for them."""

_NO_SYMBOLS = {
    *NO_SYMBOLS,
    *(
        f"{one}{two}"
        for spelling, role in _ROLES.items()
        for qualifier in QUALIFIERS
        for one, two in ((qualifier, spelling), (spelling, qualifier))
        if role in FIELD_ROLES and f"{one}{two}" not in _ROLES
    ),
}

LEVELS_OF_SYMBOLS = ("ticker", "tickers", "symbol", "symbols", "asset", "instrument")

_LEFT_OVER = re.compile(
    r"(|index|level_\d+|unnamed: ?\d+(_level_\d+)?(\.\d+)*|__index_level_\d+__)(_duplicated_\d+)?",
    re.IGNORECASE,
)
_WORDS_OF_INDEX = ("index", "level_0")
_JOINT = re.compile(r"[ _.|/:\-]+")
_BRACKETS = re.compile(r"(.+?) *[(\[](.+)[)\]]")
_TUPLE = re.compile(r"""\((['"]).*\1, *(['"]).*\2\)""")


def clean_name(name: str) -> str:
    """A header or symbol without characters of no width and with plain blanks, one at a time."""
    for character in INVISIBLE:
        name = name.replace(character, "")
    return " ".join(name.split())


def spelled(name: str) -> str:
    """A header as `ALIASES` spells it."""
    return "".join(char for char in clean_name(name).lower() if char not in " ._-*/<>")


def role_of(name: str) -> str | None:
    """Which column of bars a header means; None for any other."""
    return _ROLES.get(spelled(name))


def listed(names: Sequence[str]) -> str:
    """Names in quotes, the first eight of them."""
    shown = ", ".join(repr(name) for name in names[:8])
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown


def require_unique(names: Sequence[str]) -> None:
    """Raise DataError for a name that stands twice."""
    seen: set[str] = set()
    for name in map(clean_name, names):
        if name in seen:
            raise DataError(f"column {name!r} appears twice: rename or remove one")
        seen.add(name)


def under_header(rows: pl.DataFrame) -> pl.DataFrame:
    """A table out of rows of text of which the first, or the first few, are its header.

    Headers of two levels, as pandas writes columns (field, symbol), become long columns.

    Raises
    ------
    DataError
        There is no header, it has more than two levels, or a name stands twice.
    """
    head = [[clean_name(cell or "") for cell in row] for row in rows.head(5).rows()]
    if _is_date(head[0][0]) and any(map(_is_number, head[0][1:])):
        raise DataError(
            f"the first line is data, not a header ({head[0][0]}...): put names above it, such "
            "as date,open,high,low,close,volume"
        )
    levels = 1
    while levels < len(head) and _is_header(head[levels], head[0], levels):
        levels += 1
    if levels > 2:
        raise DataError(f"the header has {levels} levels, not 1 or 2")
    named = levels < len(head) and bool(head[levels][0]) and not any(head[levels][1:])
    body = rows.slice(levels + (levels == 2 and named))
    if levels == 1:
        require_unique(head[0])
        return body.rename(dict(zip(rows.columns, head[0], strict=True)))
    index = {head[2][0] if named else "": body.to_series(0)}
    pairs = list(zip(head[0][1:], head[1][1:], strict=True))
    return stacked(pairs, body.get_columns()[1:], index, levels=(head[0][0], head[1][0]))


def _is_header(row: list[str], first: list[str], levels: int) -> bool:
    """Whether a row below the first goes on with the header."""
    cells = [cell for cell in row[1:] if cell]
    if not cells or _is_date(row[0]):
        return False
    if not any(_is_number(cell) or _is_date(cell) for cell in row):
        return True
    repeated = len(set(first[1:])) < len(first[1:])  # fields, once for each symbol
    return levels == 1 and repeated and not row[0].isdigit()


def _is_number(cell: str) -> bool:
    return bool(
        re.fullmatch(r"[+-]?[\d.,]*\d[\d.,]*([eE][+-]?\d+)?%?|nan|na|inf", cell, re.IGNORECASE)
    )


def _is_date(cell: str) -> bool:
    return bool(re.match(r"\d{4}[-/.]\d|\d{1,2}[-/.]\d{1,2}[-/.]\d{2}|\d{8,}", cell))


def tidy(frame: pl.DataFrame) -> pl.DataFrame:
    """Plain names, without the columns that are a left-over index, and long if levels were joined.

    Raises
    ------
    DataError
        A name stands twice, or joined names of fields and symbols can be read in no one way.
    """
    require_unique(frame.columns)
    frame = frame.rename({name: clean_name(name) for name in frame.columns})
    frame = _without_left_overs(frame)
    return _unjoined(frame)


def _without_left_overs(frame: pl.DataFrame) -> pl.DataFrame:
    """Leave out what pandas numbered rows with; a nameless column of dates is called so."""
    suspects = [name for name in frame.columns if _LEFT_OVER.fullmatch(name)]
    dated = any(role_of(name) == "timestamp" for name in frame.columns)
    for name in suspects:
        if _is_count(frame[name], named=name.lower() in _WORDS_OF_INDEX):
            frame = frame.drop(name)
        elif not dated:
            frame, dated = frame.rename({name: "timestamp"}), True
    return frame


def _is_count(column: pl.Series, *, named: bool) -> bool:
    """Whether a column numbers rows: it is empty or holds whole numbers, and if named, rising ones.

    A symbol called index has prices that fall, too, or that are no whole numbers.
    """
    text = column.cast(pl.String, strict=False).str.strip_chars().replace({"": None})
    numbers = text.cast(pl.Float64, strict=False)
    if text.null_count() == len(text):
        return True
    if numbers.null_count() or (numbers != numbers.round()).any():
        return False
    rising = bool((numbers.diff().drop_nulls() > 0).all())
    return bool((numbers < 1e7).all()) and (rising or not named)


def is_nameless(name: str) -> bool:
    """Whether nobody gave a column this name, but pandas did."""
    return bool(_LEFT_OVER.fullmatch(name)) and name.lower() not in _WORDS_OF_INDEX


def _unjoined(frame: pl.DataFrame) -> pl.DataFrame:
    """Long columns from names such as Close_AAPL, AAPL.Open or ('Close', 'AAPL')."""
    dates = [name for name in frame.columns if role_of(name) == "timestamp"]
    rest = [name for name in frame.columns if name not in dates]
    tuples = [name for name in rest if _TUPLE.fullmatch(name)]
    if tuples and len(tuples) == len(rest):
        pairs = [literal_eval(name) for name in tuples]
        return stacked(
            [(clean_name(str(one)), clean_name(str(two))) for one, two in pairs],
            [frame[name] for name in tuples],
            {name: frame[name] for name in dates},
        )
    if any(role_of(name) in ("symbol", "close") for name in rest):
        return frame
    joined = _readings(rest)
    if not joined:
        return frame
    return stacked(
        list(joined.values()),
        [frame[name] for name in joined],
        {name: frame[name] for name in dates},
        levels=("field", "symbol"),
    )


def _readings(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Field and symbol of every name that joins them, in one order; none if names are symbols."""
    read = {name: _reading(name) for name in names}
    orders = [
        {name: pair for name, both in read.items() if (pair := both[order]) is not None}
        for order in (0, 1)
    ]
    closing = [
        pairs for pairs in orders if "close" in {role_of(field) for field, _ in pairs.values()}
    ]
    if not closing:
        _require_no_fields(names, max(orders, key=len))
        return {}
    pairs = max(
        closing, key=lambda found: (len(found), len({field for field, _ in found.values()}))
    )
    symbols = {symbol for _, symbol in pairs.values()}
    if len(symbols) == 1 and {symbol.upper() for symbol in symbols} <= set(CURRENCIES):
        raise DataError(
            f"columns such as {next(iter(pairs))!r} name a currency and no symbol: call them "
            "'open', 'close' and so on, and name the symbol"
        )
    for name in names:
        if name in pairs:
            continue
        if any(symbol in name for symbol in symbols):
            logger.warning("column that bars have no use for: %r", name)
        else:
            raise DataError(
                f"columns such as {next(iter(pairs))!r} are a field and a symbol, but {name!r} is "
                "not: rename or remove it"
            )
    return pairs


def _reading(name: str) -> tuple[tuple[str, str] | None, tuple[str, str] | None]:
    """Field and symbol of a name, of (field, symbol) and of (symbol, field); fields are long."""
    if role_of(name) or is_no_symbol(name):
        return None, None
    splits = _splits(name)
    first = [(left, right) for left, right in splits if role_of(left) in FIELD_ROLES]
    last = [(right, left) for left, right in splits if role_of(right) in FIELD_ROLES]
    return (
        max(first, key=lambda pair: len(pair[0]), default=None),
        max(last, key=lambda pair: len(pair[0]), default=None),
    )


def is_no_symbol(name: str) -> bool:
    """Whether a header is a word of tables of fields, such as Settle, VWAP or BidClose."""
    return spelled(name) in _NO_SYMBOLS


def _splits(name: str) -> list[tuple[str, str]]:
    """Both sides of every joint of a name, or what stands before brackets and in them."""
    bracket = _BRACKETS.fullmatch(name)
    if bracket:
        return [(bracket[1], bracket[2])]
    splits = [(name[: joint.start()], name[joint.end() :]) for joint in _JOINT.finditer(name)]
    return [(left, right) for left, right in splits if left and right]


def _require_no_fields(names: Sequence[str], pairs: Mapping[str, tuple[str, str]]) -> None:
    """Raise DataError where names join fields and symbols but no close; LOW.TO is a symbol."""
    fields = {role_of(field) for field, _ in pairs.values()}
    tickers = all(
        field.isupper() and re.search(r"[.\-/:]", name) for name, (field, _) in pairs.items()
    )
    if tickers or not pairs:
        return
    if len(pairs) == len(names) or "volume" in fields or {"open", "high", "low"} <= fields:
        raise DataError(
            f"no close column among {listed(names)}, which join fields and symbols: name the "
            "closes 'Close_AAPL'"
        )


def stacked(
    pairs: Sequence[tuple[str, str]],
    columns: Sequence[pl.Series],
    index: Mapping[str, pl.Series],
    *,
    levels: tuple[str | None, str | None] = (None, None),
) -> pl.DataFrame:
    """Long columns from columns (field, symbol) or (symbol, field), as yfinance gives.

    Parameters
    ----------
    pairs
        Names of the columns, on their two levels.
    columns
        Values [T] each.
    index
        The dates, and whatever else every symbol shares, by name.
    levels
        Names of the two levels, where they have any.

    Raises
    ------
    DataError
        Neither level holds fields, there are no dates, or a pair stands twice.
    """
    shared = dict(index)
    entries = []
    for (one, two), values in zip(pairs, columns, strict=True):
        if one and two:
            entries.append(((one, two), values))
        else:
            shared[one or two] = values
    kept = {name: values for name, values in shared.items() if not _is_left_over(name, values)}
    if "" in kept:
        kept["timestamp"] = kept.pop("")
    if not kept:
        raise DataError("with two levels of columns, the index must hold the dates")
    place = _level_of_fields([pair for pair, _ in entries], levels)
    parts: dict[str, dict[str, pl.Series]] = {}
    for pair, values in entries:
        name, symbol = pair[place], pair[1 - place]
        if name in parts.setdefault(symbol, {}):
            raise DataError(f"column {pair} appears twice: rename or remove one")
        parts[symbol][name] = values
    rows = len(entries[0][1])
    return pl.concat(
        [
            pl.DataFrame({**kept, "symbol": pl.repeat(symbol, rows, eager=True), **fields})
            for symbol, fields in parts.items()
        ],
        how="diagonal_relaxed",
    )


def _is_left_over(name: str, values: pl.Series) -> bool:
    return bool(_LEFT_OVER.fullmatch(name)) and _is_count(values, named=False)


def _level_of_fields(
    pairs: Sequence[tuple[str, str]], levels: tuple[str | None, str | None]
) -> int:
    """Which level holds fields: the one with closes, or with nothing but fields."""
    names = [{pair[level] for pair in pairs} for level in (0, 1)]
    closing = [level for level in (0, 1) if any(role_of(name) == "close" for name in names[level])]
    if len(closing) != 1:
        told = [level for level in (0, 1) if (levels[level] or "").lower() in LEVELS_OF_SYMBOLS]
        whole = [
            level
            for level in (0, 1)
            if names[level] and all(role_of(n) or n in ACTIONS for n in names[level])
        ]
        closing = [1 - told[0]] if len(told) == 1 else whole
    if len(closing) != 1:
        raise DataError(
            "one level of the columns must be fields (Open, Close...) and the other symbols, got "
            f"{pairs[0] if pairs else 'none'}: name the level of symbols 'Ticker'"
        )
    return closing[0]
