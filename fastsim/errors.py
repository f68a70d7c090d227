"""What a person can get wrong, each with its own name.

Every message is one line that names the culprit, the value it had, and what would work.
"""


class FastsimError(ValueError):
    """Base of every error that fastsim raises for bad input."""


class ConfigError(FastsimError):
    """A setting is out of range, of the wrong type, unknown, or contradicts another."""


class DataError(FastsimError):
    """Bars are missing, malformed or inconsistent; names the symbol and the date."""


class ActionError(FastsimError):
    """An action has the wrong shape or is not finite."""


class CheckpointError(FastsimError):
    """A checkpoint is missing, damaged, or belongs to another configuration."""


class ForecastError(FastsimError):
    """A forecast cannot be made: weights cannot be had, or the context or horizon does not fit."""
