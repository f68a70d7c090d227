"""Our forecasters against the official packages, full size, random weights, in one run.

    make test                                            # installs the official packages
    python benchmarks/peers/official_forecasters.py

Both sides take turns on the same series; a ratio is that of the median seconds. TiRex: batch 32,
horizon 64. Toto Open Base: batch 4, horizon 64, our analytic quantiles against 256 sample paths.
Kronos-base: one path of 64 bars after 448. Chronos-2 and TimesFM: each series alone,
batches of 1 and 8, horizon 32; of TimesFM what its `forecast` runs, the mirror image included.
"""

from __future__ import annotations

import json
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import torch
from rich.console import Console
from rich.table import Table

import fastsim
from fastsim.cli.ending import one_line_errors, read_options
from fastsim.forecast.models.chronos2 import random_chronos2
from fastsim.forecast.models.kronos import CONFIGS, TOKENIZER_CONFIGS, Sampling, random_kronos
from fastsim.forecast.models.timesfm import random_timesfm
from fastsim.forecast.models.tirex import TiRexConfig, TiRexModel
from fastsim.forecast.models.toto import TotoConfig, TotoModel

Call = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Which models, and how often."""

    models: tuple[str, ...] = ("tirex", "toto", "kronos", "chronos2", "timesfm")
    rounds: int = 3
    json: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One thing done by both."""

    name: str
    batch_size: int
    ours: Call
    official: Call


def walks(rows: int, length: int = 512) -> torch.Tensor:
    """Prices [rows, length] around 500 with a deviation of some tens."""
    generator = torch.Generator().manual_seed(0)
    return 500.0 + 2.0 * torch.randn(rows, length, generator=generator).cumsum(1)


def tirex_pairs() -> Iterator[Pair]:
    """The padded and the unpadded model against the official eager one."""
    from tirex.models.tirex import TiRexZero  # noqa: PLC0415

    config, closes = TiRexConfig(), walks(32)
    settings = {
        "model_config": {
            "input_patch_size": config.patch,
            "output_patch_size": config.patch,
            "quantiles": list(config.levels),
            "input_ff_dim": config.embedding_hidden,
            "block_kwargs": {
                "num_blocks": config.blocks,
                "embedding_dim": config.width,
                "num_heads": config.heads,
            },
        },
        "train_ctx_len": config.context,
    }
    padded = TiRexModel.random(config, 0).eval()
    free = TiRexModel.random(config, 0, pad=False).eval()
    state = {
        name.replace("blocks.", "block_stack.blocks."): weight
        for name, weight in padded.state_dict().items()
    }
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.ckpt"
        torch.save({"hyper_parameters": settings, "state_dict": state}, path)
        official = TiRexZero.from_pretrained(str(path), backend="torch", device="cpu")

    def theirs() -> object:
        return official.forecast(closes, prediction_length=64)

    yield Pair(
        name="tirex, padded as official",
        batch_size=32,
        ours=lambda: padded(closes, horizon=64),
        official=theirs,
    )
    yield Pair(
        name="tirex, unpadded",
        batch_size=32,
        ours=lambda: free(closes, horizon=64),
        official=theirs,
    )


def toto_pairs() -> Iterator[Pair]:
    """Analytic quantiles against 256 sample paths."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "xFormers", ImportWarning)
        from toto.data.util.dataset import MaskedTimeseries  # noqa: PLC0415
        from toto.inference.forecaster import TotoForecaster  # noqa: PLC0415
        from toto.model.toto import Toto  # noqa: PLC0415
    config, closes = TotoConfig(), walks(4)
    sizes = asdict(config)
    network = Toto(
        output_distribution_kwargs={"k_components": sizes.pop("k_components")},
        stride=config.patch_size,
        dropout=0.1,
        scaler_cls="<class 'model.scaler.CausalPatchStdMeanScaler'>",
        output_distribution_classes=["<class 'model.distribution.MixtureOfStudentTsOutput'>"],
        use_memory_efficient_attention=False,
        stabilize_with_global=True,
        scale_factor_exponent=10.0,
        **sizes,
    ).eval()
    ours = TotoModel(config).eval()
    forecaster = TotoForecaster(network.model)
    series = closes[:, None]
    inputs = MaskedTimeseries(
        series=series,
        padding_mask=torch.ones_like(series, dtype=torch.bool),
        id_mask=torch.zeros_like(series, dtype=torch.int),
        timestamp_seconds=torch.zeros_like(series, dtype=torch.int),
        time_interval_seconds=torch.full((len(series), 1), 86_400),
    )
    yield Pair(
        name="toto, 256 sample paths",
        batch_size=4,
        ours=lambda: ours(closes, horizon=64),
        official=lambda: forecaster.forecast(
            inputs, prediction_length=64, num_samples=256, samples_per_batch=256
        ),
    )


def kronos_pairs() -> Iterator[Pair]:
    """One sampled path of Kronos-base."""
    from kronos_finance._vendor.kronos_model import Kronos, KronosTokenizer  # noqa: PLC0415
    from kronos_finance._vendor.kronos_model.kronos import (  # noqa: PLC0415
        auto_regressive_inference,
    )

    still = {"ffn_dropout_p": 0.0, "attn_dropout_p": 0.0, "resid_dropout_p": 0.0}
    losses = {"beta": 0.05, "gamma0": 1.0, "gamma": 1.1, "zeta": 0.05}
    shapes = [
        {name: getattr(config, name) for name in config.__slots__}
        for config in (CONFIGS["base"], TOKENIZER_CONFIGS["base"])
    ]
    network = Kronos(**shapes[0], **still, token_dropout_p=0.0).eval()
    tokenizer = KronosTokenizer(**shapes[1], **still, **losses).eval()
    ours = random_kronos(
        CONFIGS["base"], TOKENIZER_CONFIGS["base"], seed=0, sampling=Sampling(paths=1)
    )
    bars = walks(1, 448)[..., None].expand(-1, -1, 6).contiguous()
    stamps = (1_700_000_000 + 3_600 * torch.arange(448))[None]
    normal = (bars - bars.mean(1, keepdim=True)) / bars.std(1, keepdim=True)
    past, future = torch.zeros(1, 448, 5), torch.zeros(1, 64, 5)
    yield Pair(
        name="kronos-base, one path",
        batch_size=1,
        ours=lambda: ours(bars, stamps, horizon=64),
        official=lambda: auto_regressive_inference(
            tokenizer, network, normal, past, future, 512, 64, sample_count=1, top_p=0.9
        ),
    )


def chronos2_pairs() -> Iterator[Pair]:
    """The same quantiles, of a batch of one and of eight."""
    from chronos.chronos2.config import Chronos2CoreConfig  # noqa: PLC0415
    from chronos.chronos2.model import Chronos2Model as Official  # noqa: PLC0415

    ours = random_chronos2().eval()
    config = ours.config
    names = ("d_model", "d_kv", "d_ff", "num_layers", "num_heads")
    inner = {
        "context_length": config.context_length,
        "input_patch_size": config.input_patch_size,
        "input_patch_stride": config.input_patch_size,
        "output_patch_size": config.input_patch_size,
        "max_output_patches": config.max_output_patches,
        "quantiles": list(config.quantiles),
        "use_arcsinh": True,
        "use_reg_token": True,
    }
    sizes = {name: getattr(config, name) for name in names}
    official = Official(Chronos2CoreConfig(**sizes, chronos_config=inner)).eval()
    official.load_state_dict(ours.network.state_dict())
    for batch_size in (1, 8):
        closes = walks(batch_size)
        yield Pair(
            name="chronos-2",
            batch_size=batch_size,
            ours=lambda closes=closes: ours(closes, horizon=32),
            official=lambda closes=closes: official(closes, num_output_patches=2),
        )


def timesfm_pairs() -> Iterator[Pair]:
    """The same deciles, of a batch of one and of eight."""
    from timesfm import ForecastConfig, TimesFM_2p5_200M_torch  # noqa: PLC0415

    ours = random_timesfm().eval()
    official = TimesFM_2p5_200M_torch(torch_compile=False)
    official.model.load_state_dict(ours.network.state_dict())
    official.model.eval()
    for batch_size in (1, 8):
        closes = walks(batch_size)
        rows = [row.numpy() for row in closes]
        asked = ForecastConfig(
            max_context=closes.shape[1],
            max_horizon=32,
            normalize_inputs=True,
            use_continuous_quantile_head=True,
            fix_quantile_crossing=True,
            per_core_batch_size=batch_size,
        )

        def theirs(rows: list[object] = rows, asked: object = asked) -> object:
            official.compile(asked)  # which only sets what is asked for
            return official.forecast(32, list(rows))

        yield Pair(
            name="timesfm-2.5",
            batch_size=batch_size,
            ours=lambda closes=closes: ours(closes, horizon=32),
            official=theirs,
        )


PAIRS = SimpleNamespace(
    tirex=tirex_pairs,
    toto=toto_pairs,
    kronos=kronos_pairs,
    chronos2=chronos2_pairs,
    timesfm=timesfm_pairs,
)


def measure(pair: Pair, rounds: int) -> dict[str, object]:
    """Seconds of both, in turns, and their ratio."""
    seconds: dict[str, list[float]] = {"ours": [], "official": []}
    with torch.no_grad():
        pair.ours()
        for _ in range(rounds):
            for name, taken in seconds.items():
                started = time.perf_counter()
                getattr(pair, name)()
                taken.append(time.perf_counter() - started)
    ours, official = (statistics.median(values) for values in seconds.values())
    return {
        "benchmark": "official_forecasters",
        "version": fastsim.__version__,
        "date": date.today().isoformat(),
        "case": pair.name,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "batch_size": pair.batch_size,
        "forecasts_per_s": round(pair.batch_size / ours, 2),
        "official_forecasts_per_s": round(pair.batch_size / official, 2),
        "ratio": round(official / ours, 2),
    }


def main(case: Benchmark) -> None:
    """Measure every pair of the models."""
    results = [
        measure(pair, case.rounds) for name in case.models for pair in getattr(PAIRS, name)()
    ]
    table = Table("Case", "Batch", "Ours, forecasts/s", "Official", "Ratio")
    for result in results:
        columns = ("case", "batch_size", "forecasts_per_s", "official_forecasts_per_s", "ratio")
        table.add_row(*(str(result[column]) for column in columns))
    Console(width=100).print(table)
    lines = "\n".join(json.dumps(result) for result in results)
    print(lines)
    if case.json is not None:
        case.json.write_text(lines + "\n")


if __name__ == "__main__":
    with one_line_errors("official_forecasters", Benchmark):
        main(read_options(Benchmark))
