"""Arrays and text attributes of an HDF5 file, through h5py (extra ``keras``): read-only.

All names and declared sizes are read first and held against a limit; arrays are read one by one.
Nothing outside the file is touched: links but hard ones, virtual and external datasets are refused.
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from gru_c.interop.arrays import widened
from gru_c.interop.errors import MissingExtraError, ModelFileError, hold_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gru_c._types import Array

DEEPEST = 100                                              # groups within groups
ATTRIBUTE_BYTES = 2**24
BLOCK = 2**16


def h5py() -> Any:
    """The library, or an error that says how to get it."""
    try:
        import h5py
    except ImportError:
        raise MissingExtraError("h5py", "keras") from None
    return h5py


@contextmanager
def reading(file: BinaryIO, where: str, max_bytes: int) -> Iterator[File]:
    """A `File` that is closed at the end; `where` is its path, for errors."""
    library = h5py()
    with _told(where, "no HDF5 file that can be read"):
        handle = library.File(file, "r")
    try:
        with _told(where, "damaged"):
            _hold_heaps(file, handle, where)
        yield File(library, handle, where, max_bytes)
    finally:
        with _told(where, "closing the HDF5 file failed"):
            handle.close()


class File:
    """An open HDF5 file.

    arrays
        Shape and dtype of each array of numbers by its path, ``"layers/gru/cell/vars/0"``. What
        holds no numbers is left out.
    """

    def __init__(self, library: Any, handle: Any, where: str, max_bytes: int) -> None:
        self.where = where
        self._library = library
        self._objects: dict[str, Any] = {"": handle}
        self._bfloat16: set[str] = set()
        self.arrays: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
        with _told(where, "damaged"):
            self._walk(handle)
        self.arrays = dict(sorted(self.arrays.items()))
        hold_size(sum(self._declared(name) for name in self.arrays), max_bytes, where)

    def children(self, path: str) -> list[str]:
        """The names of the groups and arrays in a group."""
        start = f"{path}/" if path else ""
        below = (name.removeprefix(start) for name in self._objects if name.startswith(start))
        return [name for name in below if name and "/" not in name]

    def text(self, path: str, name: str) -> str | None:
        """A text attribute of a group, or None where there is none."""
        found = self._objects.get(path)
        if found is None:
            return None
        with _told(self.where, f"attribute {name!r} of {path or '/'!r}"):
            if name not in found.attrs:
                return None
            stored = found.attrs.get_id(name)
            if stored.shape != () or stored.get_storage_size() > ATTRIBUTE_BYTES:
                return None
            value = found.attrs[name]
            if isinstance(value, bytes):
                value = value.decode("utf-8")
        return value if isinstance(value, str) else None

    def read(self, name: str) -> Array:
        """An array in the byte order of this machine; bfloat16 as float32."""
        dataset = self._objects[name]
        with _told(self.where, f"array {name!r}"):
            self._hold_filters(dataset, name)
            a = np.asarray(dataset[()])
        if name in self._bfloat16:
            return widened(a.view("<u2"))
        return a.astype(a.dtype.newbyteorder("="), copy=False)

    # ---- what is there ---------------------------------------------------------------------------

    def _walk(self, root: Any) -> None:
        """Fill `arrays`. A group that has several names, or is in itself, counts once."""
        info = self._library.h5o.get_info
        seen, waiting = {info(root.id).addr}, [("", root, 0)]
        while waiting:
            path, group, depth = waiting.pop()
            if depth > DEEPEST:
                raise ModelFileError(f"{self.where}: groups are nested more than {DEEPEST} deep")
            for key in group:
                name = f"{path}/{key}" if path else key
                link = group.get(key, getlink=True)
                if not isinstance(link, self._library.HardLink):
                    raise ModelFileError(f"{self.where}: {name!r} is a {type(link).__name__}, "
                                         "which is not followed; only hard links are")
                found = group[key]
                if isinstance(found, self._library.Dataset):
                    self._add(name, found)
                elif isinstance(found, self._library.Group) and info(found.id).addr not in seen:
                    seen.add(info(found.id).addr)
                    self._objects[name] = found
                    waiting.append((name, found, depth + 1))

    def _add(self, name: str, dataset: Any) -> None:
        """An array to `arrays`, if it holds numbers."""
        if dataset.is_virtual or dataset.external:
            raise ModelFileError(f"{self.where}: {name!r} lies in other files, which are not read")
        dtype, shape = dataset.dtype, dataset.shape
        bfloat16 = dtype == np.dtype("V2") and dataset.attrs.get("dtype") == "bfloat16"
        if shape is not None and (dtype.kind in "biufc" or bfloat16):
            self._objects[name] = dataset
            self.arrays[name] = (shape, np.dtype(np.float32) if bfloat16 else dtype)
            if bfloat16:
                self._bfloat16.add(name)

    def _declared(self, name: str) -> int:
        """Bytes of an array in memory, or of one of its chunks if these are larger."""
        (shape, dtype), chunks = self.arrays[name], self._objects[name].chunks
        return max(math.prod(shape), math.prod(chunks or ())) * dtype.itemsize

    # ---- compressed chunks -----------------------------------------------------------------------

    def _hold_filters(self, dataset: Any, name: str) -> None:
        """Refuse what would be larger than declared when it is decompressed."""
        library = self._library
        properties = dataset.id.get_create_plist()
        filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
        plain = [f for f in filters if f != library.h5z.FILTER_FLETCHER32]
        if any(f not in (library.h5z.FILTER_SHUFFLE, library.h5z.FILTER_DEFLATE) for f in plain):
            raise ModelFileError(f"{self.where}: {name!r} is compressed by a filter that is not "
                                 "read; write the file again with gzip or none")
        if library.h5z.FILTER_DEFLATE not in plain:
            return
        if plain.index(library.h5z.FILTER_DEFLATE) != len(plain) - 1:
            raise ModelFileError(f"{self.where}: {name!r} is compressed in an unknown order")
        declared = math.prod(dataset.chunks) * dataset.dtype.itemsize
        stored: list[Any] = []
        dataset.id.chunk_iter(stored.append)
        for chunk in stored:
            if chunk.size > 2 * declared + BLOCK or not self._inflates(dataset, chunk, declared):
                raise ModelFileError(f"{self.where}: a chunk of {name!r} is larger than the "
                                     f"{declared:,} bytes that it declares, or damaged")

    @staticmethod
    def _inflates(dataset: Any, chunk: Any, declared: int) -> bool:
        """Whether a compressed chunk is whole, and no larger than declared."""
        mask, data = dataset.id.read_direct_chunk(chunk.chunk_offset)
        if mask:                                           # a filter was left out
            return False
        inflater, total = zlib.decompressobj(), 0
        while data and not inflater.eof and total <= declared + 4:
            total += len(inflater.decompress(data, BLOCK))
            data = inflater.unconsumed_tail
        return inflater.eof and total <= declared + 4      # a checksum before it has 4 bytes


# ---- text ---------------------------------------------------------------------------------------

def _hold_heaps(file: BinaryIO, handle: Any, where: str) -> None:
    """Check the lists of objects in the global heaps, where text lies: HDF5 2.0 runs through one
    for ever if an object has no length. The layout is that of section III.E of the HDF5 format.
    """
    if handle.id.get_create_plist().get_sizes() != (8, 8):
        raise ModelFileError(f"{where}: its addresses do not have 8 bytes")
    position = file.tell()
    file.seek(0)
    before, start = b"", 0                                 # a signature may lie across two blocks
    heaps = []
    while block := file.read(BLOCK):
        heaps += [start - len(before) + match.start()
                  for match in re.finditer(b"GCOL\x01", before + block)]
        start, before = start + len(block), (before + block)[-4:]
    for heap in heaps:
        if not _is_whole(file, heap, start):
            raise ModelFileError(f"{where}: the heap at byte {heap} is damaged")
    file.seek(position)


def _is_whole(file: BinaryIO, heap: int, file_size: int) -> bool:
    """Whether objects follow one another to the end of a heap."""
    file.seek(heap + 8)
    at, end = heap + 16, heap + int.from_bytes(file.read(8), "little")
    while at + 16 <= end <= file_size:
        file.seek(at)
        index, size = struct.unpack("<H6xQ", file.read(16))
        length = 16 + -(-size // 8) * 8 if index else size      # object 0 is the free space
        if length < 16:
            return False
        at += length
    return at <= end <= file_size


# ---- errors -------------------------------------------------------------------------------------

@contextmanager
def _told(where: str, what: str) -> Iterator[None]:
    """What h5py raises, as an error of the file."""
    try:
        yield
    except (ModelFileError, MemoryError):
        raise
    except Exception as error:
        text = " ".join(str(error).split())                # one line
        raise ModelFileError(f"{where}: {what}: {text[:300]}") from None
