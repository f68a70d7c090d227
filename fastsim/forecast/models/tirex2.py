"""TiRex-2 ("Generalizing TiRex to Multivariate Data and Streaming", arXiv 2607.01204), univariate.

Its package `tirex-2` runs unchanged, in float32 on its own PyTorch kernels; only the compiler that
it starts by itself is kept off, so that no C++ compiler is needed. Package and weights are
Apache-2.0, but its mLSTM is the package `mlstm_kernels`, under the NXAI Community License: with
that come an attribution and, above a hundred million euros of revenue, a commercial licence.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from fastsim.errors import ForecastError, one_line
from fastsim.forecast.interface import ForecastModel, ModelCard
from fastsim.forecast.weights import find_first

CARD = ModelCard(
    name="tirex2",
    licence="Apache-2.0, with kernels under the NXAI Community License",
    attribution="Built with technology from NXAI",
    hub_id="NX-AI/TiRex-2",
    revision=None,  # the official package names none
    parameters=82_501_744,  # 38.4 M of them are used for a single series, says the paper
    max_context=2048,
    max_horizon=320,
    levels=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    known_source="its authors name no last day",
)
CHECKPOINTS = ("model.safetensors", "model.ckpt")
CONFIGS = ("config.json", "model-config.yaml")
"""Weights and settings in either of the two forms that they are published in, the newer first."""
_PUBLISHED_TO = 100_000
"""The paper gives its two counts of parameters to 0.1 M; nothing gives them exactly."""


class TiRex2Model(ForecastModel):
    """The package's model behind our interface."""

    def __init__(self, official: Any, series: Any, settings: Mapping[str, Any]) -> None:
        """Wrap the package's `ForecastModel`, which takes the package's `TimeseriesType`."""
        super().__init__()
        self.implementation = f"tirex-2-{version('tirex-2')}"
        self._settings = dict(settings)
        self.network = official.model
        self._official, self._series = official, series
        self.card = replace(
            CARD,
            parameters=sum(weight.numel() for weight in self.network.parameters()),
            max_context=self.network.context_len,
            max_horizon=self.network.future_len,
            levels=tuple(round(level, 6) for level in self.network.quantiles.tolist()),
        )

    def settings(self) -> dict[str, Any]:
        """What the official configuration holds."""
        return self._settings

    def forward(self, *inputs: Tensor, horizon: int) -> Tensor:
        """Quantiles [B, horizon, Q] of closes [B, L], NaN where missing.

        Whether a series trends is told from its length, so padding on the left is cut off first.

        Raises
        ------
        ForecastError
            The parameters are not float32, or the model is being exported.
        """
        if torch.jit.is_tracing() or torch.compiler.is_compiling():  # type: ignore[attr-defined, no-untyped-call]
            raise ForecastError(
                f"{CARD.name} cannot be exported: its package decides in Python, series by series, "
                "whether to forecast differences"
            )
        dtype = next(self.parameters()).dtype
        if dtype != torch.float32:
            raise ForecastError(f"{CARD.name} runs in float32 alone, not in {dtype}")
        closes = inputs[0].float()[:, -self.card.max_context :]
        starts = closes.isfinite().int().argmax(1).tolist()
        series = [
            self._series(target=row[None, start:], past_covariates=None, future_covariates=None)
            for row, start in zip(closes, starts, strict=True)
        ]
        with torch.compiler.set_stance("force_eager"):
            forecasts = self._official.forecast(series, prediction_length=horizon)
        quantiles = torch.stack(forecasts).squeeze(1)  # [B, Q, horizon]
        return quantiles.transpose(1, 2).to(closes.device)


def load_tirex2(path: str | Path | None = None, *, revision: str | None = None) -> TiRex2Model:
    """TiRex-2 with its official weights.

    Parameters
    ----------
    path
        A folder with weights and settings, or its file of weights: `model.safetensors` beside
        `config.json`, or `model.ckpt` beside `model-config.yaml`. None asks the hub's cache, then
        the hub.
    revision
        Commit of the hub's repository; None holds to the one met first.

    Raises
    ------
    ForecastError
        The package or the files cannot be had, or they are damaged or hold another network.
    """
    model = read_checkpoint(path, revision=revision)
    wanted, found = CARD.parameters, model.card.parameters
    if abs(found - wanted) > _PUBLISHED_TO:
        raise ForecastError(
            f"{CARD.name} has {wanted / 1e6:.1f} M parameters, these weights have {found:,}"
        )
    return model


def read_checkpoint(path: str | Path | None, *, revision: str | None = None) -> TiRex2Model:
    """The network of whatever size that an official checkpoint holds; as `load_tirex2`."""
    package = _package()
    where = {"hub_id": CARD.hub_id, "revision": revision or CARD.revision}
    weights = find_first(CARD.name, CHECKPOINTS, path=path, **where)
    if weights.name not in CHECKPOINTS:
        raise ForecastError(f"{CARD.name}: {weights} must be called {' or '.join(CHECKPOINTS)}")
    newer = weights.with_name(CHECKPOINTS[0])
    if path is not None and weights != newer and newer.is_file():
        raise ForecastError(
            f"{CARD.name}: {weights} lies beside {newer.name}, which the package reads instead: "
            f"name that, or move one of them"
        )
    beside = None if path is None else weights.parent
    config = find_first(CARD.name, CONFIGS, path=beside, **where)
    try:
        settings = yaml.safe_load(config.read_text())  # which JSON is, too
        with _undisturbed():
            official = package.load_model(weights.parent, device="cpu")
            return TiRex2Model(official, package.TimeseriesType, settings).eval()
    except Exception as error:  # what the package raises depends on the damage
        reason = one_line(error, 160)
        raise ForecastError(
            f"{CARD.name}: {weights} or its {config.name} is damaged or not this architecture "
            f"({type(error).__name__}: {reason})"
        ) from None


def random_tirex2(settings: dict[str, Any], seed: int) -> TiRex2Model:
    """A network of these official settings with the package's random weights, for its speed."""
    package = _package()
    with _undisturbed():
        torch.manual_seed(seed)
        network = package.model.TiRex2(**settings, device="cpu")
        official = package.ForecastModel(network)
        return TiRex2Model(official, package.TimeseriesType, settings).eval()


def official_settings(
    *,
    blocks: int = 12,
    width: int = 512,
    hidden: int = 2048,
    patch: int = 32,
    context: int = 2048,
    horizon: int = 320,
) -> dict[str, Any]:
    """What an official `config.json` holds; the defaults make the parameters that are published.

    Blocks mix time by an mLSTM and an sLSTM in turn, and variates by attention; 4 heads each.
    """
    mixer = {"embedding_dim": width, "num_heads": 4}
    templates = {
        kind: {
            "time_mixer": mixer | {"model_type": f"bi-{kind}", "num_slstm_heads": 4},
            "variate_mixer": mixer,
            "dropout": 0.0,
            "eps": 1e-7,
        }
        for kind in ("mlstm", "slstm")
    }
    patches = ("input_patch_size", "output_patch_size")
    return dict.fromkeys(patches, patch) | {
        "stack_config": {"templates": templates, "recipe": [*templates] * (blocks // 2)},
        "num_blocks": blocks,
        "embedding_dim": width,
        "quantiles": list(CARD.levels),
        "tokenizer_cfg": dict.fromkeys((*patches, "input_patch_stride"), patch),
        "scaler_cfg": {"use_arcsinh": True, "binaryaware": True},
        "h_expand": 4,
        "context_len": context,
        "future_len": horizon,
        "input_ff_dim": hidden,
        "act_func": "SiLU",
        "dropout": 0.0,
        "stack_out_norm_config": {"eps": 1e-7},
    }


def _package() -> Any:
    try:
        with warnings.catch_warnings():
            # The package compiles as it is imported, and torch's compiler warns of torch.jit.
            warnings.filterwarnings("ignore", r".*torch\.jit\.", DeprecationWarning)
            import_module("flashrnn")  # which the package itself imports at the first forecast
            return import_module("tirex2")
    except ImportError as error:
        raise ForecastError(
            f"tirex2 is not installed ({error.name} is missing): pip install 'fastsim-rl[tirex2]'"
        ) from None


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Build the package's network without a trace in torch's seed or its matmul precision."""
    precision = torch.get_float32_matmul_precision()
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # It warns of its own older files, which load as well.
            warnings.filterwarnings("ignore", "Loading the legacy", FutureWarning)
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
