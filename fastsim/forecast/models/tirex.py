"""TiRex, a pretrained recurrent network (xLSTM) that forecasts quantiles of a single series.

The architecture of "TiRex: Zero-Shot Forecasting across Long and Short Horizons" (arXiv
2505.23719), with the names of the official state dict. The past is cut into patches of 32 closes;
patches pass through blocks of sLSTM (arXiv 2405.04517, equations 8 to 17) and feed-forward layers;
the token at the last patch holds the quantiles of the next one. Unlike the official package, which
recurs in bfloat16, the recurrence is in float32 whatever the parameters are, so that a row's
forecast does not depend on its neighbours in the batch. A loop of tensor operations is its law; on
CUDA one Triton kernel does it for all tokens, but in traces and exports, which keep the loop: what
they write runs without this package.

Legend, next to the package's: `S` tokens, `D` width of the model, `E` heads, `W` width of a head,
`P` closes in a patch.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from fastsim.config import configuration
from fastsim.errors import ConfigError, ForecastError, one_line
from fastsim.forecast.interface import ModelCard
from fastsim.forecast.networks.dense import AfterPatches, DenseModel
from fastsim.forecast.networks.pooling import pooled
from fastsim.forecast.weights import find_weights, load_exactly, require_parameters

CARD = ModelCard(
    name="tirex",
    licence="NXAI Community License",
    attribution="Built with technology from NXAI",
    hub_id="NX-AI/TiRex",
    revision=None,  # the official package names none
    parameters=35_291_200,
    max_context=2048,
    max_horizon=2048,  # beyond, nothing known is left in the sliding window
    levels=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    known_source="its card names the data sets of Chronos and GIFT-Eval and no last day",
)
CHECKPOINT = "model.ckpt"

_Parts = tuple[Tensor, ...]
_Scan = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]

FUSED_WIDTHS = (16, 32, 64, 128)
"""Widths of a head that a program of the kernel can hold; 128 is that of the released weights."""
_RMS_EPS = 1e-6
_HEAD_NORM_EPS = 1e-5
_CONSTANT_EPS = 1e-5
"""Added to |mean| for the scale of a series that never moves."""
WIDTH_MULTIPLE = 64


@configuration(slots=False)
class TiRexConfig:
    """Sizes of the network; the defaults are those of the released weights."""

    blocks: int = 12
    width: int = 512
    heads: int = 4
    block_hidden: int = 1408
    """Width of the feed-forward layer in a block."""
    embedding_hidden: int = 2048
    """Width of the layer that patches pass on their way in and out."""
    patch: int = 32
    context: int = 2048
    """Closes in the window that the network was trained on."""
    levels: tuple[float, ...] = CARD.levels

    def __post_init__(self) -> None:
        for field in fields(self):
            given = getattr(self, field.name)
            if field.name != "levels" and given < 1:
                raise ConfigError(f"TiRexConfig.{field.name} must be an int >= 1, got {given!r}")
        if self.width % self.heads:
            raise ConfigError(
                f"TiRexConfig.width must be a multiple of heads {self.heads}, got {self.width}"
            )
        if self.context % self.patch:
            raise ConfigError(
                f"TiRexConfig.context must be a multiple of patch {self.patch}, got {self.context}"
            )
        if not self.levels or list(self.levels) != sorted(self.levels):
            raise ConfigError(f"TiRexConfig.levels must increase, got {self.levels!r}")


class _Scale(NamedTuple):
    mean: Tensor  # [B, 1]
    deviation: Tensor  # [B, 1]


class _State(NamedTuple):
    """What an sLSTM cell holds, every field [E, B, W]."""

    output: Tensor
    cell: Tensor
    normaliser: Tensor
    maximum: Tensor


class _History(NamedTuple):
    """What it held after each token, every field [E, S, B, W]."""

    output: Tensor
    cell: Tensor
    normaliser: Tensor
    maximum: Tensor


class _Residual(nn.Module):
    """One hidden layer beside a straight line, for patches on their way in and out."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.hidden_layer = _linear(inputs, hidden)
        self.output_layer = _linear(hidden, outputs)
        self.residual_layer = _linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        curved: Tensor = self.output_layer(torch.relu(self.hidden_layer(x)))
        straight: Tensor = self.residual_layer(x)
        return curved + straight


class _RmsNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        normal = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + _RMS_EPS)
        return normal.to(x.dtype) * self.weight


class _HeadWeight(nn.Module):
    """A gate's input weight: every head reads its own slice of the token."""

    def __init__(self, heads: int, head_width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(heads, head_width, head_width))  # [E, out, in]


class _HeadNorm(nn.Module):
    """Each head normalised to mean 0 and variance 1; the weight is stored less one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:  # [E, S, B, W]
        normal = F.layer_norm(x, x.shape[-1:], eps=_HEAD_NORM_EPS)
        return normal * (1.0 + self.weight.float().reshape(x.shape[0], 1, 1, -1))


class _Recurrence(nn.Module):
    """Weights from a head's last output to its four gates, and the gates' biases."""

    def __init__(self, heads: int, head_width: int) -> None:
        super().__init__()
        self._recurrent_kernel_ = nn.Parameter(torch.empty(heads, head_width, 4 * head_width))
        self._bias_ = nn.Parameter(torch.empty(heads * 4 * head_width))

    def outputs(self, inputs: Tensor, state: Tensor) -> Tensor:
        """Output after each token, [E, S, B, W], of what `forward` takes."""
        fused = _fused() if self._may_fuse(inputs) else None
        if fused is None:
            looped: _History = self(inputs, state)
            return looped.output
        return fused(inputs, self._bias_, self._recurrent_kernel_, state)

    def _may_fuse(self, inputs: Tensor) -> bool:
        """Whether the recurrence may be one kernel: on CUDA, and where numbers alone are wanted."""
        if _is_tracing() or torch.compiler.is_exporting() or torch.compiler.is_compiling():
            return False  # what is kept runs without this package
        learns = torch.is_grad_enabled() and (inputs.requires_grad or self._bias_.requires_grad)
        held = self._recurrent_kernel_.shape[1] in FUSED_WIDTHS
        return inputs.is_cuda and held and not learns

    def forward(self, inputs: Tensor, state: Tensor) -> _History:
        """The cell over gate inputs [E, S, B, 4W] from a state [4, E, B, W]."""
        heads = inputs.shape[0]
        bias = self._bias_.float().reshape(heads, 1, 1, -1)
        kernel = self._recurrent_kernel_.float()
        scan: _Scan = _scan
        if _is_tracing():
            scan = _scripted_scan()
        elif torch.compiler.is_exporting():
            scan = _exported_scan
        return _History(*scan(inputs.float() + bias, kernel, state))


class _Slstm(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.fgate = _HeadWeight(heads, width // heads)
        self.igate = _HeadWeight(heads, width // heads)
        self.zgate = _HeadWeight(heads, width // heads)
        self.ogate = _HeadWeight(heads, width // heads)
        self.slstm_cell = _Recurrence(heads, width // heads)
        self.group_norm = _HeadNorm(width)

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        """Tokens [S, B, D] mixed over time."""
        return self._normal(self.slstm_cell.outputs(self._gates(x), state), x.dtype)

    def with_history(self, x: Tensor, state: Tensor) -> tuple[Tensor, _History]:
        """The same, and the states after all tokens."""
        history = self.slstm_cell(self._gates(x), state)
        return self._normal(history.output, x.dtype), history

    def _gates(self, x: Tensor) -> Tensor:
        """Inputs of the four gates [E, S, B, 4W], for all tokens at once."""
        # The official cell reads its input gate from fgate and its forget gate from igate.
        gates = (self.fgate.weight, self.igate.weight, self.zgate.weight, self.ogate.weight)
        weight = torch.cat(gates, dim=1).transpose(1, 2)  # [E, W, 4W]
        tokens, batch = x.shape[:2]
        sliced = x.reshape(tokens * batch, self.heads, -1).transpose(0, 1)  # [E, S * B, W]
        return torch.unflatten(torch.bmm(sliced, weight), 1, (tokens, batch))

    def _normal(self, output: Tensor, dtype: torch.dtype) -> Tensor:
        """Outputs [E, S, B, W] normalised head by head, as tokens [S, B, D]."""
        normal: Tensor = self.group_norm(output)
        return normal.permute(1, 2, 0, 3).flatten(2).to(dtype)


class _FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.proj_up_gate = _linear(width, hidden, bias=False)
        self.proj_up = _linear(width, hidden, bias=False)
        self.proj_down = _linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        down: Tensor = self.proj_down(F.silu(self.proj_up_gate(x)) * self.proj_up(x))
        return down


class _Block(nn.Module):
    def __init__(self, config: TiRexConfig) -> None:
        super().__init__()
        self.norm_slstm = _RmsNorm(config.width)
        self.slstm_layer = _Slstm(config.width, config.heads)
        self.norm_ffn = _RmsNorm(config.width)
        self.ffn = _FeedForward(config.width, config.block_hidden)

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        return self._fed(x + self.slstm_layer(self.norm_slstm(x), state))

    def with_history(self, x: Tensor, state: Tensor) -> tuple[Tensor, _History]:
        """The same, and the states of its cell after all tokens."""
        mixed, history = self.slstm_layer.with_history(self.norm_slstm(x), state)
        return self._fed(x + mixed), history

    def _fed(self, x: Tensor) -> Tensor:
        fed: Tensor = self.ffn(self.norm_ffn(x))
        return x + fed


class TiRexModel(DenseModel):
    """TiRex on closes [B, L], NaN where missing; quantiles [B, horizon, Q] of the next closes.

    A horizon of more than one patch is forecast patch by patch: those already forecast enter as
    missing, and the oldest closes leave the window. A trace holds for its context length and any
    batch; at another length it raises.

    Parameters
    ----------
    config
        Sizes of the network. Its weights are undefined until they are loaded.
    pad
        True gives the forecasts of the official package, which fills the window of
        `config.context` closes with missing patches on the left. The state that they leave is the
        same for every series, so it is kept in a table and they cost nothing; but each patch of
        the horizon is a pass of its own. False starts from the first close, and forecasts all
        patches that fit the window in one pass: faster for long horizons, but other forecasts.
        Where the window is full the two agree.
    """

    fit_modes = ("scratch", "full", "head", "lora")
    head_names = ("out_norm", "output_patch_embedding")
    layer_names = ("blocks",)
    _padding: Tensor  # [1 + most missing patches, blocks, 4, E, 1, W]
    _blank: Tensor  # [2P]  a missing patch

    def __init__(self, config: TiRexConfig, *, pad: bool = True) -> None:
        super().__init__()
        self.config, self.pad = config, pad
        self.input_patch_embedding = _Residual(
            2 * config.patch, config.embedding_hidden, config.width
        )
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.blocks))
        self.out_norm = _RmsNorm(config.width)
        self.output_patch_embedding = _Residual(
            config.width, config.embedding_hidden, len(config.levels) * config.patch
        )
        most = config.context // config.patch - 1 if pad else 0
        state = (config.blocks, 4, config.heads, 1, config.width // config.heads)
        padding = torch.zeros(1 + most, *state)
        padding[:, :, 3] = -math.inf  # makes equation 15 hold at the first token too
        self.register_buffer("_padding", padding, persistent=False)
        self.register_buffer("_blank", torch.zeros(2 * config.patch), persistent=False)
        self.register_load_state_dict_post_hook(_tabulate_padding)  # type: ignore[no-untyped-call]
        self.card = replace(
            CARD,
            name=CARD.name if pad else f"{CARD.name}-unpadded",  # other forecasts, another key
            parameters=sum(parameter.numel() for parameter in self.parameters()),
            max_context=config.context,
            max_horizon=config.context,
            levels=config.levels,
        )

    @classmethod
    def random(cls, config: TiRexConfig, seed: int, *, pad: bool = True) -> Self:
        """A network of seeded random weights, for tests: its forecasts mean nothing."""
        model = cls(config, pad=pad)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                is_norm = "norm" in name
                fan_in = 100 if is_norm or parameter.dim() == 1 else parameter.shape[-1]
                parameter.normal_(generator=generator).div_(math.sqrt(fan_in))
                if is_norm and "group_norm" not in name:
                    parameter.add_(1.0)
        model.tabulate_padding()
        return model.eval()

    def settings(self) -> dict[str, Any]:
        """Sizes, and whether the window is filled."""
        return asdict(self.config) | {"pad": self.pad}

    def weights_changed(self) -> None:
        """Work out again the states that missing patches leave."""
        self.tabulate_padding()

    @torch.no_grad()
    def tabulate_padding(self) -> None:
        """Work out the states that missing patches leave; loading weights does it by itself.

        Whoever changes weights in another way calls it, or forecasts from short contexts are those
        of the weights before.
        """
        padding = self._padding
        most = len(padding) - 1
        if most:
            x = self.input_patch_embedding(self._blank.expand(most, 1, -1))
            for index, block in enumerate(self.blocks):
                assert isinstance(block, _Block)
                x, history = block.with_history(x, padding[0, index])
                states = torch.stack(history).permute(2, 0, 1, 3, 4)  # [S, 4, E, 1, W]
                padding[1:, index] = states

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or cast the model, but keep the states in float32, as the recurrence is."""
        exact = self._padding
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._padding = exact.to(self._padding.device)
        return self

    def forward(self, *inputs: Tensor, horizon: int) -> Tensor:
        """Quantiles [B, horizon, Q] in float32, in the unit of the closes [B, L].

        Raises
        ------
        ForecastError
            The horizon is below 1 or beyond the window.
        """
        (closes,) = inputs
        patch, window = self.config.patch, self.config.context
        if not 1 <= horizon <= window:
            raise ForecastError(f"tirex forecasts 1 to {window} bars ahead, not {horizon}")
        closes = closes.float()
        length = _fixed_length(closes)
        patches, done = -(-horizon // patch), 0
        forecasts = []
        while done < patches:
            room = window // patch - done
            kept = min(length, room * patch)
            tokens = -(-kept // patch)
            at_once = 1 if self.pad else min(patches - done, room - tokens + 1)
            missing = room - tokens if self.pad else 0
            recent = closes[:, length - kept :]
            padded = F.pad(recent, (tokens * patch - kept, 0), value=math.nan)
            known = torch.unflatten(padded, 1, (tokens, patch))  # [B, S, P]
            forecasts.append(self._next_patches(known, missing, done, at_once))
            done += at_once
        return torch.cat(forecasts, dim=1)[:, :horizon]

    @property
    def patch(self) -> int:
        """Closes in a patch."""
        return self.config.patch

    def after_patches(self, closes: Tensor) -> AfterPatches:
        """Forecast after the patches of the second half of closes [B, L]."""
        patch, length = self.config.patch, min(closes.shape[1], self.config.context)
        tokens = -(-length // patch)
        recent = closes[:, -length:].float()
        padded = F.pad(recent, (tokens * patch - length, 0), value=math.nan)
        known = torch.unflatten(padded, 1, (tokens, patch))  # [B, S, P]
        first = -(-tokens // 2)
        scale = _scale_of(known[:, :first])
        missing = self.config.context // patch - tokens if self.pad else 0
        x = self._hidden(self._tokens(known, scale), missing)[first - 1 :]  # [S, B, D]
        out = self._told(x) * scale.deviation[..., None, None] + scale.mean[..., None, None]
        enough = known[:, :first].isfinite().sum((1, 2)) >= self.card.min_context
        return AfterPatches(out, enough[:, None].expand(-1, out.shape[1]))

    def _next_patches(self, known: Tensor, missing: int, done: int, count: int) -> Tensor:
        """The `count` patches [B, count * P, Q] that follow `known` [B, S, P] and `done` patches.

        `missing` blank patches go before.
        """
        scale = _scale_of(known)
        tokens = self._tokens(known, scale)
        future = self._blank.expand(done + count - 1, tokens.shape[1], -1)
        x = torch.cat((tokens, future))  # [S, B, 2P]
        x = self._hidden(x, missing)[-count:]  # [count, B, D]
        out = self._told(x).flatten(1, 2)  # [B, count * P, Q]
        return out * scale.deviation[..., None] + scale.mean[..., None]

    def _tokens(self, known: Tensor, scale: _Scale) -> Tensor:
        """Scaled closes and whether they are known [S, B, 2P], of patches [B, S, P]."""
        scaled = (known - scale.mean[..., None]) / scale.deviation[..., None]
        is_known = scaled.isnan().logical_not()
        filled = torch.where(is_known, scaled, torch.zeros_like(scaled))
        whole = torch.cat((filled, is_known.to(filled.dtype)), dim=-1).transpose(0, 1)
        return whole.to(self._blank.dtype)

    def _told(self, x: Tensor) -> Tensor:
        """Scaled quantiles [B, S, P, Q] after tokens [S, B, D]."""
        out: Tensor = self.output_patch_embedding(self.out_norm(x)).float()
        out = torch.unflatten(out, -1, (len(self.config.levels), self.config.patch))
        return out.permute(1, 0, 3, 2)

    def hidden_state(self, *inputs: Tensor) -> Tensor:
        """Mean state [B, D] of the patches that hold a known close, after all blocks."""
        closes = inputs[0].float()[:, -self.config.context :]
        patch, window = self.config.patch, self.config.context
        padded = F.pad(closes, (-closes.shape[1] % patch, 0), value=math.nan)
        known = torch.unflatten(padded, 1, (-1, patch))  # [B, S, P]
        missing = window // patch - known.shape[1] if self.pad else 0
        tokens = self._tokens(known, _scale_of(known))
        state = self.out_norm(self._hidden(tokens, missing)).transpose(0, 1)  # [B, S, D]
        return pooled(state, known.isfinite().any(-1))

    def _hidden(self, tokens: Tensor, missing: int) -> Tensor:
        """Tokens [S, B, 2P] after all blocks, [S, B, D], from the state after missing patches."""
        states = self._padding[missing].expand(-1, -1, -1, tokens.shape[1], -1)
        x: Tensor = self.input_patch_embedding(tokens)
        for block, state in zip(self.blocks, states.unbind(0), strict=True):
            x = block(x, state)
        return x


def load_tirex(
    path: str | Path | None = None, revision: str | None = None, *, pad: bool = True
) -> TiRexModel:
    """TiRex with its official weights, under the NXAI Community License.

    Parameters
    ----------
    path
        `model.ckpt` or the folder that holds it; None asks the hub's cache, then the hub.
    pad
        True for the forecasts of the official package, False for speed; see `TiRexModel`.
    revision
        Commit of the hub's repository; None holds to the one met first.

    Raises
    ------
    ForecastError
        The file cannot be had, is damaged, or holds another network.
    """
    found = find_weights(
        CARD.name, CHECKPOINT, hub_id=CARD.hub_id, revision=revision or CARD.revision, path=path
    )
    model = read_checkpoint(found, pad=pad)
    require_parameters(CARD.name, model, CARD.parameters)
    return model


def read_checkpoint(path: Path, *, pad: bool = True) -> TiRexModel:
    """The network of whatever size that a checkpoint of the official format holds.

    Raises
    ------
    ForecastError
        The file is damaged, or no checkpoint of TiRex.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what the unpickler raises depends on the damage
        reason = one_line(error, 160)
        raise ForecastError(
            f"{CARD.name}: {path} is damaged or no checkpoint of torch ({reason})"
        ) from None
    try:
        config = _config_of(checkpoint["hyper_parameters"])
        # Released checkpoints keep the blocks under a module that the official package dissolved.
        state = {
            name.replace("block_stack.", ""): weight
            for name, weight in checkpoint["state_dict"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        reason = one_line(error, 160)
        raise ForecastError(
            f"{CARD.name}: {path} is not this architecture "
            f"({type(error).__name__} in its settings: {reason})"
        ) from None
    model = TiRexModel(config, pad=pad)
    load_exactly(CARD.name, model, state, path)
    return model.eval()


def _config_of(settings: Mapping[str, Any]) -> TiRexConfig:
    """Sizes from the settings that an official checkpoint carries."""
    model = settings["model_config"]
    block = model["block_kwargs"]
    return TiRexConfig(
        blocks=block["num_blocks"],
        width=block["embedding_dim"],
        heads=block["num_heads"],
        block_hidden=_round_up(block["embedding_dim"] * block.get("ffn_proj_factor", 2.6667)),
        embedding_hidden=model["input_ff_dim"],
        patch=model["input_patch_size"],
        context=settings["train_ctx_len"],
        levels=tuple(model["quantiles"]),
    )


def _round_up(width: float) -> int:
    """The official width of a feed-forward layer, a multiple of 64 just above `width`."""
    return int((width + WIDTH_MULTIPLE - 1) // WIDTH_MULTIPLE) * WIDTH_MULTIPLE


def _tabulate_padding(model: nn.Module, _loaded: object) -> None:
    assert isinstance(model, TiRexModel)
    model.tabulate_padding()


def _scale_of(known: Tensor) -> _Scale:
    """Mean and deviation [B, 1] of what is known in patches [B, S, P]."""
    flat = known.flatten(1)
    mean = flat.nanmean(-1, keepdim=True).nan_to_num(nan=0.0)
    deviation = (flat - mean).square().nanmean(-1, keepdim=True).sqrt().nan_to_num(nan=1.0)
    return _Scale(mean, torch.where(deviation == 0, mean.abs() + _CONSTANT_EPS, deviation))


def _scan(inputs: Tensor, kernel: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """SLSTM over tokens in float32 (arXiv 2405.04517, equations 8 to 17).

    Parameters
    ----------
    inputs
        Gate inputs [E, S, B, 4W] with their bias: input, forget, cell, output.
    kernel
        [E, W, 4W] from the last output to the gates.
    state
        Output, cell, normaliser and maximum [4, E, B, W].

    Returns
    -------
    Output, cell, normaliser and maximum after each token, [E, S, B, W].
    """
    held = _State(state[0], state[1], state[2], state[3])
    outputs, cells, normalisers, maxima = [], [], [], []
    for token in inputs.unbind(1):
        held = _step(held, token, kernel)
        outputs.append(held.output)
        cells.append(held.cell)
        normalisers.append(held.normaliser)
        maxima.append(held.maximum)
    return (
        torch.stack(outputs, 1),
        torch.stack(cells, 1),
        torch.stack(normalisers, 1),
        torch.stack(maxima, 1),
    )


def _step(held: _State, token: Tensor, kernel: Tensor) -> _State:
    """The state after a token's gate inputs [E, B, 4W]."""
    gates = torch.baddbmm(token, held.output, kernel)
    log_input, forget, candidate, gate = gates.chunk(4, -1)
    # Beyond 15 log sigmoid is zero to float32; official inference clamps there too.
    log_forget = held.maximum + F.logsigmoid(forget.clamp(max=15.0))
    maximum = torch.maximum(log_input, log_forget)
    keep = torch.exp(log_forget - maximum)
    take = torch.exp(log_input - maximum)
    cell = keep * held.cell + take * torch.tanh(candidate)
    normaliser = keep * held.normaliser + take
    return _State(torch.sigmoid(gate) * cell / normaliser, cell, normaliser, maximum)


@functools.cache
def _fused() -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] | None:
    """The kernel that scans; None without triton, which comes with CUDA builds of torch alone."""
    if find_spec("triton") is None:
        return None
    found: Callable[..., Tensor] = import_module("fastsim.forecast.networks.slstm_triton").outputs
    return found


def _exported_scan(
    inputs: Tensor, kernel: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`_scan` as one operator of torch.export, which would unroll a Python loop."""
    # Private still, but what torch.onnx and AOTInductor know a loop by.
    from torch._higher_order_ops.scan import scan  # noqa: PLC0415

    batch = inputs.shape[2]

    def step(held: _Parts, token: Tensor) -> tuple[_Parts, _Parts]:
        # Naming the batch here binds it, without which AOTInductor knows only that of the example.
        after = tuple(_step(_State(*held), token.expand(-1, batch, -1), kernel))
        return after, tuple(part.clone() for part in after)

    start = tuple(part.contiguous() for part in state.unbind(0))
    _, history = scan(step, start, inputs.transpose(0, 1).contiguous())
    output, cell, normaliser, maximum = (part.transpose(0, 1) for part in history)
    return output, cell, normaliser, maximum


@functools.cache
def _scripted_scan() -> _Scan:
    """`_scan` compiled, for traces: there a Python loop would be unrolled token by token."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit.script.*", DeprecationWarning)
        scripted: _Scan = torch.jit.script(_scan)
    return scripted


def _fixed_length(closes: Tensor) -> int:
    """L of closes [B, L], which a trace takes for a constant without a warning."""
    if not _is_tracing():
        return closes.shape[1]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Converting a tensor to a Python integer")
        return int(closes.shape[1])


def _is_tracing() -> bool:
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return tracing


def _linear(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    """A layer of undefined weights: drawing weights to be overwritten takes time and a seed."""
    return nn.Linear(inputs, outputs, bias=bias, device="meta").to_empty(device="cpu")
