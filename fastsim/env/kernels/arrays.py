"""A step in NumPy, for callers who live on the host and take few environments at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastsim.env.core import Transition
from fastsim.env.info import figures_of
from fastsim.env.kernels.columns import FLAG
from fastsim.env.kernels.stepper import Stepper
from fastsim.env.observe import Observation
from fastsim.env.window_tables import Windows


class StepArrays(NamedTuple):
    """What a step returns; places of its figures are those of `names`, of flags `columns.FLAG`."""

    names: tuple[str, ...]  # of figures
    seen: NDArray[np.floating[Any]]  # [N, width]  observation of the next decision
    bar: NDArray[np.int64]  # [N]
    figures: NDArray[np.floating[Any]]  # [N, F]
    flags: NDArray[np.bool_]  # [N, FLAG]
    final_seen: NDArray[np.floating[Any]]  # [N, width]  before a restart; [0, width] if next_step
    final_bar: NDArray[np.int64]  # [N]  before a restart; [0] if next_step
    invalid: NDArray[np.int64]  # [N]  actions that were not finite, since the last reset
    transition: Callable[[], Transition]  # the same in tensors


Row = tuple[NDArray[np.floating[Any]], int, NDArray[np.float64], bool, bool]
"""A step of a single environment: what is seen [1, width], the bar, numbers that tell the rest,
figures first, and whether the episode was terminated or truncated."""


class RowStepper(Protocol):
    """Steps a single environment with next to nothing around the step."""

    def step(self, action: NDArray[Any]) -> Row | None:
        """Step by an action [W]; None, and no step, if it is not finite."""
        ...

    def begin(self) -> Row:
        """Begin the next episode, as a step under `next_step` does after the end of one."""
        ...

    def arrays(self, row: Row) -> StepArrays:
        """What a row tells, as `step_arrays` returns it."""
        ...


@runtime_checkable
class ArrayStepper(Stepper, Protocol):
    """A backend that steps in NumPy, without a tensor in between."""

    tells_rows: bool
    """Whether `by_row` tells all that there is to tell: not where single orders are among it."""

    def step_arrays(self, action: NDArray[np.floating[Any]]) -> StepArrays:
        """Step every environment once; the arrays returned are the caller's to keep."""
        ...

    def by_row(self) -> RowStepper:
        """Of a single environment under `next_step`; made when it is first asked for."""
        ...


@runtime_checkable
class ArrayWindows(Windows, Protocol):
    """Lays windows out in NumPy, without a tensor in between."""

    def rows(self, bar: NDArray[np.int64], own: NDArray[Any]) -> NDArray[Any]:
        """Windows and portfolios [N, L A C + P] by bars [N] and portfolios [N, P]."""
        ...


def with_windows(stepped: StepArrays, windows: ArrayWindows) -> StepArrays:
    """The same step with windows before the portfolios that were seen."""
    final = stepped.final_seen
    return stepped._replace(
        seen=windows.rows(stepped.bar, stepped.seen),
        final_seen=windows.rows(stepped.final_bar, final) if len(final) else final,
    )


def on_host(
    transition: Transition, columns: Callable[[Observation], Tensor], invalid: Tensor
) -> StepArrays:
    """A transition as arrays; `columns` lays out an observation as numbers [N, width]."""
    final, figures = transition.final_observation, figures_of(transition)
    seen = columns(transition.observation)
    ends = transition._asdict() | {"ruined": transition.outcome.ruined}
    blocks = {
        "seen": seen,
        "bar": transition.observation.bar,
        "figures": torch.stack(list(figures.values()), dim=1),
        "flags": torch.stack([ends[name] for name in FLAG._fields], dim=1),
        "final_seen": seen[:0] if final is None else columns(final),
        "final_bar": transition.observation.bar[:0] if final is None else final.bar,
        "invalid": invalid.clone(),
    }
    arrays = {name: block.numpy(force=True) for name, block in blocks.items()}
    return StepArrays(names=tuple(figures), transition=lambda: transition, **arrays)
