"""Compile a minibatch's kernels for a GPU that need not be there; tests interpret them."""

from types import SimpleNamespace

import torch
import triton
from experience import experience
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from fastsim.learn.ppo.config import PPOConfig
from fastsim.learn.ppo.on_device import OnDevice
from fastsim.learn.ppo.update import empty_tally, make_optimizer

HOPPER = SimpleNamespace(
    get_current_target=lambda: GPUTarget("cuda", 90, 32),
    get_current_device=lambda: 0,
    get_current_stream=lambda device: 0,
)
KNOWN = {"steps": 20, "num_envs": 8}  # more samples than bars
CASES = (
    (KNOWN | {"hidden": 256, "assets": 30}, PPOConfig(minibatches=1)),
    (KNOWN, PPOConfig(minibatches=4, value_clip=0.1, target_kl=None)),
)
compiled = set()


def only_compile(run):
    """In place of a launch."""

    def compile_for(kernel, *arguments, grid, warmup, **named):
        code = run(kernel, *arguments, grid=grid, warmup=True, **named)
        assert code.asm["cubin"], kernel
        compiled.add(code.name)

    return compile_for


if __name__ == "__main__":
    triton.runtime.driver.set_active(HOPPER)
    JITFunction.run = only_compile(JITFunction.run)
    for sizes, settings in CASES:
        policy, table, batch = experience(settings=settings, **sizes)
        optimizer = make_optimizer(policy, settings)
        hand = OnDevice(policy, optimizer, table, batch, settings, own_encoder=True)
        hand.begin()
        rows = torch.arange(len(batch.bar) // settings.minibatches)
        hand.learn(rows, empty_tally(torch.device("cpu")))
    print(*sorted(compiled))
