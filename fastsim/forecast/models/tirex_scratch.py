"""TiRex before it has learned anything, and what it has learned as a checkpoint for its package.

A new network forecasts about what a random walk would: the last close of a patch is carried past
the blocks to the median, and quantiles are a normal's that widen with the root of the horizon. The
blocks add little to it at first.
"""

from __future__ import annotations

import io
from pathlib import Path

import torch

from fastsim.config import write_whole
from fastsim.errors import ConfigError
from fastsim.forecast.models.tirex import WIDTH_MULTIPLE, TiRexConfig, TiRexModel

QUIET = 0.1
"""Size of what a new block adds to a token, against order one."""
LEVEL = 2.0
"""Of the constant that tokens carry beside the last close, so that their norm hardly depends on
it: in units of the root of the width."""
FORGETTING = (1.0, 5.0)
"""Biases of forget gates over the units of a head: states that last some 4 to 150 patches."""
SCALED_BARS = 512
"""Closes of a window whose deviation is the unit of a new network's quantiles."""
CARRIED = slice(0, 2)
"""Places of a token that hold the last close and the constant."""


@torch.no_grad()
def initialise(model: TiRexModel) -> TiRexModel:
    """Give every weight a value, from torch's own generator, and return the network.

    Weights are normal with the variance of one over the inputs, but for what adds to tokens, which
    is QUIET; biases are 0 and gains 1. Gates forget as FORGETTING says.
    """
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            weight.normal_(std=weight.shape[-1] ** -0.5)
        else:
            weight.fill_(1.0 if "norm" in name else 0.0)
        if name.endswith("group_norm.weight"):  # stored less one
            weight.fill_(QUIET - 1.0)
            weight[CARRIED] = -1.0
        elif name.endswith("proj_down.weight"):
            weight.mul_(QUIET)
            weight[CARRIED] = 0.0
        elif name.endswith("_recurrent_kernel_"):
            weight.normal_(std=QUIET * weight.shape[1] ** -0.5)
        elif name.endswith("slstm_cell._bias_"):
            heads = model.config.heads
            forget = weight.view(heads, 4, -1)[:, 1]  # input, forget, cell, output
            forget.copy_(torch.linspace(*FORGETTING, forget.shape[1]).expand(heads, -1))
    _carry_the_last_close(model)
    model.tabulate_padding()
    return model


def _carry_the_last_close(model: TiRexModel) -> None:
    """Let place 0 of a token be the patch's last close, place 1 a constant, and both be told."""
    config = model.config
    read, told = model.input_patch_embedding, model.output_patch_embedding
    for layer in (read.residual_layer, read.output_layer):
        layer.weight.mul_(QUIET)
        layer.weight[CARRIED] = 0.0
    told.output_layer.weight.mul_(QUIET**2)
    read.residual_layer.weight[0, config.patch - 1] = 1.0
    read.residual_layer.bias[1:2] = LEVEL * config.width**0.5
    told.residual_layer.weight.zero_()
    told.residual_layer.weight[:, 0] = LEVEL  # undoes the division by the norm
    levels = torch.special.ndtri(torch.tensor(config.levels, dtype=torch.float64))
    ahead = torch.arange(1, config.patch + 1, dtype=torch.float64).sqrt()
    # A walk of n steps deviates from its mean by the root of n / 6 of its steps.
    step = (6.0 / min(SCALED_BARS, config.context)) ** 0.5
    told.residual_layer.bias.copy_((step * levels[:, None] * ahead).flatten())


def has_official_size(config: TiRexConfig) -> bool:
    """Whether the official package has networks of this size."""
    return config.block_hidden % WIDTH_MULTIPLE == 0


def write_checkpoint(model: TiRexModel, path: Path) -> None:
    """Write the network as its official package reads it, whole.

    Raises
    ------
    ConfigError
        The package has no network of this size.
    """
    config = model.config
    if not has_official_size(config):
        raise ConfigError(
            f"TiRexConfig.block_hidden must be a multiple of {WIDTH_MULTIPLE} for a checkpoint "
            f"that the official package reads, got {config.block_hidden}"
        )
    state = {name: weight.detach().cpu().clone() for name, weight in model.state_dict().items()}
    buffer = io.BytesIO()
    torch.save({"hyper_parameters": _official_settings(config), "state_dict": state}, buffer)
    write_whole(path, buffer.getvalue())


def _official_settings(config: TiRexConfig) -> dict[str, object]:
    return {
        "model_config": {
            "input_patch_size": config.patch,
            "output_patch_size": config.patch,
            "quantiles": list(config.levels),
            "input_ff_dim": config.embedding_hidden,
            "block_kwargs": {
                "num_blocks": config.blocks,
                "embedding_dim": config.width,
                "num_heads": config.heads,
                "ffn_proj_factor": config.block_hidden / config.width,
            },
        },
        "train_ctx_len": config.context,
    }
