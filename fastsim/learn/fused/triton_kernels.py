"""What stands between the matrix products of a minibatch, fused, for a GPU.

Twins of `numba_kernels`, in whose words these are told: rows are padded with zeros (`layout.py`),
which every kernel leaves zero, and comparisons are so written that a NaN stays one. What is added
up over rows is added up by a fixed number of programs, each for every so many tiles of rows, and
what they leave (`parts`) by one kernel for all sums: the same bits every time. Nothing is read by
the host, and nothing depends on it.

Annotations are not deferred in this file, because the compiler reads them.
"""

import triton
import triton.language as tl

from fastsim.learn.fused.constants import HALF_LOG_2_PI
from fastsim.policy.normalize import OBSERVATION_LIMIT
from fastsim.policy.tanh import DOWN, FAR, UP

_LIMIT = tl.constexpr(OBSERVATION_LIMIT)
_HALF_LOG_2_PI = tl.constexpr(HALF_LOG_2_PI)
_ENTROPY = tl.constexpr(0.5 + HALF_LOG_2_PI)  # of a Gaussian of deviation 1
_FAR, _UP, _DOWN = tl.constexpr(FAR), tl.constexpr(UP), tl.constexpr(DOWN)


@triton.jit
def tanh(x):
    """Hyperbolic tangent to some roundings of float32."""
    x = tl.where(x > _FAR, _FAR, x)
    x = tl.where(x < -_FAR, -_FAR, x)
    y = x * x
    up = ((_UP[0] * y + _UP[1]) * y + _UP[2]) * y + _UP[3]
    up = (((up * y + _UP[4]) * y + _UP[5]) * y + _UP[6]) * x
    return up / (((_DOWN[0] * y + _DOWN[1]) * y + _DOWN[2]) * y + _DOWN[3])


@triton.jit
def sum_of(values, count, tile: tl.constexpr):
    """Sum of `values` [n]."""
    lane = tl.arange(0, tile)
    total = tl.zeros((tile,), values.dtype.element_ty)
    for begin in range(0, count, tile):
        total += tl.load(values + begin + lane, mask=begin + lane < count, other=0.0)
    return tl.sum(total)


@triton.jit
def gather(
    rows, order, bar, portfolio, facts, moments, table, samples, shown, counted, count, first,
    widths: tl.constexpr, arranged: tl.constexpr, shows: tl.constexpr, block: tl.constexpr,
    chunk: tl.constexpr,
):  # fmt: skip
    """Put all numbers of a sample beside one another, its portfolio standardised: `samples` [M, C].

    Parameters
    ----------
    rows, order
        Rows [M] of the batch, and, if they are `arranged`, which of them stands at each place.
    portfolio, facts
        The batch's portfolios [B, P]; its actions [B, W] and the five facts, each [B].
    moments
        Mean and sum of squared deviations [P] of portfolios, and how many they are of, in float64.
    table, shown
        If it `shows`, rows of the table [T, F], whose first is the bar `first`, fill the other
        [M, F or wider].
    counted
        Filled with sums of samples that count, one for each program.
    widths
        P, W, F, the first column of an action and of the facts, C, and the width of `shown`.
    """
    place = tl.program_id(0) * block + tl.arange(0, block)
    inside = place < count
    row = place.to(tl.int64)
    if arranged:
        row = tl.load(order + place, mask=inside, other=0)
    row = tl.load(rows + row, mask=inside, other=0)
    lane, out = tl.arange(0, chunk), samples + place.to(tl.int64)[:, None] * widths[5]
    number = tl.maximum(tl.load(moments[2]), 1.0)
    for begin in range(0, widths[0], chunk):
        column = begin + lane
        wide = column < widths[0]
        both = inside[:, None] & wide[None, :]
        mean = tl.load(moments[0] + column, mask=wide, other=0.0).to(tl.float32)
        std = tl.sqrt(tl.load(moments[1] + column, mask=wide, other=0.0) / number)
        std = tl.where(std > 1e-6, std, 1.0).to(tl.float32)
        x = tl.load(portfolio + row[:, None] * widths[0] + column[None, :], mask=both, other=0.0)
        x = tl.div_rn(x - mean[None, :], tl.broadcast_to(std[None, :], (block, chunk)))
        x = tl.where(x > _LIMIT, _LIMIT, x)
        tl.store(out + column[None, :], tl.where(x < -_LIMIT, -_LIMIT, x), mask=both)
    for begin in range(0, widths[1], chunk):
        column = begin + lane
        both = inside[:, None] & (column < widths[1])[None, :]
        x = tl.load(facts[0] + row[:, None] * widths[1] + column[None, :], mask=both, other=0.0)
        tl.store(out + widths[3] + column[None, :], x, mask=both)
    fact = samples + place.to(tl.int64) * widths[5] + widths[4]
    for number_of_fact in tl.static_range(1, 6):
        told = tl.load(facts[number_of_fact] + row, mask=inside, other=0.0)
        tl.store(fact + number_of_fact - 1, told, mask=inside)
    valid = tl.load(facts[5] + row, mask=inside, other=0.0)
    tl.store(counted + tl.program_id(0), tl.sum(valid))
    if shows:
        seen = tl.load(bar + row, mask=inside, other=0) - first
        out = shown + place.to(tl.int64)[:, None] * widths[6]
        for begin in range(0, widths[2], chunk):
            column = begin + lane
            both = inside[:, None] & (column < widths[2])[None, :]
            x = tl.load(table + seen[:, None] * widths[2] + column[None, :], mask=both, other=0.0)
            tl.store(out + column[None, :], x, mask=both)


@triton.jit
def activate(x, bias, count, width: tl.constexpr, block: tl.constexpr):
    """Put tanh(x + bias) in the place of x [K, E], of `count` numbers."""
    place = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = place < count
    before = tl.load(x + place, mask=inside, other=0.0) + tl.load(bias + place % width)
    tl.store(x + place, tanh(before), mask=inside)


@triton.jit
def hide(
    hidden, market, segment, bias, critic, offset, value, count,
    half: tl.constexpr, arranged: tl.constexpr, block: tl.constexpr, chunk: tl.constexpr,
):  # fmt: skip
    """Hidden layers of both heads [M, 2 H], of what is there and the bar's part, and the values.

    The bar of a sample is the row `segment` [M] of `market` if they are `arranged`, else its own.
    """
    place = tl.program_id(0) * block + tl.arange(0, block)
    inside, row = place < count, place.to(tl.int64)
    seen = row
    if arranged:
        seen = tl.load(segment + place, mask=inside, other=0).to(tl.int64)
    lane = tl.arange(0, chunk)
    total = tl.zeros((block,), tl.float32)
    for begin in range(0, half, chunk):
        column = begin + lane
        wide = column < half
        both = inside[:, None] & wide[None, :]
        for head in tl.static_range(2):
            at = row[:, None] * (2 * half) + head * half + column[None, :]
            x = tl.load(hidden + at, mask=both, other=0.0)
            there = market + seen[:, None] * (2 * half) + head * half + column[None, :]
            x += tl.load(there, mask=both, other=0.0)
            x = tanh(x + tl.load(bias + head * half + column, mask=wide, other=0.0)[None, :])
            tl.store(hidden + at, x, mask=both)
            if head == 1:
                weight = tl.load(critic + column, mask=wide, other=0.0)
                total += tl.sum(x * weight[None, :], 1)
    tl.store(value + place, total + tl.load(offset), mask=inside)


@triton.jit
def teach(
    mean, value, samples, log_std, bias, counted, parts, losses, count, programs, groups,
    widths: tl.constexpr, how: tl.constexpr, block: tl.constexpr, wide: tl.constexpr,
    tile: tl.constexpr,
):  # fmt: skip
    """Losses of samples, and their gradients in the places of `mean` [M, W+] and `value` [M].

    Parameters
    ----------
    mean
        The actor's means without their `bias` [W+].
    samples
        What `gather` has put there, and `counted` its sums [groups].
    parts
        Sums [programs, 2 W+ + ...] of the gradients of log deviations, of the actor's bias, and of
        the critic's.
    losses
        Sums [4, programs], in float64; see `LOSSES`.
    widths
        W, W+, the first column of an action and of the facts, the width of `samples`, of `parts`.
    how
        Clip, value clip (negative for none), and weight of values.
    """
    column = tl.arange(0, wide)
    real, padded = column < widths[0], column < widths[1]
    deviation = tl.load(log_std + column, mask=real, other=0.0)
    inverse = tl.where(real, tl.exp(-deviation), 0.0)
    known = tl.sum(deviation) + _HALF_LOG_2_PI * widths[0]
    offset = tl.load(bias + column, mask=padded, other=0.0)
    share = tl.div_rn(1.0, tl.maximum(sum_of(counted, groups, tile), 1.0))
    into_log_std, into_bias = tl.zeros((wide,), tl.float32), tl.zeros((wide,), tl.float32)
    into_critic, owed_by_all = tl.zeros((block,), tl.float32), tl.zeros((block,), tl.float32)
    gains, errors = tl.zeros((block,), tl.float64), tl.zeros((block,), tl.float64)
    far, outside = tl.zeros((block,), tl.float64), tl.zeros((block,), tl.float64)
    for begin in range(tl.program_id(0) * block, count, programs * block):
        place = begin + tl.arange(0, block)
        inside, row = place < count, place.to(tl.int64)
        both = inside[:, None] & padded[None, :]
        at, taught = mean + row[:, None] * widths[1] + column[None, :], samples + row * widths[4]
        action = tl.load(taught[:, None] + widths[2] + column[None, :], mask=both, other=0.0)
        z = (action - tl.load(at, mask=both, other=0.0) - offset[None, :]) * inverse[None, :]
        fact = taught + widths[3]
        old_log_prob = tl.load(fact, mask=inside, other=0.0)
        old, gain = _load_two(fact + 1, inside)
        target, counts = _load_two(fact + 3, inside)
        log_ratio = tl.where(inside, -0.5 * tl.sum(z * z, 1) - known - old_log_prob, 0.0)
        ratio = tl.exp(log_ratio)
        surrogate, slope = _surrogate(ratio, gain, how[0])
        gains += (surrogate * counts).to(tl.float64)
        far += ((ratio - 1.0 - log_ratio) * counts).to(tl.float64)
        outside += tl.where(tl.abs(ratio - 1.0) > how[0], counts, 0.0).to(tl.float64)
        owed = -share * counts * slope * ratio
        owed_by_all += owed
        x = owed[:, None] * z
        into_log_std += tl.sum(x * z, 0)
        x *= inverse[None, :]
        into_bias += tl.sum(x, 0)
        tl.store(at, x, mask=both)
        error, slope = _value_error(
            tl.load(value + place, mask=inside, other=0.0), old, target, how[1]
        )
        errors += (error * counts).to(tl.float64)
        owed = how[2] * share * counts * slope
        into_critic += owed
        tl.store(value + place, owed, mask=inside)
    program = tl.program_id(0)
    into = parts + program * widths[5]
    into_log_std = tl.where(real, into_log_std - tl.sum(owed_by_all), 0.0)
    tl.store(into + column, into_log_std, mask=padded)
    tl.store(into + widths[1] + column, into_bias, mask=padded)
    tl.store(into + 2 * widths[1], tl.sum(into_critic))
    tl.store(losses + program, tl.sum(gains))
    tl.store(losses + programs + program, tl.sum(errors))
    tl.store(losses + 2 * programs + program, tl.sum(far))
    tl.store(losses + 3 * programs + program, tl.sum(outside))


@triton.jit
def _load_two(fact, inside):
    return tl.load(fact, mask=inside, other=0.0), tl.load(fact + 1, mask=inside, other=0.0)


@triton.jit
def _surrogate(ratio, gain, clip):
    """The clipped surrogates (Schulman et al. 2017, equation 7) and their slopes."""
    bounded = tl.where(ratio < 1.0 - clip, 1.0 - clip, ratio)
    bounded = tl.where(ratio > 1.0 + clip, 1.0 + clip, bounded)
    plain, clipped = ratio * gain, bounded * gain
    return tl.where(plain > clipped, clipped, plain), tl.where(plain > clipped, 0.0, gain)


@triton.jit
def _value_error(value, old, target, clip: tl.constexpr):
    """Squared errors of values and their slopes, the worse of two where `clip` is not negative."""
    error = value - target
    worst, slope = error * error, error + error
    if clip >= 0.0:
        moved = value - old
        near = tl.where(moved > clip, clip, tl.where(moved < -clip, -clip, moved))
        other = (old + near) - target
        flat = tl.where(tl.abs(moved) > clip, 0.0, other + other)
        other *= other
        slope = tl.where(other == worst, 0.5 * (slope + flat), slope)
        slope = tl.where(other > worst, flat, slope)
        worst = tl.where(other > worst, other, worst)
    return worst, slope


@triton.jit
def backward_hidden(
    gradient, hidden, value, critic, parts, count, programs,
    half: tl.constexpr, block: tl.constexpr, chunk: tl.constexpr,
):  # fmt: skip
    """Gradients [M, 2 H] before the activation, of the actor's after it, in place, and `value`'s.

    `parts` [programs, 3 H] are sums of those of the critic's weights, and of the bias of both.
    """
    column = tl.program_id(1) * chunk + tl.arange(0, chunk)
    wide = column < half
    weight = tl.load(critic + column, mask=wide, other=0.0)
    into_critic = tl.zeros((chunk,), tl.float32)
    first, second = tl.zeros((chunk,), tl.float32), tl.zeros((chunk,), tl.float32)
    for begin in range(tl.program_id(0) * block, count, programs * block):
        place = begin + tl.arange(0, block)
        inside, row = place < count, place.to(tl.int64)
        both = inside[:, None] & wide[None, :]
        at = row[:, None] * (2 * half) + column[None, :]
        x = tl.load(hidden + at, mask=both, other=0.0)
        back = tl.load(gradient + at, mask=both, other=0.0) * (1.0 - x * x)
        tl.store(gradient + at, back, mask=both)
        first += tl.sum(back, 0)
        x = tl.load(hidden + at + half, mask=both, other=0.0)
        owed = tl.load(value + place, mask=inside, other=0.0)[:, None]
        into_critic += tl.sum(owed * x, 0)
        back = owed * weight[None, :] * (1.0 - x * x)
        tl.store(gradient + at + half, back, mask=both)
        second += tl.sum(back, 0)
    into = parts + tl.program_id(0) * (3 * half) + column
    tl.store(into, into_critic, mask=wide)
    tl.store(into + half, first, mask=wide)
    tl.store(into + 2 * half, second, mask=wide)


@triton.jit
def backward_bars(
    gradient, starts, market, width: tl.constexpr, block: tl.constexpr, chunk: tl.constexpr
):
    """Sums `market` [K, 2 H] over the samples of each bar, which begin at `starts` [K + 1]."""
    bar = tl.program_id(0)
    column = tl.program_id(1) * chunk + tl.arange(0, chunk)
    wide = column < width
    first, last = tl.load(starts + bar), tl.load(starts + bar + 1)
    total = tl.zeros((chunk,), tl.float32)
    for begin in range(first, last, block):
        place = begin + tl.arange(0, block)
        both = (place < last)[:, None] & wide[None, :]
        at = place.to(tl.int64)[:, None] * width + column[None, :]
        total += tl.sum(tl.load(gradient + at, mask=both, other=0.0), 0)
    tl.store(market + bar.to(tl.int64) * width + column, total, mask=wide)


@triton.jit
def backward_activation(
    gradient, x, parts, count, programs,
    width: tl.constexpr, block: tl.constexpr, chunk: tl.constexpr,
):  # fmt: skip
    """Gradients [K, E] before the activation that gave x, in place; `parts` [programs, E]."""
    column = tl.program_id(1) * chunk + tl.arange(0, chunk)
    wide = column < width
    total = tl.zeros((chunk,), tl.float32)
    for begin in range(tl.program_id(0) * block, count, programs * block):
        place = begin + tl.arange(0, block)
        both = (place < count)[:, None] & wide[None, :]
        at = place.to(tl.int64)[:, None] * width + column[None, :]
        made = tl.load(x + at, mask=both, other=0.0)
        back = tl.load(gradient + at, mask=both, other=0.0) * (1.0 - made * made)
        tl.store(gradient + at, back, mask=both)
        total += tl.sum(back, 0)
    tl.store(parts + tl.program_id(0) * width + column, total, mask=wide)


@triton.jit
def settle(
    parts, into, log_std, counted, losses, sums, terms, stopped, groups, programs,
    sections: tl.constexpr, actions: tl.constexpr, how: tl.constexpr, block: tl.constexpr,
    chunk: tl.constexpr, tile: tl.constexpr,
):  # fmt: skip
    """Add up what programs have left, and the losses of a minibatch.

    Parameters
    ----------
    parts, into
        Blocks [p, c] of the parts, and where the sums [c] of their rows go; the first are those of
        the log deviations [W], of which the entropy takes its share.
    counted, losses
        Sums [groups] of `gather`, and those [4, programs] of `teach`.
    sums, terms, stopped
        The tally, whose stop is put where the divergence has passed its target.
    sections
        Of each block its rows, its columns, and numbers from row to row.
    how
        Weight of the entropy, and the target of the divergence (negative for none).
    """
    for number in tl.static_range(len(sections)):
        if tl.program_id(1) == number:
            column = tl.program_id(0) * chunk + tl.arange(0, chunk)
            wide = column < sections[number][1]
            total = tl.zeros((chunk,), tl.float32)
            for begin in range(0, sections[number][0], block):
                row = begin + tl.arange(0, block)
                both = (row < sections[number][0])[:, None] & wide[None, :]
                at = row[:, None] * sections[number][2] + column[None, :]
                total += tl.sum(tl.load(parts[number] + at, mask=both, other=0.0), 0)
            if number == 0:
                total = tl.where(column < actions, total - how[0], total)
            tl.store(into[number] + column, total, mask=wide)
    if (tl.program_id(1) == len(sections)) & (tl.program_id(0) == 0):
        samples = tl.maximum(sum_of(counted, groups, tile), 1.0).to(tl.float64)
        going = tl.load(stopped) == 0.0
        entropy = sum_of(log_std, actions, tile) + _ENTROPY * actions
        mean = sum_of(losses, programs, tile) / samples
        _count(sums, -mean.to(tl.float32), going)
        mean = sum_of(losses + programs, programs, tile) / samples
        _count(sums + 1, mean.to(tl.float32), going)
        _count(sums + 2, entropy, going)
        far = (sum_of(losses + 2 * programs, programs, tile) / samples).to(tl.float32)
        _count(sums + 3, far, going)
        mean = sum_of(losses + 3 * programs, programs, tile) / samples
        _count(sums + 4, mean.to(tl.float32), going)
        _count(terms, 1.0, going)
        if how[1] >= 0.0:
            tl.store(stopped, 1.0, mask=far > how[1])


@triton.jit
def _count(total, value, going):
    tl.store(total, tl.load(total) + value, mask=going)


@triton.jit
def square_sums(gradient, parts, steps, stopped, count, block: tl.constexpr):
    """Sums [programs] of the squares of a gradient [n], in float64; and one to every step."""
    place = tl.program_id(0) * block + tl.arange(0, block)
    x = tl.load(gradient + place, mask=place < count, other=0.0).to(tl.float64)
    tl.store(parts + tl.program_id(0), tl.sum(x * x))
    if tl.program_id(0) == 0:
        for number in tl.static_range(len(steps)):
            step = tl.load(steps[number]) + 1.0
            tl.store(steps[number], step, mask=tl.load(stopped) == 0.0)


@triton.jit
def adam(
    weights, means, squares, steps, gradient, copy, rate, parts, stopped, groups,
    places: tl.constexpr, how: tl.constexpr, block: tl.constexpr, tile: tl.constexpr,
):  # fmt: skip
    """One step of Adam (Kingma and Ba 2015) on some weights and their padded `copy`.

    Parameters
    ----------
    steps
        Of each weight, this one counted.
    gradient, copy
        Flat blocks [n], padded. The gradient is cut to a norm as `clip_grad_norm_` does, from
        `parts` [groups] of its square.
    places
        Of each weight the program that begins it, its numbers, its rows and columns, these padded,
        and where it stands in the flat blocks; and at last the number of programs.
    how
        Both betas, epsilon, and the norm.
    """
    going = tl.load(stopped) == 0.0
    share = how[3] / (tl.sqrt(sum_of(parts, groups, tile)) + 1e-6)
    factor = tl.where(share > 1.0, 1.0, share).to(tl.float32)  # NaN stays
    program = tl.program_id(0)
    for number in tl.static_range(len(weights)):
        if (program >= places[number][0]) & (program < places[number + 1][0]):
            place = (program - places[number][0]) * block + tl.arange(0, block)
            inside = place < tl.where(going, places[number][1], 0)
            flat = _padded_place(place, places[number])
            now = tl.load(steps[number]).to(tl.float64)
            size = tl.load(rate).to(tl.float64) / (1.0 - tl.exp(now * how[4]))
            unit = 1.0 / tl.sqrt(1.0 - tl.exp(now * how[5]))
            x = tl.load(gradient + flat, mask=inside, other=0.0) * factor
            mean = tl.load(means[number] + place, mask=inside, other=0.0)
            mean += (1.0 - how[0]) * (x - mean)
            square = tl.load(squares[number] + place, mask=inside, other=0.0)
            square = how[1] * square + (1.0 - how[1]) * x * x
            tl.store(means[number] + place, mean, mask=inside)
            tl.store(squares[number] + place, square, mask=inside)
            deviation = tl.sqrt_rn(square) * unit.to(tl.float32) + how[2]
            weight = tl.load(weights[number] + place, mask=inside, other=0.0)
            weight -= tl.div_rn(size.to(tl.float32) * mean, deviation)
            tl.store(weights[number] + place, weight, mask=inside)
            tl.store(copy + flat, weight, mask=inside)


@triton.jit
def read(weights, copy, places: tl.constexpr, block: tl.constexpr):
    """Fill the padded `copy` of some weights; see `adam`."""
    program = tl.program_id(0)
    for number in tl.static_range(len(weights)):
        if (program >= places[number][0]) & (program < places[number + 1][0]):
            place = (program - places[number][0]) * block + tl.arange(0, block)
            inside = place < places[number][1]
            weight = tl.load(weights[number] + place, mask=inside, other=0.0)
            tl.store(copy + _padded_place(place, places[number]), weight, mask=inside)


@triton.jit
def _padded_place(place, where: tl.constexpr):
    """Where the numbers of a weight stand in a flat block."""
    column = place % where[3]
    row = (place // where[3]) % where[2]
    head = place // (where[2] * where[3])
    return where[6] + (head * where[4] + row) * where[5] + column
