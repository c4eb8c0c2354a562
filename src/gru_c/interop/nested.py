"""Arrays in nested mappings and sequences, such as a checkpoint, by names joined with dots."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_DEPTH = 32
MAX_WORK = 2**24                                           # objects looked at, characters of names
ARRAY_WORK = 64                                            # of an array


@dataclass
class Flat:
    """The arrays of `root` by name, and the names of the mappings that they are in."""

    where: str
    is_array: Callable[[Any], bool]
    error: type[ValueError]
    arrays: dict[str, Any] = field(default_factory=dict)
    mappings: dict[str, None] = field(default_factory=dict)
    most: int = MAX_WORK
    work: int = 0

    def add(self, value: Any, path: tuple[str, ...] = ()) -> None:
        """An array, or what may hold some; everything else is left out."""
        is_array = self.is_array(value)
        if not is_array and not isinstance(value, (Mapping, list, tuple)):
            return
        name = ".".join(path)
        self._count(len(name) + (ARRAY_WORK if is_array else len(value)))
        if is_array:
            if name in self.arrays:
                raise self.error(f"{self.where}: it holds two arrays named {name[:100]!r}")
            self.arrays[name] = value
            return
        if len(path) > MAX_DEPTH:
            raise self.error(f"{self.where}: its mappings are nested deeper than {MAX_DEPTH}")
        if isinstance(value, Mapping):
            self.mappings[name] = None
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            if not isinstance(item, (str, int, float)):
                self.add(item, (*path, key if isinstance(key, str) else str(key)))

    def _count(self, work: int) -> None:
        """An object may be in many places: a small file can hold a large tree."""
        self.work += work
        if self.work > self.most:
            raise self.error(f"{self.where}: it holds too many objects within objects")


def flat(root: Any, is_array: Callable[[Any], bool], where: str,
         error: type[ValueError] = ValueError, most: int = MAX_WORK) -> Flat:
    """All of a tree, which takes the work `most` at most."""
    found = Flat(where, is_array, error, most=most)
    found.add(root)
    return found
