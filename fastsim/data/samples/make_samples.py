"""Make the built-in data from the packages skfolio and bokeh-sampledata; see NOTICE.md.

Run `python -m fastsim.market.data.make_samples` where both are installed.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from fastsim.data.bars import Bars
from fastsim.data.read import read_bars, write_bars
from fastsim.errors import DataError

DATA = Path(__file__).parent


def us20() -> Bars:
    """20 US stocks, daily adjusted closes from 2000 on, out of skfolio's S&P 500 sample."""
    file = package_file("skfolio", "datasets/data/sp500_dataset.csv.gz")
    return read_bars(file, start="2000-01-01", end="2022-12-28")


def tech4() -> Bars:
    """Daily bars of four technology stocks from the listing of Google on, out of Quandl WIKI."""
    file = package_file("bokeh_sampledata", "_data/stocks.csv.gz")
    return read_bars(file, symbols=("AAPL", "GOOG", "IBM", "MSFT"), start="2004-08-19")


def package_file(package: str, name: str) -> Path:
    """Find a file of an installed package, which is not imported; DataError if not installed."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"{package} is not installed: pip install {package.replace('_', '-')}")
    return Path(spec.submodule_search_locations[0]) / name


def main() -> None:
    """Write both data sets beside this file."""
    for make in (us20, tech4):
        bars, path = make(), DATA / f"{make.__name__}.parquet"
        write_bars(bars, path)
        size = path.stat().st_size / 1e3
        print(f"{path.name}: {len(bars)} bars of {len(bars.symbols)} symbols, {size:.0f} kB")


if __name__ == "__main__":
    main()
