"""Simulated markets: thousands of paths at once, from one seed, on one device.

Shapes: M worlds, T bars, A assets. Models work with time first, [T, M, A], as recurrences do, and
hand out `Paths` [M, T, A] that are views of that memory. All is float64: prices are sums of many
small steps, the tails of a float32 uniform end at 5.3 standard deviations, and paths are drawn once
and not at every step.
"""
