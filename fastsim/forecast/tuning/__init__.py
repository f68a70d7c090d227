"""Searching for the settings of a fit: trials of Optuna's, each of which is a fit."""
