"""The algorithms that come with fastsim, and those that a user adds."""

from __future__ import annotations

from fastsim.extensions import Registry
from fastsim.learn.algorithm import AlgorithmRecord
from fastsim.learn.apg.algorithm import RECORD as APG_RECORD
from fastsim.learn.ppo.algorithm import RECORD as PPO_RECORD
from fastsim.learn.sac.algorithm import RECORD as SAC_RECORD

ALGORITHMS: Registry[AlgorithmRecord] = Registry(
    "algorithm", AlgorithmRecord, (PPO_RECORD, SAC_RECORD, APG_RECORD)
)
