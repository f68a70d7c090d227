"""What an update of a store is told, and what the store is to hold by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fastsim.config import configuration, require_between
from fastsim.data.checks import FIELDS
from fastsim.data.dates import iso_date
from fastsim.data.sources import settled
from fastsim.data.store import StoreSpec
from fastsim.errors import ConfigError, did_you_mean


@configuration
class UpdateConfig:
    """What to fetch. Of a store that is there, nothing has to be said."""

    symbols: tuple[str, ...] = ()
    """What it holds; those that it has not are added to a store that is there."""
    source: tuple[str, ...] = ()
    """Who is asked: the first, and where it fails the next. A vendor (yfinance, ccxt:EXCHANGE, your
    own as package.module:object) or whatever is read as data: a file, package.module:function."""
    start: str | None = None
    """First day, as 2015-01-31; an earlier one than before fetches what lies between."""
    end: str | None = None
    """Last day, if it is not today."""
    interval: str | None = None
    """Length of a bar, as the sources write it; 1d if nothing is said."""
    fields: tuple[str, ...] = ()
    """What is kept of a bar beside its close; all that the first answer has if nothing is said."""
    names: tuple[str, ...] = ()
    """What a source calls a symbol otherwise: BTC-USD=BTC/USD@ccxt:kraken."""
    repair: bool = False
    """Mend what can be mended, when bars are fetched and when the store is read."""
    since: str | None = None
    """Fetch all bars from this day on again, to fill gaps and to compare."""
    fresh: tuple[str, ...] = ()
    """Symbols of which all bars are fetched anew, in place of those that are kept."""
    fresh_when_adjusted: bool = False
    """The same of any symbol whose prices were adjusted anew, as after a split or a dividend."""
    accept_revisions: bool = False
    """Take over prices that their source has changed."""
    overlap: int = 5
    """Bars that are kept already and fetched again, to be compared."""
    tolerance: float = 2e-3
    """What prices may differ by, relatively, from those that another source gave."""

    def __post_init__(self) -> None:
        require_between(self, "overlap", 2)
        require_between(self, "tolerance", 0.0, 1.0)
        for name in ("start", "end", "since"):
            if getattr(self, name) is not None:
                iso_date(getattr(self, name), name)


def first_spec(config: UpdateConfig) -> StoreSpec:
    """What a store is to hold that is not there yet.

    Raises
    ------
    ConfigError
        Symbols, sources or a start are missing.
    """
    for name, flag in (("source", "--source"), ("symbols", "--symbols"), ("start", "--start")):
        if not getattr(config, name):
            raise ConfigError(f"there is no such store yet: to make it, say {flag}")
    assert config.start is not None
    spec = StoreSpec(
        symbols=config.symbols,
        sources=tuple(map(settled, config.source)),
        start=config.start,
        interval=config.interval or "1d",
        fields=_fields(config),
        repair=config.repair,
    )
    return replace(spec, names=_names(config, spec))


def changed_spec(before: StoreSpec, config: UpdateConfig) -> StoreSpec:
    """What a store is to hold from now on.

    Raises
    ------
    ConfigError
        What is asked for can only be said of a new one.
    """
    fields = _fields(config)
    for name, given, known in (
        ("interval", config.interval, before.interval),
        ("fields", fields, before.fields),
    ):
        if given and given != known:
            raise ConfigError(
                f"{name} of a store cannot change: it has {known}, not {given}; make another"
            )
    start = before.start if config.start is None else config.start
    if start > before.start:
        raise ConfigError(
            f"the store begins on {before.start}, and --start {start} is later: it keeps its "
            f"bars; choose among them where they are read (DataConfig.start)"
        )
    added = tuple(symbol for symbol in config.symbols if symbol not in before.symbols)
    spec = replace(
        before,
        symbols=(*before.symbols, *added),
        sources=tuple(map(settled, config.source)) or before.sources,
        start=start,
        repair=before.repair or config.repair,
    )
    for symbol in config.fresh:
        if symbol not in before.symbols:
            raise ConfigError(
                f"--fresh {symbol}: there is no such symbol in the store"
                f"{did_you_mean(symbol, spec.symbols)}"
            )
    return replace(spec, names=_names(config, spec))


def _fields(config: UpdateConfig) -> tuple[str, ...]:
    """Fields that are named, and the close, in their usual order."""
    unknown = [name for name in config.fields if name not in FIELDS]
    if unknown:
        raise ConfigError(f"fields must be of {', '.join(FIELDS)}, got {unknown[0]!r}")
    wanted = {"close", *config.fields}
    return tuple(name for name in FIELDS if name in wanted) if config.fields else ()


def _names(config: UpdateConfig, spec: StoreSpec) -> Mapping[str, Mapping[str, str]]:
    """By source, what it calls symbols otherwise: those known, and those that are told."""
    names = {source: dict(known) for source, known in spec.names.items()}
    for text in config.names:
        for source in (source for source in spec.sources if text.endswith(f"@{source}")):
            pair = text.removesuffix(f"@{source}")
            symbol = next((each for each in spec.symbols if pair.startswith(f"{each}=")), None)
            if symbol is not None and len(pair) > len(symbol) + 1:
                names.setdefault(source, {})[symbol] = pair.removeprefix(f"{symbol}=")
                break
        else:
            raise ConfigError(
                f"--names {text}: write SYMBOL=NAME@SOURCE, with a symbol of the store and one of "
                f"its sources, {', '.join(spec.sources)}"
            )
    return names
