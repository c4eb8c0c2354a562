"""The names that a pickle of `torch.save` may hold, and what is called in their place.

A function gets the machine, for its checks and its budget, and the arguments from the pickle: any
objects of it, of any size. It checks their types before anything else, and does not recurse.
Names: torch/_weights_only_unpickler.py, torch/_utils.py, and __reduce__ of NumPy's classes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gru_c.interop.containers.pickled import (
    BYTE,
    ELEMENTS,
    STORAGES,
    ElementType,
    Function,
    Name,
    NumpyArray,
    NumpyDtype,
    Storage,
    StorageType,
    Tensor,
)

if TYPE_CHECKING:
    from gru_c.interop.containers.pickles import Unpickler

PAIR_BYTES = 32                                            # charged for a pair of an OrderedDict
MAX_PARTS = 1000                                           # of a path
MAX_ARRAY = 2**63                                          # bytes


# ---- containers and values of Python -------------------------------------------------------------

def _dict(machine: Unpickler, arguments: tuple[Any, ...]) -> dict[Any, Any]:
    """OrderedDict, of pairs in Python 2; and Counter, of a dict."""
    given = arguments[0] if arguments else []
    if type(given) is dict:
        return given
    if type(given) is not list:
        machine.fail("an OrderedDict is made of something other than pairs")
    machine.budget.take(PAIR_BYTES * len(given))           # before anything of that length
    if not all(type(pair) in (tuple, list) and len(pair) == 2 for pair in given):
        machine.fail("an OrderedDict is made of something other than pairs")
    return {machine.key(key): value for key, value in given}


def _same(machine: Unpickler, arguments: tuple[Any, ...]) -> Any:
    """What a set, a bytearray or a size is made of, in place of it."""
    return arguments[0] if arguments else ()


def _empty(machine: Unpickler, arguments: tuple[Any, ...]) -> dict[Any, Any]:
    """A defaultdict, which gets items; a Namespace, whose attributes nobody asks for."""
    return {}


def _arguments(machine: Unpickler, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The parts of a path."""
    return arguments


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


# ---- PyTorch -------------------------------------------------------------------------------------

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
    offset = machine.natural(arguments[1])
    shape, strides = (machine.naturals(value) for value in arguments[2:4])
    if len(shape) != len(strides):
        machine.fail(f"a tensor has {len(shape)} axes and {len(strides)} strides")
    if math.prod(n for n in shape if n) * element.stored.itemsize >= MAX_ARRAY:
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
    return machine.called(function, given)


REBUILD = (
    Function("torch._utils._rebuild_tensor", 4, 4, _tensor),
    Function("torch._utils._rebuild_tensor_v2", 6, 7, _tensor),
    Function("torch._utils._rebuild_tensor_v3", 7, 8, _tensor_v3),
    Function("torch._utils._rebuild_parameter", 3, 3, _parameter),
    Function("torch._utils._rebuild_parameter_with_state", 4, 4, _parameter),
)


# ---- NumPy ---------------------------------------------------------------------------------------

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
    shape, data = machine.naturals(shape), _latin_1(machine, data)
    declared = math.prod(shape) * dtype.stored.itemsize
    if declared != len(data) or math.prod(n for n in shape if n) >= MAX_ARRAY // 16:
        machine.fail(f"an array of NumPy declares {declared} bytes and has {len(data)}")
    target.shape, target.stored, target.order, target.data = shape, dtype.stored, order, data
    return target


# ---- the names -----------------------------------------------------------------------------------

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
        Function("collections.defaultdict", 0, 1, _empty),
        Function("argparse.Namespace", 0, 0, _empty),
        *(Function(f"pathlib.{kind}Path", 0, MAX_PARTS, _arguments)
          for kind in ("Posix", "Windows", "PurePosix", "PureWindows")),
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
                                     "torch.nn.parameter.Parameter", "builtins.dict",
                                     "builtins.float", "builtins.int", "builtins.list",
                                     "builtins.long")},
}

# What sets the state of an object, by its type.
BUILD: dict[type[Any], Callable[[Unpickler, Any, Any], None]] = {
    NumpyDtype: _build_dtype, NumpyArray: _build_array}
