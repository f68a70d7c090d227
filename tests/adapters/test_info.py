"""Every adapter tells the same of a step, under the same keys, and it is what happened."""

import copy
import json
import pickle
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from worlds import SHORT_FEATURES, random_bars

import fastsim
from fastsim.adapters.gym_env import PortfolioGymEnv, PortfolioVectorEnv
from fastsim.data.bars import OPEN
from fastsim.env.info import Info, RowInfos, Source, executed_weights, table, told_names
from fastsim.env.slots import to_assets
from fastsim.errors import FastsimError
from fastsim.market.costs import COSTS, Cost, CostConfig, costs_of
from fastsim.market.tape import TapeConfig, make_tape
from fastsim.synthetic.fresh import FreshWorlds
from fastsim.synthetic.garch import Garch

BARS = random_bars(60, 3, seed=1)
TAPE = make_tape(BARS, TapeConfig(features=SHORT_FEATURES, risk_free_rate=0.03))
RULES = {"episode": {"horizon": 6}}
NAMES = told_names(["commission", "spread", "impact"])
WEIGHTS = np.array([0.2, 0.3, 0.4], dtype=np.float32)
PAGE = Path(__file__).parents[2] / "docs" / "info.md"
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter")


def test_the_table_in_the_documentation_is_made_from_the_record():
    shown = PAGE.read_text().split("<!-- info -->\n")[1].split("\n<!-- end -->")[0]
    assert shown == table(), "python -m fastsim.env.info"
    for name in NAMES:
        assert f"`{name}`" in shown


def infos_of_adapters(backend="auto"):
    """The info after a reset and after a step of each adapter, of the row of one account."""
    single = PortfolioGymEnv(TAPE, **RULES, backend=backend)
    yield "gym", single.reset(seed=3)[1], single.step(WEIGHTS)[4]
    batch = PortfolioVectorEnv(1, TAPE, **RULES, backend=backend)
    yield "vector", batch.reset(seed=3)[1], batch.step(torch.from_numpy(WEIGHTS)[None])[4]
    sb3 = pytest.importorskip("fastsim.adapters.sb3").SB3VecEnv(1, TAPE, **RULES, backend=backend)
    sb3.seed(3)
    sb3.reset()
    yield "sb3", sb3.reset_infos[0], sb3.step(WEIGHTS[None])[3][0]
    zoo = pytest.importorskip("fastsim.adapters.pettingzoo").SharedMarketParallelEnv(
        1, TAPE, **RULES, impact={}, backend=backend
    )
    yield "zoo", zoo.reset(seed=3)[1]["player_0"], zoo.step({"player_0": WEIGHTS})[4]["player_0"]


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_all_adapters_tell_the_same_under_the_same_keys(backend):
    (_, begun, stepped), *others = infos_of_adapters(backend)
    assert tuple(begun) == tuple(stepped) == NAMES
    for adapter, at_start, after in others:
        if adapter == "sb3":  # its first episodes may be others
            assert set(after) >= set(NAMES) and set(at_start) == set(NAMES)
        for name in NAMES:
            for mine, theirs in ((at_start, begun), (after, stepped)):
                np.testing.assert_allclose(
                    np.asarray(mine[name]).ravel(), np.ravel(theirs[name]), rtol=1e-6, err_msg=name
                )


@pytest.mark.parametrize("backend", ["torch", "numba", "triton"])
def test_what_is_told_is_what_happened(backend):
    if backend == "triton":
        pytest.importorskip("triton", reason="triton is for Linux")
    tape = make_tape(BARS, TapeConfig(features=SHORT_FEATURES), dtype=torch.float64)
    costs = {"participation": 1e9}
    env = PortfolioVectorEnv(2, tape, **RULES, costs=costs, backend=backend)
    _, begun = env.reset(seed=0, options={"start": [20, 25]})
    assert begun["bar"].tolist() == [20, 25] and begun["wealth"].tolist() == [1e6] * 2
    assert begun["weights"].tolist() == [[0.0] * 3] * 2 and begun["cost"].tolist() == [0.0] * 2
    wanted = torch.tensor([[0.2, 0.3, 0.4], [0.0, 1.0, 0.0]], dtype=torch.float64)
    info = env.step(wanted)[4]
    assert info["bar"].tolist() == [21, 26] and info["bar"].dtype == torch.int64
    dates = env.timestamps[info["bar"]]
    assert info["date"].numpy().astype("datetime64[ns]").tolist() == dates.tolist()
    torch.testing.assert_close(info["weights"], wanted, rtol=1e-12, atol=1e-12)
    parts = info["commission"] + info["spread"] + info["impact"]
    torch.testing.assert_close(info["cost"], parts)
    opens, closes = (tape.known.bars[info["bar"], :, column] for column in (OPEN, 3))
    gain = (info["weights"] * (closes / opens - 1.0)).sum(-1)
    torch.testing.assert_close(info["wealth"], (1e6 - parts) * (1.0 + gain), rtol=1e-9, atol=0)
    torch.testing.assert_close(info["unfilled"], torch.zeros(2).double())


@pytest.mark.parametrize("backend", ["torch", "numba", "triton"])
def test_what_participation_leaves_unfilled_is_told(backend):
    if backend == "triton":
        pytest.importorskip("triton", reason="triton is for Linux")
    tape = make_tape(BARS, TapeConfig(features=SHORT_FEATURES), dtype=torch.float64)
    env = PortfolioVectorEnv(
        1, tape, **RULES, backend=backend, initial_cash=1e8, costs={"participation": 0.05}
    )
    env.reset(seed=0, options={"start": 20})
    wanted = torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64)
    info = env.step(wanted)[4]
    limit = 0.05 * tape.next["dollars"][20]
    assert (limit[:2] < 4e7).all()
    after = 1e8 - float(info["cost"])
    torch.testing.assert_close(info["weights"][0, :2], limit[:2] / after, rtol=1e-9, atol=0)
    assert float(info["unfilled"]) == pytest.approx(after - float(limit[:2].sum()), rel=1e-9)
    assert float(info["turnover"]) == pytest.approx(float(limit[:2].sum()) / 1e8, rel=1e-9)
    nothing = env.step(torch.full((1, 3), torch.nan, dtype=torch.float64))[4]
    assert float(nothing["unfilled"]) == 0 and int(nothing["invalid_actions"]) == 1


@pytest.mark.parametrize("backend", ["torch", "numba", "triton"])
@pytest.mark.parametrize("autoreset", ["next_step", "same_step"])
def test_an_end_is_told_at_its_close_and_a_restart_as_nothing(backend, autoreset):
    if backend == "triton":
        pytest.importorskip("triton", reason="triton is for Linux")
    env = PortfolioVectorEnv(2, TAPE, **RULES, autoreset=autoreset, backend=backend)
    env.reset(seed=0, options={"start": 20})
    action = torch.tensor([[0.2, 0.3, 0.4]] * 2)
    for step in range(1, 7):
        info = env.step(action)[4]
        assert info["bar"].tolist() == [20 + step] * 2
        torch.testing.assert_close(info["weights"], action, rtol=1e-5, atol=1e-5)
    if autoreset == "next_step":
        info = env.step(action)[4]
        for name in ("turnover", "cost", "unfilled", "commission", "interest", "borrow"):
            assert info[name].tolist() == [0.0, 0.0], name
        assert (info["weights"] == 0).all() and info["wealth"].tolist() == [1e6, 1e6]


def test_an_info_stays_that_of_its_step_and_is_a_dictionary_in_all_it_does():
    env = PortfolioVectorEnv(2, TAPE, **RULES, backend="numba")
    env.reset(seed=0)
    action = torch.tensor([[0.2, 0.3, 0.4], [0.1, 0.0, 0.0]])
    early = env.step(action)[4]
    other = PortfolioVectorEnv(2, TAPE, **RULES, backend="torch")
    other.reset(seed=0)
    expected = dict(other.step(action)[4])
    for _ in range(3):
        env.step(1.0 - action)
    for name, value in expected.items():
        torch.testing.assert_close(early[name], value, rtol=1e-5, atol=1e-2)
    copies = early.copy(), {**early}, dict(early), {} | early, dict(early.items())
    for same in (*copies, pickle.loads(pickle.dumps(early)), copy.deepcopy(early)):
        assert list(same) == list(NAMES) and len(same) == len(NAMES)
        assert torch.equal(same["wealth"], early["wealth"])


def test_a_deep_copy_of_a_rows_info_is_worked_out_when_it_is_looked_at_and_is_its_own():
    asked = []

    def work_out(name):
        asked.append(name)
        return np.array([[1.0, 2.0]]) if name == "weights" else np.array([3.0])

    info = Info(Source(("wealth", "weights"), work_out), 0)
    info["mine"] = [1]
    same = copy.deepcopy(info)
    assert asked == []
    same["weights"][0] = 9.0
    same["mine"].append(2)
    assert info["weights"].tolist() == [1.0, 2.0] and info["mine"] == [1]
    assert dict(same) == {"wealth": 3.0, "weights": same["weights"], "mine": [1, 2]}


def one_info():
    source = Source(("a", "b"), lambda name: np.array([{"a": 1.5, "b": 2.5}[name]]))
    return Info(source, 0)


@pytest.mark.parametrize(
    ("act", "left"),
    [
        (lambda info: info.pop("a"), {"b": 2.5}),
        (lambda info: info.popitem(), {"a": 1.5}),
        (lambda info: info.__delitem__("b"), {"a": 1.5}),
        (lambda info: info.update(c=3), {"a": 1.5, "b": 2.5, "c": 3}),
        (lambda info: info.setdefault("a", 9), {"a": 1.5, "b": 2.5}),
        (lambda info: info.setdefault("d", 9), {"a": 1.5, "b": 2.5, "d": 9}),
        (lambda info: info.__setitem__("a", 7), {"a": 7, "b": 2.5}),
        (lambda info: info.get("z"), {"a": 1.5, "b": 2.5}),
        (lambda info: info.clear(), {}),
    ],
)
def test_what_is_changed_in_an_info_stays_changed(act, left):
    info = one_info()
    act(info)
    assert info == left and dict(info) == left and info | {} == left and {} | info == left
    assert json.loads(json.dumps(info)) == left


def test_what_is_not_told_is_no_key():
    info = one_info()
    assert "z" not in info and info.get("z", 4) == 4 and "a" in info and info.get("a") == 1.5
    with pytest.raises(KeyError, match="z"):
        info["z"]
    rows = RowInfos(Source((), lambda name: name), 3)
    assert len(list(rows)) == 3 and len(rows[1:]) == 2
    with pytest.raises(IndexError):
        rows[3]


def test_nothing_is_worked_out_before_it_is_looked_at(monkeypatch):
    env = PortfolioVectorEnv(2, TAPE, **RULES, backend="numba")
    env.reset(seed=0)
    with monkeypatch.context() as patch:
        patch.setattr("fastsim.env.info.executed_weights", lambda *_: pytest.fail("worked out"))
        info = env.step(torch.zeros(2, 3))[4]
        assert info["wealth"].shape == (2,)
    assert info["weights"].shape == (2, 3)


def test_a_cost_of_ones_own_is_told_by_its_name():
    env = PortfolioGymEnv(TAPE, **RULES, costs={"also": ("strangers:STAMP_DUTY",)})
    env.reset(seed=0)
    info = env.step(WEIGHTS)[4]
    parts = ["commission", "spread", "impact", "stamp_duty"]
    assert tuple(info) == told_names(parts) and info["stamp_duty"] > 0
    assert info["cost"] == pytest.approx(sum(info[name] for name in parts), rel=1e-6)


@pytest.mark.parametrize("name", ["wealth", "cost", "weights", "bar", "date", "unfilled"])
def test_no_cost_takes_the_name_of_what_is_told(name, monkeypatch):
    own = Cost(name=name, charge=lambda orders: orders.notional)
    with monkeypatch.context() as patch:
        patch.setattr(type(COSTS), "find", lambda *_: own)
        with pytest.raises(FastsimError, match=f"cannot be called '{name}'") as error:
            costs_of(CostConfig(also=("impact",)))
    assert "\n" not in str(error.value)


def test_weights_are_by_slot_where_assets_are_drawn():
    env = PortfolioVectorEnv(
        4,
        TAPE,
        **RULES,
        randomize={"assets": (2, 3)},
        costs={"participation": 1e9},
        backend="torch",
    )
    env.reset(seed=0)
    slots = env.env.state.slots
    transition = env.env.step(torch.full((4, 3), 0.3))
    weights = executed_weights(env.env.params, transition)
    torch.testing.assert_close(weights, 0.3 * (slots >= 0).float(), rtol=1e-5, atol=1e-6)
    held = transition.outcome.holdings / transition.outcome.wealth_traded[:, None]
    torch.testing.assert_close(to_assets(weights, slots), held, rtol=1e-5, atol=1e-6)


def test_infos_of_fresh_worlds_stay_true_when_their_worlds_are_drawn_anew():
    worlds = FreshWorlds(
        model=Garch(assets=3), bars=30, config=TapeConfig(features=SHORT_FEATURES), batch=4
    )
    kept = {}
    for backend in ("torch", "numba"):
        env = PortfolioVectorEnv(
            2, worlds, episode={"horizon": 3}, backend=backend, costs={"participation": 1e9}
        )
        env.reset(seed=0)
        action = torch.tensor([[0.2, 0.3, 0.4], [0.1, 0.0, 0.0]])
        kept[backend] = [env.step(action)[4] for _ in range(12)]
    for one, other in zip(*kept.values(), strict=True):
        torch.testing.assert_close(one["weights"], other["weights"], rtol=1e-4, atol=1e-5)


def test_make_gives_the_same_infos():
    env = gymnasium.make(fastsim.ENV_ID, market=TAPE, **RULES)
    assert set(env.reset(seed=0)[1]) == set(NAMES)
    assert set(env.step(WEIGHTS)[4]) == set(NAMES)
