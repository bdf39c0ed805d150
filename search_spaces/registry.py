"""One registry for everything that is looked up by name: architectures, targets, samplers, tasks."""

from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar

T = TypeVar("T")


class RegistryError(ValueError):
    """A name is registered twice, or is not registered at all."""


class Registry(Generic[T]):
    """Maps names to objects, filled by decorator and by the entry points of other distributions.

    Args:
        noun: What an entry is, for messages ("architecture").
        entry_point_group: Group whose entry points are loaded at the first lookup. An entry point names a module
            that registers itself when it is imported.
    """

    def __init__(self, noun: str, *, entry_point_group: str | None = None) -> None:
        self._noun = noun
        self._group = entry_point_group
        self._entries: dict[str, T] = {}

    def register(self, *names: str) -> Callable[[T], T]:
        """Register the decorated object under one or more names.

        Raises:
            RegistryError: A name is taken.
        """

        def add(entry: T) -> T:
            for name in names:
                if name in self._entries:
                    raise RegistryError(f"{self._noun} {name!r} is registered twice; give one of them another name")
            self._entries.update(dict.fromkeys(names, entry))
            return entry

        return add

    def get(self, name: str) -> T:
        """Return the entry of that name.

        Raises:
            RegistryError: No such name; the message lists the valid ones.
        """
        self._load_entry_points()
        if name not in self._entries:
            raise RegistryError(f"unknown {self._noun} {name!r}; supported: {', '.join(sorted(self._entries))}")
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        self._load_entry_points()
        return iter(sorted(self._entries))

    def __contains__(self, name: object) -> bool:
        self._load_entry_points()
        return name in self._entries

    def _load_entry_points(self) -> None:
        group, self._group = self._group, None
        if group is not None:
            for point in entry_points(group=group):
                try:
                    point.load()
                except Exception as error:
                    self._group = group
                    raise RegistryError(
                        f"{self._noun} plug-in {point.name!r} ({point.value}) must import; it raised "
                        f"{type(error).__name__}: {error}; repair or uninstall the distribution that brings it"
                    ) from error
