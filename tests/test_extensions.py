"""What is added from outside is found by name, or where it can be imported from."""

import sys
from dataclasses import dataclass

import pytest

from fastsim.errors import ConfigError
from fastsim.extensions import Registry, import_object, is_reference


@dataclass(frozen=True)
class Fruit:
    name: str


APPLE, PEAR = Fruit("apple"), Fruit("pear")
HERE = __name__


def fruits():
    return Registry("fruit", Fruit, (APPLE,))


def test_records_are_found_by_name_and_by_where_they_can_be_imported_from():
    registry = fruits()
    assert registry.find("apple") is APPLE
    assert registry.find(f"{HERE}:PEAR") is PEAR
    registry.add(PEAR)
    assert registry.find("pear") is PEAR and list(registry) == ["apple", "pear"]


def test_a_name_that_is_taken_stays_with_its_record():
    registry = fruits()
    registry.add(APPLE)  # a module may be imported twice
    with pytest.raises(ConfigError, match="'stone' is not a fruit"):
        registry.add("stone")

    @dataclass(frozen=True)
    class Other(Fruit):
        colour: str = "red"

    with pytest.raises(ConfigError, match="cannot be called 'apple': one is"):
        registry.add(Other("apple"))
    with pytest.raises(ConfigError, match="that is how objects are imported"):
        registry.add(Fruit("a:b"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("plum", "no fruit is called 'plum'; there are apple, and your own"),
        ("not_there_at_all:x", "not_there_at_all cannot be imported"),
        (f"{HERE}:PLUM", "has no 'PLUM'"),
        (f"{HERE}:HERE", "is not a fruit: it must be a Fruit, got str"),
        ("a b:c", "no fruit is called"),
        ("", "no fruit is called ''"),
        (["apple"], "a fruit is named by text, got \\['apple'\\]"),
        (None, "a fruit is named by text, got None"),
    ],
)
def test_what_cannot_be_found_is_named_in_one_line(name, message):
    with pytest.raises(ConfigError, match=message) as caught:
        fruits().find(name)
    assert "\n" not in str(caught.value)


def test_what_is_defined_once_more_at_its_place_is_replaced():
    @dataclass(frozen=True)
    class Juice:
        name: str
        press: object

    def cell():
        return Juice("cider", lambda apples: apples)

    registry = Registry("juice", Juice, (Juice("perry", dataclass), Juice("water", None)))
    first, again = registry.add(cell()), registry.add(cell())
    assert first != again and registry.find("cider") is again
    with pytest.raises(ConfigError, match="cannot be called 'perry': one is"):
        registry.add(Juice("perry", lambda pears: pears))
    with pytest.raises(ConfigError, match="cannot be called 'cider': one is"):
        registry.add(Juice("cider", pytest.raises))
    with pytest.raises(ConfigError, match="cannot be called 'water': one is"):
        registry.add(Juice("water", ()))


def test_a_module_that_fails_while_it_is_imported_is_named(tmp_path, monkeypatch):
    (tmp_path / "broken_fruit.py").write_text("raise RuntimeError('rotten\\ninside')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="broken_fruit cannot be imported"):
        import_object("broken_fruit:apple", "fruit")
    sys.modules.pop("broken_fruit", None)


def test_a_reference_has_a_module_and_an_object():
    assert is_reference("a.b:c")
    assert not any(map(is_reference, ("a.b", ":c", "a:", "a:b:c", "C:/x.csv", "a b:c", None)))
