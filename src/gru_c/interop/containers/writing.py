"""Files replaced as a whole: whoever looks sees the old file or all of the new one."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gru_c._exchange import Path


def write_atomically(path: Path, data: bytes) -> None:
    """Write the bytes `data` to `path`: a new file in the same folder, then renamed.

    A file that is replaced leaves its mode to the new one. A symbolic link stays, and its target is
    written. A device or a pipe is written directly.

    Raises
    ------
    OSError
        With the path in it. What was there is left, and nothing beside it.
    """
    path = os.fsdecode(path)
    try:
        _write(path, data)
    except OSError as error:                               # it may name no file, or the new one
        if error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), path) from error


def _write(path: str, data: bytes) -> None:
    try:
        old = os.stat(path)
    except FileNotFoundError:
        if not os.path.basename(path):                     # "" or "model/"
            raise
        old = None
    if old is not None and not stat.S_ISREG(old.st_mode):  # /dev/null must not become a file
        with open(path, "wb") as file:
            file.write(data)
    else:
        _replace(os.path.realpath(path), data, old)


def _replace(path: str, data: bytes, old: os.stat_result | None) -> None:
    """Put a new file in the place of `path`, whose status is `old`."""
    # The name cannot be foreseen, and "x" follows no link that somebody has put there.
    new = os.path.join(os.path.dirname(path), f".{os.urandom(8).hex()}.tmp")
    mode = 0o666 if old is None else old.st_mode & 0o600
    try:
        # Ctrl-C between two calls, one that opens and one that keeps, would leave it open.
        with open(new, "xb", opener=partial(os.open, mode=mode)) as file:
            if old is not None:
                _take_over(file.fileno(), old)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except FileExistsError:                                # not ours to remove
        raise
    except BaseException:                                  # Ctrl-C, too
        with suppress(FileNotFoundError):
            os.remove(new)
        raise


def _take_over(descriptor: int, old: os.stat_result) -> None:
    """Owner, group and mode of the old file, as far as the system allows; never more access."""
    for owner, group in ((old.st_uid, -1), (-1, old.st_gid)):
        with suppress(PermissionError):
            os.fchown(descriptor, owner, group)
    other_group = os.fstat(descriptor).st_gid != old.st_gid
    os.fchmod(descriptor, old.st_mode & (0o707 if other_group else 0o777))
