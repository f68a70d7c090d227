"""A policy as a file of its own decides as the policy does, in torch, ONNX Runtime and C++."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from worlds import SHORT_FEATURES, random_bars

from fastsim.agent import export
from fastsim.agent.export import export_policy
from fastsim.cli import main
from fastsim.env.actions import ACTIONS
from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.observe import flat_observation
from fastsim.env.orders import OrderConfig
from fastsim.env.randomize import RandomizeConfig
from fastsim.errors import ConfigError, ForecastError
from fastsim.market.tape import TapeConfig, make_tape
from fastsim.policy.flat import FlatPolicy
from fastsim.policy.make import new_policy
from fastsim.policy.spec import PolicyConfig, make_spec

EXAMPLES = Path(__file__).parents[2] / "examples"
TAPE = make_tape(random_bars(), config=TapeConfig(features=SHORT_FEATURES))
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
SHORT = EpisodeConfig(horizon=20)
RULES = {
    "logits": EnvConfig(action="logits", episode=SHORT),
    "weights": EnvConfig(action="weights", episode=SHORT),
    "signed": EnvConfig(action="signed", max_gross=1.5, episode=SHORT),
    "pooled": EnvConfig(action="logits", randomize=RandomizeConfig(assets=(1, 4)), episode=SHORT),
}


def policy_for(rules):
    spec = make_spec(TAPE, rules, PolicyConfig(hidden=16))
    policy = new_policy(spec, TAPE, seed=3)
    generator = torch.Generator().manual_seed(0)
    for weights in policy.parameters():  # actions far from 0, as after training
        weights.data += 0.3 * torch.randn(weights.shape, generator=generator)
    policy.portfolio_moments.update(torch.rand(50, len(spec.portfolio), generator=generator))
    return policy


def observations(rules):
    env = PortfolioEnv(TAPE, 16, rules, backend="torch")
    seen = env.reset(0)
    for _ in range(3):
        seen = env.step(torch.rand(16, env.action_width)).observation
    return seen, flat_observation(TAPE, seen)


@pytest.mark.parametrize("name", ["logits", "weights", "signed"])
@pytest.mark.parametrize("format", ["torchscript", "onnx"])
def test_a_file_says_what_the_policy_says(tmp_path, name, format):
    rules = RULES[name]
    policy, path = policy_for(rules), tmp_path / "policy"
    assert export_policy(policy, path, format=format) <= 1e-6
    seen, flat = observations(rules)
    mode = ACTIONS.find(rules.action)
    wanted = mode.weights(policy.act(TAPE, seen), rules.max_gross, None)
    if format == "torchscript":
        found = torch.jit.load(path)(flat)
    else:
        onnxruntime = pytest.importorskip("onnxruntime")
        session = onnxruntime.InferenceSession(path.read_bytes())
        (given,) = session.get_inputs()
        found = torch.from_numpy(session.run(None, {given.name: flat.numpy()})[0])
    torch.testing.assert_close(found, wanted, rtol=0.0, atol=1e-6)
    assert float(wanted.std()) > 0.01


def test_pooled_moments_go_with_it(tmp_path):
    assert export_policy(policy_for(RULES["pooled"]), tmp_path / "policy.pt") <= 1e-6


def test_what_disagrees_is_not_written(tmp_path, monkeypatch):
    policy = policy_for(RULES["logits"])
    monkeypatch.setattr(export, "_bounded", lambda values: values)
    with pytest.raises(ForecastError, match="weights of the torchscript file are off by"):
        export_policy(policy, tmp_path / "policy.pt")
    assert not list(tmp_path.iterdir())

    class Mine(FlatPolicy):
        pass

    with pytest.raises(ConfigError, match="a Mine cannot be exported"):
        export_policy(Mine(policy.spec), tmp_path / "policy.pt")


def test_the_example_needs_torch_alone(tmp_path):
    policy, path = policy_for(RULES["logits"]), tmp_path / "policy.pt"
    export_policy(policy, path)
    code = (EXAMPLES / "decide_with_torch.py").read_text()
    assert "fastsim import" not in code and "import fastsim" not in code
    command = [sys.executable, str(EXAMPLES / "decide_with_torch.py"), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    told = json.loads(done.stdout.replace("'", '"'))
    assert tuple(told) == policy.spec.symbols
    spec = policy.spec
    nothing = torch.zeros(1, len(spec.symbols) * len(spec.features) + len(spec.portfolio))
    wanted = torch.jit.load(path)(nothing)[0]
    torch.testing.assert_close(torch.tensor(list(told.values())), wanted)


@pytest.mark.long
@pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler")
def test_libtorch_says_the_same(tmp_path):
    policy, path = policy_for(RULES["logits"]), tmp_path / "policy.pt"
    export_policy(policy, path)
    forecaster = tmp_path / "prior.pt"
    main(["export", "fastsim-prior", "--precision", "float32", "--out", str(forecaster)])
    place = Path(torch.__file__).parent
    library = place / "lib"
    headers = [place / "include", place / "include" / "torch" / "csrc" / "api" / "include"]
    program, source = tmp_path / "decide", EXAMPLES / "policy_cpp" / "main.cpp"
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"
    compile = ["g++", "-std=c++20", "-O0", abi, *(f"-I{folder}" for folder in headers)]
    link = [f"-L{library}", "-ltorch", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{library}"]
    subprocess.run([*compile, str(source), *link, "-o", str(program)], check=True)
    _, flat = observations(RULES["logits"])
    numbers = " ".join(f"{value:.9g}" for value in flat[5].tolist())
    done = subprocess.run(
        [str(program), str(path), str(flat.shape[1]), str(forecaster)],
        input=numbers,
        capture_output=True,
        text=True,
        check=True,
    )
    told = [float(line) for line in done.stdout.split()]
    wanted = torch.jit.load(path)(flat[5:6])[0]
    torch.testing.assert_close(torch.tensor(told[:-1]), wanted, rtol=0.0, atol=1e-6)
    closes = torch.full((1, 512), 100.0)
    assert told[-1] == pytest.approx(
        float(torch.jit.load(forecaster)(closes).flatten()[0]), rel=1e-6
    )


def test_a_policy_that_asks_for_distances_is_not_written(tmp_path):
    orders = OrderConfig(stop=0.05, target=0.1)
    policy = policy_for(EnvConfig(action="bracketed", orders=orders, episode=SHORT))
    with pytest.raises(ConfigError, match=r"bracketed. asks for distances .* weights alone"):
        export_policy(policy, tmp_path / "policy")
    assert not (tmp_path / "policy").exists()
