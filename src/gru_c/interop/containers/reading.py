"""Files opened for reading."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from gru_c.interop.errors import ModelFileError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gru_c._exchange import Path

BLOCK = 2**20


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """A file that can be read from any position; a pipe cannot, and is a ModelFileError."""
    with open(path, "rb") as file:
        if not file.seekable():
            raise ModelFileError(f"{os.fsdecode(path)}: a pipe cannot be read; write what it gives "
                                 "to a file")
        yield file


def all_of(file: IO[bytes], most: int) -> bytes:
    """What a file or a pipe gives, up to `most` bytes and one more.

    Memory follows what is there: ``file.read(most)`` would take that much at once.
    """
    parts, left = [], most + 1
    size = os.fstat(file.fileno()).st_size
    asked = size + 1 if size else BLOCK                    # a pipe has no size
    while left > 0:
        parts.append(part := file.read(min(asked, left)))
        left -= len(part)
        if len(part) < asked:
            break
        asked = BLOCK
    return b"".join(parts)
