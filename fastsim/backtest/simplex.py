"""Convex problems on the simplex {w >= 0, sum w = 1} that portfolio rules are made of.

Each is solved to the precision of its floating-point type, and says by which conditions that can be
checked.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastsim.data.bars import FloatArray
from fastsim.errors import DataError

GAP = 1e-12
"""Growth per bar, in logs, that the best constant mix may be short of the optimum."""
MAX_STEPS = 200


def project_simplex(points: Tensor) -> Tensor:
    """Nearest point of the simplex to each of `points` [..., A], in Euclidean distance.

    Duchi, Shalev-Shwartz, Singer and Chandra (2008), figure 1: w = max(v - theta, 0), where theta
    makes the sum one.
    """
    ordered = points.sort(dim=-1, descending=True).values  # [..., A]
    excess = ordered.cumsum(-1) - 1.0
    count = torch.arange(1, points.shape[-1] + 1, device=points.device, dtype=points.dtype)
    kept = (ordered * count > excess).sum(-1, keepdim=True).clamp_min(1)  # [..., 1]
    threshold = excess.gather(-1, kept - 1) / kept
    return (points - threshold).clamp_min(0.0)


def minimize_quadratic(matrix: FloatArray, linear: FloatArray) -> FloatArray:
    """Minimise w' Q w / 2 - c' w over the simplex, for Q [A, A] positive definite and c [A].

    A primal active-set method in the manner of Lawson and Hanson (1974, chapter 23): assets enter
    one at a time by their gradient and leave where the minimum over those held would be negative.
    At the minimum the gradient g = Q w - c is equal over the assets held, and no less elsewhere.

    Raises
    ------
    DataError
        Q or c is not finite, or there is no single minimum: Q is not positive definite.
    """
    if not (np.isfinite(matrix).all() and np.isfinite(linear).all()):
        raise DataError("a quadratic problem needs finite numbers: are there returns missing?")
    tolerance = 1e-13 * max(float(np.abs(matrix).max()), float(np.abs(linear).max()))
    weights = np.zeros_like(linear)
    first = int(np.argmin(np.diagonal(matrix) / 2 - linear))
    weights[first] = 1.0
    held = weights > 0
    for _ in range(MAX_STEPS + 10 * len(linear)):
        gradient = matrix @ weights - linear
        slack = np.where(held, 0.0, gradient - weights @ gradient)
        if slack.min() >= -tolerance:
            return weights
        held[int(slack.argmin())] = True
        weights = _descend(matrix, linear, weights, held)
    raise DataError("a quadratic problem has no clear minimum: is its matrix positive definite?")


def _descend(
    matrix: FloatArray, linear: FloatArray, weights: FloatArray, held: NDArray[np.bool_]
) -> FloatArray:
    """Go to the minimum over the assets `held`, dropping from it what would become negative."""
    while True:
        goal = np.zeros_like(weights)
        goal[held] = _minimum(matrix[np.ix_(held, held)], linear[held])
        negative = held & (goal <= 0)
        if not negative.any():
            return goal
        share = weights[negative] / (weights[negative] - goal[negative])
        weights = weights + share.min() * (goal - weights)
        leaving = np.flatnonzero(negative)[share == share.min()]
        weights[leaving] = 0.0
        held[leaving] = False


def _minimum(matrix: FloatArray, linear: FloatArray) -> FloatArray:
    """Minimum of w' Q w / 2 - c' w where sum w = 1 and no sign is asked for."""
    size = len(linear)
    bordered = np.ones((size + 1, size + 1))
    scale = float(np.diagonal(matrix).mean())  # keeps the border as large as the matrix
    bordered[:size, :size] = matrix / scale
    bordered[size, size] = 0.0
    try:
        solved = np.linalg.solve(bordered, np.append(linear / scale, 1.0))
    except np.linalg.LinAlgError:
        raise DataError("a quadratic problem's matrix must be positive definite") from None
    weights: FloatArray = solved[:size] / solved[:size].sum()
    return weights


def maximize_growth(relatives: FloatArray) -> FloatArray:
    """Find the constant mix [A] that would have grown most over price relatives [T, A].

    It maximises mean log(x_t' b) over the simplex, by Newton's method: each step solves the
    quadratic model on the simplex and is halved until growth rises. Its conditions (Bell and Cover
    1980, theorem 1): the mean over t of x_ti / (x_t' b) is 1 for every asset held, and at most 1
    for the others. What that mean exceeds 1 by bounds the growth per bar that is left to gain.

    Raises
    ------
    DataError
        A price relative is not a finite number above zero, or the optimum was not found.
    """
    if not (np.isfinite(relatives).all() and (relatives > 0).all()):
        raise DataError("price relatives must be finite and > 0")
    assets = relatives.shape[1]
    weights = np.full(assets, 1.0 / assets)
    for _ in range(MAX_STEPS):
        scaled = relatives / (relatives @ weights)[:, None]  # [T, A]
        slope = scaled.mean(0)
        if slope.max() - 1.0 < GAP:
            return weights
        curvature = scaled.T @ scaled / len(scaled)
        # A whisper of ridge, for assets that move as one; the conditions above do not know it.
        curvature += 1e-14 * np.trace(curvature) * np.eye(assets)
        goal = minimize_quadratic(curvature, slope + curvature @ weights)
        weights = _rise(relatives, weights, goal)
    raise DataError(
        f"the best constant mix was not found in {MAX_STEPS} steps: {slope.max() - 1.0:.1e} of log "
        f"growth per bar may be missing"
    )


def _rise(relatives: FloatArray, weights: FloatArray, goal: FloatArray) -> FloatArray:
    """Go from `weights` towards `goal`, half as far again and again until growth does not fall.

    Close to the optimum a step gains less than growth is rounded by, and is taken all the same.
    """
    start = np.log(relatives @ weights).mean() - 1e-14
    for _ in range(60):
        if np.log(relatives @ goal).mean() >= start:
            return goal
        goal = (weights + goal) / 2
    return weights
