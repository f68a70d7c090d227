"""Named tuples and mappings in one another: what is done to each tensor, and what stays."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from fastsim.env.nested import combine, copy, flatten, select, take, transform, unflatten
from fastsim.errors import CheckpointError


class Inner(NamedTuple):
    first: Tensor
    absent: Tensor | None = None


class Outer(NamedTuple):
    inner: Inner
    paid: Mapping[str, Tensor | Inner | None]
    last: Tensor


def example(offset: float = 0.0) -> Outer:
    """Leaves 0, 1, 2, 3 in order, two rows each; keys of the mapping not in alphabetical order."""

    def leaf(number: int) -> Tensor:
        return torch.tensor([number + offset, 10.0 * number + offset])

    paid = {"spread": leaf(1), "borrow": None, "commission": Inner(leaf(2))}
    return Outer(Inner(leaf(0)), paid, leaf(3))


def numbers(nested: Outer) -> list[list[float]]:
    return [leaf.tolist() for leaf in flatten(nested)]


def assert_structure(nested: Outer) -> None:
    assert type(nested) is Outer and type(nested.inner) is Inner
    assert type(nested.paid) is dict and list(nested.paid) == ["spread", "borrow", "commission"]
    assert type(nested.paid["commission"]) is Inner
    assert nested.inner.absent is nested.paid["borrow"] is nested.paid["commission"].absent is None


def test_leaves_come_in_order_and_without_none():
    assert numbers(example()) == [[0, 0], [1, 10], [2, 20], [3, 30]]
    assert flatten(None) == []


def test_a_function_meets_every_tensor_and_keeps_the_structure():
    doubled = transform(lambda tensor: 2 * tensor, example())
    assert_structure(doubled)
    assert numbers(doubled) == [[0, 0], [2, 20], [4, 40], [6, 60]]


def test_a_copy_has_tensors_and_mappings_of_its_own():
    original = example()
    copied = copy(original)
    assert_structure(copied)
    assert copied.paid is not original.paid
    for leaf in flatten(copied):
        leaf.add_(1.0)
    assert numbers(original) == numbers(example())


@pytest.mark.parametrize("rows", [slice(1, 2), torch.tensor([1])])
def test_rows_are_taken_of_every_tensor(rows):
    taken = take(example(), rows)
    assert_structure(taken)
    assert numbers(taken) == [[0], [10], [20], [30]]
    assert numbers(take(example(), 1)) == [0, 10, 20, 30]


def test_rows_are_chosen_one_by_one():
    chosen = select(torch.tensor([True, False]), example(0.5), example())
    assert_structure(chosen)
    assert numbers(chosen) == [[0.5, 0], [1.5, 10], [2.5, 20], [3.5, 30]]


def test_several_of_one_structure_become_one():
    joined = combine(lambda *parts: torch.cat(parts), example(), example(0.5), example(1.0))
    assert_structure(joined)
    assert numbers(joined)[1] == [1, 10, 1.5, 10.5, 2, 11]


def test_mappings_are_combined_by_name_and_not_by_place():
    one = OrderedDict(spread=torch.tensor(1.0), impact=torch.tensor(2.0))
    turned = OrderedDict(impact=torch.tensor(20.0), spread=torch.tensor(10.0))
    added = combine(torch.add, one, turned)
    assert type(added) is OrderedDict
    assert list(added.items()) == [("spread", 11.0), ("impact", 22.0)]


def test_nothing_is_lost_where_structures_differ():
    tensor = torch.zeros(2)
    for one, other in (
        (Inner(tensor), Inner(tensor, tensor)),
        ({"spread": tensor}, {"spread": tensor, "impact": tensor}),
    ):
        with pytest.raises(AssertionError):
            combine(torch.add, one, other)


def test_leaves_are_put_back_in_their_places():
    leaves = [leaf + 100.0 for leaf in flatten(example())]
    filled = unflatten(example(), leaves)
    assert_structure(filled)
    assert numbers(filled) == numbers(example(100.0))


def test_leaves_that_do_not_fit_are_refused():
    leaves = flatten(example())
    with pytest.raises(CheckpointError, match="has 3 where 4 tensors is needed"):
        unflatten(example(), leaves[:3])
    with pytest.raises(CheckpointError, match=r"has \(\(2,\), torch.float64\) where"):
        unflatten(example(), [*leaves[:3], leaves[3].double()])
