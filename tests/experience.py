"""What a policy met, and twins that learn from it: for whoever is held to autograd."""

from __future__ import annotations

import copy

import torch
from hypothesis import strategies as st
from torch import nn
from worlds import SHORT_FEATURES, random_bars

from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.randomize import RandomizeConfig
from fastsim.learn.ppo.config import PPOConfig
from fastsim.learn.ppo.update import make_batch, make_optimizer
from fastsim.learn.rollout import begin_policy, begin_rollout, collect, empty_rollout
from fastsim.market.tape import TapeConfig, make_tape
from fastsim.policy.spec import PolicyConfig


def experience(assets=3, *, hidden=8, num_envs=6, steps=9, drawn=False, settings=None, seed=0):
    """A policy, its table, and a batch of what it met, restarts and all."""
    settings = settings or PPOConfig()
    tape = make_tape(random_bars(70, assets), TapeConfig(features=SHORT_FEATURES))
    randomize = RandomizeConfig(assets=(1, assets), volatility=(0.5, 2.0))
    rules = EnvConfig(
        action="logits",
        episode=EpisodeConfig(horizon=5, staggered=True),
        randomize=randomize if drawn else RandomizeConfig(),
    )
    env = PortfolioEnv(tape, num_envs, rules, backend="torch")
    policy = begin_policy(env, PolicyConfig(hidden=hidden), seed)
    rollout = empty_rollout(env, steps)
    begin_rollout(rollout, env.reset(seed))
    table = policy.standardize(tape)
    collect(env, policy, table, rollout, torch.Generator().manual_seed(seed))
    batch = make_batch(rollout, 30.0 * rollout.reward, settings)
    policy.portfolio_moments.update(batch.portfolio, batch.valid)  # not those of the rollout
    return policy, table, batch


def twins(policy, settings):
    """The policy and a copy, each with its optimiser."""
    other = copy.deepcopy(policy)
    return (policy, make_optimizer(policy, settings)), (other, make_optimizer(other, settings))


def assert_alike(ours, theirs, *, tolerance=2e-4):
    """Every parameter and moment, relative to the largest of its kind."""
    for (name, one), other in zip(ours[0].named_parameters(), theirs[0].parameters(), strict=True):
        for key in ("exp_avg", "exp_avg_sq"):
            mine, law = ours[1].state[one][key], theirs[1].state[other][key]
            scale = float(law.abs().max())
            torch.testing.assert_close(mine, law, rtol=tolerance, atol=tolerance * scale + 1e-12)
        # Adam turns a gradient that is hardly more than its rounding into a whole step.
        sure = theirs[1].state[other]["exp_avg_sq"].sqrt() > 1e-5
        torch.testing.assert_close(one[sure], other[sure], rtol=1e-4, atol=2e-5, msg=name)
        assert ours[1].state[one]["step"] == theirs[1].state[other]["step"]


def follow(policy, optimizer, leader):
    """Let these be what the leader's are."""
    policy.load_state_dict(leader[0].state_dict())
    optimizer.load_state_dict(copy.deepcopy(leader[1].state_dict()))


def maybe(values):
    return st.none() | values


settings_drawn = st.builds(
    PPOConfig,
    epochs=st.integers(1, 2),
    minibatches=st.integers(1, 5),
    learning_rate=st.floats(1e-4, 1e-2),
    clip=st.floats(0.01, 0.5),
    value_clip=maybe(st.floats(0.01, 0.5)),
    value_weight=st.sampled_from([0.0, 0.5, 2.0]),
    entropy_weight=st.sampled_from([0.0, 0.01, 1.0]),
    max_grad_norm=st.sampled_from([1e-3, 0.5, 1e6]),
    target_kl=maybe(st.floats(1e-4, 0.1)),
    schedule=st.sampled_from(["constant", "linear", "cosine"]),
)


class Deep(nn.Module):
    """An encoder of bars that is not ours: wider, of another width, and partly frozen."""

    def __init__(self, features, width):
        super().__init__()
        self.first, self.last = nn.Linear(features, 11), nn.Linear(11, width)
        self.scale = nn.Parameter(torch.ones(()))
        self.first.bias.requires_grad_(False)

    def forward(self, rows):
        return self.scale * torch.nn.functional.gelu(self.last(torch.relu(self.first(rows))))


def with_encoder(policy, kind):
    """The policy with another encoder of bars."""
    features, width = policy.market_encoder[0].in_features, 13
    torch.manual_seed(2)
    if kind == "identity":
        policy.market_encoder, width = nn.Identity(), features
    elif kind == "deep":
        policy.market_encoder = Deep(features, width)
    else:
        policy.market_encoder = nn.Sequential(nn.Linear(features, width), nn.Tanh()).eval()
        policy.market_encoder[1].register_forward_hook(lambda _, __, out: 2.0 * out)
    policy.market_hidden = nn.Linear(width, policy.market_hidden.out_features)
    return policy
