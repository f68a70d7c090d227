"""An agent of your own: inverse volatility, rebalanced once a month.

python agents/custom_agent.py --every 21
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fastsim.adapters.build import build_env
from fastsim.backtest.replay import replay
from fastsim.cli.ending import one_line_errors, read_options
from fastsim.config import configuration, require_between
from fastsim.data.dates import show
from fastsim.env.config import EnvConfig
from fastsim.env.decide import Decider
from fastsim.env.observe import Observation
from fastsim.market.tape import MarketTape


@dataclass(frozen=True, kw_only=True)
class InverseVolatility(Decider):
    """Weights each asset by one over its trailing volatility, and drifts in between."""

    every: int = 21
    """Bars from one trade to the next."""

    def study(self, tape: MarketTape, rules: EnvConfig) -> Tensor:
        """Log volatility [T, A], found by its name among the features."""
        return tape.known.features[..., tape.feature_names.index("log_volatility_63")]

    def begin(self, log_volatility: Tensor, rows: int) -> Tensor:
        """Bars so far [n], of portfolios that begin."""
        return torch.zeros(rows, dtype=torch.int64, device=log_volatility.device)

    def decide(
        self, log_volatility: Tensor, seen: Observation, bars: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Target weights [n, A]; NaN, which holds, between the rebalancing days."""
        inverse = torch.exp(-log_volatility[seen.bar])
        weights = inverse / inverse.sum(-1, keepdim=True)
        waits = bars % self.every > 0
        return weights.masked_fill(waits[:, None], torch.nan), bars + 1


@configuration(slots=False)
class Options:
    """Trade once by inverse volatility, and print what came of it."""

    source: str = "us20"
    """A built-in data set, or a path to .csv, .csv.gz or .parquet."""
    start: str = "2017-01-01"
    """ISO date of the first decision."""
    every: int = 21
    """Bars from one trade to the next."""

    def __post_init__(self) -> None:
        require_between(self, "every", 1)


def main() -> None:
    """Trade the years since `start` once."""
    with one_line_errors("custom_agent", Options):
        options = read_options(Options)
        tape = build_env(1, options.source, start=options.start).tape
        agent = InverseVolatility(every=options.every)
        history = replay(tape, agent, ["inverse volatility"])
    growth = float(history.wealth[-1, 0] / history.wealth[0, 0]) - 1.0
    first, last = (show(stamp) for stamp in history.timestamps[[0, -1]])
    print(f"{first} to {last}: {growth:+.1%} after costs")


if __name__ == "__main__":
    main()
