"""The environment as an object: N portfolios that keep their state, with `reset` and `step`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastsim.config import require_count, whole_number
from fastsim.env.config import EnvConfig
from fastsim.env.core import Transition
from fastsim.env.info import Source, tell_start, tell_step, told_names
from fastsim.env.kernels.arrays import (
    ArrayStepper,
    ArrayWindows,
    Row,
    StepArrays,
    on_host,
    with_windows,
)
from fastsim.env.kernels.choose import Backend, Room, make_stepper, make_windows
from fastsim.env.nested import copy, flatten, select, unflatten
from fastsim.env.observe import (
    Observation,
    flat_observation,
    observation_names,
    observe,
    portfolio_width,
    window_observation,
)
from fastsim.env.start import Rows, Starts, chosen_starts, keys_under, rows_to_begin
from fastsim.env.state import EnvState, begin_state, check_fit, equipped, make_params
from fastsim.errors import ActionError, ConfigError
from fastsim.market.costs import Friction, make_friction
from fastsim.market.tape import MarketTape
from fastsim.synthetic.fresh import FreshWorlds, LaidWorlds


class PortfolioEnv:
    """N portfolios on one market, stepped together. Tensors in, tensors out, on one device.

    Parameters
    ----------
    tape
        The market, or a source of worlds; its device and floating-point type are the environment's.
    num_envs
        N.
    config
        The rules.
    friction
        Costs that differ between environments (see `make_friction`) instead of `config.costs`.
    first_env
        Number of the first environment. Randomness depends on an environment's number alone, so
        row 7 of a batch equals a single environment with `first_env=7`.

    backend
        Who steps: the reference in torch, a fused kernel in numba (CPU) or Triton (CUDA), or the
        fastest of them that fits ("auto").
    single_orders
        Whether fused backends, too, tell `Outcome.trade` and `Outcome.holdings`, at some cost.

    Raises
    ------
    ConfigError
        Settings that contradict each other or the tape.
    DataError
        Stops or targets, and bars without opens, highs or lows.
    """

    def __init__(
        self,
        tape: MarketTape | FreshWorlds,
        num_envs: int,
        config: EnvConfig | None = None,
        *,
        friction: Friction | None = None,
        first_env: int = 0,
        seed: int = 0,
        backend: Backend = "auto",
        single_orders: bool = False,
    ) -> None:
        config = config or EnvConfig()
        require_count("num_envs", num_envs)
        if num_envs % config.players:
            raise ConfigError(
                f"num_envs = {num_envs} players do not fill markets of {config.players}; "
                f"use a multiple of {config.players}"
            )
        self.first_env = whole_number("first_env", first_env, most=2**31 - 1)
        if first_env % config.players:
            raise ConfigError(
                f"first_env = {first_env} is not the first of {config.players} players of a market"
            )
        markets = num_envs // config.players
        self.worlds: LaidWorlds | None = None
        if isinstance(tape, FreshWorlds):
            self.worlds = tape.lay(markets, extremes=config.orders.brackets)
            tape = self.worlds.tape
        check_fit(tape, config, markets)
        tape = equipped(tape, config)
        if friction is None:
            friction = make_friction(config.costs, num_envs, device=tape.device, dtype=tape.dtype)
        elif friction.fee.shape != (num_envs,):
            raise ConfigError(
                f"friction is laid out for {len(friction.fee)} environments, not {num_envs}"
            )
        self.params = make_params(tape, friction, config)
        self.cost_names = tuple(cost.name for cost in self.params.rules.terms.costs)  # charged
        self._told_names = told_names(
            self.cost_names, exits=config.orders.brackets, perpetual=config.perpetual.trades
        )
        self.num_envs = num_envs
        self._deal(seed)
        state = self._first_state(seed)
        self.stepper = make_stepper(self.params, state, backend, single_orders=single_orders)
        self._windows = make_windows(self.params, backend)
        self._action_shape = (num_envs, self.action_width)
        plain = isinstance(self._windows, ArrayWindows) and not config.randomize.shows
        in_arrays = isinstance(self.stepper, ArrayStepper)
        in_arrays = in_arrays and (plain or config.observation != "window")
        self._fused = cast(ArrayStepper, self.stepper) if in_arrays else None
        alone = num_envs == 1 and self.worlds is None and in_arrays
        alone = alone and config.autoreset == "next_step" and config.observation != "window"
        alone = alone and not config.randomize.shows
        self._by_row = alone and cast(ArrayStepper, self.stepper).tells_rows
        self._row_shape = self._action_shape[1:]

    @property
    def state(self) -> EnvState:
        """Everything that changes, as it is now: a copy, the caller's to keep."""
        return copy(self.stepper.state)

    @state.setter
    def state(self, state: EnvState) -> None:
        self.stepper.load(state)

    def state_dict(self) -> dict[str, Any]:
        """The state now in tensors and plain values, the caller's to keep, as in PyTorch."""
        worlds = None if self.worlds is None else self.worlds.state_dict()
        return {"state": flatten(self.state), "worlds": worlds}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` of an environment made alike returned.

        Raises
        ------
        CheckpointError
            It is the state of another number of environments, or of another market.
        """
        state = unflatten(self.stepper.state, saved["state"])
        if self.worlds is not None:
            changed = self.worlds.load_state_dict(saved["worlds"])
            self._refresh(changed)
        self.state = state

    @property
    def capturable(self) -> bool:
        """Whether a step can be recorded as a graph: it leaves everything in its place."""
        return self.stepper.capturable

    @property
    def tape(self) -> MarketTape:
        """The market."""
        return self.params.tape

    @property
    def config(self) -> EnvConfig:
        """The rules."""
        return self.params.config

    @property
    def timestamps(self) -> NDArray[np.datetime64]:
        """Time of every bar [T]: `timestamps[info["bar"]]` are the dates of a batch."""
        return self.tape.timestamps

    @property
    def action_width(self) -> int:
        """Numbers in one environment's action."""
        return self.params.rules.action.width(self.tape.num_assets)

    @property
    def portfolio_width(self) -> int:
        """P, columns of `Observation.portfolio`: more of them where trades move prices."""
        return portfolio_width(self.tape, self.config)

    @property
    def observation_names(self) -> tuple[str, ...]:
        """Names of the columns that `columns` returns, by asset, or by slot if they are drawn."""
        return observation_names(self.tape, self.config)

    def reset(
        self,
        seed: int | Sequence[int] | None = None,
        *,
        start: Starts = None,
        mask: Rows | None = None,
    ) -> Observation:
        """Begin a new episode everywhere; with a seed, from episode zero of that seed.

        Parameters
        ----------
        seed
            With a list of seeds [N], each row is what environment `first_env` alone would be under
            its seed. Fresh worlds are then those of the first.
        start
            Where to begin: a bar of the tape, or of its world where there are several, or a date
            (the first bar not before it); one for all, or [N], where None is drawn as usual. Later
            episodes are drawn as usual, too.
        mask
            Rows [N], bool, to begin anew; all others go on, and are observed where they are.

        Raises
        ------
        ConfigError
            A start that leaves no room for an episode, rows that are no mask, players of one market
            who would part, or a seed for some rows of fresh worlds, which are dealt to all at once.
        """
        rows = rows_to_begin(mask, self.num_envs, self.config.players)
        chosen = chosen_starts(self.tape, self.config, start, self.num_envs, rows)
        if rows is not None and seed is not None and self.worlds is not None:
            raise ConfigError(
                "a seed deals fresh worlds to all rows: reset some of them without a seed, or all"
            )
        if seed is None:
            self.renew()
            old = self.stepper.state
            number = old.episode.number + 1
            state = begin_state(self.params, old.key, number, first=True, chosen=chosen)
        else:
            self._refresh(self._deal(seed))
            state = self._first_state(seed, chosen)
        if rows is not None:
            state = select(rows.to(self.tape.device), state, self.stepper.state)
        self.stepper.load(state)
        return observe(self.params, state)

    def renew(self) -> Tensor:
        """Draw anew, in place, every world that episodes have used up and that nobody is in.

        Returns the worlds [K] of the tape that changed, none but with `FreshWorlds`. What was known
        of their bars is no longer so: call it where nobody will look up a bar of an episode that is
        over. It reads the episodes' numbers back to the host.
        """
        if self.worlds is None:
            return self._no_worlds
        number = self.stepper.state.episode.number[:: self.config.players]
        changed = self.worlds.renew(number.numpy(force=True))
        self._refresh(changed)
        return changed

    def room(self, steps: int) -> Room | None:
        """Blocks [steps, N, ...] for what so many steps return, if they can write into them."""
        return self.stepper.room(steps)

    def step(self, action: Tensor, into: Room | None = None) -> Transition:
        """Step every environment once, into the blocks of one step of a `room` if they are given.

        Raises
        ------
        ActionError
            The action's shape is not [N, width]. Values are never read back to the host: a row
            that is not finite holds its positions and is counted in `state.invalid_actions`.
        """
        self._check_shape(action.shape)
        return self.stepper.step(action.detach().to(self.tape.dtype), into)

    def step_arrays(self, action: NDArray[np.floating[Any]]) -> StepArrays:
        """Step every environment once, in NumPy; the observation is laid out as `columns` does.

        For callers on the host. Where the market lies on one, it spares the tensors, which are most
        of the time that a single environment takes.

        Raises
        ------
        ActionError
            The action's shape is not [N, width].
        """
        if action.shape != self._action_shape:
            self._check_shape(action.shape)
        if self._fused is not None:
            stepped = self._fused.step_arrays(action)
            if self._windows is None:
                return stepped
            return with_windows(stepped, cast(ArrayWindows, self._windows))
        transition = self.step(torch.tensor(action, device=self.tape.device))
        return on_host(transition, self.columns, self.stepper.invalid_actions)

    def step_row(self, action: NDArray[np.floating[Any]]) -> Row | None:
        """Step a single environment by an action [width], with next to nothing around it.

        None, and no step, where that is not to be had, or the action is not finite or of another
        shape: `step_arrays` has the last word.
        """
        if not self._by_row or action.shape != self._row_shape:
            return None
        return self.stepper.by_row().step(action)  # type: ignore[attr-defined,no-any-return]

    def begin_row(self) -> Row | None:
        """Begin the next episode of a single environment; None where `reset` has to."""
        if not self._by_row or self.config.episode.staggered:
            return None
        return cast(ArrayStepper, self.stepper).by_row().begin()

    def tell_row(self, row: Row) -> Source:
        """What `info` tells of a step of `step_row` or of `begin_row`, in NumPy."""
        return Source(self._told_names, partial(self._work_out_row, row))

    def _work_out_row(self, row: Row, name: str) -> NDArray[Any]:
        return self._work_out(cast(ArrayStepper, self.stepper).by_row().arrays(row), name)

    def tell(self, transition: Transition) -> Source:
        """What `info` tells of the step just taken (`fastsim.env.info.MEANING`), in tensors [N].

        It is worked out when it is looked at, which may be later.
        """
        source = tell_step(self.params, transition, self.stepper.invalid_actions.clone())
        return self._lasting(source, transition)

    def tell_arrays(self, stepped: StepArrays) -> Source:
        """What `info` tells of a step of `step_arrays`, in NumPy."""
        source = Source(self._told_names, partial(self._work_out, stepped))
        return source if self.worlds is None else self._lasting(source, stepped.transition())

    def _work_out(self, stepped: StepArrays, name: str) -> NDArray[Any]:
        if name in stepped.names:
            return stepped.figures[:, stepped.names.index(name)]
        if name == "invalid_actions":
            return stepped.invalid
        source = tell_step(self.params, stepped.transition(), torch.empty(0))
        return source.tell(name).numpy(force=True)  # type: ignore[no-any-return]

    def tell_start(self, observation: Observation) -> Source:
        """What `info` tells after a reset, in tensors [N]."""
        return tell_start(self.params, observation, self.state.wealth)

    def _refresh(self, worlds: Tensor) -> None:
        """Read these worlds [K] of the tape again."""
        if len(worlds):
            bars = self.tape.bars_of(worlds)
            self.stepper.refresh(bars)
            if self._windows is not None:
                self._windows.refresh(bars)

    def _lasting(self, source: Source, transition: Transition) -> Source:
        """The same where worlds are drawn anew, and returns of fused steps are soon forgotten."""
        if self.worlds is not None and transition.outcome.holdings is None:
            source.tell("weights")
        return source

    def columns(self, observation: Observation) -> Tensor:
        """Lay an observation out as the numbers [N, width] that `config.observation` asks for."""
        if self.config.observation == "index":
            return observation.portfolio
        if self.config.observation == "window":
            if self._windows is None:
                return window_observation(self.tape, observation, self.config)
            return self._windows.show(observation)
        return flat_observation(self.tape, observation)

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if shape != self._action_shape:
            raise ActionError(
                f'actions for action="{self.config.action}" must have shape '
                f"{self._action_shape}, got {tuple(shape)}"
            )

    def _first_state(self, seed: int | Sequence[int], chosen: Tensor | None = None) -> EnvState:
        key = self._keys(seed)
        return begin_state(self.params, key, torch.zeros_like(key), first=True, chosen=chosen)

    def _keys(self, seed: int | Sequence[int]) -> Tensor:
        rows = torch.arange(self.num_envs, device=self.tape.device)
        return keys_under(seed, rows, self.first_env, self.config.players)

    def _deal(self, seed: int | Sequence[int]) -> Tensor:
        """Lay out the first worlds of this seed; returns those [K] that changed."""
        if self.worlds is None:
            return self._no_worlds
        return self.worlds.deal(int(self._keys(seed)[0]))

    @property
    def _no_worlds(self) -> Tensor:
        return torch.empty(0, dtype=torch.int64, device=self.tape.device)
