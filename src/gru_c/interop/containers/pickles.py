"""Pickles as `torch.save` writes them: a machine of our own for their opcodes and a list of names.

Nothing is imported or executed: a name stands for an entry of `NAMES` or is an error, and a call
runs a function of pickle_names.py, which checks its arguments. Tensors become a `Tensor`, a place
in a storage, and arrays of NumPy a `NumpyArray`; pt.py makes arrays of them. What nobody
asks for (sets, say) becomes whatever is simple.

A pickle can hold the same object many times, and objects of any depth. So nothing here recurses,
compares or copies what it has not measured, and all that takes memory is held against a `Budget`.

Opcodes: pickletools.py of CPython.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any, NoReturn

from gru_c.interop.containers.pickle_names import BUILD, NAMES
from gru_c.interop.containers.pickled import Function, Storage, StorageType
from gru_c.interop.errors import ModelFileError

if TYPE_CHECKING:
    from gru_c.interop.containers.pickled import Budget

MAX_NAME = 1000                                            # bytes of a module or a name in it
MAX_KEY = 10_000                                           # characters of the key of a dict
MAX_INTEGER = 2**63                                        # of keys, sizes and strides
MAX_AXES = 64                                              # NumPy's
OPCODE_BYTES = 32                                          # charged: a fourth of what one may take
AXES_BYTES = 256                                           # of a shape


class Unpickler:
    """One pickle of a `file`, which has `size` bytes from its position on."""

    def __init__(self, file: IO[bytes], size: int, where: str, budget: Budget) -> None:
        self.file: IO[bytes] = file
        self.left: int = size
        self.where: str = where
        self.budget: Budget = budget
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

    # ---- checks, also for functions that are called

    def key(self, key: Any) -> Any:
        """A key of a dict. Their hashes and comparisons take little time."""
        if type(key) in (str, bytes):
            fine = len(key) <= MAX_KEY
        elif type(key) is int:
            fine = abs(key) <= MAX_INTEGER
        else:
            fine = key is None or type(key) in (float, bool)
        if not fine:
            self.fail(f"a key of a dict is a {type(key).__name__}, expected a short string or a "
                      "number")
        return key

    def natural(self, value: Any) -> int:
        if type(value) is not int or not 0 <= value < MAX_INTEGER:
            self.fail("a size is no natural number of 63 bits")
        return value

    def naturals(self, value: Any) -> tuple[int, ...]:
        """A shape, or strides."""
        self.budget.take(AXES_BYTES)
        if type(value) not in (tuple, list) or len(value) > MAX_AXES:
            self.fail("a shape is no short tuple")
        return tuple(self.natural(number) for number in value)

    def called(self, function: Any, arguments: Any) -> Any:
        if type(function) is not Function:
            self.fail("something that is not a function is called")
        if type(arguments) is not tuple or not function.least <= len(arguments) <= function.most:
            self.fail(f"{function.name} has wrong arguments")
        return function.call(self, arguments)


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
        target[machine.key(key)] = value


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
    machine.stack.append(machine.called(function, arguments))


def _build(machine: Unpickler) -> None:
    state = machine.pop()
    target = machine.top()
    if type(target) is dict and type(state) is dict:
        return                                             # attributes, such as _metadata
    if type(target) not in BUILD:
        machine.fail("the state of an object is set that has none")
    BUILD[type(target)](machine, target, state)


def _persistent(machine: Unpickler) -> None:
    """("storage", type, key, device, size), and in the legacy form a view: (key, offset, size)."""
    value = machine.pop()
    if type(value) is not tuple or len(value) not in (5, 6) or value[0] != "storage":
        machine.fail("something other than a storage is outside the pickle")
    _, kind, key, _, size = value[:5]
    if type(kind) is not StorageType or type(key) is not str:
        machine.fail("a storage has no type or no key")
    size = machine.natural(size)
    storage = Storage(machine.key(key), kind.element, 0, size)
    machine.storages.setdefault(key, storage)
    if len(value) == 6 and value[5] is not None:
        view = value[5]
        if type(view) is not tuple or len(view) != 3:
            machine.fail("the view of a storage is damaged")
        start, view_size = (machine.natural(number) for number in view[1:])
        if start + view_size > size:
            machine.fail(f"storage {key[:100]!r} has {size} elements, a view ends at "
                         f"{start + view_size}")
        storage = Storage(key, kind.element, start, view_size)
    machine.stack.append(storage)


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
