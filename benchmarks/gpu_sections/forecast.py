"""Section `forecast`: TiRex, Toto and Kronos on the device, alone and as one.

Weights cannot be had on a machine without a hub, so the networks are of full size with random
weights: their speed is real, their forecasts are not, and every row says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch
from benchmark_ppo import Benchmark, make_trainer
from common import Row
from gpu_sections.measuring import Bench, Case, watching
from torch.utils.flop_counter import FlopCounterMode

from fastsim.data.sample import sample_bars
from fastsim.data.source import DataConfig, load_bars
from fastsim.forecast.artifacts.export import export, load_artifact
from fastsim.forecast.ensemble import Ensemble
from fastsim.forecast.interface import (
    Context,
    Forecaster,
    ForecastModel,
    ModuleForecaster,
    Precision,
)
from fastsim.forecast.models.kronos import random_kronos
from fastsim.forecast.models.tirex import TiRexConfig, TiRexModel
from fastsim.forecast.models.toto import TotoConfig, TotoModel
from fastsim.forecast.networks.kronos_network import KronosConfig
from fastsim.forecast.networks.kronos_tokenizer import TokenizerConfig
from fastsim.forecast.registry import random_model
from fastsim.forecast.tape import build_forecast_tape
from fastsim.forecast.windows import context_at
from fastsim.market.tape import make_tape
from fastsim.progress import SILENT

PRECISIONS: dict[str, Precision] = {"tirex": "float16", "toto": "float16", "kronos": "float32"}
"""Kronos in half precision draws other paths, which no gate passes."""
ARTEFACTS = ("tirex", "toto")
SMALL: dict[str, Callable[[], ForecastModel]] = {
    "tirex": lambda: TiRexModel.random(
        TiRexConfig(
            blocks=1, width=16, heads=2, block_hidden=32, embedding_hidden=32, patch=8, context=64
        ),
        0,
    ),
    "toto": lambda: TotoModel(
        TotoConfig(
            patch_size=16,
            embed_dim=16,
            num_layers=2,
            num_heads=2,
            mlp_hidden_dim=16,
            spacewise_every_n_layers=2,
            k_components=2,
        )
    ),
    "kronos": lambda: random_kronos(
        KronosConfig(s1_bits=3, s2_bits=3, n_layers=1, d_model=16, n_heads=2, ff_dim=16),
        TokenizerConfig(s1_bits=3, s2_bits=3, d_model=16, n_heads=2, ff_dim=16),
        seed=0,
        max_context=64,
    ),
}
"""Networks of the same kinds for the way through a CPU."""
COUNTED = 2
"""Series whose FLOPs are counted; they grow with the number of series."""


def cases(bench: Bench) -> Iterator[Case]:
    """Each model by batch, the three as one, their tape, and training beside them."""
    for batch in bench.sizes.batches:
        for name, precision in PRECISIONS.items():
            if name in ARTEFACTS:
                called = f"{name} {precision} artefact, batch {batch:,}"
                yield Case(called, partial(measure, name, batch, True))
            called = f"{name} {precision}, batch {batch:,}"
            yield Case(called, partial(measure, name, batch, False))
        yield Case(f"all three, batch {batch:,}", partial(together, batch))
    bars = bench.sizes.tape_bars
    part = f"{bars} bars of us20" if bars else "us20"
    yield Case(f"tape of {part}, all three", tape_of_us20)
    yield Case("training beside all three", training_beside)


def network(name: str, bench: Bench) -> ForecastModel:
    """The network of this name with random weights, of full size unless sizes are tiny."""
    return random_model(name) if bench.sizes.full_models else SMALL[name]()


def windows(bench: Bench, count: int) -> Context:
    """Real windows of `us20` on the device."""
    tape = make_tape(sample_bars("us20"))
    length = bench.sizes.context
    bars = -(-count // tape.num_assets)
    rows = context_at(tape, slice(length + 1, length + 1 + bars), length)
    return Context(*(part[:count].to(bench.device) for part in rows))


def loaded(name: str, bench: Bench, artefact: bool) -> Forecaster:
    """The forecaster on the device, through an artefact that was gated there, if it is to be one.

    An artefact is written once and read again by the next case.
    """
    precision = PRECISIONS[name]
    if not artefact:
        return ModuleForecaster(network(name, bench), precision=precision, device=bench.device)
    path = bench.folder / f"{name}-{precision}.pt"
    if not path.exists():
        export_there(name, path, bench)
    return load_artifact(path, bench.device)


def export_there(name: str, path: Path, bench: Bench) -> None:
    """Write the artefact through the gate."""
    export(
        network(name, bench),
        path,
        windows=Context(*(part.cpu() for part in windows(bench, 64))),
        horizon=bench.sizes.horizon,
        precision=PRECISIONS[name],
        device=bench.device,
    )


def measure(name: str, batch: int, artefact: bool, bench: Bench) -> Row:
    """Forecasts a second, and how much of the device's matrix rate they are."""
    forecaster, context = loaded(name, bench, artefact), windows(bench, batch)
    row = _timed(bench, forecaster, context)
    flops = flops_of(name, bench)
    reached = flops * row["forecasts_per_s"]
    rate = bench.matrix_rate(PRECISIONS[name])
    return row | {
        "model": name,
        "precision": PRECISIONS[name],
        "format": "artefact" if artefact else "eager",
        "flop_per_forecast": flops,
        "tflop_per_s": round(reached / 1e12, 4),
        "matrix_rate_share": round(reached / rate, 4),
    }


def together(batch: int, bench: Bench) -> Row:
    """The three of them as one."""
    return _timed(bench, ensemble(bench), windows(bench, batch))


def ensemble(bench: Bench) -> Ensemble:
    """TiRex and Toto as artefacts, or eager where the gate refuses them, and Kronos."""
    members = []
    for name in PRECISIONS:
        found = None
        if name in ARTEFACTS:
            with suppress(ValueError):
                found = loaded(name, bench, True)
        members.append(found or loaded(name, bench, False))
    return Ensemble(members, on_failure="stop")


def tape_of_us20(bench: Bench) -> Row:
    """The table of forecasts of the three, of all bars or the last ones."""
    forecaster, sizes = ensemble(bench), bench.sizes
    bars = load_bars(DataConfig(num_assets=sizes.tape_assets))
    rows = sizes.tape_bars + sizes.context if sizes.tape_bars else len(bars.timestamps)
    tape = make_tape(bars.take(slice(len(bars.timestamps) - rows, None)), device=bench.device)
    bench.forget_peak()
    started = time.perf_counter()
    with watching(bench.device) as load:
        table = build_forecast_tape(
            tape,
            forecaster,
            bench.folder / f"tape-{time.time_ns()}",
            horizons=(1, sizes.horizon),
            context_length=sizes.context,
            batch_size=max(sizes.batches),
            progress=SILENT,
        )
    seconds = time.perf_counter() - started
    made = int((~table.values.isnan()).any(-1).sum())
    return _said(bench) | {
        "bars": len(tape),
        "forecasts": made,
        "seconds": round(seconds, 3),
        "forecasts_per_s": round(made / seconds, 1),
        "peak_memory_gb": bench.peak_memory_gb(),
        **load.figures,
    }


def training_beside(bench: Bench) -> Row:
    """Memory of iterations of PPO while the three forecasters are on the device and forecast."""
    bench.forget_peak()
    forecaster, sizes = ensemble(bench), bench.sizes
    tape = make_tape(sample_bars("us20"), device=bench.device)
    case = Benchmark(device=bench.device, hidden=sizes.hidden)
    trainer = make_trainer(case, tape, sizes.num_envs)
    timing = bench.time(trainer.advance)
    forecaster.forecast(windows(bench, min(sizes.batches)), sizes.horizon)
    return _said(bench) | {
        "num_envs": sizes.num_envs,
        "batch_size": min(sizes.batches),
        "train_frames_per_s": round(trainer.frames_per_iteration / timing.seconds, 1),
        "peak_memory_gb": bench.peak_memory_gb(),
    }


def flops_of(name: str, bench: Bench) -> int:
    """FLOPs of one forecast, as PyTorch counts the products of the eager network on a CPU."""
    model = ModuleForecaster(network(name, bench))
    few = Context(*(part.cpu() for part in windows(bench, COUNTED)))
    with FlopCounterMode(display=False) as counter:
        model.forecast(few, bench.sizes.horizon)
    return round(counter.get_total_flops() / COUNTED)


def _timed(bench: Bench, forecaster: Forecaster, context: Context) -> Row:
    horizon = bench.sizes.horizon
    bench.forget_peak()
    with torch.inference_mode():
        timing = bench.time(lambda: forecaster.forecast(context, horizon))
    return _said(bench) | {
        "batch_size": len(context.bars),
        "context": bench.sizes.context,
        "horizon": horizon,
        "forecasts_per_s": round(len(context.bars) / timing.seconds, 1),
        "batch_ms": round(1e3 * timing.seconds, 3),
        "spread": timing.spread,
        "warm_up_s": round(timing.warm_up, 3),
        "peak_memory_gb": bench.peak_memory_gb(),
        **timing.load,
    }


def _said(bench: Bench) -> Row:
    """Whose weights forecast."""
    return {"weights": "random, full size" if bench.sizes.full_models else "random, tiny"}
