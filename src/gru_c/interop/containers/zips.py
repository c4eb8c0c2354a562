"""Zip archives: read member by member, what they declare held against the file first; and written.

    members, the directory, the end of the directory; a member: 30 bytes, name, extra, data

The format is APPNOTE.TXT of PKWARE, with its 64-bit extension; stored and deflated members.
`zipfile` only writes here: it insists on checksums, which PyTorch can leave out, and makes large
objects of small entries before it tells how many there are.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from gru_c.interop.errors import ModelFileError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HEAD, TAIL = b"PK\3\4", b"PK\5\6"                          # of a member, of the directory's end
STARTS = (HEAD, TAIL)                                      # of an archive: without members, too
STORED, DEFLATED = 0, 8
MAX_RATIO = 1032                                           # of deflate
MAX_MEMBERS = 2**17
MAX_COMMENT = 2**16

END = struct.Struct("<4s4H2IH")
END_64 = struct.Struct("<4sQ2H2I4Q")
LOCATOR_64 = struct.Struct("<4sIQI")
ENTRY = struct.Struct("<4s6H3I5H2I")
LOCAL = struct.Struct("<4s5H3I2H")


@dataclass(frozen=True, slots=True)
class Member:
    """An entry of the directory: where its local header is, and sizes in bytes."""

    method: int
    flags: int
    checksum: int                                          # CRC-32, or 0: not computed
    packed_size: int
    size: int
    start: int


@contextmanager
def writing(file: IO[bytes]) -> Iterator[zipfile.ZipFile]:
    """An archive that is written to `file`."""
    archive = zipfile.ZipFile(file, "w")
    try:
        yield archive
        archive.close()
    except BaseException:
        archive.fp = None                                  # close would raise in place of Ctrl-C
        raise


class Archive:
    """The members of an archive by name: `file` is open for reading, and has `size` bytes."""

    def __init__(self, file: IO[bytes], size: int, where: str) -> None:
        self.file: IO[bytes] = file
        self.where: str = where
        self.end: int = size                               # of the directory, once it is found
        self.directory: int
        self.directory, length, count = self._find_directory()
        self.members: dict[str, Member] = {}
        data = self._at(self.directory, length)
        for name, member in _entries(data, count, self):
            if name in self.members:
                raise self.error(f"{name!r} is there twice")
            self.members[name] = member

    def error(self, text: str) -> ModelFileError:
        return ModelFileError(f"{self.where}: {text}")

    def size(self, name: str) -> int:
        """The size of a member that is there, held against the file."""
        member = self.members[name]
        most = member.packed_size * (1 if member.method == STORED else MAX_RATIO)
        if member.packed_size > self.directory or member.size > most:
            raise self.error(f"{name!r} declares {member.size} bytes, which are not in the file")
        return member.size

    def read(self, name: str) -> bytes:
        """The bytes of a member."""
        size, member = self.size(name), self.members[name]
        data = self._packed(name, member.packed_size)
        if member.method == DEFLATED:
            data = self._inflated(name, data, size)
        elif len(data) != size:
            raise self.error(f"{name!r} has {len(data)} bytes, its entry declares {size}")
        if member.checksum and zlib.crc32(data) != member.checksum:
            raise self.error(f"{name!r} is damaged: its checksum does not match")
        return data

    def head(self, name: str, size: int) -> bytes:
        """The first bytes of a member, `size` or fewer, whose checksum nobody has seen to."""
        member = self.members[name]
        data = self._packed(name, min(member.packed_size, 2 * size))
        if member.method == STORED:
            return data[:size]
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size)
        except zlib.error as error:
            raise self.error(f"{name!r} is damaged: {error}") from None

    def _packed(self, name: str, size: int) -> bytes:
        """The first `size` bytes of a member as they are in the file."""
        member = self.members[name]
        if member.flags & 1:
            raise self.error(f"{name!r} is encrypted")
        if member.method not in (STORED, DEFLATED):
            raise self.error(f"{name!r} is compressed by method {member.method}, expected "
                             "deflate or none")
        signature, *_, name_size, extra_size = LOCAL.unpack(self._at(member.start, LOCAL.size))
        if signature != HEAD:
            raise self.error(f"{name!r} is not where the directory says")
        return self._at(member.start + LOCAL.size + name_size + extra_size, size)

    def _inflated(self, name: str, data: bytes, size: int) -> bytes:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            result = inflater.decompress(data, size + 1)   # 0 would be no limit
        except zlib.error as error:
            raise self.error(f"{name!r} is damaged: {error}") from None
        if len(result) != size or not inflater.eof:
            raise self.error(f"{name!r} is damaged: its entry declares {size} bytes")
        return result

    def _at(self, start: int, size: int) -> bytes:
        """Bytes of the file before the end of the directory."""
        if start + size > self.end:
            raise self.error("it is truncated or damaged: what its directory names is not there")
        self.file.seek(start)
        data = self.file.read(size)
        if len(data) != size:
            raise self.error("it has become shorter while it was read")
        return data

    def _find_directory(self) -> tuple[int, int, int]:
        """Start, size and number of entries of the directory; sets `end`, where it must end."""
        size = self.end
        tail_start = max(0, size - END.size - MAX_COMMENT)
        tail = self._at(tail_start, size - tail_start)
        position = tail.rfind(TAIL)
        if position < 0 or len(tail) - position < END.size:
            raise self.error("it is truncated, or no zip archive: it has no directory")
        _, disk, first_disk, _, count, length, start, _ = END.unpack_from(tail, position)
        position += tail_start
        if 0xFFFF in (disk, first_disk, count) or 0xFFFFFFFF in (length, start):
            position, disk, first_disk, count, length, start = self._end_64(position)
        if disk or first_disk:
            raise self.error("it is one of several parts of an archive")
        if count > MAX_MEMBERS or count * ENTRY.size > length or start + length > position:
            raise self.error(f"its directory declares {count} entries of {length} bytes, which "
                             "are not there")
        self.end = start + length
        return start, length, count

    def _end_64(self, position: int) -> tuple[int, ...]:
        """What the end of the directory has in 64 bits: its own place, then as above."""
        if position < LOCATOR_64.size:
            raise self.error("the end of its directory is damaged")
        signature, _, where, _ = LOCATOR_64.unpack(
            self._at(position - LOCATOR_64.size, LOCATOR_64.size))
        if signature != b"PK\6\7":
            raise self.error("the end of its directory is damaged")
        signature, *_, disk, first_disk, _, count, length, start = END_64.unpack(
            self._at(where, END_64.size))
        if signature != b"PK\6\6":
            raise self.error("the end of its directory is damaged")
        return where, disk, first_disk, count, length, start


def _entries(data: bytes, count: int, archive: Archive) -> Iterator[tuple[str, Member]]:
    """Names and members of a directory."""
    position = 0
    for _ in range(count):
        if len(data) - position < ENTRY.size:
            raise archive.error("its directory is truncated")
        (signature, _, _, flags, method, _, _, checksum, packed_size, size, name_size, extra_size,
         comment_size, _, _, _, start) = ENTRY.unpack_from(data, position)
        position += ENTRY.size
        name = data[position:position + name_size]
        extra = data[position + name_size:position + name_size + extra_size]
        position += name_size + extra_size + comment_size
        if signature != b"PK\1\2" or position > len(data):
            raise archive.error("its directory is damaged")
        size, packed_size, start = _wide(extra, (size, packed_size, start))
        yield (name.decode("utf-8", "surrogateescape"),
               Member(method, flags, checksum, packed_size, size, start))


def _wide(extra: bytes, values: tuple[int, ...]) -> list[int]:
    """The values, those that 32 bits do not hold from the extra field 1."""
    position, wide = 0, b""
    while len(extra) - position >= 4:
        kind, size = struct.unpack_from("<2H", extra, position)
        if kind == 1:
            wide = extra[position + 4:position + 4 + size]
        position += 4 + size
    numbers = iter(struct.unpack(f"<{len(wide) // 8}Q", wide[:len(wide) // 8 * 8]))
    return [next(numbers, value) if value == 0xFFFFFFFF else value for value in values]


# ---- writing -------------------------------------------------------------------------------------

def packed(members: Iterable[tuple[str, bytes]], alignment: int = 1) -> bytes:
    """An archive of stored members by name: the same bytes for the same members, on every system.

    The data of each begin at a multiple of `alignment`.
    """
    file = io.BytesIO()
    with writing(file) as archive:
        for name, data in members:
            member = zipfile.ZipInfo(name)                 # of 1980
            member.create_system = 3                       # Unix
            if alignment > 1:                              # by an extra field, as PyTorch's
                size = -(file.tell() + LOCAL.size + len(name.encode()) + 4) % alignment
                member.extra = b"FB" + struct.pack("<H", size) + bytes(size)
            archive.writestr(member, data)
    return file.getvalue()
