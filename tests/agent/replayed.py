"""What a decider saw and said in a replay, and what an agent has to be told of the calendar."""

import numpy as np

from fastsim.env.decide import Decider


class Written(Decider):
    """A decider whose answers are written down."""

    def __init__(self, inner):
        self.inner, self.answers_given, self.seen = inner, [], []
        self.study, self.begin = inner.study, inner.begin

    @property
    def answers(self):
        return self.inner.answers

    def decide(self, market, seen, memory):
        said, memory = self.inner.decide(market, seen, memory)
        self.seen.append(seen.portfolio[0].clone())
        self.answers_given.append(said[0].clone())
        return said, memory


def closed_days(bars):
    days = bars.timestamps.astype("datetime64[D]")
    every = np.arange(days[0], days[-1])
    return {day.item() for day in every[~np.isin(every, days)]}


def over(bars):
    return bars.timestamps[-1] + np.timedelta64(24, "h")
