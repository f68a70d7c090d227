"""What stands between the matrix products of the policy, fused, for a CPU.

Every function works on some rows, of samples or of bars, in place or into what it is given, and
holds no lock. Widths are padded with zeros (`layout.py`), which every function leaves zero.
Comparisons are so written that a NaN stays one.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from fastsim.env.kernels.compiled import forget_old_code
from fastsim.env.kernels.numba_jit import jit as compiled
from fastsim.env.kernels.numba_prefetch import prefetch_row
from fastsim.learn.fused.constants import FACTS, HALF_LOG_2_PI
from fastsim.policy.normalize import OBSERVATION_LIMIT
from fastsim.policy.tanh_numba import tanh

_real = np.float32
_ZERO, _HALF, _ONE, _LIMIT = map(_real, (0.0, 0.5, 1.0, OBSERVATION_LIMIT))


_AHEAD = 4
"""Rows between one's request from memory and its use."""


jit = partial(compiled, inline=False)


def forget_stale() -> None:
    """Drop what numba has kept of an older state of these files."""
    forget_old_code(adam, "learn", "policy")


@jit
def rank_bars(bar: Any, first: int, seen: Any, rank: Any, bars: Any) -> int:
    """Number the distinct ones of `bar` [M] in their order: `rank` [M], and the rows `bars` [K].

    `seen` [B] is a room, one place for each row of the table, whose first bar is `first`.
    """
    seen[:] = -1
    for m in range(len(bar)):
        seen[bar[m] - first] = 0
    count = 0
    for row in range(len(seen)):
        if seen[row] == 0:
            seen[row] = count
            bars[count] = row
            count += 1
    for m in range(len(bar)):
        rank[m] = seen[bar[m] - first]
    return count


@jit
def arrange(
    rows: Any, rank: Any, valid: Any, starts: Any, found: Any, order: Any, segment: Any
) -> Any:
    """Sort samples by bar; returns how many bars there are, and how many samples that count.

    `rows` [M] of the batch come out in `order` [M], those at the k-th bar from `starts` [k] to
    `starts` [k + 1], with `segment` [M] = k; `found` [k] is its rank. Equal ones keep their order.
    """
    starts[:] = 0
    weight = 0.0
    for m in range(len(rows)):
        starts[rank[rows[m]] + 1] += 1
        weight += valid[rows[m]]
    for place in range(1, len(starts)):
        starts[place] += starts[place - 1]
    for m in range(len(rows)):
        row = rows[m]
        place = starts[rank[row]]
        order[place] = row
        starts[rank[row]] = place + 1
    count, last = 0, -1
    for m in range(len(rows)):
        here = rank[order[m]]
        if here != last:
            found[count] = here
            starts[count] = m
            count += 1
            last = here
        segment[m] = count - 1
    starts[count] = len(rows)
    return count, weight


@jit
def standardize(portfolio: Any, mean: Any, std: Any, out: Any) -> None:
    """Portfolios [m, P] in standard deviations, clipped, into `out` [m, P or wider]."""
    for m in range(portfolio.shape[0]):
        for column in range(portfolio.shape[1]):
            x = (portfolio[m, column] - mean[column]) / std[column]
            x = _LIMIT if x > _LIMIT else x
            out[m, column] = -_LIMIT if x < -_LIMIT else x


@jit
def pack(action: Any, facts: Any, first: int, out: Any) -> None:
    """Actions [m, W] and facts, each [m], beside one another in `out`, from its column `first` on.

    The facts follow the actions, which are padded to what is left.
    """
    last = out.shape[1] - len(facts)
    for m in range(out.shape[0]):
        for column in range(action.shape[1]):
            out[m, first + column] = action[m, column]
        for number in range(len(facts)):
            out[m, last + number] = facts[number][m]


@jit
def gather(table: Any, rows: Any, out: Any) -> None:
    """Rows `rows` [m] of a table [M, F] into `out` [m, F or wider]."""
    for m in range(len(rows)):
        prefetch_row(table, rows[min(m + _AHEAD, len(rows) - 1)])
        row = rows[m]
        for column in range(table.shape[1]):
            out[m, column] = table[row, column]


@jit
def activate(x: Any, bias: Any) -> None:
    """Put tanh(x + bias) in the place of x [k, H]."""
    for k in range(x.shape[0]):
        for j in range(x.shape[1]):
            x[k, j] = tanh(x[k, j] + bias[j])


@jit
def hide(
    hidden: Any, market: Any, segment: Any, bias: Any, critic: Any, offset: Any, value: Any
) -> None:
    """Hidden layers of both heads [m, 2 H], of what is there and the bar's part, and the values."""
    half = len(critic)
    for m in range(hidden.shape[0]):
        k = segment[m]
        for j in range(hidden.shape[1]):
            hidden[m, j] = tanh(hidden[m, j] + market[k, j] + bias[j])
        total = offset[0]
        for j in range(half):
            total += hidden[m, half + j] * critic[j]
        value[m] = total


@jit
def backward_hidden(gradient: Any, hidden: Any, value: Any, critic: Any, into_critic: Any) -> None:
    """Gradients [m, 2 H] before the activation, of the actor's after it, in place, and `value`'s.

    `into_critic` [H] gathers those of the critic's weights.
    """
    half = len(critic)
    into_critic[:] = _ZERO
    for m in range(hidden.shape[0]):
        owed = value[m]
        for j in range(half):
            x = hidden[m, j]
            gradient[m, j] *= _ONE - x * x
        for j in range(half):
            x = hidden[m, half + j]
            into_critic[j] += owed * x
            gradient[m, half + j] = owed * critic[j] * (_ONE - x * x)


@jit
def backward_bars(gradient: Any, starts: Any, first: int, market: Any, into_bias: Any) -> None:
    """Sums over the samples of bars, from the `first`: `market` [k, 2 H], and `into_bias` [2 H]."""
    into_bias[:] = _ZERO
    for k in range(market.shape[0]):
        begin, end = starts[first + k], starts[first + k + 1]
        for j in range(market.shape[1]):
            market[k, j] = gradient[begin, j]
        for m in range(begin + 1, end):
            for j in range(market.shape[1]):
                market[k, j] += gradient[m, j]
        for j in range(market.shape[1]):
            into_bias[j] += market[k, j]


@jit
def backward_activation(gradient: Any, x: Any, into_bias: Any) -> None:
    """Gradient [k, H] before the activation that gave x, in place, and its sums `into_bias` [H]."""
    into_bias[:] = _ZERO
    for k in range(x.shape[0]):
        for j in range(x.shape[1]):
            gradient[k, j] *= _ONE - x[k, j] * x[k, j]
            into_bias[j] += gradient[k, j]


@jit
def add_up(parts: Any, total: Any) -> None:
    """Sum of `parts` [p, n] in their order into `total` [n]."""
    for n in range(len(total)):
        x = parts[0, n]
        for p in range(1, parts.shape[0]):
            x += parts[p, n]
        total[n] = x


@jit
def square_sum(values: Any) -> float:
    """Sum of the squares of values [n], in float64."""
    total = 0.0
    for n in range(len(values)):
        total += np.float64(values[n]) * np.float64(values[n])
    return total


@jit
def adam(
    weight: Any, copy: Any, gradient: Any, mean: Any, square: Any, step: Any, how: Any
) -> None:
    """One step of Adam (Kingma and Ba 2015) on a block of weights [g, r, c] and its padded `copy`.

    `how` holds the learning rate, both betas, epsilon, and a factor on the gradient.
    """
    step[0] += _ONE
    now = np.float64(step[0])
    slow, slower = _real(1.0 - how[1]), _real(how[2])
    fresh = _real(1.0 - how[2])
    size = _real(how[0] / (1.0 - how[1] ** now))
    unit = _real(1.0 / math.sqrt(1.0 - how[2] ** now))
    epsilon, factor = _real(how[3]), _real(how[4])
    for g in range(weight.shape[0]):
        for r in range(weight.shape[1]):
            for c in range(weight.shape[2]):
                x = gradient[g, r, c] * factor
                mean[g, r, c] += slow * (x - mean[g, r, c])
                square[g, r, c] = slower * square[g, r, c] + fresh * x * x
                deviation = math.sqrt(square[g, r, c]) * unit + epsilon
                weight[g, r, c] -= size * mean[g, r, c] / deviation
                copy[g, r, c] = weight[g, r, c]


@jit
def act(
    mean: Any, bias: Any, log_std: Any, deviation: Any, noise: Any, action: Any, log_prob: Any
) -> None:
    """Actions [m, W] of noise around `mean` [m, W+] and its `bias`, and their log densities [m].

    `deviation` [W+] is a room.
    """
    width = noise.shape[1]
    known = _real(HALF_LOG_2_PI * width)
    for j in range(width):
        deviation[j] = math.exp(log_std[j])
        known += log_std[j]
    for m in range(noise.shape[0]):
        total = _ZERO
        for j in range(width):
            center = mean[m, j] + bias[j]
            action[m, j] = center + deviation[j] * noise[m, j]
            z = (action[m, j] - center) / deviation[j]
            total += z * z
        log_prob[m] = -_HALF * total - known


@jit
def surrogate(ratio: Any, gain: Any, clip: Any) -> Any:
    """The clipped surrogate of a sample (Schulman et al. 2017, equation 7) and its slope."""
    low, high = _ONE - clip, _ONE + clip
    bounded = high if ratio > high else (low if ratio < low else ratio)
    plain, clipped = ratio * gain, bounded * gain
    if plain > clipped:
        return clipped, _ZERO
    return plain, gain  # where they are equal the ratio is inside, or the gain is 0


@jit
def value_error(value: Any, old: Any, target: Any, clip: Any) -> Any:
    """The squared error of a value and its slope, the worse of two where `clip` is not negative."""
    error = value - target
    worst, slope = error * error, error + error
    if clip >= _ZERO:
        moved = value - old
        near = clip if moved > clip else (-clip if moved < -clip else moved)
        other = (old + near) - target
        flat = _ZERO if abs(moved) > clip else other + other
        if other * other > worst:
            return other * other, flat
        if other * other == worst:
            return worst, _HALF * (slope + flat)
    return worst, slope


@jit
def score(mean: Any, m: int, taught: Any, first: int, bias: Any, inverse: Any) -> Any:
    """Put the z-scores of an action in the place of `mean` [m]; returns half their squares' sum."""
    total = _ZERO
    for j in range(len(inverse)):
        z = (taught[m, first + j] - mean[m, j] - bias[j]) * inverse[j]
        mean[m, j] = z
        total += z * z
    return _HALF * total


@jit
def count(
    sums: Any, samples: float, log_std: Any, target: float, losses: Any, terms: Any, stopped: Any
) -> Any:
    """Add what parts left in `sums` [p, 4] to `losses` [5], and 1 to `terms` [], unless `stopped`.

    They are divided by the `samples` that count, and the entropy of these log deviations [W] is
    added. Above the `target` the divergence stops it; NaN is no target. Returns whether it has.
    """
    gain, error, divergence, clipped = 0.0, 0.0, 0.0, 0.0
    for part in range(len(sums)):
        gain += sums[part, 0] / samples
        error += sums[part, 1] / samples
        divergence += sums[part, 2] / samples
        clipped += sums[part, 3] / samples
    entropy = _ZERO
    for j in range(len(log_std)):
        entropy += log_std[j] + _real(HALF_LOG_2_PI + 0.5)
    if stopped[()] == _ZERO:
        losses[0] -= gain
        losses[1] += error
        losses[2] += entropy
        losses[3] += divergence
        losses[4] += clipped
        terms[()] += _ONE
    if divergence > target:
        stopped[()] = _ONE
    return stopped[()] != _ZERO


@jit
def backward_loss(outputs: Any, taught: Any, weights: Any, how: Any, sums: Any, into: Any) -> None:
    """Losses of samples, summed into `sums` [4]; gradients take the places of outputs.

    Parameters
    ----------
    outputs
        The actor's means [m, W+] without their bias, and values [m]; then the gradients of them.
    taught
        Rows [m, ...] that end with the action [W+] and the `FACTS`.
    weights
        Log deviations [W], a room for the inverses of deviations [W+], and the actor's bias [W+].
    how
        Clip, value clip (negative for none), weight of values, and the share of one sample.
    sums
        Of the surrogate, squared error, divergence, and samples whose ratio is clipped.
    into
        Gradients of the log deviations [W+], of the actor's bias [W+] and the critic's [1+].
    """
    mean, value = outputs
    log_std, inverse, bias = weights
    into_log_std, into_bias, into_offset = into
    sums[:] = 0.0
    into_log_std[:] = _ZERO
    into_bias[:] = _ZERO
    into_offset[:] = _ZERO
    known, owed_by_all = _real(HALF_LOG_2_PI * len(log_std)), _ZERO
    for j in range(len(log_std)):
        inverse[j] = math.exp(-log_std[j])
        known += log_std[j]
    facts = taught.shape[1] - FACTS
    first = facts - len(inverse)
    for m in range(mean.shape[0]):
        counts = taught[m, facts + 4]
        log_ratio = -score(mean, m, taught, first, bias, inverse) - known - taught[m, facts]
        ratio = math.exp(log_ratio)
        gain, slope = surrogate(ratio, taught[m, facts + 2], how[0])
        sums[0] += gain * counts
        sums[2] += (ratio - _ONE - log_ratio) * counts
        sums[3] += counts if abs(ratio - _ONE) > how[0] else _ZERO
        owed = -how[3] * counts * slope * ratio
        owed_by_all += owed
        for j in range(len(inverse)):
            z = mean[m, j]
            x = owed * z
            into_log_std[j] += x * z
            x *= inverse[j]
            mean[m, j] = x
            into_bias[j] += x
        error, slope = value_error(value[m], taught[m, facts + 1], taught[m, facts + 3], how[1])
        sums[1] += error * counts
        value[m] = how[2] * how[3] * counts * slope
        into_offset[0] += value[m]
    for j in range(len(log_std)):
        into_log_std[j] -= owed_by_all
