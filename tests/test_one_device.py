"""What is done on a device stays there: no tensor of a step or an update is the host's.

The device is "meta", which every PyTorch has; tensors there hold no values, so that reading one is
an error. Where PyTorch is built for CUDA, fake tensors of its second GPU go the same way.
"""

from contextlib import contextmanager, nullcontext
from dataclasses import replace

import pytest
import torch
from planted import RULES, planted_tape
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from worlds import SHORT_FEATURES, random_bars

from fastsim.env.config import EnvConfig
from fastsim.env.decide import Seat
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.impact import ImpactConfig
from fastsim.env.orders import OrderConfig
from fastsim.env.players import SCRIPTED
from fastsim.env.randomize import RandomizeConfig
from fastsim.env.reward import REWARDS, RewardConfig
from fastsim.learn.advantage import gae
from fastsim.learn.figures import Episodes, rollout_figures, units_of
from fastsim.learn.ppo.config import PPOConfig
from fastsim.learn.ppo.update import make_batch, ppo_losses
from fastsim.learn.reward_scale import RewardScale
from fastsim.learn.rollout import begin_policy, begin_rollout, collect, empty_rollout
from fastsim.market.tape import MarketTape, TapeConfig, make_tape
from fastsim.policy.spec import PolicyConfig

WITH_CUDA = pytest.mark.skipif(
    not torch.backends.cuda.is_built(), reason="this PyTorch is not built for CUDA"
)
DEVICES = ["meta", pytest.param("cuda:1", marks=WITH_CUDA)]
EPISODE = EpisodeConfig(horizon=5, staggered=True)
SHARED = {"players": 2, "impact": ImpactConfig(transient=1.0, permanent=0.1)}
DRAWN = RandomizeConfig(assets=(1, 2), volatility=(0.5, 2.0))
ORDERS = OrderConfig(unfilled="carry", maintenance_margin=0.25)
STEPS = {
    "weights": EnvConfig(),
    "signed": EnvConfig(action="signed", max_gross=1.5),
    "logits": EnvConfig(action="logits", observation="index"),
    "same step": EnvConfig(autoreset="same_step"),
    "shared": EnvConfig(**SHARED),
    "drawn": EnvConfig(randomize=DRAWN),
    "orders": EnvConfig(action="signed", orders=ORDERS),
    "invested": EnvConfig(initial_invested=0.5),
    **{kind: EnvConfig(reward=RewardConfig(kind=kind)) for kind in REWARDS},
}


class OneDevice(TorchDispatchMode):
    """Every tensor that is made or met lies on this device."""

    def __init__(self, device):
        super().__init__()
        self.device = torch.device(device)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, kwargs, result)):
            if isinstance(tensor, torch.Tensor):
                assert tensor.device == self.device, f"{function} on {tensor.device}"
        return result


@contextmanager
def existing(device):
    """Tensors can be made on this device, whether it is there or not."""
    mode = nullcontext()
    if torch.device(device).type == "cuda":
        mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode, pytest.MonkeyPatch.context() as patch:
        patch.setattr(MarketTape, "has_volume", True)  # it looks, once, while things are made
        yield


def history():
    return make_tape(random_bars(40, 3), TapeConfig(features=SHORT_FEATURES))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", STEPS)
def test_a_step_makes_nothing_on_the_host(name, device):
    tape = history()
    with existing(device):
        env = PortfolioEnv(tape.to(device), 4, replace(STEPS[name], episode=EPISODE))
        assert env.stepper.name == "torch"
        env.reset(0)
        action = torch.zeros(4, env.action_width, device=device)
        with OneDevice(device):
            for _ in range(2):
                transition = env.step(action)
                env.columns(transition.observation)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", SCRIPTED)
def test_scripted_players_decide_where_the_market_lies(name, device):
    tape = history()
    with existing(device):
        env = PortfolioEnv(tape.to(device), 4, EnvConfig(episode=EPISODE, **SHARED))
        seen, seat = env.reset(0), Seat(SCRIPTED[name], env.tape, env.config, rows=4)
        with OneDevice(device):
            seat(seen)


@pytest.mark.parametrize("device", DEVICES)
def test_learning_stays_where_the_market_lies(device, monkeypatch):
    monkeypatch.setattr("fastsim.learn.ppo.update.fused_gae", gae)  # kernels need real memory
    monkeypatch.setattr("fastsim.learn.ppo.update.matmul_precision", lambda *_: nullcontext())
    tape, _ = planted_tape(revealing=True, bars=100)
    config, generator = PPOConfig(), torch.Generator()
    with existing(device):
        env = PortfolioEnv(tape.to(device), 4, RULES)
        policy = begin_policy(env, PolicyConfig(hidden=8), seed=0)
        table, rollout = policy.standardize(env.tape), empty_rollout(env, 3)
        begin_rollout(rollout, env.reset(0))
        scale, episodes = (kind(4, env.tape.device) for kind in (RewardScale, Episodes))
        units = units_of(env)
        with OneDevice(device):
            collect(env, policy, table, rollout, generator)
            batch = make_batch(rollout, scale.update(rollout, config.discount), config)
            losses = ppo_losses(policy, table, batch, config)
            (losses.policy + losses.value).backward()
            rollout_figures(rollout, units)
            episodes.update(rollout)
            policy.restandardize(table, torch.zeros(1, dtype=torch.int64, device=device))
