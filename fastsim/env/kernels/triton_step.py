"""The backend for GPUs: one fused kernel per step, and steps captured as one CUDA graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastsim.capture import captured, current, records
from fastsim.env.actions import action_width
from fastsim.env.core import Transition
from fastsim.env.kernels import columns as c
from fastsim.env.kernels.buffers import (
    Results,
    by_market,
    column_places,
    empty_draws,
    empty_results,
    empty_singles,
    empty_state,
    empty_views,
    market_rows,
    pack_market,
    pack_rules,
    padded_width,
    portfolio_width,
    repack_bars,
    seen_width,
    without_features,
)
from fastsim.env.kernels.coverage import COVERAGE
from fastsim.env.kernels.triton_kernel import INTERPRETED, Further, step_kernel
from fastsim.env.kernels.triton_launch import Launch, launch_of
from fastsim.env.nested import flatten, take
from fastsim.env.state import EnvParams, EnvState
from fastsim.errors import ConfigError

VECTOR = 4
"""Assets are padded to a multiple of this: rows of tables then start at multiples of 16 bytes."""
SMALLEST_BLOCK = 32
"""Lanes of a program at least: the threads of one warp."""
CHUNK = 1024
"""Features that a program copies at a time, for all its players together."""
SECTOR = 32
"""Bytes that memory moves at a time: rows of observations take whole ones, and begin with one."""


class TritonStepper:
    """Steps environments on a GPU, in place, with one kernel and no word to the host.

    Parameters
    ----------
    launch
        Warps and registers of its programs; by default what `triton_launch` has for them.

    Raises
    ------
    ConfigError
        The market does not lie on a CUDA device, and kernels are not interpreted.
    """

    name = "triton"

    def __init__(
        self,
        params: EnvParams,
        state: EnvState,
        *,
        single_orders: bool = False,
        launch: Launch | None = None,
    ) -> None:
        device = params.tape.device
        if device.type != "cuda" and not (INTERPRETED and device.type == "cpu"):
            raise ConfigError(
                f'backend "triton" runs on CUDA, not on {device}: move the market with '
                f'tape.to("cuda"), or set TRITON_INTERPRET=1 to try the kernel on a CPU'
            )
        self.num_envs, self._assets = state.portfolio.holdings.shape
        self._state = empty_state(params, self.num_envs, VECTOR)
        self._state.load(state)
        self.capturable = records(device)
        self._params, self._portfolio_width = params, portfolio_width(params)
        self._market = pack_market(params, VECTOR)
        self._real = pack_rules(params).real
        rules = (without_features(params), params)
        self._constants = {
            seen_width(each): constants(each, single_orders=single_orders, launch=launch)
            for each in rules
        }
        self._single_orders = single_orders
        self._drawn = drawn_tables(params, self.num_envs)
        self.kernel: Any = None
        """What the last step was compiled to, with `n_regs` and `n_spills`; None if interpreted."""

    @property
    def state(self) -> EnvState:
        """The state now, updated in place by every step."""
        return self._state.nested(self._params)

    @property
    def invalid_actions(self) -> Tensor:
        """Actions [N] that were not finite, since the last reset; updated in place."""
        return self._state.counters[:, c.COUNTER.invalid_actions]

    @property
    def action_shape(self) -> tuple[int, int]:
        """Shape [N, width] of the actions that `step` takes."""
        return self.num_envs, action_width(self._params.config.action, self._assets)

    def load(self, state: EnvState) -> None:
        """Go on from a copy of this state."""
        self._state.load(state)

    def refresh(self, bars: Tensor) -> None:
        """Read these bars [B] of the tape again."""
        repack_bars(self._market, self._params, bars, VECTOR)

    def room(self, steps: int, *, flat: bool = False) -> Results:
        """Blocks [steps, N, ...] that so many steps can write into.

        Observations leave the market's features out, unless they are `flat` as the rules ask for.
        """
        params = self._params if flat else without_features(self._params)
        return empty_results(params, self.num_envs, steps, row_bytes=SECTOR)

    def step(self, action: Tensor, into: Results | None = None) -> Transition:
        """Step every environment once, into these blocks [N, ...] if there are any."""
        results = into
        if results is None:
            results = empty_results(self._params, self.num_envs, row_bytes=SECTOR)
        singles = empty_singles(self._params, self.num_envs, asked=self._single_orders)
        views = empty_views(self._params, self.num_envs)
        with current(action.device):
            self.kernel = step_kernel[(self.num_envs // self._params.config.players,)](
                action.contiguous(),
                self._state,
                self._market,
                self._real,
                results,
                singles,
                views,
                *self._drawn,
                **self._constants[results.seen.shape[-1]],
            )
        return results.transition(self._portfolio_width, singles, views)


class CapturedSteps:
    """K steps of a `TritonStepper` as one graph: one launch, without Python's share of it.

    Call it with actions [K, N, width], or write them into `actions` and call it without. The steps
    that it returns lie in `room` and are overwritten by the next call. The stepper's own `step` and
    `load` stay usable in between.

    Parameters
    ----------
    flat
        Whether observations hold the market's features, where the rules ask for that.
    """

    def __init__(self, stepper: TritonStepper, steps: int = 1, *, flat: bool = False) -> None:
        state = stepper.state
        self.room = stepper.room(steps, flat=flat)
        self.actions = state.portfolio.cash.new_zeros(steps, *stepper.action_shape)
        self._steps: list[Transition] = []

        def step_all() -> None:
            self._steps = [
                stepper.step(self.actions[number], take(self.room, number))
                for number in range(steps)
            ]

        self._replay = captured(step_all, flatten(state), state.key.device)

    def __call__(self, actions: Tensor | None = None) -> list[Transition]:
        """Step every environment K times."""
        if actions is not None:
            self.actions.copy_(actions)
        self._replay()
        return self._steps


def constants(
    params: EnvParams, *, single_orders: bool = False, launch: Launch | None = None
) -> dict[str, Any]:
    """What the kernel is compiled for: shapes, rules, and how it is launched."""
    launch = launch or usual_launch(params)
    tape, config, randomize = params.tape, params.config, params.config.randomize
    assets, horizon = tape.num_assets, config.episode.horizon
    (block, seats), places = lanes_of(params), column_places(params)
    return {
        "assets": assets,
        "padded": assets + -assets % VECTOR,
        "block": block,
        "features": seen_width(params) - portfolio_width(params),
        "chunk": max(CHUNK // seats, SMALLEST_BLOCK),
        "width": action_width(config.action, assets),
        "mode": getattr(c.ACTION, config.action),
        "kind": getattr(c.REWARD, config.reward.kind),
        "same_step": config.autoreset == "same_step",
        "first": tape.first,
        "starts": tape.last - tape.first - (horizon or 1) + 1 if config.episode.random_start else 1,
        "horizon": horizon or 0,
        "last": tape.last,
        "worlds": tape.worlds,
        "span": tape.bars_per_world,
        "worlds_per_market": tape.worlds_per_market,
        "enough": 100.0 * torch.finfo(tape.dtype).eps,
        "rows": market_rows(config),
        "liquidates": config.episode.liquidate_at_end,
        "terminates": config.episode.at_end == "terminate",
        "by_market": by_market(config),
        "players": config.players,
        "seats": seats,
        "told": single_orders,
        "further": _further(params),
        "pitch": padded_width(seen_width(params), tape.dtype, SECTOR),
        **{f"{name}_at": places[name] for name in sorted(COVERAGE["triton"].columns)},
        "drawn": sum(
            1 << place for place, name in enumerate(c.DRAWN._fields) if getattr(randomize, name)
        ),
        "log_spacing": randomize.spacing == "log",
        "fewest": min(randomize.assets, default=0),
        "most": max(randomize.assets, default=0),
        "num_warps": launch.warps,
        "maxnreg": launch.registers,
        "enable_fp_fusion": True,  # as on a CPU; the compiler's own default is changing
    }


def lanes_of(params: EnvParams) -> tuple[int, int]:
    """Lanes of a row of a program, and rows."""
    assets, players = params.tape.num_assets, params.config.players
    return max(1 << (assets - 1).bit_length(), SMALLEST_BLOCK), 1 << (players - 1).bit_length()


def usual_launch(params: EnvParams) -> Launch:
    """How its programs are launched unless a stepper is told otherwise."""
    config, (block, seats) = params.config, lanes_of(params)
    further, numbers = _further(params), block * seats * params.tape.dtype.itemsize // 4
    if further.entries and seats > 1:
        numbers *= 2  # what is kept of positions, and their levels
    return launch_of(
        numbers,
        plain=not config.randomize.varies and config.autoreset == "next_step",
        wide=by_market(config) or any(further) or bool(config.randomize.assets),
    )


def _further(params: EnvParams) -> Further:
    """Which further rules of orders hold."""
    whole = dict(zip(c.WHOLE._fields, pack_rules(params).whole.tolist(), strict=True))
    rules = {name: bool(whole[name]) for name in Further._fields if name in whole}
    orders, margin = params.config.orders, params.rules.terms.margin
    return Further(
        **rules,
        trails=orders.trailing > 0,
        calls=orders.maintenance_margin > 0,
        tiers=0 if margin is None else len(margin.rate),
    )


def drawn_tables(params: EnvParams, num_envs: int) -> tuple[Tensor | None, ...]:
    """Ranges, rising features, and room to look slots up in; None where nothing is drawn."""
    draws, columns = empty_draws(params, num_envs), params.tape.num_assets
    if draws is None:
        return None, None, None
    desk = torch.empty(
        num_envs // params.config.players,
        columns + -columns % VECTOR,
        device=params.tape.device,
        dtype=torch.int32,
    )
    return draws.ranges, draws.rising, desk


make = TritonStepper
