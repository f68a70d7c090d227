"""Steps per second of FinRL's StockTradingEnv: finrl_env.py PRICES.npz NUM_ENVS SECONDS.

It steps one environment. Cash, 30 prices, 30 holdings and 19 indicators an asset: 631 numbers.
"""

import importlib.util
import json
import sys
import time
import types
from importlib.metadata import version

import numpy as np
import pandas as pd

INDICATORS, WARM_UP = 19, 5


def trading_env() -> type:
    """The environment's class, without the brokers and vendors that its package imports."""
    found = importlib.util.find_spec("finrl")
    package = types.ModuleType("finrl")
    package.__path__ = list(found.submodule_search_locations)
    sys.modules["finrl"] = package
    from finrl.meta.env_stock_trading.env_stocktrading import StockTradingEnv  # noqa: PLC0415

    return StockTradingEnv


def frame(prices: np.ndarray) -> pd.DataFrame:
    """Prices [T, A] and random indicators as FinRL wants them: a row per day and asset."""
    bars, assets = prices.shape
    indicators = np.random.default_rng(0).normal(size=(bars * assets, INDICATORS))
    table = pd.DataFrame(indicators, columns=[f"indicator{number}" for number in range(INDICATORS)])
    table["date"] = np.repeat(pd.date_range("2010-01-01", periods=bars).astype(str), assets)
    table["tic"] = np.tile([f"A{number:02d}" for number in range(assets)], bars)
    table["close"] = prices.ravel()
    table.index = np.repeat(np.arange(bars), assets)
    return table


def main(path: str, seconds: float) -> None:
    """Measure and print one JSON object."""
    prices = np.load(path)["close"]
    assets = prices.shape[1]
    table = frame(prices)
    env = trading_env()(
        df=table,
        stock_dim=assets,
        hmax=100,
        initial_amount=1_000_000,
        num_stock_shares=[0] * assets,
        buy_cost_pct=[0.001] * assets,
        sell_cost_pct=[0.001] * assets,
        reward_scaling=1e-4,
        state_space=1 + (2 + INDICATORS) * assets,
        action_space=assets,
        tech_indicator_list=list(table.columns[:INDICATORS]),
        print_verbosity=10**9,
    )
    actions = np.random.default_rng(0).uniform(-1.0, 1.0, (8, assets))
    observation, _ = env.reset()
    for step in range(WARM_UP):
        env.step(actions[step % 8])
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        terminated = env.step(actions[count % 8])[2]
        count += 1
        if terminated:
            env.reset()
    elapsed = time.perf_counter() - started
    answer = {
        "peer": "FinRL",
        "version": version("finrl"),
        "num_envs": 1,
        "num_assets": assets,
        "observation_width": len(observation),
        "env_steps_per_s": round(count / elapsed, 1),
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[3]))
