"""The course of a fit: steps and validations in turn, until nothing gets better, and its state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from fastsim.errors import CheckpointError
from fastsim.forecast.training.events import Curves
from fastsim.forecast.training.folder import CHECKPOINT, TENSORBOARD
from fastsim.forecast.training.judge import Verdict
from fastsim.forecast.training.lesson import Lesson
from fastsim.forecast.training.loop import Loop, load_state, save_state, values_of
from fastsim.forecast.training.windows import Windows, made_ahead, seeded
from fastsim.progress import Progress

Watch = Callable[[int, float], None]
"""Takes the step and the loss of a validation, once its state is written; may raise to end it."""


def _nobody(_step: int, _loss: float) -> None:
    """Let it go on."""


class Course:
    """A loop that is judged every so many steps; the best that it has learned so far.

    Parameters
    ----------
    identity
        Of the fit: a checkpoint of another one is refused.
    folder
        Where its state is written at every validation, and read from if it is there; None keeps
        none.

    Raises
    ------
    CheckpointError
        The folder holds the state of another fit, or a damaged one.
    """

    def __init__(self, loop: Loop, lesson: Lesson, identity: str, folder: Path | None) -> None:
        self.loop, self.lesson, self.identity, self.folder = loop, lesson, identity, folder
        self.best = values_of(loop.average)
        self.best_loss, self.best_step, self.waited = float("inf"), 0, 0
        if folder is not None and (folder / CHECKPOINT).exists():
            self._go_on(folder / CHECKPOINT)

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do."""
        config = self.loop.config
        return self.loop.step >= config.steps or self.waited >= config.patience

    def run(self, start: Verdict, progress: Progress, watch: Watch = _nobody) -> None:
        """Learn to the end, from wherever it is; `watch` is told of each validation."""
        config, loop = self.loop.config, self.loop
        if self.ended:
            return
        told = {"start": f"(start {start.loss:.4f})"}
        curves_at = None if self.folder is None else self.folder / TENSORBOARD
        numbers = range(loop.step * config.accumulation, config.steps * config.accumulation)
        with ExitStack() as stack:
            task = stack.enter_context(
                progress.task("fitting", config.steps, unit="steps", done=loop.step)
            )
            curves = stack.enter_context(Curves(curves_at, loop.step))
            batches = stack.enter_context(made_ahead(self._draw, numbers))
            total, count = 0.0, 0
            while not self.ended:
                loss = loop.learn([next(batches) for _ in range(config.accumulation)])
                total, count = total + loss, count + 1
                if loop.step % config.evaluate_every == 0 or loop.step == config.steps:
                    verdict = self._evaluate()
                    curves.epoch(_figures(total / count, verdict, loop.rate), loop.step)
                    told |= {"validation": f"validation {verdict.loss:.4f}"}
                    total, count = 0.0, 0
                    watch(loop.step, verdict.loss)
                task.advance(loss=f"loss {loss:.4f}", **dict(sorted(told.items(), reverse=True)))

    def _draw(self, number: int) -> Windows:
        generator = seeded(self.loop.config.seed, "windows", number)
        return self.lesson.source.draw(self.loop.config.batch_size, generator)

    def _evaluate(self) -> Verdict:
        """Judge the average, keep it if it is the best, and write down where the fit is."""
        verdict = self.lesson.judge.verdict(self.loop.judged)
        if verdict.loss < self.best_loss:
            self.best, self.best_loss = values_of(self.loop.average), verdict.loss
            self.best_step, self.waited = self.loop.step, 0
        else:
            self.waited += 1
        if self.folder is not None:
            save_state(self.folder / CHECKPOINT, self.state_dict())
        return verdict

    def state_dict(self) -> dict[str, Any]:
        """All that going on needs."""
        return {
            "identity": self.identity,
            "loop": self.loop.state_dict(),
            "best": self.best,
            "best_loss": self.best_loss,
            "best_step": self.best_step,
            "waited": self.waited,
        }

    def _go_on(self, path: Path) -> None:
        state: Mapping[str, Any] = load_state(path)
        if state["identity"] != self.identity:
            raise CheckpointError(
                f"{path}: of another fit, with other bars, settings or another model: give those, "
                f"or choose another folder"
            )
        self.loop.load_state_dict(state["loop"])
        self.best, self.best_loss = state["best"], state["best_loss"]
        self.best_step, self.waited = state["best_step"], state["waited"]


def _figures(loss: float, verdict: Verdict, rate: float) -> dict[str, float]:
    return {
        "loss/train": loss,
        "loss/validation": verdict.loss,
        "coverage/validation": verdict.coverage,
        "learning_rate": rate,
    }
