"""What pickles of `torch.save` hold: places in storages, arrays of NumPy, dtypes, functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gru_c.interop.errors import ModelFileError

if TYPE_CHECKING:
    from gru_c._types import Array
    from gru_c.interop.containers.pickles import Unpickler


class Budget:
    """Bytes that a source declares, held against a limit before memory is taken."""

    def __init__(self, where: str, limit: int, what: str) -> None:
        self.where: str = where
        self.limit: int = limit
        self.what: str = what
        self.left: int = limit

    def take(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise ModelFileError(f"{self.where}: {self.what} take more than {self.limit} bytes; "
                                 "raise max_bytes if that is right")


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
        self.stored: np.dtype[Any] = dtype


class NumpyArray:
    """numpy.ndarray: made empty, and filled by BUILD."""

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = (0,)
        self.stored: np.dtype[Any] = np.dtype(np.uint8)
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


# ---- dtypes by PyTorch's names -------------------------------------------------------------------

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
