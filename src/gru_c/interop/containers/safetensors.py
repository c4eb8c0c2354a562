"""The container safetensors, through its library: arrays and text by name in a file.

    8 bytes: the length n of the header, n bytes of JSON, the bytes of the tensors

The header has dtype, shape and place of each tensor, and texts under ``__metadata__``. `pack` makes
a container, bytes, from ``{name: array}`` and ``{name: text}``; `unpack` gives these back, and
`read` does from an open file. npz.py has the same functions.
"""

from __future__ import annotations

import json
import os
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from gru_c.interop.arrays import widened
from gru_c.interop.containers import json_text
from gru_c.interop.errors import MissingExtraError, ModelFileError, hold_size

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from gru_c._types import Array

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "C64": "<c8", "BOOL": "?",
          "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
          "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1"}
METADATA = "__metadata__"
HEAD = 9                                                   # bytes that tell what a file is
MAX_HEADER = 2**24                                         # bytes; as Python objects it takes more


def begins(head: bytes) -> bool:
    """Whether a file is of this container, by its first `HEAD` bytes."""
    return head[8:9] == b"{" and not any(head[4:8])        # a header, after its length


def read(file: IO[bytes], where: str,
         max_bytes: int) -> tuple[dict[str, Array], dict[str, str]]:
    """The arrays and the metadata of an open file."""
    size = os.fstat(file.fileno()).st_size
    _header_size(file.read(8), size, where, max_bytes)
    _library()                                             # before a large file is read
    file.seek(0)
    return unpack(file.read(size), where, max_bytes)


def unpack(data: bytes, where: str, max_bytes: int) -> tuple[dict[str, Array], dict[str, str]]:
    """The arrays and the metadata of a container; ModelFileError, which names `where`."""
    end = 8 + _header_size(data[:8], len(data), where, max_bytes)
    deserialize = _library().deserialize
    try:
        tensors = dict(deserialize(data))
        header = json_text.parse(data[8:end], f"{where}: the header")
        metadata = header.pop(METADATA, None) or {}        # it may be null
        return {name: _array(name, tensors.pop(name)) for name in header}, metadata
    except ModelFileError:
        raise
    except Exception as error:                             # the library has errors of its own
        raise ModelFileError(f"{where}: not a readable safetensors file ({error})") from error


def pack(arrays: Mapping[str, Array], metadata: Mapping[str, str],
         bfloat16: Collection[str] = ()) -> bytes:
    """A container: the same bytes for the same arrays and texts.

    The names `bfloat16` are those of uint16 that hold it.
    """
    _library()
    from safetensors.numpy import save

    data = save({name: np.asarray(a, order="C") for name, a in arrays.items()})
    end = 8 + int.from_bytes(data[:8], "little")
    # The library would write the texts in an order that differs from run to run.
    header = json.loads(data[8:end])
    for name in bfloat16:
        header[name]["dtype"] = "BF16"
    if metadata:
        header = {METADATA: dict(sorted(metadata.items()))} | header
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join((len(text).to_bytes(8, "little"), text, memoryview(data)[end:]))


def _library() -> Any:
    try:
        import safetensors
    except ImportError as error:
        raise MissingExtraError("safetensors", "safetensors") from error
    return safetensors


def _header_size(start: bytes, size: int, where: str, max_bytes: int) -> int:
    """Of a file of `size` bytes that begins with the 8 bytes `start`."""
    header = int.from_bytes(start, "little")
    if not 2 <= header <= min(size - 8, MAX_HEADER):
        raise ModelFileError(f"{where}: not a readable safetensors file (of its {size} bytes, the "
                             f"header would be {header})")
    hold_size(size - 8 - header, max_bytes, where)         # the library sees to it that they fit
    return header


def _array(name: str, tensor: Mapping[str, Any]) -> Array:
    """An array of what the library has found."""
    kind = tensor["dtype"]
    if kind not in DTYPES:
        raise ValueError(f"tensor {name!r} has dtype {kind}, expected one of {', '.join(DTYPES)}")
    a = np.frombuffer(tensor["data"], DTYPES[kind])
    if kind == "BF16":
        a = widened(a)
    return a.astype(a.dtype.newbyteorder("="), copy=False).reshape(tensor["shape"])
