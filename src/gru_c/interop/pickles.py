"""Pickles as `torch.save` writes them: a machine of our own for their opcodes and a list of names.

Nothing is imported or executed: a name stands for an entry of `NAMES` or is an error, and a call
runs a function of this file, which checks its arguments. Tensors become a `Tensor`, a place in a
storage, and arrays of NumPy a `NumpyArray`; `torch_files` makes arrays of them. What nobody asks
for (sets, say) becomes whatever is simple.

A pickle can hold the same object many times, and objects of any depth. So nothing here recurses,
compares or copies what it has not measured, and all that takes memory is held against a `Budget`.

Opcodes: pickletools.py of CPython. Names: torch/_weights_only_unpickler.py, torch/_utils.py.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np

from gru_c.interop.errors import ModelFileError

if TYPE_CHECKING:
    from gru_c._types import Array

MAX_NAME = 1000                                            # bytes of a module or a name in it
MAX_KEY = 10_000                                           # characters of the key of a dict
MAX_INTEGER = 2**63                                        # of keys, sizes and strides
MAX_AXES = 64                                              # NumPy's
OPCODE_BYTES = 32                                          # charged: a fourth of what one may take
PAIR_BYTES = 32
AXES_BYTES = 256                                           # of a shape


class Budget:
    """Bytes that a source declares, held against a limit before memory is taken."""

    def __init__(self, where: str, limit: int, what: str) -> None:
        self.where, self.limit, self.what, self.left = where, limit, what, limit

    def take(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise ModelFileError(f"{self.where}: {self.what} take more than {self.limit} bytes; "
                                 "raise max_bytes if that is right")


# ---- what pickles hold ---------------------------------------------------------------------------

@dataclass(frozen=True, eq=False)
class ElementType:
    """A dtype of PyTorch: `stored` as in the file, but in this machine's byte order."""

    name: str
    stored: np.dtype[Any]
    dtype: np.dtype[Any]                                   # of the array: float32 for bfloat16


@dataclass(frozen=True, eq=False)
class StorageType:
    element: ElementType


@dataclass(frozen=True, eq=False)
class Function:
    """What a pickle may call, with `least` to `most` arguments."""

    name: str
    least: int
    most: int
    call: Callable[[Unpickler, tuple[Any, ...]], Any]


@dataclass(frozen=True, eq=False)
class Name:
    """A class that may be named, but not called."""

    name: str


@dataclass(frozen=True, eq=False, slots=True)
class Storage:
    """Elements of a buffer outside the pickle, beginning with `start`."""

    key: str
    element: ElementType
    start: int
    size: int


@dataclass(frozen=True, eq=False, slots=True)
class Tensor:
    """A place in a storage; offset and strides in elements of `element`."""

    storage: Storage
    element: ElementType
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    conjugate: bool = False
    negative: bool = False

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.element.dtype

    @property
    def nbytes(self) -> int:
        """As declared."""
        return math.prod(self.shape) * self.element.stored.itemsize


class NumpyDtype:
    """numpy.dtype: made without byte order, which BUILD sets."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.stored = dtype


class NumpyArray:
    """numpy.ndarray: made empty, and filled by BUILD."""

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = (0,)
        self.stored = np.dtype(np.uint8)
        self.order: Literal["C", "F"] = "C"
        self.data = b""

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.stored.newbyteorder("=")

    @property
    def nbytes(self) -> int:
        return len(self.data)

    def array(self) -> Array:
        if self.dtype == np.bool_:                         # of bytes that need not be 0 or 1
            flat: Array = np.frombuffer(self.data, np.uint8) != 0
        else:
            flat = np.frombuffer(self.data, self.stored).astype(self.dtype, copy=False)
        return flat.reshape(self.shape, order=self.order)


# ---- the machine ---------------------------------------------------------------------------------

class Unpickler:
    """One pickle of a `file`, which has `size` bytes from its position on."""

    def __init__(self, file: IO[bytes], size: int, where: str, budget: Budget) -> None:
        self.file, self.left, self.where, self.budget = file, size, where, budget
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}             # the first that was named with a key

    def load(self) -> Any:
        """The object; the file stands after it."""
        while (opcode := self.take(1)) != b".":
            self.budget.take(OPCODE_BYTES)
            act = OPCODES.get(opcode)
            if act is None:
                self.fail(f"opcode {opcode!r} is none that PyTorch writes")
            act(self)
        if len(self.stack) != 1 or self.marks:
            self.fail("it ends with objects left over")
        return self.stack[0]

    def fail(self, text: str) -> NoReturn:
        raise ModelFileError(f"{self.where}: its pickle is damaged or none of PyTorch: {text}")

    def take(self, size: int) -> bytes:
        if not 0 <= size <= self.left:
            self.fail("it is truncated")
        self.budget.take(size)
        data = self.file.read(size)
        if len(data) != size:
            self.fail("it has become shorter while it was read")
        self.left -= size
        return data

    def number(self, form: struct.Struct) -> Any:
        return form.unpack(self.take(form.size))[0]

    def text(self, size: int, encoding: str) -> str:
        try:
            return str(self.take(size), encoding, "surrogatepass")
        except UnicodeDecodeError:
            self.fail("a string is not in UTF-8")

    def line(self) -> str:
        data = self.file.readline(min(MAX_NAME, self.left))
        self.left -= len(data)
        if not data.endswith(b"\n"):
            self.fail("a name has no end")
        return str(data[:-1], "utf-8", "replace")

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            self.fail("an object is missing")
        return self.stack.pop()

    def top(self) -> Any:
        """The object on top, which stays."""
        self.stack.append(value := self.pop())
        return value

    def popped(self, count: int) -> list[Any]:
        """The last objects, the oldest first."""
        return [self.pop() for _ in range(count)][::-1]

    def to_mark(self) -> list[Any]:
        """All objects since the last mark."""
        if not self.marks:
            self.fail("a mark is missing")
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values


def _put(machine: Unpickler, index: int) -> None:
    machine.memo[index] = machine.top()


def _get(machine: Unpickler, index: int) -> None:
    if index not in machine.memo:
        machine.fail(f"no object has number {index}")
    machine.stack.append(machine.memo[index])


def _long(machine: Unpickler, size: int) -> None:
    machine.stack.append(int.from_bytes(machine.take(size), "little", signed=True))


def _bytes(machine: Unpickler, size: int) -> None:
    machine.stack.append(machine.take(size))


def _extend(machine: Unpickler, values: list[Any]) -> None:
    target = machine.top()
    if type(target) is not list:
        machine.fail("something that is not a list is appended to")
    target.extend(values)


def _set_items(machine: Unpickler, values: list[Any]) -> None:
    target = machine.top()
    if type(target) is not dict:
        machine.fail("something that is not a dict gets items")
    if len(values) % 2:
        machine.fail("a key has no value")
    for key, value in zip(values[::2], values[1::2], strict=True):
        target[_key(machine, key)] = value


def _key(machine: Unpickler, key: Any) -> Any:
    """A key of a dict. Their hashes and comparisons take little time."""
    if type(key) in (str, bytes):
        fine = len(key) <= MAX_KEY
    elif type(key) is int:
        fine = abs(key) <= MAX_INTEGER
    else:
        fine = key is None or type(key) in (float, bool)
    if not fine:
        machine.fail(f"a key of a dict is a {type(key).__name__}, expected a short string or a "
                     "number")
    return key


def _global(machine: Unpickler, module: Any, name: Any) -> None:
    if type(module) is not str or type(name) is not str or len(module) + len(name) > 2 * MAX_NAME:
        machine.fail("a name is no string")
    module = {"__builtin__": "builtins"}.get(module, module)
    full = f"{module}.{name}"
    if full not in NAMES:
        shown = full if full.isprintable() and len(full) < 100 else repr(full)[:100]
        raise ModelFileError(
            f"{machine.where}: it holds {shown}, which is not read: only tensors, arrays, numbers, "
            "strings and containers of them are; of a model, save its state_dict()")
    machine.stack.append(NAMES[full])


def _stack_global(machine: Unpickler) -> None:
    _global(machine, *machine.popped(2))


def _reduce(machine: Unpickler) -> None:
    function, arguments = machine.popped(2)
    machine.stack.append(_called(machine, function, arguments))


def _called(machine: Unpickler, function: Any, arguments: Any) -> Any:
    if type(function) is not Function:
        machine.fail("something that is not a function is called")
    if type(arguments) is not tuple or not function.least <= len(arguments) <= function.most:
        machine.fail(f"{function.name} has wrong arguments")
    return function.call(machine, arguments)


def _build(machine: Unpickler) -> None:
    state = machine.pop()
    target = machine.top()
    if type(target) is dict and type(state) is dict:
        return                                             # attributes, such as _metadata
    if type(target) is NumpyDtype:
        _build_dtype(machine, target, state)
    elif type(target) is NumpyArray:
        _build_array(machine, target, state)
    else:
        machine.fail("the state of an object is set that has none")


def _persistent(machine: Unpickler) -> None:
    """("storage", type, key, device, size), and in the legacy form a view: (key, offset, size)."""
    value = machine.pop()
    if type(value) is not tuple or len(value) not in (5, 6) or value[0] != "storage":
        machine.fail("something other than a storage is outside the pickle")
    _, kind, key, _, size = value[:5]
    if type(kind) is not StorageType or type(key) is not str:
        machine.fail("a storage has no type or no key")
    size = _natural(machine, size)
    storage = Storage(_key(machine, key), kind.element, 0, size)
    machine.storages.setdefault(key, storage)
    if len(value) == 6 and value[5] is not None:
        view = value[5]
        if type(view) is not tuple or len(view) != 3:
            machine.fail("the view of a storage is damaged")
        start, view_size = (_natural(machine, number) for number in view[1:])
        if start + view_size > size:
            machine.fail(f"storage {key[:100]!r} has {size} elements, a view ends at "
                         f"{start + view_size}")
        storage = Storage(key, kind.element, start, view_size)
    machine.stack.append(storage)


def _natural(machine: Unpickler, value: Any) -> int:
    if type(value) is not int or not 0 <= value < MAX_INTEGER:
        machine.fail("a size is no natural number of 63 bits")
    return value


def _naturals(machine: Unpickler, value: Any) -> tuple[int, ...]:
    """A shape, or strides."""
    machine.budget.take(AXES_BYTES)
    if type(value) not in (tuple, list) or len(value) > MAX_AXES:
        machine.fail("a shape is no short tuple")
    return tuple(_natural(machine, number) for number in value)


def _protocol(machine: Unpickler, version: int) -> None:
    if version > 5:
        machine.fail(f"it is of protocol {version}, expected 5 at most")


Action = Callable[[Unpickler], None]


def _pushing(value: Callable[[Unpickler], Any]) -> Action:
    return lambda machine: machine.stack.append(value(machine))


def _sized(act: Callable[[Unpickler, Any], None], form: str) -> Action:
    """An opcode with a number after it."""
    own = struct.Struct(form)
    return lambda machine: act(machine, machine.number(own))


def _text(machine: Unpickler, size: int) -> None:
    machine.stack.append(machine.text(size, "utf-8"))


def _old_text(machine: Unpickler, size: int) -> None:
    machine.stack.append(machine.text(size, "latin-1"))     # of Python 2, also for bytes


def _push(machine: Unpickler, value: Any) -> None:
    machine.stack.append(value)


OPCODES: dict[bytes, Action] = {
    b"\x80": _sized(_protocol, "<B"),
    b"\x95": _sized(lambda machine, size: None, "<Q"),      # a frame begins
    b"(": lambda machine: machine.marks.append(len(machine.stack)),
    b"N": _pushing(lambda machine: None),
    b"\x88": _pushing(lambda machine: True),
    b"\x89": _pushing(lambda machine: False),
    b"K": _sized(_push, "<B"), b"M": _sized(_push, "<H"), b"J": _sized(_push, "<i"),
    b"G": _sized(_push, ">d"),
    b"\x8a": _sized(_long, "<B"), b"\x8b": _sized(_long, "<i"),
    b"X": _sized(_text, "<I"), b"\x8c": _sized(_text, "<B"), b"\x8d": _sized(_text, "<Q"),
    b"U": _sized(_old_text, "<B"), b"T": _sized(_old_text, "<i"),
    b"C": _sized(_bytes, "<B"), b"B": _sized(_bytes, "<I"), b"\x8e": _sized(_bytes, "<Q"),
    b"\x96": _sized(_bytes, "<Q"),                          # a bytearray
    b")": _pushing(lambda machine: ()),
    b"\x85": _pushing(lambda machine: tuple(machine.popped(1))),
    b"\x86": _pushing(lambda machine: tuple(machine.popped(2))),
    b"\x87": _pushing(lambda machine: tuple(machine.popped(3))),
    b"t": _pushing(lambda machine: tuple(machine.to_mark())),
    b"]": _pushing(lambda machine: []),
    b"a": lambda machine: _extend(machine, machine.popped(1)),
    b"e": lambda machine: _extend(machine, machine.to_mark()),
    b"\x8f": _pushing(lambda machine: []),                  # a set
    b"\x90": lambda machine: _extend(machine, machine.to_mark()),
    b"\x91": _pushing(lambda machine: machine.to_mark()),   # a frozenset
    b"}": _pushing(lambda machine: {}),
    b"s": lambda machine: _set_items(machine, machine.popped(2)),
    b"u": lambda machine: _set_items(machine, machine.to_mark()),
    b"q": _sized(_put, "<B"), b"r": _sized(_put, "<I"),
    b"\x94": lambda machine: _put(machine, len(machine.memo)),
    b"h": _sized(_get, "<B"), b"j": _sized(_get, "<I"),
    b"c": lambda machine: _global(machine, machine.line(), machine.line()),
    b"\x93": _stack_global,
    b"R": _reduce,
    b"b": _build,
    b"Q": _persistent,
}


# ---- names: containers and values of Python ------------------------------------------------------

def _dict(machine: Unpickler, arguments: tuple[Any, ...]) -> dict[Any, Any]:
    """OrderedDict, of pairs in Python 2; and Counter, of a dict."""
    given = arguments[0] if arguments else []
    if type(given) is dict:
        return given
    if type(given) is not list or not all(type(pair) in (tuple, list) and len(pair) == 2
                                          for pair in given):
        machine.fail("an OrderedDict is made of something other than pairs")
    machine.budget.take(PAIR_BYTES * len(given))
    return {_key(machine, key): value for key, value in given}


def _same(machine: Unpickler, arguments: tuple[Any, ...]) -> Any:
    """What a set, a bytearray or a size is made of, in place of it."""
    return arguments[0] if arguments else ()


def _no_bytes(machine: Unpickler, arguments: tuple[Any, ...]) -> bytes:
    return b""


def _complex(machine: Unpickler, arguments: tuple[Any, ...]) -> complex:
    if not all(type(part) is float for part in arguments):
        machine.fail("a complex number is made of something other than numbers")
    return complex(*arguments)


def _encode(machine: Unpickler, arguments: tuple[Any, ...]) -> bytes:
    """The bytes of a string in Latin-1, which is how bytes are written in protocol 2."""
    text, encoding = arguments
    if encoding not in ("latin1", "latin-1"):
        machine.fail("bytes are encoded otherwise than in Latin-1")
    return _latin_1(machine, text)


def _latin_1(machine: Unpickler, value: Any) -> bytes:
    if type(value) is bytes:
        return value
    if type(value) is not str:
        machine.fail("bytes are missing")
    machine.budget.take(len(value))
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        machine.fail("bytes are no Latin-1")


# ---- names: PyTorch ------------------------------------------------------------------------------

def _tensor(machine: Unpickler, arguments: tuple[Any, ...]) -> Tensor:
    """(storage, offset, shape, strides), and in v2 (requires_grad, hooks, metadata or nothing)."""
    return _placed(machine, arguments, None, arguments[6] if len(arguments) > 6 else None)


def _tensor_v3(machine: Unpickler, arguments: tuple[Any, ...]) -> Tensor:
    """With the dtype after the hooks; the storage has none."""
    element = arguments[6]
    if type(element) is not ElementType:
        machine.fail("a tensor has no dtype")
    return _placed(machine, arguments, element, arguments[7] if len(arguments) > 7 else None)


def _placed(machine: Unpickler, arguments: tuple[Any, ...], element: ElementType | None,
            metadata: Any) -> Tensor:
    storage = arguments[0]
    if type(storage) is not Storage:
        machine.fail("a tensor has no storage")
    if metadata is not None and type(metadata) is not dict:
        machine.fail("the metadata of a tensor is no dict")
    element = element or storage.element
    offset = _natural(machine, arguments[1])
    shape, strides = (_naturals(machine, value) for value in arguments[2:4])
    if len(shape) != len(strides):
        machine.fail(f"a tensor has {len(shape)} axes and {len(strides)} strides")
    if math.prod(n for n in shape if n) * element.stored.itemsize >= MAX_INTEGER:
        machine.fail("a tensor is too large for any machine")
    strides = tuple(step if n > 1 else 0 for n, step in zip(shape, strides, strict=True))
    end = offset + 1 + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    there = storage.size * storage.element.stored.itemsize // element.stored.itemsize
    if 0 not in shape and end > there:
        machine.fail(f"a tensor of shape {shape} ends at element {end} of a storage of {there}")
    flags = {} if metadata is None else metadata
    return Tensor(storage, element, offset, shape, strides, flags.get("conj") is True,
                  flags.get("neg") is True)


def _parameter(machine: Unpickler, arguments: tuple[Any, ...]) -> Any:
    if type(arguments[0]) not in (Tensor, NumpyArray):
        machine.fail("a parameter has no tensor")
    return arguments[0]


def _from_type(machine: Unpickler, arguments: tuple[Any, ...]) -> Any:
    """A tensor that has attributes: (function, class, arguments, attributes)."""
    function, kind, given, _ = arguments
    if function not in REBUILD or type(kind) is not Name:  # not itself: nothing recurses
        machine.fail("a tensor is made by no function of tensors")
    return _called(machine, function, given)


REBUILD = (
    Function("torch._utils._rebuild_tensor", 4, 4, _tensor),
    Function("torch._utils._rebuild_tensor_v2", 6, 7, _tensor),
    Function("torch._utils._rebuild_tensor_v3", 7, 8, _tensor_v3),
    Function("torch._utils._rebuild_parameter", 3, 3, _parameter),
    Function("torch._utils._rebuild_parameter_with_state", 4, 4, _parameter),
)


# ---- names: NumPy --------------------------------------------------------------------------------

def _numpy_dtype(machine: Unpickler, arguments: tuple[Any, ...]) -> NumpyDtype:
    code = arguments[0]
    if type(code) is not str or not re.fullmatch("b1|[iu][1248]|f[248]|c8|c16", code):
        shown = code[:20] if type(code) is str else type(code).__name__
        machine.fail(f"an array has NumPy's dtype {shown!r}, which is not read")
    return NumpyDtype(np.dtype(code))


def _build_dtype(machine: Unpickler, target: NumpyDtype, state: Any) -> None:
    if type(state) is not tuple or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
        machine.fail("a dtype of NumPy has no byte order")
    target.stored = target.stored.newbyteorder(state[1])


def _numpy_scalar(machine: Unpickler, arguments: tuple[Any, ...]) -> Any:
    array = _filled(machine, NumpyArray(), (), *arguments)
    return array.array().item()


def _empty_array(machine: Unpickler, arguments: tuple[Any, ...]) -> NumpyArray:
    return NumpyArray()                                    # of the class ndarray or a damaged one


def _build_array(machine: Unpickler, target: NumpyArray, state: Any) -> None:
    """(version, shape, dtype, whether in Fortran's order, data)"""
    if type(state) is not tuple or len(state) != 5:
        machine.fail("an array of NumPy is damaged")
    _, shape, dtype, fortran, data = state
    _filled(machine, target, shape, dtype, data, "F" if fortran is True else "C")


def _numpy_buffer(machine: Unpickler, arguments: tuple[Any, ...]) -> NumpyArray:
    """(data, dtype, shape, order), in protocol 5."""
    data, dtype, shape, order = arguments
    return _filled(machine, NumpyArray(), shape, dtype, data, "F" if order == "F" else "C")


def _filled(machine: Unpickler, target: NumpyArray, shape: Any, dtype: Any, data: Any,
            order: Literal["C", "F"] = "C") -> NumpyArray:
    if type(dtype) is not NumpyDtype:
        machine.fail("an array of NumPy has no dtype")
    shape, data = _naturals(machine, shape), _latin_1(machine, data)
    declared = math.prod(shape) * dtype.stored.itemsize
    if declared != len(data) or math.prod(n for n in shape if n) >= MAX_INTEGER // 16:
        machine.fail(f"an array of NumPy declares {declared} bytes and has {len(data)}")
    target.shape, target.stored, target.order, target.data = shape, dtype.stored, order, data
    return target


# ---- the names -----------------------------------------------------------------------------------

def _element(name: str, dtype: Any, result: Any = None) -> ElementType:
    return ElementType(name, np.dtype(dtype), np.dtype(dtype if result is None else result))


BOOL = _element("bool", np.uint8, np.bool_)
BFLOAT16 = _element("bfloat16", np.uint16, np.float32)
BYTE = _element("uint8", np.uint8)

STORAGES = {
    "DoubleStorage": _element("float64", np.float64),
    "FloatStorage": _element("float32", np.float32),
    "HalfStorage": _element("float16", np.float16),
    "BFloat16Storage": BFLOAT16,
    "LongStorage": _element("int64", np.int64),
    "IntStorage": _element("int32", np.int32),
    "ShortStorage": _element("int16", np.int16),
    "CharStorage": _element("int8", np.int8),
    "ByteStorage": BYTE,
    "BoolStorage": BOOL,
    "ComplexFloatStorage": _element("complex64", np.complex64),
    "ComplexDoubleStorage": _element("complex128", np.complex128),
}
ELEMENTS = [*STORAGES.values(), *(_element(name, name) for name in ("uint16", "uint32", "uint64"))]

NAMES: dict[str, Any] = {
    **{f"torch.{name}": StorageType(element) for name, element in STORAGES.items()},
    "torch.storage.UntypedStorage": StorageType(BYTE),
    **{f"torch.{element.name}": element for element in ELEMENTS},
    **{function.name: function for function in REBUILD},
    **{function.name: function for function in (
        Function("torch._tensor._rebuild_from_type_v2", 4, 4, _from_type),
        Function("torch.Size", 1, 1, _same),
        Function("torch.device", 1, 2, _same),
        Function("collections.OrderedDict", 0, 1, _dict),
        Function("collections.Counter", 0, 1, _dict),
        Function("builtins.set", 1, 1, _same),
        Function("builtins.bytearray", 0, 2, _same),
        Function("builtins.bytes", 0, 0, _no_bytes),
        Function("builtins.complex", 2, 2, _complex),
        Function("_codecs.encode", 2, 2, _encode),
        Function("numpy.dtype", 1, 3, _numpy_dtype),
        *(Function(f"numpy.{core}.{name}", least, most, call) for core in ("core", "_core")
          for name, least, most, call in (
              ("multiarray.scalar", 2, 2, _numpy_scalar),
              ("multiarray._reconstruct", 3, 3, _empty_array),
              ("numeric._frombuffer", 4, 4, _numpy_buffer))))},
    **{name: Name(name) for name in ("numpy.ndarray", "torch.Tensor",
                                     "torch.nn.parameter.Parameter")},
}
