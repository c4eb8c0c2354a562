"""What a file is, and what can be done with a file of any format."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gru_c._exchange import Path
    from gru_c._types import Array
    from gru_c.interop.found import Found


def format_of(path: Path) -> Any:
    """The module that reads the file, by what the file holds."""
    raise NotImplementedError(import_module)


def read_arrays(path: Path, max_bytes: int = 2**32) -> dict[str, Array]:
    """Every array of a file by name."""
    return format_of(path).read_arrays(path, max_bytes)


def find(path: Path, max_bytes: int = 2**32) -> list[Found]:
    """Every GRU of a file."""
    return format_of(path).find(path, max_bytes)


def convert(source: Path, target: Path) -> None:
    """Write a GRU of one file to another, in the format that its suffix names."""
