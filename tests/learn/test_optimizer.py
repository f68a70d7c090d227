"""Adam as it is used here is PyTorch's, but for what it imports."""

import subprocess
import sys

import torch
from torch import nn
from worlds import SHORT_FEATURES, random_bars

from fastsim.env.config import EnvConfig
from fastsim.learn.optimizer import Adam, adam, descend
from fastsim.learn.ppo.config import PPOConfig
from fastsim.learn.ppo.update import make_optimizer
from fastsim.market.tape import TapeConfig, make_tape
from fastsim.policy.make import new_policy
from fastsim.policy.spec import PolicyConfig, make_spec


def test_its_steps_and_what_it_saves_are_those_of_pytorch():
    ours, theirs = (nn.Linear(3, 2) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    one = adam(ours.parameters(), 1e-2)
    given = {"lr": torch.tensor(1e-2), "eps": 1e-5, "fused": True, "capturable": False}
    other = torch.optim.Adam(theirs.parameters(), **given)
    seen = torch.randn(5, 3)
    for _ in range(3):
        descend(one, ours(seen).square().sum())
        other.zero_grad()
        theirs(seen).square().sum().backward()
        other.step()
    for mine, his in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, his)
    assert str(one.state_dict()) == str(other.state_dict())
    other.load_state_dict(one.state_dict())
    one.load_state_dict(other.state_dict())
    assert isinstance(one, Adam)


def test_moments_begin_as_a_step_that_is_skipped_leaves_them():
    tape = make_tape(random_bars(40, 2), TapeConfig(features=SHORT_FEATURES))
    policy = new_policy(make_spec(tape, EnvConfig(), PolicyConfig(hidden=4)), tape, seed=0)
    begun = make_optimizer(policy, PPOConfig())
    stepped = adam(policy.parameters(), PPOConfig().learning_rate)
    stepped.found_inf = torch.ones(())
    stepped.step()
    assert str(begun.state_dict()) == str(stepped.state_dict())


def test_a_run_does_not_import_the_compiler_of_pytorch(tmp_path):
    code = (
        "import sys\n"
        "from fastsim.cli import main\n"
        "main(sys.argv[1:])\n"
        "assert 'torch._dynamo' not in sys.modules, 'imported'\n"
    )
    options = [
        "--forecaster",
        "none",
        "--data.source",
        "tech4",
        "--total-steps",
        "512",
        "--num-envs",
        "16",
    ]
    done = subprocess.run(
        [sys.executable, "-c", code, "train", *options, "--name", "short"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
