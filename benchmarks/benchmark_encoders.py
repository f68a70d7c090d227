"""PPO by what looks at the market: frames per second of CPU time, a JSON object a line.

    OMP_NUM_THREADS=1 python benchmarks/benchmark_encoders.py --peer \
        --json benchmarks/results/encoders-cpu.json

Whole iterations of training (no early end by `target_kl`), every encoder in turns with "mlp", which
sees the last bar alone. Each distinct bar is encoded once a minibatch.

`--peer` adds Stable-Baselines3's PPO on `SB3VecEnv` with window observations: its extractor of
features is the same encoder, which meets every sample's window by itself, with as many epochs and a
smaller batch, as its activations would not fit into memory. Needs `fastsim-rl[sb3]`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from common import (
    Rate,
    Row,
    header,
    market,
    market_bars,
    median,
    seconds_of,
    spread,
    take_turns,
    write,
)
from torch import Tensor, nn

from fastsim.cli.ending import one_line_errors, read_options
from fastsim.env.config import EnvConfig
from fastsim.env.episode import EpisodeConfig
from fastsim.learn.ppo.config import PPOConfig
from fastsim.learn.rollout import CollectConfig
from fastsim.learn.trainer import Trainer
from fastsim.market.tape import MarketTape
from fastsim.policy.encoders import ENCODERS
from fastsim.policy.spec import MLP, PolicyConfig

RULES = EnvConfig(action="logits", observation="index", episode=EpisodeConfig(staggered=True))


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What to measure."""

    device: str = "cpu"
    encoders: tuple[str, ...] = ("conv", "gru", "attention")
    num_envs: int = 4096
    num_assets: int = 30
    window: int = 60
    channels: int = 16
    hidden: int = 64
    rollout_steps: int = 16
    epochs: int = 4
    minibatches: int = 4
    bars: int = 2500
    rounds: int = 3
    peer: bool = False
    peer_encoder: str = "conv"
    peer_envs: int = 64
    peer_batch: int = 256
    json: Path | None = None
    """Also write the results to this file."""


def make_trainer(case: Benchmark, tape: MarketTape, encoder: str) -> Trainer:
    """PPO that never ends an iteration early."""
    settings = PPOConfig(epochs=case.epochs, minibatches=case.minibatches, target_kl=None)
    policy = PolicyConfig(
        hidden=case.hidden, encoder=encoder, window=case.window, channels=case.channels
    )
    collect = CollectConfig(num_envs=case.num_envs, rollout_steps=case.rollout_steps)
    return Trainer(tape, RULES, settings, policy, collect, iterations=1_000_000)


def training(trainer: Trainer, device: str) -> Rate:
    """An iteration a round, warmed up; returns frames per second of CPU time, or of a GPU's."""
    trainer.iterate()
    clock = time.process_time if device == "cpu" else time.perf_counter
    return lambda: trainer.frames_per_iteration / seconds_of(trainer.iterate, device, clock)


def measure(case: Benchmark, tape: MarketTape, encoder: str) -> Row:
    """An encoder beside the one that sees the last bar."""
    rates = {name: training(make_trainer(case, tape, name), case.device) for name in (encoder, MLP)}
    measured = take_turns(rates, case.rounds)
    mine, other = median(measured[encoder]), median(measured[MLP])
    return header("encoders", case.device) | {
        "encoder": encoder,
        "window": case.window,
        "channels": case.channels,
        "num_envs": case.num_envs,
        "num_assets": case.num_assets,
        "frames_per_s": mine,
        "mlp_frames_per_s": other,
        "ratio": round(mine / other, 3),
        "spread": spread(measured[encoder]),
    }


def measure_peer(case: Benchmark, tape: MarketTape) -> Row:
    """Stable-Baselines3 with the same encoder before its own two layers."""
    ours = training(make_trainer(case, tape, case.peer_encoder), case.device)
    measured = take_turns({"ours": ours, "peer": peer_training(case, tape)}, case.rounds)
    mine, other = median(measured["ours"]), median(measured["peer"])
    return header("encoders_peer", case.device) | {
        "peer": "Stable-Baselines3 on SB3VecEnv",
        "encoder": case.peer_encoder,
        "window": case.window,
        "num_envs": case.peer_envs,
        "num_assets": case.num_assets,
        "frames_per_s": other,
        "ours_num_envs": case.num_envs,
        "ours_frames_per_s": mine,
        "ratio": round(mine / other, 2),
    }


def peer_training(case: Benchmark, tape: MarketTape) -> Callable[[], float]:
    """A rollout and its epochs a round."""
    from stable_baselines3 import PPO  # noqa: PLC0415 - an extra
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor  # noqa: PLC0415

    from fastsim.adapters.sb3 import SB3VecEnv  # noqa: PLC0415

    shape = (case.window, case.num_assets, len(tape.feature_names))

    class Extractor(BaseFeaturesExtractor):  # type: ignore[misc]
        def __init__(self, space: Any) -> None:
            own = space.shape[0] - shape[0] * shape[1] * shape[2]
            super().__init__(space, case.num_assets * case.channels + own)
            self.encoder: nn.Module = ENCODERS.find(case.peer_encoder).make(
                shape[2], case.window, case.channels
            )

        def forward(self, seen: Tensor) -> Tensor:
            width = shape[0] * shape[1] * shape[2]
            windows = seen[:, :width].view(-1, *shape).permute(1, 0, 2, 3).flatten(1, 2)
            encoded = torch.tanh(self.encoder(windows))[0].view(len(seen), -1)
            return torch.cat([encoded, seen[:, width:]], -1)

    env = SB3VecEnv(
        case.peer_envs,
        tape,
        action="logits",
        observation="window",
        window_length=case.window,
        window_columns=tape.feature_names,
        episode={"staggered": True},
    )
    steps = case.rollout_steps
    model = PPO(
        "MlpPolicy",
        env,
        n_steps=steps,
        batch_size=case.peer_batch,
        n_epochs=case.epochs,
        policy_kwargs={
            "features_extractor_class": Extractor,
            "net_arch": [case.hidden],
        },
        device=case.device,
    )
    frames = steps * case.peer_envs

    def round_of_training() -> float:
        def learn() -> None:
            model.learn(frames, reset_num_timesteps=False)

        clock = time.process_time if case.device == "cpu" else time.perf_counter
        return frames / seconds_of(learn, case.device, clock)

    round_of_training()
    return round_of_training


def main() -> None:
    """Measure and write."""
    with one_line_errors("benchmark_encoders", Benchmark):
        case = read_options(Benchmark)
        tape = market(market_bars(case.bars, case.num_assets), case.device)
        rows = [measure(case, tape, encoder) for encoder in case.encoders]
        if case.peer:
            rows.append(measure_peer(case, tape))
    write(rows, case.json)


if __name__ == "__main__":
    main()
