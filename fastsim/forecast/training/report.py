"""What came of a fit, in figures and in a sentence."""

from __future__ import annotations

from typing import Any, NamedTuple

from fastsim.stats.bootstrap import Interval

FORGETTING_TOLD = 0.01


class FitReport(NamedTuple):
    """Losses are mean pinball losses in units of trailing volatility times sqrt(h)."""

    start_loss: float
    loss: float
    """Of what is kept, on the same windows of validation as the start's."""
    tried_loss: float
    """Of the best that was learned, kept or not."""
    ratio: Interval | None
    """Of `tried_loss` to `start_loss`, over blocks of time; None where there are too few."""
    start_coverage: float
    coverage: float
    """Share of what came within the 80 % band of what is kept."""
    keeps_start: bool
    steps: int
    best_step: int
    """After which the best was learned; 0 where nothing was better than the start."""
    windows: int
    """That it was judged by."""
    forgetting: float | None
    """By how much the loss on simulated worlds grew, as a share; None where it learned from none
    before."""

    def to_json(self) -> dict[str, Any]:
        """Plain values by name."""
        ratio = None if self.ratio is None else self.ratio._asdict()
        return {**self._asdict(), "ratio": ratio}

    @property
    def sentence(self) -> str:
        """What came of it, for people."""
        told = f"loss on validation {self.tried_loss:.5f} against {self.start_loss:.5f} before"
        if self.ratio is not None:
            told += (
                f", ratio {self.ratio.estimate:.4f} [{self.ratio.low:.4f}, {self.ratio.high:.4f}]"
            )
        if self.keeps_start:
            return f"The start is kept: {self._why}; {told}."
        told += (
            f"; the 80 % band holds {self.coverage:.1%} of what came, {self.start_coverage:.1%} "
        )
        told += f"before; best after step {self.best_step} of {self.steps}"
        if self.forgetting is not None and self.forgetting > FORGETTING_TOLD:
            told += (
                f". It has forgotten: on simulated worlds its loss is {self.forgetting:.1%} higher"
            )
        return f"Fitted: {told}."

    @property
    def _why(self) -> str:
        worse = self.tried_loss / self.start_loss - 1.0
        if self.best_step == 0:
            return "nothing that was learned was better on validation"
        if worse >= 0:
            return f"what was learned is {worse:.2%} worse on validation"
        return f"what was learned is {-worse:.2%} better on validation, no more than chance may be"
