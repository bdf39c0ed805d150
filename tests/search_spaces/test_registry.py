"""The registry: names, duplicates, and plug-ins by entry point."""

from typing import Any

import pytest

from search_spaces import registry
from search_spaces.registry import Registry, RegistryError


def test_names_are_found_and_sorted() -> None:
    animals: Registry[int] = Registry("animal")
    assert animals.register("zebra", "ape")(3) == 3
    assert (animals.get("zebra"), animals.get("ape")) == (3, 3)
    assert list(animals) == ["ape", "zebra"]
    assert "ape" in animals
    assert "bee" not in animals


def test_unknown_name_lists_the_valid_ones() -> None:
    animals: Registry[int] = Registry("animal")
    animals.register("zebra", "ape")(3)
    with pytest.raises(RegistryError, match="unknown animal 'bee'; supported: ape, zebra"):
        animals.get("bee")


def test_a_duplicate_is_refused_and_registers_none_of_its_names() -> None:
    animals: Registry[int] = Registry("animal")
    animals.register("ape")(1)
    with pytest.raises(RegistryError, match="animal 'ape' is registered twice"):
        animals.register("bee", "ape")(2)
    assert list(animals) == ["ape"]
    assert animals.get("ape") == 1


def test_entry_points_are_loaded_once_at_the_first_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    animals: Registry[int] = Registry("animal", entry_point_group="paretrim.animals")
    loaded: list[str] = []

    class Point:
        def load(self) -> None:
            loaded.append("bee")
            animals.register("bee")(7)

    def entry_points(*, group: str) -> list[Any]:
        assert group == "paretrim.animals"
        return [Point()]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    assert not loaded
    assert animals.get("bee") == 7
    assert "bee" in animals
    assert loaded == ["bee"]
