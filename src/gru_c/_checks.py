"""What an argument must be. All errors of the package come from here or from its callers.

Messages use PyTorch's words where PyTorch has words for the case, and add what arrived.
"""

import math
import numbers
import operator

import numpy as np

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))
MOST_BYTES = 2**47                                         # the address space of a process


def size(value, name: str) -> int:
    """A positive integer."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        value = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} should be of type int, got: {type(value).__name__}") from None
    if value < 1:
        raise ValueError(f"{name} must be greater than zero, got {_short(value)}")
    return value


def model_size(inputs: int, hidden: int, layers: int, dtype: np.dtype) -> None:
    """Refuse a model whose parameters no machine can hold, before anything is allocated."""
    weights = 3 * hidden * (inputs + hidden + (layers - 1) * 2 * hidden)
    if weights * dtype.itemsize > MOST_BYTES:
        raise ValueError(
            f"the model is too large: input_size={_short(inputs)}, hidden_size={_short(hidden)} "
            f"and num_layers={_short(layers)} make {_short(weights)} weights")


def _short(number: int) -> str:
    """A number that may have thousands of digits."""
    if abs(number) < 10**15:
        return str(number)
    return f"{'-' if number < 0 else ''}10**{math.log10(abs(number)):.0f} or so"


def is_zero(value) -> bool:
    """Whether `value` is the number 0, of Python or NumPy."""
    if isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in "biuf":
        value = value[()]
    return isinstance(value, (numbers.Real, np.bool_)) and bool(value == 0)


def flag(value, name: str) -> bool:
    """A bool, so that a dtype or a number in the wrong place is noticed."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} should be of type bool, got: {type(value).__name__}")
    return bool(value)


def model_dtype(value) -> np.dtype:
    """float32 or float64, native byte order."""
    if value is None:                                      # NumPy reads it as float64
        raise TypeError("dtype must be float32 or float64, got None")
    try:
        dtype = np.dtype(value)
    except (TypeError, ValueError):                        # NumPy's words may not name the value
        raise TypeError(f"dtype must be float32 or float64, got {value!r}") from None
    if dtype not in DTYPES:
        raise TypeError(f"dtype must be float32 or float64, got {dtype}")
    return dtype


def generator(rng) -> np.random.Generator:
    """np.random.default_rng, with the argument's name in the error."""
    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError) as error:
        raise type(error)(f"rng must be None, an integer or a Generator: {error}") from None


def array(value, name: str, dtype: np.dtype) -> np.ndarray:
    """`value` as an array of the model's dtype, without a cast that could lose anything silently.

    Integers, bools and Python numbers and lists convert; an array of another floating dtype does
    not. The result is `value` itself where nothing had to change.
    """
    if type(value) is np.ndarray and (value.dtype is dtype or value.dtype == dtype):
        return value
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array; fill it first, the mask would be lost")
    try:
        result = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} is no array: {error}") from None
    numeric = result.dtype.kind in "biufc"                 # others may have no byte order
    native = result.dtype.newbyteorder("=") if numeric else result.dtype
    plain = native.kind == "f" and _is_numbers(value)
    if not (native == dtype or plain or native.kind in "biu"):
        advice = f", or make the model with dtype={native}" if native in DTYPES else ""
        raise TypeError(f"{name} dtype ({result.dtype}) does not match weight dtype ({dtype}). "
                        f"Convert {name}{advice}")
    return result.astype(dtype, copy=False)


def _is_numbers(value) -> bool:
    """Python numbers, or lists of them: no array that has a dtype of its own."""
    if isinstance(value, (list, tuple)):
        return all(map(_is_numbers, value))
    return isinstance(value, numbers.Real)


def rows(a: np.ndarray | None) -> np.ndarray | None:
    """`a`, copied unless aligned and with adjoining elements in its last axis; None stays None."""
    if a is None:
        return None
    adjoin = a.shape[-1] == 1 or a.strides[-1] == a.itemsize
    if adjoin and a.flags.aligned and all(stride % a.itemsize == 0 for stride in a.strides):
        return a
    return np.array(a, order="C")


def contiguous(a: np.ndarray) -> np.ndarray:
    """`a`, copied unless it is aligned and in C order."""
    return a if a.flags.c_contiguous and a.flags.aligned else np.array(a, order="C")


def shape(a: np.ndarray, expected: tuple, name: str) -> None:
    """Refuse any other shape: nothing is broadcast."""
    if a.shape != expected:
        raise ValueError(f"{name} has shape {a.shape}, expected {expected}")


def output(out, expected: tuple, dtype: np.dtype) -> None:
    """`out=` must be an array that can take the result as it is."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a numpy array, got {type(out).__name__}")
    if isinstance(out, np.ma.MaskedArray):
        raise TypeError("out is a masked array; its masked elements would be written, too")
    if out.dtype != dtype:
        raise TypeError(f"out dtype ({out.dtype}) does not match weight dtype ({dtype})")
    shape(out, expected, "out")
    if not out.flags.writeable:
        raise ValueError("out is read-only")
