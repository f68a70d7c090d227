"""Actions: what an agent says becomes admissible weights, and no more is changed than must be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from worlds import SHORT_FEATURES, random_bars, tensors, weights_of

from fastsim.env import actions
from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.errors import ConfigError
from fastsim.market.tape import TapeConfig, make_tape


def target_weights(action, mode, max_gross):
    return actions.target_weights(action, actions.ACTIONS[mode], max_gross)


TINY = 1e-12
shapes = st.tuples(st.integers(1, 4), st.integers(1, 6))


@given(shapes.flatmap(lambda shape: weights_of(shape, signed=False)))
def test_admissible_long_only_weights_are_not_changed(weights):
    # Scaled by a hair, because a sum that rounds to just above one is brought to one.
    weights = weights * (1 - 1e-15)
    target, hold = target_weights(weights, "weights", 1.0)
    assert torch.equal(target, weights) and not hold.any()


@given(shapes.flatmap(lambda shape: weights_of(shape, gross=2.0)))
def test_admissible_signed_weights_are_not_changed(weights):
    weights = weights * (1 - 1e-15)
    target, hold = target_weights(weights, "signed", 2.0)
    assert torch.equal(target, weights) and not hold.any()


@given(shapes.flatmap(lambda shape: tensors(shape, -3, 3)))
def test_long_only_weights_are_never_negative_and_sum_to_at_most_one(action):
    target, _ = target_weights(action, "weights", 1.0)
    assert (target >= 0).all() and (target.sum(-1) <= 1 + TINY).all()
    assert not target[action <= 0].any()
    # Asking for too much is asking for everything, in the same proportions.
    wanted = action.clamp_min(0.0)
    greedy = wanted.sum(-1) > 1
    share = wanted / wanted.sum(-1, keepdim=True)
    torch.testing.assert_close(target[greedy], share[greedy], rtol=TINY, atol=TINY)


@pytest.mark.parametrize("gross", [0.5, 1.0, 2.0, 4.0])
@given(action=shapes.flatmap(lambda shape: tensors(shape, -3, 3)))
def test_signed_weights_keep_gross_and_net_within_bounds_and_their_ratios(gross, action):
    target, _ = target_weights(action, "signed", gross)
    assert (target.abs().sum(-1) <= gross + TINY).all()
    assert (target.sum(-1) <= 1 + TINY).all()
    scale = (target * action).sum(-1) / (action * action).sum(-1).clamp_min(1e-30)
    torch.testing.assert_close(target, scale[:, None] * action, rtol=1e-9, atol=TINY)
    # What is scaled down touches one of the two bounds.
    shrunk = scale < 1 - 1e-9
    shrunk &= action.any(-1)
    touches = torch.maximum(target.abs().sum(-1) / gross, target.sum(-1))
    torch.testing.assert_close(touches[shrunk], torch.ones_like(touches[shrunk]))


@given(shapes.flatmap(lambda shape: tensors((shape[0], shape[1] + 1), -30, 30)))
def test_logits_are_a_softmax_over_the_assets_and_cash(action):
    target, hold = target_weights(action, "logits", 1.0)
    exponents = np.exp(action.numpy())
    expected = exponents / exponents.sum(-1, keepdims=True)
    np.testing.assert_allclose(target, expected[:, :-1], rtol=1e-12)
    assert not hold.any()


@given(tensors((3, 4), -5, 5), st.sampled_from([-100.0, 3.0]), st.sampled_from(["logits"]))
def test_adding_the_same_to_all_logits_changes_nothing(action, shift, mode):
    torch.testing.assert_close(
        target_weights(action, mode, 1.0), target_weights(action + shift, mode, 1.0)
    )


@pytest.mark.parametrize("mode", ["weights", "signed", "logits"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_row_that_is_not_finite_holds_and_leaves_the_others_alone(mode, bad):
    action = torch.tensor([[0.2, 0.3, 0.1], [0.2, bad, 0.1], [0.5, 0.0, 0.2]])
    target, hold = target_weights(action, mode, 1.0)
    assert hold.tolist() == [False, True, False]
    assert target.isfinite().all()
    kept, _ = target_weights(action[[0, 2]], mode, 1.0)
    assert torch.equal(target[[0, 2]], kept)


@pytest.mark.parametrize("mode", ["weights", "signed", "logits"])
def test_gradients_of_a_holding_row_are_zero_and_of_the_others_finite(mode):
    action = torch.tensor([[0.2, 0.3, 0.1], [0.2, torch.nan, 0.1]], requires_grad=True)
    target, _ = target_weights(action, mode, 1.0)
    (gradient,) = torch.autograd.grad(target[:, 0].sum(), action)
    assert gradient.isfinite().all() and not gradient[1].any() and gradient[0].any()


def test_leverage_needs_signed_weights():
    with pytest.raises(ConfigError, match=r"max_gross = 2.0 needs action=\"signed\""):
        EnvConfig(max_gross=2.0)
    assert EnvConfig(action="signed", max_gross=2.0).max_gross == 2.0


@pytest.mark.parametrize("backend", ["torch", "numba", "triton"])
@pytest.mark.parametrize("players", [1, 2])
@pytest.mark.parametrize("masked", [-200.0, -1e6, -3e38])
@pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter")
def test_of_assets_whose_logits_are_far_below_the_others_nothing_is_held(backend, players, masked):
    if backend == "triton":
        pytest.importorskip("triton", reason="triton is for Linux")
    tape = make_tape(random_bars(40, 5), TapeConfig(features=SHORT_FEATURES))
    rules = EnvConfig(action="logits", players=players, episode=EpisodeConfig(horizon=5))
    env = PortfolioEnv(tape, 2, rules, backend=backend)
    env.reset(0)
    action = torch.full((2, 6), masked)
    action[:, 1], action[:, 3] = 0.0, 1.0
    env.step(action)
    held = env.stepper.state.portfolio.holdings
    assert (held[:, [0, 2, 4]] == 0).all()
    assert (held[:, [1, 3]] > 0).all()


def test_distances_follow_the_weights_of_bracketed_actions():
    mode = actions.ACTIONS["bracketed"]
    said = torch.tensor([[0.5, -2.0, 0.125, torch.nan, -3.0, torch.inf]]).double()
    weights, hold = actions.target_weights(said, mode, 2.0)
    assert not hold.any() and weights.tolist() == [[0.4, -1.6]]
    stop, target = actions.asked_distances(said, mode)
    assert stop.tolist() == [[0.125, 0.0]] and target.tolist() == [[0.0, actions.LARGEST]]
    said[0, 1] = torch.nan
    assert actions.target_weights(said, mode, 2.0)[1].tolist() == [True]
    assert actions.asked_distances(said[:, :2], actions.ACTIONS["signed"]) is None
    asked = actions.actions_for(torch.tensor([[0.3, 0.2]]), "bracketed")
    assert asked.tolist() == [pytest.approx([0.3, 0.2, 0.0, 0.0, 0.0, 0.0])]
