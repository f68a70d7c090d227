"""Pictures of accounts: wealth, weights and drawdown since the episode's start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium import logger
from numpy.typing import NDArray

from fastsim.env.environment import PortfolioEnv
from fastsim.errors import ConfigError

RENDER_MODES = ("human", "rgb_array")
RENDER_FPS = 10
MOST_PICTURES = 64
"""Every row of a batch is drawn, a twentieth of a second each."""
MOST_LABELS = 30

Frame = NDArray[np.uint8]  # [480, 640, 3]


class Track(NamedTuple):
    """What is drawn of one account."""

    episode: int
    dates: list[str]
    wealth: list[float]  # at every close since the start
    weights: NDArray[np.float64]  # [A + 1]  now; the last is cash


def check_render_mode(mode: object, accepted: Sequence[str] = RENDER_MODES) -> None:
    """Raise ConfigError for a mode there is not, or where pictures cannot be drawn."""
    if mode is None:
        return
    if mode not in accepted:
        listed = ", ".join(repr(name) for name in accepted)
        hint = ""
        if mode == "rgb_array_list":
            hint = (
                '; gymnasium.make and gymnasium.wrappers.RenderCollection make lists of "rgb_array"'
            )
        raise ConfigError(f"render_mode must be None or one of {listed}, got {mode!r}{hint}")
    try:
        import matplotlib  # noqa: F401, PLC0415
    except ImportError:
        raise ConfigError(
            f"render_mode={mode!r} needs matplotlib: pip install 'fastsim-rl[plot]'"
        ) from None


class Screen:
    """Keeps what has happened to each row of an environment, and draws it.

    "rgb_array" draws with Agg alone; "human" shows the first row in a window of pyplot's,
    or warns that there can be none.

    Raises
    ------
    ConfigError
        There are more rows than can be drawn.
    """

    def __init__(self, env: PortfolioEnv, mode: str) -> None:
        if mode == "rgb_array" and env.num_envs > MOST_PICTURES:
            raise ConfigError(
                f'render_mode="rgb_array" draws every environment, at most {MOST_PICTURES}; '
                f"got num_envs = {env.num_envs}"
            )
        self._env, self._mode = env, mode
        self._tracks: list[Track] = []
        self._figure = _window() if mode == "human" else _figure()
        self._dates = [stamp[:16] for stamp in np.datetime_as_string(env.tape.timestamps).tolist()]

    def begin(self, rows: NDArray[np.bool_] | None = None) -> None:
        """Begin anew after a reset, of all rows or of these [N]; the others stay as they are."""
        old = self._tracks
        self._tracks = []
        self.look()
        if rows is not None and old:
            pairs = zip(rows, self._tracks, old, strict=True)
            self._tracks = [new if begun else kept for begun, new, kept in pairs]

    def look(self) -> None:
        """Take note of every account as it is now; shows the first in the window, if there is."""
        state = self._env.state
        wealth = state.wealth.double()
        risky = (state.portfolio.holdings.double() / wealth[:, None]).numpy(force=True)
        weights = np.concatenate([risky, 1.0 - risky.sum(1, keepdims=True)], axis=1)
        number, bar = state.episode.number.tolist(), state.episode.bar.tolist()
        rows = zip(number, bar, wealth.tolist(), weights, strict=True)
        old: Sequence[Track | None] = self._tracks or [None] * self._env.num_envs
        self._tracks = [self._longer(track, *row) for track, row in zip(old, rows, strict=True)]
        if self._mode == "human":
            self._draw(self._tracks[0])
            self._figure.canvas.draw_idle()
            self._figure.canvas.flush_events()

    def frames(self) -> tuple[Frame, ...]:
        """A picture of every account."""
        return tuple(self._picture(track) for track in self._tracks)

    def close(self) -> None:
        """Close the window."""
        if self._mode == "human":
            from matplotlib import pyplot  # noqa: PLC0415

            pyplot.close(self._figure)

    def _longer(
        self, track: Track | None, episode: int, bar: int, wealth: float, weights: Any
    ) -> Track:
        if track is None or track.episode != episode:
            track = Track(episode, [], [], weights)
        track.dates.append(self._dates[bar])
        track.wealth.append(wealth)
        return track._replace(weights=weights)

    def _picture(self, track: Track) -> Frame:
        self._draw(track)
        self._figure.canvas.draw()
        return np.array(self._figure.canvas.buffer_rgba())[..., :3]

    def _draw(self, track: Track) -> None:
        self._figure.clear()
        wealth = np.array(track.wealth)
        lost = 1.0 - wealth / np.maximum.accumulate(wealth)
        above, middle, below = self._figure.subplots(3, 1, height_ratios=(3, 3, 2))
        above.plot(wealth, color="tab:blue")
        above.set_title(f"{track.dates[-1]}   wealth {wealth[-1]:,.0f}", fontsize=10)
        above.set_ylabel("wealth")
        names = [*self._env.tape.symbols, "cash"]
        middle.bar(range(len(names)), track.weights, color="tab:green")
        middle.set_ylabel("weights")
        middle.set_ylim(min(0.0, track.weights.min()), max(1.0, track.weights.max()))
        if len(names) <= MOST_LABELS:
            middle.set_xticks(range(len(names)), names, rotation=90, fontsize=7, parse_math=False)
        below.fill_between(range(len(lost)), -lost, color="tab:red")
        below.set_ylabel("drawdown")
        below.set_xlabel("steps")


def warn_of_no_mode() -> None:
    """Warn as Gymnasium's own environments do when `render` is called without a mode."""
    logger.warn(
        'nothing is rendered without a mode: make the environment with render_mode="rgb_array"'
    )


def _figure() -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(6.4, 4.8), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _window() -> Any:
    from matplotlib import pyplot  # noqa: PLC0415

    figure = pyplot.figure(figsize=(6.4, 4.8), layout="constrained")
    if getattr(figure.canvas, "required_interactive_framework", None) is None:
        logger.warn(
            'no window is shown: render_mode="human" needs a display and one of matplotlib\'s '
            f'windows, got {pyplot.get_backend()!r}; use render_mode="rgb_array"'
        )
    else:
        figure.show()
    return figure
