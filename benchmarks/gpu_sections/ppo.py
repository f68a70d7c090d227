"""Section `ppo`: iterations, a run of `fastsim train`, and the case of the brief, end to end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmark_ppo import Benchmark, make_trainer, rolling_out
from common import Row, market, market_bars, median
from gpu_sections.measuring import Bench, Case, watching

from fastsim.data.read import write_bars
from fastsim.data.source import DataConfig
from fastsim.experiment.config import TrainConfig
from fastsim.experiment.evaluate import evaluate
from fastsim.experiment.train import train
from fastsim.forecast.features import ForecastConfig
from fastsim.learn.rollout import CollectConfig
from fastsim.policy.spec import PolicyConfig
from fastsim.progress import SILENT, Whole

FORECASTER = "fastsim-prior"
"""Of whole runs: its weights ship with fastsim."""
TAPE, TRAINING, REPLAY = "forecasting", "training", "replay"
"""What the tasks of a run are called."""


def cases(bench: Bench) -> Iterator[Case]:
    """Iterations in two precisions and without passes by hand, then whole runs."""
    sizes = bench.sizes
    name = f"ppo {sizes.num_envs:,} x {sizes.num_assets[0]}"
    yield Case(name, partial(iterations, "float32"))
    yield Case(f"{name}, bfloat16", partial(iterations, "bfloat16"))
    yield Case(f"{name}, autograd", partial(iterations, "float32", by_hand=False))
    yield Case(f"train us20, {sizes.train_frames:,} frames", train_us20)
    shape = f"{sizes.brief_envs:,} x {sizes.brief_assets}"
    yield Case(f"brief {shape}, forecasts, {sizes.brief_frames:,} frames", brief)


def iterations(precision: str, bench: Bench, *, by_hand: bool = True) -> Row:
    """Whole iterations, rollout and all epochs; and the rollout alone."""
    sizes = bench.sizes
    tape = market(market_bars(sizes.bars, sizes.num_assets[0]), bench.device)
    case = Benchmark(device=bench.device, hidden=sizes.hidden, precision=precision)
    trainer = make_trainer(case, tape, sizes.num_envs)
    if not by_hand:
        trainer.policy.register_forward_hook(lambda *_: None)  # passes by hand know no hooks
    bench.forget_peak()
    timing = bench.time(trainer.advance)
    roll = rolling_out(trainer, sizes.seconds)
    return {
        "backend": trainer.env.stepper.name,
        "num_envs": sizes.num_envs,
        "num_assets": tape.num_assets,
        "rollout_steps": case.rollout_steps,
        "hidden": case.hidden,
        "epochs": case.epochs,
        "minibatches": case.minibatches,
        "precision": precision,
        "by_hand": by_hand and precision == "float32",
        "train_frames_per_s": round(trainer.frames_per_iteration / timing.seconds, 1),
        "iteration_ms": round(1e3 * timing.seconds, 3),
        "rollout_steps_per_s": median([roll() for _ in range(sizes.rounds)]),
        "spread": timing.spread,
        "warm_up_s": round(timing.warm_up, 3),
        "peak_memory_gb": bench.peak_memory_gb(),
        **timing.load,
    }


def train_us20(bench: Bench) -> Row:
    """`fastsim train` on the built-in stocks, forecasts, validations and evaluation included."""
    sizes = bench.sizes
    return _run(
        bench,
        DataConfig(start=sizes.start, end=sizes.end),
        sizes.train_envs,
        sizes.train_frames,
        "us20",
    )


def brief(bench: Bench) -> Row:
    """A market of a hundred assets from a file: read, forecast, learnt from and evaluated."""
    sizes = bench.sizes
    path = bench.folder / "brief.parquet"
    write_bars(market_bars(sizes.bars, sizes.brief_assets), path)
    return _run(bench, DataConfig(source=str(path)), sizes.brief_envs, sizes.brief_frames, "brief")


def _run(bench: Bench, data: DataConfig, envs: int, frames: int, name: str) -> Row:
    sizes = bench.sizes
    config = TrainConfig(
        name=name,
        runs_dir=str(_new_folder(bench.folder)),
        device=bench.device.partition(":")[0],
        total_steps=frames,
        evaluations=sizes.evaluations,
        forecaster=FORECASTER,
        forecast=ForecastConfig(context_length=sizes.context, batch_size=max(sizes.batches)),
        data=data,
        collect=CollectConfig(num_envs=envs),
        policy=PolicyConfig(hidden=64 if sizes.full_models else sizes.hidden),
    )
    bench.forget_peak()
    started = time.perf_counter()
    with watching(bench.device) as load, Whole(SILENT, name) as whole:
        evaluate(train(config, progress=whole), progress=whole)
    seconds, parts = time.perf_counter() - started, whole.seconds
    return {
        "forecaster": FORECASTER,
        "num_envs": envs,
        "frames": config.iterations * config.collect.frames,
        "hidden": config.policy.hidden,
        "seconds": round(seconds, 3),
        "frames_per_s": round(config.iterations * config.collect.frames / seconds, 1),
        "tape_s": round(parts.get(TAPE, 0.0), 3),
        "tape_share": round(parts.get(TAPE, 0.0) / seconds, 4),
        "training_s": round(parts.get(TRAINING, 0.0), 3),
        "replay_s": round(parts.get(REPLAY, 0.0), 3),
        "peak_memory_gb": bench.peak_memory_gb(),
        **load.figures,
    }


def _new_folder(within: Path) -> Path:
    """A folder of runs that holds none: no table of forecasts is there to be read."""
    folder = within / f"runs-{time.time_ns()}"
    folder.mkdir(parents=True)
    return folder
