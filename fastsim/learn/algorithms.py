"""The algorithms that come with fastsim, and those that a user adds."""

from __future__ import annotations

from fastsim.extensions import Registry
from fastsim.learn.algorithm import AlgorithmRecord
from fastsim.learn.ppo.algorithm import RECORD as PPO_RECORD

ALGORITHMS: Registry[AlgorithmRecord] = Registry("algorithm", AlgorithmRecord, (PPO_RECORD,))
