"""Mutations of model files that keep the outside whole, so that a fuzzer gets to the inside.

Each takes the bytes of an input, a `random.Random` and `havoc`, which changes bytes without knowing
what they mean: the one below, or libFuzzer's own. What does not hold together is left to `havoc`.
"""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from copy import deepcopy
from functools import lru_cache
from random import Random
from typing import Any

Havoc = Callable[[bytes], bytes]

MAX_CONTENT = 2**16                                        # bytes of an archive that is made
INTEGERS = (0, 1, 2, 3, -1, 127, 255, 256, 2**15, 2**16, 2**20, 2**24, 2**31 - 1, 2**31, 2**32 - 1,
            2**32, 2**40, 2**48, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**31), -(2**63))
NAMES = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0", "weight_ih_l0_reverse",
         "weight_hh_l1", "weight_ih", "module.", "../x", "/etc/passwd", "a\nb", "\ud800", "", "0")


def havoc(rng: Random) -> Havoc:
    """Some bytes changed, taken out, put in or repeated."""
    def change(data: bytes) -> bytes:
        result = bytearray(data)
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            at = rng.randrange(len(result) + 1)
            length = rng.choice((1, 1, 2, 4, 8, 16))
            kind = rng.randrange(6)
            if kind == 0:
                result[at:at + 1] = rng.randbytes(1)
            elif kind == 1:
                result[at:at + 1] = bytes(b ^ 1 << rng.randrange(8) for b in result[at:at + 1])
            elif kind == 2:
                del result[at:at + length]
            elif kind == 3:
                result[at:at] = rng.randbytes(length)
            elif kind == 4:
                source = rng.randrange(len(result) + 1)
                result[at:at + length] = result[source:source + length]
            else:
                result[at:at + length] = integer(rng, length)
        return bytes(result)
    return change


def integer(rng: Random, size: int) -> bytes:
    """An integer where sizes and offsets go wrong, of that many bytes."""
    value = rng.choice(INTEGERS) & (1 << 8 * size) - 1
    return value.to_bytes(size, rng.choice(("little", "little", "big")))


def raw(data: bytes, rng: Random, havoc: Havoc) -> bytes:
    """Bytes, whatever they mean."""
    return havoc(data)


def sparse(data: bytes, rng: Random, havoc: Havoc) -> bytes:
    """A file that is mostly zeros, as those of HDF5: bytes near others that mean something."""
    places = [match.span() for match in re.finditer(rb"[^\0]+", data)]
    if not places or rng.random() < 0.1:
        return havoc(data)
    result = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        start, end = rng.choice(places)
        at = rng.randrange(start, end)
        size = rng.choice((1, 1, 1, 2, 4, 8))
        if rng.random() < 0.3:
            size = min(size, len(result) - at)
            result[at:at + size] = integer(rng, size)
        elif rng.random() < 0.3:
            other, stop = rng.choice(places)
            part = bytes(result[other:min(stop, other + 16)])
            result[at:at + len(part)] = part
        else:
            result[at] = rng.choice((rng.randrange(256), result[at] ^ 1 << rng.randrange(8)))
    return bytes(result[:len(data)])


# ---- zip

def zipped(inside: Callable[[str, bytes, Random, Havoc], bytes]) \
        -> Callable[[bytes, Random, Havoc], bytes]:
    """The mutation of a zip file: a member by `inside`, its name, the list of members, its form."""
    def mutate(data: bytes, rng: Random, havoc: Havoc) -> bytes:
        found = list(members(data))
        kind = rng.randrange(12)
        if not found or kind == 0:
            return havoc(data)
        at = rng.randrange(len(found))
        name, content = found[at]
        if kind == 1:
            del found[at]
        elif kind == 2:
            found.insert(rng.randrange(len(found)), found[at])
        elif kind == 3:
            found[at] = (name, found[rng.randrange(len(found))][1])
        elif kind == 4:
            found[at] = (havoc(name.encode(errors="replace")).decode(errors="replace"), content)
        elif kind == 5 and len(content) < 2**10:
            found[at] = (name, content * rng.choice((2, 16, 128)))
        else:
            found[at] = (name, inside(name, content, rng, havoc))
        if sum(len(content) for _, content in found) > MAX_CONTENT:
            return havoc(data)
        return archived(found, rng)
    return mutate


@lru_cache(1000)
def members(data: bytes) -> list[tuple[str, bytes]]:
    """Names and contents of the members of a zip file; none if it is damaged."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return [(i.filename, archive.read(i)) for i in archive.infolist()
                    if i.file_size <= 2**20]
    except Exception:                                      # many kinds, for what a fuzzer wrote
        return []


def archived(members: list[tuple[str, bytes]], rng: Random | None = None) -> bytes:
    """A zip file; with `rng` it may be deflated, and now and then a size, a flag or a CRC lies."""
    def lie(value: int, size: int) -> int:
        if rng is None or rng.random() > 0.003:
            return value
        return int.from_bytes(integer(rng, size), "little")

    deflated = rng is not None and rng.random() < 0.2
    body, directory = bytearray(), bytearray()
    for text, content in members:
        name = text.encode(errors="replace")[:65535]
        packed = content
        if deflated:
            coder = zlib.compressobj(1, zlib.DEFLATED, -15)
            packed = coder.compress(content) + coder.flush()
        common = struct.pack(
            "<HHHHHIIIHH", 20, lie(0x800, 2), lie(8 if deflated else 0, 2), 0, 33,
            lie(zlib.crc32(content), 4), lie(len(packed), 4), lie(len(content), 4),
            len(name), lie(0, 2))
        directory += (b"PK\1\2" + struct.pack("<H", 20) + common
                      + struct.pack("<HHHII", 0, 0, 0, 0, lie(len(body), 4)) + name)
        body += b"PK\3\4" + common + name + packed
    end = struct.pack("<HHHHIIH", 0, 0, lie(len(members), 2), lie(len(members), 2),
                      lie(len(directory), 4), lie(len(body), 4), 0)
    return bytes(body + directory + b"PK\5\6" + end)


# ---- pickles

def _short(text: str) -> bytes:
    raw = text.encode(errors="surrogatepass")
    return pickle.BINUNICODE + struct.pack("<I", len(raw)) + raw


CALLABLES = ("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor",
             "torch._utils _rebuild_parameter", "torch._utils _rebuild_parameter_with_state",
             "torch FloatStorage", "torch DoubleStorage", "torch HalfStorage", "torch LongStorage",
             "torch BFloat16Storage", "torch BoolStorage", "torch.storage UntypedStorage",
             "torch._utils _rebuild_tensor_v3", "torch._tensor _rebuild_from_type_v2",
             "torch uint16", "torch ComplexFloatStorage", "torch Tensor", "builtins complex",
             "builtins bytes", "builtins bytearray", "builtins set", "collections Counter",
             "numpy._core.numeric _frombuffer", "numpy ndarray", "numpy.core.numeric _frombuffer",
             "torch.storage _load_from_bytes", "torch Size", "torch device", "torch float32",
             "torch.nn.modules.rnn GRU", "collections OrderedDict", "collections defaultdict",
             "numpy dtype", "numpy.core.multiarray scalar", "numpy.core.multiarray _reconstruct",
             "_codecs encode", "os system", "posix system", "builtins eval", "builtins exec",
             "builtins getattr", "__builtin__ set", "copy_reg _reconstructor", "a.b c.d", " ")
OPCODES = (
    *(b"c" + name.replace(" ", "\n").encode() + b"\n" for name in CALLABLES),
    *(_short(name.split(" ")[0]) + _short(name.split(" ")[1]) + b"\x93" for name in CALLABLES),
    *(_short(name) for name in NAMES), *(bytes([code]) for code in b"0123()]}.NRQsuaebdolt\x81\x85"
                                         b"\x86\x87\x88\x89\x8f\x90\x91\x92\x93\x94\x97\x98"),
    b"\x80\x02", b"\x80\xff", b"\x95" + bytes(8), b"\x95" + b"\xff" * 8, b"I" + b"9" * 5000 + b"\n",
    b"L" + b"9" * 5000 + b"L\n", b"I01\n", b"F1e999\n", b"Fnan\n", b"G\x7f\xf8" + bytes(6),
    b"\x8b\xff\xff\xff\x7f", b"\x8b\xff\xff\xff\xff", b"r\xff\xff\xff\xff", b"r\0\0\0\x10",
    b"p4294967296\n", b"p-1\n", b"j\xff\xff\xff\xff", b"g99999\n", b"h\0", b"h\1", b"q\0", b"q\1",
    b"\x8d" + b"\xff" * 7 + b"\x7f", b"\x8e" + b"\xff" * 8, b"\x96" + b"\0\0\0\0\1\0\0\0",
    b"B\xff\xff\xff\x7f", b"X\xff\xff\xff\xff", b"T\xff\xff\xff\x7f", b"\x82\1", b"\x84\1\0\0\0",
    b"S'a'\n", b"Va\\ud800\n", b"Pabc\n", b"ios\nsystem\n", b"(" * 2000, b"]" * 2000,
    b"2" * 1000, b"\x86" * 100, b"]q\0h\0a", b"}q\0h\0h\0s", b"(K\1K\2" + b"\x86" + b"2\x86" * 30,
)


def pickled(data: bytes, rng: Random, havoc: Havoc) -> bytes:
    """One or more pickles after each other: opcodes in another order, others, other arguments."""
    opcodes, rest = _opcodes(data)
    opcodes = list(opcodes)
    if not opcodes or rng.random() < 0.1:
        return havoc(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(opcodes))
        kind = rng.randrange(8)
        if kind == 0 and len(opcodes) > 1:
            del opcodes[at:at + rng.choice((1, 1, 2, 8))]
            opcodes = opcodes or [b"."]
        elif kind == 1:
            other = rng.randrange(len(opcodes))
            opcodes[at], opcodes[other] = opcodes[other], opcodes[at]
        elif kind == 2:
            opcodes.insert(at, opcodes[rng.randrange(len(opcodes))])
        elif kind == 3:
            start = rng.randrange(len(opcodes))
            opcodes[at:at] = opcodes[start:start + rng.randrange(2, 20)]
        elif kind == 4:
            opcodes.insert(at, rng.choice(OPCODES))
        elif kind == 5:
            opcodes[at] = rng.choice(OPCODES)
        elif kind == 6:
            opcodes[at] = opcodes[at][:1] + havoc(opcodes[at][1:])
        else:
            numbers = [i for i, code in enumerate(opcodes) if code[:1] in b"KMJ\x8aI"]
            opcodes[rng.choice(numbers or [at])] = _number(rng)
    return b"".join(opcodes) + (rest if rng.random() < 0.9 else havoc(rest))


@lru_cache(1000)
def _opcodes(data: bytes) -> tuple[list[bytes], bytes]:
    """The opcodes of the pickles at the start, each with its argument, and what follows."""
    stream, found, end = io.BytesIO(data), [], 0
    try:
        while end < len(data):
            starts = [at for _, _, at in pickletools.genops(stream) if at is not None]
            stops = [*starts[1:], stream.tell()]
            found += [data[start:stop] for start, stop in zip(starts, stops, strict=True)]
            end = stream.tell()
    except Exception:                                      # of pickletools, for what is none
        pass
    return found, data[end:]


def _number(rng: Random) -> bytes:
    value = rng.choice(INTEGERS) if rng.random() < 0.5 else rng.randrange(40)
    size = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


# ---- .npy

NPY = ("'<f4'", "'<f8'", "'<f2'", "'>f4'", "'|O'", "'<i8'", "'<U7'", "'|S3'", "'|V4'", "'<f16'",
       "'<c8'", "'<M8[ns]'", "'|b1'", "[('a', '<f4')]", "[('a', '<f4', (9999, 9999))]", "''",
       "'f4,f4'", "('<f4', (2,))", "(3, 1)", "()", "(0,)", "(-1,)", "(1e3,)", "(2**40,)", "(True,)",
       "(4294967296, 4294967296)", "(9999999999999999999999,)", "(0, 9999999999999)", "3", "None",
       "True", "False", "'x'", "9" * 5000, "(" * 300, "[" * 300, "-" * 3000, "()" * 99, "{}",
       "1" + "+1" * 999, "'descr'", "'shape'", "'fortran_order'", "(1L,)", "b'<f4'", "\0", "\n")


def npy_file(dtype: str, shape: str, values: bytes) -> bytes:
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + values


def npy(data: bytes, rng: Random, havoc: Havoc) -> bytes:
    """An array of NumPy: its header, with its length made right, or its values."""
    if data[:6] != b"\x93NUMPY" or len(data) < 10 or rng.random() < 0.1:
        return havoc(data)
    end = 10 + struct.unpack("<H", data[8:10])[0]
    header, values = data[10:end], data[end:]
    kind = rng.randrange(8)
    if kind == 0:
        values = havoc(values)
    elif kind == 1:
        header = havoc(header)
    else:
        header = _token(header, rng)
    major = rng.choice((1,) * 20 + (2, 3, 0, 255))
    length = len(header) if rng.random() > 0.02 else rng.choice((0, 65535, 2**20))
    packed = struct.pack("<H" if major == 1 else "<I", min(length, 65535))
    return b"\x93NUMPY" + bytes([major, 0]) + packed + header + values


def _token(header: bytes, rng: Random) -> bytes:
    tokens = list(re.finditer(rb"'[^']*'|\d+|\([^)]*\)|True|False", header))
    if not tokens:
        return rng.choice(NPY).encode()
    token = rng.choice(tokens)
    new = rng.choice(NPY) if rng.random() < 0.6 else str(rng.choice(INTEGERS))
    return header[:token.start()] + new.encode() + header[token.end():]


# ---- JSON

VALUES: tuple[Any, ...] = (
    *INTEGERS, *NAMES, None, True, False, 0.0, -1.5, 1e999, float("nan"), [], {}, [[]], [0, 0],
    [-1, 3], [2**40, 2**40], [None], [True], "tanh", "relu", "sigmoid", "GRU", "F32", "F16", "BF16",
    "__metadata__", "x" * 3000, [1] * 500, "9" * 5000, "true", "1e999", {"a": {"b": {"c": []}}})
TEXTS = (b"9" * 5000, b"[" * 2000, b'{"a":' * 1500, b"1e99999", b"NaN", b"-Infinity", b'"\\ud800"',
         b"\xff", b"\0", b'"\xe2\x80\xa8"', b"-", b"[]" * 20)


def json_text(data: bytes, rng: Random, havoc: Havoc) -> bytes:
    """JSON: one of its values, names or elements, or the text."""
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return havoc(data)
    kind = rng.randrange(10)
    if kind == 0:
        return havoc(data)
    if kind == 1:
        token = rng.choice(list(re.finditer(rb'"[^"]*"|[^\s",:\[\]{}]+|[\[\]{}]', data)))
        return data[:token.start()] + rng.choice(TEXTS) + data[token.end():]
    box = {"": tree}
    for _ in range(rng.choice((1, 1, 2, 3))):
        _graft(box, rng)
    try:
        return json.dumps(box.get("")).encode()
    except (ValueError, RecursionError):                   # a surrogate, a tree too deep
        return havoc(data)


def _graft(box: dict[str, Any], rng: Random) -> None:
    """Change a branch of a tree, found by going down some way."""
    places: list[tuple[Any, Any]] = []
    stack: list[Any] = [box]
    while stack and len(places) < 2000:
        node = stack.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node))
        places += [(node, key) for key in keys]
        stack += [node[key] for key in keys if isinstance(node[key], dict | list)]
    node, key = rng.choice(places)
    kind = rng.randrange(6)
    if kind == 0 and node is not box:
        del node[key]
    elif kind == 1 and isinstance(node, list):
        node.insert(key, node[key])
    elif kind == 2 and isinstance(node, dict) and node is not box:
        node[rng.choice(NAMES)] = node[key]
    elif kind == 3:
        other, name = rng.choice(places)
        if name in other if isinstance(other, dict) else name < len(other):
            node[key] = deepcopy(other[name])
    elif kind == 4 and isinstance(node[key], int):
        node[key] += rng.choice((-1, 1, -node[key], node[key]))
    else:
        node[key] = deepcopy(rng.choice(VALUES))


def json_inside(data: bytes, rng: Random, havoc: Havoc) -> bytes:
    """JSON, or the JSON that is one of its texts."""
    try:
        tree = json.loads(data)
        names = [name for name, text in tree.items() if text[:1] == "{"]
    except (ValueError, RecursionError, AttributeError, TypeError):
        return havoc(data)
    if not names or rng.random() < 0.4:
        return json_text(data, rng, havoc)
    name = rng.choice(names)
    inside = tree[name].encode(errors="replace")
    tree[name] = json_text(inside, rng, havoc).decode(errors="replace")
    return json.dumps(tree).encode()


def with_length(data: bytes, rng: Random, havoc: Havoc) -> bytes:
    """A file of safetensors: the JSON after its length, or the values."""
    end = 8 + int.from_bytes(data[:8], "little")
    if len(data) < 8 or end > len(data) or rng.random() < 0.1:
        return havoc(data)
    header, values = data[8:end], data[end:]
    if rng.random() < 0.1:
        values = havoc(values)
    else:
        header = json_text(header, rng, havoc)
    return len(header).to_bytes(8, "little") + header + values


# ---- Protocol Buffers

def protobuf(data: bytes, rng: Random, havoc: Havoc, depth: int = 0) -> bytes:
    """A message: one of its fields, at any depth, with the lengths around it made right."""
    fields = _fields(data)
    if not fields or rng.random() < 0.1:
        return havoc(data)
    at = rng.randrange(len(fields))
    key, value = fields[at]
    kind = rng.randrange(8)
    if kind == 0:
        del fields[at]
    elif kind == 1:
        fields.insert(at, fields[rng.randrange(len(fields))])
    elif kind == 2:
        fields[at] = (key, fields[rng.randrange(len(fields))][1])
    elif isinstance(value, int):
        fields[at] = (key, rng.choice(INTEGERS) % 2**64 if kind < 5 else max(value + kind - 6, 0))
    elif depth < 8 and _fields(value) and kind > 3:
        fields[at] = (key, protobuf(value, rng, havoc, depth + 1))
    else:
        fields[at] = (key, havoc(value))
    return b"".join(_field(key, value) for key, value in fields)


def _fields(data: bytes) -> list[tuple[int, int | bytes]]:
    """The fields of a message with their keys; none if it is no message."""
    fields: list[tuple[int, int | bytes]] = []
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        if key >> 3 == 0 or key & 7 not in (0, 1, 2, 5):
            return []
        if key & 7 == 0:
            value, at = _varint(data, at)
            fields.append((key, value))
            continue
        size = {1: 8, 5: 4}.get(key & 7, 0)
        if key & 7 == 2:
            size, at = _varint(data, at)
        if at + size > len(data):
            return []
        fields.append((key, data[at:at + size]))
        at += size
    return fields


def _field(key: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _encoded(key & ~7) + _encoded(value)
    if key & 7 in (1, 5) and len(value) in (4, 8):
        return _encoded(key & ~7 | (5 if len(value) == 4 else 1)) + value
    return _encoded(key & ~7 | 2) + _encoded(len(value)) + value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        value |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            return value & 2**64 - 1, at
    return 0, len(data)


def _encoded(value: int) -> bytes:
    result = bytearray()
    while value > 127:
        result.append(value & 127 | 128)
        value >>= 7
    return bytes([*result, value])
