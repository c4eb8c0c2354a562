"""Files of `torch.save`, without PyTorch: both forms are read, the zip form is written.

    zip form     an archive of FOLDER/data.pkl, FOLDER/byteorder, FOLDER/data/KEY for each storage
    legacy form  pickles: a magic number, a version, the system, the object, the keys of storages;
                 then for each key the number of elements (8 bytes) and the elements

Storages stay in the file until arrays of them are asked for. Numbers of more than a byte are in
little-endian order, but where FOLDER/byteorder says otherwise. Format: torch/serialization.py.
"""

from __future__ import annotations

import io
import math
import os
import struct
import zipfile
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from gru_c.interop.containers import reading, zips
from gru_c.interop.containers.pickled import (
    BFLOAT16,
    BOOL,
    STORAGES,
    Budget,
    ElementType,
    NumpyArray,
    Storage,
    Tensor,
)
from gru_c.interop.containers.pickles import Unpickler
from gru_c.interop.errors import ModelFileError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Literal, TypeAlias

    from gru_c._exchange import Path
    from gru_c._types import Array

    ByteOrder: TypeAlias = Literal["<", ">"]
    Form: TypeAlias = "ZipForm | LegacyForm"

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001              # of the legacy form
SMALL = 2**24                                              # bytes that any pickle may take,
PER_BYTE = 64                                              # and what each of its bytes may
ALIGNMENT = 64                                             # of storages in archives, as PyTorch's
ADVICE = "load it in PyTorch and save its state_dict()"


class ZipForm:
    """A file of the zip form: `root` is the object."""

    def __init__(self, file: IO[bytes], size: int, where: str, max_bytes: int) -> None:
        self.where = where
        self.archive = zips.Archive(file, size, where)
        names = self.archive.members
        pickles = [name for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
        if any(name.endswith("/archive_format") for name in names):
            raise ModelFileError(f"{where}: it is an archive of torch.export; {ADVICE}")
        if len(pickles) != 1:
            raise ModelFileError(f"{where}: it is a zip archive with {len(pickles)} files named "
                                 "data.pkl, and one of torch.save has one")
        self.folder = pickles[0].removesuffix("data.pkl")
        if f"{self.folder}constants.pkl" in names:
            raise ModelFileError(f"{where}: it is a TorchScript archive; {ADVICE}")
        length = self.archive.size(pickles[0])
        budget = _budget(where, length, max_bytes)
        budget.take(length)
        data = self.archive.read(pickles[0])
        self.root = Unpickler(io.BytesIO(data), length, where, budget).load()
        self.byte_order = self._byte_order()

    def _byte_order(self) -> ByteOrder:
        name = f"{self.folder}byteorder"
        if name not in self.archive.members:               # before PyTorch 2.1
            return "<"
        orders: dict[bytes, ByteOrder] = {b"little": "<", b"big": ">"}
        text = self.archive.read(name) if self.archive.size(name) < 10 else b""
        if text not in orders:
            raise ModelFileError(f"{self.where}: {name!r} says neither little nor big")
        return orders[text]

    def size(self, key: str) -> int:
        """Bytes of a storage."""
        return self.archive.size(self._name(key))

    def read(self, key: str) -> bytes:
        return self.archive.read(self._name(key))

    def _name(self, key: str) -> str:
        name = f"{self.folder}data/{key}"
        if name not in self.archive.members:
            raise ModelFileError(f"{self.where}: it holds no storage {name[:100]!r}")
        return name


class LegacyForm:
    """A file of the legacy form: `root` is the object."""

    byte_order: ByteOrder = "<"

    def __init__(self, file: IO[bytes], size: int, where: str, max_bytes: int) -> None:
        self.file, self.end, self.where = file, size, where
        self.budget = _budget(where, size, max_bytes)
        file.seek(0)
        if self._unpickler().load() != MAGIC:
            raise ModelFileError(f"{where}: it is a pickle, but none of torch.save")
        if self._unpickler().load() != VERSION:
            raise ModelFileError(f"{where}: it is of an unknown version of torch.save")
        self._unpickler().load()                           # the system that wrote it
        unpickler = self._unpickler()
        self.root = unpickler.load()
        self.places = self._places(self._unpickler().load(), unpickler.storages)

    def _unpickler(self) -> Unpickler:
        """Of the pickle that begins where the file stands."""
        return Unpickler(self.file, self.end - self.file.tell(), self.where, self.budget)

    def _places(self, keys: Any, storages: Mapping[str, Storage]) -> dict[str, tuple[int, int]]:
        """Start and bytes of each storage; the file stands at the first."""
        places: dict[str, tuple[int, int]] = {}
        start = self.file.tell()
        for key in keys if type(keys) is list else ():
            if type(key) is not str or key not in storages:
                raise ModelFileError(f"{self.where}: it holds a storage that no tensor has")
            self.file.seek(start)
            head = self.file.read(8)
            count = int.from_bytes(head, "little")
            size = count * storages[key].element.stored.itemsize
            if len(head) < 8 or start + 8 + size > self.end:
                raise ModelFileError(f"{self.where}: storage {key[:100]!r} has {count} elements, "
                                     "which are not in the file: it is truncated or damaged")
            places[key] = start + 8, size
            start += 8 + size
        return places

    def size(self, key: str) -> int:
        """Bytes of a storage."""
        if key not in self.places:
            raise ModelFileError(f"{self.where}: it holds no storage {key[:100]!r}")
        return self.places[key][1]

    def read(self, key: str) -> bytes:
        start, size = self.places[key]
        self.file.seek(start)
        data = self.file.read(size)
        if len(data) != size:
            raise ModelFileError(f"{self.where}: it has become shorter while it was read")
        return data


def _budget(where: str, length: int, max_bytes: int) -> Budget:
    """For the objects of pickles of that length in all."""
    return Budget(where, SMALL + min(PER_BYTE * length, max_bytes), "its objects")


@contextmanager
def opened(path: Path, max_bytes: int) -> Iterator[Form]:
    """The file, open until the end of the context."""
    with reading.opened(path) as file:
        yield form_of(file, os.fsdecode(path), max_bytes)


def form_of(file: IO[bytes], where: str, max_bytes: int) -> Form:
    """What is in a file, or in bytes as ``io.BytesIO``; `where` names it in errors."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(512)
    if head.startswith(zips.HEAD):
        return ZipForm(file, size, where, max_bytes)
    if head[257:262] == b"ustar":
        raise ModelFileError(f"{where}: it is in PyTorch's oldest form, a tar archive; {ADVICE}")
    if head[:1] != b"\x80":
        raise ModelFileError(f"{where}: it is no file of torch.save: neither a zip archive nor "
                             "a pickle")
    return LegacyForm(file, size, where, max_bytes)


# ---- arrays --------------------------------------------------------------------------------------

def arrays(form: Form, named: Mapping[str, Tensor | NumpyArray],
           max_bytes: int) -> dict[str, Array]:
    """Read-only arrays of what the object holds. Those that share a storage share memory."""
    tensors = [a for a in named.values() if isinstance(a, Tensor) and 0 not in a.shape]
    budget = Budget(form.where, max_bytes, "its arrays")
    for a in named.values():
        budget.take(a.nbytes)
    elements = {a.storage.key: a.element for a in tensors}
    budget = Budget(form.where, max_bytes, "the storages of its arrays")
    for key in elements:
        budget.take(form.size(key))
    for a in tensors:
        _check_storage(form, a, elements)
    storages = {key: _elements(form.read(key), element, form.byte_order)
                for key, element in elements.items()}
    return {name: a.array() if isinstance(a, NumpyArray) else _array(a, storages)
            for name, a in named.items()}


def _check_storage(form: Form, a: Tensor, elements: Mapping[str, ElementType],
                   ) -> None:
    storage, other = a.storage, elements[a.storage.key]
    if a.element is not other:
        raise ModelFileError(f"{form.where}: storage {storage.key[:100]!r} holds {a.element.name} "
                             f"and {other.name}")
    declared = (storage.start + storage.size) * storage.element.stored.itemsize
    if declared > form.size(storage.key):
        raise ModelFileError(f"{form.where}: storage {storage.key[:100]!r} has "
                             f"{form.size(storage.key)} bytes, a tensor declares {declared}")


def _elements(data: bytes, element: ElementType, byte_order: ByteOrder) -> Array:
    """The elements of a storage, in one axis."""
    count = len(data) // element.stored.itemsize
    found: Array = np.frombuffer(data, element.stored.newbyteorder(byte_order), count)
    found = found.astype(element.stored, copy=False)
    if element is BFLOAT16:                                # the upper half of a float32
        wide = found.astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    return found != 0 if element is BOOL else found


def _array(a: Tensor, storages: Mapping[str, Array]) -> Array:
    """A view of its storage; a copy where PyTorch would compute a conjugate or a negative."""
    if 0 in a.shape:
        return np.empty(a.shape, a.dtype)
    elements, width = storages[a.storage.key], a.dtype.itemsize
    first = a.storage.start * a.storage.element.stored.itemsize // a.element.stored.itemsize
    view: Array = np.ndarray(a.shape, a.dtype, elements, (first + a.offset) * width,
                             tuple(step * width for step in a.strides))
    view = np.conjugate(view) if a.conjugate else view
    view = np.negative(view) if a.negative else view
    view.flags.writeable = False
    return view


# ---- writing -------------------------------------------------------------------------------------

def packed(parameters: Mapping[str, Array]) -> bytes:
    """A file of the zip form that holds a state dict: the same bytes for the same arrays."""
    members = {"data.pkl": _pickled(parameters), "byteorder": b"little"}
    for index, a in enumerate(parameters.values()):
        members[f"data/{index}"] = a.astype(a.dtype.newbyteorder("<"), copy=False).tobytes()
    members["version"] = b"3\n"
    buffer = io.BytesIO()
    with zips.writing(buffer) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(f"archive/{name}", (1980, 1, 1, 0, 0, 0))
            info.create_system = 3                         # the same everywhere
            extra = -(buffer.tell() + zips.LOCAL.size + len(info.filename) + 4) % ALIGNMENT
            info.extra = b"FB" + struct.pack("<H", extra) + bytes(extra)
            archive.writestr(info, data)
    return buffer.getvalue()


def _pickled(parameters: Mapping[str, Array]) -> bytes:
    """The object of the file, as torch.save writes it, but without a memo."""
    names = {element.stored: name for name, element in STORAGES.items()
             if element.stored.kind == "f"}                # in this machine's byte order
    ordered_dict = b"ccollections\nOrderedDict\n)R"
    parts = [b"\x80\2", ordered_dict, b"("]
    for index, (name, a) in enumerate(parameters.items()):
        kind = names[a.dtype.newbyteorder("=")]
        strides = [math.prod(a.shape[axis + 1:]) for axis in range(a.ndim)]
        parts += [_text(name), b"ctorch._utils\n_rebuild_tensor_v2\n((", _text("storage"),
                  f"ctorch\n{kind}\n".encode(), _text(str(index)), _text("cpu"),
                  _integer(a.size), b"tQ", _integer(0), _tuple(a.shape), _tuple(strides), b"\x89",
                  ordered_dict, b"tR"]
    return b"".join([*parts, b"u."])


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _integer(number: int) -> bytes:
    if number < 2**31:
        return b"J" + struct.pack("<i", number)
    return b"\x8a\x08" + struct.pack("<q", number)


def _tuple(numbers: Iterable[int]) -> bytes:
    return b"(" + b"".join(map(_integer, numbers)) + b"t"
