"""A model at work on windows: its steps, and all that going on from any of them needs.

Everything random at a step comes from (seed, step): a fit that was killed and goes on from its last
checkpoint ends with the bits of one that never stopped.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastsim.config import write_whole
from fastsim.errors import CheckpointError, ForecastError, one_line
from fastsim.forecast.interface import DTYPES, ForecastModel
from fastsim.forecast.models.fitted import LastClose
from fastsim.forecast.training.config import FitConfig
from fastsim.forecast.training.dense import unfolded
from fastsim.forecast.training.lora import sharing
from fastsim.forecast.training.loss import (
    Losses,
    Scaled,
    centred,
    losses,
    median_place,
    scaled_quantiles,
)
from fastsim.forecast.training.modes import moved
from fastsim.forecast.training.recompute import recomputing
from fastsim.forecast.training.steps import AdamW, move_average, warm_cosine
from fastsim.forecast.training.windows import Windows, seeded

FORMAT = 1
State = dict[str, Tensor]


class Student(NamedTuple):
    """What learns, and whose median it is judged about."""

    model: ForecastModel
    centre: ForecastModel | LastClose | None  # as of `FittedModel`

    def losses(self, windows: Windows, horizons: Tensor) -> Losses:
        """Loss and coverage of each window."""
        told = self._centred(lambda model: scaled_quantiles(model, windows, horizons, self.device))
        return losses(told, windows.future, horizons, self.model.card)

    def dense_losses(self, windows: Windows, horizons: Tensor) -> Losses:
        """Loss and coverage after each patch of the windows, as `unfolded`."""
        whole = unfolded(self.model, windows, horizons, self.device)

        def told(model: ForecastModel) -> Scaled:
            if model is self.model:
                return whole.scaled
            return unfolded(model, windows, horizons, self.device).scaled

        return losses(self._centred(told), whole.future, horizons, self.model.card)

    @property
    def device(self) -> torch.device:
        """Where it learns."""
        return next(self.model.parameters()).device

    def _centred(self, of: Callable[[ForecastModel], Scaled]) -> Scaled:
        """What it forecasts, in the unit of the loss, its median where it is to be."""
        told = of(self.model)
        if self.centre is None:
            return told
        middle, kept = median_place(self.model.card), None
        if not isinstance(self.centre, LastClose):
            with torch.no_grad():
                kept = of(self.centre).quantiles[..., middle]
        return told._replace(quantiles=centred(told.quantiles, middle, kept))


class Loop:
    """An optimiser at work on the parameters of a model that ask for gradients.

    Parameters
    ----------
    student
        Its model is changed in place.
    config
        Steps, rates, precision.

    Raises
    ------
    ForecastError
        A loss is no finite number.
    """

    def __init__(self, student: Student, config: FitConfig) -> None:
        self.student, self.config, self.step = student, config, 0
        self.average = sharing(student.model, learned=True).eval()
        student.model.train()
        self.device = torch.device(config.device)
        self.horizons = torch.tensor(config.horizons, device=self.device)
        self.parameters = list(moved(student.model).values())
        self.optimiser = AdamW(self.parameters, lr=config.rate, weight_decay=config.weight_decay)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.amp == "float16")

    @property
    def judged(self) -> Student:
        """The averaged model, which is what is judged and kept."""
        self.average.weights_changed()
        return self.student._replace(model=self.average)

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        return self.config.rate * warm_cosine(self.step, self.config.steps, self.config.warmup)

    @property
    def reached(self) -> int:
        """How many of the horizons the next step learns, the nearest first."""
        growing = self.config.growing * self.config.steps
        if self.step >= growing:
            return len(self.horizons)
        return math.ceil(len(self.horizons) * (self.step + 1) / growing)

    def learn(self, batches: list[Windows]) -> float:
        """One step from the mean gradient of these batches; returns the mean loss."""
        config = self.config
        told = self.student.dense_losses if config.dense else self.student.losses
        horizons = self.horizons[: self.reached]
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate
        self.optimiser.zero_grad()
        total = 0.0
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):  # of dropout
            torch.manual_seed(seeded(config.seed, "dropout", self.step).initial_seed())
            for batch in batches:
                windows = batch._replace(future=batch.future[..., : len(horizons)])
                with ExitStack() as stack:
                    stack.enter_context(self._precision())
                    if config.checkpointing:
                        stack.enter_context(recomputing(self.student.model))
                    loss = told(windows, horizons).pinball.mean()
                total += float(loss.detach()) / len(batches)
                scaled = self.scaler.scale(loss / len(batches))
                scaled.backward()  # type: ignore[no-untyped-call]
        if not torch.tensor(total).isfinite():
            raise ForecastError(
                f"the loss of {self.student.model.card.name} is {total} at step {self.step + 1}: "
                f"use a smaller learning rate, or amp none"
            )
        self.scaler.unscale_(self.optimiser)
        nn.utils.clip_grad_norm_(self.parameters, config.gradient_limit)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.student.model.weights_changed()
        move_average(self.average, self.student.model, config.average, self.step)
        self.step += 1
        return total

    def _precision(self) -> Any:
        if self.config.amp == "none":
            return nullcontext()
        return torch.autocast(self.device.type, DTYPES[self.config.amp])

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on from here."""
        return {
            "step": self.step,
            "model": values_of(self.student.model),
            "average": values_of(self.average),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        take_values(self.student.model, state["model"])
        self.student.model.weights_changed()
        take_values(self.average, state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        self.step = state["step"]


def values_of(model: nn.Module) -> State:
    """A copy of the parameters that a fit moves, by name."""
    return {name: each.detach().clone() for name, each in moved(model).items()}


@torch.no_grad()
def take_values(model: nn.Module, values: State) -> None:
    """Set the parameters that a fit moves; KeyError where one lacks."""
    for name, each in moved(model).items():
        each.copy_(values[name])


def save_state(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint whole; an interrupted write leaves the old one."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **content}, buffer)
    write_whole(path, buffer.getvalue())


def load_state(path: Path) -> dict[str, Any]:
    """Read a checkpoint, of tensors and plain values alone; CheckpointError if it is none."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what the unpickler raises depends on the damage
        reason = one_line(error, 160)
        raise CheckpointError(f"{path}: damaged or not a checkpoint ({reason})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of a fit of format {FORMAT}")
    return content
