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
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np

from gru_c.interop.containers import json_text, zips
from gru_c.interop.errors import ModelFileError, hold_size

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from gru_c._types import Array

METADATA = "__metadata__"
MAGIC = b"\x93NUMPY"
WIDTHS = {b"\1\0": 2, b"\2\0": 4, b"\3\0": 4}              # of the header's length, by version
MAX_HEADER = 10_000                                        # bytes; NumPy's limit
MAX_TEXT = 2**24                                           # bytes of metadata
ITEM = (rb"\s*(?:'descr'\s*:\s*'(?P<dtype>[<>|]?[biufcSU][1-9]\d{0,5})'"
        rb"|'fortran_order'\s*:\s*(?P<fortran>True|False)"
        rb"|'shape'\s*:\s*\((?P<shape>(?:\s*\d{1,19}\s*,)*(?:\s*\d{1,19}\s*)?)\))\s*")
HEADER = re.compile(rb"\{(?:" + ITEM + rb"(?:,|(?=\}))){3}\s*\}\s*")


@dataclass(frozen=True)
class Declared:
    """An array in the member `path`, from the byte `start`, as its header says."""

    path: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    order: Literal["C", "F"]
    start: int

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read(file: IO[bytes], where: str,
         max_bytes: int) -> tuple[dict[str, Array], dict[str, str]]:
    """The arrays and the metadata of an open file."""
    archive = zips.Archive(file, file.seek(0, os.SEEK_END), where)
    declared = {_name(path, where): _declared(archive, path) for path in archive.members}
    text = declared.pop(METADATA, None)
    hold_size(sum(array.nbytes for array in declared.values()), max_bytes, where)
    metadata = {} if text is None else _metadata(archive, text)
    return {name: _array(archive, array) for name, array in declared.items()}, metadata


def unpack(data: bytes, where: str, max_bytes: int) -> tuple[dict[str, Array], dict[str, str]]:
    """The arrays and the metadata of a container; ModelFileError, which names `where`."""
    return read(io.BytesIO(data), where, max_bytes)


def pack(arrays: Mapping[str, Array], metadata: Mapping[str, str],
         bfloat16: Collection[str] = ()) -> bytes:
    """A container: the same bytes for the same arrays and texts. bfloat16 stays uint16."""
    text = json.dumps(dict(metadata), ensure_ascii=False, sort_keys=True).encode()
    own = {METADATA: np.frombuffer(text, np.uint8)} if metadata else {}
    return zips.packed((f"{name}.npy", _member(a)) for name, a in (own | dict(arrays)).items())


def _member(a: Array) -> bytes:
    """An array as a .npy file."""
    a = a.astype(a.dtype.newbyteorder("<"), copy=False)
    text = f"{{'descr': '{a.dtype.str}', 'fortran_order': False, 'shape': {a.shape}, }}"
    text += " " * (-(len(MAGIC) + 4 + len(text) + 1) % 64) + "\n"
    return b"".join((MAGIC, b"\1\0", len(text).to_bytes(2, "little"), text.encode(), a.tobytes()))


def _name(path: str, where: str) -> str:
    """Of the array in the member `path`."""
    name = path.removesuffix(".npy")
    if name == path:
        raise ModelFileError(f"{where}: {path!r} is not a .npy file")
    if name.startswith("/") or ".." in name.split("/"):
        raise ModelFileError(f"{where}: {path!r} leads out of the archive")
    return name


def _declared(archive: zips.Archive, path: str) -> Declared:
    """What the header of a .npy file says, if the file has as many bytes."""
    where, size = f"{archive.where}: {path!r}", archive.size(path)
    head = archive.head(path, 12 + MAX_HEADER)
    width = WIDTHS.get(head[6:8], 0)
    length = int.from_bytes(head[8:8 + width], "little")
    start = 8 + width + length
    if not head.startswith(MAGIC) or not 0 < length <= MAX_HEADER:
        raise ModelFileError(f"{where} does not begin as a .npy file")
    match = HEADER.fullmatch(head, 8 + width, start)
    if not match or None in match.groups():
        raise ModelFileError(f"{where} is not an array of numbers or text with a header as NumPy "
                             "writes it")
    shape = tuple(int(size) for size in match["shape"].split(b",") if size.strip())
    try:
        dtype = np.dtype(match["dtype"].decode())
    except TypeError as error:
        raise ModelFileError(f"{where}: {error}") from None
    found = Declared(path, dtype, shape, "F" if match["fortran"] == b"True" else "C", start)
    if start + found.nbytes != size:
        raise ModelFileError(f"{where} has {size} bytes; its header and an array of shape {shape} "
                             f"and dtype {dtype} take {start + found.nbytes}")
    return found


def _array(archive: zips.Archive, declared: Declared) -> Array:
    """The array, read-only."""
    a = np.frombuffer(archive.read(declared.path), declared.dtype, offset=declared.start)
    try:
        a = a.reshape(declared.shape, order=declared.order)
    except (ValueError, OverflowError) as error:           # sizes beyond all bounds, times 0
        raise archive.error(f"{declared.path!r} cannot have shape {declared.shape}: "
                            f"{error}") from None
    return a.astype(a.dtype.newbyteorder("="), copy=False)


def _metadata(archive: zips.Archive, declared: Declared) -> dict[str, str]:
    if declared.dtype != np.uint8 or len(declared.shape) != 1 or declared.nbytes > MAX_TEXT:
        raise archive.error(f"{METADATA} has dtype {declared.dtype} and shape {declared.shape}, "
                            f"expected uint8 (n,), n at most {MAX_TEXT}")
    where = f"{archive.where}: {METADATA}"
    found = json_text.parse(_array(archive, declared).tobytes(), where)
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise ModelFileError(f"{where} is not a JSON object of texts")
    return found
