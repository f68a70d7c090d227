"""What callers of Gymnasium write, as rules and numbers of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from fastsim.config import from_mapping, require_count, whole_number
from fastsim.env.config import EnvConfig
from fastsim.env.episode import EpisodeConfig
from fastsim.errors import ConfigError

NO_LIMIT = -1
"""What Gymnasium writes for `max_episode_steps` where there is to be no limit."""


def as_rules(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `build_env`, of which some may be spelled as Gymnasium does.

    `autoreset_mode`, or `autoreset`, is an `AutoresetMode`, its name or its value.
    `max_episode_steps` is the horizon, or, beside one, an upper bound of it. A configuration may be
    a mapping, as JSON has it.

    Raises
    ------
    ConfigError
        Values that do not exist or contradict one another.
    """
    rules = dict(arguments)
    if isinstance(rules.get("config"), Mapping):
        rules["config"] = from_mapping(EnvConfig, rules["config"])
    given = {name: rules.pop(name) for name in ("autoreset", "autoreset_mode") if name in rules}
    modes = {_autoreset(name, value) for name, value in given.items()}
    if len(modes) > 1:
        raise ConfigError(
            f"autoreset = {given['autoreset']!r} and autoreset_mode = {given['autoreset_mode']!r} "
            f"are one setting: give one of them"
        )
    if modes:
        rules["autoreset"] = modes.pop()
    steps = rules.pop("max_episode_steps", None)
    if steps is None or _is_no_limit(steps):
        return rules
    require_count("max_episode_steps", steps)
    return _limited(rules, int(steps))


def as_batch_rules(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The same for a batch whose client wants rows to restart in the step that ends them.

    Where `config` is given, it is left as it is.
    """
    rules = as_rules(arguments)
    refuse_disabled(rules)
    if rules.get("config") is None:
        rules.setdefault("autoreset", "same_step")
    return rules


def refuse_disabled(rules: Mapping[str, Any]) -> None:
    """Raise ConfigError where rows of a batch are not to restart by themselves."""
    if rules.get("autoreset") == "disabled":
        raise ConfigError(
            "autoreset = DISABLED is not for a batch, whose rows restart by themselves: use "
            "NEXT_STEP or SAME_STEP, or gymnasium.make, whose caller resets"
        )


def alone(rules: Mapping[str, Any]) -> dict[str, Any]:
    """The same rules for one environment, whose caller resets it, whatever `autoreset` says."""
    config = rules.get("config")
    if isinstance(config, EnvConfig):
        return {**rules, "config": replace(config, autoreset="next_step")}
    return {name: value for name, value in rules.items() if name != "autoreset"}


def check_seed(seed: object) -> None:
    """Raise ConfigError unless a seed is None or a whole number that is not negative."""
    if seed is not None:
        whole_number("seed", seed)


def seeds_of(seed: Any, num_envs: int, players: int = 1) -> int | list[int] | None:
    """A seed for a batch, or one for each of its environments.

    Raises
    ------
    ConfigError
        Seeds that are no whole numbers, of another number than there are environments, given or
        left out together with None, or of players who share markets.
    """
    if isinstance(seed, np.ndarray):
        seed = seed.tolist()
    if not isinstance(seed, Sequence) or isinstance(seed, str | bytes):
        check_seed(seed)
        return None if seed is None else int(seed)
    for each in seed:
        check_seed(each)
    if len(seed) != num_envs:
        raise ConfigError(f"seed must be one number or a list of {num_envs}, got {len(seed)}")
    if all(each is None for each in seed):
        return None
    if any(each is None for each in seed):
        raise ConfigError(f"seed must be numbers for all environments or none, got {list(seed)}")
    if players > 1:
        raise ConfigError("seeds as a list are for players=1: those of a market begin together")
    return [int(each) for each in seed]


def _autoreset(name: str, given: object) -> str:
    """One of our words: "next_step", "same_step", "disabled"."""
    for mode in AutoresetMode:
        if given is mode or (
            isinstance(given, str) and given in (mode.value, mode.name, mode.name.lower())
        ):
            return mode.name.lower()
    raise ConfigError(
        f"{name} must be one of 'next_step', 'same_step', or Gymnasium's AutoresetMode of that "
        f"name, got {given!r}"
    )


def _is_no_limit(steps: object) -> bool:
    return isinstance(steps, Integral) and int(steps) == NO_LIMIT


def _limited(rules: dict[str, Any], steps: int) -> dict[str, Any]:
    """Rules whose episodes are no longer than these steps."""
    config, episode = rules.get("config"), rules.get("episode", {})
    if isinstance(config, EnvConfig):
        shorter = _shorter(config.episode, steps)
        return rules | {"config": replace(config, episode=shorter)}
    if isinstance(episode, EpisodeConfig):
        return rules | {"episode": _shorter(episode, steps)}
    if not isinstance(episode, Mapping):
        return rules  # whoever builds the configuration says what is wrong with it
    horizon = episode.get("horizon")
    if horizon is None:
        horizon = steps
    elif isinstance(horizon, Integral) and not isinstance(horizon, bool):
        horizon = min(int(horizon), steps)
    return rules | {"episode": {**episode, "horizon": horizon}}


def _shorter(episode: EpisodeConfig, steps: int) -> EpisodeConfig:
    return replace(episode, horizon=min(episode.horizon or steps, steps))
