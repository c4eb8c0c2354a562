"""The container .npz, of NumPy alone: a zip archive of one .npy file for each array.

The metadata, texts by name, is a JSON object in UTF-8, the bytes of an array ``__metadata__`` of
uint8. `pack`, `unpack` and `read` are those of safetensors.py. What a file declares is held against
what is there before memory is taken, and nothing here knows pickle.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from gru_c.interop import json_text
from gru_c.interop.errors import ModelFileError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gru_c._exchange import Path
    from gru_c._types import Array

METADATA = "__metadata__"
CHUNK = 2**20                                              # bytes read at once
MAX_DIRECTORY = 2**22                                      # bytes; as Python objects it takes more
MAX_HEADER = 10_000                                        # bytes of a .npy file; NumPy's limit
MAX_RATIO = 1032                                           # of what deflate can do

ENCRYPTED = 1                                              # a flag of a member
MAGIC = b"\x93NUMPY"
WIDTHS = {b"\1\0": 2, b"\2\0": 4, b"\3\0": 4}              # of the header's length, by version
ITEM = (rb"\s*(?:'descr'\s*:\s*'(?P<dtype>[<>|]?[biufcSU][1-9]\d{0,5})'"
        rb"|'fortran_order'\s*:\s*(?P<fortran>True|False)"
        rb"|'shape'\s*:\s*\((?P<shape>(?:\s*\d{1,19}\s*,)*(?:\s*\d{1,19}\s*)?)\))\s*")
HEADER = re.compile(rb"\{(?:" + ITEM + rb"(?:,|(?=\}))){3}\s*\}\s*")


@dataclass(frozen=True)
class Declared:
    """What the header of a .npy file says."""

    dtype: np.dtype[Any]
    fortran: bool
    shape: tuple[int, ...]
    start: int                                             # of the data, in bytes

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read_arrays(path: Path, max_bytes: int) -> dict[str, Array]:
    """Every array of a file by its name."""
    with open(path, "rb") as file:
        return read(file, os.fsdecode(path), max_bytes)[0]


def read(file: IO[bytes], where: str,
         max_bytes: int) -> tuple[dict[str, Array], dict[str, str]]:
    """The arrays and the metadata of an open file."""
    try:
        with zipfile.ZipFile(_Bounded(file)) as archive:
            members = _members(archive, file.seek(0, os.SEEK_END))
            declared = {name: _declared(archive, member) for name, member in members.items()}
            total = sum(array.nbytes for array in declared.values())
            if total > max_bytes:
                raise ModelFileError(f"{where}: its arrays have {total} bytes, more than "
                                     f"max_bytes={max_bytes}; raise max_bytes to read it")
            arrays = {name: _array(archive, member, declared[name])
                      for name, member in members.items()}
        return arrays, _metadata(arrays.pop(METADATA, None), where)
    except ModelFileError:
        raise
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError,
            RuntimeError, ValueError, OverflowError, TypeError) as error:
        raise ModelFileError(f"{where}: not a readable .npz file ({error})") from error


def unpack(data: bytes, where: str, max_bytes: int) -> tuple[dict[str, Array], dict[str, str]]:
    """The arrays and the metadata of a container; ModelFileError, which names `where`."""
    return read(io.BytesIO(data), where, max_bytes)


def pack(arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes:
    """A container: the same bytes for the same arrays and texts."""
    text = json.dumps(dict(metadata), ensure_ascii=False, sort_keys=True).encode()
    own = {METADATA: np.frombuffer(text, np.uint8)} if metadata else {}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, a in (own | dict(arrays)).items():
            member = zipfile.ZipInfo(f"{name}.npy")        # of 1980
            member.create_system = 3                       # Unix, on every system
            archive.writestr(member, _member(a))
    return file.getvalue()


def _member(a: Array) -> bytes:
    """An array as a .npy file."""
    a = a.astype(a.dtype.newbyteorder("<"), copy=False)
    text = f"{{'descr': '{a.dtype.str}', 'fortran_order': False, 'shape': {a.shape}, }}"
    text += " " * (-(len(MAGIC) + 4 + len(text) + 1) % 64) + "\n"
    return b"".join((MAGIC, b"\1\0", len(text).to_bytes(2, "little"), text.encode(), a.tobytes()))


class _Bounded:
    """A file for zipfile, which takes as much memory at once as the file says."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.tell, self.seekable = file, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        if size > MAX_DIRECTORY:
            raise zipfile.BadZipFile(f"a directory of {size} bytes, more than {MAX_DIRECTORY}")
        return self.file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence == 0 and not 0 <= offset < 2**63:
            raise zipfile.BadZipFile(f"a place outside of the file, {offset}")
        return self.file.seek(offset, whence)


def _members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """The members, by the names of their arrays, of an archive of `size` bytes."""
    members: dict[str, zipfile.ZipInfo] = {}
    stored = sum(member.compress_size for member in archive.infolist())
    if stored > size:
        raise ValueError(f"its members have {stored} bytes, the file {size}")
    for member in archive.infolist():
        path, name = member.filename, member.filename.removesuffix(".npy")
        if name == path or path != member.orig_filename:
            raise ValueError(f"member {path!r} is not a .npy file")
        if name.startswith("/") or ".." in name.split("/"):
            raise ValueError(f"member {path!r} has a name that leads out of the archive")
        if name in members:
            raise ValueError(f"member {path!r} is there twice")
        if member.flag_bits & ENCRYPTED:
            raise ValueError(f"member {path!r} is encrypted")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"member {path!r} has compression {member.compress_type}, expected "
                             "0 (stored) or 8 (deflated)")
        members[name] = member
    return members


def _declared(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Declared:
    """The header of an array, if the member can hold what it declares."""
    path = member.filename
    with archive.open(member) as stream:
        start = stream.read(len(MAGIC) + 2)
        width = WIDTHS.get(start[-2:], 0)
        length = int.from_bytes(stream.read(width), "little")
        if not start.startswith(MAGIC) or not 0 < length <= MAX_HEADER:
            raise ValueError(f"member {path!r} does not begin as a .npy file")
        match = HEADER.fullmatch(stream.read(length))
    if not match or None in match.groups():
        raise ValueError(f"member {path!r} is not an array of numbers or text with a header as "
                         "NumPy writes it")
    shape = tuple(int(size) for size in match["shape"].split(b",") if size.strip())
    found = Declared(np.dtype(match["dtype"].decode()), match["fortran"] == b"True", shape,
                     len(start) + width + length)
    if found.start + found.nbytes != member.file_size:
        raise ValueError(f"member {path!r} has {member.file_size} bytes, an array of shape {shape} "
                         f"and dtype {found.dtype} needs {found.start + found.nbytes}")
    held = member.compress_size * (MAX_RATIO if member.compress_type else 1)
    if member.file_size > held:
        raise ValueError(f"member {path!r} declares {member.file_size} bytes, of which "
                         f"{member.compress_size} are there")
    return found


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, declared: Declared) -> Array:
    data = np.empty(declared.nbytes, np.uint8)
    with archive.open(member) as stream:
        stream.read(declared.start)
        for i in range(0, data.size, CHUNK):
            part = stream.read(min(CHUNK, data.size - i))
            data[i:i + CHUNK] = np.frombuffer(part, np.uint8)
    a = data.view(declared.dtype).reshape(declared.shape, order="F" if declared.fortran else "C")
    return a.astype(a.dtype.newbyteorder("="), copy=False)


def _metadata(a: Array | None, where: str) -> dict[str, str]:
    if a is None:
        return {}
    if a.dtype != np.uint8 or a.ndim != 1:
        raise ValueError(f"{METADATA} has dtype {a.dtype} and shape {a.shape}, expected uint8 (n,)")
    found = json_text.parse(a.tobytes(), f"{where}: {METADATA}")
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise ValueError(f"{METADATA} is not a JSON object of texts")
    return found
