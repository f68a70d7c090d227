"""Bands of a forecaster that are too narrow or too wide, set right by what validation saw."""
